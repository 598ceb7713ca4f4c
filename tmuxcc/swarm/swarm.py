"""A swarm: one master, one tmux session, and an agent in each window of it.

Here is what a master does with its agents. How a swarm begins and ends is in opening.py, what a
single agent is and does in agent.py, how it gets a pane in windows.py, what other shells are told
of it in notes.py, and how the master hears what agents and other shells note in bell.py.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar
from warnings import warn

import trio
from attrs import define, evolve, frozen

from ..client.client import Client, ClientStatistics
from ..client.events import Reconnected
from ..client.expect import MAX_TEXT
from ..client.output import Chunk
from ..client.pane import Pane, SendOutcome, prepare_text
from ..client.text import decode, strip_sequences
from ..errors import (
    AgentExistsError,
    AgentNotFoundError,
    ConnectionClosed,
    InvalidSwarm,
    PaneNotFound,
    TmuxError,
)
from ..protocol.events import SessionChanged
from .agent import Agent
from .bell import Bell
from .checks import check_agent_id
from .ending import StopReport, end_marked
from .log import LogFile, log_path
from .notes import StateNotes
from .options import (
    CLIENT,
    SPEC,
    AgentRow,
    AgentState,
    list_agents,
)
from .policy import NO_LIMITS, OutputLimits, RestartPolicy
from .processes import environment_of, identity
from .program import Program
from .rules import AgentKind, kind_for
from .spec import POLITE_STOP, AgentSpec, Ready, StopPolicy, spec_from_json
from .state import Life
from .windows import Windows

T = TypeVar("T")

SWARM_VARIABLE = "TMUXCC_SWARM"
AGENT_VARIABLE = "TMUXCC_AGENT"
"""In the environment of every process of an agent, so that none of them is overlooked."""


@frozen
class SwarmStatistics:
    """How many agents there are in each state, what they wrote, and the client below."""

    agents: int
    lives: Mapping[Life, int]
    bytes: int
    restarts: int
    client: ClientStatistics


@define
class _Start:
    """A start that somebody waits for."""

    done: trio.Event
    error: Exception | None = None


class Swarm:
    """Agents and their master; `open_swarm` makes it. `agents` maps ids to agents."""

    def __init__(
        self,
        cluster_id: str,
        *,
        client: Client,
        nursery: trio.Nursery,
        mark: str,
        base_dir: Path,
        log_dir: Path | None,
        socket_path: Path,
        keep: bool,
    ) -> None:
        self.cluster_id = cluster_id
        self.mark = mark
        """What every process of the swarm has in its environment, as ``TMUXCC_SWARM``."""
        self.client = client
        self.socket_path = socket_path
        self.keep = keep
        """Whether the agents go on when the block is left; may be set while it runs."""
        self.agents: Mapping[str, Agent]
        self._agents: dict[str, Agent] = {}
        self.agents = MappingProxyType(self._agents)
        self._nursery = nursery
        self._base_dir = base_dir
        self._log_dir = log_dir
        self._windows = Windows(client)
        self._notes = StateNotes(client, self._agents)
        self._bell = Bell(client, self._agents)
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Swarm {self.cluster_id!r} of {len(self._agents)} agents>"

    def statistics(self) -> SwarmStatistics:
        """How the agents are, as of now."""
        agents = list(self._agents.values())
        each = [agent.statistics() for agent in agents]
        return SwarmStatistics(
            agents=len(agents),
            lives={life: sum(agent.life is life for agent in agents) for life in Life},
            bytes=sum(one.bytes for one in each),
            restarts=sum(one.restarts for one in each),
            client=self.client.statistics(),
        )

    # Agents come and go

    async def spawn(
        self,
        agent_id: str,
        argv: Sequence[str] | AgentSpec,
        *,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        env_file: str | os.PathLike[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        restart: RestartPolicy | str | None = None,
        stop: StopPolicy | None = None,
        ready: Ready | None = None,
        kind: str | AgentKind | None = None,
        limits: OutputLimits | None = None,
        log: bool = True,
    ) -> Agent:
        """Start a program in a window of its own; its agent, once tmux has started it.

        `argv` is the program and its arguments, run by no shell; or a whole `AgentSpec`, and then
        only `secrets` and `kind` may be given besides. `env` is added to the environment of the
        tmux server, `secrets` too, but these are never noted anywhere; `env_file` is a file of
        ``NAME=VALUE`` lines, read at each start. `cwd` is relative to the swarm's folder. `restart`
        is ``"no"``, ``"on-failure"``, ``"always"`` or a `RestartPolicy`.

        Many may be started at once, each in a task of its own. Raises `AgentExistsError`,
        `InvalidSwarm`, `CommandError` if tmux can't start it, and `ConnectionClosed`. Cancelled,
        the agent is started all the same and stands in `agents`.
        """
        check_agent_id(agent_id)
        if agent_id in self._agents:
            raise AgentExistsError(agent_id)
        if isinstance(argv, AgentSpec):
            given = {
                "env": env, "env_file": env_file, "cwd": cwd, "restart": restart, "stop": stop,
                "ready": ready, "limits": limits, "log": None if log else log,
            }  # fmt: skip
            if names := [name for name, value in given.items() if value is not None]:
                raise TypeError(f"{', '.join(names)}: these stand in the AgentSpec")
            spec = argv
        else:
            spec = AgentSpec(
                argv,
                env=env or {},
                env_file=None if env_file is None else os.fspath(env_file),
                secret_names=tuple(secrets or ()),
                cwd=None if cwd is None else os.fspath(cwd),
                restart=restart,
                stop=stop or POLITE_STOP,
                ready=ready,
                kind=kind.name if isinstance(kind, AgentKind) else kind,
                limits=limits or NO_LIMITS,
                log=log,
            )
        if secrets is not None:
            secret_names = dict.fromkeys((*spec.secret_names, *secrets))
            spec = evolve(spec, secret_names=tuple(secret_names))
        agent = self._new_agent(agent_id, spec, kind=kind, secrets=secrets or {})
        # It has no pane yet in which that could be noted.
        agent.is_unwanted = False
        self._agents[agent_id] = agent
        try:
            await self._start(agent)
        except Exception:
            if self._agents.get(agent_id) is agent:
                del self._agents[agent_id]
                self._wake()
            raise
        return agent

    async def restart(self, agent_id: str, *, grace: float | None = None) -> Agent:
        """End an agent's program if it runs, as `stop` does, and start it again in its pane.

        Raises `AgentNotFoundError`, and what `spawn` raises.
        """
        agent = self._agent(agent_id)
        async with agent._renewing:
            if self._agents.get(agent_id) is not agent:
                # It was removed meanwhile.
                raise AgentNotFoundError(agent_id, self._agents)
            # Whoever is still clearing up behind it would take the next program along.
            while not agent.is_over or agent.is_stopping:
                await agent.stop(grace=grace)
            if self._agents.get(agent_id) is not agent:
                # It could not even be started.
                raise AgentNotFoundError(agent_id, self._agents)
            await self._start(agent)
        return agent

    async def stop(self, agent_id: str, *, grace: float | None = None) -> StopReport:
        """End an agent's program and all that it has started; what it took. See `Agent.stop`.

        The agent stays in `agents`, with its output. Raises `AgentNotFoundError`.
        """
        return await self._agent(agent_id).stop(grace=grace)

    async def stop_all(self, *, grace: float | None = None) -> dict[str, StopReport]:
        """End all agents side by side; what each took."""
        return await self._each(self._agents.values(), lambda agent: agent.stop(grace=grace))

    async def remove(self, agent_id: str, *, grace: float | None = None) -> StopReport | None:
        """End an agent if it runs and forget it, its window and its output; what it took.

        Raises `AgentNotFoundError`.
        """
        agent = self._agent(agent_id)
        async with agent._renewing:
            if self._agents.get(agent_id) is not agent:
                # Somebody else was quicker.
                return None
            report = None
            if not agent.is_over or agent.is_stopping:
                report = await agent.stop(grace=grace)
            else:
                # What it has started may have outlived it.
                await end_marked(agent.program.mark_entries, spare=(self.client.server_pid,))
            if self._agents.get(agent_id) is not agent:
                # It could not even be started.
                return report
            del self._agents[agent_id]
            self._notes.forget(agent)
            if agent.window_id:
                try:
                    await self._windows.take_back(agent)
                finally:
                    agent.pane.forget()
        self._wake()
        return report

    # All at once

    async def broadcast(
        self, text: str, *, submit: bool = True, agent_ids: Iterable[str] | None = None
    ) -> dict[str, SendOutcome]:
        """Type `text` to all agents (or those named) at once; what became of it at each.

        Agents whose program has ended are DEAD. Raises `AgentNotFoundError`, and `ConnectionClosed`
        if tmux is gone.
        """
        agents = self._named(agent_ids)
        async with prepare_text(self.client, text) as prepared:
            return await self._each(
                agents, lambda agent: agent.send(text, submit=submit, prepared=prepared)
            )

    async def gather_outputs(
        self,
        *,
        within: float = 10.0,
        until: Literal["now", "idle", "exit"] = "now",
        history: bool = False,
        agent_ids: Iterable[str] | None = None,
    ) -> dict[str, str]:
        """What each agent's screen shows, with `history` also what has scrolled by; no blank end.

        With `until` each is first waited for to be idle, or to end. All together have `within`
        seconds; of an agent that is not there by then you get what it had. Raises
        `AgentNotFoundError`.
        """
        texts: dict[str, str] = {}

        async def gather(agent: Agent) -> None:
            with suppress(TmuxError):
                if until == "idle":
                    await agent.wait_idle()
                elif until == "exit":
                    await agent.wait_exit()
            # Whose pane or tmux is gone still has what it wrote.
            with suppress(TmuxError):
                texts[agent.agent_id] = (await agent.capture(history=history)).rstrip()

        agents = self._named(agent_ids)
        with trio.move_on_after(within):
            await self._each(agents, gather)
        return {
            agent.agent_id: texts[agent.agent_id] if agent.agent_id in texts else _written(agent)
            for agent in agents
        }

    async def wait_for_condition(self, condition: Callable[[Agent], bool]) -> None:
        """Wait until `condition` holds for all agents at the same time.

        It is asked whenever the state of an agent has changed or one has written, so it must be
        quick. For a deadline use a cancel scope.
        """
        await trio.lowlevel.checkpoint()
        while not all(condition(agent) for agent in tuple(self._agents.values())):
            await self.wait_change()

    async def wait_change(self) -> None:
        """Wait until the state of an agent has changed, one has come or gone, or one has written.

        That one has written is told at most fifty times a second for each.
        """
        await self._changed.park()

    # Helpers

    def _agent(self, agent_id: str) -> Agent:
        try:
            return self._agents[agent_id]
        except KeyError:
            raise AgentNotFoundError(agent_id, self._agents) from None

    def _named(self, agent_ids: Iterable[str] | None) -> list[Agent]:
        if agent_ids is None:
            return list(self._agents.values())
        return [self._agent(agent_id) for agent_id in agent_ids]

    async def _each(
        self, agents: Iterable[Agent], function: Callable[[Agent], Awaitable[T]]
    ) -> dict[str, T]:
        """What `function` gives for each agent, run side by side; the first error if one fails."""
        results: dict[str, T] = {}
        errors: list[Exception] = []

        async def run(agent: Agent) -> None:
            try:
                results[agent.agent_id] = await function(agent)
            except Exception as error:
                # Raised below, when all others are through.
                errors.append(error)

        agents = list(agents)
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(run, agent)
        if errors:
            raise errors[0]
        return {agent.agent_id: results[agent.agent_id] for agent in agents}

    def _wake(self) -> None:
        self._changed.unpark_all()

    def _note_change(self, agent: Agent) -> None:
        self._notes.add(agent)
        self._wake()

    # Starting

    def _new_agent(
        self,
        agent_id: str,
        spec: AgentSpec,
        *,
        kind: str | AgentKind | None,
        secrets: Mapping[str, str],
    ) -> Agent:
        log = None
        if self._log_dir is not None and spec.log:
            log = LogFile(log_path(self._log_dir, agent_id))
        return Agent(
            agent_id,
            spec,
            program=Program(
                agent_id,
                spec,
                marks={SWARM_VARIABLE: self.mark, AGENT_VARIABLE: agent_id},
                secrets=secrets,
                base_dir=self._base_dir,
            ),
            client=self.client,
            nursery=self._nursery,
            kind=kind if isinstance(kind, AgentKind) else kind_for(spec.argv, spec.kind),
            log=log,
            spare=lambda: (self.client.server_pid,),
            changed=self._note_change,
        )

    async def _start(self, agent: Agent) -> None:
        """Start it in a task of our own: a cancelled caller leaves nothing half made."""
        start = _Start(trio.Event())
        try:
            self._nursery.start_soon(self._run_agent, agent, start)
        except RuntimeError as error:
            # What trio says of a nursery that is closed.
            raise ConnectionClosed("the swarm has ended") from error
        # At once: whoever stops it from now on waits for its program.
        agent._starting()
        await start.done.wait()
        if start.error is not None:
            raise start.error

    @trio.lowlevel.enable_ki_protection
    async def _run_agent(self, agent: Agent, start: _Start) -> None:
        try:
            pane, window_id = await self._windows.start(agent)
        except (TmuxError, OSError) as error:
            agent._failed(str(error))
            start.error = error
            start.done.set()
            return

        def followed() -> None:
            start.done.set()
            self._bell.agent_has_pane()

        await self._follow(agent, pane, window_id, followed)

    @trio.lowlevel.enable_ki_protection
    async def _follow(
        self,
        agent: Agent,
        pane: Pane,
        window_id: str,
        followed: Callable[[], None],
        adopted: bool = False,
    ) -> None:
        await agent._run(pane, window_id, followed, adopted)
        while agent.needs_pane:
            try:
                pane, window_id = await self._windows.start(agent)
            except (TmuxError, OSError) as error:
                agent._failed(f"it can't be started again: {error}")
                return
            await agent._run(pane, window_id, followed)
        if agent.is_given_up and self._agents.get(agent.agent_id) is not agent:
            # It was removed before it had a window.
            await self._windows.take_back(agent)
            agent.pane.forget()

    # What the swarm does all the time

    async def _begin(self, *, adopt: bool) -> None:
        """Take over the agents that are there, if there are any, and begin to listen."""
        rows = await list_agents(self.client.command, self.client.session_id)
        vacant = [self.client.pane(row.pane_id) for row in rows if row.vacant]
        self._windows.vacant = vacant[0] if vacant else None
        self._nursery.start_soon(self._notes.run)
        self._nursery.start_soon(self._bell.run)
        self._nursery.start_soon(self._heed_reconnects)
        if adopt:
            errors: list[Exception] = []

            async def adopt_one(row: AgentRow) -> None:
                try:
                    await self._adopt_agent(row)
                except PaneNotFound:
                    # Its window was closed just then.
                    self._agents.pop(row.agent_id, None)
                except InvalidSwarm as error:
                    # The others are adopted all the same.
                    warn(f"agent {row.agent_id!r} can't be adopted: {error}", stacklevel=2)
                except Exception as error:
                    errors.append(error)

            async with trio.open_nursery() as nursery:
                for row in rows:
                    if row.agent_id:
                        nursery.start_soon(adopt_one, row)
            if errors:
                raise errors[0]
            # In the order of their windows, whichever was quicker.
            for row in rows:
                if row.agent_id in self._agents:
                    self._agents[row.agent_id] = self._agents.pop(row.agent_id)

    @trio.lowlevel.enable_ki_protection
    async def _heed_reconnects(self) -> None:
        """Make good what another connection does not know or has missed, as long as one follows."""
        with suppress(ConnectionClosed):
            # `Reconnected` stands among the events of every kind.
            async with self.client.events(SessionChanged) as events:
                async for event in events:
                    if isinstance(event, Reconnected):
                        note = (CLIENT, str(self.client.client_pid))
                        with suppress(ConnectionClosed):
                            self.client.command_nowait(
                                "set-option", "-t", self.client.session_id, *note
                            )
                        # A note may have been lost on its way.
                        self._notes.forget(*self._agents.values())
                        self._notes.add(*self._agents.values())
                        self._bell.ring()

    async def _adopt_agent(self, row: AgentRow) -> None:
        where = ("show-options", "-pqv", "-t", row.pane_id, SPEC)
        text = await self.client.command(*where)
        spec = spec_from_json("\n".join(text))
        known = environment_of(row.pane_pid or 0)
        secrets = {name: known[name] for name in spec.secret_names if name in known}
        agent = self._new_agent(row.agent_id, spec, kind=None, secrets=secrets)
        agent.program.variables = known or agent.program.variables
        state = AgentState.from_json(row.state)
        # tmux may not have noticed yet.
        dead = row.pane_dead or identity(row.pane_pid or 0) is None
        agent._remember(row.sent.split(), state, dead=dead)
        self._agents[row.agent_id] = agent
        pane = self.client.pane(row.pane_id)
        pane.keep_open()
        await self.client.through_reconnects(pane.adopt)
        agent._adopted_at(pane.statistics().output_bytes)
        await self.client.through_reconnects(pane.hook_death)
        agent._starting()
        adopted = trio.Event()

        def followed() -> None:
            adopted.set()
            if row.report:
                agent._reported(row.report)
            self._bell.agent_has_pane()

        self._nursery.start_soon(self._follow, agent, pane, row.window_id, followed, True)
        await adopted.wait()


def _written(agent: Agent) -> str:
    """The text of what is kept of its output, without asking anybody."""
    if not agent.window_id:
        return ""
    stream = agent.output(since=0)
    pieces = []
    while (item := stream.receive_nowait()) is not None:
        if isinstance(item, Chunk):
            pieces.append(item.data)
    return strip_sequences(decode(b"".join(pieces)[-MAX_TEXT:]))
