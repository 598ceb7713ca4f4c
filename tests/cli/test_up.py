"""``tmuxcc up`` as a process, with real programs in a real tmux."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import (
    PATIENCE,
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
)

pytestmark = pytest.mark.tmux


@pytest.fixture(autouse=True)
def _everything_is_gone(folder: Path, tmux: str) -> Iterator[None]:
    yield
    assert_no_swarm_left(folder)


@pytest.fixture
def own(tmux: str) -> tuple[str, ...]:
    """How every command here begins: with the tmux under test."""
    return ("up", "--tmux", tmux)


def test_a_server_with_a_name_is_started_where_there_has_been_none(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "echo here"
        """,
    )

    result = tmuxcc(folder, *own, "-L", "named", str(file), TMUX_TMPDIR=str(folder))

    assert result.returncode == 0, result.stderr
    assert result.stdout == "a | here\n"


def test_the_lines_of_all_agents_stand_behind_their_names(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "printf 'one\\\\ntwo\\\\n'"
        [agents.worker]
        command = "echo number {n}"
        replicas = 2
        """,
    )
    result = tmuxcc(folder, *own, file)
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == [
        "a        | one",
        "a        | two",
        "worker-1 | number 1",
        "worker-2 | number 2",
    ]


def test_a_yaml_file_is_taken_as_well(folder, own):
    file = swarm_file(folder, "agents:\n  a:\n    command: echo hello\n", "demo.yaml")
    assert tmuxcc(folder, *own, file).stdout == "a | hello\n"


def test_an_agent_is_started_when_those_it_comes_after_are_ready(folder, own):
    file = swarm_file(
        folder,
        f"""
        [agents.web]
        command = "cat {folder}/made"
        after = ["db"]
        [agents.db]
        command = "sh -c 'echo x; echo made > {folder}/made; echo ready; exec sleep 1000'"
        ready = {{pattern = "^ready$"}}
        """,
    )
    with running(folder, *own, file) as run:
        run.wait_text("web | made\n")
        run.signal(signal.SIGTERM)
        assert run.wait_end() == 128 + signal.SIGTERM
        assert "db is ready\n" in run.errors()


def test_an_agent_whose_predecessor_does_not_become_ready_is_not_started(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.db]
        command = "sh -c 'exit 3'"
        ready = {pattern = "never"}
        [agents.web]
        command = "echo started"
        after = ["db"]
        [agents.front]
        command = "echo started"
        after = ["web"]
        """,
    )
    result = tmuxcc(folder, *own, file)
    assert result.returncode == 3
    assert result.stdout == ""
    assert "db: ended before it was ready" in result.stderr
    assert "web: not started, since db is not ready" in result.stderr
    assert "front: not started, since web is not ready" in result.stderr


def test_an_agent_that_can_not_be_started_is_told_and_the_others_run(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "true"
        cwd = "nowhere"
        [agents.b]
        command = "echo b"
        """,
    )
    result = tmuxcc(folder, *own, file)
    assert result.returncode == 1
    assert result.stdout == "b | b\n"
    assert re.search(r"a: can't be started: .*no folder .*nowhere", result.stderr)


def test_only_the_agents_that_are_named_run_and_those_they_come_after(folder, own):
    file = swarm_file(
        folder,
        """
        [agents]
        a = {command = "echo a", after = ["b"]}
        b = {command = "echo b"}
        c = {command = "echo c"}
        w = {command = "echo w", replicas = 2}
        """,
    )
    assert sorted(tmuxcc(folder, *own, file, "a").stdout.splitlines()) == ["a | a", "b | b"]
    result = tmuxcc(folder, *own, file, "w-*")
    assert sorted(result.stdout.splitlines()) == ["w-1 | w", "w-2 | w"]


def test_the_exit_status_is_that_of_the_worst_agent(folder, own):
    file = swarm_file(
        folder, '[agents]\na = {command = "sh -c \'exit 3\'"}\nb = {command = "false"}\n'
    )
    result = tmuxcc(folder, *own, file)
    assert result.returncode == 3
    assert re.search(r"^a +exit 3 ", result.stderr, re.MULTILINE)
    assert re.search(r"^b +exit 1 ", result.stderr, re.MULTILINE)


def test_an_agent_whose_window_somebody_has_closed_goes_on_in_another(folder, own, tmux):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "sh -c 'echo run $$; sleep 600'"
        restart = {when = "always", delay = 0.01}
        [agents.b]
        command = "sleep 600"
        """,
    )
    with running(folder, *own, file) as up:
        up.wait_text("a | run ")
        in_tmux(tmux, socket_of(folder), "kill-pane", "-t", agents(folder, tmux)["a"]["pane_id"])
        while up.text.count("a | run ") < 2:
            assert up.read()
        up.signal(signal.SIGTERM)
        up.wait_end()


