"""Tasks of our own behind a block of somebody else's, and trio under both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block ends.

    What the block raises comes out as it is and in no group. What one of the tasks raises cancels
    the block and comes out in a group, unless the block has raised something itself.
    """
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as raised:
                # A cancellation is for the scopes around.
                if holds_cancellation(raised):
                    raise
                error = raised
            finally:
                nursery.cancel_scope.cancel()
    except BaseException:
        if error is None:
            raise
    if error is not None:
        raise error


def require_trio() -> None:
    """Raise `RuntimeError` if what calls this is no task of trio."""
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            "this needs trio: run it with trio.run(); under asyncio use tmuxcc.TmuxSwarmManager,"
            " or the Portal of tmuxcc.swarm.bridge"
        )


def holds_cancellation(error: BaseException) -> bool:
    """Whether an exception is a cancellation, or a group with one in it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[0] is not None
    return isinstance(error, trio.Cancelled)
