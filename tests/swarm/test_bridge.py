"""The portal: trio in a thread of its own, used from asyncio and from plain threads.

All tests are plain functions, since each needs loops and threads of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

import tmuxcc
from tmuxcc.swarm.bridge import BUFFER, Opened, Portal, PortalClosed, current_library

from ..client.helpers import GUARD, Server

T = TypeVar("T")

NAME = contextvars.ContextVar("NAME", default="nobody")


def use(program: Callable[[Portal], Awaitable[T]]) -> T:
    """Run `program` under asyncio with a portal, and see that nothing is left in it."""

    async def main() -> T:
        async with asyncio.timeout(GUARD):
            async with Portal() as portal:
                result = await program(portal)
                await until(lambda: portal.statistics().tasks == 0)
        return result

    return asyncio.run(main(), debug=True)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until `condition` gives something true, under trio or asyncio."""
    sleep = trio.sleep if current_library() == "trio" else asyncio.sleep
    while not condition():
        await sleep(0.005)


class Sleeper:
    """Sleeps in trio until it is cancelled, and tells what happens to it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    async def sleep(self) -> None:
        """Sleep; the cleanup takes until `may_end`."""
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                self.cancelled.set()
                await until(self.may_end.is_set)
            self.ended = True


async def answer(value: T) -> T:
    await trio.lowlevel.checkpoint()
    return value


async def fail(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def count(upto: int) -> AsyncIterator[int]:
    for number in range(upto):
        await trio.lowlevel.checkpoint()
        yield number


# Calls.


def test_a_call_gives_the_result() -> None:
    async def add(one: int, *, two: int) -> tuple[int, str]:
        await trio.lowlevel.checkpoint()
        return one + two, current_library()

    async def program(portal: Portal) -> None:
        assert await portal.call(add, 1, two=2) == (3, "trio")
        assert current_library() == "asyncio"

    use(program)


def test_an_exception_comes_out_as_it_is() -> None:
    error = ValueError("no")

    async def program(portal: Portal) -> None:
        with pytest.raises(ValueError, match="no") as caught:
            await portal.call(fail, error)
        assert caught.value is error
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-1] == "fail"
        assert "program" in names

    use(program)


@pytest.mark.parametrize("error", [BaseExceptionGroup("all", [SystemExit(1)]), StopIteration()])
def test_exceptions_of_any_kind_come_out(error: BaseException) -> None:
    async def program(portal: Portal) -> None:
        with pytest.raises((BaseExceptionGroup, RuntimeError)) as caught:
            await portal.call(fail, error)
        assert error in {caught.value, caught.value.__cause__}

    use(program)


def test_an_exception_is_free_when_it_was_handled() -> None:
    class Freed(Exception):
        def __del__(self) -> None:
            freed.append(self.args)

    freed: list[object] = []

    async def fail_with_one() -> None:
        raise Freed

    async def program(portal: Portal) -> None:
        for _ in range(3):
            with suppress(Freed):
                await portal.call(fail_with_one)
            with suppress(Freed):
                async with await portal.open(broken):
                    pass
            with suppress(Freed):
                async for _ in portal.iterate(broken_source):
                    pass

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise Freed

    async def broken_source() -> AsyncIterator[None]:
        yield
        raise Freed

    gc.collect()
    gc.disable()
    try:
        use(program)
        assert len(freed) == 9
    finally:
        gc.enable()


def test_all_of_trio_runs_in_one_thread_that_is_not_the_callers() -> None:
    async def program(portal: Portal) -> None:
        threads = {await portal.call(trio.to_thread.run_sync, threading.get_ident)}
        inside = [await portal.call(answer_with, threading.get_ident) for _ in range(5)]
        inside += [thread async for thread in portal.iterate(idents)]
        opened = await portal.open(ident_context)
        inside.append(opened.value)
        await opened.aclose()
        assert len(set(inside)) == 1
        assert threads.isdisjoint(inside)
        assert threading.get_ident() not in inside

    async def answer_with(function: Callable[[], T]) -> T:
        return function()

    async def idents() -> AsyncIterator[int]:
        yield threading.get_ident()

    @asynccontextmanager
    async def ident_context() -> AsyncIterator[int]:
        yield threading.get_ident()

    use(program)


def test_a_call_sees_a_copy_of_the_callers_context() -> None:
    async def rename() -> str:
        before = NAME.get()
        NAME.set("inside")
        await trio.lowlevel.checkpoint()
        return before

    async def names() -> AsyncIterator[str]:
        yield NAME.get()

    @asynccontextmanager
    async def named() -> AsyncIterator[str]:
        yield NAME.get()

    async def program(portal: Portal) -> None:
        NAME.set("outside")
        assert await portal.call(rename) == "outside"
        assert NAME.get() == "outside"
        assert [name async for name in portal.iterate(names)] == ["outside"]
        async with await portal.open(named) as name:
            assert name == "outside"

    use(program)


def test_a_cancel_reaches_the_call_and_waits_for_its_end() -> None:
    async def program(portal: Portal) -> None:
        sleeper = Sleeper()
        task = asyncio.create_task(portal.call(sleeper.sleep))
        await until(sleeper.begun.is_set)
        task.cancel("first")
        await until(sleeper.cancelled.is_set)
        task.cancel("second")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        sleeper.may_end.set()
        with pytest.raises(asyncio.CancelledError, match="first"):
            await task
        assert sleeper.ended
        assert portal.statistics().tasks == 0

    use(program)


def test_a_deadline_of_asyncio_cancels_the_call() -> None:
    async def program(portal: Portal) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await portal.call(trio.sleep_forever)

    use(program)


def test_a_cancel_comes_before_a_result_and_behind_an_error() -> None:
    async def obstinate(outcome: Callable[[], T]) -> T:
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return outcome()
        raise AssertionError

    def problem() -> None:
        raise ValueError("in the cleanup")

    async def program(portal: Portal) -> None:
        for outcome, error in ((int, asyncio.CancelledError), (problem, ValueError)):
            begun.clear()
            task = asyncio.create_task(portal.call(obstinate, outcome))
            await until(begun.is_set)
            task.cancel()
            with pytest.raises(error):
                await task

    begun = threading.Event()
    use(program)


def test_an_error_beside_the_cancellation_comes_out_without_it() -> None:
    async def child() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the cleanup")

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    async def program(portal: Portal) -> None:
        task = asyncio.create_task(portal.call(parent))
        await until(begun.is_set)
        task.cancel()
        with pytest.raises(ExceptionGroup) as caught:
            await task
        assert [type(error) for error in caught.value.exceptions] == [ValueError]

    begun = threading.Event()
    use(program)


def test_a_coroutine_that_is_closed_leaves_nothing_behind() -> None:
    async def program(portal: Portal) -> None:
        sleeper = Sleeper()
        sleeper.may_end.set()
        await portal.call(answer, None)
        coroutine = portal.call(sleeper.sleep)
        coroutine.send(None)
        await until(sleeper.begun.is_set)
        coroutine.close()
        await until(lambda: sleeper.ended)

    use(program)


def test_a_thousand_calls_with_random_cancellations_are_all_answered() -> None:
    chance = random.Random(20261122)
    alive = 0

    async def work(number: int, pauses: int) -> int:
        nonlocal alive
        alive += 1
        try:
            for _ in range(pauses):
                await trio.sleep(0.001)
            if number % 7 == 0:
                raise LookupError(number)
            return number
        finally:
            alive -= 1

    async def program(portal: Portal) -> None:
        tasks = [
            asyncio.create_task(portal.call(work, number, chance.randrange(20)))
            for number in range(1000)
        ]
        wanted = chance.sample(tasks, 400)
        for task in wanted:
            if chance.random() < 0.2:
                await asyncio.sleep(0.001)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert alive == 0
        assert portal.statistics().tasks == 0
        for number, (task, result) in enumerate(zip(tasks, results, strict=True)):
            if isinstance(result, asyncio.CancelledError):
                assert task in wanted
            elif isinstance(result, LookupError):
                assert result.args == (number,)
                assert number % 7 == 0
            else:
                assert result == number
        cancelled = sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert 0 < cancelled <= 400

    use(program)


# The end of a portal.


def test_closing_cancels_the_calls_and_waits_for_their_cleanup() -> None:
    async def program() -> None:
        portal = Portal()
        sleeper = Sleeper()
        task = asyncio.create_task(portal.call(sleeper.sleep))
        await until(sleeper.begun.is_set)
        closing = [asyncio.create_task(portal.aclose()) for _ in range(2)]
        await until(sleeper.cancelled.is_set)
        assert portal.statistics().state == "closing"
        with pytest.raises(PortalClosed):
            await portal.call(answer, 1)
        closing[0].cancel()
        sleeper.may_end.set()
        with pytest.raises(PortalClosed):
            await task
        with pytest.raises(asyncio.CancelledError):
            await closing[0]
        await closing[1]
        assert sleeper.ended
        assert portal.statistics().state == "closed"
        await portal.aclose()
        with pytest.raises(PortalClosed):
            await portal.call(answer, 1)
        with pytest.raises(PortalClosed):
            await anext(portal.iterate(partial(count, 1)))

    asyncio.run(program())


def test_a_portal_that_was_never_used_has_no_thread() -> None:
    async def program(portal: Portal) -> None:
        assert portal.statistics().state == "new"
        await portal.aclose()
        assert portal.closed
        with pytest.raises(PortalClosed):
            await portal.call(answer, 1)

    before = threading.active_count()
    asyncio.run(program(Portal()))
    Portal().close()
    assert threading.active_count() == before


def test_the_end_of_the_loop_closes_the_portal() -> None:
    sleeper = Sleeper()
    portals = []

    async def main() -> None:
        portal = Portal()
        portals.append(portal)
        task = asyncio.create_task(portal.call(sleeper.sleep))
        await until(sleeper.begun.is_set)
        opened = await portal.open(context)
        assert opened.value == "value"
        sleeper.may_end.set()
        assert not task.done()

    @asynccontextmanager
    async def context() -> AsyncIterator[str]:
        try:
            yield "value"
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
                left.append("context")

    left: list[str] = []
    asyncio.run(main(), debug=True)
    assert sleeper.ended
    assert left == ["context"]
    assert portals[0].statistics().state == "closed"
    assert not any(thread.name == "tmuxcc-portal" for thread in threading.enumerate())


def test_an_exception_in_the_program_closes_the_portal_too() -> None:
    sleeper = Sleeper()
    sleeper.may_end.set()

    async def main() -> None:
        asyncio.create_task(Portal().call(sleeper.sleep))  # noqa: RUF006
        await until(sleeper.begun.is_set)
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())
    assert sleeper.ended


def test_tasks_may_use_the_portal_for_their_cleanup_at_the_end_of_the_loop() -> None:
    said: list[str] = []

    async def worker(portal: Portal) -> None:
        opened = await portal.open(context)
        try:
            await portal.call(trio.sleep_forever)
        finally:
            said.append(await portal.call(answer, "goodbye"))
            await opened.aclose()
            await portal.aclose()

    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        yield
        said.append("left in order")

    async def main() -> None:
        portal = Portal()
        asyncio.create_task(worker(portal))  # noqa: RUF006
        await until(lambda: portal.statistics().tasks == 2)

    asyncio.run(main())
    assert said == ["goodbye", "left in order"]


def test_a_generator_that_is_closed_with_the_loop_may_close_the_portal() -> None:
    async def values() -> AsyncIterator[int]:
        async with Portal() as portal:
            async for number in portal.iterate(partial(count, 10)):
                yield number

    kept = values()

    async def main() -> None:
        assert await anext(kept) == 0

    asyncio.run(main(), debug=True)


def test_loops_one_after_the_other_and_two_at_once_have_portals_of_their_own() -> None:
    meeting = threading.Barrier(2)

    async def program(portal: Portal) -> int:
        numbers = [number async for number in portal.iterate(partial(count, 1000))]
        return len(numbers) + await portal.call(answer, 1)

    def other() -> int:
        meeting.wait(GUARD)
        return use(program)

    assert [use(program) for _ in range(3)] == [1001] * 3
    with ThreadPoolExecutor(2) as pool:
        assert [future.result(GUARD) for future in (pool.submit(other), pool.submit(other))] == [
            1001,
            1001,
        ]


def test_one_portal_serves_several_loops_and_threads() -> None:
    async def program(portal: Portal) -> int:
        return sum(await asyncio.gather(*(portal.call(answer, number) for number in range(100))))

    with Portal() as portal:
        portal.run(answer, None)
        with ThreadPoolExecutor(4) as pool:
            results = [pool.submit(asyncio.run, program(portal)) for _ in range(4)]
            blocking = [pool.submit(portal.run, answer, number) for number in range(100)]
            assert [result.result(GUARD) for result in results] == [4950] * 4
            assert [result.result(GUARD) for result in blocking] == list(range(100))
        assert not portal.closed


def test_an_error_that_nobody_waits_for_is_raised_by_the_end_of_the_portal() -> None:
    @asynccontextmanager
    async def context(error: Exception) -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise error

    async def leave_open(*errors: Exception) -> None:
        async with Portal() as portal:
            for error in errors:
                await portal.open(context, error)

    with pytest.raises(ValueError, match="one"):
        asyncio.run(leave_open(ValueError("one")))
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(leave_open(ValueError("one"), LookupError("two")))
    assert {type(error) for error in caught.value.exceptions} == {ValueError, LookupError}


def test_a_breakdown_of_trio_answers_all_calls_and_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def break_down() -> None:
        begun.set()
        await trio.lowlevel.checkpoint()
        trio.lowlevel.current_trio_token().run_sync_soon(lambda: 1 / 0)
        await trio.sleep_forever()

    async def main() -> None:
        portal = Portal()
        calls = [portal.call(trio.sleep_forever), portal.call(break_down)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, PortalClosed)
        await portal.aclose()
        with pytest.raises(PortalClosed):
            await portal.call(answer, 1)

    begun = threading.Event()
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    asyncio.run(main())
    assert [told.exc_type for told in shown] == [trio.TrioInternalError]


# Plain threads.


def test_a_plain_thread_blocks_until_the_call_has_ended() -> None:
    with Portal() as portal:
        assert portal.run(answer, 3) == 3
        with pytest.raises(LookupError):
            portal.run(fail, LookupError())
        with ThreadPoolExecutor(1) as pool:
            sleeper = Sleeper()
            waiting = pool.submit(portal.run, sleeper.sleep)
            assert sleeper.begun.wait(GUARD)
            closing = threading.Thread(target=portal.close)
            closing.start()
            assert sleeper.cancelled.wait(GUARD)
            sleeper.may_end.set()
            with pytest.raises(PortalClosed):
                waiting.result(GUARD)
            closing.join(GUARD)
    with pytest.raises(PortalClosed):
        portal.run(answer, 3)


def test_a_loop_is_not_blocked() -> None:
    async def in_asyncio(portal: Portal) -> None:
        await portal.call(answer, 1)
        problems = []

        def call_back() -> None:
            try:
                portal.run(answer, 1)
            except RuntimeError as error:
                problems.append(error)

        asyncio.get_running_loop().call_soon(call_back)
        await until(lambda: problems)
        with pytest.raises(RuntimeError, match="block the asyncio loop"):
            portal.close()
        with pytest.raises(RuntimeError, match="block the asyncio loop"), portal:
            pass
        with pytest.raises(RuntimeError, match="block the trio loop"):
            await portal.call(in_trio, portal)

    async def in_trio(portal: Portal) -> None:
        portal.run(answer, 1)

    use(in_asyncio)


def test_current_library_names_what_runs_and_says_where_nothing_does() -> None:
    async def told() -> str:
        return current_library()

    async def host() -> tuple[str, str]:
        """Trio as a guest of asyncio, in one thread."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            told,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        return (await done).unwrap(), current_library()

    assert trio.run(told) == "trio"
    assert asyncio.run(told()) == "asyncio"
    assert asyncio.run(host()) == ("trio", "asyncio")
    with pytest.raises(RuntimeError, match="no asyncio and no trio task"):
        current_library()


