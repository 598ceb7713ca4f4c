"""`open_swarm` against a real tmux: how a swarm begins, ends, and is taken over."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import tempfile
from pathlib import Path

import pytest
import trio
import trio.lowlevel

import tmuxcc
from tests.client.helpers import (
    GUARD,
    OtherClient,
    Server,
    client_pids,
    gather,
    is_running,
    shell,
    until,
)
from tmuxcc import AgentStatus, ExitStatus, Life, Ready, RestartPolicy, SendOutcome

from .helpers import is_clean, lines_of, marked, master, said, swarm_on
from .programs import worker

pytestmark = pytest.mark.tmux


# Beginning


async def test_s_d1_a_swarm_has_a_server_and_a_folder_of_its_own_and_leaves_none(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-D1, S-R2, S-R4, S-T1, S-4.3.1: own socket, in a folder for this user; then gone."""
    home = folder / "home"
    monkeypatch.setenv("TMUXCC_DIR", str(home))
    with trio.fail_after(GUARD):
        async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder) as swarm:
            assert swarm.socket_path.parent.stat().st_mode & 0o777 == 0o700
            assert home in swarm.socket_path.parents
            agent = await swarm.spawn("one", worker())
            await said(agent, "up")
            pid, mark = swarm.client.server_pid, swarm.mark
            [row] = await swarm.client.list_sessions()
            assert row.session_name == "swarm-demo"
    assert not is_running(pid)
    assert not marked(mark)
    assert list(home.iterdir()) == []


async def test_s_d2_the_session_is_made_with_what_a_swarm_needs(server: Server) -> None:
    """S-D2, S-D5, S-6, settings of 5.2: before the first pane, so that they count for it."""
    async with swarm_on(server, size=(123, 45)) as swarm:
        agent = await swarm.spawn("one", shell("stty size; exec cat"))
        assert await said(agent, r"\d+ \d+") == "45 123"
        for name, value in (
            ("remain-on-exit", "on"),
            ("automatic-rename", "off"),
            ("allow-rename", "off"),
        ):
            assert server.run("show-options", "-Awv", "-t", agent.pane_id, name) == value, name
        assert server.run("show-options", "-sv", "set-clipboard") == "off"
        assert server.run("display", "-pt", agent.pane_id, "#{history_limit}") == "50000"
        assert swarm.cluster_id == "demo"


async def test_on_a_server_of_somebody_else_nothing_else_is_touched(server: Server) -> None:
    server.start()
    server.run("set-option", "-g", "status-left", "mine")

    def others() -> list[str]:
        return [
            server.run("list-panes", "-t", "=work", "-F", "#{pane_id} #{pane_pid} #{pane_width}"),
            server.run("show-options", "-g"),
            server.run("show-options", "-gw"),
            server.run("show-options", "-s"),
            server.run("show-environment", "-g"),
            server.run("show-hooks", "-g"),
        ]

    before, hidden = others(), server.run("show-environment", "-g", "-h")
    async with swarm_on(server) as swarm:
        for name in ("one", "two"):
            agent = await swarm.spawn(name, worker())
            await said(agent, "up")
        dead = await swarm.spawn("three", shell("echo last words"))
        await dead.wait_exit()
        assert "last words" in await dead.capture()
        assert others() == before
        mark = swarm.mark
    assert others() == before
    assert server.run("show-environment", "-g", "-h") == hidden
    assert server.run("list-sessions", "-F", "#{session_name}") == "work"
    assert not marked(mark)


def shown(server: Server, agent: tmuxcc.Agent) -> str:
    return server.run("display-message", "-p", "-t", agent.pane_id, "#{pane_dead} #{window_name}")


async def test_there_too_agents_that_end_at_once_keep_their_windows(server: Server) -> None:
    server.start()
    async with swarm_on(server) as swarm:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(swarm.spawn, f"a{number}", shell(f"exit {number}"))
        for number in range(10):
            agent = swarm.agents[f"a{number}"]
            assert await agent.wait_exit() == ExitStatus(number, None)
            # tmux would close it when the wrapper is gone, and say so in it if it was not told.
            await until(lambda agent=agent: shown(server, agent) == f"1 {agent.agent_id}")
            assert (await agent.capture()).strip() == ""


