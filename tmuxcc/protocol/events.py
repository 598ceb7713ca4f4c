"""What tmux says in control mode, one small class for each kind of line.

Only values live here: no parsing, no behaviour. Field names are tmux's own words (CONTROL MODE in
tmux(1)). Ids are `str` as tmux writes them (``$1`` session, ``@1`` window, ``%1`` pane). What may
be any bytes on the wire is `bytes`; names and texts are `str`, decoded as UTF-8 with
surrogateescape so that ``text.encode("utf-8", "surrogateescape")`` gives the bytes back.

Values are frozen, but for the three classes that a flood creates by the hundred thousand
(`Reply`, `Output`, `ExtendedOutput`): building a frozen one takes nearly twice as long
(``benchmarks/parser.py`` measures it). Treat them as frozen all the same.
"""

from __future__ import annotations

from attrs import define, frozen

Event = object
"""Any instance of a class of this module."""


@define
class Reply:
    """The answer to one command: what stood between ``%begin`` and ``%end`` or ``%error``.

    `time` (seconds since the epoch), `number` and `flags` are those of the guard; bit 0 of `flags`
    is set if the command came over this connection. `lines` are the raw lines without their ends.
    `ok` is false after ``%error``. `omitted` counts the body bytes that were cut because the
    reply, or a line of it, was over the parser's limit.
    """

    time: int
    number: int
    flags: int
    lines: tuple[bytes, ...]
    ok: bool
    omitted: int = 0


@define
class Output:
    """A pane wrote `data`, decoded from tmux's octal: just the bytes the program wrote."""

    pane_id: str
    data: bytes


@define
class ExtendedOutput(Output):
    """`Output` while flow control is on; it lay `age_ms` milliseconds in the server."""

    age_ms: int


@frozen
class Pause:
    """tmux has stopped sending the output of a pane; what the pane writes now is dropped."""

    pane_id: str


@frozen
class Continue:
    """tmux sends the output of a pane again, from now on."""

    pane_id: str


@frozen
class SessionChanged:
    """The client itself is attached to a (or another) session."""

    session_id: str
    name: str


@frozen
class SessionRenamed:
    """A session has a new name. tmux before 1.8 gave no id."""

    session_id: str | None
    name: str


@frozen
class SessionWindowChanged:
    """A session has another current window."""

    session_id: str
    window_id: str


@frozen
class SessionsChanged:
    """A session was created or destroyed."""


@frozen
class ClientSessionChanged:
    """Another client is attached to a (or another) session."""

    client: str
    session_id: str
    name: str


@frozen
class ClientDetached:
    """Another client has left."""

    client: str


@frozen
class WindowAdd:
    """A window was linked into this client's session."""

    window_id: str


@frozen
class WindowClose:
    """A window was unlinked from this client's session. It may still live: list again."""

    window_id: str


@frozen
class WindowRenamed:
    """A window of this client's session has a new name."""

    window_id: str
    name: str


@frozen
class UnlinkedWindowAdd:
    """A window was created in another session."""

    window_id: str


@frozen
class UnlinkedWindowClose:
    """A window was closed. Up to tmux 3.7c it may have been one of this client's session."""

    window_id: str


@frozen
class UnlinkedWindowRenamed:
    """A window of another session has a new name (None where tmux leaves it out)."""

    window_id: str
    name: str | None


@frozen
class WindowPaneChanged:
    """A window has another active pane."""

    window_id: str
    pane_id: str


@frozen
class PaneModeChanged:
    """A pane entered or left a mode such as copy mode; which one is not told."""

    pane_id: str


@frozen
class LayoutChange:
    """A window has another layout; `protocol.parse_layout` reads it.

    `visible_layout` differs while a pane is zoomed. `window_flags` are such as ``*`` or ``Z``.
    tmux before 2.2 sent only `layout`.
    """

    window_id: str
    layout: str
    visible_layout: str | None
    window_flags: str | None


@frozen
class SubscriptionChanged:
    """A format watched with ``refresh-client -B`` has a new value.

    What does not apply to the scope of the subscription is None.
    """

    name: str
    session_id: str | None
    window_id: str | None
    window_index: int | None
    pane_id: str | None
    value: str


@frozen
class PasteBufferChanged:
    """A paste buffer was made or changed."""

    name: str


@frozen
class PasteBufferDeleted:
    """A paste buffer was deleted."""

    name: str


@frozen
class Message:
    """``display-message`` was aimed at this client."""

    text: str


@frozen
class ConfigError:
    """A configuration or sourced file has an error."""

    text: str


@frozen
class Exit:
    """The client is ending; tmux rarely gives a reason. Nothing follows."""

    reason: str | None


@frozen
class Unknown:
    """A line with no class of its own, or a known one whose fields make no sense.

    Also text outside a reply and a malformed or orphan guard. `omitted` counts the bytes that
    were cut because the line was over the parser's limit.
    """

    line: bytes
    omitted: int = 0
