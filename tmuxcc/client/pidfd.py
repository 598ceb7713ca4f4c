"""The ends of processes of this machine, told by the kernel at once.

How a process ended only its parent knows. What follows from an end must not live here.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

import trio


class ProcessWatch:
    """Watches any number of processes with one task, which `run` is: a task for each costs more."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._begun = trio.Event()
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}  # by pidfd
        self._pidfds: dict[int, int] = {}  # of the last one that had that number
        self._is_over = False

    def watch(self, pid: int, ended: Callable[[], None]) -> bool:
        """Have `ended` called once there is no process `pid` any more.

        `run` does that, or if there is none now, this. Returns false where the system does not tell
        (no Linux, or one before 5.3), where nothing more can be watched, and when `run` is over.
        """
        if self._is_over:
            return False
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._begun.set()
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            ended()
            return True
        except (AttributeError, OSError):
            return False
        try:
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError:
            os.close(pidfd)
            return False
        self._watched[pidfd] = pid, ended
        self._pidfds[pid] = pidfd
        return True

    def terminate(self, pid: int) -> bool:
        """Send SIGTERM to a process that is watched, and to no other that has its number by now.

        Returns false if it is not watched, or not any more.
        """
        pidfd = self._pidfds.get(pid)
        if pidfd is None:
            return False
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        return True

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Wait for ends. Runs until cancelled."""
        try:
            await self._begun.wait()
            assert self._epoll is not None
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for pidfd, _ in self._epoll.poll(0):
                    pid, ended = self._watched.pop(pidfd)
                    if self._pidfds.get(pid) == pidfd:
                        del self._pidfds[pid]
                    # To close it is not enough: a child that was forked, and has not become another
                    # program yet, holds it too.
                    self._epoll.unregister(pidfd)
                    os.close(pidfd)
                    ended()
        finally:
            self._is_over = True
            for pidfd in self._watched:
                os.close(pidfd)
            self._watched.clear()
            self._pidfds.clear()
            if self._epoll is not None:
                trio.lowlevel.notify_closing(self._epoll.fileno())
                self._epoll.close()
