"""What an agent is: values that are checked when they are made, and their form as text.

Nothing here starts anything or knows of tmux. What a swarm file looks like is in file.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from signal import Signals
from types import MappingProxyType
from typing import Any, TypeVar, cast

from attrs import Attribute, field, fields, frozen

from ..errors import InvalidSwarm
from . import checks
from .checks import SHORTEST, number, shown
from .policy import NO_LIMITS, NO_RESTARTS, OutputLimits, RestartPolicy, restart_policy

SPEC_VERSION = 1
"""What `spec_to_json` writes. Another meaning of what is written needs another number."""

_T = TypeVar("_T")

_TOKENS = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|.""", re.DOTALL)
_EXPANSION = re.compile(r"`|\$[A-Za-z0-9_{(@*#?$!]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ENV_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`"}


# Validators and converters


def _check_stop(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, StopPolicy):
        raise InvalidSwarm(f"has to be a StopPolicy, not {shown(value)}", attribute.name)


def _check_ready(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Ready):
        raise InvalidSwarm(f"has to be a Ready, not {shown(value)}", attribute.name)


def _check_limits(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, OutputLimits):
        raise InvalidSwarm(f"has to be OutputLimits, not {shown(value)}", attribute.name)


# A converter leaves alone what it doesn't understand: the validator knows the name of the field.


