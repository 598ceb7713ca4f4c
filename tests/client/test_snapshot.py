"""A screen as the bytes that draw it: `tmuxcc.client.snapshot`. No tmux here.

The bytes are drawn on a terminal that knows just as much as is needed; that tmux itself shows the
same is tested with panes.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tmuxcc.client.snapshot import STATE_FORMAT, draw

FORMATS = re.findall(r"#\{(\w+)\}", STATE_FORMAT)
DEC = {
    "keypad_cursor_flag": "?1", "wrap_flag": "?7", "mouse_standard_flag": "?1000",
    "mouse_button_flag": "?1002", "mouse_all_flag": "?1003", "mouse_utf8_flag": "?1005",
    "mouse_sgr_flag": "?1006", "bracket_paste_flag": "?2004", "cursor_flag": "?25",
    "insert_flag": "4", "alternate_on": "?1049", "origin_flag": "?6",
}  # fmt: skip
MOUSE = {"?1000", "?1002", "?1003"}
_TOKEN = re.compile(
    r"\x1b\[(!p)|\x1b\[([0-9;?]*)([A-Za-z])|\x1b([=>])|([^\x1b]+)|(\x1b.*)", re.DOTALL
)


class _Terminal:
    """What is drawn where, the cursor and the modes after `data`."""

    def __init__(self, data: bytes, height: int = 24) -> None:
        self.cells: dict[tuple[int, int], str] = {}
        self.x = self.y = 0
        self.modes = {"?25", "?7"}
        self.region = (0, height - 1)
        self.keypad = False
        self.rest = ""
        for soft, parameters, final, keypad, text, rest in _TOKEN.findall(data.decode()):
            if soft:
                assert not self.cells, "it is reset first"
            elif keypad:
                self.keypad = keypad == "="
            elif final:
                self.control(parameters, final)
            elif text:
                for character in text:
                    self.cells[self.y, self.x] = character
                    self.x += 1
            else:
                self.rest = rest

    def control(self, parameters: str, final: str) -> None:
        numbers = [int(n) if n else 1 for n in parameters.split(";")] if final in "Hr" else []
        if final == "H":
            origin = self.region[0] if "?6" in self.modes else 0
            self.y, self.x = numbers[0] - 1 + origin, (numbers[1] - 1 if len(numbers) > 1 else 0)
        elif final == "r":
            self.region = (numbers[0] - 1, numbers[1] - 1)
        elif final == "J":
            self.cells.clear()
        elif final == "h":
            self.modes.add(parameters)
        elif final == "l":
            self.modes -= MOUSE if parameters in MOUSE else {parameters}
        else:
            assert (parameters, final) == ("", "m"), (parameters, final)

    def rows(self) -> dict[int, str]:
        rows: dict[int, str] = {}
        for (y, _), character in sorted(self.cells.items()):
            rows[y] = rows.get(y, "") + character
        return rows


def state(**values: int | str) -> str:
    known = {"pane_height": 24, "scroll_region_lower": 23, "cursor_flag": 1, "wrap_flag": 1}
    return ",".join(str({**dict.fromkeys(FORMATS, 0), **known, **values}[f]) for f in FORMATS)


def test_rows_stand_where_they_stood_and_the_cursor_too() -> None:
    terminal = _Terminal(draw([b"one", b"", "drei é".encode()], [], state(cursor_x=4, cursor_y=7)))
    assert terminal.rows() == {0: "one", 2: "drei é"}
    assert (terminal.x, terminal.y) == (4, 7)
    assert terminal.region == (0, 23)


def test_no_more_rows_are_drawn_than_the_pane_has() -> None:
    lines = [b"%d" % number for number in range(30)]
    assert sorted(_Terminal(draw(lines, [], state(pane_height=10))).rows()) == [*range(10)]


def test_each_row_begins_with_the_default_pen() -> None:
    data = draw([b"\x1b[31mred", b"plain"], [], state())
    assert b"\x1b[31mred\x1b[m" in data
    assert b"plain\x1b[m" in data


@given(st.sets(st.sampled_from(sorted(DEC))), st.booleans())
def test_modes_are_set_as_they_were(flags: set[str], keypad: bool) -> None:
    off = dict.fromkeys(DEC, 0)
    values = {**off, **dict.fromkeys(flags, 1), "keypad_flag": int(keypad)}
    terminal = _Terminal(draw([b"x"], [], state(**values)))
    assert terminal.modes == {DEC[flag] for flag in flags}
    assert terminal.keypad is keypad


def test_the_cursor_is_counted_from_the_scroll_region_where_that_is_the_mode() -> None:
    for origin in (0, 1):
        drawn = draw([], [], state(scroll_region_upper=5, scroll_region_lower=15,
                                   origin_flag=origin, cursor_y=9, cursor_x=3))  # fmt: skip
        terminal = _Terminal(drawn)
        assert (terminal.region, terminal.y, terminal.x) == ((5, 15), 9, 3)


def test_what_tmux_has_read_half_comes_last() -> None:
    terminal = _Terminal(draw([b"x"], [rb"\033[3"], state()))
    assert terminal.rest == "\x1b[3"
    assert _Terminal(draw([b"x"], [], state())).rest == ""


def test_a_format_that_a_version_does_not_know_is_off() -> None:
    terminal = _Terminal(draw([b"x"], [], state(bracket_paste_flag="", mouse_utf8_flag="")))
    assert terminal.modes == {"?25", "?7"}


def test_without_a_height_every_row_is_drawn() -> None:
    drawn = draw([b"a", b"b"], [], state(pane_height="", scroll_region_lower=""))
    assert _Terminal(drawn).rows() == {0: "a", 1: "b"}
