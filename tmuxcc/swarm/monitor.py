"""What one agent writes: counted, watched for what it tells of the agent, kept, and held back.

A monitor is the one reader that every agent has. What its findings mean for the agent's life, and
what anybody else reads, must not live here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from ..client.client import Client
from ..client.expect import MAX_TEXT, TextWindow
from ..client.output import Chunk, Gap, Item, Restarted
from ..client.pane import Pane
from ..client.streams import LostOutput, OutputStream
from ..errors import ConnectionClosed, PaneNotFound
from .activity import ActivityTracker, Explanation
from .log import LogFile
from .policy import OutputBrake, OutputLimits, Verdict
from .rules import AgentKind
from .state import Activity

COALESCE = 0.02
"""Seconds within which what a program writes is looked at together: activity is told so much later,
and a flood costs fifty looks a second."""


class Monitor:
    """Reads what an agent writes. `run` must be running in a task while its pane is followed.

    `changed` is called when there is news: it wrote, or does something else; `became_ready` when it
    wrote what `ready_pattern` finds. `is_running` says whether its program runs, and `capture`
    gives its screen.
    """

    def __init__(
        self,
        client: Client,
        kind: AgentKind,
        *,
        limits: OutputLimits,
        log: LogFile | None,
        ready_pattern: str | None,
        is_running: Callable[[], bool],
        capture: Callable[[], Awaitable[str]],
        changed: Callable[[], None],
        became_ready: Callable[[], None],
    ) -> None:
        self.log = log
        self.lines = self.gaps = self.lost = 0
        self.is_reading = False
        self._client = client
        self._is_running = is_running
        self._capture = capture
        self._changed = changed
        self._became_ready = became_ready
        self._tracker = ActivityTracker(kind, now=trio.current_time())
        self._activity = self._tracker.activity
        self._brake = OutputBrake(limits)
        self._unmute_at: float | None = None
        self._ready = None if ready_pattern is None else re.compile(ready_pattern, re.MULTILINE)
        self._ready_window: TextWindow | None = None
        self._live_from = 0
        self._pane: Pane | None = None
        self._stream: OutputStream | None = None
        self._resting = trio.CancelScope()

    @property
    def activity(self) -> Activity:
        """What the agent is doing, as far as it can be told."""
        return self._activity

    @property
    def last_output(self) -> float | None:
        """When it wrote last, in trio's time."""
        return self._tracker.last_output

    def explain(self) -> Explanation:
        """Which rule or signal decided the activity, and what the others said."""
        return self._tracker.explain()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until nothing more will come."""
        stream = self._open_stream()
        self.is_reading = True
        try:
            while True:
                with trio.CancelScope(deadline=self._next_time()) as self._resting:
                    item = await stream.receive()
                    if item is None:
                        if stream is self._stream:
                            return
                        # Its program has been given another pane.
                        stream = self._open_stream()
                        continue
                    self._take(item, stream)
                await self._look_after()
                await trio.sleep(COALESCE)
        except (ConnectionClosed, PaneNotFound):
            # Whoever follows the agent's life is told the same.
            return
        finally:
            self.is_reading = False
            if self.log is not None:
                self.log.close()

    def _open_stream(self) -> OutputStream:
        assert self._pane is not None
        if self._stream is None:
            self._stream = self._pane.output(since=0)
        return self._stream

    # What others have to tell it

    def expect_program(self, pane: Pane) -> None:
        """What is read from here on was written by a program that has just been started."""
        if self._pane is not None and pane.pane_id != self._pane.pane_id:
            self._stream = None
            self._live_from = 0
        self._pane = pane
        self._tracker.restarted(trio.current_time())
        self._activity = self._tracker.activity
        self._ready_window = None if self._ready is None else TextWindow()
        self._brake.new_run()
        if self._unmute_at is None:
            pane.unmute()

    def note_running(self) -> None:
        """The program runs: from now on time tells something of it, also if it writes no more."""
        if self.is_reading:
            # Who has not begun to read will look by itself.
            self._resting.deadline = self._next_time()

    def begin_at(self, offset: int) -> None:
        """What lies before `offset` is old: it is neither limited nor written to the log again."""
        self._live_from = offset
        if self.log is not None:
            self.log.write(b"\r\n[tmuxcc: taken over here; the pane holds what came before]\r\n")

    def catch_up(self) -> None:
        """Look at once at what has been written, instead of in a moment."""
        stream = self._open_stream()
        self._take(stream.receive_nowait(), stream)

    def note_input(self) -> None:
        """Something is about to be typed."""
        # What was written before must not be taken for a reaction.
        self.catch_up()
        self._tracker.sent(trio.current_time())
        self._note_activity()

    def note_report(self, text: str) -> None:
        """The program said by itself what it is doing."""
        self._tracker.report(text, trio.current_time())
        self._note_activity()

    def stop_looking_for_ready(self) -> None:
        """The program is ready, or will not be."""
        self._ready_window = None

    # Reading

    def _next_time(self) -> float:
        # What has ended does nothing that would have to be looked at.
        next_time = self._tracker.next_time(trio.current_time()) if self._is_running() else None
        times = [next_time, self._unmute_at]
        return min((time for time in times if time is not None), default=float("inf"))

    def _take(self, item: Item | None, stream: OutputStream) -> None:
        now = trio.current_time()
        pieces: list[bytes] = []
        while item is not None:
            if isinstance(item, Chunk):
                live = max(0, self._live_from - item.offset)
                if old := item.data[:live]:
                    self.lines += old.count(b"\n")
                    self._tracker.receive(old, now)
                    self._look_for_ready(old)
                pieces.append(item.data[live:])
            elif isinstance(item, (Gap, Restarted)):
                self._receive(b"".join(pieces), now)
                pieces = []
                if isinstance(item, Gap):
                    self._note_gap(item)
                else:
                    assert self._pane is not None
                    self.expect_program(self._pane)
            item = stream.receive_nowait()
        self._receive(b"".join(pieces), now)

    def _receive(self, data: bytes, now: float) -> None:
        if not data:
            return
        self.lines += data.count(b"\n")
        self._tracker.receive(data, now)
        self._look_for_ready(data)
        if self.log is not None:
            self.log.write(data)
        self._obey(self._brake.receive(len(data), now))

    def _look_for_ready(self, data: bytes) -> None:
        window, pattern = self._ready_window, self._ready
        if window is None or pattern is None:
            return
        for start in range(0, len(data), MAX_TEXT):
            window.receive(data[start : start + MAX_TEXT])
            if window.search([pattern]) is not None:
                self._ready_window = None
                self._became_ready()
                return

    def _note_gap(self, gap: Gap) -> None:
        self.gaps += 1
        self.lost += gap.size or 0
        if self.log is not None:
            self.log.write(f"\r\n{LostOutput(gap)}\r\n".encode())
        if gap.cause == "limit":
            self._obey(self._brake.drop(gap.size or 0))

    def _obey(self, verdict: Verdict) -> None:
        pane = self._pane
        assert pane is not None
        if verdict.action != "go-on":
            self._unmute_at = verdict.until
            if pane.statistics().exit_status is None:
                # What the next program writes is another matter.
                pane.mute()
        if verdict.clear_history:
            # Between two connections there is no hurry.
            with suppress(ConnectionClosed):
                self._client.command_nowait("clear-history", "-t", pane.pane_id)

    async def _look_after(self) -> None:
        """What time brings: looks at the screen, the end of a limit, news for others."""
        now = trio.current_time()
        if self._unmute_at is not None and now >= self._unmute_at:
            self._unmute_at = None
            if self._brake.resume(now) and self._pane is not None:
                self._pane.unmute()
        if self._tracker.wants_look(now) and self._is_running():
            screen = await self._capture()
            self._tracker.look(screen.split("\n"), trio.current_time())
        self._tracker.tick(trio.current_time())
        self._activity = self._tracker.activity
        # Also without another activity there is news: it wrote.
        self._changed()

    def _note_activity(self) -> None:
        if self._tracker.activity is not self._activity:
            self._activity = self._tracker.activity
            self._changed()
        # There may be less time now.
        self._resting.deadline = self._next_time()
