"""What one pane writes: a bounded log with offsets, and any number of readers of it.

`PaneOutput` is written by the client's reader, at once and without waiting. A stream is no buffer
but a position in that log: a slow reader costs nothing more, and one that falls behind further
than the log reaches back finds a `Gap` just where it lost something. Sending commands must not
live here.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import IO, Literal, TypeAlias
from weakref import WeakSet, finalize

import trio
from attrs import define, frozen

from ..errors import ConnectionClosed, TmuxError
from .text import LineSplitter

HISTORY = 1 << 20
"""Default bound of one pane's log in bytes: at the rate at which tmux can deliver (about 20 MB/s)
a reader may be away for 50 ms, at that of a busy build log for minutes. It is used only by panes
that write."""

CHUNK_OVERHEAD = 160
"""What a kept piece costs beside its data, so that a flood of single bytes is bounded too."""

SPOOL_PIECE = 1 << 20
"""How much of a spooled stream is read back at a time."""

Overflow: TypeAlias = Literal["drop", "spool"]


@define
class Chunk:
    """`data` as the pane wrote it, the first byte of it at `offset`.

    Not frozen for the sake of speed, like the events of a flood; treat it as if it were.
    """

    offset: int
    data: bytes


@frozen
class Gap:
    """Here something is missing.

    `size` is how many bytes, None where nobody knows. `cause` is ``"overflow"`` (the reader was
    too slow), ``"pause"`` (tmux stopped sending), ``"seed"`` (output was stopped to take an exact
    snapshot), ``"history"`` (`since` lies before what is kept), ``"spool"`` (the temporary file
    could not be written), ``"reconnect"`` (the connection was made anew) or ``"limit"`` (the
    program wrote more than it is allowed to).
    """

    offset: int
    size: int | None
    cause: str


@frozen
class Snapshot:
    """What the pane showed at `offset`, as bytes that draw it on a terminal of its size."""

    offset: int
    data: bytes


@frozen
class ExitStatus:
    """How a program ended: `code`, or the number of the `signal`; both None where nobody knows."""

    code: int | None
    signal: int | None

    @property
    def ok(self) -> bool:
        """Whether it ended with code 0."""
        return self.code == 0


@frozen
class Restarted:
    """Here the pane's program ended with `status`; what follows is written by the next one."""

    offset: int
    status: ExitStatus


Item: TypeAlias = Chunk | Gap | Snapshot | Restarted

_MARK_START = b"\x1b]6973;"
_MARK = re.compile(rb"\x1b\]6973;([0-9a-f]{32});([0-9]{0,3});([0-9]{0,3})\x07")
_MARK_PART = re.compile(rb"\x1b(?:\](?:6(?:9(?:7(?:3(?:;[0-9a-f;]{0,40})?)?)?)?)?)?\Z")


