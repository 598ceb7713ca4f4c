"""A swarm under random blows, for minutes: `python -m fuzz.chaos --seconds 60 [--seed N]`.

The same seed gives the same blows in the same order; when they land is up to the machine. What
must hold meanwhile is in README.md.
"""

from __future__ import annotations

import argparse
import faulthandler
import fcntl
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import traceback
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import Factory, define, evolve, field, frozen

import tmuxcc
from tmuxcc.protocol import has_hazard

BOUND = 60.0
"""Seconds within which every call has to be answered. The server may be stopped for a second, its
clients killed, and the machine busy with other things."""

SETTLE = 30.0
"""Seconds for everything to come to rest when the blows are over."""

LINE = 64
"""Bytes of each line that an agent writes, so that counted gaps can be checked to the byte."""

ROUND = 30.0
"""Seconds at most between the beginning of a swarm and its end."""

T = TypeVar("T")

# Numbers its lines, and notes how many of them it has written and under which wrapper. Whatever
# happens to it, the next run of the same agent has the next number.
WORKER = r"""
import fcntl, os, random, select, signal, subprocess, sys, termios, time
folder, natures, seed = sys.argv[1:4]
os.chdir(folder)
if "deaf" in natures:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
lock = os.open("lock", os.O_RDWR | os.O_CREAT)
patience = time.monotonic() + 20
while True:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        if time.monotonic() > patience:
            os.close(os.open("double", os.O_RDWR | os.O_CREAT))
            sys.exit(9)
        time.sleep(0.01)
runs = os.open("runs", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(runs, b".")
run = os.fstat(runs).st_size - 1
rng = random.Random(f"{seed} {run}")
count = os.open(f"run-{run}", os.O_RDWR | os.O_CREAT)
mode = termios.tcgetattr(0)
mode[1] &= ~termios.OPOST
mode[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, mode)
if "breeds" in natures:
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.Popen(["sleep", "100000"], start_new_session=True, **quiet)

written = 0
def put(data):
    while data:
        data = data[os.write(1, data):]

def note():
    os.pwrite(count, b"%-12d%-12d" % (written, os.getppid()), 0)

def say(*texts):
    global written
    lines = b""
    for number, text in enumerate(texts, written):
        lines += (b"#%d:%d %s" % (run, number, text.encode())).ljust(61) + b";\r\n"
    put(lines)
    written += len(texts)
    note()

note()
put(b"\r\n")
say("up")
with open("pid", "w") as out:
    out.write(str(os.getpid()))
typed = b""
while True:
    if not select.select([0], [], [], rng.uniform(0.05, 0.3))[0]:
        say("tick")
        continue
    data = os.read(0, 65536)
    if not data:
        sys.exit(1)
    *lines, typed = (typed + data).split(b"\n")
    for line in lines:
        word, _, rest = line.decode().partition(" ")
        if word == "exit":
            say("bye")
            sys.exit(int(rest))
        elif word == "flood":
            for _ in range(0, int(rest), 50):
                say(*["flood"] * 50)
        else:
            say("got " + word[:30])
"""


# What was written and what was read


_NUMBERED = re.compile(rb"#([0-9]+):([0-9]+) [^;\r\n#]*;")


