"""`Swarm` against a real tmux: many agents, started, asked and ended side by side."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import tmuxcc
from tests.client.helpers import (
    OtherClient,
    Server,
    client_pids,
    flood,
    gather,
    is_running,
    python,
    shell,
    until,
)
from tmuxcc import Activity, AgentStatus, ExitStatus, Gap, Life, LostOutput, SendOutcome
from tmuxcc.swarm.options import list_agents

from .helpers import lines_of, marked, option, said, swarm_on
from .programs import look_alike, reporter, stubborn, worker

pytestmark = pytest.mark.tmux

HOSTILE = ["a b", "a#{pane_id}", "#S ##", 'it\'s "quoted"', "ä🦀", "a;b;", "%0", "@1", "..", "a/b"]


# Starting


async def test_the_first_agent_takes_the_first_window_and_finds_no_trace_in_it(
    server: Server,
) -> None:
    """S-3.1, S-4.3.3: no window is left over, and its output begins with its own first byte."""
    async with swarm_on(server) as swarm:
        first = await swarm.spawn("one", shell(r"printf 'x\n'"))
        second = await swarm.spawn("two", shell(r"printf 'x\n'"))
        for agent in (first, second):
            await agent.wait_exit()
            items = [item async for item in agent.output()]
            assert items == [tmuxcc.Chunk(0, b"x\r\n")]
        names = server.run("list-windows", "-t", "=swarm-demo", "-F", "#{window_name}")
        assert names.split("\n") == ["one", "two"]


async def test_s_e4_ids_may_be_anything_printable_and_names_never_matter(server: Server) -> None:
    """S-E4, S-D3, S-D4, S-4.3.10: one window for each, known by an option and not by its name."""
    async with swarm_on(server) as swarm:
        agents = {name: await swarm.spawn(name, worker()) for name in HOSTILE}
        assert list(swarm.agents) == HOSTILE
        rows = await swarm.client.list_windows()
        assert [row.window_name for row in rows] == HOSTILE
        for name, agent in agents.items():
            assert option(server, agent.pane_id, "@tmuxcc_agent") == name
            await said(agent, "up")
            server.run("rename-window", "-t", agent.window_id, "same")
        outcomes = await swarm.broadcast("hello")
        assert outcomes == dict.fromkeys(HOSTILE, SendOutcome.ACCEPTED)
        for agent in agents.values():
            assert await agent.wait_for("got hello")


async def test_an_id_is_taken_once(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        with pytest.raises(tmuxcc.AgentExistsError, match="one"):
            await swarm.spawn("one", worker())
        results = []

        async def spawn() -> None:
            try:
                results.append(await swarm.spawn("two", worker()))
            except tmuxcc.AgentExistsError:
                results.append(None)

        await gather(spawn, spawn, spawn)
        assert results.count(None) == 2
        assert swarm.agents["one"] is agent
        assert len(swarm.agents) == len(await swarm.client.list_windows()) == 2


@pytest.mark.parametrize("agent_id", ["", " ", "-x", "a\nb", "a\x00", "x" * 129])
async def test_an_id_that_is_none_is_refused(server: Server, agent_id: str) -> None:
    async with swarm_on(server) as swarm:
        with pytest.raises(tmuxcc.InvalidSwarm):
            await swarm.spawn(agent_id, worker())
        assert not swarm.agents


async def test_s_e3_many_start_at_once(server: Server) -> None:
    """S-E3, S-1, S-P4: pipelined over one connection."""
    async with swarm_on(server) as swarm:
        names = [f"agent-{number}" for number in range(60)]
        await gather(*[lambda name=name: swarm.spawn(name, worker(name)) for name in names])
        assert set(swarm.agents) == set(names)
        await swarm.wait_for_condition(lambda agent: agent.statistics().lines >= 1)
        for name, agent in swarm.agents.items():
            assert await agent.wait_for(f"^worker {name} up$")
        assert len({agent.window_id for agent in swarm.agents.values()}) == 60
        outcomes = await swarm.broadcast("hello")
        assert set(outcomes.values()) == {SendOutcome.ACCEPTED}
        numbers = swarm.statistics()
        assert numbers.agents == numbers.lives[Life.RUNNING] == 60
        reports = await swarm.stop_all()
        assert len(reports) == 60
        assert all(agent.is_over for agent in swarm.agents.values())


async def test_s_t2_environment_and_folder_are_given_as_they_are(
    server: Server, folder: Path
) -> None:
    """S-T2, S-3.2: no shell sees them, so nothing has to be quoted."""
    env = {
        "PLAIN": "a",
        "QUOTES": 'it\'s "this"',
        "DOLLAR": "$(touch /nowhere) `x` ${HOME} \\",
        "FORMAT": "#{pane_id} #S ##",
        "LINES_OF": "one\ntwo\n\n",
        "SEMICOLON": "a;",
        "UNICODE": "ä🦀",
        "BYTES": "\udcff",
        "EMPTY": "",
        "LONG": "x" * 5000,
        "rc": "mine",
    }
    (folder / "a #{x} b").mkdir()
    script = "import os, sys; print(ascii([os.getcwd(), {n: os.environ.get(n) for n in {names}}]))"
    program = python(script.replace("{names}", repr(list(env))))
    async with swarm_on(server, base_dir=folder) as swarm:
        for name in ("one", "two"):
            agent = await swarm.spawn(name, program, env=env, cwd="a #{x} b")
            text = "".join(await lines_of(agent))
            assert text == ascii([str(folder / "a #{x} b"), env])
        agent = await swarm.spawn("three", shell("pwd"))
        assert await lines_of(agent) == [str(folder)]
        agent = await swarm.spawn("four", shell("pwd"), cwd="/")
        assert await lines_of(agent) == ["/"]
        with pytest.raises(tmuxcc.InvalidSwarm, match="no folder"):
            await swarm.spawn("five", shell("pwd"), cwd="missing")
        assert "five" not in swarm.agents


async def test_agents_are_not_told_what_surrounds_their_master(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SWARM (f) 15: an agent must not believe that it runs inside of another one."""
    monkeypatch.setenv("TMUX", "/somewhere/else,1,2")
    monkeypatch.setenv("TMUX_PANE", "%99")
    monkeypatch.setenv("CLAUDECODE", "1")
    monkeypatch.setenv("STY", "x")
    async with swarm_on(server) as swarm:
        for name in ("one", "two"):
            agent = await swarm.spawn(
                name, shell('echo "<$CLAUDECODE$STY>"; echo $TMUX_PANE; echo $TMUX; echo $TERM')
            )
            lines = await lines_of(agent)
            assert lines[:2] == ["<>", agent.pane_id]
            assert lines[2].startswith(f"{server.socket},")
            assert lines[3] in ("screen-256color", "tmux-256color")


