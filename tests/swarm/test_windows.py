"""Windows of a swarm: which one an agent gets, also where a connection ends at the worst moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

import tmuxcc
from tests.client.helpers import OtherClient, Server, client_pids, gather, shell, until
from tmuxcc import ExitStatus, RestartPolicy, SendOutcome
from tmuxcc.protocol import TmuxVersion, has_hazard
from tmuxcc.swarm.options import list_agents

from .helpers import lines_of, option, said, swarm_on
from .programs import worker

pytestmark = pytest.mark.tmux

# A tmux whose control client ends when a program was started, without having told it: once.
LOSSY = r"""#!{python} -IS
import os, subprocess, sys, threading, time
tmux, word, effect = {tmux!r}, {word!r}, {effect!r}
if "-C" not in sys.argv:
    os.execv(tmux, [tmux, *sys.argv[1:]])
child = subprocess.Popen([tmux, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
losing = threading.Event()

def tell():
    while data := os.read(child.stdout.fileno(), 65536):
        if not losing.is_set():
            os.write(1, data)
    os._exit(child.wait())

def end():
    losing.wait()
    while not os.path.exists(effect):
        time.sleep(0.001)
    child.kill()

for function in (tell, end):
    threading.Thread(target=function, daemon=True).start()
while data := os.read(0, 65536):
    if word.encode() in data and not os.path.exists(effect):
        losing.set()
    os.write(child.stdin.fileno(), data)
child.stdin.close()
child.wait()
"""


def losing_the_reply(server: Server, word: str, effect: Path) -> str:
    """A tmux that ends when what `word` starts has made the file `effect`, and not said so."""
    program = Path(server.socket).with_name("lossy")
    program.write_text(
        LOSSY.format(python=sys.executable, tmux=server.program, word=word, effect=str(effect))
    )
    program.chmod(0o700)
    return str(program)


async def test_removing_closes_the_window_and_the_last_is_used_again(server: Server) -> None:
    async with swarm_on(server) as swarm:
        for name in ("one", "two"):
            await said(await swarm.spawn(name, worker(name)), "up")
        one, two = swarm.agents.values()
        report = await swarm.remove("one")
        assert report is not None
        assert one.is_over
        assert list(swarm.agents) == ["two"]
        [window] = await swarm.client.list_windows()
        assert window.window_id == two.window_id
        server.run("set-option", "-p", "-t", two.pane_id, "@tmuxcc_activity", "busy")
        assert await two.send("x", key="k")
        await swarm.remove("two")
        assert not swarm.agents
        assert option(server, two.pane_id, "@tmuxcc_sent") == ""
        three = await swarm.spawn("three", worker("three"))
        assert three.pane_id == two.pane_id
        await three.stop()
        assert await lines_of(three) == ["worker three up"] or await lines_of(three) == []
        assert len(await swarm.client.list_windows()) == 1


async def test_the_next_agent_of_a_window_finds_no_history_of_the_last(server: Server) -> None:
    async with swarm_on(server) as swarm:
        one = await swarm.spawn("one", ["seq", "1000", "1200"])
        await one.wait_exit()
        await swarm.remove("one")
        two = await swarm.spawn("two", worker("two"))
        assert two.pane_id == one.pane_id
        await said(two, "up")
        screen = await two.capture(history=True)
        assert "two up" in screen
        assert "1000" not in screen


@pytest.mark.parametrize("word", ["respawn-pane", "new-window"])
@pytest.mark.parametrize("connection", ["the only", "the second"])
async def test_a_program_whose_start_was_not_told_is_found_and_not_started_twice(
    server: Server, folder: Path, tmux_version: TmuxVersion, word: str, connection: str
) -> None:
    """Nor does its window go to another agent meanwhile."""
    if connection == "the only" and has_hazard(tmux_version, "client-race-crash"):
        pytest.skip("where one client comes while another goes, this tmux can crash")
    runs = folder / "runs"
    counted = shell(f"echo up; echo . >> {runs}; read x; echo bye")
    lossy = Server(losing_the_reply(server, word, runs), server.socket)
    async with AsyncExitStack() as stack:
        swarm = await stack.enter_async_context(swarm_on(lossy))
        if word == "new-window":
            # In the window that is there already.
            await swarm.spawn("zero", worker())
        if connection == "the second":
            person = stack.enter_context(OtherClient(server, "swarm-demo"))
            await until(lambda: person.pid in client_pids(server))
        [one, two] = await gather(
            lambda: swarm.spawn("one", counted), lambda: swarm.spawn("two", worker())
        )
        await said(one, "up")
        await said(two, "up")
        assert runs.read_text() == ".\n"
        assert await one.send("x") is SendOutcome.ACCEPTED
        assert await one.wait_exit() == ExitStatus(0, None)
        assert [line for line in await lines_of(one) if line] == ["up", "x", "bye"]
        rows = await list_agents(swarm.client.command, swarm.client.session_id)
        assert sorted(row.agent_id for row in rows) == sorted(swarm.agents)
        assert not any(row.vacant for row in rows)
        names = [window.window_name for window in await swarm.client.list_windows()]
        assert sorted(names) == sorted(swarm.agents)


async def test_who_is_removed_takes_nothing_along_that_stands_beside_it(server: Server) -> None:
    async with swarm_on(server) as swarm:
        one, two = [await swarm.spawn(name, worker()) for name in ("one", "two")]
        server.run("join-pane", "-d", "-s", two.pane_id, "-t", one.pane_id)
        await swarm.remove("one")
        assert await two.send("hello") is SendOutcome.ACCEPTED
        assert await two.wait_for("got hello")
        await swarm.spawn("three", worker())
        await swarm.remove("two")
        rows = await list_agents(swarm.client.command, swarm.client.session_id)
        assert [row.agent_id for row in rows] == ["three"]


async def test_who_is_started_again_after_its_window_was_closed_gets_another(
    server: Server,
) -> None:
    async with swarm_on(server) as swarm:
        restart = RestartPolicy("always", delay=0.01)
        agent = await swarm.spawn("one", worker(), restart=restart)
        await swarm.spawn("two", worker())
        await said(agent, "up")
        server.run("kill-pane", "-t", agent.pane_id)
        await until(lambda: agent.restarts == 1)
        assert await agent.wait_for("up")
        assert await agent.send("hello") is SendOutcome.ACCEPTED
        rows = await list_agents(swarm.client.command, swarm.client.session_id)
        assert {row.agent_id: row.pane_id for row in rows}["one"] == agent.pane_id


@asynccontextmanager
async def hanging_start(swarm: tmuxcc.Swarm) -> AsyncIterator[tmuxcc.Agent]:
    """An agent ``two`` that is being started, by a tmux that does not answer in the block."""
    async with trio.open_nursery() as nursery:
        os.kill(swarm.client.server_pid, signal.SIGSTOP)
        try:
            nursery.start_soon(swarm.spawn, "two", worker())
            await until(lambda: "two" in swarm.agents)
            yield swarm.agents["two"]
        finally:
            os.kill(swarm.client.server_pid, signal.SIGCONT)


async def test_an_agent_whose_stop_outlasted_its_start_can_be_started_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxcc.swarm.agent.START_PATIENCE", 0.05)
    async with swarm_on(server) as swarm:
        await swarm.spawn("one", worker())
        async with hanging_start(swarm) as two:
            assert "does not answer" in str(await two.stop())
        assert await two.wait_exit() == ExitStatus(None, signal.SIGKILL)
        await swarm.restart("two")
        await said(two, "up")
        assert await two.send("hello") is SendOutcome.ACCEPTED


async def test_a_start_that_outlasts_the_patience_of_remove_is_ended_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxcc.swarm.agent.START_PATIENCE", 0.05)
    async with swarm_on(server) as swarm:
        await swarm.spawn("one", worker())
        async with hanging_start(swarm) as two:
            await swarm.remove("two")
        await two.wait_exit()

        async def only_one() -> bool:
            rows = await list_agents(swarm.client.command, swarm.client.session_id)
            return [row.agent_id for row in rows] == ["one"]

        await until(only_one)
        assert list(swarm.agents) == ["one"]