def _words(value: Sequence[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else cast("tuple[str, ...]", value)


def _optional_words(value: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if value is None else _words(value)


def _read_only(value: Mapping[str, str]) -> Mapping[str, str]:
    given: object = value
    return MappingProxyType(dict(value)) if isinstance(given, Mapping) else value


def _optional_path(value: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _signal_name(value: str | int) -> str:
    for name, signal in Signals.__members__.items():
        if isinstance(value, str):
            if value.upper() in (name, name.removeprefix("SIG")):
                return signal.name
        elif value == signal and not isinstance(value, bool | float):
            return signal.name
    raise InvalidSwarm(
        f'has to be the name or the number of a signal, such as "SIGTERM", not {shown(value)}',
        "signal",
    )


# Values


@frozen(kw_only=True)
class StopPolicy:
    """How an agent is asked to end.

    First `keys` are pressed, by tmux's names, or `text` is typed as a line and submitted; one of
    them or none. Without either, `signal` is sent to the agent's processes. `grace` is how many
    seconds it then has. The signal is given as ``"SIGTERM"``, ``"TERM"`` or 15 and kept as the
    first of these.

    Raises `InvalidSwarm`, which names the field.
    """

    keys: tuple[str, ...] = field(default=(), converter=_words, validator=checks.keys)
    text: str | None = field(default=None, validator=checks.line)
    signal: str = field(default="SIGTERM", converter=_signal_name)
    grace: float = field(default=5.0, validator=number("a number of seconds", 0))

    def __attrs_post_init__(self) -> None:
        if self.keys and self.text is not None:
            raise InvalidSwarm("has to be left out where there are keys", "text")


POLITE_STOP = StopPolicy()


@frozen(kw_only=True)
class Ready:
    """By what an agent is known to be ready: exactly one of `pattern`, `command` and `port`.

    `pattern` is a regular expression that its output matches, ``^`` and ``$`` standing for each
    line; `command` a program and its arguments that ends with status 0; `port` a TCP port on `host`
    that takes a connection. Whoever waits for an agent that is not ready `timeout` seconds after
    its start is told so (None: waits as long as it runs).

    Raises `InvalidSwarm`, which names the field.
    """

    pattern: str | None = field(default=None, validator=checks.pattern)
    command: tuple[str, ...] | None = field(
        default=None, converter=_optional_words, validator=checks.words
    )
    port: int | None = field(
        default=None, validator=number("a TCP port", 1, 65535, whole=True, optional=True)
    )
    host: str = field(default="127.0.0.1", validator=checks.printable)
    timeout: float | None = field(
        default=None, validator=number("a number of seconds", SHORTEST, optional=True)
    )

    def __attrs_post_init__(self) -> None:
        given = [each for each in (self.pattern, self.command, self.port) if each is not None]
        if len(given) != 1:
            raise InvalidSwarm("needs one of pattern, command and port, and only one")


@frozen
class AgentSpec:
    """Everything that is needed to start an agent, and to start it again.

    `argv` is the program and its arguments. `env` is added to the swarm's environment, and over it
    what the file `env_file` holds, read anew at each start (`read_env_file`). `secret_names` are
    the variables that are given to it besides: their values are never kept here. `cwd` is the
    folder to run in (None: that of the swarm), `kind` the name of the rules that tell what it is
    doing (None: found by its program), and `log` whether its output is written to a file.

    `restart` may be given by its name, see `restart_policy`. Raises `InvalidSwarm`, which names the
    field.
    """

    argv: tuple[str, ...] = field(converter=_words, validator=checks.words)
    env: Mapping[str, str] = field(
        factory=dict,
        converter=_read_only,
        validator=checks.environment,
        hash=False,
        kw_only=True,
    )
    env_file: str | None = field(
        default=None, converter=_optional_path, validator=checks.text, kw_only=True
    )
    secret_names: tuple[str, ...] = field(
        default=(), converter=_words, validator=checks.variable_names, kw_only=True
    )
    cwd: str | None = field(
        default=None, converter=_optional_path, validator=checks.text, kw_only=True
    )
    # Where many agents have what is usual, they share it: to check it costs more than the rest.
    restart: RestartPolicy = field(default=NO_RESTARTS, converter=restart_policy, kw_only=True)
    stop: StopPolicy = field(default=POLITE_STOP, validator=_check_stop, kw_only=True)
    ready: Ready | None = field(default=None, validator=_check_ready, kw_only=True)
    kind: str | None = field(default=None, validator=checks.printable, kw_only=True)
    limits: OutputLimits = field(default=NO_LIMITS, validator=_check_limits, kw_only=True)
    log: bool = field(default=True, validator=checks.boolean, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name in self.secret_names:
            if name in self.env:
                raise InvalidSwarm(f"{name!r} is in env too, where it can be read", "secret_names")


# As text

_PARTS: dict[str, type] = {
    "restart": RestartPolicy,
    "stop": StopPolicy,
    "ready": Ready,
    "limits": OutputLimits,
}


def spec_to_json(spec: AgentSpec) -> str:
    """`spec` on one line of ASCII, from which `spec_from_json` makes it again.

    Every field is written, also where it has its default, so that it keeps its meaning when the
    default changes; what is None is left out.
    """
    own = _to_json({"version": SPEC_VERSION, **_plain(spec)})
    parts = ((name, getattr(spec, name)) for name in _PARTS)
    pieces = [f'"{name}":{_part_to_json(part)}' for name, part in parts if part is not None]
    return f"{own[:-1]},{','.join(pieces)}}}"


def spec_from_json(text: str) -> AgentSpec:
    """The agent that `spec_to_json` wrote. Raises `InvalidSwarm` for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSwarm(f"the description of an agent is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidSwarm(f"the description of an agent is {shown(data)}, not an object")
    version = data.pop("version", None)
    if type(version) is not int or version != SPEC_VERSION:
        raise InvalidSwarm(
            f"has to be {SPEC_VERSION}, not {shown(version)}: another version of tmuxcc wrote it",
            "version",
        )
    for name, part in _PARTS.items():
        if name in data:
            try:
                data[name] = _built(part, data[name])
            except InvalidSwarm as error:
                raise moved(error, name) from error
    data.setdefault("argv", None)
    return _built(AgentSpec, data)


def moved(error: InvalidSwarm, where: str, between: str = ".") -> InvalidSwarm:
    """The same error about a part of `where`: "delay" becomes "restart.delay"."""
    message = str(error)
    if error.where:
        message = message.removeprefix(f"{error.where}: ")
        where = f"{where}{between}{error.where}"
    return InvalidSwarm(message, where)


def _plain(value: Any) -> dict[str, Any]:  # noqa: ANN401 - attrs has no type for its instances
    """The fields that are not None, without `_PARTS`: those are written by themselves."""
    plain = {}
    for each in fields(type(value)):
        content = getattr(value, each.name)
        if content is not None and each.name not in _PARTS:
            plain[each.name] = dict(content) if each.name == "env" else content
    return plain


_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@lru_cache
def _part_to_json(part: RestartPolicy | StopPolicy | Ready | OutputLimits) -> str:
    # Most agents share theirs with others.
    return _to_json(_plain(part))


def _built(part: type[_T], data: object) -> _T:
    if not isinstance(data, dict):
        raise InvalidSwarm(f"has to be an object, not {shown(data)}")
    unknown = data.keys() - {each.name for each in fields(cast("Any", part))}
    if unknown:
        raise InvalidSwarm(f"{shown(min(unknown))} is not known", "")
    return part(**data)


# Commands


def split_command(text: str) -> list[str]:
    """The words of a command, split at blanks, with quotes and backslashes as in a shell.

    Wildcards are not expanded. Raises `InvalidSwarm` for what only a shell could carry out: pipes,
    redirections, variables and the like that are not quoted.
    """
    found = _shell_syntax(text)
    if found is not None:
        raise InvalidSwarm(
            f"{text!r} needs a shell for {found!r}, and none runs it:"
            f' quote that, or say "sh -c {shlex.quote(text)}"'
        )
    try:
        argv = shlex.split(text)
    except ValueError as error:
        raise InvalidSwarm(f"{text!r} can't be split into words: {error}") from error
    if not argv or not argv[0]:
        raise InvalidSwarm(f"the command {text!r} is empty")
    if re.match(r"[A-Za-z_][A-Za-z0-9_]*=", argv[0]):
        raise InvalidSwarm(
            f"{text!r} needs a shell for {argv[0]!r}: say 'env {text}', or set it in env"
        )
    return argv


def _shell_syntax(text: str) -> str | None:
    """The first thing in `text` that a shell would not take as it is."""
    position = 0
    for piece in _TOKENS.findall(text):
        if piece[0] == '"':
            match = _EXPANSION.search(re.sub(r"\\.", "__", piece))
        elif piece == "$":
            match = _EXPANSION.match(text, position)
        else:
            match = re.fullmatch(r"[|&;<>()`]", piece)
        if match:
            return str(match[0])
        position += len(piece)
    return None


# Files of variables


def read_env_file(path: str | os.PathLike[str]) -> dict[str, str]:
    r"""The variables in a file of lines NAME=VALUE; of equal names the last one counts.

    ``export`` may stand in front; empty lines and those that begin with ``#`` are passed over. In
    single quotes a value is taken as it is. In double quotes a backslash stands before ``"``,
    ``\``, ``$`` and ````` to mean just them, and before n, r and t as in Python. Without quotes the
    value goes to the end of the line or to a blank and ``#``. Nothing is expanded, and a value does
    not go on in the next line.

    Raises `InvalidSwarm`, which says the file and the number of the line, never the value.
    """
    where = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InvalidSwarm(f"can't be read: {error.strerror}", where) from error
    env = {}
    for count, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            name, value = _variable(line)
        except InvalidSwarm as error:
            raise InvalidSwarm(str(error), f"{where}:{count}") from error
        env[name] = value
    return env


def _variable(line: str) -> tuple[str, str]:
    line = re.sub(r"\Aexport[ \t]+", "", line)
    name, equals, rest = line.partition("=")
    if not equals:
        raise InvalidSwarm('the line has no "=": it has to be NAME=VALUE')
    if not _ENV_NAME.fullmatch(name):
        raise InvalidSwarm(
            'the line has to begin with a name of letters, digits and "_", and "=" right behind it'
        )
    if "\0" in rest:
        raise InvalidSwarm(f"the value of {name!r} holds NUL")
    if rest[:1] in ("'", '"'):
        return name, _quoted(name, rest)
    value = re.sub(r"[ \t]+#.*", "", rest, flags=re.DOTALL)
    if value[:1] in (" ", "\t"):
        raise InvalidSwarm(f'there is a blank behind the "=" of {name!r}')
    return name, value


def _quoted(name: str, text: str) -> str:
    pattern = r"'([^']*)'" if text[0] == "'" else r'"((?:\\.|[^"\\])*)"'
    match = re.match(pattern, text, re.DOTALL)
    if match is None:
        raise InvalidSwarm(f"the quotes around the value of {name!r} are not closed on this line")
    if not re.fullmatch(r"[ \t]*(#.*)?", text[match.end() :], re.DOTALL):
        raise InvalidSwarm(f"behind the quotes around the value of {name!r} there is more")
    if text[0] == "'":
        return match[1]

    def escaped(escape: re.Match[str]) -> str:
        if escape[1] not in _ENV_ESCAPES:
            raise InvalidSwarm(
                f"the value of {name!r} has {escape[0]!r} in it: for a backslash write two,"
                " or put it in single quotes"
            )
        return _ENV_ESCAPES[escape[1]]

    return re.sub(r"\\(.)", escaped, match[1], flags=re.DOTALL)