async def test_secrets_reach_the_program_and_nobody_else(server: Server) -> None:
    secret = "correct-horse-battery"
    async with swarm_on(server) as swarm:
        for name in ("one", "two"):
            agent = await swarm.spawn(
                name, shell("echo ${#SECRET}; exec cat"), secrets={"SECRET": secret}
            )
            await said(agent, f"^{len(secret)}$")
            texts = [
                server.run("show-options", "-pv", "-t", agent.pane_id),
                server.run("show-options", "-wv", "-t", agent.pane_id),
                server.run("show-environment", "-t", "=swarm-demo"),
                server.run("display", "-pt", agent.pane_id, "#{pane_start_command}"),
            ]
            assert secret not in "\n".join(texts)
            assert "SECRET" in option(server, agent.pane_id, "@tmuxcc_spec")
        for texts in ("-s", "-g", "-gw"):
            assert secret not in server.run("show-options", texts)
        assert secret not in server.run("show-environment", "-g")
        assert not any(secret in words for words in marked(swarm.mark).values())
        commands = [
            (entry / "cmdline").read_bytes()
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and (entry / "cmdline").exists()
        ]
        assert not any(secret.encode() in words for words in commands)


async def test_a_secret_that_a_description_names_has_to_be_given(server: Server) -> None:
    spec = tmuxcc.AgentSpec(["cat"], secret_names=["FIRST", "SECOND"])
    async with swarm_on(server) as swarm:
        with pytest.raises(tmuxcc.InvalidSwarm, match="does not know SECOND"):
            await swarm.spawn("one", spec, secrets={"FIRST": "1"})
        await swarm.spawn("two", spec, secrets={"FIRST": "1", "SECOND": "2", "THIRD": "3"})
        assert swarm.agents["two"].spec.secret_names == ("FIRST", "SECOND", "THIRD")


