"""When the programs of panes end, and how, where no mark in their output tells.

That is so for programs that somebody else started and for wrappers that were killed. The kernel
tells of the end of a process at once, tmux a little later, and only tmux knows the status. What
follows from an end is not decided here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

import trio
from attrs import define

from ..errors import CommandError, ConnectionClosed
from ..protocol.events import Event, Message, SubscriptionChanged
from .output import ExitStatus, PaneOutput
from .pidfd import ProcessWatch

T = TypeVar("T")

UNKNOWN = ExitStatus(None, None)

DEATH_SUBSCRIPTION = "tmuxcc-dead"

DEATH_HOOK = "pane-died[6973]"
"""The hook of a pane that tells us of its death, with an index that spares the user's own."""

DEATH_MESSAGE = "tmuxcc-pane-died"

STATUS_DELAYS = (0, 0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3)
"""Seconds before each question how a process ended. Up to 3.2 tmux has no status at all for a death
by signal, so this can't go on for ever."""

UNPROMPTED_QUESTIONS = 3
"""How often tmux is asked how a process ended before it is given another child, whose end has it
look again: some builds up to 3.5a miss an end now and then, but a child costs more than a question.
"""

_FORMAT = "#{pane_dead} #{pane_dead_status} #{pane_dead_signal}"


class ThroughReconnects(Protocol):
    """`Client.through_reconnects`."""

    async def __call__(self, function: Callable[[], Awaitable[T]], /) -> T:
        """What `function` gives, asked again where a connection has ended."""
        ...


@define(eq=False)
class WatchedPane:
    """A pane whose end is to be seen.

    `pid` is its process, if that is watched; `is_there` says that tmux has confirmed it and
    `is_hooked` that its hook tells us of its death. `is_respawning`: its program is being replaced,
    so that what tmux says of it may be about either. `is_unsure`: that has failed, so that the
    process may be either's.
    """

    log: PaneOutput
    pid: int | None = None
    is_there: bool = False
    is_hooked: bool = False
    is_respawning: bool = False
    is_unsure: bool = False


