"""What the verbs print about programs: their lines, messages, tables, and all of it as JSON.

Lines go to stdout, messages to stderr. What happens to programs is decided elsewhere.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from ..client.output import ExitStatus
from ..client.streams import LostOutput
from .runner import Job, Reporter, status_number
from .text import ColourFilter, Stdout, Writer

PIPED_SIZE = (200, 50)
"""Columns and rows of the panes when there is no terminal to ask: long lines stay whole."""

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
"""Of names, one after the other."""


class Lines:
    """The lines of named programs for people: ``NAME | line``.

    `escapes`: whether lines keep their colours, which is where a terminal shows them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # Only to render with, though rich writes an empty text even then.
        self._console = Console(file=cast("IO[str]", Stdout()), highlight=False, soft_wrap=True)
        self.on_terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self.escapes = self.on_terminal and not self._console.no_color
        self.width = 0
        self._prefixes: dict[str, str] = {}
        self._filters: dict[str, ColourFilter] = {}
        self._lost = _rendered(self._console, "%s", "reverse")
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Know more names; lines from now on are as far to the right as the longest needs."""
        for name in names:
            self._filters.setdefault(name, ColourFilter())
            self.width = max(self.width, cell_len(name))
        for number, name in enumerate(self._filters):
            prefix = name + " " * (self.width - cell_len(name)) + " | "
            colour = COLOURS[number % len(COLOURS)]
            self._prefixes[name] = _rendered(self._console, prefix, colour)

    def text(self, name: str, line: str) -> str:
        """One line of a program, its end included."""
        if isinstance(line, LostOutput):
            line = self._lost.replace("%s", line)
        elif self.escapes:
            line = self._filters[name].filter(line)
        return f"{self._prefixes[name]}{line}\n"


class Report(Reporter):
    """What the report of a run has in every form."""

    escapes = False

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.writer = Writer(sys.stdout.fileno())
        self.console = message_console()

    def pane_size(self) -> tuple[int, int]:
        """How large the programs' terminals should be."""
        return PIPED_SIZE

    def add(self, job: Job) -> None:
        """There is one more."""
        self.jobs.append(job)

    def message(self, text: str) -> None:
        """Tell the person something."""
        message(self.console, text)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show on a terminal that something takes its time."""
        return busy(self.console, text)


class TextReport(Report):
    """For people: ``NAME | line``, and a table at the end."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(jobs)
        self._lines = Lines(job.name for job in jobs)
        self.escapes = self._lines.escapes

    def add(self, job: Job) -> None:
        """There is one more."""
        super().add(job)
        self._lines.add([job.name])

    def pane_size(self) -> tuple[int, int]:
        """That of this terminal, less the names."""
        if not self._lines.on_terminal:
            return PIPED_SIZE
        columns, rows = shutil.get_terminal_size()
        return max(columns - self._lines.width - 3, 20), max(rows, 5)

    def started(self, job: Job) -> None:
        """Nothing: the first line tells it."""

    def line(self, job: Job, line: str) -> None:
        """Show it behind the name."""
        self.writer.put(self._lines.text(job.name, line))

    def exited(self, job: Job) -> None:
        """Nothing: the table tells it."""

    def summary(self, status: int) -> None:  # noqa: ARG002 - the shell tells it
        """A line for each program."""
        rows: list[list[Text]] = []
        for number, job in enumerate(self.jobs):
            rows.append(
                [
                    Text(job.name, style=COLOURS[number % len(COLOURS)]),
                    _job_status(job),
                    Text("-" if job.seconds is None else f"{job.seconds:.1f} s"),
                    Text(str(job.lines)),
                    Text(str(job.bytes)),
                    Text(_lost_text(job), style="bold red" if job.gaps else ""),
                ]
            )
        titles = ["name", "status", "time", "lines", "bytes", "lost bytes"]
        if any(job.restarts for job in self.jobs):
            titles.insert(2, "restarts")
            for row, job in zip(rows, self.jobs, strict=True):
                row.insert(2, Text(str(job.restarts)))
        try:
            print_table(self.console, titles, rows, left=("name", "status"))
        except OSError:
            self.console.quiet = True


