r"""Bytes of ``tmux -C`` in, events out. The only place that knows what a line looks like.

No I/O, no clock, no matching of replies with requests, and no way to raise: a line that makes no
sense is an `Unknown`, and a stream that can't be trusted any more sets `Parser.error`.

The rules, from control.c, control-notify.c and cmd-queue.c of tmux 3.2 to 3.8:

* Lines end in LF. A CR before it was put there by a terminal on the way and is dropped,
  outside replies, and inside of one whose ``%begin`` has it.
* ``%begin T N F`` opens a reply; only ``%end`` or ``%error`` with the very same T, N and F
  closes it. Everything between is body, whatever it looks like.
* ``%output`` writes each byte below 0x20 and each backslash as a backslash with three octal
  digits, and every other byte as it is.
"""

from __future__ import annotations

import re
from codecs import escape_decode
from collections.abc import Callable

from ..errors import ProtocolError
from .events import (
    ClientDetached,
    ClientSessionChanged,
    ConfigError,
    Continue,
    Event,
    Exit,
    ExtendedOutput,
    LayoutChange,
    Message,
    Output,
    PaneModeChanged,
    PasteBufferChanged,
    PasteBufferDeleted,
    Pause,
    Reply,
    SessionChanged,
    SessionRenamed,
    SessionsChanged,
    SessionWindowChanged,
    SubscriptionChanged,
    Unknown,
    UnlinkedWindowAdd,
    UnlinkedWindowClose,
    UnlinkedWindowRenamed,
    WindowAdd,
    WindowClose,
    WindowPaneChanged,
    WindowRenamed,
)

MAX_LINE = 16 * 2**20
"""Default limit of one line: output lines stay under 17 KB, but a line of a reply is as long as
the paste buffer or option it shows; 4 MiB have been seen."""

MAX_REPLY = 64 * 2**20
"""Default limit of one reply: tmux 3.8 itself ends a client that asks for more (control.c)."""

OWN_COMMAND = 1
"""Bit of `Reply.flags`: the command was read from this connection (cmd-queue.c)."""

LONGEST_GUARD = 128
"""No guard is cut, whatever the limit: that would put the stream out of step. tmux writes 50."""

MAX_KNOWN_PANES = 4096
"""Pane ids kept ready as `str`: one lookup instead of a check and a decode for each line."""

_GUARD = re.compile(rb"%begin ([0-9]{1,20}) ([0-9]{1,20}) ([0-9]{1,20})").fullmatch
_ANY_GUARD = re.compile(rb"%(?:begin|end|error)(?: [0-9]{1,20}){3}").fullmatch
_SESSION = re.compile(rb"\$[0-9]{1,20}").fullmatch
_WINDOW = re.compile(rb"@[0-9]{1,20}").fullmatch
_PANE = re.compile(rb"%[0-9]{1,20}").fullmatch
_SUBSCRIPTION = re.compile(
    rb"(.*?) (\$[0-9]{1,20}|-) (@[0-9]{1,20}|-) ([0-9]{1,20}|-) (%[0-9]{1,20}|-)(?: .*)?", re.DOTALL
).fullmatch
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_FOREIGN_ESCAPE = re.compile(rb"\\(?![01][0-7]{2})").search
_SHORT = 128
_GUARD_NAMES = (b"%begin ", b"%end ", b"%error ")
_OUTPUT_NAMES = (b"%output ", b"%extended-output ")


def decode_octal(data: bytes) -> bytes:
    r"""Undo the escaping of ``%output``: each ``\ooo`` becomes its byte, all else stays.

    Exact for all that tmux writes. A backslash that has no three octal digits up to 377 behind it
    is left alone; tmux writes none, and in a long piece made of such things the codec may read
    one as C would.
    """
    if len(data) <= _SHORT and _FOREIGN_ESCAPE(data) is not None:
        return _replace_escapes(data)
    # tmux escapes the backslash itself, so its text holds no other escape that the codec knows;
    # to look for one in all that is long would halve the speed (benchmarks/parser.py).
    try:
        decoded: bytes = escape_decode(data)[0]
    except (ValueError, Warning):
        return _replace_escapes(data)
    if (len(data) - len(decoded)) % 3:
        return _replace_escapes(data)
    return decoded


def _replace_escapes(data: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), data)


