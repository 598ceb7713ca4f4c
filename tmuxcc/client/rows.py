"""What the ``list-…`` commands tell, as typed rows.

Names, titles and paths can hold anything, so each field stands behind a separator that nobody
can guess, and tmux is asked to drop control characters (``#{=N:…}``), line ends among them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import TypeVar

from attrs import fields, frozen

from ..errors import ProtocolError

MAX_TEXT = 8192
"""Columns of a text field that are kept: twice the longest path."""


@frozen
class SessionRow:
    """One session. Times are in seconds since the epoch."""

    session_id: str
    session_name: str
    session_windows: int
    session_attached: int
    session_created: int
    session_path: str


@frozen
class WindowRow:
    """One window as linked into one session. Sizes are in characters."""

    window_id: str
    session_id: str
    window_index: int
    window_name: str
    window_active: bool
    window_panes: int
    window_width: int
    window_height: int
    window_layout: str
    window_zoomed_flag: bool


@frozen
class PaneRow:
    """One pane. `pane_dead_status` is the exit code of a program that ended, if it is known."""

    pane_id: str
    window_id: str
    session_id: str
    pane_index: int
    pane_active: bool
    pane_pid: int | None
    pane_dead: bool
    pane_dead_status: int | None
    pane_width: int
    pane_height: int
    pane_in_mode: bool
    pane_tty: str
    pane_title: str
    pane_current_command: str
    pane_current_path: str


@frozen
class ClientRow:
    """One client. A control client such as ours has an empty `client_tty`."""

    client_name: str
    client_pid: int
    client_control_mode: bool
    session_id: str
    client_tty: str
    client_flags: str


Row = TypeVar("Row")


async def list_rows(
    command: Callable[..., Awaitable[list[str]]],
    argv: Sequence[str],
    row_class: type[Row],
) -> list[Row]:
    """Run the listing `argv` and read its rows.

    A field is the format of its name, or the one that its metadata has as ``"format"``. Raises what
    `command` raises, and `ProtocolError` if the answer is not in the form asked for.
    """
    separator = token_hex(8)
    attributes = fields(row_class)  # type: ignore[arg-type]  # it is one of the classes above
    names = [attribute.metadata.get("format", attribute.name) for attribute in attributes]
    wanted = separator.join(f"#{{={MAX_TEXT}:{name}}}" for name in names)
    rows = []
    for line in await command(*argv, "-F", separator + wanted):
        start, *values = line.split(separator)
        if start or len(values) != len(names):
            raise ProtocolError(
                f"{argv[0]} gave a row in another form", line.encode(errors="replace")
            )
        converted = [
            _convert(str(attribute.type), value)
            for attribute, value in zip(attributes, values, strict=True)
        ]
        rows.append(row_class(*converted))
    return rows


def _convert(kind: str, value: str) -> str | int | bool | None:
    if kind == "str":
        return value
    if kind == "bool":
        return value not in ("", "0")
    if kind == "int | None":
        return int(value) if value.lstrip("-").isdigit() else None
    return int(value or 0)
