"""The client: one attached tmux control client, its commands, events and panes.

Start with `open_client`. How a client is started is in start.py, how a command gets onto a
connection in channel.py, how bytes come and go in connection.py, how another connection follows
in reconnect.py, what is known of panes in panes.py; here is what a program does with a tmux server.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast, overload

import trio
from attrs import frozen

from ..errors import (
    CommandError,
    ConnectionClosed,
    InvalidCommand,
    PaneNotFound,
    TmuxError,
    UnsupportedVersion,
)
from ..protocol import OLDEST_SUPPORTED, TmuxVersion, result
from ..protocol.commands import Argument
from ..protocol.events import (
    ClientDetached,
    ClientSessionChanged,
    Continue,
    Event,
    ExtendedOutput,
    LayoutChange,
    Message,
    Output,
    Pause,
    SessionChanged,
    SessionsChanged,
    SubscriptionChanged,
    UnlinkedWindowClose,
    WindowClose,
    WindowPaneChanged,
)
from .background import background, holds_cancellation, require_trio
from .channel import Channel, Sent
from .connection import Connection
from .events import EventStream, Listeners, Reconnected
from .output import HISTORY
from .pane import Pane
from .panes import PaneTable
from .program import new_nonce, nonce_of, unwrapped, wrapped, wrapper_script
from .reconnect import Reconnector
from .rows import MAX_TEXT, ClientRow, PaneRow, SessionRow, WindowRow, list_rows
from .start import (
    Greeting,
    Server,
    attach_command,
    client_flags,
    create_command,
    created_options,
    find_server,
    greet,
    program_version,
    wait_attached,
)
from .transport import Transport, open_process

E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
T = TypeVar("T")


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


_CREATED_FORMAT = "#{session_id} #{window_id} #{pane_id} #{pane_pid}"


class Client:
    """A client that is attached to one session; `open_client` makes it.

    `version` is that of the server. `generation` counts connections, all of them to one server:
    what is of a connection, such as a subscription made with ``refresh-client`` or `client_name`,
    ends with it.
    `is_local` says whether tmux runs on this machine.
    """

    def __init__(
        self,
        connection: Connection,
        server: Server,
        *,
        size: tuple[int, int] | None,
        history: int,
        reconnect: bool,
        nursery: trio.Nursery,
    ) -> None:
        self.generation = 1
        self.version: TmuxVersion = OLDEST_SUPPORTED
        self.session_id = ""
        self.is_local = server.transport.is_local
        self.server_pid = 0
        self.client_pid = 0
        self.client_name = ""
        self._server = server
        self._size = size
        self._reconnect = reconnect
        self._nursery = nursery
        self._channel = Channel(connection)
        self._begun = trio.Event()
        self._reconnector: Reconnector | None = None
        self._failure: Exception | None = None
        self._subscriptions = 0
        self._wanted: dict[str, tuple[str, ...]] = {}
        """The commands that each new connection is sent."""
        self._deletions: dict[str, Sent | None] = {}
        """The buffers that are to be deleted, and the command that was sent for it."""
        self._is_left = False
        self._panes = PaneTable(
            history=history,
            command=self.command,
            ordered_command=self._channel.ordered_command,
            ordered_line=self._channel.ordered_line,
            through_reconnects=self.through_reconnects,
            start_soon=self._start_soon,
        )
        self._listeners = Listeners(
            own={
                Output: self._panes.receive_output,
                ExtendedOutput: self._panes.receive_output,
                Pause: self._panes.receive_pause,
                Continue: self._panes.receive_continue,
                SessionChanged: self._note_session,
                ClientSessionChanged: self._channel.receive_other_client,
                ClientDetached: self._channel.receive_other_client,
                LayoutChange: self._panes.deaths.receive_hint,
                Message: self._panes.deaths.receive_hint,
                SessionsChanged: self._panes.deaths.receive_hint,
                SubscriptionChanged: self._panes.deaths.receive_hint,
                UnlinkedWindowClose: self._panes.deaths.receive_hint,
                WindowClose: self._panes.deaths.receive_hint,
                WindowPaneChanged: self._panes.deaths.receive_hint,
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
        sent = await self._channel.send(argv)
        return await sent.lines()

    async def batch(self, commands: Iterable[Sequence[Argument]]) -> list[list[str] | TmuxError]:
        """Run commands one behind the other without waiting in between.

        Returns a result for each: its lines, or the `CommandError` or `ReplyTooLarge` of that
        one; the others are not affected. Raises as `command` does for all that concerns the
        connection; `InvalidCommand` is raised before any is sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        lines = [self._channel.prepare(argv) for argv in commands]
        sent = await self._channel.send_all(lines)
        try:
            for one in sent:
                await one.wait()
        except BaseException:
            for one in sent:
                one.abandon()
            raise
        return [result(one.request) for one in sent]

    def command_nowait(self, *argv: Argument) -> None:
        """Send one tmux command at once; its reply is dropped.

        Raises `InvalidCommand` as `command` does, and for commands that may have to wait for their
        turn; `ConnectionClosed` also while the client is not connected for the moment.
        """
        self._channel.post(argv)

    def delete_buffer(self, buffer: str) -> None:
        """Delete a buffer now or, if the connection ends first, on the next one.

        tmux never drops a buffer that has a name by itself. One that is not there is no error.
        """
        self._deletions[buffer] = None
        self._delete_buffers()

    async def wait_connected(self) -> int:
        """Wait until commands can be sent, with ``reconnect=True`` perhaps again; the generation.

        Raises `ConnectionClosed` if that is over for good. That a connection has ended shows in
        what it is used for: an error of a command, a `Gap`, `Reconnected` among the events.
        """
        await trio.lowlevel.checkpoint()
        await self._channel.wait_connected()
        return self.generation

    async def through_reconnects(self, function: Callable[[], Awaitable[T]]) -> T:
        """What `function` gives, asked again on the next connection where one has ended meanwhile.

        For what can be done twice. Raises what `function` raises, and `ConnectionClosed` when no
        other connection follows.
        """
        while True:
            try:
                return await function()
            except ConnectionClosed:
                await self.wait_connected()

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
        return self._listeners.stream(classes)

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

        def is_ours(event: Event) -> bool:
            return isinstance(event, SubscriptionChanged) and event.name == name

        command = ("refresh-client", "-B", f"{name}:{what}:{one_line}")
        async with self._listeners.stream((SubscriptionChanged,), is_ours) as stream:
            self._wanted[name] = command
            try:
                try:
                    await self.command(*command)
                except ConnectionClosed:
                    # If there is another connection, it is told.
                    await self.wait_connected()
                yield cast("EventStream[SubscriptionChanged]", stream)
            finally:
                del self._wanted[name]
                if self._channel.stream.closed is None:
                    self._channel.post(("refresh-client", "-B", name))

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

        Its output is not seen by this client, so `argv`, the program of its first pane (default:
        the user's shell), runs without the wrapper of `new_window`. `cwd` is as there. Raises
        `CommandError` if the name is taken.
        """
        options = ["-d"]
        if name is not None:
            options += ["-s", name.replace("#", "##")]
        if size is not None:
            options += ["-x", str(size[0]), "-y", str(size[1])]
        return await self._create("new-session", 0, options, cwd, env, argv, is_seen=False)

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
        Nor has it what is made in another session, whose output this client does not see.
        Raises `InvalidCommand` if there is no folder `cwd`, as far as tmux runs on this machine:
        elsewhere tmux takes another one without a word.
        """
        options = ["-d", "-t", f"{session_id or self.session_id}:"]
        if name is not None:
            options += ["-n", name.replace("#", "##")]
        is_seen = session_id in (None, self.session_id)
        return await self._create("new-window", 1, options, cwd, env, argv, is_seen=is_seen)

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

        `size` is in characters, or a string such as ``"30%"``. `argv` and `cwd` as for
        `new_window`, but that a program in another session is wrapped too: its end is told five
        seconds late.
        """
        options = ["-d", "-t", pane_id, "-h" if horizontal else "-v"]
        if size is not None:
            options += ["-l", str(size)]
        return await self._create("split-window", 2, options, cwd, env, argv)

    def statistics(self) -> ClientStatistics:
        """What the client has done and holds, as of now."""
        channel, logs = self._channel, self._panes.logs()
        return ClientStatistics(
            generation=self.generation,
            bytes_received=channel.bytes_received,
            commands_sent=channel.commands_sent,
            in_flight=channel.in_flight,
            abandoned=channel.abandoned,
            unsolicited_replies=channel.unsolicited_replies,
            listeners=len(self._listeners),
            panes=len(logs),
            output_bytes=sum(log.end for log in logs),
            gaps=sum(log.gaps for log in logs),
            pauses=self._panes.pauses,
            command_connection=channel.side_ready,
        )

    # Helpers

    async def _create(
        self,
        command: str,
        own: int,
        options: Sequence[str],
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        argv: Sequence[str] | None,
        *,
        is_seen: bool = True,
    ) -> Created:
        """`is_seen`: this client gets the output of what is made, and so the wrapper's mark."""
        words = [command, *options, "-P", "-F", _CREATED_FORMAT]
        words += created_options(cwd, env, is_local=self.is_local)
        program = [] if argv is None or not is_seen else self.wrap(argv)
        if argv is not None:
            words += ["--", *(program or unwrapped(argv))]
        try:
            lines = await self.command(*words)
        except (CommandError, InvalidCommand):
            if program:
                self._panes.unwrap(program)
            raise
        *ids, pid = lines[0].split(" ")
        created = Created(ids[own], *ids)
        if program:
            self._panes.started(created.pane_id, int(pid), program)
        return created

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """`argv` under the wrapper that tells its end in its output, which this client will see.

        For windows that are made by a command of your own; `watch_program` then is told which
        they are.
        """
        return self._panes.wrap(argv)

    def watch_program(self, pane_id: str, pid: int, program: Sequence[str]) -> None:
        """See the end of `program`, which `wrap` has given, in the pane that was made for it.

        `pid` is the pane's ``#{pane_pid}``. It is seen without this too, but not that last words
        are missing where the wrapper is killed.
        """
        self._panes.started(pane_id, pid, program)

    async def keep_wrapper(self, name: str) -> None:
        """Have tmux keep the wrapper's script, so that each start of a program costs it less.

        It is kept in a variable `name` of the server's environment, which no program sees, until
        somebody unsets that (``set-environment -gu``); then programs fail with status 127. Raises
        as `command` does.
        """
        await self._channel.keep(wrapper_script(), name)

    def _start_soon(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task of our own. That connection or pane are gone is told to callers, not by it.

        Once the client is left, what others still wait for may end, and nobody needs such a task.
        """
        if not self._is_left:
            self._nursery.start_soon(self._run_beside, function, *args)

    @trio.lowlevel.enable_ki_protection
    async def _run_beside(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        with suppress(ConnectionClosed, PaneNotFound):
            await function(*args)

    # Start and end

    async def _begin(self) -> None:
        """Learn whom we talk to, say how we want to be treated, and start what goes on beside."""
        greeting = await greet(self._channel.stream)
        if greeting.version < OLDEST_SUPPORTED:
            raise UnsupportedVersion(greeting.version.text)
        self._use(self._channel.stream, greeting)
        if self._size is not None:
            self._wanted["size"] = ("refresh-client", "-C", f"{self._size[0]}x{self._size[1]}")
            await self.command(*self._wanted["size"])
        if self._reconnect:
            self._reconnector = Reconnector(
                self._server,
                greeting,
                session_id=lambda: self.session_id,
                flags=client_flags(self._size),
                take_over=self._take_over,
                deliver=self._listeners.deliver,
                give_up=self._fail,
            )
            self._channel.reconnects = True
        self._begun.set()
        self._start_soon(self._panes.deaths.run)
        self._start_soon(self._channel.keep_commands_quick, self._open_side)

    async def _find_first(self, program: Sequence[str]) -> None:
        """Find the pane of the `program` for which the session was to be made, if it was made."""
        its_own = f"#{{m:*{nonce_of(program).decode()}*,#{{pane_start_command}}}}"
        where = ("list-panes", "-s", "-f", its_own, "-F", "#{pane_id} #{pane_pid}")
        # A program that has ended may have ended the session.
        with suppress(CommandError, ConnectionClosed):
            for line in await self.command(*where):
                pane_id, pid = line.split(" ")
                self.watch_program(pane_id, int(pid or 0), program)
                return
            self._panes.unwrap(program)

    def _use(self, connection: Connection, greeting: Greeting) -> None:
        self.version = greeting.version
        self.session_id = greeting.session_id
        self.server_pid, self.client_pid = greeting.server_pid, greeting.client_pid
        self.client_name = greeting.client_name
        self._panes.deaths.connected(greeting.client_name, is_local=self.is_local)
        self._channel.use(connection, greeting)

    def _take_over(self, connection: Connection, greeting: Greeting) -> None:
        """Go on with another connection. Raises `ConnectionClosed` if that has ended already."""
        self._use(connection, greeting)
        for command in self._wanted.values():
            self._channel.post(command)
        self._delete_buffers()
        self.generation += 1
        self._listeners.note_reconnected(Reconnected(self.generation))
        self._panes.reconnected()

    def _delete_buffers(self) -> None:
        for buffer, sent in tuple(self._deletions.items()):
            if sent is not None and sent.request.done:
                del self._deletions[buffer]
            elif sent is None or not sent.is_pending:
                # Without a connection it waits for the next.
                with suppress(ConnectionClosed):
                    self._deletions[buffer] = self._channel.post(("delete-buffer", "-b", buffer))

    def _note_session(self, event: SessionChanged) -> None:
        self.session_id = event.session_id

    async def _open_side(self) -> Connection:
        """Start a second connection, for commands."""
        command = attach_command(self.session_id, ["no-output", "ignore-size"])
        side = Connection(open_process(self._server.argv(*command)))
        self._channel.side = side
        self._nursery.start_soon(self._channel.run_side, side)
        await wait_attached(side, self._server, self.session_id)
        return side

    @trio.lowlevel.enable_ki_protection
    async def _run(self, body: trio.CancelScope) -> None:
        """Read until the end of the last connection; what a tap raises ends the body."""
        stream = self._channel.stream
        try:
            await stream.run()
            if self._reconnect:
                await self._begun.wait()
                assert self._reconnector is not None
                await self._reconnector.run(stream)
        except Exception as error:
            self._failure = error
            body.cancel()
        self._fail()

    async def _aclose(self) -> None:
        await self._channel.aclose()
        self._fail()

    def _fail(self, error: ConnectionClosed | None = None) -> None:
        """No other connection follows; tell everybody."""
        self._channel.fail(error)
        closed = self._channel.closed or ConnectionClosed("the client was closed")
        self._panes.fail(closed)
        self._listeners.fail(closed)


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
    reconnect: bool = False,
) -> AsyncIterator[Client]:
    """Attach to a tmux session; a `Client` for the time of the block.

    `session` is a name or an id (``$1``); None attaches to the session used last. No server is
    started and no session made unless `create` is set, which then takes `cwd`, `env` and `argv`
    for its first pane as `Client.new_window` does. The sizes of windows are not influenced unless
    a `size` (columns, rows) is given. `history` bounds the output kept of each pane, in bytes.

    With `reconnect` the client attaches again when its connection has ended, by whatever cause, if
    the same server still has the same session: `Client.generation` counts up, a `Gap` stands in
    every pane's output and `Reconnected` among the events, `size` and `Client.watch_format` go
    on. Commands that were on their way raise `ConnectionClosed`, since nobody knows whether they
    were run; those that come later wait until the client is connected, or that has failed, which
    takes some seconds at most.

    Raises, before the block is entered, an `OpenError`: `TmuxNotFound`, `UnsupportedVersion`,
    `NoServer`, `SessionNotFound`, `SocketPathTooLong`, `AccessDenied` or `StartTimeout`; or
    `InvalidCommand`, as `Client.new_window` does; under asyncio `RuntimeError`. Exceptions of the
    block come out as they are. When it is left, whatever the reason, the tmux client is detached
    and its process gone; the session stays.
    """
    require_trio()
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
    program = wrapped(argv, new_nonce()) if argv is not None else []
    if create:
        assert session is not None
        command = create_command(
            session,
            client_flags(size),
            size,
            cwd,
            env,
            program,
            is_local=server.transport.is_local,
        )
    else:
        command = attach_command(session, client_flags(size))
    client: Client | None = None
    try:
        async with background() as nursery:
            connection = Connection(open_process(server.argv(*command)))
            client = Client(
                connection, server, size=size, history=history, reconnect=reconnect, nursery=nursery
            )
            if program:
                # Known before it writes.
                client._panes.nonces.add(nonce_of(program))
            with trio.CancelScope() as body:
                nursery.start_soon(client._run, body)
                await wait_attached(connection, server, session)
                await client._begin()
                if program:
                    await client._find_first(program)
                try:
                    yield client
                finally:
                    client._is_left = True
    except BaseException as error:
        # What a tap has raised may be the cause of this.
        if client is None or client._failure is None or holds_cancellation(error):
            raise
    finally:
        # Also when the caller was cancelled, which comes out of the nursery and not of its block.
        if client is not None:
            await client._aclose()
    if client._failure is not None:
        raise client._failure
