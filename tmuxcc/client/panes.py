"""Every pane that the client has seen: its output, its pauses, and the programs in it.

The client's reader calls this with each event that concerns the output of a pane. What a single
pane can be asked to do is in pane.py, how the end of a program is seen in deaths.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from attrs import Factory, define

from ..errors import CommandError, ConnectionClosed, PaneNotFound, TmuxError
from ..protocol.events import Continue, Output, Pause, Reply
from .deaths import UNKNOWN, DeathWatch, ThroughReconnects, WatchedPane
from .expect import TextWindow
from .output import ExitStatus, PaneOutput
from .program import WRAPPER_NAME, new_nonce, nonce_of, wrapped
from .snapshot import STATE_FORMAT, draw
from .streams import OutputStream

MAX_ENDED = 512
"""Logs of panes that have ended; older ones are forgotten. A log holds little unless it flooded."""

BACKLOG_PIECE = 1 << 13
"""Bytes: what an adopted pane shows enters its log in pieces of the size in which tmux writes."""

STILL_ACTIVE = "still active"
"""What tmux says of a pane whose program it won't replace, since it runs (cmd-respawn-pane.c)."""

_STARTED_FORMAT = "#{pane_dead} #{pane_start_command}"


@define(eq=False)
class _Record(WatchedPane):
    """What is known of one pane.

    `is_paused`: tmux has stopped its output, and nobody has begun to start it again; `turn` is
    held by the one task that stops or starts it, and `is_seeding` says that its pause is on its
    way.
    """

    is_paused: bool = False
    is_seeding: bool = False
    turn: trio.Lock = Factory(trio.Lock)
    expectation: tuple[TextWindow, OutputStream] | None = None