@pytest.mark.parametrize("allowed", ["on", "off"])
async def test_there_only_what_is_not_so_already_is_set_for_each_window(
    server: Server, allowed: str
) -> None:
    server.start()
    server.run("set-option", "-gw", "automatic-rename", "on")
    server.run("set-option", "-gw", "allow-rename", allowed)
    async with swarm_on(server) as swarm:
        hooks = await swarm.client.command("show-hooks", "-t", swarm.client.session_id)
        assert ("allow-rename off" in "\n".join(hooks)) == (allowed == "on")
        for name in ("one", "two"):
            agent = await swarm.spawn(name, shell("printf '\\033kother\\033\\\\up'; exec cat"))
            await said(agent, "up")
            assert shown(server, agent) == f"0 {name}"


async def test_there_an_opening_that_is_cancelled_leaves_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    hidden = server.run("show-environment", "-g", "-h")
    scope = trio.CancelScope()
    keep_wrapper = tmuxcc.Client.keep_wrapper

    async def cancelled(client: tmuxcc.Client, name: str) -> None:
        scope.cancel()
        await keep_wrapper(client, name)

    monkeypatch.setattr(tmuxcc.Client, "keep_wrapper", cancelled)
    with scope:
        async with swarm_on(server):
            raise AssertionError
    assert scope.cancelled_caught
    assert server.run("list-sessions", "-F", "#{session_name}") == "work"
    assert server.run("show-environment", "-g", "-h") == hidden


@pytest.mark.parametrize("name", ["set-environment", "display-message", "kill-session"])
async def test_there_an_alias_of_the_user_keeps_no_swarm_alive(server: Server, name: str) -> None:
    server.start()
    hidden = server.run("show-environment", "-g", "-h")
    server.run("set-option", "-s", "command-alias[90]", f"{name}=list-keys")
    async with swarm_on(server) as swarm:
        assert await (await swarm.spawn("one", shell("exit 3"))).wait_exit() == ExitStatus(3, None)
    server.run("set-option", "-s", "-u", "command-alias[90]")
    assert server.run("list-sessions", "-F", "#{session_name}") == "work"
    assert server.run("show-environment", "-g", "-h") == hidden


async def test_there_another_swarm_that_ends_takes_nothing_from_one_that_was_renamed(
    server: Server,
) -> None:
    server.start()
    async with swarm_on(server) as swarm:
        server.run("rename-session", "-t", "=swarm-demo", "renamed")
        async with swarm_on(server, "demo"):
            pass
        agent = await swarm.spawn("one", shell("exit 3"))
        assert await agent.wait_exit() == ExitStatus(3, None)


@pytest.mark.parametrize("cluster_id", ["", "a b", "-x", "a/b", "ä", "x" * 65, "a:b", "a.b"])
async def test_a_cluster_id_that_is_none_is_refused(server: Server, cluster_id: str) -> None:
    with pytest.raises(tmuxcc.InvalidSwarm):
        async with swarm_on(server, cluster_id):
            raise AssertionError
    assert not server.is_alive


async def test_a_folder_for_logs_that_can_not_be_is_told(server: Server, folder: Path) -> None:
    (folder / "file").touch()
    for log_dir in (folder / "file", folder / "file" / "logs"):
        with pytest.raises(tmuxcc.SessionCreationError, match="for logs"):
            async with swarm_on(server, log_dir=log_dir):
                raise AssertionError
    assert not server.is_alive


async def test_a_folder_that_is_missing_is_told(server: Server, folder: Path) -> None:
    """S-4.4: SessionCreationError."""
    with pytest.raises(tmuxcc.SessionCreationError, match="no folder"):
        async with swarm_on(server, base_dir=folder / "missing"):
            raise AssertionError
    assert not server.is_alive


