"""Which reply belongs to which request.

tmux runs the lines of a connection in order and gives them no ids, so replies are matched by
position. That holds only as long as nothing is miscounted; this module counts, and stops at the
first thing that does not fit rather than hand a reply to the wrong caller. No I/O, no waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import Factory, define

from ..errors import ProtocolError
from .commands import Argument
from .events import Reply
from .parser import OWN_COMMAND


@define(eq=False)
class Request:
    """One line that was sent, and its place in the queue.

    `marker` is empty for a line that gives exactly as many replies as are `expected`. Otherwise the
    line stands between two fences, commands whose whole reply is the marker, and everything between
    belongs to it: `replies`, and `strays`, the lines outside any reply.
    """

    argv: tuple[Argument, ...]
    marker: bytes = b""
    expected: int = 1
    replies: list[Reply] = Factory(list)
    strays: list[bytes] = Factory(list)
    abandoned: bool = False
    opened: bool = False
    done: bool = False


class RequestQueue:
    """First in, first out; a place is given up only when its reply is there."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._markers: set[bytes] = set()
        self._last_number: int | None = None
        self.unsolicited = 0
        """Replies to commands of this connection that nobody had asked for."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def abandoned(self) -> int:
        """Requests in the queue whose caller has gone."""
        return sum(request.abandoned for request in self._waiting)

    @property
    def oldest(self) -> Request | None:
        """The request whose reply comes next."""
        return self._waiting[0] if self._waiting else None

    def add(self, argv: Sequence[Argument], marker: bytes = b"", expected: int = 1) -> Request:
        """Append a request: its line (and its fences, if `marker`) is sent next."""
        request = Request(tuple(argv), marker, expected)
        if marker:
            if marker in self._markers:
                raise ValueError("a marker serves one request only")
            self._markers.add(marker)
        self._waiting.append(request)
        return request

    def abandon(self, request: Request) -> None:
        """The caller has gone. The place stays, and so does the reply that will fill it."""
        request.abandoned = True

    def receive_reply(self, reply: Reply) -> Request | None:
        """Take a reply; return the request that it completes, if it completes one.

        Replies to startup commands, hooks and key bindings (flag 0) take no place. Raises
        `ProtocolError` where the queue and the stream do not fit: nothing after that can be
        matched.
        """
        if not reply.flags & OWN_COMMAND:
            return None
        if self._last_number is not None and not _follows(reply.number, self._last_number):
            raise ProtocolError(
                f"reply number {reply.number} came after {self._last_number}: a reply was forged"
            )
        self._last_number = reply.number
        if not self._waiting:
            self.unsolicited += 1
            return None
        request = self._waiting[0]
        marker = reply.lines[0] if len(reply.lines) == 1 else b""
        if marker not in self._markers:
            if request.marker and not request.opened:
                raise ProtocolError("a reply came where a fence should stand", marker)
            request.replies.append(reply)
            if request.marker or len(request.replies) < request.expected:
                return None
        elif marker != request.marker:
            raise ProtocolError("a fence came where a reply should stand", marker)
        elif not request.opened:
            request.opened = True
            return None
        else:
            self._markers.discard(marker)
        request.done = True
        return self._waiting.popleft()

    def receive_stray(self, line: bytes) -> bool:
        """Take a line outside any reply; true if a fenced request stands open and gets it."""
        request = self.oldest
        if request is None or not request.opened:
            return False
        request.strays.append(line)
        return True

    def close(self) -> list[Request]:
        """Empty the queue; return the requests that will have no reply."""
        unanswered = list(self._waiting)
        self._waiting.clear()
        self._markers.clear()
        return unanswered


def _follows(number: int, last: int) -> bool:
    """tmux counts in 32 bits: after 4294967295 comes 0."""
    return number > last or last - number > 2**31
