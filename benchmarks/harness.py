"""What all benchmarks share: sides in turns, lines that carry their time, a tmux server, its cost.

A *case* is one comparison. Its *sides* run one after the other, again in every round, each time in
another order, in one process tree on one tmux server: what the machine does besides hits all of
them, and the ratio of two sides of the same round is what can be believed.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import Factory, define, field, frozen

from .results import Row, summarize

Samples = Mapping[str, Sequence[float]]
"""What a side gives for one round: for each thing that is measured the samples."""

Side = Callable[[], Samples]

SESSION = "bench"

PATIENCE = 60.0
"""Seconds after which a side hangs: an error, never a figure."""

SETTLE = 1.0
"""Seconds for the last lines to arrive when all are written; what comes later counts as lost."""


class Failed(Exception):
    """A benchmark could not be run to its end."""


@frozen
class Setting:
    """How and where to run: sizes are those of a smoke test if `quick`."""

    tmux: str
    quick: bool = False

    def of(self, full, quick):
        """One of the two."""
        return quick if self.quick else full


def find_tmux(program: str | None = None) -> str:
    """The path of tmux."""
    found = shutil.which(program or "tmux")
    if found is None:
        raise Failed(f"no program {program or 'tmux'!r}: install tmux, or name it with --tmux")
    return found


# Sides in turns

WITHIN = 8.0
"""Seconds for one case: a slow machine makes fewer rounds, so that all questions together stay
within five minutes."""


def interleave(
    sides: Mapping[str, Side], rounds: int, *, within: float = WITHIN
) -> dict[str, dict[str, list[list[float]]]]:
    """Run all sides in every round; for each thing measured, by side, the samples of each round.

    Every round begins with another side, so that none always has the same predecessor's leftovers.
    The first round takes as long as it takes; no other one is begun that would not end `within` so
    many seconds, if it took as long as those before.
    """
    names = list(sides)
    found: dict[str, dict[str, list[list[float]]]] = {}
    began = time.monotonic()
    for number in range(rounds):
        if number and (time.monotonic() - began) * (number + 1) / number > within:
            break
        for name in _rotated(names, number):
            # No side pays for what the one before it has left.
            gc.collect()
            for what, samples in sides[name]().items():
                by_side = found.setdefault(what, {})
                by_side.setdefault(name, []).append(list(samples))
    return {
        what: {name: by_side[name] for name in names if name in by_side}
        for what, by_side in found.items()
    }


def _rotated(names: Sequence[str], number: int) -> list[str]:
    # A step that shares no divisor with small counts, so that neighbours change too.
    start = number * 3 % len(names) if names else 0
    turned = [*names[start:], *names[:start]]
    return turned if number % 2 == 0 else [turned[0], *reversed(turned[1:])]


def compare(
    case: str,
    sides: Mapping[str, Side],
    *,
    rounds: int,
    within: float = WITHIN,
    units: Mapping[str, str],
    baseline: str | None = None,
    keep_quantiles: bool = False,
) -> list[Row]:
    """Run one case; its rows. `units` names the unit of everything that the sides give."""
    rows = []
    for what, by_side in interleave(sides, rounds, within=within).items():
        rows += summarize(
            case,
            what,
            units[what],
            by_side,
            baseline=baseline,
            keep_quantiles=keep_quantiles,
        )
    return rows


# Lines that carry their time

_LINE = re.compile(rb"<([0-9]+):([0-9]+):([0-9]+)>")

END = b"<end>"
"""The last line of each pane."""


def stamped_line(pane: int, number: int, now: int) -> bytes:
    """Line `number` of a pane, written at `now` (ns). The writers below make the same."""
    return b"<%d:%d:%d>\n" % (pane, number, now)


@define
class Sighting:
    """One arrival at a consumer: when (ns), from which stream, and what."""

    now: int
    stream: object
    data: bytes


@define
class Record:
    """What a consumer saw of the lines that were written.

    Consumers only append, with the time at which they had the data; what it means is worked out
    afterwards, the same way for all. A stream continues from arrival to arrival; a screen
    (`look`) shows again what it showed before. What was written before the record began counts
    for nothing: a screen may still show it.
    """

    clock: Callable[[], int] = time.monotonic_ns
    began: int = field(default=Factory(lambda self: self.clock(), takes_self=True))
    sightings: list[Sighting] = field(factory=list)
    repeats: int = 0

    def receive(self, stream: object, data: bytes) -> None:
        """Data of a stream has come."""
        self.sightings.append(Sighting(self.clock(), stream, data))

    def look(self, text: bytes) -> None:
        """A screen was seen."""
        self.sightings.append(Sighting(self.clock(), None, text))

    def arrivals(self) -> dict[tuple[int, int], tuple[int, int]]:
        """For each line that was seen, by pane and number, when it was written and first seen."""
        seen: dict[tuple[int, int], tuple[int, int]] = {}
        rests: dict[object, bytes] = defaultdict(bytes)
        self.repeats = 0
        for sighting in self.sightings:
            data = sighting.data
            if sighting.stream is not None:
                # A line that is cut arrives with its last byte.
                data = rests[sighting.stream] + data
                head, newline, rest = data.rpartition(b"\n")
                rests[sighting.stream] = rest
                data = head + newline
            for match in _LINE.finditer(data):
                pane, number, written = map(int, match.groups())
                if written < self.began:
                    continue
                if (pane, number) in seen:
                    self.repeats += sighting.stream is not None
                else:
                    seen[pane, number] = written, sighting.now
        return seen

    def latencies(self) -> list[float]:
        """From writing to having it, in ms, of each line that was seen."""
        return [(now - written) / 1e6 for written, now in self.arrivals().values()]


@define
class Tally(Record):
    """A record that only counts."""

    bytes: int = 0
    lines: int = 0

    def receive(self, stream: object, data: bytes) -> None:
        """Data of a stream has come."""
        self.bytes += len(data)
        self.lines += data.count(b"\n")


# The programs that write them

# Writes into the terminals of panes, as a program in each of them would; one process for all, which
# is no part of any side. Each line has its own random moment, so that nobody polls in step.
_WRITER = """
import os, random, sys, time
rate, seconds, seed = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
fds = [os.open(path, os.O_WRONLY | os.O_NOCTTY) for path in sys.argv[4:]]
chance = random.Random(seed)
count = max(1, round(rate * seconds))
slot = max(1 / rate, 0.001)
each = max(1, round(rate * slot))
plan = sorted(
    (slot * (first / each + chance.random()), pane, first)
    for pane in range(len(fds))
    for first in range(0, count, each)
)
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
for when, pane, first in plan:
    pause = start + when - time.monotonic()
    if pause > 0:
        time.sleep(pause)
    now = time.monotonic_ns()
    lines = ["<%d:%d:%d>\\n" % (pane, n, now) for n in range(first, min(first + each, count))]
    data = "".join(lines).encode()
    while data:
        data = data[os.write(fds[pane], data):]
