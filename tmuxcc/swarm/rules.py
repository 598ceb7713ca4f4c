r"""What the programs that agents run show of themselves, as data: kinds of agents and their rules.

Here a title or a screen is compared with the rules of a kind. What follows from that, together with
time and with everything else that is known, is decided in `activity`; nothing here knows of time.
Apart from reading a kind's file there is no I/O.

A kind is a TOML file::

    name = "claude"                  # the name by which it is asked for
    aliases = ["claude-code"]        # other names
    programs = ["claude"]            # base names of the programs that are of this kind
    quiet = 1.0                      # seconds of silence before idle (default 1.0)
    settle = 0.2                     # seconds of silence before the screen is looked at (0.2)
    stuck_after = 30.0               # seconds without any reaction to input before unknown (30)
    scrolls = false                  # it writes line below line: the same screen can come again
    prompt = '^> '                   # pattern: where on the screen its input line begins

    [[rules]]
    id = "menu"                      # unique in the file; shown when the decision is explained
    activity = "blocked"             # busy, idle, blocked or unknown
    priority = 300                   # of the rules that match, the highest decides (default 0)
    region = "last_lines(12)"        # where to search (default "screen")
    contains = ["Esc to cancel"]     # every one of these texts must be there,
    any = ["to navigate", "Enter"]   # one of these,
    regex = ['^ *> \d+\. ']         # one of these patterns,
    not = ["esc to interrupt"]       # none of these texts;
    prompt = false                   # the prompt must be there (true), or must not be (false)
    lasts = 10.0                     # only of titles: seconds for which one that is not set again
                                     # counts, for titles that move as long as they are meant

A rule needs one of `contains`, `any`, `regex` and `prompt`. Upper and lower case are the same in
texts, not in patterns. In patterns ``^`` and ``$`` match at each line. Blank lines and blanks at
the ends of lines are not there for rules. Regions:

``title``
    what the program has set as the terminal's title (OSC 0 and 2)
``screen``, ``first_lines(n)``, ``last_lines(n)``, ``last_line``
    the screen of the pane, or a part of it
``above_prompt``, ``above_prompt(n)``, ``from_prompt``
    what stands before the last match of the kind's `prompt`, or the last n lines of that; the match
    and what follows. Without a match these are empty, and nothing is found in them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from attrs import field, frozen

from ..errors import InvalidSwarm
from .state import Activity

MAX_EXCERPT = 200
"""Characters of a title or a line that are kept to explain a decision."""


def _folded(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.casefold() for text in texts)


@frozen
class Region:
    """A part of what a program shows: its `name`, and how many lines (None: all there are)."""

    name: str
    lines: int | None = None


@frozen
class Rule:
    """One thing that a program shows, and what it then does. The fields are the keys of the file.

    `any_of` and `none_of` are its ``any`` and ``not``. Texts are kept casefolded.
    """

    id: str
    activity: Activity
    priority: int = 0
    region: Region = Region("screen")
    contains: tuple[str, ...] = field(default=(), converter=_folded)
    any_of: tuple[str, ...] = field(default=(), converter=_folded)
    regex: tuple[re.Pattern[str], ...] = ()
    none_of: tuple[str, ...] = field(default=(), converter=_folded)
    prompt: bool | None = None
    lasts: float | None = None

    def match(self, text: str, folded: str) -> str | None:
        """The line of `text` by which the rule matches, None if it does not.

        `folded` is the same text casefolded. Whether there is a prompt is not asked here, and the
        line is empty if the rule asks for nothing else.
        """
        if not text or not all(each in folded for each in self.contains):
            return None
        if any(each in folded for each in self.none_of):
            return None
        found = next((each for each in self.any_of if each in folded), None)
        if self.any_of and found is None:
            return None
        match = next(filter(None, (pattern.search(text) for pattern in self.regex)), None)
        if match is not None:
            return _line_at(text, match.end())
        if self.regex:
            return None
        shown = found or next(iter(self.contains), None)
        if shown is None:
            return ""
        # Casefolding can change how long a text is, so the place is looked for line by line.
        lines = text.split("\n")
        return next((line for line in lines if shown in line.casefold()), lines[-1])[:MAX_EXCERPT]


@frozen
class AgentKind:
    """A kind of program that agents run: how its state is told from what it shows.

    `rules` are in any order; `title_rules` and `screen_rules` are those of each, the first to
    decide first; `tells_idle` is whether one of them is for idle, so that silence alone does not
    have to do. Times are in seconds. See the keys of the file.
    """

    name: str
    aliases: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    quiet: float = 1.0
    settle: float = 0.2
    stuck_after: float = 30.0
    scrolls: bool = False
    prompt: re.Pattern[str] | None = None
    title_rules: tuple[Rule, ...] = field(init=False)
    screen_rules: tuple[Rule, ...] = field(init=False)
    tells_idle: bool = field(init=False)

    @title_rules.default
    def _select_title_rules(self) -> tuple[Rule, ...]:
        return self._select_rules(titles=True)

    @screen_rules.default
    def _select_screen_rules(self) -> tuple[Rule, ...]:
        return self._select_rules(titles=False)

    @tells_idle.default
    def _find_idle(self) -> bool:
        return any(rule.activity is Activity.IDLE for rule in self.rules)

    def _select_rules(self, *, titles: bool) -> tuple[Rule, ...]:
        found = [rule for rule in self.rules if (rule.region.name == "title") is titles]
        return tuple(sorted(found, key=lambda rule: -rule.priority))

    def match_title(self, title: str) -> Rule | None:
        """The rule that says what a program with this `title` does."""
        folded = title.casefold()
        for rule in self.title_rules:
            if rule.match(title, folded) is not None:
                return rule
        return None

    def match_screen(self, lines: Iterable[str]) -> tuple[Rule, str] | None:
        """The rule that says what a program with these `lines` on the screen does.

        With it comes the line by which it was found.
        """
        screen = _Screen(lines, self.prompt)
        for rule in self.screen_rules:
            if rule.prompt is not None and rule.prompt is not screen.has_prompt:
                continue
            excerpt = rule.match(*screen.region(rule.region))
            if excerpt is not None:
                return rule, excerpt or screen.prompt_line
        return None


GENERIC = AgentKind("generic")
"""The kind of every program that is of no other: it has no rules."""


def load_kind(source: str | os.PathLike[str], *, where: str = "") -> AgentKind:
    """Read a kind from its TOML text (str), or from the file at a path (`pathlib.Path`).

    `where` names the text in errors; a file is named by its path. Raises `InvalidSwarm`, which
    names file, rule and key, if it can't be read or is no kind.
    """
    if isinstance(source, str):
        return _KindReader(where or "kind").read(source)
    where = where or os.fspath(source)
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSwarm(f"can't be read: {error}", where) from error
    return _KindReader(where).read(text)


@cache
def load_kinds() -> Mapping[str, AgentKind]:
    """The kinds that come with the package, by name, ``"generic"`` among them."""
    kinds = {GENERIC.name: GENERIC}
    folder = files(__package__) / "kinds"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            kind = load_kind(entry.read_text(encoding="utf-8"), where=f"kinds/{entry.name}")
            kinds[kind.name] = kind
    return MappingProxyType(kinds)


def kind_for(
    argv: Sequence[str], name: str | os.PathLike[str] | AgentKind | None = None
) -> AgentKind:
    """The kind of an agent that runs `argv`.

    `name` is a kind's name or alias, a kind, or the path of a kind's file (a path object, or text
    with a slash in it or ``.toml`` at its end); it decides if it is given. Raises `InvalidSwarm` if
    there is no such kind. Otherwise the program that is started decides, also behind ``env``,
    ``python -m``, ``npx`` and the like. A program that no kind names is "generic".
    """
    if isinstance(name, AgentKind):
        return name
    if name is not None and (not isinstance(name, str) or "/" in name or name.endswith(".toml")):
        return load_kind(Path(name))
    kinds = load_kinds().values()
    if name is not None:
        for kind in kinds:
            if name == kind.name or name in kind.aliases:
                return kind
        known = [known for kind in kinds for known in (kind.name, *kind.aliases)]
        raise InvalidSwarm(
            f"there is no kind {name!r}{_nearest(name, known)};"
            f" there are {', '.join(sorted(kind.name for kind in kinds))}"
        )
    return _kinds_by_program().get(_program(list(argv)), GENERIC)


@cache
def _kinds_by_program() -> Mapping[str, AgentKind]:
    found: dict[str, AgentKind] = {}
    for kind in load_kinds().values():
        for name in (kind.name, *kind.aliases, *kind.programs):
            found.setdefault(name, kind)
    return found


# -------------------------------------------------------------------------------------- matching


class _Screen:
    """The lines of a screen that are not blank, and its regions, each made when asked for."""

    def __init__(self, lines: Iterable[str], prompt: re.Pattern[str] | None) -> None:
        self._lines = [line for line in map(str.rstrip, lines) if line]
        self._made: dict[Region, tuple[str, str]] = {}
        self._text = "\n".join(self._lines)
        self._prompt_at: int | None = None
        self.prompt_line = ""
        if prompt is not None and self._text:
            for match in prompt.finditer(self._text):
                self._prompt_at = match.start()
                self.prompt_line = _line_at(self._text, match.end())

    @property
    def has_prompt(self) -> bool:
        return self._prompt_at is not None

    def region(self, region: Region) -> tuple[str, str]:
        """The text of `region`, as it is and casefolded."""
        if region not in self._made:
            text = self._cut(region)
            self._made[region] = text, text.casefold()
        return self._made[region]

    def _cut(self, region: Region) -> str:
        count = region.lines
        if region.name == "first_lines":
            return "\n".join(self._lines[:count])
        if region.name == "last_lines":
            return "\n".join(self._lines[-(count or 0) :])
        if region.name == "last_line":
            return self._lines[-1] if self._lines else ""
        if region.name == "screen":
            return self._text
        if self._prompt_at is None:
            return ""
        if region.name == "from_prompt":
            return self._text[self._prompt_at :]
        above = self._text[: self._prompt_at].rstrip("\n").split("\n")
        return "\n".join(above if count is None else above[-count:])


def _line_at(text: str, at: int) -> str:
    """The line of `text` that the place `at` is in."""
    line_end = text.find("\n", at)
    line = text[text.rfind("\n", 0, at) + 1 : line_end if line_end >= 0 else len(text)]
    return line[:MAX_EXCERPT]


# --------------------------------------------------------------------------------------- programs

# Programs that only start another one, and the words between the two that are no options.
_RUNNERS: dict[str, tuple[str, ...]] = {
    "bun": ("x",),
    "bunx": (),
    "env": (),
    "nice": (),
    "nohup": (),
    "npm": ("exec",),
    "npx": (),
    "pipx": ("run",),
    "pnpm": ("dlx", "exec"),
    "setsid": (),
    "uv": ("tool", "run"),
    "uvx": (),
    "yarn": ("dlx",),
}
_OPTIONS_WITH_VALUE = {
    "-C", "-W", "-X", "-n", "-p", "-r", "-u", "--from", "--package", "--python", "--require",
    "--with",
}  # fmt: skip
_INTERPRETER = re.compile(r"(?:python|pypy)[0-9.]*|node|bun|deno")


def _program(argv: list[str]) -> str:
    """The name of the program that `argv` is there to run; empty if that can't be seen."""
    while argv:
        name = _base_name(argv.pop(0))
        if name not in _RUNNERS and not _INTERPRETER.fullmatch(name):
            return name
        python = name.startswith(("python", "pypy"))
        while argv:
            word = argv[0]
            if python and word == "-m" and len(argv) > 1:
                return argv[1].partition(".")[0]
            if python and word == "-c":
                return ""
            if word in _OPTIONS_WITH_VALUE and not (python and word == "-u"):
                del argv[:2]
            elif (
                word.startswith("-")
                or (name == "env" and "=" in word)
                or word in _RUNNERS.get(name, ())
            ):
                del argv[0]
            else:
                break
    return ""


