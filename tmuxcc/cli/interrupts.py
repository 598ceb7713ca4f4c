"""What ends a verb before its time: a signal, or that nobody reads any more what it tells.

What a verb does about it is its own affair.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio

from .text import Writer


@contextmanager
def stop_signals(*more: signal.Signals) -> Iterator[AsyncIterator[int]]:
    """Those that ask us to end, and `more`, as they come; none that our parent had us ignore."""
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # nohup, and shells for what they run in the background.
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    if not (numbers or more):
        # trio does not wait for none.
        send, receive = trio.open_memory_channel[int](0)
        with send, receive:
            yield receive
        return
    with trio.open_signal_receiver(*numbers, *more) as received:
        yield received


async def cancel_on_failure(writer: Writer, scope: trio.CancelScope) -> None:
    """Cancel `scope` once `writer` can't write any more."""
    await writer.failed.wait()
    scope.cancel()
