"""Agents as values, their form as text, commands and files of variables: `tmuxcc.swarm.spec`."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from attrs import evolve, fields
from hypothesis import example, given
from hypothesis import strategies as st

from tmuxcc.errors import InvalidSwarm
from tmuxcc.swarm.checks import MOST, check_environment
from tmuxcc.swarm.policy import OutputLimits, RestartPolicy
from tmuxcc.swarm.spec import (
    AgentSpec,
    Ready,
    StopPolicy,
    moved,
    read_env_file,
    spec_from_json,
    spec_to_json,
    split_command,
)

# All that a program can be given: no NUL, and of the surrogates only those that stand for bytes.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.integers(
    0xDC80, 0xDCFF
).map(chr)
words = st.text(characters, max_size=8)
full_words = st.text(characters, min_size=1, max_size=8)
names = full_words.filter(lambda text: "=" not in text)
printable = full_words.filter(str.isprintable)
seconds = st.floats(0.001, 1e300) | st.integers(1, 10**30)
sizes = st.none() | st.integers(1, MOST)


@st.composite
def commands(draw: st.DrawFn) -> tuple[str, ...]:
    return (draw(full_words), *draw(st.lists(words, max_size=3)))


@st.composite
def restart_policies(draw: st.DrawFn) -> RestartPolicy:
    delay = draw(seconds)
    return RestartPolicy(
        draw(st.sampled_from(["no", "on-failure", "always"])),
        delay=delay,
        max_delay=max(delay, draw(seconds)),
        factor=draw(st.floats(1, 1e10)),
        jitter=draw(st.floats(0, 1)),
        max_restarts=draw(st.integers(1, MOST)),
        window=draw(seconds),
        stable_after=draw(seconds),
    )


stop_policies = st.builds(
    StopPolicy,
    keys=st.lists(full_words, max_size=2),
    signal=st.sampled_from(sorted(signal.Signals.__members__)) | st.sampled_from(signal.Signals),
    grace=seconds,
) | st.builds(StopPolicy, text=printable, grace=st.floats(0, 5))
readies = st.one_of(
    st.builds(Ready, pattern=st.sampled_from(["ready$", "é|[a-z]+", "\n", "(x)\\1"])),
    st.builds(Ready, command=commands(), timeout=st.none() | seconds),
    st.builds(Ready, port=st.integers(1, 65535), host=printable),
)


@st.composite
def output_limits(draw: st.DrawFn) -> OutputLimits:
    rate = draw(sizes)
    return OutputLimits(
        rate=rate,
        burst=None if rate is None else draw(sizes),
        size=draw(sizes),
        clear_history_after=draw(sizes),
    )


@st.composite
def specs(draw: st.DrawFn) -> AgentSpec:
    env = draw(st.dictionaries(names, words, max_size=4))
    secrets = [name for name in draw(st.lists(names, max_size=3)) if name not in env]
    return AgentSpec(
        draw(commands()),
        env=env,
        env_file=draw(st.none() | full_words),
        secret_names=secrets,
        cwd=draw(st.none() | full_words),
        restart=draw(restart_policies()),
        stop=draw(stop_policies),
        ready=draw(st.none() | readies),
        kind=draw(st.none() | printable),
        limits=draw(output_limits()),
        log=draw(st.booleans()),
    )


# ------------------------------------------------------------------------------------------- values


def test_an_agent_needs_no_more_than_its_command() -> None:
    spec = AgentSpec(["cat"])
    assert spec.argv == ("cat",)
    assert spec == AgentSpec(("cat",), env={}, restart=None, stop=StopPolicy(), log=True)
    assert (spec.restart.when, spec.stop.signal, spec.stop.grace) == ("no", "SIGTERM", 5.0)
    assert hash(spec) == hash(AgentSpec(("cat",), restart="no"))


def test_what_was_given_may_change_afterwards_and_the_agent_does_not() -> None:
    argv, env = ["cat"], {"A": "1"}
    spec = AgentSpec(argv, env=env)
    argv.append("x")
    env["B"] = "2"
    assert spec == AgentSpec(["cat"], env={"A": "1"})
    with pytest.raises(TypeError):
        spec.env["B"] = "2"


def test_paths_are_kept_as_text() -> None:
    spec = AgentSpec(["cat"], env_file=Path("/x/.env"), cwd=Path("/x"))
    assert (spec.env_file, spec.cwd) == ("/x/.env", "/x")


@pytest.mark.parametrize(
    ("values", "where", "said"),
    [
        ({"argv": "cat x"}, "argv", 'say ["program", "argument"], not \'cat x\''),
        ({"argv": []}, "argv", "begin with the program"),
        ({"argv": [""]}, "argv", "begin with the program"),
        ({"argv": None}, "argv", "not nothing"),
        ({"argv": {"cat"}}, "argv", "not a set"),
        ({"argv": ["cat", 1]}, "argv", "each word has to be text, not 1"),
        ({"argv": ["cat", "a\0b"]}, "argv", "without NUL"),
        ({"argv": ["cat", "\ud800"]}, "argv", "UTF-8"),
        ({"env": ["A=1"]}, "env", "has to map names to values, not be a list"),
        ({"env": {"": "1"}}, "env", "not empty and has no \"=\", unlike ''"),
        ({"env": {"A=B": "1"}}, "env", "'A=B'"),
        ({"env": {"A\0": "1"}}, "env", "NUL"),
        ({"env": {1: "1"}}, "env", "has to be text, not 1"),
        ({"env": {"A": 8000}}, "env", "the value of 'A' has to be text, not 8000: put it in quote"),
        ({"env": {"A": "\0"}}, "env", "the value of 'A' has to be text without NUL"),
        ({"env": {"A": None}}, "env", "not nothing"),
        ({"env_file": ""}, "env_file", "is empty"),
        ({"env_file": "a\0"}, "env_file", "NUL"),
        ({"cwd": 1}, "cwd", "text"),
        ({"secret_names": "KEY"}, "secret_names", "a list of names"),
        ({"secret_names": ["A=B"]}, "secret_names", '"="'),
        ({"secret_names": ["A"], "env": {"A": "1"}}, "secret_names", "'A' is in env too"),
        ({"restart": "never"}, "restart", "not 'never'"),
        ({"stop": "C-c"}, "stop", "StopPolicy"),
        ({"ready": "ready"}, "ready", "Ready"),
        ({"kind": "a\n"}, "kind", "printable"),
        ({"kind": ""}, "kind", "is empty"),
        ({"limits": None}, "limits", "OutputLimits"),
        ({"log": 1}, "log", "true or false, not 1"),
    ],
)
def test_a_wrong_agent_is_refused_with_its_field(values, where, said) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        AgentSpec(**{"argv": ["cat"], **values})
    assert caught.value.where == where
    assert said in str(caught.value)


@pytest.mark.parametrize("given", ["SIGTERM", "TERM", "sigterm", "term", 15, signal.SIGTERM])
def test_a_signal_may_be_named_in_several_ways_and_has_one_name(given) -> None:
    assert StopPolicy(signal=given).signal == "SIGTERM"


def test_a_second_name_of_a_signal_becomes_its_first() -> None:
    assert StopPolicy(signal="IOT").signal == "SIGABRT"


@pytest.mark.parametrize(
    ("values", "where", "said"),
    [
        *(({"signal": wrong}, "signal", "of a signal") for wrong in ("KILLL", "", 0, 99, 15.0)),
        *(({"signal": wrong}, "signal", "of a signal") for wrong in (True, None, "SIG", [])),
        ({"keys": "C-c"}, "keys", 'a list of keys, such as ["C-c"]'),
        ({"keys": [1]}, "keys", "each key has to be text"),
        ({"keys": [""]}, "keys", "a key is empty"),
        ({"text": ""}, "text", "is empty"),
        ({"text": "/exit\n"}, "text", "a single line"),
        ({"text": "\x1b[201~"}, "text", "control characters"),
        ({"text": "/exit", "keys": ["C-c"]}, "text", "left out where there are keys"),
        ({"grace": -1}, "grace", "at least 0"),
        ({"grace": math.inf}, "grace", "not inf"),
    ],
)
def test_a_wrong_stop_is_refused_with_its_field(values, where, said) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        StopPolicy(**values)
    assert caught.value.where == where
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("values", "where", "said"),
    [
        ({}, "", "needs one of pattern, command and port"),
        ({"timeout": 5}, "", "needs one of"),
        ({"pattern": "x", "port": 1}, "", "only one"),
        ({"pattern": ""}, "pattern", "is empty"),
        ({"pattern": "("}, "pattern", "'(' is not a regular expression: missing )"),
        ({"pattern": "a{99999999999999999999}"}, "pattern", "is not a regular expression"),
        ({"pattern": "(" * 5000 + ")" * 5000}, "pattern", "is not a regular expression"),
        ({"pattern": 1}, "pattern", "text"),
        ({"command": "true"}, "command", "a list of words"),
        ({"command": []}, "command", "begin with the program"),
        ({"port": 0}, "port", "a TCP port, from 1 to 65535, not 0"),
        ({"port": 65536}, "port", "65536"),
        ({"port": "80"}, "port", "not '80'"),
        ({"port": 80, "host": ""}, "host", "is empty"),
        ({"port": 80, "host": None}, "host", "not nothing"),
        ({"port": 80, "timeout": 0}, "timeout", "at least 0.001"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_field(values, where, said) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        Ready(**values)
    assert caught.value.where == where
    assert said in str(caught.value)


def test_an_error_moves_to_where_its_part_is() -> None:
    inner = InvalidSwarm("is wrong", "delay")
    assert str(moved(inner, "restart")) == "restart.delay: is wrong"
    assert moved(moved(inner, "restart"), "x.toml", ": ").where == "x.toml: restart.delay"
    assert str(moved(InvalidSwarm("is wrong"), "restart")) == "restart: is wrong"


# --------------------------------------------------------------------------------------------- JSON


@given(specs())
@example(AgentSpec(["\udc80\udcff", "\U0001f680"], env={"\n": "\x1b"}))
def test_an_agent_survives_being_written_and_read(spec) -> None:
    text = spec_to_json(spec)
    again = spec_from_json(text)
    assert again == spec
    assert list(again.env.items()) == list(spec.env.items())
    assert spec_to_json(again) == text
    assert text.isascii()
    assert text.isprintable()


def test_the_text_is_compact_and_says_what_is_meant_even_where_that_is_the_default() -> None:
    # What is written may be read by a later version: change the number when this has to change.
    assert spec_to_json(AgentSpec(["cat", "é"])) == (
        '{"version":1,"argv":["cat","\\u00e9"],"env":{},"secret_names":[],"log":true,'
        '"restart":{"when":"no","delay":0.5,"factor":2.0,"max_delay":30.0,"jitter":0.1,'
        '"max_restarts":5,"window":60.0,"stable_after":10.0},'
        '"stop":{"keys":[],"signal":"SIGTERM","grace":5.0},"limits":{}}'
    )


def test_a_subclass_of_a_part_is_written_as_that_part() -> None:
    class Patient(StopPolicy):
        pass

    spec = AgentSpec(["cat"], stop=Patient(grace=60))
    assert spec_from_json(spec_to_json(spec)).stop == StopPolicy(grace=60)


def test_the_fields_are_those_that_version_1_has() -> None:
    assert [each.name for each in fields(AgentSpec)] == [
        "argv", "env", "env_file", "secret_names", "cwd", "restart", "stop", "ready", "kind",
        "limits", "log",
    ]  # fmt: skip


GOOD = json.loads(
    spec_to_json(
        AgentSpec(["cat"], env={"A": "1"}, ready=Ready(port=1), limits=OutputLimits(rate=1))
    )
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("9" * 5000, "is no JSON"),
        ("[]", "is a list, not an object"),
        ("null", "is nothing, not an object"),
        ("{}", "version: has to be 1, not nothing"),
        ('{"version":1}', "argv: has to be a list of words, not nothing"),
        *(
            (json.dumps({**GOOD, "version": version}), "version: has to be 1")
            for version in (0, 2, "1", 1.0, True, None)
        ),
        (json.dumps({**GOOD, "argv0": "x"}), "'argv0' is not known"),
        (json.dumps({**GOOD, "argv": "cat"}), "argv: "),
        (json.dumps({**GOOD, "env": None}), "env: "),
        (json.dumps({**GOOD, "stop": {"grace": "x"}}), "stop.grace: has to be a number"),
        (json.dumps({**GOOD, "stop": []}), "stop: has to be an object, not a list"),
        (json.dumps({**GOOD, "stop": {"key": []}}), "stop: 'key' is not known"),
        (json.dumps({**GOOD, "ready": {}}), "ready: needs one of"),
        (json.dumps({**GOOD, "ready": None}), "ready: has to be an object"),
        (json.dumps({**GOOD, "restart": {"delay": math.nan}}), "restart.delay: "),
        (json.dumps({**GOOD, "limits": {"rate": 1e3}}), "limits.rate: "),
    ],
)
def test_other_text_is_refused(text, said) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        spec_from_json(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD)), values, st.sampled_from(["", *GOOD["restart"], "signal"]))
def test_any_change_of_the_text_gives_an_agent_or_is_refused(name, value, inner) -> None:
    data = json.loads(json.dumps(GOOD))
    if isinstance(data[name], dict) and inner:
        data[name][inner] = value
    else:
        data[name] = value
    try:
        spec = spec_from_json(json.dumps(data))
    except InvalidSwarm:
        return
    assert spec_from_json(spec_to_json(spec)) == spec


def test_no_value_of_a_secret_has_a_place_to_be_kept() -> None:
    spec = AgentSpec(["cat"], secret_names=["KEY"])
    assert json.loads(spec_to_json(spec))["secret_names"] == ["KEY"]
    assert evolve(spec, secret_names=()).secret_names == ()


# ----------------------------------------------------------------------------------------- commands


@given(st.lists(full_words, min_size=1, max_size=4).filter(lambda words: "=" not in words[0]))
def test_a_quoted_command_is_split_into_what_was_quoted(argv) -> None:
    assert split_command(shlex.join(argv)) == argv


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("python3 -m http.server 8000", ["python3", "-m", "http.server", "8000"]),
        (r"""a 'b c' d\ e "f\"g" '' é""", ["a", "b c", "d e", 'f"g', "", "é"]),
        ("grep a$ f", ["grep", "a$", "f"]),
        (r"a \| '|' \$x '$x' \&", ["a", "|", "|", "$x", "$x", "&"]),
        ("ls *.py ~", ["ls", "*.py", "~"]),
        ("a b=c", ["a", "b=c"]),
        ("  a\tb\n", ["a", "b"]),
    ],
)
def test_a_command_is_split_as_by_a_shell(text, argv) -> None:
    assert split_command(text) == argv


@pytest.mark.parametrize(
    "text",
    [
        "a | b", "a && b", "a; b", "a > f", "a < f", "a &", "(a)", "echo $HOME", "echo ${A}",
        'echo "$A"', "echo $(a)", "echo `a`", 'echo "`a`"', "A=1 b", "a $?", "a 2>&1",
    ],
)  # fmt: skip
def test_what_only_a_shell_could_do_is_refused_with_advice(text) -> None:
    with pytest.raises(InvalidSwarm, match="needs a shell") as caught:
        split_command(text)
    assert "sh -c" in str(caught.value) or f"'env {text}'" in str(caught.value)
    assert caught.value.where == ""


def test_the_advice_is_a_command_that_is_taken() -> None:
    with pytest.raises(InvalidSwarm) as caught:
        split_command("ls | wc -l")
    advice = str(caught.value).split('say "')[1].rstrip('"')
    assert split_command(advice) == ["sh", "-c", "ls | wc -l"]


@pytest.mark.parametrize("text", ["", "  ", "''", "echo 'open", 'echo "open', "a\\"])
def test_what_is_no_command_is_refused(text) -> None:
    with pytest.raises(InvalidSwarm):
        split_command(text)


@given(st.text(st.sampled_from("ab \t\n'\"\\$|&;<>()`=é{}*#~") | characters))
def test_any_text_is_split_or_refused(text) -> None:
    try:
        argv = split_command(text)
    except InvalidSwarm:
        return
    assert argv == shlex.split(text)
    assert argv[0]


# ------------------------------------------------------------------------------- files of variables


def variables(folder: Path, text: str | bytes) -> dict[str, str]:
    path = folder / "x.env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_env_file(path)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A=", ""),
        ("A= # empty", ""),
        ("  export \t A=1  ", "1"),
        ("A=b c  # said", "b c"),
        ("A=#b#c", "#b#c"),
        ("A=b#c", "b#c"),
        ("A=b=c", "b=c"),
        ("A=$HOME ${X} `x`", "$HOME ${X} `x`"),
        ('A={"b": "c"}', '{"b": "c"}'),
        ("A=C:\\new", "C:\\new"),
        ("A='b # $c \\n \"d\"'", 'b # $c \\n "d"'),
        ("A='' # said", ""),
        ("A='b'#c'", "b"),
        ("A=\"b # 'c'\" # said", "b # 'c'"),
        (r'A="\"\\\$\`$x"', r'"\$`$x'),
        (r'A="-----BEGIN-----\nx\ty\r\n"', "-----BEGIN-----\nx\ty\r\n"),
        ("A=é漢🚀", "é漢🚀"),
    ],
)
def test_a_line_gives_a_variable(tmp_path, line, value) -> None:
    assert variables(tmp_path, line) == {"A": value}
    assert variables(tmp_path, f"\r\n# said\r\n{line}\r\nB=2") == {"A": value, "B": "2"}


def test_of_equal_names_the_last_one_counts_and_bytes_are_kept(tmp_path) -> None:
    text = b"\xef\xbb\xbfA=1\nB.c-d=\xff\n\n#\nA=2\n"
    assert variables(tmp_path, text) == {"A": "2", "B.c-d": "\udcff"}
    assert variables(tmp_path, "") == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("SECRET", 'has no "="'),
        ("export SECRET", 'has no "="'),
        ("=SECRET", "begin with a name"),
        ("A =SECRET", '"=" right behind it'),
        ("1A=SECRET", "begin with a name"),
        ("A B=SECRET", "begin with a name"),
        ("A= SECRET", 'a blank behind the "="'),
        ("A='SECRET", "are not closed on this line"),
        ('A="SECRET\\"', "are not closed on this line"),
        ("A='SECRET'b", "there is more"),
        ("A='SECRET''b'", "there is more"),
        ('A="SECRET\\q"', "for a backslash write two"),
        ("A=SECRET\0", "NUL"),
    ],
)
def test_anything_else_is_refused_with_its_line_and_not_with_its_value(
    tmp_path, line, said
) -> None:
    text = f"A=1\n\n{line}\nB=1\n"
    with pytest.raises(InvalidSwarm) as caught:
        variables(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'x.env'}:3"
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidSwarm, match="can't be read: No such file") as caught:
        read_env_file(tmp_path / "no.env")
    assert caught.value.where == str(tmp_path / "no.env")


@given(st.binary(max_size=60) | st.text(st.sampled_from("A=\n'\"\\ #\t$\0n\r")).map(str.encode))
def test_any_bytes_give_variables_or_are_refused(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(data)
    try:
        env = read_env_file(path)
    except InvalidSwarm:
        return
    assert check_environment(env) == env


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(characters.filter(lambda text: text not in "'\n")),
        max_size=5,
    )
)
def test_single_quotes_hold_anything_on_one_line(tmp_path_factory, env) -> None:
    path = tmp_path_factory.getbasetemp() / "quoted.env"
    data = {name: os.fsencode(value) for name, value in env.items()}
    path.write_bytes(b"".join(b"%b='%b'\n" % (name.encode(), data[name]) for name in data))
    read = read_env_file(path)
    assert {name: os.fsencode(value) for name, value in read.items()} == data


def test_what_a_shell_and_we_both_take_means_the_same(tmp_path) -> None:
    text = "A='b  c' # d\nexport B=\"\\\"\\$x\\\\\"\nC=d#e\nD=\nE='$A'\n"
    env = variables(tmp_path, text)
    script = '. "$0"; printf "%s\\n" "$A" "$B" "$C" "$D" "$E"'
    told = subprocess.run(
        ["/bin/sh", "-c", script, tmp_path / "x.env"], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == [env[name] for name in "ABCDE"]
