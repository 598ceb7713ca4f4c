"""The click group: the options of all verbs, and errors as one line that says what to do."""

from __future__ import annotations

import os
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from ..errors import (
    AgentNotFoundError,
    ConnectionClosed,
    InvalidSwarm,
    NoServer,
    SessionNotFound,
    SwarmRunning,
    TmuxError,
    TmuxNotFound,
    UnsupportedVersion,
)
from .bench import bench
from .doctor import doctor
from .logs import logs
from .options import Target, advice, take_target, target_options, tmux_advice
from .ps import ps
from .run import run
from .send import broadcast, send
from .stop import down, stop
from .text import abandon_stdout
from .up import up
from .wait import wait
from .watch import watch


class _Group(click.Group):
    """A group whose verbs may raise `TmuxError`, and `OSError` where the system gives no more."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """The verbs in the order in which one comes to need them."""
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as click has it
        """Run the command and exit."""
        try:
            return super().main(*args, **options)
        except OSError as error:
            # Help and tables are written by click and rich, which know only of readers that go.
            where = "" if error.filename is None else f"{error.filename}: "
            abandon_stdout()
            sys.exit(f"tmuxcc: {where}{error.strerror or error}")

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TmuxError as error:
            click.echo(f"tmuxcc: {_told(error)}", err=True)
            # The command line or a file is wrong, or the world is.
            ctx.exit(2 if isinstance(error, (InvalidSwarm, AgentNotFoundError)) else 1)
        except KeyboardInterrupt:
            # Before a verb heeds it, or behind.
            ctx.exit(128 + signal.SIGINT)


def _told(error: TmuxError) -> str:
    """One line. Where the library's advice names a Python argument, this names the option."""
    if isinstance(error, TmuxNotFound):
        text = (
            f"no program {error.program!r}: install tmux 3.2 or later (Debian, Ubuntu: apt install"
            " tmux; macOS: brew install tmux) or say where it is with --tmux"
        )
    elif isinstance(error, UnsupportedVersion):
        text = (
            f"tmux {error.found} is too old, 3.2 or later is needed: install a newer one, or name"
            " it with --tmux"
        )
    elif isinstance(error, NoServer):
        text = (
            f"no tmux server on {error.socket}: start one (tmux new-session) or name the right"
            " socket with -L or -S; `tmuxcc doctor` lists those that exist"
        )
    elif isinstance(error, SessionNotFound):
        which = "no session" if error.session is None else f"no session {error.session!r}"
        text = f"the tmux server has {which}: {tmux_advice('list-sessions')} shows those it has"
    elif isinstance(error, SwarmRunning):
        cluster = error.cluster_id
        who = "it was kept" if error.master_pid is None else f"process {error.master_pid} runs it"
        more = "" if error.master_pid is not None else ", take it over with --adopt"
        look, end = advice("ps", "-c", cluster), advice("down", "-c", cluster)
        text = (
            f"the swarm {cluster} runs already ({who}): look at it with {look},"
            f" end it with {end}{more}"
        )
    elif isinstance(error, ConnectionClosed):
        text = f"the session or its server has gone: {error}"
    else:
        text = str(error)
    return " ".join(text.split())


def _version() -> str:
    try:
        return metadata.version("tmuxcc")
    except metadata.PackageNotFoundError:
        return "(not installed, run from its source)"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), message="tmuxcc %(version)s")
@target_options
@click.pass_context
def command(ctx: click.Context, target: Target) -> None:
    """Run programs in tmux and follow them, alone or as a swarm that any shell can see and drive.

    \b
    Examples:
      tmuxcc run -n web "python3 -m http.server" -n log "ping -c3 localhost"
      tmuxcc up --detach swarm.toml && tmuxcc ps
      tmuxcc logs -f
      tmuxcc watch work
      tmuxcc doctor
    """  # noqa: D301 - the \b is for click
    take_target(ctx, target)
    # Python has none where it was closed.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - open as long as we run
    for stream in (sys.stdout, sys.stderr):
        # Names and paths may hold bytes that are no text.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


for _verb in (run, up, ps, logs, send, broadcast, wait, stop, down, watch, doctor, bench):
    command.add_command(_verb)
