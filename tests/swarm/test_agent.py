"""`Agent` against a real tmux: its program's life, typing, waiting, activity, limits."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from pathlib import Path

import pytest
import trio

import tmuxcc
from tests.client.helpers import (
    OtherClient,
    Server,
    children,
    flood,
    gather,
    is_running,
    python,
    shell,
    until,
)
from tmuxcc import (
    Activity,
    AgentStatus,
    Chunk,
    ExitStatus,
    Gap,
    Life,
    LostOutput,
    OutputLimits,
    Ready,
    RestartPolicy,
    SendOutcome,
    StopPolicy,
)

from .helpers import lines_of, said, swarm_on
from .programs import full_screen, look_alike, reader, reporter, stubborn, worker

pytestmark = pytest.mark.tmux

QUICK = RestartPolicy("always", delay=0.01, max_delay=0.02, max_restarts=1000)


def program_of(agent: tmuxcc.Agent) -> int:
    """The process of an agent's program."""
    assert agent.pane.pid is not None
    [pid] = children(agent.pane.pid)
    return pid


# What it writes


async def test_s_t3_lines_come_from_the_first_byte_to_the_last(server: Server) -> None:
    """S-T3, S-3.4, S-4.3.6: streaming by push, also of more lines than a screen has."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("seq 5000; printf unfinished"))
        assert await lines_of(agent) == [*map(str, range(1, 5001)), "unfinished"]
        assert await lines_of(agent) == [*map(str, range(1, 5001)), "unfinished"], "and again"
        assert agent.statistics().lines == 5000
        assert agent.statistics().gaps == agent.statistics().lost == 0


async def test_output_is_bytes_with_offsets(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell(r"printf 'a\377\033[1mb'"))
        await agent.wait_exit()
        items = [item async for item in agent.output()]
        assert b"".join(item.data for item in items if isinstance(item, Chunk)) == (
            b"a\xff\x1b[1mb"
        )


async def test_a_full_screen_program_is_typed_to_and_looked_at(server: Server) -> None:
    """S-4.3.7, S-3.3: a capture is the screen as it is, not some lines of history."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("editor", full_screen())
        await said(agent, "full screen")
        await agent.send_keys("a", "b", "c")
        await agent.wait_for("keys: 3", since=0)
        assert (await agent.capture()).startswith("keys: 3")
        await agent.send_keys("q")
        assert (await agent.wait_exit()).ok


# How it ends


