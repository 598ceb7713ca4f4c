"""What /proc tells of processes and sockets, and signals that hit only those they are meant for.

A process is known by its number and the time it was started (`Identity`), since numbers are used
again. Whom to end, and when, must not live here.

On systems without /proc little is found: no state, no family, no command line. An `Identity` is
then no more than a number, and what can't be waited for is asked for again and again.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import trio
from attrs import frozen

POLL = 0.02
"""Seconds between two looks at a process whose end the system does not tell (no pidfd)."""

# How often those are looked for that were born meanwhile, and how many of them at a time.
_CHASES = 20
_CHASE = 1000

# Num RefCount Protocol Flags Type St Inode Path; the flag is "accepts connections".
_LISTENING = re.compile(rb"^\S+: \S+ \S+ 00010000 \S+ \S+ +\S+ (.+)$", re.MULTILINE)


@frozen
class Identity:
    """One process and no later one of the same number.

    `start_time` is in clock ticks since the machine was started; 0 where nobody tells it.
    """

    pid: int
    start_time: int


@frozen
class ProcessState:
    """One process as /proc shows it.

    `parent`, `group` (process group) and `session` are process ids, `terminal` is the device
    number of the controlling terminal (0: none), which is unique only among those of one mounted
    devpts. `foreground_group` is the group that the terminal listens to (-1: no terminal).
    """

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    terminal: int
    foreground_group: int
    threads: int
    start_time: int

    @property
    def identity(self) -> Identity:
        """Which process this is."""
        return Identity(self.pid, self.start_time)

    @property
    def has_ended(self) -> bool:
        """Whether it only waits for its parent to take note of its end."""
        # A program whose first thread has ended shows as a zombie while the others run.
        return self.state in "ZX" and self.threads <= 1


def process_state(pid: int) -> ProcessState | None:
    """The state of a process; None if there is no such process, or no /proc."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name stands in parentheses and may hold some itself.
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split(None, 20)
    return ProcessState(
        pid=pid,
        name=name.decode("utf-8", "backslashreplace"),
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        terminal=int(fields[4]),
        foreground_group=int(fields[5]),
        threads=int(fields[17]),
        start_time=int(fields[19]),
    )


def all_processes() -> Iterator[ProcessState]:
    """Every process but those that have ended and only wait for their parent."""
    return (process for process in _all_entries() if not process.has_ended)


def processes_with(variable: bytes) -> list[ProcessState]:
    """Those whose environment begins an entry with `variable`, and all of their sessions."""
    processes = list(all_processes())
    sessions = {each.session for each in processes if b"\0" + variable in _environment(each.pid)}
    return [each for each in processes if each.session in sessions]


def command_line(pid: int) -> list[str]:
    """The argument list of a process; empty if it is not known."""
    data = _read(f"/proc/{pid}/cmdline")
    return data.decode("utf-8", "backslashreplace").rstrip("\0").split("\0") if data else []


def is_listening(path: Path) -> bool:
    """Whether somebody listens on a socket. On Linux he does not notice that he was looked for."""
    try:
        table = Path("/proc/net/unix").read_bytes()
    except OSError:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(path))
            return True
        return False
    return os.fsencode(path) in _LISTENING.findall(table)


# Signals


def identity(pid: int) -> Identity | None:
    """Which process has this number now; None if none has, or one that has ended."""
    state = process_state(pid)
    if state is not None:
        return None if state.has_ended else state.identity
    if _has_proc():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return Identity(pid, 0)


def is_alive(process: Identity) -> bool:
    """Whether it still runs: it is there, has not ended, and is no other of the same number."""
    return identity(process.pid) == process


def send_signal(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there and ours."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send_signal_to(processes: Iterable[Identity], number: signal.Signals) -> list[Identity]:
    """Send a signal to those that still run and are ours; which of them have got it.

    A process that was given the number of one that has ended is never hit: on Linux a handle on
    the process is taken first, and looked at through it.
    """
    return [each for each in processes if _send_signal_to(each, number)]


def _send_signal_to(process: Identity, number: signal.Signals) -> bool:
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):
        # No Linux, one before 5.3, or no descriptor to be had.
        pidfd = -1
    try:
        if not is_alive(process):
            return False
        if pidfd < 0:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True


