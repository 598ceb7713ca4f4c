"""Every exception that tmuxcc raises on purpose, and nothing else.

::

    TmuxError
    ├── ProtocolError           the stream broke its own rules; the connection ends
    ├── ConnectionClosed        the connection is gone: who ended it, and what tmux said last
    ├── CommandError            tmux answered a command with %error
    ├── ReplyTooLarge           a reply was longer than the limit and was cut
    ├── InvalidCommand          the argument list can't be sent (also a ValueError)
    ├── LayoutError             not a tmux layout, or its checksum is wrong (also a ValueError)
    ├── PaneNotFound            there is no such pane (any more)
    ├── PaneDead                the pane's program has ended, so it can't be typed to
    ├── OpenError               the connection could not be made; what to do is in the message
    │   ├── TmuxNotFound        no tmux program
    │   ├── UnsupportedVersion  tmux is older than 3.2
    │   ├── NoServer            no tmux server listens on the socket
    │   ├── SessionNotFound     the server has no such session
    │   ├── SocketPathTooLong   the path does not fit into a socket address
    │   ├── AccessDenied        the socket belongs to somebody else
    │   └── StartTimeout        tmux was started and stayed silent
    └── TmuxSwarmError          a swarm can't do what was asked
        ├── InvalidSwarm        a description of agents is wrong (also a ValueError)
        ├── AgentNotFoundError  the swarm has no such agent (also a ValueError)
        ├── AgentExistsError    the swarm has an agent of that id already (also a ValueError)
        ├── PaneDeadError       the agent's program has ended
        ├── SessionNotFoundError   the swarm is not running, or not any more
        ├── SessionCreationError   the swarm's session could not be made
        │   └── SwarmRunning    a swarm of that name runs already
        ├── CommandTimeoutError tmux did not answer in time
        └── PortalClosed        the way from asyncio into trio is closed

The message is for people. Programs use the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class TmuxError(Exception):
    """The root of all errors of tmuxcc."""


class ProtocolError(TmuxError):
    """The control-mode stream can't be trusted any more.

    `line` holds the bytes in question, as far as they are known.
    """

    def __init__(self, message: str, line: bytes = b"") -> None:
        super().__init__(message)
        self.line = line


class ConnectionClosed(TmuxError):
    """The connection to tmux has ended, so the call has no answer.

    `reason` is the text behind ``%exit`` (tmux often gives none), `exit_status` that of the
    tmux client process (negative: the signal that killed it; None: not known), `stderr` the
    last lines the process wrote there.
    """

    def __init__(
        self,
        reason: str | None = None,
        *,
        exit_status: int | None = None,
        stderr: Sequence[str] = (),
    ) -> None:
        self.reason = reason
        self.exit_status = exit_status
        self.stderr = tuple(stderr)
        details = [reason or "tmux gave no reason"]
        if exit_status is not None:
            details.append(
                f"killed by signal {-exit_status}"
                if exit_status < 0
                else f"exit status {exit_status}"
            )
        details.extend(self.stderr)
        super().__init__(f"the connection to tmux is closed ({'; '.join(details)})")


class CommandError(TmuxError):
    """tmux refused a command. `argv` is the command, `lines` what tmux said about it."""

    def __init__(self, argv: Sequence[str | bytes], lines: Sequence[str]) -> None:
        self.argv = tuple(argv)
        self.lines = list(lines)
        said = " / ".join(self.lines) or "no message"
        super().__init__(f"tmux refused {_shown(self.argv)}: {said}")


class ReplyTooLarge(TmuxError):
    """A reply was cut: `lines` is its beginning, `omitted` the number of bytes that are gone."""

    def __init__(self, argv: Sequence[str | bytes], lines: Sequence[str], omitted: int) -> None:
        self.argv = tuple(argv)
        self.lines = list(lines)
        self.omitted = omitted
        super().__init__(
            f"the reply to {_shown(self.argv)} is {omitted} bytes over the limit;"
            " ask for it in parts (capture-pane: -S and -E) or raise max_reply"
        )


class InvalidCommand(TmuxError, ValueError):
    """The argument list can't be sent to tmux, or must not be sent on this connection."""


class LayoutError(TmuxError, ValueError):
    """The string is not a tmux layout. `layout` is the string."""

    def __init__(self, message: str, layout: str) -> None:
        super().__init__(f"{message}: {layout[:200]!r}")
        self.layout = layout


class PaneNotFound(TmuxError):
    """The server has no pane `pane_id` (any more)."""

    def __init__(self, pane_id: str) -> None:
        super().__init__(f"there is no pane {pane_id}; list_panes() shows those that exist")
        self.pane_id = pane_id


class PaneDead(TmuxError):
    """The program of pane `pane_id` has ended: what is typed would vanish."""

    def __init__(self, pane_id: str) -> None:
        super().__init__(f"the program in pane {pane_id} has ended; nothing was typed")
        self.pane_id = pane_id


class OpenError(TmuxError):
    """The connection could not be made."""


