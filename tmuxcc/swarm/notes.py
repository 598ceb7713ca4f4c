"""What the master notes in tmux of how its agents are, for other shells and for later masters.

How a note is written and read is in options.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import trio
from attrs import evolve

from ..client.client import Client
from ..errors import ConnectionClosed
from .agent import Agent
from .options import STATE, AgentState

QUIET = 0.03
"""Seconds for which changes are collected, again and again until none has come for as long: a note
costs tmux as much as what it is about, and would be in the way of a start or a broadcast that is
under way."""

LATEST = 0.3
"""Seconds of that after which they are noted all the same."""

AT_ONCE = 8
"""How many notes are made before others have their turn: each takes about 0.1 ms."""

COUNTERS_PERIOD = 5.0
"""Seconds between two notes of one agent that differ only in how much it wrote."""


class StateNotes:
    """Keeps the notes of `agents`, a view of those that there are; `run` must be running."""

    def __init__(self, client: Client, agents: Mapping[str, Agent]) -> None:
        self._client = client
        self._agents = agents
        self._dirty: set[Agent] = set()
        self._added = trio.Event()
        self._noted: dict[Agent, tuple[str, float]] = {}

    def add(self, *agents: Agent) -> None:
        """These have changed."""
        self._dirty.update(agents)
        self._added.set()

    def forget(self, *agents: Agent) -> None:
        """What was noted of these may be there no more."""
        for agent in agents:
            self._noted.pop(agent, None)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Note what has changed, soon and together. Runs until cancelled."""
        while True:
            later = [self._noted[agent][1] for agent in self._dirty if agent in self._noted]
            with trio.CancelScope(deadline=min(later, default=float("inf"))):
                await self._added.wait()
            with trio.move_on_after(LATEST):
                await self._wait_quiet()
            now = trio.current_time()
            for count, agent in enumerate(tuple(self._dirty), 1):
                if count % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                if not agent.window_id or self._agents.get(agent.agent_id) is not agent:
                    self._dirty.discard(agent)
                    continue
                essence, due = self._noted.get(agent, ("", 0.0))
                state = agent.state()
                new = repr(evolve(state, bytes=0, lines=0, noted=0.0))
                if new != essence or now >= due:
                    self._dirty.discard(agent)
                    self._noted[agent] = new, now + COUNTERS_PERIOD
                    with suppress(ConnectionClosed):
                        self._client.command_nowait(*_note(agent, state))

    async def _wait_quiet(self) -> None:
        while self._added.is_set():
            self._added = trio.Event()
            await trio.sleep(QUIET)

    async def note_all(self) -> None:
        """Note at once how all are. Raises `ConnectionClosed`."""
        # Whose pane is gone needs no note.
        agents = [agent for agent in self._agents.values() if agent.window_id]
        await self._client.batch(_note(agent, agent.state()) for agent in agents)


def _note(agent: Agent, state: AgentState) -> tuple[str, ...]:
    return ("set-option", "-p", "-t", agent.pane_id, STATE, state.to_json())
