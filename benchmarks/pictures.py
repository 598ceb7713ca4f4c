"""Results as pictures (SVG and PNG): sides are named where they are drawn, not by colour alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from . import cpu, latency, swarm
from .results import Question, Results, Row, rows_of
from .tables import figure

FOLDER = Path(__file__).parent / "pictures"

# Okabe and Ito's palette: told apart by all kinds of colour vision.
BLUE, ORANGE, GREY, GREEN, PURPLE = "#0072B2", "#D55E00", "#666666", "#009E73", "#CC79A7"

LABEL_STEP = 0.075
"""How far apart names stand, as a part of the height."""

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tmuxcc",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
}


def colour(side: str) -> str:
    """Push by tmuxcc is blue, polling orange, what both are measured by grey."""
    if side.startswith("tmuxcc"):
        return BLUE
    if side.startswith(("libtmux", "capture-pane")):
        return ORANGE
    if side.startswith("design"):
        return PURPLE
    if side.startswith("pipe-pane"):
        return GREEN
    return GREY


def _time(milliseconds: float, _: object = None) -> str:
    if milliseconds < 1:
        return f"{figure(milliseconds * 1000)} µs"
    if milliseconds < 1000:
        return f"{figure(milliseconds)} ms"
    return f"{figure(milliseconds / 1000)} s"


def draw(results: Results, folder: Path = FOLDER) -> list[Path]:
    """Draw what the results have enough for; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with mpl.rc_context(_SETTINGS):
        for name, make in {
            "latency": _latency,
            "completeness": _completeness,
            "cost": _cost,
        }.items():
            picture = make(results)
            if picture is None:
                continue
            for suffix in ("svg", "png"):
                file = folder / f"{name}.{suffix}"
                # Without a date the same results make the same file.
                metadata = {"Date": None} if suffix == "svg" else {"Software": None}
                picture.savefig(file, dpi=150, bbox_inches="tight", metadata=metadata)
                files.append(file)
    return files


# Push beside polling