def test_restarts_are_told_and_counted_and_a_crash_loop_is_given_up(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "sh -c 'echo run; exit 4'"
        restart = {when = "on-failure", delay = 0.2, max_restarts = 2}
        """,
    )
    result = tmuxcc(folder, *own, file)
    assert result.returncode == 4
    assert lines_of(result.stdout, "a") == ["run"] * 3
    assert (
        len(re.findall(r"^a ended with exit 4, again in 0\.\d s$", result.stderr, re.MULTILINE))
        == 2
    )
    assert re.search(r"^a: it ended again after 2 restarts", result.stderr, re.MULTILINE)
    assert re.search(r"^a +given up, exit 4 +2 ", result.stderr, re.MULTILINE)


# The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_agents_and_gives_the_exit_status(folder, own, number):
    file = swarm_file(folder, "[agents.a]\ncommand = \"sh -c 'echo up; exec sleep 1000'\"\n")
    with running(folder, *own, file) as run:
        run.wait_text("a | up\n")
        run.signal(number)
        assert run.wait_end() == 128 + number
        errors = run.errors()
        assert "stopping… (again to kill)" in errors
        assert re.search(r"^a +stopped, killed by SIGTERM \(15\) ", errors, re.MULTILINE)


def test_the_second_signal_kills(folder, own):
    file = swarm_file(folder, f'[agents.a]\ncommand = "{STUBBORN}"\nstop = {{grace = 1000}}\n')
    with running(folder, *own, file) as run:
        run.wait_text("a | up\n")
        run.signal(signal.SIGINT)
        run.wait_message("stopping… (again to kill)")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
        assert re.search(r"^a +stopped, killed by SIGKILL \(9\) ", run.errors(), re.MULTILINE)


def test_the_second_signal_ends_it_though_nobody_reads_what_is_told(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.wild]
        command = "yes"
        """,
    )
    with running(folder, *own, file) as up:
        up.wait_text("wild | y")
        up.signal(signal.SIGINT)
        up.wait_message("stopping… (again to kill)")
        up.signal(signal.SIGINT)
        assert up.process.wait(PATIENCE) == 128 + signal.SIGINT


def test_after_a_second_signal_the_summary_is_still_the_last_line(folder, own):
    file = swarm_file(folder, f'[agents.a]\ncommand = "{STUBBORN}"\nstop = {{grace = 1000}}\n')
    with running(folder, *own, "--json", file) as run:
        run.wait_text('"up"')
        run.signal(signal.SIGINT)
        run.wait_message("stopping… (again to kill)")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
    summary = json_lines(run.text)[-1]
    assert (summary["event"], summary["programs"][0]["signal"]) == ("summary", signal.SIGKILL)


def test_grace_is_the_time_until_an_agent_is_killed(folder, own):
    file = swarm_file(folder, f'[agents.a]\ncommand = "{STUBBORN}"\nstop = {{grace = 1000}}\n')
    with running(folder, *own, "--grace", "0.2", file) as run:
        run.wait_text("a | up\n")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
        assert "a: SIGTERM, then SIGKILL after" in run.errors()


def test_an_agent_is_stopped_before_those_that_it_came_after(folder, own):
    told = "trap 'echo {id} >> order; exit' TERM; echo up; while :; do sleep 0.05; done"
    file = swarm_file(
        folder,
        f"""
        [defaults]
        argv = ["sh", "-c", "{told}"]
        [agents.db]
        [agents.web]
        after = ["db"]
        [agents.front]
        after = ["web"]
        """,
    )
    with running(folder, *own, file) as run:
        for name in ("db   ", "web  ", "front"):
            run.wait_text(f"{name} | up\n")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
    assert (folder / "order").read_text().split() == ["front", "web", "db"]


