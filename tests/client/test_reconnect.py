"""Connections that end and are made anew: ``open_client(..., reconnect=True)``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

import tmuxcc
from tmuxcc.client import connection as connection_module
from tmuxcc.client import reconnect as reconnect_module
from tmuxcc.client.events import Reconnected
from tmuxcc.client.pane import prepare_text
from tmuxcc.client.panes import PaneTable
from tmuxcc.protocol.events import Event

from ..fake_tmux import pids
from .helpers import (
    GUARD,
    OtherClient,
    Server,
    client_pids,
    flood,
    is_running,
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
            assert client.statistics().generation == client.generation == number + 2
            await until(lambda: not client.statistics().in_flight)
            assert client.statistics().unsolicited_replies == 0
        assert (client.session_id, client.server_pid) == (session_id, server_pid)
        pid = client.client_pid
    assert not is_running(pid)
    assert client_pids(server) == set()


@pytest.mark.tmux
async def test_twenty_kills_in_a_row_are_survived(server: Server, at_once: None) -> None:
    server.start(argv=flood())
    async with server.client(reconnect=True) as client:
        start = await until(lambda: (now := client.statistics()).output_bytes and now)
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
    what = "#{client_width} #{window_width}x#{window_height} #{client_flags}"
    async with server.client(reconnect=True, size=(123, 45)) as client:
        before = await client.command("display-message", "-p", what)
        await again(server, client)
        assert await client.command("display-message", "-p", what) == before
        assert before[0].startswith("123 123x45 ")
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
async def test_a_text_whose_connection_ends_first_is_deleted_on_the_next(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        server_pid = client.server_pid
        with pytest.raises(tmuxcc.ConnectionClosed):
            async with prepare_text(client, "secret"):
                assert "secret" in server.run("list-buffers")
                os.kill(server_pid, signal.SIGSTOP)
                kill(server, client)
                await client.command("display-message", "-p", "x")
        os.kill(server_pid, signal.SIGCONT)
        await until(lambda: client.generation == 2)
        await until(lambda: not server.run("list-buffers"))


@pytest.mark.tmux
async def test_a_text_whose_deletion_is_on_its_way_is_deleted_on_the_next(server: Server) -> None:
    async with server.client(reconnect=True) as client:
        async with prepare_text(client, "secret"):
            state = Path(f"/proc/{client.client_pid}/stat")
            os.kill(client.client_pid, signal.SIGSTOP)
            await until(lambda: ") T " in state.read_text())
        kill(server, client)
        await until(lambda: client.generation == 2)
        await until(lambda: not server.run("list-buffers"))


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


FIRST = "len(pids(FOLDER)) == 1"


async def test_a_server_that_throws_everybody_out_at_once_is_left_alone(
    fake: Fake, at_once: None
) -> None:
    fake.plays(f"""
if not {FIRST}:
    say("%exit")
    raise SystemExit
greet()
wait_for_test()
say("%exit too far behind")
""")
    async with fake.open(reconnect=True) as client:
        seen: list[Event] = []
        client.add_tap(seen.append, tmuxcc.Exit)
        waiters = Waiters(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiters.expect, waiters.early[:1])
            await trio.testing.wait_all_tasks_blocked(0.02)
            await fake.go()
        await waiters.expect_the_end(
            "(too far behind; not connected again: attempt 6 failed: tmux did not attach",
            "; exit status 0)",
        )
        assert client.generation == 1
        assert seen == [tmuxcc.Exit("too far behind")]
    assert len(pids(fake.folder)) == 1 + len(reconnect_module.DELAYS)
    fake.assert_gone()


async def test_a_server_that_greets_and_then_throws_everybody_out_is_left_alone(
    fake: Fake, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_module, "MAX_BRIEF", 12)
    monkeypatch.setattr(reconnect_module, "STEADY", GUARD)
    fake.plays("""
start()
while b"list-command" not in (line := read_line()):
    answer(line)
