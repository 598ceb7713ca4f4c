"""Listings as typed rows, whatever stands in the names: `tmuxcc.client.rows`. No tmux here."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from tmuxcc.client.rows import MAX_TEXT, ClientRow, PaneRow, SessionRow, WindowRow, list_rows
from tmuxcc.errors import CommandError, ProtocolError


class _Tmux:
    """Answers a listing with `values`, format by format."""

    def __init__(self, *values: dict[str, str], spoil: Callable[[str], str] = str) -> None:
        self.values = values
        self.spoil = spoil
        self.argv: tuple[str, ...] = ()

    async def __call__(self, *argv: str) -> list[str]:
        self.argv = argv
        assert argv[-2] == "-F"
        return [self.spoil(_expand(argv[-1], values)) for values in self.values]


def _expand(text: str, values: dict[str, str]) -> str:
    return re.sub(r"#\{=(\d+):(\w+)\}", lambda match: values[match[2]][: int(match[1])], text)


NAMES = ["", "a b", "%end 1 1 1", "-t", "#{pid}", "'\"\\;$", "é漢🚀", "\udcff", "0123456789abcdef"]
CLIENT = {
    "client_name": "client-1",
    "client_pid": "42",
    "client_control_mode": "1",
    "session_id": "$1",
    "client_tty": "",
    "client_flags": "attached,control-mode",
}
SESSION = {
    "session_id": "$1",
    "session_name": "work",
    "session_windows": "2",
    "session_attached": "0",
    "session_created": "1700000000",
    "session_path": "/home",
}
PANE = {
    "pane_id": "%1", "window_id": "@1", "session_id": "$1", "pane_index": "0", "pane_active": "1",
    "pane_pid": "77", "pane_dead": "0", "pane_dead_status": "", "pane_width": "80",
    "pane_height": "24", "pane_in_mode": "0", "pane_tty": "/dev/pts/1", "pane_title": "t",
    "pane_current_command": "cat", "pane_current_path": "/",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_may_hold_anything(name: str) -> None:
    tmux = _Tmux({**SESSION, "session_name": name, "session_path": name})
    [row] = await list_rows(tmux, ("list-sessions",), SessionRow)
    assert row == SessionRow("$1", name, 2, 0, 1700000000, name)
    assert tmux.argv[:1] == ("list-sessions",)


async def test_every_value_has_its_type() -> None:
    [row] = await list_rows(_Tmux(PANE), ("list-panes", "-a"), PaneRow)
    assert row == PaneRow("%1", "@1", "$1", 0, True, 77, False, None, 80, 24, False, "/dev/pts/1",
                          "t", "cat", "/")  # fmt: skip
    dead = {**PANE, "pane_dead": "1", "pane_dead_status": "-1", "pane_pid": "", "pane_in_mode": "2"}
    [row] = await list_rows(_Tmux(dead), ("list-panes",), PaneRow)
    assert (row.pane_dead, row.pane_dead_status, row.pane_pid) == (True, -1, None)
    assert row.pane_in_mode is True
    [client] = await list_rows(_Tmux(CLIENT), ("list-clients",), ClientRow)
    assert client == ClientRow("client-1", 42, True, "$1", "", "attached,control-mode")


async def test_a_number_that_a_version_does_not_tell_is_zero() -> None:
    values = {attribute.name: "" for attribute in fields(WindowRow)}
    [row] = await list_rows(_Tmux(values), ("list-windows",), WindowRow)
    assert (row.window_index, row.window_active, row.window_name) == (0, False, "")


async def test_each_row_is_read_by_itself_and_none_is_none() -> None:
    rows = await list_rows(
        _Tmux(SESSION, {**SESSION, "session_id": "$2"}), ("list-sessions",), SessionRow
    )
    assert [row.session_id for row in rows] == ["$1", "$2"]
    assert await list_rows(_Tmux(), ("list-sessions",), SessionRow) == []


async def test_a_text_is_cut_where_no_name_reaches() -> None:
    tmux = _Tmux({**SESSION, "session_path": "x" * (MAX_TEXT + 9)})
    [row] = await list_rows(tmux, ("list-sessions",), SessionRow)
    assert len(row.session_path) == MAX_TEXT


@given(st.text(), st.text())
async def test_no_name_is_taken_for_another_field(name: str, path: str) -> None:
    tmux = _Tmux({**SESSION, "session_name": name, "session_path": path})
    [row] = await list_rows(tmux, ("list-sessions",), SessionRow)
    assert (row.session_name, row.session_path) == (name[:MAX_TEXT], path[:MAX_TEXT])


async def test_the_separator_is_another_each_time() -> None:
    seen = set()
    for _ in range(5):
        tmux = _Tmux(SESSION)
        await list_rows(tmux, ("list-sessions",), SessionRow)
        seen.add(tmux.argv[-1].partition("#")[0])
    assert len(seen) == 5
    assert all(len(separator) >= 16 for separator in seen)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: "x" + line,
        lambda line: line[:40],
        lambda line: line + line[:16],
        lambda line: "",
        lambda line: line.replace("\udcff", "?")[1:],
    ],
)
async def test_a_row_in_another_form_is_an_error(spoil: Callable[[str], str]) -> None:
    tmux = _Tmux({**SESSION, "session_name": "\udcff"}, spoil=spoil)
    with pytest.raises(ProtocolError, match="list-sessions gave a row in another form"):
        await list_rows(tmux, ("list-sessions",), SessionRow)


async def test_what_tmux_refuses_is_told() -> None:
    async def refuse(*argv: str) -> list[str]:
        raise CommandError(argv, ["no"])

    with pytest.raises(CommandError):
        await list_rows(refuse, ("list-panes", "-t", "@9"), PaneRow)
