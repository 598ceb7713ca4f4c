"""``tmuxcc bench``: the benchmarks of a source tree on this machine.

They are no part of the installed package: they need tools that a user has no use for, and are read
by those who work on it. What is measured, and how, is in the `benchmarks` folder beside the source.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import click

from .options import Target, take_target, tmux_option

SOURCE = Path(__file__).parents[2]
"""The source tree, if this runs from one."""

_NEEDED = ("libtmux", "matplotlib", "rich")


@click.command(short_help="Measure push beside polling on this machine.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="A smoke test: tiny sizes, no figures to rely on.")
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the results to this file (- is stdout)."
)
@click.option("--pictures", metavar="DIR", help="Draw pictures (SVG and PNG) into this folder.")
@tmux_option
@click.pass_context
def bench(
    ctx: click.Context,
    names: Sequence[str],
    quick: bool,
    json_file: str | None,
    pictures: str | None,
    tmux: str | None,
) -> None:
    """Measure push beside polling, and both beside the floor, on this machine.

    Runs the benchmarks of the source tree: latency, completeness, commands, throughput, cpu,
    memory, swarm, start, parser; all take up to five minutes. They use tmux servers of their
    own. Leave the machine alone meanwhile, and compare columns rather than times.

    \b
    Examples:
      tmuxcc bench
      tmuxcc bench latency commands
      tmuxcc bench --json results.json --pictures pictures
    """  # noqa: D301 - the \b is for click
    target = take_target(ctx, Target(tmux=tmux))
    command = _load(ctx)
    try:
        command.perform(names, quick=quick, json=json_file, pictures=pictures, tmux=target.tmux)
    except command.Failed as error:
        click.echo(f"tmuxcc: {error}", err=True)
        ctx.exit(1)


def _load(ctx: click.Context) -> ModuleType:
    """The benchmarks' own command. Without them, say how to get them."""
    if not (SOURCE / "benchmarks" / "command.py").is_file():
        click.echo(
            "tmuxcc: the benchmarks are not installed with the package: in a copy of the source"
            " run `sh .ci/setup bench`, then `.venv/bin/tmuxcc bench`",
            err=True,
        )
        ctx.exit(1)
    # Only those beside this very package: there are other packages of that name.
    if str(SOURCE) not in sys.path:
        sys.path.insert(0, str(SOURCE))
    try:
        return importlib.import_module("benchmarks.command")
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        click.echo(
            f"tmuxcc: the benchmarks need {error.name}: {sys.executable} -m pip install"
            " 'libtmux>=0.40' matplotlib",
            err=True,
        )
        ctx.exit(1)