def test_a_signal_while_it_starts_leaves_nothing(folder, own):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "sleep 1000"
        ready = {pattern = "never"}
        [agents.b]
        command = "sleep 1000"
        after = ["a"]
        """,
    )
    with running(folder, *own, "--json", file) as run:
        run.wait_text('"started"')
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130


def test_what_agents_leave_in_the_background_is_gone_too(folder, own):
    file = swarm_file(folder, "[agents.a]\ncommand = \"sh -c 'setsid sleep 4711 & echo done'\"\n")
    assert tmuxcc(folder, *own, file).returncode == 0
    assert eventually(lambda: not of_agents(folder))


def test_a_reader_that_goes_away_ends_it_quietly(folder, own):
    file = swarm_file(folder, "[agents.a]\ncommand = \"sh -c 'while :; do echo x; done'\"\n")
    with running(folder, *own, file) as run:
        run.wait_text("a | x\n")
        assert run.process.stdout is not None
        run.process.stdout.close()
        assert run.process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert "Traceback" not in run.errors()


# Detached, and taken over


def test_detached_it_returns_when_all_are_ready_and_the_agents_go_on(folder, own, tmux):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "sh -c 'echo ready; exec cat'"
        ready = {pattern = "ready"}
        """,
    )
    result = tmuxcc(folder, *own, "--detach", file)
    assert result.returncode == 0
    assert "a is ready\n" in result.stderr
    assert "without a master: nobody starts again what ends" in result.stderr
    (row,) = agents(folder, tmux).values()
    assert (row["state"], row["ready"], row["master"]) == ("running", True, None)
    assert tmuxcc(folder, "down", "--tmux", tmux).returncode == 0


def test_detached_it_fails_if_one_does_not_become_ready(folder, own, tmux):
    file = swarm_file(
        folder,
        """
        [agents.a]
        command = "cat"
        ready = {pattern = "never", timeout = 0.1}
        """,
    )
    result = tmuxcc(folder, *own, "-d", file)
    assert result.returncode == 1
    assert "a: is not ready after 0.1 s\n" in result.stderr
    assert tmuxcc(folder, "down", "--tmux", tmux).returncode == 0


def test_a_swarm_that_runs_is_not_started_again(folder, own, tmux):
    file = swarm_file(folder, '[agents.a]\ncommand = "cat"\n')
    tmuxcc(folder, *own, "-d", file)
    result = tmuxcc(folder, *own, file)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("tmuxcc: the swarm demo runs already")
    assert "--adopt" in line
    with running(folder, *own, "--adopt", file) as run:
        assert run.process.stderr is not None
        run.process.stderr.readline()
        result = tmuxcc(folder, *own, "--adopt", file)
        assert result.returncode == 1
        assert f"process {run.process.pid} runs it" in result.stderr
        assert tmuxcc(folder, "down", "--tmux", tmux).returncode == 0
        assert run.wait_end() == 0


def test_adopted_agents_go_on_and_new_ones_are_started(folder, own, tmux):
    a, b = (f"[agents.{n}]\ncommand = \"sh -c 'echo {n} $$; exec cat'\"\n" for n in "ab")
    tmuxcc(folder, *own, "-d", swarm_file(folder, a))
    pid = agents(folder, tmux)["a"]["pid"]
    with running(folder, *own, "--adopt", swarm_file(folder, a + b)) as run:
        run.wait_text("b | b ")
        run.wait_text("a | a ")
        assert agents(folder, tmux)["a"]["pid"] == pid
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130


def test_after_a_master_was_killed_its_agents_can_be_adopted(folder, own, tmux):
    file = swarm_file(folder, "[agents.a]\ncommand = \"sh -c 'echo up; exec cat'\"\n")
    with running(folder, *own, file) as run:
        run.wait_text("a | up\n")
        run.signal(signal.SIGKILL)
        run.wait_end()
    pid = agents(folder, tmux)["a"]["pid"]
    with running(folder, *own, "--adopt", file) as run:
        run.wait_text("a | up\n")
        assert agents(folder, tmux)["a"]["pid"] == pid
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130


# Other things


def test_it_says_how_to_attach(folder, own, tmux):
    file = swarm_file(folder, "[agents.a]\ncommand = \"sh -c 'echo up; exec cat'\"\n")
    with running(folder, *own, file) as run:
        run.wait_text("up")
        assert run.process.stderr is not None
        line = run.process.stderr.readline().decode()
        assert line == f"attach: {tmux} -S {socket_of(folder)} attach\n"
        assert in_tmux(tmux, socket_of(folder), "list-sessions", "-F", "#S") == "swarm-demo"
        run.signal(signal.SIGINT)
        run.wait_end()


