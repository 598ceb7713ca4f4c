"""What each tmux version has, and which of its faults we steer around.

Two tables and the comparison that they need. Each `Hazard` names where it is steered around; the
code that does so asks `has_hazard`, so that the table is the only place with version numbers.
Found by experiment on 3.1c, 3.3a, 3.5a, 3.7c and 3.8, and in tmux's own issues (the numbers).
"""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering

from attrs import frozen


@total_ordering
@frozen(order=False)
class TmuxVersion:
    """A release such as ``3.3a``. `text` is what tmux says, the numbers are what is compared.

    ``next-3.8`` counts as 3.8. ``master`` and versions without a number count as the newest.
    """

    text: str
    major: int
    minor: int
    letter: str

    def __lt__(self, other: TmuxVersion) -> bool:
        return self._key() < other._key()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TmuxVersion) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        return self.text

    def _key(self) -> tuple[int, int, str]:
        return self.major, self.minor, self.letter


def parse_version(text: str) -> TmuxVersion:
    """Read ``tmux -V`` (with or without the word) or ``#{version}``; never fails."""
    text = text.strip().removeprefix("tmux ").strip()
    match = re.search(r"([0-9]{1,6})\.([0-9]{1,6})(?:([a-z])(?![a-z]))?", text)
    # OpenBSD counts by its own releases; what it ships is as new as its base system.
    if match is None or text.startswith("openbsd"):
        return TmuxVersion(text, 999, 0, "")
    return TmuxVersion(text, int(match[1]), int(match[2]), match[3] or "")


OLDEST_SUPPORTED = parse_version("3.2")
"""Flow control, subscriptions, attach flags and ``%exit`` came with it."""


@frozen
class Capability:
    """Something that tmux has since version `since`."""

    name: str
    since: TmuxVersion
    text: str


def _capability(name: str, since: str, text: str) -> Capability:
    return Capability(name, parse_version(since), text)


CAPABILITIES = (
    _capability("flow-control", "3.2", "pause-after, %pause, %continue, refresh-client -A"),
    _capability("subscriptions", "3.2", "refresh-client -B pushes changes of a format"),
    _capability("client-detached", "3.2", "%client-detached"),
    _capability("dead-signal", "3.3", "#{pane_dead_signal} and #{pane_dead_time}"),
    _capability("window-size", "3.3", "refresh-client -C @1:80x24"),
    _capability("messages", "3.4", "%message: hooks can speak to a control client"),
    _capability("config-errors", "3.4", "%config-error"),
    _capability("buffer-notifications", "3.4", "%paste-buffer-changed, %paste-buffer-deleted"),
    _capability("terminal-reports", "3.5", "refresh-client -r"),
    _capability("survive-session", "3.6", "client flag no-detach-on-destroy"),
    _capability("raw-paste", "3.7", "paste-buffer -S (without it control characters are changed)"),
    _capability("bracket-paste-flag", "3.7", "#{bracket_paste_flag}"),
    _capability("numbered-capture", "3.7", "capture-pane -L"),
    _capability("floating-panes", "3.7", "panes that float above the others"),
    _capability("json-layouts", "3.8", "client flag new-layouts"),
    _capability("wait-for-events", "3.8", "wait-for -E"),
)


@frozen
class Hazard:
    """A fault of the versions `first` to `last` (None: no end known), and what is done about it."""

    name: str
    first: TmuxVersion
    last: TmuxVersion | None
    text: str
    guard: str

    def affects(self, version: TmuxVersion) -> bool:
        """Whether `version` has this fault."""
        return self.first <= version and (self.last is None or version <= self.last)


def _hazard(name: str, first: str, last: str | None, text: str, guard: str) -> Hazard:
    return Hazard(
        name, parse_version(first), None if last is None else parse_version(last), text, guard
    )


