"""Of the lines that a pane writes, how many the consumer sees, at growing rates.

Polling is given the best that can be made of it: a line counts as seen if it stood on any screen
that was captured, so no way to compare screens could find more. One side more is the design
document's own way to tell new lines from old ones, which also repeats some.
"""

from __future__ import annotations

import secrets

from .harness import Samples, Server, Setting, Side, compare, run_server
from .results import Row
from .sides import (
    PaneInfo,
    Scene,
    Watching,
    document_polling,
    libtmux_polling,
    lines,
    pipe_pane,
)

TITLE = "Completeness: lines seen of lines written"

NOTES = (
    "Polling counts a line as seen if it stood on any screen that was captured (50 rows).",
    (
        "With its history (2000 lines, tmux's default) polling reaches further; each look then"
        " costs more."
    ),
    "`repeated` is the share of lines that a side gave out a second time.",
)

SIDES: dict[str, Watching] = {
    "tmuxcc lines": lines,
    "pipe-pane to FIFO": pipe_pane,
    "libtmux, 100 ms": libtmux_polling(0.1),
    "libtmux, 100 ms, with history": libtmux_polling(0.1, start="-"),
    "libtmux, tight loop": libtmux_polling(0),
    "design document, 100 ms": document_polling,
}

RATES = (300, 1000, 10_000, 50_000)

UNITS = {"seen": "%", "repeated": "%", "rate": "lines/s"}


def case_of(rate: int) -> str:
    """The name of the case."""
    return f"{rate} lines/s"


def watching(watch: Watching, server: Server, pane: PaneInfo, rate: float, seconds: float) -> Side:
    """The side that counts what it sees of one pane."""

    def side() -> Samples:
        server.run("send-keys", "-R", "-t", pane.pane_id, ";", "clear-history", "-t", pane.pane_id)
        scene = Scene(server, [pane], rate, seconds, seed=secrets.randbits(30))
        record = watch(scene)
        seen = len(record.arrivals())
        return {
            "seen": [100 * seen / scene.written],
            "repeated": [100 * record.repeats / scene.written],
            "rate": [scene.written / scene.took],
        }

    return side


def run(setting: Setting) -> list[Row]:
    """One case for each rate."""
    rows: list[Row] = []
    with run_server(setting.tmux) as server, server.panes(1) as (pane,):
        for rate in setting.of(RATES, (1000,)):
            # More lines than a screen has rows, or the first screenful would be all.
            seconds = setting.of(max(0.2, 50 / rate), 0.2)
            sides = {
                name: watching(watch, server, pane, rate, seconds) for name, watch in SIDES.items()
            }
            rows += compare(case_of(rate), sides, rounds=setting.of(2, 1), units=UNITS)
    return rows