answer(line)
answer(read_line())
die()
""")
    async with fake.open(reconnect=True, settled=False) as client, client.events() as events:
        with pytest.raises(tmuxcc.ConnectionClosed, match="12 connections in a row have lasted"):
            async for _ in events:
                pass
        assert client.generation > 1
        with pytest.raises(tmuxcc.ConnectionClosed):
            await client.wait_connected()
    assert len(pids(fake.folder)) == 13
    fake.assert_gone()


async def test_connections_that_last_make_good_for_those_that_did_not(
    fake: Fake, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_module, "MAX_BRIEF", 3)
    monkeypatch.setattr(reconnect_module, "STEADY", 0)
    fake.plays("start(); serve()")
    async with fake.open(reconnect=True) as client:
        for number in range(6):
            os.kill(client.client_pid, signal.SIGKILL)
            await until(lambda number=number: client.generation == number + 2)
            assert await client.command("display-message", "-p", "x") == ["x"]


@pytest.mark.parametrize("rest", ["stall()", "ignore(signal.SIGTERM); stall()", "start(); stall()"])
async def test_a_server_that_does_not_answer_is_not_waited_for(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.setattr(reconnect_module, "PATIENCE", 0.3)
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays(f"if {FIRST}:\n  greet()\n  wait_for_test()\n  die()\n{rest}")
    async with fake.open(reconnect=True) as client:
        await fake.go()
        with pytest.raises(tmuxcc.ConnectionClosed, match=r"signal 9") as caught:
            while True:
                await client.command("display-message", "-p", "x")
        await Waiters(client).expect_the_end("attempt 1 had no answer, 0.3 s after the end")
        assert "had no answer" in str(caught.value) or caught.value.reason is None
    fake.assert_gone()


async def test_after_some_failures_an_attempt_may_succeed(fake: Fake, at_once: None) -> None:
    fake.plays("""
number = len(pids(FOLDER))
if number == 2: start(); serve(lambda line: reply("?") if b"#{pid}" in line else answer(line))
if number == 3: say("%exit server exited unexpectedly"); raise SystemExit(1)
if number == 4: reply("server not ready", flags=0, ok=False); raise SystemExit(1)
if number == 5: start(); read_line(); say("%output %0 wrong"); die()
if number == 6: start(); read_line(); say("%error 1 2 3"); stall()
start()
serve()
""")
    async with fake.open(reconnect=True) as client, client.events(tmuxcc.Output) as events:
        assert client.client_pid == pids(fake.folder)[0]
        os.kill(fake.pid, signal.SIGKILL)
        await until(lambda: client.generation == 2)
        assert await client.command("display-message", "-p", "x") == ["x"]
        assert await events.__anext__() == Reconnected(2)
        assert client.client_pid == pids(fake.folder)[6]
        assert client.statistics().output_bytes == 0
    fake.assert_gone()


async def test_a_program_that_is_gone_is_looked_for_some_times(fake: Fake, at_once: None) -> None:
    fake.plays("start(); serve()")
    async with fake.open(reconnect=True) as client:
        waiters = Waiters(client)
        fake.program.unlink()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiters.expect, waiters.early[:1])
            os.kill(fake.pid, signal.SIGKILL)
        await waiters.expect_the_end("not connected again: attempt 6 failed: ")
    fake.assert_gone()


async def test_a_stream_that_breaks_its_rules_is_replaced(
    fake: Fake, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays(f"""
if {FIRST}:
    greet()
    wait_for_test()
    say("%error 1 2 1")
    stall()
start()
serve()
""")
    async with fake.open(reconnect=True) as client:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(tmuxcc.ConnectionClosed, match="the stream broke"):
                    await client.command("display-message", "-p", "x")

            await trio.testing.wait_all_tasks_blocked(0.02)
            await fake.go()
        assert await client.wait_connected() == 2
        assert await client.command("display-message", "-p", "x") == ["x"]
    fake.assert_gone()


async def test_what_comes_before_the_server_is_known_is_told_later_or_is_part_of_the_gap(
    fake: Fake, at_once: None
) -> None:
    fake.plays(f"""
start()
say("%output %0 {{}}".format("old" if {FIRST} else "unseen"), "%window-add @7")
while b"list-command" not in (line := read_line()):
    answer(line)
