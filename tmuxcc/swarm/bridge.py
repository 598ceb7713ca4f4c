"""Trio inside of a program that is written for asyncio, or for no loop at all.

A `Portal` is a thread that runs trio for its whole life. Code under asyncio hands a call over and
awaits the result: ``await portal.call(swarm.spawn, "agent-1", argv)``. What runs inside is plain
trio and knows nothing of it. Swarms and tmux must not live here.

What this adds to native trio, with what trio as a guest of the asyncio loop
(`trio.lowlevel.start_guest_run`) would add, on 2 cores, where nothing else ran and with a load of
15 (milliseconds; ``python -m benchmarks.bridge`` measures it again, with both ways in turns)::

                                          thread                      guest
    a call, p50                           0.15 (loaded 0.06)          0.14 (0.06)
    a call, p99                           0.7  (2.4)                  0.5  (3.7)
    a line pushed to asyncio, p50         0.09 (0.07)                 0.11 (0.09)
    a line pushed to asyncio, p99         0.2  (1.0)                  0.3  (2.7)
    trio's reader behind a callback of
    asyncio that computes for 50 ms       3 (p99 8 to 13)             25 (p99 50)

Waiting costs 0.01 % of a core either way. A guest does two to three times as many calls at once and
items of a flood (the thread: 13,000 calls and 700,000 items each second, more than tmux delivers).
But what holds up the asyncio loop would hold up the reader of tmux, which then loses output, and
asyncio ends its loop without asking a guest whether it has cleaned up. Hence the thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast
from weakref import WeakSet

import trio
from attrs import frozen

from ..errors import PortalClosed
from .bridge_stream import BUFFER, PortalStream
from .handover import Answer, Job, Outcome, call_in_loop, wake

P = ParamSpec("P")
T = TypeVar("T")

State: TypeAlias = Literal["new", "running", "closing", "closed"]


def current_library() -> Literal["trio", "asyncio"]:
    """The library whose task is running. Raises `RuntimeError` outside of both."""
    if trio.lowlevel.in_trio_task():
        return "trio"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no asyncio and no trio task is running here: call this from a coroutine that"
            " asyncio.run() or trio.run() runs"
        ) from None
    return "asyncio"


@frozen
class PortalStatistics:
    """`tasks` is the number of calls, open contexts and streams that are alive in trio."""

    state: State
    tasks: int


class Portal:
    """A thread that runs trio, and the ways into it.

    It is started by its first use and belongs to the asyncio loop and the thread that this happens
    in. All methods may be used from any thread and any loop, the ``async`` ones under asyncio.

    `aclose` (`close` outside of asyncio, or the end of an ``async with`` or ``with`` block) cancels
    what still runs inside, and waits until its cleanup has come to its end. Without it the same
    happens at the end of ``asyncio.run`` (before it returns, and after the tasks of the program
    have ended, so that these can still use the portal for their cleanup), whether the program
    returns, fails or is interrupted. Under asyncio in the main thread it also happens before
    SIGTERM or SIGHUP end the program, unless that does something else about them. Where a loop is
    given up without `loop.shutdown_asyncgens`, it happens when the thread that the portal belongs
    to ends (for a daemon thread: the main thread), and the interpreter waits for it. A portal that
    was closed stays so: make another one.

    A call sees a copy of the context variables of its caller. Its exceptions come out as they are.
    An error that nobody can take any more (its loop is closed, its stream was dropped, nobody
    closed its context) is raised by `aclose`, and if nobody waits for that either it goes to
    `threading.excepthook`.
    """

    def __init__(self) -> None:
        # Guards what both sides touch. Reentrant, since a stream may be collected at any point.
        self.lock = threading.RLock()
        self._state: State = "new"
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._inbox: list[Callable[[], object]] = []  # what trio's thread is to call
        self._rung = False  # trio has been told of what lies there
        self._jobs: set[Job] = set()
        self._errors: list[BaseException] = []
        self._ended = Answer(self.lock, awaited=False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._nursery: trio.Nursery
        self._closing: trio.Event

    async def call(
        self, async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``await async_fn(*args, **kwargs)`` in trio; its result or its exception.

        A cancel of the asyncio task cancels the call and waits until it has ended; a result that it
        gives in spite of that is lost, an exception is raised. Raises `PortalClosed` if the portal
        is closed, or gets closed before the call has ended.
        """
        job = Job(partial(async_fn, *args, **kwargs), Answer(self.lock, awaited=True))
        await self.begin_in_loop(job)
        return cast("T", await self._result(job))

    def run(self, async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for a thread without a loop, which it blocks. Ctrl-C cancels the call.

        Raises `RuntimeError` where a loop runs.
        """
        _refuse_in_a_loop("call")
        job = Job(partial(async_fn, *args, **kwargs), Answer(self.lock, awaited=True))
        self._begin(job)
        return cast("T", self._result_blocking(job))

    async def open(
        self,
        factory: Callable[P, AbstractAsyncContextManager[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Opened[T]:
        """Enter the async context manager ``factory(*args, **kwargs)`` in trio; it stays open.

        Its block is a task of its own in trio, which waits for `Opened.aclose`. A cancel while it
        is entered leaves it again, and waits for that.
        """
        opened = Opened(self, partial(factory, *args, **kwargs))
        await self.begin_in_loop(opened._job)
        interrupt = await self.until(opened._entered, opened._job)
        if interrupt is not None or not opened._is_entered:
            await self._result(opened._job, interrupt)
        return opened

    def enter(
        self,
        factory: Callable[P, AbstractAsyncContextManager[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Opened[T]:
        """As `open`, for a thread without a loop, which it blocks."""
        _refuse_in_a_loop("open")
        opened = Opened(self, partial(factory, *args, **kwargs))
        self._begin(opened._job)
        interrupt = self._until_blocking(opened._entered, opened._job)
        if interrupt is not None or not opened._is_entered:
            self._result_blocking(opened._job, interrupt)
        return opened

    def iterate(
        self, factory: Callable[[], AsyncIterable[T]], *, buffer: int = BUFFER
    ) -> PortalStream[T]:
        """The items of ``factory()``, which is iterated over in trio, for asyncio.

        At most `buffer` items wait in the portal, and as many may be in the hands of the consumer.
        When they do, the source is not asked for more until the consumer has come through: nothing
        is lost on the way, and what the source does meanwhile (wait, drop, count a gap) is its own
        affair. Nothing is started before the first item is asked for.
        """
        if buffer < 1:
            raise ValueError(f"the buffer must hold at least one item, not {buffer}")
        return PortalStream(self, factory, buffer)

    async def aclose(self) -> None:
        """Cancel what runs in trio and wait for its end, also when cancelled. Harmless twice."""
        await self._end()
        if self._guard is not None and self._loop is asyncio.get_running_loop():
            await self._guard.aclose()

    def close(self) -> None:
        """As `aclose`, for a thread without a loop, which it blocks."""
        _refuse_in_a_loop("aclose")
        self._ended.awaited = True
        self._close_soon()
        interrupt = self._until_blocking(self._ended, None)
        self._raise_errors(interrupt)

    @property
    def closed(self) -> bool:
        """Whether it takes no calls any more."""
        return self._state in {"closing", "closed"}

    def statistics(self) -> PortalStatistics:
        """What is going on inside."""
        return PortalStatistics(self._state, len(self._jobs))

    async def __aenter__(self) -> Portal:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> Portal:
        _refuse_in_a_loop("aclose")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # What happens in the thread of the caller.

    async def begin_in_loop(self, job: Job) -> None:
        """Start `job`, and the portal with it if that has not been. Raises `PortalClosed`."""
        if self._begin(job):
            # `asyncio.run` closes the generators that are still open when all tasks have ended,
            # and waits for that. So this one hears of the end while the loop can still wait.
            self._loop = asyncio.get_running_loop()
            self._guard = self._guard_loop()
            await anext(self._guard)
            _heed_signals(self._loop)

    async def _guard_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._guard = None
            await self._end()

    def _begin(self, job: Job) -> bool:
        """Start `job`; whether the portal was started with it."""
        with self.lock:
            # After a fork there is no such thread in the child.
            if self.closed or (self._thread is not None and not self._thread.is_alive()):
                raise PortalClosed("the portal is closed")
            first = self._thread is None
            if first:
                _close_at_end_of(_owner(), self)
                thread = threading.Thread(target=self._run, name="tmuxcc-portal", daemon=False)
                thread.start()
                self._thread = thread
                self._state = "running"
            if not self.send(partial(self._start_job, job)):
                raise PortalClosed("the portal is closed: trio has ended")
        return first

    def send(self, function: Callable[[], object]) -> bool:
        """Have `function` called in trio's thread, in order; False if trio has ended."""
        with self.lock:
            if self._state == "closed":
                return False
            self._inbox.append(function)
            if self._token is not None and not self._rung:
                try:
                    self._token.run_sync_soon(self._empty_inbox)
                except trio.RunFinishedError:
                    return False
                self._rung = True
            return True

    async def until(self, answer: Answer, job: Job | None) -> BaseException | None:
        """Wait for `answer`, also when cancelled, which cancels `job`; the first cancellation."""
        loop = asyncio.get_running_loop()
        interrupt: BaseException | None = None
        while True:
            waiter = loop.create_future()
            if not answer.tell(partial(call_in_loop, loop, partial(wake, waiter))):
                try:
                    return interrupt
                finally:
                    del interrupt  # its traceback holds this frame
            try:
                await waiter
            except asyncio.CancelledError as cancelled:
                interrupt = interrupt or cancelled
                if job is not None:
                    self.send(job.scope.cancel)
            except BaseException:
                # The coroutine is closed without having come to its end.
                if job is not None:
                    self.abandon(job)
                raise

    def _until_blocking(self, answer: Answer, job: Job | None) -> BaseException | None:
        done = threading.Event()

        def tell() -> bool:
            done.set()
            return True

        if answer.tell(tell):
            try:
                done.wait()
            except KeyboardInterrupt as interrupt:
                if job is not None:
                    self.send(job.scope.cancel)
                done.wait()
                return interrupt
        return None

    async def _result(self, job: Job, interrupt: BaseException | None = None) -> object:
        later = await self.until(job.answer, job)
        try:
            return self.take(job.answer).unwrap(interrupt or later)
        finally:
            del interrupt, later

    def _result_blocking(self, job: Job, interrupt: BaseException | None = None) -> object:
        later = self._until_blocking(job.answer, job)
        return self.take(job.answer).unwrap(interrupt or later)

    def take(self, answer: Answer) -> Outcome:
        """The outcome in an answer that is there; its error is told then."""
        outcome = answer.take()
        with self.lock:
            self._errors = [error for error in self._errors if error is not outcome.error]
        return outcome

    def abandon(self, job: Job) -> None:
        """Cancel `job`; nobody will ask how it ended."""
        job.answer.forget()
        self.send(job.scope.cancel)

    def _close_soon(self) -> None:
        with self.lock:
            if self.closed:
                return
            if self._thread is None or not self._thread.is_alive():
                self._state = "closed"
                self._ended.give(Outcome())
            else:
                self._state = "closing"
                self.send(self._cancel_jobs)

    async def _end(self) -> None:
        self._ended.awaited = True
        self._close_soon()
        interrupt = await self.until(self._ended, None)
        self._raise_errors(interrupt)

    def _raise_errors(self, interrupt: BaseException | None = None) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()  # which has nothing more to do
        with self.lock:
            errors, self._errors = self._errors, []
        if len(errors) > 1:
            raise BaseExceptionGroup("several tasks in the portal failed", errors)
        Outcome(error=errors.pop() if errors else None).unwrap(interrupt)

    # What happens in trio's thread.

    def _run(self) -> None:
        try:
            trio.run(self._main)
        finally:
            # Trio breaks down only by a fault inside of it: that goes to the excepthook.
            with self.lock:
                self._state = "closed"
                self._token = None
            for job in list(self._jobs):
                self._finish(job, Outcome(cut_off=True))
            is_awaited = self._ended.give(Outcome())
        if not is_awaited:
            self._raise_errors()

    async def _main(self) -> None:
        self._closing = trio.Event()
        async with trio.open_nursery() as self._nursery:
            with self.lock:
                self._token = trio.lowlevel.current_trio_token()
            self._empty_inbox()
            await self._closing.wait()

    def _empty_inbox(self) -> None:
        with self.lock:
            functions, self._inbox = self._inbox, []
            self._rung = False
        for function in functions:
            function()

    def _start_job(self, job: Job) -> None:
        self._jobs.add(job)
        job.context.run(
            partial(self._nursery.start_soon, self._run_job, job, name=job.function),
        )

    async def _run_job(self, job: Job) -> None:
        try:
            with job.scope:
                value = await job.function()
        except trio.Cancelled:
            # Not by the scope of the call: trio itself breaks down.
            outcome = Outcome(cut_off=True)
        except BaseException as error:
            outcome = Outcome(error=error)
        else:
            outcome = Outcome(cut_off=True) if job.scope.cancelled_caught else Outcome(value)
        try:
            self._finish(job, outcome)
        finally:
            # The traceback of an error holds this frame.
            del outcome

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._jobs.discard(job)
        if not job.answer.give(outcome) and outcome.error is not None:
            with self.lock:
                self._errors.append(outcome.error)

    def _cancel_jobs(self) -> None:
        # Each by its own scope, which takes the cancellation out of what the task raises.
        self._closing.set()
        for job in self._jobs:
            job.scope.cancel()


class Opened(Generic[T]):
    """An async context manager that is open in trio; `Portal.open` and `Portal.enter` give it.

    `aclose` (`close` outside of asyncio) leaves it. As ``async with await portal.open(...) as
    value`` (``with portal.enter(...) as value``) the end of the block does.
    """

    def __init__(
        self, portal: Portal, factory: Callable[[], AbstractAsyncContextManager[T]]
    ) -> None:
        self.value: T
        self._portal = portal
        self._factory = factory
        self._entered = Answer(portal.lock, awaited=True)
        self._is_entered = False
        self._leave = trio.Event()
        self._job = Job(self._hold, Answer(portal.lock, awaited=True))
        self._job.answer.tell(self._note_end)

    async def _hold(self) -> None:
        async with self._factory() as value:
            self.value = value
            self._is_entered = True
            self._entered.give(Outcome())
            await self._leave.wait()

    def _note_end(self) -> bool:
        # Whoever waits for it to be entered asks for the outcome then; later on nobody may.
        waits = not self._is_entered
        self._entered.give(Outcome())
        return waits

    async def aclose(self) -> None:
        """Leave the context in trio and wait until it is left. Harmless a second time.

        A cancel reaches into the leaving, which is waited for nevertheless. Raises what leaving
        raises, also if that was before: a context that fails ends its block by itself.
        """
        self._portal.send(self._leave.set)
        interrupt = await self._portal.until(self._job.answer, self._job)
        self._finish(interrupt)

    def close(self) -> None:
        """As `aclose`, for a thread without a loop, which it blocks."""
        _refuse_in_a_loop("aclose")
        self._portal.send(self._leave.set)
        interrupt = self._portal._until_blocking(self._job.answer, self._job)
        self._finish(interrupt)

    def _finish(self, interrupt: BaseException | None) -> None:
        self._portal.take(self._job.answer).unwrap(interrupt, needed=False)

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> T:
        return self.value

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _refuse_in_a_loop(instead: str) -> None:
    try:
        library = current_library()
    except RuntimeError:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        library = "asyncio"
    raise RuntimeError(f"this would block the {library} loop that runs here; await {instead}()")


# Which portals are to be closed at the end of which thread.
_watched: dict[threading.Thread, WeakSet[Portal]] = {}
_watched_lock = threading.Lock()


def _owner() -> threading.Thread:
    """The thread whose end is to be that of a portal that is started now."""
    thread = threading.current_thread()
    # The interpreter does not wait for the end of a daemon.
    return threading.main_thread() if thread.daemon else thread


def _close_at_end_of(owner: threading.Thread, portal: Portal) -> None:
    with _watched_lock:
        if owner in _watched:
            _watched[owner].add(portal)
            return
        # The main thread counts as ended when the interpreter begins to wait for the others, so
        # the portals' threads come to their end then. What atexit calls comes only later. (In
        # CPython 3.12.0 to 3.12.2 a cleanup that comes so late can't begin threads.)
        threading.Thread(target=_watch, args=(owner,), name="tmuxcc-portal-watch").start()
        _watched[owner] = WeakSet([portal])


def _watch(owner: threading.Thread) -> None:
    owner.join()
    with _watched_lock:
        portals = _watched.pop(owner)
    for portal in portals:
        portal._close_soon()


def _heed_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Have signals that would end the program end all portals before. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, _end_soon_by, loop, number)


_ending: set[asyncio.Task[None]] = set()


def _end_soon_by(loop: asyncio.AbstractEventLoop, number: int) -> None:
    # Held here, as the loop itself holds no task.
    _ending.add(loop.create_task(_end_by(number)))


async def _end_by(number: int) -> None:
    try:
        with _watched_lock:
            portals = [portal for each in _watched.values() for portal in each]
        for portal in portals:
            portal._close_soon()
        for portal in portals:
            await portal._end()
    finally:
        # Also where the program ends meanwhile, since its calls have failed.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _after_fork_in_child() -> None:
    # Threads are not inherited, so those that watched are gone.
    _watched.clear()
    _watched_lock.release()


os.register_at_fork(
    before=_watched_lock.acquire,
    after_in_parent=_watched_lock.release,
    after_in_child=_after_fork_in_child,
)
