"""How the master hears what agents say of themselves in a pane option, see `REPORT`.

A hook of the session rings a bell when one is set, and then they are read. A subscription would
tell them too, but tmux works it out for each pane each second. What a report means for an agent's
activity is in activity.py.
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
from ..protocol.events import Message, SubscriptionChanged
from .agent import Agent
from .options import REPORT

BELL = "tmuxcc-reports"
"""What the hook says (3.4 and later), or the name of the subscription that it makes."""

LATEST = 30.0
"""Seconds after which reports are read also without the bell: tmux runs no hook for what another
hook sets."""


@frozen
class _Row:
    pane_id: str
    report: str = field(metadata={"format": REPORT})


class Reports:
    """Tells `agents`, a view of those that there are, what they report; `run` must be running."""

    def __init__(self, client: Client, agents: Mapping[str, Agent]) -> None:
        self._client = client
        self._agents = agents
        self._rung = trio.Event()
        self._hung_for = 0
        self._is_unclaimed = False

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read reports when there are new ones. Runs until cancelled or the client is closed."""
        remove = self._client.add_tap(self._receive, Message, SubscriptionChanged)
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

    def look(self) -> None:
        """There may be reports that nobody was told of, since a connection has ended."""
        self._rung.set()

    def agent_has_pane(self) -> None:
        """An agent has just been given a pane, where its program may have reported already."""
        if self._is_unclaimed:
            self._rung.set()

    def _receive(self, event: Message | SubscriptionChanged) -> None:
        if (event.text if isinstance(event, Message) else event.name) == BELL:
            self._rung.set()

    async def _read(self) -> None:
        client = self._client
        if self._hung_for != client.generation:
            generation = client.generation
            await client.command(
                "set-hook", "-t", client.session_id, "after-set-option", self._hook()
            )
            self._hung_for = generation
        if not has_capability(client.version, "messages"):
            # Before they are read: what is set from here on rings again.
            await client.command("refresh-client", "-B", BELL)
        # Those that report nothing would make it ten times as long.
        listing = ("list-panes", "-s", "-t", client.session_id, "-f", f"#{{{REPORT}}}")
        said = {row.pane_id: row.report for row in await list_rows(client.command, listing, _Row)}
        for agent in self._agents.values():
            if agent.window_id:
                agent._reported(said.pop(agent.pane_id, ""))
        self._is_unclaimed = bool(said)

    def _hook(self) -> str:
        """A tmux command that rings the bell if the option that was set is a report.

        And if our client is there, or whoever has set it would be told that it is not.
        """
        name = self._client.client_name
        there = f"#{{m/r:(^|#,){name}($|#,),#{{session_attached_list}}}}"
        if has_capability(self._client.version, "messages"):
            ring: tuple[str, ...] = ("display-message", "-c", name, BELL)
        else:
            # tmux tells the value of a new subscription within a second.
            ring = ("refresh-client", "-t", name, "-B", f"{BELL}::1")
        condition = f"#{{?#{{==:#{{hook_argument_0}},{REPORT}}},{there},0}}"
        return shlex.join(("if-shell", "-F", condition, shlex.join(ring)))
