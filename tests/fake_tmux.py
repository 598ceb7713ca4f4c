"""A tmux that says and does just what a test wants: a real process, driven by a script.

`install` makes the program; ``tmux=…`` starts it. Its script is Python that sees the functions of
this file: ``start()`` says what a server says to a new client, ``serve()`` answers commands until
the end of input, and `say`, `begin`, `end`, `read_line` and the others do less friendly things.
``python fake_tmux.py FOLDER ARGUMENT...`` runs the file ``script`` of that folder.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

numbers = count(101)


def install(folder: Path, script: str, *, version: str = "echo 'tmux 3.4'") -> Path:
    """The program that runs `script`; ``-V`` is answered by `version`, a shell command."""
    (folder / "script").write_text(script)
    os.mkfifo(folder / "go")
    program = folder / "tmux"
    words = shlex.join([sys.executable, "-S", "-E", __file__, str(folder)])
    program.write_text(
        f'#!/bin/sh\nfor last; do :; done\nif [ "$last" = -V ]; then {version}; exit; fi\n'
        f'exec {words} "$@"\n'
    )
    program.chmod(0o755)
    return program


def pids(folder: Path) -> list[int]:
    """The processes that were started, but for ``-V``."""
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_gone(pid: int) -> bool:
    """Whether a process has ended and its status has been taken."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def raw(data: bytes) -> None:
    """Write `data`, all of it."""
    while data:
        data = data[os.write(1, data) :]


def say(*lines: bytes | str) -> None:
    """Write lines."""
    raw(b"".join((x.encode() if isinstance(x, str) else x) + b"\n" for x in lines))


def reply(*lines: bytes | str, flags: int = 1, ok: bool = True) -> None:
    """Write a reply."""
    guard = f"1700000000 {next(numbers)} {flags}"
    say(f"%begin {guard}", *lines, f"%{'end' if ok else 'error'} {guard}")


def start() -> None:
    """Say what a client is told when it has attached."""
    reply(flags=0)
    say("%session-changed $0 work")


def read_line() -> bytes:
    """The next line from the client; empty at the end of input."""
    return sys.stdin.buffer.readline()


def answer(line: bytes) -> None:
    """Reply to a command: display-message -p repeats its argument, others say nothing."""
    words = shlex.split(line.decode())
    text = words[-1] if words[:2] in (["display-messag", "-p"], ["display-message", "-p"]) else ""
    known = {
        "#{version}": "3.4",
        "#{client_pid}": str(os.getpid()),
        "#{pid} #{client_pid} #{session_id}": f"1 {os.getpid()} $0",
    }
    if words[0] == "fail":
        reply("it failed", ok=False)
    elif words[0] == "list-clients":
        reply(f"{os.getpid()} client-{os.getpid()}")
    else:
        reply(*([known.get(text, text)] if text else []))


def serve(answer: Callable[[bytes], None] = answer) -> None:
    """Answer commands until the end of input, then leave as tmux does."""
    while line := read_line():
        answer(line)
    say("%exit")


def greet() -> None:
    """Attach, and answer all that a client asks by itself."""
    start()
    last = b""
    while b"list-clients" not in (line := read_line()):
        answer(line)
        last = line
    answer(line)
    if last.startswith(b"display-messag"):
        # It stands between two markers.
        answer(read_line())


def wait_for_test() -> None:
    """Wait until the test writes to the pipe ``go``."""
    with (FOLDER / "go").open("rb") as pipe:
        pipe.read()


def note(text: str) -> None:
    """Append a line to the file ``notes``."""
    with (FOLDER / "notes").open("a") as file:
        file.write(text + "\n")


def complain(text: str) -> None:
    """Write to stderr."""
    os.write(2, text.encode())


def ignore(*signals: int) -> None:
    """Let signals pass."""
    for one in signals:
        signal.signal(one, signal.SIG_IGN)


def stall() -> None:
    """Do nothing for ever."""
    while True:
        time.sleep(1000)


def die() -> None:
    """End at once."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    argv = sys.argv[2:]
    with (FOLDER / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    exec((FOLDER / "script").read_text(), globals())
