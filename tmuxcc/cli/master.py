"""The life of ``tmuxcc up``: a swarm whose agents are started in order, followed, and ended.

Nothing is printed here; a reporter is told. What a swarm and an agent are is in tmuxcc.swarm; here
is only when which agent is started or ended, and who is told.
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import trio
from attrs import frozen

from ..client.output import ExitStatus, LostOutput
from ..errors import (
    CommandTimeoutError,
    ConnectionClosed,
    PaneDeadError,
    SwarmRunning,
    TmuxError,
)
from ..swarm.agent import Agent
from ..swarm.opening import open_swarm
from ..swarm.spec import AgentSpec
from ..swarm.state import AgentStatus, Life
from ..swarm.swarm import Swarm
from .runner import Job, Reporter, status_number
from .swarms import DOWN

LAST_LINES = 0.02
"""Seconds after a program's end until it is told, so that its last lines stand before that."""

LAST_WORDS = 2.0
"""Seconds for a reader of our output to take the rest of it, when we were told to end twice."""


@frozen
class Plan:
    """What to run and how. `after` names agents of `specs`; those come first."""

    file: Path
    cluster_id: str
    base_dir: Path
    specs: Mapping[str, AgentSpec]
    after: Mapping[str, Sequence[str]]
    socket_path: Path | None
    tmux: str | None
    shown_tmux: str
    adopt: bool
    detach: bool
    grace: float | None
    log_dir: Path | None


class UpReporter(Reporter, Protocol):
    """Who is told what happens."""

    def restarting(self, job: Job, status: ExitStatus | None, delay: float) -> None:
        """A program has ended and will be started again."""

    def ready(self, job: Job) -> None:
        """An agent with a condition for it has become ready."""

    def failed(self, job: Job, why: str) -> None:
        """An agent is not or no more what it should be."""

    def ended(self, job: Job) -> None:
        """An agent has ended for good while others go on."""

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show that something takes its time."""

    def add(self, job: Job) -> None:
        """There is one more."""


class Master:
    """Runs a swarm once, to its end or until all is ready."""

    def __init__(self, jobs: list[Job], plan: Plan, reporter: UpReporter) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._plan = plan
        self._reporter = reporter
        self._writer = reporter.writer
        self._swarm: Swarm | None = None
        self._nursery: trio.Nursery
        self._starting = trio.CancelScope()
        self._body = trio.CancelScope()
        self._drain = trio.CancelScope()
        self._patience: trio.CancelScope | None = None
        self._interrupted: int | None = None
        self._down = False
        self._failure: TmuxError | None = None
        self._ready = {name: trio.Event() for name in plan.specs}
        self._unready: set[str] = set()
        self._over = {name: trio.Event() for name in plan.specs}
        self._running = 0

    async def run(self) -> int:
        """Run all of it; our exit status. Raises the `TmuxError` that prevented it."""
        numbers = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        ]
        with trio.open_signal_receiver(*numbers) as received:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._heed_signals, received)
                self._nursery.start_soon(self._heed_reader)
                self._nursery.start_soon(self._writer.run)
                try:
                    with self._body:
                        await self._serve()
                except* TmuxError as errors:
                    self._failure = _first(errors)
                status = self._status()
                await self._tell_end(status)
                self._nursery.cancel_scope.cancel()
        if self._failure is not None and (self._swarm is None or not self._ending):
            raise self._failure
        return status

    @property
    def _ending(self) -> bool:
        return self._patience is not None or self._down

    async def _tell_end(self, status: int) -> None:
        with self._drain:
            await self._writer.wait_written()
        if self._swarm is not None and self._writer.failure is None:
            self._reporter.summary(status)
            if not self._drain.cancel_called:
                with trio.CancelScope() as self._drain:
                    await self._writer.wait_written()
