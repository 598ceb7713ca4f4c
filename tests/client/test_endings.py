"""Every way in which a connection, a server or this process can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen

import tmuxcc
from tmuxcc.protocol import TmuxVersion, has_hazard

from .helpers import Server, client_pids, flood, gather, is_running, shell, until

pytestmark = pytest.mark.tmux


def kill_server_process(server: Server, client: tmuxcc.Client) -> None:
    os.kill(client.server_pid, signal.SIGKILL)


def kill_client_process(server: Server, client: tmuxcc.Client) -> None:
    os.kill(client.client_pid, signal.SIGKILL)


def end_server(server: Server, client: tmuxcc.Client) -> None:
    server.run("kill-server")


def detach(server: Server, client: tmuxcc.Client) -> None:
    server.run("detach-client", "-t", f"client-{client.client_pid}")


def kill_session(server: Server, client: tmuxcc.Client) -> None:
    server.run("new-session", "-d", "-s", "other", "cat")
    server.run("kill-session", "-t", "work")


ENDINGS: list[tuple[Callable[[Server, tmuxcc.Client], None], str | None, int]] = [
    (kill_server_process, "server exited unexpectedly", 1),
    (kill_client_process, None, -9),
    (end_server, None, 0),
    (detach, None, 0),
    (kill_session, None, 0),
]


@pytest.mark.parametrize(
    ("end", "reason", "status"), ENDINGS, ids=[ending[0].__name__ for ending in ENDINGS]
)
async def test_everybody_who_waits_is_told_how_the_connection_ended(
    server: Server,
    end: Callable[[Server, tmuxcc.Client], None],
    reason: str | None,
    status: int,
) -> None:
    told: list[tmuxcc.ConnectionClosed] = []

    async with server.client() as client:
        made = await client.new_window(argv=["cat"])
        pane = client.pane(made.pane_id)

        async def read(stream: Any) -> None:
            async for _ in stream:
                pass

        async def read_events(context: Any) -> None:
            async with context as stream:
                await read(stream)

        waits: Sequence[Callable[[], Awaitable[object]]] = (
            pane.wait_exit,
            lambda: pane.wait_for("never"),
            lambda: read(pane.output()),
            lambda: read(pane.output(since=0, overflow="spool")),
            lambda: read_events(client.pane("%0").output(seed=True)),
            lambda: read(pane.lines(since=0)),
            lambda: read_events(client.events()),
            lambda: read_events(client.watch_format("#{window_name}")),
        )

        async def wait(function: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(tmuxcc.ConnectionClosed) as caught:
                await function()
            told.append(caught.value)

        async with trio.open_nursery() as nursery:
            for function in waits:
                nursery.start_soon(wait, function)
            await until(lambda: client.statistics().listeners == 2)
            await trio.testing.wait_all_tasks_blocked(0.02)
            end(server, client)
        # And whoever comes later.
        for function in (
            *waits,
            lambda: client.command("list-panes"),
            lambda: client.batch([("list-panes",), ("list-windows",)]),
            lambda: pane.send_keys("Enter"),
            lambda: pane.send_text("x"),
            pane.capture,
            client.list_sessions,
        ):
            await wait(function)
        assert client.statistics().in_flight == 0
    for error in told:
        assert (error.reason, error.exit_status) == (reason, status)


async def test_a_command_without_a_reply_is_told_too(server: Server) -> None:
    async with server.client() as client:
        os.kill(client.server_pid, signal.SIGSTOP)
        ended = 0

        async def ask() -> None:
            nonlocal ended
            with pytest.raises(tmuxcc.ConnectionClosed):
                await client.command("list-panes")
            ended += 1

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await until(lambda: client.statistics().in_flight >= 20)
            os.kill(client.server_pid, signal.SIGKILL)
        assert ended == 20


async def test_commands_to_a_server_that_stands_still_are_answered_when_it_goes_on(
    server: Server,
) -> None:
    async with server.client() as client:
        os.kill(client.server_pid, signal.SIGSTOP)
        answers: list[list[str]] = []

        async def ask(number: int) -> None:
            answers.append(await client.command("display-message", "-p", str(number)))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
            await until(lambda: client.statistics().in_flight >= 20)
            assert answers == []
            os.kill(client.server_pid, signal.SIGCONT)
        assert sorted(answers) == sorted([str(number)] for number in range(20))


@frozen
class Talking:
    """A transport whose program has something to say on stderr."""

    is_local: bool = False

    def argv(self, tmux_argv: Sequence[str]) -> list[str]:
        return ["/bin/sh", "-c", 'echo "last words" >&2; "$@"', "sh", *tmux_argv]


async def test_what_was_said_on_stderr_is_part_of_the_error(server: Server) -> None:
    async with server.client(transport=Talking()) as client:
        server.run("kill-server")
        with pytest.raises(tmuxcc.ConnectionClosed, match="last words") as caught:
            async with client.events() as events:
                async for _ in events:
                    pass
        assert caught.value.stderr == ("last words",)
        assert caught.value.exit_status == 0


async def test_hundreds_of_waiters_are_all_told(server: Server) -> None:
    async with server.client() as client:
        made = await client.batch(
            [
                ("new-window", "-d", "-P", "-F", "#{pane_id}", "--", *client.wrap(["cat"]))
                for _ in range(200)
            ]
        )
        panes = [client.pane(lines[0]) for lines in made if isinstance(lines, list)]
        assert len(panes) == 200
        told = 0

        async def wait(pane: tmuxcc.Pane) -> None:
            nonlocal told
            with pytest.raises(tmuxcc.ConnectionClosed):
                await pane.wait_exit()
            told += 1

        async with trio.open_nursery() as nursery:
            for pane in panes:
                nursery.start_soon(wait, pane)
            assert len(await client.list_panes()) == 201
            server.run("kill-server")
        assert told == 200


# What becomes of the tmux client when the program ends

PROGRAM = """
import sys, trio, tmuxcc

