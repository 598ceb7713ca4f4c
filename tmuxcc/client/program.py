"""The wrapper under which programs are started, so that nothing they write last is lost.

tmux throws away what it has not read of a pane when the pane's process ends, on every version.
The process is therefore a small shell script (program.sh) that outlives the program: it writes a
mark behind the last byte, which carries the exit status, and lingers until the client has it. How
the mark is read is in output.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from secrets import token_hex

from ..errors import InvalidCommand

WRAPPER_NAME = "tmuxcc"
"""What the wrapper is called, as its $0; in its argument list the nonce follows."""


def new_nonce() -> str:
    """What tells the mark of one program from a forged one: 32 hexadecimal digits."""
    return token_hex(16)


def wrapped(argv: Sequence[str], nonce: str) -> list[str]:
    """The argument list that runs `argv` under the wrapper.

    Raises `InvalidCommand` if there is no program in it.
    """
    _check(argv)
    return ["/bin/sh", "-c", wrapper_script(), WRAPPER_NAME, nonce, *argv]


def unwrapped(argv: Sequence[str]) -> list[str]:
    """The argument list with which tmux runs `argv` as it is, without the wrapper.

    Left alone, tmux would give a list of one word to a shell, as a command line. Raises as
    `wrapped` does.
    """
    _check(argv)
    return ["/bin/sh", "-c", 'exec "$@"', WRAPPER_NAME, *argv]


def _check(argv: Sequence[str]) -> None:
    if isinstance(argv, str) or not argv or not argv[0]:
        raise InvalidCommand(f"argv is a list that begins with the program to run, not {argv!r}")


def nonce_of(program: Sequence[str]) -> bytes:
    """The nonce in an argument list that `wrapped` has made."""
    return program[4].encode()


@cache
def wrapper_script() -> str:
    """The shell script that is the wrapper, without its comments."""
    text = files(__package__).joinpath("program.sh").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("#"))
