"""Another connection where one has ended: to the same session of the same server, or none at all.

Here is when that is tried, how often, and when not any more. What a new connection is told and
who gets its events must not live here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ..errors import AccessDenied, ConnectionClosed, NoServer, SessionNotFound, TmuxError
from ..protocol.events import Event, Output
from .connection import Connection
from .start import Greeting, Server, attach_command, greet, wait_attached
from .transport import open_process

DELAYS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each attempt, of which there are so many. The first is not at once either: a
server can crash where one client comes while another one goes (client-race-crash)."""

PATIENCE = 5.0
"""Seconds for all attempts together: commands wait that long."""

STEADY = 1.0
"""Seconds that a connection has to last for the delays to begin anew."""

MAX_BRIEF = 50
"""Connections in a row that lasted less. There is a reason then, such as a hook that detaches
every client, and it will not go away by itself."""


class Reconnector:
    """Keeps a client connected to the session that `session_id` tells, with `flags`.

    `known` is what the first connection was told. `take_over` is called with each new connection
    as soon as its server is known to be the same; only then is `deliver` called with its events.
    `give_up` is called with the reason when no other connection will follow.
    """

    def __init__(
        self,
        server: Server,
        known: Greeting,
        *,
        session_id: Callable[[], str],
        flags: Sequence[str],
        take_over: Callable[[Connection, Greeting], None],
        deliver: Callable[[Event], None],
        give_up: Callable[[ConnectionClosed], None],
    ) -> None:
        self._server = server
        self._known = known
        self._session_id = session_id
        self._flags = flags
        self._take_over = take_over
        self._deliver = deliver
        self._give_up = give_up
        self._over = False
        self._brief = 0
        # Of the present outage:
        self._closed: ConnectionClosed | None = None
        self._deadline = 0.0
        self._attempts = 0

    @trio.lowlevel.enable_ki_protection
    async def run(self, ended: Connection) -> None:
        """Make another connection whenever one has ended, until that fails.

        Raises what functions raise that are called with events. Cancelled, it leaves no process.
        """
        self._begin_outage(ended)
        while not self._over:
            await trio.sleep(DELAYS[min(self._brief, len(DELAYS) - 1)])
            self._brief += 1
            self._attempts += 1
            try:
                words = attach_command(self._session_id(), self._flags)
                process = open_process(self._server.argv(*words))
            except TmuxError as error:
                self._note_failure(error)
            else:
                await self._live(Connection(process))

    async def _live(self, connection: Connection) -> None:
        """A connection from its start to its end, be it the right one or not."""
        held: list[Event] = []
        failures: list[Exception] = []
        connected_at: float | None = None

        def hold(event: Event) -> None:
            # Output is part of the gap until then; all else is told, and a pause is answered.
            if not isinstance(event, Output):
                held.append(event)

        @trio.lowlevel.enable_ki_protection
        async def read() -> None:
            try:
                await connection.run()
            except Exception as error:
                failures.append(error)

        connection.deliver = hold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            if await self._meet(connection):
                connected_at = trio.current_time()
                connection.deliver = self._deliver
                try:
                    while held:
                        self._deliver(held.pop(0))
                except Exception as error:
                    failures.append(error)
            if connected_at is None or failures:
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        if connected_at is not None:
            if trio.current_time() - connected_at >= STEADY:
                self._brief = 0
            self._begin_outage(connection)

    async def _meet(self, connection: Connection) -> bool:
        """Whether the connection could be made and has been taken over."""
        try:
            with trio.fail_at(self._deadline):
                await wait_attached(connection, self._server, self._session_id())
                greeting = await greet(connection)
            if (greeting.server_pid, greeting.start_time) != (
                self._known.server_pid,
                self._known.start_time,
            ):
                self._end(f"another server has come, process {greeting.server_pid}")
                return False
            self._take_over(connection, greeting)
        except (TmuxError, trio.TooSlowError) as error:
            self._note_failure(error)
            return False
        return True

    def _begin_outage(self, ended: Connection) -> None:
        self._closed = ended.closed
        self._deadline = trio.current_time() + PATIENCE
        self._attempts = 0
        if self._brief >= MAX_BRIEF:
            self._end(f"{self._brief} connections in a row have lasted less than {STEADY:g} s")

    def _note_failure(self, error: Exception) -> None:
        if isinstance(error, SessionNotFound):
            self._end("the session is gone")
        elif isinstance(error, NoServer):
            self._end("the server is gone")
        elif isinstance(error, trio.TooSlowError):
            self._end(f"attempt {self._attempts} had no answer, {PATIENCE:g} s after the end")
        elif isinstance(error, AccessDenied) or self._attempts >= len(DELAYS):
            self._end(f"attempt {self._attempts} failed: {error}")

    def _end(self, why: str) -> None:
        closed = self._closed
        assert closed is not None
        self._over = True
        given_up = ConnectionClosed(
            f"{closed.reason or 'tmux gave no reason'}; not connected again: {why}",
            exit_status=closed.exit_status,
            stderr=closed.stderr,
        )
        given_up.__cause__ = closed
        self._give_up(given_up)
