"""`TmuxSwarmManager`: the names and signatures of a design that polled tmux, over a `Swarm`.

Code that was written for that design runs unchanged, under trio or asyncio, and gets pushes instead
of polls. New code uses `open_swarm`, which can do more. Nothing of a swarm is decided here.

Under asyncio the swarm lives in a thread that runs trio (bridge.py), which adds about 0.1 ms to a
call; `AgentPane.pane` belongs to that thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import trio
from attrs import define

from ..client.pane import Pane, SendOutcome
from ..errors import (
    AgentNotFoundError,
    CommandTimeoutError,
    InvalidSwarm,
    OpenError,
    PaneDeadError,
    SessionCreationError,
    SessionNotFoundError,
)
from .agent import Agent
from .bridge import Portal, current_library
from .opening import open_swarm
from .spec import split_command
from .state import AgentStatus
from .swarm import Swarm

CAPTURE_TIMEOUT = 10.0
"""Seconds within which tmux must tell what a screen shows; it takes a millisecond."""

P = ParamSpec("P")
T = TypeVar("T")


@define
class AgentPane:
    """An agent and the pane it runs in. `status` is kept up to date while the manager runs."""

    agent_id: str
    pane_id: str
    window_id: str
    session_id: str
    pane: Pane
    status: AgentStatus = AgentStatus.PENDING


class _SameTrio:
    """What a `Portal` is where the caller runs under trio, as the swarm does."""

    async def call(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await function(*args, **kwargs)

    def iterate(self, factory: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        return factory()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class TmuxSwarmManager:
    """Runs agents, each the program of a tmux pane.

    ::

        manager = TmuxSwarmManager("test-cluster")
        await manager.start()
        await manager.spawn_agent("agent-1", "python -m agents.worker --id=1")
        async for line in manager.stream_agent_output("agent-1"):  # until the agent has ended
            print(line)
        await manager.broadcast("status")
        await manager.shutdown()

    The session is ``swarm-{cluster_id}``. Without `socket_path` it has a tmux server of its own.
    Use it in one task or many of one trio or asyncio program. A manager that is not shut down is
    when the program ends.
    """

    def __init__(
        self, cluster_id: str, base_dir: str | None = None, socket_path: str | None = None
    ) -> None:
        self.cluster_id = cluster_id
        self.base_dir = base_dir
        self.socket_path = socket_path
        self._swarm: Swarm | None = None
        self._agents: dict[str, AgentPane] = {}
        self._world: _SameTrio | Portal
        self._leave: trio.Event
        self._left: trio.Event
        self._holding: trio.CancelScope
        self._error: BaseException | None = None

    # Lifecycle

    async def start(self) -> None:
        """Make the session. Raises `SessionCreationError`, also if the manager was started before.

        What an earlier master of that name has left is ended.
        """
        if self._swarm is not None:
            raise SessionCreationError(self.cluster_id, "this manager has started it already")
        self._world = _SameTrio() if current_library() == "trio" else Portal()
        try:
            await self._world.call(self._start)
        except BaseException:
            await self._world.aclose()
            raise

    async def shutdown(self, graceful: bool = True) -> None:
        """End all agents at once, gently or (not `graceful`) with SIGKILL, and the session.

        Harmless where there is none.
        """
        if self._swarm is None:
            return
        try:
            await self._world.call(self._shutdown, graceful)
        finally:
            await self._world.aclose()

    async def _start(self) -> None:
        self._leave, self._left, self._error = trio.Event(), trio.Event(), None
        self._holding = trio.CancelScope()
        started = trio.Event()
        trio.lowlevel.spawn_system_task(self._hold, started)
        try:
            await started.wait()
        except BaseException:
            self._holding.cancel()
            with trio.CancelScope(shield=True):
                await self._left.wait()
            raise
        if self._swarm is None:
            await self._left.wait()
            error = self._error
            if isinstance(error, OpenError | InvalidSwarm):
                raise SessionCreationError(self.cluster_id, str(error)) from error
            assert error is not None
            raise error

    async def _shutdown(self, graceful: bool) -> None:
        swarm = self._swarm
        if swarm is not None and not graceful:
            await swarm.stop_all(grace=0)
        self._leave.set()
        await self._left.wait()
        if self._error is not None:
            raise self._error

    async def _hold(self, started: trio.Event) -> None:
        """Keep the swarm open until `shutdown`, or until trio ends; a task of nobody's nursery."""
        try:
            opening = open_swarm(
                self.cluster_id, base_dir=self.base_dir, socket_path=self.socket_path
            )
            with self._holding:
                async with opening as swarm, trio.open_nursery() as nursery:
                    self._swarm = swarm
                    nursery.start_soon(self._keep_statuses, swarm)
                    started.set()
                    await self._leave.wait()
                    nursery.cancel_scope.cancel()
        except trio.Cancelled:
            raise
        except Exception as error:
            self._error = error
        finally:
            self._swarm = None
            self._agents.clear()
            started.set()
            self._left.set()

    async def _keep_statuses(self, swarm: Swarm) -> None:
        while True:
            # Whoever calls us adds to them meanwhile, under asyncio in another thread.
            for agent_id, pane in tuple(self._agents.items()):
                if (agent := swarm.agents.get(agent_id)) is not None:
                    pane.status = agent.status
            await swarm.wait_change()

    # Agents

    async def spawn_agent(
        self, agent_id: str, command: str, env: dict[str, str] | None = None
    ) -> AgentPane:
        """Start `command` in a window of its own.

        It is split into words as a shell would, and run by a shell only if it needs one. `env` is
        handed to the program by tmux. Raises `AgentExistsError`, `SessionNotFoundError`,
        `CommandError` and `InvalidSwarm`.
        """
        agent = await self._running().call(self._spawn, agent_id, command, env or {})
        pane = AgentPane(
            agent_id,
            agent.pane_id,
            agent.window_id,
            self._live().client.session_id,
            agent.pane,
            agent.status,
        )
        self._agents[agent_id] = pane
        return pane

    async def _spawn(self, agent_id: str, command: str, env: Mapping[str, str]) -> Agent:
        try:
            argv = split_command(command)
        except InvalidSwarm:
            if not command.strip():
                raise
            argv = ["/bin/sh", "-c", command]
        return await self._live().spawn(agent_id, argv, env=env)

    async def kill_agent(self, agent_id: str, graceful: bool = True) -> None:
        """End an agent and all that it has started, and forget it.

        First by SIGTERM to its whole process group, unless it is not to be `graceful`. Raises
        `AgentNotFoundError`.
        """
        pane = self._pane(agent_id)
        await self._running().call(self._kill, agent_id, None if graceful else 0.0)
        pane.status = AgentStatus.STOPPED
        self._agents.pop(agent_id, None)

    async def _kill(self, agent_id: str, grace: float | None) -> None:
        await self._live().remove(agent_id, grace=grace)

    def get_agent_status(self, agent_id: str) -> AgentStatus:
        """How an agent is; UNKNOWN if there is none of that id."""
        agent = None if self._swarm is None else self._swarm.agents.get(agent_id)
        return AgentStatus.UNKNOWN if agent is None else agent.status

    # Output

    def stream_agent_output(self, agent_id: str, poll_interval: float = 0.1) -> AsyncIterator[str]:
        """The lines that an agent writes, from its first on, each as it is written.

        Ends when the agent has ended and its last line was given. `poll_interval` is not used:
        nothing is polled. Raises `AgentNotFoundError`.
        """
        del poll_interval
        self._pane(agent_id)
        agent = self._live().agents[agent_id]
        return self._running().iterate(agent.lines)

    async def capture_agent_output(self, agent_id: str) -> str:
        """What an agent's screen shows, its lines joined by LF.

        Raises `AgentNotFoundError`, `PaneDeadError` if its pane is gone, `CommandTimeoutError`.
        """
        self._pane(agent_id)
        return await self._running().call(self._capture, agent_id)

    async def _capture(self, agent_id: str) -> str:
        texts: dict[str, str] = {}
        with trio.move_on_after(CAPTURE_TIMEOUT):
            texts[agent_id] = await self._live().agents[agent_id].capture()
        if agent_id not in texts:
            raise CommandTimeoutError(
                f"tmux telling the screen of agent {agent_id!r}", CAPTURE_TIMEOUT
            )
        return texts[agent_id]

    # Talking

    async def broadcast(self, message: str) -> None:
        """Type `message` and Enter to all agents at once; those that have ended are passed over."""
        await self._running().call(self._broadcast, message)

    async def _broadcast(self, message: str) -> None:
        await self._live().broadcast(message)

    async def send_to_agent(self, agent_id: str, message: str) -> None:
        """Type `message` and Enter to an agent, as text whatever it holds.

        Raises `AgentNotFoundError`, and `PaneDeadError` if its program has ended.
        """
        self._pane(agent_id)
        if await self._running().call(self._send, agent_id, message) is SendOutcome.DEAD:
            raise PaneDeadError(agent_id)

    async def _send(self, agent_id: str, message: str) -> SendOutcome:
        return await self._live().agents[agent_id].send(message)

    # The session

    def list_agents(self) -> list[str]:
        """The ids of all agents."""
        return list(self._agents)

    def get_session_info(self) -> dict[str, Any]:
        """Whether there is a session (``active``), and what it is.

        If so also ``session_id``, ``session_name``, ``windows`` and ``agent_count``.
        """
        swarm = self._swarm
        if swarm is None:
            return {"active": False}
        return {
            "active": True,
            "session_id": swarm.client.session_id,
            "session_name": f"swarm-{self.cluster_id}",
            "windows": max(1, len(self._agents)),
            "agent_count": len(self._agents),
        }

    # Helpers

    def _live(self) -> Swarm:
        if self._swarm is None:
            raise SessionNotFoundError(self.cluster_id)
        return self._swarm

    def _running(self) -> _SameTrio | Portal:
        self._live()
        return self._world

    def _pane(self, agent_id: str) -> AgentPane:
        self._live()
        try:
            return self._agents[agent_id]
        except KeyError:
            raise AgentNotFoundError(agent_id, self._agents) from None
