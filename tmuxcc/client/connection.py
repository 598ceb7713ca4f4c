"""One `tmux -C` process in use: bytes to events, requests to replies, and its end.

The reader takes what tmux writes and hands it on at once; it never waits for anybody. Requests
are written at once too, whole, or left to the writer, so that a cancelled caller can't leave half
a line behind. What the events and replies are for must not live here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from secrets import token_hex

import trio
from attrs import evolve

from ..errors import ConnectionClosed, ProtocolError
from ..protocol import Parser, Request, RequestQueue, encode_command
from ..protocol.commands import Argument
from ..protocol.events import (
    Continue,
    Event,
    Exit,
    ExtendedOutput,
    Output,
    Pause,
    Reply,
    Unknown,
)
from .transport import Process

_NOTIFYING = ("refresh-client", "respawn-pane")
_PANE_ID = re.compile(r"%[0-9]+")

READ_SIZE = 1 << 16
"""What a pipe holds on Linux, so that one read empties it."""

MAX_IN_FLIGHT = 1000
"""Requests without a reply: tmux before 3.8 keeps unread replies without bound."""

MAX_OUTGOING = 1 << 20
"""Bytes that tmux has not taken yet, beyond which new requests wait."""

FENCE = "display-messag"
"""The command that fences are made of. tmux completes its name; spelled out, an alias of the
user's could hide it."""

BURST = 1 << 12
"""Less than a full pipe holds on any system: after fewer bytes tmux has nothing queued for us.
What is in the pipe may be all that comes before tmux falls silent."""

SILENCE = 0.2
"""Seconds without a byte after a burst, before tmux is asked to go on; see `_break_silence`."""

CLOSE_GRACE = 2.0
"""Seconds for tmux to end by itself, and again after SIGTERM."""


def _ignore(_: Event) -> None:
    """Nobody listens, as on a connection that serves for commands only."""


