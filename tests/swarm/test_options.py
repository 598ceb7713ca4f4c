"""What is noted in tmux is read back as it was, and nothing that is there does harm."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.helpers import Server
from tmuxcc.swarm.options import AgentState, list_agents, read_session


def state(**changes: object) -> AgentState:
    values: dict[str, object] = {
        "life": "running",
        "status": "running",
        "activity": "busy",
        "ready": True,
        "restarts": 2,
        "started": 1.5,
        "restart_at": None,
        "code": None,
        "signal": None,
        "failure": "",
        "bytes": 10,
        "lines": 1,
        "noted": 2.5,
    }
    return AgentState(**{**values, **changes})  # type: ignore[arg-type]


@given(st.text(), st.none() | st.integers(0, 255))
def test_a_state_is_read_back_as_it_was_written(failure: str, code: int | None) -> None:
    written = state(failure=failure, code=code)
    text = written.to_json()
    assert "\n" not in text
    assert AgentState.from_json(text) == written


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"x"', "{}", '{"life":"running"}', "[" * 100_000],
)
def test_what_is_no_state_is_none(text: str) -> None:
    assert AgentState.from_json(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"restarts": "many"},
        {"started": "now"},
        {"life": 3},
        {"restart_at": []},
        {"failure": None},
        {"ready": "yes"},
    ],
)
def test_a_state_of_wrong_types_is_none(change: dict[str, object]) -> None:
    values = json.loads(state().to_json())
    assert AgentState.from_json(json.dumps({**values, **change})) is None


@pytest.mark.tmux
async def test_panes_are_listed_with_what_is_noted_of_them(server: Server) -> None:
    hostile = "a b'\"#{pane_id} ä🦀 ;"
    async with server.client() as client:
        created = await client.new_window(argv=["cat"])
        await client.batch(
            [
                ("set-option", "-p", "-t", created.pane_id, "@tmuxcc_agent", hostile),
                ("set-option", "-p", "-t", created.pane_id, "@tmuxcc_sent", "k1 k2"),
                ("set-option", "-p", "-t", created.pane_id, "@tmuxcc_wanted", "stopped"),
            ]
        )
        rows = await list_agents(client.command, client.session_id)
        assert [row.agent_id for row in rows] == ["", hostile]
        assert (rows[1].sent, rows[1].wanted, rows[1].state) == ("k1 k2", "stopped", "")
        assert not any(row.vacant or row.pane_dead for row in rows)
        notes = await read_session(client.command, client.session_id)
        assert (notes.life_id, notes.master, notes.client) == ("", "", "")
        await client.command("set-option", "-t", client.session_id, "@tmuxcc_swarm", "abc")
        notes = await read_session(client.command, client.session_id)
        assert notes.life_id == "abc"
