"""The `tmux -C` process: how it is started, waited for and ended.

A transport turns tmux's argument list into that of the process to start, so that the same client
speaks to the tmux of this machine or, through another program, to one elsewhere. What the bytes
mean must not live here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import trio
from attrs import frozen

from ..errors import OpenError, TmuxNotFound

STDERR_LINES = 20
"""How many of the last lines on stderr are kept, each up to `STDERR_LINE` characters: enough for
any message of tmux or ssh, and a bound for a program that writes without end."""
STDERR_LINE = 1000

# Variables that would lead tmux to another server or tell it of a terminal that is not ours.
_SCRUBBED = ("TMUX", "TMUX_PANE")


class Transport(Protocol):
    """Where tmux runs."""

    @property
    def is_local(self) -> bool:
        """Whether the server's processes and sockets are this machine's."""
        ...

    def argv(self, tmux_argv: Sequence[str]) -> list[str]:
        """The argument list of the process to start, given that of tmux."""
        ...


@frozen
class LocalTransport:
    """tmux on this machine, as a child process."""

    is_local: bool = True

    def argv(self, tmux_argv: Sequence[str]) -> list[str]:
        """The list as it is, ended together with this process where the system can do that."""
        return [*_death_signal_argv(), *tmux_argv]


@cache
def _death_signal_argv() -> tuple[str, ...]:
    # On Linux the kernel can send a signal when the parent is gone, also after SIGKILL. Elsewhere
    # the end of its input tells the client the same, only not while its output is stuck.
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


class Process:
    """A child with pipes on all three; `open_process` makes it."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._popen = popen
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self.stdin_fd = popen.stdin.fileno()
        self.stdout_fd = popen.stdout.fileno()
        self._stderr_fd = popen.stderr.fileno()
        self._stderr_rest = b""
        for fd in (self.stdin_fd, self.stdout_fd, self._stderr_fd):
            os.set_blocking(fd, False)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def exit_status(self) -> int | None:
        """As `subprocess` has it: negative for a signal, None while it runs."""
        return self._popen.poll()

    def close_stdin(self) -> None:
        """Say that no more will be written. Harmless a second time."""
        assert self._popen.stdin is not None
        if not self._popen.stdin.closed:
            trio.lowlevel.notify_closing(self.stdin_fd)
            self._popen.stdin.close()
            # The number may soon be that of somebody else's file.
            self.stdin_fd = -1

    def close_output(self) -> None:
        """Give up the reading ends. Harmless a second time."""
        for pipe in (self._popen.stdout, self._popen.stderr):
            assert pipe is not None
            if not pipe.closed:
                trio.lowlevel.notify_closing(pipe.fileno())
                pipe.close()

    @trio.lowlevel.enable_ki_protection
    async def read_stderr(self) -> None:
        """Keep the last lines of stderr until its end."""
        while True:
            # Waited for also where there is more, so that a flood does not hold up others.
            await trio.lowlevel.wait_readable(self._stderr_fd)
            data = os.read(self._stderr_fd, 4096)
            *lines, unfinished = (self._stderr_rest + data).split(b"\n")
            self._stderr_rest = unfinished[: 4 * STDERR_LINE]
            if not data and unfinished:
                lines.append(unfinished)
                self._stderr_rest = b""
            for line in lines:
                self.stderr.append(line.decode("utf-8", "replace")[:STDERR_LINE])
            if not data:
                return

    async def wait(self) -> int:
        """Wait until the process has ended; its exit status."""
        if (status := self._popen.poll()) is not None:
            return status
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # No Linux, or one before 5.3.
            return await trio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            trio.lowlevel.notify_closing(pidfd)
            os.close(pidfd)
        return self._popen.wait()

    async def terminate(self, grace: float) -> None:
        """Wait `grace` seconds for the end, then send SIGTERM, wait again, then SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with trio.move_on_after(grace):
                await self.wait()
                return
            self._popen.send_signal(number)
        await self.wait()


def open_process(argv: Sequence[str], env: dict[str, str] | None = None) -> Process:
    """Start a process in a session of its own, with pipes, without `TMUX` in its environment.

    It has to be called in the thread that runs trio: the kernel ties the signal at the parent's
    death to the *thread* that made the child, and those of trio's pool come and go.

    Raises an `OpenError` if it can't be started, `TmuxNotFound` if the program does not exist.
    """
    environment = dict(os.environ if env is None else env)
    for name in _SCRUBBED:
        environment.pop(name, None)
    try:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise start_failure(argv[0], error) from error
    return Process(popen)


def start_failure(program: str, error: OSError) -> OpenError:
    """What to raise where `program` could not be started."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return TmuxNotFound(program)
    return OpenError(f"tmux could not be started ({program}): {error.strerror or error}")
