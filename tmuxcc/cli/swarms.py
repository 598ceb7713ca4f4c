"""A swarm that runs, as another shell sees it: where it is, its agents, and how they are.

All is read from tmux itself, so it makes no difference to a verb whether a master runs, except that
only a master notes what agents do and starts them again. What verbs make of it must not live here.
"""

from __future__ import annotations

import fcntl
import fnmatch
import functools
import os
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import trio
from attrs import field, frozen

from ..client.client import Client, open_client
from ..client.output import HISTORY, ExitStatus
from ..client.rows import list_rows
from ..client.start import Server, find_server
from ..errors import (
    AgentNotFoundError,
    CommandError,
    NoServer,
    SessionNotFound,
    SessionNotFoundError,
    TmuxError,
)
from ..protocol import has_hazard
from ..swarm.checks import check_cluster_id
from ..swarm.home import running_swarms, stale_swarms, swarm_folder
from ..swarm.options import (
    AGENT,
    LOG,
    MASTER,
    REPORT,
    SPEC,
    STATE,
    SWARM,
    WANTED,
    AgentState,
    noted_process,
    read_session,
)
from ..swarm.processes import Identity, is_alive
from ..swarm.swarm import AGENT_VARIABLE, SWARM_VARIABLE
from .interrupts import stop_signals
from .options import Target, advice, take_target, tmux_option
from .text import Stdout, give_up_stdout, output_status

CALM = 0.1
"""Seconds that a tmux with that fault is left alone after a client has come or gone: the master may
start or end one of its own because of it."""

GATE_PATIENCE = 10.0
"""Seconds after which we go on, whoever is in the way."""

T = TypeVar("T")
K = TypeVar("K")


# Which swarm


@frozen
class Place:
    """Where a swarm is. `own_server`: nothing else runs on its tmux server."""

    cluster_id: str
    target: Target
    own_server: bool

    @property
    def session(self) -> str:
        """The name of its session."""
        return f"swarm-{self.cluster_id}"

    @property
    def session_target(self) -> str:
        """What names its session, and no other that begins so, in tmux's commands."""
        return f"={self.session}:"

    def tmux_argv(self, *commands: Sequence[str]) -> list[str]:
        """The argument list of a tmux process that runs commands there, up to one that fails."""
        words = _server(self.target).argv("-N")
        for number, command in enumerate(commands):
            # At the end of a word a semicolon ends a command.
            escaped = [f"{word[:-1]}\\;" if word.endswith(";") else word for word in command]
            words += [*([";"] if number else []), *escaped]
        return words


def swarm_options(function: Callable[..., Any], *, left_behind: bool = False) -> Callable[..., Any]:
    """Give a verb -c, -L, -S and --tmux, and call it with the context and a `Place`.

    `left_behind` is for `find_swarm`.
    """

    @click.option(
        "-c",
        "--cluster",
        "cluster_id",
        metavar="NAME",
        help="Which swarm. [default: the one that this runs in, or the only one that runs]",
    )
    @click.option("-L", "socket_name", metavar="NAME", help="Name of its tmux server's socket.")
    @click.option("-S", "socket_path", metavar="PATH", help="Path of its tmux server's socket.")
    @tmux_option
    @functools.wraps(function)
    def with_place(
        cluster_id: str | None,
        socket_name: str | None,
        socket_path: str | None,
        tmux: str | None,
        **options: Any,  # noqa: ANN401 - whatever the verb takes
    ) -> object:
        ctx = click.get_current_context()
        target = take_target(ctx, Target(socket_name, socket_path, None, tmux))
        return function(
            ctx=ctx, place=find_swarm(target, cluster_id, left_behind=left_behind), **options
        )

    return with_place


def find_swarm(target: Target, cluster_id: str | None, *, left_behind: bool = False) -> Place:
    """Find a swarm that runs. Raises `SessionNotFoundError`, and `click.UsageError` for several.

    Without -L and -S it is looked for among those that have a tmux server of their own, with
    `left_behind` also where tmux and master were killed and only their folder stayed.
    """
    if target.config_file:
        raise click.UsageError("nothing is started here, so -f is for other verbs")
    if cluster_id is not None:
        check_cluster_id(cluster_id, where="-c")
    if target.socket_path or target.socket_name:
        if cluster_id is None:
            cluster_id = _only(_swarms_on(target), f"on {_socket(target)}")
        return Place(cluster_id, target, own_server=False)
    known = [found.cluster_id for found in running_swarms()]
    if left_behind:
        stale = [found.cluster_id for found in stale_swarms()]
        if cluster_id in stale or not known:
            known = stale
    if cluster_id is None:
        around = os.environ.get(SWARM_VARIABLE, "").partition(":")[0]
        cluster_id = around if around in known else _only(known, "")
    elif cluster_id not in known:
        raise SessionNotFoundError(cluster_id, _started(known))
    socket = swarm_folder(cluster_id) / "socket"
    return Place(cluster_id, Target(socket_path=str(socket), tmux=target.tmux), own_server=True)


