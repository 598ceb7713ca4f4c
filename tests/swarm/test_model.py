"""A swarm against a model of it: hypothesis makes up what happens to its agents.

The default run has the same few examples each time. ``TMUXCC_MODEL_EXAMPLES`` asks for that many
others, and ``TMUXCC_MODEL_STEPS`` for another length.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import Factory, define
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import tmuxcc
from tests.client.helpers import GUARD, Server, is_running, until
from tests.swarm.helpers import marked
from tests.swarm.programs import python
from tmuxcc import AgentStatus, ExitStatus, Life, RestartPolicy, SendOutcome
from tmuxcc.protocol import OLDEST_SUPPORTED, TmuxVersion
from tmuxcc.swarm.bridge import Portal

pytestmark = pytest.mark.tmux

EXAMPLES = os.environ.get("TMUXCC_MODEL_EXAMPLES")
STEPS = int(os.environ.get("TMUXCC_MODEL_STEPS", "30"))

AGAIN = RestartPolicy("always", delay=0, max_delay=0, max_restarts=1000)
POLICIES = {"no": RestartPolicy("no"), "always": AGAIN}

# Says who it is, then repeats what it is told, and ends how it is told.
PROGRAM = r"""
import os, signal, sys, termios
mode = termios.tcgetattr(0)
mode[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, mode)
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "exit":
        print("bye", rest, flush=True)
        sys.exit(int(rest))
    print("got", word, flush=True)
