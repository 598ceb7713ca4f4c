"""Trio under asyncio: the portal's thread against trio as a guest of the asyncio loop.

    python -m benchmarks.bridge [--rounds N] [--quick] [--json]

Both ways run in turns beside native trio and native asyncio. Measured are a call that does nothing,
a line that another process writes and that trio hands on to a consumer under asyncio, a flood of
items, how long trio's reader is held up while asyncio computes, and the CPU that waiting costs.
What counts is what a way adds to native trio; absolute times depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio

from tmuxcc.swarm.bridge import BUFFER, Portal

T = TypeVar("T")

TICKER = """
import os, sys, time
gap, count = float(sys.argv[1]), int(sys.argv[2])
time.sleep(0.2)
for _ in range(count):
    os.write(1, b"%d\\n" % time.monotonic_ns())
    time.sleep(gap)
"""

BUSY = 0.05
"""Seconds that asyncio computes at a time, where that is measured."""


class Guest:
    """Trio as a guest of the asyncio loop, in the same thread; just enough to be measured.

    A program would need more: the loop must not end before trio has, whatever ends the program.
    """

    async def __aenter__(self) -> Guest:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._ready = self._loop.create_future()
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self._loop.call_soon,
            done_callback=self._ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        await self._ready
        return self

    async def _main(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._ready.set_result(None)
            await trio.sleep_forever()

    async def __aexit__(self, *exc_info: object) -> None:
        self._nursery.cancel_scope.cancel()
        (await self._ended).unwrap()

    async def call(self, async_fn: Callable[..., Awaitable[T]], *args: object) -> T:
        answer: asyncio.Future[tuple[T | None, BaseException | None]] = self._loop.create_future()
        scope = trio.CancelScope()

        async def run() -> None:
            value = error = None
            try:
                with scope:
                    value = await async_fn(*args)
            except BaseException as caught:
                error = caught
            if not answer.done():
                answer.set_result((value, error))

        contextvars.copy_context().run(self._nursery.start_soon, run)
        try:
            value, error = await answer
        except asyncio.CancelledError:
            scope.cancel()
            raise
        if error is not None:
            raise error
        return value

    async def iterate(self, factory: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        items: deque[T] = deque()
        arrived = asyncio.Event()
        room = trio.Event()
        ended = False

        async def pump() -> None:
            nonlocal ended, room
            async for item in factory():
                items.append(item)
                arrived.set()
                if len(items) >= BUFFER:
                    room = trio.Event()
                    await room.wait()
            ended = True
            arrived.set()

        self._nursery.start_soon(pump)
        while True:
            while items:
                yield items.popleft()
            if ended:
                return
            arrived.clear()
            room.set()
            await arrived.wait()


# What runs in trio.


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


class Ticks:
    """The process that writes time stamps, and its pipe."""

    def __init__(self, gap: float, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TICKER, str(gap), str(count)], stdout=subprocess.PIPE
        )
        self.fd = self.process.stdout.fileno()
        os.set_blocking(self.fd, False)

    async def stamps(self) -> AsyncIterator[int]:
        """The stamps as trio reads them."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            data = os.read(self.fd, 65536)
            if not data:
                return
            for stamp in data.split():
                yield int(stamp)

    def close(self) -> None:
        self.process.wait()
        self.process.stdout.close()


async def flood(count: int) -> AsyncIterator[str]:
    for number in range(count):
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
        yield "2026-11-22T10:00:00 INFO request served path=/index.html status=200"


def since(stamp: int) -> float:
    return (time.monotonic_ns() - stamp) / 1e3


# Each measurement gives a list of samples in microseconds (or what its name says).


async def timed_calls(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        await call()
        samples.append((time.perf_counter() - start) * 1e6)
    return samples


def trio_calls(count: int) -> list[float]:
    return trio.run(timed_calls, nothing, count)


def asyncio_calls(count: int) -> list[float]:
    return asyncio.run(timed_calls(partial(asyncio.sleep, 0), count))


def bridge_calls(way: type[Any], count: int) -> list[float]:
    async def main() -> list[float]:
        async with way() as bridge:
            await bridge.call(nothing)
            return await timed_calls(lambda: bridge.call(nothing), count)

    return asyncio.run(main())


def bridge_many_calls(way: type[Any], count: int) -> list[float]:
    """Calls at once, each second."""

    async def main() -> list[float]:
        async with way() as bridge:
            await bridge.call(nothing)
            start = time.perf_counter()
            await asyncio.gather(*(bridge.call(nothing) for _ in range(count)))
            return [count / (time.perf_counter() - start)]

    return asyncio.run(main())


def trio_push(gap: float, count: int) -> list[float]:
    async def main() -> list[float]:
        return [since(stamp) async for stamp in ticks.stamps()]

    ticks = Ticks(gap, count)
    samples = trio.run(main)
    ticks.close()
    return samples


def asyncio_push(gap: float, count: int) -> list[float]:
    async def main() -> list[float]:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), ticks.process.stdout
        )
        samples = [since(int(line)) async for line in reader]
        transport.close()
        return samples

    ticks = Ticks(gap, count)
    samples = asyncio.run(main())
    ticks.close()
    return samples


