"""Pane bytes as text: lines, and what is left of them without terminal sequences.

Pure functions and small state, no I/O. A terminal is not emulated here: for what a screen shows
there is `Pane.capture`.
"""

from __future__ import annotations

import re

MAX_LINE = 1 << 16
"""Bytes of a line that is still unfinished; a longer one is given in pieces, so that a program
that never ends its line is bounded and seen."""

# ECMA-48: CSI, the strings OSC, DCS, SOS, PM and APC up to BEL or ST, other escapes, then the
# control characters that are left. A sequence that is cut off at the end goes as well.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*(?:[@-~]|\Z)"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|\Z|(?=\x1b))"
    r"|\x1b[ -/]*(?:[0-~]|\Z)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def strip_sequences(text: str) -> str:
    """Remove terminal sequences and control characters, but for tabs and line feeds."""
    return _SEQUENCE.sub("", text)


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

    def receive(self, data: bytes) -> list[str]:
        """Take the next bytes; the lines they complete, without their ends."""
        *complete, rest = data.split(b"\n")
        lines = []
        if complete and self._pieces:
            self._pieces.append(complete[0])
            complete[0] = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
        for line in complete:
            lines.extend(self._cut(line))
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self._max_line:
                *lines_of_rest, rest = self._cut_bytes(b"".join(self._pieces))
                lines.extend(self._text(line) for line in lines_of_rest)
                self._pieces = [rest]
                self._size = len(rest)
        return lines

    def finish(self) -> list[str]:
        """Nothing follows: the unfinished line, if there is one."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        text = self._text(rest)
        return [text] if text else []

    def _cut(self, line: bytes) -> list[str]:
        if len(line) <= self._max_line:
            return [self._text(line)]
        return [self._text(piece) for piece in self._cut_bytes(line)]

    def _cut_bytes(self, line: bytes) -> list[bytes]:
        """Pieces of at most the limit that cut no character, the last one perhaps shorter."""
        pieces = []
        start = 0
        while len(line) - start > self._max_line:
            piece = line[start : start + self._max_line]
            piece = piece[: len(piece) - incomplete_tail(piece)] or piece
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
