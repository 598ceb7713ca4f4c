"""Swarm files, in TOML and in YAML: `tmuxcc.swarm.file`."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tmuxcc.errors import InvalidSwarm
from tmuxcc.swarm import file
from tmuxcc.swarm.checks import MOST, shown
from tmuxcc.swarm.file import (
    MAX_REPLICAS,
    SwarmFile,
    parse_size,
    parse_swarm,
    read_swarm_file,
    start_layers,
)
from tmuxcc.swarm.policy import OutputLimits, RestartPolicy
from tmuxcc.swarm.spec import AgentSpec, Ready, StopPolicy

WHOLE = """
cluster = "demo"
base_dir = "sub"
env = {LANG = "C.UTF-8", LEVEL = "file"}
env_file = "common.env"

[defaults]
restart = "on-failure"
env = {LEVEL = "defaults", WHO = "{id}"}
log = false

[agents.web]
command = "python3 -m 'http server' 80{n} {id} {other}"
replicas = 2
env = {LEVEL = "agent {n}"}
env_file = "web.env"
cwd = "site/{n}"
restart = {when = "always", delay = 1, factor = 3, max_delay = 9, jitter = 0, max_restarts = 10, \
window = 300, stable_after = 20}
stop = {keys = ["C-c", "C-c"], grace = 10}
ready = {command = "curl localhost:80{n}", timeout = 20}
limits = {rate = "1MB", burst = "1.5KiB", size = 4096, clear_history_after = "2 GiB"}
kind = "shell"
log = true
after = ["db", "cache"]

[agents.db]
argv = ["sh", "-c", "exec db | cat"]
ready = {port = 8000, host = "::1"}
stop = {text = "/exit"}