"""


@define
class Expected:
    """What must be true of an agent."""

    policy: str
    running: bool = True
    wrapper_killed: bool = False
    """Whether its wrapper was killed once, which could have cost the last words of its program."""
    status: AgentStatus = AgentStatus.RUNNING
    exit_status: ExitStatus | None = None
    restarts: int = 0
    lines: list[str] = Factory(list)
    """What it has written since its first line, or as much of it as was there to be adopted."""
    keys: set[str] = Factory(set)


class SwarmMachine(RuleBasedStateMachine):
    """One swarm, the model of it, and what happens to both."""

    program = ""

    agents = Bundle("agents")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tmuxcc-model-", dir="/tmp"))
        self.server = Server(self.program, self.folder / "socket")
        self.portal = Portal()
        self.made = self.typed = 0
        self.model: dict[str, Expected] = {}
        self.marks: list[str] = []
        self.open()

    def open(self, *, adopt: bool = False) -> None:
        """A master begins."""
        self.opened = self.portal.enter(
            tmuxcc.open_swarm,
            "model",
            socket_path=self.server.socket,
            tmux=self.program,
            base_dir=self.folder,
            adopt=adopt,
        )
        self.swarm = self.opened.value
        self.marks.append(self.swarm.mark)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """Run it where the swarm is; what it gives, in time."""

        async def run() -> Any:
            with trio.fail_after(GUARD):
                return await function(*args, **options)

        return self.portal.run(run)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait for something that will be so."""
        return self.run(until, condition)

    # What is asked of it

    @rule(target=agents, policy=st.sampled_from(sorted(POLICIES)))
    def spawn(self, policy: str) -> str:
        self.made += 1
        name = f"agent-{self.made}"
        with pytest.raises(tmuxcc.AgentNotFoundError):
            self.run(self.swarm.stop, name)
        self.run(self.swarm.spawn, name, python(PROGRAM), restart=POLICIES[policy])
        self.model[name] = Expected(policy)
        self.wait_up(name)
        return name

    @rule(name=agents)
    def spawn_again(self, name: str) -> None:
        with pytest.raises(tmuxcc.AgentExistsError):
            self.run(self.swarm.spawn, name, ["cat"])

    @rule(name=agents, key=st.sampled_from([None, None, "one", "two"]))
    def send(self, name: str, key: str | None) -> None:
        self.typed += 1
        expected = self.model[name]
        outcome = self.run(self.swarm.agents[name].send, f"word-{self.typed}", key=key)
        if not expected.running:
            assert outcome is SendOutcome.DEAD
        elif key in expected.keys:
            assert outcome in (SendOutcome.ACCEPTED, SendOutcome.UNKNOWN)
        else:
            # It answers each line, but a busy machine may make it late.
            assert outcome in (SendOutcome.ACCEPTED, SendOutcome.UNKNOWN)
            expected.lines.append(f"got word-{self.typed}")
            if key is not None:
                expected.keys.add(key)

    @rule()
    @precondition(lambda self: self.model)
    def broadcast(self) -> None:
        self.typed += 1
        outcomes = self.run(self.swarm.broadcast, f"all-{self.typed}")
        assert set(outcomes) == set(self.model)
        for name, expected in self.model.items():
            assert (outcomes[name] is SendOutcome.DEAD) is not expected.running, (name, outcomes)
            if expected.running:
                expected.lines.append(f"got all-{self.typed}")

    @rule(name=agents, code=st.sampled_from([0, 3]))
    def end_by_itself(self, name: str, code: int) -> None:
        expected = self.model[name]
        if expected.running:
            self.run(self.swarm.agents[name].send_keys, f"exit {code}", "Enter")
            expected.lines.append(f"bye {code}")
            self.ended(name, ExitStatus(code, None))

    @rule(name=agents)
    def kill_program(self, name: str) -> None:
        if self.model[name].running:
            os.kill(self.program_pid(name), signal.SIGKILL)
            self.ended(name, ExitStatus(None, signal.SIGKILL))

    @rule(name=agents)
    def kill_wrapper(self, name: str) -> None:
        if self.model[name].running:
            pid = self.swarm.agents[name].pane.pid
            assert pid is not None
            self.model[name].wrapper_killed = True
            os.kill(pid, signal.SIGKILL)
            self.ended(name, ExitStatus(None, signal.SIGKILL))

    @rule(name=agents)
    def stop(self, name: str) -> None:
        expected = self.model[name]
        report = self.run(self.swarm.stop, name)
        assert report.left == ()
        if expected.running:
            expected.exit_status = ExitStatus(None, signal.SIGTERM)
            assert report.exit_status == expected.exit_status
        expected.running = False
        # Who asks for the end of what has ended has asked for it too.
        expected.status = AgentStatus.STOPPED

    @rule(name=agents)
    def restart(self, name: str) -> None:
        agent = self.run(self.swarm.restart, name)
        assert agent is self.swarm.agents[name]
        expected = self.model[name]
        expected.running, expected.exit_status = True, None
        expected.status = AgentStatus.RUNNING
        self.wait_up(name)

    @rule(name=consumes(agents))
    def remove(self, name: str) -> None:
        agent = self.swarm.agents[name]
        self.run(self.swarm.remove, name)
        del self.model[name]
        assert agent.is_over
        assert not self.processes(name)
        with pytest.raises(tmuxcc.AgentNotFoundError):
            self.run(self.swarm.restart, name)

    @rule()
    @precondition(lambda self: self.model)
    def kill_client(self) -> None:
        generation = self.swarm.client.generation
        os.kill(self.swarm.client.client_pid, signal.SIGKILL)
        self.wait(lambda: self.swarm.client.generation > generation)

    @rule()
    @precondition(lambda self: self.model)
    def change_master(self) -> None:
        """Another master takes over what the last one has kept."""
        self.swarm.keep = True
        self.opened.close()
        mark = self.swarm.mark
        self.open(adopt=True)
        assert self.swarm.mark == mark
        for name, expected in self.model.items():
            # The next start clears the screen, so what was written before it may be gone.
            shown = self.lines(name)
            present = max(i for i, line in enumerate(expected.lines) if line.startswith("up "))
            assert len(shown) >= len(expected.lines) - present, (name, shown, expected)
            assert expected.lines[-len(shown) :] == shown
            expected.lines = shown
            if not expected.running:
                # How it ended may still have to be asked of tmux.
                self.wait(lambda name=name: self.swarm.agents[name].is_over)

    # What is always so

    @invariant()
    def the_table_is_that_of_the_model(self) -> None:
        assert set(self.swarm.agents) == set(self.model)
        statistics = self.look(self.swarm.statistics)
        assert statistics.agents == len(self.model)
        assert statistics.lives[Life.RUNNING] == sum(e.running for e in self.model.values())

    @invariant()
    def each_agent_is_as_expected(self) -> None:
        for name, expected in self.model.items():
            agent = self.swarm.agents[name]
            assert agent.status is expected.status, (agent, agent.status, expected)
            assert agent.life is (Life.RUNNING if expected.running else Life.EXITED)
            assert agent.exit_status == expected.exit_status
            assert agent.restarts == expected.restarts
            assert agent.is_over is not expected.running
            if expected.running:
                assert is_running(self.program_pid(name))
            else:
                # Whom the end of its terminal ends needs a moment for that.
                self.wait(lambda name=name: not self.processes(name))

    @invariant()
    def all_output_is_there(self) -> None:
        for name, expected in self.model.items():
            self.wait(lambda: len(self.lines_now(name)) >= len(expected.lines))  # noqa: B023
            assert self.lines(name) == expected.lines

    @invariant()
    def each_agent_has_a_window(self) -> None:
        told = self.server.run(
            "list-panes", "-s", "-t", "=swarm-model", "-F", "#{window_id} #{@tmuxcc_agent}"
        )
        rows = dict(line.split(" ") for line in told.split("\n"))
        windows = {agent.window_id: name for name, agent in self.swarm.agents.items()}
        if windows:
            # The vacant one may be there besides.
            assert {window: name for window, name in rows.items() if name} == windows
        assert list(rows.values()).count("") <= 1

    def teardown(self) -> None:
        try:
            self.opened.close()
            for mark in self.marks:
                assert not marked(mark)
            assert not self.server.is_alive
        finally:
            self.portal.close()
            self.server.run("-N", "kill-server", check=False)
            shutil.rmtree(self.folder)

    # Helpers

    def program_pid(self, name: str) -> int:
        """The program, which has said so itself."""
        line = next(line for line in reversed(self.model[name].lines) if line.startswith("up "))
        return int(line[3:])

    def wait_up(self, name: str) -> None:
        """Wait until the program that was started has said so."""
        count = sum(line.startswith("up ") for line in self.model[name].lines) + 1

        def said() -> str | None:
            ups = [line for line in self.lines_now(name) if line.startswith("up ")]
            return ups[count - 1] if len(ups) >= count else None

        self.model[name].lines.append(self.wait(said))

    def processes(self, name: str) -> set[int]:
        """What there is of an agent."""
        return marked(name, name="TMUXCC_AGENT").keys() & marked(self.swarm.mark).keys()

    def look(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call it where trio runs."""

        async def run() -> Any:
            await trio.lowlevel.checkpoint()
            return function(*args)

        return self.portal.run(run)

    def lines(self, name: str) -> Any:
        """All lines that an agent has written so far."""
        return self.look(self.lines_now, name)

    def lines_now(self, name: str) -> list[str]:
        """The same, where trio runs."""
        stream = self.swarm.agents[name].output(since=0)
        data = b""
        while (item := stream.receive_nowait()) is not None:
            if isinstance(item, tmuxcc.Chunk):
                data += item.data
            elif isinstance(item, tmuxcc.Gap):
                # Nothing was written in it: what was to come has been waited for.
                excused = item.cause == "killed" and self.model[name].wrapper_killed
                assert item.cause == "reconnect" or excused, item
        *lines, _unfinished = data.decode().split("\r\n")
        return [line for line in lines if line]

    def ended(self, name: str, status: ExitStatus) -> None:
        """Its program has ended by itself or by force."""
        expected = self.model[name]
        agent = self.swarm.agents[name]
        if expected.policy == "always":
            expected.restarts += 1
            self.wait(lambda: agent.restarts == expected.restarts and agent.life is Life.RUNNING)
            self.wait_up(name)
            return
        expected.running, expected.exit_status = False, status
        expected.status = AgentStatus.STOPPED if status.ok else AgentStatus.FAILED
        assert self.run(agent.wait_exit) == status


def test_a_swarm_does_what_its_model_does(tmux: str, tmux_version: TmuxVersion) -> None:
    if tmux_version < OLDEST_SUPPORTED:
        pytest.skip(f"tmux {tmux_version} is refused")

    class Machine(SwarmMachine):
        program = tmux

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(EXAMPLES or 6),
            stateful_step_count=STEPS,
            derandomize=EXAMPLES is None,
            database=None,
            deadline=None,
            # To make an example smaller takes as long as hundreds of them.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
