"""How the master hears what others note in the options of its agents' panes: by a bell."""

from __future__ import annotations

import os
import signal

import pytest
import trio

import tmuxcc
from tests.client.helpers import Server, shell, until
from tests.swarm.helpers import said, swarm_on
from tmuxcc.swarm import bell
from tmuxcc.swarm.policy import RestartPolicy
from tmuxcc.swarm.state import Activity

pytestmark = pytest.mark.tmux

QUICK = RestartPolicy("on-failure", delay=0.01, jitter=0)


@pytest.fixture
def only_by_the_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options are read for no other reason."""
    monkeypatch.setattr(bell, "LATEST", float("inf"))


def report(server: Server, agent: tmuxcc.Agent, text: str) -> None:
    """Have somebody outside report for `agent`; whoever does is told of no failure."""
    server.run("set-option", "-p", "-t", agent.pane_id, "@tmuxcc_activity", text)


def reports_first(server: Server, text: str) -> list[str]:
    """A program that says what it does before anything else."""
    say = f'{server.program} set-option -p -t "$TMUX_PANE" @tmuxcc_activity {text}'
    return shell(f"{say}; echo said; exec sleep 600")


async def shows(agent: tmuxcc.Agent, activity: Activity) -> None:
    """Wait until `agent` does this because it said so."""
    await until(lambda: agent.activity is activity and agent.explain().deciding.source == "report")


@pytest.mark.usefixtures("only_by_the_bell")
async def test_each_report_is_heard_and_so_is_that_there_is_none_any_more(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; exec sleep 600"))
        await said(agent, "up")
        for activity in (Activity.BLOCKED, Activity.BUSY, Activity.IDLE):
            report(server, agent, activity.value)
            await shows(agent, activity)
        server.run("set-option", "-pu", "-t", agent.pane_id, "@tmuxcc_activity")
        await until(lambda: agent.explain().deciding.source != "report")


@pytest.mark.usefixtures("only_by_the_bell")
async def test_what_a_program_reports_before_its_agent_has_it_is_heard(server: Server) -> None:
    async with swarm_on(server) as swarm:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(swarm.spawn, f"a{number}", reports_first(server, "blocked"))
        for agent in swarm.agents.values():
            await shows(agent, Activity.BLOCKED)


@pytest.mark.usefixtures("only_by_the_bell")
async def test_the_bell_rings_for_each_connection(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; exec sleep 600"))
        await said(agent, "up")
        os.kill(swarm.client.client_pid, signal.SIGKILL)
        # Somewhere between the two connections, and without one.
        report(server, agent, "blocked")
        await shows(agent, Activity.BLOCKED)
        await until(lambda: swarm.client.generation == 2)
        report(server, agent, "busy")
        await shows(agent, Activity.BUSY)


async def test_whoever_reports_is_told_of_no_failure_when_the_master_is_gone(
    server: Server,
) -> None:
    server.start()
    async with swarm_on(server, keep=True) as swarm:
        agent = await swarm.spawn("one", shell("echo up; exec sleep 600"))
        await said(agent, "up")
    report(server, agent, "blocked")
    assert server.run("list-sessions", "-F", "#{session_name} #{session_attached}") == (
        "swarm-demo 0\nwork 0"
    )
    async with swarm_on(server, adopt=True) as swarm:
        await shows(swarm.agents["one"], Activity.BLOCKED)
        report(server, agent, "busy")
        await shows(swarm.agents["one"], Activity.BUSY)


async def test_what_a_hook_of_tmux_reports_is_heard_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tmux runs no hook for what another hook does, so no bell rings."""
    monkeypatch.setattr(bell, "LATEST", 0.1)
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; exec sleep 600"))
        await said(agent, "up")
        by_hook = f"set-option -p -t {agent.pane_id} @tmuxcc_activity blocked"
        server.run("set-hook", "-t", swarm.client.session_id, "after-rename-window", by_hook)
        server.run("rename-window", "-t", agent.pane_id, "other")
        await shows(agent, Activity.BLOCKED)


async def test_the_bell_does_not_ring_for_other_options(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; exec sleep 600"))
        await said(agent, "up")
        rung: list[object] = []
        swarm.client.add_tap(rung.append, tmuxcc.Message, tmuxcc.SessionChanged)
        server.run("set-option", "-p", "-t", agent.pane_id, "@tmuxcc_activities", "busy")
        server.run("set-option", "-p", "-t", agent.pane_id, "@other", "@tmuxcc_activity")
        report(server, agent, "blocked")
        await shows(agent, Activity.BLOCKED)
        assert len(rung) == 1


async def test_an_end_is_told_without_asking_tmux_whether_it_was_wanted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question takes tmux, which clears up behind the program just then, some milliseconds."""

    async def refuse(*argv: str) -> list[str]:
        raise AssertionError(argv)

    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; read x; exit 3"))
        await said(agent, "up")
        await agent.send("")
        with monkeypatch.context() as asked:
            asked.setattr(swarm.client, "command", refuse)
            assert await agent.wait_exit() == tmuxcc.ExitStatus(3, None)
        assert agent.status is tmuxcc.AgentStatus.FAILED


@pytest.mark.usefixtures("only_by_the_bell")
async def test_an_unwanted_program_is_not_started_again_where_no_bell_could_ring(
    server: Server,
) -> None:
    """For a window in two sessions tmux runs the hooks of the one that was used last."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; exec sleep 600"), restart=QUICK)
        await said(agent, "up")
        await until(lambda: agent.is_unwanted is False)
        server.run("new-session", "-d", "-s", "viewer", "-t", "swarm-demo")
        server.run("set-option", "-p", "-t", agent.pane_id, "@tmuxcc_wanted", "stopped")
        os.kill(agent.pane.pid or 0, signal.SIGKILL)
        await agent.wait_exit()
        assert agent.restarts == 0
        assert agent.status is tmuxcc.AgentStatus.STOPPED
        server.run("kill-session", "-t", "viewer")


async def test_that_an_end_was_wanted_does_not_outlast_the_pane(server: Server) -> None:
    async with swarm_on(server) as swarm:
        await swarm.spawn("other", shell("echo up; exec sleep 600"))
        agent = await swarm.spawn("one", shell("echo up; read x; exit 3"), restart=QUICK)
        await said(agent, "up")
        server.run("set-option", "-p", "-t", agent.pane_id, "@tmuxcc_wanted", "stopped")
        await until(lambda: agent.is_unwanted)
        await agent.send("")
        await agent.wait_exit()
        server.run("kill-pane", "-t", agent.pane_id)
        await swarm.restart("one")
        await said(agent, "up")
        await agent.send("")
        await until(lambda: agent.restarts > 0)
