"""Connections that end and are made anew: ``open_client(..., reconnect=True)``."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

import tmuxcc
from tmuxcc.client import connection as connection_module
from tmuxcc.client import reconnect as reconnect_module
from tmuxcc.client.events import Reconnected
from tmuxcc.protocol import TmuxVersion, has_hazard
from tmuxcc.protocol.events import Event

from ..fake_tmux import is_gone, pids
from .helpers import (
    GUARD,
    OtherClient,
    Server,
    client_pids,
    flood,
    gather,
    is_running,
    read_to_end,
    shell,
    until,
)
from .test_connection import Fake


@pytest.fixture(autouse=True)
def _slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but those that say so are about how long is waited."""
    monkeypatch.setattr(reconnect_module, "PATIENCE", GUARD)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts without delays."""
    monkeypatch.setattr(reconnect_module, "DELAYS", (0.0,) * len(reconnect_module.DELAYS))


@pytest.fixture
def fake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(folder, monkeypatch)


def kill(server: Server, client: tmuxcc.Client) -> None:
    os.kill(client.client_pid, signal.SIGKILL)


def terminate(server: Server, client: tmuxcc.Client) -> None:
    os.kill(client.client_pid, signal.SIGTERM)


def detach(server: Server, client: tmuxcc.Client) -> None:
    server.run("detach-client", "-t", f"client-{client.client_pid}")



def detach_all(server: Server, client: tmuxcc.Client) -> None:
    server.run("detach-client", "-s", "work")


End = Callable[[Server, tmuxcc.Client], None]
ENDS: list[End] = [kill, terminate, detach, detach_all]
ends = pytest.mark.parametrize("end", ENDS, ids=[end.__name__ for end in ENDS])


async def again(server: Server, client: tmuxcc.Client, end: End = detach) -> None:
    """End the connection, and wait for the next."""
    before, pid = client.generation, client.client_pid
    end(server, client)
    await until(lambda: client.generation > before)
    assert await client.wait_connected() == client.generation == before + 1
    assert client.client_pid != pid


# ------------------------------------------------------------------------------------- going on


@pytest.mark.tmux
@ends
async def test_a_client_whose_connection_is_ended_goes_on(server: Server, end: End) -> None:
    async with server.client(reconnect=True) as client:
        session_id, server_pid = client.session_id, client.server_pid
        for number in range(3):
            await again(server, client, end)
            assert await client.command("display-message", "-p", "x") == ["x"]
            assert client_pids(server) == {client.client_pid}
            now = client.statistics()
            assert now.generation == client.generation == number + 2
            assert now.in_flight == now.unsolicited_replies == 0
        assert (client.session_id, client.server_pid) == (session_id, server_pid)
        pid = client.client_pid
    assert not is_running(pid)
    assert client_pids(server) == set()


@pytest.mark.tmux
async def test_twenty_kills_in_a_row_are_survived(server: Server, at_once: None) -> None:
    server.start(argv=flood())
    async with server.client(reconnect=True) as client:
        start = client.statistics()
        pids = {client.client_pid}
        for _ in range(20):
            await again(server, client, kill)
            pids.add(client.client_pid)
            (line,) = await client.command("display-message", "-p", "#{client_pid}")
            assert int(line) == client.client_pid
        end = client.statistics()
        assert end.gaps == 20
        assert end.bytes_received > start.bytes_received
        assert end.commands_sent > start.commands_sent + 20
    assert len(pids) == 21
    assert not any(map(is_running, pids))
    assert client_pids(server) == set()


@pytest.mark.tmux
@pytest.mark.parametrize("end", [kill, detach], ids=["kill", "detach"])
async def test_a_stream_in_the_middle_of_a_flood_shows_a_gap_and_goes_on(
    server: Server, end: End
) -> None:
    async with server.client(reconnect=True) as client:
        made = await client.new_window(argv=flood())
        pane = client.pane(made.pane_id)
        expected = [await pane.wait_for("yyyy", since=0)]
        assert expected[0].outcome in ("matched", "gap")
        async with pane.output(overflow="spool") as stream:
            for _ in range(3):
                await again(server, client, end)
                offset, gaps, after = None, 0, 0
                while after < 10:
                    item = await stream.receive()
                    if isinstance(item, tmuxcc.Gap):
                        assert (item.size, item.cause) == (None, "reconnect")
                        assert offset in (None, item.offset)
                        gaps += 1
                        offset = item.offset
                    else:
                        assert isinstance(item, tmuxcc.Chunk)
                        assert offset in (None, item.offset)
                        offset = item.offset + len(item.data)
                        assert set(item.data) <= set(b"y\r\n")
                    after += bool(gaps)
                assert gaps == 1


@pytest.mark.tmux
async def test_lines_say_where_they_were_interrupted(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        made = await client.new_window(argv=shell("while read line; do echo got $line; done"))
        pane = client.pane(made.pane_id)
        lines = pane.lines(since=0)

        async def read(end: str) -> list[str]:
            found = []
            async for line in lines:
                found.append(line)
                if line == end:
                    return found
            raise AssertionError

        await pane.send_keys("one", "Enter")
        assert await read("got one") == ["one", "got one"]
        await again(server, client)
        await pane.send_keys("two", "Enter")
        lost, *rest = await read("got two")
        assert isinstance(lost, tmuxcc.LostOutput)
        assert lost.gap.cause == "reconnect"
        assert rest == ["two", "got two"]


@pytest.mark.tmux
async def test_a_wait_for_text_is_told_of_the_gap_and_the_next_one_goes_on(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        pane = client.pane((await client.new_window(argv=["cat"])).pane_id)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert (await pane.wait_for("never")).outcome == "gap"

            await trio.testing.wait_all_tasks_blocked(0.02)
            await again(server, client)
        assert await pane.send_text("hello", submit=True) is tmuxcc.SendOutcome.ACCEPTED
        assert await pane.wait_for("hello")


@pytest.mark.tmux
async def test_a_program_that_ends_while_nobody_is_there_tells_how(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        made = await client.new_window(argv=shell("read x; echo last words; exit 7"))
        pane = client.pane(made.pane_id)
        stream = pane.output(since=0)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert await pane.wait_exit() == tmuxcc.ExitStatus(7, None)

            await trio.testing.wait_all_tasks_blocked(0.02)
            # Nothing of this is noticed before all of it has happened.
            detach(server, client)
            server.run("send-keys", "-t", made.pane_id, "Enter")
            shown = ""
            while "last words" not in shown:
                shown = server.run("capture-pane", "-p", "-t", made.pane_id)
        items = [item async for item in stream]
        assert [item.cause for item in items if isinstance(item, tmuxcc.Gap)] == ["reconnect"]


@pytest.mark.tmux
async def test_a_pane_that_goes_while_nobody_is_there_is_gone(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        made = await client.new_window(argv=["cat"])
        pane = client.pane(made.pane_id)
        assert await pane.send_text("x", submit=True) is tmuxcc.SendOutcome.ACCEPTED
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                assert await pane.wait_exit() == tmuxcc.ExitStatus(None, None)

            await trio.testing.wait_all_tasks_blocked(0.02)
            detach(server, client)
            server.run("kill-window", "-t", made.window_id)


@pytest.mark.tmux
async def test_events_go_on_behind_the_sign_of_the_new_connection(server: Server) -> None:
    async with server.client(reconnect=True) as client, client.events(tmuxcc.WindowAdd) as events:
        first = await client.new_window()
        await again(server, client)
        second = await client.new_window()
        await again(server, client)
        third = await client.new_window()
        assert [await events.__anext__() for _ in range(5)] == [
            tmuxcc.WindowAdd(first),
            Reconnected(2),
            tmuxcc.WindowAdd(second),
            Reconnected(3),
            tmuxcc.WindowAdd(third),
        ]
        async with client.events(tmuxcc.WindowAdd) as late:
            fourth = await client.new_window()
            assert await late.__anext__() == tmuxcc.WindowAdd(fourth)


@pytest.mark.tmux
async def test_subscriptions_are_made_anew(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        await client.command("set-option", "-g", "@x", "one")

        async def value(changes: tmuxcc.EventStream[tmuxcc.SubscriptionChanged], end: str) -> None:
            async for change in changes:
                if isinstance(change, tmuxcc.SubscriptionChanged) and change.value == end:
                    return

        async with client.watch_format("#{@x}") as changes:
            await value(changes, "one")
            async with client.watch_format("#{@x}"):
                pass
            for text in ("two", "three"):
                await again(server, client, kill)
                await client.command("set-option", "-g", "@x", text)
                await value(changes, text)
        await again(server, client)
        seen: list[object] = []
        client.add_tap(seen.append, tmuxcc.SubscriptionChanged)
        async with client.watch_format("#{@x}") as changes:
            await value(changes, "three")
        assert {event.name for event in seen} == {"tmuxcc-3"}  # type: ignore[attr-defined]


@pytest.mark.tmux
async def test_a_subscription_made_while_the_connection_ends_is_one(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        os.kill(client.server_pid, signal.SIGSTOP)

        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                async with client.watch_format("#{session_windows}") as changes:
                    async for change in changes:
                        if isinstance(change, tmuxcc.SubscriptionChanged):
                            assert change.value == "1"
                            return

            await until(lambda: client.statistics().in_flight)
            kill(server, client)
            await until(lambda: not is_running(client.client_pid))
            os.kill(client.server_pid, signal.SIGCONT)
        assert client.generation == 2


@pytest.mark.tmux
async def test_size_and_flags_are_those_of_the_first_connection(server: Server) -> None:
    what = "#{client_width}x#{client_height} #{client_flags}"
    async with server.client(reconnect=True, size=(123, 45)) as client:
        before = await client.command("display-message", "-p", what)
        await again(server, client)
        assert await client.command("display-message", "-p", what) == before
        assert before[0].startswith("123x45 ")
        assert "pause-after=1" in before[0]
    server.run("resize-window", "-t", "work", "-x", "80", "-y", "24")
    async with server.client(reconnect=True) as client:
        before = await client.command("display-message", "-p", what)
        await again(server, client)
        assert await client.command("display-message", "-p", what) == before
        assert "ignore-size" in before[0]
        assert server.run("display-message", "-p", "-t", "work", "#{window_width}") == "80"


@pytest.mark.tmux
async def test_the_client_goes_on_in_the_session_in_which_it_was(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        other = await client.new_session("other", argv=["cat"])
        await client.command("switch-client", "-t", other)
        await until(lambda: client.session_id == other)
        await client.command("rename-session", "-t", other, "by another name")
        await again(server, client)
        assert client.session_id == other
        await client.command("kill-session", "-t", "=work")
        await again(server, client)
        assert [row.session_id for row in await client.list_sessions()] == [other]


@pytest.mark.tmux
async def test_the_second_connection_for_commands_outlives_the_first(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        with OtherClient(server) as other:
            await until(lambda: client.statistics().command_connection)
            (side,) = client_pids(server) - {client.client_pid, other.pid}
            await again(server, client)
            assert await client.command("display-message", "-p", "well") == ["well"]
            assert client_pids(server) == {client.client_pid, other.pid, side}
            # And the other way round.
            server.run("detach-client", "-t", f"client-{side}")
            known = {client.client_pid, other.pid, side}
            await until(lambda: client_pids(server) - known)
            await until(lambda: client.statistics().command_connection)
            assert await client.command("display-message", "-p", "well") == ["well"]
            detach_all(server, client)
        await until(lambda: client.generation == 3)
        await until(lambda: client_pids(server) == {client.client_pid})
        assert not client.statistics().command_connection
        assert await client.command("display-message", "-p", "well") == ["well"]


# -------------------------------------------------------------------------------------- commands


@pytest.mark.tmux
async def test_commands_on_their_way_fail_and_later_ones_wait(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        os.kill(client.server_pid, signal.SIGSTOP)
        failed, answered = 0, 0

        async def ask_early() -> None:
            nonlocal failed
            with pytest.raises(tmuxcc.ConnectionClosed, match="signal 9"):
                await client.command("set-option", "-ga", "@x", "early ")
            failed += 1

        async def ask_late() -> None:
            nonlocal answered
            await client.command("set-option", "-ga", "@x", "late ")
            answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask_early)
            await until(lambda: client.statistics().in_flight >= 10)
            kill(server, client)
            await until(lambda: failed == 10)
            for _ in range(10):
                nursery.start_soon(ask_late)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert answered == 0
            with trio.move_on_after(0.01):
                await client.command("set-option", "-ga", "@x", "cancelled ")
            with pytest.raises(tmuxcc.ConnectionClosed):
                client.command_nowait("set-option", "-ga", "@x", "impatient ")
            os.kill(client.server_pid, signal.SIGCONT)
        assert (failed, answered, client.generation) == (10, 10, 2)
        (value,) = await client.command("show-options", "-gqv", "@x")
        words = value.split()
        assert words.count("late") == 10
        # Whether they were run nobody can know, but no more than once.
        assert words.count("early") <= 10
        assert set(words) <= {"early", "late"}


async def test_of_a_batch_that_is_cut_nothing_is_sent_again(fake: Fake) -> None:
    fake.plays("""
