"""Results as tables: on a terminal by rich, as plain text, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from . import targets
from .results import Question, Results, Row

DECIDED = {True: "met", False: "missed"}


@frozen
class Table:
    """A table of words: the first column names the rows, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def figure(value: float) -> str:
    """A number with three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".")


def ratio(row: Row) -> str:
    """How it compares with the baseline, and from round to round."""
    if row.ratio is None or row.side == row.baseline:
        return ""
    if row.ratio_low == row.ratio_high or row.ratio_low is None or row.ratio_high is None:
        return f"{figure(row.ratio)}"
    return f"{figure(row.ratio)} ({figure(row.ratio_low)} to {figure(row.ratio_high)})"


def of_question(question: Question) -> list[Table]:
    """A table for each distribution, and one for each case of all that has one sample a round."""
    tables = []
    for case in dict.fromkeys(row.case for row in question.rows):
        rows = [row for row in question.rows if row.case == case]
        spread = {row.what for row in rows if row.n > len(row.medians)}
        tables += [
            _distribution(case, what, [row for row in rows if row.what == what])
            for what in dict.fromkeys(row.what for row in rows if row.what in spread)
        ]
        single = [row for row in rows if row.what not in spread]
        if single:
            tables.append(_singles(case, single))
    return tables


def _distribution(case: str, what: str, rows: Sequence[Row]) -> Table:
    baseline = next((row.baseline for row in rows if row.baseline), None)
    return Table(
        f"{case}: {what}, {rows[0].unit}",
        ("", "p50", "p90", "p99", "max", "n", *([f"x {baseline}"] if baseline else [])),
        [
            (
                row.side,
                *map(figure, (row.p50, row.p90, row.p99, row.max)),
                str(row.n),
                *([ratio(row)] if baseline else []),
            )
            for row in rows
        ],
    )


def _singles(case: str, rows: Sequence[Row]) -> Table:
    baseline = next((row.baseline for row in rows if row.baseline), None)
    whats = {row.what: row.unit for row in rows}
    sides = dict.fromkeys(row.side for row in rows)
    cells = {(row.side, row.what): row for row in rows}
    title = case if baseline is None else f"{case} (x {baseline})"
    return Table(
        title,
        ("", *(f"{what}, {unit}" for what, unit in whats.items())),
        [
            (side, *(_cell(cells[side, what]) if (side, what) in cells else "" for what in whats))
            for side in sides
        ],
    )


def _cell(row: Row) -> str:
    text = figure(row.p50)
    if row.ratio and row.side != row.baseline:
        text += f" (x {figure(row.ratio)})"
    return text


def of_targets(results: Results) -> Table:
    """What was asked for, beside what was found."""
    return Table(
        "What was aimed for",
        ("", "figure", "aimed for", "found", ""),
        [
            (
                target.source,
                target.text,
                f"{'≥' if target.at_least else '≤'} {figure(target.limit)} {target.unit}",
                figure(value),
                DECIDED[target.met(value)],
            )
            for target, value in targets.found(results)
        ],
    )


# Showing


def show(results: Results) -> None:
    """Print all, with colours on a terminal and as plain text elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Lines that a program reads are not wrapped.
        console = Console(highlight=False, width=1000)
    for question in results.questions:
        console.print()
        console.print(Text(f"{question.title}", style="bold"), Text(f"{question.seconds:g} s"))
        for table in of_question(question):
            console.print(Text(table.title, style="cyan"))
            console.print(_rich(table))
        for note in question.notes:
            console.print(Text(f"  {note}", style="dim"))
    aimed = of_targets(results)
    if aimed.rows:
        console.print()
        console.print(Text(aimed.title, style="bold"))
        console.print(_rich(aimed))
    console.print()
    told = ", ".join(f"{name} {value}" for name, value in results.environment.items())
    console.print(Text(told, style="dim"))
    if results.quick:
        console.print(Text("A smoke run: its figures mean nothing.", style="bold yellow"))


_STYLES = {"met": "green", "missed": "bold red"}


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    texts = _text_columns(table)
    for number, column in enumerate(table.columns):
        left = number in texts
        shown.add_column(column, justify="left" if left else "right", no_wrap=number == 0)
    for row in table.rows:
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, _side_style(cell))) for cell in row))
    return shown


def _side_style(cell: str) -> str:
    return "bold" if cell.startswith("tmuxcc") else ""


def _text_columns(table: Table) -> set[int]:
    """The columns that are no figures."""
    return {0, 1, 2, 4} if table.columns[1:2] == ("figure",) else {0}


def markdown(table: Table, *, title: bool = True) -> str:
    """As Markdown."""
    texts = _text_columns(table)
    marks = ["---" if number in texts else "---:" for number in range(len(table.columns))]
    rows = [table.columns, marks, *table.rows]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"**{table.title}**\n\n{text}" if title else text
