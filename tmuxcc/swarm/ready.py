"""Whether a program answers: ready conditions that nobody can push, and so have to be tried.

What a program writes is watched where it is read anyway, in monitor.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import trio

from .spec import Ready

FIRST_PAUSE = 0.02
"""Seconds before the second try; each further one waits twice as long, up to `LONGEST_PAUSE`."""

LONGEST_PAUSE = 0.5
"""Seconds between two tries at most: so much later is it noticed that a program is ready."""

TRY_TIMEOUT = 5.0
"""Seconds that one try may take before it is given up and made anew."""


async def probe(ready: Ready, *, cwd: Path, env: Mapping[str, str]) -> None:
    """Try until the command succeeds or the port takes a connection. Until cancelled otherwise."""
    pause = FIRST_PAUSE
    while True:
        with trio.move_on_after(TRY_TIMEOUT):
            if ready.command is not None:
                if await _succeeds(ready.command, cwd, env):
                    return
            elif await _is_open(ready.host, ready.port or 0):
                return
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _succeeds(command: tuple[str, ...], cwd: Path, env: Mapping[str, str]) -> bool:
    try:
        done = await trio.run_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **env},
            check=False,
            start_new_session=True,
            deliver_cancel=_kill_group,
        )
    except OSError:
        # It may be there later: a build makes it, say.
        return False
    return done.returncode == 0


async def _kill_group(process: trio.Process) -> None:
    """End a try that takes too long, with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _is_open(host: str, port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except (OSError, UnicodeError):
        # The second is what a host makes that is no name.
        return False
    await stream.aclose()
    return True