async def test_a_file_of_variables_is_read_at_each_start(server: Server, folder: Path) -> None:
    file = folder / "variables"
    file.write_text("WORD=first\n")
    async with swarm_on(server, base_dir=folder) as swarm:
        agent = await swarm.spawn(
            "one", shell("echo $WORD; read x; exit 1"), env_file="variables", restart="no"
        )
        await said(agent, "first")
        file.write_text("WORD='the second'\n")
        await swarm.restart("one")
        await until(lambda: agent.statistics().lines == 2)
        await agent.stop()
        assert await lines_of(agent) == ["first", "the second"]
        file.unlink()
        with pytest.raises(tmuxcc.InvalidSwarm, match="variables"):
            await swarm.restart("one")
        assert agent.status is AgentStatus.FAILED
        with pytest.raises(tmuxcc.InvalidSwarm, match="variables"):
            await swarm.spawn("two", ["cat"], env_file="variables")
        assert list(swarm.agents) == ["one"]


async def test_no_program_is_started_again_elsewhere_where_its_folder_is_gone(
    server: Server, folder: Path
) -> None:
    work = folder / "work"
    work.mkdir()
    quick = tmuxcc.RestartPolicy("always", delay=0.01)
    async with swarm_on(server, base_dir=folder) as swarm:
        agent = await swarm.spawn("one", shell("pwd; read x; exit 1"), cwd="work", restart=quick)
        await said(agent, "work")
        work.rmdir()
        await agent.send("")
        await agent.wait_exit()
        assert agent.life is Life.FAILED
        assert "no folder" in agent.failure
        with pytest.raises(tmuxcc.InvalidSwarm, match="no folder"):
            await swarm.restart("one")
        work.mkdir()
        await swarm.restart("one")
        assert agent.life is Life.RUNNING


async def test_what_stands_in_a_spec_is_not_given_beside_it(server: Server) -> None:
    async with swarm_on(server) as swarm:
        with pytest.raises(TypeError, match="cwd, restart, log: these stand in the AgentSpec"):
            await swarm.spawn(
                "one", tmuxcc.AgentSpec(worker()), cwd="/", restart="always", log=False
            )
        assert not swarm.agents


async def test_nothing_is_started_when_the_swarm_has_ended(server: Server) -> None:
    async with swarm_on(server) as swarm:
        pass
    with pytest.raises(tmuxcc.ConnectionClosed):
        await swarm.spawn("one", worker())
    assert not swarm.agents


async def test_a_cancelled_start_leaves_the_swarm_in_order(server: Server) -> None:
    async with swarm_on(server) as swarm:
        for number in range(8):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(swarm.spawn, f"agent-{number}", worker())
                    await trio.lowlevel.checkpoint()
                    if number:
                        await trio.sleep(0.001 * number)
                    scope.cancel()
        await until(lambda: all(agent.life is Life.RUNNING for agent in swarm.agents.values()))
        for agent in swarm.agents.values():
            await said(agent, "up")
        assert len(await swarm.client.list_windows()) == max(1, len(swarm.agents))
        assert await swarm.spawn("another", worker())


