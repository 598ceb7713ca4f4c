"""The exceptions: what they say, what they hold, how they are related."""

from __future__ import annotations

import inspect
import re

import pytest

from tmuxcc import errors

ALL = [value for _, value in inspect.getmembers(errors, inspect.isclass)]


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    named = re.findall(r"[│ ]*(?:[├└]── )?([A-Z]\w+)", errors.__doc__.split("::")[1])
    tree = {name for name in named if hasattr(errors, name)}
    assert tree == {cls.__name__ for cls in ALL if issubclass(cls, errors.TmuxError)}


def test_every_error_is_a_tmux_error() -> None:
    assert all(issubclass(cls, errors.TmuxError) for cls in ALL if issubclass(cls, Exception))


@pytest.mark.parametrize("cls", [errors.InvalidCommand, errors.LayoutError])
def test_wrong_arguments_are_value_errors_too(cls: type) -> None:
    assert issubclass(cls, ValueError)


@pytest.mark.parametrize(
    ("error", "said", "fields"),
    [
        (errors.ProtocolError("odd", b"%end"), "odd", {"line": b"%end"}),
        (errors.ProtocolError("odd"), "odd", {"line": b""}),
        (
            errors.ConnectionClosed(),
            "tmux gave no reason",
            {"reason": None, "exit_status": None, "stderr": ()},
        ),
        (
            errors.ConnectionClosed("too far behind", exit_status=1, stderr=["a", "b"]),
            "(too far behind; exit status 1; a; b)",
            {"reason": "too far behind", "exit_status": 1, "stderr": ("a", "b")},
        ),
        (errors.ConnectionClosed(exit_status=-9), "killed by signal 9", {"exit_status": -9}),
        (
            errors.CommandError(["has-session", b"\xff"], ["can't find", "it"]),
            r"'has-session \\xff': can't find / it",
            {"argv": ("has-session", b"\xff"), "lines": ["can't find", "it"]},
        ),
        (errors.CommandError(["x"], []), "no message", {"lines": []}),
        (
            errors.ReplyTooLarge(["show-buffer"], ["text"], 7),
            "7 bytes over the limit",
            {"argv": ("show-buffer",), "lines": ["text"], "omitted": 7},
        ),
        (errors.LayoutError("bad", "x" * 999), "bad: 'xxx", {"layout": "x" * 999}),
        (errors.PaneNotFound("%5"), "%5", {"pane_id": "%5"}),
        (errors.PaneDead("%5"), "%5", {"pane_id": "%5"}),
        (errors.TmuxNotFound("tmuX"), "tmuX", {"program": "tmuX"}),
        (errors.UnsupportedVersion("3.1c"), "3.1c", {"found": "3.1c"}),
        (errors.NoServer("/s"), "/s", {"socket": "/s"}),
        (errors.SessionNotFound("a b"), "'a b'", {"session": "a b"}),
        (errors.SessionNotFound(None), "has no session;", {"session": None}),
        (
            errors.SocketPathTooLong("é\udcff" * 50, 107),
            "has 150 bytes",
            {"path": "é\udcff" * 50, "limit": 107},
        ),
        (errors.AccessDenied("/s"), "/s", {"socket": "/s"}),
        (errors.StartTimeout(2.5, "why"), "2.5 s: why", {"seconds": 2.5}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_says_it_to_people_and_holds_it_for_programs(
    error: errors.TmuxError, said: str, fields: dict
) -> None:
    assert said in str(error)
    assert {name: getattr(error, name) for name in fields} == fields


def test_a_long_command_is_shortened_in_messages() -> None:
    error = errors.CommandError(["send-keys", "x" * 10**6], ["no"])
    assert len(str(error)) < 300
    assert "…" in str(error)
