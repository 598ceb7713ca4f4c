"""Which benchmarks there are, and running some or all of them in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import ModuleType

from . import (
    commands,
    completeness,
    cpu,
    latency,
    memory,
    parser,
    start,
    swarm,
    throughput,
)
from .harness import Setting, find_tmux
from .results import Question, Results, environment

BENCHMARKS: dict[str, ModuleType] = {
    "latency": latency,
    "completeness": completeness,
    "commands": commands,
    "throughput": throughput,
    "cpu": cpu,
    "memory": memory,
    "swarm": swarm,
    "start": start,
    "parser": parser,
}
"""In the order in which they are run and told."""


def title(name: str) -> str:
    """What a benchmark asks."""
    return BENCHMARKS[name].TITLE


def run(
    names: Iterable[str] = (),
    *,
    quick: bool = False,
    tmux: str | None = None,
    progress: Callable[[str, float | None], object] = lambda name, seconds: None,
) -> Results:
    """Run the named benchmarks, or all; `progress` is told of each as it begins and has ended.

    Raises `KeyError` for a name that is none, `Failed` and what goes wrong.
    """
    program = find_tmux(tmux)
    setting = Setting(program, quick)
    machine = environment(program)
    chosen = {name: BENCHMARKS[name] for name in names or BENCHMARKS}
    began = time.monotonic()
    questions = []
    for name, module in chosen.items():
        progress(name, None)
        start_of_this = time.monotonic()
        found = module.run(setting)
        rows, more = found if isinstance(found, tuple) else (found, [])
        seconds = round(time.monotonic() - start_of_this, 1)
        questions.append(Question(name, module.TITLE, seconds, rows, (*module.NOTES, *more)))
        progress(name, seconds)
    return Results(machine, quick, round(time.monotonic() - began, 1), questions)
