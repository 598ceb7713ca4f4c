"""Readers of what a pane writes: as bytes with offsets, or as lines of text.

A stream is no buffer but a position in the pane's log (output.py): a slow reader costs nothing
more, and one that falls behind further than the log reaches back finds a `Gap` just where it lost
something, unless it has what is dropped spooled to files (spool.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Literal, TypeAlias

import trio

from ..errors import ConnectionClosed
from .output import Chunk, Gap, Item, PaneOutput, Restarted, Snapshot
from .spool import Spool
from .text import LineSplitter

Overflow: TypeAlias = Literal["drop", "spool"]


class OutputStream:
    """The output of a pane from some point on; iterate over it, with or without ``async with``.

    It gives `Chunk`, `Gap`, `Restarted` and, if `seed` was asked for, `Snapshot`. It ends when the
    pane's program has ended and all was given, and raises `ConnectionClosed` where the connection
    ended first. Waiting is a cancellation point, and a cancelled wait loses nothing. One task may
    read it at a time.
    """

    def __init__(
        self,
        log: PaneOutput,
        *,
        since: int | None,
        overflow: Overflow,
        take_snapshot: Callable[[], Awaitable[int]] | None,
        check: Callable[[], Awaitable[None]],
        one_program: bool = False,
    ) -> None:
        if overflow not in ("drop", "spool"):
            raise ValueError(f"overflow is 'drop' or 'spool', not {overflow!r}")
        self._log = log
        self._take_snapshot = take_snapshot
        self._needs_snapshot = take_snapshot is not None
        self._check: Callable[[], Awaitable[None]] | None = check
        self._one_program = one_program
        self._reading = False
        self._closed = False
        self._spooled = Spool()
        self._spool_failed = False
        self._missed: Gap | None = None
        self.dropped = 0
        if since is None:
            self._number, self.offset = log.next_number, log.end
        else:
            since = max(since, 0)
            self._number, self.offset = log.find(since), since
            # Of one program it is the one whose output begins here, not the one before.
            while one_program and self._is_at_restart(since):
                self._number += 1
            lost = log.lost_since(0, since)
            if lost != 0:
                self._missed = Gap(since, lost, "history")
                self.offset = max(since, log.start)
        if take_snapshot is not None:
            log.seeded.add(self)
        if overflow == "spool":
            log.spooling.add(self)

    async def __aenter__(self) -> OutputStream:
        await self._check_pane()
        if self._needs_snapshot and not self._log.ended:
            await self._snapshot()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the stream up: iterating ends, and a temporary file is gone."""
        self._closed = True
        self._log.seeded.discard(self)
        self._log.spooling.discard(self)
        self._spooled.clear()
        self._log.wake()

    def __aiter__(self) -> OutputStream:
        return self

    async def __anext__(self) -> Item:
        item = await self.receive()
        if item is None:
            raise StopAsyncIteration
        return item

    async def receive(self) -> Item | None:
        """The next item; None at the end."""
        if self._reading:
            raise trio.BusyResourceError("another task is reading this stream")
        self._reading = True
        try:
            while not self._closed:
                if self._needs_snapshot and self.peek_gap() is None and not self._log.ended:
                    await self._snapshot()
                if self._spooled:
                    # It may be any amount, and the reader has to get its turn.
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.checkpoint_if_cancelled()
                item = self.receive_nowait()
                if item is not None:
                    return item
                if self._log.ended or (self._one_program and self._log.exit_status is not None):
                    break
                if self._check is not None:
                    await self._check_pane()
                else:
                    await self._log.wait_change()
        finally:
            self._reading = False
        if self._closed or self._log.failure is None:
            return None
        raise self._log.failure.with_traceback(None)

    async def _check_pane(self) -> None:
        """Once, but again after one that was cancelled: without it nobody tells of the end."""
        if self._check is not None:
            await self._check()
            self._check = None

    def receive_nowait(self) -> Item | None:
        """The next item if it is there, None if it is not (yet)."""
        log = self._log
        while True:
            gap = self.peek_gap()
            if gap is not None:
                if self._missed is not None:
                    self._missed = None
                else:
                    self._number, self.offset = log.first_number, log.start
                self._needs_snapshot = self._take_snapshot is not None
                self.dropped += gap.size or 0
                return gap
            if self._spooled:
                number, item = self._spooled.take()
            elif self._number < log.first_number:
                # Only snapshots were dropped.
                self._number = log.first_number
                self._needs_snapshot = self._take_snapshot is not None
                continue
            elif self._number < log.next_number:
                number, item = self._number, log.item(self._number)
            else:
                return None
            self._number = number + 1
            if type(item) is Chunk:
                if item.offset < self.offset:
                    item = Chunk(self.offset, item.data[self.offset - item.offset :])
                self.offset = item.offset + len(item.data)
                if not item.data:
                    continue
            elif type(item) is Snapshot:
                if self._take_snapshot is None:
                    continue
                self._needs_snapshot = False
            elif type(item) is Gap and item.size is not None:
                end = item.offset + item.size
                item = Gap(self.offset, end - self.offset, item.cause)
                self.offset = end
                self.dropped += item.size or 0
            return item

    def peek_gap(self) -> Gap | None:
        """The gap that comes next because this reader was too slow, if there is one."""
        log = self._log
        if self._missed is not None:
            return self._missed
        if self._spooled or self._number >= log.first_number:
            return None
        size = log.lost_since(self._number, self.offset)
        if size == 0:
            return None
        return Gap(self.offset, size, "spool" if self._spool_failed else "overflow")

    def _is_at_restart(self, offset: int) -> bool:
        if self._number >= self._log.next_number:
            return False
        item = self._log.item(self._number)
        return isinstance(item, Restarted) and item.offset == offset

    def has_chunk(self) -> bool:
        """Whether a chunk comes next and is there, in a stream that is not spooled."""
        log = self._log
        return (
            self.peek_gap() is None
            and log.first_number <= self._number < log.next_number
            and type(log.item(self._number)) is Chunk
        )

    async def _snapshot(self) -> None:
        assert self._take_snapshot is not None
        number = await self._take_snapshot()
        self._needs_snapshot = False
        if self._log.first_number <= number < self._log.next_number:
            self._missed = None
            self._number = number
            self.offset = self._log.item(number).offset
            self._spooled.clear()

    def spool(self, number: int, item: Item) -> None:
        """The log gives up `item`; keep it if it has not been read."""
        if number < self._number or self._spool_failed:
            return
        try:
            self._spooled.put(number, item)
        except OSError:
            # The disk is full: from here on the loss is shown as a gap.
            self._spool_failed = True


