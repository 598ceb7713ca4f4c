"""Checks of what people describe: values in files and calls, with errors that name the field.

Each raises `InvalidSwarm`. What the values mean must not live here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import Attribute

from ..client.pane import is_key
from ..errors import InvalidSwarm

SHORTEST = 0.001
"""Seconds: the least that a duration may be where none at all would make no sense."""

MOST = 2**63 - 1
"""The largest whole number in a description: it fits into what other programs use for one."""


def shown(value: object) -> str:
    """`value` as an error may show it: short, on one line, whatever it is."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    if isinstance(value, int) and abs(value) > MOST:
        return "a number that large"
    if isinstance(value, bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def number(
    what: str,
    minimum: float,
    maximum: float = sys.float_info.max,
    *,
    whole: bool = False,
    optional: bool = False,
) -> Callable[[object, Attribute[Any], object], None]:
    """A validator: the value is a number in this range, bounds included, and not a `bool`.

    `what` names it in the error ("a number of seconds"); with `whole` it is an `int` and at most
    `MOST`; with `optional` it may be None.
    """
    allowed = int if whole else (int, float)
    if whole:
        maximum = min(maximum, MOST)

    def check(_instance: object, attribute: Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        if (
            isinstance(value, bool)
            or not isinstance(value, allowed)
            or not minimum <= cast("float", value) <= maximum
        ):
            limits = f"at least {minimum:g}"
            if maximum < MOST:
                limits = f"from {minimum:g} to {maximum:g}"
            raise InvalidSwarm(f"has to be {what}, {limits}, not {shown(value)}", attribute.name)

    return check


# Values


def check_agent_id(text: object, *, where: str = "") -> str:
    """`text` if it can be the id of an agent: 1 to 128 printable characters, no "-" in front.

    It may hold blanks and slashes, so it is no file name. Raises `InvalidSwarm`.
    """
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise InvalidSwarm(f"an agent's id has to be printable text, not {shown(text)}", where)
    if len(text) > 128:
        raise InvalidSwarm(f"the agent's id {shown(text)} has more than 128 characters", where)
    if text.startswith("-"):
        raise InvalidSwarm(
            f'the agent\'s id {text!r} begins with "-", as only options of a command do', where
        )
    return text


def check_cluster_id(text: object, *, where: str = "") -> str:
    """`text` if it can be the id of a swarm: 1 to 64 letters, digits, "-" and "_", no more.

    The first is a letter or a digit, and all are ASCII. Raises `InvalidSwarm`.
    """
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text):
        raise InvalidSwarm(
            'a cluster id has at most 64 letters, digits, "-" and "_", and begins with a letter'
            f" or a digit, unlike {shown(text)}",
            where,
        )
    return text


def check_text(value: object, *, where: str = "") -> str:
    """`value` if it is text that a program can be given: no NUL, and it has a form in UTF-8.

    Bytes that are no text stand in it as Python has them in file names. Raises `InvalidSwarm`.
    """
    if (problem := _text_problem(value)) is not None:
        raise InvalidSwarm(f"has to be {problem}", where)
    return cast("str", value)


def check_environment(env: object, *, where: str = "env") -> dict[str, str]:
    """A copy of `env` if its names and values can be given to a program.

    Names are not empty and hold no "=", and there is no NUL anywhere. Raises `InvalidSwarm`.
    """
    if not isinstance(env, Mapping):
        raise InvalidSwarm(f"has to map names to values, not be {shown(env)}", where)
    for name, value in env.items():
        _check_environment_name(name, where)
        if isinstance(value, bool | int | float):
            raise InvalidSwarm(
                f"the value of {shown(name)} has to be text, not {shown(value)}:"
                " put it in quotes, as it should be given",
                where,
            )
        if (problem := _text_problem(value)) is not None:
            raise InvalidSwarm(f"the value of {shown(name)} has to be {problem}", where)
    return dict(env)


def _check_environment_name(name: object, where: str) -> None:
    if (problem := _text_problem(name)) is not None:
        raise InvalidSwarm(f"the name of a variable has to be {problem}", where)
    if not name or "=" in cast("str", name):
        raise InvalidSwarm(
            f'the name of a variable is not empty and has no "=", unlike {shown(name)}', where
        )


def _text_problem(value: object) -> str | None:
    """What `value` would have to be, were it text that a program can be given."""
    if not isinstance(value, str):
        return f"text, not {shown(value)}"
    if "\0" in value:
        return f"text without NUL, unlike {shown(value)}"
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return f"text that has a form in UTF-8, unlike {shown(value)}"
    return None


# Validators of attrs, whose names are what a value has to be


def text(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Text that is not empty, or None where that is the default."""
    if value is None and attribute.default is None:
        return
    if not check_text(value, where=attribute.name):
        raise InvalidSwarm("is empty", attribute.name)


def words(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Words of a command, the program first, or None where that is the default."""
    if value is None and attribute.default is None:
        return
    if isinstance(value, str):
        raise InvalidSwarm(
            "has to be a list of words, not one text:"
            f' say ["program", "argument"], not {shown(value)}',
            attribute.name,
        )
    if not isinstance(value, tuple):
        raise InvalidSwarm(f"has to be a list of words, not {shown(value)}", attribute.name)
    for word in value:
        if (problem := _text_problem(word)) is not None:
            raise InvalidSwarm(f"each word has to be {problem}", attribute.name)
    if not value or not value[0]:
        raise InvalidSwarm("has to begin with the program to run", attribute.name)


def keys(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Keys by tmux's names."""
    if not isinstance(value, tuple):
        raise InvalidSwarm(
            f'has to be a list of keys, such as ["C-c"], not {shown(value)}', attribute.name
        )
    for key in value:
        if (problem := _text_problem(key)) is not None:
            raise InvalidSwarm(f"each key has to be {problem}", attribute.name)
        if not key:
            raise InvalidSwarm("a key is empty", attribute.name)
        if re.match("[CMS]-.", key) and not is_key(key):
            raise InvalidSwarm(f"there is no key {key!r}", attribute.name)


def line(instance: object, attribute: Attribute[Any], value: object) -> None:
    """One line that can be typed, or None where that is the default."""
    text(instance, attribute, value)
    # Line ends would submit it early, escapes could end the paste as which it is typed.
    if isinstance(value, str) and re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise InvalidSwarm(
            f"has to be a single line without control characters, unlike {shown(value)}",
            attribute.name,
        )


def printable(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Printable text, or None where that is the default."""
    text(instance, attribute, value)
    if isinstance(value, str) and not value.isprintable():
        raise InvalidSwarm(f"has to be printable, unlike {shown(value)}", attribute.name)


def pattern(instance: object, attribute: Attribute[Any], value: object) -> None:
    """A regular expression, or None where that is the default."""
    text(instance, attribute, value)
    if isinstance(value, str):
        try:
            re.compile(value, re.MULTILINE)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidSwarm(
                f"{shown(value)} is not a regular expression: {error}", attribute.name
            ) from error


def boolean(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise InvalidSwarm(f"has to be true or false, not {shown(value)}", attribute.name)


def environment(_instance: object, attribute: Attribute[Any], value: Any) -> None:  # noqa: ANN401 - a value of any type is what is checked
    """Variables that a program can be given."""
    check_environment(value, where=attribute.name)


def variable_names(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Names of variables."""
    if not isinstance(value, tuple):
        raise InvalidSwarm(f"has to be a list of names, not {shown(value)}", attribute.name)
    for name in value:
        _check_environment_name(name, attribute.name)
