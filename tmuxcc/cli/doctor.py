"""``tmuxcc doctor``: which tmux is here, what it can and can't do, and what is wrong.

It looks and changes nothing: no server is started, none is attached to, and sockets are looked
up in the system's table and not knocked at.
"""

from __future__ import annotations

import json
import locale
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import click
import trio
from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..client.rows import ClientRow, list_rows
from ..client.start import Server, find_server
from ..errors import CommandError, OpenError, TmuxError
from ..protocol import CAPABILITIES, HAZARDS, OLDEST_SUPPORTED, TmuxVersion, parse_version
from ..swarm.processes import all_processes, command_line, is_listening, process_state
from .folder import SOCKET, abandoned_folders, run_folders
from .options import Target, take_target, target_options

PATIENCE = 5.0
"""Seconds that a tmux command may take; a server that hangs is a finding, and no
reason to hang too."""

# What adopts processes whose parent has ended, beside process 1.
_ADOPTERS = {"systemd", "init", "launchd", "tini", "dumb-init", "docker-init", "catatonit"}


@frozen
class Check:
    """One finding. `level` is ``ok``, ``note`` (worth knowing) or ``wrong``."""

    level: str
    what: str
    text: str


@frozen
class SocketRow:
    """A socket on which a tmux server listens, or (`alive` is false) did once."""

    path: str
    alive: bool
    mode: str
    owner: str


@frozen
class LeftoverRow:
    """A control client of ours whose program is gone."""

    pid: int
    command: str


@frozen
class Report:
    """All that was found out. `version` is the server's, or without one the program's."""

    checks: list[Check]
    version: TmuxVersion | None
    sockets: list[SocketRow]
    clients: list[ClientRow]
    leftovers: list[LeftoverRow]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.level != "wrong" for check in self.checks)


@click.command(short_help="Say what this tmux can do, and what ails it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@target_options
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, target: Target) -> None:
    """Say which tmux is here, what it can do, which of its faults matter, and what is wrong.

    Looks at the tmux program, the server on the socket (-L, -S; default: tmux's own), all sockets
    in the socket folder, control clients, the locale, and what runs programs in panes. Changes
    and starts nothing.

    \b
    Examples:
      tmuxcc doctor
      tmuxcc doctor -L work --tmux /opt/tmux/bin/tmux
      tmuxcc doctor --json | jq '.hazards[].name'

    Exit status: 0 if nothing is wrong, 1 if something is (no tmux, a tmux that is too old).
    """  # noqa: D301 - the \b is for click
    report = trio.run(_examine, take_target(ctx, target))
    if as_json:
        click.echo(json.dumps(_as_json(report), ensure_ascii=False))
    else:
        _print(report)
    ctx.exit(0 if report.ok else 1)


# Finding out


async def _examine(target: Target) -> Report:
    checks: list[Check] = []
    clients: list[ClientRow] = []
    version: TmuxVersion | None = None
    server: Server | None = None
    try:
        server = find_server(
            socket_path=target.socket_path,
            socket_name=target.socket_name,
            config_file=target.config_file,
            tmux=target.tmux,
            transport=None,
        )
    except OpenError as error:
        program = target.tmux or "tmux"
        missing = shutil.which(program) is None
        advice = f"no program {program!r}: install tmux 3.2 or later, or name it with --tmux"
        checks.append(Check("wrong", "tmux", advice if missing else str(error)))
    if server is not None:
        version = await _examine_program(server, checks)
        if version is not None and version >= OLDEST_SUPPORTED:
            version = await _examine_server(server, version, checks, clients)
    leftovers = _leftovers()
    sockets = _sockets(server)
    _examine_surroundings(checks)
    _examine_remains(checks, sockets, leftovers)
    return Report(checks, version, sockets, clients, leftovers)


async def _examine_program(server: Server, checks: list[Check]) -> TmuxVersion | None:
    try:
        told = await _run([server.program, "-V"])
    except CommandError as error:
        checks.append(Check("wrong", "tmux", f"{server.program} -V failed: {error.lines}"))
        return None
    if not told:
        text = f"{server.program} is not tmux: with -V it tells no version"
        checks.append(Check("wrong", "tmux", text))
        return None
    version = parse_version(told[0])
    if version < OLDEST_SUPPORTED:
        text = f"{version} at {server.program} is too old: install 3.2 or later, or use --tmux"
        checks.append(Check("wrong", "tmux", text))
    else:
        checks.append(Check("ok", "tmux", f"{version} at {server.program}"))
    return version