def send_signal_to_group(member: ProcessState, number: signal.Signals) -> bool:
    """Send a signal to all of the process group of `member` at once; whether that was done.

    No member escapes by forking meanwhile, as it does from signals to one after the other. Nothing
    is sent if `member` has ended or left the group: only with it is the number the group's own.
    """
    now = process_state(member.pid)
    if now is None or now.identity != member.identity or now.group != member.group:
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(member.group, number)
        return True
    return False


def halt(marks: Collection[bytes], *, spare: Collection[int] = ()) -> list[Identity]:
    """Stop (SIGSTOP) every process with all `marks` in its environment; which got it.

    Each is stopped as soon as it is found, and those that were born meanwhile are looked for until
    there are no newer ones: so are caught those too that fork and end all the time. `spare` are
    processes that are passed over, with the groups that they lead.
    """
    halted: list[Identity] = []
    for pid in _all_pids():
        environment = _environment(pid) + b"\0"
        if marks and all(b"\0" + mark + b"\0" in environment for mark in marks):
            state = process_state(pid)
            if state is not None and not {pid, state.group} & set(spare):
                halted += send_signal_to([state.identity], signal.SIGSTOP)
    return halted


async def wait_gone(processes: Iterable[Identity]) -> None:
    """Wait until all of them have ended. Returns at once if they have."""
    for process in list(processes):
        await _wait_gone(process)


async def _wait_gone(process: Identity) -> None:
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        while is_alive(process):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(POLL)
        return
    try:
        if is_alive(process):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        trio.lowlevel.notify_closing(pidfd)
        os.close(pidfd)


def is_abandoned(pid: int) -> bool:
    """Whether a process reads from a pipe into which nobody can write any more."""
    try:
        reading = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # It has ended, is not ours, reads from a socket, or there is no /proc.
        return False
    try:
        poll = select.poll()
        poll.register(reading, 0)
        return any(happened & select.POLLHUP for _, happened in poll.poll(0))
    finally:
        os.close(reading)


# Families


def take_snapshot(*, environments: bool = False) -> Snapshot:
    """All processes as they are now: one pass over /proc, a few milliseconds for hundreds.

    With `environments` these are read in the same pass, so that marks are seen also of those that
    end a moment later.
    """
    if not environments:
        return Snapshot(_all_entries())
    known: dict[int, bytes] = {}

    def entries() -> Iterator[ProcessState]:
        for process in _all_entries():
            known[process.pid] = b"" if process.has_ended else _environment(process.pid)
            yield process

    return Snapshot(entries(), known.__getitem__)


def _environment(pid: int) -> bytes:
    """What a process was started with, a NUL before each entry; only that if it is not known."""
    return b"\0" + _read(f"/proc/{pid}/environ")


