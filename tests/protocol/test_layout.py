"""Layout strings and trees: `tmuxcc.protocol.layout`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmuxcc.errors import LayoutError
from tmuxcc.protocol import Layout, Parser, layout_checksum, parse_layout
from tmuxcc.protocol.events import LayoutChange
from tmuxcc.protocol.layout import MAX_DEPTH

from .control import SUPPORTED, open_control
from .vectors import DATA, of_kind

# ------------------------------------------------------------------------------------ a formatter


def _summed(body: str) -> str:
    return f"{layout_checksum(body):04x},{body}"


def _body(cell: Layout) -> str:
    head = f"{cell.width}x{cell.height},{cell.x},{cell.y}"
    if cell.split is None:
        assert cell.pane_id is not None
        return f"{head},{cell.pane_id[1:]}"
    opening, closing = "{}" if cell.split == "left-right" else "[]"
    return head + opening + ",".join(map(_body, cell.children)) + closing


def _format(layout: Layout) -> str:
    """The old notation, as layout_dump of tmux 3.7 writes it."""
    floating = ",".join(_body(pane) for pane in layout.panes() if pane.floating)
    return _summed(_body(layout) + (f"<{floating}>" if floating else ""))


def _shape(cell: Layout) -> dict:
    shape: dict = {"w": cell.width, "h": cell.height, "x": cell.x, "y": cell.y}
    if cell.split is None:
        return shape | {"t": "p", "I": cell.pane_id, "i": 0} | ({"z": 0} if cell.floating else {})
    kind = "h" if cell.split == "left-right" else "v"
    return shape | {"t": kind, "c": [_shape(child) for child in cell.children]}


def _format_json(layout: Layout) -> str:
    """The notation of tmux 3.8 for clients with the flag new-layouts."""
    return json.dumps({"V": 2, "L": _shape(layout)}, separators=(",", ":"))


_sizes = st.integers(0, 10000)
_positions = st.integers(-50, 10000)
_panes = st.builds(
    Layout, _sizes, _sizes, _positions, _positions, st.integers(0, 10**6).map("%{}".format)
)
_splits = st.sampled_from(["left-right", "top-bottom"])


def _with_split(children: st.SearchStrategy[Layout]) -> st.SearchStrategy[Layout]:
    cells = st.lists(children, min_size=1, max_size=4).map(tuple)
    return st.builds(Layout, _sizes, _sizes, _positions, _positions, st.none(), _splits, cells)


_trees = st.recursive(_panes, _with_split, max_leaves=12)


def _float(cell: Layout, floating: set[str]) -> Layout:
    return Layout(
        cell.width,
        cell.height,
        cell.x,
        cell.y,
        cell.pane_id,
        cell.split,
        tuple(_float(child, floating) for child in cell.children),
        cell.pane_id in floating,
    )


@settings(deadline=None, max_examples=150)
@given(_trees, st.data())
def test_a_layout_that_was_written_is_read_back(layout: Layout, data: st.DataObject) -> None:
    panes = [pane.pane_id for pane in layout.panes()]
    layout = _float(layout, data.draw(st.sets(st.sampled_from(panes))))
    assert parse_layout(_format(layout)) == layout
    assert parse_layout(_format_json(layout)) == layout


# ---------------------------------------------------------------------------------------- vectors


def _tree(shape: dict) -> Layout:
    pane = f"%{shape['pane']}" if "pane" in shape else None
    children = tuple(_tree(child) for child in shape.get("children", ()))
    size = (shape["w"], shape["h"], shape["x"], shape["y"])
    return Layout(*size, pane, shape.get("split"), children)


@pytest.mark.parametrize("vector", of_kind("layout"))
def test_layout_of_a_peer(vector: dict) -> None:
    if isinstance(vector["expected"], str):  # layout-027: prose with a layout that is none
        assert "do not raise from the event stream" in vector["expected"]
        line = f"%layout-change @1 {vector['input']}\n".encode()
        assert isinstance(Parser().receive_data(line)[0], LayoutChange)
    elif "error" in vector["expected"]:
        for layout in (vector["input"], _summed(vector["input"] or " ")):
            with pytest.raises(LayoutError):
                parse_layout(layout)
    else:
        assert parse_layout(vector["input"]) == _tree(vector["expected"])


@pytest.mark.parametrize("vector", of_kind("layout-checksum"))
def test_checksum_of_a_peer(vector: dict) -> None:
    assert f"{layout_checksum(vector['input']):04x}" == vector["expected"]["checksum"]


# ---------------------------------------------------------------------------------- floating panes


def test_floating_panes_of_tmux_3_7_are_cells_that_are_marked() -> None:
    layout = parse_layout(
        "86d3,100x40,0,0[100x40,0,0{50x40,0,0,0,49x40,51,0,2},50x10,4,2,1,50x10,8,4,3]"
        "<50x10,8,4,3,50x10,4,2,1>"
    )
    assert [(pane.pane_id, pane.floating) for pane in layout.panes()] == [
        ("%0", False),
        ("%2", False),
        ("%1", True),
        ("%3", True),
    ]
    assert [child.split for child in layout.children] == ["left-right", None, None]


def test_floating_pane_may_begin_outside_the_window() -> None:
    layout = parse_layout(
        "9ba2,100x40,0,0[100x40,0,0,0,50x10,4,2,1,50x10,-3,-2,2]<50x10,-3,-2,2,50x10,4,2,1>"
    )
    assert layout.children[2] == Layout(50, 10, -3, -2, "%2", floating=True)


def test_floating_panes_of_tmux_3_8_are_marked_in_json() -> None:
    layouts = [
        parse_layout(event.layout)
        for event in Parser().receive_data(
            (DATA / "transcripts" / "3.8" / "new-layouts.bin").read_bytes()
        )
        if isinstance(event, LayoutChange)
    ]
    floating = [[pane.pane_id for pane in layout.panes() if pane.floating] for layout in layouts]
    assert floating == [[], ["%2"], []]
    assert layouts[1].children[2] == Layout(40, 6, 4, 2, "%2", floating=True)


def test_a_window_of_nothing_but_floating_panes_has_no_cell_in_the_old_notation() -> None:
    layout = parse_layout("0000,")
    assert list(layout.panes()) == []
    assert (layout.width, layout.height) == (0, 0)


@pytest.mark.parametrize("version", SUPPORTED)
def test_what_tmux_writes_is_read(version: str) -> None:
    with open_control(version, "-x", "100", "-y", "40") as control:
        for line in (
            b"split-window -v cat",
            b"split-window -h cat",
            b"split-window -t %0 -h cat",
            b"new-pane cat",
            b"new-pane -x 10 -y 5 -X -3 -Y -2 cat",
        ):
            (reply,) = control.replies(line)
            known = reply.ok or b"unknown command: new-pane" in reply.lines[0]
            assert known, reply
            (window,) = control.replies(b"display-message -p '#{window_layout}'")
            (rows,) = control.replies(
                b"list-panes -F '#{pane_id} #{pane_width} #{pane_height} #{pane_left}"
                b" #{pane_top} #{pane_floating_flag}'"
            )
            panes = {row.split()[0].decode(): row.decode().split() for row in rows.lines}
            layout = parse_layout(window.lines[0].decode())
            assert (layout.width, layout.height) == (100, 40)
            found = list(layout.panes())
            shown = {pane_id for pane_id, row in panes.items() if row[5:] != ["1"]}
            assert {pane.pane_id for pane in found if not pane.floating} == shown
            for pane in found:
                row = panes[pane.pane_id]
                assert (pane.width, pane.height) == (int(row[1]), int(row[2]))
                assert pane.floating == (row[5:] == ["1"])


# -------------------------------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    "layout",
    [
        "b25f",
        "B25F,80x24,0,0,2",
        "b260,80x24,0,0,2",
        "b25f,80x24,0,0,\ud800",
        "b25f,80x24,0,0,é",
        *map(
            _summed,
            [
                "80x24,0,0",
                "80x24,0,0{}",
                "80x24,0,0{80x24,0,0,1",
                "80x24,0,0{80x24,0,0,1]",
                "80x24,0,0{80x24,0,0,1x",
                "80x24,0,0,1,",
                "80x24,0,0,1<",
                "80x24,0,0,1<>",
                "80x24,0,0,1<x>",
                "80x24,0,0,1<80x24,0,0>",
                "80x24,0,0,1<80x24,0,0,1",
                "80x24,0,0,1<80x24,0,0,1,>",
                "80x24,0,0,1<80x24,0,0,1>x",
                "80x24,0,0,1x<80x24,0,0,1>",
                "80x24,0,0,1234567890123456789",
                "1234567890x24,0,0,1",
            ],
        ),
        "{",
        "{}",
        '{"V":2}',
        '{"V":3,"L":{"t":"p","w":1,"h":1,"x":0,"y":0,"I":"%0"}}',
        '{"V":2,"L":[]}',
        '{"V":2,"L":{"t":"p","w":1,"h":1,"x":0,"y":0}}',
        '{"V":2,"L":{"t":"p","w":1,"h":1,"x":0,"y":0,"I":0}}',
        '{"V":2,"L":{"t":"p","w":1,"h":1,"x":0,"y":0,"I":"0"}}',
        '{"V":2,"L":{"t":"p","w":"1","h":1,"x":0,"y":0,"I":"%0"}}',
        '{"V":2,"L":{"t":"p","w":true,"h":1,"x":0,"y":0,"I":"%0"}}',
        '{"V":2,"L":{"t":"q","w":1,"h":1,"x":0,"y":0}}',
        '{"V":2,"L":{"t":"v","w":1,"h":1,"x":0,"y":0}}',
        '{"V":2,"L":{"t":"v","w":1,"h":1,"x":0,"y":0,"c":1}}',
        '{"V":2,"L":{"t":"v","w":1,"h":1,"x":0,"y":0,"c":[1]}}',
        '{"V":2,"L":' + "[" * 100000,
    ],
    ids=lambda layout: ascii(layout[:40]),
)
def test_malformed_layout_is_refused(layout: str) -> None:
    with pytest.raises(LayoutError) as caught:
        parse_layout(layout)
    assert isinstance(caught.value, ValueError)
    assert caught.value.layout == layout


def test_wrong_checksum_says_the_right_one() -> None:
    with pytest.raises(LayoutError, match="should be b25f"):
        parse_layout("0000,80x24,0,0,2")


def _nested(depth: int) -> Layout:
    layout = Layout(1, 1, 0, 0, "%1")
    for _ in range(depth):
        layout = Layout(1, 1, 0, 0, None, "top-bottom", (layout,))
    return layout


@pytest.mark.parametrize("form", [_format, _format_json])
def test_nesting_has_a_limit(form: object) -> None:
    assert parse_layout(form(_nested(MAX_DEPTH))) == _nested(MAX_DEPTH)
    with pytest.raises(LayoutError, match="levels"):
        parse_layout(form(_nested(MAX_DEPTH + 1)))


@settings(deadline=None, max_examples=150)
@given(
    st.text(max_size=60)
    | st.text("0123456789x,-{}[]<>", max_size=60).map(_summed)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda values: (
            st.lists(values, max_size=3)
            | st.dictionaries(st.sampled_from("VLtwhxycIz"), values, max_size=6)
        ),
    ).map(lambda tree: json.dumps({"V": 2, "L": tree}))
)
def test_any_text_is_a_layout_or_an_error(text: str) -> None:
    try:
        layout = parse_layout(text)
    except LayoutError:
        return
    assert isinstance(layout, Layout)
