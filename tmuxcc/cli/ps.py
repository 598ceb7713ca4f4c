"""``tmuxcc ps``: the agents of a swarm that runs, as a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from secrets import token_hex
from typing import IO, cast

import click
from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from ..errors import CommandError
from ..swarm.options import STOPPED, AgentState
from .options import advice
from .report import COLOURS, json_text, message, message_console, print_table, status_text
from .swarms import Glance, Place, Sight, Sighting, drive, glance, swarm_options
from .text import Stdout

_TITLES = (
    "name", "state", "activity", "ready", "uptime", "restarts", "bytes", "last line",
)  # fmt: skip
_SHORTEST_LAST_LINE = 20
_PER_COMMAND = 20  # what a tmux process tells its server has 16 KB at most


@click.command(short_help="Show how the agents of a swarm are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per agent and line.")
@swarm_options
def ps(ctx: click.Context, place: Place, as_json: bool) -> None:
    """Show the agents of a running swarm: how each is, and what it wrote last.

    What tmux knows comes first: whether a program runs, and how it ended. What it is doing,
    whether it is ready and how much it has written are noted by the master (`tmuxcc up`), at most
    a moment ago. Where none runs, only what was noted of its readiness and restarts is shown.

    With --json "state" is starting, running, restarting, stopped (by `tmuxcc stop`), exited or
    failed (given up after too many restarts).

    \b
    Examples:
      tmuxcc ps
      tmuxcc ps -c demo --json | jq -r 'select(.state != "running") | .name'

    Exit status: 1 if the swarm does not run, else 0.
    """  # noqa: D301 - the \b is for click

    async def show(stdout: Stdout) -> int:
        sight = await glance(place)
        agents = list((await sight.agents()).values())
        last_lines = await _last_lines(sight, agents)
        if as_json:
            for agent, last in zip(agents, last_lines, strict=True):
                stdout.write(json_text(_values(sight, agent, last)))
        else:
            _print(stdout, sight, agents, last_lines)
        return 0

    ctx.exit(drive(show))


async def _last_lines(sight: Glance, agents: Sequence[Sighting]) -> list[str]:
    """The last line that is not empty of each screen."""
    found: dict[str, str] = {}
    rest = list(agents)
    while rest:
        some, rest = rest[:_PER_COMMAND], rest[_PER_COMMAND:]
        separator = token_hex(16)
        commands: list[tuple[str, ...]] = []
        for agent in some:
            commands.append(("display-message", "-p", separator))
            commands.append(("capture-pane", "-p", "-t", agent.pane_id))
        try:
            lines = await sight.run_all(commands)
        except CommandError as error:
            if "can't find pane" not in " ".join(error.lines):
                raise
            # The window of one has just been closed: then one by one.
            if len(some) > 1:
                for agent in some:
                    found[agent.pane_id] = (await _last_lines(sight, [agent]))[0]
            continue
        screens = "\n".join(lines).split(separator)[1:]
        for agent, screen in zip(some, screens, strict=True):
            full = (line.strip() for line in reversed(screen.splitlines()) if line.strip())
            found[agent.pane_id] = next(full, "")
    return [found.get(agent.pane_id, "") for agent in agents]


def _print(stdout: Stdout, sight: Sight, agents: list[Sighting], last_lines: list[str]) -> None:
    console = Console(file=cast("IO[str]", stdout), highlight=False, soft_wrap=True)
    rows: list[list[Text]] = []
    for number, (agent, last) in enumerate(zip(agents, last_lines, strict=True)):
        state, written = known_state(sight, agent), _written(sight, agent)
        text, style = _state_text(sight, agent)
        alive = not agent.pane_dead
        uptime = _uptime(agent)
        ready = "-" if state is None or not alive else "yes" if state.ready else "no"
        rows.append(
            [
                Text(agent.agent_id, style=COLOURS[number % len(COLOURS)]),
                Text(text, style=style),
                Text(_activity(sight, agent)),
                Text(ready, style="yellow" if ready == "no" else ""),
                Text("-" if uptime is None else duration(uptime)),
                Text("-" if state is None else str(state.restarts)),
                Text("-" if written is None else size(written.bytes)),
                Text(last, style="dim"),
            ]
        )
    if console.is_terminal:
        # The rest of the line for the last column.
        widths = [
            max(len(title), *(row[column].cell_len for row in rows), 0)
            for column, title in enumerate(_TITLES[:-1])
        ]
        room = max(console.width - sum(widths) - 2 * len(widths), _SHORTEST_LAST_LINE)
        for row in rows:
            if row[-1].cell_len > room:
                row[-1] = Text(set_cell_size(row[-1].plain, room - 1) + "…", style="dim")
    if rows:
        left = ("name", "state", "activity", "ready", "last line")
        print_table(console, _TITLES, rows, left=left)
    messages = message_console()
    if not rows:
        message(messages, f"the swarm {sight.place.cluster_id} has no agents")
    if sight.master is None:
        message(
            messages,
            "no master runs: nobody starts again what ends, or knows what the agents are doing"
            f" (take the swarm over with {advice('up', '--adopt', 'FILE')})",
        )


def known_state(sight: Sight, agent: Sighting) -> AgentState | None:
    """What is noted of an agent, as far as it can still be true."""
    state = agent.state
    if state is None or agent.pane_dead or state.life not in ("exited", "failed"):
        return state
    # It is just ending, or somebody else has started another program in its pane.
    return state if sight.master is not None else None


def _state(sight: Sight, agent: Sighting) -> str:
    """The state in a word."""
    state = known_state(sight, agent)
    if not agent.pane_dead:
        starting = state is not None and state.life in ("pending", "starting")
        return "starting" if starting else "running"
    asked = state is not None and state.life == "exited" and state.status == "stopped"
    status = agent.exit_status
    if agent.wanted == STOPPED or (asked and not (status is not None and status.ok)):
        return "stopped"
    if state is not None and state.life == "failed":
        return "failed"
    if _restart_in(sight, agent) is not None:
        return "restarting"
    return "exited"


def _state_text(sight: Sight, agent: Sighting) -> tuple[str, str]:
    """The state for people, and the style for it."""
    status = agent.exit_status
    ended = status_text(status)
    match _state(sight, agent):
        case "starting":
            return "starting", "yellow"
        case "running":
            return "running", "green"
        case "stopped":
            return f"stopped, {ended}", ""
        case "failed":
            return f"given up, {ended}", "bold red"
        case "restarting":
            return f"{ended}, again in {_restart_in(sight, agent):.1f} s", "yellow"
    return ended, "" if status is not None and status.ok else "bold red"


def _restart_in(sight: Sight, agent: Sighting) -> float | None:
    """Seconds until its program is started again; None if it runs, or is not."""
    state = agent.state
    if not agent.pane_dead or agent.wanted == STOPPED or sight.master is None or state is None:
        return None
    return None if state.restart_at is None else max(0.0, state.restart_at - time.time())


def _activity(sight: Sight, agent: Sighting) -> str:
    state = agent.state
    if agent.pane_dead or sight.master is None or state is None:
        return "-"
    return state.activity


def _written(sight: Sight, agent: Sighting) -> AgentState | None:
    """What says how much it has written; None if nobody counts that."""
    return None if sight.master is None else agent.state


def _uptime(agent: Sighting) -> float | None:
    state = agent.state
    if agent.pane_dead or state is None or state.started is None:
        return None
    return max(0.0, time.time() - state.started)


def duration(seconds: float) -> str:
    """A time span in two figures or so: 8 s, 3m 20s, 2h 05m, 4d 03h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def size(count: int) -> str:
    """Bytes for people: 812, 1.2k, 34M."""
    value = float(count)
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if not unit or value >= 9.95 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f}T"


def _values(sight: Sight, agent: Sighting, last_line: str) -> dict[str, object]:
    state, written = known_state(sight, agent), _written(sight, agent)
    status = agent.exit_status
    restart_in = _restart_in(sight, agent)
    uptime = _uptime(agent)
    return {
        "name": agent.agent_id,
        "state": _state(sight, agent),
        "activity": None if (activity := _activity(sight, agent)) == "-" else activity,
        "ready": not agent.pane_dead and state is not None and state.ready,
        "uptime": None if uptime is None else round(uptime, 3),
        "restarts": None if state is None else state.restarts,
        "restart_in": None if restart_in is None else round(restart_in, 3),
        "code": None if status is None else status.code,
        "signal": None if status is None else status.signal,
        "failure": "" if state is None else state.failure,
        "wanted": agent.wanted,
        "bytes": None if written is None else written.bytes,
        "lines": None if written is None else written.lines,
        "last_line": last_line,
        "pane_id": agent.pane_id,
        "window_id": agent.window_id,
        "pid": agent.pane_pid,
        "log": agent.log or None,
        "cluster": sight.place.cluster_id,
        "master": None if sight.master is None else sight.master.pid,
    }
