"""Events to their listeners: functions that are called at once, and streams that are read later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import trio
from attrs import fields, frozen

from ..protocol import events as protocol_events
from ..protocol.events import Event, ExtendedOutput, Output, Reply

MAX_EVENTS = 10_000
"""Events that wait in one stream: a second of the busiest session."""

MAX_BYTES = 16 << 20
"""Bytes of the text in them: a second of the busiest session, too."""

LINE_OVERHEAD = 48
"""What Python takes for each line of a reply besides its text."""

EVENT_CLASSES: tuple[type, ...] = tuple(
    value
    for value in vars(protocol_events).values()
    if isinstance(value, type) and hasattr(value, "__attrs_attrs__")
)
"""Every class of event."""

T = TypeVar("T")


@frozen
class EventsLost:
    """Where a reader of events was too slow: `count` of them, the oldest, are missing here."""

    count: int


@frozen
class Reconnected:
    """Where a client has connected again: what happened in between was not seen.

    `generation` is that of the connection from which the following events come.
    """

    generation: int


class Listeners:
    """Which functions and streams want which classes of events.

    `own` are called behind all the others.
    """

    def __init__(self, own: Mapping[type, Callable[..., object]] | None = None) -> None:
        self._own = dict(own or {})
        self._streams: set[EventStream[object]] = set()
        self._failure: Exception | None = None
        self._functions: list[tuple[Callable[[Event], object], frozenset[type]]] = []
        self._by_class: dict[type, tuple[Callable[[Event], object], ...]] = {}
        self._sort()

    def __len__(self) -> int:
        return len(self._functions)

    def add(
        self, function: Callable[[Event], object], classes: tuple[type, ...]
    ) -> Callable[[], None]:
        """Have `function` called with each event of these classes (none: all); its remover."""
        wanted = set(classes or EVENT_CLASSES)
        if unknown := [cls for cls in wanted if cls not in EVENT_CLASSES]:
            raise TypeError(f"{unknown[0]!r} is no class of event")
        if Output in wanted:
            wanted.add(ExtendedOutput)
        entry = (function, frozenset(wanted))
        self._functions.append(entry)
        self._sort()

        def remove() -> None:
            # By identity: the same function may have been added twice.
            self._functions[:] = [other for other in self._functions if other is not entry]
            self._sort()

        return remove

    def stream(
        self, classes: tuple[type, ...], wanted: Callable[[Event], bool] | None = None
    ) -> EventStream[object]:
        """The events of these classes (none: all), or those of them that are `wanted`."""

        def subscribe(put: Callable[[Event], object]) -> Callable[[], None]:
            remove = self.add(_filtered(put, wanted), classes)
            self._streams.add(stream)

            def remove_both() -> None:
                self._streams.discard(stream)
                remove()

            if self._failure is not None:
                stream.fail(self._failure)
            return remove_both

        stream: EventStream[object] = EventStream(subscribe)
        return stream

    def note_reconnected(self, event: Reconnected) -> None:
        """Put the sign of a new connection into every stream."""
        for stream in self._streams:
            stream.put(event)

    def fail(self, error: Exception) -> None:
        """No other event will come: raise `error` in every stream behind the last one."""
        self._failure = error
        for stream in self._streams:
            stream.fail(error)

    def deliver(self, event: Event) -> None:
        """Call the functions that want `event`, in the order in which they were added."""
        for function in self._by_class[type(event)]:
            function(event)

    def _sort(self) -> None:
        self._by_class = {
            cls: (
                *(function for function, wanted in self._functions if cls in wanted),
                *((self._own[cls],) if cls in self._own else ()),
            )
            for cls in EVENT_CLASSES
        }


def _filtered(
    put: Callable[[Event], object], wanted: Callable[[Event], bool] | None
) -> Callable[[Event], object]:
    if wanted is None:
        return put

    def put_wanted(event: Event) -> None:
        if wanted(event):
            put(event)

    return put_wanted


def _size(event: object) -> int:
    """The bytes of the text in an event, about."""
    if isinstance(event, (Output, ExtendedOutput)):
        return len(event.data)
    if isinstance(event, Reply):
        return sum(map(len, event.lines)) + LINE_OVERHEAD * len(event.lines)
    values = (getattr(event, field.name) for field in fields(cast("Any", type(event))))
    return sum(len(value) for value in values if isinstance(value, (str, bytes)))


class EventStream(Generic[T]):
    """Events as they come; use it with ``async with`` and iterate over it.

    It listens while its block lasts; iterating before that raises `RuntimeError`.
    Gives each event once, to one task at a time, and `EventsLost` where more than `MAX_EVENTS` or
    `MAX_BYTES` waited; `Reconnected` where a client with ``reconnect=True`` has made a new
    connection. After the last event it raises `ConnectionClosed`. Waiting is a cancellation point,
    and a cancelled wait loses nothing.
    """

    def __init__(
        self, subscribe: Callable[[Callable[[Event], object]], Callable[[], None]]
    ) -> None:
        self._subscribe = subscribe
        self._remove: Callable[[], None] | None = None
        self._was_entered = False
        self._events: deque[T | Reconnected] = deque()
        self._size = 0
        self._lost = 0
        self._failure: Exception | None = None
        self._waiting: trio.lowlevel.Task | None = None
        self.lost = 0

    async def __aenter__(self) -> EventStream[T]:
        await trio.lowlevel.checkpoint()
        self._was_entered = True
        self._remove = self._subscribe(self.put)  # type: ignore[arg-type]  # only T is put
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening. Iterating ends once what is there has been read."""
        if self._remove is not None:
            self._remove()
            self._remove = None
        self._wake()

    def fail(self, error: Exception) -> None:
        """Raise `error` behind the last event."""
        self._failure = error
        self._wake()

    def __aiter__(self) -> EventStream[T]:
        return self

    async def __anext__(self) -> T | EventsLost | Reconnected:
        if not self._was_entered:
            raise RuntimeError(
                "nobody listens yet: enter the stream with `async with`, iterate within its block"
            )
        if self._waiting is not None:
            raise trio.BusyResourceError("another task is reading this stream")
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._events:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._remove is None:
                raise StopAsyncIteration
            self._waiting = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                self._waiting = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if self._lost:
            count, self._lost = self._lost, 0
            return EventsLost(count)
        return self._take()

    def put(self, event: T | Reconnected) -> None:
        """Have the reader get `event` next, behind those that wait."""
        self._events.append(event)
        self._size += _size(event)
        # One alone is there already, however large it is.
        while len(self._events) > MAX_EVENTS or (self._size > MAX_BYTES and len(self._events) > 1):
            self._take()
            self._lost += 1
            self.lost += 1
        self._wake()

    def _take(self) -> T | Reconnected:
        event = self._events.popleft()
        self._size -= _size(event)
        return event

    def _wake(self) -> None:
        task, self._waiting = self._waiting, None
        if task is not None:
            trio.lowlevel.reschedule(task)
