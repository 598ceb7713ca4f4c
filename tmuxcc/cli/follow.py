"""How the agents of a swarm that somebody else runs go on, by push.

tmux is asked to tell when a pane or a note of it changes, which takes up to a second; that the
master has ended is told by the system.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio

from ..client.background import background
from ..errors import CommandError, ConnectionClosed
from ..protocol.events import SubscriptionChanged
from ..swarm.options import AGENT, MASTER, STATE, STOPPED, WANTED
from ..swarm.processes import wait_gone
from .swarms import Link, Sighting

SETTLE = 0.3
"""Seconds for which a state has to last to be believed: a master notes that a program has ended,
and then that it will be started again."""


class Follower:
    """What is known of all agents at any time. `run` must be running.

    What waits here raises `ConnectionClosed` when the swarm has gone.
    """

    def __init__(self, link: Link) -> None:
        self.agents: dict[str, Sighting] = {}
        self._link = link
        self.looked = False
        self._news = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()
        self._failure: ConnectionClosed | None = None

    async def run(self) -> None:
        """Keep up with what changes. Runs until cancelled or the swarm has gone."""
        what = f"#{{pane_dead}} #{{pane_pid}} #{{{WANTED}}} #{{{AGENT}}} #{{{MASTER}}} #{{{STATE}}}"
        try:
            async with (
                self._link.client.watch_format(what, pane_id="%*") as changes,
                background() as nursery,
            ):
                nursery.start_soon(self._keep_looking)
                async for change in changes:
                    if isinstance(change, SubscriptionChanged):
                        self._news.set()
        except ConnectionClosed as error:
            self._fail(error)

    async def _keep_looking(self) -> None:
        """Look again whenever there is news, once for what tmux tells of many panes in one go."""
        try:
            while True:
                self._news = trio.Event()
                await self.look()
                await self._news.wait()
        except ConnectionClosed as error:
            self._fail(error)

    def _fail(self, error: ConnectionClosed) -> None:
        self._failure = error
        self._changed.unpark_all()

    async def heed_master(self) -> None:
        """Know at once that the master has ended. Runs until cancelled."""
        while True:
            master = self._link.master
            if master is not None:
                await wait_gone([master])
                if self._link.master == master:
                    self._link.master = None
                self._changed.unpark_all()
            else:
                await self._changed.park()

    async def look(self) -> None:
        """Ask tmux how all are now. Raises `ConnectionClosed` if the swarm has gone."""
        try:
            self.agents = await self._link.agents()
        except CommandError as error:
            # Its session has just gone, and the connection is about to.
            raise ConnectionClosed(" ".join(error.lines)) from error
        self.looked = True
        self._changed.unpark_all()

    async def wait_change(self) -> None:
        """Wait until something may have changed."""
        if self._failure is None:
            await self._changed.park()
        if self._failure is not None:
            raise self._failure

    def wake(self) -> None:
        """Have all that wait for a change look again."""
        self._changed.unpark_all()

    async def wait_over(self, agent_id: str) -> None:
        """Wait until an agent's program has ended and nobody will start it again."""
        await self.wait_until(lambda: self.is_over(agent_id))

    async def wait_again(self, agent_id: str, again: trio.Event) -> bool:
        """Wait for `again`, which is set where its next program writes; False if there is none."""

        async def cancel_when_over() -> None:
            with suppress(ConnectionClosed):
                await self.wait_over(agent_id)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_over)
            await again.wait()
            nursery.cancel_scope.cancel()
        return again.is_set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, and has for a moment."""
        while True:
            while not condition():
                await self.wait_change()
            await trio.sleep(SETTLE)
            await self.look()
            if condition():
                return

    def is_over(self, agent_id: str) -> bool:
        """Whether, as it looks now, its program has ended and nobody will start it again."""
        agent = self.agents.get(agent_id)
        if agent is None:
            return True
        if not agent.pane_dead:
            return False
        if self._link.master is None or agent.wanted == STOPPED:
            return True
        state = agent.state
        if state is None:
            return False
        return state.life == "failed" or (state.life == "exited" and state.restart_at is None)


@asynccontextmanager
async def following(link: Link) -> AsyncIterator[Follower]:
    """A `Follower` for the time of the block. Raises `ConnectionClosed`."""
    follower = Follower(link)
    async with background() as nursery:
        nursery.start_soon(follower.run)
        nursery.start_soon(follower.heed_master)
        while not follower.looked:
            await follower.wait_change()
        yield follower
