"""Texts and recordings that benchmarks run on: the same on every machine, since they are seeded.

A recording is what a real `tmux -C` wrote while a real program wrote the text into a pane. How tmux
cut it into messages depends on the moment, so it is made anew for each run and all variants get the
same one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import closing

from .harness import END, Server
from .sides import Control

_WORDS = (
    "request served worker took job from queue cache miss for key connection closed by peer retry"
    " in seconds config reloaded user logged in session expired slow query on table orders"
).split()
_LEVELS = (("INFO", 34), ("DEBUG", 36), ("WARN", 33), ("ERROR", 31))


def _lines(size: int, line: Callable[[random.Random], str]) -> bytes:
    chance = random.Random(4)
    pieces: list[str] = []
    length = 0
    while length < size:
        piece = line(chance)
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces).encode()


def _time(chance: random.Random) -> str:
    return f"2026-11-22T10:{chance.randrange(60):02}:{chance.randrange(60):02}"


def plain_log(size: int) -> bytes:
    """A log without colours, 60 to 120 characters a line."""

    def line(chance: random.Random) -> str:
        words = " ".join(chance.choices(_WORDS, k=chance.randrange(5, 12)))
        return f"{_time(chance)} {chance.choice(_LEVELS)[0]} {words} id={chance.randrange(10**6)}\n"

    return _lines(size, line)


def colour_log(size: int) -> bytes:
    """A log with six colour sequences in each line."""

    def line(chance: random.Random) -> str:
        level, colour = chance.choice(_LEVELS)
        words = " ".join(chance.choices(_WORDS, k=chance.randrange(4, 8)))
        return (
            f"\x1b[32m{_time(chance)}\x1b[0m \x1b[1;{colour}m{level}\x1b[0m {words}"
            f" path=\x1b[36m/item/{chance.randrange(10**4)}\x1b[0m status=200\n"
        )

    return _lines(size, line)


def tiny_lines(size: int) -> bytes:
    """One to eight characters a line."""
    return _lines(size, lambda chance: "progress"[: chance.randrange(1, 9)] + "\n")


def utf8_text(size: int) -> bytes:
    """Text in four scripts, with emoji."""
    words = "Grüße aus Köln 価格は千円です привет мир ελληνικά 🚀 ✅ naïve café 한국어 └──".split()
    text = _lines(size // 2, lambda chance: " ".join(chance.choices(words, k=9)) + "\n")
    return text[:size].rpartition(b"\n")[0] + b"\n"


# A table that a full-screen program redraws: what curses makes of it is what is recorded.
_REDRAWS = """
import curses, random, sys
def main(screen):
    chance = random.Random(4)
    curses.use_default_colors()
    for n in range(1, 7):
        curses.init_pair(n, n, -1)
    rows, columns = screen.getmaxyx()
    for frame in range(int(sys.argv[1])):
        for row in range(rows - 1):
            load = chance.random()
            text = f"{row:4} {chance.randrange(10**5):6} {100 * load:5.1f}% "
            bar = "|" * int(load * (columns - 40))
            screen.addstr(row, 0, text, curses.color_pair(1 + row % 6) | curses.A_BOLD)
            screen.addstr(row, len(text), bar.ljust(columns - 40), curses.color_pair(1 + row % 3))
        screen.refresh()
curses.wrapper(main)
print("<end>")
"""

TEXTS = {
    "log": plain_log,
    "coloured log": colour_log,
    "tiny lines": tiny_lines,
    "UTF-8": utf8_text,
}


def record(server: Server, size: int) -> dict[str, bytes]:
    """For each kind what `tmux -C` wrote; `size` is about that of the text."""
    found = {}
    for name, make in TEXTS.items():
        file = server.folder / "text"
        file.write_bytes(make(size) + END + b"\n")
        found[name] = _record(server, ["cat", str(file)])
        file.unlink()
    frames = max(2, size // 8000)
    argv = [sys.executable, "-I", "-S", "-c", _REDRAWS, str(frames)]
    found["full-screen redraws"] = _record(server, argv)
    return found


def _record(server: Server, argv: list[str]) -> bytes:
    """What comes until the program has written its end line; only messages about its pane."""
    # The end line comes again and again: tmux may cut one, and drop what stands before the end.
    again = f'read x; "$0" "$@"; while :; do echo "{END.decode()}"; sleep 0.05; done'
    program = ["sh", "-c", again, *argv]
    with server.panes(1, program) as (pane,), closing(Control(server)) as control:
        server.run("send-keys", "-t", pane.pane_id, "Enter")
        data = control.read_until(END)
    start = data.index(b"%extended-output ")
    return data[start : data.rindex(b"\n") + 1]