class Parser:
    """A control-mode stream, cut anywhere, into events.

    `max_line` and `max_reply` bound what one line and one reply body (each line of it with its
    LF) may hold, in bytes. Over the limit the rest is dropped and counted in the event's
    `omitted`, and the stream stays in step: of a line its beginning is kept, of a reply the lines
    that fit.
    """

    error: ProtocolError | None
    """What ended the stream, or None. Everything before it has been returned."""

    def __init__(self, *, max_line: int = MAX_LINE, max_reply: int = MAX_REPLY) -> None:
        if max_line < 1 or max_reply < 0:
            raise ValueError("max_line must be at least 1, max_reply must not be negative")
        self.error = None
        self._max_line = max_line
        self._max_reply = max_reply
        self._ended = False
        self._pane_ids: dict[bytes, str] = {}
        # The unfinished last line: its pieces, how many bytes they hold, how many were dropped.
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._line_omitted = 0
        # The open reply: its guard, whether a terminal put CRs behind its lines, the lines that
        # would close it, and its body so far.
        self._guard: re.Match[bytes] | None = None
        self._has_cr = False
        self._end = b""
        self._error_end = b""
        self._body: list[bytes] = []
        self._body_size = 0
        self._body_omitted = 0
        self._last_dropped = b""
        # Fences: those announced, the one that is open, and what came since the last line that
        # could be the end of the open reply, that line included.
        self._fences: set[bytes] = set()
        self._fence = b""
        self._after_end: list[bytes] = []
        self._after_end_size = 0

    def fence(self, marker: bytes) -> None:
        """Announce that two replies whose whole body is `marker` will stand around other replies.

        Bodies are not escaped, so text that a pane wrote can contain the line that closes the
        reply it is shown in. Between the two markers a reply therefore ends at the *last* line
        that could close it. The marker must be unknown to every program in a pane.

        Where several replies stand between the markers and the text of one holds the line that
        closes another, nobody can tell which is which: that sets `error`.
        """
        if not marker or b"\n" in marker:
            raise ValueError("a marker is one line, and not a blank one")
        self._fences.add(marker)

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take the next bytes, however cut, and return the events they complete."""
        if self.error is not None:
            return []
        if self._ended:
            self.error = ProtocolError("data after the end of the stream", bytes(data[:200]))
            return []
        data = bytes(data)
        lines = data.split(b"\n")
        tail = lines.pop()
        events: list[Event] = []
        if lines and (self._pieces or self._line_omitted):
            # The only line that may have lost bytes: it is taken alone.
            self._keep(lines[0])
            first, omitted = b"".join(self._pieces), self._line_omitted
            self._pieces.clear()
            self._pieces_size = self._line_omitted = 0
            del lines[0]
            self._take_line(first, omitted, events)
        if len(data) > self._max_line:
            for line in lines:
                if self.error is None:
                    self._take_line(line, 0, events)
        elif self.error is None:
            self._take_lines(lines, b"\r" in data, events)
        if tail:
            self._keep(tail)
        return events

    def receive_eof(self) -> list[Event]:
        """Say that nothing follows. What is unfinished shows in `error`, never as an event.

        But if the last line is ``%exit``, an `Exit` is returned even where a reply is open: tmux
        cuts the reply short when it throws a client out or dies, and that line tells why.
        """
        events: list[Event] = []
        if self.error is None and not self._ended:
            partial = b"".join(self._pieces)
            if self._guard is not None:
                self.error = ProtocolError("the stream ended inside a reply", partial)
                last = b"".join((self._after_end or self._body)[-1:])
                event = self._notification(self._last_dropped or last)
                if isinstance(event, Exit) and not partial:
                    events.append(event)
            elif partial:
                self.error = ProtocolError("the stream ended inside a line", partial)
        self._ended = True
        return events

    def _keep(self, piece: bytes) -> None:
        room = max(self._max_line, LONGEST_GUARD) - self._pieces_size
        if len(piece) > room:
            self._line_omitted += len(piece) - room
            piece = piece[:room]
        if piece:
            self._pieces.append(piece)
            self._pieces_size += len(piece)

    def _take_lines(self, lines: list[bytes], has_cr: bool, events: list[Event]) -> None:
        """The hot loop: whole lines, all within the limit."""
        pane_ids = self._pane_ids
        append = events.append
        outside = self._guard is None
        for line in lines:
            # What a flood is made of, well-formed and from a pane that is known, is read right
            # here; everything else, and every doubt, takes the way through _take_line.
            if outside and not has_cr:
                if line.startswith(b"%extended-output "):
                    fields = line.split(b" ", 4)
                    if len(fields) == 5 and fields[3] == b":" and len(fields[2]) <= 9:
                        pane_id = pane_ids.get(fields[1])
                        if pane_id is not None and fields[2].isdigit():
                            data = fields[4]
                            if b"\\" in data:
                                data = decode_octal(data)
                            append(ExtendedOutput(pane_id, data, int(fields[2])))
                            continue
                elif line.startswith(b"%output "):
                    fields = line.split(b" ", 2)
                    if len(fields) == 3:
                        pane_id = pane_ids.get(fields[1])
                        if pane_id is not None:
                            data = fields[2]
                            append(Output(pane_id, decode_octal(data) if b"\\" in data else data))
                            continue
            self._take_line(line, 0, events)
            if self.error is not None:
                return
            outside = self._guard is None

    def _output(self, line: bytes) -> Event:
        """``%output %P DATA`` or ``%extended-output %P AGE … : DATA``."""
        if line.startswith(b"%output "):
            fields = line.split(b" ", 2)
            if len(fields) == 3 and (pane_id := self._pane_id(fields[1])) is not None:
                data = fields[2]
                return Output(pane_id, decode_octal(data) if b"\\" in data else data)
            return Unknown(line)
        fields = line.split(b" ", 4)
        if len(fields) == 5 and fields[3] != b":":
            # Fields that a later tmux may add stand before the first lone colon.
            fields[3:] = b" ".join(fields[3:]).partition(b" : ")[1:]
        if len(fields) == 5 and (pane_id := self._pane_id(fields[1])) is not None:
            _, _, age, colon, data = fields
            if colon and age.isdigit() and len(age) <= 20:
                data = decode_octal(data) if b"\\" in data else data
                return ExtendedOutput(pane_id, data, int(age))
        return Unknown(line)

    def _pane_id(self, field: bytes) -> str | None:
        pane_id = self._pane_ids.get(field)
        if pane_id is None and _PANE(field) is not None:
            if len(self._pane_ids) >= MAX_KNOWN_PANES:
                self._pane_ids.clear()
            pane_id = self._pane_ids[field] = field.decode("ascii")
        return pane_id

    def _take_line(self, line: bytes, omitted: int, events: list[Event]) -> None:
        """One line in any state; the last `omitted` bytes of it are gone."""
        if len(line) > self._max_line and (
            omitted or len(line) > LONGEST_GUARD or not line.startswith(_GUARD_NAMES)
        ):
            omitted += len(line) - self._max_line
            line = line[: self._max_line]
        if self._guard is None:
            self._take_outside(line, omitted, events)
            return
        if self._has_cr:
            line = _without_cr(line)
        if line == self._end or line == self._error_end:
            if self._fence:
                self._take_possible_end(line, events)
            else:
                reply = self._finish_reply(line == self._end)
                events.append(reply)
                if reply.lines and reply.lines[0] in self._fences and _is_fence(reply):
                    self._fence = reply.lines[0]
        elif self._after_end:
            self._take_after_end(line, omitted, events)
        else:
            self._add_body(line, omitted)

    def _take_outside(self, line: bytes, omitted: int, events: list[Event]) -> None:
        if omitted:
            events.append(Unknown(line, omitted))
            return
        plain = _without_cr(line)
        guard = _GUARD(plain) if line.startswith(b"%begin ") else None
        if guard is not None:
            self._has_cr = plain != line
            self._open_reply(guard)
        elif (event := self._notification(plain)) is not None:
            events.append(event)

    def _open_reply(self, guard: re.Match[bytes]) -> None:
        self._guard = guard
        self._end = b"%end" + guard.string[6:]
        self._error_end = b"%error" + guard.string[6:]

    def _add_body(self, line: bytes, omitted: int) -> None:
        size = len(line) + 1
        if self._body_omitted or self._body_size + size > self._max_reply:
            self._body_omitted += size + omitted
            self._last_dropped = line
        else:
            self._body.append(line)
            self._body_size += size
            self._body_omitted += omitted

    def _finish_reply(self, ok: bool) -> Reply:
        assert self._guard is not None
        time, number, flags = self._guard.groups()
        lines = tuple(self._body)
        reply = Reply(int(time), int(number), int(flags), lines, ok, self._body_omitted)
        self._guard = None
        self._body = []
        self._body_size = self._body_omitted = 0
        self._last_dropped = b""
        return reply

    def _take_possible_end(self, line: bytes, events: list[Event]) -> None:
        """Between fences: if this is the end, what seemed to be the end before was text."""
        if self._body == [self._fence] and _is_own(self._guard):
            # The command had no reply at all, this is already the second fence.
            self._close_fence([line], events)
            return
        for text in self._after_end:
            self._add_body(text, 0)
        self._after_end = [line]
        self._after_end_size = 0

    def _take_after_end(self, line: bytes, omitted: int, events: list[Event]) -> None:
        """Between fences: a line that is text if another end follows, else one outside."""
        lines = self._after_end
        lines.append(line)
        self._after_end_size += len(line) + 1
        if omitted or self._after_end_size > self._max_reply + len(self._fence) + LONGEST_GUARD:
            # What will show which of the two it is can't be waited for.
            self.error = ProtocolError(f"more than {self._max_reply} bytes behind a fenced reply")
        elif (
            line.startswith(b"%end ")
            and len(lines) > 3
            and lines[-2] == self._fence
            and lines[-3] == b"%begin " + line[5:]
            and _is_own(_GUARD(lines[-3]))
        ):
            self._after_end = []
            self._close_fence(lines, events)

    def _close_fence(self, lines: list[bytes], events: list[Event]) -> None:
        """`lines` begins with the end of the open reply and ends with that of the marker's."""
        fenced: list[Event] = [self._finish_reply(lines[0] == self._end)]
        last = {
            line: at for at, line in enumerate(lines) if line.startswith((b"%end ", b"%error "))
        }
        position = 1
        while position < len(lines):
            line = _without_cr(lines[position])
            guard = _GUARD(line)
            end = 0
            if guard is not None:
                self._open_reply(guard)
                end = max(last.get(self._end, 0), last.get(self._error_end, 0))
            if end > position:
                for text in lines[position + 1 : end]:
                    self._add_body(text, 0)
                fenced.append(self._finish_reply(lines[end] == self._end))
                position = end
            elif _ANY_GUARD(line) is not None:
                self.error = ProtocolError("a guard between fences is not one of a pair", line)
                return
            elif (event := self._notification(line)) is not None:
                fenced.append(event)
            position += 1
        self._fences.discard(self._fence)
        self._fence = b""
        events.extend(fenced)

    def _notification(self, line: bytes) -> Event | None:
        """One line outside a reply; None for a blank one, which says nothing."""
        if line.startswith(_OUTPUT_NAMES):
            return self._output(line)
        name, space, rest = line.partition(b" ")
        reader = _READERS.get(name)
        event = reader(rest if space else None) if reader is not None else None
        if event is None and line.strip():
            return Unknown(line)
        return event


