"""Items of an async iterable of trio for a consumer under asyncio, many in one hop.

`Portal.iterate` gives such streams; how calls get into trio is in bridge.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from typing import Generic, Protocol, TypeVar
from weakref import finalize

import trio

from .handover import Answer, Job, Outcome, call_in_loop, wake

BUFFER = 256
"""How many items of a stream wait in the portal for the asyncio side. Enough that a hop between the
threads is shared by many lines, few enough that a batch does not hold up the asyncio loop."""

T = TypeVar("T")


class Door(Protocol):
    """The way into trio, as a stream needs it; `Portal` has the details."""

    lock: threading.RLock

    async def begin_in_loop(self, job: Job) -> None:
        """Start a job."""
        ...

    def send(self, function: Callable[[], object]) -> bool:
        """Have `function` called in trio's thread."""
        ...

    async def until(self, answer: Answer, job: Job | None) -> BaseException | None:
        """Wait for an answer; what interrupted that."""
        ...

    def take(self, answer: Answer) -> Outcome:
        """The outcome in an answer that is there."""
        ...

    def abandon(self, job: Job) -> None:
        """Cancel a job that nobody asks for any more."""
        ...


class _Flow(Generic[T]):
    """What both sides of a stream share; it does not hold the stream, which may be dropped."""

    def __init__(
        self,
        factory: Callable[[], AsyncIterable[T]],
        limit: int,
        loop: asyncio.AbstractEventLoop,
        lock: threading.RLock,
    ) -> None:
        self.waiter: asyncio.Future[None] | None = None
        self._factory = factory
        self._limit = limit
        self.loop = loop
        self._lock = lock
        self._items: list[T] = []
        self._rung = False  # the consumer has been told of what lies there
        self._room: trio.Event | None = None  # the source waits for it

    async def pump(self) -> None:
        """Iterate over the source, in trio."""
        iterator = aiter(self._factory())
        try:
            async for item in iterator:
                with self._lock:
                    self._items.append(item)
                    told, self._rung = self._rung, True
                    full = len(self._items) >= self._limit
                    if full:
                        self._room = room = trio.Event()
                if not told and not self.ring():
                    return
                if full:
                    await room.wait()
        finally:
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()

    def ring(self) -> bool:
        """Wake the consumer, from trio's thread; False if its loop is closed."""
        return call_in_loop(self.loop, self._wake)

    def _wake(self) -> None:
        if self.waiter is not None:
            wake(self.waiter)

    def take(self) -> tuple[list[T], trio.Event | None]:
        """What lies there, and what to set if the source waits for room."""
        with self._lock:
            items, self._items = self._items, []
            room, self._room = self._room, None
            self._rung = False
        return items, room


class PortalStream(Generic[T]):
    """Items of an async iterable of trio, for one consumer under asyncio, from `Portal.iterate`.

    ``async with`` gives a sure end. A plain ``async for`` that is broken off leaves nothing behind
    either: when the stream is collected, what it runs in trio is cancelled. A cancel while it waits
    for an item loses nothing, the stream can be used on. What the source raises is raised behind
    its last item; `PortalClosed` if the portal was closed meanwhile.
    """

    def __init__(self, portal: Door, factory: Callable[[], AsyncIterable[T]], buffer: int) -> None:
        self._portal = portal
        self._factory = factory
        self._buffer = buffer
        self._batch: deque[T] = deque()
        self._closed = False
        self._flow: _Flow[T] | None = None
        self._job: Job
        self._finalizer: finalize[[Job], PortalStream[T]]

    def __aiter__(self) -> PortalStream[T]:
        return self

    async def __anext__(self) -> T:
        while not self._batch:
            await self._fetch()
        return self._batch.popleft()

    async def _fetch(self) -> None:
        """Get the next batch; raises `StopAsyncIteration` at the end."""
        if self._closed:
            raise StopAsyncIteration
        flow = self._flow or await self._start()
        if flow.loop is not asyncio.get_running_loop():
            raise RuntimeError("another loop has begun with this stream; one has to stay with it")
        if flow.waiter is not None:
            raise RuntimeError("another task waits for the next item of this stream")
        # In this order: what came before the end lies there when the end is known.
        ended = self._job.answer.given
        items, room = flow.take()
        if room is not None:
            self._portal.send(room.set)
        if items:
            self._batch.extend(items)
            # So that a flood leaves the loop a turn for each batch.
            await asyncio.sleep(0)
        elif ended:
            self._closed = True
            self._finalizer.detach()
            self._portal.take(self._job.answer).unwrap(None)
            raise StopAsyncIteration
        else:
            flow.waiter = asyncio.get_running_loop().create_future()
            try:
                await flow.waiter
            finally:
                flow.waiter = None

    async def _start(self) -> _Flow[T]:
        flow = _Flow(self._factory, self._buffer, asyncio.get_running_loop(), self._portal.lock)
        self._job = Job(flow.pump, Answer(self._portal.lock, awaited=True))
        self._job.answer.tell(flow.ring)
        await self._portal.begin_in_loop(self._job)
        self._flow = flow
        self._finalizer = finalize(self, self._portal.abandon, self._job)
        self._finalizer.atexit = False
        return flow

    async def aclose(self) -> None:
        """End the iteration in trio and wait for that, also when cancelled. Harmless twice.

        What was not yet consumed is dropped. Raises what the source raises when it is ended.
        """
        self._closed = True
        self._batch.clear()
        if self._flow is None:
            return
        self._finalizer.detach()
        # An error that the consumer did not come to has happened behind the end.
        ended = self._job.answer.given
        self._portal.send(self._job.scope.cancel)
        interrupt = await self._portal.until(self._job.answer, self._job)
        outcome = self._portal.take(self._job.answer)
        if ended:
            outcome = Outcome()
        try:
            outcome.unwrap(interrupt, needed=False)
        finally:
            del outcome, interrupt

    async def __aenter__(self) -> PortalStream[T]:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
