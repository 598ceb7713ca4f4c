"""``tmuxcc ps``, ``logs``, ``send``, ``wait``, ``stop``, ``down``: seeing and driving a swarm."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmuxcc.cli.logs import missing_lines

from .helpers import (
    PATIENCE,
    Running,
    argv,
    environment,
    eventually,
    json_lines,
    lines_of,
    on_terminal,
    running,
    tmuxcc,
)
from .swarms import (
    STUBBORN,
    agents,
    assert_no_swarm_left,
    in_tmux,
    of_agents,
    socket_of,
    swarm_file,
    swarm_folder,
    wait_state,
)

pytestmark = pytest.mark.tmux

Verb = Callable[..., "subprocess.CompletedProcess[str]"]

CAT = """
[agents.cat]
command = "cat"
[agents.other]
command = "sh -c 'echo up; exec cat'"
"""


@pytest.fixture(autouse=True)
def _everything_is_gone(folder: Path, tmux: str) -> Iterator[None]:
    yield
    tmuxcc(folder, "down", "-c", "demo", "--grace", "0", "--tmux", tmux)
    assert_no_swarm_left(folder)


@pytest.fixture
def verb(folder: Path, tmux: str) -> Verb:
    """Run a verb to its end, with the tmux under test."""
    return lambda name, *words, **more: tmuxcc(folder, name, "--tmux", tmux, *words, **more)


@pytest.fixture(params=["with a master", "without a master"])
def start(request, folder: Path, tmux: str) -> Iterator[Callable[[str], Running | None]]:
    """Start a swarm: `tmuxcc up` goes on (and is given), or has left it."""
    runs = []

    def begin(text: str) -> Running | None:
        file = swarm_file(folder, text)
        if request.param == "without a master":
            result = tmuxcc(folder, "up", "--detach", "--tmux", tmux, file)
            assert "goes on without a master" in result.stderr
            return None
        run = running(folder, "up", "--json", "--tmux", tmux, file)
        runs.append(run)
        up = run.__enter__()
        count = text.count("command = ")
        eventually(lambda: up.text.count('"started"') >= count or not up.read())
        return up

    yield begin
    for run in runs:
        run.__exit__(None, None, None)


@contextmanager
def master(folder: Path, tmux: str, text: str) -> Iterator[Running]:
    """`tmuxcc up` while it runs."""
    with running(folder, "up", "--json", "--tmux", tmux, swarm_file(folder, text)) as run:
        run.wait_text('"started"')
        yield run


# Which swarm


def test_without_a_swarm_one_line_says_how_to_start_one(verb, tmux):
    for words in (("ps",), ("logs",), ("down",), ("send", "a", "x"), ("ps", "-c", "demo")):
        result = verb(*words)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert f"start it with `tmuxcc up --tmux {tmux} FILE`" in line


def test_of_several_swarms_one_has_to_be_named(folder, tmux, verb):
    for name in ("demo", "second"):
        file = swarm_file(folder, CAT, f"{name}.toml")
        assert tmuxcc(folder, "up", "-d", "--tmux", tmux, file).returncode == 0
    result = verb("ps")
    assert result.returncode == 2
    assert "there are several swarms, so say which with -c: demo, second" in result.stderr
    assert verb("ps", "-c", "second").returncode == 0
    # As in a pane of one.
    result = verb("ps", "--json", TMUXCC_SWARM="second:123")
    assert json_lines(result.stdout)[0]["cluster"] == "second"
    assert verb("down", "-c", "second").returncode == 0
    assert agents(folder, tmux)["cat"]["cluster"] == "demo"


def test_a_swarm_on_another_server_is_found_there(folder, tmux, verb, socket_path):
    subprocess.run([tmux, "-S", socket_path, "-f", "/dev/null", "new", "-d", "-s", "work", "cat"])
    at = ("-S", str(socket_path))
    assert "no swarm runs on" in verb("ps", *at).stderr
    assert verb("up", "-d", *at, swarm_file(folder, CAT)).returncode == 0
    assert set(agents(folder, tmux, *at)) == {"cat", "other"}
    assert verb("send", *at, "cat", "hello").returncode == 0
    assert "cat | hello" in verb("logs", *at, "cat").stdout.splitlines()
    assert verb("ps").returncode == 1
    assert verb("down", *at).returncode == 0
    assert in_tmux(tmux, str(socket_path), "list-sessions", "-F", "#S") == "work"


def test_advice_names_the_server_that_was_chosen(folder, tmux, verb):
    at = ("-S", f"{folder}/a socket")
    named = f"-S '{folder}/a socket' --tmux {tmux}"
    file = swarm_file(folder, CAT)
    up = verb("up", "-d", *at, file).stderr
    assert f"`tmuxcc up {named} --adopt {file}`" in up
    assert f"`tmuxcc down {named} -c demo`" in up
    assert f"`tmuxcc up {named} --adopt FILE`" in verb("ps", *at).stderr
    assert f"`tmuxcc up {named} --adopt FILE`" in verb("wait", "--idle", *at).stderr
    again = verb("up", *at, file).stderr
    assert f"`tmuxcc ps {named} -c demo`" in again
    assert f"`tmuxcc down {named} -c demo`" in again
    assert verb("down", *at).returncode == 0
    # In front of the verb too.
    result = tmuxcc(folder, "-L", "other", "ps", "-c", "demo", "--tmux", tmux)
    assert f"`tmuxcc up -L other --tmux {tmux} FILE`" in result.stderr


def test_an_agent_that_is_not_there_exits_2_and_the_line_names_those_that_are(start, verb):
    start(CAT)
    for words in (("logs", "x"), ("send", "x", "y"), ("wait", "--exit", "x"), ("stop", "x")):
        result = verb(*words)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line == "tmuxcc: there is no agent 'x'; there is cat, other"


# ps


def test_ps_shows_each_agent_with_its_last_line(start, verb):
    start(CAT)
    verb("send", "cat", "hello")
    eventually(lambda: "up" in verb("logs", "other").stdout)
    result = verb("ps")
    assert result.returncode == 0
    title, *lines = result.stdout.splitlines()
    assert title.split() == [
        *("name", "state", "activity", "ready", "uptime", "restarts", "bytes", "last", "line")
    ]
    rows = {line.split()[0]: line.split() for line in lines}
    assert list(rows) == ["cat", "other"]
    assert rows["cat"][1] == rows["other"][1] == "running"
    assert rows["cat"][-1] == "hello"
    assert rows["other"][-1] == "up"


def test_ps_has_the_last_line_of_each_of_many_in_the_order_of_their_numbers(folder, verb):
    text = "[agents.w]\nargv = ['sh', '-c', 'echo I am {id}; exec cat']\nreplicas = 25\n"
    verb("up", "-d", swarm_file(folder, text))
    eventually(lambda: verb("ps").stdout.count("I am") == 25)
    rows = json_lines(verb("ps", "--json").stdout)
    assert [row["last_line"] for row in rows] == [f"I am w-{n}" for n in range(1, 26)]


def test_ps_says_that_no_master_runs(folder, tmux, verb):
    verb("up", "-d", swarm_file(folder, CAT))
    assert "no master runs: nobody starts again what ends" in verb("ps").stderr


def test_ps_tells_how_much_agents_have_written_as_long_as_a_master_counts_it(folder, tmux, verb):
    with master(folder, tmux, CAT) as run:
        row = eventually(lambda: (row := agents(folder, tmux)["other"])["lines"] and row)
        assert (row["bytes"], row["lines"]) == (len("up\r\n"), 1)
        run.signal(signal.SIGKILL)
        run.wait_end()
    row = agents(folder, tmux)["other"]
    assert (row["bytes"], row["lines"]) == (None, None)
    lines = [line.split() for line in verb("ps").stdout.splitlines()]
    column = lines[0].index("bytes")
    assert {line[column] for line in lines[1:]} == {"-"}


def test_ps_tells_how_programs_have_ended(folder, tmux, start):
    start(
        "[agents]\n"
        "good = {command = 'true'}\n"
        "bad = {command = \"sh -c 'exit 3'\"}\n"
        "killed = {command = \"sh -c 'kill -9 $PPID; kill -9 $$'\"}\n"
        "cat = {command = 'cat'}\n"
    )
    assert wait_state(folder, tmux, "good", "exited")["code"] == 0
    assert wait_state(folder, tmux, "bad", "exited")["code"] == 3
    assert wait_state(folder, tmux, "killed", "exited")["signal"] == 9
    assert wait_state(folder, tmux, "cat", "running")["code"] is None


def test_ps_counts_restarts_and_says_when_the_next_is(folder, tmux):
    text = """
    [agents.a]
    command = "sh -c 'exit 3'"
    restart = {when = "always", delay = 0.01, factor = 100000, max_delay = 1000}
    """
    with master(folder, tmux, text):
        row = eventually(
            lambda: (row := wait_state(folder, tmux, "a", "restarting"))["restarts"] == 1 and row
        )
        assert 100 < row["restart_in"] < 1000
        told = tmuxcc(folder, "ps", "--tmux", tmux).stdout
        assert re.search(r"^a +exit 3, again in \d+\.\d s ", told, re.MULTILINE)


def test_ps_believes_tmux_more_than_a_note(folder, tmux, verb):
    with master(folder, tmux, CAT) as run:
        wait_state(folder, tmux, "cat", "running")
        run.signal(signal.SIGKILL)
        run.wait_end()
    for process in of_agents(folder):
        if process.name == "cat":
            subprocess.run(["kill", "-9", str(process.pid)], check=True)
    row = wait_state(folder, tmux, "cat", "exited")
    assert (row["signal"], row["activity"], row["master"]) == (9, None, None)


def test_ps_on_a_terminal_has_colours_and_cuts_the_last_line(folder, tmux, start):
    start("[agents.a]\ncommand = \"sh -c 'seq -s, 1000; exec cat'\"\n")
    with on_terminal(folder, "ps", "--tmux", tmux, size=(100, 30)) as run:
        assert run.wait_end() == 0
    assert re.search(r"\x1b\[32m *running", run.text)
    line = next(line for line in run.text.splitlines() if "running" in line)
    assert len(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()) <= 100
    assert "…" in line


# logs


def test_logs_show_what_is_there_and_end(folder, tmux, start, verb):
    start("[agents]\na = {command = 'seq 3'}\nlong = {command = \"sh -c 'echo x; exec cat'\"}\n")
    eventually(lambda: "x" in verb("logs", "long").stdout)
    wait_state(folder, tmux, "a", "exited")
    result = verb("logs")
    assert result.returncode == 0
    assert result.stdout.splitlines() == ["a    | 1", "a    | 2", "a    | 3", "long | x"]
    assert verb("logs", "-n", "1", "a").stdout == "a | 3\n"
    rows = json_lines(verb("logs", "--json", "-n", "2", "a").stdout)
    assert rows == [{"event": "line", "name": "a", "text": text} for text in ("2", "3")]


def test_logs_have_lines_whole_that_are_longer_than_the_terminal(folder, tmux, start, verb):
    start("[agents]\na = {command = 'seq -s, 1000'}\nb = {command = 'cat'}\n")
    wait_state(folder, tmux, "a", "exited")
    assert verb("logs", "a").stdout == f"a | {','.join(map(str, range(1, 1001)))}\n"


def test_followed_logs_pass_from_what_was_to_what_comes_without_loss(folder, tmux, start, verb):
    start(
        "[agents.a]\ncommand = \"sh -c 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i;"
        " [ -e stop ] && read x; done; exec cat'\"\n"
    )
    with running(folder, "logs", "-f", "--tmux", tmux) as run:
        run.wait_text("a | 3000\n")
        verb("stop", "a", "--grace", "0")
        assert run.wait_end() == 0
    assert lines_of(run.text, "a") == [str(number) for number in range(1, 3001)]


def test_followed_logs_go_on_through_restarts(folder, tmux):
    text = f"""
    [agents.a]
    command = "sh -c 'echo begin; until [ -e {folder}/go ]; do sleep 0.05; done; echo end; exit 1'"
    restart = {{when = "on-failure", delay = 0.05, max_restarts = 3}}
    """
    with master(folder, tmux, text), running(folder, "logs", "-f", "--tmux", tmux) as run:
        run.wait_text("a | begin\n")
        (folder / "go").touch()
        assert run.wait_end() == 0
    assert lines_of(run.text, "a") == ["begin", "end"] * 4


def test_followed_logs_begin_with_the_last_lines_if_so_wanted(folder, tmux, start, verb):
    start("[agents.a]\ncommand = \"sh -c 'seq 100; exec cat'\"\n")
    with running(folder, "logs", "-f", "-n", "2", "--tmux", tmux) as run:
        run.wait_text("a | 100\n")
        verb("send", "a", "hello")
        run.wait_text("a | hello\na | hello\n")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 0
    assert lines_of(run.text, "a")[:2] == ["99", "100"]


def test_followed_logs_show_agents_that_come_later(folder, tmux):
    text = f"""
    [agents.a]
    command = "sh -c 'echo up; until [ -e {folder}/go ]; do sleep 0.05; done; echo go; exec cat'"
    ready = {{pattern = "go"}}
    [agents.later]
    command = "sh -c 'echo later; exec cat'"
    after = ["a"]
    """
    with master(folder, tmux, text), running(folder, "logs", "-f", "--tmux", tmux) as run:
        run.wait_text("a | up\n")
        (folder / "go").touch()
        run.wait_text("later | later\n")
        run.signal(signal.SIGTERM)
        assert run.wait_end() == 0


def test_followed_logs_end_with_the_swarm_and_say_so(folder, tmux, start, verb):
    start(CAT)
    with running(folder, "logs", "-f", "--tmux", tmux) as run:
        run.wait_text("other | up\n")
        verb("down")
        assert run.wait_end() == 0
        assert run.errors() in ("the swarm demo has ended\n", "")


def test_followed_logs_that_are_behind_miss_nothing_of_the_next_program(folder, tmux, verb):
    text = f"""
    [agents.a]
    command = "sh {folder}/a.sh"
    cwd = "{folder}"
    restart = {{when = "always", delay = 0.05}}
    """
    (folder / "n").write_text("0\n")
    (folder / "a.sh").write_text(
        "n=$(cat n); echo $((n+1)) >n; for i in 1 2 3; do echo run$n line$i; done; read x; exit 1"
    )
    with master(folder, tmux, text), running(folder, "logs", "-f", "--tmux", tmux) as run:
        run.wait_text("run0 line3\n")
        run.process.send_signal(signal.SIGSTOP)
        verb("send", "a", "--keys", "Enter")
        eventually(lambda: "run1 line3" in verb("logs", "a").stdout)
        run.process.send_signal(signal.SIGCONT)
        run.wait_text("run1 line3\n")
        assert [line for line in lines_of(run.text, "a") if line] == [
            f"run{number} line{line}" for number in (0, 1) for line in (1, 2, 3)
        ]


@pytest.mark.parametrize(
    ("last", "begun", "kept", "wanted"),
    [
        (["1", "2"], "", ["0", "1", "2", "3", "4"], ["3", "4"]),
        (["1", "2"], "3", ["1", "2", "34", "5"], ["34", "5"]),
        (["a\tb  "], "", ["a       b", "c"], ["c"]),
        (["1", "2"], "", ["1", "2"], []),
        # Not certain.
        (["1", "2"], "x", ["1", "2", "34", "5"], None),
        (["y"], "", ["y", "y", "z"], None),
        (["1"], "", ["2", "3"], None),
        ([], "", ["2", "3"], None),
    ],
)
def test_lines_that_a_stream_misses_are_found_in_what_tmux_keeps(last, begun, kept, wanted):
    assert missing_lines(last, begun, kept) == wanted


def test_a_reader_of_logs_that_goes_away_ends_them_quietly(folder, tmux, start):
    start("[agents.a]\ncommand = \"sh -c 'while :; do echo x; sleep 0.01; done'\"\n")
    with running(folder, "logs", "-f", "--tmux", tmux) as run:
        run.wait_text("a | x\n")
        assert run.process.stdout is not None
        run.process.stdout.close()
        assert run.process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert run.errors() == ""


# send and broadcast


def test_send_types_a_line_and_tells_what_became_of_it(start, verb):
    start(CAT)
    result = verb("send", "cat", "hello", "world")
    assert (result.returncode, result.stdout) == (0, "cat | accepted\n")
    assert lines_of(verb("logs", "cat").stdout, "cat") == ["hello world"] * 2


def test_text_that_begins_with_a_dash_stands_behind_two(start, verb):
    start(CAT)
    for words in (("send", "cat", "-x y"), ("broadcast", "--help-me")):
        result = verb(*words)
        assert result.returncode == 2
        assert "Before TEXT that begins with - put --" in result.stderr
    assert verb("send", "cat", "--", "-x y").returncode == 0
    assert lines_of(verb("logs", "cat").stdout, "cat") == ["-x y"] * 2


def test_send_without_enter_leaves_the_text_unsent(start, verb):
    start(CAT)
    assert verb("send", "--no-enter", "cat", "hello").returncode == 0
    assert lines_of(verb("logs", "cat").stdout, "cat") == ["hello"]


def test_send_presses_keys(folder, tmux, start, verb):
    start(CAT)
    assert verb("send", "cat", "--keys", "a", "Enter", "C-d").returncode == 0
    assert wait_state(folder, tmux, "cat", "exited")["code"] == 0


def test_send_takes_stdin_as_one_paste(folder, tmux, start, verb):
    (folder / "paste.sh").write_text("stty -echo\nprintf '\\033[?2004h'\nexec cat -v\n")
    start(f"[agents.a]\ncommand = 'sh {folder}/paste.sh'\n")
    done = subprocess.run(
        argv("send", "--tmux", tmux, "a", "-"),
        input="one\ntwo\n",
        text=True,
        capture_output=True,
        env=environment(folder),
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    eventually(lambda: "^[[200~one" in verb("logs").stdout)
    assert lines_of(verb("logs").stdout, "a") == ["^[[200~one", "two^[[201~"]


def test_what_is_sent_to_a_dead_agent_is_not_typed_and_exits_1(folder, tmux, start, verb):
    start("[agents]\na = {command = 'true'}\nb = {command = 'cat'}\n")
    wait_state(folder, tmux, "a", "exited")
    for words in (("send", "a", "x"), ("send", "a", "--keys", "x")):
        result = verb(*words)
        assert (result.returncode, result.stdout) == (1, "a | dead\n")


def test_broadcast_types_to_all_or_to_those_named(start, verb):
    start(CAT)
    result = verb("broadcast", "status", "please")
    assert result.returncode == 0
    assert result.stdout == "cat   | accepted\nother | accepted\n"
    rows = json_lines(verb("broadcast", "--json", "--to", "o*", "x").stdout)
    assert rows == [{"name": "other", "outcome": "accepted"}]
    assert lines_of(verb("logs", "cat").stdout, "cat") == ["status please"] * 2


@pytest.mark.parametrize(
    "words",
    [
        ("send",), ("send", "cat"), ("broadcast",), ("send", "cat", "--keys", "--no-enter", "x"),
        ("wait",), ("wait", "--exit", "--idle"), ("wait", "--exit", "--screen"),
        ("wait", "--for", "("), ("stop",), ("logs", "-n", "-1"), ("-f", "x", "ps"),
        ("send", "cat", "--keys", "Entr"), ("wait", "--exit", "--timeout", "nan"),
        ("stop", "cat", "--grace", "soon"),
    ],
)  # fmt: skip
def test_wrong_use_exits_2(folder, tmux, verb, words):
    verb("up", "-d", swarm_file(folder, CAT))
    result = tmuxcc(folder, *words)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


# wait


def test_wait_for_the_end_tells_how(folder, tmux, start, verb):
    start("[agents]\na = {command = \"sh -c 'read x; exit 3'\"}\nb = {command = 'cat'}\n")
    with running(folder, "wait", "--exit", "a", "--tmux", tmux) as run:
        verb("send", "a", "go")
        assert run.wait_end() == 0
    assert run.text == "a: exit 3\n"
    # Also when that is over.
    assert verb("wait", "--exit", "a").stdout == "a: exit 3\n"


def test_wait_for_text_takes_what_is_written_from_now_on(folder, tmux, start, verb):
    start("[agents]\na = {command = \"sh -c 'echo early; exec cat'\"}\n")
    assert verb("wait", "--for", "early", "--timeout", "1").returncode == 124
    assert verb("wait", "--for", "early", "--screen").stdout == "a: early\n"
    with running(folder, "wait", "--for", "^la.e$", "--tmux", tmux) as run:
        # More than once, as nobody tells when it has begun to look.
        eventually(lambda: verb("send", "a", "late") and run.process.poll() is not None)
        assert run.wait_end() == 0
    assert run.text == "a: late\n"


def test_wait_for_text_ends_with_1_when_the_agent_ends_first(folder, tmux, start, verb):
    start("[agents]\na = {command = \"sh -c 'read x; exit 3'\"}\nb = {command = 'cat'}\n")
    with running(folder, "wait", "--for", "never", "--tmux", tmux) as run:
        eventually(lambda: verb("send", "a", "go").returncode == 1)
        assert run.wait_end() == 1
    assert run.text == "a: exit 3\n"


def test_wait_for_text_goes_on_through_restarts(folder, tmux):
    text = f"""
    [agents.a]
    command = "sh -c '[ -e {folder}/go ] || exit 3; echo found; exec cat'"
    restart = {{when = "always", delay = 0.2, factor = 1, max_restarts = 1000}}
    """
    words = ("wait", "--for", "^found$", "--tmux", tmux)
    where = (tmux, socket_of(folder), "list-clients")
    with master(folder, tmux, text):
        alone = len(in_tmux(*where).splitlines())
        with running(folder, *words) as run:
            eventually(lambda: len(in_tmux(*where).splitlines()) > alone)
            seen = agents(folder, tmux)["a"]["restarts"]
            eventually(lambda: agents(folder, tmux)["a"]["restarts"] >= seen + 3)
            (folder / "go").touch()
            assert (run.wait_end(), run.text) == (0, "a: found\n")


def test_wait_for_text_ends_when_an_agent_is_given_up(folder, tmux):
    text = """
    [agents.a]
    command = "sh -c 'echo up; exit 3'"
    restart = {when = "always", delay = 0.5, max_restarts = 2}
    [agents.other]
    command = "cat"
    """
    with master(folder, tmux, text):
        result = tmuxcc(folder, "wait", "--for", "never", "--tmux", tmux, "a")
        assert (result.returncode, result.stdout) == (1, "a: exit 3\n")


def test_wait_for_any_ends_with_the_first(folder, tmux, start, verb):
    start("[agents]\na = {command = 'cat'}\nb = {command = 'true'}\n")
    assert verb("wait", "--exit", "--any").stdout == "b: exit 0\n"
    assert verb("wait", "--exit", "--timeout", "0.5").returncode == 124


def test_wait_for_readiness(folder, tmux, verb):
    text = f"""
    [agents.a]
    command = "sh -c 'until [ -e {folder}/go ]; do sleep 0.05; done; echo ready; exec cat'"
    ready = {{pattern = "ready"}}
    """
    with master(folder, tmux, text):
        result = verb("wait", "--ready", "--timeout", "0.5")
        assert result.returncode == 124
        assert result.stderr == "tmuxcc: it did not come within 0.5 s: a\n"
        (folder / "go").touch()
        assert verb("wait", "--ready").stdout == "a: ready\n"


def test_wait_for_readiness_ends_with_1_when_the_agent_ends_first(folder, tmux, verb):
    text = """
    [agents.a]
    command = "sh -c 'exit 3'"
    ready = {pattern = "never"}
    [agents.b]
    command = "cat"
    """
    with master(folder, tmux, text):
        wait_state(folder, tmux, "a", "exited")
        result = verb("wait", "--ready", "a")
        assert (result.returncode, result.stdout) == (1, "a: exit 3\n")


def test_wait_until_an_agent_is_idle(folder, tmux, verb):
    with master(folder, tmux, "[agents.a]\ncommand = 'sh'\nenv = {PS1 = '$ '}\n"):
        assert verb("wait", "--idle", "a", "--timeout", str(PATIENCE)).stdout == "a: idle\n"


def test_wait_for_what_only_a_master_knows_needs_one(folder, tmux, verb):
    verb("up", "-d", swarm_file(folder, CAT))
    # That was noted before the master left.
    assert verb("wait", "--ready").returncode == 0
    result = verb("wait", "--idle")
    assert result.returncode == 1
    assert result.stderr.startswith("tmuxcc: no master runs, so nobody knows")


def test_wait_ends_with_1_when_the_master_is_killed(folder, tmux):
    text = "[agents.a]\ncommand = 'cat'\nready = {pattern = 'never'}\n"
    words = ("wait", "--ready", "--tmux", tmux)
    with master(folder, tmux, text) as up, running(folder, *words) as run:
        # Both are attached, each twice since the other is there: tmux up to 3.6b can end where a
        # client is lost while another one connects (`client-race-crash`).
        where = (tmux, socket_of(folder), "list-clients")
        eventually(lambda: len(in_tmux(*where).splitlines()) == 4)
        up.signal(signal.SIGKILL)
        assert run.wait_end() == 1
        assert "no master runs" in run.errors()


# stop and down


def test_stop_ends_an_agent_and_no_master_starts_it_again(folder, tmux, start, verb):
    start(
        "[agents]\n"
        "a = {command = \"sh -c 'setsid sleep 4711 & exec cat'\", restart = 'always'}\n"
        "b = {command = 'cat'}\n"
    )
    result = verb("stop", "a")
    assert result.returncode == 0
    assert re.fullmatch(r"a: SIGTERM; (1 stray ended; )?killed by SIGTERM\n", result.stdout)
    assert "sleep" not in {process.name for process in of_agents(folder)}
    assert wait_state(folder, tmux, "a", "stopped")["signal"] == signal.SIGTERM
    assert agents(folder, tmux)["b"]["state"] == "running"
    assert verb("stop", "a").stdout == "a: it had ended; killed by SIGTERM\n"


def test_stop_asks_as_the_agent_wants_to_be_asked(start, verb):
    start(
        "[agents]\n"
        "a = {command = \"sh -c 'read x; exit 5'\", stop = {text = 'bye'}}\n"
        "b = {command = 'cat', stop = {keys = ['C-d']}}\n"
    )
    result = verb("stop", "a", "b")
    assert sorted(result.stdout.splitlines()) == [
        "a: 'bye' typed; exit 5",
        "b: C-d typed; exit 0",
    ]


def test_stop_kills_after_its_grace(start, verb):
    start(f'[agents]\na = {{command = "{STUBBORN}"}}\nb = {{command = "cat"}}\n')
    (row,) = json_lines(verb("stop", "a", "--grace", "0.3", "--json").stdout)
    assert row["name"] == "a"
    assert [step["action"] for step in row["steps"]][:2] == ["SIGTERM", "SIGKILL"]
    assert row["exit_status"] == {"code": None, "signal": signal.SIGKILL}


def test_down_ends_everything_and_a_master_says_why_it_ends(folder, tmux, start, verb):
    up = start(
        "[agents]\n"
        "a = {command = \"sh -c 'setsid sleep 4711 & exec cat'\", restart = 'always'}\n"
        "b = {command = 'cat'}\n"
        "gone = {command = 'true'}\n"
    )
    wait_state(folder, tmux, "gone", "exited")
    result = verb("down")
    assert result.returncode == 0
    assert {line.partition(":")[0] for line in result.stdout.splitlines()} == {"a", "b"}
    assert result.stderr == "the swarm demo is down\n"
    assert not swarm_folder(folder).exists()
    assert not of_agents(folder)
    if up is not None:
        assert up.wait_end() == 0
        assert "another shell said `tmuxcc down -c demo`\n" in up.errors()
        summary = json_lines(up.text)[-1]
        assert summary["event"] == "summary"
        assert {row["name"] for row in summary["programs"] if row.get("stopped")} == {"a", "b"}


def test_down_ends_a_swarm_whose_master_was_killed(folder, tmux, verb):
    with master(folder, tmux, CAT) as run:
        wait_state(folder, tmux, "other", "running")
        run.signal(signal.SIGKILL)
        run.wait_end()
    assert verb("down").returncode == 0
    assert not swarm_folder(folder).exists()


def test_down_clears_up_where_master_and_tmux_were_killed(folder, tmux, verb):
    text = """
    [agents.a]
    command = "sh -c 'setsid sleep 4711 & exec cat'"
    """
    with master(folder, tmux, text) as run:
        wait_state(folder, tmux, "a", "running")
        server = int(in_tmux(tmux, socket_of(folder), "display-message", "-p", "#{pid}"))
        for pid in (run.process.pid, server):
            os.kill(pid, signal.SIGKILL)
        run.wait_end()
    assert swarm_folder(folder).exists()
    assert of_agents(folder)
    result = verb("down")
    assert (result.returncode, result.stderr) == (0, "the swarm demo is down\n")
    assert not swarm_folder(folder).exists()
    assert not of_agents(folder)
    assert "no swarm runs" in verb("down").stderr


def test_down_does_not_wait_for_a_restart(folder, tmux, verb):
    text = """
    [agents.a]
    command = "sh -c 'exit 3'"
    restart = {when = "always", delay = 1000, max_delay = 1000}
    """
    with master(folder, tmux, text) as run:
        wait_state(folder, tmux, "a", "restarting")
        assert verb("down").returncode == 0
        run.wait_end()


# A stdout that can't be written to


def unheard(
    folder: Path, tmux: str, name: str, *words: str, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a verb whose stdout is this file, or a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            argv(name, "--tmux", tmux, *words),
            stdin=subprocess.DEVNULL,
            stdout=writing if stdout is None else stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(folder),
            timeout=PATIENCE,
        )
    finally:
        os.close(writing)


def errors(stderr: str) -> list[str]:
    """What is said there beside that no master runs."""
    return [line for line in stderr.splitlines() if not line.startswith("no master runs")]


@pytest.mark.parametrize(
    "words",
    [
        ("ps",), ("ps", "--json"), ("send", "cat", "x"), ("broadcast", "x"), ("logs",),
        ("wait", "--ready"), ("stop", "cat"),
    ],
)  # fmt: skip
def test_a_verb_whose_reader_has_gone_ends_quietly(folder, tmux, start, verb, words):
    start(CAT)
    verb("send", "cat", "something for logs")
    result = unheard(folder, tmux, *words)
    assert (result.returncode, errors(result.stderr)) == (128 + signal.SIGPIPE, [])


def test_a_verb_that_finds_the_disk_full_says_so(folder, tmux, start):
    start(CAT)
    with Path("/dev/full").open("w") as full:
        result = unheard(folder, tmux, "ps", stdout=full.fileno())
    assert result.returncode == 1
    assert errors(result.stderr) == ["tmuxcc: stdout can't be written to: No space left on device"]


def test_an_end_that_nobody_hears_of_is_as_gentle_and_complete_as_any(folder, tmux, start):
    up = start(
        "[agents]\n"
        f"a = {{command = \"sh -c 'read x; echo $x >{folder}/last; exit 5'\","
        " stop = {text = 'bye'}}\n"
        "b = {command = 'cat', stop = {keys = ['C-d']}}\n"
    )
    result = unheard(folder, tmux, "down")
    assert result.returncode == 128 + signal.SIGPIPE
    assert result.stderr == "the swarm demo is down\n"
    assert up is None or up.wait_end() == 0
    assert (folder / "last").read_text() == "bye\n"
    assert not swarm_folder(folder).exists()


def test_a_verb_without_a_stdout_does_what_it_is_asked_to(folder, tmux, start):
    start(CAT)
    command = shlex.join(argv("ps", "--tmux", tmux))
    done = subprocess.run(
        f"{command} >&-", shell=True, stderr=subprocess.PIPE, text=True, env=environment(folder)
    )
    assert (done.returncode, errors(done.stderr)) == (0, [])


def test_on_a_narrow_terminal_a_table_keeps_its_names(folder, tmux, start):
    start(CAT)
    with on_terminal(folder, "ps", "--tmux", tmux, size=(30, 30)) as run:
        assert run.wait_end() == 0
    for name in ("name", "cat", "other"):
        assert re.search(rf"^(\x1b\[[0-9;]*m)*{name}\b", run.text, re.MULTILINE), run.text


def test_a_verb_works_where_its_parent_ignores_every_signal(folder, tmux):
    with master(folder, tmux, '[agents.a]\ncommand = "sleep 1000"\n') as up:
        up.wait_text('"started"')
        words = ["sh", "-c", "trap '' INT TERM HUP; exec \"$@\"", "sh", *argv("ps", "--tmux", tmux)]
        done = subprocess.run(words, capture_output=True, env=environment(folder), timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"running" in done.stdout
