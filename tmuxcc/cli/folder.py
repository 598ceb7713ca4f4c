"""The folder of one ``tmuxcc run``: its socket and configuration, and what a killed run left.

A lock on a file in it is held as long as its run lives. Where nobody holds it, and no server
listens, the folder is rubbish and goes with the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..swarm.processes import is_listening

SOCKET = "socket"
CONFIGURATION = "tmux.conf"
_LOCK = "lock"
_PREFIX = "tmuxcc-run-"
_LONGEST_PARENT = 75  # the shortest limit for the path of a socket is 103


@contextmanager
def private_folder(configuration: str) -> Iterator[Path]:
    """A folder of our own (mode 0700) with `configuration` in it, for the time of the block."""
    for old in abandoned_folders():
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent()))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Last, since a folder with it and without a locked lock is taken for abandoned.
            (folder / CONFIGURATION).write_text(configuration)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def abandoned_folders() -> list[Path]:
    """Folders of this user whose run was killed, so that it could not clear up."""
    found = []
    for folder in run_folders():
        with suppress(OSError):
            if folder.stat().st_uid != os.getuid() or not (folder / CONFIGURATION).exists():
                continue
            with (folder / _LOCK).open() as lock:
                if _is_free(lock) and not is_listening(folder / SOCKET):
                    found.append(folder)
    return found


def run_folders() -> list[Path]:
    """The folders of all runs, in use or not."""
    return sorted(Path(_parent()).glob(f"{_PREFIX}*"))


def _is_free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parent() -> str:
    parent = tempfile.gettempdir()
    return parent if len(os.fsencode(parent)) <= _LONGEST_PARENT else "/tmp"  # noqa: S108
