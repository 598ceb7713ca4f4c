"""``tmuxcc wait``: until agents of a swarm that runs have come so far."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import click
import trio
from attrs import frozen

from ..client.background import background
from ..errors import PaneNotFound, TmuxError, TmuxSwarmError
from ..protocol.events import Output
from .follow import Follower, following
from .options import SECONDS, advice
from .report import json_text, status_text
from .swarms import Link, Place, Sighting, drive, look_at, swarm_options
from .text import Stdout

TIMED_OUT = 124
"""Our exit status when the time is over, as that of timeout(1)."""


@frozen
class _Plan:
    """What is waited for: one of the first four."""

    pattern: str | None
    idle: bool
    ready: bool
    exit: bool
    any: bool
    screen: bool


@frozen
class _Result:
    """What came of an agent. `came`: it is what was waited for."""

    agent_id: str
    came: bool
    outcome: str
    text: str


def _pattern(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value, re.MULTILINE)
        except re.error as error:
            raise click.BadParameter(f"{value!r} is no regular expression: {error}") from error
    return value


@click.command(short_help="Wait until agents have come so far.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--for",
    "pattern",
    callback=_pattern,
    metavar="PATTERN",
    help="Until it writes what this regular expression finds.",
)
@click.option("--idle", is_flag=True, help="Until it has done what it was told, or asks for more.")
@click.option("--ready", is_flag=True, help="Until its ready condition holds.")
@click.option("--exit", "for_exit", is_flag=True, help="Until its program ends.")
@click.option("--any", "for_any", is_flag=True, help="Until the first of them has come so far.")
@click.option("--screen", is_flag=True, help="With --for: also what its screen shows already.")
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="Give up then. [default: never]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per agent and line.")
@swarm_options
def wait(
    ctx: click.Context,
    place: Place,
    names: Sequence[str],
    pattern: str | None,
    idle: bool,
    ready: bool,
    for_exit: bool,
    for_any: bool,
    screen: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Wait until all agents (or those NAMEd, 'web-*' for many) have come so far.

    One of --for, --idle, --ready and --exit says how far. --for looks at what is written from now
    on; ^ and $ stand for each line. --idle and --ready are known by the master (`tmuxcc up`), so
    one has to run, unless all are ready already; what they say has to last a moment. An agent
    that has ended for good, and is not to be started again, does not come so far any more: NAME
    those that matter.

    \b
    Examples:
      tmuxcc wait --ready --timeout 60 && tmuxcc broadcast "begin"
      tmuxcc wait --for 'Traceback|FAILED' --any
      tmuxcc wait --exit worker-1

    Exit status: 0 when it came, 1 when an agent ended for good first, 124 when the time was over.
    """  # noqa: D301 - the \b is for click
    if sum((pattern is not None, idle, ready, for_exit)) != 1:
        raise click.UsageError("say one of --for PATTERN, --idle, --ready and --exit")
    if screen and pattern is None:
        raise click.UsageError("--screen belongs to --for")
    plan = _Plan(pattern, idle, ready, for_exit, for_any, screen)
    missing: list[str] = []

    def show(stdout: Stdout, result: _Result) -> None:
        missing.remove(result.agent_id)
        if as_json:
            values = {"name": result.agent_id, "outcome": result.outcome, "text": result.text}
            stdout.write(json_text(values))
        else:
            stdout.write(f"{result.agent_id}: {result.text}\n")

    async def run(stdout: Stdout) -> int:
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            async with look_at(place) as link:
                agents = list((await link.chosen(names)).values())
                missing.extend(agent.agent_id for agent in agents)
                return await _Waiting(link, plan, partial(show, stdout)).run(agents)
        names_missing = f": {', '.join(missing)}" if missing else ""
        click.echo(f"tmuxcc: it did not come within {timeout:g} s{names_missing}", err=True)
        return TIMED_OUT

    ctx.exit(drive(run))