def test_on_another_server_nothing_but_the_swarm_is_touched(folder, own, tmux, socket_path):
    subprocess.run([tmux, "-S", socket_path, "-f", "/dev/null", "new", "-d", "-s", "work", "cat"])
    file = swarm_file(folder, "[agents.a]\ncommand = \"sh -c 'echo up; exec cat'\"\n")
    with running(folder, *own, "-S", str(socket_path), file) as run:
        run.wait_text("a | up\n")
        sessions = ("list-sessions", "-F", "#S")
        assert set(in_tmux(tmux, str(socket_path), *sessions).split()) == {"work", "swarm-demo"}
        assert not swarm_folder(folder).exists()
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
        assert in_tmux(tmux, str(socket_path), *sessions) == "work"


def test_log_files_are_written_where_the_option_says(folder, own):
    file = swarm_file(folder, '[agents.a]\ncommand = "echo hello"\n')
    tmuxcc(folder, *own, "--log-dir", str(folder / "logs"), file)
    assert (folder / "logs" / "a.log").read_bytes() == b"hello\r\n"


def test_json_has_an_object_for_everything_that_happens(folder, own):
    ready = folder / "ready"
    file = swarm_file(
        folder,
        f"""
        [agents.a]
        command = "sh -c 'echo go; until [ -e {ready} ]; do sleep 0.01; done; exit 4'"
        ready = {{pattern = "go"}}
        restart = {{when = "on-failure", delay = 0.01, max_restarts = 1}}
        [agents.b]
        command = "touch {ready}"
        after = ["a"]
        """,
    )
    result = tmuxcc(folder, *own, "--json", file)
    rows = json_lines(result.stdout)
    assert sorted(row["event"] for row in rows if row.get("name") == "a") == sorted(
        ["started", "line", "ready", "ended", "started", "line", "failed", "exited"]
    )
    (ended,) = [row for row in rows if row["event"] == "ended"]
    assert (ended["name"], ended["code"], ended["signal"]) == ("a", 4, None)
    assert ended["again_in"] <= 0.02
    summary = rows[-1]
    assert summary["event"] == "summary"
    assert summary["status"] == 4
    program, _ = summary["programs"]
    assert (program["name"], program["restarts"], program["remark"]) == ("a", 1, "given up")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[agents.a]\ncommand = 5\n", "agents.a.command: "),
        ("[agents.a]\ncommand = 'a | b'\n", "needs a shell"),
        ("[agents.a]\ncomand = 'a'\n", "did you mean 'command'"),
        ("x", "is not TOML"),
    ],
)
def test_a_wrong_file_exits_2_and_one_line_says_where(folder, own, text, said):
    result = tmuxcc(folder, *own, swarm_file(folder, text))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tmuxcc: {folder}/demo.toml: ")
    assert said in line


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("/nonexistent.toml",),
        ("FILE", "nobody"),
        ("FILE", "--grace", "-1"),
        ("-d", "--log-dir", "x", "FILE"),
    ],
)
def test_wrong_use_exits_2(folder, own, words):
    file = swarm_file(folder, '[agents.a]\ncommand = "true"\n')
    result = tmuxcc(folder, *own, *(file if word == "FILE" else word for word in words))
    assert result.returncode == 2
    assert result.stdout == ""


def test_on_a_terminal_names_have_colours_and_messages_are_dim(folder, own):
    file = swarm_file(
        folder,
        '[agents]\na = {command = "echo one"}\n'
        "b = {command = \"sh -c 'echo up; exec sleep 1000'\"}\n",
    )
    with on_terminal(folder, *own, file) as run:
        run.wait_text("one")
        run.wait_text("up")
        run.wait_text("a ended with exit 0")
        assert run.text.index("one") < run.text.index("a ended")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
        assert re.search(r"\x1b\[36m[^\n]*a | [^\n]*one", run.text)
        assert re.search(r"\x1b\[2ma ended with exit 0", run.text)
        assert re.search(r"\x1b\[32mexit 0", run.text)


def test_that_one_has_ended_is_told_also_where_the_others_are_still_to_start(folder, own):
    file = swarm_file(
        folder,
        '[agents]\na = {command = "echo ready", ready = {pattern = "ready"}}\n'
        'b = {command = "sleep 1000", after = ["a"]}\n',
    )
    with on_terminal(folder, *own, file) as run:
        run.wait_text("a ended with exit 0")


def test_where_no_server_can_be_had_one_line_says_so(folder):
    file = swarm_file(folder, '[agents.a]\ncommand = "true"\n')
    result = subprocess.run(
        argv("up", "--tmux", "/nonexistent/tmux", file),
        capture_output=True,
        text=True,
        env=environment(folder),
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "install tmux 3.2 or later" in line
