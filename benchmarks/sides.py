"""The ways to see what panes write, from the barest read loop to polling, each as a side.

Each function watches the panes of a `Scene` while its writer writes, and gives the `Record`. All
have their connection before the first line is written and end when the last has come (or is given
up); none looks into the lines before all is over.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
import tty
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import libtmux
import trio
from attrs import define, field

import tmuxcc
from tmuxcc import Output, Parser
from tmuxcc.swarm.opening import open_swarm
from tmuxcc.swarm.swarm import Swarm

from .harness import (
    SESSION,
    Cpu,
    CpuMeter,
    EndWatch,
    Failed,
    Flooder,
    PaneInfo,
    Record,
    Server,
    Tally,
    Writer,
)

READ = 1 << 16

SETTLED, SETTLED_EACH = 0.05, 0.002
"""Seconds, and those for each pane more, after which all streams have begun."""

WAITING_PROGRAM = ("sleep", "100000")

unique = count()


@define
class Scene:
    """Panes and what is written into each: `rate` lines a second for `seconds`.

    With a `file` that is written into each instead, as fast as possible, and arrivals are only
    counted. The side sets the other fields: what CPU was `used` between the first line and the
    last, and how much time was `spent`; what was `written`, and in which time that `took`; how
    often it looked, and how many bytes it read from tmux.
    """

    server: Server
    panes: Sequence[PaneInfo]
    rate: float
    seconds: float
    seed: int = 1
    file: Path | None = None
    used: Cpu = field(factory=lambda: Cpu(0, 0, 0))
    spent: float = 0.0
    written: int = 0
    took: float = 0.0
    looks: int = 0
    wire: int = 0

    def record(self) -> Record:
        """For what arrives."""
        return Record() if self.file is None else Tally()

    @contextmanager
    def writing(self, ttys: Sequence[str] | None = None):
        """Have it written; the block is what the side needs to see all of it. Gives the end."""
        if ttys is None:
            ttys = [pane.tty for pane in self.panes]
        writer: Writer | Flooder
        if self.file is None:
            writer = Writer(ttys, rate=self.rate, seconds=self.seconds, seed=self.seed)
        else:
            writer = Flooder(ttys, self.file)
        with closing(writer):
            ends = EndWatch(writer)
            meter, start = CpuMeter(self.server.pid, spare=writer.pids), time.monotonic()
            writer.go()
            yield ends
            self.used = meter.stop()
            self.spent = (ends.last or time.monotonic()) - start
            while not writer.poll():
                time.sleep(0.001)
            self.written, self.took = writer.written, writer.seconds


Watching = Callable[[Scene], Record]


class Control:
    """`tmux -C` with blocking reads and nothing else."""

    def __init__(
        self,
        server: Server,
        *,
        session: str = SESSION,
        flags: str = "ignore-size,pause-after=1",
    ) -> None:
        self.process = subprocess.Popen(
            [
                *(server.tmux, "-u", "-S", server.socket, "-N", "-C", "attach-session", "-E"),
                *("-f", flags, "-t", session),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin = self.process.stdin
        self.fd = self.process.stdout.fileno()
        self.read_until(b"%session-changed")

    def read_until(self, text: bytes) -> bytes:
        """Read until `text` has come; all that was read."""
        pieces = []
        tail = b""
        while text not in tail:
            data = self.read()
            pieces.append(data)
            tail = tail[1 - len(text) :] + data
        return b"".join(pieces)

    def read(self) -> bytes:
        """Wait for data."""
        data = os.read(self.fd, READ)
        if not data:
            raise Failed("the tmux client has ended")
        return data

    def write(self, data: bytes) -> None:
        """Write commands."""
        self.stdin.write(data)

    def close(self) -> None:
        """Detach, and wait for the end of the client."""
        self.stdin.close()
        while os.read(self.fd, READ):
            pass
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _pump(fd: int, ends: EndWatch, take: Callable[[bytes], object]) -> None:
    """Block in `read` until all has come. Looks up from it only when nothing comes."""
    while True:
        while not select.select([fd], [], [], 0.1)[0]:
            if ends.over():
                return
        data = os.read(fd, READ)
        take(data)
        if ends.saw(None, data):
            return


def floor(scene: Scene) -> Record:
    """A blocking read loop on `tmux -C`, which parses nothing."""
    record = scene.record()
    with closing(Control(scene.server)) as control, scene.writing() as ends:
        _pump(control.fd, ends, lambda data: record.receive(None, data))
        scene.wire = record.bytes if isinstance(record, Tally) else 0
    return _parsed(record)


def _parsed(record: Record) -> Record:
    """Of reads of the wire what the panes wrote, at the time of the read."""
    if isinstance(record, Tally):
        return record
    parsed, parser = Record(began=record.began), Parser()
    for sighting in record.sightings:
        parsed.clock = lambda now=sighting.now: now
        for event in parser.receive_data(sighting.data):
            if isinstance(event, Output):
                parsed.receive(event.pane_id, event.data)
    return parsed


def trio_floor(scene: Scene) -> Record:
    """The floor under trio: `wait_readable` and `os.read`."""
    record = scene.record()

    async def watch() -> None:
        with scene.writing() as ends:
            while True:
                with trio.move_on_after(0.1) as scope:
                    await trio.lowlevel.wait_readable(control.fd)
                if scope.cancelled_caught:
                    if ends.over():
                        return
                    continue
                data = os.read(control.fd, READ)
                record.receive(None, data)
                if ends.saw(None, data):
                    return

    with closing(Control(scene.server)) as control:
        trio.run(watch)
    return _parsed(record)


def direct_pty(scene: Scene) -> Record:
    """A pseudo-terminal without tmux; one only."""
    record = scene.record()
    master, slave = pty.openpty()
    tty.setraw(slave)
    try:
        with scene.writing([os.ttyname(slave)]) as ends:
            _pump(master, ends, lambda data: record.receive(0, data))
    finally:
        os.close(slave)
        os.close(master)
    return record


def pipe_pane(scene: Scene) -> Record:
    """`pipe-pane` into one FIFO, by a `cat` for each pane."""
    record = scene.record()
    path = scene.server.folder / f"fifo-{next(unique)}"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        for pane in scene.panes:
            scene.server.run("pipe-pane", "-t", pane.pane_id, f"exec cat >{path}")
        # Until the cats are there nothing is lost: tmux keeps it for them.
        with scene.writing() as ends:
            _pump(fd, ends, lambda data: record.receive(0, data))
        for pane in scene.panes:
            scene.server.run("pipe-pane", "-t", pane.pane_id)
    finally:
        os.close(fd)
        path.unlink()
    return record


# tmuxcc


async def _wait_end(ends: EndWatch, done: trio.Event) -> None:
    """Wait until the consumers have all, or it is given up."""
    while not done.is_set() and not ends.over():
        with trio.move_on_after(0.1):
            await done.wait()


def tap(scene: Scene) -> Record:
    """A function that tmuxcc calls for each `Output`."""
    record = scene.record()

    async def watch() -> None:
        async with tmuxcc.open_client(
            SESSION, tmux=scene.server.tmux, socket_path=scene.server.socket
        ) as client:
            done = trio.Event()

            def take(event: Output) -> None:
                record.receive(event.pane_id, event.data)
                if ends.saw(event.pane_id, event.data):
                    done.set()

            with scene.writing() as ends:
                client.add_tap(take, Output)
                before = client.statistics().bytes_received
                await _wait_end(ends, done)
                scene.wire = client.statistics().bytes_received - before

    trio.run(watch)
    return record


async def _read_streams(
    scene: Scene,
    client: tmuxcc.Client,
    panes: Sequence[tmuxcc.Pane],
    record: Record,
    *,
    lines: bool,
    ttys: Sequence[str] | None = None,
) -> None:
    """A task for each pane, which reads its stream, until all have ended."""
    done = trio.Event()

    async def read_chunks(pane: tmuxcc.Pane, stream: tmuxcc.OutputStream) -> None:
        async for item in stream:
            if isinstance(item, tmuxcc.Chunk):
                record.receive(pane.pane_id, item.data)
                if ends.saw(pane.pane_id, item.data):
                    done.set()

    async def read_lines(pane: tmuxcc.Pane, stream: tmuxcc.LineStream) -> None:
        async for line in stream:
            data = line.encode() + b"\n"
            record.receive(pane.pane_id, data)
            if ends.saw(pane.pane_id, data):
                done.set()

    async with trio.open_nursery() as nursery:
        for pane in panes:
            if lines:
                nursery.start_soon(read_lines, pane, pane.lines())
            else:
                nursery.start_soon(read_chunks, pane, pane.output())
        # Each asks once whether its pane is there.
        await trio.sleep(SETTLED + SETTLED_EACH * len(panes))
        with scene.writing(ttys) as ends:
            before = client.statistics().bytes_received
            await _wait_end(ends, done)
            scene.wire = client.statistics().bytes_received - before
        nursery.cancel_scope.cancel()


def _reading(scene: Scene, *, lines: bool) -> Record:
    record = scene.record()

    async def watch() -> None:
        async with tmuxcc.open_client(
            SESSION, tmux=scene.server.tmux, socket_path=scene.server.socket
        ) as client:
            panes = [client.pane(pane.pane_id) for pane in scene.panes]
            await _read_streams(scene, client, panes, record, lines=lines)

    trio.run(watch)
    return record


def stream(scene: Scene) -> Record:
    """`Pane.output`, a task for each pane."""
    return _reading(scene, lines=False)


def lines(scene: Scene) -> Record:
    """`Pane.lines`, a task for each pane."""
    return _reading(scene, lines=True)


def swarm(scene: Scene) -> Record:
    """`Agent.lines`, a task for each agent; the panes are those of a swarm on the same server."""
    record = scene.record()

    async def watch() -> None:
        async with open_swarm(
            f"bench-{next(unique)}", tmux=scene.server.tmux, socket_path=scene.server.socket
        ) as agents:
            async with trio.open_nursery() as nursery:
                for number in range(len(scene.panes)):
                    nursery.start_soon(agents.spawn, f"a{number}", WAITING_PROGRAM)
            await read_agents(scene, agents, record)

    trio.run(watch)
    return record


async def read_agents(scene: Scene, agents: Swarm, record: Record) -> None:
    """What `swarm` does with agents that are there."""
    ttys = {row.pane_id: row.pane_tty for row in await agents.client.list_panes()}
    panes = [agent.pane for agent in agents.agents.values()]
    own = [ttys[pane.pane_id] for pane in panes]
    await _read_streams(scene, agents.client, panes, record, lines=True, ttys=own)


# Polling


def _poll(scene: Scene, capture: Callable[[PaneInfo], bytes], interval: float) -> Record:
    """Look at every pane, then wait: the last time when all is written and has settled."""
    record = scene.record()
    scene.looks = 0
    with scene.writing() as ends:
        last = False
        while True:
            for pane in scene.panes:
                record.look(capture(pane))
                scene.looks += 1
            if last:
                break
            if ends.all_written():
                last = True
                time.sleep(max(interval, 0.05))
            elif interval:
                time.sleep(interval)
    return record


def libtmux_polling(interval: float, *, start: str | None = None) -> Watching:
    """libtmux: `capture_pane` of each pane, then `interval` seconds of sleep."""

    def watch(scene: Scene) -> Record:
        panes = libtmux_panes(scene.server)

        def capture(pane: PaneInfo) -> bytes:
            return "\n".join(panes[pane.pane_id].capture_pane(start=start)).encode()

        return _poll(scene, capture, interval)

    return watch


def libtmux_panes(server: Server) -> dict[str, libtmux.Pane]:
    """The panes as libtmux has them, by id."""
    tmux = libtmux.Server(socket_path=server.socket, tmux_bin=server.tmux)
    return {str(pane.pane_id): pane for pane in tmux.panes}


def capture_loop(interval: float) -> Watching:
    """A `tmux capture-pane` process for each look."""

    def watch(scene: Scene) -> Record:
        argv = [scene.server.tmux, "-S", scene.server.socket, "capture-pane", "-p", "-t"]

        def capture(pane: PaneInfo) -> bytes:
            return subprocess.run([*argv, pane.pane_id], stdout=subprocess.PIPE).stdout

        return _poll(scene, capture, interval)

    return watch


class DocumentStream:
    """The design document's way to tell new lines from old ones, as it is printed there (3.4)."""

    def __init__(self, pane: libtmux.Pane) -> None:
        self.pane = pane
        self.last_line = -1

    def read_new(self) -> list[str]:
        """What it takes for new."""
        result = self.pane.cmd("capture-pane", "-p", "-e")
        if not result.stdout:
            return []
        all_lines = result.stdout
        new_lines = all_lines[self.last_line + 1 :]
        self.last_line = len(all_lines) - 1
        return new_lines


