"""How the master hears what others note in the options of its agents' panes.

Agents say there what they do (`REPORT`), and other shells that they are to end (`WANTED`). A hook
of the session rings a bell when one of these is set, and then they are read. A subscription would
tell them too, but late, and tmux works it out for each pane each second. What follows from them
must not live here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress

import trio
from attrs import field, frozen

from ..client.client import Client
from ..client.rows import list_rows
from ..errors import CommandError, ConnectionClosed
from ..protocol import has_capability
from ..protocol.events import Message, SessionChanged
from .agent import Agent
from .options import REPORT, STOPPED, WANTED

RING = "tmuxcc-bell"
"""What the hook says, on tmux 3.4 and later."""

LATEST = 10.0
"""Seconds after which the options are read also without the bell: tmux runs no hook for what
another hook sets, and that of another session for a window that is in both."""


@frozen
class _Row:
    pane_id: str
    report: str = field(metadata={"format": REPORT})
    wanted: str = field(metadata={"format": WANTED})


class Bell:
    """Tells `agents`, a view of those that there are, what is noted; `run` must be running."""

    def __init__(self, client: Client, agents: Mapping[str, Agent]) -> None:
        self._client = client
        self._agents = agents
        self._rung = trio.Event()
        self._hung_for = 0
        self._is_unclaimed = False

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read the options when it rings. Runs until cancelled or the client is closed."""
        remove = self._client.add_tap(self._receive, Message, SessionChanged)
        try:
            with suppress(ConnectionClosed):
                while True:
                    self._rung = trio.Event()
                    with suppress(CommandError):
                        # Refused only where the session has just gone, and then the client goes.
                        await self._client.through_reconnects(self._read)
                    with trio.move_on_after(LATEST):
                        await self._rung.wait()
        finally:
            remove()

    def ring(self) -> None:
        """Something may have been set."""
        for agent in self._agents.values():
            agent.is_unwanted = None
        self._rung.set()

    def agent_has_pane(self) -> None:
        """An agent has just been given a pane, where something may have been set already."""
        if self._is_unclaimed:
            self.ring()

    def _receive(self, event: Message | SessionChanged) -> None:
        if isinstance(event, SessionChanged) or event.text == RING:
            self.ring()

    async def _read(self) -> None:
        client = self._client
        if self._hung_for != client.generation:
            generation = client.generation
            await client.command(
                "set-hook", "-t", client.session_id, "after-set-option", self._hook()
            )
            self._hung_for = generation
        # In most panes nothing is set, and all of them would take ten times as long.
        some = ("-f", f"#{{||:#{{{REPORT}}},#{{{WANTED}}}}}")
        listing = ("list-panes", "-s", "-t", client.session_id, *some)
        rows = {row.pane_id: row for row in await list_rows(client.command, listing, _Row)}
        for agent in self._agents.values():
            if agent.window_id:
                row = rows.pop(agent.pane_id, None)
                agent._reported("" if row is None else row.report)
                if not self._rung.is_set():
                    agent.is_unwanted = row is not None and row.wanted == STOPPED
        self._is_unclaimed = bool(rows)

    def _hook(self) -> str:
        """A tmux command that rings the bell, if our client is there and the option is one of ours.

        Without our client, whoever has set the option would be told that it is not there.
        """
        client = self._client
        name = client.client_name
        if has_capability(client.version, "messages"):
            ring: tuple[str, ...] = ("display-message", "-c", name, RING)
        else:
            # That it is attached to a session is told to a client also where it has been all along.
            # What the hook itself does is not told (`hook-silence`).
            told = ("switch-client", "-E", "-c", name, "-t", client.session_id)
            ring = ("run-shell", "-bC", shlex.join(told))
        there = f"#{{m/r:(^|#,){name}($|#,),#{{session_attached_list}}}}"
        ours = (
            "#{||:" + ",".join(f"#{{==:#{{hook_argument_0}},{o}}}" for o in (REPORT, WANTED)) + "}"
        )
        return shlex.join(("if-shell", "-F", f"#{{?{ours},{there},0}}", shlex.join(ring)))
