"""``tmuxcc send`` and ``tmuxcc broadcast``: typing to the agents of a swarm that runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from ..client.pane import Pane, SendOutcome, is_key, prepare_text
from ..errors import PaneDead, PaneNotFound
from .report import json_text
from .swarms import Link, Place, Sighting, drive, look_at, side_by_side, swarm_options
from .text import Stdout

_FAILED = (SendOutcome.DEAD, SendOutcome.STRANDED)


class _TypingCommand(click.Command):
    """Says how TEXT is given that looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            text = f"{error.format_message()} Before TEXT that begins with - put --."
            raise click.UsageError(text, ctx) from error


def _typing_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--no-enter", is_flag=True, help="Only type it, do not press Enter."),
        click.option(
            "--keys",
            is_flag=True,
            help="TEXT is keys by tmux's names, such as C-c, Up, Enter; no Enter follows.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object per agent and line."),
    ):
        function = option(function)
    return function


@click.command(cls=_TypingCommand, short_help="Type something to one agent.")
@click.argument("name", metavar="NAME")
@click.argument("words", nargs=-1, metavar="TEXT...")
@_typing_options
@swarm_options
def send(
    ctx: click.Context,
    place: Place,
    name: str,
    words: Sequence[str],
    no_enter: bool,
    keys: bool,
    as_json: bool,
) -> None:
    """Type TEXT to the agent NAME and press Enter, and tell what became of it.

    The words of TEXT are typed with a blank in between; a single - stands for what comes on stdin,
    and before TEXT that begins with - stands --. All lines of it go as one paste, so a program
    that reads pastes takes them as one input.

    What became of it: accepted (something was shown, be it the echo), unknown (nothing was, as by
    programs that read later and do not echo), stranded (the text stands there unsent), dead (the
    program has ended).

    \b
    Examples:
      tmuxcc send worker-1 "run the tests again"
      git diff | tmuxcc send reviewer -
      tmuxcc send web --keys C-c

    Exit status: 1 if it is stranded or the agent dead.
    """  # noqa: D301 - the \b is for click
    _type(ctx, place, (name,), words, no_enter=no_enter, keys=keys, as_json=as_json)


@click.command(cls=_TypingCommand, short_help="Type something to all agents at once.")
@click.argument("words", nargs=-1, metavar="TEXT...")
@click.option(
    "--to", "names", multiple=True, metavar="NAME", help="Only to this one; can be repeated."
)
@_typing_options
@swarm_options
def broadcast(
    ctx: click.Context,
    place: Place,
    words: Sequence[str],
    names: Sequence[str],
    no_enter: bool,
    keys: bool,
    as_json: bool,
) -> None:
    """Type TEXT to all agents at once and press Enter, and tell what became of it at each.

    As `tmuxcc send` does. A NAME may be a pattern such as 'web-*'.

    \b
    Examples:
      tmuxcc broadcast status
      tmuxcc broadcast --to 'worker-*' --keys C-c

    Exit status: 1 if it is stranded at one, or one is dead.
    """  # noqa: D301 - the \b is for click
    _type(ctx, place, names, words, no_enter=no_enter, keys=keys, as_json=as_json)


def _type(
    ctx: click.Context,
    place: Place,
    names: Iterable[str],
    words: Sequence[str],
    *,
    no_enter: bool,
    keys: bool,
    as_json: bool,
) -> None:
    if not words:
        raise click.UsageError("no TEXT to type")
    if keys and no_enter:
        raise click.UsageError("with --keys no Enter is pressed anyway: leave out --no-enter")
    if keys and (wrong := [word for word in words if len(word) > 1 and not is_key(word)]):
        raise click.UsageError(
            f"there is no key {wrong[0]!r}: keys have tmux's names, such as Enter, Up, C-c, F1;"
            " text is typed without --keys"
        )
    text = " ".join(words)
    if text == "-" and not keys:
        text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").removesuffix("\n")
    if "\x1b[201~" in text:
        raise click.UsageError("the text holds the sequence that ends a paste, ESC [201~")

    async def run(stdout: Stdout) -> int:
        async with look_at(place) as link:
            agents = await link.chosen(names)
            if keys:
                outcomes = await side_by_side(
                    agents, lambda name: _press(_pane(link, agents[name]), words)
                )
            else:
                outcomes = await _paste(link, agents, text, submit=not no_enter)
        width = max(map(len, outcomes), default=0)
        for name, outcome in outcomes.items():
            if as_json:
                stdout.write(json_text({"name": name, "outcome": outcome.value}))
            else:
                stdout.write(f"{name:{width}} | {outcome.value}\n")
        return 1 if any(outcome in _FAILED for outcome in outcomes.values()) else 0

    ctx.exit(drive(run))


def _pane(link: Link, agent: Sighting) -> Pane:
    return link.client.pane(agent.pane_id)


async def _press(pane: Pane, keys: Sequence[str]) -> SendOutcome:
    try:
        await pane.send_keys(*keys)
    except (PaneDead, PaneNotFound):
        return SendOutcome.DEAD
    return SendOutcome.UNKNOWN


async def _paste(
    link: Link, agents: Mapping[str, Sighting], text: str, *, submit: bool
) -> dict[str, SendOutcome]:
    async with prepare_text(link.client, text) as prepared:

        async def paste(name: str) -> SendOutcome:
            try:
                return await _pane(link, agents[name]).send_text(
                    text, submit=submit, prepared=prepared
                )
            except PaneNotFound:
                return SendOutcome.DEAD

        return await side_by_side(agents, paste)
