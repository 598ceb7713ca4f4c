"""``tmuxcc watch``: what a running tmux tells, as JSON Lines."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import cast

import attrs
import click
import trio

from ..client.client import open_client
from ..client.events import EVENT_CLASSES
from ..errors import TmuxError
from ..protocol.events import ExtendedOutput, Output, Reply
from .interrupts import cancel_on_failure, stop_signals
from .options import Target, take_target, target_options
from .text import Writer, give_up_stdout, output_status

_CLASSES = {cls.__name__: cls for cls in EVENT_CLASSES}


def _types(
    _ctx: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[type, ...] | None:
    if value is None:
        return None
    names = [name for name in value.split(",") if name]
    wrong = [name for name in names if name not in _CLASSES]
    if wrong or not names:
        which = f"there is no event {wrong[0]!r}" if wrong else "no event is named"
        raise click.BadParameter(f"{which}; there are {', '.join(sorted(_CLASSES))}")
    return tuple(_CLASSES[name] for name in names)


@click.command(short_help="Print every event of a running tmux.")
@click.argument("session", required=False)
@click.option(
    "--types", callback=_types, metavar="A,B,…", help="Only events of these classes, by name."
)
@click.option("--output", is_flag=True, help="Also what panes write (Output, ExtendedOutput).")
@click.option("--raw", is_flag=True, help="Bytes as base64 instead of text.")
@target_options
@click.pass_context
def watch(
    ctx: click.Context,
    session: str | None,
    types: tuple[type, ...] | None,
    output: bool,
    raw: bool,
    target: Target,
) -> None:
    """Print every event of a running tmux as one JSON object per line.

    SESSION is a name or an id such as '$1'; the default is the session used last. Nothing is
    started, made or changed. Each object has "time" (seconds since the epoch), "event" (the
    class) and the fields of that class. What may be any bytes is text in which \\xNN stands for a
    byte that is no UTF-8. Replies are shown only if --types names Reply; the time in them is
    "reply_time".

    \b
    Examples:
      tmuxcc watch
      tmuxcc watch work --types WindowAdd,WindowClose,SessionsChanged
      tmuxcc watch -L other --output | jq -r 'select(.pane_id == "%1") | .data'

    Exit status: 0 when it is interrupted, 1 when the session or its server goes away.
    """  # noqa: D301 - the \b is for click
    server = take_target(ctx, target)
    if types is None:
        types = tuple(set(EVENT_CLASSES) - {Reply, Output, ExtendedOutput})
    if output:
        types = (*types, Output)
    writer = Writer(sys.stdout.fileno())
    trio.run(_watch, session, server, types, raw, writer)
    if writer.failure is not None:
        give_up_stdout(writer.failure)
        ctx.exit(output_status(writer.failure))


async def _watch(
    session: str | None, server: Target, types: Sequence[type], raw: bool, writer: Writer
) -> None:
    failure: TmuxError | None = None
    with stop_signals() as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, received, nursery.cancel_scope)
            nursery.start_soon(cancel_on_failure, writer, nursery.cancel_scope)
            nursery.start_soon(writer.run)
            try:
                async with (
                    open_client(
                        session,
                        socket_name=server.socket_name,
                        socket_path=server.socket_path,
                        config_file=server.config_file,
                        tmux=server.tmux,
                    ) as client,
                    client.events(*types) as events,
                ):
                    async for event in events:
                        writer.put(_line(event, raw))
                        if writer.is_full:
                            await writer.wait_room()
            except TmuxError as error:
                # Raised outside of the nursery, which would wrap it.
                failure = error
            await writer.wait_written()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_on_signal(received: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in received:
        scope.cancel()


def _line(event: object, raw: bool) -> str:
    row: dict[str, object] = {"time": round(time.time(), 6), "event": type(event).__name__}
    for name, value in attrs.asdict(cast("attrs.AttrsInstance", event), recurse=False).items():
        row["reply_time" if name == "time" else name] = _plain(value, raw)
    return json.dumps(row, ensure_ascii=False) + "\n"


def _plain(value: object, raw: bool) -> object:
    if isinstance(value, tuple):
        return [_plain(each, raw) for each in value]
    if isinstance(value, bytes):
        return (
            base64.b64encode(value).decode() if raw else value.decode("utf-8", "backslashreplace")
        )
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value