def _base_name(word: str) -> str:
    # A login shell's name begins with a hyphen, a package's version follows an at sign.
    name = word.rsplit("/", 1)[-1].lstrip("-").partition("@")[0]
    return re.sub(r"\.(?:py|[cm]?js)$", "", name)


# ---------------------------------------------------------------------------------------- reading

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_REGION = re.compile(r"([a-z_]+)(?:\(([1-9][0-9]{0,3})\))?")
_REGIONS = {  # whether a number of lines belongs to it
    "above_prompt": (False, True),
    "first_lines": (True,),
    "from_prompt": (False,),
    "last_line": (False,),
    "last_lines": (True,),
    "screen": (False,),
    "title": (False,),
}
_KIND_KEYS = (
    "name", "aliases", "programs", "quiet", "settle", "stuck_after", "scrolls", "prompt", "rules",
)  # fmt: skip
_RULE_KEYS = (
    "id", "activity", "priority", "region", "contains", "any", "regex", "not", "prompt", "lasts",
)  # fmt: skip


class _KindReader:
    """The text of a kind's file into a kind; whatever is wrong is named with its place."""

    def __init__(self, where: str) -> None:
        self._file = where

    def read(self, text: str) -> AgentKind:
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidSwarm(f"is not TOML: {error}", self._file) from error
        table = _Table(values, f"{self._file}: ", _KIND_KEYS)
        prompt = table.take("prompt", _pattern, None)
        rules: dict[str, Rule] = {}
        for number, entry in enumerate(table.take("rules", _tables, ()), 1):
            rule = self._rule(entry, number, has_prompt=prompt is not None)
            if rule.id in rules:
                raise table.wrong(f"there are two rules {rule.id!r}", "rules")
            rules[rule.id] = rule
        return AgentKind(
            name=table.need("name", _name),
            aliases=table.take("aliases", _names, ()),
            programs=table.take("programs", _names, ()),
            rules=tuple(rules.values()),
            quiet=table.take("quiet", _seconds, 1.0),
            settle=table.take("settle", _seconds, 0.2),
            stuck_after=table.take("stuck_after", _seconds, 30.0),
            scrolls=table.take("scrolls", _flag, False),
            prompt=prompt,
        )

    def _rule(self, entry: Mapping[str, object], number: int, *, has_prompt: bool) -> Rule:
        name = entry.get("id")
        which = f"rules.{name}" if isinstance(name, str) and name else f"rules[{number}]"
        table = _Table(entry, f"{self._file}: {which}.", _RULE_KEYS)
        rule = Rule(
            id=table.need("id", _name),
            activity=table.need("activity", _activity),
            priority=table.take("priority", _integer, 0),
            region=table.take("region", _region, Region("screen")),
            contains=table.take("contains", _texts, ()),
            any_of=table.take("any", _texts, ()),
            regex=table.take("regex", _patterns, ()),
            none_of=table.take("not", _texts, ()),
            prompt=table.take("prompt", _flag, None),
            lasts=table.take("lasts", _seconds, None),
        )
        title = rule.region.name == "title"
        if not (rule.contains or rule.any_of or rule.regex) and rule.prompt is None:
            raise table.wrong("it matches everything: give it contains, any, regex or prompt")
        if "prompt" in rule.region.name and not has_prompt:
            raise table.wrong("the kind has no prompt to search at", "region")
        if rule.prompt is not None and (title or not has_prompt):
            raise table.wrong("a title has no prompt" if title else "the kind has none", "prompt")
        if rule.lasts is not None and not title:
            raise table.wrong("only what a title says can last", "lasts")
        return rule


