"""Looking for text in what a pane writes: in pieces, over borders, and past the echo. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from attrs import frozen

from .text import decode, incomplete_tail, split_unfinished, strip_sequences

MAX_TEXT = 1 << 16
"""Characters that stay to be searched: a match can't be longer. Older text is dropped from the
front once there is twice as much, so whoever has received so many should search."""

WRAPPED_AFTER = 4
"""Characters of an echo after which it may be wrapped. Fewer, with a line end behind them, are the
end of any other line."""

Pattern: TypeAlias = str | re.Pattern[str]


@frozen
class WaitResult:
    """Why a wait has ended.

    `outcome` is ``"matched"`` (`index` says which pattern, `match` what it found), ``"stopped"``
    (the same for a stop pattern), ``"exited"`` (the program ended first) or ``"gap"`` (output
    was lost, so the text may have been in it). `text` is what was seen, up to the end of the
    match.
    """

    outcome: Literal["matched", "stopped", "exited", "gap"]
    index: int | None
    match: re.Match[str] | None
    text: str

    def __bool__(self) -> bool:
        return self.outcome == "matched"


class TextWindow:
    """The text of a pane from some point on, and what has been found in it so far."""

    def __init__(self) -> None:
        self.text = ""
        self._raw = b""
        self._echoes: list[str] = []
        self._echo_at: int | None = None  # where in the text the first of them was taken out

    def expect_echo(self, typed: str) -> None:
        """`typed` has just been typed: its first appearance is not to be found."""
        self._echoes.extend(line for line in typed.splitlines() if line.strip())

    def forget_echoes(self) -> None:
        """What was typed may be found like anything else."""
        self._echoes.clear()
        self._echo_at = None

    def receive(self, data: bytes) -> None:
        """The pane wrote `data`."""
        data = self._raw + data
        keep = incomplete_tail(data)
        # A sequence that is cut here would leave its second half behind as text.
        text, sequence = split_unfinished(decode(data[: len(data) - keep]))
        self._raw = sequence.encode() + data[len(data) - keep :]
        self.text += strip_sequences(text)
        self._remove_echoes()
        if len(self.text) > 2 * MAX_TEXT:
            self.consume(len(self.text) - MAX_TEXT)

    def search(self, patterns: Sequence[re.Pattern[str]]) -> tuple[int, re.Match[str]] | None:
        """The pattern that matches first in the text (the first of them where several do)."""
        text = self.text
        if self._echoes:
            # What may turn out to be an echo that is still coming is left for later.
            text = text[: _echo_start(text, self._echoes[0])]
        found: tuple[int, re.Match[str]] | None = None
        for index, pattern in enumerate(patterns):
            match = pattern.search(text)
            if match is not None and (found is None or match.start() < found[1].start()):
                found = index, match
        return found

    def consume(self, end: int) -> str:
        """Take away the text up to `end` and return it."""
        taken, self.text = self.text[:end], self.text[end:]
        if self._echo_at is not None:
            self._echo_at = max(0, self._echo_at - end)
        return taken

    def _remove_echoes(self) -> None:
        while self._echoes:
            # A shell that wraps a long line writes blanks where the terminal's line ends, and one
            # that highlights what is pasted draws the line again when Enter is pressed. So the
            # echo is whatever looks like it up to the end of its line.
            echo = "[ \n]*".join(re.escape(character) for character in self._echoes[0])
            match = re.compile(echo).search(self.text, self._echo_at or 0)
            line_end = -1 if self._echo_at is None else self.text.find("\n", self._echo_at)
            if line_end >= 0 and (match is None or match.start() > line_end):
                self._echoes.pop(0)
                self._echo_at = None
            elif match is None:
                return
            else:
                self.text = self.text[: match.start()] + self.text[match.end() :]
                self._echo_at = match.start()


def compile_patterns(patterns: Pattern | Iterable[Pattern]) -> list[re.Pattern[str]]:
    """Regular expressions, those given as text with ``^`` and ``$`` at each line."""
    if isinstance(patterns, (str, re.Pattern)):
        patterns = [patterns]
    return [
        re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        for pattern in patterns
    ]


def _echo_start(text: str, echo: str) -> int:
    """Where in `text` the longest end begins that is a beginning of `echo`; its length if none."""
    start = text.find(echo[0], max(0, len(text) - 3 * len(echo)))
    while start >= 0:
        matched = 0
        for character in text[start:]:
            if matched < len(echo) and character == echo[matched]:
                matched += 1
            elif matched < WRAPPED_AFTER or character not in " \n":
                break
        else:
            return start
        start = text.find(echo[0], start + 1)
    return len(text)