async def main():
    async with tmuxcc.open_client("work", socket_path=sys.argv[1], tmux=sys.argv[2]) as client:
        async with client.pane("%0").output() as stream:
            print(client.client_pid, flush=True)
            async for item in stream:
                pass

trio.run(main)
"""


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM", "SIGHUP"])
async def test_a_program_that_is_killed_leaves_no_tmux_client(
    server: Server, name: str, busy: bool
) -> None:
    server.start(argv=flood() if busy else ["cat"])
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.socket, server.program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        assert program.stdout is not None
        pid = int(await trio.to_thread.run_sync(program.stdout.readline))
        assert client_pids(server) == {pid}
        program.send_signal(getattr(signal, name))
        with trio.fail_after(20):
            await until(lambda: program.poll() is not None and not is_running(pid))
            await until(lambda: client_pids(server) == set())
    assert server.is_alive


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, trio.Cancelled], ids=str
)
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
async def test_a_body_that_does_not_come_to_its_end_leaves_no_tmux_client(
    server: Server, error: type[BaseException], busy: bool
) -> None:
    server.start(argv=flood() if busy else ["cat"])
    pid = 0

    async def body() -> None:
        nonlocal pid
        async with server.client() as client:
            pid = client.client_pid
            async with client.pane("%0").output(seed=True) as stream:
                assert isinstance(await stream.receive(), tmuxcc.Snapshot)
                if error is trio.Cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
                raise error

    with trio.CancelScope() as scope:
        if error is trio.Cancelled:
            await body()
        else:
            with pytest.raises(error):
                await body()
    assert scope.cancelled_caught == (error is trio.Cancelled)
    assert pid
    assert not is_running(pid)
    assert client_pids(server) == set()
    assert server.is_alive


async def test_an_error_in_a_group_comes_out_and_leaves_no_tmux_client(server: Server) -> None:
    async def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        async with server.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await client.command("list-panes")
            await trio.sleep_forever()
    assert caught.group_contains(KeyboardInterrupt)
    assert client_pids(server) == set()


async def test_many_clients_come_and_go_without_harm(
    server: Server, tmux_version: TmuxVersion
) -> None:
    server.start()

    async def come_and_go() -> None:
        for _ in range(4):
            async with server.client() as client:
                assert len(await client.list_panes()) == 1

    # Up to 3.6b the server itself does not bear it that many come at the same time.
    at_once = 1 if has_hazard(tmux_version, "client-race-crash") else 8
    with trio.fail_after(60):
        await gather(*[come_and_go] * at_once)
    assert client_pids(server) == set()
    assert server.is_alive


async def test_a_start_that_is_cancelled_leaves_no_tmux_client(server: Server) -> None:
    server.start(argv=shell("cat"))
    server.run("set-hook", "-g", "client-attached", "run-shell 'sleep 0.1'")
    for delay in (0, 0.001, 0.003, 0.01, 0.02, 0.04):
        with trio.move_on_after(delay):
            async with server.client():
                pass
        await until(lambda: client_pids(server) == set())
    assert server.is_alive