async def test_s_r2_a_socket_path_that_is_too_long_is_told(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-R2: before anything is started."""
    with pytest.raises(tmuxcc.SocketPathTooLong):
        async with tmuxcc.open_swarm("demo", tmux=tmux, socket_path=folder / ("x" * 100)):
            raise AssertionError
    monkeypatch.setenv("TMUXCC_DIR", str(folder / ("x" * 100)))
    with pytest.raises(tmuxcc.SocketPathTooLong):
        async with tmuxcc.open_swarm("demo", tmux=tmux):
            raise AssertionError
    assert list(folder.iterdir()) == []


async def test_s_r1_a_missing_tmux_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-R1, S-5: with what to do about it."""
    monkeypatch.setenv("TMUXCC_DIR", str(folder / "home"))
    with pytest.raises(tmuxcc.TmuxNotFound, match="install"):
        async with tmuxcc.open_swarm("demo", tmux="/no/such/tmux", base_dir=folder):
            raise AssertionError
    assert list((folder / "home").iterdir()) == []


async def test_while_a_lock_is_waited_for_other_tasks_go_on(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home" / "demo"
    home.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("TMUXCC_DIR", str(home.parent))
    steps = 0

    async def step() -> None:
        nonlocal steps
        while True:
            await trio.sleep(0.01)
            steps += 1

    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step)
            with pytest.raises(tmuxcc.SessionCreationError, match="keeps a lock"):
                async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder):
                    raise AssertionError
            nursery.cancel_scope.cancel()
    assert steps >= 5


async def test_a_session_of_that_name_that_is_no_swarm_is_left_alone(server: Server) -> None:
    server.start()
    server.run("new-session", "-d", "-s", "swarm-demo", "sleep 600")
    before = server.run("list-panes", "-a", "-F", "#{pane_pid}")
    for adopt in (False, True):
        with pytest.raises(tmuxcc.SessionCreationError, match="no swarm"):
            async with swarm_on(server, adopt=adopt):
                raise AssertionError
    assert server.run("list-panes", "-a", "-F", "#{pane_pid}") == before


async def test_a_session_that_a_master_has_only_begun_to_make_is_made_anew(server: Server) -> None:
    server.start()
    mark = "demo:0123456789abcdef0123456789abcdef"
    server.run("new-session", "-d", "-s", "swarm-demo", "-e", f"TMUXCC_SWARM={mark}", "sleep 600")
    await until(lambda: marked(mark))
    async with swarm_on(server) as swarm:
        assert not marked(mark)
        await said(await swarm.spawn("one", worker()), "up")
    assert server.run("list-sessions", "-F", "#{session_name}") == "work"


async def test_names_that_begin_alike_are_told_apart(server: Server) -> None:
    async with (
        swarm_on(server, "demo-2") as second,
        swarm_on(server, "demo") as first,
    ):
        one = await first.spawn("one", worker())
        two = await second.spawn("one", worker())
        await said(one, "up")
        await said(two, "up")
        assert one.pane_id != two.pane_id
        await first.stop_all()
        assert await two.send("hello") is SendOutcome.ACCEPTED
        assert await two.wait_for("got hello")


@pytest.mark.parametrize("adopt", [False, True])
async def test_a_second_master_is_refused_and_does_not_disturb_the_first(
    server: Server, adopt: bool
) -> None:
    """S-3.1: a second start is told, not "duplicate session"."""
    body = """
agent = await swarm.spawn("one", worker())
await said(agent, "up")
say(up=True)
await until(lambda: agent.is_over)
say(generation=swarm.client.generation, gaps=agent.statistics().gaps)
"""
    async with master(server, body) as first:
        await first.hear()
        with pytest.raises(tmuxcc.SwarmRunning) as caught:
            async with swarm_on(server, adopt=adopt):
                raise AssertionError
        assert caught.value.master_pid == first.pid
        pane = server.run("list-panes", "-s", "-t", "=swarm-demo", "-F", "#{pane_id}")
        server.run("send-keys", "-t", pane, "shutdown", "Enter")
        assert await first.hear() == {"generation": 1, "gaps": 0}
        assert await first.end() == 0