async def _examine_server(
    server: Server, program: TmuxVersion, checks: list[Check], clients: list[ClientRow]
) -> TmuxVersion:
    """Ask the server, if there is one; whose version counts."""
    path = Path(server.socket)
    if not is_listening(path):
        checks.append(Check("ok", "server", f"none runs on {path}"))
        return program

    async def command(*argv: str) -> list[str]:
        return await _run(server.argv("-N", *argv))

    try:
        told = await command("display-message", "-p", "#{version} #{pid}")
        clients += await list_rows(command, ("list-clients",), ClientRow)
    except TmuxError as error:
        checks.append(Check("wrong", "server", f"the one on {path} does not answer: {error}"))
        return program
    text, _, pid = (told or [""])[0].partition(" ")
    version = parse_version(text)
    checks.append(Check("ok", "server", f"{version}, process {pid}, on {path}"))
    new = parse_version("3.6")
    if (version < new) != (program < new):
        text = (
            f"tmux {program} can't attach to a server of {version}: end the server, or name its"
            " own program with --tmux"
        )
        checks.append(Check("wrong", "versions", text))
    elif version < OLDEST_SUPPORTED:
        checks.append(Check("wrong", "server", f"{version} is too old: restart it with {program}"))
    elif version != program:
        text = f"the server is {version} and the program {program}: they understand each other"
        checks.append(Check("note", "versions", text))
    return version


def _examine_surroundings(checks: list[Check]) -> None:
    encoding = locale.getencoding()
    named = next((os.environ[n] for n in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(n)), "")
    if "utf8" in named.lower().replace("-", "") or "utf" in encoding.lower():
        checks.append(Check("ok", "locale", named or encoding))
    else:
        text = f"{named or 'none is set'}: programs in panes won't write UTF-8; export LANG=C.UTF-8"
        checks.append(Check("note", "locale", text))
    if os.access("/bin/sh", os.X_OK):
        checks.append(Check("ok", "wrapper", f"/bin/sh ({Path('/bin/sh').resolve()})"))
    else:
        text = "there is no /bin/sh, which every program is started under"
        checks.append(Check("wrong", "wrapper", text))
    if sys.platform == "linux":
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            text = (
                "not found: a client whose program is killed ends only when its input does;"
                " install util-linux"
            )
            checks.append(Check("note", "setpriv", text))
        else:
            checks.append(Check("ok", "setpriv", setpriv))


def _examine_remains(
    checks: list[Check], sockets: Sequence[SocketRow], leftovers: Sequence[LeftoverRow]
) -> None:
    if stale := [row.path for row in sockets if not row.alive]:
        text = f"no server listens on {', '.join(stale)}: remove them, or let tmux do it"
        checks.append(Check("note", "stale sockets", text))
    if leftovers:
        pids = " ".join(str(row.pid) for row in leftovers)
        text = f"clients whose program is gone: end them with kill {pids}"
        checks.append(Check("note", "leftover clients", text))
    if folders := abandoned_folders():
        names = ", ".join(map(str, folders))
        text = f"left by a killed `tmuxcc run`, the next one removes them: {names}"
        checks.append(Check("note", "folders", text))


async def _run(argv: Sequence[str]) -> list[str]:
    """The lines that a command prints. Raises `CommandError` if it fails or hangs."""
    environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
    with trio.move_on_after(PATIENCE):
        result = await trio.run_process(
            argv,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
        )
        if result.returncode != 0:
            said = result.stderr.decode("utf-8", "backslashreplace").strip()
            raise CommandError(argv, [said or f"exit status {result.returncode}"])
        return result.stdout.decode("utf-8", "surrogateescape").splitlines()
    raise CommandError(argv, [f"no answer within {PATIENCE:g} s"])