HAZARDS = (
    _hazard(
        "pane-off-crash",
        "3.2",
        "3.6b",
        "refresh-client -A %N:off on a busy pane ends the server (tmux#5054)",
        "the pane is paused first, on the same line",
    ),
    _hazard(
        "no-output-hang",
        "3.2",
        "3.6b",
        "refresh-client -f no-output on a running stream: no reply comes any more (tmux#5049)",
        "refused; the flag is set when attaching",
    ),
    _hazard(
        "respawn-crash",
        "3.2",
        "3.7c",
        "respawn-pane -k of a pane with queued output ends the server (tmux#5498)",
        "the pane is paused first and continued after, which does not help where another control"
        " client is behind with it too",
    ),
    _hazard(
        "dead-paste-crash",
        "3.2",
        "3.3a",
        "paste-buffer into a pane that is dead and stays ends the server (cmd-paste-buffer.c)",
        "tmux itself is asked, in the same moment, whether the pane is dead",
    ),
    _hazard(
        "destroy-session-crash",
        "3.2",
        "3.7c",
        "a session destroyed right behind a change of its current window ends the server"
        " (tmux#5243)",
        "commands that destroy are sent only when everything before them has been answered",
    ),
    _hazard(
        "manual-size-crash",
        "3.2",
        "3.5a",
        "with the option window-size set to manual, new-window and new-session end the server",
        "none: leave window-size as it is there",
    ),
    _hazard(
        "popup-crash",
        "3.6",
        "3.7c",
        "a second display-popup on a control client ends the server (tmux#5551)",
        "display-popup is refused: it holds the connection anyway",
    ),
    _hazard(
        "client-race-crash",
        "3.2",
        "3.6b",
        "a notification for a client that is still connecting or is killed can end the server"
        " (tmux#4980, tmux#5004), and so can pane output for one that is killed while it is behind",
        "few connections, ended by end of input; signals only after a grace time",
    ),
    _hazard(
        "capture-leak",
        "3.2",
        "3.5a",
        "capture-pane -p by a control client leaks its text in the server (tmux#4590)",
        "none: the way around it mangles the text on 3.2 to 3.3a; capture seldom there",
    ),
    _hazard(
        "config-error-mode",
        "3.2",
        "3.3a",
        "an error in the configuration puts the first pane into view mode, which takes its keys"
        " (tmux#3193)",
        "typing leaves the mode first",
    ),
    _hazard(
        "early-input",
        "3.2",
        "3.3a",
        "input that comes before the client has attached is run detached",
        "nothing is sent before the first reply is complete",
    ),
    _hazard(
        "lost-sigchld",
        "3.2",
        "3.5a",
        "builds with utempter miss the end of a child now and then (tmux#4559)",
        "programs started here tell their end in band; `run-shell -b :` wakes the server up",
    ),
    _hazard(
        "negative-width-loop",
        "3.2",
        "3.3a",
        "a format with a negative width and a C1 character in the value: the server hangs",
        "formats with a negative width are refused",
    ),
    _hazard(
        "unread-replies",
        "3.2",
        "3.7c",
        "unread replies are kept without limit, and a stuck client keeps a killed server alive"
        " (tmux#5553, tmux#5444)",
        "the reader always drains, the number of commands in flight is bounded",
    ),
    _hazard(
        "large-reply-exit",
        "3.8",
        None,
        "a reply, or all that is unread, of 64 MiB: the client is thrown out (tmux#5565)",
        "the number of commands in flight is bounded",
    ),
    _hazard(
        "off-loses-output",
        "3.2",
        "3.3a",
        "output of a pane that is off is dropped, later versions hold it back (tmux#3250)",
        "panes are paused, never switched off",
    ),
    _hazard(
        "escaped-replies",
        "3.4",
        "3.5a",
        "control characters in replies come as text such as \\033, the backslash not doubled",
        "formats of our own drop control characters",
    ),
    _hazard(
        "buffer-name-newline",
        "3.4",
        "3.6b",
        "a line end in a buffer name splits %paste-buffer-changed",
        "the second half is an Unknown event",
    ),
    _hazard(
        "escaped-buffers",
        "3.2",
        "3.3a",
        "show-buffer writes its text escaped, the backslash doubled",
        "buffers are not read back with show-buffer",
    ),
    _hazard(
        "early-dead-flag",
        "3.2",
        "3.6b",
        "#{pane_dead} is 1 before the exit status is known (tmux#4841)",
        "a pane that is dead without a status is asked again",
    ),
    _hazard(
        "run-shell-view",
        "3.2",
        None,
        "what run-shell prints puts a pane into view mode (with -b; on 3.3 and 3.4 always)",
        "no run-shell that prints",
    ),
    _hazard(
        "run-shell-crash",
        "3.7c",
        "3.7c",
        "what run-shell prints for a control client that has gone ends the server (tmux#5570)",
        "run-shell that waits is refused, and none of our own prints",
    ),
    _hazard(
        "wait-for-leak",
        "3.2",
        "3.7c",
        "a client that dies in wait-for is never freed (tmux#5614)",
        "wait-for that waits is refused",
    ),
    _hazard(
        "instant-exit",
        "3.6a",
        "3.6a",
        "reported, not seen here: every new client gets %exit until the server is killed",
        "the start fails with what tmux said; it is not repeated for ever",
    ),
    _hazard(
        "hook-silence",
        "3.2",
        "3.7c",
        "own windows close as %unlinked-window-close; changes by hooks are not told",
        "any of the closing lines makes the client list again; hooks speak through `run-shell -b`",
    ),
    _hazard(
        "weak-read-only",
        "3.2",
        None,
        "a read-only control client can do nearly everything; from 3.7 on not send-keys",
        "never relied on",
    ),
    _hazard(
        "wire-change",
        "3.6",
        None,
        "a client of 3.6 or later and a server of 3.5 or earlier do not understand each other",
        "the start times out with a message that says so",
    ),
    _hazard(
        "strftime-messages",
        "3.2",
        None,
        "display-message expands % as strftime does and # as a format",
        "arguments are quoted for the parser; double % and # to show them",
    ),
    _hazard(
        "silent-pause",
        "3.2",
        None,
        "when the last pane with queued output is paused, the replies behind it are held back",
        "a command is sent where a burst is followed by silence",
    ),
    _hazard(
        "lost-tail",
        "3.2",
        None,
        "the last output of a program that exits is dropped in 10 to 100 % of cases",
        "programs started here run under a wrapper that lingers behind a mark",
    ),
)

_HAZARDS_BY_NAME = {hazard.name: hazard for hazard in HAZARDS}
_CAPABILITIES_BY_NAME = {capability.name: capability for capability in CAPABILITIES}


@lru_cache
def has_hazard(version: TmuxVersion, name: str) -> bool:
    """Whether `version` has the fault `name` of the table."""
    return _HAZARDS_BY_NAME[name].affects(version)


def has_capability(version: TmuxVersion, name: str) -> bool:
    """Whether `version` has the capability `name` of the table."""
    return _CAPABILITIES_BY_NAME[name].since <= version
