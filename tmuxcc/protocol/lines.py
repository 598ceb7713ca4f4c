"""One command as it is sent, and its answer as its caller gets it.

This is where the faults of a tmux version (versions.py) are steered around: a command that would
hit one is changed into one that does not, or refused with the reason. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from getopt import GetoptError, getopt
from types import MappingProxyType

from attrs import define

from ..errors import CommandError, InvalidCommand, ReplyTooLarge, TmuxError
from .commands import Argument, Replies, command_name, encode_command, expected_replies
from .requests import Request
from .versions import TmuxVersion, has_hazard

_CHANGES_WINDOW = frozenset(
    """
    break-pane join-pane kill-pane kill-window last-window link-window move-pane move-window
    new-window next-window previous-window respawn-window rotate-window select-window
    swap-window unlink-window
    """.split()
)
_DESTROYS = frozenset("kill-pane kill-session kill-window unlink-window".split())
_STEERED = _CHANGES_WINDOW | _DESTROYS | {"paste-buffer", "respawn-pane"}
_FILE_COMMANDS = frozenset("load-buffer save-buffer source-file".split())
_PANE_OFF = re.compile(r"(%[0-9]+):off")
# The error is that there is no session of this name.
_REFUSAL = "has-session -t 'target pane has exited'"
_NEGATIVE_WIDTH = re.compile(r"#\{[^}]*=-[0-9]")


@define
class Line:
    """What is sent for one command.

    `fenced` says that it needs a marker before and behind it; else it is answered with as many
    `replies`. On versions with the fault ``destroy-session-crash``, a line that `destroys` must not
    be sent before every line that `changes_window` has been answered.

    Not frozen for the sake of speed, like the events of a flood; treat it as if it were.
    """

    argv: tuple[Argument, ...]
    data: bytes
    fenced: bool
    replies: int
    changes_window: bool
    destroys: bool


def prepare(
    argv: Sequence[Argument],
    version: TmuxVersion,
    shadowed: Collection[str] = (),
    kept: Mapping[Argument, bytes] = MappingProxyType({}),
) -> Line:
    """The line for `argv`, safe for a server of this `version`.

    `shadowed` are the command names that the user has redefined as aliases, `kept` says how words
    are sent that tmux keeps. Raises `InvalidCommand` for what can't be sent, would hold up the
    connection, or would hang or crash this server.
    """
    name = command_name(argv)
    words: Sequence[Argument] = argv
    if name == "refresh-client":
        words = _steered_refresh(argv, version)
    data = encode_command(*words, kept=kept)
    kind = expected_replies(argv, shadowed)
    if kind is Replies.HOLDS:
        raise InvalidCommand(
            f"{name} would hold up every other command of this connection; use its flag -b"
            " where it has one, or run it as a tmux process of its own"
        )
    if b"=-" in data and has_hazard(version, "negative-width-loop") and _has_negative_width(argv):
        raise InvalidCommand(
            f"tmux {version} can hang on a format with a negative width; use a positive one"
        )
    fenced = kind is Replies.FENCED
    if name not in _STEERED:
        return Line(tuple(argv), data, fenced, 1, changes_window=False, destroys=False)
    replies = 1
    if name == "paste-buffer" and has_hazard(version, "dead-paste-crash"):
        asking = _only_into_the_living(argv, data)
        if asking is not None:
            # One for the question, one for what follows from it.
            data, replies = asking, 2
            fenced = fenced or not {"if-shell", "has-session"}.isdisjoint(shadowed)
    pane_id = None
    if name == "respawn-pane" and has_hazard(version, "respawn-crash"):
        # Also of a pane that is dead, if its program was killed in the midst of writing.
        pane_id = next((w for w in argv if isinstance(w, str) and re.fullmatch("%[0-9]+", w)), None)
        if pane_id is None and _kills(argv):
            raise InvalidCommand(
                f"tmux {version} can crash on respawn-pane -k; name the pane by its id (-t %N),"
                " so that it can be paused first"
            )
    if pane_id is not None:
        pause = encode_command("refresh-client", "-A", f"{pane_id}:pause")
        proceed = encode_command("refresh-client", "-A", f"{pane_id}:continue")
        data = b" ; ".join((pause[:-1], data[:-1], proceed))
        fenced = True
    changes_window = name in _CHANGES_WINDOW and has_hazard(version, "destroy-session-crash")
    destroys = name in _DESTROYS and has_hazard(version, "destroy-session-crash")
    return Line(tuple(argv), data, fenced, replies, changes_window, destroys)


def result(request: Request) -> list[str] | TmuxError:
    """What a finished request gives its caller: the lines of its replies, or the error.

    Text is decoded as UTF-8 with surrogateescape.
    """
    lines: list[str] = []
    omitted = 0
    for reply in request.replies:
        text = [_text(line) for line in reply.lines]
        if not reply.ok:
            return CommandError(request.argv, text)
        lines += text
        omitted += reply.omitted
    if request.strays and command_name(request.argv) in _FILE_COMMANDS:
        # Their errors come outside of any reply, behind an innocent %end, and name the file.
        paths = [word for word in request.argv[1:] if isinstance(word, str) and word]
        strays = [_text(line) for line in request.strays]
        if told := [line for line in strays if any(path in line for path in paths)]:
            return CommandError(request.argv, told)
    return ReplyTooLarge(request.argv, lines, omitted) if omitted else lines


def _steered_refresh(argv: Sequence[Argument], version: TmuxVersion) -> list[Argument]:
    words: list[Argument] = []
    for word in argv:
        off = _PANE_OFF.fullmatch(word) if isinstance(word, str) else None
        if off is not None and words[-1] == "-A" and has_hazard(version, "pane-off-crash"):
            words += [f"{off[1]}:pause", "-A"]
        words.append(word)
    if has_hazard(version, "no-output-hang") and any(
        isinstance(word, str) and "no-output" in word for word in words
    ):
        raise InvalidCommand(
            f"tmux {version} hangs when no-output is changed on a client that is attached"
        )
    return words


def _only_into_the_living(argv: Sequence[Argument], data: bytes) -> bytes | None:
    """`data`, the line of a paste-buffer, as one that fails as later versions do for dead panes.

    None where tmux will say what is wrong with it.
    """
    try:
        words = [word if isinstance(word, str) else _text(word) for word in argv[1:]]
        options, _ = getopt(words, "b:dprs:t:")
    except GetoptError:
        return None
    target = [word for name, value in options if name == "-t" for word in (name, value)]
    return encode_command("if-shell", "-F", *target, "#{pane_dead}", _REFUSAL, data[:-1])


def _has_negative_width(argv: Sequence[Argument]) -> bool:
    return any(isinstance(word, str) and _NEGATIVE_WIDTH.search(word) for word in argv)


def _kills(argv: Sequence[Argument]) -> bool:
    return any(isinstance(w, str) and re.fullmatch(r"-[A-Za-z]*k[A-Za-z]*", w) for w in argv)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