def _only(known: Sequence[str], where: str) -> str:
    where = where and f" {where}"
    if not known:
        raise click.ClickException(f"no swarm runs{where}: {_started(())}")
    if len(known) > 1:
        raise click.UsageError(
            f"there are several swarms{where}, so say which with -c: {', '.join(known)}"
        )
    return known[0]


def _started(running: Sequence[str]) -> str:
    start = f"start it with {advice('up', 'FILE')}"
    return f"{start}; there is {', '.join(running)}" if running else start


def _swarms_on(target: Target) -> list[str]:
    """The swarms on a server. Raises `NoServer` if there is none."""
    argv = _server(target).argv("-N", "list-sessions", "-F", f"#{{?{SWARM},#{{session_name}},}}")
    told = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if told.returncode:
        raise NoServer(_socket(target))
    names = told.stdout.decode("utf-8", "replace").splitlines()
    return sorted(name.removeprefix("swarm-") for name in names if name.startswith("swarm-"))


def _socket(target: Target) -> str:
    return _server(target).socket


def _server(target: Target) -> Server:
    return find_server(
        socket_path=target.socket_path,
        socket_name=target.socket_name,
        config_file=None,
        tmux=target.tmux,
        transport=None,
    )


# What runs there


@frozen
class Sighting:
    """A pane with an agent as tmux shows it, and what is noted there."""

    pane_id: str
    window_id: str
    pane_pid: int | None
    pane_dead: bool
    pane_dead_status: int | None
    pane_dead_signal: int | None
    agent_id: str = field(metadata={"format": AGENT})
    state_text: str = field(metadata={"format": STATE})
    report: str = field(metadata={"format": REPORT})
    wanted: str = field(metadata={"format": WANTED})
    log: str = field(metadata={"format": LOG})
    master: str = field(metadata={"format": MASTER})

    @property
    def state(self) -> AgentState | None:
        """What a master has noted last; None if none has, or in a form that is not known."""
        return AgentState.from_json(self.state_text)

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the program ended, as tmux says, or where that does not know it the note."""
        if not self.pane_dead:
            return None
        if self.pane_dead_status is not None or self.pane_dead_signal is not None:
            return ExitStatus(self.pane_dead_status, self.pane_dead_signal)
        state = self.state
        return ExitStatus(None, None) if state is None else ExitStatus(state.code, state.signal)


class Sight:
    """A swarm that somebody else may run, through `command`, which runs one tmux command."""

    def __init__(self, place: Place, command: Callable[..., Awaitable[list[str]]]) -> None:
        self.place = place
        self.command = command
        self.life_id = ""
        self.master: Identity | None = None
        """The process that runs the swarm, as of the last look; None if none does."""

    async def begin(self) -> None:
        """Learn what the session says of itself. Raises `SessionNotFoundError`."""
        notes = await read_session(self.command, self.place.session_target)
        if not notes.life_id:
            raise SessionNotFoundError(
                self.place.cluster_id, f"the session {self.place.session} is not one of tmuxcc"
            )
        self.life_id = notes.life_id
        self.master = _master(notes.master)

    async def agents(self) -> dict[str, Sighting]:
        """All agents, in the order of their ids: worker-2 stands before worker-10."""
        where = ("list-panes", "-s", "-t", self.place.session_target)
        rows = await list_rows(self.command, where, Sighting)
        ends = [(row.pane_dead_status, row.pane_dead_signal) for row in rows if row.pane_dead]
        if (None, None) in ends:
            # Some builds of tmux miss the end of a child until the next one ends (lost-sigchld).
            await self.command("run-shell", "-b", ":")
            await trio.sleep(0.05)
            rows = await list_rows(self.command, where, Sighting)
        if rows:
            # It may have gone, or another have taken its place.
            self.master = _master(rows[0].master)
        found = {row.agent_id: row for row in rows if row.agent_id}
        return {name: found[name] for name in sorted(found, key=_natural)}

    async def chosen(self, names: Iterable[str]) -> dict[str, Sighting]:
        """The agents that are named, all if none is. Raises `AgentNotFoundError`.

        A name may be a pattern such as ``web-*``, unless an agent has it.
        """
        agents = await self.agents()
        return {name: agents[name] for name in choose(names, agents)}

    async def spec_text(self, pane_id: str) -> str:
        """What is noted of how an agent is started and stopped."""
        return "\n".join(await self.command("show-options", "-pqv", "-t", pane_id, SPEC))

    def marks(self, agent_id: str) -> tuple[bytes, ...]:
        """What every process of an agent has in its environment."""
        return (self.mark, f"{AGENT_VARIABLE}={agent_id}".encode())

    @property
    def mark(self) -> bytes:
        """What every process of the swarm has in its environment."""
        return f"{SWARM_VARIABLE}={self.place.cluster_id}:{self.life_id}".encode()


def _natural(text: str) -> list[tuple[int, str]]:
    pieces = re.split("([0-9]{1,9})", text)
    return [(int(piece), "") if number % 2 else (0, piece) for number, piece in enumerate(pieces)]


def choose(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The ones of `known` that are named, in their order; all if no name is given."""
    known, names = list(known), list(names)
    if not names:
        return known
    found: set[str] = set()
    for name in names:
        matching = [name] if name in known else fnmatch.filter(known, name)
        if not matching:
            raise AgentNotFoundError(name, known)
        found.update(matching)
    return [name for name in known if name in found]