async def test_a_second_master_in_the_same_process_is_refused_too(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        with pytest.raises(tmuxcc.SwarmRunning):
            async with swarm_on(server):
                raise AssertionError
        assert await agent.send("hello") is SendOutcome.ACCEPTED
        assert await agent.wait_for("got hello")


async def test_of_masters_that_begin_together_one_gets_the_swarm(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUXCC_DIR", str(folder / "home"))
    entered = refused = 0

    async def run() -> None:
        nonlocal entered, refused
        try:
            async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder) as swarm:
                entered += 1
                agent = await swarm.spawn("one", worker())
                await said(agent, "up")
                await until(lambda: entered + refused >= 4)
        except tmuxcc.SwarmRunning:
            refused += 1

    with trio.fail_after(GUARD):
        await gather(run, run, run, run)
    assert (entered, refused) == (1, 3)


# Leaving


async def test_exceptions_of_the_block_come_out_as_they_are(server: Server) -> None:
    mistake = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        async with swarm_on(server) as swarm:
            mark = swarm.mark
            await said(await swarm.spawn("one", worker()), "up")
            raise mistake
    assert caught.value is mistake
    assert is_clean(server, mark)


async def test_an_exception_of_a_task_in_the_block_is_not_changed(server: Server) -> None:
    """S-T7: streams live in a nursery of the caller's."""
    with pytest.raises(ExceptionGroup) as caught:
        async with swarm_on(server) as swarm, trio.open_nursery() as nursery:
            mark = swarm.mark
            agent = await swarm.spawn("one", worker())
            nursery.start_soon(lines_of, agent)
            await said(agent, "up")
            raise ZeroDivisionError
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert is_clean(server, mark)


async def test_a_cancelled_block_leaves_nothing(server: Server) -> None:
    with trio.CancelScope() as scope:
        async with swarm_on(server) as swarm:
            mark = swarm.mark
            for name in ("one", "two"):
                await said(await swarm.spawn(name, worker()), "up")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert is_clean(server, mark)


@pytest.mark.parametrize("steps", [1, 5, 20, 60, 150, 300])
async def test_an_opening_that_is_cancelled_leaves_nothing(server: Server, steps: int) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel)
            async with swarm_on(server) as swarm:
                await swarm.spawn("one", worker())
                await trio.sleep_forever()
    assert scope.cancelled_caught
    await until(lambda: not server.is_alive)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_ends_all_and_then_the_program(
    server: Server, number: signal.Signals
) -> None:
    """S-E5, S-R4: where atexit does not run."""
    body = """
agent = await swarm.spawn("one", worker())
tough = await swarm.spawn("two", stubborn(), stop=tmuxcc.StopPolicy(grace=0.1))
await said(agent, "up")
await said(tough, "stubborn")
say(up=True)
await trio.sleep_forever()
"""
    async with master(server, body) as other:
        await other.hear()
        status = await other.end(number)
        # Of Ctrl-C Python makes an exception, and of that this signal again.
        assert status == -number
        assert is_clean(server, other.told["mark"])


async def test_a_handler_of_the_programs_own_is_left_alone(server: Server) -> None:
    received: list[bool] = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        async with swarm_on(server):
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: received)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_under_asyncio_a_swarm_says_what_to_use_instead() -> None:
    async def main() -> None:
        async with tmuxcc.open_swarm("demo"):
            raise AssertionError

    with pytest.raises(RuntimeError, match=r"under asyncio use .*TmuxSwarmManager"):
        asyncio.run(main())


