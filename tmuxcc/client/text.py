"""Pane bytes as text: lines, and what is left of them without terminal sequences.

Pure functions and small state, no I/O. A terminal is not emulated here: for what a screen shows
there is `Pane.capture`.
"""

from __future__ import annotations

import re

MAX_LINE = 1 << 16
"""Bytes of a line that is still unfinished; a longer one is given in pieces, so that a program
that never ends its line is bounded and seen."""

# ECMA-48: CSI, the strings OSC, DCS, SOS, PM, APC and screen's title up to BEL or ST, other
# escapes, then the control characters that are left. What is cut or broken off goes as well.
_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]?")
_SEQUENCE = re.compile(
    _CSI.pattern + r"|\x1b[\]PX^_k][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
# The groups are what has to be remembered of it, so that what a string holds needs no room.
_UNFINISHED = re.compile(r"\x1b(?:(\[)[0-?]*([ -/])*|([\]PX^_k])[^\x07\x1b]*(\x1b)?|([ -/])*)\Z")


def strip_sequences(text: str) -> str:
    """Remove terminal sequences and control characters, but for tabs and line feeds."""
    stripped = _strip_simple(text)
    return _SEQUENCE.sub("", text) if stripped is None else stripped


def _strip_simple(text: str) -> str | None:
    """The same, where only CSI sequences (colours and the like) begin with an escape; else None.

    That is nearly always so, and to look for these alone is four times as quick.
    """
    if text.count("\x1b") != text.count("\x1b["):
        return None
    text = _CSI.sub("", text)
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return _SEQUENCE.sub("", text)


def split_unfinished(text: str) -> tuple[str, str]:
    """`text` up to a terminal sequence that is cut at its end, and the gist of that sequence.

    Together with what follows the gist is removed by `strip_sequences` like the sequence itself.
    """
    # Only the last two escape characters can begin it: ST has one of its own.
    start = text.rfind("\x1b", 0, text.rfind("\x1b"))
    match = _UNFINISHED.search(text, max(0, start))
    if match is None:
        return text, ""
    return text[: match.start()], "\x1b" + "".join(group or "" for group in match.groups())


def decode(data: bytes) -> str:
    """UTF-8, with U+FFFD where it is none; the bytes themselves are in `Pane.output`."""
    return data.decode("utf-8", "replace")


def incomplete_tail(data: bytes) -> int:
    """How many of the last bytes are the beginning of a UTF-8 character whose rest is missing."""
    for length in range(1, min(3, len(data)) + 1):
        byte = data[-length]
        if byte & 0xC0 == 0x80:
            continue
        needed = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4
        return length if byte >= 0xC2 and byte < 0xF5 and needed > length else 0
    return 0


class LineSplitter:
    """Bytes, cut anywhere, into lines of text."""

    def __init__(self, *, escapes: bool, max_line: int = MAX_LINE) -> None:
        self._escapes = escapes
        self._max_line = max_line
        self._pieces: list[bytes] = []
        self._size = 0
        self._continued = False  # the beginning of the unfinished line has been given

    def receive(self, data: bytes) -> list[str]:
        """Take the next bytes; the lines they complete, without their ends."""
        end = data.rfind(b"\n") + 1
        whole, rest = data[:end], data[end:]
        lines = []
        if whole:
            if self._pieces:
                whole = b"".join([*self._pieces, whole])
                self._pieces.clear()
                self._size = 0
            lines = self._lines(whole)
            self._continued = False
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self._max_line:
                *given, rest = self._cut_bytes(b"".join(self._pieces))
                lines.extend(self._text(line) for line in given)
                self._continued = True
                self._pieces = [rest]
                self._size = len(rest)
        return lines

    def finish(self) -> list[str]:
        """Nothing follows: the unfinished line, if there is one."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._continued = False
        text = self._text(rest)
        return [text] if text else []

    def _lines(self, data: bytes) -> list[str]:
        """The texts of lines that are complete."""
        if len(data) <= self._max_line and not self._continued:
            # All at once, which is twice as quick where it is exact: where nothing is overwritten,
            # and no string is left open, which goes to the end of its line.
            plain = data.replace(b"\r\n", b"\n")
            if b"\r" not in plain:
                text = decode(plain) if self._escapes else _strip_simple(decode(plain))
                if text is not None:
                    return text.split("\n")[:-1]
        lines = []
        for line in data.split(b"\n")[:-1]:
            lines.extend(self._cut(line))
            self._continued = False
        return lines

    def _cut(self, line: bytes) -> list[str]:
        if len(line) <= self._max_line and not self._continued:
            return [self._text(line)]
        *given, rest = self._cut_bytes(line)
        if rest.strip(b"\r"):
            given.append(rest)
        return [self._text(piece) for piece in given]

    def _cut_bytes(self, line: bytes) -> list[bytes]:
        """Pieces of at most the limit, the last one perhaps shorter.

        No character is cut, and no sequence that could stand in one piece.
        """
        pieces = []
        start = 0
        while len(line) - start > self._max_line:
            piece = line[start : start + self._max_line]
            piece = piece[: len(piece) - incomplete_tail(piece)] or piece
            whole, _ = split_unfinished(piece.decode("latin-1"))
            piece = piece[: len(whole)] or piece
            pieces.append(piece)
            start += len(piece)
        return [*pieces, line[start:]]

    def _text(self, line: bytes) -> str:
        line = line.rstrip(b"\r")
        if self._escapes:
            return decode(line)
        if b"\r" in line:
            # The cursor went back to the margin: what came last is what is shown.
            line = line[line.rindex(b"\r") + 1 :]
        return strip_sequences(decode(line))
