"""A tmux server, or a session of it, asked and ended from outside: by tmux processes of a moment.

For those who have no client of it, any more or yet. What a swarm is must not live here.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio

from .processes import Identity, send_signal_to, wait_gone

SERVER_GRACE = 3.0
"""Seconds for a server of our own to end before it is killed. A client that does not read keeps a
killed server alive (tmux#5444)."""


def no_start_argv(tmux: str, socket: Path) -> tuple[str, ...]:
    """What begins the argument list of a tmux process that starts no server."""
    return (tmux, "-S", str(socket), "-N")


async def run_tmux(tmux_argv: Sequence[str], *command: str) -> bytes:
    """What a command in a tmux process of its own prints; nothing if nothing is there any more.

    `tmux_argv` begins the argument list. It is waited for `SERVER_GRACE` seconds at most.
    """
    done = None
    # Where there is no tmux program, that is told by whoever opens a client.
    with trio.move_on_after(SERVER_GRACE), suppress(FileNotFoundError):
        done = await trio.run_process(
            [*tmux_argv, *command],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return b"" if done is None else done.stdout


async def end_session(
    tmux_argv: Sequence[str], session: str, *, own_server: bool, server: Identity | None
) -> None:
    """End a session, or where nothing else runs on the server, all of that.

    `tmux_argv` begins the argument list of a tmux process. `server` is killed if it does not end
    within `SERVER_GRACE`. That nothing is there any more is no failure.
    """
    if not own_server:
        # Names are cut short, so that no alias of the user's hides them.
        ask = ("display-messag", "-p", "-t", f"={session}:", "#{session_id}")
        if session_id := (await run_tmux(tmux_argv, *ask)).decode().strip():
            forget = ("set-environmen", "-g", "-u", wrapper_variable(session_id))
            await run_tmux(tmux_argv, *forget, ";", "kill-sessio", "-t", session_id)
        return
    await run_tmux(tmux_argv, "kill-server")
    if server is not None:
        with trio.move_on_after(SERVER_GRACE):
            await wait_gone([server])
        send_signal_to([server], signal.SIGKILL)


def wrapper_variable(session_id: str) -> str:
    """The variable of the server in which the script of the wrapper is kept for a swarm."""
    return f"TMUXCC_WRAPPER_{session_id.removeprefix('$')}"
