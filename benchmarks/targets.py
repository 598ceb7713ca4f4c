"""The figures that were asked for, beside those that were found."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from . import commands, completeness, cpu, latency, swarm, throughput
from .results import Results


@frozen
class Target:
    """One figure: `value` gives what was found, None if that was not measured.

    `limit` is the greatest that is good, or with `at_least` the least.
    """

    source: str
    text: str
    unit: str
    limit: float
    value: Callable[[Results], float | None]
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` is good."""
        return value >= self.limit if self.at_least else value <= self.limit


def _figure(
    question: str, case: str, side: str, what: str, figure: str = "p50"
) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        row = results.row(question, case, side, what)
        return None if row is None else getattr(row, figure)

    return value


def _over(
    over: Callable[[Results], float | None], under: Callable[[Results], float | None]
) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        above, below = over(results), under(results)
        return above / below if above is not None and below else None

    return value


def _latency(side: str, case: str = latency.MAIN, figure: str = "p50"):
    return _figure("latency", case, side, "latency", figure)


_HUNDRED = swarm.case_of(100)

TARGETS = (
    Target(
        "core",
        "event latency by stream, p50",
        "x floor",
        1.5,
        _latency("tmuxcc stream", figure="ratio"),
    ),
    Target(
        "core",
        "event latency by stream, p99",
        "x floor",
        2,
        _over(_latency("tmuxcc stream", figure="p99"), _latency("floor", figure="p99")),
    ),
    Target(
        "core", "event latency by tap, p50", "x floor", 1.2, _latency("tmuxcc tap", figure="ratio")
    ),
    Target(
        "core",
        "one command at a time, p50",
        "x floor",
        5,
        _figure("commands", commands.ONE, "tmuxcc", "round trip", "ratio"),
    ),
    Target(
        "core",
        "pipelined commands",
        "x floor",
        0.43,
        _figure("commands", commands.PIPELINED, "tmuxcc", "rate", "ratio"),
        at_least=True,
    ),
    Target(
        "core",
        "coloured log through one pane",
        "x floor",
        0.97,
        _figure("throughput", throughput.ONE, "tmuxcc stream", "throughput", "ratio"),
        at_least=True,
    ),
    Target(
        "core",
        "CPU for it (0.6 s for 34 MB)",
        "s/GB",
        17.6,
        _figure("throughput", throughput.ONE, "tmuxcc stream", "cpu, own"),
    ),
    Target(
        "core",
        "parser on a log",
        "MB/s",
        400,
        _figure("parser", "log", "tmuxcc.Parser", "speed"),
        at_least=True,
    ),
    Target(
        "core",
        "parser on 40-byte messages",
        "events/s",
        600_000,
        _figure("parser", "40-byte messages", "tmuxcc.Parser", "events"),
        at_least=True,
    ),
    *(
        Target(
            "swarm",
            f"start of 100 agents, {text}",
            "x quicker",
            10,
            _over(
                _figure("swarm", _HUNDRED, side, "spawn"),
                _figure("swarm", _HUNDRED, "tmuxcc", "spawn"),
            ),
            at_least=True,
        )
        for side, text in (
            ("libtmux", "than the design document's with libtmux"),
            ("libtmux, bare windows", "than bare windows of libtmux"),
        )
    ),
    Target(
        "swarm",
        "broadcast to 100 agents until each has echoed, p99",
        "ms",
        50,
        _figure("swarm", _HUNDRED, "tmuxcc", "broadcast", "p99"),
    ),
    *(
        Target(
            "swarm",
            f"notice of a death among 100 agents, {what} killed, {figure}",
            "ms",
            limit,
            _figure("swarm", _HUNDRED, "tmuxcc", f"death, {what} killed", figure),
        )
        for what in ("program", "wrapper")
        for figure, limit in (("p50", 5), ("max", 1200))
    ),
    Target(
        "swarm",
        "CPU of 100 idle agents together",
        "% core",
        0.2,
        _figure("cpu", cpu.case_of(100), "tmuxcc swarm", "idle, all"),
    ),
    Target(
        "swarm",
        "memory of the master for each idle agent",
        "KB",
        100,
        _figure("swarm", _HUNDRED, "tmuxcc", "memory"),
    ),
    Target(
        "swarm",
        "line latency of 99 agents beside one in flood, p99",
        "ms",
        10,
        _latency("tmuxcc swarm", latency.AGENTS_FLOOD, "p99"),
    ),
    Target(
        "speed",
        "event latency by stream, p50",
        "x floor",
        1.2,
        _latency("tmuxcc stream", figure="ratio"),
    ),
    Target(
        "speed",
        "event latency by tap, p50: no difference",
        "x floor",
        1.05,
        _latency("tmuxcc tap", figure="ratio"),
    ),
    Target(
        "speed",
        "one command at a time, p50",
        "x floor",
        4,
        _figure("commands", commands.ONE, "tmuxcc", "round trip", "ratio"),
    ),
    Target(
        "speed",
        "CPU of this process for a gigabyte of output, by stream",
        "x floor",
        2,
        _figure("throughput", throughput.ONE, "tmuxcc stream", "cpu, own", "ratio"),
    ),
    Target(
        "speed",
        "lines seen at 10,000 a second",
        "%",
        100,
        _figure("completeness", completeness.case_of(10_000), "tmuxcc lines", "seen"),
        at_least=True,
    ),
)


def found(results: Results) -> list[tuple[Target, float]]:
    """The targets that were measured, with what was found."""
    values = [(target, target.value(results)) for target in TARGETS]
    return [(target, value) for target, value in values if value is not None]
