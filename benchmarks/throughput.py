"""How fast a flood gets through, from one pane and from many, and what a gigabyte costs."""

from __future__ import annotations

import fcntl
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

from tmuxcc.client import client, connection, output
from tmuxcc.client.transport import Process, open_process

from .harness import END, PaneInfo, Samples, Server, Setting, Side, compare, run_server
from .recordings import colour_log
from .results import Row
from .sides import (
    Scene,
    Tally,
    Watching,
    direct_pty,
    floor,
    lines,
    pipe_pane,
    stream,
    swarm,
    tap,
    trio_floor,
)

TITLE = "Throughput and CPU for each gigabyte"

NOTES = (
    "The text is a coloured log; bytes are those that the panes write.",
    (
        "`own` is the consumer's process, `children` the processes it starts (`tmux -C` hands"
        " its pipe over to the server and has nothing to do), `server` the tmux server."
    ),
    "`wire` is how many bytes the consumer reads for each byte written.",
    (
        "The variants are of `tmuxcc stream`: pieces of output that nobody has looked at are not"
        " put together; the pipe from tmux holds 1 MiB, and as much is read at once; no cyclic"
        " garbage is collected."
    ),
)

ONE = "one pane"
MANY = "ten panes"
VARIANTS = "ten panes, variants"

UNITS = {
    "throughput": "MB/s",
    "seen": "%",
    "cpu, own": "s/GB",
    "cpu, children": "s/GB",
    "cpu, server": "s/GB",
    "wire": "bytes/byte",
}

SIDES: dict[str, Watching] = {
    "direct pty": direct_pty,
    "pipe-pane to FIFO": pipe_pane,
    "floor": floor,
    "trio floor": trio_floor,
    "tmuxcc tap": tap,
    "tmuxcc stream": stream,
    "tmuxcc lines": lines,
    "tmuxcc swarm": swarm,
}


# What was tried, each beside what was built


@contextmanager
def pieces_apart() -> Iterator[None]:
    """Every piece of output is a chunk of its own."""
    with mock.patch.object(output, "MAX_PIECES", 1):
        yield


@contextmanager
def large_pipe() -> Iterator[None]:
    """The pipe from tmux is sixteen times as large as usual; Linux only."""
    size = 1 << 20

    def opened(argv: Sequence[str], env: dict[str, str] | None = None) -> Process:
        process = open_process(argv, env)
        fcntl.fcntl(process.stdout_fd, fcntl.F_SETPIPE_SZ, size)
        return process

    with (
        mock.patch.object(client, "open_process", opened),
        mock.patch.object(connection, "READ_SIZE", size),
    ):
        yield


@contextmanager
def no_collection() -> Iterator[None]:
    """Garbage in cycles stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


TRIED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "as built": nullcontext,
    "pieces apart": pieces_apart,
    **({"large pipe": large_pipe} if hasattr(fcntl, "F_SETPIPE_SZ") else {}),
    "no collection": no_collection,
}


def varied(variant: Callable[[], AbstractContextManager[None]]) -> Watching:
    """`stream` in a variant."""

    def watch(scene: Scene) -> Tally:
        with variant():
            record = stream(scene)
        assert isinstance(record, Tally)
        return record

    return watch


def watching(watch: Watching, server: Server, panes: list[PaneInfo], file: Path) -> Side:
    """The side that takes one flood."""

    def side() -> Samples:
        scene = Scene(server, panes, 1, 1, file=file)
        record = watch(scene)
        assert isinstance(record, Tally)
        # Each LF becomes CR LF on the way through a terminal; the bare one is raw.
        size = scene.written
        line_ends = file.read_bytes().count(b"\n") * len(panes)
        if watch is not direct_pty:
            size += line_ends
        gigabytes = size / 1e9
        found = {
            "throughput": [size / scene.spent / 1e6],
            "cpu, own": [scene.used.own / gigabytes],
            "cpu, children": [scene.used.children / gigabytes],
            "cpu, server": [scene.used.server / gigabytes],
        }
        if scene.wire:
            found["wire"] = [scene.wire / size]
        if watch not in (floor, trio_floor):
            # On the wire a line end is no line end.
            found["seen"] = [100 * record.lines / line_ends]
        return found

    return side


def run(setting: Setting) -> list[Row]:
    """One pane, then many."""
    with run_server(setting.tmux) as server:
        file = server.folder / "flood.txt"
        file.write_bytes(colour_log(setting.of(1_000_000, 200_000)) + END + b"\n")
        with server.panes(1) as panes:
            sides = {name: watching(each, server, panes, file) for name, each in SIDES.items()}
            rows = compare(ONE, sides, rounds=setting.of(4, 1), units=UNITS, baseline="floor")
        file.write_bytes(colour_log(setting.of(200_000, 50_000)) + END + b"\n")
        with server.panes(10) as panes:
            sides = {
                name: watching(SIDES[name], server, panes, file)
                for name in ("floor", "tmuxcc tap", "tmuxcc stream", "tmuxcc lines", "tmuxcc swarm")
            }
            rows += compare(MANY, sides, rounds=setting.of(2, 1), units=UNITS, baseline="floor")
            sides = {
                name: watching(varied(each), server, panes, file) for name, each in TRIED.items()
            }
            rows += compare(
                VARIANTS, sides, rounds=setting.of(2, 1), units=UNITS, baseline="as built"
            )
    return rows