@define
class Ledger:
    """What one reader has seen of one agent, against what the agent says that it wrote."""

    name: str
    folder: Path
    fault: Callable[[str], None]
    run: int = -1
    last: int = -1
    """The last number seen of this run."""
    place: int = 0
    """The offset of that line."""
    exact: bool = True
    """Whether all that is missing since then was counted."""
    gap: bool = False
    """Whether something is marked as missing since then."""
    lines: int = 0
    noise: int = 0
    rest: bytes = b""
    start: int = 0
    tails: list[tuple[int, int]] = Factory(list)
    """Runs whose end was seen, with the last number seen of each."""

    def receive(self, offset: int, data: bytes) -> None:
        """The reader got `data`, which begins at `offset`."""
        if self.rest and self.start + len(self.rest) != offset:
            self.fault(f"{self.name}: offset {offset} does not continue the one before")
        if not self.rest:
            self.start = offset
        self.rest += data
        while (end := self.rest.find(b"\n")) >= 0:
            self.line(self.rest[:end], self.start)
            self.rest = self.rest[end + 1 :]
            self.start += end + 1

    def line(self, text: bytes, offset: int | None = None) -> None:
        """A line; `offset` is where it begins, if that is known."""
        match = _NUMBERED.search(text)
        if match is None:
            self.noise += bool(text.strip())
            return
        run, number = int(match[1]), int(match[2])
        place = -1 if offset is None else offset + match.start()
        self.lines += 1
        if run < self.run or (run == self.run and number <= self.last):
            self.fault(f"{self.name}: {run}:{number} comes behind {self.run}:{self.last}")
        elif run == self.run:
            missing = number - self.last - 1
            if missing and not self.gap:
                self.fault(f"{self.name}: no sign of {missing} lines before {run}:{number}")
            if self.exact and place >= 0 and place != self.place + LINE * (missing + 1):
                self.fault(f"{self.name}: {run}:{number} at {place}, the last at {self.place}")
        else:
            self.end_run()
            if number and not self.gap:
                self.fault(f"{self.name}: run {run} begins with {number}")
            if not self.gap:
                self.tails.extend((skipped, -1) for skipped in range(self.run + 1, run))
        self.run, self.last, self.place = run, number, place
        self.gap, self.exact = False, True

    def missing(self, size: int | None) -> None:
        """The reader was told that something is missing."""
        self.gap = True
        self.exact = self.exact and size is not None
        self.rest = b""

    def end_run(self) -> None:
        """No more of this run will come."""
        if self.run >= 0 and not self.gap:
            self.tails.append((self.run, self.last))

    def check_tails(self, excused: set[int]) -> int:
        """Whether the last lines of each run were seen, but of those under `excused` wrappers.

        How many of these have lost some.
        """
        cut = 0
        for run, last in self.tails:
            with suppress(OSError):
                written, wrapper = (self.folder / f"run-{run}").read_bytes().split()
                missing = int(written) - last - 1
                if missing > 0 and int(wrapper) in excused:
                    cut += 1
                elif missing > 0:
                    self.fault(
                        f"{self.name}: no sign of the last {missing} lines of run {run}, of which"
                        f" there were {int(written)}; its wrapper was {int(wrapper)}"
                    )
        return cut


# Looking from outside


def marked(*entries: str) -> dict[int, str]:
    """The processes that have all these in their environment, with their argument lists."""
    wanted = [entry.encode() for entry in entries]
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if all(entry in variables for entry in wanted):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if words != [b""]:
                    found[int(folder.name)] = b" ".join(words)[-200:].decode(errors="replace")
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def send_signal(pid: int | None, number: signal.Signals) -> bool:
    """Send it if there is somebody; whether there was."""
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)
            return True
    return False