class TmuxNotFound(OpenError):
    """There is no tmux program. `program` is what was looked for."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"no program {program!r}: install tmux 3.2 or later"
            " (Debian, Ubuntu: apt install tmux; macOS: brew install tmux)"
            " or say where it is with tmux=…"
        )
        self.program = program


class UnsupportedVersion(OpenError):
    """tmux is too old. `found` is its version as it tells it."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"tmux {found} was found, but control mode as used here needs tmux 3.2 or later;"
            " install a newer one, or name it with tmux=…"
        )
        self.found = found


class NoServer(OpenError):
    """No tmux server listens on `socket`."""

    def __init__(self, socket: str) -> None:
        super().__init__(
            f"no tmux server on {socket}: start one (tmux new-session),"
            " name the right socket, or let tmuxcc make the session with create=True"
        )
        self.socket = socket


class SessionNotFound(OpenError):
    """The server has no session `session` (None: it has no session at all)."""

    def __init__(self, session: str | None) -> None:
        which = "no session" if session is None else f"no session {session!r}"
        super().__init__(
            f"the tmux server has {which}; `tmux list-sessions` shows those it has,"
            " create=True makes it"
        )
        self.session = session


class SocketPathTooLong(OpenError):
    """A unix socket address holds `limit` bytes, `path` has more."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(
            f"the socket path has {len(path.encode(errors='surrogateescape'))} bytes,"
            f" the system takes {limit}: choose a shorter one than {path}"
        )
        self.path = path
        self.limit = limit


class AccessDenied(OpenError):
    """The server on `socket` does not let this user in."""

    def __init__(self, socket: str) -> None:
        super().__init__(
            f"the tmux server on {socket} belongs to another user: use a socket of your own,"
            " or have its owner allow you in (tmux server-access -a, tmux 3.3 or later)"
        )
        self.socket = socket


class StartTimeout(OpenError):
    """tmux was started and did not say a word for `seconds`."""

    def __init__(self, seconds: float, detail: str) -> None:
        super().__init__(f"tmux was started and stayed silent for {seconds:g} s: {detail}")
        self.seconds = seconds


class TmuxSwarmError(TmuxError):
    """A swarm can't do what was asked; the root of the errors of swarms."""


class InvalidSwarm(TmuxSwarmError, ValueError):
    """A description of agents is wrong; `where` names the part of it (``agents.web.stop``)."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class AgentNotFoundError(TmuxSwarmError, ValueError):
    """The swarm has no agent `agent_id`; it has `known`."""

    def __init__(self, agent_id: str, known: Iterable[str] = ()) -> None:
        self.agent_id = agent_id
        self.known = tuple(known)
        there = ", ".join(self.known[:20]) + (", …" if len(self.known) > 20 else "")
        super().__init__(f"there is no agent {agent_id!r}; there is {there or 'none at all'}")


class AgentExistsError(TmuxSwarmError, ValueError):
    """The swarm has an agent `agent_id` already."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"there is an agent {agent_id!r} already: choose another id, or remove that one first"
        )
        self.agent_id = agent_id


class PaneDeadError(TmuxSwarmError):
    """Agent `agent_id` has no program that runs, so it can't be talked to."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(
            f"no program of agent {agent_id!r} is running; start it (again) to talk to it"
        )
        self.agent_id = agent_id


class SessionNotFoundError(TmuxSwarmError):
    """The swarm `cluster_id` is not running, or not any more."""

    def __init__(self, cluster_id: str, advice: str = "start it first") -> None:
        super().__init__(f"the swarm {cluster_id!r} is not running: {advice}")
        self.cluster_id = cluster_id


class SessionCreationError(TmuxSwarmError):
    """The session of the swarm `cluster_id` could not be made."""

    def __init__(self, cluster_id: str, why: str) -> None:
        super().__init__(f"the swarm {cluster_id!r} can't be started: {why}")
        self.cluster_id = cluster_id


class SwarmRunning(SessionCreationError):
    """A swarm of that name runs already; `master_pid` drives it (None: nobody, it was kept)."""

    def __init__(self, cluster_id: str, master_pid: int | None) -> None:
        if master_pid is None:
            why = "it runs already, kept by a program that has ended; take it over with adopt=True"
        else:
            why = f"process {master_pid} runs it; end that one or choose another cluster_id"
        super().__init__(cluster_id, why)
        self.master_pid = master_pid


class CommandTimeoutError(TmuxSwarmError):
    """What `doing` names did not come about within `seconds`."""

    def __init__(self, doing: str, seconds: float) -> None:
        super().__init__(f"not within {seconds:g} s: {doing}")
        self.seconds = seconds


class PortalClosed(TmuxSwarmError):
    """The portal between asyncio and trio is closed, or was closed before the call had ended."""


def _shown(argv: Sequence[str | bytes]) -> str:
    words = [word if isinstance(word, str) else repr(word)[2:-1] for word in argv]
    text = " ".join(words)
    return repr(text if len(text) <= 200 else text[:199] + "…")