async def test_on_a_server_of_others_no_file_stays_while_it_runs(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    async with swarm_on(server) as swarm:
        before = set(folder.iterdir())
        assert await swarm.client.command("show-options", "-sv", "set-clipboard") == ["off"]
    assert not [path for path in before if path.suffix == ".conf"]


# After a master that was killed


_TWO = """
agent = await swarm.spawn("one", worker())
await said(agent, "up")
box = await swarm.spawn("two", look_alike())
await said(box, ">")
await box.send("typed once", key="k1")
await box.wait_for("told 10")
say(up=True, panes=[agent.pane_id, box.pane_id])
await trio.sleep_forever()
"""


async def test_what_a_killed_master_has_left_is_removed_by_the_next(server: Server) -> None:
    """S-R4: atexit misses SIGKILL, so the next start looks."""
    async with master(server, _TWO) as first:
        await first.hear()
        await first.end(signal.SIGKILL)
        assert marked(first.told["mark"])
        async with swarm_on(server) as swarm:
            assert not marked(first.told["mark"])
            assert not swarm.agents
            assert swarm.mark != first.told["mark"]
            await said(await swarm.spawn("one", worker()), "up")
        assert is_clean(server, swarm.mark)


async def test_what_a_killed_master_has_left_is_found_in_the_folder_too(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUXCC_DIR", str(folder / "home"))
    async with master(None, _TWO, program=tmux, base_dir=str(folder)) as first:
        await first.hear()
        await first.end(signal.SIGKILL)
        async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder) as swarm:
            assert not marked(first.told["mark"])
            assert not swarm.agents
    assert list((folder / "home").iterdir()) == []


async def test_what_a_killed_master_has_left_without_its_server_is_removed(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUXCC_DIR", str(folder / "home"))
    body = """
agent = await swarm.spawn("one", stubborn())
await said(agent, "stubborn")
say(server=swarm.client.server_pid)
await trio.sleep_forever()
"""
    async with master(None, body, program=tmux, base_dir=str(folder)) as first:
        told = await first.hear()
        await first.end(signal.SIGKILL)
        os.kill(told["server"], signal.SIGKILL)
        await until(lambda: not is_running(told["server"]))
        assert marked(first.told["mark"])
        async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder) as swarm:
            assert not marked(first.told["mark"])
            assert await swarm.spawn("one", worker())
    assert list((folder / "home").iterdir()) == []


async def test_what_a_killed_master_has_left_is_adopted_with_everything(server: Server) -> None:
    """S-E6, SWARM (f) 15: ids, screens, output from now on, and no prompt twice."""
    async with master(server, _TWO) as first:
        panes = (await first.hear())["panes"]
        await first.end(signal.SIGKILL)
        async with swarm_on(server, adopt=True) as swarm:
            assert swarm.mark == first.told["mark"]
            assert sorted(swarm.agents) == ["one", "two"]
            one, two = swarm.agents["one"], swarm.agents["two"]
            assert [one.pane_id, two.pane_id] == panes
            assert one.spec.argv == tuple(worker())
            assert await two.send("typed once", key="k1") is SendOutcome.UNKNOWN
            assert await one.send("hello") is SendOutcome.ACCEPTED
            assert await one.wait_for("got hello")
            await one.send("exit 5")
            assert await one.wait_exit() == ExitStatus(5, None)
            lines = await lines_of(one)
            assert lines == ["worker 1 up", "hello", "got hello", "exit 5"]
            assert (await swarm.restart("one")).life is Life.RUNNING
            await until(lambda: first.told["client"] not in client_pids(server))
        assert is_clean(server, first.told["mark"])


async def test_agents_that_ended_meanwhile_are_adopted_as_they_are(server: Server) -> None:
    body = """
names = {"no": "no", "failure": tmuxcc.RestartPolicy("on-failure", delay=0.01)}
for name, policy in names.items():
    agent = await swarm.spawn(name, worker(name), restart=policy)
    await said(agent, "up")
waiting = await swarm.spawn(
    "waiting",
    shell("[ -e second ] && exec cat; touch second; exit 1"),
    restart=tmuxcc.RestartPolicy("always", delay=600, max_delay=600),
)
crashed = await swarm.spawn(
    "crashed", shell("exit 9"), restart=tmuxcc.RestartPolicy("always", delay=0.001, max_restarts=2)
)
stopped = await swarm.spawn("stopped", worker(), restart="always")
await until(lambda: waiting.restart_at is not None and crashed.is_over)
await swarm.stop("stopped")
await until(lambda: '"stopped"' in subprocess.run(
    [sys.argv[2], "-S", str(swarm.socket_path), "show", "-pqv", "-t", stopped.pane_id,
     "@tmuxcc_state"], capture_output=True, text=True).stdout)
say(panes={agent.agent_id: agent.pane_id for agent in swarm.agents.values()})
await trio.sleep_forever()
"""
    body = body.replace("sys.argv[2]", repr(server.program))
    async with master(
        server, f"import subprocess\n{body.strip()}", base_dir=str(server.socket.parent)
    ) as first:
        panes = (await first.hear())["panes"]
        await first.end(signal.SIGKILL)
        for name in ("no", "failure"):
            server.run("send-keys", "-t", panes[name], "exit 4", "Enter")

        def is_dead(name: str) -> bool:
            return server.run("display", "-pt", panes[name], "#{pane_dead}") == "1"

        await until(lambda: is_dead("no") and is_dead("failure"))
        async with swarm_on(server, adopt=True) as swarm:
            agents = swarm.agents
            assert await agents["no"].wait_exit() == ExitStatus(4, None)
            assert agents["no"].status is AgentStatus.FAILED
            await until(lambda: agents["failure"].restarts == 1)
            assert agents["stopped"].is_over or await agents["stopped"].wait_exit()
            assert agents["stopped"].status is AgentStatus.STOPPED
            assert agents["stopped"].restarts == 0
            await agents["crashed"].wait_exit()
            assert agents["crashed"].life is Life.FAILED
            assert "restarts within" in agents["crashed"].failure
            await until(lambda: agents["waiting"].restart_at is not None)
            assert agents["waiting"].life is Life.EXITED
        assert is_clean(server, first.told["mark"])


async def test_a_restart_that_was_cut_off_is_made_by_the_next_master(server: Server) -> None:
    body = """
agent = await swarm.spawn("one", shell("exit 1"),
    restart=tmuxcc.RestartPolicy("always", delay=0.002, max_delay=0.002, max_restarts=100000))
await until(lambda: agent.restarts > 3)
say(up=True)
await trio.sleep_forever()
"""
    async with master(server, body) as first:
        await first.hear()
        await first.end(signal.SIGKILL)
        async with swarm_on(server, adopt=True) as swarm:
            agent = swarm.agents["one"]
            count = agent.restarts
            await until(lambda: agent.restarts > count + 3)
            await swarm.stop("one")
            assert agent.is_over


async def test_secrets_go_on_to_the_next_master_where_the_system_tells_them(
    server: Server,
) -> None:
    body = """
agent = await swarm.spawn("one", shell("echo $SECRET; read x; exit 1"), secrets={"SECRET": "s3"},
    restart=tmuxcc.RestartPolicy("always", delay=0.001))
await said(agent, "s3")
say(up=True)
await trio.sleep_forever()
"""
    async with master(server, body) as first:
        await first.hear()
        await first.end(signal.SIGKILL)
        async with swarm_on(server, adopt=True) as swarm:
            agent = swarm.agents["one"]
            await agent.send_keys("Enter")
            await until(lambda: agent.restarts == 1)
            await until(lambda: agent.statistics().lines >= 3)
            await agent.stop()
            assert (await lines_of(agent)).count("s3") == 2


async def test_one_that_can_not_be_adopted_is_told_of_and_keeps_nobody_else_from_it(
    server: Server,
) -> None:
    async with swarm_on(server, keep=True) as swarm:
        for name in ("one", "two", "three"):
            await swarm.spawn(name, worker())
        server.run("set-option", "-p", "-u", "-t", swarm.agents["two"].pane_id, "@tmuxcc_spec")
    with pytest.warns(UserWarning, match="'two' can't be adopted"):
        async with swarm_on(server, adopt=True) as swarm:
            assert list(swarm.agents) == ["one", "three"]


async def test_readiness_of_an_adopted_agent_is_asked_with_its_variables(server: Server) -> None:
    ready = Ready(command=shell('test "$PORT" = 8080'))
    async with swarm_on(server, keep=True) as swarm:
        agent = await swarm.spawn("one", worker(), env={"PORT": "8080"}, ready=ready)
        await agent.wait_ready()
    async with swarm_on(server, adopt=True) as swarm:
        await swarm.agents["one"].wait_ready()


async def test_what_was_kept_goes_on_and_is_not_taken_by_accident(server: Server) -> None:
    async with swarm_on(server, keep=True) as swarm:
        one = await swarm.spawn("one", worker())
        await said(one, "up")
        stopped = await swarm.spawn("two", worker(), restart=RestartPolicy("always", delay=0.001))
        await said(stopped, "up")
        await swarm.stop("two")
        mark = swarm.mark
    assert marked(mark)
    with pytest.raises(tmuxcc.SwarmRunning) as caught:
        async with swarm_on(server):
            raise AssertionError
    assert caught.value.master_pid is None
    async with swarm_on(server, adopt=True) as swarm:
        assert swarm.mark == mark
        agent = swarm.agents["one"]
        assert await agent.send("hello") is SendOutcome.ACCEPTED
        assert await agent.wait_for("got hello")
        assert await swarm.agents["two"].wait_exit()
        assert swarm.agents["two"].status is AgentStatus.STOPPED
        assert swarm.agents["two"].restarts == 0
    assert is_clean(server, mark)


async def test_a_kept_swarm_in_a_folder_is_found_there_again(
    folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUXCC_DIR", str(folder / "home"))
    with trio.fail_after(GUARD):
        async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder) as swarm:
            await said(await swarm.spawn("one", worker()), "up")
            swarm.keep = True
        async with tmuxcc.open_swarm("demo", tmux=tmux, base_dir=folder, adopt=True) as swarm:
            agent = swarm.agents["one"]
            assert await agent.send("hello") is SendOutcome.ACCEPTED
            mark = swarm.mark
    assert not marked(mark)
    assert list((folder / "home").iterdir()) == []


async def test_adopting_where_there_is_nothing_begins_anew(server: Server) -> None:
    async with swarm_on(server, adopt=True) as swarm:
        assert not swarm.agents
        await said(await swarm.spawn("one", worker()), "up")
        mark = swarm.mark
    assert is_clean(server, mark)


async def test_a_client_that_a_killed_master_has_left_stuck_is_freed(server: Server) -> None:
    """SWARM (f) 10: on 3.3a and 3.5a it would live for ever, and its server too."""
    body = """
wild = await swarm.spawn("wild", flood())
say(server=swarm.client.server_pid)
await until(lambda: swarm.client.statistics().command_connection)
say()
await trio.sleep_forever()
"""

    async def outlived() -> bool:
        async with master(server, body) as first:
            pid = (await first.hear())["server"]
            with OtherClient(server, "swarm-demo"):
                await first.hear()
                await first.end(signal.SIGKILL)
                async with swarm_on(server, adopt=True) as swarm:
                    survived = swarm.client.server_pid == pid
                    if survived:
                        await swarm.stop("wild")
            await until(lambda: not is_running(pid))
            return survived

    # One kill in a hundred takes a tmux server with it, up to 3.6b (`client-race-crash`).
    assert await outlived() or await outlived()


async def test_a_person_who_looks_on_survives_the_change_of_masters(server: Server) -> None:
    async def survived() -> bool:
        async with master(server, _TWO) as first:
            await first.hear()
            with OtherClient(server, "swarm-demo") as person:
                await until(lambda: person.pid in client_pids(server))
                await first.end(signal.SIGKILL)
                async with swarm_on(server, adopt=True) as swarm:
                    if person.pid not in client_pids(server):
                        return False
                    return await swarm.agents["one"].send("hello") is SendOutcome.ACCEPTED

    # As above.
    assert await survived() or await survived()


async def test_an_attempt_at_each_moment_of_a_killed_opening_is_cleared_up(
    server: Server,
) -> None:
    for delay in (0.0, 0.01, 0.03):
        async with master(server, "await trio.sleep_forever()") as first:
            await trio.sleep(delay)
            await first.end(signal.SIGKILL)
        async with swarm_on(server) as swarm:
            await said(await swarm.spawn("one", worker()), "up")
            mark = swarm.mark
        assert is_clean(server, mark)


async def test_another_pane_of_an_adopted_agent_is_logged_from_its_first_byte(
    server: Server, folder: Path
) -> None:
    body = """
await said(await swarm.spawn("one", shell("seq 2000; exec cat")), "2000")
await swarm.spawn("two", worker())
say(up=True)
await trio.sleep_forever()
"""
    async with master(server, body) as first:
        await first.hear()
        await first.end(signal.SIGKILL)
        async with swarm_on(server, adopt=True, log_dir=folder / "logs") as swarm:
            agent = swarm.agents["one"]
            await swarm.client.command("kill-window", "-t", agent.window_id)
            await agent.wait_exit()
            await swarm.restart("one")
            await said(agent, "2000")
            await agent.stop()
            log = agent.log_file
            assert log is not None
            assert b"\r\n999\r\n" in log.read_bytes()


async def test_a_prompt_to_an_adopted_input_box_is_submitted(server: Server) -> None:
    """What the box has asked of its terminal was written before this master came."""
    body = """
box = await swarm.spawn("two", look_alike())
await said(box, ">")
say(up=True)
await trio.sleep_forever()
"""
    async with master(server, body) as first:
        await first.hear()
        await first.end(signal.SIGKILL)
        async with swarm_on(server, adopt=True) as swarm:
            two = swarm.agents["two"]
            assert await two.send("something else") is SendOutcome.ACCEPTED
            assert await two.wait_for("told 14")
