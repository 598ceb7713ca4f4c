"""How fast a flood gets through, from one pane and from many, and what a gigabyte costs."""

from __future__ import annotations

from pathlib import Path

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
)

ONE = "one pane"
MANY = "ten panes"

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
        file.write_bytes(colour_log(setting.of(3_000_000, 200_000)) + END + b"\n")
        with server.panes(1) as panes:
            sides = {name: watching(each, server, panes, file) for name, each in SIDES.items()}
            rows = compare(ONE, sides, rounds=setting.of(3, 1), units=UNITS, baseline="floor")
        file.write_bytes(colour_log(setting.of(400_000, 50_000)) + END + b"\n")
        with server.panes(10) as panes:
            sides = {
                name: watching(SIDES[name], server, panes, file)
                for name in ("floor", "tmuxcc tap", "tmuxcc stream", "tmuxcc lines", "tmuxcc swarm")
            }
            rows += compare(MANY, sides, rounds=setting.of(2, 1), units=UNITS, baseline="floor")
    return rows