print(count * len(fds), time.monotonic() - start, flush=True)
time.sleep(0.03)
for fd in fds:
    os.write(fd, b"<end>\\n")
"""


class Writer:
    """The process that writes `rate` lines a second for `seconds` into each of some terminals."""

    def __init__(self, ttys: Sequence[str], *, rate: float, seconds: float, seed: int = 1) -> None:
        argv = [sys.executable, "-I", "-S", "-c", _WRITER, str(rate), str(seconds), str(seed)]
        self._process = subprocess.Popen(
            [*argv, *ttys], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.pids = [self._process.pid]
        self.panes = len(ttys)
        self.written = 0
        self.seconds = 0.0
        self.deadline = float("inf")
        self._seconds = seconds
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise Failed("the program that writes lines did not start")

    def go(self) -> None:
        """Begin to write."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self.deadline = time.monotonic() + self._seconds * 3 + PATIENCE

    def poll(self) -> bool:
        """Whether all lines are written; not the ends yet."""
        assert self._process.stdout is not None
        if not self.written and select.select([self._process.stdout], [], [], 0)[0]:
            words = self._process.stdout.readline().split()
            if len(words) != 2:
                raise Failed("the program that writes lines has died")
            self.written, self.seconds = int(words[0]), float(words[1])
        if time.monotonic() > self.deadline:
            raise Failed("the lines were not written in time")
        return self.written > 0

    def bytes_written(self) -> int:
        """How many bytes it has written until now. Linux only."""
        for line in Path(f"/proc/{self.pids[0]}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
        raise Failed("the kernel does not tell what a process writes")

    def kill(self) -> None:
        """End it, whether or not it is done."""
        self._process.kill()

    def close(self) -> None:
        """Wait for its end."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Failed("the program that writes lines hangs") from None


class Flooder:
    """Programs that write a file into each of some terminals, as fast as these take it.

    The file's last line has to be the end line.
    """

    def __init__(self, ttys: Sequence[str], file: Path) -> None:
        self.panes = len(ttys)
        self._size = file.stat().st_size
        self.written = 0
        self.seconds = 0.0
        self._began = self._deadline = float("inf")
        self._processes = []
        for tty in ttys:
            with Path(tty).open("wb", buffering=0) as terminal:
                self._processes.append(
                    subprocess.Popen(
                        ["/bin/sh", "-c", 'read x; exec cat "$0"', file],
                        stdin=subprocess.PIPE,
                        stdout=terminal,
                    )
                )
        self.pids = [process.pid for process in self._processes]

    def go(self) -> None:
        """Begin to write."""
        self._began = time.monotonic()
        self._deadline = self._began + PATIENCE
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.close()

    def poll(self) -> bool:
        """Whether all is written."""
        if not self.written and all(each.poll() is not None for each in self._processes):
            self.seconds = time.monotonic() - self._began
            self.written = self._size * self.panes
        if time.monotonic() > self._deadline:
            raise Failed("the flood was not taken in time")
        return self.written > 0

    def close(self) -> None:
        """Wait for their end."""
        for process in self._processes:
            process.kill()
            process.wait()


class EndWatch:
    """Tells a consumer when it has all: an end line from each pane, or nothing more for a while.

    `last` is when data came last (0: never): what was waited for in vain is nobody's time.
    """

    def __init__(self, writer: Writer | Flooder) -> None:
        self.last = 0.0
        self._writer = writer
        self._missing = writer.panes
        self._tails: dict[object, bytes] = {}
        self._written_at = 0.0

    def saw(self, stream: object, data: bytes) -> bool:
        """Data has come; whether that was the last."""
        self.last = time.monotonic()
        text = self._tails.get(stream, b"") + data
        if END in text:
            self._missing -= text.count(END)
        self._tails[stream] = text[1 - len(END) :]
        return self._missing <= 0

    def all_written(self) -> bool:
        """Whether nothing more will be written."""
        return self._writer.poll()

    def over(self) -> bool:
        """Whether it is time to give up waiting for more; to be asked ten times a second or so."""
        if self._written_at:
            return time.monotonic() > max(self._written_at, self.last) + SETTLE
        if self._writer.poll():
            self._written_at = time.monotonic()
        return False


# A tmux server


@frozen
class PaneInfo:
    """A pane of the harness: its id, its terminal, and the process in it."""

    pane_id: str
    tty: str
    pid: int


class Server:
    """A private tmux server with a session ``bench``; `run_server` makes and ends it."""

    def __init__(self, tmux: str, folder: Path) -> None:
        self.tmux = tmux
        self.folder = folder
        self.socket = str(folder / "s")
        self.run(
            *("-u", "-f", "/dev/null", "new-session", "-d", "-s", SESSION, "-x", "200", "-y", "50"),
            *("sleep", "100000"),
            inside=False,
        )
        self.pid = int(self.run("display-message", "-p", "#{pid}"))

    def run(self, *argv: str, inside: bool = True) -> str:
        """Run a tmux command in a process of its own; what it prints."""
        told = subprocess.run(
            [self.tmux, "-S", self.socket, *(("-N",) if inside else ()), *argv],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
        if told.returncode != 0:
            raise Failed(f"tmux {' '.join(argv)[:100]}: {told.stderr.strip()}")
        return told.stdout.removesuffix("\n")

    def open_panes(self, count: int, argv: Sequence[str] = ("sleep", "100000")) -> list[PaneInfo]:
        """Make windows with a pane each."""
        panes = []
        for start in range(0, count, 50):
            words: list[str] = []
            for _ in range(min(50, count - start)):
                words += [";"] if words else []
                words += ["new-window", "-d", "-t", f"{SESSION}:", "-P", "-F"]
                words += ["#{pane_id} #{pane_tty} #{pane_pid}", *argv]
            for line in self.run(*words).splitlines():
                pane_id, tty, pid = line.split()
                panes.append(PaneInfo(pane_id, tty, int(pid)))
        return panes

    def close_panes(self, panes: Iterable[PaneInfo]) -> None:
        """Kill them."""
        words: list[str] = []
        for pane in panes:
            words += [";"] if words else []
            words += ["kill-pane", "-t", pane.pane_id]
        if words:
            self.run(*words)

    @contextmanager
    def panes(
        self, count: int, argv: Sequence[str] = ("sleep", "100000")
    ) -> Iterator[list[PaneInfo]]:
        """Panes for the time of the block."""
        panes = self.open_panes(count, argv)
        yield panes
        self.close_panes(panes)

    @contextmanager
    def flood(self) -> Iterator[PaneInfo]:
        """A pane that writes without end, for the time of the block."""
        with self.panes(1, ["yes", "the neighbour writes and writes and writes " * 2]) as panes:
            yield panes[0]

    def close(self) -> None:
        """Kill it, and wait until it is gone."""
        self.run("kill-server")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and Path(f"/proc/{self.pid}").exists():
            time.sleep(0.01)


@contextmanager
def run_server(tmux: str) -> Iterator[Server]:
    """A tmux server for the time of the block."""
    for name in ("TMUX", "TMUX_PANE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="tmuxcc-bench-", dir="/tmp") as name:
        server = Server(tmux, Path(name))
        try:
            yield server
        finally:
            server.close()


# What it costs


@frozen
class Cpu:
    """Seconds of CPU: of this process, its children (the writer excepted), the tmux server."""

    own: float
    children: float
    server: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.own + self.children + self.server


class CpuMeter:
    """Measures what is used from its making to `stop`; `spare` are children that do not count.

    What itself costs is left out: this process is looked at last, and at the end first. Linux only.
    """

    def __init__(self, server_pid: int, *, spare: Sequence[int] = ()) -> None:
        self._server_pid = server_pid
        self._spare = spare
        self._children, self._server = self._others()
        self._own = time.process_time()

    def stop(self) -> Cpu:
        """What was used."""
        own = time.process_time() - self._own
        children, server = self._others()
        return Cpu(own, children - self._children, server - self._server)

    def _others(self) -> tuple[float, float]:
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        living = descendants(os.getpid()) - set(self._spare)
        children = reaped.ru_utime + reaped.ru_stime + sum(map(cpu_of, living))
        return children, cpu_of(self._server_pid)


def can_account() -> bool:
    """Whether this system tells what other processes use."""
    return sys.platform == "linux"


def cpu_of(pid: int) -> float:
    """Seconds that a process has used, to the nanosecond where the kernel counts so; 0 if gone."""
    try:
        counted = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        if counted:
            return counted / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_memory(pid: int) -> float:
    """MB that belong to a process alone and to no file. Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise Failed("the kernel does not tell RssAnon")


def descendants(pid: int) -> set[int]:
    """The children of a process, and theirs."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for path in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with suppress(OSError):
                new = set(map(int, path.read_text().split())) - found
                found |= new
                waiting += new
    return found


def child_of(pid: int) -> int:
    """The only child of a process: of a wrapper the program. Waits for it."""
    deadline = time.monotonic() + PATIENCE
    path = Path(f"/proc/{pid}/task/{pid}/children")
    while time.monotonic() < deadline:
        if words := path.read_text().split():
            return int(words[0])
        time.sleep(0.001)
    raise Failed(f"process {pid} has no child")