[agents.cache]
argv = ["cache"]
cwd = "/var/cache"
ready = {pattern = "ready$"}
stop = {signal = "INT"}
after = ["db"]
"""


def parsed(data: object) -> SwarmFile:
    return parse_swarm(data, "/x/demo.toml")


def one(**keys) -> AgentSpec:
    """The agent that is described so."""
    return parsed({"agents": {"web": {"command": "cat", **keys}}}).agents["web"]


def refused(data: object) -> str:
    with pytest.raises(InvalidSwarm) as caught:
        parsed(data)
    message = str(caught.value)
    assert message.startswith(f"{caught.value.where}: ")
    assert message.startswith("/x/demo.toml: ")
    assert "\n" not in message
    return message.removeprefix("/x/demo.toml: ")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused_file(path: Path) -> str:
    with pytest.raises(InvalidSwarm) as caught:
        read_swarm_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# ----------------------------------------------------------------------------------- what is meant


def test_a_whole_file_says_all_this(tmp_path) -> None:
    swarm = read_swarm_file(write(tmp_path, "x.toml", WHOLE))
    base = tmp_path / "sub"
    assert (swarm.cluster_id, swarm.base_dir) == ("demo", base)
    assert list(swarm.agents) == ["web-1", "web-2", "db", "cache"]
    common = {"LANG": "C.UTF-8", "LEVEL": "defaults"}
    for number in (1, 2):
        agent_id = f"web-{number}"
        assert swarm.agents[agent_id] == AgentSpec(
            ["python3", "-m", "http server", f"80{number}", agent_id, "{other}"],
            env={**common, "LEVEL": f"agent {number}", "WHO": agent_id},
            env_file=base / "web.env",
            cwd=base / "site" / str(number),
            restart=RestartPolicy(
                "always",
                delay=1,
                factor=3,
                max_delay=9,
                jitter=0,
                max_restarts=10,
                window=300,
                stable_after=20,
            ),
            stop=StopPolicy(keys=["C-c", "C-c"], grace=10),
            ready=Ready(command=["curl", f"localhost:80{number}"], timeout=20),
            limits=OutputLimits(
                rate=1_000_000, burst=1536, size=4096, clear_history_after=2 * 1024**3
            ),
            kind="shell",
            log=True,
        )
    assert swarm.agents["db"] == AgentSpec(
        ["sh", "-c", "exec db | cat"],
        env={**common, "WHO": "db"},
        env_file=base / "common.env",
        restart="on-failure",
        stop=StopPolicy(text="/exit"),
        ready=Ready(port=8000, host="::1"),
        log=False,
    )
    assert swarm.agents["cache"].cwd == "/var/cache"
    assert swarm.agents["cache"].stop == StopPolicy(signal="SIGINT")
    assert swarm.after == {
        "web-1": ("db", "cache"),
        "web-2": ("db", "cache"),
        "db": (),
        "cache": ("db",),
    }
    assert start_layers(swarm.after) == (("db",), ("cache",), ("web-1", "web-2"))


def test_the_example_of_the_documentation_is_read(tmp_path) -> None:
    example = dedent(file.__doc__.split("::\n", 1)[1].split("\n``{n}``")[0])
    example = example.replace('argv = ["python3"', '# argv = ["python3"')
    example += '[agents.db]\ncommand = "db"\n'
    swarm = read_swarm_file(write(tmp_path, "x.toml", example))
    assert list(swarm.agents) == ["web-1", "web-2", "web-3", "db"]


def test_toml_and_yaml_mean_the_same(tmp_path) -> None:
    import tomllib

    data = tomllib.loads(WHOLE)
    expected = read_swarm_file(write(tmp_path, "x.toml", WHOLE))
    for name, text in (
        ("x.yaml", yaml.safe_dump(data, sort_keys=False)),
        ("flow.YML", yaml.safe_dump(data, sort_keys=False, default_flow_style=True)),
        ("json.yaml", json.dumps(data)),
    ):
        assert read_swarm_file(write(tmp_path, name, text)) == expected


def test_yaml_may_use_anchors_merges_and_a_bare_no(tmp_path) -> None:
    text = """
        agents:
          a: &a
            command: cat
            restart: no
          b:
            <<: *a
            restart: {when: no}
            log: false
          c: {<<: *a, command: dog}
    """
    swarm = read_swarm_file(write(tmp_path, "x.yaml", text))
    assert [spec.argv for spec in swarm.agents.values()] == [("cat",), ("cat",), ("dog",)]
    assert {spec.restart for spec in swarm.agents.values()} == {RestartPolicy("no")}


@pytest.mark.parametrize(
    ("name", "cluster_id"),
    [
        ("demo.toml", "demo"),
        ("my swarm.v2.yaml", "my-swarm-v2"),
        ("_é-.toml", "swarm"),
        ("é1.toml", "1"),
        ("x" * 99 + ".toml", "x" * 64),
    ],
)
def test_the_name_of_the_file_is_the_name_of_the_swarm(name, cluster_id) -> None:
    assert parse_swarm({"agents": {"a": {"command": "a"}}}, name).cluster_id == cluster_id


def test_the_folder_is_that_of_the_file(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    agents = {"a": {"command": "a"}, "b": {"command": "b", "cwd": "~/b"}}
    assert parse_swarm({"agents": agents}, "x.toml").base_dir == tmp_path
    swarm = parse_swarm({"agents": agents, "base_dir": "y"}, "sub/x.toml")
    assert swarm.base_dir == tmp_path / "sub" / "y"
    assert swarm.agents["a"].cwd is None
    assert swarm.agents["b"].cwd == "/home/somebody/b"


def test_placeholders_are_filled_once_and_in_the_agent_only() -> None:
    data = {
        "base_dir": "/{n}",
        "agents": {
            "{n}": {"command": "a '{id}' {{n}}", "env": {"{id}": "{id}{N}"}, "cwd": "{n}"},
        },
    }
    spec = parsed(data).agents["{n}"]
    assert spec.argv == ("a", "{n}", "{1}")
    assert spec.env == {"{id}": "{n}{N}"}
    assert spec.cwd == "/{n}/1"


def test_an_agent_replaces_what_is_default() -> None:
    data = {
        "defaults": {
            "command": "cat",
            "replicas": 2,
            "restart": {"when": "always", "delay": 9},
            "stop": {"keys": ["C-c"], "grace": 1},
            "after": ["b"],
        },
        "agents": {
            "a": {},
            "b": {
                "argv": ["dog"],
                "restart": "on-failure",
                "stop": {"text": "/exit"},
                "after": [],
                "replicas": 1,
            },
        },
    }
    swarm = parsed(data)
    assert list(swarm.agents) == ["a-1", "a-2", "b-1"]
    assert swarm.agents["a-1"].argv == ("cat",)
    assert swarm.agents["b-1"].argv == ("dog",)
    assert swarm.agents["b-1"].restart == RestartPolicy("on-failure")
    assert swarm.agents["b-1"].stop == StopPolicy(text="/exit")
    assert swarm.after == {"a-1": ("b-1",), "a-2": ("b-1",), "b-1": ()}


def test_one_replica_can_be_waited_for_and_none_twice() -> None:
    data = {
        "agents": {
            "a": {"command": "a", "replicas": 2},
            "b": {"command": "b", "after": ["a-2"]},
            "c": {"command": "c", "after": ["b", "a-2", "a", "b"]},
        }
    }
    swarm = parsed(data)
    assert swarm.after["b"] == ("a-2",)
    assert swarm.after["c"] == ("b", "a-2", "a-1")


# -------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (4096, 4096), ("4096", 4096), ("1B", 1), ("500KB", 500_000), ("1mb", 10**6),
        ("1.5 MB", 1_500_000), ("2GiB", 2 * 1024**3), ("0.5KiB", 512), ("1TB", 10**12),
        ("1TiB", 1024**4), (0, 0), (-1, -1),
    ],
)  # fmt: skip
def test_a_size_is_a_number_or_text_with_a_unit(value, size) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    [
        "", "MB", "1 M", "1K", "1PB", "-1KB", "1,5MB", "1.MB", ".5MB", "0.5", "1.0001KB",
        "\u0661KB", "1e3", "1  KB", "9" * 19 + "TB", "9" * 10**6, str(MOST + 1), 1.5, True, None,
        [], {},
    ],
    ids=shown,
)  # fmt: skip
def test_what_is_no_size_is_refused(value) -> None:
    with pytest.raises(InvalidSwarm, match="has to be a whole number of bytes") as caught:
        parse_size(value, where="limits.rate")
    assert caught.value.where == "limits.rate"


# ------------------------------------------------------------------------------------------- errors


def agent(**keys) -> dict:
    return {"agents": {"web": {"command": "cat", **keys}}}


ERRORS = [
    (None, "has to be a table, not nothing"),
    ([], "has to be a table, not a list"),
    ({}, "agents: there is no agent"),
    ({"agents": []}, "agents: has to be a table, not a list"),
    ({"agents": {"web": "cat"}}, "agents.web: has to be a table, not 'cat'"),
    ({"agents": {"web": {}}}, "agents.web: needs a command or argv"),
    ({"agents": {1: {}}}, "agents: a key has to be text, not 1: put it in quotes"),
    ({"agents": {"-a": {}}}, "agents.-a: the agent's id '-a' begins with \"-\""),
    ({"agents": {"": {}}}, 'agents."": an agent\'s id has to be printable'),
    ({"agents": {"a\n": {}}}, 'agents."a\\n": an agent\'s id has to be printable'),
    ({"agents": {"é b": {}}}, 'agents."é b": needs a command'),
    ({"agents": {"x" * 127: {"command": "a", "replicas": 2}}}, "has more than 128 characters"),
    ({**agent(), "clusters": "x"}, "there is no key 'clusters' here; did you mean 'cluster'?"),
    ({**agent(), "zzz": 1}, "there is no key 'zzz' here; there are cluster, base_dir, env"),
    ({**agent(), True: 1}, "a key has to be text, not True: put it in quotes"),
    ({**agent(), "cluster": "a b"}, "cluster: a cluster id has at most 64 letters"),
    ({**agent(), "cluster": None}, "cluster: a cluster id has"),
    ({**agent(), "base_dir": 1}, "base_dir: has to be text, not 1"),
    ({**agent(), "base_dir": ""}, "base_dir: is empty"),
    ({**agent(), "base_dir": "~nobody-of-this-name/x"}, "base_dir: '~nobody-of-this-name/x' begi"),
    ({**agent(), "env": []}, "env: has to map names to values"),
    ({**agent(), "env": {"A": 1}}, "env: the value of 'A' has to be text, not 1: put it in quotes"),
    ({**agent(), "env_file": "a\0"}, "env_file: has to be text without NUL"),
    ({**agent(), "defaults": None}, "defaults: has to be a table"),
    ({**agent(), "defaults": {"comand": "x"}}, "defaults: there is no key 'comand' here; did you"),
    ({**agent(), "defaults": {"log": "no"}}, "defaults.log: has to be true or false, not 'no'"),
    ({**agent(), "defaults": {"after": ["x"]}}, "agents.web.after: there is no agent 'x'"),
    (agent(comand="x"), "agents.web: there is no key 'comand' here; did you mean 'command'?"),
    (agent(argv=["x"]), "agents.web: has both command and argv"),
    (agent(command=["cat"]), "agents.web.command: has to be text, not a list"),
    (agent(command="a | b"), "agents.web.command: 'a | b' needs a shell for '|'"),
    (agent(command=""), "agents.web.command: the command '' is empty"),
    (agent(command="a '"), "agents.web.command: \"a '\" can't be split"),
    ({"agents": {"a": {"argv": "cat"}}}, "agents.a.argv: has to be a list of texts, such as"),
    ({"agents": {"a": {"argv": []}}}, "agents.a.argv: has to begin with the program"),
    ({"agents": {"a": {"argv": ["a", 1]}}}, "agents.a.argv: has to be text, not 1"),
    (agent(replicas=0), "agents.web.replicas: has to be a whole number from 1 to 1000, not 0"),
    (agent(replicas=True), "agents.web.replicas: has to be a whole number"),
    (agent(replicas=MAX_REPLICAS + 1), "agents.web.replicas: has to be a whole number"),
    (agent(replicas="3"), "agents.web.replicas: has to be a whole number"),
    (agent(env={"A": True}), "agents.web.env: the value of 'A' has to be text, not True"),
    (agent(env={"A=": "x"}), "agents.web.env: the name of a variable"),
    (agent(env_file=[]), "agents.web.env_file: has to be text, not a list"),
    (agent(cwd=None), "agents.web.cwd: has to be text, not nothing"),
    (agent(cwd=""), "agents.web.cwd: is empty"),
    (agent(restart="never"), 'agents.web.restart: has to be "no", "on-failure", "always" or a'),
    (agent(restart=True), "agents.web.restart.when: has to be"),
    (agent(restart={"delay": 1}), "agents.web.restart: needs a key when"),
    (agent(restart={"when": "x"}), "agents.web.restart.when: has to be"),
    (agent(restart={"when": "no", "delays": 1}), "agents.web.restart: there is no key 'delays' he"),
    (agent(restart={"when": "no", "delay": "1"}), "agents.web.restart.delay: has to be a number"),
    (agent(kind=1), "agents.web.kind: has to be text, not 1"),
    (agent(log="yes"), "agents.web.log: has to be true or false, not 'yes'"),
    (agent(ready="x"), "agents.web.ready: has to be a table, not 'x'"),
    (agent(ready={}), "agents.web.ready: needs one of pattern, command and port, and only one"),
    (agent(ready={"pattern": "x", "port": 1}), "agents.web.ready: needs one of"),
    (agent(ready={"pattern": "("}), "agents.web.ready.pattern: '(' is not a regular expression"),
    (agent(ready={"patern": "x"}), "agents.web.ready: there is no key 'patern' here; did you mean"),
    (agent(ready={"command": "a && b"}), "agents.web.ready.command: 'a && b' needs a shell"),
    (agent(ready={"command": []}), "agents.web.ready.command: has to begin with the program"),
    (agent(ready={"port": "80"}), "agents.web.ready.port: has to be a TCP port"),
    (agent(ready={"port": 80, "timeout": 0}), "agents.web.ready.timeout: has to be"),
    (agent(stop="C-c"), "agents.web.stop: has to be a table"),
    (agent(stop={"keys": ["C-cc"]}), "agents.web.stop.keys: there is no key 'C-cc'"),
    (agent(stop={"keys": "C-c"}), "agents.web.stop.keys: has to be a list of keys, such as"),
    (agent(stop={"keys": ["C-c"], "text": "x"}), "agents.web.stop.text: has to be left out"),
    (agent(stop={"signal": "X"}), "agents.web.stop.signal: has to be the name or the number"),
    (agent(stop={"grace": -1}), "agents.web.stop.grace: has to be a number of seconds, at least 0"),
    (agent(stop={"gracee": 1}), "agents.web.stop: there is no key 'gracee' here; did you mean 'gr"),
    (agent(limits=1), "agents.web.limits: has to be a table"),
    (agent(limits={"rate": "1 apple"}), "agents.web.limits.rate: has to be a whole number of byt"),
    (agent(limits={"rate": 0}), "agents.web.limits.rate: has to be a whole number of bytes per"),
    (agent(limits={"burst": 1}), "agents.web.limits.burst: means nothing without a rate"),
    (agent(limits={"sise": 1}), "agents.web.limits: there is no key 'sise' here; did you mean 'si"),
    (agent(after="db"), "agents.web.after: has to be a list of texts, such as [\"db\"], not 'db'"),
    (agent(after=[1]), "agents.web.after: has to be text, not 1"),
    (agent(after=["wep"]), "agents.web.after: there is no agent 'wep'; did you mean 'web'?"),
    (agent(after=["web"]), "agents: these agents wait for each other: 'web' after 'web'"),
    (
        {
            "agents": {
                "a": {"command": "a", "after": ["b"]},
                "b": {"command": "b", "after": ["c"]},
                "c": {"command": "c", "after": ["a"]},
            }
        },
        "agents: these agents wait for each other: 'a' after 'b' after 'c' after 'a'",
    ),
    (
        {"agents": {"a": {"command": "a", "replicas": 2}, "a-2": {"command": "b"}}},
        "agents.a-2: there is an agent 'a-2' already",
    ),
]


@pytest.mark.parametrize(("data", "said"), ERRORS, ids=[said[:50] for _, said in ERRORS])
def test_a_wrong_description_is_refused_where_it_is_wrong(data, said) -> None:
    assert said in refused(data)


def test_what_is_wrong_in_defaults_is_said_to_be_there_even_if_nobody_inherits_it() -> None:
    data = {"defaults": {"argv": [""]}, "agents": {"a": {"command": "a"}}}
    assert refused(data).startswith("defaults.argv: ")


def test_dates_and_other_values_of_a_file_are_shown_by_what_they_are() -> None:
    assert refused(agent(cwd=dt.date(2020, 1, 1))).endswith("has to be text, not a date")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.json", "{}", "the name of a swarm file has to end in .toml, .yaml or .yml"),
        ("x", "", "the name of a swarm file"),
        ("x.toml", "a = ", "is not TOML: Invalid value (at end of document)"),
        ("x.toml", "a = 1\na = 2", "is not TOML: Cannot overwrite a value"),
        ("x.toml", "a = " + "[" * 10_000, "is not TOML: "),
        ("x.toml", "a = " + "9" * 5000, "is not TOML: "),
        ("x.toml", "", "agents: there is no agent"),
        ("x.yaml", "", "has to be a table, not nothing"),
        ("x.yaml", "a: [", "is not YAML: "),
        ("x.yaml", "a: b: c", "is not YAML: mapping values are not allowed here (line 1, column 5"),
        ("x.yaml", "a: 1\n---\nb: 1", "is not YAML: "),
        ("x.yaml", "a: \x01", "is not YAML: "),
        ("x.yaml", "a: !!python/object:os.system x", "is not YAML: could not determine a construc"),
        ("x.yaml", "a: !!int ''", "is not YAML: "),
        ("x.yaml", "a: !!timestamp x", "is not YAML: "),
        ("x.yaml", "a: !!bool x", "is not YAML: "),
        ("x.yaml", "a: 2020-99-99", "is not YAML: month must be in 1..12"),
        ("x.yaml", "a: " + "9" * 5000, "is not YAML: "),
        ("x.yaml", "a: " + "[" * 10_000, "is not YAML: "),
        ("x.yaml", "a: *b", "is not YAML: found undefined alias"),
        ("x.yaml", "? [a]\n: b", "is not YAML: "),
        (
            "x.yaml",
            "agents:\n  a: {}\n  a: {}",
            "is not YAML: the key 'a' is there twice (line 3, ",
        ),
        ("x.yaml", "agents: &a {b: *a}", "agents.b: there is no key 'b' here"),
        ("x.yaml", "agents: {a: {argv: &a [*a]}}", "agents.a.argv: has to be text, not a list"),
        ("x.yaml", "on: 1\nagents: {}", "a key has to be text, not True"),
    ],
)
def test_a_file_that_is_no_swarm_file_is_refused(tmp_path, name, text, said) -> None:
    assert refused_file(write(tmp_path, name, text)).startswith(said)


def test_a_file_that_can_not_be_read_is_refused(tmp_path) -> None:
    assert refused_file(tmp_path / "no.toml") == "can't be read: No such file or directory"
    (tmp_path / "folder.yaml").mkdir()
    assert refused_file(tmp_path / "folder.yaml") == "can't be read: Is a directory"
    (tmp_path / "x.toml").write_bytes(b"a = '\xff'")
    assert refused_file(tmp_path / "x.toml") == "is not UTF-8 (byte 5)"


def test_a_byte_order_mark_is_passed_over(tmp_path) -> None:
    text = '\ufeffagents = {a = {command = "a"}}'
    assert list(read_swarm_file(write(tmp_path, "x.toml", text)).agents) == ["a"]
    assert list(read_swarm_file(write(tmp_path, "x.yml", "\ufeffagents: {a: {command: a}}")).agents)


def test_without_pyyaml_it_is_said_what_to_install_and_toml_works(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    said = refused_file(write(tmp_path, "x.yaml", "agents: {a: {command: a}}"))
    assert said == "for YAML files PyYAML is needed: pip install pyyaml, or write it as TOML"
    text = 'agents = {a = {command = "a"}}'
    assert list(read_swarm_file(write(tmp_path, "x.toml", text)).agents) == ["a"]


# ------------------------------------------------------------------------------------------- layers


def test_layers_keep_the_order_of_the_file() -> None:
    after = {"z": (), "a": ("m",), "m": ("z",), "b": (), "y": ("z", "b")}
    assert start_layers(after) == (("z", "b"), ("m", "y"), ("a",))
    assert start_layers({}) == ()


def test_layers_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(InvalidSwarm, match="'a' comes after 'b', and there is no such agent"):
        start_layers({"a": ["b"]})


def test_a_long_circle_is_told_in_part() -> None:
    after = {f"agent-{number}": [f"agent-{(number + 1) % 1000}"] for number in range(1000)}
    with pytest.raises(InvalidSwarm, match="wait for each other") as caught:
        start_layers(after)
    assert len(str(caught.value)) < 300


@given(st.lists(st.sets(st.integers(0, 30)), max_size=30))
def test_each_agent_is_in_the_first_layer_it_can_be_in(edges) -> None:
    after = {
        str(number): [str(each) for each in first if each < number]
        for number, first in enumerate(edges)
    }
    layers = start_layers(after)
    position = {agent: index for index, layer in enumerate(layers) for agent in layer}
    assert sorted(agent for layer in layers for agent in layer) == sorted(after)
    for agent_id, first in after.items():
        assert position[agent_id] == max((position[each] + 1 for each in first), default=0)


# ------------------------------------------------------------------------------------ any data

KEYS = [
    *file._FILE_KEYS, *file._AGENT_KEYS, *file._RESTART_KEYS, *file._STOP_KEYS, *file._READY_KEYS,
    *file._LIMIT_KEYS, "web", "db", "web-1",
]  # fmt: skip
TEXTS = ["", "cat", "a | b", "'", "no", "always", "SIGINT", "1MB", "C-c", "(", "~x/y", "/", "{id}"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(TEXTS)
    | st.dates()
    | st.binary(max_size=3)
)
keys = st.sampled_from(KEYS) | st.text(max_size=5)
data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=5)
        | st.dictionaries(scalars, inner, max_size=2)
    ),
    max_leaves=15,
)
# Tables of which most keys are right and most values are not, so that all depths are reached.
tables = {
    "restart": st.dictionaries(st.sampled_from(file._RESTART_KEYS), scalars, max_size=4),
    "stop": st.dictionaries(st.sampled_from(file._STOP_KEYS), data, max_size=3),
    "ready": st.dictionaries(st.sampled_from(file._READY_KEYS), data, max_size=2),
    "limits": st.dictionaries(st.sampled_from(file._LIMIT_KEYS), data, max_size=3),
    "env": st.dictionaries(st.text(max_size=3), st.text(max_size=3) | scalars, max_size=2),
    "argv": st.lists(st.sampled_from(TEXTS) | scalars, max_size=3),
    "after": st.lists(st.sampled_from(["web", "db", "web-1"]) | scalars, max_size=2),
    "replicas": st.integers(-1, 3),
}
agent_tables = st.fixed_dictionaries(
    {}, optional={key: tables.get(key, scalars) | data for key in file._AGENT_KEYS}
)
good_agents = st.fixed_dictionaries(
    {"command": st.just("cat")},
    optional={key: tables[key] for key in ("after", "env", "replicas", "limits")},
)
swarms = st.fixed_dictionaries(
    {"agents": st.dictionaries(keys, agent_tables | good_agents, max_size=3) | data},
    optional={"defaults": agent_tables, "env": tables["env"], "base_dir": scalars},
)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of re, about odd patterns
@given(data | swarms)
def test_any_data_gives_a_swarm_or_is_refused(content) -> None:
    try:
        swarm = parsed(content)
    except InvalidSwarm:
        assert refused(content).isprintable()
        return
    assert swarm.agents.keys() == swarm.after.keys()
    assert sum(map(len, start_layers(swarm.after))) == len(swarm.agents)


fragments = st.lists(
    st.sampled_from(
        [
            "agents", "a", ":", " ", "\n", "\n  ", "- ", "[", "]", "{", "}", "=", '"', "'", "&a",
            "*a", "<<", "!!int", "!!set", "!!omap", "!!binary", "!!float", "!!null", "!!merge",
            "command", ",", "#", "|", ">", "?", "~", "1", "0x", "1:30", "2020-01-01", ".inf", "\\u",
            "---", "%", "@", "\t", "é",
        ]
    )
    | st.text(max_size=2)
)  # fmt: skip


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
@given(text=fragments.map("".join))
def test_any_text_gives_a_swarm_or_is_refused(tmp_path_factory, suffix, text) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_swarm_file(path)
    except InvalidSwarm:
        assert refused_file(path)