class PaneOutput:
    """The log of one pane.

    `end` is the offset behind the last byte, `start` that of the first byte still kept. The program
    has ended when `exit_status` is set. That is the end of the streams too, unless `kept_open` says
    that another program may follow in the same pane.
    """

    def __init__(self, pane_id: str, limit: int, nonces: Collection[bytes]) -> None:
        self.pane_id = pane_id
        self.start = 0
        self.end = 0
        self.gaps = 0
        self.exit_status: ExitStatus | None = None
        self.failure: TmuxError | None = None
        self.end_mark = b""
        self.kept_open = False
        self.programs = 1
        self.last_status: ExitStatus | None = None
        self._limit = limit
        self._trim_at = limit + limit // 8  # so that trimming is seldom and then worth it
        self._nonces = nonces
        self._partial_mark = b""
        self._items: deque[Item] = deque()
        self._first = 0  # number of the first item kept; items are counted from 0
        self._size = 0
        # Number and offset of the last item dropped that was a gap of unknown size.
        self._unknown_gap = self._unknown_offset = -1
        self._held: list[bytes] | None = None
        self._muted_at: int | None = None
        self._pastes = False
        self._pastes_seen = 0  # number of the first item that was not looked at for that
        self._spooling: WeakSet[OutputStream] = WeakSet()
        self._waiting = trio.lowlevel.ParkingLot()
        self._waiting_end = trio.lowlevel.ParkingLot()
        self.seeded: WeakSet[OutputStream] = WeakSet()
        """The streams that want a snapshot behind a gap."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: the program has ended for good, or the connection."""
        return self.failure is not None or (self.exit_status is not None and not self.kept_open)

    def receive(self, data: bytes) -> None:
        """The pane wrote `data`."""
        if self.exit_status is not None or self.failure is not None:
            return
        if self._nonces:
            data = self._without_mark(data)
        if self._held is not None:
            if data:
                self._held.append(data)
        elif self._muted_at is not None:
            self.end += len(data)
        elif data:
            self._add(data)
            if self._size > self._trim_at:
                self._trim()
        if self._waiting:
            self._waiting.unpark_all()

    def gap(self, cause: str) -> None:
        """Something is missing from here on; how much is not known."""
        if self.ended:
            return
        self.gaps += 1
        muted = self.muted
        self.unmute()
        # What comes behind the gap does not continue it.
        self._flush_partial_mark()
        self._append(Gap(self.end, None, cause))
        if muted:
            self.mute()
        self._trim()
        self._waiting.unpark_all()

    def hold(self) -> None:
        """Keep what comes back until `release`: a snapshot that precedes it is on its way."""
        if self._held is None:
            self._held = []

    def take_held(self) -> list[bytes]:
        """What was held, which is then no longer; this log will not have it."""
        held, self._held = self._held, None
        return held or []

    def release(self, snapshot: bytes | None) -> int:
        """Append the snapshot, if there is one, then what was held; the snapshot's item number."""
        held, self._held = self._held, None
        number = self._first + len(self._items)
        if snapshot is not None and not self.ended:
            self._append(Snapshot(self.end, snapshot))
            self._size += len(snapshot)
        for data in held or ():
            self._add(data)
        self._trim()
        self._waiting.unpark_all()
        return number

    @property
    def muted(self) -> bool:
        """Whether what the pane writes is counted and thrown away."""
        return self._muted_at is not None

    def mute(self) -> None:
        """Throw away what the pane writes from here on, but for the end of its program."""
        if self._muted_at is None:
            self._muted_at = self.end

    def unmute(self) -> None:
        """Keep what comes again; a gap tells how much was thrown away."""
        start, self._muted_at = self._muted_at, None
        if start is not None and self.end > start:
            self.gaps += 1
            self._append(Gap(start, self.end - start, "limit"))
            self._waiting.unpark_all()

    def finish(self, status: ExitStatus) -> None:
        """The pane's program has ended; only the first call counts."""
        if self.exit_status is None and self.failure is None:
            self._flush()
            self.exit_status = status
        self._wake_all()

    def restart(self) -> None:
        """Another program is about to be started in the pane."""
        assert self.exit_status is not None
        self._append(Restarted(self.end, self.exit_status))
        self.last_status, self.exit_status = self.exit_status, None
        self.programs += 1
        self._pastes, self._pastes_seen = False, self.next_number
        self._trim()
        self._wake_all()

    def fail(self, error: TmuxError) -> None:
        """The connection has ended, the program perhaps not."""
        if not self.ended:
            self._flush()
            self.failure = error
        self._wake_all()

    def wake(self) -> None:
        """Have every waiting reader look again."""
        self._waiting.unpark_all()

    def reads_pastes(self) -> bool:
        """Whether the program has, as far as is kept, asked for bracketed pastes."""
        first = max(self._pastes_seen, self._first)
        new = range(first, self.next_number)
        self._pastes_seen = self.next_number
        # The sequence may be cut: the end of what was looked at last time is looked at again.
        before = self._items[first - 1 - self._first] if first > self._first else None
        pieces = [before.data[-7:]] if isinstance(before, (Chunk, Snapshot)) else []
        for number in new:
            item = self.item(number)
            if isinstance(item, (Chunk, Snapshot)):
                pieces.append(item.data)
        kept = b"".join(pieces)
        on, off = kept.rfind(b"\x1b[?2004h"), kept.rfind(b"\x1b[?2004l")
        if on >= 0 or off >= 0:
            self._pastes = on > off
        return self._pastes

    async def wait_change(self) -> None:
        """Wait until there is something new to look at."""
        await self._waiting.park()

    async def wait_end_change(self) -> None:
        """Wait until the program has ended, or another has been started, or nothing more comes."""
        await self._waiting_end.park()

    def _wake_all(self) -> None:
        self._waiting.unpark_all()
        self._waiting_end.unpark_all()

    def _flush(self) -> None:
        self.unmute()
        self._flush_partial_mark()
        if self._held is not None:
            self.release(None)

    def _flush_partial_mark(self) -> None:
        data, self._partial_mark = self._partial_mark, b""
        if data and self._held is not None:
            self._held.append(data)
        elif data:
            self._add(data)

    def _without_mark(self, data: bytes) -> bytes:
        """What the program wrote; the wrapper's mark, which may come in pieces, ends it."""
        if self._partial_mark:
            data = self._partial_mark + data
            self._partial_mark = b""
        position = data.find(_MARK_START)
        while position >= 0:
            match = _MARK.match(data, position)
            if match is not None and match[1] in self._nonces:
                code, number = match[2], match[3]
                self.exit_status = ExitStatus(
                    int(code) if code else None, int(number) if number else None
                )
                self.end_mark = match[1]
                self._waiting_end.unpark_all()
                held, self._held = self._held, None
                if self._muted_at is not None:
                    self.end += position
                    self.unmute()
                    return b""
                for piece in (*(held or ()), data[:position]):
                    if piece:
                        self._add(piece)
                return b""
            position = data.find(_MARK_START, position + 1)
        escape = data.rfind(b"\x1b", -64)
        if escape >= 0 and _MARK_PART.match(data, escape):
            self._partial_mark = data[escape:]
            data = data[:escape]
        return data

    def _add(self, data: bytes) -> None:
        self._items.append(Chunk(self.end, data))
        self.end += len(data)
        self._size += len(data) + CHUNK_OVERHEAD

    def _append(self, item: Gap | Snapshot | Restarted) -> None:
        self._items.append(item)
        self._size += CHUNK_OVERHEAD

    def _trim(self) -> None:
        items, size, spooling = self._items, self._size, tuple(self._spooling)
        while size > self._limit and len(items) > 1:
            item = items.popleft()
            for stream in spooling:
                stream._spool(self._first, item)
            self._first += 1
            size -= CHUNK_OVERHEAD
            if isinstance(item, Chunk):
                size -= len(item.data)
                self.start = item.offset + len(item.data)
            elif isinstance(item, Snapshot):
                size -= len(item.data)
            elif isinstance(item, Gap):
                if item.size is None:
                    self._unknown_gap, self._unknown_offset = self._first - 1, item.offset
                else:
                    self.start = item.offset + item.size
        self._size = size

    # What a stream needs. Items are addressed by their number, which never changes.

    @property
    def next_number(self) -> int:
        """The number that the next item will have."""
        return self._first + len(self._items)

    @property
    def first_number(self) -> int:
        """The number of the oldest item kept."""
        return self._first

    def item(self, number: int) -> Item:
        """A kept item."""
        return self._items[number - self._first]

    def lost_since(self, number: int, offset: int) -> int | None:
        """How many bytes from `offset` on are no longer kept; None if not known."""
        if number <= self._unknown_gap and offset <= self._unknown_offset:
            return None
        return max(0, self.start - offset)

    def find(self, offset: int) -> int:
        """The number of the item in which the byte at `offset` stands, or of a gap before it."""
        number = self._first
        for item in self._items:
            if _end(item) > offset or (not isinstance(item, Chunk) and item.offset == offset):
                break
            number += 1
        return number


