"""The client: one attached tmux control client, its commands, events and panes.

Start with `open_client`. How a client is started is in start.py, how bytes come and go in
connection.py, what is known of panes in panes.py; here is what a program does with a tmux server.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast, overload

import trio
from attrs import evolve, frozen

from ..errors import (
    ConnectionClosed,
    InvalidCommand,
    OpenError,
    PaneNotFound,
    TmuxError,
    UnsupportedVersion,
)
from ..protocol import (
    OLDEST_SUPPORTED,
    Line,
    Request,
    TmuxVersion,
    command_name,
    encode_command,
    parse_version,
    prepare,
    result,
)
from ..protocol.commands import Argument
from ..protocol.events import (
    ClientDetached,
    ClientSessionChanged,
    Event,
    ExtendedOutput,
    LayoutChange,
    Output,
    Pause,
    Reply,
    SessionChanged,
    SessionsChanged,
    SubscriptionChanged,
    UnlinkedWindowClose,
    WindowClose,
    WindowPaneChanged,
)
from .connection import FENCE, Connection
from .events import EventStream, Listeners
from .output import HISTORY
from .pane import Pane
from .panes import PaneTable
from .program import new_nonce, wrapped
from .rows import MAX_TEXT, ClientRow, PaneRow, SessionRow, WindowRow, list_rows
from .start import (
    PAUSE_AFTER,
    attach_command,
    create_command,
    created_options,
    find_server,
    program_version,
    wait_attached,
)
from .transport import Transport, open_process

E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")


@frozen
class ClientStatistics:
    """A snapshot of what a client has done and holds. Bytes are those on the wire."""

    generation: int
    bytes_received: int
    commands_sent: int
    in_flight: int
    abandoned: int
    unsolicited_replies: int
    listeners: int
    panes: int
    output_bytes: int
    gaps: int
    pauses: int
    command_connection: bool


@frozen(eq=False)
class _Sent:
    request: Request
    connection: Connection

    @property
    def is_pending(self) -> bool:
        return not self.request.done and self.connection.closed is None


class Created(str):
    """The id of what was made, and beside it the ids of all that came with it."""

    __slots__ = ("pane_id", "session_id", "window_id")
    session_id: str
    window_id: str
    pane_id: str

    def __new__(cls, own: str, session_id: str, window_id: str, pane_id: str) -> Created:
        """`own` is one of the other three."""
        created = super().__new__(cls, own)
        created.session_id, created.window_id, created.pane_id = session_id, window_id, pane_id
        return created


_CREATED_FORMAT = "#{session_id} #{window_id} #{pane_id}"

# What a caller of these means by "its client" is the connection that streams.
_STREAM_COMMANDS = frozenset(
    "attach-session detach-client refresh-client suspend-client switch-client".split()
)


class Client:
    """A client that is attached to one session; `open_client` makes it.

    `version` is that of the server. `generation` counts connections: ids that were learnt in one
    mean nothing in the next.
    """

    def __init__(self, connection: Connection, *, history: int, nursery: trio.Nursery) -> None:
        self.generation = 1
        self.version: TmuxVersion = OLDEST_SUPPORTED
        self.session_id = ""
        self.server_pid = 0
        self.client_pid = 0
        self._nursery = nursery
        self._stream = connection
        self._side: Connection | None = None
        self._side_ready = False
        self._failure: Exception | None = None
        self._others_changed = trio.Event()
        self._gone: set[str] = set()
        self._event_streams: set[EventStream[object]] = set()
        self._shadowed: frozenset[str] = frozenset()
        self._hidden: set[bytes] = set()
        self._window_changes: list[_Sent] = []
        self._subscriptions = 0
        self._panes = PaneTable(
            history=history,
            command=self.command,
            ordered_command=self._ordered_command,
            ordered_line=self._ordered_line,
            start_soon=self._start_soon,
        )
        self._listeners = Listeners(
            own={
                Output: self._panes.receive_output,
                ExtendedOutput: self._panes.receive_output,
                Pause: self._panes.receive_pause,
                SessionChanged: self._session_changed,
                ClientSessionChanged: self._note_other_clients,
                ClientDetached: self._note_other_clients,
                LayoutChange: self._panes.receive_hint,
                SessionsChanged: self._panes.receive_hint,
                SubscriptionChanged: self._panes.receive_hint,
                UnlinkedWindowClose: self._panes.receive_hint,
                WindowClose: self._panes.receive_hint,
                WindowPaneChanged: self._panes.receive_hint,
            }
        )
        connection.deliver = self._listeners.deliver

    # Commands

    async def command(self, *argv: Argument) -> list[str]:
        """Run one tmux command; its reply, a string for each line.

        The arguments reach tmux byte for byte, whatever they hold. Raises `CommandError` if tmux
        refuses it, `InvalidCommand` before sending what can't be sent or would hold or crash the
        server, `ReplyTooLarge`, and `ConnectionClosed`. Cancelled after it was sent, the command
        still runs and its reply is dropped.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        line = self._prepare(argv)
        if self._must_wait(line):
            await self._wait_turn(line)
        sent = self._send(line)
        await sent.connection.wait_reply(sent.request)
        answer = result(sent.request)
        if isinstance(answer, TmuxError):
            raise answer
        return answer

    async def batch(self, commands: Iterable[Sequence[Argument]]) -> list[list[str] | TmuxError]:
        """Run commands one behind the other without waiting in between.

        Returns a result for each: its lines, or the `CommandError` or `ReplyTooLarge` of that
        one; the others are not affected. Raises as `command` does for all that concerns the
        connection; `InvalidCommand` is raised before any is sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        lines = [self._prepare(argv) for argv in commands]
        sent: list[_Sent] = []
        try:
            for line in lines:
                if self._must_wait(line):
                    self._flush()
                    await self._wait_turn(line)
                sent.append(self._send(line, flush=False))
            self._flush()
            for one in sent:
                if not one.request.done:
                    await one.connection.wait_reply(one.request)
        except BaseException:
            self._flush()
            for one in sent:
                if not one.request.done:
                    one.connection.queue.abandon(one.request)
            raise
        return [result(one.request) for one in sent]

    # Events

    @overload
    def events(self) -> EventStream[object]: ...
    @overload
    def events(self, cls: type[E], /) -> EventStream[E]: ...
    @overload
    def events(self, cls: type[E], cls2: type[E2], /) -> EventStream[E | E2]: ...
    @overload
    def events(
        self, cls: type[E], cls2: type[E2], cls3: type[E3], /
    ) -> EventStream[E | E2 | E3]: ...
    @overload
    def events(self, *classes: type) -> EventStream[object]: ...
    def events(self, *classes: type) -> EventStream[Any]:
        """The events of these classes (none named: all), from when the block is entered on.

        Whoever asks for `Output` gets `ExtendedOutput` too, which is what tmux sends while flow
        control is on.
        """
        return self._event_stream(lambda put: self._listeners.add(put, classes))

    @asynccontextmanager
    async def watch_format(
        self,
        format: str,  # noqa: A002 - tmux's word
        *,
        pane_id: str | None = None,
        window_id: str | None = None,
    ) -> AsyncIterator[EventStream[SubscriptionChanged]]:
        """Watch a format of the session, a pane (``%1``, or ``%*`` for each) or a window.

        A `SubscriptionChanged` comes with the first value within a second and then with each
        change; tmux looks once a second, so what changes back in between is missed. Control
        characters, line ends among them, are dropped from the values of formats. Only panes and
        windows of the attached session are seen.
        """
        what = pane_id or window_id or ""
        if what and re.fullmatch(r"[%@](?:[0-9]+|\*)", what) is None:
            raise InvalidCommand(f"{what!r} is no pane id such as %1 and no window id such as @1")
        self._subscriptions += 1
        name = f"tmuxcc-{self._subscriptions}"
        one_line = f"#{{={MAX_TEXT}:{format}}}" if "#{" in format else format

        def subscribe(put: Callable[[Event], object]) -> Callable[[], None]:
            def filtered(event: Event) -> None:
                if isinstance(event, SubscriptionChanged) and event.name == name:
                    put(event)

            return self._listeners.add(filtered, (SubscriptionChanged,))

        async with self._event_stream(subscribe) as stream:
            await self.command("refresh-client", "-B", f"{name}:{what}:{one_line}")
            try:
                yield cast("EventStream[SubscriptionChanged]", stream)
            finally:
                if self._stream.closed is None:
                    removal = self._send(self._prepare(("refresh-client", "-B", name)))
                    removal.connection.queue.abandon(removal.request)

    def add_tap(self, function: Callable[..., object], *classes: type) -> Callable[[], None]:
        """Have `function(event)` called at once for each event of these classes (none: all).

        It runs in the reader: it must be quick, must not block, and can't be a coroutine
        function. If it raises, the client ends and the exception comes out of the block of
        `open_client`. Returns a function that removes it.
        """
        return self._listeners.add(function, classes)

    # Panes and lists

    def pane(self, pane_id: str) -> Pane:
        """The pane with this id (``%3``). That it exists is checked when something is asked."""
        if re.fullmatch(r"%[0-9]+", pane_id) is None:
            raise InvalidCommand(f"{pane_id!r} is no pane id such as %3; list_panes() tells them")
        return Pane(self, self._panes, pane_id)

    async def list_sessions(self) -> list[SessionRow]:
        """All sessions of the server."""
        return await list_rows(self.command, ("list-sessions",), SessionRow)

    async def list_windows(self, session_id: str | None = None) -> list[WindowRow]:
        """The windows of all sessions, or of one."""
        where = ("-a",) if session_id is None else ("-t", session_id)
        return await list_rows(self.command, ("list-windows", *where), WindowRow)

    async def list_panes(self, window_id: str | None = None) -> list[PaneRow]:
        """The panes of all sessions, or of one window."""
        where = ("-a",) if window_id is None else ("-t", window_id)
        return await list_rows(self.command, ("list-panes", *where), PaneRow)

    async def list_clients(self) -> list[ClientRow]:
        """All clients of the server, this one included."""
        return await list_rows(self.command, ("list-clients",), ClientRow)

    async def new_session(
        self,
        name: str | None = None,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        argv: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Created:
        """Make a session that this client is not attached to; its id.

        Its output is not seen by this client. `argv` is the first pane's program (default: the
        user's shell). Raises `CommandError` if the name is taken.
        """
        options = ["-d"]
        if name is not None:
            options += ["-s", name.replace("#", "##")]
        if size is not None:
            options += ["-x", str(size[0]), "-y", str(size[1])]
        return await self._create("new-session", 0, options, cwd, env, argv)

    async def new_window(
        self,
        name: str | None = None,
        *,
        session_id: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        argv: Sequence[str] | None = None,
    ) -> Created:
        """Make a window in the attached session (or another), without selecting it; its id.

        `argv` is run as it is, not by a shell, under a wrapper that saves its last output and
        tells its end (see `Pane.wait_exit`); None runs the user's shell, without the wrapper.
        """
        options = ["-d", "-t", f"{session_id or self.session_id}:"]
        if name is not None:
            options += ["-n", name.replace("#", "##")]
        return await self._create("new-window", 1, options, cwd, env, argv)

    async def split_window(
        self,
        pane_id: str,
        *,
        horizontal: bool = False,
        size: int | str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        argv: Sequence[str] | None = None,
    ) -> Created:
        """Split a pane in two, the new one below it or (`horizontal`) beside it; the new id.

        `size` is in characters, or a string such as ``"30%"``. `argv` as for `new_window`.
        """
        options = ["-d", "-t", pane_id, "-h" if horizontal else "-v"]
        if size is not None:
            options += ["-l", str(size)]
        return await self._create("split-window", 2, options, cwd, env, argv)

    def statistics(self) -> ClientStatistics:
        """What the client has done and holds, as of now."""
        stream, logs = self._stream, self._panes.logs()
        return ClientStatistics(
            generation=self.generation,
            bytes_received=stream.bytes_received,
            commands_sent=stream.requests_sent
            + (self._side.requests_sent if self._side is not None else 0),
            in_flight=len(stream.queue),
            abandoned=stream.queue.abandoned,
            unsolicited_replies=stream.queue.unsolicited,
            listeners=len(self._listeners),
            panes=len(logs),
            output_bytes=sum(log.end for log in logs),
            gaps=sum(log.gaps for log in logs),
            pauses=self._panes.pauses,
            command_connection=self._side_ready,
        )

    # How a command is sent

    def _prepare(self, argv: Sequence[Argument]) -> Line:
        line = prepare(argv, self.version, self._shadowed)
        return evolve(line, data=self._unaliased(line.data)) if self._hidden else line

    def _unaliased(self, line: bytes) -> bytes:
        """The line with a name that its user has not redefined: one letter less will do."""
        name = line.rstrip(b"\n").partition(b" ")[0]
        return name[:-1] + line[len(name) :] if name in self._hidden else line

    def _connection_for(self, line: Line) -> Connection:
        if (
            self._side is None
            or not self._side_ready
            or self._side.closed is not None
            or self._stream.closed is not None
        ):
            return self._stream
        name = command_name(line.argv)
        if name in _STREAM_COMMANDS or (name == "display-message" and b"client_" in line.data):
            return self._stream
        return self._side

    def _must_wait(self, line: Line) -> bool:
        return line.destroys or self._connection_for(line).is_full

    async def _wait_turn(self, line: Line) -> None:
        while True:
            await self._connection_for(line).wait_room()
            pending = next((c for c in self._window_changes if c.is_pending), None)
            if not line.destroys or pending is None:
                return
            # Then look again: somebody else who waited may have gone first.
            await pending.connection.wait_done(pending.request)

    def _send(self, line: Line, *, flush: bool = True) -> _Sent:
        connection = self._connection_for(line)
        request = connection.send(line.argv, line=line.data, fenced=line.fenced, flush=flush)
        sent = _Sent(request, connection)
        if line.changes_window:
            self._window_changes = [c for c in self._window_changes if not c.request.done]
            self._window_changes.append(sent)
        return sent

    def _flush(self) -> None:
        self._stream.flush()
        if self._side is not None:
            self._side.flush()

    async def _ordered_command(self, *argv: Argument) -> list[str]:
        line = self._prepare(argv)
        await self._stream.wait_room()
        request = self._stream.send(line.argv, line=line.data, fenced=line.fenced)
        await self._stream.wait_reply(request)
        answer = result(request)
        if isinstance(answer, TmuxError):
            raise answer
        return answer

    async def _ordered_line(self, commands: Sequence[Sequence[str]]) -> Sequence[Reply]:
        lines = [self._unaliased(encode_command(*argv)).rstrip(b"\n") for argv in commands]
        await self._stream.wait_room()
        request = self._stream.send(commands[-1], line=b" ; ".join(lines) + b"\n", fenced=True)
        await self._stream.wait_reply(request)
        return request.replies

    async def _create(
        self,
        command: str,
        own: int,
        options: Sequence[str],
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        argv: Sequence[str] | None,
    ) -> Created:
        words = [command, *options, "-P", "-F", _CREATED_FORMAT]
        words += created_options(cwd, env)
        if argv is not None:
            words += ["--", *self.wrap(argv)]
        lines = await self.command(*words)
        ids = lines[0].split(" ")
        return Created(ids[own], *ids)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """`argv` under the wrapper that tells its end in its output, which this client will see."""
        nonce = new_nonce()
        # Known before it is used: a pane may write before the reply that names it is read.
        self._panes.nonces.add(nonce.encode())
        return wrapped(argv, nonce)

    def _start_soon(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task of our own. That connection or pane are gone is told to callers, not by it."""

        @trio.lowlevel.enable_ki_protection
        async def run() -> None:
            with suppress(ConnectionClosed, PaneNotFound):
                await function(*args)

        self._nursery.start_soon(run)

    # What the reader calls

    def _session_changed(self, event: SessionChanged) -> None:
        self.session_id = event.session_id

    def _note_other_clients(self, event: ClientSessionChanged | ClientDetached) -> None:
        if isinstance(event, ClientDetached):
            self._gone.add(event.client)
        else:
            self._gone.discard(event.client)
        self._others_changed.set()

    def _event_stream(
        self, subscribe: Callable[[Callable[[Event], object]], Callable[[], None]]
    ) -> EventStream[object]:
        def add(put: Callable[[Event], object]) -> Callable[[], None]:
            remove = subscribe(put)
            self._event_streams.add(stream)

            def remove_both() -> None:
                self._event_streams.discard(stream)
                remove()

            if self._stream.closed is not None:
                stream.fail(self._stream.closed)
            return remove_both

        stream: EventStream[object] = EventStream(add)
        return stream

    # Start and end

    @trio.lowlevel.enable_ki_protection
    async def _run(self, body: trio.CancelScope) -> None:
        """Read until the end of the connection; what a tap raises ends the body."""
        try:
            await self._stream.run()
        except Exception as error:
            self._failure = error
            body.cancel()
        self._fail()

    async def _aclose(self) -> None:
        for connection in (self._side, self._stream):
            if connection is not None:
                await connection.aclose()
        self._fail()

    def _fail(self) -> None:
        error = self._stream.closed or ConnectionClosed("the client was closed")
        self._panes.fail(error)
        for stream in tuple(self._event_streams):
            stream.fail(error)

    async def _greet(self, size: tuple[int, int] | None) -> None:
        """Learn who we talk to, and say how we want to be treated."""
        # Names are cut short, and tmux completes them: aliases that could hide them are not known.
        commands: list[tuple[str, ...]] = [
            (FENCE, "-p", "#{version}"),
            (FENCE, "-p", "#{pid} #{client_pid} #{session_id}"),
            ("show-option", "-s", "command-alias"),
            ("list-command", "-F", "#{command_list_name}"),
        ]
        if size is not None:
            commands.append(("refresh-clien", "-C", f"{size[0]}x{size[1]}"))
        results = await self.batch(commands)
        for answer in results:
            if isinstance(answer, TmuxError):
                raise answer
        version, ids, aliases, commands_there, *_ = results
        assert isinstance(version, list)
        assert isinstance(ids, list)
        assert isinstance(aliases, list)
        assert isinstance(commands_there, list)
        self.version = parse_version(version[0])
        server_pid, client_pid, self.session_id = ids[0].split(" ")
        self.server_pid, self.client_pid = int(server_pid), int(client_pid)
        # An alias of the user's may hide a command and run any number of others.
        names = (re.match(r'command-alias\[\d+\] "?([^= ]+)=', line) for line in aliases)
        self._shadowed = frozenset(name[1] for name in names if name is not None)
        self._hidden = {name.encode() for name in self._shadowed.intersection(commands_there)}

    async def _note_end(self, side: Connection) -> None:
        await side.wait_ended()
        self._others_changed.set()

    async def _keep_commands_quick(self, open_side: Callable[[], Awaitable[Connection]]) -> None:
        """While others are attached, have a second connection for commands. Until cancelled.

        Alone, tmux slows a flooding program down to our pace, and replies come in between. With
        another client attached it does not, and they queue up behind all that was written.
        """
        own = {self.client_pid}
        while True:
            try:
                lines = await self.command("list-clients", "-F", "#{client_pid} #{client_name}")
            except ConnectionClosed:
                if self._stream.closed is not None:
                    return
                # It was the second connection that has just been ended.
                self._side, self._side_ready = None, False
                continue
            clients = {name: int(pid) for pid, _, name in (line.partition(" ") for line in lines)}
            # tmux 3.8 tells of a client that goes before it takes it from the list.
            self._gone.intersection_update(clients)
            others = {pid for name, pid in clients.items() if name not in self._gone} - own
            if others and self._side is None:
                # Where that fails, commands are slow and nothing worse.
                with suppress(ConnectionClosed, OpenError):
                    side = await open_side()
                    request = side.send(("display-message", "-p", "#{client_pid}"))
                    await side.wait_reply(request)
                    own.add(int(request.replies[0].lines[0]))
                    self._side_ready = True
                    self._start_soon(self._note_end, side)
            elif not others and self._side is not None:
                self._side_ready = False
                own = {self.client_pid}
                await self._side.wait_idle()
                await self._side.end()
            await self._others_changed.wait()
            self._others_changed = trio.Event()
            if self._side is not None and self._side.closed is not None:
                self._side, self._side_ready = None, False


