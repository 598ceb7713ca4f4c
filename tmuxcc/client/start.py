"""How a control client is started: its argument list, the greeting, and what went wrong.

Every failure becomes an error that says what to do. What happens after the start must not live
here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from attrs import frozen

from ..errors import (
    AccessDenied,
    InvalidCommand,
    NoServer,
    OpenError,
    SessionNotFound,
    SocketPathTooLong,
    StartTimeout,
    TmuxError,
    TmuxNotFound,
    UnsupportedVersion,
)
from ..protocol import OLDEST_SUPPORTED, TmuxVersion, parse_version, prepare, result
from .connection import FENCE, Connection
from .transport import LocalTransport, Transport, start_failure

START_TIMEOUT = 10.0
"""Seconds within which tmux must have answered its own arguments: a client and a server that do
not understand each other stay silent for ever (tmux before 3.6 and since)."""

PAUSE_AFTER = 1
"""Seconds of output that may wait in the server for us before it pauses the pane. Less can't be
said; without it a person who looks on lets the queue grow without bound."""

_SOCKET_LIMIT = 103 if sys.platform == "darwin" else 107


@frozen
class Server:
    """Which tmux, and which server of it: a socket's path or its name (neither: the default)."""

    program: str
    socket_path: str | None
    socket_name: str | None
    config_file: str | None
    transport: Transport

    @property
    def socket(self) -> str:
        """The socket's path, for messages and for the check of its length."""
        if self.socket_path is not None:
            return self.socket_path
        folder = Path(os.environ.get("TMUX_TMPDIR") or "/tmp")  # noqa: S108 - tmux's own default
        return str(folder / f"tmux-{os.getuid()}" / (self.socket_name or "default"))

    def argv(self, *command: str) -> list[str]:
        """The argument list of a tmux process for this server, `command` being one command."""
        words = [self.program, "-u"]
        if self.socket_path is not None:
            words += ["-S", self.socket_path]
        elif self.socket_name is not None:
            words += ["-L", self.socket_name]
        if self.config_file is not None:
            words += ["-f", self.config_file]
        # tmux takes a semicolon at the end of a word for the end of the command.
        words += [f"{word[:-1]}\\;" if word.endswith(";") else word for word in command]
        return self.transport.argv(words)


def find_server(
    *,
    socket_path: str | os.PathLike[str] | None,
    socket_name: str | None,
    config_file: str | os.PathLike[str] | None,
    tmux: str | os.PathLike[str] | None,
    transport: Transport | None,
) -> Server:
    """Settle what was asked for. Raises `TmuxNotFound` and `SocketPathTooLong`."""
    if socket_path is not None and socket_name is not None:
        raise ValueError("give socket_path or socket_name, not both")
    transport = transport or LocalTransport()
    program = os.fspath(tmux or "tmux")
    if transport.is_local:
        found = shutil.which(program)
        if found is None:
            raise TmuxNotFound(program)
        program = found
        if socket_path is None and socket_name is None and os.environ.get("TMUX"):
            # Inside tmux its server is the default, for tmux itself and so for us.
            socket_path = os.environ["TMUX"].split(",")[0]
    server = Server(
        program,
        None if socket_path is None else os.fspath(socket_path),
        socket_name,
        None if config_file is None else os.fspath(config_file),
        transport,
    )
    if transport.is_local:
        check_socket_path(server.socket)
    return server


def check_socket_path(path: str) -> None:
    """Raise `SocketPathTooLong` if `path` does not fit into a socket address."""
    if len(os.fsencode(path)) > _SOCKET_LIMIT:
        raise SocketPathTooLong(path, _SOCKET_LIMIT)


async def program_version(server: Server) -> TmuxVersion:
    """What ``tmux -V`` says. Raises an `OpenError`: `UnsupportedVersion` if that is too old."""
    argv = server.transport.argv([server.program, "-V"])
    try:
        with trio.fail_after(START_TIMEOUT):
            result = await trio.run_process(
                argv, capture_stdout=True, capture_stderr=True, check=False
            )
    except OSError as error:
        raise start_failure(argv[0], error) from error
    except trio.TooSlowError as error:
        raise StartTimeout(START_TIMEOUT, "it did not even tell its version") from error
    text = result.stdout.decode("utf-8", "replace").strip()
    if result.returncode != 0:
        said = result.stderr.decode("utf-8", "replace").strip()
        raise OpenError(f"{server.program} -V failed: {said or f'status {result.returncode}'}")
    if not text:
        raise OpenError(f"{server.program} is not tmux: with -V it tells no version")
    version = parse_version(text)
    if version < OLDEST_SUPPORTED:
        raise UnsupportedVersion(version.text)
    return version


def client_flags(size: tuple[int, int] | None) -> list[str]:
    """How our client wants to be treated; without a size of its own it leaves that to others."""
    return [f"pause-after={PAUSE_AFTER}", *([] if size else ["ignore-size"])]


def attach_command(session: str | None, flags: Sequence[str]) -> list[str]:
    """Attach to a session by name or id (None: the last used), starting and making nothing."""
    words = ["-N", "-C", "attach-session", "-E", "-f", ",".join(flags)]
    if session is not None:
        words += ["-t", session if session.startswith("$") else f"={session}"]
    return words