@pytest.mark.parametrize(
    ("script", "expected", "word"),
    [
        ("exit 0", ExitStatus(0, None), AgentStatus.STOPPED),
        ("exit 3", ExitStatus(3, None), AgentStatus.FAILED),
        ("kill -9 $$", ExitStatus(None, 9), AgentStatus.FAILED),
        ("kill -TERM $$", ExitStatus(None, 15), AgentStatus.FAILED),
        ("exit 143", ExitStatus(143, None), AgentStatus.FAILED),
    ],
)
async def test_the_end_of_a_program_is_told_with_code_or_signal(
    server: Server, script: str, expected: ExitStatus, word: AgentStatus
) -> None:
    """S-E1, S-4.1, S-4.3.5: a process that dies is seen, with its status."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell(f"read x; {script}"))
        assert agent.status is AgentStatus.RUNNING
        await agent.send_keys("Enter")
        assert await agent.wait_exit() == agent.exit_status == expected
        assert (agent.life, agent.status) == (Life.EXITED, word)
        assert agent.is_over


async def test_a_program_that_is_not_there_is_exit_127_and_failed(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", ["/no/such/program"])
        assert await agent.wait_exit() == ExitStatus(127, None)
        assert agent.status is AgentStatus.FAILED


async def test_s_t4_sigkill_of_program_and_of_wrapper_is_told_at_once(server: Server) -> None:
    """S-T4, S-3.5: health is pushed: a killed process ends the agent."""
    async with swarm_on(server) as swarm:
        one, two = [await swarm.spawn(name, worker()) for name in ("one", "two")]
        await said(one, "up")
        await said(two, "up")
        program, wrapper = program_of(one), two.pane.pid
        assert wrapper is not None
        os.kill(program, signal.SIGKILL)
        assert await one.wait_exit() == ExitStatus(None, 9)
        orphan = program_of(two)
        os.kill(wrapper, signal.SIGKILL)
        assert await two.wait_exit() == ExitStatus(None, 9)
        assert two.status is AgentStatus.FAILED
        await until(lambda: not is_running(orphan))


@pytest.mark.parametrize("what", ["kill-pane", "kill-window"])
async def test_a_pane_that_is_closed_from_outside_answers_every_waiter(
    server: Server, what: str
) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        other = await swarm.spawn("two", worker())
        for each in (agent, other):
            await said(each, "up")

        async def idle() -> None:
            # It may be idle before it dies.
            try:
                await agent.wait_idle()
            except tmuxcc.PaneDeadError:
                return

        async def end() -> None:
            server.run(what, "-t", agent.pane_id)

        results = await gather(
            agent.wait_exit, lambda: lines_of(agent), lambda: agent.wait_for("never"), idle, end
        )
        assert results[0] == ExitStatus(None, None)
        up, *lost = results[1]
        assert up == "worker 1 up"
        assert [line.gap.cause for line in lost] == ["killed"], "its last words, perhaps"
        assert results[2].outcome in ("exited", "gap")
        assert agent.is_over
        assert await agent.send("x") is SendOutcome.DEAD
        with pytest.raises(tmuxcc.PaneDeadError):
            await agent.interrupt()
        assert agent.status is AgentStatus.UNKNOWN
        assert await other.send("still here") is SendOutcome.ACCEPTED


# Restarts


async def test_a_program_that_fails_is_started_again_and_keeps_everything(
    server: Server, folder: Path
) -> None:
    logs = folder / "logs"
    async with swarm_on(server, log_dir=logs, base_dir=folder) as swarm:
        script = (
            "count=$(($(cat count) + 1)); echo $count >count; echo run $count $WORD $SECRET"
            "; [ $count = 3 ] || exit 1"
        )
        (folder / "count").write_text("0")
        agent = await swarm.spawn(
            "one",
            shell(script),
            env={"WORD": "a"},
            secrets={"SECRET": "b"},
            restart=RestartPolicy("on-failure", delay=0.01),
        )
        where = agent.pane_id, agent.window_id
        assert await lines_of(agent) == ["run 1 a b", "run 2 a b", "run 3 a b"]
        assert await agent.wait_exit() == ExitStatus(0, None)
        assert (agent.pane_id, agent.window_id) == where
        assert agent.restarts == agent.statistics().restarts == 2
        assert agent.status is AgentStatus.STOPPED
        assert agent.log_file is not None
        assert agent.log_file.read_bytes() == b"run 1 a b\r\nrun 2 a b\r\nrun 3 a b\r\n"


async def test_restart_always_also_after_a_good_end_and_no_never(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up"), restart=QUICK)
        never = await swarm.spawn("two", shell("exit 1"))
        await until(lambda: agent.restarts >= 5)
        report = await agent.stop()
        assert agent.is_over
        assert agent.status is AgentStatus.STOPPED
        assert not report.left
        assert await never.wait_exit() == ExitStatus(1, None)
        assert never.restarts == 0


async def test_a_crash_loop_ends_in_failure_with_its_reason(server: Server) -> None:
    async with swarm_on(server) as swarm:
        policy = RestartPolicy("on-failure", delay=0.001, max_restarts=3)
        agent = await swarm.spawn("one", shell("exit 7"), restart=policy)
        assert await agent.wait_exit() == ExitStatus(7, None)
        assert (agent.life, agent.status) == (Life.FAILED, AgentStatus.FAILED)
        assert agent.restarts == 3
        assert "3 restarts within 60 seconds" in agent.failure
        assert (await swarm.restart("one")) is agent
        await agent.wait_exit()
        assert agent.restarts >= 3


async def test_each_wait_before_a_restart_is_longer_and_shown(server: Server) -> None:
    async with swarm_on(server) as swarm:
        policy = RestartPolicy("always", delay=0.02, factor=10, jitter=0)
        agent = await swarm.spawn("one", shell("exit 1"), restart=policy)
        seen: dict[int, float] = {}

        async def watch() -> None:
            while len(seen) < 3:
                if agent.restart_at is not None and agent.restarts not in seen:
                    seen[agent.restarts] = agent.restart_at - trio.current_time()
                await agent.wait_change()

        await watch()
        assert seen[0] <= 0.02 < seen[1] <= 0.2 < seen[2] <= 2


async def test_stopping_during_the_wait_before_a_restart_ends_that(server: Server) -> None:
    async with swarm_on(server) as swarm:
        policy = RestartPolicy("always", delay=600, max_delay=600)
        agent = await swarm.spawn("one", shell("exit 1"), restart=policy)
        await until(lambda: agent.restart_at is not None)
        assert not agent.is_over
        await agent.stop()
        assert agent.is_over
        assert agent.restart_at is None
        assert agent.restarts == 0
        assert agent.status is AgentStatus.STOPPED


async def test_another_shell_can_ask_for_an_end_without_restart(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker(), restart=QUICK)
        await said(agent, "up")
        server.run("set-option", "-p", "-t", agent.pane_id, "@tmuxcc_wanted", "stopped")
        await agent.send("exit 5")
        assert await agent.wait_exit() == ExitStatus(5, None)
        assert agent.restarts == 0
        await swarm.restart("one")
        await agent.send("exit 5")
        await until(lambda: agent.restarts > 0)


async def test_a_restart_by_hand_goes_on_in_the_same_pane(server: Server, folder: Path) -> None:
    async with swarm_on(server, log_dir=folder / "logs") as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        where = agent.pane_id
        for _ in range(3):
            assert await swarm.restart("one") is agent
            assert agent.life is Life.RUNNING
            assert agent.pane_id == where
            assert await agent.wait_for("up"), "of the new program, not of the last one"
        await agent.send("shutdown")
        assert (await agent.wait_exit()).ok
        lines = await lines_of(agent)
        assert lines == [*["worker 1 up"] * 4, "shutdown"]
        assert agent.statistics().lines == 5
        assert agent.log_file is not None
        assert agent.log_file.read_bytes() == b"worker 1 up\r\n" * 4 + b"shutdown\r\n"


async def test_restarts_by_hand_at_the_same_time_do_not_collide(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        await gather(*[lambda: swarm.restart("one")] * 3)
        assert agent.life is Life.RUNNING
        assert await agent.send("hello") is SendOutcome.ACCEPTED
        assert await agent.wait_for("got hello")


async def test_waiting_for_the_end_goes_on_over_restarts(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker(), restart=RestartPolicy("on-failure", delay=0))
        done = False

        async def wait() -> None:
            nonlocal done
            assert (await agent.wait_exit()).ok
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await said(agent, "up")
            await agent.send("exit 1")
            assert (await agent.wait_for("never")).outcome == "exited"
            await until(lambda: agent.restarts == 1 and agent.life is Life.RUNNING)
            assert not done
            await agent.send("shutdown")
        assert done


# Typing


async def test_a_prompt_of_many_lines_is_one_input(server: Server) -> None:
    """S-4.3.9, S-3.6: sent as one paste, never as the names of keys."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", look_alike())
        await said(agent, ">")
        for text in ("C-c", "Enter", "ends with ;", "several\nlines\nä🦀", "x" * 3000):
            told = hashlib.sha256(text.encode()).hexdigest()[:16]
            assert await agent.send(text) is SendOutcome.ACCEPTED
            assert await agent.wait_for(f"told {len(text.encode())} {told}")


