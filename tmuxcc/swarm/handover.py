"""What is handed over between a thread that runs trio and those who wait outside.

A `Job` goes in, an `Outcome` comes back in its `Answer`. The thread itself is in bridge.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable

import trio
from attrs import Factory, define, frozen

from ..errors import PortalClosed


@frozen
class Outcome:
    """How a task of trio has ended. `cut_off`: it was cancelled from outside before its end."""

    value: object = None
    error: BaseException | None = None
    cut_off: bool = False

    def unwrap(self, interrupt: BaseException | None, *, needed: bool = True) -> object:
        """The value; `interrupt` is what the caller met while it waited.

        An error of the task comes before the interrupt, as one in a ``finally`` would. Where the
        value is not `needed`, it is no error to be cut off.
        """
        error = interrupt if self.error is None else self.error
        if error is None and self.cut_off and needed:
            error = PortalClosed("the portal was closed before the call had ended")
        if error is None:
            return self.value
        try:
            raise error
        finally:
            # The traceback holds this frame, which must not hold the error in turn.
            del error, interrupt, self


class Answer:
    """Where the outcome of a task is left by trio's thread for one that waits elsewhere.

    `awaited` says whether somebody is going to take it.
    """

    __slots__ = ("_callbacks", "_lock", "_outcome", "awaited", "given")

    def __init__(self, lock: threading.RLock, *, awaited: bool) -> None:
        self.awaited = awaited
        self.given = False
        self._lock = lock
        self._outcome: Outcome | None = None
        self._callbacks: list[Callable[[], bool]] = []

    def give(self, outcome: Outcome) -> bool:
        """Leave `outcome`; whether there is somebody to take it."""
        with self._lock:
            self._outcome = outcome
            self.given = True
            callbacks, self._callbacks = self._callbacks, []
            awaited = self.awaited
        heard = [callback() for callback in callbacks]
        return any(heard) if heard else awaited

    def tell(self, callback: Callable[[], bool]) -> bool:
        """Have `callback` called in trio's thread when the outcome is there; False if it is.

        It gives False if it can reach nobody any more.
        """
        with self._lock:
            if not self.given:
                self.awaited = True
                self._callbacks.append(callback)
            return not self.given

    def forget(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self.awaited = False
            self._callbacks.clear()

    def take(self) -> Outcome:
        """The outcome, once: so that an error that is raised is not held by what waited for it."""
        with self._lock:
            outcome, self._outcome = self._outcome, None
        return outcome or Outcome()


@define(eq=False)
class Job:
    """A task of trio: what it runs, in which context, and where its outcome goes."""

    function: Callable[[], Awaitable[object]]
    answer: Answer
    context: contextvars.Context = Factory(contextvars.copy_context)
    scope: trio.CancelScope = Factory(trio.CancelScope)


def call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """Have `function` called by `loop`, from another thread; False if it is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False
    return True


def wake(waiter: asyncio.Future[None]) -> None:
    """Let whoever awaits `waiter` go on."""
    if not waiter.done():
        waiter.set_result(None)
