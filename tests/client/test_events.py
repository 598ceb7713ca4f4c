"""Events and who listens to them: `tmuxcc.client.events`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tmuxcc.client import events
from tmuxcc.client.events import EVENT_CLASSES, EventsLost, EventStream, Listeners
from tmuxcc.errors import ConnectionClosed
from tmuxcc.protocol.events import (
    ExtendedOutput,
    Output,
    Pause,
    Reply,
    SessionsChanged,
    WindowAdd,
    WindowClose,
    WindowRenamed,
)


class _Source:
    """What a stream subscribes to."""

    def __init__(self) -> None:
        self.listeners = Listeners()
        self.put = self.listeners.deliver

    def stream(self, *classes: type) -> EventStream[object]:
        return EventStream(lambda put: self.listeners.add(put, classes))


async def read(stream: EventStream[object], count: int) -> list[object]:
    return [await stream.__anext__() for _ in range(count)]


# -------------------------------------------------------------------------------------- listeners


def test_a_function_gets_the_classes_it_asked_for_in_the_order_of_adding() -> None:
    listeners = Listeners()
    seen: list[tuple[str, object]] = []

    def add(name: str, *classes: type) -> Callable[[], None]:
        return listeners.add(lambda event: seen.append((name, event)), classes)

    add("second", WindowAdd, WindowClose)
    add("first", WindowAdd)
    add("all")
    assert len(listeners) == 3
    for event in (WindowAdd("@1"), WindowClose("@1"), SessionsChanged()):
        listeners.deliver(event)
    assert seen == [
        ("second", WindowAdd("@1")),
        ("first", WindowAdd("@1")),
        ("all", WindowAdd("@1")),
        ("second", WindowClose("@1")),
        ("all", WindowClose("@1")),
        ("all", SessionsChanged()),
    ]


def test_whoever_asks_for_output_gets_extended_output_too_but_not_the_other_way_round() -> None:
    listeners = Listeners()
    seen: list[object] = []
    extended: list[object] = []
    listeners.add(seen.append, (Output,))
    listeners.add(extended.append, (ExtendedOutput,))
    listeners.deliver(Output("%1", b"a"))
    listeners.deliver(ExtendedOutput("%1", b"b", 3))
    assert seen == [Output("%1", b"a"), ExtendedOutput("%1", b"b", 3)]
    assert extended == [ExtendedOutput("%1", b"b", 3)]


def test_every_class_of_event_can_be_asked_for_and_nothing_else() -> None:
    listeners = Listeners()
    assert {Reply, Output, Pause} < set(EVENT_CLASSES)
    assert events.Event not in EVENT_CLASSES
    for cls in EVENT_CLASSES:
        listeners.add(print, (cls,))
    for wrong in (str, EventsLost, object):
        with pytest.raises(TypeError, match=wrong.__name__):
            listeners.add(print, (Output, wrong))


def test_own_handlers_come_behind_all_the_others() -> None:
    seen: list[str] = []
    listeners = Listeners({WindowAdd: lambda _: seen.append("own")})
    assert len(listeners) == 0
    listeners.deliver(WindowAdd("@1"))
    remove = listeners.add(lambda _: seen.append("other"), ())
    listeners.deliver(WindowAdd("@1"))
    remove()
    listeners.deliver(WindowAdd("@1"))
    assert seen == ["own", "other", "own", "own"]


def test_a_function_is_removed_once_for_each_time_it_was_added() -> None:
    listeners = Listeners()
    seen: list[object] = []
    append = seen.append
    removers = [listeners.add(append, (Pause,)) for _ in range(2)]
    removers[0]()
    removers[0]()
    listeners.deliver(Pause("%1"))
    assert seen == [Pause("%1")]
    removers[1]()
    listeners.deliver(Pause("%1"))
    assert len(seen) == 1
    assert len(listeners) == 0


def test_functions_may_add_and_remove_while_they_are_called() -> None:
    listeners = Listeners()
    seen: list[str] = []

    def once(_: object) -> None:
        seen.append("once")
        remove()
        listeners.add(lambda _: seen.append("added"), (Pause,))

    remove = listeners.add(once, (Pause,))
    listeners.add(lambda _: seen.append("last"), (Pause,))
    listeners.deliver(Pause("%1"))
    assert seen == ["once", "last"]
    listeners.deliver(Pause("%1"))
    assert seen[2:] == ["last", "added"]


# ---------------------------------------------------------------------------------------- streams


async def test_events_come_in_order_from_when_the_block_is_entered_on() -> None:
    source = _Source()
    stream = source.stream(WindowAdd)
    source.put(WindowAdd("@0"))
    async with stream:
        for number in range(1, 5):
            source.put(WindowAdd(f"@{number}"))
            source.put(WindowClose(f"@{number}"))
        assert await read(stream, 4) == [WindowAdd(f"@{number}") for number in range(1, 5)]
    assert len(source.listeners) == 0


async def test_a_reader_waits_for_the_next_event() -> None:
    source = _Source()
    seen: list[object] = []

    async def collect() -> None:
        async with source.stream() as stream:
            async for event in stream:
                seen.append(event)
                if event == Pause("%2"):
                    break

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(collect)
        await trio.testing.wait_all_tasks_blocked()
        source.put(Pause("%1"))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [Pause("%1")] * 3
        source.put(Pause("%2"))
    assert len(seen) == 6
    assert len(source.listeners) == 0


async def test_who_reads_too_slowly_is_told_how_many_of_the_oldest_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 10)
    source = _Source()
    async with source.stream() as stream:
        for number in range(25):
            source.put(WindowAdd(f"@{number}"))
        assert await read(stream, 4) == [
            EventsLost(15),
            *(WindowAdd(f"@{n}") for n in (15, 16, 17)),
        ]
        for number in range(25, 30):
            source.put(WindowAdd(f"@{number}"))
        rest = [EventsLost(2), *(WindowAdd(f"@{n}") for n in range(20, 30))]
        assert await read(stream, 11) == rest
        assert stream.lost == 17


async def test_what_waits_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_BYTES", 1000)
    source = _Source()
    async with source.stream() as stream:
        for _ in range(4):
            source.put(Output("%1", b"x" * 400))
        assert await read(stream, 2) == [EventsLost(2), Output("%1", b"x" * 400)]
        large = Reply(0, 1, 1, (b"y" * 3000,), ok=True)
        source.put(large)
        assert await read(stream, 2) == [EventsLost(1), large]
        blank = Reply(0, 1, 1, (b"",) * 1000, ok=True)
        source.put(blank)
        source.put(WindowRenamed("@1", "n" * 2000))
        assert await read(stream, 2) == [EventsLost(1), WindowRenamed("@1", "n" * 2000)]


async def test_the_failure_comes_behind_the_last_event_and_stays() -> None:
    source = _Source()
    async with source.stream() as stream:
        source.put(Pause("%1"))
        stream.fail(ConnectionClosed("gone"))
        assert await read(stream, 1) == [Pause("%1")]
        depths = set()
        for _ in range(4):
            with pytest.raises(ConnectionClosed, match="gone") as caught:
                await stream.__anext__()
            depths.add(len(caught.traceback))
        assert len(depths) == 1, "the traceback grows"


async def test_a_failure_and_a_close_wake_who_waits() -> None:
    source = _Source()
    failing, closed = source.stream(), source.stream()

    async def until_failure() -> None:
        with pytest.raises(ConnectionClosed):
            await failing.__anext__()

    async def until_close() -> None:
        async for _ in closed:
            raise AssertionError("there was no event")

    async with failing, closed, trio.open_nursery() as nursery:
        nursery.start_soon(until_failure)
        nursery.start_soon(until_close)
        await trio.testing.wait_all_tasks_blocked()
        failing.fail(ConnectionClosed())
        closed.close()
        closed.close()


async def test_what_is_there_can_be_read_after_closing() -> None:
    source = _Source()
    async with source.stream() as stream:
        source.put(Pause("%1"))
    source.put(Pause("%2"))
    assert [event async for event in stream] == [Pause("%1")]


async def test_a_stream_that_was_not_entered_says_how_it_is_read() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await _Source().stream().__anext__()


async def test_a_cancelled_wait_loses_nothing() -> None:
    source = _Source()
    async with source.stream() as stream:
        seen: list[object] = []
        for number in range(30):
            with trio.CancelScope() as scope:
                if number % 2:
                    source.put(WindowAdd(f"@{number}"))
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def wait() -> None:
                        seen.append(await stream.__anext__())

                    if number % 3:
                        await trio.testing.wait_all_tasks_blocked()
                    if not number % 2:
                        # At the same moment: whatever of both is seen, the event is not lost.
                        source.put(WindowAdd(f"@{number}"))
                    scope.cancel()
        while len(seen) < 30:
            seen.append(await stream.__anext__())
        assert seen == [WindowAdd(f"@{number}") for number in range(30)]


async def test_a_stream_whose_wait_was_cancelled_can_be_read_again() -> None:
    source = _Source()
    async with source.stream() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.__anext__)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        source.put(Pause("%1"))
        assert await read(stream, 1) == [Pause("%1")]


async def test_one_task_reads_a_stream_at_a_time() -> None:
    source = _Source()
    async with source.stream() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.__anext__)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.__anext__()
        source.put(Pause("%1"))
        await trio.testing.wait_all_tasks_blocked()
        source.put(Pause("%2"))
        assert await read(stream, 1) == [Pause("%2")]


async def test_a_block_that_is_not_entered_listens_to_nothing() -> None:
    source = _Source()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with source.stream():
            raise AssertionError("the block was entered")
    assert len(source.listeners) == 0
