"""What 1 to 200 panes cost in CPU, those that say nothing and those that write.

Counted are this process, its children (tmux clients, and whatever polling starts) and the tmux
server; what writes the lines is not.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import trio

import tmuxcc
from tmuxcc.swarm.opening import open_swarm

from .harness import (
    SESSION,
    Cpu,
    CpuMeter,
    Failed,
    PaneInfo,
    Samples,
    Server,
    Setting,
    can_account,
    compare,
    run_server,
)
from .results import Row, growth
from .sides import (
    WAITING_PROGRAM,
    Control,
    Scene,
    floor,
    libtmux_panes,
    libtmux_polling,
    read_agents,
    stream,
    unique,
)

TITLE = "CPU of idle and busy panes"

NOTES = (
    (
        "In per cent of one core: self, children and tmux server together; what writes the"
        " lines is not counted. `server` is the tmux server's part."
    ),
    (
        "`looks` is how often a second polling really looks at each pane: from some number of"
        " panes on it can't keep its 100 ms. libtmux looks at 100 at most."
    ),
    "Many idle agents are measured two seconds after the last one was started.",
)

SIZES = (1, 100, 200)

LIBTMUX_SIZE = 100
"""How many panes libtmux looks at at most: with these it can't keep its 100 ms any more."""

UNITS = {
    "idle, all": "% core",
    "idle, server": "% core",
    "idle, per pane": "% core",
    "busy, all": "% core",
    "busy, server": "% core",
    "busy, per pane": "% core",
    "looks": "1/s",
}

RATE = 10.0
"""Lines a second that a busy pane writes."""


def case_of(size: int) -> str:
    """The name of the case."""
    return f"{size} panes" if size != 1 else "1 pane"


def _shares(kind: str, used: Cpu, seconds: float, panes: int) -> dict[str, list[float]]:
    return {
        f"{kind}, all": [100 * used.total / seconds],
        f"{kind}, server": [100 * used.server / seconds],
        f"{kind}, per pane": [100 * used.total / seconds / panes],
    }


def _busy(server: Server, panes: Sequence[PaneInfo], seconds: float, watch) -> Samples:
    scene = Scene(server, panes, RATE, seconds, seed=secrets.randbits(30))
    watch(scene)
    found = _shares("busy", scene.used, scene.spent, len(panes))
    if scene.looks:
        found["looks"] = [scene.looks / scene.spent / len(panes)]
    return found


def floor_side(
    server: Server, panes: Sequence[PaneInfo], idle: float, busy: float, settle: float
) -> Samples:
    """A control client that waits."""
    with closing(Control(server)):
        time.sleep(settle)
        meter = CpuMeter(server.pid)
        time.sleep(idle)
        used = meter.stop()
    return {**_shares("idle", used, idle, len(panes)), **_busy(server, panes, busy, floor)}


async def _measure_idle(server: Server, seconds: float) -> Cpu:
    meter = CpuMeter(server.pid)
    await trio.sleep(seconds)
    return meter.stop()


def stream_side(
    server: Server, panes: Sequence[PaneInfo], idle: float, busy: float, settle: float
) -> Samples:
    """A task for each pane that waits for its next chunk."""

    async def read(pane: tmuxcc.Pane) -> None:
        async for _ in pane.output():
            pass

    async def wait() -> Cpu:
        async with (
            tmuxcc.open_client(SESSION, tmux=server.tmux, socket_path=server.socket) as client,
            trio.open_nursery() as nursery,
        ):
            for pane in panes:
                nursery.start_soon(read, client.pane(pane.pane_id))
            await trio.sleep(settle)
            used = await _measure_idle(server, idle)
            nursery.cancel_scope.cancel()
        return used

    used = trio.run(wait)
    return {**_shares("idle", used, idle, len(panes)), **_busy(server, panes, busy, stream)}


def swarm_side(
    server: Server, panes: Sequence[PaneInfo], idle: float, busy: float, settle: float
) -> Samples:
    """As many agents."""
    scene = Scene(server, panes, RATE, busy, seed=secrets.randbits(30))

    async def wait() -> Cpu:
        async with open_swarm(
            f"idle-{next(unique)}", tmux=server.tmux, socket_path=server.socket
        ) as agents:
            async with trio.open_nursery() as nursery:
                for number in range(len(panes)):
                    nursery.start_soon(agents.spawn, f"a{number}", WAITING_PROGRAM)
            await trio.sleep(settle)
            used = await _measure_idle(server, idle)
            await read_agents(scene, agents, scene.record())
            return used

    used = trio.run(wait)
    return {
        **_shares("idle", used, idle, len(panes)),
        **_shares("busy", scene.used, scene.spent, len(panes)),
    }


def libtmux_side(server: Server, panes: Sequence[PaneInfo], idle: float, busy: float) -> Samples:
    """A look at each, every 100 ms."""
    known = libtmux_panes(server)
    meter, start, looks = CpuMeter(server.pid), time.monotonic(), 0
    while time.monotonic() < start + idle:
        for pane in panes:
            known[pane.pane_id].capture_pane()
            looks += 1
        time.sleep(0.1)
    used, spent = meter.stop(), time.monotonic() - start
    return {
        **_shares("idle", used, spent, len(panes)),
        **_busy(server, panes, busy, libtmux_polling(0.1)),
        "looks": [looks / spent / len(panes)],
    }


def run(setting: Setting) -> tuple[list[Row], list[str]]:
    """A case for each size."""
    if not can_account():
        raise Failed("only Linux tells what CPU other processes use")
    rows: list[Row] = []
    busy = setting.of(0.3, 0.2)
    for size in setting.of(SIZES, (1, 3)):
        # A server of its own for each size, so that its windows are this many.
        with run_server(setting.tmux) as server, server.panes(size) as panes:
            # tmux does what it does for idle panes once a second.
            idle = setting.of(1.0, 0.2)
            # In the second after that of its start it is noted how each agent is.
            settle = setting.of(2.0 if size > 1 else 0.5, 0.2)

            def side(
                function: Callable[..., Samples],
                *more: float,
                server=server,
                panes=panes,
                idle=idle,
            ):
                return lambda: function(server, panes, idle, busy, *more)

            sides = {
                # Half a second after a window was busy tmux looks for another name for it.
                "floor": side(floor_side, setting.of(0.8, 0.1)),
                "tmuxcc stream": side(stream_side, setting.of(0.8, 0.2)),
                "tmuxcc swarm": side(swarm_side, settle),
            }
            if size <= LIBTMUX_SIZE:
                sides["libtmux, 100 ms"] = side(libtmux_side)
            rows += compare(
                case_of(size),
                sides,
                rounds=setting.of(2, 1),
                within=22,
                units=UNITS,
                baseline="floor",
            )
    return rows, growth(rows, ["busy, all"], "panes")