def _holds_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[0] is not None
    return isinstance(error, trio.Cancelled)


@asynccontextmanager
async def open_client(
    session: str | None = None,
    *,
    create: bool = False,
    size: tuple[int, int] | None = None,
    socket_path: str | os.PathLike[str] | None = None,
    socket_name: str | None = None,
    config_file: str | os.PathLike[str] | None = None,
    tmux: str | os.PathLike[str] | None = None,
    transport: Transport | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
    history: int = HISTORY,
) -> AsyncIterator[Client]:
    """Attach to a tmux session; a `Client` for the time of the block.

    `session` is a name or an id (``$1``); None attaches to the session used last. No server is
    started and no session made unless `create` is set, which then takes `cwd`, `env` and `argv`
    for its first pane as `Client.new_window` does. The sizes of windows are not influenced unless
    a `size` (columns, rows) is given. `history` bounds the output kept of each pane, in bytes.

    Raises, before the block is entered, an `OpenError`: `TmuxNotFound`, `UnsupportedVersion`,
    `NoServer`, `SessionNotFound`, `SocketPathTooLong`, `AccessDenied` or `StartTimeout`. Exceptions
    of the block come out as they are. When it is left, whatever the reason, the tmux client is
    detached and its process gone; the session stays.
    """
    server = find_server(
        socket_path=socket_path,
        socket_name=socket_name,
        config_file=config_file,
        tmux=tmux,
        transport=transport,
    )
    if create and session is None:
        raise ValueError("create=True needs the name of the session")
    if not create and (cwd is not None or env is not None or argv is not None):
        raise ValueError("cwd, env and argv are for a session that is made: create=True")
    await program_version(server)
    flags = [f"pause-after={PAUSE_AFTER}", *([] if size else ["ignore-size"])]
    nonce = new_nonce()
    if create:
        assert session is not None
        command = create_command(session, flags, size, cwd, env)
        command += ["--", *wrapped(argv, nonce)] if argv is not None else []
    else:
        command = attach_command(session, flags)
    error: BaseException | None = None
    client: Client | None = None
    try:
        async with trio.open_nursery() as nursery:
            connection = Connection(open_process(server.argv(*command)))
            client = Client(connection, history=history, nursery=nursery)
            client._panes.nonces.add(nonce.encode())

            async def open_side() -> Connection:
                side_command = attach_command(client.session_id, ["no-output", "ignore-size"])
                side = Connection(open_process(server.argv(*side_command)))
                client._side = side
                nursery.start_soon(side.run)
                await wait_attached(side, server, client.session_id)
                return side

            try:
                with trio.CancelScope() as body:
                    nursery.start_soon(client._run, body)
                    await wait_attached(connection, server, session)
                    await client._greet(size)
                    if client.version < OLDEST_SUPPORTED:
                        raise UnsupportedVersion(client.version.text)
                    client._start_soon(client._panes.look_for_deaths)
                    client._start_soon(client._keep_commands_quick, open_side)
                    yield client
            except BaseException as raised:
                # A cancellation is for the scopes around, all else comes out as it is.
                if _holds_cancellation(raised):
                    raise
                error = raised
            finally:
                nursery.cancel_scope.cancel()
    except BaseException:
        if error is None:
            raise
    finally:
        # Also when the caller was cancelled, which comes out of the nursery and not of its block.
        if client is not None:
            await client._aclose()
    if client is not None and client._failure is not None:
        raise client._failure
    if error is not None:
        raise error