def _latency(results: Results) -> Figure | None:
    rows = [
        row
        for row in rows_of(results.question("latency"), what="latency", case=latency.MAIN)
        if row.quantiles
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row.p50, reverse=True)
    picture = Figure(figsize=(9, 0.42 * len(rows) + 1.4))
    axes = picture.subplots()
    for height, row in enumerate(rows):
        ink = colour(row.side)
        # The samples, spread a little so that the dense places show.
        heights = [height + 0.28 * ((n * 0.618) % 1 - 0.5) for n in range(len(row.quantiles))]
        axes.scatter(row.quantiles, heights, s=9, color=ink, alpha=0.35, linewidths=0)
        axes.plot([row.p50, row.p50], [height - 0.33, height + 0.33], color=ink, linewidth=2.5)
        axes.annotate(
            f"{_time(row.p50)}",
            (row.p50, height + 0.33),
            ha="center",
            va="bottom",
            fontsize=8,
            color=ink,
            fontweight="bold",
        )
    axes.set_yticks(range(len(rows)), [row.side for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(colour(row.side))
        label.set_fontweight("bold" if row.side.startswith("tmuxcc") else "normal")
    axes.set_ylim(-0.6, len(rows) - 0.1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_time))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("from the write in the pane until the program has the line (log scale)")
    axes.set_title(
        f"Push against polling: {latency.MAIN}; each dot a line, the bar the median",
        loc="left",
        fontsize=11,
    )
    return picture


# Where polling begins to lose


def _completeness(results: Results) -> Figure | None:
    rows = rows_of(results.question("completeness"), what="seen")
    sides: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        sides.setdefault(row.side, []).append((_rate(row), row.p50))
    if len({rate for points in sides.values() for rate, _ in points}) < 2:
        return None
    picture = Figure(figsize=(9, 4.6))
    axes = picture.subplots()
    ends = []
    for side, points in sides.items():
        rates, seen = zip(*sorted(points), strict=True)
        axes.plot(
            rates,
            seen,
            color=colour(side),
            marker="o",
            markersize=4,
            linestyle=_stroke(side),
            # Those that see everything lie on each other.
            linewidth=5 if side.startswith("pipe-pane") else 2,
            zorder=3 if side.startswith("tmuxcc") else 2,
        )
        ends.append((seen[-1], side))
    _label_ends(axes, ends)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
    axes.set_ylim(0, 104)
    axes.set_xlabel("lines that a pane writes each second (log scale)")
    axes.set_ylabel("% of them seen")
    axes.set_title("Completeness: what polling never sees", loc="left", fontsize=11)
    return picture


def _rate(row: Row) -> int:
    return int(row.case.split()[0])


def _stroke(side: str) -> str:
    if "tight" in side or "stream" in side or "server" in side:
        return "--"
    return ":" if "history" in side else "-"


def _label_ends(axes: Axes, ends: Iterable[tuple[float, str]], *, log: bool = False) -> None:
    """Write the sides' names at the right end of their lines, so that none covers another."""
    low, high = axes.get_ylim()
    scale = math.log if log else float
    ends = sorted(ends)
    places = [(scale(y) - scale(low)) / (scale(high) - scale(low)) for y, _ in ends]
    # Pushed down from the top where they are too near, then up from the bottom.
    for n in reversed(range(len(places))):
        above = places[n + 1] if n + 1 < len(places) else 1 + LABEL_STEP
        places[n] = min(places[n], above - LABEL_STEP)
    for n in range(len(places)):
        below = places[n - 1] if n else -LABEL_STEP
        places[n] = max(places[n], below + LABEL_STEP)
    for place, (_, side) in zip(places, ends, strict=True):
        axes.annotate(
            side,
            (1.015, place),
            xycoords="axes fraction",
            color=colour(side),
            fontsize=8.5,
            va="center",
            fontweight="bold" if side.startswith("tmuxcc") else "normal",
        )


# How the cost grows


def _cost(results: Results) -> Figure | None:
    panels = (
        ("cpu", "idle, all", "CPU of idle panes, % of a core", cpu.SIZES),
        ("cpu", "busy, all", "CPU of panes that write 10 lines/s, % of a core", cpu.SIZES),
        ("swarm", "spawn", "start of all agents, ms", swarm.SIZES),
        ("swarm", "broadcast", "a word to all, until an agent echoes (p50), ms", swarm.SIZES),
    )
    drawn = [
        (rows, title)
        for name, what, title, sizes in panels
        if (rows := _sized(results.question(name), what)) and len(sizes) > 1
    ]
    if not drawn:
        return None
    picture = Figure(figsize=(11, 3.6 * ((len(drawn) + 1) // 2)))
    for number, (sides, title) in enumerate(drawn):
        axes = picture.add_subplot((len(drawn) + 1) // 2, 2, number + 1)
        ends = []
        for side, points in sides.items():
            sizes, costs = zip(*sorted(points), strict=True)
            axes.plot(
                sizes,
                costs,
                color=colour(side),
                marker="o",
                markersize=4,
                linewidth=2,
                linestyle=_stroke(side),
            )
            ends.append((costs[-1], side))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("panes" if "CPU" in title else "agents")
        _label_ends(axes, ends, log=True)
    picture.subplots_adjust(wspace=0.45, hspace=0.38)
    return picture


def _sized(question: Question | None, what: str) -> dict[str, list[tuple[int, float]]]:
    sides: dict[str, list[tuple[int, float]]] = {}
    rows: Sequence[Row] = rows_of(question, what=what)
    for row in rows:
        if row.p50 > 0:
            sides.setdefault(row.side, []).append((int(row.case.split()[0]), row.p50))
    # A single size is no line.
    return {side: points for side, points in sides.items() if len(points) > 1}