say("%window-add @8", "%pause %0")
answer(line)
answer(read_line())
wait_for_test()
say("%output %0 new")
serve()
""")
    seen: list[object] = []
    async with fake.open(reconnect=True, settled=False) as client, client.events() as events:
        stream = client.pane("%0").output(since=0)
        await fake.go()
        await until(lambda: client.statistics().output_bytes == len("oldnew"))
        client.add_tap(seen.append, tmuxcc.WindowAdd, tmuxcc.Pause, tmuxcc.Output)
        os.kill(client.client_pid, signal.SIGKILL)
        await until(lambda: client.generation == 2)
        await fake.go()
        await until(lambda: client.statistics().output_bytes == len("oldnewnew"))
        assert [type(item) for item in seen] == [
            tmuxcc.WindowAdd,
            tmuxcc.WindowAdd,
            tmuxcc.Pause,
            tmuxcc.Output,
        ]
        items = [await stream.receive() for _ in range(5)]
        assert items == [
            tmuxcc.Chunk(0, b"old"),
            tmuxcc.Gap(3, None, "pause"),
            tmuxcc.Chunk(3, b"new"),
            tmuxcc.Gap(6, None, "reconnect"),
            tmuxcc.Gap(6, None, "pause"),
        ]
        assert await stream.receive() == tmuxcc.Chunk(6, b"new")
        found = [event async for event in _until_second_window(events)]
        assert found[-3:] == [Reconnected(2), tmuxcc.WindowAdd("@7"), tmuxcc.WindowAdd("@8")]


async def _until_second_window(
    events: tmuxcc.EventStream[object],
) -> AsyncIterator[object]:
    again = False
    async for event in events:
        again = again or isinstance(event, Reconnected)
        if isinstance(event, (Reconnected, tmuxcc.WindowAdd)):
            yield event
        if again and event == tmuxcc.WindowAdd("@8"):
            return


async def test_the_opening_is_not_repeated(fake: Fake) -> None:
    fake.plays("start(); read_line(); die()")
    with pytest.raises(tmuxcc.ConnectionClosed, match="signal 9"):
        async with fake.open(reconnect=True):
            raise AssertionError("the block was entered")
    assert len(pids(fake.folder)) == 1
    fake.assert_gone()


async def test_without_being_asked_for_nothing_is_repeated(fake: Fake) -> None:
    fake.plays("start(); serve()")
    async with fake.open() as client:
        assert await client.wait_connected() == 1
        waiters = Waiters(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiters.expect, waiters.early[:1])
            await trio.testing.wait_all_tasks_blocked(0.02)
            os.kill(fake.pid, signal.SIGKILL)
        await waiters.expect_the_end("tmux gave no reason; killed by signal 9")
    assert len(pids(fake.folder)) == 1


@pytest.mark.parametrize("when", ["first", "held", "later"])
async def test_what_a_tap_raises_ends_the_client_as_ever(
    fake: Fake, at_once: None, when: str
) -> None:
    fake.plays(f"""
start()
if {FIRST}:
    serve(lambda line: (answer(line), say("%window-add @1") if b"first" in line else None))
say("%window-add @2")
serve(lambda line: (answer(line), say("%window-add @3") if b"later" in line else None))
""")
    number = {"first": 1, "held": 2, "later": 3}[when]
    mistake = ZeroDivisionError("mistake")

    def tap(event: tmuxcc.WindowAdd) -> None:
        if event.window_id == f"@{number}":
            raise mistake

    with pytest.raises(ZeroDivisionError) as caught:
        async with fake.open(reconnect=True) as client:
            client.add_tap(tap, tmuxcc.WindowAdd)
            await client.command("display-message", "-p", "first")
            if number > 1:
                os.kill(fake.pid, signal.SIGKILL)
                await until(lambda: client.generation == 2)
            try:
                await client.command("display-message", "-p", "later")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), pytest.raises(tmuxcc.ConnectionClosed):
                    while True:
                        await client.command("display-message", "-p", "too late")
    assert caught.value is mistake
    fake.assert_gone()


# ---------------------------------------------------------------------------------- cancellation


class _CancelAt(trio.abc.Instrument):
    """Cancels `scope` before the step number `left` of any task, once it has been started."""

    def __init__(self, left: int, scope: trio.CancelScope) -> None:
        self.left = left
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def test_a_cancellation_at_any_moment_of_a_reconnect_leaves_no_process(
    fake: Fake, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.5)
    script = """
