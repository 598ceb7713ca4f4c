"""How the end of a program is seen where its wrapper can't tell it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio
import trio.testing

import tmuxcc
from tmuxcc import ExitStatus, Gap
from tmuxcc.client.deaths import DeathWatch, WatchedPane
from tmuxcc.client.output import PaneOutput

from .helpers import OtherClient, Server, children, client_pids, python, shell, until

pytestmark = pytest.mark.tmux


async def start(client: tmuxcc.Client) -> tmuxcc.Pane:
    """A program that has begun to run for ever."""
    pane = client.pane((await client.new_window(argv=shell("echo up; sleep 600"))).pane_id)
    assert await pane.wait_for("up", since=0)
    return pane


def no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system have no way, or no room, to watch another process."""

    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="tmux tells it within a second")
async def test_the_death_of_the_wrapper_is_told_with_its_signal(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client)
        assert pane.pid is not None
        [program] = children(pane.pid)
        os.kill(pane.pid, signal.SIGKILL)
        assert await pane.wait_exit() == ExitStatus(None, 9)
        await until(lambda: not Path(f"/proc/{program}").exists())


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="tmux tells it within a second")
async def test_of_the_first_program_too_it_is_told_that_last_words_are_missing(
    server: Server,
) -> None:
    argv = shell("echo up; sleep 600")
    async with server.client("first", create=True, argv=argv) as client:
        await client.command("set-option", "-w", "remain-on-exit", "on")
        pane = client.pane("%0")
        await pane.wait_for("up", since=0)
        assert pane.pid is not None
        os.kill(pane.pid, signal.SIGKILL)
        items = [item async for item in pane.output(since=0)]
        assert [item.cause for item in items if isinstance(item, Gap)] == ["killed"]


async def test_the_end_of_a_program_in_another_session_is_told_as_tmux_knows_it(
    lasting: Server,
) -> None:
    async with lasting.client() as client:
        made = await client.new_session(argv=shell("exit 3"))
        assert await client.pane(made.pane_id).wait_exit() == ExitStatus(3, None)
        window = await client.new_window(
            session_id=(await client.new_session(argv=["cat"])).session_id, argv=["false"]
        )
        assert await client.pane(window.pane_id).wait_exit() == ExitStatus(1, None)


@pytest.mark.parametrize("watched", ["its process", "its pane"])
async def test_the_death_of_a_foreign_program_is_told(
    lasting: Server, monkeypatch: pytest.MonkeyPatch, watched: str
) -> None:
    if watched == "its pane":
        no_pidfds(monkeypatch)
    pane_id = lasting.run(
        "new-window", "-d", "-P", "-F", "#{pane_id}", *python("import time; time.sleep(600)")
    )
    async with lasting.client() as client:
        pane = client.pane(pane_id)
        statuses = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                statuses.append(await pane.wait_exit())

            nursery.start_soon(wait)
            pid = int(
                (await client.command("display-message", "-p", "-t", pane_id, "#{pane_pid}"))[0]
            )
            os.kill(pid, signal.SIGTERM)
        assert statuses == [ExitStatus(None, 15)]


@pytest.mark.parametrize("how", ["cancelled", "refused"])
async def test_the_death_of_what_runs_behind_a_failed_respawn_is_told(
    lasting: Server, how: str
) -> None:
    async with lasting.client() as client:
        pane = await start(client)
        if how == "refused":
            with pytest.raises(tmuxcc.InvalidCommand):
                await pane.respawn(["a\0b"], kill=True)
        else:
            before = pane.pid
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: pane.respawn(["sleep", "600"], kill=True))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await until(lambda: pane.pid not in (before, None))
        await until(lambda: pane.pid)
        assert pane.pid is not None
        os.kill(pane.pid, signal.SIGKILL)
        assert await pane.wait_exit() == ExitStatus(None, 9)


async def test_a_program_has_ended_where_somebody_has_started_another(lasting: Server) -> None:
    async with lasting.client() as client:
        pane = await start(client)
        lasting.run("respawn-pane", "-k", "-t", pane.pane_id, "sleep", "600")
        assert await pane.wait_exit() == ExitStatus(None, None)


async def test_a_pane_that_is_dead_when_it_is_first_seen_has_its_status(lasting: Server) -> None:
    pane_id = lasting.run("new-window", "-d", "-P", "-F", "#{pane_id}", *shell("exit 3"))
    # The status is there later, on some builds only when tmux is made to look.
    await until(lambda: lasting.run("display-message", "-pt", pane_id, "#{pane_dead}") == "1")
    async with lasting.client() as client:
        assert await client.pane(pane_id).wait_exit() == ExitStatus(3, None)


async def test_a_death_is_told_on_the_next_connection_where_only_the_pane_is_watched(
    lasting: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pidfds(monkeypatch)
    pane_id = lasting.run("new-window", "-d", "-P", "-F", "#{pane_id}", "sleep", "600")
    async with lasting.client(reconnect=True) as client:
        pane = client.pane(pane_id)
        with OtherClient(lasting) as person:
            # Where one client comes while another goes, tmux can crash (client-race-crash).
            await until(lambda: person.pid in client_pids(lasting))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pane.wait_exit)
                await trio.testing.wait_all_tasks_blocked(0.2)
                os.kill(client.client_pid, signal.SIGKILL)
                await until(lambda: client.generation == 2)
                os.kill(int(lasting.run("display-message", "-pt", pane_id, "#{pane_pid}")), 15)
        assert await pane.wait_exit() == ExitStatus(None, 15)


async def test_a_hook_tells_of_a_death_and_spares_those_of_the_user(lasting: Server) -> None:
    lasting.run("set-hook", "-g", "pane-died[3]", "set-option -g @user-hook ran")
    async with lasting.client() as client:
        pane = await start(client)
        await pane.hook_death()
        assert "pane-died[3]" in lasting.run("show-hooks", "-gw", "pane-died")
        assert pane.pid is not None
        os.kill(pane.pid, signal.SIGKILL)
        assert await pane.wait_exit() == ExitStatus(None, 9)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no process is watched here")
async def test_the_end_of_another_process_is_not_taken_for_that_of_the_pane(
    lasting: Server,
) -> None:
    where = ("new-window", "-d", "-P", "-F", "#{pane_id} #{pane_pid}")
    pane_id, pid = lasting.run(*where, "sleep", "600").split()
    pane = WatchedPane(PaneOutput(pane_id, 1 << 16, ()))
    async with lasting.client() as client, trio.open_nursery() as nursery:
        deaths = DeathWatch(
            {pane_id: pane},
            PaneOutput.finish,
            command=client.command,
            ordered_command=client.command,
            through_reconnects=client.through_reconnects,
            start_soon=nursery.start_soon,
        )
        deaths.connected("unhooked", is_local=True)
        nursery.start_soon(deaths.run)
        with subprocess.Popen(["sleep", "600"]) as predecessor:
            deaths.watch(pane, predecessor.pid)
            predecessor.kill()
        await until(lambda: pane.pid == int(pid) or pane.log.exit_status)
        assert pane.log.exit_status is None
        os.kill(int(pid), signal.SIGTERM)
        await until(lambda: pane.log.exit_status is not None)
        assert pane.log.exit_status == ExitStatus(None, 15)
        nursery.cancel_scope.cancel()