def create_command(
    session: str,
    flags: Sequence[str],
    size: tuple[int, int] | None,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    argv: Sequence[str],
    *,
    is_local: bool,
) -> list[str]:
    """Make a session with this name (and run `argv` in it), or attach to the one that has it."""
    words = ["-C", "new-session", "-A", "-E", "-f", ",".join(flags)]
    words += ["-s", session.replace("#", "##"), *created_options(cwd, env, is_local=is_local)]
    if size is not None:
        words += ["-x", str(size[0]), "-y", str(size[1])]
    return [*words, "--", *argv] if argv else words


def created_options(
    cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None, *, is_local: bool = False
) -> list[str]:
    """Where and with what environment a new pane's program is started.

    Raises `InvalidCommand` if tmux `is_local` and `cwd` can't be entered.
    """
    words = []
    if cwd is not None:
        folder = str(Path(cwd).absolute())
        # tmux would take another one without a word.
        if is_local and not os.access(f"{folder}/.", os.X_OK):
            raise InvalidCommand(
                f"there is no folder {folder!r} to start in, or it can't be entered;"
                " make it first, or give another cwd"
            )
        # tmux expands formats in it.
        words += ["-c", folder.replace("#", "##")]
    for name, value in (env or {}).items():
        if not name or "=" in name:
            raise ValueError(f"{name!r} is no name of an environment variable")
        words += ["-e", f"{name}={value}"]
    return words


async def wait_attached(connection: Connection, server: Server, session: str | None) -> None:
    """Wait until tmux has done what its arguments say. Raises an `OpenError` if it does not."""
    with trio.move_on_after(START_TIMEOUT):
        await connection.wait_started()
        reply = connection.first_reply
        if reply is None:
            await connection.wait_ended()
            reason = connection.closed.reason if connection.closed is not None else None
            raise _failure(server, session, "\n".join([*connection.process.stderr, reason or ""]))
        if not reply.ok:
            raise _failure(server, session, b"\n".join(reply.lines).decode("utf-8", "replace"))
        return
    raise StartTimeout(START_TIMEOUT, await trio.to_thread.run_sync(_silence, server))


@frozen
class Greeting:
    """Whom a connection has reached, and as whom.

    `server_pid` and `start_time` together are one server and no other. `shadowed` are the names
    that its user has redefined as aliases, `hidden` those of them that are commands.
    """

    version: TmuxVersion
    server_pid: int
    start_time: str
    client_pid: int
    client_name: str
    session_id: str
    shadowed: frozenset[str]
    hidden: frozenset[str]


async def greet(connection: Connection) -> Greeting:
    """Learn whom a connection has reached. Raises `TmuxError`s, if it ends `ConnectionClosed`."""
    # Names are cut short, and tmux completes them: aliases that could hide them are not known.
    questions = (
        (FENCE, "-p", "#{version}"),
        (FENCE, "-p", "#{pid} #{client_pid} #{session_id}"),
        (FENCE, "-p", "#{start_time} #{client_name}"),
        ("show-option", "-s", "command-alias"),
        ("list-command", "-F", "#{command_list_name}"),
    )
    requests = []
    for argv in questions:
        line = prepare(argv, OLDEST_SUPPORTED)
        requests.append(connection.send(line.argv, line=line.data, fenced=line.fenced, flush=False))
    connection.flush()
    answers = []
    for request in requests:
        await connection.wait_reply(request)
        answer = result(request)
        if isinstance(answer, TmuxError):
            raise answer
        answers.append(answer)
    version, ids, more, aliases, commands = answers
    try:
        server_pid, client_pid, session_id = ids[0].split(" ")
        start_time, client_name = more[0].split(" ", 1)
        # An alias of the user's may hide a command and run any number of others.
        names = (re.match(r'command-alias\[\d+\] "?([^= ]+)=', line) for line in aliases)
        shadowed = frozenset(name[1] for name in names if name is not None)
        return Greeting(
            version=parse_version(version[0]),
            server_pid=int(server_pid),
            start_time=start_time,
            client_pid=int(client_pid),
            client_name=client_name,
            session_id=session_id,
            shadowed=shadowed,
            hidden=shadowed.intersection(commands),
        )
    except (ValueError, IndexError) as error:
        raise OpenError(f"tmux did not tell who it is: {answers[:3]!r}") from error


def _failure(server: Server, session: str | None, text: str) -> OpenError:
    if "can't find session" in text:
        return SessionNotFound(session)
    if "no sessions" in text:
        return SessionNotFound(None)
    # Its own words only: also a program on the way to tmux may not be found, or be refused.
    unreachable = "error connecting" in text and ("No such file" in text or "refused" in text)
    if unreachable or "no server running" in text:
        return NoServer(server.socket)
    if "Permission denied" in text or "access not allowed" in text:
        return AccessDenied(server.socket)
    if "too long" in text:
        return SocketPathTooLong(server.socket, _SOCKET_LIMIT)
    return OpenError(f"tmux did not attach: {text.strip() or 'it gave no reason'}")


def _silence(server: Server) -> str:
    advice = "a tmux of another version may have started the server, or its configuration waits"
    if not server.transport.is_local:
        return advice
    try:
        told = subprocess.run(
            server.argv("-N", "display-message", "-p", "#{version}"),
            capture_output=True,
            timeout=2,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{advice}; the server does not answer other clients either"
    except OSError:
        return advice
    version = told.stdout.decode("utf-8", "replace").strip()
    return f"{advice} (the server is {version or 'not telling its version'})"