class DeathWatch:
    """Sees panes of `panes` end, and calls `finish` with the log of each and how it ended.

    The other arguments are as for `PaneTable`. A task that this starts with `start_soon` may raise
    `ConnectionClosed` at any loss of the connection; `run` never does.
    """

    def __init__(
        self,
        panes: Mapping[str, WatchedPane],
        finish: Callable[[PaneOutput, ExitStatus], None],
        *,
        command: Callable[..., Awaitable[list[str]]],
        ordered_command: Callable[..., Awaitable[list[str]]],
        through_reconnects: ThroughReconnects,
        start_soon: Callable[..., None],
    ) -> None:
        self._panes = panes
        self._finish = finish
        self._command = command
        self._ordered_command = ordered_command
        self._through_reconnects = through_reconnects
        self._start_soon = start_soon
        self._processes = ProcessWatch()
        self._hint = trio.Event()
        self._is_subscribed = False
        self._client_name = ""
        self._is_local = False

    def connected(self, client_name: str, *, is_local: bool) -> None:
        """A connection is ready: the client's name, and whether tmux runs on this machine."""
        self._client_name = client_name
        self._is_local = is_local

    def reconnected(self) -> None:
        """Another connection goes on where one has ended."""
        for pane in self._panes.values():
            if pane.is_hooked:
                self._start_soon(self.hook, pane)
        if self._is_subscribed:
            self._start_soon(self._subscribe)
        self.look_soon()

    def look_soon(self) -> None:
        """Panes may be dead or gone: have tmux asked."""
        self._hint.set()

    def receive_hint(self, event: Event) -> None:
        """Something happened after which a pane may be dead or gone."""
        if isinstance(event, SubscriptionChanged):
            if event.name == DEATH_SUBSCRIPTION:
                self.look_soon()
        elif not isinstance(event, Message):
            self.look_soon()
        elif event.text.startswith(DEATH_MESSAGE):
            pane = self._panes.get(event.text.removeprefix(f"{DEATH_MESSAGE} "))
            if pane is not None and _is_asked_about(pane):
                self._start_soon(self._look_at, pane.log, pane.log.programs)

    def watch(self, pane: WatchedPane, pid: int) -> None:
        """See the end of a pane's process at once, where it is one of this machine.

        0 is the `pid` of a pane that has none.
        """
        # What runs while a program is replaced is the one before it.
        if pane.log.exit_status is not None or pane.is_respawning:
            return
        pane.is_there = True
        if pid and self._is_local:
            if pane.pid == pid:
                return
            pane.pid = pid
            if self._processes.watch(pid, partial(self._gone, pane.log, pane.log.programs)):
                return
        self._start_soon(self._watch_by_tmux)

    def terminate(self, pane: WatchedPane) -> bool:
        """Send SIGTERM to the process of a pane, if it is watched; whether it is."""
        return pane.pid is not None and self._processes.terminate(pane.pid)

    async def hook(self, pane: WatchedPane) -> bool:
        """Have tmux tell us of the pane's death at once, where it can (3.4 and later).

        For panes of our own, as it leaves a hook on them. Returns whether the pane is there.
        """
        pane.is_hooked = True
        told = f"display-message -c '{self._client_name}' '{DEATH_MESSAGE} #{{hook_pane}}'"
        try:
            await self._command("set-hook", "-p", "-t", pane.log.pane_id, DEATH_HOOK, told)
        except CommandError:
            return False
        return True

    async def run(self) -> None:
        """Watch processes and, whenever there is a reason to, ask tmux which panes are left.

        Runs until cancelled.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._processes.run)
            while True:
                await self._hint.wait()
                self._hint = trio.Event()
                if any(pane.log.exit_status is None for pane in self._panes.values()):
                    with suppress(ConnectionClosed):
                        await self._list()

    async def wait_status(self, log: PaneOutput, program: int) -> None:
        """The process of a pane is gone: ask tmux how, which may not know it yet.

        `program` is the number that its program has in `log`. That has ended then, unless the
        process may have been that of another one.
        """
        status = None
        for asked, delay in enumerate(STATUS_DELAYS):
            if asked >= UNPROMPTED_QUESTIONS:
                await self._command("run-shell", "-b", ":")
            await trio.sleep(delay)
            state = await self._ask(log.pane_id)
            if state is None:
                # It has gone with its process.
                break
            status = _status(state)
            if status is not None or log.exit_status is not None:
                break
        runs = state is not None and state.startswith("0")
        if runs and await self._watch_successor(log, program):
            return
        if log.programs == program and log.exit_status is None:
            self._finish(log, status or UNKNOWN)

    # Helpers

    async def _watch_by_tmux(self) -> None:
        """Have tmux tell of panes that die and stay; of those that vanish it tells anyway.

        It works that out for each pane each second, so this is only for those whose process can't
        be watched.
        """
        if not self._is_subscribed:
            self._is_subscribed = True
            await self._subscribe()

    async def _subscribe(self) -> None:
        # How a pane died is asked for then.
        subscription = f"{DEATH_SUBSCRIPTION}:%*:#{{pane_dead}}"
        await self._through_reconnects(lambda: self._command("refresh-client", "-B", subscription))
        self.look_soon()

    def _gone(self, log: PaneOutput, program: int) -> None:
        """The process of this program is gone."""
        if log.programs == program and log.exit_status is None:
            status = partial(self.wait_status, log, program)
            self._start_soon(self._through_reconnects, status)

    async def _list(self) -> None:
        asked = [
            (pane, pane.log, pane.log.programs)
            for pane in self._panes.values()
            if _is_asked_about(pane)
        ]
        try:
            lines = await self._ordered_command("list-panes", "-a", "-F", f"#{{pane_id}} {_FORMAT}")
        except CommandError:
            # The last session has just gone, and every pane with it.
            lines = []
        states = dict(line.split(" ", 1) for line in lines)
        for pane, log, program in asked:
            if log.pane_id in states:
                self._receive_state(log, program, states[log.pane_id])
            elif log.programs != program or pane.is_respawning:
                continue
            # Of one that was never seen nobody knows whether it ever was: `check` finds out.
            elif log.end or pane.is_there:
                self._finish(log, UNKNOWN)

    async def _watch_successor(self, log: PaneOutput, program: int) -> bool:
        """Where a pane runs another process than was watched, watch that; whether it does.

        What somebody else has started in a pane of ours is not its program.
        """
        lines = await self._command("display-message", "-p", "-t", log.pane_id, "#{pane_pid}")
        pid, pane = int(lines[0] or 0), self._panes.get(log.pane_id)
        if pane is None or pid in (0, pane.pid):
            return False
        if log.tells_end and log.programs == program and not pane.is_unsure:
            return False
        pane.is_unsure = False
        self.watch(pane, pid)
        return True

    async def _look_at(self, log: PaneOutput, program: int) -> None:
        """Ask how one pane is."""
        state = await self._ask(log.pane_id)
        if state is None:
            # The list will tell.
            self.look_soon()
        else:
            self._receive_state(log, program, state)

    async def _ask(self, pane_id: str) -> str | None:
        """How a pane is, in `_FORMAT`; None if it is gone."""
        try:
            lines = await self._ordered_command("display-message", "-p", "-t", pane_id, _FORMAT)
        except CommandError:
            return None
        # Since 3.2 tmux shows a pane that is not there as one without properties.
        return lines[0] if lines and lines[0].strip() else None

    def _receive_state(self, log: PaneOutput, program: int, state: str) -> None:
        """A pane was like this, in `_FORMAT`, while it ran this program."""
        pane = self._panes.get(log.pane_id)
        if pane is None or pane.is_respawning or log.programs != program:
            return
        if state.startswith("1"):
            status = _status(state)
            if status is not None:
                self._finish(log, status)
            elif log.exit_status is None:
                # Also where it is the second connection that ends, behind which nobody asks again.
                status_known = partial(self.wait_status, log, program)
                self._start_soon(self._through_reconnects, status_known)


def _is_asked_about(pane: WatchedPane) -> bool:
    return pane.log.exit_status is None and not pane.is_respawning


def _status(state: str) -> ExitStatus | None:
    """How a pane that is like this, in `_FORMAT`, has ended; None while tmux does not know."""
    # Before 3.3 there is no `pane_dead_signal`, and then nothing behind the last space.
    dead, code, number = (*state.split(" "), "", "")[:3]
    if dead != "1" or not (code or number):
        return None
    return ExitStatus(int(code) if code else None, int(number) if number else None)
