"""What a swarm notes in tmux itself, so that other shells and later masters know it.

User options (``@…``) of panes and of the session. Names are for people and may change: an agent is
found by its option. Nothing here is secret, and nothing is trusted to be well-formed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import asdict, field, frozen
from attrs.validators import instance_of, optional

from ..client.rows import list_rows
from .processes import Identity

# Of panes
AGENT = "@tmuxcc_agent"
"""The agent's id."""
VACANT = "@tmuxcc_vacant"
"""Set where the swarm's pane has no agent."""
SPEC = "@tmuxcc_spec"
"""The agent's description, see `spec_to_json`."""
STATE = "@tmuxcc_state"
"""How the agent is, see `AgentState`; noted by the master."""
REPORT = "@tmuxcc_activity"
"""What the agent says that it does: ``busy``, ``idle`` or ``blocked``. It or its hooks set it:
``tmux set-option -p -t "$TMUX_PANE" @tmuxcc_activity busy``. Without ``-t`` tmux takes the pane
that somebody looks at. The master hears it at once, but within ten seconds what a hook of tmux
itself sets, or where the window is in another session too."""
SENT = "@tmuxcc_sent"
"""The keys of what was typed to it, divided by blanks."""
WANTED = "@tmuxcc_wanted"
"""`STOPPED` if another shell has asked for its end: then no master starts it again."""
STOPPED = "stopped"
LOG = "@tmuxcc_log"
"""The path of its log file."""

# Of the session
SWARM = "@tmuxcc_swarm"
"""What tells one life of a swarm from all others: 32 hexadecimal digits."""
MASTER = "@tmuxcc_master"
"""The process that runs it, its number and its start time; empty if it was kept."""
CLIENT = "@tmuxcc_client"
"""The process of the master's tmux client."""
DOWN = "@tmuxcc_down"
"""Set in a session whose end another shell has asked for."""


@frozen
class AgentRow:
    """A pane of a swarm's session, with what is noted of its agent."""

    pane_id: str
    window_id: str
    pane_pid: int | None
    pane_dead: bool
    agent_id: str = field(metadata={"format": AGENT})
    vacant: bool = field(metadata={"format": VACANT})
    state: str = field(metadata={"format": STATE})
    report: str = field(metadata={"format": REPORT})
    sent: str = field(metadata={"format": SENT})
    wanted: str = field(metadata={"format": WANTED})
    log: str = field(metadata={"format": LOG})


async def list_agents(
    command: Callable[..., Awaitable[list[str]]], session_id: str
) -> list[AgentRow]:
    """The panes of a session, those with an agent and the others. Raises what `command` raises."""
    return await list_rows(command, ("list-panes", "-s", "-t", session_id), AgentRow)


@frozen
class SessionNotes:
    """What a swarm's session says of itself; the fields are empty where it says nothing."""

    life_id: str
    master: str
    client: str


async def read_session(
    command: Callable[..., Awaitable[list[str]]], session_id: str
) -> SessionNotes:
    """What is noted in a session. Raises what `command` raises."""
    texts = []
    for option in (SWARM, MASTER, CLIENT):
        lines = await command("show-options", "-qv", "-t", session_id, option)
        texts.append(lines[0] if lines else "")
    return SessionNotes(*texts)


def noted_process(note: str) -> Identity | None:
    """The process that is noted as `MASTER`, which may run no more; None if none is."""
    pid, _, start_time = note.partition(" ")
    if not (pid.isdigit() and start_time.isdigit()):
        return None
    return Identity(int(pid), int(start_time))


_TEXT = instance_of(str)
_COUNT = instance_of(int)
_TIME = instance_of((int, float))


@frozen(kw_only=True)
class AgentState:
    """How an agent is, for other shells. Times are in seconds since the epoch.

    `code` and `signal` tell how its program ended, `restart_at` when it is started again.
    """

    life: str = field(validator=_TEXT)
    status: str = field(validator=_TEXT)
    activity: str = field(validator=_TEXT)
    ready: bool = field(validator=instance_of(bool))
    restarts: int = field(validator=_COUNT)
    started: float | None = field(validator=optional(_TIME))
    restart_at: float | None = field(validator=optional(_TIME))
    code: int | None = field(validator=optional(_COUNT))
    signal: int | None = field(validator=optional(_COUNT))
    failure: str = field(validator=_TEXT)
    bytes: int = field(validator=_COUNT)
    lines: int = field(validator=_COUNT)
    noted: float = field(validator=_TIME)

    def to_json(self) -> str:
        """As it is kept in the option."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AgentState | None:
        """Read it back; None if it is no such text."""
        try:
            values: Any = json.loads(text)
            return cls(**values)
        except (ValueError, TypeError, RecursionError):
            return None
