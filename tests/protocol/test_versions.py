"""What each tmux version has and what it gets wrong: `tmuxcc.protocol.versions`."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmuxcc.protocol import (
    CAPABILITIES,
    HAZARDS,
    OLDEST_SUPPORTED,
    has_capability,
    has_hazard,
    parse_version,
)

from .control import SUPPORTED, open_control

ORDER = ["2.9a", "3.0", "3.1c", "3.2", "3.2a", "3.3", "3.3a", "3.4", "3.5", "3.5a", "3.6", "3.6a",
         "3.6b", "3.7", "3.7c", "3.8", "3.10", "4.0"]  # fmt: skip


def test_versions_are_ordered_as_they_were_released() -> None:
    versions = [parse_version(text) for text in ORDER]
    assert sorted(set(versions)) == versions
    assert all(a < b and a <= b and b > a and a != b for a, b in pairwise(versions))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tmux 3.3a", (3, 3, "a")),
        ("3.3a\n", (3, 3, "a")),
        ("tmux next-3.8", (3, 8, "")),
        ("3.3-rc2", (3, 3, "")),
        ("3.8rc1", (3, 8, "")),
        ("tmux master", (999, 0, "")),
        ("openbsd-7.6", (999, 0, "")),
        ("", (999, 0, "")),
        ("\0é", (999, 0, "")),
        ("3.\u0661", (999, 0, "")),
    ],
)
def test_a_version_is_read_from_what_tmux_says(text: str, key: tuple) -> None:
    version = parse_version(text)
    assert (version.major, version.minor, version.letter) == key
    assert version == parse_version("{}.{}{}".format(*key))
    assert hash(version) == hash(parse_version("{}.{}{}".format(*key)))


def test_a_version_shows_what_tmux_said() -> None:
    assert str(parse_version("tmux next-3.8")) == "next-3.8"


def test_a_version_is_no_text() -> None:
    assert parse_version("3.8") != "3.8"


_versions = st.builds(
    "{}.{}{}".format, st.integers(1, 4), st.integers(0, 12), st.sampled_from(["", "a", "b", "c"])
).map(parse_version)


@settings(deadline=None, max_examples=150)
@given(_versions, _versions, _versions)
def test_the_order_is_total(a: object, b: object, c: object) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert (a <= b) == (a < b or a == b)
    assert (a >= b) == (b <= a)
    if a <= b <= c:
        assert a <= c
    if a == b:
        assert hash(a) == hash(b)


@given(st.text(max_size=30))
def test_no_text_is_too_odd_for_a_version(text: str) -> None:
    assert parse_version(text) == parse_version(text)


def test_names_are_unique_and_every_row_says_what_is_done() -> None:
    for rows in (HAZARDS, CAPABILITIES):
        names = [row.name for row in rows]
        assert len(names) == len(set(names))
        assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)
    assert all(hazard.text and hazard.guard for hazard in HAZARDS)
    assert all(capability.text for capability in CAPABILITIES)
    assert all(hazard.first >= OLDEST_SUPPORTED for hazard in HAZARDS)
    assert all(hazard.last is None or hazard.first <= hazard.last for hazard in HAZARDS)


# First and last version with the fault, of those that were released.
RANGES = {
    "pane-off-crash": ("3.2", "3.6b"),
    "no-output-hang": ("3.2", "3.6b"),
    "respawn-crash": ("3.2", "3.7c"),
    "dead-paste-crash": ("3.2", "3.3a"),
    "popup-crash": ("3.6", "3.7c"),
    "client-race-crash": ("3.2", "3.6b"),
    "destroy-session-crash": ("3.2", "3.7c"),
    "capture-leak": ("3.2", "3.5a"),
    "config-error-mode": ("3.2", "3.3a"),
    "early-input": ("3.2", "3.3a"),
    "lost-sigchld": ("3.2", "3.5a"),
    "negative-width-loop": ("3.2", "3.3a"),
    "unread-replies": ("3.2", "3.7c"),
    "large-reply-exit": ("3.8", None),
    "off-loses-output": ("3.2", "3.3a"),
    "escaped-replies": ("3.4", "3.5a"),
    "buffer-name-newline": ("3.4", "3.6b"),
    "hook-silence": ("3.2", "3.7c"),
    "weak-read-only": ("3.2", None),
    "wait-for-leak": ("3.2", "3.7c"),
    "wire-change": ("3.6", None),
    "instant-exit": ("3.6a", "3.6a"),
    "strftime-messages": ("3.2", None),
    "lost-tail": ("3.2", None),
    "escaped-buffers": ("3.2", "3.3a"),
    "early-dead-flag": ("3.2", "3.6b"),
    "run-shell-view": ("3.2", None),
    "run-shell-crash": ("3.7c", "3.7c"),
    "manual-size-crash": ("3.2", "3.5a"),
    "silent-pause": ("3.2", None),
}


def test_the_table_has_all_known_faults() -> None:
    assert {hazard.name for hazard in HAZARDS} == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_fault_begins_and_ends_where_it_was_found(name: str) -> None:
    first, last = RANGES[name]
    known = [parse_version(text) for text in ORDER]
    affected = [str(version) for version in known if has_hazard(version, name)]
    end = len(ORDER) if last is None else ORDER.index(last) + 1
    assert affected == ORDER[ORDER.index(first) : end]


@pytest.mark.parametrize(
    ("name", "since"),
    [
        ("flow-control", "3.2"),
        ("window-size", "3.3"),
        ("messages", "3.4"),
        ("terminal-reports", "3.5"),
        ("survive-session", "3.6"),
        ("raw-paste", "3.7"),
        ("json-layouts", "3.8"),
    ],
)
def test_a_capability_begins_where_it_was_added(name: str, since: str) -> None:
    having = [text for text in ORDER if has_capability(parse_version(text), name)]
    assert having == ORDER[ORDER.index(since) :]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError):
        has_hazard(OLDEST_SUPPORTED, "no-such-fault")
    with pytest.raises(KeyError):
        has_capability(OLDEST_SUPPORTED, "no-such-thing")


@pytest.mark.parametrize("text", SUPPORTED)
def test_tmux_has_what_the_table_says(text: str) -> None:
    with open_control(text) as control:
        (told,) = control.replies(b"display-message -p '#{version}'")
        version = parse_version(told.lines[0].decode())
        assert version == parse_version(text)
        (usages,) = control.replies(b"list-commands")
        usage = {line.split(b" ")[0].decode(): line.decode() for line in usages.lines}
        (flag,) = control.replies(b"display-message -p '#{bracket_paste_flag}'")
        (size,) = control.replies(b"refresh-client -C '@0:80x24'")
        control.replies(b"refresh-client -f no-detach-on-destroy,new-layouts")
        (flags,) = control.replies(b"display-message -p '#{client_flags}'")
        found = {
            "flow-control": "-A pane:state" in usage["refresh-client"],
            "subscriptions": "-B name:what:format" in usage["refresh-client"],
            "window-size": size.ok,
            "terminal-reports": re.search(r"-r pane:report", usage["refresh-client"]) is not None,
            "survive-session": b"no-detach-on-destroy" in flags.lines[0],
            "raw-paste": re.search(r"\[-\w*S", usage["paste-buffer"]) is not None,
            "bracket-paste-flag": flag.lines == (b"0",),
            "numbered-capture": re.search(r"\[-\w*L", usage["capture-pane"]) is not None,
            "floating-panes": "new-pane" in usage,
            "json-layouts": b"new-layouts" in flags.lines[0],
            "wait-for-events": re.search(r"\[-\w*E", usage["wait-for"]) is not None,
        }
        assert {name: has_capability(version, name) for name in found} == found
