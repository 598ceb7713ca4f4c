"""What a run has found: samples by round, their figures, the machine, and the file they stand in.

Nothing here measures, and nothing prints.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

SCHEMA = 1
"""Version of the file's form."""

KEPT_QUANTILES = 120
"""How many quantiles of the samples are kept, where a picture shows the distribution."""

STORED = Path(__file__).parent / "results" / "latest.json"
"""The run that the figures in the READMEs and the pictures are made from."""


@frozen
class Row:
    """One side in one case: the figures of one thing that was measured.

    `medians` has the median of each round and p50, p90, p99 and max are of all `n` samples. `ratio`
    is the median, over the rounds, of this side's median divided by the baseline's in the same
    round, `ratio_low` and `ratio_high` the least and the greatest of these; None without baseline.
    """

    case: str
    side: str
    what: str
    unit: str
    n: int
    p50: float
    p90: float
    p99: float
    max: float
    medians: tuple[float, ...] = field(converter=tuple)
    baseline: str | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    quantiles: tuple[float, ...] = field(default=(), converter=tuple)


@frozen
class Question:
    """What one benchmark has found. `notes` say what a reader must know to judge the figures."""

    name: str
    title: str
    seconds: float
    rows: tuple[Row, ...] = field(converter=tuple)
    notes: tuple[str, ...] = field(default=(), converter=tuple)


@frozen
class Results:
    """A whole run, or what was asked for of it."""

    environment: Mapping[str, str]
    quick: bool
    seconds: float
    questions: tuple[Question, ...] = field(converter=tuple)

    def question(self, name: str) -> Question | None:
        """The question with that name, if it was asked."""
        return next((each for each in self.questions if each.name == name), None)

    def row(self, question: str, case: str, side: str, what: str) -> Row | None:
        """One row, if it is there."""
        asked = self.question(question)
        for row in () if asked is None else asked.rows:
            if (row.case, row.side, row.what) == (case, side, what):
                return row
        return None


def quantile(samples: Sequence[float], part: float) -> float:
    """The sample below or at which `part` of the (sorted) samples are; an actual sample."""
    return samples[max(0, math.ceil(len(samples) * part) - 1)]


def summarize(
    case: str,
    what: str,
    unit: str,
    sides: Mapping[str, Sequence[Sequence[float]]],
    *,
    baseline: str | None = None,
    keep_quantiles: bool = False,
) -> list[Row]:
    """The rows of one case: for each side the samples of each round, in the order they were run.

    A round without samples counts in no figure, and nor does it in a ratio.
    """
    base = [_median(each) for each in sides[baseline]] if baseline in sides else []
    rows = []
    for side, rounds in sides.items():
        samples = sorted(sample for each in rounds for sample in each)
        if not samples:
            continue
        medians = [_median(each) for each in rounds]
        ratios = [
            own / other
            for own, other in zip(medians, base, strict=False)
            if own is not None and other
        ]
        few = min(KEPT_QUANTILES, len(samples)) if keep_quantiles else 0
        kept = [quantile(samples, (n + 0.5) / few) for n in range(few)]
        rows.append(
            Row(
                case=case,
                side=side,
                what=what,
                unit=unit,
                n=len(samples),
                p50=_short(statistics.median(samples)),
                p90=_short(quantile(samples, 0.9)),
                p99=_short(quantile(samples, 0.99)),
                max=_short(samples[-1]),
                medians=[_short(each) for each in medians if each is not None],
                baseline=baseline if ratios else None,
                ratio=_short(statistics.median(ratios)) if ratios else None,
                ratio_low=_short(min(ratios)) if ratios else None,
                ratio_high=_short(max(ratios)) if ratios else None,
                quantiles=[_short(each) for each in kept],
            )
        )
    return rows


def _median(samples: Sequence[float]) -> float | None:
    return statistics.median(samples) if samples else None


def _short(value: float) -> float:
    """Four significant digits: more would only say what the noise was."""
    return float(f"{value:.4g}")