# Streams.


def test_a_stream_gives_all_items_in_order() -> None:
    async def program(portal: Portal) -> None:
        stream = portal.iterate(partial(count, 5000))
        assert [number async for number in stream] == list(range(5000))
        assert [number async for number in stream] == []
        async with portal.iterate(partial(count, 3), buffer=1) as stream:
            assert [number async for number in stream] == [0, 1, 2]

    use(program)


def test_many_items_share_a_hop_and_the_loop_gets_turns() -> None:
    async def program(portal: Portal) -> None:
        loop = asyncio.get_running_loop()
        hops = 0
        turns = 0
        call = loop.call_soon_threadsafe

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal hops
            hops += 1
            return call(*arguments, **options)

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        ticking = asyncio.create_task(tick())
        seen = 0
        async for _ in portal.iterate(partial(flood, 100_000)):
            seen += 1
        ticking.cancel()
        assert seen == 100_000
        assert hops <= 2 + 100_000 / BUFFER * 3
        assert turns >= 100_000 / BUFFER / 3

    async def flood(upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    use(program)


def test_a_slow_consumer_holds_up_the_source_and_loses_nothing() -> None:
    made = 0

    async def source() -> AsyncIterator[int]:
        nonlocal made
        for number in range(200):
            made += 1
            yield number

    def is_far_ahead() -> bool:
        return made - taken >= 8 or made == 200

    async def program(portal: Portal) -> None:
        nonlocal taken
        async for number in portal.iterate(source, buffer=8):
            assert number == taken
            taken += 1
            if taken % 20 == 0:
                # The source goes on as far as it can.
                await until(is_far_ahead)
                await asyncio.sleep(0.01)
            assert made - taken <= 2 * 8
        assert taken == made == 200

    taken = 0

    use(program)


def test_the_first_item_does_not_wait_for_a_second() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async def program(portal: Portal) -> None:
        async with portal.iterate(source) as stream:
            assert await anext(stream) == 1

    use(program)


class Source:
    """An endless async generator, and whether its cleanup was run in trio."""

    def __init__(self) -> None:
        self.ended_by: str | None = None
        self.waits = False

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
            self.waits = True
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            self.ended_by = current_library()


@pytest.mark.parametrize("upto", [0, 9])
def test_breaking_off_leaves_nothing_behind(upto: int) -> None:
    source = Source()

    async def program(portal: Portal) -> None:
        async for number in portal.iterate(source.numbers, buffer=4):
            if number == upto:
                break
        await until(lambda: source.ended_by)

    use(program)
    assert source.ended_by == "trio"


def test_breaking_off_in_a_generator_leaves_nothing_behind() -> None:
    source = Source()

    async def program(portal: Portal) -> None:
        async def doubled() -> AsyncIterator[int]:
            async for number in portal.iterate(source.numbers):
                yield 2 * number

        async for _ in doubled():
            break
        await until(lambda: source.ended_by)

    use(program)


def test_a_stream_that_is_collected_elsewhere_leaves_nothing_behind() -> None:
    source = Source()

    async def program(portal: Portal) -> None:
        streams = [portal.iterate(source.numbers)]
        await anext(streams[0])
        thread = threading.Thread(target=streams.clear)
        thread.start()
        thread.join()
        await until(lambda: source.ended_by)

    use(program)


def test_closing_a_stream_waits_for_the_end_of_the_source() -> None:
    async def program(portal: Portal) -> None:
        source = Source()
        stream = portal.iterate(source.numbers)
        await anext(stream)
        await stream.aclose()
        assert source.ended_by == "trio"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()
        await portal.iterate(source.numbers).aclose()  # never begun

        source = Source()
        stream = portal.iterate(source.numbers)
        waiting = asyncio.create_task(drain(stream))
        await until(lambda: source.waits)
        await stream.aclose()
        await waiting
        assert source.ended_by == "trio"

    async def drain(stream: AsyncIterator[int]) -> None:
        async for _ in stream:
            pass

    use(program)


def test_a_cancelled_wait_for_an_item_loses_nothing() -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(20):
            await until(partial(is_allowed, number))
            yield number

    def is_allowed(number: int) -> bool:
        return number < allowed

    async def program(portal: Portal) -> None:
        nonlocal allowed
        stream = portal.iterate(source)
        numbers = []
        chance = random.Random(7)
        while len(numbers) < 20:
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            allowed += chance.randrange(2)
            await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
            waiting.cancel()
            numbers += [
                number
                for number in await asyncio.gather(waiting, return_exceptions=True)
                if isinstance(number, int)
            ]
        assert numbers == list(range(20))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    allowed = 0
    use(program)


def test_an_error_of_the_source_comes_behind_its_last_item() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise LookupError("broken")

    async def program(portal: Portal) -> None:
        stream = portal.iterate(source)
        seen = []
        with pytest.raises(LookupError, match="broken"):
            async for number in stream:
                seen.append(number)  # noqa: PERF401
        assert seen == [1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        # A consumer that leaves before it comes to the error does not meet it.
        async with portal.iterate(source) as stream:
            assert await anext(stream) == 1
            await until(lambda: portal.statistics().tasks == 0)
        with pytest.raises(TypeError):
            await anext(portal.iterate(lambda: 3))  # type: ignore[arg-type, return-value]

    use(program)


def test_an_error_in_the_cleanup_of_a_source_is_raised_where_it_is_closed() -> None:
    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            raise LookupError("in the cleanup")

    async def program(portal: Portal) -> None:
        stream = portal.iterate(source)
        await anext(stream)
        with pytest.raises(LookupError, match="in the cleanup"):
            await stream.aclose()

    use(program)

    async def drop() -> None:
        async with Portal() as portal:
            async for _ in portal.iterate(source):
                break

    with pytest.raises(LookupError, match="in the cleanup"):
        asyncio.run(drop())


def test_a_source_that_is_no_generator_is_closed_too() -> None:
    class Numbers:
        closed = False

        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> int:
            await trio.lowlevel.checkpoint()
            return 1

        async def aclose(self) -> None:
            self.closed = True

    class Plain:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    async def program(portal: Portal) -> None:
        numbers = Numbers()
        async with portal.iterate(lambda: numbers) as stream:
            assert await anext(stream) == 1
        assert numbers.closed
        assert [number async for number in portal.iterate(Plain)] == [1, 0]

    use(program)


def test_a_stream_has_one_consumer_in_one_loop() -> None:
    async def program(portal: Portal) -> None:
        source = Source()
        stream = portal.iterate(source.numbers)
        for _ in range(10):
            await anext(stream)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        with pytest.raises(RuntimeError, match="another loop"):
            await asyncio.to_thread(asyncio.run, anext(stream))
        waiting.cancel()
        await stream.aclose()
        with pytest.raises(ValueError, match="at least one"):
            portal.iterate(source.numbers, buffer=0)

    use(program)


def test_a_stream_says_that_the_portal_was_closed() -> None:
    async def main() -> None:
        portal = Portal()
        source = Source()
        stream = portal.iterate(source.numbers)
        seen = [await anext(stream)]
        await until(lambda: source.waits)
        await portal.aclose()
        with pytest.raises(PortalClosed):
            async for number in stream:
                seen.append(number)  # noqa: PERF401
        assert seen == list(range(10))
        await stream.aclose()

    asyncio.run(main())


def test_a_stream_whose_loop_is_closed_ends() -> None:
    source = Source()

    async def ticks() -> AsyncIterator[int]:
        async with aclosing(source.numbers()) as numbers:
            async for number in numbers:
                yield number
                await until(closed.is_set)

    closed = threading.Event()
    with Portal() as portal:
        portal.run(answer, None)  # so that the portal does not belong to the loop
        loop = asyncio.new_event_loop()
        stream = portal.iterate(ticks)
        assert loop.run_until_complete(anext(stream)) == 0
        loop.close()
        closed.set()
        portal.run(until, lambda: portal.statistics().tasks == 1)


# Contexts.


class Context:
    """A trio context manager with a nursery, whose parts have to be in one task."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.enter: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
        self.child: Callable[[], Awaitable[object]] = trio.sleep_forever
        self.leave: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    @asynccontextmanager
    async def open(self, value: str) -> AsyncIterator[str]:
        self.log.append("entering")
        try:
            await self.enter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.child)
                try:
                    yield value
                finally:
                    self.log.append("leaving")
                    await self.leave()
                nursery.cancel_scope.cancel()
        finally:
            self.log.append("left")


def test_a_context_stays_open_until_it_is_closed() -> None:
    async def program(portal: Portal) -> None:
        context = Context()
        opened: Opened[str] = await portal.open(context.open, value="value")
        assert opened.value == "value"
        assert portal.statistics().tasks == 1
        assert await portal.call(answer, 1) == 1
        assert context.log == ["entering"]
        await opened.aclose()
        assert context.log == ["entering", "leaving", "left"]
        await opened.aclose()

        context = Context()
        async with await portal.open(context.open, "value") as value:
            assert value == "value"
        assert context.log == ["entering", "leaving", "left"]

    use(program)


def test_a_context_can_be_held_by_a_plain_thread() -> None:
    context = Context()
    with Portal() as portal:
        with portal.enter(context.open, "value") as value:
            assert value == "value"
            assert context.log == ["entering"]
        assert context.log == ["entering", "leaving", "left"]
        context.enter = partial(fail, LookupError())
        with pytest.raises(LookupError):
            portal.enter(context.open, "value")
        context.enter = trio.lowlevel.checkpoint
        portal.enter(context.open, "left open")
    assert context.log[-2:] == ["leaving", "left"]


def test_errors_of_entering_and_of_leaving_come_out() -> None:
    async def program(portal: Portal) -> None:
        context = Context()
        context.enter = partial(fail, LookupError("entering"))
        with pytest.raises(LookupError, match="entering"):
            await portal.open(context.open, "value")
        with pytest.raises(TypeError):
            await portal.open(context.open)  # type: ignore[call-arg]

        context = Context()
        context.leave = partial(fail, LookupError("leaving"))
        opened = await portal.open(context.open, "value")
        with pytest.raises(ExceptionGroup) as caught:
            await opened.aclose()
        assert isinstance(caught.value.exceptions[0], LookupError)
        await opened.aclose()

    use(program)


def test_a_context_that_fails_by_itself_tells_so_when_it_is_closed() -> None:
    async def program(portal: Portal) -> None:
        context = Context()
        context.child = broken.wait
        opened = await portal.open(context.open, "value")
        context.child = partial(fail, LookupError("child"))
        other = await portal.open(context.open, "value")
        await until(lambda: context.log.count("left") == 1)
        with pytest.raises(ExceptionGroup) as caught:
            await other.aclose()
        assert isinstance(caught.value.exceptions[0], LookupError)
        await opened.aclose()

    broken = trio.Event()
    use(program)


def test_a_cancel_while_a_context_is_entered_leaves_it_again() -> None:
    async def program(portal: Portal) -> None:
        context = Context()
        sleeper = Sleeper()
        context.enter = sleeper.sleep
        task = asyncio.create_task(portal.open(context.open, "value"))
        await until(sleeper.begun.is_set)
        task.cancel()
        await until(sleeper.cancelled.is_set)
        assert not task.done()
        sleeper.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert context.log == ["entering", "left"]

    use(program)


def test_a_cancel_at_any_point_of_entering_leaves_nothing_open() -> None:
    async def program(portal: Portal) -> None:
        ways = set()
        for turns in range(200):
            context = Context()
            task = asyncio.create_task(portal.open(context.open, "value"))
            for _ in range(turns // 4):
                await asyncio.sleep(0)
            task.cancel()
            try:
                opened = await task
            except asyncio.CancelledError:
                assert portal.statistics().tasks == 0
                assert not context.log or context.log[-1] == "left"
                ways.add("cancelled")
            else:
                ways.add("entered")
                await opened.aclose()
        assert "cancelled" in ways

    use(program)


def test_a_cancel_reaches_into_the_leaving_of_a_context() -> None:
    async def program(portal: Portal) -> None:
        context = Context()
        sleeper = Sleeper()
        context.leave = sleeper.sleep
        opened = await portal.open(context.open, "value")
        task = asyncio.create_task(opened.aclose())
        await until(sleeper.begun.is_set)
        task.cancel()
        await until(sleeper.cancelled.is_set)
        assert not task.done()
        sleeper.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert context.log == ["entering", "leaving", "left"]

    use(program)


# The end of the process.

CLEANUP = """
import asyncio, os, pathlib, signal, subprocess, sys, threading, time
import trio
from tmuxcc.swarm.bridge import Portal, PortalClosed

FILE = pathlib.Path(sys.argv[1])
begun = threading.Event()
cleaning = threading.Event()

async def work(more=None):
    begun.set()
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            cleaning.set()
            await trio.sleep(0.2)
            # What a swarm needs to end: threads, and processes. CPython 3.12.0 to 3.12.2 can't
            # begin a thread when the main thread has ended.
            if not (3, 12) <= sys.version_info < (3, 12, 3):
                await trio.to_thread.run_sync(time.sleep, 0.01)
            told = subprocess.run(["echo", "cleaned up"], stdout=subprocess.PIPE)
            if more is not None:
                await more()
            with FILE.open("ab") as file:
                file.write(told.stdout)

async def until(event):
    while not event.is_set():
        await asyncio.sleep(0.005)
"""


def finish(
    tmp_path: Path,
    program: str,
    *,
    status: int = 0,
    interrupts: int = 0,
    number: signal.Signals = signal.SIGINT,
    cleanups: int = 1,
) -> str:
    """Run a program to its end, with a signal for each line that it prints; its stderr."""
    file = tmp_path / "cleanup"
    process = subprocess.Popen(
        [sys.executable, "-c", CLEANUP + textwrap.dedent(program), str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for _ in range(interrupts):
            assert process.stdout.readline()
            process.send_signal(number)
        _, said = process.communicate(timeout=GUARD)
    finally:
        process.kill()
    assert process.returncode == status, said
    assert file.read_text() == "cleaned up\n" * cleanups, said
    return said


def test_the_cleanup_runs_when_a_program_returns_without_closing(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        async def main():
            asyncio.create_task(Portal().call(work))
            await until(begun)

        asyncio.run(main())
        assert FILE.exists()
        """,
    )
    assert said == ""


@pytest.mark.parametrize(("error", "status"), [("ValueError()", 1), ("SystemExit(3)", 3)])
def test_the_cleanup_runs_when_a_program_fails(tmp_path: Path, error: str, status: int) -> None:
    said = finish(
        tmp_path,
        f"""
        async def main():
            asyncio.create_task(Portal().call(work))
            await until(begun)
            raise {error}

        try:
            asyncio.run(main())
        finally:
            assert FILE.exists()
        """,
        status=status,
    )
    assert "AssertionError" not in said


def test_the_cleanup_runs_when_a_program_is_interrupted(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        async def main():
            portal = Portal()
            calling = asyncio.create_task(portal.call(work))
            await until(begun)
            print("go", flush=True)
            await calling

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            assert FILE.exists()
            sys.exit(7)
        """,
        status=7,
        interrupts=1,
    )
    assert said == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_cleanup_runs_when_a_signal_ends_a_program(
    tmp_path: Path, number: signal.Signals
) -> None:
    said = finish(
        tmp_path,
        """
        async def main():
            call = asyncio.create_task(Portal().call(work))
            other = asyncio.create_task(Portal().call(work))
            await until(begun)
            print("up", flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
        """,
        status=-number,
        interrupts=1,
        number=number,
        cleanups=2,
    )
    assert said == ""


def test_a_signal_that_a_program_handles_is_left_to_it(tmp_path: Path) -> None:
    finish(
        tmp_path,
        """
        async def main():
            received = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, received.set)
            call = asyncio.create_task(Portal().call(work))
            await until(begun)
            print("up", flush=True)
            await received.wait()
            assert not FILE.exists()

        asyncio.run(main())
        """,
        interrupts=1,
        number=signal.SIGTERM,
    )


def test_a_second_interrupt_does_not_break_off_the_cleanup(tmp_path: Path) -> None:
    """Nor does a loop that is closed while trio cleans up."""
    finish(
        tmp_path,
        """
        async def main():
            portal = Portal()
            await portal.open(context)
            print("go", flush=True)
            await asyncio.sleep(1000)

        async def tell():
            print("again", flush=True)
            await trio.to_thread.run_sync(interrupted.wait)

        from contextlib import asynccontextmanager
        @asynccontextmanager
        async def context():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, tell)
                await trio.to_thread.run_sync(begun.wait)
                yield

        interrupted = threading.Event()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            assert not FILE.exists()
            interrupted.set()
            sys.exit(7)
        """,
        status=7,
        interrupts=2,
    )


@pytest.mark.parametrize("ending", ["loop.close()", "", "os.environ['X'] = 'x'"])
def test_the_cleanup_runs_when_a_loop_is_given_up(tmp_path: Path, ending: str) -> None:
    said = finish(
        tmp_path,
        f"""
        async def main():
            portal = Portal()
            await portal.open(context)

        from contextlib import asynccontextmanager
        @asynccontextmanager
        async def context():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await trio.to_thread.run_sync(begun.wait)
                yield

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        {ending}
        """,
    )
    assert "Traceback" not in said


def test_the_cleanup_runs_when_a_program_without_a_loop_ends(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        def block(portal):
            try:
                portal.run(work)
            except PortalClosed:
                FILE.open("ab").close()

        portal = Portal()
        portal.run(trio.sleep, 0)
        threading.Thread(target=block, args=(portal,)).start()
        begun.wait()
        """,
    )
    assert said == ""


