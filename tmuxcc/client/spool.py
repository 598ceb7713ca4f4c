"""What a slow reader of output has not read yet, in temporary files.

Which items that is, and what a reader makes of them, must not live here.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from typing import IO
from weakref import finalize

from attrs import evolve, frozen

from .output import Chunk, Item, Snapshot

SPOOL_PIECE = 1 << 20
"""How much of a spooled stream is read back at a time."""

SPOOL_FILE = 64 << 20
"""Bytes behind which another file is begun, or an eighth of what waits: the disk gets back what has
been read, file by file, also where the reader never catches up, and there are never many files."""


class Spool:
    """Items with their numbers, taken out in the order in which they were put in."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._files: set[IO[bytes]] = set()
        self._file: IO[bytes] | None = None  # the one that is written to
        self._size = 0  # bytes that wait
        finalize(self, _close, self._files)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, number: int, item: Item) -> None:
        """Add an item. Raises `OSError` where it can't be written, and then it is not in."""
        if not isinstance(item, (Chunk, Snapshot)):
            self._entries.append(_Entry(number, item))
            return
        file, position = self._end()
        written = 0
        while written < len(item.data):
            written += file.write(item.data[written:])
        self._size += written
        last = self._entries[-1] if self._entries else None
        if (
            last is not None
            and (last.file, last.position + last.length) == (file, position)
            and isinstance(last.item, Chunk)
            and isinstance(item, Chunk)
            and last.length + len(item.data) <= SPOOL_PIECE
        ):
            length = last.length + len(item.data)
            self._entries[-1] = evolve(last, number=number, length=length)
        else:
            # What is in the file need not be in memory too.
            empty = evolve(item, data=b"")
            self._entries.append(_Entry(number, empty, file, position, len(item.data)))

    def take(self) -> tuple[int, Item]:
        """The oldest item and its number; of chunks that were put together that of the last one."""
        entry = self._entries.popleft()
        item = entry.item
        if entry.file is not None and isinstance(item, (Chunk, Snapshot)):
            self._size -= entry.length
            entry.file.seek(entry.position)
            item = evolve(item, data=entry.file.read(entry.length))
            if next((e.file for e in self._entries if e.file is not None), None) is not entry.file:
                self._give_back(entry.file)
        return entry.number, item

    def clear(self) -> None:
        """Forget all that is in, and close the files."""
        self._entries.clear()
        self._file, self._size = None, 0
        _close(self._files)

    def _end(self) -> tuple[IO[bytes], int]:
        """The file to write to, and where its end is."""
        if self._file is not None:
            position = self._file.seek(0, os.SEEK_END)
            if position < max(SPOOL_FILE, self._size // 8):
                return self._file, position
        # Without a buffer, so that a full disk is met here and not when it is read back.
        self._file = tempfile.TemporaryFile(prefix="tmuxcc-", buffering=0)  # noqa: SIM115
        self._files.add(self._file)
        return self._file, 0

    def _give_back(self, file: IO[bytes]) -> None:
        """All that is in the file has been read."""
        if file is self._file:
            file.seek(0)
            file.truncate()
        else:
            self._files.discard(file)
            file.close()


@frozen
class _Entry:
    """An item, with `length` bytes of data at `position` of a file; or one without data.

    Chunks that follow each other share an entry, whose `item` is the first and whose `number` is
    that of the last.
    """

    number: int
    item: Item
    file: IO[bytes] | None = None
    position: int = 0
    length: int = 0


def _close(files: set[IO[bytes]]) -> None:
    while files:
        files.pop().close()