def bridge_push(way: type[Any], gap: float, count: int) -> list[float]:
    async def main() -> list[float]:
        async with way() as bridge:
            return [since(stamp) async for stamp in bridge.iterate(ticks.stamps)]

    ticks = Ticks(gap, count)
    samples = asyncio.run(main())
    ticks.close()
    return samples


def bridge_busy(way: type[Any], gap: float, count: int) -> list[float]:
    """What trio's reader is held up while asyncio computes for `BUSY` s, time and again."""

    async def main() -> list[float]:
        async def read() -> list[float]:
            return [since(stamp) async for stamp in ticks.stamps()]

        async with way() as bridge:
            reading = asyncio.create_task(bridge.call(read))
            while not reading.done():
                until = time.perf_counter() + BUSY
                while time.perf_counter() < until:
                    pass
                await asyncio.sleep(0.001)
            return await reading

    ticks = Ticks(gap, count)
    samples = asyncio.run(main())
    ticks.close()
    return samples


def trio_flood(count: int) -> list[float]:
    """Items each second."""

    async def main() -> list[float]:
        start = time.perf_counter()
        seen = 0
        async for _ in flood(count):
            seen += 1
        assert seen == count
        return [count / (time.perf_counter() - start)]

    return trio.run(main)


def bridge_flood(way: type[Any], count: int) -> list[float]:
    """Items each second."""

    async def main() -> list[float]:
        async with way() as bridge:
            await bridge.call(nothing)
            start = time.perf_counter()
            seen = 0
            async for _ in bridge.iterate(partial(flood, count)):
                seen += 1
            assert seen == count
            return [count / (time.perf_counter() - start)]

    return asyncio.run(main())


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def bridge_idle(way: type[Any], seconds: float) -> list[float]:
    """Per cent of a core, with a consumer that waits for items that do not come."""

    async def never() -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 0

    async def main() -> list[float]:
        async with way() as bridge:
            waiting = asyncio.create_task(anext(aiter(bridge.iterate(never))))
            await asyncio.sleep(0.2)
            before = cpu()
            await asyncio.sleep(seconds)
            used = cpu() - before
            waiting.cancel()
            await asyncio.wait([waiting])
            return [used / seconds * 100]

    return asyncio.run(main())


def quantile(samples: list[float], part: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * part))]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="a smoke test: tiny sizes")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    rounds = 1 if chosen.quick else chosen.rounds
    calls, many, ticks, items, idle = (
        (50, 50, 20, 2000, 0.2) if chosen.quick else (3000, 1000, 400, 200_000, 3.0)
    )
    ways = {"portal": Portal, "guest": Guest}
    samples: dict[str, list[float]] = {}

    def add(key: str, values: list[float]) -> None:
        samples.setdefault(key, []).extend(values)

    for _ in range(rounds):
        add("call us trio", trio_calls(calls))
        add("call us asyncio", asyncio_calls(calls))
        for name, way in ways.items():
            add(f"call us {name}", bridge_calls(way, calls))
        for name, way in ways.items():
            add(f"calls at once 1/s {name}", bridge_many_calls(way, many))
        add("push us trio", trio_push(0.002, ticks))
        add("push us asyncio", asyncio_push(0.002, ticks))
        for name, way in ways.items():
            add(f"push us {name}", bridge_push(way, 0.002, ticks))
        for name, way in ways.items():
            add(f"busy asyncio us {name}", bridge_busy(way, 0.002, ticks))
        add("flood 1/s trio", trio_flood(items))
        for name, way in ways.items():
            add(f"flood 1/s {name}", bridge_flood(way, items))
        for name, way in ways.items():
            add(f"idle % {name}", bridge_idle(way, idle))
    results = {
        key: {"p50": statistics.median(values), "p99": quantile(values, 0.99)}
        for key, values in samples.items()
    }
    added = {
        f"{what} us added by {name} {part}": results[f"{what} us {name}"][part]
        - results[f"{what} us trio"][part]
        for what in ("call", "push")
        for name in ways
        for part in ("p50", "p99")
    }
    if chosen.json:
        print(json.dumps({"machine": machine(), "results": results, "added": added}, indent=1))
        return
    for key, row in results.items():
        print(f"{key:26} p50 {row['p50']:12.2f}   p99 {row['p99']:12.2f}")
    print()
    for key, value in added.items():
        print(f"{key:32} {value:10.1f}")


def machine() -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "trio": trio.__version__,
        "cores": str(os.cpu_count()),
    }


if __name__ == "__main__":
    main()