def document_polling(scene: Scene) -> Record:
    """The design document's `PaneStream`, every 100 ms."""
    record = scene.record()
    panes = libtmux_panes(scene.server)
    streams = [DocumentStream(panes[pane.pane_id]) for pane in scene.panes]
    for pane in scene.panes:
        # What stands there from the side before is not its fault.
        scene.server.run(
            "send-keys", "-R", "-t", pane.pane_id, ";", "clear-history", "-t", pane.pane_id
        )
    with scene.writing() as ends:
        last = False
        while True:
            for pane, each in zip(scene.panes, streams, strict=True):
                # Told as lines of a stream, since that is what it claims them to be.
                if found := each.read_new():
                    record.receive(pane.pane_id, "\n".join([*found, ""]).encode())
            if last:
                break
            last = ends.all_written()
            time.sleep(0.1)
    return record


POLLING = {
    "libtmux, 100 ms": libtmux_polling(0.1),
    "libtmux, 10 ms": libtmux_polling(0.01),
    "libtmux, tight loop": libtmux_polling(0),
    "capture-pane process, tight loop": capture_loop(0),
}

PUSH = {
    "floor": floor,
    "tmuxcc tap": tap,
    "tmuxcc stream": stream,
    "tmuxcc lines": lines,
    "tmuxcc swarm": swarm,
}

OTHERS = {"direct pty": direct_pty, "trio floor": trio_floor, "pipe-pane to FIFO": pipe_pane}

ALL = {**OTHERS, **PUSH, **POLLING}
"""Every side by the name under which it is reported."""
