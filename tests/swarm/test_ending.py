"""How agents are ended, with real programs under the real wrapper: `swarm.ending`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from attrs import define

import tmuxcc
from tests.client.helpers import (
    GUARD,
    Server,
    children,
    gather,
    is_running,
    python,
    shell,
    terminal,
    until,
)
from tmuxcc import ExitStatus
from tmuxcc.errors import ConnectionClosed
from tmuxcc.swarm import ending, processes
from tmuxcc.swarm.ending import StopReport, StopStep, end_agent, end_marked
from tmuxcc.swarm.processes import Identity, take_snapshot
from tmuxcc.swarm.spec import StopPolicy

pytestmark = [
    pytest.mark.tmux,
    pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc"),
]


@pytest.fixture(autouse=True)
def _short_grace_for_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "STRAYS_GRACE", 0.1)


IGNORE = "import os, signal, sys, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
STUBBORN = f"{IGNORE}os.write(1, b'up\\n')\nwhile True: time.sleep(1000)\n"
SHORT = 0.3
"""A grace for those who do not heed it."""
LONG = GUARD / 2
"""One for those who do; nobody waits for its end."""


@define
class Agent:
    """A program in a pane, as the swarm would start it."""

    server_pid: int
    pane: tmuxcc.Pane
    wrapper: int
    program: int
    swarm: str
    agent_id: str
    keys: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[bytes, ...]:
        return f"TMUXCC_SWARM={self.swarm}".encode(), f"TMUXCC_AGENT={self.agent_id}".encode()

    @property
    def has_ended(self) -> bool:
        return self.pane.statistics().exit_status is not None

    async def ask(self) -> None:
        await self.pane.send_keys(*self.keys)

    async def end(self, policy: StopPolicy | None = None, **options: Any) -> StopReport:
        policy = policy or StopPolicy()
        self.keys = policy.keys
        given: dict[str, Any] = {
            "agent_id": self.agent_id,
            "policy": policy,
            "grace": LONG,
            "wrapper_pid": self.wrapper,
            "marks": self.marks,
            "ask": self.ask,
            "ended": lambda: self.has_ended,
            "wait_ended": self.pane.wait_exit,
            "spare": [self.server_pid],
        }
        return await end_agent(**{**given, **options})

    def marked(self) -> set[int]:
        """Those that bear its marks themselves."""
        return take_snapshot(environments=True).marked(self.marks)

    def family(self) -> list[int]:
        """All that has its marks, and what belongs to that."""
        found = take_snapshot(environments=True).family(marks=self.marks)
        return sorted(each.pid for each in found)


async def start(
    server: Server, client: tmuxcc.Client, argv: Sequence[str], *, agent_id: str = "agent-1"
) -> Agent:
    """Start a program; it has said ``up``."""
    agent = await start_quickly(server, client, argv, agent_id=agent_id)
    assert await agent.pane.wait_for("up", since=0)
    agent.program = terminal(agent.wrapper)[1]
    return agent


async def start_quickly(
    server: Server, client: tmuxcc.Client, argv: Sequence[str], *, agent_id: str = "agent-1"
) -> Agent:
    """Start a program and do not wait for it."""
    swarm = f"test:{uuid4().hex}"
    env = {"TMUXCC_SWARM": swarm, "TMUXCC_AGENT": agent_id}
    made = await client.new_window(argv=argv, env=env)
    pane = client.pane(made.pane_id)
    (pid,) = await client.command("display-message", "-p", "-t", pane.pane_id, "#{pane_pid}")
    return Agent(server.pid, pane, int(pid), 0, swarm, agent_id)


@asynccontextmanager
async def running(server: Server, argv: Sequence[str]) -> AsyncIterator[Agent]:
    """An agent of which nothing is left after the block."""
    async with server.client() as client:
        agent = await start(server, client, argv)
        try:
            yield agent
        except BaseException:
            await agent.end(grace=0)
            raise
        assert agent.family() == []
        assert not is_running(agent.wrapper)


def actions(report: StopReport) -> list[str]:
    return [step.action for step in report.steps]


async def pids_in(path: Path, number: int) -> list[int]:
    """The process ids that programs have written to a file, as soon as there are so many."""

    def read() -> list[int]:
        with suppress(FileNotFoundError):
            return [int(line) for line in path.read_text().split("\n")[:-1]]
        return []

    return await until(lambda: len(read()) == number and read())


# The program itself


async def test_one_that_obeys_gets_nothing_more(server: Server) -> None:
    async with running(server, shell("trap 'echo bye; exit 4' TERM; echo up; read x")) as agent:
        report = await agent.end()
        (step,) = report.steps
        assert step == StopStep("SIGTERM", step.at, (agent.program,))
        assert (report.exit_status, report.strays, report.left) == (ExitStatus(4, None), (), ())
        assert 0 <= step.at <= report.seconds < LONG
        assert str(report) == "agent-1: SIGTERM; exit 4"
        assert await agent.pane.wait_for("bye", since=0)


async def test_the_policy_names_the_signal(server: Server) -> None:
    async with running(server, shell("trap '' TERM; echo up; read x")) as agent:
        report = await agent.end(StopPolicy(signal="SIGUSR1"))
        assert actions(report) == ["SIGUSR1"]
        assert str(report) == "agent-1: SIGUSR1; killed by SIGUSR1"


async def test_keys_are_typed_first(server: Server) -> None:
    async with running(server, shell("trap '' TERM; trap 'exit 0' INT; echo up; read x")) as agent:
        report = await agent.end(StopPolicy(keys=("C-c",)))
        (step,) = report.steps
        assert step == StopStep("C-c typed", step.at, ())
        assert str(report) == "agent-1: C-c typed; exit 0"


async def test_a_line_can_be_typed_instead(server: Server) -> None:
    async with running(server, shell('echo up; read x; [ "$x" = shutdown ]')) as agent:

        async def ask() -> None:
            await agent.pane.send_text("shutdown", submit=True)

        report = await agent.end(StopPolicy(text="shutdown"), ask=ask)
        assert str(report) == "agent-1: 'shutdown' typed; exit 0"


async def test_one_that_heeds_nothing_is_killed_and_that_is_told(server: Server) -> None:
    async with running(server, python(STUBBORN)) as agent:
        grace = 1.5
        report = await agent.end(StopPolicy(keys=("C-c",)), grace=grace)
        typed, terminated, killed = report.steps
        assert (typed.action, typed.pids) == ("C-c typed", ())
        assert (terminated.action, terminated.pids) == ("SIGTERM", (agent.program,))
        assert (killed.action, killed.pids) == ("SIGKILL", (agent.program,))
        assert terminated.at >= grace * 2 / 3
        assert killed.at >= grace
        assert report.exit_status == ExitStatus(None, 9)
        assert report.strays == ()
        assert str(report).startswith("agent-1: C-c typed, then SIGTERM after 1.")
        assert str(report).endswith("killed by SIGKILL")


async def test_sigterm_has_the_whole_grace_where_it_comes_first(server: Server) -> None:
    async with running(server, python(STUBBORN)) as agent:
        report = await agent.end(grace=SHORT)
        assert actions(report) == ["SIGTERM", "SIGKILL"]
        assert report.steps[1].at >= SHORT


async def test_the_grace_is_the_policys_where_none_is_given(server: Server) -> None:
    async with running(server, python(STUBBORN)) as agent:
        report = await agent.end(StopPolicy(grace=SHORT), grace=None)
        assert report.steps[1].at >= SHORT


@pytest.mark.parametrize("policy", [StopPolicy(keys=("C-c",)), StopPolicy(signal="SIGKILL")])
async def test_without_a_grace_it_is_killed_at_once(server: Server, policy: StopPolicy) -> None:
    async with running(server, shell("echo up; read x")) as agent:
        report = await agent.end(policy, grace=LONG if policy.signal == "SIGKILL" else 0)
        assert actions(report) == ["SIGKILL"]
        assert report.exit_status == ExitStatus(None, 9)


async def test_the_last_words_of_one_that_is_killed_are_heard(server: Server) -> None:
    script = f"{IGNORE}os.write(1, b'up')\nwhile True: os.write(1, b'y' * 4096)\n"
    async with running(server, python(script)) as agent:
        report = await agent.end(grace=0)
        assert report.exit_status == ExitStatus(None, 9)
        assert actions(report) == ["SIGKILL"]


async def test_one_that_was_started_just_now_is_ended(server: Server) -> None:
    async with server.client() as client:
        for _ in range(5):
            agent = await start_quickly(server, client, shell("read x"))
            report = await agent.end()
            assert actions(report) == ["SIGTERM"]
            assert report.exit_status == ExitStatus(None, 15)
            assert agent.family() == []


async def test_one_that_is_gone_leaves_nothing_to_do(server: Server) -> None:
    async with running(server, shell("echo up; read x; exit 3")) as agent:
        await agent.pane.send_keys("Enter")
        await agent.pane.wait_exit()
        report = await agent.end()
        assert (report.steps, report.exit_status) == ((), ExitStatus(3, None))
        assert str(report) == "agent-1: it had ended; exit 3"


async def test_a_program_that_becomes_another_all_the_time_is_the_same_process(
    server: Server, folder: Path
) -> None:
    script = folder / "again"
    script.write_text('trap "" TERM\n[ "$1" ] || echo up\nexec sh "$0" again\n')
    async with running(server, ["sh", str(script)]) as agent:
        report = await agent.end(grace=SHORT)
        assert actions(report) == ["SIGTERM", "SIGKILL"]
        assert {step.pids for step in report.steps} == {(agent.program,)}


# What it leaves behind

STRAY = f"{IGNORE}open(sys.argv[1], 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(1000)\n"


def stray(path: Path) -> str:
    """Shell words of a process that heeds nothing and writes its number to a file."""
    return f"{sys.executable} -I -S -c \"{STRAY}\" '{path}'"


async def test_children_in_sessions_of_their_own_are_ended_and_told(
    server: Server, folder: Path
) -> None:
    path = folder / "pids"
    script = f"setsid {stray(path)} & setsid {stray(path)} & echo up; read x"
    async with running(server, shell(script)) as agent:
        pids = await pids_in(path, 2)
        report = await agent.end()
        assert actions(report) == ["SIGTERM", "SIGTERM to strays", "SIGKILL to strays"]
        assert set(report.steps[0].pids) == {agent.program, *pids}
        assert set(report.steps[2].pids) == set(pids)
        assert {int(each.split()[0]) for each in report.strays} == set(pids)
        assert all("python" in each for each in report.strays)
        assert not any(map(is_running, pids))
        assert report.exit_status == ExitStatus(None, 15)
        assert str(report) == "agent-1: SIGTERM; 2 strays killed; killed by SIGTERM"


async def test_what_outlives_a_program_that_ends_when_asked_is_asked_itself(
    server: Server, folder: Path
) -> None:
    # A daemon as from the textbook: twice forked, its streams closed.
    daemon = "(setsid sh -c 'sleep 1000 & echo $! >> pids' </dev/null >/dev/null 2>&1 &)"
    script = f"cd {folder}; {daemon}; {daemon}; trap 'exit 0' INT; echo up; read x"
    async with running(server, shell(script)) as agent:
        pids = await pids_in(folder / "pids", 2)
        report = await agent.end(StopPolicy(keys=("C-c",)))
        assert actions(report) == ["C-c typed", "SIGTERM to strays"]
        assert set(report.steps[1].pids) == set(pids)
        assert str(report) == "agent-1: C-c typed; 2 strays ended; exit 0"


async def test_a_descendant_without_the_marks_is_known_even_when_it_has_lost_its_parent(
    server: Server, folder: Path
) -> None:
    path = folder / "pids"
    script = f"setsid env -i {stray(path)} & echo up; read x"
    async with running(server, shell(script)) as agent:
        (pid,) = await pids_in(path, 1)
        assert pid not in agent.marked()
        report = await agent.end()
        assert actions(report) == ["SIGTERM", "SIGTERM to strays", "SIGKILL to strays"]
        assert not is_running(pid)
    async with running(server, shell(script)) as agent:
        pid = (await pids_in(path, 2))[1]
        report = await agent.end(StopPolicy(keys=("C-c",)))
        assert actions(report) == ["C-c typed", "SIGTERM to strays", "SIGKILL to strays"]
        assert not is_running(pid)


async def test_what_stayed_in_the_panes_session_is_found_without_the_marks(
    server: Server, folder: Path
) -> None:
    # In a group of its own and without a parent.
    path = folder / "pids"
    script = f"set -m; (env -i {stray(path)} & ); echo up; read x"
    async with running(server, shell(script)) as agent:
        (pid,) = await pids_in(path, 1)
        assert pid not in agent.marked()
        assert pid not in children(agent.program)
        await agent.end()
        assert not is_running(pid)


async def test_what_is_stopped_goes_on_in_order_to_end(server: Server, folder: Path) -> None:
    child = (
        "import os, signal, sys\n"
        "signal.signal(15, lambda *_: (open(sys.argv[1], 'a').write('0\\n'), os._exit(0)))\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
        "while True: signal.pause()\n"
    )
    path = folder / "pids"
    script = f"setsid {sys.executable} -I -S -c \"{child}\" '{path}' & echo up; wait"
    async with running(server, shell(script)) as agent:
        (pid,) = await pids_in(path, 1)
        await until(lambda: processes.process_state(pid).state == "T")  # type: ignore[union-attr]
        report = await agent.end()
        assert actions(report)[0] == "SIGTERM"
        assert "SIGKILL to strays" not in actions(report)
        assert await pids_in(path, 2) == [pid, 0]


async def test_a_program_that_ended_before_has_its_strays_ended(
    server: Server, folder: Path
) -> None:
    path = folder / "pids"
    async with running(server, shell(f"setsid {stray(path)} & echo up; read x")) as agent:
        (pid,) = await pids_in(path, 1)
        await agent.pane.send_keys("Enter")
        await agent.pane.wait_exit()
        await until(lambda: not is_running(agent.wrapper))
        assert is_running(pid)
        report = await agent.end()
        assert actions(report) == ["SIGTERM to strays", "SIGKILL to strays"]
        assert str(report) == "agent-1: it had ended; 1 stray killed; exit 0"


# Whatever happens here, it comes to an end.
BOMB = f"{IGNORE}end = time.monotonic() + 20\n"


async def test_chains_of_processes_that_are_never_the_same_are_ended(server: Server) -> None:
    # Each is in a session of its own, has a child and ends.
    script = (
        f"{BOMB}"
        "for n in range(10):\n"
        " if not os.fork(): break\n"
        "else:\n"
        " os.write(1, b'up\\n')\n"
        " time.sleep(20)\n"
        "while time.monotonic() < end:\n"
        " os.setsid()\n"
        " time.sleep(0.01)\n"
        " if os.fork(): os._exit(0)\n"
    )
    async with running(server, python(script)) as agent:
        await until(lambda: len(agent.marked()) > 5)
        report = await agent.end(grace=0.1)
        assert actions(report)[0] == "SIGTERM"
        assert report.left == ()


async def test_a_bomb_that_stays_together_is_ended_at_once(server: Server) -> None:
    # Who is missing from fifty is replaced, by whoever sees it first.
    script = (
        f"{BOMB}"
        "signal.signal(17, signal.SIG_IGN)\n"
        "os.write(1, b'up\\n')\n"
        "group = os.getpgrp()\n"
        "def others():\n"
        " n = 0\n"
        " for name in os.listdir('/proc'):\n"
        "  try: n += name.isdigit() and os.getpgid(int(name)) == group\n"
        "  except OSError: pass\n"
        " return n\n"
        "while time.monotonic() < end:\n"
        " if others() < 50: os.fork()\n"
        " else: time.sleep(0.01)\n"
    )
    async with running(server, python(script)) as agent:
        await until(lambda: len(agent.marked()) > 30)
        report = await agent.end(grace=0)
        assert actions(report) == ["SIGKILL"]
        assert report.left == ()


async def test_what_can_not_be_ended_is_told(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "pids"
    async with running(server, shell(f"setsid {stray(path)} & echo up; read x")) as agent:
        (pid,) = await pids_in(path, 1)
        original = ending.send_signal_to

        # As for a process of another user, or one that waits in a driver.
        def send(to: Sequence[Identity], number: signal.Signals) -> list[Identity]:
            return original([each for each in to if each.pid != pid], number)

        monkeypatch.setattr(ending, "send_signal_to", send)
        monkeypatch.setattr(ending, "send_signal_to_group", lambda *_: False)
        monkeypatch.setattr(ending, "_KILL_WAIT", 0.01)
        report = await agent.end(grace=SHORT)
        assert report.left == (pid,)
        assert str(report) == f"agent-1: SIGTERM; killed by SIGTERM; could not be ended: {pid}"
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_running(pid))


async def test_what_bears_marks_is_ended_without_anybody_who_knows_its_agents(
    server: Server, folder: Path
) -> None:
    path = folder / "pids"
    async with running(server, shell(f"setsid {stray(path)} & echo up; read x")) as agent:
        (pid,) = await pids_in(path, 1)
        report = await end_marked(agent.marks[:1])
        assert actions(report) == ["SIGTERM to strays", "SIGKILL to strays"]
        assert report.steps[1].pids == (pid,)
        assert agent.family() == []
        assert (await end_marked(agent.marks)).steps == ()


# When not everything works


@pytest.mark.parametrize("how", ["it fails", "it never returns"])
async def test_what_can_not_be_typed_holds_nothing_up(server: Server, how: str) -> None:
    async def ask() -> None:
        if how == "it fails":
            raise ConnectionClosed
        await trio.sleep_forever()

    async with running(server, shell("echo up; read x")) as agent:
        grace = LONG if how == "it fails" else SHORT
        report = await agent.end(StopPolicy(keys=("C-c",)), ask=ask, grace=grace)
        assert actions(report) == ["C-c could not be typed", "SIGTERM"]
        assert report.exit_status == ExitStatus(None, 15)


async def test_without_anybody_who_tells_the_end_it_is_seen(server: Server) -> None:
    async def wait_ended() -> ExitStatus:
        raise ConnectionClosed

    async with running(server, shell("echo up; read x")) as agent:
        report = await agent.end(wait_ended=wait_ended, ended=lambda: False)
        assert actions(report)[0] == "SIGTERM"
        assert report.exit_status is None
        assert str(report) == "agent-1: SIGTERM; exit unknown"


async def test_after_the_death_of_the_server_all_are_ended(server: Server, folder: Path) -> None:
    path = folder / "pids"
    script = f"trap '' HUP; setsid {stray(path)} & echo up; while :; do read x; done"
    with pytest.raises(ConnectionClosed):
        async with server.client() as client:
            agent = await start(server, client, shell(script))
            (pid,) = await pids_in(path, 1)
            os.kill(agent.server_pid, signal.SIGKILL)
            report = await agent.end(grace=SHORT)
            assert agent.family() == []
            assert not is_running(pid)
            assert report.left == ()
            await client.command("list-panes")


async def test_a_cancelled_ending_leaves_nothing_behind(server: Server, folder: Path) -> None:
    path = folder / "pids"
    script = f"trap 'echo told' TERM; setsid {stray(path)} & echo up; while :; do read x; done"
    async with running(server, shell(script)) as agent:
        (pid,) = await pids_in(path, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.end)
            assert await agent.pane.wait_for("told", since=0)
            nursery.cancel_scope.cancel()
        assert not any(map(is_running, [agent.program, agent.wrapper, pid]))


async def test_marks_are_needed(server: Server) -> None:
    async with running(server, shell("echo up; read x")) as agent:
        with pytest.raises(ValueError, match="marks"):
            await agent.end(marks=())
        await agent.end()


async def test_elsewhere_the_pane_is_all_that_can_be_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc and pidfds."""

    def nothing(*_: object) -> bytes:
        return b""

    async with server.client() as client:
        agent = await start(server, client, shell("echo up; read x"))
        with monkeypatch.context() as patch:
            patch.setattr(processes, "_read", nothing)
            patch.setattr(processes, "_all_entries", lambda: iter(()))
            patch.setattr(processes, "_has_proc", lambda: False)
            patch.delattr(os, "pidfd_open")
            report = await agent.end(grace=0.1)
        assert actions(report) == ["SIGKILL to the wrapper"]
        await until(lambda: agent.family() == [])


