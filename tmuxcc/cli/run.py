"""``tmuxcc run``: programs side by side in a private tmux, each line shown as it is written.

The command line and what is printed stand here; the life of the server and its programs, from the
first window to the last stray process, is in runner.py.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import trio
from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from ..client.output import ExitStatus, LostOutput
from .options import Target, take_target, tmux_option
from .runner import Job, Plan, Reporter, Runner, status_number
from .text import ColourFilter, Writer, quiet_stdout

PIPED_SIZE = (200, 50)
"""Columns and rows of the panes when there is no terminal to ask: long lines stay whole."""

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
_COMMAND_NAME = re.compile(r"-n(?P<short>.+)|--name=(?P<long>.+)", re.DOTALL)
_TOKENS = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)
_EXPANSION = re.compile(r"`|\$[A-Za-z0-9_{(@*#?$!]")


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


@click.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
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
    type=click.FloatRange(min=0),
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
    reporter: _Report = _JsonReport(jobs) if as_json else _TextReport(jobs)
    plan = Plan(
        tmux=target.tmux or "tmux",
        shown_tmux=(program or target.tmux or "tmux") if target.tmux else "tmux",
        cwd=Path.cwd() if cwd is None else cwd,
        env=env,
        size=reporter.pane_size if size is None else lambda: size,
        follow_size=size is None,
        grace=grace,
        fail_fast=fail_fast,
    )
    runner = Runner(jobs, plan, reporter)
    status = trio.run(runner.run)
    if reporter.writer.failure is not None:
        quiet_stdout()
    ctx.exit(status)


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
    found = _shell_syntax(text)
    if found is not None:
        quoted = shlex.quote(text)
        raise click.UsageError(
            f"{text!r} needs a shell for {found!r}, and none runs it:"
            f' quote that, or say "sh -c {quoted}"'
        )
    try:
        argv = shlex.split(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} can't be split into words: {error}") from error
    if not argv or not argv[0]:
        raise click.UsageError(f"the CMD {text!r} is empty")
    if re.match(r"[A-Za-z_][A-Za-z0-9_]*=", argv[0]):
        raise click.UsageError(f"{text!r} needs a shell for {argv[0]!r}: say 'env {text}' or --env")
    return argv


def _shell_syntax(text: str) -> str | None:
    """The first thing in `text` that a shell would not take as it is."""
    position = 0
    for piece in _TOKENS.findall(text):
        if piece[0] == '"':
            match = _EXPANSION.search(re.sub(r"\\.", "__", piece))
        elif piece == "$":
            match = _EXPANSION.match(text, position)
        else:
            match = re.fullmatch(r"[|&;<>()`]", piece)
        if match:
            return str(match[0])
        position += len(piece)
    return None


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


# What is printed


class _Report(Reporter):
    """What both forms share: lines go to stdout, messages to stderr."""

    escapes = False

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.writer = Writer(sys.stdout.fileno())
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def pane_size(self) -> tuple[int, int]:
        """How large the programs' terminals should be."""
        return PIPED_SIZE

    def message(self, text: str) -> None:
        """Tell the person something."""
        try:
            if self.console.is_terminal:
                # Over the ^C that the terminal itself has just shown.
                self.console.control(Control(ControlType.CARRIAGE_RETURN))
            self.console.print(Text(text, style="dim"))
        except OSError:
            # Nobody listens any more; the run goes on or ends as it would.
            self.console.quiet = True