if len(pids(FOLDER)) == 2: say("%exit"); raise SystemExit(1)
start()
serve()
"""
    step, completed, struck = 0, False, 0
    while not completed:
        step += 1
        assert step < 400
        fake.plays(script)
        with trio.CancelScope() as scope:
            instrument = _CancelAt(step, scope)
            async with fake.open(reconnect=True) as client, client.events(tmuxcc.Pause) as events:
                os.kill(fake.pid, signal.SIGKILL)
                trio.lowlevel.add_instrument(instrument)
                try:
                    assert await events.__anext__() == Reconnected(2)
                    assert await client.command("display-message", "-p", "x") == ["x"]
                    completed = True
                finally:
                    trio.lowlevel.remove_instrument(instrument)
        struck += scope.cancelled_caught
        fake.assert_gone()
    # The last one may have come when all was done.
    assert struck >= step - 1 > 20


def test_a_keyboard_interrupt_while_reconnecting_ends_the_program_and_tmux(fake: Fake) -> None:
    fake.plays(f"start()\nif {FIRST}: serve()\nread_line()")
    program = f"""
import os, trio, tmuxcc
async def main():
    async with tmuxcc.open_client(
        "work", tmux={str(fake.program)!r}, socket_path="/x", reconnect=True
    ) as client:
        os.kill(client.client_pid, 9)
        await trio.sleep_forever()
try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + GUARD
        while len(pids(fake.folder)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0
    fake.assert_gone()


@pytest.mark.tmux
@pytest.mark.parametrize("delay", [0, 0.002, 0.01, 0.03, 0.06, 0.07, 0.08, 0.1])
async def test_leaving_the_block_at_any_time_leaves_no_client(server: Server, delay: float) -> None:
    async with server.client(reconnect=True) as client:
        kill(server, client)
        await trio.sleep(delay)
    await until(lambda: client_pids(server) == set())
    assert server.is_alive
    if client.generation == 1:
        waiting = client.wait_connected
        with pytest.raises(tmuxcc.ConnectionClosed):
            await waiting()


@pytest.mark.tmux
async def test_those_who_wait_outside_of_the_block_are_told_of_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_module, "DELAYS", (GUARD,))
    async with trio.open_nursery() as nursery:
        async with server.client(reconnect=True) as client:
            told = 0

            async def wait(function: Callable[[], Awaitable[object]]) -> None:
                nonlocal told
                with pytest.raises(tmuxcc.ConnectionClosed):
                    await function()
                told += 1

            kill(server, client)
            await client._channel.stream.wait_ended()
            functions = [client.list_panes, client.wait_connected, client.pane("%0").wait_exit]
            for function in functions:
                nursery.start_soon(wait, function)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert told == 0
        await until(lambda: told == len(functions))


def test_what_was_held_back_for_a_snapshot_comes_before_the_gap_of_a_reconnect() -> None:
    async def never(*_: object) -> list[str]:
        raise AssertionError("nothing is asked")

    table = PaneTable(
        history=1000,
        command=never,
        ordered_command=never,
        ordered_line=never,  # type: ignore[arg-type]
        through_reconnects=never,  # type: ignore[arg-type]
        start_soon=lambda *_: None,
    )
    log = table.log("%0")
    log.hold()
    log.receive(b"held")
    table.reconnected()
    log.receive(b"new")
    items = [log.item(number) for number in range(log.next_number)]
    assert items == [
        tmuxcc.Chunk(0, b"held"),
        tmuxcc.Gap(4, None, "reconnect"),
        tmuxcc.Chunk(4, b"new"),
    ]
