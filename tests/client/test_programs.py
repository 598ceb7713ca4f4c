"""Programs that follow each other in a pane, and panes that somebody else made."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

import tmuxcc
from tmuxcc import Chunk, ExitStatus, Gap
from tmuxcc.client.output import Restarted

from .helpers import (
    Server,
    gather,
    read_to_end,
    shell,
    until,
)

pytestmark = pytest.mark.tmux


async def start(client: tmuxcc.Client, script: str) -> tmuxcc.Pane:
    return client.pane((await client.new_window(argv=shell(script))).pane_id)


# One program after the other


async def test_another_program_continues_the_output_of_the_last(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client, "echo one; exit 3")
        pane.keep_open()
        assert await pane.wait_exit() == ExitStatus(3, None)
        await pane.respawn(shell("echo two; exit 4"))
        assert await pane.wait_exit() == ExitStatus(4, None)
        pane.keep_open(False)
        items = [item async for item in pane.output(since=0)]
        assert items == [
            Chunk(0, b"one\r\n"),
            Restarted(5, ExitStatus(3, None)),
            Chunk(5, b"two\r\n"),
        ]


async def test_lines_go_on_over_a_restart_and_end_when_told(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client, "printf 'no end'")
        pane.keep_open()
        seen: list[str] = []

        async def read() -> None:
            async with pane.lines(since=0) as lines:
                async for line in lines:
                    seen.append(line)  # noqa: PERF401 - looked at while it grows

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for number in range(3):
                await pane.wait_exit()
                await pane.respawn(shell(f"echo again {number}"))
            await pane.wait_exit()
            assert len(nursery.child_tasks) == 1, "the reader waits for the next program"
            pane.keep_open(False)
        assert seen == ["no end", "again 0", "again 1", "again 2"]


async def test_directory_and_environment_are_those_asked_for(lasting: Server, folder: Path) -> None:
    async with lasting.client() as client:
        pane = await start(client, "exit 0")
        await pane.wait_exit()
        await pane.respawn(shell('pwd; echo "$WORD"'), cwd=folder, env={"WORD": "a  b #{x}"})
        lines = [line async for line in pane.lines(since=0)]
        assert lines == [str(folder), "a  b #{x}"]


async def test_a_running_program_is_replaced_only_on_demand(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client, "echo first; sleep 600")
        assert await pane.wait_for("first", since=0)
        with pytest.raises(tmuxcc.CommandError, match="still active"):
            await pane.respawn(shell("echo second"))
        assert await pane.wait_for("first", since=0), "the first one is as it was"
        stream = pane.output(since=0)
        while (item := stream.receive_nowait()) is not None:
            assert isinstance(item, Chunk), "nothing has begun"
        await pane.respawn(shell("echo second; exit 5"), kill=True)
        assert await pane.wait_exit() == ExitStatus(5, None)
        assert b"second\r\n" in b"".join(
            [item.data async for item in pane.output(since=0) if isinstance(item, Chunk)]
        )


async def test_the_end_of_a_silent_program_is_not_taken_for_that_of_its_successor(
    lasting: Server,
) -> None:
    async with lasting.client() as client:
        pane = await start(client, "exec sleep 600")
        await pane.respawn(shell("read x; echo late; exit 7"), kill=True)
        # By then whoever watched the first one has given up to learn how it ended.
        with trio.move_on_after(1.5) as scope:
            await pane.wait_exit()
        assert scope.cancelled_caught
        await pane.send_keys("Enter")
        assert await pane.wait_for("late", since=0)
        assert await pane.wait_exit() == ExitStatus(7, None)


async def test_many_restarts_lose_and_mix_nothing(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client, "echo start; seq 300")
        pane.keep_open()
        for number in range(1, 11):
            assert await pane.wait_exit() == ExitStatus(number - 1, None)
            await pane.respawn(shell(f"echo start; seq 300; exit {number}"))
        assert await pane.wait_exit() == ExitStatus(10, None)
        pane.keep_open(False)
        one = ["start", *map(str, range(1, 301))]
        assert [line async for line in pane.lines(since=0)] == one * 11


async def test_waiting_for_text_ends_with_the_program_though_another_may_follow(
    lasting: Server,
) -> None:
    async with lasting.client() as client:
        pane = await start(client, "echo hello; read x; exit 1")
        pane.keep_open()
        assert await pane.wait_for("hello", since=0)
        async with trio.open_nursery() as nursery:
            results = []

            async def wait() -> None:
                results.append(await pane.wait_for("never"))

            nursery.start_soon(wait)
            await pane.send_keys("Enter")
        assert results[0].outcome == "exited"


# Panes of others


async def test_an_adopted_pane_begins_with_what_it_shows(server: Server) -> None:
    async with server.client() as client:
        made = await client.new_window(argv=shell("seq 100; printf half; read x; echo; echo on"))
        assert await client.pane(made.pane_id).wait_for("half", since=0)
        async with server.client() as other:
            pane = other.pane(made.pane_id)
            await pane.adopt()
            await client.pane(made.pane_id).send_keys("x", "Enter")
            lines = [line async for line in pane.lines(since=0)]
            assert lines == [*map(str, range(1, 101)), "halfx", "", "on"]
            assert await pane.wait_exit() == ExitStatus(0, None)


async def test_of_an_adopted_pane_as_much_is_kept_as_of_any_other(lasting: Server) -> None:
    lasting.run("set-option", "-g", "history-limit", "20000")
    line = "x" * 60
    async with lasting.client() as first:
        pane = await start(first, f"yes {line} | head -5000; read x; echo tick; exec cat")
        assert await pane.wait_for(line, since=0, echo=True)
        await until(lambda: pane.statistics().output_bytes >= 5000 * 62)
        async with lasting.client(history=100_000) as client:
            pane = client.pane(pane.pane_id)
            await pane.adopt()
            await pane.send_keys("Enter")
            assert await pane.wait_for("tick")
            stream = pane.output(since=0)
            items = []
            while (item := stream.receive_nowait()) is not None:
                items.append(item)
    gap, *chunks = items
    assert isinstance(gap, Gap)
    data = b"".join(chunk.data for chunk in chunks)
    assert gap.size is not None
    assert gap.size + len(data) >= 5000 * 62
    assert len(data) >= 80_000
    assert data.endswith(b"tick\r\n")


async def test_the_end_of_an_adopted_program_is_exact(lasting: Server) -> None:
    async with lasting.client() as client, lasting.client() as other:
        made = await client.new_window(argv=shell("echo ready; read x; kill -9 $$"))
        assert await client.pane(made.pane_id).wait_for("ready", since=0)
        pane = other.pane(made.pane_id)
        await pane.adopt()
        await client.pane(made.pane_id).send_keys("Enter")
        assert await pane.wait_exit() == ExitStatus(None, 9)


async def test_last_words_in_the_moment_of_an_adoption_are_not_lost(lasting: Server) -> None:
    async with lasting.client() as first:
        panes = [await start(first, "echo up; read x; echo last words; exit 7") for _ in range(12)]
        for pane in panes:
            assert await pane.wait_for("up", since=0)
    async with lasting.client() as client:

        async def adopt(delay: int, pane: tmuxcc.Pane) -> None:
            async def end() -> None:
                for _ in range(delay):
                    await trio.lowlevel.checkpoint()
                await pane.send_keys("Enter")

            await gather(pane.adopt, end)
            assert await pane.wait_exit() == ExitStatus(7, None)
            items = [item async for item in pane.output(since=0)]
            assert all(isinstance(item, Chunk) for item in items), items
            shown = b"".join(item.data for item in items if isinstance(item, Chunk))
            assert shown.count(b"last words\r\n") == 1

        async with trio.open_nursery() as nursery:
            for delay, pane in enumerate(panes):
                nursery.start_soon(adopt, delay, client.pane(pane.pane_id))


async def test_a_shell_that_somebody_started_can_be_adopted(server: Server) -> None:
    server.start()
    pane_id = server.run("new-window", "-d", "-P", "-F", "#{pane_id}", "sh")
    async with server.client() as client:
        pane = client.pane(pane_id)
        await pane.adopt()
        await pane.send_text("echo $((6 * 7))", submit=True)
        assert await pane.wait_for(r"^42$")
        await pane.send_text("exit 7", submit=True)
        await pane.wait_exit()
        assert b"\n42\r\n" in await read_to_end(pane.output(since=0))


async def test_whoever_reads_a_pane_that_is_adopted_has_to_read_it_anew(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client, "exec cat")
        stream = pane.output(since=0)
        await pane.send_text("hello", submit=True)
        assert await pane.wait_for("^hello$", echo=True)
        await pane.adopt()
        with pytest.raises(tmuxcc.TmuxError, match="anew"):
            async for _ in stream:
                pass
        await pane.send_text("world", submit=True)
        assert await pane.wait_for("^world$")


async def test_a_pane_that_is_forgotten_while_it_is_adopted_is_adopted(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client, "echo hello; exec cat")
        assert await pane.wait_for("hello", since=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pane.adopt)
            await trio.lowlevel.checkpoint()
            assert nursery.child_tasks
            pane.forget()
        assert await pane.wait_for("hello", since=0)


async def test_in_a_pane_that_is_not_there_no_program_is_started(lasting: Server) -> None:
    async with lasting.client() as client:
        for kill in (False, True):
            with pytest.raises(tmuxcc.PaneNotFound):
                await client.pane("%999").respawn(["cat"], kill=kill)


async def test_what_is_not_there_leaves_nothing_behind(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = client.pane("%999")
        before = client.statistics().panes, len(client._panes.nonces)
        for ask in (
            lambda: pane.send_text("x", submit=True),
            lambda: pane.send_keys("x"),
            pane.capture,
            lambda: pane.wait_for("x"),
            pane.wait_exit,
            pane.output().receive,
            pane.output(seed=True).__aenter__,
            pane.adopt,
            lambda: pane.respawn(["cat"], kill=True),
            lambda: client.new_window(argv=["cat"], session_id="$999"),
            lambda: client.new_window(argv=["a\0b"]),
            lambda: client.new_window(argv=[]),
        ):
            with pytest.raises((tmuxcc.PaneNotFound, tmuxcc.CommandError, tmuxcc.InvalidCommand)):
                await ask()
        await pane.hook_death()
        assert pane.program_offset == 0
        await until(lambda: (client.statistics().panes, len(client._panes.nonces)) == before)


async def test_what_is_not_there_can_not_be_adopted(server: Server) -> None:
    async with server.client() as client:
        with pytest.raises(tmuxcc.PaneNotFound):
            await client.pane("%999").adopt()


# Limits


async def test_what_a_muted_pane_writes_is_counted_and_its_end_is_seen(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, "echo one; read x; seq 1000; exit 2")
        assert await pane.wait_for("one", since=0)
        pane.mute()
        await pane.send_keys("Enter")
        assert await pane.wait_exit() == ExitStatus(2, None)
        items = [item async for item in pane.output(since=0)]
        size = len(b"\r\n") + sum(len(f"{number}\r\n") for number in range(1, 1001))
        assert items == [Chunk(0, b"one\r\n"), Gap(5, size, "limit")]
        assert pane.statistics().gaps == 1
