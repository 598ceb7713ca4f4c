"""How an agent is ended: asked, told, killed, and nothing that it started is left.

The ladder knows neither the swarm nor tmux: what it needs of them are functions. How processes are
found and signalled is in processes.py.

On systems without /proc only the pane's own process can be ended; its program then gets no more
than the hang-up of its terminal.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import trio
from attrs import Factory, define, frozen

from ..client.output import ExitStatus
from ..errors import TmuxError
from .processes import (
    Identity,
    ProcessState,
    Snapshot,
    halt,
    identity,
    is_alive,
    send_signal_to,
    send_signal_to_group,
    take_snapshot,
    wait_gone,
)
from .spec import StopPolicy

LAST_WORDS = 1.0
"""Seconds within which the wrapper of a program that was killed has to tell its end. It needs a
millisecond; whoever floods the terminal beside it may hold it up."""

STRAYS_GRACE = 1.0
"""Seconds at most between SIGTERM and SIGKILL for what outlives the program it belongs to."""

CANCELLED_GRACE = 2.0
"""Seconds at most that a cancelled ending goes on, to leave nothing behind."""

SCAN_INTERVAL = 0.02
"""Seconds between two looks at /proc, however many agents end at a time."""

SCAN_SHARE = 1.0
"""On a machine with very many processes a look takes longer; it is then so many times as long
until the next one, so that half of the time at most goes there."""

# SIGKILL takes a moment to free the memory of a large process.
_KILL_WAIT = 0.5
# The program of an agent that was started just now is not there yet.
_BIRTH_WAIT = 1.0
_ROUNDS = 20
_VAIN_ROUNDS = 3


@frozen
class StopStep:
    """What was done, `at` how many seconds after the beginning, and to which processes.

    `action` is such as ``"C-c typed"``, ``"SIGTERM"``, ``"SIGKILL"``, ``"SIGTERM to strays"``.
    """

    action: str
    at: float
    pids: tuple[int, ...] = ()


@frozen
class StopReport:
    """What it took to end an agent; `str()` of it is one line for people.

    `exit_status` is how the program ended, None where nobody could tell. `strays` are the processes
    that were found beside the program and signalled, as ``"PID NAME"``. `seconds` is how long it
    took, and `left` what could not be ended: processes of another user, or in the hands of a
    driver that does not answer.
    """

    agent_id: str
    exit_status: ExitStatus | None
    steps: tuple[StopStep, ...]
    strays: tuple[str, ...]
    seconds: float
    left: tuple[int, ...]

    def __str__(self) -> str:
        main = [step for step in self.steps if not step.action.endswith(_BESIDE)]
        acts = [main[0].action if main else "it had ended"]
        acts += [f"{step.action} after {step.at:.1f} s" for step in main[1:]]
        parts = [", then ".join(acts)]
        if self.strays:
            killed = any(step.action == f"SIGKILL{_STRAYS}" for step in self.steps)
            many = "strays" if len(self.strays) > 1 else "stray"
            parts.append(f"{len(self.strays)} {many} {'killed' if killed else 'ended'}")
        parts.append(_how(self.exit_status))
        if self.left:
            parts.append(f"could not be ended: {' '.join(map(str, self.left))}")
        return f"{self.agent_id}: {'; '.join(parts)}"


_STRAYS = " to strays"
_WRAPPER = " to the wrapper"
_BESIDE = (_STRAYS, _WRAPPER)


def _how(status: ExitStatus | None) -> str:
    if status is not None and status.signal is not None:
        try:
            return f"killed by {signal.Signals(status.signal).name}"
        except ValueError:
            return f"killed by signal {status.signal}"
    return "exit unknown" if status is None or status.code is None else f"exit {status.code}"


async def end_agent(
    *,
    agent_id: str,
    policy: StopPolicy,
    grace: float | None = None,
    wrapper_pid: int | None,
    marks: Collection[bytes],
    ask: Callable[[], Awaitable[None]],
    ended: Callable[[], bool],
    wait_ended: Callable[[], Awaitable[ExitStatus]],
    spare: Collection[int] = (),
) -> StopReport:
    """End an agent's program and all that it has started; what that took.

    First it is asked as `policy` says: `ask` types its keys or text, or its signal goes to the
    program and everything that it started. If it has not ended by then, SIGTERM follows, and after
    `grace` seconds (None: the policy's) SIGKILL. Where SIGTERM was not the first, it has the last
    third of them; with none at all SIGKILL comes at once. What outlives the program gets SIGTERM
    and, at most `STRAYS_GRACE` later, SIGKILL. A program that ends when it is asked and leaves
    nobody behind gets nothing more.

    `wrapper_pid` is the pane's own process, under which the program was started. It is spared so
    that it can tell the end, and ended at last if it does not do so by itself. A process that has
    this number but not all `marks` (``NAME=value``, at least one) in its environment is another
    one. `ended` says whether the program's end has been told and `wait_ended` waits for that; where
    it raises a `TmuxError`, nobody will tell. Where `ask` does, or does not return in its time, the
    ladder goes on. `spare` are processes that are never touched, such as the tmux server.

    What is found: the descendants of the wrapper, those with the marks, and the sessions of both;
    and whatever was found once, whomever it belongs to later. A process that has
    both cleared its environment and lost its parents before the first look is not found.

    Takes about `grace` seconds at most, a few more if something can't be ended. Cancelled, it
    leaves nothing behind all the same: it goes straight to SIGKILL, for `CANCELLED_GRACE` at most.
    """
    if not marks:
        raise ValueError("marks are needed to tell the processes of an agent from others")
    with _scans() as scans:
        ending = _Ending(
            policy=policy,
            grace=policy.grace if grace is None else grace,
            wrapper_pid=wrapper_pid,
            marks=marks,
            ask=ask,
            ended=ended,
            wait_ended=wait_ended,
            spare=spare,
            scans=scans,
            started=trio.current_time(),
        )
        complete = False
        try:
            await ending.run()
            complete = True
        finally:
            if not complete:
                deadline = trio.current_time() + CANCELLED_GRACE
                with trio.CancelScope(shield=True, deadline=deadline):
                    await ending.kill()
    return StopReport(
        agent_id,
        ending.status,
        tuple(ending.steps),
        tuple(ending.strays.values()),
        trio.current_time() - ending.started,
        tuple(ending.left),
    )


async def end_marked(
    marks: Collection[bytes], *, grace: float = STRAYS_GRACE, spare: Collection[int] = ()
) -> StopReport:
    """End every process that has all `marks` in its environment, and what it started; what it took.

    For what is left where nobody knows of agents any more: SIGTERM, and after `grace` seconds
    SIGKILL.
    """
    return await end_agent(
        agent_id=" ".join(mark.decode("utf-8", "backslashreplace") for mark in marks),
        policy=StopPolicy(),
        grace=grace,
        wrapper_pid=None,
        marks=marks,
        ask=trio.lowlevel.checkpoint,
        ended=lambda: True,
        wait_ended=_nobody_tells,
        spare=spare,
    )


async def _nobody_tells() -> ExitStatus:
    await trio.sleep_forever()
    raise AssertionError


# Looking at /proc together


@define(eq=False)
class _Scans:
    """Snapshots that many endings share."""

    users: int = 0
    _lock: trio.Lock = Factory(trio.Lock)
    _latest: Snapshot | None = None
    _begun: float = 0.0
    _next: float = 0.0

    async def take(self) -> Snapshot:
        """A snapshot that was not begun before this call."""
        asked = trio.current_time()
        async with self._lock:
            if self._latest is None or self._begun < asked:
                await trio.sleep_until(self._next)
                # Not in a thread: whatever else runs would be let in between any two of the
                # thousand system calls, for milliseconds each.
                self._begun = trio.current_time()
                self._latest = take_snapshot(environments=True)
                took = trio.current_time() - self._begun
                self._next = self._begun + took + max(SCAN_INTERVAL, SCAN_SHARE * took)
            return self._latest

    def forget(self) -> None:
        """Nobody needs the latest one any more."""
        self._latest = None


_RUN_SCANS: trio.lowlevel.RunVar[_Scans] = trio.lowlevel.RunVar("tmuxcc_scans")


@contextmanager
def _scans() -> Iterator[_Scans]:
    try:
        scans = _RUN_SCANS.get()
    except LookupError:
        scans = _Scans()
        _RUN_SCANS.set(scans)
    scans.users += 1
    try:
        yield scans
    finally:
        scans.users -= 1
        if not scans.users:
            scans.forget()


# The ladder


@define(eq=False)
class _Ending:
    """One agent on its way out."""

    policy: StopPolicy
    grace: float
    wrapper_pid: int | None
    marks: Collection[bytes]
    ask: Callable[[], Awaitable[None]]
    ended: Callable[[], bool]
    wait_ended: Callable[[], Awaitable[ExitStatus]]
    spare: Collection[int]
    scans: _Scans
    started: float

    steps: list[StopStep] = Factory(list)
    strays: dict[Identity, str] = Factory(dict)
    left: list[int] = Factory(list)
    status: ExitStatus | None = None

    _wrapper: Identity | None = None
    _known: set[Identity] = Factory(set)
    _helpers: set[Identity] = Factory(set)
    _killed: set[Identity] = Factory(set)
    _programs: set[int] = Factory(set)
    _groups: set[int] = Factory(set)
    _ours: set[int] = Factory(set)
    _vain: int = 0
    _told: trio.Event = Factory(trio.Event)
    _deaf: bool = False
    _gone: bool = False

    async def run(self) -> None:
        """All of it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            killed = not self._has_ended() and not await self._ask_to_end()
            gentle = not killed and trio.current_time() < self.started + self.grace
            await self._clear(gentle=gentle)
            await self._hear_last_words(killed)
            await self._end_wrapper()
            nursery.cancel_scope.cancel()

    async def kill(self) -> None:
        """The short form for those in a hurry."""
        await self._clear()
        await self._end_wrapper()

    async def _listen(self) -> None:
        try:
            self.status = await self.wait_ended()
        except TmuxError:
            # The processes show that the program has ended, if not how.
            self._deaf = True
        else:
            self._told.set()

    def _has_ended(self) -> bool:
        return self._gone or self._told.is_set() or self.ended()

    # Asking

    async def _ask_to_end(self) -> bool:
        """Everything before SIGKILL; whether the program has ended of it."""
        if self.grace <= 0 or self.policy.signal == signal.SIGKILL.name:
            return False
        last = self.started + self.grace
        typed = _typed(self.policy)
        first = signal.Signals[self.policy.signal]
        if typed is not None or first != signal.SIGTERM:
            third = self.started + self.grace * 2 / 3
            if typed is not None:
                # Those who lose their parents by it, and have no mark, are known from before.
                await self._look()
                asked = await self._type(typed, third)
            else:
                asked = await self._tell(first, third)
            if asked:
                await self._wait_end(third)
        if not self._has_ended() and await self._tell(signal.SIGTERM, last):
            await self._wait_end(last)
        return self._has_ended()

    async def _type(self, what: str, deadline: float) -> bool:
        at = self._seconds()
        done = False
        # That its pane is dead, or nobody answers: whatever it is, signals get through.
        with trio.CancelScope(deadline=deadline), suppress(TmuxError):
            await self.ask()
            done = True
        self.steps.append(StopStep(f"{what} {'typed' if done else 'could not be typed'}", at))
        return done

    async def _tell(self, number: signal.Signals, deadline: float) -> bool:
        """A signal to all but the wrapper; whether there was anybody."""
        deadline = min(deadline, trio.current_time() + _BIRTH_WAIT)
        while True:
            members = await self._look()
            if self._signal(members, number):
                return True
            if self._has_ended() or trio.current_time() >= deadline:
                return False

    async def _wait_end(self, deadline: float) -> None:
        """Until the program's end is told, or all that is known of it is gone."""

        async def first(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        with trio.CancelScope(deadline=deadline):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first, self._told.wait)
                nursery.start_soon(first, self._wait_all_gone)

    async def _wait_all_gone(self) -> None:
        while True:
            alone = {self._wrapper} if self._wrapper is not None else set()
            await wait_gone(self._known or alone)
            if not await self._look():
                self._gone = True
                return

    # Looking and signalling

    async def _look(self) -> list[ProcessState]:
        """All that belongs to the agent now, but the wrapper and what it does for itself."""
        snapshot = await self.scans.take()
        self._recognise(snapshot)
        roots = self._known if self._wrapper is None else self._known | {self._wrapper}
        family = snapshot.family(roots=roots, marks=self.marks, spare=self.spare)
        others = [each for each in family if each.identity != self._wrapper]
        members = [each for each in others if not self._is_helper(each)]
        self._helpers.update(each.identity for each in others if self._is_helper(each))
        if self._wrapper is not None and not self._has_ended():
            self._programs |= {each.group for each in members if each.parent == self.wrapper_pid}
        self._known.update(each.identity for each in members)
        self._groups = snapshot.whole_groups(members)
        self._ours = snapshot.ours
        return members

    def _recognise(self, snapshot: Snapshot) -> None:
        pid = self.wrapper_pid
        if pid is None or self._wrapper is not None:
            return
        if pid in snapshot.marked(self.marks):
            self._wrapper = snapshot.processes[pid].identity
        elif not snapshot.processes:
            self._wrapper = identity(pid)

    def _is_helper(self, process: ProcessState) -> bool:
        # Programs have groups of their own, if the wrapper's shell can do that. When it has told
        # the end, it waits for a sleep, and takes that along when it goes.
        return process.group == self.wrapper_pid and (
            process.name == "sleep" or self._has_ended() or not self._programs <= {self.wrapper_pid}
        )

    def _signal(self, members: Sequence[ProcessState], number: signal.Signals) -> bool:
        """Signal them and write it down; whether anybody got it."""
        at_once = self._signal_groups(members, number) if number == signal.SIGKILL else set()
        others = [each.identity for each in members if each.group not in at_once]
        sent = {each.identity for each in members if each.group in at_once}
        sent.update(send_signal_to(others, number))
        if number != signal.SIGKILL:
            # A stopped process heeds nothing else before it goes on.
            stopped = [each.identity for each in members if each.state in "Tt"]
            send_signal_to(stopped, signal.SIGCONT)
        ended = self._has_ended()
        program: list[int] = []
        strays: list[int] = []
        for each in members:
            if each.identity not in sent:
                continue
            if ended or each.group not in self._programs:
                self.strays[each.identity] = f"{each.pid} {each.name}"
            (strays if ended else program).append(each.pid)
        self._note(number.name, program)
        self._note(f"{number.name}{_STRAYS}", strays)
        return bool(sent)

    def _signal_groups(self, members: Iterable[ProcessState], number: signal.Signals) -> set[int]:
        """To whole groups at a time, so that nobody is born meanwhile; to which."""
        done: set[int] = set()
        for each in members:
            if each.group in self._groups - done and send_signal_to_group(each, number):
                done.add(each.group)
        return done

    def _note(self, action: str, pids: Collection[int]) -> None:
        if not pids:
            return
        if self.steps and self.steps[-1].action == action:
            last = self.steps.pop()
            more = (pid for pid in pids if pid not in last.pids)
            self.steps.append(StopStep(action, last.at, (*last.pids, *more)))
        else:
            self.steps.append(StopStep(action, self._seconds(), tuple(pids)))

    def _seconds(self) -> float:
        return trio.current_time() - self.started

    # Clearing up

    async def _clear(self, *, gentle: bool = False) -> None:
        """End whatever is there but the wrapper, first gently if there is time for that."""
        for _ in range(_ROUNDS):
            members = await self._look()
            self.left = [each.pid for each in members]
            if not members or self._vain == _VAIN_ROUNDS:
                return
            who = {each.identity for each in members}
            if gentle:
                gentle = False
                self._signal(members, signal.SIGTERM)
                patience = trio.current_time() + STRAYS_GRACE
                await self._wait_gone_until(who, min(patience, self.started + self.grace))
                continue
            if who <= self._killed:
                self._vain += 1
            elif self._killed:
                # Those that are new were born behind our back: nobody may give birth now.
                await self._freeze()
                members = await self._look()
            self._kill(members)
            await self._wait_gone_until(self._killed, trio.current_time() + _KILL_WAIT)

    def _kill(self, members: Sequence[ProcessState]) -> None:
        self._signal(members, signal.SIGKILL)
        self._killed.update(each.identity for each in members)

    async def _freeze(self) -> None:
        """Stop all that bear the marks, until there is none that was not stopped before."""
        spare = {*self.spare, *self._ours}
        if self._wrapper is not None:
            spare.add(self._wrapper.pid)
        halted: set[Identity] = set()
        for _ in range(_ROUNDS):
            await trio.lowlevel.checkpoint()
            new = set(halt(self.marks, spare=spare)) - halted
            if not new:
                return
            halted |= new
            self._known |= new
            self._note(signal.SIGSTOP.name, [each.pid for each in new])

    async def _wait_gone_until(self, processes: Collection[Identity], deadline: float) -> None:
        with trio.CancelScope(deadline=deadline):
            await wait_gone(processes)

    async def _hear_last_words(self, killed: bool) -> None:
        """The wrapper tells the end at once, but behind all that was written before."""
        if self._deaf:
            return
        now = trio.current_time()
        deadline = now + LAST_WORDS
        if self.ended():
            deadline = now
        elif not killed:
            deadline = max(deadline, self.started + self.grace)
        with trio.CancelScope(deadline=deadline):
            await self._told.wait()

    async def _end_wrapper(self) -> None:
        """It goes as soon as what it tells is read; without a listener, now."""
        wrapper = set() if self._wrapper is None else {self._wrapper}
        if self._told.is_set():
            await self._wait_gone_until(wrapper, trio.current_time() + LAST_WORDS)
        await self._kill_own(wrapper)
        # What it did for itself goes with it, and is gone a moment later.
        await self._clear()
        await self._wait_gone_until(self._helpers, trio.current_time() + LAST_WORDS)
        await self._kill_own(self._helpers)
        self.left += [each.pid for each in wrapper | self._helpers if is_alive(each)]

    async def _kill_own(self, processes: set[Identity]) -> None:
        if sent := send_signal_to(processes, signal.SIGKILL):
            self._note(f"SIGKILL{_WRAPPER}", [each.pid for each in sent])
            await self._wait_gone_until(sent, trio.current_time() + _KILL_WAIT)


def _typed(policy: StopPolicy) -> str | None:
    """What is typed, as it is shown."""
    if policy.keys:
        return " ".join(policy.keys)
    if policy.text is None:
        return None
    return repr(policy.text if len(policy.text) <= 40 else policy.text[:39] + "…")
