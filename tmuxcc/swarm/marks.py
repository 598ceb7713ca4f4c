"""Marks that a program leaves in its output: OSC sequences, found in bytes that are cut anywhere.

Pure. What they say of an agent is for activity.py.
"""

from __future__ import annotations

import re

MAX_MARK = 4096
"""Bytes of an OSC sequence that is read; a longer one (a clipboard, an image) says nothing here."""

# Control characters can't stand in a sequence, so one that is broken off or too long is no match,
# and no other one begins in it. What is passed through to the terminal outside has the escape
# character of its end doubled, perhaps several times.
_BODY = rb"\x1b\]([^\x00-\x08\x0a-\x1f]{0,%d}+)" % MAX_MARK
_COMPLETE = re.compile(_BODY + rb"(?:\x07|\x1b{1,8}\\)")
_BEGUN = re.compile(_BODY + rb"\x1b{0,8}")


class MarkReader:
    """Finds the OSC sequences in bytes that are cut anywhere. What it keeps is bounded."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = b""

    def receive(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Take the next bytes: what they complete, in order, and whether that is a sequence.

        Of a sequence it is what stands between its beginning and its end; all else is as it came.
        """
        if not self._begun and b"\x1b]" not in data:
            if data.endswith(b"\x1b"):
                self._begun, data = b"\x1b", data[:-1]
            return [(data, False)] if data else []
        data = self._begun + data
        pieces: list[tuple[bytes, bool]] = []
        end = 0
        for match in _COMPLETE.finditer(data):
            if match.start() > end:
                pieces.append((data[end : match.start()], False))
            pieces.append((match[1], True))
            end = match.end()
        start = data.rfind(b"\x1b]")
        if start >= 0 and _BEGUN.fullmatch(data, start):
            self._begun = data[start:]
        else:
            self._begun = b"\x1b" if data.endswith(b"\x1b") else b""
        if rest := data[end : len(data) - len(self._begun)]:
            pieces.append((rest, False))
        return pieces