class Snapshot:
    """All processes at one time, from which the families of many roots are told apart.

    `processes` maps process ids to states, those that have ended included; `ours` are the ids of
    this process and its parents. Environments are read
    when the first mark is asked for, each once, with `environment`.
    """

    def __init__(
        self,
        processes: Iterable[ProcessState],
        environment: Callable[[int], bytes] = _environment,
    ) -> None:
        self.processes: Mapping[int, ProcessState] = {each.pid: each for each in processes}
        self._environment = environment
        self._environments: dict[int, bytes] = {}
        self._marked: dict[bytes, dict[bytes, set[int]]] = {}
        self._children: dict[int, list[int]] = defaultdict(list)
        self._sessions: dict[int, list[int]] = defaultdict(list)
        self._groups: dict[int, list[int]] = defaultdict(list)
        for each in self.processes.values():
            self._children[each.parent].append(each.pid)
            self._sessions[each.session].append(each.pid)
            self._groups[each.group].append(each.pid)
        self.ours = self._lineage(os.getpid())

    def marked(self, marks: Collection[bytes]) -> set[int]:
        """The processes whose environment has all `marks` (``NAME=value``), at least one."""
        if not marks:
            return set()
        return set.intersection(*map(self._with, marks))

    def family(
        self,
        *,
        roots: Iterable[Identity] = (),
        marks: Collection[bytes] = (),
        spare: Collection[int] = (),
    ) -> list[ProcessState]:
        """The processes that belong together, in no order, without those that have ended.

        They are the roots, those with all `marks` in their environment, and of each of them the
        descendants and the sessions that they lead, or that have lost their leader (the pane's
        terminal belongs to its session, so whoever has it is among these). A root whose number is
        another process's by now counts for nothing.

        Never among them, nor looked through, are this process and its parents, and `spare`.
        """
        spared = self.ours | set(spare)
        others = {self.processes[pid].session for pid in spared if pid in self.processes}
        members: dict[int, ProcessState] = {}
        waiting = list(self.marked(marks))
        for root in roots:
            process = self.processes.get(root.pid)
            if process is not None and process.identity == root:
                waiting.append(root.pid)
        while waiting:
            pid = waiting.pop()
            if pid in members or pid in spared:
                continue
            process = members[pid] = self.processes[pid]
            waiting += self._children.get(pid, ())
            # A marked process may stand in a session that is not its own: that of whoever
            # started it by hand, for instance.
            session = process.session
            led = session in self.processes
            if pid == session or not (led or session in others or session == 0):
                waiting += self._sessions[session]
        return [process for process in members.values() if not process.has_ended]

    def whole_groups(self, members: Collection[ProcessState]) -> set[int]:
        """The process groups that have nobody but `members` in them."""
        pids = {each.pid for each in members}
        groups = {each.group for each in members if each.group > 0}
        return {group for group in groups if self._running(group) <= pids}

    def _running(self, group: int) -> set[int]:
        return {pid for pid in self._groups[group] if not self.processes[pid].has_ended}

    def _lineage(self, pid: int) -> set[int]:
        line: set[int] = set()
        while pid in self.processes and pid not in line:
            line.add(pid)
            pid = self.processes[pid].parent
        return line

    def _with(self, mark: bytes) -> set[int]:
        name = mark.partition(b"=")[0]
        entries = self._marked.get(name)
        if entries is None:
            entries = self._marked[name] = defaultdict(set)
            for pid, environment in self._all_environments():
                start = environment.find(b"\0" + name + b"=")
                if start >= 0:
                    end = environment.find(b"\0", start + 1)
                    entries[environment[start + 1 : None if end < 0 else end]].add(pid)
        return entries.get(mark, set())

    def _all_environments(self) -> Iterable[tuple[int, bytes]]:
        if not self._environments:
            self._environments = {
                pid: self._environment(pid)
                for pid, process in self.processes.items()
                if not process.has_ended
            }
        return self._environments.items()


def _all_entries() -> Iterator[ProcessState]:
    for pid in _all_pids():
        process = process_state(pid)
        if process is not None:
            yield process


def _all_pids() -> Iterator[int]:
    """All process ids upwards, and then those that were given away meanwhile.

    So whoever forks and ends all the time is met, if not under the number that was listed.
    """
    newest = _newest_pid()
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - thousands of names, no paths needed
    except OSError:
        return
    listed = {int(name) for name in names if name.isdigit()}
    yield from sorted(listed)
    for _ in range(_CHASES):
        first, newest = newest + 1, _newest_pid()
        if newest < first:
            return
        for pid in range(first, min(newest, first + _CHASE) + 1):
            # Threads have numbers too.
            if pid not in listed and b"\nTgid:\t%d\n" % pid in _read(f"/proc/{pid}/status"):
                yield pid


def _newest_pid() -> int:
    """The number that was given away last, be it to a thread; 0 if that is not known."""
    last = _read("/proc/loadavg").split()[-1:]
    return int(last[0]) if last else 0


def _has_proc() -> bool:
    return Path("/proc/self/stat").exists()


def _read(path: str) -> bytes:
    """The whole of a small file; empty if it can't be read. Many are read at a time."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    pieces = []
    try:
        while piece := os.read(descriptor, 1 << 16):
            pieces.append(piece)
    except OSError:
        # The process has ended in between.
        return b""
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def environment_of(pid: int) -> dict[str, str]:
    """The variables that a process was started with; none where they can't be read."""
    entries = _environment(pid).decode("utf-8", "surrogateescape").split("\0")
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, equals, value in pairs if equals}
