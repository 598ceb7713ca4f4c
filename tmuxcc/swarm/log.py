"""An agent's log file: what its pane wrote, byte for byte, in files of bounded size.

A file that cannot be written never holds up an agent: the failure is kept for those who ask.
"""

from __future__ import annotations

import os
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

MAX_SIZE = 10_000_000
"""Bytes of one file: what an editor still opens at once."""

KEPT = 3
"""Full files that are kept beside the current one; older ones are deleted."""


_MAX_NAME = 200


def log_path(folder: Path, agent_id: str) -> Path:
    """Where the log of an agent is; what can't stand in a file name is written as ``%XX``.

    A name that would be too long for a file is cut, and ends in a digest of the id.
    """
    name = quote(agent_id, safe=" @+,=")
    if len(name) > _MAX_NAME:
        # No id has a "%" in its name but before digits.
        digest = sha256(agent_id.encode()).hexdigest()[:32]
        name = f"{name[: _MAX_NAME - 35]}%-{digest}"
    return folder / f"{name}.log"


class LogFile:
    """A file that is appended to, and put aside as ``NAME.1``, ``NAME.2``, … when it is full."""

    def __init__(self, path: Path, *, max_size: int = MAX_SIZE, kept: int = KEPT) -> None:
        self.path = path
        self.failure: OSError | None = None
        self._max_size = max_size
        self._kept = kept
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append `data`. After a failure, which is kept, the next call tries again."""
        try:
            file = self._opened()
            if self._size and self._size + len(data) > self._max_size:
                self._rotate()
                file = self._opened()
            rest = memoryview(data)
            while rest:
                written = file.write(rest)
                self._size += written
                rest = rest[written:]
        except OSError as error:
            self.failure = error
            self.close()

    def close(self) -> None:
        """Give the file back; writing opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # For its owner only: what agents write is nobody else's business.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
            self._size = self._file.seek(0, os.SEEK_END)
        return self._file

    def _rotate(self) -> None:
        self.close()
        names = [self.path, *(self._numbered(number) for number in range(1, self._kept + 1))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)
        if not self._kept:
            self.path.unlink()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