async def test_a_cancelled_start_that_fails_answers_everybody(server: Server) -> None:
    async with swarm_on(server) as swarm:
        with trio.CancelScope() as scope:
            scope.cancel()
            await swarm.spawn("one", worker(), env_file="missing")
        agent = swarm.agents["one"]
        await until(lambda: agent.status is AgentStatus.FAILED)
        assert "missing" in agent.failure
        assert await agent.send("x") is SendOutcome.DEAD
        for method in (agent.wait_exit, agent.wait_ready, agent.wait_idle, agent.capture):
            with pytest.raises(tmuxcc.PaneDeadError):
                await method()
        assert await swarm.gather_outputs() == {"one": ""}
        report = await swarm.stop("one")
        assert report.exit_status is None
        assert await swarm.remove("one") is None
        assert await swarm.spawn("one", worker())


async def test_a_quick_program_is_no_trouble_on_a_server_of_somebody_else(server: Server) -> None:
    server.start()
    async with swarm_on(server) as swarm:
        names = [f"agent-{number}" for number in range(20)]
        await gather(*[lambda name=name: swarm.spawn(name, shell("echo x")) for name in names])
        for agent in swarm.agents.values():
            assert await agent.wait_exit() == ExitStatus(0, None)
            assert await lines_of(agent) == ["x"]
            assert await agent.capture()
    assert server.is_alive


async def test_who_kills_the_first_window_does_not_stop_the_swarm(server: Server) -> None:
    async with swarm_on(server) as swarm:
        [window] = await swarm.client.list_windows()
        server.run("new-window", "-d", "-t", "=swarm-demo:", "sleep 600")
        server.run("kill-window", "-t", window.window_id)
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")


async def test_an_agent_whose_window_was_closed_is_started_again_in_another(
    server: Server,
) -> None:
    async with swarm_on(server) as swarm:
        await swarm.spawn("other", worker())
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        first = agent.pane_id
        server.run("kill-window", "-t", agent.window_id)
        await agent.wait_exit()
        assert await swarm.restart("one") is agent
        assert agent.pane_id != first
        await said(agent, "up")
        await agent.send("hello")
        await said(agent, "got hello")
        assert agent.statistics().lines
        (row,) = [
            row
            for row in await list_agents(swarm.client.command, swarm.client.session_id)
            if row.agent_id == "one"
        ]
        assert row.pane_id == agent.pane_id


async def test_asking_a_removed_agent_how_it_is_keeps_nothing_of_it(server: Server) -> None:
    async with swarm_on(server) as swarm:
        await swarm.spawn("other", worker())
        agent = await swarm.spawn("one", worker())
        await swarm.remove("one")
        panes = swarm.client.statistics().panes
        assert agent.statistics().agent_id == "one"
        assert swarm.client.statistics().panes == panes


# All at once


async def test_s_4_3_8_a_broadcast_reaches_all_and_tells_of_each(server: Server) -> None:
    """S-4.3.8, S-3.6: side by side, an outcome for each."""
    async with swarm_on(server) as swarm:
        well = await swarm.spawn("well", look_alike())
        deaf = await swarm.spawn("deaf", look_alike("deaf"))
        silent = await swarm.spawn("silent", shell("stty -echo; echo ready; exec sleep 600"))
        dead = await swarm.spawn("dead", shell("exit 0"))
        line = await swarm.spawn("line", worker())
        await dead.wait_exit()
        for agent, sign in ((well, ">"), (deaf, ">"), (silent, "ready"), (line, "up")):
            await said(agent, sign)
        assert await swarm.broadcast("hello") == {
            "well": SendOutcome.ACCEPTED,
            "deaf": SendOutcome.STRANDED,
            "silent": SendOutcome.UNKNOWN,
            "dead": SendOutcome.DEAD,
            "line": SendOutcome.ACCEPTED,
        }
        assert await line.wait_for("got hello")
        assert await swarm.broadcast("again", agent_ids=["line"]) == {"line": SendOutcome.ACCEPTED}
        assert server.run("list-buffers") == ""
        with pytest.raises(tmuxcc.AgentNotFoundError, match="nobody"):
            await swarm.broadcast("x", agent_ids=["line", "nobody"])