def _sockets(server: Server | None) -> list[SocketRow]:
    folder = Path(os.environ.get("TMUX_TMPDIR") or "/tmp") / f"tmux-{os.getuid()}"  # noqa: S108
    paths = {*folder.glob("*"), *(each / SOCKET for each in run_folders())}
    if server is not None:
        paths.add(Path(server.socket))
    rows = []
    for path in sorted(paths):
        with suppress(OSError):
            status = path.lstat()
            if stat.S_ISSOCK(status.st_mode):
                try:
                    owner = pwd.getpwuid(status.st_uid).pw_name
                except KeyError:
                    owner = str(status.st_uid)
                mode = stat.filemode(status.st_mode)
                rows.append(SocketRow(str(path), is_listening(path), mode, owner))
    return rows


def _leftovers() -> list[LeftoverRow]:
    rows = []
    for process in all_processes():
        # A server keeps the arguments of the client that started it; its title tells them apart.
        if not process.name.startswith("tmux") or process.name == "tmux: server":
            continue
        words = command_line(process.pid)
        # The flags are those that our clients attach with, and hardly anybody else's.
        ours = "-C" in words and any(
            word.startswith(("pause-after=", "no-output,ignore-size")) for word in words
        )
        if ours and _is_adopter(process.parent):
            rows.append(LeftoverRow(process.pid, " ".join(words)))
    return rows


def _is_adopter(pid: int) -> bool:
    parent = process_state(pid)
    if parent is None:
        return pid == 1
    # In a container process 1 may well be the program that uses us.
    return parent.name in _ADOPTERS or (pid == 1 and not parent.name.startswith("python"))


# Telling


def _as_json(report: Report) -> dict[str, Any]:
    version = report.version
    return {
        "ok": report.ok,
        "version": None if version is None else version.text,
        "checks": [attrs.asdict(check) for check in report.checks],
        "capabilities": []
        if version is None
        else [
            {
                "name": each.name,
                "since": each.since.text,
                "text": each.text,
                "has": each.since <= version,
            }
            for each in CAPABILITIES
        ],
        "hazards": []
        if version is None
        else [
            {
                "name": each.name,
                "first": each.first.text,
                "last": None if each.last is None else each.last.text,
                "text": each.text,
                "guard": each.guard,
            }
            for each in HAZARDS
            if each.affects(version)
        ],
        "sockets": [attrs.asdict(row) for row in report.sockets],
        "clients": [attrs.asdict(row) for row in report.clients],
        "leftovers": [attrs.asdict(row) for row in report.leftovers],
    }


_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("WRONG", "bold red")}


def _print(report: Report) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        # Lines that a program reads are not wrapped.
        console = Console(highlight=False, width=1000)
    checks = Table.grid(padding=(0, 2, 0, 0))
    for check in report.checks:
        mark, style = _MARKS[check.level]
        checks.add_row(Text(mark, style=style), Text(check.what, style="bold"), Text(check.text))
    console.print(checks)
    version = report.version
    if version is not None and version >= OLDEST_SUPPORTED:
        _section(
            console,
            f"tmux {version} has",
            ("capability", "since", "what it is"),
            [(c.name, c.since.text, c.text) for c in CAPABILITIES if c.since <= version],
        )
        _section(
            console,
            f"tmux {version} has not",
            ("capability", "since", "what it is"),
            [(c.name, c.since.text, c.text) for c in CAPABILITIES if c.since > version],
        )
        _section(
            console,
            f"faults of tmux {version}",
            ("hazard", "what happens", "what tmuxcc does about it"),
            [(h.name, h.text, h.guard) for h in HAZARDS if h.affects(version)],
        )
    _section(
        console,
        "sockets",
        ("path", "server", "mode", "owner"),
        [(s.path, "alive" if s.alive else "stale", s.mode, s.owner) for s in report.sockets],
    )
    _section(
        console,
        "clients of the server",
        ("client", "process", "kind", "session", "flags"),
        [
            (
                row.client_name,
                str(row.client_pid),
                "control" if row.client_control_mode else "terminal",
                row.session_id,
                row.client_flags,
            )
            for row in report.clients
        ],
    )
    _section(
        console,
        "leftover clients",
        ("process", "command"),
        [(str(row.pid), row.command) for row in report.leftovers],
    )


def _section(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    if not rows:
        return
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(Text(row[0], style="cyan"), *map(Text, row[1:]))
    console.print()
    console.print(Text(title, style="bold"))
    console.print(table)
