"""Whether an agent's program is ready: as it writes, or as is found by trying; and in time, or not.

What a program writes is watched where it is read anyway, in monitor.py.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
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


class Readiness:
    """Whether the programs of an agent are ready, each in its turn.

    `is_ready` says it of the one that runs, `was_ready` of the last one, which may have ended,
    `is_late` that its time was over first; `times` is how often one has become ready. Without a
    `condition` one is ready when it runs; `changed` is called when one of these becomes true later
    than that.
    """

    def __init__(self, condition: Ready | None, changed: Callable[[], None]) -> None:
        self.is_ready = self.was_ready = self.is_late = False
        self.times = 0
        self._condition = condition
        self._changed = changed
        self._watching = trio.CancelScope()

    def program_starts(self) -> None:
        """A program is about to be started. What it writes may be heard of before that it runs."""
        self.was_ready = False

    def program_runs(self) -> None:
        """It was started."""
        if self._condition is None:
            self.is_ready = self.was_ready = True
            self.times += 1

    def watch(self, nursery: trio.Nursery, *, cwd: Path, env: Mapping[str, str]) -> None:
        """Begin to find out when the program that runs is ready, in a task that ends with it."""
        if self._condition is not None and not self.is_ready:
            self._watching = trio.CancelScope()
            nursery.start_soon(self._watch, self._condition, self._watching, cwd, env)

    def note_ready(self) -> None:
        """It is ready."""
        self._watching.cancel()
        self.is_ready = self.was_ready = True
        self.times += 1
        self._changed()

    def program_ended(self) -> None:
        """It has ended, or nobody follows it any more."""
        self._watching.cancel()
        self.is_ready = self.is_late = False

    @trio.lowlevel.enable_ki_protection
    async def _watch(
        self, condition: Ready, watching: trio.CancelScope, cwd: Path, env: Mapping[str, str]
    ) -> None:
        seconds = math.inf if condition.timeout is None else condition.timeout
        with watching:
            with trio.move_on_after(seconds):
                if condition.pattern is not None:
                    await trio.sleep_forever()
                await probe(condition, cwd=cwd, env=env)
                self.note_ready()
                return
            self.is_late = True
            self._changed()


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
