"""What one pane writes, as a bounded log with offsets.

`PaneOutput` is written by the client's reader, at once and without waiting. Its readers are in
streams.py. Sending commands must not live here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias
from weakref import WeakSet

import trio
from attrs import define, frozen

from ..errors import TmuxError

HISTORY = 1 << 20
"""Default bound of one pane's log in bytes: at the rate at which tmux can deliver (about 20 MB/s)
a reader may be away for 50 ms, at that of a busy build log for minutes. It is used only by panes
that write."""

MAX_CHUNK = 1 << 16
"""Bytes up to which what nobody has looked at yet is put together in one chunk, and `MAX_PIECES`
how many pieces of it. tmux divides what ten busy panes write into pieces of some hundred bytes,
which would cost each reader ten times as much."""
MAX_PIECES = 100

CHUNK_OVERHEAD = 160
"""What a kept piece costs beside its data, so that a flood of single bytes is bounded too."""


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
    could not be written), ``"reconnect"`` (the connection was made anew), ``"limit"`` (the program
    wrote more than it is allowed to) or ``"killed"`` (the pane's own process was killed, and with
    it perhaps the last words of the program).
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


class Spooling(Protocol):
    """A reader that wants to have what the log gives up."""

    def spool(self, number: int, item: Item) -> None:
        """Item `number` is about to be dropped."""
        ...


class PaneOutput:
    """The log of one pane.

    `end` is the offset behind the last byte, `start` that of the first byte still kept. The program
    has ended when `exit_status` is set. That is the end of the streams too, unless `kept_open` says
    that another program may follow in the same pane. `kept` says that it is kept until somebody
    forgets the pane, however many end after it. `tells_end` says that a mark with `nonce` is to
    come behind its last byte, `lets_go` whether it is for us to let the wrapper go then, and
    `ended_by` is the nonce of the mark that has ended it.
    `on_mark` is called when a mark with one of `nonces` has come, with the log and that nonce.
    """

    def __init__(
        self,
        pane_id: str,
        limit: int,
        nonces: Collection[bytes],
        on_mark: Callable[[PaneOutput, bytes], None] | None = None,
    ) -> None:
        self.pane_id = pane_id
        self.start = 0
        self.end = 0
        self.gaps = 0
        self.exit_status: ExitStatus | None = None
        self.failure: TmuxError | None = None
        self.kept_open = self.kept = False
        self.tells_end = False
        self.lets_go = True
        self.nonce = self.ended_by = b""
        self.programs = 1
        self.program_offset = 0
        self.last_status: ExitStatus | None = None
        self._limit = limit
        self._trim_at = limit + limit // 8  # so that trimming is seldom and then worth it
        self._nonces = nonces
        self._on_mark = on_mark
        self._last_nonce = b""
        self._partial_mark = b""
        self._items: deque[Item] = deque()
        # What the last item, a chunk, consists of while nobody has looked at it, and its size.
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._max_chunk = min(MAX_CHUNK, limit // 8)
        self._first = 0  # number of the first item kept; items are counted from 0
        self._size = 0
        # Number and offset of the last item dropped that was a gap of unknown size.
        self._unknown_gap = self._unknown_offset = -1
        # What is held: data, and causes of gaps.
        self._held: list[bytes | str] | None = None
        self._muted_at: int | None = None
        self._pastes, self._pastes_tail = False, b""
        self._pastes_seen = 0  # number of the first item that was not looked at for that
        self.spooling: WeakSet[Spooling] = WeakSet()
        self._waiting = trio.lowlevel.ParkingLot()
        self._waiting_end = trio.lowlevel.ParkingLot()
        self.seeded: WeakSet[object] = WeakSet()
        """The streams that want a snapshot behind a gap."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: the program has ended for good, or the connection."""
        return self.failure is not None or (self.exit_status is not None and not self.kept_open)

    def receive(self, data: bytes) -> None:
        """The pane wrote `data`."""
        if self.exit_status is not None or self.failure is not None:
            return
        if self._held is not None:
            self._held.append(data)
            return
        nonce = None
        if self._nonces or self._last_nonce:
            data, nonce = self._without_mark(data)
        if self._muted_at is not None:
            self.end += len(data)
        elif data:
            self._add(data)
            if self._size > self._trim_at:
                self._trim()
        if nonce is not None:
            self.ended_by = nonce
            self.unmute()
            self._waiting_end.unpark_all()
            if self._on_mark is not None:
                self._on_mark(self, nonce)
        if self._waiting:
            self._waiting.unpark_all()

    def gap(self, cause: str) -> None:
        """Something is missing from here on; how much is not known."""
        if self.ended:
            return
        if self._held is not None:
            self._held.append(cause)
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

    def release(self, snapshot: bytes | None) -> int:
        """Append the snapshot, if there is one, then what was held; the snapshot's item number."""
        held, self._held = self._held, None
        number = self._first + len(self._items)
        if snapshot is not None and not self.ended:
            self._append(Snapshot(self.end, snapshot))
            self._size += len(snapshot)
        for piece in held or ():
            if isinstance(piece, bytes):
                self.receive(piece)
            elif self.exit_status is None:
                self.gap(piece)
        self._trim()
        self._waiting.unpark_all()
        return number

    def move_held(self, other: PaneOutput) -> None:
        """Give what was held to `other`, which goes on in the place of this log."""
        other._held, self._held = self._held, None
        other.release(None)

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
        # What was held may end in a mark.
        self._flush()
        if self.exit_status is None and self.failure is None:
            self.exit_status = status
        self._wake_all()

    def restart(self) -> None:
        """Another program is about to be started in the pane."""
        assert self.exit_status is not None
        self._append(Restarted(self.end, self.exit_status))
        self.last_status, self.exit_status = self.exit_status, None
        self._last_nonce, self.ended_by = self.ended_by, b""
        self.programs += 1
        self.program_offset = self.end
        self._pastes, self._pastes_tail = False, b""
        self._pastes_seen = self.next_number
        self._trim()
        self._wake_all()

    def fail(self, error: TmuxError) -> None:
        """The connection has ended, the program perhaps not."""
        self._flush()
        if not self.ended:
            self.failure = error
        self._wake_all()

    def wake(self) -> None:
        """Have every waiting reader look again."""
        self._waiting.unpark_all()

    def assume_pastes(self) -> None:
        """What the program has asked for was not seen: be as careful as if it reads pastes."""
        self._pastes = True

    def reads_pastes(self) -> bool:
        """Whether the program has, as far as is kept, asked for bracketed pastes."""
        new = range(max(self._pastes_seen, self._first), self.next_number)
        self._pastes_seen = self.next_number
        items = [self.item(number) for number in new]
        data = [item.data for item in items if isinstance(item, (Chunk, Snapshot))]
        kept = self._pastes_tail + b"".join(data)
        # A sequence may be cut here.
        self._pastes_tail = kept[-7:]
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
        if self._held is not None:
            self.release(None)
        self.unmute()
        self._flush_partial_mark()

    def _flush_partial_mark(self) -> None:
        data, self._partial_mark = self._partial_mark, b""
        if data:
            self._add(data)

    def _without_mark(self, data: bytes) -> tuple[bytes, bytes | None]:
        """What the program wrote, and the nonce of the wrapper's mark, which sets `exit_status`.

        The mark may come in pieces.
        """
        if self._partial_mark:
            data = self._partial_mark + data
            self._partial_mark = b""
        position = data.find(_MARK_START)
        while position >= 0:
            match = _MARK.match(data, position)
            if match is not None and match[1] == self._last_nonce:
                # The last wrapper repeats it on its way out.
                data = data[:position] + data[match.end() :]
                position = data.find(_MARK_START, position)
                continue
            if match is not None and match[1] in self._nonces:
                code, number = match[2], match[3]
                self.exit_status = ExitStatus(
                    int(code) if code else None, int(number) if number else None
                )
                return data[:position], match[1]
            position = data.find(_MARK_START, position + 1)
        escape = data.rfind(b"\x1b", -64)
        if escape >= 0 and _MARK_PART.match(data, escape):
            self._partial_mark = data[escape:]
            data = data[:escape]
        return data, None

    def _add(self, data: bytes) -> None:
        size = len(data)
        pieces = self._pieces
        if pieces and self._pieces_size + size <= self._max_chunk and len(pieces) < MAX_PIECES:
            self._pieces_size += size
            self._size += size
        else:
            if pieces:
                self._seal()
                pieces = self._pieces
            self._items.append(Chunk(self.end, b""))
            self._pieces_size = size
            self._size += size + CHUNK_OVERHEAD
        pieces.append(data)
        self.end += size

    def _seal(self) -> None:
        """The last chunk is what it is: it will be looked at, or something else follows."""
        chunk = self._items[-1]
        assert isinstance(chunk, Chunk)
        chunk.data = b"".join(self._pieces)
        self._pieces = []

    def _append(self, item: Gap | Snapshot | Restarted) -> None:
        if self._pieces:
            self._seal()
        self._items.append(item)
        self._size += CHUNK_OVERHEAD

    def _trim(self) -> None:
        items, size, spooling = self._items, self._size, tuple(self.spooling)
        while size > self._limit and len(items) > 1:
            item = items.popleft()
            for stream in spooling:
                stream.spool(self._first, item)
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
        """The number that the next item will have: what comes from now on is none of those kept."""
        if self._pieces:
            self._seal()
        return self._first + len(self._items)

    @property
    def first_number(self) -> int:
        """The number of the oldest item kept."""
        return self._first

    def item(self, number: int) -> Item:
        """A kept item."""
        if self._pieces:
            self._seal()
        return self._items[number - self._first]

    def lost_since(self, number: int, offset: int) -> int | None:
        """How many bytes from `offset` on are no longer kept; None if not known."""
        if number <= self._unknown_gap and offset <= self._unknown_offset:
            return None
        return max(0, self.start - offset)

    def find(self, offset: int) -> int:
        """The number of the item in which the byte at `offset` stands, or of a gap before it."""
        if self._pieces:
            self._seal()
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
