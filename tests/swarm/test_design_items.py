"""Each item of the design document has a test, or a reason why it has none.

A test names the items that it is about in its docstring, or in its name: ``test_s_e1_…``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ITEMS = """
S-1 S-2 S-3 S-4 S-5 S-6 S-7
S-D1 S-D2 S-D3 S-D4 S-D5
S-3.1 S-3.2 S-3.3 S-3.4 S-3.5 S-3.6
S-4.0 S-4.1 S-4.2 S-4.3 S-4.3.1 S-4.3.2 S-4.3.3 S-4.3.4 S-4.3.5 S-4.3.6 S-4.3.7 S-4.3.8 S-4.3.9
S-4.3.10 S-4.3.11 S-4.4
S-R1 S-R2 S-R3 S-R4 S-R5 S-R6
S-E1 S-E2 S-E3 S-E4 S-E5 S-E6
S-P1 S-P2 S-P3 S-P4
S-T1 S-T2 S-T3 S-T4 S-T5 S-T6 S-T7
""".split()

REASONS = {
    "S-3": "a rating of libtmux",
    "S-4": "a rating of tmuxp and teamocil, whose files are input of a command of its own",
    "S-4.0": "names of modules of another program; everything is found in tmuxcc itself",
    "S-P1": "there is no interval of polling that could be kept: output is pushed",
    "S-P3": "one reader of one connection reads all panes: nothing can capture one twice at a time",
    "S-T6": "tmux is the real one in all of these tests; see also fake_tmux.py for the protocol",
}

FOLDER = Path(__file__).parent
_ITEM = re.compile(r"\bS-(?:[0-9]+(?:\.[0-9]+)*|[DREPT][0-9]+)")


def _found() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for file in FOLDER.glob("test_*.py"):
        if file.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if is_function and node.name.startswith("test_"):
                for item in _items(node.name, ast.get_docstring(node) or ""):
                    found[item].append(f"{file.name}::{node.name}")
    return found


def _items(name: str, docstring: str) -> set[str]:
    items = set(_ITEM.findall(docstring))
    named = re.match(r"test_s_([drept][0-9]+|[0-9]+(?:_[0-9]+)*)(?=_)", name)
    if named is not None:
        items.add(f"S-{named[1].upper().replace('_', '.')}")
    return items


def test_every_item_of_the_design_document_has_a_test_or_a_reason() -> None:
    found = _found()
    missing = [item for item in ITEMS if item not in found and item not in REASONS]
    assert not missing, missing


def test_no_item_is_made_up() -> None:
    assert set(_found()) <= set(ITEMS), set(_found()) - set(ITEMS)
    assert set(REASONS) <= set(ITEMS)


def test_what_has_a_test_needs_no_reason() -> None:
    both = set(REASONS) & set(_found())
    assert not both, both


def test_items_are_read_from_names_and_docstrings() -> None:
    assert _items("test_s_e1_x", "S-3.4, S-4.3.11: y. And S-D5.") == {
        "S-E1",
        "S-3.4",
        "S-4.3.11",
        "S-D5",
    }
    assert _items("test_s_4_3_8_a", "") == {"S-4.3.8"}
    assert _items("test_something_s_e1", "") == set()
