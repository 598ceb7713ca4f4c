"""What a minute of flood leaves in memory, here and in the tmux server, if one is slow.

    python -m benchmarks.memory SIDE TMUX SECONDS LINES_PER_SECOND    (one side, as JSON)

All sides run at the same time, each `ROUNDS` times, in a process and beside a tmux server of its
own, since it is the memory of these that is measured; each gets the same text at the same moderate
rate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing

import libtmux
import trio

import tmuxcc

from .harness import (
    PATIENCE,
    SESSION,
    Failed,
    PaneInfo,
    Server,
    Setting,
    Writer,
    can_account,
    private_memory,
    run_server,
)
from .results import Row, summarize
from .sides import Control

TITLE = "Memory with consumers that are too slow, over a minute of flood"

NOTES = (
    (
        "Each consumer takes one piece a second (polling: looks every 100 ms), so almost all of"
        " what is written waits, is dropped with a count, or is written to a file (spool)."
    ),
    "MB more at the end than before the flood; `written` is how much the pane could write.",
)

CASE = "flood"
RATE = 10_000
"""Lines a second; about 0.25 MB/s."""

ROUNDS = 2

UNITS = {"own": "MB", "server": "MB", "written": "MB"}


class Flood(Writer):
    """A writer that is looked at for its time only: it may be held up for ever."""

    def __init__(self, tty: str, *, rate: float, seconds: float) -> None:
        super().__init__([tty], rate=rate, seconds=seconds)
        self._ends_at = time.monotonic() + seconds

    def goes_on(self) -> bool:
        """Whether the flood is not over yet."""
        return time.monotonic() < self._ends_at


def _client(server: Server, pane: PaneInfo, writer: Flood, overflow: tmuxcc.Overflow) -> None:
    async def run() -> None:
        async with (
            tmuxcc.open_client(SESSION, tmux=server.tmux, socket_path=server.socket) as client,
            client.pane(pane.pane_id).output(overflow=overflow) as stream,
        ):
            writer.go()
            while writer.goes_on():
                await stream.receive()
                await trio.sleep(1)
            report(server, writer)

    trio.run(run)


def drop(server: Server, pane: PaneInfo, writer: Flood) -> None:
    """`Pane.output`, which drops the oldest."""
    _client(server, pane, writer, "drop")


def spool(server: Server, pane: PaneInfo, writer: Flood) -> None:
    """`Pane.output`, which writes to a file what it can't keep."""
    _client(server, pane, writer, "spool")


def bare(server: Server, pane: PaneInfo, writer: Flood) -> None:
    """`tmux -C` as it comes, without flow control, one read a second."""
    with closing(Control(server, flags="ignore-size")) as control:
        writer.go()
        while writer.goes_on():
            control.read()
            time.sleep(1)
        report(server, writer)


def pipe(server: Server, pane: PaneInfo, writer: Flood) -> None:
    """`pipe-pane` into a FIFO, one read a second."""
    path = server.folder / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    server.run("pipe-pane", "-t", pane.pane_id, f"exec cat >{path}")
    writer.go()
    while writer.goes_on():
        os.read(fd, 65536)
        time.sleep(1)
    report(server, writer)
    server.run("pipe-pane", "-t", pane.pane_id)
    os.close(fd)


def polling(server: Server, pane: PaneInfo, writer: Flood) -> None:
    """libtmux, every 100 ms."""
    tmux = libtmux.Server(socket_path=server.socket, tmux_bin=server.tmux)
    looked_at = next(each for each in tmux.panes if each.pane_id == pane.pane_id)
    writer.go()
    while writer.goes_on():
        looked_at.capture_pane()
        time.sleep(0.1)
    report(server, writer)


SIDES: dict[str, Callable[[Server, PaneInfo, Flood], None]] = {
    "tmuxcc stream, drop": drop,
    "tmuxcc stream, spool": spool,
    "tmux -C, no flow control": bare,
    "pipe-pane to FIFO": pipe,
    "libtmux, 100 ms": polling,
}

_before: dict[str, float] = {}


def measure(server: Server) -> dict[str, float]:
    """The memory of this process and of the server, in MB."""
    return {"own": private_memory(os.getpid()), "server": private_memory(server.pid)}


def report(server: Server, writer: Flood) -> None:
    """Print what the flood has left. Called while the connection still is there."""
    grown = {what: now - _before[what] for what, now in measure(server).items()}
    print(json.dumps({**grown, "written": writer.bytes_written() / 1e6}), flush=True)


def run(setting: Setting) -> list[Row]:
    """All sides and rounds at once."""
    if not can_account():
        raise Failed("only Linux tells how much memory other processes use")
    seconds, rate = setting.of((60.0, RATE), (0.5, 2000))
    processes = [
        (
            name,
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.memory"),
                    *(name, setting.tmux, str(seconds), str(rate)),
                ],
                stdout=subprocess.PIPE,
            ),
        )
        for _ in range(setting.of(ROUNDS, 1))
        for name in SIDES
    ]
    found: dict[str, dict[str, list[list[float]]]] = {
        what: {name: [] for name in SIDES} for what in UNITS
    }
    try:
        for name, process in processes:
            told, _ = process.communicate(timeout=3 * seconds + PATIENCE)
            if process.returncode != 0:
                raise Failed(f"the side {name!r} of memory has failed")
            for what, value in json.loads(told).items():
                found[what][name].append([value])
    finally:
        for _, process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return [
        row for what, sides in found.items() for row in summarize(CASE, what, UNITS[what], sides)
    ]


def main() -> None:
    """One side."""
    name, tmux, seconds, rate = sys.argv[1:]
    with run_server(tmux) as server, server.panes(1) as (pane,):
        writer = Flood(pane.tty, rate=float(rate), seconds=float(seconds))
        _before.update(measure(server))
        with closing(writer):
            SIDES[name](server, pane, writer)
            writer.kill()


if __name__ == "__main__":
    main()
