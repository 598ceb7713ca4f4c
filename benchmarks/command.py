"""The options of the benchmarks, and what is done with them; ``tmuxcc bench`` comes here too."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import results as stored
from .harness import Failed
from .run import BENCHMARKS, run, title
from .tables import show


def _say(name: str, seconds: float | None) -> None:
    if seconds is None:
        print(f"{name} … ", end="", file=sys.stderr, flush=True)
    else:
        print(f"{seconds:g} s", file=sys.stderr, flush=True)


def perform(
    names: Sequence[str],
    *,
    quick: bool = False,
    json: str | None = None,
    pictures: str | None = None,
    tmux: str | None = None,
) -> None:
    """Run, print, store and draw. Raises `Failed`."""
    for name in names:
        if name not in BENCHMARKS:
            raise Failed(f"no benchmark {name!r}: there are {', '.join(BENCHMARKS)}")
    draw = None
    if pictures is not None:
        try:
            from .pictures import draw
        except ModuleNotFoundError as error:
            raise Failed(
                f"pictures need {error.name}: .venv/bin/pip install -e '.[bench]'"
            ) from error
    # So that the tmux servers are ended too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results = run(names, quick=quick, tmux=tmux, progress=_say)
    if json == "-":
        sys.stdout.write(stored.to_json(results))
    else:
        show(results)
        if json is not None:
            stored.store(results, Path(json))
    if draw is not None and pictures is not None:
        for file in draw(results, Path(pictures)):
            print(file, file=sys.stderr)


def describe() -> str:
    """What there is to run, a line each."""
    return "\n".join(f"  {name:13} {title(name)}" for name in BENCHMARKS)


def main() -> None:
    """``python -m benchmarks``."""
    options = argparse.ArgumentParser(
        prog="benchmarks",
        description=f"Push beside polling, and both beside the floor.\n\n{describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("names", nargs="*", metavar="NAME", help="which to run; default: all")
    options.add_argument("--quick", action="store_true", help="a smoke test: tiny sizes")
    options.add_argument("--json", metavar="FILE", help="write the results there; - is stdout")
    options.add_argument("--pictures", metavar="DIR", help="draw them there")
    options.add_argument("--tmux", metavar="PROGRAM", help="the tmux to use")
    chosen = vars(options.parse_args())
    try:
        perform(**chosen)
    except Failed as error:
        sys.exit(f"benchmarks: {error}")
