"""The life of ``tmuxcc up``: a swarm whose agents are started in order, followed, and ended.

Nothing is printed here; a reporter is told. What a swarm and an agent are is in tmuxcc.swarm; here
is only when which agent is started or ended, and who is told.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import trio
from attrs import frozen

from ..client.output import ExitStatus
from ..errors import (
    CommandError,
    CommandTimeoutError,
    ConnectionClosed,
    PaneDeadError,
    TmuxError,
)
from ..protocol.events import SubscriptionChanged
from ..swarm.agent import Agent
from ..swarm.opening import open_swarm
from ..swarm.options import DOWN
from ..swarm.spec import AgentSpec
from ..swarm.state import AgentStatus, Life
from ..swarm.swarm import Swarm
from .interrupts import stop_signals
from .options import advice
from .runner import Job, Reporter, status_number, tell_lines
from .text import LAST_WORDS, output_status

LAST_LINES = 0.02
"""Seconds for a program's last lines to be shown before its end is told, whoever reads them."""


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


@frozen
class _Restart:
    """A program ended with `status` and is started again in `delay` seconds, or (None) it was."""

    restarts: int
    status: ExitStatus | None
    delay: float


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
        self._patience: trio.CancelScope | None = None
        self._interrupted: int | None = None
        self._down = False
        self._failure: TmuxError | None = None
        self._ready = {name: trio.Event() for name in plan.specs}
        self._unready: set[str] = set()
        self._running = 0
        self._tellings: list[trio.CancelScope] = []
        self._all_stopped = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self) -> int:
        """Run all of it; our exit status. Raises the `TmuxError` that prevented it."""
        with stop_signals() as received:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._heed_signals, received)
                self._nursery.start_soon(self._heed_reader)
                self._nursery.start_soon(self._writer.run)
                try:
                    with self._body:
                        await self._serve()
                except* TmuxError as errors:
                    self._failure = _first(errors)
                status = await self._tell_end()
                self._nursery.cancel_scope.cancel()
        if self._failure is not None and (self._swarm is None or not self._ending):
            raise self._failure
        return status

    @property
    def _ending(self) -> bool:
        return self._patience is not None or self._down

    async def _tell_end(self) -> int:
        """Tell what has not been told yet; our exit status, which that may change."""
        await self._writer.wait_written()
        kept = self._swarm is not None and self._swarm.keep
        if self._swarm is not None and not kept and self._writer.failure is None:
            self._reporter.summary(self._status())
            await self._writer.wait_written()
        return self._status()

    def _status(self) -> int:
        if self._interrupted is not None:
            return 128 + self._interrupted
        if self._writer.failure is not None:
            return output_status(self._writer.failure)
        numbers = [self._number(job) for job in self._jobs.values()]
        if self._plan.detach and not self._down:
            return 1 if self._unready or any(numbers) else 0
        return max(numbers, default=0)

    def _number(self, job: Job) -> int:
        """The exit status that stands for an agent; one that goes on is as good as it gets."""
        if job.stopped or (not job.ended and job.name not in self._unready):
            return 0
        number = None if job.status is None else status_number(job.status)
        if job.remark:
            return number or 1
        return 1 if number is None else number

    # The swarm

    async def _serve(self) -> None:
        plan = self._plan
        async with open_swarm(
            plan.cluster_id,
            base_dir=plan.base_dir,
            socket_path=plan.socket_path,
            adopt=plan.adopt,
            tmux=plan.tmux,
            log_dir=plan.log_dir,
        ) as swarm:
            self._swarm = swarm
            with trio.CancelScope() as following:
                async with trio.open_nursery() as nursery:
                    for agent in swarm.agents.values():
                        self._begin_to_follow(agent, nursery, agent.restarts)
                    nursery.start_soon(self._heed_down, swarm)
                    self._tell_where(swarm)
                    await self._start_all(swarm, nursery)
                    if not plan.detach or self._ending:
                        await self._wait_over()
                        await self._look_for_down(swarm)
                    following.cancel()
            if plan.detach and not self._ending:
                swarm.keep = True
        if swarm.keep:
            self._tell_kept()

    def _tell_where(self, swarm: Swarm) -> None:
        words = ["-S", str(swarm.socket_path), "attach"]
        if self._plan.socket_path is not None:
            words += ["-t", f"=swarm-{swarm.cluster_id}"]
        self._reporter.message(f"attach: {self._plan.shown_tmux} {shlex.join(words)}")

    def _tell_kept(self) -> None:
        name = self._plan.cluster_id
        adopt, end = advice("up", "--adopt", str(self._plan.file)), advice("down", "-c", name)
        self._reporter.message(
            f"the swarm {name} goes on without a master: nobody starts again what ends"
            f" ({adopt} does); end it with {end}"
        )

    # Starting

    async def _start_all(self, swarm: Swarm, nursery: trio.Nursery) -> None:
        names = list(self._plan.specs)
        progress = nullcontext() if not self._plan.detach else self._reporter.busy("starting…")
        with progress, self._starting:
            async with trio.open_nursery() as starting:
                for name in names:
                    starting.start_soon(self._start, swarm, name, nursery)

    async def _start(self, swarm: Swarm, name: str, nursery: trio.Nursery) -> None:
        plan, job = self._plan, self._jobs[name]
        try:
            for before in plan.after[name]:
                await self._ready[before].wait()
                if before in self._unready:
                    self._give_up(job, f"not started, since {before} is not ready")
                    return
            agent = swarm.agents.get(name)
            if agent is None:
                try:
                    agent = await swarm.spawn(name, plan.specs[name])
                except ConnectionClosed:
                    raise
                except TmuxError as error:
                    self._give_up(job, f"can't be started: {error}")
                    return
                self._begin_to_follow(agent, nursery, 0)
            elif agent.spec != plan.specs[name]:
                self._reporter.failed(
                    job, "runs as it was started, which is not what the file says now"
                )
            await self._become_ready(agent, job)
        finally:
            self._ready[name].set()

    async def _become_ready(self, agent: Agent, job: Job) -> None:
        ready = agent.spec.ready
        if ready is None:
            return
        try:
            await agent.wait_ready()
        except PaneDeadError:
            self._unready.add(job.name)
            if not self._ending:
                self._reporter.failed(job, "ended before it was ready")
        except CommandTimeoutError:
            self._unready.add(job.name)
            self._reporter.failed(job, f"is not ready after {ready.timeout:g} s")
        else:
            self._reporter.ready(job)

    def _give_up(self, job: Job, why: str) -> None:
        job.remark = "not started"
        self._unready.add(job.name)
        self._reporter.failed(job, why)

    # Following

    def _begin_to_follow(self, agent: Agent, nursery: trio.Nursery, restarts: int) -> None:
        """Tell what happens from here on, where the last thing was its start number `restarts`."""
        job = self._jobs.get(agent.agent_id)
        if job is None:
            # Adopted, and not in the file any more.
            job = Job(agent.agent_id, list(agent.spec.argv))
            self._jobs[job.name] = job
            self._reporter.add(job)
        job.restarts = restarts
        # Known from now on, not from when the task comes to run.
        self._running += 1
        nursery.start_soon(self._follow, agent, job)

    async def _follow(self, agent: Agent, job: Job) -> None:
        """Tell what becomes of an agent, until it is over."""
        job.pane_id, job.started = agent.pane_id, time.monotonic()
        self._reporter.started(job)
        async with trio.open_nursery() as nursery:
            if not self._plan.detach:
                nursery.start_soon(self._tell_lines, agent, job)
            await self._tell_restarts(agent, job)
        with trio.move_on_after(LAST_LINES):
            await self._writer.wait_written()
        self._note_end(agent, job)
        self._running -= 1
        self._changed.unpark_all()

    async def _tell_lines(self, agent: Agent, job: Job) -> None:
        with trio.CancelScope() as telling, suppress(ConnectionClosed):
            self._tellings.append(telling)
            # That tmux has gone is told with the agent's end.
            shown = ""
            while agent.pane_id != shown:
                job.pane_id = shown = agent.pane_id
                lines = agent.lines(escapes=self._reporter.escapes)
                await tell_lines(lines, job, self._reporter)
                # Where somebody has closed its pane, it may go on in another.
                while agent.pane_id == shown and not agent.is_over:
                    await agent.wait_change()

    async def _tell_restarts(self, agent: Agent, job: Job) -> None:
        """See every restart, however quickly they come, and have them told in order."""
        told: float | None = None
        restarts = job.restarts
        seen, to_tell = trio.open_memory_channel[_Restart](100)
        async with trio.open_nursery() as nursery, seen:
            nursery.start_soon(self._tell_each, to_tell, job)
            while True:
                if agent.restarts != restarts:
                    restarts = agent.restarts
                    await seen.send(_Restart(restarts, None, 0.0))
                elif agent.restart_at not in (None, told):
                    told = agent.restart_at
                    delay = told - trio.current_time()
                    await seen.send(_Restart(restarts, agent.exit_status, delay))
                elif agent.is_over:
                    break
                else:
                    # Nothing can happen between the last look and this.
                    await agent.wait_change()

    async def _tell_each(self, to_tell: trio.MemoryReceiveChannel[_Restart], job: Job) -> None:
        async for one in to_tell:
            if one.status is not None:
                await trio.sleep(LAST_LINES)
                self._reporter.restarting(job, one.status, one.delay)
            else:
                job.restarts = one.restarts
                self._reporter.started(job)

    def _note_end(self, agent: Agent, job: Job) -> None:
        job.ended = True
        job.status = agent.exit_status
        ok = job.status is not None and job.status.ok
        job.stopped = not ok and (agent.status is AgentStatus.STOPPED or self._down)
        job.seconds = time.monotonic() - job.started
        numbers = agent.statistics()
        job.bytes, job.restarts = numbers.bytes, numbers.restarts
        if numbers.log_failure is not None:
            text = f"{job.name}: something is missing in its log: {numbers.log_failure}"
            self._reporter.message(text)
        if agent.life is Life.FAILED and not self._ending:
            job.remark = "given up"
            self._reporter.failed(job, agent.failure)
        self._reporter.exited(job)
        if not self._ending and not job.remark and self._others_go_on():
            self._reporter.ended(job)

    def _others_go_on(self) -> bool:
        """Whether there is one that runs or is still to be started."""
        return any(not job.ended and not job.remark for job in self._jobs.values())

    async def _wait_over(self) -> None:
        while self._running:
            await self._changed.park()

    # Stopping

    async def _heed_signals(self, received: AsyncIterator[int]) -> None:
        async for number in received:
            if self._interrupted is None:
                self._interrupted = number
            if self._patience is None:
                self._stop("stopping… (again to kill)")
            else:
                self._reporter.message("killing…")
                self._patience.cancel()
                self._writer.hurry()
                self._nursery.start_soon(self._cut_off)

    async def _heed_reader(self) -> None:
        """Whoever read our output has gone, so there is nobody to run anything for."""
        await self._writer.failed.wait()
        if self._patience is None:
            self._stop(None)

    async def _heed_down(self, swarm: Swarm) -> None:
        """Another shell ends the agents; we only see to it that none is started any more."""
        with suppress(ConnectionClosed):
            async with swarm.client.watch_format(f"#{{{DOWN}}}") as changes:
                async for change in changes:
                    if isinstance(change, SubscriptionChanged) and change.value and not self._down:
                        self._note_down()
                        break
        # Or tmux has gone, which ends those that run.
        for agent in swarm.agents.values():
            if agent.restart_at is not None:
                self._nursery.start_soon(agent.stop)

    async def _look_for_down(self, swarm: Swarm) -> None:
        """Whether it was another shell that ended all; it may have told so just now."""
        with suppress(ConnectionClosed, CommandError):
            where = ("show-options", "-qv", "-t", swarm.client.session_id, DOWN)
            if await swarm.client.command(*where) and not self._down:
                self._note_down()

    def _note_down(self) -> None:
        self._down = True
        self._starting.cancel()
        self._reporter.message(f"another shell said `tmuxcc down -c {self._plan.cluster_id}`")

    def _stop(self, message: str | None) -> None:
        self._patience = trio.CancelScope()
        if message is not None:
            self._reporter.message(message)
        self._starting.cancel()
        if self._swarm is None:
            self._body.cancel()
        else:
            self._nursery.start_soon(self._stop_all, self._swarm, self._patience)

    async def _stop_all(self, swarm: Swarm, patience: trio.CancelScope) -> None:
        """Gently, then firmly."""
        agents = [agent for agent in swarm.agents.values() if not agent.is_over]
        done = {agent.agent_id: trio.Event() for agent in agents}

        async def stop(agent: Agent) -> None:
            for name, before in self._plan.after.items():
                if agent.agent_id in before and name in done:
                    await done[name].wait()
            report = await agent.stop(grace=self._plan.grace)
            if len(report.steps) > 1 or report.left:
                self._reporter.message(str(report))
            done[agent.agent_id].set()

        with patience:
            async with trio.open_nursery() as nursery:
                for agent in agents:
                    nursery.start_soon(stop, agent)
        if patience.cancelled_caught:
            await swarm.stop_all(grace=0)
        self._all_stopped.set()
        self._writer.hurry()

    async def _cut_off(self) -> None:
        """Of what was written before the end, too, a reader gets only what it takes in a moment."""
        await self._all_stopped.wait()
        await trio.sleep(LAST_WORDS)
        for telling in self._tellings:
            telling.cancel()


def _first(errors: BaseExceptionGroup[TmuxError]) -> TmuxError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TmuxError)
    return error