class Connection:
    """A running connection. `run` must be running in a task."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.queue = RequestQueue()
        self.closed: ConnectionClosed | None = None
        self.first_reply: Reply | None = None
        self.bytes_received = 0
        self.requests_sent = 0
        self.deliver: Callable[[Event], None] = _ignore
        """Called with each event, at once; what it raises ends the connection."""
        self._parser = Parser()
        self._outgoing = bytearray()
        self._outgoing_added = trio.Event()
        self._writer_busy = False
        self._waiting: dict[Request, trio.lowlevel.Task] = {}
        self._room = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()
        self._burst = trio.Event()
        self._burst_at = BURST
        self._started = trio.Event()
        self._ended = trio.Event()
        self._exit_reason: str | None = None
        self._failure: Exception | None = None
        self._reading = trio.CancelScope()

    # What Ctrl-C interrupts is the program, not the task that happens to run.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until the end, then wake everybody who waits. Ends by itself; cancel to stop.

        Raises what a function that is called with events raises. The process is gone afterwards.
        """
        try:
            await self._run()
        finally:
            # Does something only where this was cancelled.
            await self.aclose()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._reading = nursery.cancel_scope
            nursery.start_soon(self.process.read_stderr)
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch_process)
            nursery.start_soon(self._break_silence)
            try:
                await self._read()
            except Exception as error:
                self._failure = error
            nursery.cancel_scope.cancel()
        await self._end()
        if self._failure is not None and not isinstance(self._failure, ProtocolError):
            raise self._failure

    async def wait_started(self) -> None:
        """Wait for the reply to tmux's own arguments, or the end. Nothing may be sent before."""
        await self._started.wait()

    async def wait_ended(self) -> None:
        """Wait until `closed` is set."""
        await self._ended.wait()

    @property
    def is_full(self) -> bool:
        """Whether the next request should wait for room."""
        return len(self.queue) >= MAX_IN_FLIGHT or len(self._outgoing) > MAX_OUTGOING

    async def wait_room(self) -> None:
        """Wait until another request may be sent, or the connection is closed."""
        while self.is_full and self.closed is None:
            await self._room.park()

    async def wait_idle(self) -> None:
        """Wait until every request has its reply, or the connection is closed."""
        while len(self.queue) and self.closed is None:
            await self._progress.park()

    async def wait_done(self, request: Request) -> None:
        """Wait until somebody else's `request` is done, or the connection is closed."""
        while not request.done and self.closed is None:
            await self._progress.park()

    def send(
        self,
        argv: Sequence[Argument],
        *,
        line: bytes = b"",
        fenced: bool = False,
        replies: int = 1,
        flush: bool = True,
    ) -> Request:
        """Send one line, `argv` or the ready-made `line`; its place in the queue.

        `replies` is how many answer it where it is not `fenced`. Without `flush` it is sent
        together with what follows. Raises `ConnectionClosed` if the connection is.
        """
        data = line or encode_command(*argv)
        marker = b""
        if fenced:
            marker = token_hex(16).encode()
            fence = encode_command(FENCE, "-p", marker)
            data = fence + data + fence
        if self.closed is not None:
            raise self.closed.with_traceback(None)
        if marker:
            self._parser.fence(marker)
        request = self.queue.add(argv, marker, replies)
        self.requests_sent += 1
        self._outgoing += data
        if flush:
            self.flush()
        return request

    def flush(self) -> None:
        """Write what has been sent, as far as tmux takes it now; the writer does the rest."""
        if self._writer_busy or not self._outgoing:
            return
        try:
            written = os.write(self.process.stdin_fd, self._outgoing)
        except BlockingIOError:
            written = 0
        except OSError:
            # tmux is gone; the reader meets the end of its output and tells the callers.
            written = len(self._outgoing)
        del self._outgoing[:written]
        if self._outgoing:
            self._writer_busy = True
            self._outgoing_added.set()

    async def wait_reply(self, request: Request) -> None:
        """Wait until `request` is done. Cancelled, the request keeps its place in the queue.

        Raises `ConnectionClosed` if the connection ends first.
        """
        if not request.done and self.closed is None:
            self._waiting[request] = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                del self._waiting[request]
                self.queue.abandon(request)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            await trio.lowlevel.checkpoint()
        if not request.done:
            assert self.closed is not None
            raise self.closed.with_traceback(None)

    async def aclose(self) -> None:
        """Detach, read on to the end, and make sure that the process is gone.

        `run` must have ended. Takes at most three times `CLOSE_GRACE` seconds and can't be
        cancelled: a client that is left unread keeps its server alive (tmux#5444).
        """
        if self.closed is None:
            with trio.CancelScope(shield=True):
                await self._end_process()
                self._close()

    async def end(self) -> None:
        """Detach while `run` is running, and wait until it has read to the end."""
        self.process.close_stdin()
        with trio.move_on_after(CLOSE_GRACE):
            await self._ended.wait()
            return
        await self.process.terminate(CLOSE_GRACE)
        await self._ended.wait()

    async def _read(self) -> None:
        fd = self.process.stdout_fd
        parser = self._parser
        while True:
            try:
                data = os.read(fd, READ_SIZE)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(fd)
                continue
            if not data:
                for event in parser.receive_eof():
                    self._take(event)
                return
            # No checkpoint from here until every event has been handed on.
            self.bytes_received += len(data)
            if self.bytes_received >= self._burst_at:
                self._burst.set()
            deliver = self.deliver
            for event in parser.receive_data(data):
                cls = type(event)
                if cls is ExtendedOutput or cls is Output:
                    deliver(event)
                else:
                    self._take(event)
            if parser.error is not None:
                raise parser.error
            await trio.lowlevel.wait_readable(fd)

    def _take(self, event: Event) -> None:
        if type(event) is Reply:
            self._take_reply(event)
        elif type(event) is Unknown:
            if event.line.startswith((b"%begin ", b"%end ", b"%error ")):
                raise ProtocolError("a guard without its reply: one was forged or lost", event.line)
            self.queue.receive_stray(event.line)
            self.deliver(event)
        else:
            if type(event) is Exit:
                self._exit_reason = event.reason
                # Nothing follows but the end; a tmux that is stuck is not waited for.
                self._end_reading_in(CLOSE_GRACE)
            self.deliver(event)

    def _take_reply(self, reply: Reply) -> None:
        if self.first_reply is None and not reply.flags & 1:
            self.first_reply = reply
            self._started.set()
        oldest = self.queue.oldest
        notices: list[Pause | Continue] = []
        if oldest is not None and reply.flags & 1 and reply.lines:
            notices = _notices(oldest.argv, reply.lines)
        for notice in notices:
            self.deliver(notice)
        request = self.queue.receive_reply(evolve(reply, lines=()) if notices else reply)
        self.deliver(reply)
        if request is not None:
            task = self._waiting.pop(request, None)
            if task is not None:
                trio.lowlevel.reschedule(task)
            if self._progress:
                self._progress.unpark_all()
            if self._room and len(self.queue) <= MAX_IN_FLIGHT // 2:
                self._room.unpark_all()

    def _end_reading_in(self, seconds: float) -> None:
        scope = self._reading
        scope.deadline = min(scope.deadline, trio.current_time() + seconds)

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        while True:
            await self._outgoing_added.wait()
            self._outgoing_added = trio.Event()
            self._writer_busy = True
            while self._outgoing:
                await trio.lowlevel.wait_writable(self.process.stdin_fd)
                self._writer_busy = False
                self.flush()
                if self._room and len(self._outgoing) <= MAX_OUTGOING // 2:
                    self._room.unpark_all()
            self._writer_busy = False

    @trio.lowlevel.enable_ki_protection
    async def _break_silence(self) -> None:
        """Get tmux going again where a burst is followed by silence.

        When the last pane with output in its queue is paused for being behind, tmux drops that
        output but does not write the lines queued behind it, replies among them, until it has
        something else to write (control_write_callback in control.c, 3.2 to 3.8). Any command
        gives it something.
        """
        while True:
            await self._burst.wait()
            before = -1
            while before != self.bytes_received:
                before = self.bytes_received
                await trio.sleep(SILENCE)
            self._burst = trio.Event()
            self._burst_at = self.bytes_received + BURST
            if self.first_reply is not None and self.closed is None:
                self.queue.abandon(self.send((FENCE, "-p", "")))

    async def _watch_process(self) -> None:
        # The server may hold the other end of our pipe a little longer than the client lives, or
        # for ever where it is stuck.
        await self.process.wait()
        self._end_reading_in(0.05)

    async def _drain(self) -> None:
        """Read and throw away until the end."""
        while True:
            # Waited for also where there is more, so that a flood does not hold up the end.
            await trio.lowlevel.wait_readable(self.process.stdout_fd)
            if not os.read(self.process.stdout_fd, READ_SIZE):
                return

    async def _end_process(self) -> None:
        # End of input is the politest way: no reply is due, and nothing is printed but %exit.
        self.process.close_stdin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)
            await self.process.terminate(CLOSE_GRACE)
            nursery.cancel_scope.cancel()

    async def _end(self) -> None:
        with trio.CancelScope(shield=True):
            if self._failure is not None:
                await self._end_process()
            # Callers wait for this, so a process that does not end is not waited for here.
            with trio.move_on_after(0.03):
                await self.process.wait()
                await self.process.read_stderr()
            self._close()
            await self.process.terminate(CLOSE_GRACE)

    def _close(self) -> None:
        reason = self._exit_reason
        if isinstance(self._failure, ProtocolError):
            reason = f"the stream broke: {self._failure}"
        self.closed = ConnectionClosed(
            reason, exit_status=self.process.exit_status, stderr=tuple(self.process.stderr)
        )
        self.closed.__cause__ = self._failure
        self.queue.close()
        for task in self._waiting.values():
            trio.lowlevel.reschedule(task)
        self._waiting.clear()
        self._room.unpark_all()
        self._progress.unpark_all()
        self._started.set()
        self._ended.set()
        self.process.close_stdin()
        self.process.close_output()


def _notices(argv: Sequence[Argument], lines: Sequence[bytes]) -> list[Pause | Continue]:
    """The notifications that tmux up to 3.7c writes into the reply of the command they are about.

    Empty where the reply holds anything else: then it is text, which can look like them.
    """
    if not argv or argv[0] not in _NOTIFYING:
        return []
    words = [word for word in argv if isinstance(word, str)]
    pane_ids = [match[0] for word in words if (match := _PANE_ID.match(word)) is not None]
    known = {b"%%pause %s" % pane_id.encode(): Pause(pane_id) for pane_id in pane_ids} | {
        b"%%continue %s" % pane_id.encode(): Continue(pane_id) for pane_id in pane_ids
    }
    return [known[line] for line in lines] if all(line in known for line in lines) else []
