"""The windows of a swarm's session: how an agent gets a pane, and what becomes of it afterwards.

What runs in the pane is the agent's business (agent.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import trio

from ..client.client import Client
from ..client.pane import Pane
from ..errors import CommandError, ConnectionClosed, PaneNotFound, TmuxError
from .agent import Agent
from .options import AGENT, LOG, REPORT, SENT, SPEC, STATE, VACANT, WANTED, list_agents
from .processes import environment_of
from .spec import spec_to_json

LOOKS = 5
"""How often a window is looked for while there are some of which nobody knows whose they are."""


class Windows:
    """The windows of a session."""

    def __init__(self, client: Client) -> None:
        self.vacant: Pane | None = None
        """The pane that has no agent: that of the session's beginning, or the last one's."""
        self._client = client
        self._closing = trio.Lock()

    async def start(self, agent: Agent) -> tuple[Pane, str]:
        """Start the agent's program in the pane that it has, in a vacant one or in a new window.

        Where its pane is gone, it gets another. Raises `InvalidSwarm`, `CommandError` if tmux can't
        start it, and `ConnectionClosed`.
        """
        client, name = self._client, agent.agent_id
        if agent.window_id:
            # What was heard is of the last start.
            agent.is_unwanted = None
        if agent.window_id and not agent.needs_pane and await self._start_again(agent):
            return agent.pane, agent.window_id
        # Nobody else is to have it before it is known whether this program runs there.
        vacant, self.vacant = self.vacant, None
        try:
            pane, window_id = await self._start_first(agent, vacant)
        except BaseException:
            # If somebody has closed it, that is found out when it is to be used.
            self._give_back(vacant)
            raise
        more: list[tuple[str, ...]] = []
        if vacant is not None and pane.pane_id == vacant.pane_id:
            more = [
                ("set-option", "-pu", "-t", pane.pane_id, VACANT),
                ("rename-window", "-t", window_id, name.replace("#", "##")),
            ]
        # Whoever finds its name finds how it is to be started, too.
        more += [
            ("set-option", "-p", "-t", pane.pane_id, SPEC, spec_to_json(agent.spec)),
            ("set-option", "-p", "-t", pane.pane_id, AGENT, name),
            ("select-pane", "-t", pane.pane_id, "-T", name.replace("#", "##")),
        ]
        if agent.log_file is not None:
            more.append(("set-option", "-p", "-t", pane.pane_id, LOG, str(agent.log_file)))
        await client.through_reconnects(lambda: self._batch(more))
        await client.through_reconnects(pane.hook_death)
        return pane, window_id

    async def _start_again(self, agent: Agent) -> bool:
        """Start the program in the pane that it had; False if somebody has closed that."""
        unwanted = ("set-option", "-pu", "-t", agent.pane_id, WANTED)
        try:
            await self._client.through_reconnects(lambda: self._client.command(*unwanted))
            # What was read meanwhile was read before that.
            agent.is_unwanted = None
            await agent._respawn()
        except PaneNotFound:
            pass
        except CommandError as error:
            if not _is_gone(error):
                raise
        else:
            return True
        agent.pane.forget()
        return False

    async def _start_first(self, agent: Agent, vacant: Pane | None) -> tuple[Pane, str]:
        """Start a program in `vacant` or in a new window; also where the connection ends."""
        client, program = self._client, agent.program
        program.prepare()
        argv, cwd, env = program.argv, program.cwd, program.variables
        if vacant is not None:
            # What it showed before is not of this agent.
            vacant.forget()
        while True:
            try:
                if vacant is not None:
                    await vacant.respawn(argv, cwd=cwd, env=env, kill=True)
                    where = ("display-message", "-p", "-t", vacant.pane_id, "#{window_id}")
                    window_id = (await client.command(*where))[0]
                    if window_id:
                        return vacant, window_id
                    vacant = None
                created = await client.new_window(agent.agent_id, argv=argv, cwd=cwd, env=env)
                return client.pane(created.pane_id), created.window_id
            except PaneNotFound:
                # Somebody has closed the vacant one.
                vacant = None
            except ConnectionClosed:
                await client.wait_connected()
                found = await client.through_reconnects(lambda: self._find_window(agent))
                if found is not None:
                    # What it has written by now is shown there.
                    await client.through_reconnects(found[0].adopt)
                    return found

    def _give_back(self, vacant: Pane | None) -> None:
        if self.vacant is None:
            self.vacant = vacant

    async def _find_window(self, agent: Agent) -> tuple[Pane, str] | None:
        """The pane of a program of an agent, if it was started."""
        marks = agent.program.marks
        for _ in range(LOOKS):
            rows = await list_agents(self._client.command, self._client.session_id)
            for row in rows:
                if marks.items() <= environment_of(row.pane_pid or 0).items():
                    return self._client.pane(row.pane_id), row.window_id
            if all(row.agent_id or row.vacant for row in rows):
                break
            # What is nobody's may be a child of tmux that has not become its program yet.
            await trio.sleep(0.02)
        return None

    async def _batch(self, commands: Iterable[Sequence[str]]) -> None:
        for answer in await self._client.batch(commands):
            if isinstance(answer, TmuxError):
                raise answer

    async def take_back(self, agent: Agent) -> None:
        """Close the pane of an agent that is over, or keep it for the next if it is the last.

        Without tmux there is no window.
        """
        # One at a time, or the last two would both be closed. Half given back, a window could be
        # found by nobody any more.
        with trio.CancelScope(shield=True), suppress(ConnectionClosed):
            async with self._closing:
                await self._client.through_reconnects(lambda: self._take_back(agent))

    async def _take_back(self, agent: Agent) -> None:
        client, pane = self._client, agent.pane
        panes = [row.pane_id for row in await list_agents(client.command, client.session_id)]
        if pane.pane_id not in panes:
            # Somebody has closed it.
            return
        if len(panes) > 1:
            with suppress(CommandError):
                # Somebody may have closed it. What somebody has put beside it stays.
                await client.command("kill-pane", "-t", pane.pane_id)
        else:
            for option in (AGENT, SPEC, STATE, REPORT, SENT, WANTED, LOG):
                await client.command("set-option", "-pu", "-t", pane.pane_id, option)
            # A program that is started in a pane finds the screen empty, but not the history.
            await client.command("clear-history", "-t", pane.pane_id)
            await client.command("set-option", "-p", "-t", pane.pane_id, VACANT, "1")
            self.vacant = pane


def _is_gone(error: CommandError) -> bool:
    """Whether somebody has closed the pane that a command was for."""
    text = " ".join(error.lines)
    return "can't find" in text or "no such pane" in text
