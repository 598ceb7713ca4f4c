"""How a command gets onto a connection.

Which connection takes it: the one that streams or, while somebody else is attached, a second one
that serves for commands only. When it has to wait for its turn, and what is done so that no alias
of the user's hides it. What commands and events are for must not live here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import trio
from attrs import evolve, frozen

from ..errors import CommandError, ConnectionClosed, InvalidCommand, OpenError, TmuxError
from ..protocol import (
    OLDEST_SUPPORTED,
    Line,
    Request,
    TmuxVersion,
    command_name,
    encode_command,
    name_for_kept,
    prepare,
    result,
)
from ..protocol.commands import Argument
from ..protocol.events import ClientDetached, ClientSessionChanged, Reply
from .connection import Connection
from .start import Greeting

# What a caller of these means by "its client" is the connection that streams; and it is the output
# queued for this one that has to be dropped before another program starts (`respawn-crash`).
_STREAM_COMMANDS = frozenset(
    "attach-session detach-client refresh-client respawn-pane suspend-client switch-client".split()
)

STEADY = 10.0
"""Seconds that a second connection lasts where nobody is against it."""

FIRST_PAUSE, LAST_PAUSE = 0.1, 30.0
"""Seconds before another is tried where one did not last so long: twice as many each time."""


@frozen(eq=False)
class Sent:
    """A command that was sent on `connection`."""

    request: Request
    connection: Connection

    @property
    def is_pending(self) -> bool:
        """Whether its reply may still come."""
        return not self.request.done and self.connection.closed is None

    def raise_if_lost(self) -> None:
        """Raise `ConnectionClosed` if the reply can't come any more."""
        if not self.request.done and self.connection.closed is not None:
            raise self.connection.closed.with_traceback(None)

    def abandon(self) -> None:
        """Nobody waits for the reply any more."""
        if not self.request.done:
            self.connection.queue.abandon(self.request)

    async def wait(self) -> None:
        """Wait for the reply, if it is not there. Raises `ConnectionClosed`."""
        if not self.request.done:
            await self.connection.wait_reply(self.request)

    async def lines(self) -> list[str]:
        """Wait for the reply: its lines. Raises the error that it is, and `ConnectionClosed`."""
        await self.connection.wait_reply(self.request)
        answer = result(self.request)
        if isinstance(answer, TmuxError):
            raise answer
        return answer