def test_ctrl_c_cancels_a_call_that_blocks(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        async def told():
            print("go", flush=True)
            await work()

        portal = Portal()
        try:
            portal.run(told)
        except KeyboardInterrupt:
            assert FILE.exists()
            assert portal.run(trio.sleep, 0) is None
            sys.exit(7)
        """,
        status=7,
        interrupts=1,
    )
    assert said == ""


def test_a_thread_that_outlives_the_main_thread_keeps_its_portal(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        async def main():
            portal = Portal()
            asyncio.create_task(portal.call(work))
            await until(begun)
            ready.set()
            threading.Thread(target=tell_end, args=(asyncio.get_running_loop(),)).start()
            await main_has_ended.wait()
            assert await portal.call(alive) == "alive"
            assert not FILE.exists()

        def tell_end(loop):
            threading.main_thread().join()
            loop.call_soon_threadsafe(main_has_ended.set)

        async def alive():
            await trio.sleep(0.05)
            return "alive"

        main_has_ended = asyncio.Event()

        ready = threading.Event()
        threading.Thread(target=asyncio.run, args=(main(),)).start()
        ready.wait()
        """,
    )
    assert said == ""


def test_the_portal_of_a_daemon_thread_ends_with_the_main_thread(tmp_path: Path) -> None:
    finish(
        tmp_path,
        """
        async def main():
            portal = Portal()
            await portal.open(context)
            await portal.call(trio.sleep_forever)

        from contextlib import asynccontextmanager
        @asynccontextmanager
        async def context():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                yield

        threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
        begun.wait()
        """,
    )


