"""The options that choose a tmux server, as tmux has them, in front of a verb or behind it."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Callable
from typing import Any

import click
from attrs import fields, frozen


class _Seconds(click.ParamType[float]):
    """A time span."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that it is, perhaps infinite."""
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = math.nan
        if not seconds >= 0:
            self.fail(f"{value!r} is no number of seconds, such as 2.5", param, ctx)
        return seconds


SECONDS = _Seconds()


@frozen
class Target:
    """Which tmux and which server of it. Fields that are None were not given."""

    socket_name: str | None = None
    socket_path: str | None = None
    config_file: str | None = None
    tmux: str | None = None


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb -L, -S, -f and --tmux, and call it with them as `target`."""

    @click.option("-L", "socket_name", metavar="NAME", help="Name of the server's socket.")
    @click.option("-S", "socket_path", metavar="PATH", help="Path of the server's socket.")
    @click.option("-f", "config_file", metavar="FILE", help="Configuration file for tmux.")
    @tmux_option
    @functools.wraps(function)
    def with_target(**options: Any) -> object:  # noqa: ANN401 - whatever the verb takes
        own = [options.pop(attribute.name) for attribute in fields(Target)]
        return function(target=Target(*own), **options)

    return with_target


tmux_option = click.option(
    "--tmux", metavar="PROGRAM", help="The tmux to use. [default: the one on PATH]"
)


def take_target(ctx: click.Context, own: Target) -> Target:
    """What was given here, completed by what was given in front of the verb."""
    outer: Target = ctx.obj or Target()
    socket = own if own.socket_name or own.socket_path else outer
    if socket.socket_name and socket.socket_path:
        raise click.UsageError("-L and -S both name the server: give one of them", ctx)
    target = Target(
        socket.socket_name,
        socket.socket_path,
        own.config_file or outer.config_file,
        own.tmux or outer.tmux,
    )
    # Also for what is said of errors, where the verb's own context is gone.
    ctx.obj = ctx.find_root().obj = target
    return target


def advice(verb: str, *words: str) -> str:
    """A command line of ours to be typed next, with the options that choose the server."""
    tmux = _chosen().tmux
    return _quoted("tmuxcc", verb, *_socket_words(), *(["--tmux", tmux] if tmux else []), *words)


def tmux_advice(*words: str) -> str:
    """A command line of tmux to be typed next, for that server."""
    return _quoted(_chosen().tmux or "tmux", *_socket_words(), *words)


def _chosen() -> Target:
    return click.get_current_context().find_root().obj or Target()


def _socket_words() -> list[str]:
    target = _chosen()
    if target.socket_path:
        return ["-S", target.socket_path]
    return ["-L", target.socket_name] if target.socket_name else []


def _quoted(*words: str) -> str:
    return f"`{shlex.join(words)}`"