async def test_outcomes_tell_what_became_of_a_text(server: Server) -> None:
    async with swarm_on(server) as swarm:
        deaf = await swarm.spawn("deaf", look_alike("deaf"))
        silent = await swarm.spawn("silent", shell("stty -echo; echo ready; exec sleep 600"))
        dead = await swarm.spawn("dead", shell("exit 0"))
        await said(deaf, ">")
        await said(silent, "ready")
        await dead.wait_exit()
        assert await deaf.send("text") is SendOutcome.STRANDED
        assert await silent.send("text") is SendOutcome.UNKNOWN
        assert await dead.send("text") is SendOutcome.DEAD


async def test_a_text_with_a_key_is_typed_once(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        outcomes = await gather(*[lambda: agent.send("once", key="k1")] * 3)
        assert outcomes == [SendOutcome.ACCEPTED] * 3
        assert await agent.send("twice", key="k2") is SendOutcome.ACCEPTED
        await agent.wait_for("got twice")
        await agent.send("shutdown")
        lines = await lines_of(agent)
        assert lines.count("got once") == 1
        assert server.run("show", "-pqv", "-t", agent.pane_id, "@tmuxcc_sent") == "k1 k2"
        for wrong in ("", "a b", "ä", "x" * 65, "a\nb"):
            with pytest.raises(ValueError, match="key"):
                await agent.send("x", key=wrong)


@pytest.mark.parametrize("mode", ["", r"\x1b[?2004h"], ids=["plain", "bracketed"])
async def test_a_long_text_arrives_byte_for_byte(server: Server, folder: Path, mode: str) -> None:
    """PEERS 13: 200 KB, exact."""
    text = "".join(f"{number} ä🦀 #{{x}} $y ;\n" for number in range(10_000))
    expected = text.encode()
    assert len(expected) > 200_000
    if mode:
        expected = b"\x1b[200~" + expected + b"\x1b[201~"
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", reader(folder / "read", len(expected), mode))
        await said(agent, "ready")
        await agent.send(text, submit=False)
        assert await agent.wait_for("done", echo=True)
        assert (folder / "read").read_bytes() == expected


async def test_texts_that_are_sent_at_once_do_not_mix(server: Server, folder: Path) -> None:
    """S-R5: one writer at a time."""
    texts = [f"<{number}{'x' * 5000}{number}>" for number in range(8)]
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", reader(folder / "read", sum(map(len, texts))))
        await said(agent, "ready")
        await gather(*[lambda text=text: agent.send(text, submit=False) for text in texts])
        assert await agent.wait_for("done", echo=True)
        read = (folder / "read").read_text()
        assert len(read) == sum(map(len, texts))
        assert all(text in read for text in texts)


async def test_an_interrupt_is_the_byte_also_with_extended_keys(server: Server) -> None:
    async with swarm_on(server) as swarm:
        await swarm.client.command("set-option", "-s", "extended-keys", "on")
        agent = await swarm.spawn("one", shell(r"printf '\033[>4;2mready'; exec sleep 600"))
        await said(agent, "ready")
        await agent.interrupt()
        assert await agent.wait_exit() in (ExitStatus(None, 2), ExitStatus(130, None))


# Waiting


async def test_waiting_for_text_begins_with_the_first_byte_and_then_goes_on(
    server: Server,
) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo one; echo two; read x; echo three; exit 1"))
        assert await agent.wait_for("one")
        assert await agent.wait_for("two")
        with trio.move_on_after(0.05) as scope:
            await agent.wait_for("one")
        assert scope.cancelled_caught
        await agent.send_keys("Enter")
        stopped = await agent.wait_for("never", stop=["four", "three"])
        assert (stopped.outcome, stopped.index) == ("stopped", 1)
        assert (await agent.wait_for("never")).outcome == "exited"
        assert await agent.wait_for("three", screen=True)


async def test_an_agent_is_ready_when_its_output_says_so(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn(
            "one",
            shell("echo starting; read x; printf 'now re'; printf 'ady\\n'; exec cat"),
            ready=Ready(pattern="^now ready$"),
        )
        await said(agent, "starting")
        assert not agent.ready
        await agent.send_keys("Enter")
        await agent.wait_ready()
        assert agent.ready
        none = await swarm.spawn("two", ["cat"])
        await none.wait_ready()


async def test_readiness_is_that_of_each_program_anew(server: Server, folder: Path) -> None:
    async with swarm_on(server, base_dir=folder) as swarm:
        script = "[ -e second ] && { read x; echo ready; exec cat; }; touch second; echo ready; "
        agent = await swarm.spawn(
            "one",
            shell(script + "read x; exit 1"),
            ready=Ready(pattern="ready"),
            restart=RestartPolicy("always", delay=0.01),
        )
        await agent.wait_ready()
        await agent.send_keys("Enter")
        await until(lambda: agent.restarts == 1 and agent.life is Life.RUNNING)
        assert not agent.ready
        await agent.send_keys("Enter")
        await agent.wait_ready()


async def test_a_program_that_is_ready_at_once_is_never_missed(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn(
            "one",
            shell("echo ready; read x; exit 1"),
            ready=Ready(pattern="^ready"),
            restart=QUICK,
        )
        for number in range(30):
            await until(lambda number=number: agent.restarts == number)
            await agent.wait_ready()
            await agent.send_keys("Enter")


async def test_who_waits_is_told_of_each_program_that_becomes_ready(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn(
            "one", ["echo", "done"], ready=Ready(pattern="^done$"), restart=QUICK
        )
        for _ in range(3):
            await agent.wait_ready()


async def test_what_was_ready_and_ended_at_once_counts_as_ready(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", ["echo", "done"], ready=Ready(pattern="^done$"))
        await agent.wait_exit()
        assert not agent.ready
        await agent.wait_ready()


async def test_a_command_or_a_port_that_answers_makes_an_agent_ready(
    server: Server, folder: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listener = f"import socket; s = socket.create_server(('127.0.0.1', {port})); s.accept()"
    async with swarm_on(server, base_dir=folder) as swarm:
        commanded = await swarm.spawn(
            "command",
            shell("read x; echo $WORD >answer; exec cat"),
            env={"WORD": "right"},
            ready=Ready(command=("sh", "-c", '[ "$(cat answer)" = "$WORD" ]')),
        )
        ported = await swarm.spawn(
            "port", python(f"input(); {listener}; input()"), ready=Ready(port=port)
        )
        for agent in (commanded, ported):
            assert not agent.ready
            await agent.send_keys("Enter")
            await agent.wait_ready()
            assert agent.ready


async def test_who_is_not_ready_in_time_or_ends_first_is_told_apart(server: Server) -> None:
    """S-4.4: CommandTimeoutError and PaneDeadError each have somebody who raises them."""
    async with swarm_on(server) as swarm:
        late = await swarm.spawn("late", ["cat"], ready=Ready(pattern="never", timeout=0.05))
        dead = await swarm.spawn("dead", shell("exit 1"), ready=Ready(command=("false",)))
        with pytest.raises(tmuxcc.CommandTimeoutError):
            await late.wait_ready()
        with pytest.raises(tmuxcc.PaneDeadError):
            await dead.wait_ready()
        with pytest.raises(tmuxcc.PaneDeadError):
            await dead.wait_idle()


# What it is doing


async def test_a_shell_is_busy_while_a_command_runs_and_then_idle(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", ["/bin/sh"])
        assert await agent.wait_idle() is Activity.IDLE
        await agent.send("sleep 0.6; echo done")
        assert agent.activity is Activity.BUSY
        assert await agent.wait_idle() is Activity.IDLE
        assert "\ndone\n" in f"\n{await agent.capture()}\n"
        explanation = agent.explain()
        assert explanation.deciding.source == "screen"
        assert explanation.deciding.rule == "prompt"
        assert "prompt" in str(explanation)


async def test_an_input_box_is_idle_when_it_is_quiet_after_its_answer(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", look_alike())
        await said(agent, ">")
        assert await agent.wait_idle() is Activity.IDLE
        await agent.send("hello")
        assert agent.activity is Activity.BUSY
        assert await agent.wait_idle() is Activity.IDLE
        await agent.stop()
        assert agent.activity is Activity.UNKNOWN


async def test_an_agent_says_itself_what_it_does(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", reporter(server.program))
        await said(agent, "reporter up")
        for word, activity in (
            ("blocked: may I?", Activity.BLOCKED),
            ("busy", Activity.BUSY),
            ("idle", Activity.IDLE),
            ("blocked", Activity.BLOCKED),
        ):
            await agent.send(word)
            await until(
                lambda activity=activity: (
                    agent.activity is activity and agent.explain().deciding.source == "report"
                )
            )
        assert await agent.wait_idle() is Activity.BLOCKED


async def test_a_report_by_a_silent_program_counts_without_further_output(
    server: Server,
) -> None:
    async with swarm_on(server) as swarm:
        program = "import time; print('up', flush=True); time.sleep(600)"
        agent = await swarm.spawn("one", python(program))
        await said(agent, "up")
        await agent.wait_idle()
        server.run("set", "-p", "-t", agent.pane_id, "@tmuxcc_activity", "blocked")
        await until(lambda: agent.activity is Activity.BLOCKED)


async def test_a_report_is_of_whoever_has_the_pane(server: Server) -> None:
    async with swarm_on(server) as swarm:
        program = python("import time; print('up', flush=True); time.sleep(600)")
        for name, activity in (("one", Activity.BLOCKED), ("two", Activity.BUSY)):
            agent = await swarm.spawn(name, program)
            await said(agent, "up")
            await agent.wait_idle()
            server.run("set", "-p", "-t", agent.pane_id, "@tmuxcc_activity", activity.value)
            await until(lambda agent=agent, activity=activity: agent.activity is activity)
            # The last window is kept for the next agent.
            await swarm.remove(name)


async def test_a_stop_ends_where_somebody_has_started_another_program(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        server.run("respawn-pane", "-k", "-t", agent.pane_id, "sleep", "600")
        await agent.stop()
        assert agent.exit_status == ExitStatus(None, None)
        await swarm.remove("one")


def decided_by_report(agent: tmuxcc.Agent) -> bool:
    return agent.explain().deciding.source == "report"


@pytest.mark.parametrize("words", [("busy", "busy"), ("busy", "")])
async def test_a_report_is_of_the_program_that_has_made_it(
    server: Server, folder: Path, words: tuple[str, str]
) -> None:
    """The first program says something of itself and ends, the second the same, or nothing."""
    script = f"""
        say() {{ [ -z "$1" ] || {server.program} set -p -t "$TMUX_PANE" @tmuxcc_activity "$1"; }}
        if [ -e second ]; then say "{words[1]}"; echo second; exec sleep 600; fi
        touch second; say "{words[0]}"; echo first; read x; exit 1
    """
    async with swarm_on(server, base_dir=folder) as swarm:
        agent = await swarm.spawn("one", shell(script), kind="generic", restart=QUICK)
        await said(agent, "first")
        await until(lambda: decided_by_report(agent))
        await agent.send("")
        await until(lambda: agent.restarts == 1)
        assert await agent.wait_for("second")
        if words[1]:
            await until(lambda: decided_by_report(agent))
        else:
            await agent.wait_idle()
            assert not decided_by_report(agent)


# Limits


async def test_s_e2_a_flood_is_cut_to_its_rate_with_marks_in_order(server: Server) -> None:
    """S-E2, S-R3, S-P2: an output loop is held to its rate, visibly, and harms nobody else."""
    async with swarm_on(server) as swarm:
        limits = OutputLimits(rate=200_000, burst=100_000)
        wild = await swarm.spawn("wild", flood(), limits=limits)
        calm = await swarm.spawn("calm", worker())
        await said(calm, "up")
        marks = 0
        async with wild.lines() as lines:
            async for line in lines:
                if isinstance(line, LostOutput):
                    assert line.gap.cause == "limit"
                    assert line.gap.size
                    marks += 1
                    if marks == 4:
                        break
        assert await calm.send("hello") is SendOutcome.ACCEPTED
        assert await calm.wait_for("got hello")
        await wild.stop()
        offset = 0
        async for item in wild.output():
            if isinstance(item, Gap) and item.cause == "history":
                offset = item.size or 0
            else:
                assert isinstance(item, (Chunk, Gap))
                assert item.offset == offset
                offset += len(item.data) if isinstance(item, Chunk) else item.size or 0
        assert wild.statistics().gaps >= marks
        assert wild.statistics().lost > 0
        assert calm.statistics().gaps == 0


async def test_what_was_thrown_away_does_not_count_for_the_rate(server: Server) -> None:
    async with swarm_on(server) as swarm:
        limits = OutputLimits(rate=1_000_000, burst=100_000)
        wild = await swarm.spawn("wild", flood(), limits=limits)
        # Each hold lasts a tenth of a second: not longer because more was thrown away in it.
        await until(lambda: wild.statistics().gaps >= 10)


async def test_a_run_is_cut_at_its_size_and_the_next_one_is_heard_again(server: Server) -> None:
    async with swarm_on(server) as swarm:
        script = "echo first; read x; seq 1 100000; read x; exit 1"
        agent = await swarm.spawn(
            "one",
            shell(script),
            limits=OutputLimits(size=50_000),
            restart=RestartPolicy("always", delay=0.01),
        )
        await said(agent, "first")
        await agent.send_keys("Enter")
        await until(lambda: agent.statistics().bytes > 600_000)
        await agent.send_keys("Enter")
        async with agent.lines() as lines:
            seen = [await anext(lines)]
            while seen.count("first") < 2:
                seen.append(await anext(lines))
        assert any(isinstance(line, LostOutput) for line in seen)
        await agent.stop()
        kept = lost = 0
        async for item in agent.output():
            kept += len(item.data) if isinstance(item, Chunk) else 0
            lost += item.size or 0 if isinstance(item, Gap) else 0
        assert kept + lost == agent.statistics().bytes
        assert lost > 0


async def test_history_is_cleared_after_so_many_bytes(server: Server) -> None:
    """S-P2, S-R6: what tmux keeps is bounded by policy."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn(
            "one",
            shell("seq 10000; echo end; exec cat"),
            limits=OutputLimits(clear_history_after=20_000),
        )
        await said(agent, "end")

        async def few() -> bool:
            text = await agent.capture(history=True)
            return "\n9999\n" in text and "\n100\n" not in text

        await until(few)


async def test_logs_hold_every_byte_and_where_some_are_missing(
    server: Server, folder: Path
) -> None:
    """S-D5, a.7: logs on disk."""
    async with swarm_on(server, log_dir=folder / "logs") as swarm:
        agent = await swarm.spawn("a/b", shell("seq 5000"))
        await agent.wait_exit()
        cut = await swarm.spawn("cut", shell("seq 100000"), limits=OutputLimits(size=50_000))
        await cut.wait_exit()
        quiet = await swarm.spawn("none", shell("echo x"), log=False)
        assert quiet.log_file is None
        option = server.run("show", "-pqv", "-t", agent.pane_id, "@tmuxcc_log")
    assert agent.log_file == folder / "logs" / "a%2Fb.log" == Path(option)
    expected = "".join(f"{number}\r\n" for number in range(1, 5001)).encode()
    assert agent.log_file.read_bytes() == expected
    assert cut.log_file is not None
    data = cut.log_file.read_bytes()
    assert b"[tmuxcc: " in data
    assert b" lost here: limit]\r\n" in data
    assert not (folder / "logs" / "none.log").exists()


async def test_statistics_count_what_happened(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        await until(lambda: agent.statistics().last_output is not None)
        numbers = agent.statistics()
        assert (numbers.bytes, numbers.lines) == (len(b"worker 1 up\r\n"), 1)
        assert numbers.uptime is not None
        assert numbers.uptime > 0
        await agent.stop()
        assert agent.statistics().uptime is None


# Stopping


async def test_s_e5_a_stubborn_program_and_its_children_are_ended(server: Server) -> None:
    """S-E5, S-R4, PEERS 12: signals, to all that it started; the report says what it took."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", stubborn())
        words = (await said(agent, r"stubborn \d+ \d+")).split()
        report = await agent.stop(grace=0.2)
        assert not any(is_running(int(word)) for word in words[1:])
        assert report.exit_status == agent.exit_status == ExitStatus(None, 9)
        actions = [step.action for step in report.steps]
        assert "SIGTERM" in actions
        assert "SIGKILL" in actions
        assert report.strays
        assert not report.left
        assert "SIGKILL" in str(report)
        assert agent.status is AgentStatus.STOPPED


async def test_a_stop_begins_as_its_policy_says(server: Server) -> None:
    """S-4.3.2, S-4.3.4, S-T5: asked first, by text, key or signal, then told."""
    async with swarm_on(server) as swarm:
        script = "trap 'echo int; exit 5' INT; trap 'echo usr; exit 6' USR1; echo up; "
        script += "while :; do read x || exit 9; done"
        policies = {
            "text": StopPolicy(text="shutdown", grace=20),
            "keys": StopPolicy(keys=("C-c",), grace=20),
            "signal": StopPolicy(signal="USR1", grace=20),
        }
        for name, policy in policies.items():
            await swarm.spawn(name, worker() if name == "text" else shell(script), stop=policy)
        for agent in swarm.agents.values():
            await said(agent, "up")
        reports = await swarm.stop_all()
        assert reports["text"].exit_status == ExitStatus(0, None)
        assert reports["keys"].exit_status == ExitStatus(5, None)
        assert reports["signal"].exit_status == ExitStatus(6, None)
        assert [len(report.strays) for report in reports.values()] == [0, 0, 0]


async def test_who_stops_together_gets_the_same_report(server: Server) -> None:
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", worker())
        await said(agent, "up")
        first, second = await gather(agent.stop, agent.stop)
        assert first is second
        again = await agent.stop()
        assert str(again).startswith("one: it had ended")


async def test_a_stop_goes_on_when_the_first_to_ask_is_cancelled(server: Server) -> None:
    async with swarm_on(server) as swarm:
        script = "trap '' TERM; echo up; while :; do sleep 1; done"
        agent = await swarm.spawn("one", shell(script))
        await said(agent, "up")
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                with trio.move_on_after(0.1):
                    await agent.stop(grace=60)

            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            report = await agent.stop(grace=60)
        assert agent.is_over
        assert not report.left


async def test_a_person_who_looks_on_changes_nothing(server: Server) -> None:
    """S-7, S-D5, a.7: humans attach at the same time; the terminals keep their size."""
    async with swarm_on(server) as swarm:
        agent = await swarm.spawn("one", shell("echo up; while read x; do stty size; done"))
        await said(agent, "up")
        with OtherClient(server, "swarm-demo", flags="ignore-size"):
            assert await agent.send("") is SendOutcome.ACCEPTED
            assert await agent.wait_for("^50 200")
        assert await agent.send("") is SendOutcome.ACCEPTED
        assert await agent.wait_for("^50 200")
