"""Swarm files: agents described in TOML or YAML.

::

    cluster = "demo"                      # default: made of the file's name
    base_dir = "."                        # relative to the file's folder
    env = {LANG = "C.UTF-8"}              # for all agents
    env_file = "common.env"               # for those that name none of their own

    [defaults]                            # any key of an agent
    restart = "on-failure"

    [agents.web]
    command = "python3 -m http.server 80{n}"       # split into words; no shell runs it
    argv = ["python3", "-m", "http.server"]        # or this instead
    replicas = 3                          # the agents web-1, web-2 and web-3
    env = {NAME = "{id}"}
    env_file = "web.env"
    cwd = "site"
    restart = {when = "always", delay = 1, max_restarts = 10, window = 300}
    stop = {keys = ["C-c"], grace = 10}   # or text or signal instead of keys
    ready = {pattern = "Serving", timeout = 20}    # or command or port instead of pattern
    limits = {rate = "1MB", burst = "4MB", size = "2GiB", clear_history_after = "10MB"}
    kind = "shell"
    log = true
    after = ["db"]                        # started when these are ready

``{n}`` (the number of the replica, 1 where there are none) and ``{id}`` (the agent's id) are put
in the words of commands, in values of env, and in cwd. Folders and files are relative to base_dir.
A key of an agent takes the place of the same key in defaults; only env is merged.

What the values mean is in spec.py and policy.py.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar, get_args

from attrs import evolve, frozen

from ..errors import InvalidSwarm
from .checks import (
    MOST,
    check_agent_id,
    check_cluster_id,
    check_environment,
    check_text,
    shown,
)
from .policy import OutputLimits, RestartPolicy, When
from .spec import AgentSpec, Ready, StopPolicy, moved, split_command

MAX_REPLICAS = 1000
"""Replicas that one agent may have: more is taken for a slip, and there are no terminals for it."""

_T = TypeVar("_T")

_PLACEHOLDER = re.compile(r"\{(n|id)\}")
_FILE_KEYS = ("cluster", "base_dir", "env", "env_file", "defaults", "agents")
_AGENT_KEYS = (
    "command", "argv", "replicas", "env", "env_file", "cwd", "restart", "kind", "log", "ready",
    "stop", "limits", "after",
)  # fmt: skip
_RESTART_KEYS = (
    "when", "delay", "factor", "max_delay", "jitter", "max_restarts", "window", "stable_after",
)  # fmt: skip
_STOP_KEYS = ("keys", "text", "signal", "grace")
_READY_KEYS = ("pattern", "command", "port", "host", "timeout")
_LIMIT_KEYS = ("rate", "burst", "size", "clear_history_after")

_SIZE = re.compile(r"(?P<whole>[0-9]{1,19})(\.(?P<decimals>[0-9]{1,19}))? ?(?P<unit>[A-Za-z]{0,3})")
_UNITS: dict[str, int] = {"": 1, "B": 1} | {
    f"{prefix}{end}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for end, base in (("B", 1_000), ("IB", 1_024))
}


@frozen
class SwarmFile:
    """What a swarm file describes.

    `agents` maps ids to agents, in the order of the file; `after` maps each of these ids to those
    of the agents that have to be ready first (running, where they have no condition). `base_dir`
    is absolute. An agent without a folder of its own has `cwd` None and runs in `base_dir`.
    """

    cluster_id: str
    base_dir: Path
    agents: dict[str, AgentSpec]
    after: dict[str, tuple[str, ...]]


def read_swarm_file(path: str | os.PathLike[str]) -> SwarmFile:
    """Read the swarm file `path`: TOML, or YAML if its name ends in .yaml or .yml.

    Raises `InvalidSwarm` if there is no such file, or anything in it is wrong; its `where` is the
    file and the key: ``demo.toml: agents.web.stop.grace``.
    """
    path = Path(path)
    place = _Place(str(path))
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".yaml", ".yml"):
        raise place.error("the name of a swarm file has to end in .toml, .yaml or .yml")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise place.error(f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise place.error(f"is not UTF-8 (byte {error.start})") from error
    data = _toml(text, place) if suffix == ".toml" else _yaml(text, place)
    return parse_swarm(data, path)


def parse_swarm(data: object, path: str | os.PathLike[str]) -> SwarmFile:
    """The swarm that `data`, the content of the file `path`, describes. Does not read the file.

    Raises `InvalidSwarm` as `read_swarm_file` does.
    """
    path = Path(path)
    place = _Place(str(path))
    table = _table(data, place, _FILE_KEYS)
    base_dir = path.absolute().parent / _path(table.get("base_dir", "."), place.at("base_dir"))
    if "cluster" in table:
        cluster_id = check_cluster_id(table["cluster"], where=place.at("cluster").where)
    else:
        cluster_id = _cluster_id(path)
    common = {key: table[key] for key in ("env", "env_file") if key in table}
    inherited = _merged(
        _agent_fields(common, place, base_dir),
        _agent_fields(table.get("defaults", {}), place.at("defaults"), base_dir),
    )
    place = place.at("agents")
    entries = {}
    for name, value in _table(table.get("agents", {}), place, None).items():
        check_agent_id(name, where=place.at(name).where)
        entries[name] = _merged(inherited, _agent_fields(value, place.at(name), base_dir))
    if not entries:
        raise place.error("there is no agent")
    ids = {name: _ids(name, fields.get("replicas")) for name, fields in entries.items()}
    agents: dict[str, AgentSpec] = {}
    for name, fields in entries.items():
        for count, agent_id in enumerate(ids[name], 1):
            if agent_id in agents:
                raise place.at(name).error(f"there is an agent {agent_id!r} already")
            agents[agent_id] = _agent(fields, agent_id, count, base_dir, place.at(name))
    groups = {**{agent_id: (agent_id,) for agent_id in agents}, **ids}
    after: dict[str, tuple[str, ...]] = {}
    for name, fields in entries.items():
        first = _members(fields.get("after", ()), groups, place.at(name).at("after"))
        after.update(dict.fromkeys(ids[name], first))
    _call(start_layers, after, place=place)
    return SwarmFile(cluster_id, base_dir, agents, after)


def start_layers(after: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    """The agents of `SwarmFile.after` in groups, each of which may start when those before it have.

    Every agent is in the first group it can be in; in a group they have the order of `after`.
    Raises `InvalidSwarm` for a circle, and for the name of an agent that is not there.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for agent_id, first in after.items():
        first = tuple(first)
        for each in first:
            if each not in after:
                raise InvalidSwarm(f"{agent_id!r} comes after {each!r}, and there is no such agent")
        sorter.add(agent_id, *first)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " after ".join(repr(each) for each in error.args[1][:-11:-1])
        raise InvalidSwarm(f"these agents wait for each other: {circle}") from error
    positions = {agent_id: position for position, agent_id in enumerate(after)}
    layers = []
    while sorter.is_active():
        layer = sorter.get_ready()
        layers.append(tuple(sorted(layer, key=positions.__getitem__)))
        sorter.done(*layer)
    return tuple(layers)