class Link(Sight):
    """A `Sight` by a client of our own, which is told what happens; `look_at` makes it."""

    def __init__(self, place: Place, client: Client) -> None:
        super().__init__(place, client.command)
        self.client = client


@asynccontextmanager
async def look_at(place: Place, *, history: int = HISTORY) -> AsyncIterator[Link]:
    """Attach to a swarm. Raises `SessionNotFoundError` if it does not run.

    `history` bounds what is kept of each pane, in bytes.
    """
    target = place.target
    async with AsyncExitStack() as around, AsyncExitStack() as stack:
        async with _gate(place):
            try:
                client = await stack.enter_async_context(
                    open_client(
                        place.session,
                        socket_path=target.socket_path,
                        socket_name=target.socket_name,
                        tmux=target.tmux,
                        history=history,
                    )
                )
            except (NoServer, SessionNotFound) as error:
                raise SessionNotFoundError(place.cluster_id, _started(())) from error
            delicate = has_hazard(client.version, "client-race-crash")
            if delicate:
                await trio.sleep(CALM)
        link = Link(place, client)
        await link.begin()
        try:
            yield link
        finally:
            if delicate:
                with trio.CancelScope(shield=True):
                    await around.enter_async_context(_gate(place))
                around.push_async_callback(trio.sleep, CALM)


class Glance(Sight):
    """A `Sight` by tmux processes of a moment, that attach to nothing."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, self._run)

    async def run_all(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Run commands one behind the other; what they print. Raises as `command` does."""
        done = await trio.run_process(
            self.place.tmux_argv(*commands),
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            if re.search("no server|can't find session|No such file|refused|lost server", said):
                raise SessionNotFoundError(self.place.cluster_id, _started(()))
            raise CommandError(commands[0], said.splitlines())
        return done.stdout.decode("utf-8", "surrogateescape").splitlines()

    async def _run(self, *argv: str) -> list[str]:
        return await self.run_all([argv])


async def glance(place: Place) -> Glance:
    """Look at a swarm without attaching. Raises `SessionNotFoundError` if it does not run."""
    sight = Glance(place)
    await sight.begin()
    return sight


@asynccontextmanager
async def _gate(place: Place) -> AsyncIterator[None]:
    """Have only one of our shells at a time attach to a swarm or detach.

    Up to 3.6b the tmux server may crash where one client comes while another one goes.
    """
    try:
        folder = os.open(Path(_socket(place.target)).parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        # The swarm has gone and its folder with it.
        yield
        return
    try:
        with trio.move_on_after(GATE_PATIENCE):
            while not _lock(folder):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        yield
    finally:
        # And with it the lock.
        os.close(folder)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _master(note: str) -> Identity | None:
    master = noted_process(note)
    return master if master is not None and is_alive(master) else None


# How verbs run


def drive(function: Callable[[Stdout], Awaitable[int]]) -> int:
    """Run a verb; its exit status, or 128+n if signal n ended it. Raises what it raises."""
    stdout = Stdout()
    try:
        status = trio.run(_drive, functools.partial(function, stdout))
    finally:
        if stdout.failure is not None:
            give_up_stdout(stdout.failure)
    return status if stdout.failure is None or status else output_status(stdout.failure)


async def _drive(function: Callable[[], Awaitable[int]]) -> int:
    status, failure = 0, None

    async def heed_signals(received: AsyncIterator[int]) -> None:
        nonlocal status
        async for number in received:
            status = 128 + number
            nursery.cancel_scope.cancel()

    with stop_signals() as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heed_signals, received)
            try:
                status = await function()
            except TmuxError as error:
                # Raised outside of the nursery, which would wrap it.
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


async def side_by_side(items: Iterable[K], function: Callable[[K], Awaitable[T]]) -> dict[K, T]:
    """What `function` gives for each, run at the same time; the first error when all are through.

    Its `TmuxError`s come out as they are.
    """
    items = list(items)
    results: dict[K, T] = {}
    errors: list[TmuxError] = []

    async def run(item: K) -> None:
        try:
            results[item] = await function(item)
        except TmuxError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(run, item)
    if errors:
        raise errors[0]
    return {item: results[item] for item in items}
