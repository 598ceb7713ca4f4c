"""Floods, slow readers, and other clients beside us."""

from __future__ import annotations

import hashlib
import time

import pytest
import trio

import tmuxcc
from tmuxcc.protocol import TmuxVersion
from tmuxcc.protocol.versions import has_hazard

from .helpers import OtherClient, Server, client_pids, flood, read_to_end, shell, until

pytestmark = pytest.mark.tmux


async def start_flood(client: tmuxcc.Client, byte: str = "y") -> tmuxcc.Pane:
    pane = client.pane((await client.new_window(argv=flood(byte))).pane_id)
    assert (await pane.wait_for(byte * 3, since=0)).outcome in ("matched", "gap")
    return pane


def kept_bytes(client: tmuxcc.Client, pane: tmuxcc.Pane) -> int:
    """What is held of a pane, everything counted."""
    return client._panes.log(pane.pane_id)._size


async def test_a_reader_that_sleeps_beside_a_flood_costs_bounded_memory_and_others_nothing(
    server: Server,
) -> None:
    async with server.client(history=100_000) as client:
        pane = await start_flood(client)
        async with pane.output() as stream:
            first = await stream.receive()
            assert isinstance(first, (tmuxcc.Chunk, tmuxcc.Gap))
            end = first.offset
            start = client.statistics().output_bytes
            echo = client.pane((await client.new_window(argv=["cat"])).pane_id)
            number = 0
            while client.statistics().output_bytes < start + 10_000_000:
                number += 1
                await echo.send_keys(f"line {number}", "Enter")
                assert (await echo.wait_for(f"^line {number}$", echo=True)).outcome == "matched"
                assert kept_bytes(client, pane) <= 2 * 100_000 + 100_000
            gap = await stream.receive()
            while isinstance(gap, tmuxcc.Chunk):
                end = gap.offset + len(gap.data)
                gap = await stream.receive()
            chunk = await stream.receive()
        assert number > 0
        assert isinstance(gap, tmuxcc.Gap)
        assert isinstance(chunk, tmuxcc.Chunk)
        assert gap.cause == "overflow"
        assert gap.size == chunk.offset - gap.offset > 1_000_000
        assert stream.dropped == gap.size
        assert end <= gap.offset


async def test_a_spool_loses_nothing_of_a_counted_flood(server: Server) -> None:
    total = 1_500_000
    expected = hashlib.sha256()
    for number in range(1, total + 1):
        expected.update(b"%d\r\n" % number)
    async with server.client(history=50_000) as client:
        made = await client.new_window(argv=shell(f"printf ready; read x; seq {total}"))
        pane = client.pane(made.pane_id)
        assert await pane.wait_for("ready", since=0)
        await client.command("send-keys", "-t", pane.pane_id, "Enter")
        found = hashlib.sha256()
        async with pane.output(since=0, overflow="spool") as stream:
            # The whole flood goes by before the first byte of it is read.
            assert (await pane.wait_exit()).ok
            assert client.statistics().pauses == 0
            data = b""
            offset = 0
            async for item in stream:
                assert isinstance(item, tmuxcc.Chunk), item
                assert item.offset == offset
                offset += len(item.data)
                if not data.endswith(b"ready\r\n"):
                    data += item.data
                    head, mark, rest = data.partition(b"ready\r\n")
                    if mark:
                        data = head + mark
                        found.update(rest)
                else:
                    found.update(item.data)
            assert stream.dropped == 0
        assert found.digest() == expected.digest()
        late = await pane.output(since=0).receive()
        assert isinstance(late, tmuxcc.Gap)


async def test_a_program_is_heard_where_the_output_of_the_last_one_was_paused(
    server: Server, tmux_version: TmuxVersion
) -> None:
    if has_hazard(tmux_version, "respawn-crash"):
        pytest.skip("another control client that is behind too ends the server")
    async with server.client() as client:
        for number in range(3):
            pane = await start_flood(client)
            async with pane.output() as stream:
                with OtherClient(server):
                    # So far behind that tmux pauses it, which is noticed in the middle.
                    time.sleep(1.4)  # noqa: ASYNC251
                    await pane.respawn(["cat"], kill=True)
                    await pane.send_keys(f"word {number}", "Enter")
                    with trio.fail_after(30):
                        async for item in stream:
                            if isinstance(item, tmuxcc.Chunk) and b"word" in item.data:
                                break
            await client.command("kill-pane", "-t", pane.pane_id)