async def test_outputs_are_gathered_within_one_deadline(server: Server) -> None:
    """S-3.6: who is slow gives what it had, not the word TIMEOUT."""
    async with swarm_on(server) as swarm:
        quick = await swarm.spawn("quick", shell("echo done"))
        slow = await swarm.spawn("slow", shell("echo half; exec cat"))
        await said(slow, "half")
        await quick.wait_exit()
        assert (await swarm.gather_outputs())["slow"] == "half"
        texts = await swarm.gather_outputs(within=0.2, until="exit")
        assert texts["slow"] == "half\n" or texts["slow"] == "half"
        assert texts["quick"].startswith("done")
        assert await swarm.gather_outputs(agent_ids=["slow"]) == {"slow": "half"}
        many = await swarm.spawn("many", shell("seq 200"))
        await many.wait_exit()
        texts = await swarm.gather_outputs(agent_ids=["many"], until="exit", history=True)
        assert texts["many"].startswith("1\n2\n3\n")
        assert texts["many"].split("\n")[199] == "200"


async def test_outputs_are_gathered_when_all_are_idle(server: Server) -> None:
    async with swarm_on(server) as swarm:
        for name in ("one", "two"):
            await swarm.spawn(name, ["/bin/sh"])
        await swarm.wait_for_condition(lambda agent: agent.activity is Activity.IDLE)
        await swarm.broadcast("sleep 0.5; echo done")
        texts = await swarm.gather_outputs(until="idle")
        assert all("\ndone\n" in text for text in texts.values())


async def test_a_condition_holds_for_all_at_the_same_time(server: Server) -> None:
    """S-3.6: asked when something happens, not every half second."""
    async with swarm_on(server) as swarm:
        await swarm.wait_for_condition(lambda agent: False)
        agents = [await swarm.spawn(name, worker()) for name in ("one", "two", "three")]
        for agent in agents:
            await said(agent, "up")
        asked = 0

        def over(agent: tmuxcc.Agent) -> bool:
            nonlocal asked
            asked += 1
            return agent.status is AgentStatus.STOPPED

        with trio.move_on_after(0.1) as scope:
            await swarm.wait_for_condition(over)
        assert scope.cancelled_caught
        assert asked < 20
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swarm.wait_for_condition, over)
            for agent in agents:
                await agent.send("shutdown")


async def test_unknown_ids_are_told(server: Server) -> None:
    """S-4.4: AgentNotFoundError, for every verb."""
    async with swarm_on(server) as swarm:
        await swarm.spawn("one", worker())
        for verb in (swarm.stop, swarm.restart, swarm.remove):
            with pytest.raises(tmuxcc.AgentNotFoundError, match="'two'; there is one"):
                await verb("two")


# Ending


async def test_ten_are_stopped_at_once_and_the_server_lives(server: Server) -> None:
    """PEERS 11, S-4.3.2: in parallel, the current window among them."""
    async with swarm_on(server) as swarm:
        names = [f"agent-{number}" for number in range(10)]
        for name in names:
            await swarm.spawn(name, worker() if name != names[3] else stubborn())
        for agent in swarm.agents.values():
            await said(agent, "up|stubborn")
        with OtherClient(server, "swarm-demo"):
            await until(lambda: len(client_pids(server)) >= 2)
            reports = dict(
                zip(
                    names,
                    await gather(*[lambda name=name: swarm.stop(name, grace=1) for name in names]),
                    strict=True,
                )
            )
            assert all(agent.is_over for agent in swarm.agents.values())
            assert not any(report.left for report in reports.values())
            assert reports[names[3]].exit_status == ExitStatus(None, 9)
            await gather(*[lambda name=name: swarm.remove(name) for name in names])
            assert server.is_alive
            agent = await swarm.spawn("another", worker())
            assert await said(agent, "up")


