"""Text on its way out: a program's, for a person's terminal, and how stdout is written to."""

from __future__ import annotations

import math
import os
import re
import select
import signal
import sys
from contextlib import suppress

import trio

from ..client.text import strip_sequences

MAX_WAITING = 1 << 20
"""Bytes that may wait for a slow reader of our output. More than the client reads in one turn, so
that lines are lost only to a reader that is really slower than the programs."""

LAST_WORDS = 2.0
"""Seconds for a reader of our output to take the rest of it, when we were told to end."""

RESET = "\x1b[0m"

_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_MAX_COLOURS = 200


class ColourFilter:
    """Lines of one program with their colours and nothing else that a terminal would obey.

    What a line left switched on goes on in the next, as on the program's own terminal, and each
    line ends switched off.
    """

    def __init__(self) -> None:
        self._active = ""

    def filter(self, line: str) -> str:
        """One line, its carriage returns carried out."""
        if "\x1b" not in line and "\r" not in line and not self._active:
            return strip_sequences(line)
        hidden, _, shown = line.rstrip("\r").rpartition("\r")
        self._note(_COLOUR.findall(hidden))
        pieces = _COLOUR.split(shown)
        before = self._active
        self._note(pieces[1::2])
        pieces[::2] = [strip_sequences(piece) for piece in pieces[::2]]
        text = "".join(pieces)
        return f"{before}{text}{RESET}" if before or len(pieces) > 1 else text

    def _note(self, colours: list[str]) -> None:
        for colour in colours:
            if colour in ("\x1b[m", RESET):
                self._active = ""
            elif len(self._active) < _MAX_COLOURS:
                self._active += colour


class Writer:
    """Text to a file descriptor, written as soon as it is there, by a thread.

    The descriptor is usually shared with others, so it can't be made non-blocking; a reader that
    does not read (a pager) must not keep signals and tmux waiting. `run` must be running.
    """

    def __init__(self, descriptor: int) -> None:
        self.failure: OSError | None = None
        self.failed = trio.Event()
        self._descriptor = descriptor
        self._pieces: list[str] = []
        self._size = self._done = 0
        self._added = trio.Event()
        self._written = trio.Event()
        self._waiting: set[trio.CancelScope] = set()
        self._is_hurried = False

    def put(self, text: str) -> None:
        """Have `text` written. Harmless after a failure."""
        if self.failure is None:
            self._pieces.append(text)
            self._size += len(text)
            self._added.set()

    @property
    def is_full(self) -> bool:
        """Whether to `wait_room` before the next text."""
        return self._size > MAX_WAITING

    async def wait_room(self) -> None:
        """Wait until what waits has been taken."""
        while self.is_full:
            await self._written.wait()

    async def wait_written(self) -> None:
        """Wait until what was put so far is written or can't be, or it is too late; see `hurry`."""
        end = self._done + self._size
        with trio.move_on_after(LAST_WORDS if self._is_hurried else math.inf) as waiting:
            self._waiting.add(waiting)
            try:
                while self._done < end:
                    await self._written.wait()
            finally:
                self._waiting.discard(waiting)

    def hurry(self) -> None:
        """From now on wait only `LAST_WORDS` seconds, each time, for what was put to be taken."""
        self._is_hurried = True
        for waiting in self._waiting:
            waiting.deadline = min(waiting.deadline, trio.current_time() + LAST_WORDS)

    async def run(self) -> None:
        """Write until it fails. Cancelled, a write that is under way is left to itself."""
        while self.failure is None:
            await self._added.wait()
            self._added = trio.Event()
            data = "".join(self._pieces).encode("utf-8", "surrogateescape")
            self._pieces.clear()
            size = self._size
            try:
                await trio.to_thread.run_sync(
                    write_all, self._descriptor, data, abandon_on_cancel=True
                )
            except OSError as error:
                self.failure = error
                self.failed.set()
                size = self._size
            self._size -= size
            self._done += size
            self._written.set()
            self._written = trio.Event()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however long it takes."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Somebody who shares the descriptor made it non-blocking.
            select.select([], [descriptor], [])


class Stdout:
    """What a verb has found, told at once.

    Where it can't be told any more, the verb does all the same what it was asked to do; `failure`
    says why. As much of a file as a rich console needs.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None
        self.encoding = sys.stdout.encoding

    def write(self, text: str, /) -> None:
        """Write `text`. Harmless after a failure."""
        if self.failure is None:
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except OSError as error:
                self.failure = error

    def flush(self) -> None:
        """Nothing: what is written is there."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stdout.isatty()


def output_status(failure: OSError) -> int:
    """The exit status of a verb whose stdout could not be written to."""
    return 128 + signal.SIGPIPE if isinstance(failure, BrokenPipeError) else 1


def abandon_stdout() -> None:
    """Let what is still to be written to stdout go nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def give_up_stdout(failure: OSError) -> None:
    """Keep Python from complaining about it at exit.

    Say on stderr what it was, unless the reader has merely gone away.
    """
    abandon_stdout()
    if not isinstance(failure, BrokenPipeError):
        with suppress(OSError):
            sys.stderr.write(f"tmuxcc: stdout can't be written to: {failure.strerror}\n")
