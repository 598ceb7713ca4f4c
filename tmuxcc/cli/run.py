"""``tmuxcc run``: programs side by side in a private tmux, each line shown as it is written.

The command line stands here; the life of the server and its programs, from the first window to the
last stray process, is in runner.py, and what is printed in report.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from ..errors import InvalidSwarm
from ..swarm import spec
from .options import SECONDS, Target, take_target, tmux_option
from .report import JsonReport, Report, TextReport
from .runner import Job, Plan, Runner
from .text import give_up_stdout

_COMMAND_NAME = re.compile(r"-n(?P<short>.+)|--name=(?P<long>.+)", re.DOTALL)


class _RunCommand(click.Command):
    """Shows in its usage line what click can't know: that -n belongs to the CMD behind it."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return ["[OPTIONS]", "[-n NAME] CMD [[-n NAME] CMD]..."]


def _environment(
    _ctx: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE")
        pairs[name] = content
    return pairs


def _size(
    _ctx: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", value)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= number <= 10_000 for number in size):
        raise click.BadParameter(f"{value!r} is not of the form COLSxROWS, such as 200x50")
    return size


@click.command(
    cls=_RunCommand,
    context_settings={"allow_interspersed_args": False},
    short_help="Run programs side by side and show their lines.",
)
@click.option(
    "-n",
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Name of the next CMD. [default: its program, python3, python3-2, …]",
)
@click.option(
    "--cwd",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder to run in. [default: this one]",
)
@click.option(
    "--env",
    multiple=True,
    callback=_environment,
    metavar="K=V",
    help="Environment variable for all; can be repeated.",
)
@click.option(
    "--size",
    callback=_size,
    metavar="COLSxROWS",
    help="Size of the programs' terminals. [default: this terminal, less the names; else 200x50]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line on stdout.")
@click.option(
    "--grace",
    type=SECONDS,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long programs may take to end after Ctrl-C before they are killed.",
)
@click.option(
    "--fail-fast",
    "--kill-others",
    "fail_fast",
    is_flag=True,
    help="Stop all when one fails, and exit with its status.",
)
@tmux_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    names: Sequence[str],
    cwd: Path | None,
    env: dict[str, str],
    size: tuple[int, int] | None,
    as_json: bool,
    grace: float,
    fail_fast: bool,
    tmux: str | None,
    words: Sequence[str],
) -> None:
    """Run each CMD in a window of a private tmux and show its lines as they are written.

    A CMD is one argument: a program and its arguments, split into words at blanks, with quotes
    and backslashes as in a shell. No shell runs it. Pipes, redirections, && and $VARIABLES are
    refused, unless they are quoted: for those say "sh -c '…'". Wildcards are not expanded.

    \b
    Examples:
      tmuxcc run -n web "python3 -m http.server 8000" -n test "pytest -q"
      tmuxcc run --fail-fast "make -j4" "sh -c 'npm test | tee test.log'"
      tmuxcc run --json "ping -c3 localhost" | jq -r .text

    While it runs, `tmux -S … attach` (printed at the start) shows the programs' screens and lets
    you type to them.

    Ctrl-C, SIGTERM and SIGHUP stop the programs gently, after --grace or a second time they kill
    them. At the end nothing they have started is left running, in the background or not.

    --json writes objects whose "event" is started, line, lost, exited, or at the end summary.

    Exit status: that of the worst program, 128+n for signal n, 130 after Ctrl-C.
    """  # noqa: D301 - the \b is for click
    target = take_target(ctx, Target(tmux=tmux))
    if target.socket_name or target.socket_path or target.config_file:
        raise click.UsageError("run has a server of its own: -L, -S and -f are for other verbs")
    jobs = _jobs(names, words)
    program = shutil.which(target.tmux or "tmux")
    reporter: Report = JsonReport(jobs) if as_json else TextReport(jobs)
    plan = Plan(
        tmux=target.tmux or "tmux",
        shown_tmux=(program or target.tmux or "tmux") if target.tmux else "tmux",
        cwd=_current_folder() if cwd is None else cwd,
        env=env,
        size=reporter.pane_size if size is None else lambda: size,
        follow_size=size is None,
        grace=grace,
        fail_fast=fail_fast,
    )
    runner = Runner(jobs, plan, reporter)
    status = trio.run(runner.run)
    if reporter.writer.failure is not None:
        give_up_stdout(reporter.writer.failure)
    ctx.exit(status)


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise click.ClickException("the current folder is gone: name one with --cwd") from error


# From arguments to jobs


def _jobs(names: Sequence[str], words: Sequence[str]) -> list[Job]:
    if len(names) > 1:
        raise click.UsageError(f"-n {names[0]} is followed by another -n instead of a CMD")
    named: list[tuple[str | None, list[str]]] = []
    name = names[0] if names else None
    rest = iter(words)
    for word in rest:
        match = _COMMAND_NAME.fullmatch(word)
        if word in ("-n", "--name") or match:
            if name is not None:
                raise click.UsageError(f"-n {name} is followed by another -n instead of a CMD")
            name = (match["short"] or match["long"]) if match else next(rest, None)
        elif word.startswith("-"):
            raise click.UsageError(f"{word} has to stand before the first CMD (or is no option)")
        else:
            named.append((name, split_command(word)))
            name = None
    if name is not None or (words and words[-1] in ("-n", "--name")):
        raise click.UsageError("behind -n NAME a CMD is missing")
    if not named:
        raise click.UsageError('no CMD; try: tmuxcc run "ping -c3 localhost"')
    return [Job(name, argv) for name, argv in _with_names(named)]


def split_command(text: str) -> list[str]:
    """The words of a CMD. Raises `click.UsageError` for what only a shell could carry out."""
    try:
        return spec.split_command(text)
    except InvalidSwarm as error:
        raise click.UsageError(str(error)) from error


def _with_names(
    named: Sequence[tuple[str | None, list[str]]],
) -> list[tuple[str, list[str]]]:
    taken = set()
    for name, _ in named:
        if name is None:
            continue
        if not name.strip() or not name.isprintable():
            raise click.UsageError(f"{name!r} is no name: it has to be printable")
        if name in taken:
            raise click.UsageError(f"two commands are named {name!r}")
        taken.add(name)
    result = []
    for name, argv in named:
        if name is None:
            base = "".join(c if c.isprintable() else "?" for c in Path(argv[0]).name) or "program"
            name, number = base, 1
            while name in taken:
                number += 1
                name = f"{base}-{number}"
            taken.add(name)
        result.append((name, argv))
    return result