class _TextReport(_Report):
    """For people: ``NAME | line``, and a table at the end."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(jobs)
        out = Console(highlight=False, soft_wrap=True)
        self._on_terminal = out.is_terminal and not out.is_dumb_terminal
        self.escapes = self._on_terminal and not out.no_color
        self._width = max(cell_len(job.name) for job in jobs)
        self._prefixes: dict[str, str] = {}
        self._filters: dict[str, ColourFilter] = {}
        for number, job in enumerate(jobs):
            prefix = job.name + " " * (self._width - cell_len(job.name)) + " | "
            colour = _COLOURS[number % len(_COLOURS)]
            self._prefixes[job.name] = _rendered(out, prefix, colour)
            self._filters[job.name] = ColourFilter()
        self._lost = _rendered(out, "%s", "reverse")

    def pane_size(self) -> tuple[int, int]:
        if not self._on_terminal:
            return PIPED_SIZE
        columns, rows = shutil.get_terminal_size()
        return max(columns - self._width - 3, 20), max(rows, 5)

    def started(self, job: Job) -> None:
        """Nothing: the first line tells it."""

    def line(self, job: Job, line: str) -> None:
        if isinstance(line, LostOutput):
            line = self._lost.replace("%s", line)
        elif self.escapes:
            line = self._filters[job.name].filter(line)
        self.writer.put(f"{self._prefixes[job.name]}{line}\n")

    def exited(self, job: Job) -> None:
        """Nothing: the table tells it."""

    def summary(self, status: int) -> None:  # noqa: ARG002 - the shell tells it
        rows = [
            (
                job.name,
                _status_text(job.status),
                "-" if job.seconds is None else f"{job.seconds:.1f} s",
                str(job.lines),
                str(job.bytes),
                _lost_text(job),
            )
            for job in self.jobs
        ]
        titles = ("name", "status", "time", "lines", "bytes", "lost bytes")
        try:
            if self.console.is_terminal:
                self.console.print(self._table(titles, rows))
            else:
                widths = [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
                for row in (titles, *rows):
                    cells = [
                        cell + " " * (width - cell_len(cell))
                        for cell, width in zip(row, widths, strict=True)
                    ]
                    self.console.print(Text("  ".join(cells).rstrip()))
        except OSError:
            self.console.quiet = True

    def _table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for title in titles:
            table.add_column(title, justify="left" if title in ("name", "status") else "right")
        for number, (job, row) in enumerate(zip(self.jobs, rows, strict=True)):
            good = job.status is not None and job.status.ok
            table.add_row(
                Text(row[0], style=_COLOURS[number % len(_COLOURS)]),
                Text(row[1], style="green" if good else "bold red"),
                *map(Text, row[2:5]),
                Text(row[5], style="bold red" if job.gaps else ""),
            )
        return table


class _JsonReport(_Report):
    """For programs: one object per line."""

    def started(self, job: Job) -> None:
        self._put("started", name=job.name, pane_id=job.pane_id, argv=job.argv)

    def line(self, job: Job, line: str) -> None:
        if isinstance(line, LostOutput):
            self._put("lost", name=job.name, size=line.gap.size, cause=line.gap.cause)
        else:
            self._put("line", name=job.name, text=line)

    def exited(self, job: Job) -> None:
        self._put("exited", name=job.name, **_end(job))

    def summary(self, status: int) -> None:
        programs = [
            {
                "name": job.name,
                **_end(job),
                "lines": job.lines,
                "bytes": job.bytes,
                "lost_bytes": job.lost,
                "gaps": job.gaps,
            }
            for job in self.jobs
        ]
        self._put("summary", status=status, programs=programs)

    def _put(self, event: str, **values: object) -> None:
        row = {"event": event, "time": round(time.time(), 6), **values}
        text = json.dumps(row, ensure_ascii=False)
        # Bytes that are no text, as names and arguments may hold them.
        text = text.encode("utf-8", "backslashreplace").decode()
        self.writer.put(text + "\n")


def _end(job: Job) -> dict[str, object]:
    status = job.status or ExitStatus(None, None)
    seconds = None if job.seconds is None else round(job.seconds, 3)
    return {"code": status.code, "signal": status.signal, "seconds": seconds}


def _status_text(status: ExitStatus | None) -> str:
    if status is None or status_number(status) is None:
        return "not known"
    if status.signal is None:
        return f"exit {status.code}"
    try:
        return f"killed by {signal.Signals(status.signal).name} ({status.signal})"
    except ValueError:
        return f"killed by signal {status.signal}"


def _lost_text(job: Job) -> str:
    if job.gaps and not job.lost:
        return "some"
    return str(job.lost)


def _rendered(console: Console, text: str, style: str) -> str:
    with console.capture() as capture:
        console.print(Text(text, style=style), end="")
    return capture.get()