def exponent(costs: Mapping[int, float]) -> float:
    """The k of cost = c · n^k that fits best (least squares of the logarithms): 1 is linear."""
    points = [(math.log(n), math.log(cost)) for n, cost in costs.items() if n > 0 and cost > 0]
    if len({x for x, _ in points}) < 2:
        raise ValueError("an exponent needs costs at two sizes at least")
    return statistics.linear_regression(*zip(*points, strict=True)).slope


# The machine


def growth(rows: Sequence[Row], costs: Iterable[str], things: str) -> list[str]:
    """A sentence for each of these costs: with which exponent it grows, for each side.

    The cases of the rows begin with how many `things` they were.
    """
    told = []
    for cost in costs:
        by_side: dict[str, dict[int, float]] = {}
        for row in rows:
            if row.what == cost and row.p50 > 0:
                by_side.setdefault(row.side, {})[int(row.case.split()[0])] = row.p50
        found = {side: points for side, points in by_side.items() if len(points) > 1}
        if found:
            sizes = sorted({size for points in found.values() for size in points})
            powers = ", ".join(
                f"n^{exponent(points):.2f} ({side})" for side, points in found.items()
            )
            told.append(f"`{cost}` grows as {powers}; n is {sizes[0]} to {sizes[-1]} {things}.")
    return told


def environment(tmux: str) -> dict[str, str]:
    """What the figures depend on."""
    told = subprocess.run([tmux, "-V"], capture_output=True, text=True, check=True)
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load when it began": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "tmux": told.stdout.strip().removeprefix("tmux "),
        "shell": str(Path("/bin/sh").resolve()),
        **{name: metadata.version(name) for name in ("trio", "attrs", "libtmux")},
        "tmuxcc": _own_version(),
    }


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _own_version() -> str:
    """The version, and of a checkout the commit."""
    try:
        version = metadata.version("tmuxcc")
    except metadata.PackageNotFoundError:
        version = "source"
    git = shutil.which("git")
    if git is None:
        return version
    told = subprocess.run(
        [git, "-C", Path(__file__).parent, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return f"{version} ({told.stdout.strip()})" if told.returncode == 0 else version


# The file


def to_json(results: Results) -> str:
    """As it is stored: one row a line, so that two runs can be compared with diff."""
    head = {
        "schema": SCHEMA,
        "environment": dict(results.environment),
        "quick": results.quick,
        "seconds": results.seconds,
    }
    lines = [json.dumps(head, ensure_ascii=False)[:-1] + ', "questions": [']
    for number, question in enumerate(results.questions):
        told = {**asdict(question, recurse=False), "notes": list(question.notes)}
        del told["rows"]
        lines.append("," if number else "")
        lines.append(json.dumps(told, ensure_ascii=False)[:-1] + ', "rows": [')
        rows = [json.dumps(_row_to_json(row), ensure_ascii=False) for row in question.rows]
        lines.append(",\n".join(rows))
        lines.append("]}")
    lines.append("]}")
    return "\n".join(line for line in lines if line) + "\n"


def _row_to_json(row: Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if value not in (None, (), [])}


def from_json(text: str) -> Results:
    """What `to_json` wrote. Raises `ValueError` if it is of another form."""
    told = json.loads(text)
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise ValueError(f"no results of form {SCHEMA}: run the benchmarks again")
    questions = [
        Question(**{**each, "rows": [Row(**row) for row in each["rows"]]})
        for each in told["questions"]
    ]
    return Results(told["environment"], told["quick"], told["seconds"], questions)


def load(path: Path = STORED) -> Results:
    """The results in a file."""
    return from_json(path.read_text(encoding="utf-8"))


def store(results: Results, path: Path = STORED) -> None:
    """Write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(results), encoding="utf-8")


def rows_of(question: Question | None, *, what: str, case: str | None = None) -> list[Row]:
    """The rows about one thing."""
    rows: Iterable[Row] = () if question is None else question.rows
    return [row for row in rows if row.what == what and case in (None, row.case)]
