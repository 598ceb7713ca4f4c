"""``tmuxcc logs``: what the agents of a swarm that runs have written and write."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

import click
import trio
from attrs import Factory, define

from ..client.background import background
from ..client.output import Chunk, Gap
from ..client.pane import Pane
from ..client.streams import LostOutput, OutputStream
from ..client.text import LineSplitter, strip_sequences
from ..errors import CommandError, ConnectionClosed, PaneNotFound
from ..protocol.events import Output
from .follow import Follower, following
from .interrupts import cancel_on_failure
from .report import Lines, json_text, line_values, message, message_console, now
from .swarms import Link, Place, Sighting, drive, look_at, swarm_options
from .text import Stdout, Writer, give_up_stdout, output_status

BACKLOG = 64 << 20
"""Bytes of a pane that may wait for us: all that tmux keeps of it may come at once."""

# What the wrapper of a program writes behind its last byte (client/program.py).
_MARK = b"\x1b]6973;"
_MARK_SIZE = 64

_KEY_LINES = 20
"""Lines by which the place is found in what tmux keeps where our own stream of it broke off."""


@click.command(short_help="Show what the agents of a swarm have written.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--follow", is_flag=True, help="Go on with what they write from now on.")
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    metavar="LINES",
    help="Of each only the last LINES of what is there. [default: all that tmux keeps]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@swarm_options
def logs(
    ctx: click.Context,
    place: Place,
    names: Sequence[str],
    follow: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Show what the agents (or those NAMEd, web-* for many) have written.

    That is what tmux keeps of it, the last 50000 lines of each, as its terminal shows them: lines
    that are longer than the terminal are whole, those that were overwritten are gone, and so is
    what the screen showed when a program ended and was started again (`tmuxcc up --log-dir` keeps
    all). With -f it goes on, line by line and through restarts, until all have ended for good;
    nothing is missing or there twice where the one passes into the other.

    \b
    Examples:
      tmuxcc logs web
      tmuxcc logs -f -n 20
      tmuxcc logs -f --json 'web-*' | jq -r .text

    --json writes objects whose "event" is line or lost; "time" is there if the line came just now.

    Exit status: 0 also when -f is interrupted or the swarm ends, 1 if it does not run.
    """  # noqa: D301 - the \b is for click
    printer = _Printer(as_json)

    async def show(_: Stdout) -> int:
        async with background() as nursery:
            nursery.start_soon(printer.writer.run)
            nursery.start_soon(cancel_on_failure, printer.writer, nursery.cancel_scope)
            try:
                await _show(place, names, follow, count, printer)
            finally:
                # Also when it was interrupted: what has been read is shown.
                with trio.move_on_after(1, shield=True):
                    await printer.writer.wait_written()
        return 0

    status = drive(show)
    if printer.writer.failure is not None:
        give_up_stdout(printer.writer.failure)
        status = output_status(printer.writer.failure)
    ctx.exit(0 if follow and status in (128 + signal.SIGINT, 128 + signal.SIGTERM) else status)


async def _show(
    place: Place, names: Sequence[str], follow: bool, count: int | None, printer: _Printer
) -> None:
    async with look_at(place, history=BACKLOG) as link:
        agents = list((await link.chosen(names)).values())
        printer.lines.add(agent.agent_id for agent in agents)
        if follow:
            if not await _Following(link, printer, count).run(agents, anybody=not names):
                message(message_console(), f"the swarm {place.cluster_id} has ended")
            return
        for agent in agents:
            pane = link.client.pane(agent.pane_id)
            await pane.adopt(let_go=False)
            splitter = LineSplitter(escapes=printer.escapes)
            lines = _there(pane.output(since=0), splitter) + splitter.finish()
            await printer.put(agent.agent_id, _tail(lines, count))
            pane.forget()


class _Printer:
    """Lines to stdout, never more of them waiting than its reader takes."""

    def __init__(self, as_json: bool) -> None:
        self.writer = Writer(sys.stdout.fileno())
        self.lines = Lines(())
        self._as_json = as_json
        self.escapes = self.lines.escapes and not as_json

    async def put(self, name: str, lines: Iterable[str], *, live: bool = False) -> None:
        """Show lines of an agent."""
        for line in lines:
            if self._as_json:
                values: dict[str, object] = {"event": "line", **({"time": now()} if live else {})}
                self.writer.put(json_text({**values, **line_values(name, line)}))
            else:
                self.writer.put(self.lines.text(name, line))
            if self.writer.is_full:
                await self.writer.wait_room()


def _there(stream: OutputStream, splitter: LineSplitter) -> list[str]:
    """The lines of what is there by now."""
    lines: list[str] = []
    while (item := stream.receive_nowait()) is not None:
        if isinstance(item, Chunk):
            lines += splitter.receive(item.data)
        elif isinstance(item, Gap):
            lines += [*splitter.finish(), LostOutput(item)]
    return lines


def _tail(lines: list[str], count: int | None) -> list[str]:
    return lines if count is None else lines[max(0, len(lines) - count) :]


