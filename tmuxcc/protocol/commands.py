r"""An argument list → the one line that tmux reads back as exactly that list, and what it answers.

The grammar is that of cmd-parse.y (tmux 3.2 to 3.8): a word may be quoted in pieces, nothing is
special inside ``'…'``, and ``\ooo`` outside of quotes is the byte of that octal number. How lines
are sent and who gets the answer must not live here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

from ..errors import InvalidCommand

Argument = str | bytes

MAX_REMEMBERED = 1024
"""Words of which it is remembered how they are sent: names, flags, ids and formats come again and
again. What comes only once is forgotten when so many others have come."""

MAX_REMEMBERED_LENGTH = 128
"""Characters, or bytes, of the longest of them; what is longer is text."""

_BARE = re.compile(rb"[A-Za-z0-9_./-]+").fullmatch
_QUOTABLE = re.compile(rb"[ -&(-~]+").fullmatch
_TEXT = re.compile(rb"[ -~\n]+").fullmatch
_PIECES = re.compile(rb"[ -&(-~]+|'+|[^ -~]+")
# Of a line: an equals sign is always quoted.
_ASSIGNMENT = re.compile(rb"'[A-Za-z_][A-Za-z0-9_]*=").match

_NOTHING: Mapping[Argument, bytes] = MappingProxyType({})


def encode_command(*argv: Argument, kept: Mapping[Argument, bytes] = _NOTHING) -> bytes:
    """Encode one command: the bytes to send, with the LF at the end.

    `str` arguments are encoded as UTF-8 with surrogateescape. `kept` says how long words are sent
    that tmux has been told before (`name_for_kept`). Raises `InvalidCommand` for an empty list, an
    empty command name, a name that tmux would take for an assignment, what is neither `str` nor
    `bytes`, and NUL, which no argument can hold. An argument is never a separator or a block: ``;``
    is a word.
    """
    if not argv:
        raise InvalidCommand("the argument list is empty; the first argument names the command")
    try:
        words = [
            _remembered(word)
            if len(word) <= MAX_REMEMBERED_LENGTH
            else kept.get(word) or _quote(word)
            for word in argv
        ]
    except TypeError:
        # What is no text has no length, or can't be looked up.
        words = [_quote(word) for word in argv]
    line = b" ".join(words)
    if not argv[0]:
        raise InvalidCommand("the command name is empty")
    if _ASSIGNMENT(line):
        raise InvalidCommand(
            f"{argv[0]!r} is an assignment to tmux, not a command; use set-environment"
        )
    if b"\0" in line:
        raise InvalidCommand("an argument holds a NUL byte, which tmux can't take")
    return line + b"\n"


def _quote(word: Argument) -> bytes:
    """A word as it is sent; one that holds a NUL as it is."""
    data = word if isinstance(word, bytes) else _encode(word)
    if _BARE(data):
        return data
    if _QUOTABLE(data):
        return b"'" + data + b"'"
    if _TEXT(data):
        # Scripts and prompts: the same as below, and ten times as quick.
        return b"'" + data.replace(b"'", b"'\"'\"'").replace(b"\n", b"'\\012'") + b"'"
    if b"\0" in data:
        return data
    pieces = []
    for piece in _PIECES.findall(data):
        if piece[0] == 0x27:
            pieces.append(b'"' + piece + b'"')
        elif 0x20 <= piece[0] <= 0x7E:
            pieces.append(b"'" + piece + b"'")
        else:
            # Raw bytes that are no UTF-8 confuse the lexer of some versions, octal does not.
            pieces.append(b"".join([b"\\%03o" % byte for byte in piece]))
    return b"".join(pieces) or b"''"


_remembered = lru_cache(MAX_REMEMBERED)(_quote)


def name_for_kept(name: str, end: str) -> bytes:
    """How a word is sent that begins with what tmux keeps in its environment under `name`.

    Only the lexer sees that (cmd-parse.y), which reads it quicker than what it is sent. `end` is
    the end of the word, which is sent.
    """
    return b'"${%s}"' % name.encode("ascii") + _quote(end)


def _encode(word: str) -> bytes:
    try:
        return word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidCommand(f"{word!r} holds a surrogate that stands for no byte") from error
    except AttributeError as error:
        raise _no_text(word) from error


def _no_text(word: object) -> InvalidCommand:
    return InvalidCommand(f"{word!r} is neither str nor bytes, which all words of a command are")


class Replies(Enum):
    """What a command line is answered with."""

    ONE = "exactly one reply, in which no line can be mistaken for its end"
    FENCED = "any number of replies, or text that somebody else wrote"
    HOLDS = "nothing else on the connection is answered until something happens"


# Built-in aliases (cmd-*.c up to 3.8), and what the option command-alias holds by default as far as
# it matters here. A prefix of a name works in tmux too; it is looked up only where a command may
# hold the connection, else it gets a fence, which is always right and merely slower.
_ALIASES = {
    "attach": "attach-session",
    "bind": "bind-key",
    "breakp": "break-pane",
    "capturep": "capture-pane",
    "clearhist": "clear-history",
    "clearphist": "clear-prompt-history",
    "confirm": "confirm-before",
    "deleteb": "delete-buffer",
    "detach": "detach-client",
    "display": "display-message",
    "displayp": "display-panes",
    "findw": "find-window",
    "has": "has-session",
    "if": "if-shell",
    "joinp": "join-pane",
    "killp": "kill-pane",
    "killw": "kill-window",
    "last": "last-window",
    "lastp": "last-pane",
    "linkw": "link-window",
    "loadb": "load-buffer",
    "lock": "lock-server",
    "lockc": "lock-client",
    "locks": "lock-session",
    "ls": "list-sessions",
    "lsb": "list-buffers",
    "lsc": "list-clients",
    "lscm": "list-commands",
    "lsk": "list-keys",
    "lsp": "list-panes",
    "lsw": "list-windows",
    "menu": "display-menu",
    "movep": "move-pane",
    "movew": "move-window",
    "new": "new-session",
    "newp": "new-pane",
    "neww": "new-window",
    "next": "next-window",
    "nextl": "next-layout",
    "pasteb": "paste-buffer",
    "pipep": "pipe-pane",
    "popup": "display-popup",
    "prev": "previous-window",
    "prevl": "previous-layout",
    "refresh": "refresh-client",
    "rename": "rename-session",
    "renamew": "rename-window",
    "resizep": "resize-pane",
    "resizew": "resize-window",
    "respawnp": "respawn-pane",
    "respawnw": "respawn-window",
    "rotatew": "rotate-window",
    "run": "run-shell",
    "saveb": "save-buffer",
    "selectl": "select-layout",
    "selectp": "select-pane",
    "selectw": "select-window",
    "send": "send-keys",
    "set": "set-option",
    "setb": "set-buffer",
    "setenv": "set-environment",
    "setw": "set-window-option",
    "show": "show-options",
    "showb": "show-buffer",
    "showenv": "show-environment",
    "showmsgs": "show-messages",
    "showphist": "show-prompt-history",
    "showw": "show-window-options",
    "source": "source-file",
    "split-pane": "split-window",
    "splitp": "split-window",
    "splitw": "split-window",
    "start": "start-server",
    "suspendc": "suspend-client",
    "swapp": "swap-pane",
    "swapw": "swap-window",
    "switchc": "switch-client",
    "unbind": "unbind-key",
    "unlinkw": "unlink-window",
    "wait": "wait-for",
}

_ONE = frozenset(
    (
        "bind-key break-pane clear-history copy-mode delete-buffer detach-client display-message"
        " has-session join-pane kill-pane kill-server kill-session kill-window last-pane"
        " last-window link-window list-clients list-panes list-sessions list-windows move-pane"
        " move-window new-pane new-session new-window next-layout next-window paste-buffer"
        " pipe-pane previous-layout previous-window refresh-client rename-session rename-window"
        " resize-pane resize-window respawn-pane respawn-window rotate-window select-layout"
        " select-pane select-window send-keys set-buffer set-environment set-hook set-option"
        " set-window-option split-window start-server swap-pane swap-window switch-client"
        " unbind-key unlink-window"
    ).split()
)

# Commands that hold the connection: the flags with which they don't, and those that take a value.
_HOLDING = {
    "command-prompt": ("b", "IpTt"),
    "confirm-before": ("b", "cpt"),
    "display-menu": ("", ""),
    "display-panes": ("", ""),
    "display-popup": ("", ""),
    "if-shell": ("bF", "t"),
    "run-shell": ("b", "cdt"),
    "wait-for": ("SU", "Fw"),
}

# Commands that hold it with -W (tmux 3.8), and their flags that take a value.
_WAITING = {"new-pane": "BceFlmpRsSTtxXyY", "split-window": "BceFlmpRsSTt"}

# What stands behind -- in these is data, which no message repeats.
_DATA = ("send-keys", "set-buffer")

# Commands that run a program, which is neither a format nor repeated in a message (spawn.c).
_PROGRAMS = ("new-session", "new-window", "respawn-pane", "respawn-window", "split-window")

# Formats whose value is made by tmux of digits, ids and fixed words, so that it has no line end.
_SAFE_FORMAT = re.compile(
    r"[^#\r\n]*(?:(?:##|#\{(?:"
    r"pid|version|start_time|client_(?:control_mode|created|height|pid|uid|utf8|width)"
    r"|cursor_[xy]|history_(?:bytes|limit|size)"
    r"|pane_(?:active|at_\w+|bottom|dead|dead_signal|dead_status|dead_time|height|id|in_mode|index"
    r"|input_off|last|left|marked|pid|pipe|right|synchronized|top|width)"
    r"|alternate_on|bracket_paste_flag"
    r"|session_(?:activity|alerts|attached|created|id|last_attached|many_attached|windows)"
    r"|window_(?:active|activity|activity_flag|bell_flag|flags|height|id|index|layout|panes"
    r"|raw_flags|visible_layout|width|zoomed_flag)|==:#\{@\w+\},\w+)\})[^#\r\n]*)*"
).fullmatch


def command_name(argv: Sequence[Argument]) -> str:
    """The full name of a command, its built-in alias resolved; "" for an empty list."""
    if not argv:
        return ""
    name = _shown(argv[0])
    return _ALIASES.get(name, name)


def expected_replies(argv: Sequence[Argument], shadowed: Collection[str] = ()) -> Replies:
    """How tmux answers `argv`. Names in `shadowed` are aliases that its user has redefined.

    What runs inside a string argument (``if-shell``, bindings, hooks) is not looked at.
    """
    name = command_name(argv)
    words = [word if type(word) is str else _shown(word) for word in argv]
    if not words or (shadowed and (name in shadowed or words[0] in shadowed)):
        return Replies.FENCED
    if name not in _ONE:
        name = next((full for full in (*_HOLDING, *_WAITING) if full.startswith(name)), name)
    if name in _HOLDING:
        return Replies.FENCED if _has_flag(words, *_HOLDING[name]) else Replies.HOLDS
    if name in _WAITING and _has_flag(words, "W", _WAITING[name]):
        return Replies.HOLDS
    if name not in _ONE or (name == "display-message" and _has_flag(words, "av", "cdFt")):
        return Replies.FENCED
    if "--" in words:
        end = words.index("--")
        # Behind a flag it may be its value, and flags still follow.
        if name in _DATA or (name in _PROGRAMS and not words[end - 1].startswith("-")):
            del words[end:]
    # Messages repeat arguments, and many arguments are formats: names above all.
    text = " ".join(words)
    if "#" in text or "\n" in text or "\r" in text:
        return Replies.ONE if all(map(_SAFE_FORMAT, words)) else Replies.FENCED
    return Replies.ONE


def _shown(word: Argument) -> str:
    try:
        return word if isinstance(word, str) else word.decode("utf-8", "surrogateescape")
    except AttributeError as error:
        raise _no_text(word) from error


def _has_flag(words: Sequence[str], flags: str, with_value: str) -> bool:
    """Whether one of `flags` is given; letters in `with_value` take a value (getopt's rules)."""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            break
        for position, letter in enumerate(word[1:], 1):
            if letter in flags:
                return True
            if letter in with_value:
                if position == len(word) - 1:
                    next(rest, None)
                break
    return False
