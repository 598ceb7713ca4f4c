"""What Linux tells of processes in /proc. On other systems nothing is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen


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