def parse_size(value: object, *, where: str = "") -> int:
    """Bytes: a whole number, or text such as "500KB", "1.5MB" (of 1000), "2GiB" (of 1024).

    Raises `InvalidSwarm`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = isinstance(value, str) and _SIZE.fullmatch(value)
    if match and match["unit"].upper() in _UNITS:
        decimals = match["decimals"] or ""
        digits = int(match["whole"] + decimals)
        divisor: int = 10 ** len(decimals)
        size, rest = divmod(digits * _UNITS[match["unit"].upper()], divisor)
        if not rest and size <= MOST:
            return size
    raise InvalidSwarm(
        f'has to be a whole number of bytes, such as 4096, "500KB" or "2GiB", not {shown(value)}',
        where,
    )


# Where something stands


@frozen
class _Place:
    """Where something stands, for errors: the file, and the keys that lead there."""

    file: str
    path: tuple[str, ...] = ()

    def at(self, key: str) -> _Place:
        return _Place(self.file, (*self.path, key))

    @property
    def where(self) -> str:
        keys = [
            key
            if re.fullmatch(r"[A-Za-z0-9_-]+", key)
            else json.dumps(key[:100], ensure_ascii=not key.isprintable())
            for key in self.path
        ]
        return ": ".join([self.file, ".".join(keys)] if keys else [self.file])

    def error(self, message: str) -> InvalidSwarm:
        return InvalidSwarm(message, self.where)


def _call(function: Callable[..., _T], *args: Any, place: _Place, **options: Any) -> _T:  # noqa: ANN401 - whatever the function takes
    """The result of the function; an error that it raises gets the place in front."""
    try:
        return function(*args, **options)
    except InvalidSwarm as error:
        between = "." if place.path else ": "
        raise moved(error, place.where, between) from error


# From text to data


def _toml(text: str, place: _Place) -> object:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise place.error(f"is not TOML: {error}") from error


def _yaml(text: str, place: _Place) -> object:
    try:
        import yaml  # noqa: PLC0415 - whoever has TOML doesn't need it
    except ImportError as error:
        raise place.error(
            "for YAML files PyYAML is needed: pip install pyyaml, or write it as TOML"
        ) from error

    class Loader(yaml.SafeLoader):
        """Refuses what PyYAML passes over in silence: a key that is there twice."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - as it is there
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in seen:
                        raise yaml.MarkedYAMLError(
                            problem=f"the key {shown(key.value)} is there twice",
                            problem_mark=key.start_mark,
                        )
                    seen.add((key.tag, key.value))
            return node

    try:
        return yaml.load(text, Loader)  # noqa: S506 - it is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise place.error(f"is not YAML: {error.problem or error.context}{line}") from error
    except (
        yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        # PyYAML lets through what Python raises about values that don't fit their tag (!!int "").
        text = " ".join(str(error).split())
        raise place.error(f"is not YAML: {text or type(error).__name__}") from error


# From data to values


def _table(value: object, place: _Place, keys: tuple[str, ...] | None) -> dict[str, Any]:
    """`value` if it is a table that has no other keys than these (None: any that are text)."""
    if not isinstance(value, dict):
        raise place.error(f"has to be a table, not {shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise place.error(f"a key has to be text, not {shown(key)}: put it in quotes")
        if keys is not None and key not in keys:
            near = difflib.get_close_matches(key[:100], keys, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(keys)}"
            raise place.error(f"there is no key {shown(key)} here; {advice}")
    return value


def _text(value: object, place: _Place) -> str:
    return check_text(value, where=place.where)


def _texts(value: object, place: _Place, example: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise place.error(f"has to be a list of texts, such as {example}, not {shown(value)}")
    return tuple(_text(each, place) for each in value)


def _path(value: object, place: _Place) -> Path:
    text = _text(value, place)
    if not text:
        raise place.error("is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise place.error(f"{shown(text)} begins with a home that is not known") from error


def _command(value: object, place: _Place) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(_call(split_command, _text(value, place), place=place))
    return _texts(value, place, '["program", "argument"]')


def _restart(value: object, place: _Place) -> RestartPolicy:
    if isinstance(value, dict):
        table = dict(_table(value, place, _RESTART_KEYS))
        if "when" not in table:
            raise place.error('needs a key when: "no", "on-failure" or "always"')
    elif isinstance(value, bool) or value in get_args(When):
        table = {"when": value}
    else:
        raise place.error(f'has to be "no", "on-failure", "always" or a table, not {shown(value)}')
    if table["when"] is False:
        # In YAML a plain `no` is false.
        table["when"] = "no"
    return _call(RestartPolicy, place=place, **table)


def _ready(value: object, place: _Place) -> Ready:
    table = dict(_table(value, place, _READY_KEYS))
    if "command" in table:
        table["command"] = _command(table["command"], place.at("command"))
    return _call(Ready, place=place, **table)


def _limits(value: object, place: _Place) -> OutputLimits:
    table = _table(value, place, _LIMIT_KEYS)
    sizes = {key: parse_size(size, where=place.at(key).where) for key, size in table.items()}
    return _call(OutputLimits, place=place, **sizes)


def _agent_fields(value: object, place: _Place, base_dir: Path) -> dict[str, Any]:
    """What a table of an agent, or a part of one, says: keys and checked values."""
    table = _table(value, place, _AGENT_KEYS)
    if "command" in table and "argv" in table:
        raise place.error("has both command and argv: leave out one of them")
    fields: dict[str, Any] = {}
    for key, content in table.items():
        there = place.at(key)
        match key:
            case "command":
                fields["argv"] = tuple(_call(split_command, _text(content, there), place=there))
            case "argv":
                fields["argv"] = _texts(content, there, '["program", "argument"]')
            case "env":
                fields["env"] = check_environment(content, where=there.where)
            case "replicas":
                fields[key] = _replicas(content, there)
            case "env_file":
                fields[key] = str(base_dir / _path(content, there))
            case "cwd":
                fields[key] = _path(content, there)
            case "restart":
                fields[key] = _restart(content, there)
            case "ready":
                fields[key] = _ready(content, there)
            case "stop":
                fields[key] = _call(StopPolicy, place=there, **_table(content, there, _STOP_KEYS))
            case "limits":
                fields[key] = _limits(content, there)
            case "after":
                fields[key] = _texts(content, there, '["db"]')
            case _:
                fields[key] = content
    # Whatever is wrong is wrong here, and not in the agents that inherit it.
    _call(AgentSpec, place=place, **{"argv": ("any",), **_spec_fields(fields)})
    return fields


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {**under, **over, "env": {**under.get("env", {}), **over.get("env", {})}}


def _spec_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in ("replicas", "after")}


# From tables to agents


def _cluster_id(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:64] or "swarm"


def _replicas(value: object, place: _Place) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REPLICAS:
        raise place.error(f"has to be a whole number from 1 to {MAX_REPLICAS}, not {shown(value)}")
    return value


def _ids(name: str, replicas: int | None) -> tuple[str, ...]:
    if replicas is None:
        return (name,)
    return tuple(f"{name}-{count}" for count in range(1, replicas + 1))


def _members(
    names: Iterable[str], groups: Mapping[str, tuple[str, ...]], place: _Place
) -> tuple[str, ...]:
    """The ids of the agents that are named: by their id, or all replicas by their common name."""
    members: dict[str, None] = {}
    for name in names:
        if name not in groups:
            near = difflib.get_close_matches(name[:100], groups, 1)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            raise place.error(f"there is no agent {shown(name)}{advice}")
        members.update(dict.fromkeys(groups[name]))
    return tuple(members)


def _agent(
    fields: dict[str, Any], agent_id: str, count: int, base_dir: Path, place: _Place
) -> AgentSpec:
    if "argv" not in fields:
        raise place.error("needs a command or argv")
    check_agent_id(agent_id, where=place.where)

    def filled(text: str) -> str:
        return _PLACEHOLDER.sub(lambda found: agent_id if found[1] == "id" else str(count), text)

    fields = _spec_fields(fields)
    fields["argv"] = [filled(word) for word in fields["argv"]]
    fields["env"] = {name: filled(value) for name, value in fields["env"].items()}
    if "cwd" in fields:
        fields["cwd"] = base_dir / filled(str(fields["cwd"]))
    ready: Ready | None = fields.get("ready")
    if ready is not None and ready.command is not None:
        fields["ready"] = evolve(ready, command=[filled(word) for word in ready.command])
    return _call(AgentSpec, place=place, **fields)