_T = TypeVar("_T")
_Default = TypeVar("_Default")


class _Table:
    """A table of the file: each value is taken by its key, checked, and complained about.

    `where` stands in front of the key in complaints. The checks raise `ValueError`.
    """

    def __init__(self, values: Mapping[str, object], where: str, keys: Sequence[str]) -> None:
        self._values = values
        self._where = where
        for key in values:
            if key not in keys:
                raise self.wrong(f"unknown key{_nearest(key, keys)}", key)

    def need(self, key: str, check: Callable[[object], _T]) -> _T:
        if key not in self._values:
            raise self.wrong("is missing", key)
        try:
            return check(self._values[key])
        except ValueError as error:
            raise self.wrong(str(error), key) from error

    def take(self, key: str, check: Callable[[object], _T], default: _Default) -> _T | _Default:
        return self.need(key, check) if key in self._values else default

    def wrong(self, message: str, key: str = "") -> InvalidSwarm:
        return InvalidSwarm(message, f"{self._where}{key}".rstrip(".: "))


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("must be a text that is not empty")


def _name(value: object) -> str:
    name = _text(value)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: letters, digits and . _ + - are allowed")
    return name


def _list(value: object) -> list[object]:
    if isinstance(value, list) and value:
        return value
    raise ValueError("must be a list that is not empty")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(each) for each in _list(value))