async def test_what_is_removed_by_two_at_once_is_removed_once(server: Server) -> None:
    async with swarm_on(server) as swarm:
        await swarm.spawn("one", worker())
        await swarm.spawn("two", worker())
        await gather(lambda: swarm.remove("one"), lambda: swarm.remove("one"))
        assert list(swarm.agents) == ["two"]


# When tmux goes away


async def test_s_e6_the_master_connects_again_and_agents_go_on(server: Server) -> None:
    """S-E6: the tmux client is killed; streams show a gap, and everything else goes on."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        told = await swarm.spawn("two", reporter(server.program))
        doomed = await swarm.spawn("three", worker())
        restarted = await swarm.spawn("four", worker(), restart="on-failure")
        for each in swarm.agents.values():
            await said(each, "up")
        seen: list[str] = []

        async def read() -> None:
            async with agent.lines() as lines:
                async for line in lines:
                    seen.append(line)  # noqa: PERF401 - looked at while it grows

        with OtherClient(server, "swarm-demo") as person:
            # Where one client comes while another goes, tmux can crash (client-race-crash).
            await until(lambda: person.pid in client_pids(server))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                for generation in (2, 3):
                    os.kill(swarm.client.client_pid, signal.SIGKILL)
                    await until(lambda generation=generation: swarm.client.generation == generation)
                    assert await agent.send(f"hello {generation}") is SendOutcome.ACCEPTED
                    await until(lambda generation=generation: f"got hello {generation}" in seen)
                await told.send("blocked")
                await until(lambda: told.activity is Activity.BLOCKED)
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(doomed.wait_exit)
                    await doomed.send("exit 4")
                await restarted.send("exit 1")
                await until(lambda: restarted.restarts == 1)
                assert doomed.exit_status == ExitStatus(4, None)
                await swarm.stop_all()
        gaps = [line for line in seen if isinstance(line, LostOutput)]
        assert [line.gap.cause for line in gaps] == ["reconnect"] * 2
        assert agent.statistics().gaps == 2


async def test_a_death_while_the_connection_is_away_is_told(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; read x; exit 3"))
        again = await swarm.spawn("two", shell("echo up; read x; exit 3"), restart="always")
        for each in (agent, again):
            await said(each, "up")
            server.run("send-keys", "-t", each.pane_id, "Enter")
        os.kill(swarm.client.client_pid, signal.SIGKILL)
        status = await agent.wait_exit()
        assert status == ExitStatus(3, None)
        await until(lambda: again.restarts == 1)


@pytest.mark.parametrize("what", ["kill-server", "kill-session"])
async def test_when_tmux_is_ended_from_outside_every_waiter_is_answered(
    server: Server, what: str
) -> None:
    """S-4.4, S-R4: nobody waits for ever, and nothing is left."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        again = await swarm.spawn("two", worker(), restart="always")
        tough = await swarm.spawn("three", stubborn())
        for each in (agent, again):
            await said(each, "up")
        await said(tough, "stubborn")
        answers: list[str] = []

        async def wait(function: object, *arguments: object) -> None:
            try:
                await function(*arguments)  # type: ignore[operator]
            except tmuxcc.TmuxError as error:
                answers.append(type(error).__name__)
            else:
                answers.append("done")

        async with trio.open_nursery() as nursery:
            for each in (agent, again, tough):
                nursery.start_soon(wait, each.wait_exit)
                nursery.start_soon(wait, each.wait_for, "never")
                nursery.start_soon(wait, lines_of, each)
            await trio.testing.wait_all_tasks_blocked()
            target = ("-t", "=swarm-demo") if what == "kill-session" else ()
            server.run(what, *target)
        assert len(answers) == 9
        for each in (agent, again, tough):
            assert each.is_over
            assert each.status in (AgentStatus.FAILED, AgentStatus.UNKNOWN)
        with pytest.raises(tmuxcc.TmuxError):
            await swarm.spawn("four", worker())
        assert set((await swarm.gather_outputs()).values()) != {""}
        mark = swarm.mark
    assert not marked(mark)


