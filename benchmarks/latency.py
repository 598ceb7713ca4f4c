"""How long after a pane wrote a line the consumer has it.

Each line carries the time at which it was written; the consumer notes the time at which it has it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from .harness import WITHIN, PaneInfo, Samples, Server, Setting, Side, compare, run_server
from .results import Row
from .sides import ALL, Scene, Watching

TITLE = "Latency from the write in the pane to the consumer"

NOTES = (
    "Lines that polling never saw have no latency and are not in its figures (see completeness).",
    "With a neighbour in flood a polling side looks at its own pane only.",
)

MAIN = "1 pane, 100 lines/s"
"""The case of the picture and of the README."""

FLOOD = "1 pane, 100 lines/s, beside a flood"
AGENTS_FLOOD = "99 panes, 198 lines/s, beside a flood"

_FEW = ("floor", "tmuxcc stream", "libtmux, 100 ms")
_MORE = ("floor", "tmuxcc tap", "tmuxcc stream", "tmuxcc swarm", "libtmux, 100 ms")
_PUSHED = ("floor", "tmuxcc stream", "tmuxcc swarm")
_EVERY = tuple(ALL)

UNITS = {"latency": "ms"}


def watching(
    watch: Watching, server: Server, panes: Sequence[PaneInfo], rate: float, seconds: float
) -> Side:
    """The side that watches these panes, with new random moments each time."""

    def side() -> Samples:
        scene = Scene(server, panes, rate, seconds, seed=secrets.randbits(30))
        return {"latency": watch(scene).latencies()}

    return side


def run(setting: Setting) -> list[Row]:
    """All cases."""
    rows: list[Row] = []
    with run_server(setting.tmux) as server:

        def case(
            name: str,
            names: Sequence[str],
            *,
            panes: int = 1,
            rate: float,
            seconds: float,
            rounds: int = 2,
            within: float = WITHIN,
        ) -> None:
            with server.panes(panes) as made:
                rows.extend(
                    compare(
                        name,
                        {each: watching(ALL[each], server, made, rate, seconds) for each in names},
                        rounds=rounds,
                        within=within,
                        units=UNITS,
                        baseline="floor",
                        keep_quantiles=name == MAIN,
                    )
                )

        if setting.quick:
            case(MAIN, _EVERY, rate=100, seconds=0.1, rounds=1)
            case("2 panes, 20 lines/s", _FEW, panes=2, rate=10, seconds=0.2, rounds=1)
            with server.flood():
                case(FLOOD, ("floor", "tmuxcc stream"), rate=100, seconds=0.1, rounds=1)
            return rows
        case("1 pane, 1 line/s", _FEW, rate=1, seconds=1)
        case("1 pane, 10 lines/s", _FEW, rate=10, seconds=0.5)
        case(MAIN, _EVERY, rate=100, seconds=0.3, within=16)
        case("1 pane, 1000 lines/s", _FEW, rate=1000, seconds=0.2)
        case("10 panes, 100 lines/s", _FEW, panes=10, rate=10, seconds=0.5)
        case("100 panes, 200 lines/s", _FEW, panes=100, rate=2, seconds=0.5)
        with server.flood():
            case(FLOOD, _MORE, rate=100, seconds=0.4)
            case(AGENTS_FLOOD, _PUSHED, panes=99, rate=2, seconds=0.5)
    return rows