def test_the_portal_of_a_thread_ends_with_it(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        def give_up():
            portals.append(Portal())
            loop = asyncio.new_event_loop()
            loop.run_until_complete(portals[0].open(context))
            loop.close()

        from contextlib import asynccontextmanager
        @asynccontextmanager
        async def context():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await trio.to_thread.run_sync(begun.wait)
                yield

        portals = []
        thread = threading.Thread(target=give_up)
        thread.start()
        thread.join()
        portals[0].close()
        assert FILE.exists()
        """,
    )
    assert said == ""


def test_an_error_of_the_last_cleanup_is_shown(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        async def main():
            await Portal().open(context)

        from contextlib import asynccontextmanager
        @asynccontextmanager
        async def context():
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work)
                    await trio.to_thread.run_sync(begun.wait)
                    yield
            finally:
                raise LookupError("the last error")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        """,
    )
    assert "LookupError: the last error" in said


def test_a_forked_child_has_no_portal_but_can_make_one(tmp_path: Path) -> None:
    said = finish(
        tmp_path,
        """
        import multiprocessing

        def child(portal):
            try:
                portal.run(trio.sleep, 0)
            except PortalClosed:
                portal.close()
                asyncio.run(main())
                Portal().run(trio.sleep, 0)  # not closed: ended with the process

        async def main():
            asyncio.create_task(Portal().call(work))
            await until(begun)

        portal = Portal()
        portal.run(trio.sleep, 0)
        process = multiprocessing.get_context("fork").Process(target=child, args=(portal,))
        process.start()
        process.join()
        assert process.exitcode == 0
        portal.run(trio.sleep, 0)
        """,
    )
    assert said == ""


# The real thing.


@pytest.mark.tmux
def test_a_client_of_tmux_lives_in_a_portal(
    tmux: str, socket_path: Path, request: pytest.FixtureRequest
) -> None:
    server = Server(tmux, socket_path)
    server.start(argv=("sh",))

    async def program(portal: Portal) -> int:
        opened = await portal.open(
            tmuxcc.open_client, "work", tmux=server.program, socket_path=server.socket
        )
        client = opened.value
        (pane_id,) = await portal.call(client.command, "list-panes", "-F", "#{pane_id}")
        (pid,) = await portal.call(client.command, "list-clients", "-F", "#{client_pid}")
        pane = client.pane(pane_id)
        # What is typed before stands in front of the prompt, and the output behind it.
        await portal.call(pane.wait_for, r"\$", screen=True)
        stream = portal.iterate(lambda: pane.lines(since=0))
        await portal.call(pane.send_text, "echo $((20 + 3)); echo $((4 + 5))", submit=True)
        seen = []
        async for line in stream:
            seen.append(line)
            if line == "9":
                break
        assert "23" in seen
        del stream
        with pytest.raises(tmuxcc.CommandError):
            await portal.call(client.command, "no-such-command")
        await opened.aclose()
        return int(pid)

    pid = use(program)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
