"""Layout strings, as in ``%layout-change`` and ``#{window_layout}``, into a tree, and the checksum.

Two notations exist: the old one, ``csum,WxH,X,Y…`` with ``{…}`` side by side and ``[…]`` above one
another; and the JSON of tmux 3.8 for clients with the flag ``new-layouts`` (layout-custom.c).

Floating panes, new in tmux 3.7, are cells of the tree like all others. JSON marks each. The old
notation of 3.7 repeats them in ``<…>`` behind the tree, the topmost first, but not while a pane is
zoomed, so that they can't be told from the others then. That of 3.8 leaves them out: a window with
no other panes has the layout ``0000,``. What a layout is used for must not live here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from attrs import frozen

from ..errors import LayoutError

MAX_DEPTH = 200
"""Nesting that is read: tmux itself gives up where a pane has no cell left, far below this."""

_CELL = re.compile(r"([0-9]{1,9})x([0-9]{1,9}),(-?[0-9]{1,9}),(-?[0-9]{1,9})")
_PANE = re.compile(r",([0-9]{1,18})(?![0-9x])")
_OPEN = {"{": ("left-right", "}"), "[": ("top-bottom", "]")}
_FLOATING = re.compile(r"<([0-9x,-]+)>")
_FLOATING_CELL = re.compile(
    r"[0-9]{1,9}x[0-9]{1,9},-?[0-9]{1,9},-?[0-9]{1,9},([0-9]{1,18})(?:,(?!$)|$)"
)


@frozen
class Layout:
    """One cell: a pane, or a split with cells in it. Sizes and positions are in characters.

    `split` is None for a pane, else ``"left-right"`` or ``"top-bottom"``. `floating` is true for a
    pane that floats above the others (tmux 3.7 and later); its position may be negative.
    """

    width: int
    height: int
    x: int
    y: int
    pane_id: str | None = None
    split: str | None = None
    children: tuple[Layout, ...] = ()
    floating: bool = False

    def panes(self) -> Iterator[Layout]:
        """The pane cells below (or this one), in tmux's order."""
        if self.split is None:
            yield self
        for child in self.children:
            yield from child.panes()


def layout_checksum(body: str) -> int:
    """tmux's checksum of a layout without its ``csum,`` (layout_checksum in layout-custom.c)."""
    checksum = 0
    for byte in body.encode("utf-8", "surrogateescape"):
        checksum = (checksum >> 1) + ((checksum & 1) << 15)
        checksum = (checksum + byte) & 0xFFFF
    return checksum


def parse_layout(layout: str) -> Layout:
    """Read a layout string of either notation.

    Raises `LayoutError` if it is malformed, its checksum is wrong, or it nests too deeply.
    """
    if layout.startswith("{"):
        return _parse_json(layout)
    checksum, comma, body = layout.partition(",")
    if not comma or not body.isascii() or re.fullmatch(r"[0-9a-f]{4}", checksum) is None:
        raise LayoutError(
            "a layout is ASCII and begins with four hexadecimal digits and a comma", layout
        )
    if int(checksum, 16) != layout_checksum(body):
        raise LayoutError(f"the checksum should be {layout_checksum(body):04x}", layout)
    if not body:
        return Layout(0, 0, 0, 0, None, "top-bottom")
    position = body.find("<")
    floating = _floating_panes(body[position:], layout) if position >= 0 else frozenset()
    cell, end = _parse_cell(body, 0, layout, 0, floating)
    if end != (position if position >= 0 else len(body)):
        raise LayoutError(f"unexpected text at {body[end : end + 20]!r}", layout)
    return cell


def _floating_panes(text: str, layout: str) -> frozenset[str]:
    match = _FLOATING.fullmatch(text)
    panes = _FLOATING_CELL.sub(r"%\1 ", match[1]) if match is not None else ""
    if re.fullmatch(r"(?:%[0-9]+ )+", panes) is None:
        raise LayoutError(f"no floating panes at {text[:20]!r}", layout)
    return frozenset(panes.split())


def _parse_cell(
    body: str, position: int, layout: str, depth: int, floating: frozenset[str]
) -> tuple[Layout, int]:
    match = _CELL.match(body, position)
    if match is None:
        raise LayoutError(f"no cell at {body[position : position + 20]!r}", layout)
    width, height, x, y = (int(number) for number in match.groups())
    position = match.end()
    pane = _PANE.match(body, position)
    if pane is not None:
        pane_id = f"%{pane[1]}"
        return Layout(width, height, x, y, pane_id, floating=pane_id in floating), pane.end()
    if position >= len(body) or body[position] not in _OPEN:
        raise LayoutError(
            f"a cell without pane or children before {body[position : position + 20]!r}", layout
        )
    if depth >= MAX_DEPTH:
        raise LayoutError(f"more than {MAX_DEPTH} levels", layout)
    split, close = _OPEN[body[position]]
    children = []
    while True:
        child, position = _parse_cell(body, position + 1, layout, depth + 1, floating)
        children.append(child)
        if position >= len(body) or body[position] not in (",", close):
            raise LayoutError(f"no {close!r} at {body[position : position + 20]!r}", layout)
        if body[position] == close:
            return Layout(width, height, x, y, None, split, tuple(children)), position + 1


def _parse_json(layout: str) -> Layout:
    try:
        tree = json.loads(layout)
        if tree["V"] != 2:
            raise LayoutError(f"version {tree['V']!r} is not known", layout)
        return _json_cell(tree["L"], layout, 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, LayoutError):
            raise
        raise LayoutError("not a layout in JSON", layout) from error


def _json_cell(cell: dict[str, object], layout: str, depth: int) -> Layout:
    if depth > MAX_DEPTH:
        raise LayoutError(f"more than {MAX_DEPTH} levels", layout)
    kind = cell["t"]
    width, height, x, y = (_json_integer(cell[key], layout) for key in ("w", "h", "x", "y"))
    if kind == "p":
        pane_id = cell["I"]
        if not isinstance(pane_id, str) or re.fullmatch(r"%[0-9]+", pane_id) is None:
            raise LayoutError("a pane without an id", layout)
        return Layout(width, height, x, y, pane_id, floating="z" in cell)
    if kind not in ("h", "v"):
        raise LayoutError(f"a cell of unknown type {kind!r}", layout)
    split = "left-right" if kind == "h" else "top-bottom"
    children = cell["c"]
    if not isinstance(children, list):
        raise LayoutError("a split without children", layout)
    cells = tuple(_json_cell(child, layout, depth + 1) for child in children)
    return Layout(width, height, x, y, None, split, cells)


def _json_integer(value: object, layout: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise LayoutError("a size or position that is no number", layout)
    return value
