"""The figures in the READMEs are made from the stored run, by ``python -m benchmarks.readme``.

A block stands between ``<!-- bench: NAME -->`` and ``<!-- /bench -->``; what is outside of
blocks is written by hand, and must not hold figures.
"""

from __future__ import annotations

import re
from pathlib import Path

from . import commands, completeness, cpu, latency, swarm, throughput
from .results import STORED, Results, load
from .tables import Table, figure, markdown, of_question, of_targets

HERE = Path(__file__).parent
FILES = (HERE.parent / "README.md", HERE / "README.md")

_BLOCK = re.compile(
    r"(?P<start>^<!-- bench: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(?P<end>^<!-- /bench -->$)",
    re.MULTILINE | re.DOTALL,
)


def blocks(results: Results) -> dict[str, str]:
    """The text of each block."""
    return {
        "push": _push(results),
        "machine": _machine(results),
        "targets": markdown(of_targets(results), title=False),
        **{
            question.name: "\n\n".join(
                [
                    *(f"- {note}" for note in question.notes),
                    *map(markdown, of_question(question)),
                ]
            ).replace("\n\n- ", "\n- ")
            for question in results.questions
        },
    }


def filled(text: str, results: Results) -> str:
    """A README with its blocks made anew. Raises `KeyError` for a block that nobody knows."""
    known = blocks(results)
    return _BLOCK.sub(
        lambda match: f"{match['start']}\n{known[match['name']]}\n\n{match['end']}", text
    )


def _machine(results: Results) -> str:
    return markdown(
        Table(
            "",
            ("", "this run"),
            [*results.environment.items(), ("seconds", figure(results.seconds))],
        ),
        title=False,
    ).replace("---:", "---")


def _push(results: Results) -> str:
    """The picture and the table of the project's README."""
    machine = results.environment
    polling = "libtmux, 100 ms"
    hundred, panes = swarm.case_of(100), cpu.case_of(100)

    def cell(name: str, case: str, side: str, what: str, unit: str, part: str = "p50") -> str:
        row = results.row(name, case, side, what)
        return "" if row is None else f"{figure(getattr(row, part))}{unit}"

    def both(name: str, case: str, side: str, what: str, unit: str) -> str:
        return f"{cell(name, case, side, what, '')}, {cell(name, case, side, what, unit, 'p99')}"

    main, seen = latency.MAIN, completeness.case_of(1000)
    rows = [
        (
            "a pane writes a line → the program has it; median, p99",
            both("latency", main, "floor", "latency", " ms"),
            (
                f"{both('latency', main, 'tmuxcc tap', 'latency', ' ms')} (tap)<br>"
                f"{both('latency', main, 'tmuxcc stream', 'latency', ' ms')} (stream)"
            ),
            both("latency", main, polling, "latency", " ms"),
        ),
        (
            "lines seen of 1,000 a second",
            "",
            cell("completeness", seen, "tmuxcc lines", "seen", " %"),
            cell("completeness", seen, polling, "seen", " %"),
        ),
        (
            "one command and its reply, median",
            *(
                cell("commands", commands.ONE, side, "round trip", " ms")
                for side in ("floor", "tmuxcc", "libtmux")
            ),
        ),
        (
            "commands without waiting in between",
            *(
                cell("commands", commands.PIPELINED, side, "rate", "/s")
                for side in ("floor", "tmuxcc", "libtmux")
            ),
        ),
        (
            "a coloured log through one pane",
            *(
                cell("throughput", throughput.ONE, side, "throughput", " MB/s")
                for side in ("floor", "tmuxcc stream")
            ),
            "",
        ),
        (
            "start 100 agents",
            *(cell("swarm", hundred, side, "spawn", " ms") for side in ("floor", "tmuxcc")),
            (
                f"{cell('swarm', hundred, 'libtmux', 'spawn', ' ms')}<br>"
                f"{cell('swarm', hundred, 'libtmux, bare windows', 'spawn', ' ms')} (bare windows)"
            ),
        ),
        (
            "tell 100 agents something, until each has it; p99",
            *(
                cell("swarm", hundred, side, "broadcast", " ms", "p99")
                for side in ("floor", "tmuxcc", "libtmux")
            ),
        ),
        (
            "notice that a program was killed, median",
            *(
                cell("swarm", swarm.case_of(10), side, "death, program killed", " ms")
                for side in ("floor", "tmuxcc", "libtmux")
            ),
        ),
        (
            "CPU of 100 idle panes, all together",
            *(
                cell("cpu", panes, side, "idle, all", " %")
                for side in ("floor", "tmuxcc swarm", polling)
            ),
        ),
    ]
    table = Table("", ("", "floor", "tmuxcc", "libtmux, polling every 100 ms"), rows)
    return (
        "![How long after a pane wrote a line the program has it: tmuxcc's medians stand beside"
        " those of the floor, those of polling are orders of magnitude to the right]"
        "(benchmarks/pictures/latency.svg)\n\n"
        f"Measured by `tmuxcc bench`, all sides in turns on one tmux {machine['tmux']}"
        f" ({machine['python']}, trio {machine['trio']}, libtmux {machine['libtmux']},"
        f" {machine['cores']} cores). The *floor* is a loop that reads the same `tmux -C` and"
        " parses nothing. Absolute times say little; compare the columns.\n\n"
        f"{markdown(table, title=False)}"
    )


def main() -> None:
    """Write the READMEs and the pictures anew."""
    # Only here: the figures need no matplotlib.
    from .pictures import draw

    results = load(STORED)
    for file in FILES:
        file.write_text(filled(file.read_text(encoding="utf-8"), results), encoding="utf-8")
    draw(results)


if __name__ == "__main__":
    main()
