"""One agent: a program in a pane of its own, what is known of it, and what can be asked of it.

An agent is made by `Swarm.spawn` and lives as long as the swarm does; its program may end and be
started again. Windows, other agents and the tmux server are the swarm's business.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import trio
from attrs import Factory, define, frozen

from ..client.client import Client
from ..client.expect import Pattern, WaitResult
from ..client.output import ExitStatus
from ..client.pane import Pane, PreparedText, SendOutcome
from ..client.streams import LineStream, OutputStream, Overflow
from ..errors import (
    CommandError,
    CommandTimeoutError,
    ConnectionClosed,
    PaneDead,
    PaneDeadError,
    PaneNotFound,
    TmuxError,
)
from .activity import Explanation
from .ending import StopReport, StopStep, end_agent
from .log import LogFile
from .monitor import Monitor
from .options import REPORT, SENT, STOPPED, WANTED, AgentState
from .policy import GiveUp, Restart, RestartHistory, decide_restart
from .program import Program
from .ready import Readiness
from .rules import AgentKind
from .spec import AgentSpec
from .state import NEXT, Activity, AgentStatus, Life, status_of

START_PATIENCE = 10.0
"""Seconds for a start that is under way when its end is wanted: tmux needs some milliseconds."""

MAX_KEYS = 64
"""How many keys of inputs are remembered, so that none is typed twice."""


@define
class _Stopping:
    """A stop that is under way; `report` stays None if it was cancelled."""

    done: trio.Event = Factory(trio.Event)
    report: StopReport | None = None


@frozen
class AgentStatistics:
    """What an agent has written and gone through, as of now.

    `lines` counts line ends, `lost` bytes that this master has not seen, as far as that is known,
    `gaps` places where something is missing. `last_output` is how many seconds ago it wrote last,
    `uptime` how many its present program has been running; None where there is none.
    """

    agent_id: str
    bytes: int
    lines: int
    gaps: int
    lost: int
    restarts: int
    last_output: float | None
    uptime: float | None
    log_failure: str | None


class Agent:
    """A program in a pane; `Swarm.spawn` makes it.

    Its state has three axes: `life`, `activity` and `ready`. `status` is the one word for it.
    """

    def __init__(
        self,
        agent_id: str,
        spec: AgentSpec,
        *,
        program: Program,
        client: Client,
        nursery: trio.Nursery,
        kind: AgentKind,
        log: LogFile | None,
        spare: Callable[[], Iterable[int]],
        changed: Callable[[Agent], None],
    ) -> None:
        self.agent_id = agent_id
        self.spec = spec
        self.program = program
        self.life = Life.PENDING
        self.failure = ""
        """Why it failed, for people; empty if it did not."""
        self.exit_status: ExitStatus | None = None
        self.restarts = 0
        self.restart_at: float | None = None
        """When its program will be started again, in trio's time; None if it will not."""
        self.window_id = ""
        self.needs_pane = False
        """Whether its program is to be started again and somebody has closed its pane."""
        self.is_given_up = False
        """Whether a `stop` did not wait any longer for a start to come to an end."""
        self.is_unwanted: bool | None = None
        """Whether another shell wants its end, as was last heard; None: tmux is to be asked."""
        self._pane: Pane | None = None
        self._client = client
        self._nursery = nursery
        self._spare = spare
        self._changed_outside = changed
        self._changed = trio.lowlevel.ParkingLot()
        self._readiness = Readiness(spec.ready, self._wake)
        self._monitor = Monitor(
            client,
            kind,
            limits=spec.limits,
            log=log,
            ready_pattern=None if spec.ready is None else spec.ready.pattern,
            is_running=lambda: self.life is Life.RUNNING,
            capture=lambda: client.through_reconnects(self.pane.capture),
            changed=self._wake,
            became_ready=self._readiness.note_ready,
        )
        self._history = RestartHistory()
        self._backoff = trio.CancelScope()
        self._typing = trio.Lock()
        self._expected = False  # something was typed or waited for, so there waiting goes on
        self._sent: dict[str, SendOutcome] = {}
        self._over = trio.Event()
        self._stop_requested = False
        self._stopping: _Stopping | None = None
        self._started_at: float | None = None
        self._started_wall: float | None = None
        self._restart_wall: float | None = None
        self._settled: AgentState | None = None
        self._renewing = trio.Lock()
        """Held by whoever restarts or removes it, one at a time."""

    def __repr__(self) -> str:
        return f"<Agent {self.agent_id!r} {self.life.value} {self.activity.value}>"

    # What is known

    @property
    def pane(self) -> Pane:
        """The pane, which stays its own until somebody closes it.

        Raises `PaneDeadError` if it was never given one.
        """
        if self._pane is None:
            raise PaneDeadError(self.agent_id)
        return self._pane

    @property
    def pane_id(self) -> str:
        """The pane's id (``%3``); empty before it has one."""
        return "" if self._pane is None else self._pane.pane_id

    @property
    def status(self) -> AgentStatus:
        """One word for the agent, that of the design document."""
        return status_of(self.life, self.exit_status, requested=self._stop_requested)

    @property
    def ready(self) -> bool:
        """Whether its program runs and its ready condition, if there is one, has come true."""
        return self._readiness.is_ready

    @property
    def activity(self) -> Activity:
        """What the program is doing, as far as it can be told; `explain` says why."""
        return self._monitor.activity if self.life is Life.RUNNING else Activity.UNKNOWN

    @property
    def is_over(self) -> bool:
        """Whether its program has ended and will not be started again by itself."""
        return self._over.is_set()

    @property
    def is_stopping(self) -> bool:
        """Whether a `stop` is under way, which may outlast its program."""
        return self._stopping is not None

    def explain(self) -> Explanation:
        """Which rule or signal decided the activity, and what the others said."""
        return self._monitor.explain()

    def statistics(self) -> AgentStatistics:
        """What it has written and gone through, as of now."""
        now = trio.current_time()
        monitor, started = self._monitor, self._started_at
        last = monitor.last_output
        failure = None if monitor.log is None else monitor.log.failure
        return AgentStatistics(
            agent_id=self.agent_id,
            bytes=self.pane.statistics().output_bytes if self.window_id else 0,
            lines=monitor.lines,
            gaps=monitor.gaps,
            lost=monitor.lost,
            restarts=self.restarts,
            last_output=None if last is None else now - last,
            uptime=None if started is None or self.life is not Life.RUNNING else now - started,
            log_failure=None if failure is None else str(failure),
        )

    def state(self) -> AgentState:
        """How it is, as it is noted for other shells."""
        numbers = self.statistics()
        status = self.exit_status or ExitStatus(None, None)
        return AgentState(
            life=self.life.value,
            status=self.status.value,
            activity=self.activity.value,
            ready=self.ready,
            restarts=self.restarts,
            started=self._started_wall,
            restart_at=None if self.restart_at is None else self._restart_wall,
            code=status.code,
            signal=status.signal,
            failure=self.failure,
            bytes=numbers.bytes,
            lines=numbers.lines,
            noted=round(time.time(), 3),
        )

    @property
    def log_file(self) -> Path | None:
        """Where its output is kept; None if it is not."""
        return None if self._monitor.log is None else self._monitor.log.path

    # Reading

    def lines(
        self, *, since: int | None = 0, escapes: bool = False, overflow: Overflow = "drop"
    ) -> LineStream:
        """What it writes, line by line, from its first line on; see `Pane.lines`.

        Ends when the program has ended for good and its last line was given: a restart does not
        end it. Where somebody closes its pane, it ends too, and what a restart then writes in
        another pane is read anew. Raises `ConnectionClosed` if tmux is gone.
        """
        return self.pane.lines(since=since, escapes=escapes, overflow=overflow)

    def output(
        self, *, since: int | None = 0, seed: bool = False, overflow: Overflow = "drop"
    ) -> OutputStream:
        """What it writes, as bytes with offsets; see `Pane.output`. Ends as `lines` does."""
        return self.pane.output(since=since, seed=seed, overflow=overflow)

    async def capture(self, *, history: bool = False, escapes: bool = False) -> str:
        """What its screen shows; see `Pane.capture`."""
        return await self.pane.capture(history=history, escapes=escapes)

    # Typing

    async def send(
        self,
        text: str,
        *,
        submit: bool = True,
        key: str | None = None,
        prepared: PreparedText | None = None,
    ) -> SendOutcome:
        """Type `text` as one paste and press Enter; what became of it. See `Pane.send_text`.

        One caller types at a time, in the order of their calls. With a `key` the text is typed at
        most once, also by the masters that come after this one: a second call gives the outcome of
        the first, or UNKNOWN where an earlier master typed it. The last `MAX_KEYS` keys are known.
        Raises `ConnectionClosed`, and `ValueError` for what can't be typed.
        """
        if key is not None and re.fullmatch(r"[!-~]{1,64}", key) is None:
            raise ValueError("a key has 1 to 64 characters, all of them printable ASCII, no blank")
        if self.life is not Life.RUNNING:
            await trio.lowlevel.checkpoint()
            return SendOutcome.DEAD
        async with self._typing:
            if key is not None and key in self._sent:
                return self._sent[key]
            note = None
            if key is not None:
                while len(self._sent) >= MAX_KEYS:
                    del self._sent[next(iter(self._sent))]
                note = (SENT, " ".join([*self._sent, key]))
                # Also if what follows is cancelled half way: typed once at most.
                self._sent[key] = SendOutcome.UNKNOWN
            self._note_typing()
            try:
                outcome = await self.pane.send_text(
                    text, submit=submit, note=note, prepared=prepared
                )
            except PaneNotFound:
                outcome = SendOutcome.DEAD
            except ValueError:
                # Refused, and not typed.
                if key is not None:
                    del self._sent[key]
                raise
            if key is not None:
                self._sent[key] = outcome
                if outcome is SendOutcome.DEAD:
                    # It was not typed.
                    del self._sent[key]
            return outcome

    async def send_keys(self, *keys: str) -> None:
        """Press keys by tmux's names; see `Pane.send_keys`. Raises `PaneDeadError`."""
        if self.life is not Life.RUNNING:
            raise PaneDeadError(self.agent_id)
        async with self._typing:
            self._note_typing()
            try:
                await self.pane.send_keys(*keys)
            except (PaneDead, PaneNotFound) as error:
                raise PaneDeadError(self.agent_id) from error

    def _note_typing(self) -> None:
        self._expected = True
        self._monitor.note_input()

    async def interrupt(self) -> None:
        """Press Ctrl-C, as the byte that it is. Raises `PaneDeadError`."""
        await self.send_keys("C-c")

    # Waiting

    async def wait_for(
        self,
        patterns: Pattern | Iterable[Pattern],
        *,
        stop: Pattern | Iterable[Pattern] = (),
        since: int | None = None,
        screen: bool = False,
        echo: bool = False,
    ) -> WaitResult:
        """Wait until it writes what one of `patterns` finds; see `Pane.wait_for`.

        Where nothing was typed to its program yet, the text begins with the first byte of that. The
        end of its program is the outcome ``"exited"``, also if another one is started.
        """
        if since is None and not self._expected:
            since = self.pane.program_offset
        self._expected = True
        return await self.pane.wait_for(patterns, stop=stop, since=since, screen=screen, echo=echo)

    async def wait_exit(self) -> ExitStatus:
        """Wait until its program has ended for good; how. A restart goes on waiting.

        Raises `ConnectionClosed` if tmux is gone first, and `PaneDeadError` if it could not be
        started at all.
        """
        await self._over.wait()
        if self.exit_status is None:
            # That nobody knows how is told as the pane tells it.
            return await self.pane.wait_exit()
        return self.exit_status

    async def wait_idle(self) -> Activity:
        """Wait until it has done what it was told: IDLE, or BLOCKED if it waits for a decision.

        A restart goes on waiting. Raises `PaneDeadError` if its program ends for good first.
        """
        await trio.lowlevel.checkpoint()
        while self.activity not in (Activity.IDLE, Activity.BLOCKED):
            if self._over.is_set():
                raise PaneDeadError(self.agent_id)
            await self.wait_change()
        return self.activity

    async def wait_ready(self) -> None:
        """Wait until its ready condition holds; without one, until it is running.

        A program that became ready and ended counts, however quickly that went, if it did so while
        this waits or is not started again.

        Raises `PaneDeadError` if it ends for good first, and `CommandTimeoutError` if the condition
        has a timeout, counted from the start of the program, which is over.
        """
        times = self._readiness.times
        await trio.lowlevel.checkpoint()
        while not self.ready and self._readiness.times == times:
            if self._over.is_set():
                if self._readiness.was_ready:
                    return
                raise PaneDeadError(self.agent_id)
            if self._readiness.is_late:
                assert self.spec.ready is not None
                raise CommandTimeoutError(
                    f"agent {self.agent_id!r} becoming ready", self.spec.ready.timeout or 0
                )
            await self.wait_change()

    async def wait_change(self) -> None:
        """Wait until its state has changed, or (told at most fifty times a second) it wrote."""
        await self._changed.park()

    # Ending

    async def stop(self, *, grace: float | None = None) -> StopReport:
        """End its program and all that it has started; what it took.

        The first step is that of its `StopPolicy`, and `grace` (seconds; default: the policy's) is
        how long all polite steps may take together, before SIGKILL. It is not started again.
        Cancelled, the program is killed at once. A start that is under way is waited for, for
        `START_PATIENCE` seconds; later it is ended as soon as it has come to its end.
        """
        self._stop_requested = True
        self._backoff.cancel()
        while self._stopping is not None:
            # Somebody else is at it.
            stopping = self._stopping
            await stopping.done.wait()
            if stopping.report is not None:
                return stopping.report
        self._stopping = stopping = _Stopping()
        try:
            # Also where this is cancelled: what is being started can be killed once it is there.
            with trio.CancelScope(shield=True), trio.move_on_after(START_PATIENCE):
                while self.life in (Life.PENDING, Life.STARTING):
                    await self.wait_change()
            if self.life in (Life.PENDING, Life.STARTING):
                self.is_given_up = True
                step = StopStep("tmux does not answer: ended as soon as it has started", 0.0)
                stopping.report = StopReport(self.agent_id, None, (step,), (), START_PATIENCE, ())
                return stopping.report
            if self._pane is None:
                # It could not be started.
                stopping.report = StopReport(self.agent_id, None, (), (), 0.0, ())
                return stopping.report
            stopping.report = await end_agent(
                agent_id=self.agent_id,
                policy=self.spec.stop,
                grace=grace,
                wrapper_pid=self.pane.pid,
                marks=self.program.mark_entries,
                ask=self._ask_to_end,
                ended=lambda: self.pane.statistics().exit_status is not None,
                wait_ended=self.pane.wait_exit,
                spare=frozenset(self._spare()),
            )
            await self._over.wait()
        finally:
            stopping.done.set()
            self._stopping = None
        return stopping.report

    async def _ask_to_end(self) -> None:
        policy = self.spec.stop
        if policy.text is not None:
            await self.pane.send_text(policy.text, submit=True)
        else:
            await self.pane.send_keys(*policy.keys)

    # What the swarm and its windows call

    def _starting(self) -> None:
        """tmux is about to be asked for its program."""
        self._stop_requested = self.is_given_up = False
        if self._over.is_set():
            self._over = trio.Event()
        self._readiness.program_starts()
        self._set_life(Life.STARTING)

    async def _run(
        self, pane: Pane, window_id: str, followed: Callable[[], None], adopted: bool = False
    ) -> None:
        """Follow the program that was started in `pane`, by us or `adopted`, until it is over.

        `followed` is called when that has begun. Ends also when it `needs_pane`.
        """
        self._pane, self.window_id = pane, window_id
        self.restarts += self.needs_pane
        self.needs_pane = False
        pane.keep_open()
        known = self._started_at, self._started_wall
        self._monitor.expect_program(pane)
        self._note_started()
        if adopted and known[0] is not None:
            self._started_at, self._started_wall = known
        followed()
        if not self._monitor.is_reading:
            # That of the last run may not have noticed yet that it is over.
            self._nursery.start_soon(self._monitor.run)
        try:
            await self._supervise()
        except (ConnectionClosed, PaneNotFound) as error:
            self._failed(f"its pane is gone: {error}")
        except TmuxError as error:
            self._failed(str(error))
        finally:
            self._readiness.program_ended()

    def _failed(self, why: str) -> None:
        """It can't be started, or not be followed any more."""
        self.failure = why
        self._set_life(Life.FAILED)
        self._end()

    def _reported(self, text: str) -> None:
        """The program said by itself what it is doing."""
        self._monitor.note_report(text)

    def _adopted_at(self, offset: int) -> None:
        """Up to `offset` its output was written before this master came."""
        self._monitor.begin_at(offset)

    def _remember(self, sent: Iterable[str], state: AgentState | None, *, dead: bool) -> None:
        """What an earlier master has noted: the keys of what it typed, and how the agent was.

        If its program is `dead` and the master did not mean to start it again, nor do we.
        """
        self._sent.update(dict.fromkeys(sent, SendOutcome.UNKNOWN))
        if state is not None:
            self.restarts = state.restarts
            ended = state.life in (Life.EXITED.value, Life.FAILED.value)
            if dead and ended and state.restart_at is None:
                self._settled = state
            if state.started is not None:
                self._started_wall = state.started
                self._started_at = trio.current_time() - max(0.0, time.time() - state.started)

    # Its program's life

    async def _supervise(self) -> None:
        while True:
            if self.is_given_up:
                self._nursery.start_soon(self._end_late)
            self._readiness.watch(self._nursery, cwd=self.program.cwd, env=self.program.variables)
            status = await self._client.through_reconnects(self.pane.wait_exit)
            # Whoever hears of the end finds all that it wrote counted, and in its log.
            self._monitor.catch_up()
            self.exit_status = status
            self._readiness.program_ended()
            self._monitor.stop_looking_for_ready()
            if self._settled is not None:
                self._stay_ended(self._settled)
                return
            # Decide first: until it is known whether another start follows, neither we nor a later
            # master may take this end for the last.
            decision = await self._decide(status)
            if isinstance(decision, GiveUp):
                self._set_life(Life.EXITED)
                if decision.crash_loop:
                    self._failed(decision.reason)
                else:
                    self._end()
                return
            if not await self._wait_restart(decision):
                self._end()
                return
            self._readiness.program_starts()
            self._set_life(Life.STARTING)
            try:
                await self._respawn()
            except PaneNotFound:
                self.needs_pane = True
                self.pane.forget()
                return
            except TmuxError as error:
                self._failed(f"it can't be started again: {error}")
                return
            self.restarts += 1
            self._note_started()

    @trio.lowlevel.enable_ki_protection
    async def _end_late(self) -> None:
        await self.stop(grace=0)

    async def _decide(self, status: ExitStatus) -> Restart | GiveUp:
        """Whether the program is to be started again, and when."""
        now = trio.current_time()
        return decide_restart(
            self.spec.restart,
            self._history,
            ok=status.ok,
            requested=await self._is_end_requested(),
            ran_for=now - (self._started_at if self._started_at is not None else now),
            now=now,
            random=random.random(),  # noqa: S311 - spreads restarts, is no secret
        )

    async def _wait_restart(self, decision: Restart) -> bool:
        """Wait until it is time to start it again; False if nobody wants that any more."""
        self._history = decision.history
        self.restart_at = trio.current_time() + decision.delay
        self._restart_wall = round(time.time() + decision.delay, 3)
        self._set_life(Life.EXITED)
        try:
            with trio.CancelScope() as self._backoff:
                if self._stop_requested:
                    return False
                await trio.sleep_until(self.restart_at)
            # There was time, and what was heard before may be old by now.
            self.is_unwanted = None
            return not await self._is_end_requested()
        finally:
            self.restart_at = None

    def _stay_ended(self, state: AgentState) -> None:
        """An earlier master has settled that it is not started again."""
        self._settled = None
        self._set_life(Life.EXITED)
        if state.life == Life.FAILED.value:
            self._failed(state.failure)
        else:
            self._stop_requested = state.status == AgentStatus.STOPPED.value
            self._end()

    async def _is_end_requested(self) -> bool:
        """Whether we or another shell have asked for its end, and so against a restart."""
        if self._stop_requested:
            return True
        unwanted = self.is_unwanted
        if unwanted is None:
            answer = await self._client.through_reconnects(
                lambda: self._client.command(
                    "display-message", "-p", "-t", self.pane_id, f"#{{==:#{{{WANTED}}},{STOPPED}}}"
                )
            )
            unwanted = answer == ["1"]
        if unwanted:
            self._stop_requested = True
        # We may have asked meanwhile.
        return self._stop_requested

    async def _respawn(self) -> None:
        """Start its program once more, in its pane.

        Raises what `Pane.respawn` and `Program.prepare` raise.
        """
        program, kill = self.program, False
        program.prepare()
        while True:
            try:
                # What the last one has said of itself is not said by this one.
                with suppress(CommandError):
                    # That the pane is gone is told next.
                    await self._client.command("set-option", "-pu", "-t", self.pane_id, REPORT)
                await self.pane.respawn(
                    program.argv, cwd=program.cwd, env=program.variables, kill=kill
                )
            except ConnectionClosed:
                await self._client.wait_connected()
                # Nobody knows whether it was started.
                kill = True
            else:
                return

    def _note_started(self) -> None:
        now = trio.current_time()
        self._started_at, self._started_wall = now, round(time.time(), 3)
        self.exit_status = None
        self.failure = ""
        self._expected = False
        self._readiness.program_runs()
        self._set_life(Life.RUNNING)
        self._monitor.note_running()

    def _end(self) -> None:
        if self.window_id:
            self.pane.keep_open(False)
        self._over.set()
        self._wake()

    def _set_life(self, life: Life) -> None:
        assert life is self.life or life in NEXT[self.life], (self.life, life)
        self.life = life
        self._wake()

    def _wake(self) -> None:
        self._changed.unpark_all()
        self._changed_outside(self)