async def test_a_pause_is_a_gap_in_its_place_and_output_goes_on(server: Server) -> None:
    async with server.client() as client:
        pane = await start_flood(client)
        order: list[str] = []
        client.add_tap(lambda event: order.append(type(event).__name__), tmuxcc.Pause)
        client.add_tap(lambda event: order.append(type(event).__name__), tmuxcc.Continue)
        async with pane.output() as stream:
            # With somebody else attached tmux reads on while we do not, and pauses us.
            with OtherClient(server):
                while not client.statistics().pauses:
                    # Nothing else does it: the oldest output has to be a second old.
                    time.sleep(1.3)  # noqa: ASYNC251
                    await trio.sleep(0.02)
            await until(lambda: "Continue" in order)
            end = None
            paused = after = 0
            while after < 3:
                item = await stream.receive()
                if isinstance(item, tmuxcc.Gap):
                    if item.cause == "pause":
                        assert item.size is None
                        paused += 1
                    end = None
                else:
                    assert isinstance(item, tmuxcc.Chunk)
                    assert end is None or item.offset == end
                    end = item.offset + len(item.data)
                    after += bool(paused)
        assert order[:2] == ["Pause", "Continue"]
        assert client.statistics().gaps >= 1


@pytest.mark.parametrize("other", [False, True], ids=["alone", "with another client"])
async def test_commands_are_answered_beside_four_floods(server: Server, other: bool) -> None:
    server.start()

    async def ask(client: tmuxcc.Client) -> None:
        for byte in "abcd":
            await start_flood(client, byte)
        for number in range(100):
            assert await client.command("display-message", "-p", str(number)) == [str(number)]
        assert len(await client.list_panes()) == 5
        answers = await client.batch([("display-message", "-p", str(n)) for n in range(500)])
        assert answers == [[str(n)] for n in range(500)]

    async with server.client() as client:
        assert not client.statistics().command_connection
        if other:
            with OtherClient(server):
                await until(lambda: client.statistics().command_connection)
                await ask(client)
                assert client.statistics().command_connection
            await until(lambda: not client.statistics().command_connection)
            await until(lambda: client_pids(server) == {client.client_pid})
        else:
            await ask(client)
            assert not client.statistics().command_connection
        assert await client.command("display-message", "-p", "end") == ["end"]


async def test_the_end_of_a_program_comes_behind_its_output_with_another_client_attached(
    server: Server,
) -> None:
    async with server.client() as client:
        with OtherClient(server):
            await until(lambda: client.statistics().command_connection)
            for byte in "abc":
                await start_flood(client, byte)
            for _ in range(5):
                made = await client.new_window(argv=shell("seq 3000; exit 6"))
                pane = client.pane(made.pane_id)
                data = await read_to_end(pane.output(since=0))
                assert data.endswith(b"2999\r\n3000\r\n")
                assert len(data) == sum(len(str(n)) + 2 for n in range(1, 3001))
                assert await pane.wait_exit() == tmuxcc.ExitStatus(6, None)


async def test_the_command_connection_may_be_killed_at_any_time(server: Server) -> None:
    async with server.client() as client:
        with OtherClient(server) as other:
            for _ in range(3):
                await until(lambda: client.statistics().command_connection)
                known = {client.client_pid, other.pid}
                (side,) = await until(lambda known=known: client_pids(server) - known)
                server.run("detach-client", "-t", f"client-{side}")
                await until(lambda side=side: side not in client_pids(server))
                with trio.fail_after(10):
                    while True:
                        try:
                            answer = await client.command("display-message", "-p", "well")
                        except tmuxcc.ConnectionClosed:
                            continue  # it was on its way when its connection ended
                        break
                assert answer == ["well"]


async def test_two_clients_see_the_same_and_leave_each_other_alone(server: Server) -> None:
    async with server.client() as first, server.client() as second:
        made = await first.new_window(argv=shell("read x; seq 5000; exit 2"))
        streams = [client.pane(made.pane_id).output(since=0) for client in (first, second)]
        await second.pane(made.pane_id).send_keys("Enter")
        data = await read_to_end(streams[0])
        assert data.endswith(b"5000\r\n")
        assert await first.pane(made.pane_id).wait_exit() == tmuxcc.ExitStatus(2, None)
        # The second did not start it, so it sees the mark and does not know what it says.
        other = b""
        async for item in streams[1]:
            assert isinstance(item, tmuxcc.Chunk)
            other += item.data
        assert data in other
