"""Every pane that the client has seen: its output, its pauses, and its end.

The client's reader calls this with each event that concerns a pane. What a single pane can be
asked to do is in pane.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from ..errors import CommandError, ConnectionClosed, PaneNotFound, TmuxError
from ..protocol.events import Event, Output, Pause, Reply, SubscriptionChanged
from .expect import TextWindow
from .output import ExitStatus, OutputStream, PaneOutput
from .snapshot import STATE_FORMAT, draw

MAX_ENDED = 512
"""Logs of panes that have ended; older ones are forgotten. A log holds little unless it flooded."""

DEATH_SUBSCRIPTION = "tmuxcc-dead"

_DEATH_FORMAT = "#{pane_id} #{pane_dead} #{pane_dead_status} #{pane_dead_signal}"


class PaneTable:
    """The panes of one client.

    `command` sends one command and gives its lines; so does `ordered_command`, with a reply that
    comes behind all output that was written before it. `ordered_line` sends several commands as
    one line, in which nothing can run in between, and gives their replies. All raise what
    `Client.command` raises.
    """

    def __init__(
        self,
        *,
        history: int,
        command: Callable[..., Awaitable[list[str]]],
        ordered_command: Callable[..., Awaitable[list[str]]],
        ordered_line: Callable[[Sequence[Sequence[str]]], Awaitable[Sequence[Reply]]],
        start_soon: Callable[..., None],
    ) -> None:
        self.pauses = 0
        self.nonces: set[bytes] = set()
        self._history = history
        self._command = command
        self._ordered_command = ordered_command
        self._ordered_line = ordered_line
        self._start_soon = start_soon
        self._logs: dict[str, PaneOutput] = {}
        self._ended: dict[str, None] = {}
        self._seeding: dict[str, trio.Lock] = {}
        self._confirmed: set[str] = set()
        self._expectations: dict[str, tuple[TextWindow, OutputStream]] = {}
        self._look = trio.Event()
        self._watching_deaths = False

    def __len__(self) -> int:
        return len(self._logs)

    def log(self, pane_id: str) -> PaneOutput:
        """The log of a pane, from now on kept if it was not known."""
        log = self._logs.get(pane_id)
        if log is None:
            log = self._logs[pane_id] = PaneOutput(pane_id, self._history, self.nonces)
        return log

    def logs(self) -> Sequence[PaneOutput]:
        """All logs."""
        return tuple(self._logs.values())

    def receive_output(self, event: Output) -> None:
        """A pane wrote something."""
        log = self._logs.get(event.pane_id) or self.log(event.pane_id)
        log.receive(event.data)
        if log.ended_by_mark and event.pane_id not in self._ended:
            self._note_end(event.pane_id)
            self._start_soon(self._let_go, event.pane_id)

    def receive_pause(self, event: Pause) -> None:
        """tmux has stopped the output of a pane; start it again, with what it missed marked."""
        log = self.log(event.pane_id)
        self.pauses += 1
        if event.pane_id in self._seeding:
            log.gap("seed")
            log.hold()
        else:
            log.gap("pause")
            log.hold()
            self._start_soon(self._resume, event.pane_id)

    def receive_hint(self, event: Event) -> None:
        """Something happened after which a pane may be gone or dead."""
        if not isinstance(event, SubscriptionChanged) or event.name == DEATH_SUBSCRIPTION:
            self._look.set()

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
        )
        self._expectations[pane_id] = window, stream

    def take_expectation(self, pane_id: str) -> tuple[TextWindow, OutputStream] | None:
        """Where waiting for text goes on in a pane, for one task at a time; None: nowhere yet."""
        return self._expectations.pop(pane_id, None)

    def keep_expectation(self, pane_id: str, window: TextWindow, stream: OutputStream) -> None:
        """Let the next wait go on here, unless something was typed in the meantime."""
        self._expectations.setdefault(pane_id, (window, stream))

    def fail(self, error: TmuxError) -> None:
        """The connection has ended."""
        for log in self._logs.values():
            log.fail(error)

    async def check(self, pane_id: str) -> None:
        """Make sure that the pane exists or has existed, and that its end will be seen.

        Raises `PaneNotFound`.
        """
        await self.watch_deaths()
        log = self._logs.get(pane_id)
        if pane_id in self._confirmed or (log is not None and (log.end or log.ended)):
            return
        lines = await self._command("list-panes", "-a", "-F", "#{pane_id}")
        if pane_id not in lines and not self.log(pane_id).ended:
            self._logs.pop(pane_id, None)
            raise PaneNotFound(pane_id)
        self._confirmed.add(pane_id)

    async def watch_deaths(self) -> None:
        """Have tmux tell of panes that die and stay; of those that vanish it tells anyway."""
        if not self._watching_deaths:
            self._watching_deaths = True
            what = "#{pane_dead},#{pane_dead_status},#{pane_dead_signal}"
            await self._command("refresh-client", "-B", f"{DEATH_SUBSCRIPTION}:%*:{what}")
            self._look.set()

    async def take_snapshot(self, pane_id: str) -> int:
        """Put an exact snapshot into the pane's log; its item number.

        Output is stopped for it, so every reader of this pane sees a `Gap` before it.
        """
        lock = self._seeding.setdefault(pane_id, trio.Lock())
        log = self.log(pane_id)
        async with lock:
            try:
                await self._command("refresh-client", "-A", f"{pane_id}:pause")
                return await self._capture_and_continue(log)
            finally:
                if not lock.statistics().tasks_waiting:
                    self._seeding.pop(pane_id, None)

    async def look_for_deaths(self) -> None:
        """Whenever there is a reason to, ask tmux which panes are left. Runs until cancelled."""
        while True:
            await self._look.wait()
            self._look = trio.Event()
            if any(not log.ended for log in self._logs.values()):
                await self._list_deaths()

    async def _list_deaths(self) -> None:
        known = [log for log in self._logs.values() if not log.ended]
        try:
            lines = await self._ordered_command("list-panes", "-a", "-F", _DEATH_FORMAT)
        except CommandError:
            # The last session has just gone, and every pane with it.
            lines = []
        states = {line.split(" ")[0]: line.split(" ")[1:] for line in lines}
        for log in known:
            state = states.get(log.pane_id)
            if state is None:
                self._finish(log, ExitStatus(None, None))
            elif state[0] == "1":
                code, number = state[1], (*state, "")[2]
                if code or number:
                    self._finish(
                        log,
                        ExitStatus(int(code) if code else None, int(number) if number else None),
                    )
                elif not log.ended:
                    self._start_soon(self._wait_status, log)

    async def _wait_status(self, log: PaneOutput) -> None:
        # Some builds up to 3.5a miss the end of a child until the next one ends: give them one.
        # Up to 3.2 a death by signal has no status at all, so this can't go on for ever.
        for delay in (0.01, 0.02, 0.05, 0.1, 0.3):
            await self._command("run-shell", "-b", ":")
            await trio.sleep(delay)
            state = await self._command(
                "display-message",
                "-p",
                "-t",
                log.pane_id,
                "#{pane_dead_status} #{pane_dead_signal}",
            )
            code, _, number = (state or [" "])[0].partition(" ")
            if code or number:
                break
        self._finish(log, ExitStatus(int(code) if code else None, int(number) if number else None))

    def _finish(self, log: PaneOutput, status: ExitStatus) -> None:
        log.finish(status)
        self._note_end(log.pane_id)

    def _note_end(self, pane_id: str) -> None:
        self._ended[pane_id] = None
        self._confirmed.discard(pane_id)
        if len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._logs.pop(oldest, None)
            self._expectations.pop(oldest, None)

    async def _resume(self, pane_id: str) -> None:
        log = self.log(pane_id)
        if log.seeded:
            await self._capture_and_continue(log)
        else:
            # Nobody wants the screen, and what comes from here on is in order.
            log.release(None)
            await self._command("refresh-client", "-A", f"{pane_id}:continue")

    async def _capture_and_continue(self, log: PaneOutput) -> int:
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
        try:
            replies = await self._ordered_line(commands)
            if len(replies) == 4 and all(reply.ok for reply in replies[:3]):
                screen, pending, state = (reply.lines for reply in replies[:3])
                snapshot = draw(screen, pending, state[0].decode("ascii", "replace"))
        finally:
            number = log.release(snapshot)
        if snapshot is None and not log.ended:
            raise PaneNotFound(pane)
        return number

    async def _let_go(self, pane_id: str) -> None:
        """The mark is here, so all is here: the wrapper may end."""
        try:
            lines = await self._command("display-message", "-p", "-t", pane_id, "#{pane_pid}")
            if lines and lines[0].isdigit():
                await self._command("run-shell", "-b", f"kill -TERM {lines[0]} 2>/dev/null")
        except (CommandError, ConnectionClosed):
            # The pane is gone already, or the wrapper's own time limit will do.
            return