class Channel:
    """The connections of a client: `stream`, and at times a second one for commands.

    While `reconnects` is set, another stream may follow one that has ended: until `use` or `fail`
    is called, commands wait.
    """

    def __init__(self, stream: Connection) -> None:
        self.stream = stream
        self.side: Connection | None = None
        self.side_ready = False
        self.reconnects = False
        self._failure: ConnectionClosed | None = None
        self._settled = trio.lowlevel.ParkingLot()
        self._version: TmuxVersion = OLDEST_SUPPORTED
        self._shadowed: frozenset[str] = frozenset()
        self._hidden: set[bytes] = set()
        self._kept: dict[Argument, bytes] = {}
        self._window_changes: list[Sent] = []
        self._client_pid = 0
        self._others_changed = trio.Event()
        self._gone: set[str] = set()
        # What the connections before these have counted.
        self._bytes_before = self._sent_before = self._unsolicited_before = 0

    @property
    def closed(self) -> ConnectionClosed | None:
        """Why no command can be sent any more; None while that may be possible, perhaps again."""
        return self._failure or (None if self.reconnects else self.stream.closed)

    @property
    def bytes_received(self) -> int:
        """Bytes that the streams have read."""
        return self._bytes_before + self.stream.bytes_received

    @property
    def commands_sent(self) -> int:
        """Lines that were sent."""
        sent = self._sent_before + self.stream.requests_sent
        return sent + (self.side.requests_sent if self.side is not None else 0)

    @property
    def in_flight(self) -> int:
        """Lines whose replies are still to come."""
        return sum(len(connection.queue) for connection in self._connections())

    @property
    def abandoned(self) -> int:
        """Those of them for which nobody waits any more."""
        return sum(connection.queue.abandoned for connection in self._connections())

    @property
    def unsolicited_replies(self) -> int:
        """Replies that nobody had asked for."""
        return self._unsolicited_before + self.stream.queue.unsolicited

    def use(self, stream: Connection, greeting: Greeting) -> None:
        """Send on `stream`, whose server has told `greeting`."""
        if stream is not self.stream:
            self._bytes_before += self.stream.bytes_received
            self._sent_before += self.stream.requests_sent
            self._unsolicited_before += self.stream.queue.unsolicited
            self._others_changed.set()
        self.stream = stream
        self._version = greeting.version
        self._shadowed = greeting.shadowed
        self._hidden = {name.encode() for name in greeting.hidden}
        self._client_pid = greeting.client_pid
        self._settled.unpark_all()

    def fail(self, error: ConnectionClosed | None = None) -> None:
        """No other stream follows; `error` says why not."""
        self.reconnects = False
        self._failure = self._failure or error
        self._settled.unpark_all()

    async def aclose(self) -> None:
        """End what is open. The connections must not be running any more."""
        for connection in reversed(self._connections()):
            await connection.aclose()

    async def wait_connected(self) -> None:
        """Wait until commands can be sent. Raises `ConnectionClosed` if that is over for good."""
        while self.reconnects and self.stream.closed is not None:
            await self._settled.park()
        if (closed := self.closed) is not None:
            raise closed.with_traceback(None)

    # Commands

    def prepare(self, argv: Sequence[Argument]) -> Line:
        """The line for `argv`. Raises `InvalidCommand` for what can't or must not be sent."""
        line = prepare(argv, self._version, self._shadowed, self._kept)
        return evolve(line, data=self._unaliased(line.data)) if self._hidden else line

    async def send(self, argv: Sequence[Argument]) -> Sent:
        """Send a command when it is its turn. Raises as `prepare` does, and `ConnectionClosed`."""
        line = self.prepare(argv)
        if self._must_wait(line):
            await self._wait_turn(line)
        return self._send(line)

    async def send_all(self, lines: Iterable[Line]) -> list[Sent]:
        """Send lines one behind the other, in as few pieces as can be. Raises `ConnectionClosed`.

        If one of them can't be sent any more, neither is one behind it.
        """
        sent: list[Sent] = []
        try:
            for line in lines:
                if self._must_wait(line):
                    self._flush()
                    await self._wait_turn(line)
                    for one in sent:
                        one.raise_if_lost()
                sent.append(self._send(line, flush=False))
        except BaseException:
            for one in sent:
                one.abandon()
            raise
        finally:
            self._flush()
        return sent

    def post(self, argv: Sequence[Argument]) -> Sent:
        """Send a command at once, whose reply nobody waits for.

        Raises as `prepare` does, for a command that may have to wait `InvalidCommand`, and
        `ConnectionClosed`.
        """
        line = self.prepare(argv)
        if line.destroys:
            raise InvalidCommand(f"{line.argv[0]!r} may have to wait for its turn: await command()")
        sent = self._send(line)
        sent.abandon()
        return sent

    async def keep(self, word: str, name: str) -> None:
        """Have tmux keep a word of many lines, under a `name` by which it is sent from now on.

        That is a variable of its global environment that no process sees (set-environment -h,
        3.2). The last line of the word is sent all the same, so that something fails where
        somebody has unset the variable. Raises as `send` and `Sent.lines` do.
        """
        end = word.rindex("\n")
        sent = await self.send(("set-environment", "-g", "-h", name, word[:end]))
        await sent.lines()
        self._kept[word] = name_for_kept(name, word[end:])

    async def ordered_command(self, *argv: Argument) -> list[str]:
        """Run a command whose reply comes behind all output that was written before it."""
        line = self.prepare(argv)
        await self._wait_stream()
        request = self.stream.send(
            line.argv, line=line.data, fenced=line.fenced, replies=line.replies
        )
        return await Sent(request, self.stream).lines()

    async def ordered_line(self, commands: Sequence[Sequence[str]]) -> Sequence[Reply]:
        """Run commands as one line of the stream, with nothing in between; their replies."""
        lines = [self._unaliased(encode_command(*argv)).rstrip(b"\n") for argv in commands]
        await self._wait_stream()
        stream = self.stream
        request = stream.send(commands[-1], line=b" ; ".join(lines) + b"\n", fenced=True)
        await stream.wait_reply(request)
        return request.replies

    async def _wait_stream(self) -> None:
        await self.wait_connected()
        while self.stream.is_full or self.stream.closed is not None:
            await self.stream.wait_room()
            await self.wait_connected()

    def _must_wait(self, line: Line) -> bool:
        connection = self._connection_for(line)
        return line.destroys or connection.is_full or connection.closed is not None

    async def _wait_turn(self, line: Line) -> None:
        while True:
            await self.wait_connected()
            connection = self._connection_for(line)
            await connection.wait_room()
            if connection.closed is not None:
                continue
            pending = next((c for c in self._window_changes if c.is_pending), None)
            if not line.destroys or pending is None:
                return
            # Then look again: somebody else who waited may have gone first.
            await pending.connection.wait_done(pending.request)

    def _send(self, line: Line, *, flush: bool = True) -> Sent:
        connection = self._connection_for(line)
        request = connection.send(
            line.argv, line=line.data, fenced=line.fenced, replies=line.replies, flush=flush
        )
        sent = Sent(request, connection)
        if line.changes_window:
            self._window_changes = [c for c in self._window_changes if not c.request.done]
            self._window_changes.append(sent)
        return sent

    def _flush(self) -> None:
        self.stream.flush()
        if self.side is not None:
            self.side.flush()

    def _unaliased(self, line: bytes) -> bytes:
        """The line with a name that its user has not redefined: one letter less will do."""
        name = line.rstrip(b"\n").partition(b" ")[0]
        return name[:-1] + line[len(name) :] if name in self._hidden else line

    def _connection_for(self, line: Line) -> Connection:
        if (
            self.side is None
            or not self.side_ready
            or self.side.closed is not None
            or self.stream.closed is not None
        ):
            return self.stream
        name = command_name(line.argv)
        if name in _STREAM_COMMANDS or (name == "display-message" and b"client_" in line.data):
            return self.stream
        return self.side

    def _connections(self) -> list[Connection]:
        return [self.stream] if self.side is None else [self.stream, self.side]

    # The second connection

    def receive_other_client(self, event: ClientSessionChanged | ClientDetached) -> None:
        """A client has come, or gone, or looks at another session."""
        if isinstance(event, ClientDetached):
            self._gone.add(event.client)
        else:
            self._gone.discard(event.client)
        self._others_changed.set()

    @trio.lowlevel.enable_ki_protection
    async def run_side(self, side: Connection) -> None:
        """Run a second connection, which `side` is from now on, to its end."""
        await side.run()
        self._others_changed.set()

    async def keep_commands_quick(self, open_side: Callable[[], Awaitable[Connection]]) -> None:
        """While others are attached, have a second connection for commands. Until cancelled.

        Alone, tmux slows a flooding program down to our pace, and replies come in between. With
        another client attached it does not, and they queue up behind all that was written.
        """
        side_pid = 0
        opened_at, pause = -math.inf, 0.0
        while True:
            try:
                sent = await self.send(("list-clients", "-F", "#{client_pid} #{client_name}"))
                lines = await sent.lines()
            except CommandError:
                # Our session has just gone: the connection ends, or is given another.
                lines = []
            except ConnectionClosed:
                if self.closed is not None:
                    return
                # One of the two has just ended: the other takes it, or the next stream.
                self._drop_ended_side()
                continue
            rows = (line.partition(" ") for line in lines)
            clients = {name: int(pid) for pid, _, name in rows if pid.isdigit()}
            # tmux 3.8 tells of a client that goes before it takes it from the list.
            self._gone.intersection_update(clients)
            others = {pid for name, pid in clients.items() if name not in self._gone}
            others -= {self._client_pid, side_pid}
            if others and self.side is None:
                # Where that fails, commands are slow and nothing worse; and somebody may have it
                # thrown out, again and again.
                is_brief = trio.current_time() - opened_at < STEADY
                pause = min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE) if is_brief else 0.0
                await trio.sleep(pause)
                if self.closed is not None:
                    return
                opened_at = trio.current_time()
                with suppress(ConnectionClosed, OpenError):
                    side = await open_side()
                    argv = ("display-message", "-p", "#{client_pid}")
                    request = side.send(argv, line=self._unaliased(encode_command(*argv)))
                    await side.wait_reply(request)
                    told = request.replies[0].lines
                    # An alias that is newer than this client may have taken the command's name.
                    if told and told[0].isdigit():
                        side_pid, self.side_ready = int(told[0]), True
            elif not others and self.side is not None:
                self.side_ready = False
                side_pid, opened_at = 0, -math.inf
                await self.side.wait_idle()
                await self.side.end()
            await self._others_changed.wait()
            self._others_changed = trio.Event()
            self._drop_ended_side()

    def _drop_ended_side(self) -> None:
        if self.side is not None and self.side.closed is not None:
            self._sent_before += self.side.requests_sent
            self.side, self.side_ready = None, False