# Others


@contextmanager
def bystander(argv: Sequence[str]) -> Any:
    """A process that nobody may touch."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield process
            assert process.poll() is None
            state = processes.process_state(process.pid)
            assert state is not None
            assert state.state not in "TZ"
        finally:
            process.kill()


async def test_nobody_else_is_touched(server: Server) -> None:
    argv = python(STUBBORN)
    async with server.client() as client:
        agent = await start(server, client, argv)
        twin = await start(server, client, argv, agent_id="agent-10")
        with bystander(argv):
            await agent.end(grace=0)
            assert agent.family() == []
            assert is_running(twin.program)
            assert not twin.has_ended
        assert server.is_alive
        await twin.end(grace=0)


async def test_a_pane_whose_process_has_another_ones_number_by_now_is_no_ones(
    server: Server,
) -> None:
    async with running(server, shell("echo up; read x")) as agent:
        await agent.pane.send_keys("Enter")
        await agent.pane.wait_exit()
        await until(lambda: not is_running(agent.wrapper))
        with bystander(python(STUBBORN)) as other:
            report = await agent.end(wrapper_pid=other.pid)
            assert report.steps == ()


async def test_ten_are_ended_side_by_side_and_look_together(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    original = ending.take_snapshot

    def take(**options: bool) -> processes.Snapshot:
        nonlocal looks
        looks += 1
        return original(**options)

    monkeypatch.setattr(ending, "take_snapshot", take)
    async with server.client() as client:
        agents = await gather(
            *[
                partial(start, server, client, shell("sleep 1000 & echo up; read x"))
                for _ in range(11)
            ]
        )
        await client.command("select-window", "-t", agents[5].pane.pane_id)
        await agents.pop(0).end()
        alone, looks = looks, 0
        reports = await gather(*[agent.end for agent in agents])
        assert looks <= 3 * alone
        assert [actions(report) for report in reports] == [["SIGTERM"]] * 10
        assert [agent.family() for agent in agents] == [[]] * 10
        assert server.is_alive
