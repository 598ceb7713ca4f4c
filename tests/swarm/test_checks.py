"""Checks of what people describe: `tmuxcc.swarm.checks`. Which field takes what: test_spec.py."""

from __future__ import annotations

import pytest

from tmuxcc.errors import InvalidSwarm
from tmuxcc.swarm.checks import (
    check_agent_id,
    check_cluster_id,
    check_environment,
    check_text,
    shown,
)


def test_what_is_shown_is_short_and_on_one_line() -> None:
    values = ["x" * 999, "a\nb", {"a": "x" * 999}, ["x" * 999], None, -(10**9999), b"x" * 999, 1.5]
    assert all(len(shown(value)) < 70 and "\n" not in shown(value) for value in values)


@pytest.mark.parametrize("text", ["a", "web-1", "é 漢/🚀", "x" * 128, "a-"])
def test_an_agent_id_is_any_printable_text(text) -> None:
    assert check_agent_id(text) == text


@pytest.mark.parametrize("text", ["", " ", "-a", "x" * 129, "a\n", "\x1b", "\udcff", "a\u200b", 1])
def test_other_agent_ids_are_refused(text) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        check_agent_id(text, where="agents.x")
    assert caught.value.where == "agents.x"


@pytest.mark.parametrize("text", ["a", "0", "demo_2-x", "x" * 64])
def test_a_cluster_id_is_plain(text) -> None:
    assert check_cluster_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", "_a", "a.b", "a:b", "é", "a\n", "x" * 65, None])
def test_other_cluster_ids_are_refused(text) -> None:
    with pytest.raises(InvalidSwarm, match="at most 64 letters"):
        check_cluster_id(text)


def test_the_checks_give_back_what_is_good() -> None:
    assert check_text("é\udcff") == "é\udcff"
    env = {"A": "", "é": "\n"}
    assert check_environment(env) == env
    assert check_environment(env) is not env