class LostOutput(str):
    """The line where output is missing: its text says so to people, `gap` to programs."""

    __slots__ = ("gap",)
    gap: Gap

    def __new__(cls, gap: Gap) -> LostOutput:
        """The text is made from the gap."""
        size = "some output" if gap.size is None else f"{gap.size} bytes"
        line = super().__new__(cls, f"[tmuxcc: {size} lost here: {gap.cause}]")
        line.gap = gap
        return line


class LineStream:
    """The lines of a pane as text; iterate over it, with or without ``async with``.

    Where output was lost, a line of class `LostOutput` says so.
    """

    def __init__(self, stream: OutputStream, *, escapes: bool) -> None:
        self._stream = stream
        self._splitter = LineSplitter(escapes=escapes)
        self._ready: deque[str] = deque()
        self._ended = False

    async def __aenter__(self) -> LineStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()

    def __aiter__(self) -> LineStream:
        return self

    @property
    def dropped(self) -> int:
        """How many bytes were lost, as far as that is known."""
        return self._stream.dropped

    async def __anext__(self) -> str:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            try:
                item = await self._stream.receive()
            except ConnectionClosed:
                # The last line may have no end.
                self._ready.extend(self._splitter.finish())
                if not self._ready:
                    raise
                break
            if item is None:
                self._ended = True
                self._ready.extend(self._splitter.finish())
            elif isinstance(item, Chunk):
                self._ready.extend(self._splitter.receive(item.data))
            elif isinstance(item, Gap):
                self._ready.extend(self._splitter.finish())
                self._ready.append(LostOutput(item))
            elif isinstance(item, Restarted):
                self._ready.extend(self._splitter.finish())
        return self._ready.popleft()