class PaneTable:
    """The panes of one client.

    `command` sends one command and gives its lines; so does `ordered_command`, with a reply that
    comes behind all output that was written before it. `ordered_line` sends several commands as
    one line, in which nothing can run in between, and gives their replies. All raise what
    `Client.command` raises. `through_reconnects` is that of the client. `start_soon` runs a
    function in a task of its own, in which it may raise `ConnectionClosed` and `PaneNotFound`.
    `deaths` sees the panes end.
    """

    def __init__(
        self,
        *,
        history: int,
        command: Callable[..., Awaitable[list[str]]],
        ordered_command: Callable[..., Awaitable[list[str]]],
        ordered_line: Callable[[Sequence[Sequence[str]]], Awaitable[Sequence[Reply]]],
        through_reconnects: ThroughReconnects,
        start_soon: Callable[..., None],
    ) -> None:
        self.pauses = 0
        self.nonces: set[bytes] = set()
        self._history = history
        self._command = command
        self._ordered_line = ordered_line
        self._through_reconnects = through_reconnects
        self._start_soon = start_soon
        self._panes: dict[str, _Record] = {}
        self._ended: dict[str, None] = {}  # those that may be forgotten, the oldest first
        self.deaths = DeathWatch(
            self._panes,
            self._finish,
            command=command,
            ordered_command=ordered_command,
            through_reconnects=through_reconnects,
            start_soon=start_soon,
        )

    def __len__(self) -> int:
        return len(self._panes)

    def _record(self, pane_id: str) -> _Record:
        record = self._panes.get(pane_id)
        if record is None:
            record = self._panes[pane_id] = _Record(self._new_log(pane_id))
        return record

    def _new_log(self, pane_id: str) -> PaneOutput:
        return PaneOutput(pane_id, self._history, self.nonces, self._receive_mark)

    def log(self, pane_id: str) -> PaneOutput:
        """The log of a pane, from now on kept if it was not known."""
        return self._record(pane_id).log

    def peek(self, pane_id: str) -> PaneOutput:
        """The log of a pane; of one that is not known an empty one, which is not kept."""
        record = self._panes.get(pane_id)
        return self._new_log(pane_id) if record is None else record.log

    def drop_unseen(self, pane_id: str) -> None:
        """Forget a pane that is not there, unless it is known to have been."""
        record = self._panes.get(pane_id)
        if record is not None and not (
            record.is_there or record.log.end or record.log.exit_status is not None
        ):
            del self._panes[pane_id]
            self.nonces.discard(record.log.nonce)

    def logs(self) -> Sequence[PaneOutput]:
        """All logs."""
        return tuple(record.log for record in self._panes.values())

    def receive_output(self, event: Output) -> None:
        """A pane wrote something."""
        self._record(event.pane_id).log.receive(event.data)

    def _receive_mark(self, log: PaneOutput, nonce: bytes) -> None:
        self.nonces.discard(nonce)
        self._note_end(log)
        if log.lets_go:
            self._let_go(log)

    def receive_pause(self, event: Pause) -> None:
        """tmux has stopped the output of a pane; start it again, with what it missed marked."""
        record = self._record(event.pane_id)
        if record.is_respawning:
            # What is missing is of the program that is being killed, unless it stays so.
            record.is_paused = True
            return
        self.pauses += 1
        record.log.gap("seed" if record.is_seeding else "pause")
        record.log.hold()
        record.is_paused = True
        if not record.turn.locked():
            self._start_soon(self._resume, record)

    def receive_continue(self, event: Continue) -> None:
        """tmux sends the output of a pane again: we have asked for it, but for a `respawn`."""
        record = self._panes.get(event.pane_id)
        if record is not None and record.is_respawning:
            record.is_paused = False

    def typed(self, pane_id: str, text: str) -> None:
        """`text` is about to be typed: waiting for text begins behind this point."""
        window = TextWindow()
        window.expect_echo(text)
        stream = OutputStream(
            self.log(pane_id),
            since=None,
            overflow="drop",
            take_snapshot=None,
            check=lambda: self.check(pane_id),
            one_program=True,
        )
        self._record(pane_id).expectation = window, stream

    def take_expectation(self, pane_id: str) -> tuple[TextWindow, OutputStream] | None:
        """Where waiting for text goes on in a pane, for one task at a time; None: nowhere yet."""
        record = self._panes.get(pane_id)
        if record is None:
            return None
        expectation, record.expectation = record.expectation, None
        return expectation

    def keep_expectation(self, pane_id: str, window: TextWindow, stream: OutputStream) -> None:
        """Let the next wait go on here, unless something was typed in the meantime."""
        record = self._panes.get(pane_id)
        if record is not None and record.expectation is None:
            record.expectation = window, stream

    def reconnected(self) -> None:
        """Another connection goes on where one has ended; what was written in between is lost."""
        for pane_id, record in tuple(self._panes.items()):
            # What was paused is not on a new connection.
            record.is_paused = False
            record.log.release(None)
            record.log.gap("reconnect")
            if record.log.seeded:
                self._start_soon(self.take_snapshot, pane_id)
        self.deaths.reconnected()

    def fail(self, error: TmuxError) -> None:
        """The connection has ended."""
        for log in self.logs():
            log.fail(error)

    async def check(self, pane_id: str) -> None:
        """Make sure that the pane exists or has existed, and that its end will be seen.

        Raises `PaneNotFound`.
        """
        await self._through_reconnects(lambda: self._check(pane_id))

    async def _check(self, pane_id: str) -> None:
        record = self._panes.get(pane_id)
        if record is not None and (record.is_there or record.log.exit_status is not None):
            return
        where = ("list-panes", "-a", "-F", "#{pane_id} #{pane_dead} #{pane_pid}")
        try:
            lines = await self._command(*where)
        except CommandError:
            # The last session has just gone, and every pane with it.
            lines = []
        states = dict(line.split(" ", 1) for line in lines)
        if pane_id in states:
            dead, pid = states[pane_id].split(" ")
            if dead == "1":
                # The number of its process may be that of another by now.
                self._record(pane_id).is_there = True
                self.deaths.look_soon()
            else:
                self.deaths.watch(self._record(pane_id), int(pid or 0))
        elif record is None or not (record.log.end or record.log.ended):
            self.drop_unseen(pane_id)
            raise PaneNotFound(pane_id)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """`argv` under the wrapper that tells its end in its output, which will be understood."""
        nonce = new_nonce()
        program = wrapped(argv, nonce)
        # Known before it is used: a pane may write before the reply that names it is read.
        self.nonces.add(nonce.encode())
        return program

    def unwrap(self, program: Sequence[str]) -> None:
        """`program`, which `wrap` has given, was not started."""
        self.nonces.discard(nonce_of(program))

    def started(self, pane_id: str, pid: int, program: Sequence[str]) -> None:
        """A pane was made for `program`, which `wrap` has given, as process `pid`.

        0 where it is dead already.
        """
        record = self._record(pane_id)
        record.log.tells_end, record.log.nonce = True, nonce_of(program)
        if pid:
            self.deaths.watch(record, pid)
        else:
            record.is_there = True
            self.deaths.look_soon()

    async def respawn(
        self, pane_id: str, argv: Sequence[str], options: Sequence[str], *, kill: bool
    ) -> None:
        """Start another program in a pane; its output continues the log. See `Pane.respawn`."""
        record = self._record(pane_id)
        log = record.log
        if log.failure is not None:
            raise log.failure
        if log.exit_status is None and not kill:
            await self._wait_ended(log)
        status = log.exit_status
        program = self.wrap(argv)
        words = ["-t", pane_id, *options, "--", *program]
        # One of which nothing was seen may have been started before by a call that failed.
        was_started = log.end > 0 or log.programs > 1
        if status is None and was_started:
            # The last words of what is killed are lost.
            log.gap("killed")
        # Whoever watches the end of what runs there must not take it for that of its successor.
        if status is not None or was_started or record.is_there:
            log.finish(status or UNKNOWN)
            log.restart()
        self.nonces.discard(log.nonce)
        log.nonce = nonce_of(program)
        record.pid = None
        self._ended.pop(pane_id, None)
        try:
            await self._replace(record, words, kill=kill, ended=status)
            log.tells_end = True
            record.is_unsure = False
            record.expectation = None
            pid = await self._command("display-message", "-p", "-t", pane_id, "#{pane_pid}")
            self.deaths.watch(record, int(pid[0] or 0))
        except BaseException:
            # Whatever runs there now, its end is to be seen.
            record.is_there = False
            record.is_unsure = True
            self._start_soon(self.check, pane_id)
            raise

    async def _replace(
        self, record: _Record, words: Sequence[str], *, kill: bool, ended: ExitStatus | None
    ) -> None:
        log = record.log
        # What tmux says of the pane's death is about the last program until it has the new one.
        record.is_respawning = True
        try:
            await self._respawn(words, kill=kill, ended=ended is not None)
        except CommandError:
            if ended is not None:
                log.finish(ended)
                self._note_end(log)
            raise
        finally:
            record.is_respawning = False
            self.deaths.look_soon()
            if record.is_paused:
                # By tmux, or for this (`respawn-crash`); what should continue it may not have run.
                log.gap("pause")
                log.hold()
                self._start_soon(self._resume, record)

    async def _wait_ended(self, log: PaneOutput) -> None:
        """Wait for the end of a program that has ended; raise `CommandError` if it runs."""
        where = ("display-message", "-p", "-t", log.pane_id)
        dead = await self._command(*where, "#{pane_dead}")
        if dead == ["0"]:
            raise CommandError(("respawn-pane", "-t", log.pane_id), [STILL_ACTIVE])
        if dead == ["1"] and log.exit_status is None:
            await self.deaths.wait_status(log, log.programs)

    async def _respawn(self, words: Sequence[str], *, kill: bool, ended: bool) -> None:
        # The last wrapper may still be on its way out, or be dead without tmux having noticed.
        for delay in () if kill or not ended else (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3):
            try:
                await self._command("respawn-pane", *words)
            except CommandError as error:
                if STILL_ACTIVE not in " ".join(error.lines):
                    raise
            else:
                return
            await self._command("run-shell", "-b", ":")
            await trio.sleep(delay)
        await self._command("respawn-pane", *(["-k"] if kill or ended else []), *words)

    def keep_open(self, pane_id: str, keep: bool) -> None:
        """Whether the log of a pane stays open for the next program when one has ended."""
        log = self.log(pane_id)
        log.kept_open = keep
        if keep:
            log.kept = True
            self._ended.pop(pane_id, None)
        elif log.exit_status is not None:
            self._note_end(log)
        log.wake()

    def pid(self, pane_id: str) -> int | None:
        """The pane's process, if it is known and of this machine."""
        record = self._panes.get(pane_id)
        return None if record is None else record.pid

    async def hook_death(self, pane_id: str) -> None:
        """Have tmux tell of the pane's death at once; see `Pane.hook_death`."""
        if not await self.deaths.hook(self._record(pane_id)):
            self.drop_unseen(pane_id)

    def forget(self, pane_id: str) -> None:
        """The pane is gone and nobody will ask for it again."""
        record = self._panes.pop(pane_id, None)
        self._ended.pop(pane_id, None)
        if record is not None:
            record.log.kept_open = False
            record.log.finish(UNKNOWN)
            self.nonces.discard(record.log.nonce)

    async def take_snapshot(self, pane_id: str) -> int:
        """Put an exact snapshot into the pane's log; its item number.

        Output is stopped for it, so every reader of this pane sees a `Gap` before it.
        """
        return await self._through_reconnects(lambda: self._take_snapshot(pane_id))

    async def _take_snapshot(self, pane_id: str) -> int:
        record = self._record(pane_id)
        async with self._turn(record), self._stopped(record):
            return await self._capture_and_continue(record)

    @asynccontextmanager
    async def _turn(self, record: _Record) -> AsyncIterator[None]:
        """The only task that stops and starts this pane.

        Where it leaves the pane paused, because it was cancelled or tmux has paused it again in the
        meantime, another task is started that resumes it.
        """
        async with record.turn:
            try:
                yield
            finally:
                if record.is_paused:
                    self._start_soon(self._resume, record)

    @asynccontextmanager
    async def _stopped(self, record: _Record) -> AsyncIterator[None]:
        """The pane's output is stopped; the block, in its turn, is to continue it."""
        pane_id = record.log.pane_id
        try:
            record.is_seeding = True
            try:
                await self._command("refresh-client", "-A", f"{pane_id}:pause")
            finally:
                record.is_seeding = False
            # Where it was paused already, tmux does not say so again.
            record.log.hold()
            yield
        except TmuxError:
            record.is_paused = False
            record.log.release(None)
            self._start_soon(self._continue, pane_id)
            raise
        except BaseException:
            # Cancelled: it may be stopped, or just about to be.
            record.is_paused = True
            raise

    async def adopt(self, pane_id: str, *, let_go: bool) -> None:
        """Begin the log of a pane with what the pane shows and holds. See `Pane.adopt`."""
        started = await self._command("display-message", "-p", "-t", pane_id, _STARTED_FORMAT)
        record = self._record(pane_id)
        record.log.lets_go = let_go
        nonce = re.search(rf"\b{WRAPPER_NAME} ([0-9a-f]{{32}})\b", " ".join(started))
        if nonce is not None:
            self.nonces.add(nonce[1].encode())
        async with self._turn(record), self._stopped(record):
            record.is_paused = False
            backlog = await self._read_backlog(pane_id)
            # What the pane wrote since we attached is in the backlog too, up to the pause.
            log = self._new_log(pane_id)
            log.assume_pastes()
            # Where it is dead already, the mark has come and gone.
            log.tells_end = nonce is not None and not " ".join(started).startswith("1")
            log.lets_go = let_go
            log.kept, log.kept_open = record.log.kept, record.log.kept_open
            log.nonce = b"" if nonce is None else nonce[1].encode()
            # In pieces, so that the bound of the log costs no more than what is beyond it.
            for start in range(0, len(backlog), BACKLOG_PIECE):
                log.receive(backlog[start : start + BACKLOG_PIECE])
            # Whatever watches or reads the last log does not know this one.
            last, record.log, record.pid, record.is_there = record.log, log, None, False
            record.expectation = None
            self._panes[pane_id] = record
            self._ended.pop(pane_id, None)
            last.move_held(log)
            if last.ended_by and last.ended_by == log.nonce and last.exit_status is not None:
                # The mark came before its output was stopped.
                log.finish(last.exit_status)
                self._note_end(log)
            last.fail(TmuxError(f"pane {pane_id} was adopted: read it anew"))
        await self.check(pane_id)

    async def _read_backlog(self, pane_id: str) -> bytes:
        replies = await self._ordered_line(
            (
                ("capture-pane", "-peJS", "-", "-t", pane_id),
                ("display-message", "-p", "-t", pane_id, "#{cursor_x}"),
                ("refresh-client", "-A", f"{pane_id}:continue"),
            )
        )
        if len(replies) != 3 or not replies[0].ok:
            self.drop_unseen(pane_id)
            raise PaneNotFound(pane_id)
        lines = [line.rstrip(b" ") for line in replies[0].lines]
        while lines and not lines[-1]:
            lines.pop()
        if not lines:
            return b""
        # The cursor stands in the last line while that is not finished.
        end = b"\r\n" if replies[1].lines == (b"0",) else b""
        return b"\r\n".join(lines) + end

    def _finish(self, log: PaneOutput, status: ExitStatus) -> None:
        # The mark may be held.
        log.release(None)
        if log.tells_end and log.exit_status is None:
            # Its mark should have come behind its last byte.
            log.gap("killed")
        log.finish(status)
        self.nonces.discard(log.nonce)
        self._note_end(log)

    def _note_end(self, log: PaneOutput) -> None:
        record = self._panes.get(log.pane_id)
        if record is None or record.log is not log:
            # It was forgotten, and its pane has another one.
            return
        record.is_there = False
        if log.kept:
            return
        self._ended[log.pane_id] = None
        if len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._panes.pop(oldest, None)

    async def _resume(self, record: _Record) -> None:
        async with self._turn(record):
            if not record.is_paused:
                return
            if record.log.seeded:
                # It may go on already, where nobody knows whether a command has come through.
                async with self._stopped(record):
                    await self._capture_and_continue(record)
            else:
                # Nobody wants the screen, and what comes from here on is in order.
                record.is_paused = False
                record.log.release(None)
                await self._continue(record.log.pane_id)

    async def _continue(self, pane_id: str) -> None:
        await self._command("refresh-client", "-A", f"{pane_id}:continue")

    async def _capture_and_continue(self, record: _Record) -> int:
        log = record.log
        # Only the first of the replies is the text of a program; -C writes the second without
        # line ends.
        pane = log.pane_id
        commands = (
            ("capture-pane", "-peN", "-t", pane),
            ("capture-pane", "-pPC", "-t", pane),
            ("display-message", "-p", "-t", pane, STATE_FORMAT),
            ("refresh-client", "-A", f"{pane}:continue"),
        )
        snapshot = None
        # A pause that comes from here on is another one.
        record.is_paused = False
        try:
            replies = await self._ordered_line(commands)
            if len(replies) == 4 and all(reply.ok for reply in replies[:3]):
                screen, pending, state = (reply.lines for reply in replies[:3])
                snapshot = draw(screen, pending, state[0].decode("ascii", "replace"))
        finally:
            number = log.release(snapshot)
        if snapshot is None and not log.ended:
            self.drop_unseen(pane)
            raise PaneNotFound(pane)
        return number

    def _let_go(self, log: PaneOutput) -> None:
        """The mark is here, so all is here: the wrapper may end."""
        record = self._panes.get(log.pane_id)
        if record is None or not self.deaths.terminate(record):
            self._start_soon(self._ask_to_go, log, log.programs)

    async def _ask_to_go(self, log: PaneOutput, program: int) -> None:
        # Where the pane is gone already, or this fails, the wrapper's own time limit will do.
        with suppress(CommandError, ConnectionClosed):
            where = ("display-message", "-p", "-t", log.pane_id)
            # What has ended may have left its number to another process.
            lines = await self._command(*where, "#{?pane_dead,,#{pane_pid}}")
            if lines and lines[0].isdigit() and log.programs == program:
                await self._command("run-shell", "-b", f"kill -TERM {lines[0]} 2>/dev/null")