def _is_fence(reply: Reply) -> bool:
    return len(reply.lines) == 1 and not reply.omitted and reply.flags & OWN_COMMAND > 0


def _is_own(guard: re.Match[bytes] | None) -> bool:
    return guard is not None and int(guard[3]) & OWN_COMMAND > 0


def _without_cr(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# A reader takes what stands behind the name and its space (None: there is no space) and gives
# None where the fields make no sense. Fields behind those known are left to a later tmux, except
# where the last one is free text.

_Reader = Callable[["bytes | None"], "Event | None"]


def _one_id(event: Callable[[str], Event], is_id: Callable[[bytes], object]) -> _Reader:
    def read(rest: bytes | None) -> Event | None:
        field = (rest or b"").split(b" ", 1)[0]
        return event(field.decode("ascii")) if is_id(field) else None

    return read


def _two_ids(
    event: Callable[[str, str], Event],
    is_first: Callable[[bytes], object],
    is_second: Callable[[bytes], object],
) -> _Reader:
    def read(rest: bytes | None) -> Event | None:
        fields = (rest or b"").split(b" ", 2)
        if len(fields) >= 2 and is_first(fields[0]) and is_second(fields[1]):
            return event(fields[0].decode("ascii"), fields[1].decode("ascii"))
        return None

    return read


def _id_and_text(event: Callable[[str, str], Event], is_id: Callable[[bytes], object]) -> _Reader:
    def read(rest: bytes | None) -> Event | None:
        field, space, text = (rest or b"").partition(b" ")
        return event(field.decode("ascii"), _text(text)) if space and is_id(field) else None

    return read


def _only_text(event: Callable[[str], Event]) -> _Reader:
    def read(rest: bytes | None) -> Event | None:
        return None if rest is None else event(_text(rest))

    return read


def _sessions_changed(rest: bytes | None) -> Event | None:
    return SessionsChanged() if rest is None else None


def _session_renamed(rest: bytes | None) -> Event | None:
    field, space, text = (rest or b"").partition(b" ")
    if _SESSION(field):
        return SessionRenamed(field.decode("ascii"), _text(text)) if space else None
    return SessionRenamed(None, _text(rest)) if rest else None


def _unlinked_window_renamed(rest: bytes | None) -> Event | None:
    field, space, text = (rest or b"").partition(b" ")
    if _WINDOW(field):
        return UnlinkedWindowRenamed(field.decode("ascii"), _text(text) if space else None)
    return None


def _client_session_changed(rest: bytes | None) -> Event | None:
    fields = (rest or b"").split(b" ", 2)
    if len(fields) == 3 and fields[0] and _SESSION(fields[1]):
        return ClientSessionChanged(_text(fields[0]), fields[1].decode("ascii"), _text(fields[2]))
    return None


def _layout_change(rest: bytes | None) -> Event | None:
    window, _, text = (rest or b"").partition(b" ")
    if not _WINDOW(window) or not text or text.startswith(b" "):
        return None
    layout, *others = _text(text).split(" ")
    visible = others.pop(0) if others and "," in others[0] else None
    flags = others.pop(0) if others else None
    return LayoutChange(window.decode("ascii"), layout, visible, flags)


def _subscription_changed(rest: bytes | None) -> Event | None:
    head, colon, value = (rest or b"").partition(b" : ")
    # A name may hold spaces, and a later tmux may add fields behind the pane.
    match = _SUBSCRIPTION(head)
    if match is None or not colon:
        return None
    name, session, window, index, pane = match.groups()
    return SubscriptionChanged(
        _text(name),
        None if session == b"-" else session.decode("ascii"),
        None if window == b"-" else window.decode("ascii"),
        None if index == b"-" else int(index),
        None if pane == b"-" else pane.decode("ascii"),
        _text(value),
    )


def _exit(rest: bytes | None) -> Event | None:
    return Exit(_text(rest) if rest else None)


_READERS: dict[bytes, _Reader] = {
    b"%client-detached": _only_text(ClientDetached),
    b"%client-session-changed": _client_session_changed,
    b"%config-error": _only_text(ConfigError),
    b"%continue": _one_id(Continue, _PANE),
    b"%exit": _exit,
    b"%layout-change": _layout_change,
    b"%message": _only_text(Message),
    b"%pane-mode-changed": _one_id(PaneModeChanged, _PANE),
    b"%paste-buffer-changed": _only_text(PasteBufferChanged),
    b"%paste-buffer-deleted": _only_text(PasteBufferDeleted),
    b"%pause": _one_id(Pause, _PANE),
    b"%session-changed": _id_and_text(SessionChanged, _SESSION),
    b"%session-renamed": _session_renamed,
    b"%session-window-changed": _two_ids(SessionWindowChanged, _SESSION, _WINDOW),
    b"%sessions-changed": _sessions_changed,
    b"%subscription-changed": _subscription_changed,
    b"%unlinked-window-add": _one_id(UnlinkedWindowAdd, _WINDOW),
    b"%unlinked-window-close": _one_id(UnlinkedWindowClose, _WINDOW),
    b"%unlinked-window-renamed": _unlinked_window_renamed,
    b"%window-add": _one_id(WindowAdd, _WINDOW),
    b"%window-close": _one_id(WindowClose, _WINDOW),
    b"%window-pane-changed": _two_ids(WindowPaneChanged, _WINDOW, _PANE),
    b"%window-renamed": _id_and_text(WindowRenamed, _WINDOW),
}