class LookerOn:
    """Somebody else's client: in control mode, reading or not, or on a terminal."""

    def __init__(self, argv: list[str], kind: str) -> None:
        self.kind = kind
        self._terminal: int | None = None
        if kind == "terminal":
            self._terminal, end = pty.openpty()
            os.set_blocking(self._terminal, False)
            fcntl.ioctl(end, termios.TIOCSWINSZ, b"\x1e\0\x50\0\0\0\0\0")
            self.process = subprocess.Popen(
                [*argv, "attach"],
                stdin=end,
                stdout=end,
                stderr=end,
                env={**os.environ, "TERM": "xterm"},
                start_new_session=True,
            )
            os.close(end)
        else:
            out = subprocess.PIPE if kind == "stuck" else subprocess.DEVNULL
            flags = "ignore-size,no-output" if kind == "quiet" else "ignore-size"
            self.process = subprocess.Popen(
                [*argv, "-C", "attach", "-f", flags],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.DEVNULL,
            )

    async def read(self) -> None:
        """Read what a terminal shows, as one does. Until it is gone."""
        # Until it hangs up, or is closed by `end`.
        with suppress(OSError, trio.ClosedResourceError):
            while (terminal := self._terminal) is not None:
                await trio.lowlevel.wait_readable(terminal)
                with suppress(BlockingIOError):
                    os.read(terminal, 65536)

    def end(self) -> None:
        """Be gone, by SIGKILL."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self._terminal is not None:
            trio.lowlevel.notify_closing(self._terminal)
            os.close(self._terminal)
            self._terminal = None


# The run


@frozen
class Options:
    """What is asked for; `tmux` is a program."""

    seconds: float
    seed: int
    agents: int
    tmux: str
    progress: Callable[[str], None] = lambda _: None


@define
class Report:
    """What has happened, and what should not have."""

    seed: int
    seconds: float = 0.0
    violations: list[str] = Factory(list)
    events: Counter[str] = Factory(Counter)
    refusals: Counter[str] = Factory(Counter)
    gaps: Counter[str] = Factory(Counter)
    restarts: int = 0
    connections: int = 0
    lines: int = 0
    noise: int = 0
    cut: int = 0
    slowest: dict[str, float] = Factory(dict)
    latest: deque[str] = Factory(lambda: deque(maxlen=40))
    """The last blows before the first violation."""
    stories: dict[str, str] = Factory(dict)
    """What happened to each agent of which something is wrong."""

    def __str__(self) -> str:
        def listed(counts: dict[str, Any]) -> str:
            return ", ".join(f"{name} {counts[name]}" for name in sorted(counts)) or "none"

        slowest = {name: f"{seconds:.2f} s" for name, seconds in self.slowest.items()}
        rows = [
            f"seed {self.seed}, {self.seconds:.0f} s: "
            + (f"{len(self.violations)} violations" if self.violations else "nothing found"),
            f"events: {listed(self.events)}",
            f"refused: {listed(self.refusals)}",
            f"gaps: {listed(self.gaps)}",
            f"restarts: {self.restarts}, connections: {self.connections}",
            f"lines read: {self.lines}, other lines: {self.noise}, ends cut by SIGKILL: {self.cut}",
            f"slowest answers (bound {BOUND:g} s): {listed(slowest)}",
        ]
        if self.violations:
            rows.append(f"last blows before: {', '.join(self.latest)}")
            rows += [f"what happened to {name}: {story}" for name, story in self.stories.items()]
        return "\n".join(rows + [f"VIOLATION: {violation}" for violation in self.violations])


@define(eq=False)
class Member:
    """An agent, and what is known of it beside."""

    agent: tmuxcc.Agent
    folder: Path
    natures: str
    ledgers: list[Ledger] = Factory(list)
    story: deque[str] = Factory(lambda: deque(maxlen=100))
    """The blows that it got, and what a reader was told beside its output."""

    @property
    def program_pid(self) -> int | None:
        """Its program, as that says itself."""
        with suppress(OSError, ValueError):
            pid = int((self.folder / "pid").read_text())
            if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None


NATURES = ("", "", "", "deaf", "breeds", "deaf breeds")
GENTLE = tmuxcc.StopPolicy(grace=2.0)
POLICIES = (
    tmuxcc.RestartPolicy("no"),
    tmuxcc.RestartPolicy("always", delay=0.05, max_delay=0.3, max_restarts=1000),
    tmuxcc.RestartPolicy("on-failure", delay=0.05, max_delay=0.5, max_restarts=1000),
    tmuxcc.RestartPolicy("always", delay=0.1, max_restarts=3),
)


@define(eq=False)
class Chaos:
    """One run against one swarm."""

    options: Options
    report: Report
    folder: Path
    swarm: tmuxcc.Swarm
    nursery: trio.Nursery
    rng: random.Random
    members: dict[str, Member] = Factory(dict)
    everybody: list[Member] = Factory(list)
    lookers: list[LookerOn] = Factory(list)
    excused: set[int] = Factory(set)
    made: int = 0
    busy: int = 0
    blow: str = ""
    stopped: set[int] = Factory(set)
    resting: trio.Event = Factory(trio.Event)
    limit: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(12))
    kinds: tuple[str, ...] = ("control", "stuck", "terminal", "quiet")

    def __attrs_post_init__(self) -> None:
        if has_hazard(self.swarm.client.version, "respawn-crash"):
            # Whoever has output of a pane queued there can make its next start end the server.
            self.kinds = ("terminal", "quiet")

    # Judging

    def fault(self, text: str) -> None:
        """Something that must not be."""
        self.report.violations.append(text)

    async def answered(
        self,
        what: str,
        function: Callable[[], Awaitable[T]],
        *allowed: type[Exception],
        still: Callable[[], bool] = lambda: True,
    ) -> T | None:
        """What `function` gives, in time; None where it raises what is `allowed`.

        It may take longer where it is not `still` due.
        """
        begun = trio.current_time()
        with trio.move_on_after(BOUND) as scope:
            try:
                return await function()
            except allowed as error:
                self.report.refusals[f"{what} {type(error).__name__}"] += 1
            except Exception as error:
                self.fault(f"{what} raised\n{''.join(traceback.format_exception(error))}")
            finally:
                took = trio.current_time() - begun
                self.report.slowest[what] = max(took, self.report.slowest.get(what, 0.0))
        if scope.cancelled_caught and still():
            self.fault(f"{what} was not answered in {BOUND:g} s")
        return None

    def soon(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do it beside everything else."""

        async def run() -> None:
            self.busy += 1
            try:
                async with self.limit:
                    await function(*args)
            finally:
                self.busy -= 1

        self.nursery.start_soon(run)

    def note_blow(self, name: str, seconds: float) -> None:
        """It is about to happen."""
        self.report.events[name] += 1
        self.blow = f"{name} {seconds:.2f}"
        if not self.report.violations:
            self.report.latest.append(self.blow)

    # Agents

    def server(self, *words: str) -> None:
        """A tmux command of an outsider, which may come to nothing."""

        async def run() -> None:
            with trio.move_on_after(BOUND):
                await trio.run_process([*self.tmux, *words], check=False, capture_stderr=True,
                    capture_stdout=True)  # fmt: skip

        self.soon(run)

    @property
    def tmux(self) -> list[str]:
        """The beginning of such a command."""
        return [self.options.tmux, "-u", "-S", str(self.swarm.socket_path)]

    async def spawn(self, natures: str, policy: tmuxcc.RestartPolicy) -> None:
        """One more agent, with readers."""
        self.made += 1
        name = f"a{self.made}"
        folder = self.folder / name
        folder.mkdir()
        argv = [sys.executable, "-I", "-S", "-c", WORKER, str(folder), natures, name]
        agent = await self.answered(
            "spawn",
            lambda: self.swarm.spawn(name, argv, restart=policy, stop=GENTLE),
            tmuxcc.ConnectionClosed,
            tmuxcc.CommandError,
        )
        if agent is None:
            return
        member = Member(agent, folder, natures)
        member.story.append(f"spawned, {natures or 'plain'}, restart {policy.when}")
        self.members[name] = member
        self.everybody.append(member)
        self.nursery.start_soon(self.read_bytes, member)
        if self.made % 3 == 0:
            self.nursery.start_soon(self.read_lines, member)

    @contextmanager
    def told_of_loss(self, ledger: Ledger) -> Iterator[None]:
        """A stream that says that tmux is gone has told that something may be missing."""
        try:
            yield
        except tmuxcc.ConnectionClosed:
            ledger.missing(None)

    async def read_bytes(self, member: Member) -> None:
        """Read all, as bytes, to the end."""
        ledger = Ledger(member.agent.agent_id, member.folder, self.fault)
        member.ledgers.append(ledger)
        end = 0
        with self.told_of_loss(ledger):
            async for item in member.agent.output():
                if item.offset != end:
                    self.fault(f"{ledger.name}: an item at {item.offset} instead of {end}")
                if isinstance(item, tmuxcc.Chunk):
                    ledger.receive(item.offset, item.data)
                    end = item.offset + len(item.data)
                elif isinstance(item, tmuxcc.Gap):
                    self.report.gaps[item.cause] += 1
                    member.story.append(f"gap {item.cause} behind {ledger.run}:{ledger.last}")
                    ledger.missing(item.size)
                    end = item.offset + (item.size or 0)
                elif isinstance(item, tmuxcc.Restarted):
                    member.story.append(f"restarted behind {ledger.run}:{ledger.last}")
                    ledger.rest = b""
        ledger.end_run()

    async def read_lines(self, member: Member) -> None:
        """Read all, as lines, rather slowly."""
        ledger = Ledger(f"{member.agent.agent_id} (lines)", member.folder, self.fault)
        member.ledgers.append(ledger)
        with self.told_of_loss(ledger):
            async for line in member.agent.lines():
                if isinstance(line, tmuxcc.LostOutput):
                    ledger.missing(line.gap.size)
                else:
                    ledger.line(line.encode())
                if ledger.lines % 50 == 0:
                    await trio.sleep(0.05)
        ledger.end_run()

    def some(self) -> Member | None:
        """An agent, for a blow."""
        if not self.members:
            return None
        member = self.members[self.rng.choice(list(self.members))]
        member.story.append(f"{self.blow}, wrapper {member.agent.pane.pid}")
        return member

    def excuse(self, member: Member) -> None:
        """Its wrapper is about to be killed, and with it what tmux has not read yet."""
        if member.agent.pane.pid is not None:
            self.excused.add(member.agent.pane.pid)

    # Blows

    async def wait_exit_or_rest(self, member: Member) -> None:
        """As `wait_exit`, but whose agent runs again when the blows are over waits in vain."""

        async def give_up() -> None:
            await self.resting.wait()
            while member.agent.life is not tmuxcc.Life.RUNNING:  # noqa: ASYNC110
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await self.wait_exit(member)
            nursery.cancel_scope.cancel()

    async def wait_exit(self, member: Member) -> None:
        agent = member.agent
        await self.answered(
            "wait_exit",
            agent.wait_exit,
            tmuxcc.ConnectionClosed,
            tmuxcc.PaneNotFound,
            still=lambda: agent.is_over,
        )

    async def kill_program(self) -> None:
        if (member := self.some()) is not None:
            number = self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            if send_signal(member.program_pid, number) and member.agent.spec.restart.when == "no":
                self.soon(self.wait_exit_or_rest, member)

    async def kill_wrapper(self) -> None:
        if (member := self.some()) is not None:
            self.excuse(member)
            send_signal(member.agent.pane.pid, signal.SIGKILL)
            if member.agent.spec.restart.when == "no":
                self.soon(self.wait_exit_or_rest, member)

    async def kill_client(self) -> None:
        send_signal(self.swarm.client.client_pid, signal.SIGKILL)

    async def kill_any_client(self) -> None:
        """Also the one that is there for commands only."""
        children = [
            int(pid)
            for task in Path("/proc/self/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
        lookers = {looker.process.pid for looker in self.lookers}
        ours = [
            pid
            for pid in sorted(children)
            if pid not in lookers and b"attach" in _read(f"/proc/{pid}/cmdline")
        ]
        if ours:
            send_signal(self.rng.choice(ours), signal.SIGKILL)

    async def pause(self, pid: int | None) -> None:
        """Stop a process for a while."""
        if pid and pid not in self.stopped and send_signal(pid, signal.SIGSTOP):
            self.stopped.add(pid)

            async def go_on() -> None:
                try:
                    await trio.sleep(self.rng.choice([0.05, 0.2, 1.0]))
                finally:
                    self.stopped.discard(pid)
                    send_signal(pid, signal.SIGCONT)

            # Not `soon`: the others may all be waiting for this one.
            self.nursery.start_soon(go_on)

    async def pause_program(self) -> None:
        if (member := self.some()) is not None:
            await self.pause(member.program_pid)

    async def pause_wrapper(self) -> None:
        if (member := self.some()) is not None:
            await self.pause(member.agent.pane.pid)

    async def pause_server(self) -> None:
        await self.pause(self.swarm.client.server_pid)

    async def pause_client(self) -> None:
        await self.pause(self.swarm.client.client_pid)

    async def flood(self) -> None:
        if (member := self.some()) is not None:
            size = self.rng.choice([1000, 5000, 20000])
            self.soon(self.send, member, f"flood {size}")

    async def send(self, member: Member, text: str, key: str | None = None) -> None:
        await self.answered(
            "send", lambda: member.agent.send(text, key=key), tmuxcc.ConnectionClosed
        )

    async def say(self) -> None:
        if (member := self.some()) is not None:
            key = self.rng.choice([None, f"key-{self.rng.randrange(20)}"])
            self.soon(self.send, member, "word", key)

    async def tell_to_exit(self) -> None:
        if (member := self.some()) is not None:
            self.soon(self.send, member, f"exit {self.rng.choice([0, 0, 3])}")

    async def broadcast(self) -> None:
        async def run() -> None:
            await self.answered(
                "broadcast", lambda: self.swarm.broadcast("all"), tmuxcc.ConnectionClosed
            )

        self.soon(run)

    async def capture(self) -> None:
        async def run(member: Member, history: bool) -> None:
            await self.answered(
                "capture",
                lambda: member.agent.capture(history=history),
                tmuxcc.ConnectionClosed,
                tmuxcc.PaneNotFound,
            )

        if (member := self.some()) is not None:
            self.soon(run, member, self.rng.random() < 0.3)

    async def gather(self) -> None:
        async def run() -> None:
            await self.answered("gather_outputs", lambda: self.swarm.gather_outputs(within=2.0))

        self.soon(run)

    async def wait_for(self) -> None:
        async def run(member: Member) -> None:
            await self.answered(
                "wait_for",
                lambda: member.agent.wait_for(r"#\d+:\d+ "),
                tmuxcc.ConnectionClosed,
                tmuxcc.PaneNotFound,
            )

        if (member := self.some()) is not None:
            self.soon(run, member)

    async def stop(self) -> None:
        if (member := self.some()) is not None:
            self.soon(self.stop_now, member)

    async def stop_now(self, member: Member) -> None:
        agent = member.agent
        runs, hands = agent.restarts, agent.life
        report = await self.answered("stop", lambda: agent.stop(grace=1.0))
        if report is not None:
            self.note_stop(report)
            if agent.is_over and (agent.restarts, hands) == (runs, hands):
                await self.check_gone(agent, "stop")
            await self.wait_exit_or_rest(member)

    def note_stop(self, report: tmuxcc.StopReport) -> None:
        for step in report.steps:
            if step.action.endswith("to the wrapper"):
                self.excused.update(step.pids)
        if report.left:
            self.fault(f"could not be ended: {report}")

    async def check_gone(self, agent: tmuxcc.Agent, what: str) -> None:
        """What is stopped has left nothing, unless somebody has started it again."""
        left = marked(f"TMUXCC_SWARM={self.swarm.mark}", f"TMUXCC_AGENT={agent.agent_id}")
        if left and agent.is_over:
            self.fault(f"{what} of {agent.agent_id} has left {left}")

    async def stop_cancelled(self) -> None:
        async def run(member: Member, patience: float) -> None:
            self.excuse(member)
            with trio.move_on_after(patience):
                await self.stop_now(member)

        if (member := self.some()) is not None:
            self.soon(run, member, self.rng.choice([0.0, 0.01, 0.1]))

    async def restart(self) -> None:
        async def run(member: Member) -> None:
            self.excuse_last_words(member)
            await self.answered(
                "restart",
                lambda: self.swarm.restart(member.agent.agent_id, grace=1.0),
                tmuxcc.ConnectionClosed,
                tmuxcc.CommandError,
                tmuxcc.AgentNotFoundError,
            )

        if (member := self.some()) is not None:
            self.soon(run, member)

    def excuse_last_words(self, member: Member) -> None:
        """A deaf program is killed, and its wrapper may be too late to tell its end."""
        if "deaf" in member.natures:
            self.excuse(member)

    async def remove(self) -> None:
        if len(self.members) > 2 and (member := self.some()) is not None:
            del self.members[member.agent.agent_id]
            self.soon(self.remove_now, member)

    async def remove_now(self, member: Member) -> None:
        name = member.agent.agent_id
        report = await self.answered(
            "remove",
            lambda: self.swarm.remove(name, grace=1.0),
            tmuxcc.ConnectionClosed,
            tmuxcc.AgentNotFoundError,
        )
        if report is not None:
            self.note_stop(report)
            await self.check_gone(member.agent, "remove")
        self.excuse_last_words(member)

    async def kill_pane(self) -> None:
        await self.kill_by_outsider("kill-pane")

    async def kill_window(self) -> None:
        await self.kill_by_outsider("kill-window")

    async def kill_by_outsider(self, command: str) -> None:
        """Not the last one, with which the session would go."""
        present = [each for each in self.members.values() if not _is_lost(each.agent)]
        if len(present) > 3 and (member := self.some()) is not None:
            self.excuse(member)
            self.server(command, "-t", member.agent.pane_id)

    async def detach(self) -> None:
        self.server("detach-client", "-s", self.swarm.client.session_id)

    async def look_on(self) -> None:
        if len(self.lookers) < 5:
            kind = self.rng.choice(self.kinds)
            looker = LookerOn(self.tmux, kind)
            self.lookers.append(looker)
            self.nursery.start_soon(looker.read)

    async def kill_looker(self) -> None:
        if self.lookers:
            self.lookers.pop(self.rng.randrange(len(self.lookers))).end()

    async def copy_mode(self) -> None:
        if (member := self.some()) is not None:
            self.server("copy-mode", "-t", member.agent.pane_id)

    async def refill(self) -> None:
        """Have as many agents as asked for; those whose pane is gone are removed."""
        for name, member in list(self.members.items()):
            if _is_lost(member.agent) and self.swarm.agents.get(name) is member.agent:
                del self.members[name]
                self.soon(self.remove_now, member)
        if len(self.members) + self.busy < self.options.agents:
            self.soon(self.spawn, self.rng.choice(NATURES), self.rng.choice(POLICIES))
        idle = [each for each in self.members.values() if each.agent.is_over]
        if idle and self.rng.random() < 0.3:
            member = self.rng.choice(idle)
            if not _is_lost(member.agent):
                self.soon(self.restart_ended, member)

    async def restart_ended(self, member: Member) -> None:
        await self.answered(
            "restart",
            lambda: self.swarm.restart(member.agent.agent_id),
            tmuxcc.ConnectionClosed,
            tmuxcc.CommandError,
            tmuxcc.AgentNotFoundError,
        )

    # The course of it

    async def run(self) -> None:
        """Blows for the time asked for, then rest, then a look at everything."""
        blows: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.kill_program, 8),
            (self.kill_wrapper, 4),
            (self.kill_client, 2),
            (self.kill_any_client, 1),
            (self.pause_program, 4),
            (self.pause_wrapper, 2),
            (self.pause_server, 2),
            (self.pause_client, 1),
            (self.flood, 4),
            (self.say, 6),
            (self.tell_to_exit, 5),
            (self.broadcast, 3),
            (self.capture, 3),
            (self.gather, 1),
            (self.wait_for, 5),
            (self.stop, 3),
            (self.stop_cancelled, 1),
            (self.restart, 4),
            (self.remove, 2),
            (self.kill_pane, 1),
            (self.kill_window, 1),
            (self.detach, 1),
            (self.look_on, 3),
            (self.kill_looker, 2),
            (self.copy_mode, 2),
        ]
        functions = [function for function, _ in blows]
        weights = [weight for _, weight in blows]
        begun = trio.current_time()
        shown = begun
        crashed = False
        while (now := trio.current_time()) < begun + self.options.seconds:
            if now > shown + 0.5:
                shown = now
                self.options.progress(self.describe(now - begun))
            [function] = self.rng.choices(functions, weights)
            self.note_blow(function.__name__, now - begun)
            await function()
            if not is_running(self.swarm.client.server_pid):
                crashed = True
                break
            await self.refill()
            await trio.sleep(self.rng.choice([0.0, 0.01, 0.05, 0.1, 0.2]))
        self.options.progress("coming to rest")
        self.resting.set()
        for looker in self.lookers:
            looker.end()
        with trio.move_on_after(BOUND + SETTLE) as scope:
            while self.busy:  # noqa: ASYNC110
                await trio.sleep(0.05)
        if scope.cancelled_caught:
            self.fault(f"{self.busy} calls are still under way")
        end = self.rng.choice(["kill-server", "SIGKILL", "stop", "leave"])
        if crashed or not is_running(self.swarm.client.server_pid):
            end = "crash"
            if not has_hazard(self.swarm.client.version, "client-race-crash"):
                self.fault("the server has ended by itself")
        else:
            await self.settle()
        self.report.events[f"end: {end}"] += 1
        await self.end(end)

    def describe(self, seconds: float) -> str:
        """One line on how it goes."""
        lines = sum(ledger.lines for each in self.everybody for ledger in each.ledgers)
        return (
            f"{seconds:.0f} s: {sum(self.report.events.values())} blows, {lines} lines, "
            f"{len(self.members)} agents, connection {self.swarm.client.generation}, "
            f"{sum(self.report.gaps.values())} gaps, {len(self.report.violations)} violations"
        )

    async def settle(self) -> None:
        """Statuses and windows agree with what is there, once nothing changes any more."""
        with trio.move_on_after(SETTLE):
            while wrong := await self.disagreements():  # noqa: ASYNC110
                await trio.sleep(0.2)
        for text in wrong:
            self.fault(f"in the end {text}")

    async def disagreements(self) -> list[str]:
        """Where the swarm's view and that of the system differ."""
        wrong = []
        try:
            told = await self.swarm.client.command(
                "list-panes", "-s", "-t", self.swarm.client.session_id, "-F",
                "#{pane_id} #{pane_dead} #{@tmuxcc_vacant} #{@tmuxcc_agent}",
            )  # fmt: skip
        except tmuxcc.TmuxError as error:
            return [f"tmux does not answer: {error}"]
        panes = {line.split(" ")[0]: line.split(" ")[1:] for line in told}
        swarm = f"TMUXCC_SWARM={self.swarm.mark}"
        programs: dict[str, list[int]] = {}
        for pid in marked(swarm):
            words = _read(f"/proc/{pid}/cmdline").split(b"\0")
            if len(words) > 6 and words[4] == WORKER.encode():
                programs.setdefault(Path(words[5].decode()).name, []).append(pid)
            else:
                owner = _read(f"/proc/{pid}/environ").partition(b"TMUXCC_AGENT=")[2]
                name = owner.partition(b"\0")[0].decode()
                if name and name not in self.swarm.agents:
                    wrong.append(f"process {pid} of {name} is left, which the swarm does not know")
        for name, agent in self.swarm.agents.items():
            pids = programs.pop(name, [])
            running = agent.life is tmuxcc.Life.RUNNING
            if agent.life in (tmuxcc.Life.PENDING, tmuxcc.Life.STARTING):
                wrong.append(f"{agent} is on its way")
            if not agent.is_over and agent.restart_at is not None:
                wrong.append(f"{agent} is about to be started again")
            if len(pids) != int(running):
                wrong.append(f"{agent} ({agent.status}) has programs {pids}")
            if running is agent.is_over and agent.restart_at is None:
                wrong.append(f"{agent} is over or not: {agent.is_over}")
            dead = panes.pop(agent.pane_id, ["gone"])[0]
            if running and dead != "0":
                wrong.append(f"{agent} has a dead pane: {dead}")
        wrong += [f"{name} has programs {pids}" for name, pids in programs.items()]
        wrong += [
            f"pane {pane_id} is of no agent: {rest}"
            for pane_id, rest in panes.items()
            if rest[1] != "1"
        ]
        return wrong

    async def end(self, how: str) -> None:
        """The end of the swarm, and whether all who wait hear of it."""
        self.report.restarts += sum(each.agent.restarts for each in self.everybody)
        self.report.connections += self.swarm.client.generation
        async with trio.open_nursery() as nursery:
            for member in self.members.values():
                nursery.start_soon(self.wait_exit, member)
            await trio.sleep(0.1)
            if how in ("kill-server", "SIGKILL", "crash"):
                for member in self.everybody:
                    if member.agent.window_id:
                        self.excuse(member)
                if how == "SIGKILL":
                    send_signal(self.swarm.client.server_pid, signal.SIGKILL)
                elif how == "kill-server":
                    self.server("kill-server")
                with trio.move_on_after(BOUND):
                    while not all(  # noqa: ASYNC110
                        each.agent.is_over for each in self.members.values()
                    ):
                        await trio.sleep(0.05)
                for member in self.members.values():
                    if not member.agent.is_over:
                        self.fault(f"without a server {member.agent} goes on")
            elif how == "stop":
                reports = await self.answered("stop_all", self.swarm.stop_all)
                for report in (reports or {}).values():
                    self.note_stop(report)
            else:
                for member in self.members.values():
                    self.excuse_last_words(member)
                # Leaving ends them, and this task is cancelled before: they are waited for there.
                nursery.cancel_scope.cancel()