class JsonReport(Report):
    """For programs: one object per line."""

    def started(self, job: Job) -> None:
        """A program has its pane."""
        self.put("started", name=job.name, pane_id=job.pane_id, argv=job.argv)

    def line(self, job: Job, line: str) -> None:
        """A line, or where some are missing."""
        self.writer.put(json_text({"event": "line", "time": now(), **line_values(job.name, line)}))

    def exited(self, job: Job) -> None:
        """A program has ended."""
        self.put("exited", name=job.name, **_end(job))

    def summary(self, status: int) -> None:
        """All have ended."""
        programs = [
            {
                "name": job.name,
                **_end(job),
                **({"stopped": True} if job.stopped else {}),
                **({"restarts": job.restarts} if job.restarts else {}),
                **({"remark": job.remark} if job.remark else {}),
                "lines": job.lines,
                "bytes": job.bytes,
                "lost_bytes": job.lost,
                "gaps": job.gaps,
            }
            for job in self.jobs
        ]
        self.put("summary", status=status, programs=programs)

    def put(self, event: str, **values: object) -> None:
        """Write one object."""
        self.writer.put(json_text({"event": event, "time": now(), **values}))


# Pieces that other verbs use too


def message_console() -> Console:
    """Where messages go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def message(console: Console, text: str) -> None:
    """Tell the person something; harmless if nobody listens any more."""
    try:
        if console.is_terminal:
            # Over the ^C that the terminal itself has just shown.
            console.control(Control(ControlType.CARRIAGE_RETURN))
        console.print(Text(text, style="dim"))
    except OSError:
        # The run goes on or ends as it would.
        console.quiet = True


Aside = Callable[[], AbstractContextManager[None]]


@contextmanager
def busy(console: Console, text: str) -> Iterator[Aside]:
    """Show on a terminal that something takes its time.

    Gives a function whose block makes room there for something else.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield nullcontext
        return
    with console.status(text) as status:

        @contextmanager
        def aside() -> Iterator[None]:
            status.stop()
            yield
            status.start()

        yield aside


def print_table(
    console: Console,
    titles: Sequence[str],
    rows: Sequence[Sequence[Text]],
    *,
    left: Iterable[str],
) -> None:
    """A table. On a terminal that is too narrow its lines go on in the next, and nothing is cut.

    The columns whose titles are in `left` are text, the others numbers.
    """
    lines = [[Text(title, style="dim") for title in titles], *rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        told = Text()
        for title, cell, width in zip(titles, line, widths, strict=True):
            room = Text(" " * (width - cell.cell_len))
            told.append_text(cell + room if title in left else room + cell).append("  ")
        told.rstrip()
        console.print(told, soft_wrap=True)


def json_text(values: object) -> str:
    r"""One line of JSON; bytes that are no text, as names may hold them, become ``\xNN``."""
    text = json.dumps(values, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def line_values(name: str, line: str) -> dict[str, object]:
    """A program's line for JSON."""
    if isinstance(line, LostOutput):
        return {"event": "lost", "name": name, "size": line.gap.size, "cause": line.gap.cause}
    return {"name": name, "text": line}


def now() -> float:
    """Seconds since the epoch, for JSON."""
    return round(time.time(), 6)


def status_text(status: ExitStatus | None) -> str:
    """How a program ended, in a few words."""
    if status is None or status_number(status) is None:
        return "not known"
    if status.signal is None:
        return f"exit {status.code}"
    try:
        return f"killed by {signal.Signals(status.signal).name} ({status.signal})"
    except ValueError:
        return f"killed by signal {status.signal}"


def _job_status(job: Job) -> Text:
    if not job.pane_id and not job.remark:
        return Text("not started")
    if job.remark:
        known = job.status is not None and status_number(job.status) is not None
        text = f"{job.remark}, {status_text(job.status)}" if known else job.remark
        return Text(text, style="bold red")
    if job.stopped:
        return Text(f"stopped, {status_text(job.status)}")
    good = job.status is not None and job.status.ok
    return Text(status_text(job.status), style="green" if good else "bold red")


def ended_text(status: ExitStatus | None) -> str:
    """That a program has ended, as a part of a sentence."""
    if status is None or status_number(status) is None:
        return "ended, nobody knows how"
    return f"{'ended with' if status.signal is None else 'was'} {status_text(status)}"


def _end(job: Job) -> dict[str, object]:
    status = job.status or ExitStatus(None, None)
    seconds = None if job.seconds is None else round(job.seconds, 3)
    return {"code": status.code, "signal": status.signal, "seconds": seconds}


def _lost_text(job: Job) -> str:
    if job.gaps and not job.lost:
        return "some"
    return str(job.lost)


def _rendered(console: Console, text: str, style: str) -> str:
    with console.capture() as capture:
        console.print(Text(text, style=style), end="")
    return capture.get()
