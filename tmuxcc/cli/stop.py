"""``tmuxcc stop`` and ``tmuxcc down``: ending agents of a swarm that runs, or all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import attrs
import click
import trio

from ..errors import (
    CommandError,
    ConnectionClosed,
    InvalidSwarm,
    PaneNotFound,
    SwarmRunning,
)
from ..swarm.ending import StopReport, end_agent, end_marked
from ..swarm.home import Home, stale_swarms
from ..swarm.options import DOWN, STOPPED, WANTED
from ..swarm.processes import Identity, identity, wait_gone
from ..swarm.server import SERVER_GRACE, end_session
from ..swarm.spec import StopPolicy, spec_from_json
from .options import SECONDS
from .report import Aside, busy, json_text, message, message_console
from .swarms import (
    Link,
    Place,
    Sighting,
    drive,
    look_at,
    side_by_side,
    swarm_options,
)
from .text import Stdout

MASTER_GRACE = 2.0
"""Seconds for a master to see that its agents are over, also one that was to be started again."""

_ATTEMPTS = 3

_grace_option = click.option(
    "--grace",
    type=SECONDS,
    metavar="SECONDS",
    help="How long an agent may take to end before it is killed. [default: its own grace]",
)


@click.command(short_help="End some agents.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_grace_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per agent and line.")
@swarm_options
def stop(
    ctx: click.Context, place: Place, names: Sequence[str], grace: float | None, as_json: bool
) -> None:
    """End the agents that are NAMEd, with all that they have started; tell what it took.

    Each is asked as its stop policy says, then gets SIGTERM, and after --grace SIGKILL. A master
    does not start it again. Its window stays, with what it wrote. A NAME may be a pattern.

    \b
    Examples:
      tmuxcc stop web
      tmuxcc stop --grace 1 'worker-*'

    Exit status: 1 if something could not be ended.
    """  # noqa: D301 - the \b is for click

    async def run(stdout: Stdout) -> int:
        async with look_at(place) as link:
            agents = await link.chosen(names)
            await _forbid_restarts(link, agents)
            reports = await _end(
                link, agents, grace, lambda report: stdout.write(_text(report, as_json))
            )
        return 1 if any(report.left for report in reports) else 0

    ctx.exit(drive(run))


@click.command(short_help="End a swarm.")
@_grace_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per agent and line.")
@partial(swarm_options, left_behind=True)
def down(ctx: click.Context, place: Place, grace: float | None, as_json: bool) -> None:
    """End a swarm: all its agents at once, its tmux session, and all that they have started.

    The `tmuxcc up` that runs it, if there is one, then ends too. A tmux server of the swarm's own
    ends with it, on another (-L, -S) nothing else is touched. Where both were killed, what they
    have left behind is ended and removed.

    \b
    Examples:
      tmuxcc down
      tmuxcc down -c demo --grace 1

    Exit status: 1 if something could not be ended.
    """  # noqa: D301 - the \b is for click

    async def run(stdout: Stdout) -> int:
        ending = _Down(place, grace, stdout, as_json)
        left_behind = place.cluster_id in (found.cluster_id for found in stale_swarms())
        return await (
            ending.run_left_behind() if place.own_server and left_behind else ending.run()
        )

    ctx.exit(drive(run))


def _text(report: StopReport, as_json: bool) -> str:
    if not as_json:
        return f"{report}\n"
    values = attrs.asdict(report)
    values["name"] = values.pop("agent_id")
    return json_text(values)


async def _forbid_restarts(link: Link, agents: Mapping[str, Sighting]) -> None:
    """Have no master start agents again: noted first, so that it knows when it sees their end."""
    await link.client.batch(
        [("set-option", "-p", "-t", agent.pane_id, WANTED, STOPPED) for agent in agents.values()]
    )


async def _end(
    link: Link,
    agents: Mapping[str, Sighting],
    grace: float | None,
    show: Callable[[StopReport], None],
) -> list[StopReport]:
    """End agents side by side; what it took."""

    async def end(name: str) -> StopReport:
        report = await _end_one(link, agents[name], grace)
        show(report)
        return report

    return list((await side_by_side(agents, end)).values())


async def _end_one(link: Link, agent: Sighting, grace: float | None) -> StopReport:
    report = await _end_program(link, agent, grace)
    for _ in range(_ATTEMPTS):
        # A master may have been starting it again just then, or have ended with all its agents.
        try:
            now = (await link.agents()).get(agent.agent_id)
        except (CommandError, ConnectionClosed):
            break
        if now is None or now.pane_dead or now.pane_pid == agent.pane_pid:
            break
        agent = now
        report = await _end_program(link, agent, grace)
    return report


async def _end_program(link: Link, agent: Sighting, grace: float | None) -> StopReport:
    pane = link.client.pane(agent.pane_id)
    policy = await _policy(link, agent)
    with suppress(PaneNotFound, ConnectionClosed):
        # So that its end is told at once and exactly. Its window or tmux may be gone already.
        await pane.adopt(let_go=link.master is None)

    async def ask() -> None:
        if policy.text is not None:
            await pane.send_text(policy.text, submit=True)
        else:
            await pane.send_keys(*policy.keys)

    report = await end_agent(
        agent_id=agent.agent_id,
        policy=policy,
        grace=grace,
        wrapper_pid=None if agent.pane_dead else agent.pane_pid,
        marks=link.marks(agent.agent_id),
        ask=ask,
        ended=lambda: agent.pane_dead or pane.statistics().exit_status is not None,
        wait_ended=pane.wait_exit,
        spare=(link.client.server_pid,),
    )
    pane.forget()
    return report


async def _policy(link: Link, agent: Sighting) -> StopPolicy:
    try:
        return spec_from_json(await link.spec_text(agent.pane_id)).stop
    except (InvalidSwarm, CommandError, ConnectionClosed):
        # Another version's, or the pane or tmux has gone: it is ended as any program is.
        return StopPolicy()


class _Down:
    """The end of a swarm, whoever runs it."""

    def __init__(self, place: Place, grace: float | None, stdout: Stdout, as_json: bool) -> None:
        self._place = place
        self._grace = grace
        self._stdout = stdout
        self._as_json = as_json
        self._console = message_console()
        self._master: Identity | None = None
        self._server: Identity | None = None
        self._mark = b""

    async def run(self) -> int:
        """Agents, session or server, strays, folder; the exit status."""
        left = False
        async with look_at(self._place) as link:
            self._server = identity(link.client.server_pid)
            self._mark = link.mark
            known = await link.agents()
            agents = {name: agent for name, agent in known.items() if not agent.pane_dead}
            self._master = link.master
            count = "1 agent" if len(agents) == 1 else f"{len(agents)} agents"
            with busy(self._console, f"stopping {count}…") as aside, suppress(ConnectionClosed):
                # Its master may be as quick as we are, and end the server.
                await link.client.command("set-option", "-t", link.client.session_id, DOWN, "1")
                await _forbid_restarts(link, known)
                reports = await _end(link, agents, self._grace, partial(self._show, aside))
                left = any(report.left for report in reports)
                if self._master is not None:
                    # One that runs for its agents ends with them, and does all that follows.
                    with trio.move_on_after(MASTER_GRACE):
                        await wait_gone([self._master])
        with trio.CancelScope(shield=True):
            await end_session(
                self._place.tmux_argv(),
                self._place.session,
                own_server=self._place.own_server,
                server=self._server,
            )
            report = await end_marked((self._mark,))
            await self._clear_up()
        self._tell(report.left)
        return 1 if left or report.left else 0

    async def run_left_behind(self) -> int:
        """What is left of a swarm whose tmux and master were killed; the exit status."""
        home = Home(self._place.cluster_id)
        left: Sequence[int] = ()
        # With the lock no other master begins meanwhile.
        with trio.CancelScope(shield=True), home.locked():
            if home.mark is not None:
                left = (await end_marked((os.fsencode(home.mark),))).left
            home.remove()
        self._tell(left)
        return 1 if left else 0

    def _tell(self, left: Sequence[int]) -> None:
        if left:
            pids = " ".join(map(str, left))
            message(self._console, f"could not be ended: {pids}")
        elif not self._as_json:
            message(self._console, f"the swarm {self._place.cluster_id} is down")

    def _show(self, aside: Aside, report: StopReport) -> None:
        with aside():
            self._stdout.write(_text(report, self._as_json))

    async def _clear_up(self) -> None:
        """Remove the folder, unless its master is still there and does so."""
        if not self._place.own_server:
            return
        if self._master is not None:
            with trio.move_on_after(SERVER_GRACE):
                await wait_gone([self._master])
        home = Home(self._place.cluster_id)
        try:
            with home.locked():
                home.remove()
        except SwarmRunning as error:
            message(
                self._console,
                f"process {error.master_pid}, which ran the swarm, goes on; it keeps {home.folder}",
            )
