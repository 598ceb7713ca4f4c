"""What ends a verb before its time: a signal, or that nobody reads any more what it tells.

What a verb does about it is its own affair.
"""

from __future__ import annotations

import signal

import trio

from .text import Writer


def stop_signals() -> list[signal.Signals]:
    """Those that ask us to end, but for what our parent (nohup) had us ignore."""
    return [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]


async def cancel_on_failure(writer: Writer, scope: trio.CancelScope) -> None:
    """Cancel `scope` once `writer` can't write any more."""
    await writer.failed.wait()
    scope.cancel()