def missing_lines(last: Iterable[str], begun: str, kept: Sequence[str]) -> list[str] | None:
    """The lines of `kept` that follow those that were seen `last`, and the one that was `begun`.

    None where that is not certain: if the seen ones stand nowhere, or more than once.
    """

    def essence(line: str) -> str:
        # A terminal writes tabs as blanks, and drops those at the end.
        return "".join(strip_sequences(line).split())

    key = [essence(line) for line in last]
    lines = [essence(line) for line in kept]
    size = len(key)
    places = [end for end in range(size, len(lines) + 1) if lines[end - size : end] == key]
    if not key or len(places) != 1:
        return None
    first = lines[places[0]] if places[0] < len(lines) else ""
    return list(kept[places[0] :]) if first.startswith(essence(begun)) else None


@define(eq=False)
class _Program:
    """One program of an agent that is followed. `again` is set when the next one writes.

    When it has `ended` nothing of it is to come any more, and `tail` is how its output ends.
    """

    again: trio.Event = Factory(trio.Event)
    ended: bool = False
    tail: bytes = b""


class _Following:
    """``logs -f``: what is there, and what comes, of each agent, through all of its programs."""

    def __init__(self, link: Link, printer: _Printer, count: int | None) -> None:
        self._link = link
        self._printer = printer
        self._count = count
        self._follower: Follower
        self._nursery: trio.Nursery
        self._programs: dict[str, _Program] = {}
        """Of panes: the one whose output is being shown."""
        self._tails: dict[str, bytes] = {}
        """Of panes that have written: how that ends."""
        self._followed: set[str] = set()
        self._busy = 0
        self._gone = False

    async def run(self, agents: Sequence[Sighting], *, anybody: bool) -> bool:
        """Until all have ended for good, or the swarm has; whether it is still there.

        With `anybody` those that come meanwhile are followed too.
        """
        remove = self._link.client.add_tap(self._hear, Output)
        try:
            async with (
                following(self._link) as self._follower,
                background() as self._nursery,
            ):
                for agent in agents:
                    self._follow(agent)
                while self._busy:
                    await self._follower.wait_change()
                    if anybody:
                        for agent in self._follower.agents.values():
                            if agent.pane_id not in self._followed:
                                self._printer.lines.add([agent.agent_id])
                                self._follow(agent)
        except ConnectionClosed:
            self._gone = True
        finally:
            remove()
        return not self._gone

    def _hear(self, event: Output) -> None:
        program = self._programs.get(event.pane_id)
        if program is not None:
            # It may be behind the end of the last one in one and the same read.
            pane = self._link.client.pane(event.pane_id)
            if pane.statistics().exit_status is not None:
                self._end(program, pane)
            if program.ended:
                program.again.set()
        tail = event.data[-_MARK_SIZE:]
        if len(tail) < _MARK_SIZE:
            tail = (self._tails.get(event.pane_id, b"") + tail)[-_MARK_SIZE:]
        self._tails[event.pane_id] = tail

    def _follow(self, agent: Sighting) -> None:
        self._followed.add(agent.pane_id)
        self._busy += 1
        self._nursery.start_soon(self._follow_one, agent)

    async def _follow_one(self, agent: Sighting) -> None:
        try:
            await self._print(agent)
        except ConnectionClosed:
            self._gone = True
        except PaneNotFound:
            # Somebody has closed its window.
            return
        finally:
            self._busy -= 1
            self._follower.wake()

    async def _print(self, agent: Sighting) -> None:
        name, printer = agent.agent_id, self._printer
        pane = self._link.client.pane(agent.pane_id)
        await pane.adopt(let_go=False)
        stream, splitter = pane.output(since=0), LineSplitter(escapes=printer.escapes)
        lines = _there(stream, splitter)
        last = deque(lines, _KEY_LINES)
        await printer.put(name, _tail(lines, self._count))
        while True:
            program = self._programs[agent.pane_id] = _Program()
            self._nursery.start_soon(self._wait_end, program, pane)
            while (item := await stream.receive()) is not None:
                lines = []
                if isinstance(item, Chunk):
                    lines = splitter.receive(item.data)
                elif isinstance(item, Gap):
                    lines = [*splitter.finish(), LostOutput(item)]
                last.extend(lines)
                await printer.put(name, lines, live=True)
            rest = splitter.finish()
            self._end(program, pane)
            if _MARK not in program.tail:
                # The master, quicker than we, had the program's pane closed before we had it all.
                missing = missing_lines(last, "".join(rest), await self._kept(pane))
                lost = LostOutput(Gap(stream.offset, None, "killed"))
                rest = [*rest, lost] if missing is None else missing
            await printer.put(name, rest, live=True)
            if not await self._follower.wait_again(name, program.again):
                return
            stream = pane.output(since=0)

    async def _kept(self, pane: Pane) -> list[str]:
        """The lines that tmux keeps of a pane, the last of them not empty."""
        escapes = ["-e"] if self._printer.escapes else []
        where = ("-p", "-J", *escapes, "-S", "-", "-t", pane.pane_id)
        try:
            lines = await self._link.command("capture-pane", *where)
        except CommandError:
            # The window has been closed.
            return []
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    async def _wait_end(self, program: _Program, pane: Pane) -> None:
        with suppress(ConnectionClosed, PaneNotFound):
            await pane.wait_exit()
            self._end(program, pane)

    def _end(self, program: _Program, pane: Pane) -> None:
        """Let what the pane writes from now on be the output of another program, from 0 on."""
        if not program.ended:
            program.ended = True
            program.tail = self._tails.pop(pane.pane_id, _MARK)
            pane.forget()