def _read(path: str) -> bytes:
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""


def _is_lost(agent: tmuxcc.Agent) -> bool:
    """Whether its pane is gone, so that it can't be started again."""
    gone = agent.exit_status == tmuxcc.ExitStatus(None, None)
    return agent.is_over and (gone or agent.life is tmuxcc.Life.FAILED)


@contextmanager
def _cleared_up(folder: Path, report: Report) -> Iterator[None]:
    """Nothing of it is left, also if it failed."""
    try:
        yield
    finally:
        mark = f"TMUXCC_CHAOS={folder}"
        left = marked(mark)
        for pid, words in left.items():
            if pid != os.getpid():
                report.violations.append(f"left behind: {pid} {words[:60]!r}")
                send_signal(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


async def run_chaos(options: Options) -> Report:
    """One swarm after the other until the time is over; what has happened."""
    report = Report(options.seed)
    rng = random.Random(options.seed)
    begun = trio.current_time()
    while not report.violations and (left := begun + options.seconds - trio.current_time()) > 1:
        # Two rounds of a minute find more than one of two: there are more ends.
        await run_round(evolve(options, seconds=min(left, ROUND)), rng, report)
        report.seconds = trio.current_time() - begun
    return report


async def run_round(options: Options, rng: random.Random, report: Report) -> None:
    """The life of one swarm."""
    folder = Path(tempfile.mkdtemp(prefix="tmuxcc-chaos-", dir="/tmp"))
    # The server and so its agents inherit it.
    os.environ["TMUXCC_CHAOS"] = str(folder)
    chaos: Chaos | None = None
    mark = ""
    with _cleared_up(folder, report):
        try:
            async with trio.open_nursery() as readers:
                async with tmuxcc.open_swarm(
                    "chaos",
                    base_dir=folder,
                    socket_path=folder / "socket",
                    tmux=options.tmux,
                    log_dir=folder / "logs",
                ) as swarm:
                    mark = swarm.mark
                    chaos = Chaos(options, report, folder, swarm, readers, rng)
                    await chaos.run()
                    left = trio.current_time()
                report.slowest["leaving"] = trio.current_time() - left
                readers.cancel_scope.deadline = trio.current_time() + BOUND
            if readers.cancel_scope.cancelled_caught:
                report.violations.append("a reader or a waiter was not told of the end")
        except Exception as error:
            report.violations.append("".join(traceback.format_exception(error)))
        finally:
            os.environ.pop("TMUXCC_CHAOS", None)
        for pid, words in marked(f"TMUXCC_SWARM={mark}").items():
            report.violations.append(f"the swarm has left {pid} {words!r}")
        for member in () if chaos is None else chaos.everybody:
            if (member.folder / "double").exists():
                report.violations.append(f"two programs of {member.agent} ran at a time")
            for ledger in member.ledgers:
                report.cut += ledger.check_tails(chaos.excused if chaos is not None else set())
                report.lines += ledger.lines
                report.noise += ledger.noise
            name = member.agent.agent_id
            if any(re.match(rf"{name}\b", violation) for violation in report.violations):
                report.stories[name] = ", ".join(member.story)


def main() -> None:
    """Run it as the command line says; exit status 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--agents", type=int, default=12)
    parser.add_argument("--tmux", default="tmux", metavar="PROGRAM")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    shown = sys.stderr.isatty()

    def progress(text: str) -> None:
        if shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    print(f"seed {seed}", flush=True)
    # So that a run that hangs tells where.
    faulthandler.dump_traceback_later(options.seconds + 4 * BOUND, exit=True)
    report = trio.run(
        run_chaos, Options(options.seconds, seed, options.agents, options.tmux, progress)
    )
    progress("")
    print(report)
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