def _names(value: object) -> tuple[str, ...]:
    return tuple(_name(each) for each in _list(value))


def _tables(value: object) -> tuple[dict[str, object], ...]:
    tables = tuple(each for each in _list(value) if isinstance(each, dict))
    if len(tables) < len(_list(value)):
        raise ValueError("must be tables: [[rules]]")
    return tables


def _pattern(value: object) -> re.Pattern[str]:
    try:
        return re.compile(_text(value), re.MULTILINE)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error


def _patterns(value: object) -> tuple[re.Pattern[str], ...]:
    return tuple(_pattern(each) for each in _list(value))


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number")


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9:
        return float(value)
    raise ValueError("must be a number of seconds, more than 0")


def _activity(value: object) -> Activity:
    known = {activity.value: activity for activity in Activity}
    if (found := known.get(_text(value))) is not None:
        return found
    raise ValueError(f"{value!r} is none of {', '.join(known)}{_nearest(_text(value), [*known])}")


def _region(value: object) -> Region:
    match = _REGION.fullmatch(_text(value))
    name = _text(value).partition("(")[0]
    if name not in _REGIONS:
        near = _nearest(name, tuple(_REGIONS))
        raise ValueError(f"{value!r} is none of {', '.join(_REGIONS)}{near}")
    lines = int(match[2]) if match and match[2] else None
    if match is None or (lines is not None) not in _REGIONS[name]:
        right = f"{name}(n), n from 1 on" if True in _REGIONS[name] else name
        raise ValueError(f"{value!r} is no region: write {right}")
    return Region(name, lines)
