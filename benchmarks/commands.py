"""What a command costs: one at a time, many at once, and while a pane floods."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import closing

import libtmux
import trio

import tmuxcc

from .harness import SESSION, Samples, Server, Setting, compare, run_server
from .results import Row
from .sides import Control

TITLE = "Commands"

NOTES = (
    "The command is `display-message -p x`, which costs tmux nearly nothing.",
    (
        "Under a flood the floor has to read the flood too, on the one connection that it has;"
        " tmuxcc opens a second one for commands."
    ),
)

ONE = "one at a time"
PIPELINED = "pipelined"
FLOOD = "one at a time, under a flood"

UNITS = {"round trip": "ms", "rate": "1/s"}

_WORDS = ("display-message", "-p", "x")
_LINE = " ".join(_WORDS).encode() + b"\n"


def timed(function: Callable[[], object], count: int) -> list[float]:
    """How long each of `count` calls takes, in ms."""
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        samples.append((time.perf_counter() - start) * 1e3)
    return samples


def floor(server: Server, count: int) -> Samples:
    """Write a line, read until the reply's end."""
    with closing(Control(server)) as control:

        def command() -> None:
            control.write(_LINE)
            tail = b""
            while True:
                data = control.read()
                if b"%end " in tail + data:
                    return
                tail = data[-5:]

        return {"round trip": timed(command, count)}


def trio_floor(server: Server, count: int) -> Samples:
    """The floor under trio: write a line, `wait_readable`, `os.read`, all in one task."""

    async def run(control: Control) -> list[float]:
        samples = []
        for _ in range(count):
            start = time.perf_counter()
            control.write(_LINE)
            tail = b""
            while b"%end " not in tail:
                await trio.lowlevel.wait_readable(control.fd)
                tail = tail[-5:] + control.read()
            samples.append((time.perf_counter() - start) * 1e3)
        return samples

    with closing(Control(server)) as control:
        return {"round trip": trio.run(run, control)}


def client(server: Server, count: int, *, pause: float = 0) -> Samples:
    """`Client.command`."""

    async def run() -> list[float]:
        samples = []
        async with tmuxcc.open_client(
            SESSION, tmux=server.tmux, socket_path=server.socket
        ) as client:
            # Under a flood the connection for commands takes a moment to be there.
            await trio.sleep(pause)
            for _ in range(count):
                start = time.perf_counter()
                await client.command(*_WORDS)
                samples.append((time.perf_counter() - start) * 1e3)
        return samples

    return {"round trip": trio.run(run)}


def polling(server: Server, count: int) -> Samples:
    """libtmux."""
    tmux = libtmux.Server(socket_path=server.socket, tmux_bin=server.tmux)
    return {"round trip": timed(lambda: tmux.cmd(*_WORDS), count)}


def process(server: Server, count: int) -> Samples:
    """A tmux process for each command, with nothing around it."""
    argv = [server.tmux, "-S", server.socket, *_WORDS]
    return {
        "round trip": timed(lambda: subprocess.run(argv, stdout=subprocess.PIPE), count),
    }


def floor_pipelined(server: Server, count: int) -> Samples:
    """Up to 1000 lines ahead of the replies, which are counted."""
    with closing(Control(server)) as control:
        start = time.perf_counter()
        seen = sent = 0
        tail = b""
        while seen < count:
            while sent < count and sent - seen < 1000:
                control.write(_LINE * 100)
                sent += 100
            data = tail + control.read()
            seen += data.count(b"%end ")
            # Shorter than what is counted.
            tail = data[-4:]
        return {"rate": [count / (time.perf_counter() - start)]}


def client_pipelined(server: Server, count: int) -> Samples:
    """`Client.batch`."""

    async def run() -> float:
        async with tmuxcc.open_client(
            SESSION, tmux=server.tmux, socket_path=server.socket
        ) as client:
            start = time.perf_counter()
            await client.batch([_WORDS] * count)
            return count / (time.perf_counter() - start)

    return {"rate": [trio.run(run)]}


def rate_of(samples: Samples) -> Samples:
    """Commands a second of a side that can't do more than one at a time."""
    times = samples["round trip"]
    return {"rate": [1000 * len(times) / sum(times)]}


def run(setting: Setting) -> list[Row]:
    """All cases."""
    many, few, batch = setting.of((600, 25, 8_000), (30, 3, 500))
    rounds = setting.of(3, 1)
    with run_server(setting.tmux) as server:
        rows = compare(
            ONE,
            {
                "floor": lambda: floor(server, many),
                "trio floor": lambda: trio_floor(server, many),
                "tmuxcc": lambda: client(server, many),
                "libtmux": lambda: polling(server, few),
                "tmux process": lambda: process(server, few),
            },
            rounds=rounds,
            units=UNITS,
            baseline="floor",
        )
        rows += compare(
            PIPELINED,
            {
                "floor": lambda: floor_pipelined(server, batch),
                "tmuxcc": lambda: client_pipelined(server, batch),
                "libtmux": lambda: rate_of(polling(server, few)),
                "tmux process": lambda: rate_of(process(server, few)),
            },
            rounds=rounds,
            units=UNITS,
            baseline="floor",
        )
        many, few, pause = setting.of((100, 20, 0.5), (10, 2, 0.2))
        with server.flood():
            rows += compare(
                FLOOD,
                {
                    "floor": lambda: floor(server, many),
                    "tmuxcc": lambda: client(server, many, pause=pause),
                    "libtmux": lambda: polling(server, few),
                    "tmux process": lambda: process(server, few),
                },
                rounds=setting.of(2, 1),
                units=UNITS,
                baseline="floor",
            )
    return rows
