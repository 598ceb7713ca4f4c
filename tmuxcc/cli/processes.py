"""What Linux tells of processes and sockets in /proc. On other systems little is found."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

# Num RefCount Protocol Flags Type St Inode Path; the flag is "accepts connections".
_LISTENING = re.compile(rb"^\S+: \S+ \S+ 00010000 \S+ \S+ +\S+ (.+)$", re.MULTILINE)


@frozen
class ProcessState:
    """One process: its parent, its session, and the group that its terminal listens to."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    foreground_group: int


def process_state(pid: int) -> ProcessState | None:
    """The state of a process; None if there is no such process, or no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="backslashreplace")
    except OSError:
        return None
    # The name stands in parentheses and may hold some itself.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return ProcessState(pid, name, fields[0], int(fields[1]), int(fields[3]), int(fields[5]))


def all_processes() -> Iterator[ProcessState]:
    """Every process but those that have ended and only wait for their parent."""
    with suppress(OSError):
        for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of names, no paths needed
            if entry.isdigit():
                process = process_state(int(entry))
                if process is not None and process.state not in "ZX":
                    yield process


def processes_with(variable: bytes) -> list[ProcessState]:
    """Those whose environment begins an entry with `variable`, and all of their sessions."""
    processes = list(all_processes())
    sessions = {each.session for each in processes if _has(each.pid, variable)}
    return [each for each in processes if each.session in sessions]


def _has(pid: int, variable: bytes) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return environment.startswith(variable) or b"\0" + variable in environment


def send_signal(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there and ours."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def command_line(pid: int) -> list[str]:
    """The argument list of a process; empty if it is not known."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return data.decode("utf-8", "backslashreplace").rstrip("\0").split("\0")


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