async def test_a_flood_loses_nothing_silently_while_others_are_heard(server: Server) -> None:
    """S-R3: flow control, and gaps where the master was too slow."""
    async with swarm_on(server) as swarm:
        wild = await swarm.spawn("wild", flood())
        calm = await swarm.spawn("calm", worker())
        await said(calm, "up")
        await until(lambda: wild.statistics().bytes > 5_000_000)
        for number in range(10):
            assert await calm.send(f"ping {number}") is SendOutcome.ACCEPTED
            assert await calm.wait_for(f"got ping {number}")
        await wild.stop()
        gaps = [item async for item in wild.output() if isinstance(item, Gap)]
        assert gaps
        assert gaps[0].cause == "history"


# What other shells see


async def test_the_state_of_agents_is_noted_in_tmux(server: Server) -> None:
    """S-4.3.11: what runs can be asked from any shell."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker(), restart="no")
        await said(agent, "up")
        await until(lambda: '"life":"running"' in option(server, agent.pane_id, "@tmuxcc_state"))
        await agent.send("exit 3")
        await until(lambda: '"code":3' in option(server, agent.pane_id, "@tmuxcc_state"))
        assert '"status":"failed"' in option(server, agent.pane_id, "@tmuxcc_state")
        master = server.run("show-options", "-qv", "-t", "=swarm-demo:", "@tmuxcc_master")
        assert master.split()[0] == str(os.getpid())


async def test_nothing_runs_on_behind_a_swarm_that_was_left(server: Server) -> None:
    """S-R4, S-4.3.2: also what ignores every signal and has left the terminal."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", stubborn(), stop=tmuxcc.StopPolicy(grace=0.1))
        words = (await said(agent, r"stubborn \d+ \d+")).split()
        mark, pid = swarm.mark, swarm.client.server_pid
    assert not any(is_running(int(word)) for word in words[1:])
    assert not marked(mark)
    assert not is_running(pid)
    assert not server.is_alive


async def test_an_agent_that_can_not_be_started_is_in_nobodys_way(server: Server) -> None:
    async with swarm_on(server) as swarm:

        async def spawn() -> None:
            with pytest.raises(tmuxcc.InvalidSwarm):
                await swarm.spawn("one", worker(), env_file="missing.env")

        async def meddle(verb: Callable[[str], Awaitable[object]]) -> None:
            with suppress(tmuxcc.AgentNotFoundError, tmuxcc.InvalidSwarm):
                await verb("one")

        for verb in (swarm.remove, swarm.restart) * 10:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn)
                await trio.lowlevel.checkpoint()
                nursery.start_soon(meddle, verb)
            assert "one" not in swarm.agents


async def test_however_many_agents_end_all_keep_their_output_and_can_start_again(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxcc.client.panes.MAX_ENDED", 2)
    async with swarm_on(server, log_dir=folder / "logs") as swarm:
        agents = [await swarm.spawn(f"a{number}", shell("echo out")) for number in range(5)]
        for agent in agents:
            await agent.wait_exit()
        assert [await lines_of(agent) for agent in agents] == [["out"]] * 5
        await swarm.restart("a0")
        await agents[0].wait_exit()
        assert await lines_of(agents[0]) == ["out", "out"]
        log = agents[0].log_file
        assert log is not None
        assert log.read_bytes() == b"out\r\nout\r\n"