def _end(item: Item) -> int:
    """The offset behind an item."""
    if isinstance(item, Chunk):
        return item.offset + len(item.data)
    return item.offset + (item.size or 0) if isinstance(item, Gap) else item.offset


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
        self._file: IO[bytes] | None = None
        self._spooled: deque[_Spooled] = deque()
        self._spool_failed = False
        self._missed: Gap | None = None
        self.dropped = 0
        if since is None:
            self._number, self.offset = log.next_number, log.end
        else:
            since = max(since, 0)
            self._number, self.offset = log.find(since), since
            lost = log.lost_since(0, since)
            if lost != 0:
                self._missed = Gap(since, lost, "history")
                self.offset = max(since, log.start)
        if take_snapshot is not None:
            log.seeded.add(self)
        if overflow == "spool":
            log._spooling.add(self)

    async def __aenter__(self) -> OutputStream:
        if self._check is not None:
            check, self._check = self._check, None
            await check()
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
        self._log._spooling.discard(self)
        if self._file is not None:
            self._file.close()
            self._file = None
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
                    check, self._check = self._check, None
                    await check()
                else:
                    await self._log.wait_change()
        finally:
            self._reading = False
        if self._closed or self._log.failure is None:
            return None
        raise self._log.failure.with_traceback(None)

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
                number, item = self._read_spooled()
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

    def _spool(self, number: int, item: Item) -> None:
        """The log gives up `item`; keep it if it has not been read."""
        if number < self._number or self._spool_failed:
            return
        if isinstance(item, (Gap, Restarted)):
            self._spooled.append(_Spooled(number, item, 0, 0))
            return
        try:
            if self._file is None:
                # Without a buffer, so that a full disk is met here and not when it is read back.
                self._file = tempfile.TemporaryFile(prefix="tmuxcc-", buffering=0)  # noqa: SIM115
                finalize(self, self._file.close)
            position = self._file.seek(0, os.SEEK_END)
            written = 0
            while written < len(item.data):
                written += self._file.write(item.data[written:])
        except OSError:
            # The disk is full: from here on the loss is shown as a gap.
            self._spool_failed = True
            return
        last = self._spooled[-1] if self._spooled else None
        if (
            last is not None
            and isinstance(last.item, Chunk)
            and isinstance(item, Chunk)
            and last.length + len(item.data) <= SPOOL_PIECE
        ):
            self._spooled[-1] = _Spooled(
                number, last.item, last.position, last.length + len(item.data)
            )
        else:
            self._spooled.append(_Spooled(number, item, position, len(item.data)))

    def _read_spooled(self) -> tuple[int, Item]:
        entry = self._spooled.popleft()
        item = entry.item
        if isinstance(item, Chunk):
            assert self._file is not None
            self._file.seek(entry.position)
            item = Chunk(item.offset, self._file.read(entry.length))
            if not self._spooled:
                self._file.seek(0)
                self._file.truncate()
        return entry.number, item


@frozen
class _Spooled:
    """`length` bytes at `position` of the file: the item that ends with number `number`.

    Chunks that follow each other share an entry, whose `item` is the first.
    """

    number: int
    item: Item
    position: int
    length: int


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