class _Waiting:
    """All that is waited for at a time."""

    def __init__(self, link: Link, plan: _Plan, show: Callable[[_Result], None]) -> None:
        self._link = link
        self._plan = plan
        self._show = show
        self._results: list[_Result] = []
        self._failure: TmuxError | None = None
        self._news = trio.Event()
        self._again: dict[str, trio.Event] = {}
        """Of panes: set when the next program in it writes."""

    async def run(self, agents: Sequence[Sighting]) -> int:
        """The exit status. Raises `ConnectionClosed` if the swarm has gone."""
        plan = self._plan
        if plan.exit:
            return await self._gather(agents, self._wait_exit)
        wait = self._wait_noted if plan.pattern is None else self._wait_text
        remove = self._link.client.add_tap(self._hear, Output)
        try:
            async with following(self._link) as follower:
                return await self._gather(agents, partial(wait, follower))
        finally:
            remove()

    async def _gather(
        self, agents: Sequence[Sighting], function: Callable[[Sighting], Awaitable[_Result]]
    ) -> int:
        async def one(agent: Sighting) -> None:
            try:
                result = await function(agent)
            except TmuxError as error:
                self._failure = error
            else:
                self._show(result)
                self._results.append(result)
            self._news.set()

        async with background() as nursery:
            for agent in agents:
                nursery.start_soon(one, agent)
            while len(self._results) < len(agents):
                await self._news.wait()
                self._news = trio.Event()
                if self._failure is not None:
                    raise self._failure
                if any(result.came is self._plan.any for result in self._results):
                    # One is enough, or one that can't come any more.
                    break
        came = [result.came for result in self._results]
        return 0 if (any(came) if self._plan.any else all(came)) else 1

    async def _wait_exit(self, agent: Sighting) -> _Result:
        pane = self._link.client.pane(agent.pane_id)
        try:
            await pane.adopt(let_go=self._link.master is None)
            status = await pane.wait_exit()
        except PaneNotFound:
            return _Result(agent.agent_id, True, "exited", status_text(None))
        return _Result(agent.agent_id, True, "exited", status_text(status))

    async def _wait_text(self, follower: Follower, agent: Sighting) -> _Result:
        assert self._plan.pattern is not None
        agent_id, pane = agent.agent_id, self._link.client.pane(agent.pane_id)
        again = self._again[agent.pane_id] = trio.Event()
        since = None
        try:
            await pane.adopt(let_go=self._link.master is None)
            while True:
                result = await pane.wait_for(
                    self._plan.pattern, since=since, screen=self._plan.screen, echo=True
                )
                since = None
                if result.match is not None:
                    found = " ".join(result.match[0].split())
                    return _Result(agent_id, True, "matched", found)
                if result.outcome == "exited":
                    status = pane.statistics().exit_status
                    if not await follower.wait_again(agent_id, again):
                        last = follower.agents.get(agent_id)
                        status = (last and last.exit_status) or status
                        return _Result(agent_id, False, "exited", status_text(status))
                    again = self._again[agent.pane_id] = trio.Event()
                    since = 0
        except PaneNotFound:
            return _Result(agent_id, False, "exited", status_text(None))

    def _hear(self, event: Output) -> None:
        again = self._again.get(event.pane_id)
        if again is not None:
            pane = self._link.client.pane(event.pane_id)
            if pane.statistics().exit_status is not None:
                # Let this be the output of another program, from 0 on.
                pane.forget()
                again.set()

    async def _wait_noted(self, follower: Follower, agent: Sighting) -> _Result:
        agent_id = agent.agent_id

        def came() -> str:
            now = follower.agents.get(agent_id)
            state = None if now is None or now.pane_dead else now.state
            if state is None or state.life != "running":
                return ""
            if self._plan.ready:
                return "ready" if state.ready else ""
            # What it does is true only as long as somebody looks.
            idle = self._link.master is not None and state.activity in ("idle", "blocked")
            return state.activity if idle else ""

        await follower.wait_until(
            lambda: bool(came()) or follower.is_over(agent_id) or self._link.master is None
        )
        if word := came():
            return _Result(agent_id, True, word, word)
        if follower.is_over(agent_id):
            last = follower.agents.get(agent_id)
            status = status_text(None if last is None else last.exit_status)
            return _Result(agent_id, False, "exited", status)
        self._check_master()
        raise AssertionError

    def _check_master(self) -> None:
        if self._link.master is None:
            raise TmuxSwarmError(
                "no master runs, so nobody knows what the agents are doing: take the swarm over"
                f" with {advice('up', '--adopt', 'FILE')}"
            )