if len(pids(FOLDER)) == 1:
    greet()
    for _ in range(1500):
        answer(read_line())
    die()
start()
serve(lambda line: (note(line.decode().strip()), answer(line)))
""")
    async with fake.open(reconnect=True) as client:
        commands = [("display-message", "-p", f"{number}") for number in range(3000)]
        with pytest.raises(tmuxcc.ConnectionClosed, match="signal 9"):
            await client.batch(commands)
        assert await client.batch(commands[:2]) == [["0"], ["1"]]
        assert client.generation == 2
    sent = [line for line in fake.notes() if line.startswith("display-message")]
    assert sent == ["display-message -p 0", "display-message -p 1"]


async def test_commands_without_an_answer_are_sent_at_once(fake: Fake) -> None:
    fake.plays("""
greet()
wait_for_test()
serve()
""")
    async with fake.open() as client:
        client.command_nowait("fail")
        client.command_nowait("display-message", "-p", "x")
        assert client.statistics().abandoned == 2
        for argv in (["wait-for", "x"], ["kill-window"], []):
            with pytest.raises(tmuxcc.InvalidCommand):
                client.command_nowait(*argv)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fake.go)
            assert await client.command("display-message", "-p", "y") == ["y"]
        assert client.statistics().abandoned == 0
    with pytest.raises(tmuxcc.ConnectionClosed):
        client.command_nowait("list-panes")


# ---------------------------------------------------------------------------------- no way to go on


class Waiters:
    """Those who wait for something of a client, and those who come too late."""

    def __init__(self, client: tmuxcc.Client) -> None:
        self.told: list[tmuxcc.ConnectionClosed] = []
        pane = client.pane("%0")

        async def events() -> None:
            async with client.events(tmuxcc.Pause) as stream:
                async for event in stream:
                    assert isinstance(event, Reconnected)

        async def changes() -> None:
            async with client.watch_format("#{pid}") as stream:
                async for _ in stream:
                    pass

        async def output() -> None:
            async for item in pane.output():
                assert isinstance(item, tmuxcc.Gap)

        self.early = [events, changes, output, pane.wait_exit]
        self.late = [
            *self.early,
            client.wait_connected,
            pane.capture,
            client.list_panes,
            lambda: client.batch([("list-panes",)]),
        ]

    async def expect(self, functions: Sequence[Callable[[], Awaitable[object]]]) -> None:
        async def catch(function: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(tmuxcc.ConnectionClosed) as caught:
                await function()
            self.told.append(caught.value)

        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(catch, function)

    async def expect_the_end(self, *said: str) -> None:
        """Everybody is told the same."""
        await self.expect(self.late)
        for error in self.told:
            assert str(error) == str(self.told[0])
            for text in said:
                assert text in str(error)


def end_server(server: Server, client: tmuxcc.Client) -> None:
    server.run("kill-server")


def kill_server(server: Server, client: tmuxcc.Client) -> None:
    os.kill(client.server_pid, signal.SIGKILL)


def end_session(server: Server, client: tmuxcc.Client) -> None:
    server.run("new-session", "-d", "-s", "other", "cat")
    server.run("kill-session", "-t", "work")


def another_session_of_the_name(server: Server, client: tmuxcc.Client) -> None:
    end_session(server, client)
    server.run("new-session", "-d", "-s", "work", "cat")


def another_server(server: Server, client: tmuxcc.Client) -> None:
    pid = client.server_pid
    server.run("kill-server")
    while is_running(pid):
        pass
    server.start()


def another_server_after_a_crash(server: Server, client: tmuxcc.Client) -> None:
    pid = client.server_pid
    os.kill(pid, signal.SIGKILL)
    while is_running(pid):
        pass
    server.start()


@pytest.mark.tmux
@pytest.mark.parametrize(
    ("end", "said"),
    [
        (end_server, "not connected again: the server is gone"),
        (kill_server, "server exited unexpectedly; not connected again: the server is gone"),
        (end_session, "not connected again: the session is gone"),
        (another_session_of_the_name, "not connected again: the session is gone"),
        (another_server, "not connected again: another server has come"),
        (another_server_after_a_crash, "not connected again: another server has come"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_where_server_or_session_is_not_the_same_it_is_over(
    server: Server, end: End, said: str
) -> None:
    async with server.client(reconnect=True) as client:
        waiters = Waiters(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiters.expect, waiters.early)
            await until(lambda: client.statistics().listeners == 2)
            await trio.testing.wait_all_tasks_blocked(0.02)
            end(server, client)
        await waiters.expect_the_end(said)
        assert client.generation == 1
        assert client.statistics().gaps == 0
    await until(lambda: client_pids(server) == set())
