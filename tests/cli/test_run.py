"""``tmuxcc run`` as a process, with real programs in a real tmux."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmuxcc.cli.run import split_command
from tmuxcc.cli.text import ColourFilter
from tmuxcc.swarm.processes import processes_with

from .helpers import (
    argv,
    assert_nothing_left,
    environment,
    eventually,
    json_lines,
    lines_of,
    on_terminal,
    python,
    run_folders,
    running,
    servers,
    tmuxcc,
)

pytestmark = pytest.mark.tmux

STUBBORN = "sh -c 'trap : INT TERM HUP; echo up; while :; do sleep 1; done'"
"""A program that does not end when it is asked to."""


@pytest.fixture(autouse=True)
def _everything_is_gone(folder: Path) -> Iterator[None]:
    yield
    assert_nothing_left(folder)


@pytest.fixture
def own(tmux: str) -> tuple[str, str, str]:
    """How every command here begins: with the tmux under test."""
    return ("run", "--tmux", tmux)


def _socket(folder: Path) -> str:
    return str(run_folders(folder)[0] / "socket")


def _tmux(tmux: str, socket: str, *words: str) -> str:
    told = subprocess.run([tmux, "-S", socket, "-N", *words], capture_output=True, text=True)
    return told.stdout.strip()


# Lines and names


def test_each_line_stands_behind_the_padded_name_of_its_program(folder, own):
    result = tmuxcc(folder, *own, "-n", "a", "printf 'one\\ntwo\\n'", "-n", "long", "echo three")
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == ["a    | one", "a    | two", "long | three"]


def test_the_lines_of_one_program_stay_in_order(folder, own):
    result = tmuxcc(folder, *own, "seq 20000", "-n", "other", "seq 20000")
    wanted = [str(number) for number in range(1, 20001)]
    assert lines_of(result.stdout, "seq") == wanted
    assert lines_of(result.stdout, "other") == wanted


def test_programs_that_end_at_once_are_no_trouble(folder, own):
    for _ in range(5):
        assert tmuxcc(folder, *own, *["true"] * 6).returncode == 0


def test_names_are_made_from_programs_and_are_unique(folder, own):
    result = tmuxcc(folder, *own, "--json", "/bin/echo 1", "echo 2", "-n", "echo-2", "true")
    started = [row for row in json_lines(result.stdout) if row["event"] == "started"]
    assert [row["name"] for row in started] == ["echo", "echo-3", "echo-2"]


@pytest.mark.parametrize(
    "words",
    [("-n", "x y", "true"), ("-nx y", "true"), ("--name", "x y", "true"), ("--name=x y", "true")],
)
def test_a_name_may_be_given_as_any_option_is(folder, own, words):
    result = tmuxcc(folder, *own, "--json", "true", *words)
    assert [row["name"] for row in json_lines(result.stdout)[:2]] == ["true", "x y"]


def test_windows_stand_in_the_order_of_the_commands_and_bear_their_names(folder, own, tmux):
    words = [word for number in range(5) for word in ("-n", f"#{{n}} {number}", "sleep 1000")]
    with running(folder, *own, "--json", *words) as run:
        run.wait_text('"#{n} 4"')
        names = _tmux(tmux, _socket(folder), "list-windows", "-F", "#{window_name}")
        assert names.splitlines() == [f"#{{n}} {number}" for number in range(5)]
        run.signal(signal.SIGTERM)
        run.wait_end()


def test_a_line_is_shown_the_moment_it_is_written(folder, own):
    go_on = folder / "go-on"
    waiting = f"sh -c 'echo first; until [ -e {go_on} ]; do sleep 0.05; done; echo second'"
    with running(folder, *own, "-n", "p", waiting) as run:
        run.wait_text("p | first\n")
        go_on.touch()
        run.wait_text("p | second\n")
        assert run.wait_end() == 0


# What is run


def test_a_command_is_split_as_by_a_shell_and_run_without_one(folder, own):
    word = r"""printf '<%s>\n' "a  b" c\ d '$HOME' '*' "it's" \; '' é"""
    result = tmuxcc(folder, *own, "-n", "p", word)
    wanted = ["<a  b>", "<c d>", "<$HOME>", "<*>", "<it's>", "<;>", "<>", "<é>"]
    assert lines_of(result.stdout, "p") == wanted


@pytest.mark.parametrize(
    "word",
    [
        "a | b", "a && b", "a; b", "a > f", "a < f", "a &", "(a)", "echo $HOME", "echo ${A}",
        'echo "$A"', "echo $(a)", "echo `a`", 'echo "`a`"', "A=1 b", "echo 'open", "", "  ", "''",
    ],
)  # fmt: skip
def test_what_only_a_shell_could_do_is_refused(folder, own, word):
    result = tmuxcc(folder, *own, "true", word)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_the_refusal_of_shell_syntax_says_what_to_write_instead(folder, own):
    result = tmuxcc(folder, *own, "ls | wc -l")
    assert "sh -c 'ls | wc -l'" in result.stderr


@pytest.mark.parametrize("word", ["grep a$ f", r"a \| b", "a '|' b", "a '$x'", r"a \$x", 'a "|"'])
def test_what_a_shell_would_take_as_it_is_is_not_refused(word):
    assert split_command(word)[0] in ("grep", "a")


@pytest.mark.parametrize(
    "words",
    [
        (), ("-n", "x"), ("-n", "x", "-n", "y", "true"), ("true", "-n"), ("true", "--json"),
        ("-n", "x", "true", "-n", "x", "true"), ("-n", "", "true"), ("-n", "a\nb", "true"),
        ("--size", "80", "true"), ("--size", "0x9", "true"), ("--env", "A", "true"),
        ("--cwd", "/nonexistent", "true"), ("--grace", "-1", "true"), ("-S", "/x", "true"),
    ],
)  # fmt: skip
def test_wrong_use_exits_2(folder, own, words):
    result = tmuxcc(folder, *own, *words)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_folder_and_environment_reach_the_programs(folder, own):
    place = folder / "a#{b} c"
    place.mkdir()
    words = ["--cwd", str(place), "--env", "A=1 #{x}", "--env", "B=", "-n", "p"]
    result = tmuxcc(folder, *own, *words, "sh -c 'pwd; echo \"<$A> <$B>\"'")
    assert lines_of(result.stdout, "p") == [str(place), "<1 #{x}> <>"]


def test_the_folder_is_the_current_one_by_default(folder, own):
    result = tmuxcc(folder, *own, "-n", "p", "pwd")
    assert lines_of(result.stdout, "p") == [str(Path.cwd())]


@pytest.mark.parametrize(("words", "size"), [((), "50 200"), (("--size", "90x33"), "33 90")])
def test_programs_have_a_terminal_of_the_size_asked_for(folder, own, words, size):
    result = tmuxcc(folder, *own, *words, "-n", "first", "stty size", "-n", "other", "stty size")
    assert lines_of(result.stdout, "first") == lines_of(result.stdout, "other") == [size]


def test_on_a_terminal_lines_and_names_fit_side_by_side(folder, own):
    with on_terminal(folder, *own, "-n", "four", "stty size", size=(100, 31)) as run:
        assert run.wait_end() == 0
        assert "31 93" in run.text


def test_the_programs_follow_the_size_of_the_terminal(folder, own):
    watching = "sh -c 'trap \"stty size\" WINCH; echo up; while :; do sleep 0.1; done'"
    with on_terminal(folder, *own, "-n", "four", watching, size=(100, 31)) as run:
        run.wait_text("up\n")
        fcntl.ioctl(run.output, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        run.wait_text("40 113\n")
        run.signal(signal.SIGINT)
        run.wait_end()


# The server


def test_the_server_is_private_and_set_up_before_the_first_pane(folder, own, tmux):
    with running(folder, *own, STUBBORN) as run:
        run.wait_text("up")
        (place,) = run_folders(folder)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        socket = _socket(folder)
        options = _tmux(tmux, socket, "show-options", "-g") + _tmux(tmux, socket, "show", "-s")
        windows = _tmux(tmux, socket, "show-options", "-gw")
        assert "exit-empty on" in options
        assert "exit-unattached on" in options
        assert "set-clipboard off" in options
        assert "tmuxcc run" in options
        assert "automatic-rename off" in windows
        assert "allow-rename off" in windows
        assert _tmux(tmux, socket, "display-message", "-p", "#{history_limit}") == "50000"
        run.signal(signal.SIGINT)
        run.signal(signal.SIGINT)
        run.wait_end()


def test_it_says_how_to_attach_and_that_works(folder, own, tmux):
    with running(folder, *own, STUBBORN) as run:
        run.wait_text("up")
        assert run.process.stderr is not None
        line = run.process.stderr.readline().decode()
        match = re.fullmatch(r"attach: (\S+) -S (\S+) attach\n", line)
        assert match is not None
        assert match[1] == tmux
        assert match[2] == _socket(folder)
        # A second client comes and goes, and the run goes on.
        command = [tmux, "-S", match[2], "-C", "attach"]
        subprocess.run(command, input=b"\n", stdout=subprocess.DEVNULL, check=True)
        assert run.process.poll() is None
        assert _tmux(tmux, match[2], "list-windows", "-F", "#{window_name}") == "sh"
        run.signal(signal.SIGTERM)
        run.signal(signal.SIGTERM)
        run.wait_end()


def test_tmux_of_the_person_who_runs_it_is_not_touched(folder, own, tmux, socket_path):
    subprocess.run([tmux, "-S", socket_path, "-f/dev/null", "new-session", "-dnw"], check=True)
    listing = ("list-panes", "-a", "-F", "#{session_name} #{window_name} #{pane_id}")
    before = _tmux(tmux, str(socket_path), *listing)
    result = tmuxcc(folder, *own, "echo hello", TMUX=f"{socket_path},1,0", TMUX_PANE="%0")
    assert result.stdout == "echo | hello\n"
    assert _tmux(tmux, str(socket_path), *listing) == before


def test_without_tmux_one_line_says_what_to_do(folder):
    result = tmuxcc(folder, "run", "--tmux", "no-such-tmux", "true")
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("tmuxcc: no program 'no-such-tmux': install tmux")


def test_a_server_that_is_killed_is_told_in_one_line(folder, own, tmux):
    with running(folder, *own, STUBBORN) as run:
        run.wait_text("up")
        _tmux(tmux, _socket(folder), "kill-server")
        assert run.wait_end() == 1
        last = run.errors().splitlines()[-1]
        assert last.startswith("tmuxcc: ")
        assert "tmux" in last


# How it ends


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("true", "true"), 0),
        (("true", "sh -c 'exit 3'"), 3),
        (("sh -c 'exit 3'", "sh -c 'exit 7'", "true"), 7),
        (("sh -c 'kill -TERM \\$\\$'".replace("\\", ""), "sh -c 'exit 9'"), 143),
        (("sh -c 'exit 255'",), 255),
    ],
)
def test_the_exit_status_is_that_of_the_worst(folder, own, words, status):
    assert tmuxcc(folder, *own, *words).returncode == status


def test_a_program_that_does_not_exist_is_exit_127_with_the_reason(folder, own):
    result = tmuxcc(folder, *own, "no-such-program --x", "true")
    assert result.returncode == 127
    assert "not found" in lines_of(result.stdout, "no-such-program")[0]


def test_the_summary_tells_of_each_how_it_went(folder, own):
    words = ["-n", "good", "printf abc", "-n", "bad", "sh -c 'exit 3'"]
    result = tmuxcc(folder, *own, *words, "-n", "shot", "sh -c 'kill -9 $$'")
    rows = [re.split(r"  +", line) for line in result.stderr.splitlines()[1:]]
    assert rows[0] == ["name", "status", "time", "lines", "bytes", "lost bytes"]
    assert [row[:2] + row[3:] for row in rows[1:]] == [
        ["good", "exit 0", "1", "3", "0"],
        ["bad", "exit 3", "0", "0", "0"],
        ["shot", "killed by SIGKILL (9)", "0", "0", "0"],
    ]
    assert all(re.fullmatch(r"[0-9]+\.[0-9] s", row[2]) for row in rows[1:])


def test_json_is_one_object_per_line_and_nothing_else(folder, own):
    words = ["-n", "a", "printf 'x\\ny'", "-n", "b", "sh -c 'exit 3'"]
    result = tmuxcc(folder, *own, "--json", *words)
    rows = json_lines(result.stdout)
    assert [row["event"] for row in rows[:2]] == ["started", "started"]
    assert rows[0]["argv"] == ["printf", "x\\ny"]
    assert re.fullmatch("%[0-9]+", rows[0]["pane_id"])
    lines = [row for row in rows if row["event"] == "line"]
    assert [(row["name"], row["text"]) for row in lines] == [("a", "x"), ("a", "y")]
    assert all(isinstance(row["time"], float) for row in lines)
    ends = {row["name"]: row for row in rows if row["event"] == "exited"}
    assert (ends["a"]["code"], ends["a"]["signal"]) == (0, None)
    assert (ends["b"]["code"], ends["b"]["signal"]) == (3, None)
    assert isinstance(ends["b"]["seconds"], float)
    assert rows[-1]["event"] == "summary"
    assert rows[-1]["status"] == result.returncode == 3
    assert [row["lines"] for row in rows[-1]["programs"]] == [2, 0]
    assert result.stderr.startswith("attach: ")


def test_the_last_words_of_a_program_are_complete_every_time(folder, own):
    words = [word for n in range(10) for word in ("-n", f"p{n}", python('print("x" * 20000)'))]
    result = tmuxcc(folder, *own, *words)
    assert sorted(result.stdout.splitlines()) == [f"p{n} | " + "x" * 20000 for n in range(10)]


def test_the_last_words_of_a_single_program_are_complete_every_time(folder, own):
    for _ in range(10):
        assert tmuxcc(folder, *own, "-n", "p", "seq 4000").stdout.endswith("\np | 4000\n")


# How it is stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_gently_and_is_the_exit_status(folder, own, number):
    tells = "sh -c 'trap \"echo bye; exit\" INT TERM HUP; echo up; while :; do sleep 0.1; done'"
    with running(folder, *own, "-n", "a", tells, "-n", "b", tells) as run:
        run.wait_text("a | up")
        run.wait_text("b | up")
        run.signal(number)
        assert run.wait_end() == 128 + number
        assert "bye" in lines_of(run.text, "a")[-1]
        assert "bye" in lines_of(run.text, "b")[-1]
        assert "stopping… (again to kill)\n" in run.errors()


def test_a_second_signal_kills(folder, own):
    with running(folder, *own, "--grace", "1000", "-n", "p", STUBBORN) as run:
        run.wait_text("up")
        assert run.process.stderr is not None
        run.process.stderr.readline()
        run.signal(signal.SIGINT)
        run.wait_message("stopping… (again to kill)")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
        assert "killed by SIGKILL (9)" in run.errors()


def test_after_a_second_signal_the_summary_is_still_the_last_line(folder, own):
    with running(folder, *own, "--json", "--grace", "1000", "-n", "p", STUBBORN) as run:
        run.wait_text('"up"')
        run.signal(signal.SIGINT)
        run.wait_message("stopping… (again to kill)")
        run.signal(signal.SIGINT)
        assert run.wait_end() == 130
    summary = json_lines(run.text)[-1]
    assert (summary["event"], summary["programs"][0]["signal"]) == ("summary", signal.SIGKILL)


def test_after_the_grace_time_it_kills(folder, own):
    with running(folder, *own, "--grace", "0.2", "-n", "p", STUBBORN) as run:
        run.wait_text("up")
        run.signal(signal.SIGTERM)
        assert run.wait_end() == 143
        assert "killed by SIGKILL (9)" in run.errors()


def test_ctrl_c_on_a_terminal_stops_all(folder, own):
    with on_terminal(folder, *own, "-n", "p", "sh -c 'echo up; sleep 1000'") as run:
        run.wait_text("up")
        os.write(run.output, b"\x03")
        assert run.wait_end() == 130
        assert "stopping…" in run.text
        assert "SIGINT" in run.text


def test_a_signal_before_anything_runs_leaves_nothing(folder, own):
    with running(folder, *own, "sleep 1000") as run:
        eventually(lambda: run_folders(folder))
        run.signal(signal.SIGTERM)
        assert run.wait_end() == 143


def test_a_signal_that_its_parent_ignores_is_ignored(folder, own):
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *argv(*own, STUBBORN)]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(folder)
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"sh | up\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


@pytest.mark.parametrize("option", ["--fail-fast", "--kill-others"])
def test_when_one_fails_all_are_stopped_and_its_status_counts(folder, own, option):
    result = tmuxcc(folder, *own, option, "sleep 1000", "-n", "bad", "sh -c 'exit 3'", "true")
    assert result.returncode == 3
    assert "bad failed" in result.stderr
    assert "killed by SIGTERM (15)" in result.stderr


def test_when_one_fails_the_others_go_on_by_default(folder, own):
    result = tmuxcc(folder, *own, "sh -c 'exit 3'", "-n", "p", "sh -c 'sleep 0.3; echo end'")
    assert lines_of(result.stdout, "p") == ["end"]


def test_a_reader_that_goes_away_ends_all_quietly(folder, own):
    with running(folder, *own, "yes", "sleep 1000") as run:
        run.wait_text("yes   | y\n")
        assert run.process.stdout is not None
        run.process.stdout.close()
        assert run.process.wait(30) == 128 + signal.SIGPIPE
        assert len(run.errors().splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [("run", "echo hi"), ("run", "--json", "echo hi"), ("--help",)])
def test_a_full_disk_is_told_in_one_line(folder, tmux, words, unbuffered):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            argv("--tmux", tmux, *words),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(folder, PYTHONUNBUFFERED=unbuffered),
        )
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("attach: ")]
    assert re.fullmatch("tmuxcc: .*No space left on device", line)


def test_a_current_folder_that_is_gone_is_told_in_one_line(folder, own):
    (folder / "gone").mkdir()
    command = f'cd {folder}/gone && rmdir ../gone && exec "$@"'
    result = subprocess.run(
        ["sh", "-c", command, "sh", *argv(*own, "true")],
        capture_output=True,
        text=True,
        env=environment(folder),
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line == "Error: the current folder is gone: name one with --cwd"


def test_a_reader_that_stands_still_does_not_keep_it_from_ending(folder, own):
    with running(folder, *own, "--grace", "1000", "yes", "-n", "p", STUBBORN) as run:
        run.wait_text("yes | y\n")
        assert run.process.stderr is not None
        run.process.stderr.readline()
        run.signal(signal.SIGINT)
        run.wait_message("stopping… (again to kill)")
        run.signal(signal.SIGINT)
        assert run.process.wait(30) == 130


def test_sigkill_of_the_command_ends_its_server_and_programs(folder, own):
    with running(folder, *own, "-n", "p", "sh -c 'echo up; sleep 1000'", "yes") as run:
        run.wait_text("p   | up")
        run.process.kill()
        run.process.wait()
        assert_processes_gone(folder)
        assert len(run_folders(folder)) == 1
    # The next run clears up.
    assert tmuxcc(folder, *own, "true").returncode == 0


def assert_processes_gone(folder: Path) -> None:
    assert eventually(lambda: not servers(folder))
    assert eventually(lambda: not processes_with(f"TMUX={folder}".encode()))


def test_another_run_leaves_the_folder_of_a_running_one_alone(folder, own):
    with running(folder, *own, STUBBORN) as run:
        run.wait_text("up")
        before = run_folders(folder)
        assert tmuxcc(folder, *own, "true").returncode == 0
        assert run_folders(folder) == before
        run.signal(signal.SIGINT)
        run.signal(signal.SIGINT)
        run.wait_end()


@pytest.mark.parametrize(
    "start",
    ["nohup sleep 1000 >/dev/null &", "setsid -f sleep 1000", "trap : HUP; sleep 1000 &"],
)
def test_what_programs_leave_in_the_background_does_not_outlive_the_run(folder, own, start):
    result = tmuxcc(
        folder, *own, "-n", "p", f"sh -c '{start} echo end'".replace("1000 e", "1000; e")
    )
    assert "end" in lines_of(result.stdout, "p")
    assert result.returncode == 0


# What programs write


def test_a_line_of_a_megabyte_comes_whole_in_pieces(folder, own):
    result = tmuxcc(folder, *own, "-n", "p", python('print("x" * 1000000)'))
    pieces = lines_of(result.stdout, "p")
    assert "".join(pieces) == "x" * 1000000
    assert result.returncode == 0


def test_bytes_that_are_no_text_do_no_harm(folder, own):
    code = (
        'import sys; sys.stdout.buffer.write(b"a\\0b\\xff\\xc3(c\\n" + bytes(range(1, 8)) + b"end")'
    )
    result = tmuxcc(folder, *own, "-n", "p", python(code))
    assert lines_of(result.stdout, "p") == [
        "ab\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}(c",
        "end",
    ]


def test_a_last_line_without_its_end_is_shown(folder, own):
    assert tmuxcc(folder, *own, "-n", "p", "printf unended").stdout == "p | unended\n"


def test_lost_output_is_a_line_in_its_place(folder, own):
    with running(folder, *own, "-n", "p", "yes") as run:
        run.wait_text("p | y\n")
        # Longer than tmux waits for a client before it pauses a pane (`pause-after`).
        pause = 6.0
        while "lost here: " not in run.text:
            # Stopped as by Ctrl-Z, until tmux has had enough of it.
            run.signal(signal.SIGSTOP)
            with pytest.raises(subprocess.TimeoutExpired):
                run.process.wait(pause)
            run.signal(signal.SIGCONT)
            pause *= 1.5
            for _ in range(200):
                run.read()
        assert re.search(r"^p \| \[tmuxcc: .* lost here: \w+\]$", run.text, re.MULTILINE)
        run.signal(signal.SIGTERM)
        run.wait_end()
        assert re.search(r"^p .*  (some|[1-9][0-9]*)$", run.errors(), re.MULTILINE)


# Colours


COLOURED = r"printf '\033[31mred\033[0m \033[2Jplain\033[5;5H\033]0;title\007\n'"


def test_piped_output_is_plain(folder, own):
    result = tmuxcc(folder, *own, "-n", "p", COLOURED)
    assert result.stdout == "p | red plain\n"
    assert "\x1b" not in result.stderr


def test_on_a_terminal_names_have_colours_and_lines_keep_theirs_only(folder, own):
    with on_terminal(folder, *own, "-n", "p", COLOURED, "-n", "q", "true") as run:
        assert run.wait_end() == 0
    line = next(line for line in run.text.splitlines() if "red" in line)
    assert re.fullmatch(r"\x1b\[[0-9;]*mp \| \x1b\[0m\x1b\[31mred\x1b\[0m plain\x1b\[0m", line)


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_on_a_terminal_without_colours_it_is_plain(folder, own, more):
    with on_terminal(folder, *own, "-n", "p", COLOURED, **more) as run:
        assert run.wait_end() == 0
    assert "p | red plain\n" in run.text
    assert "\x1b[3" not in run.text
    assert "\x1b[2J" not in run.text


def test_what_a_line_leaves_switched_on_goes_on_in_the_next():
    colours = ColourFilter()
    assert colours.filter("plain") == "plain"
    assert colours.filter("\x1b[1;31mred") == "\x1b[1;31mred\x1b[0m"
    assert colours.filter("still") == "\x1b[1;31mstill\x1b[0m"
    assert colours.filter("\x1b[moff") == "\x1b[1;31m\x1b[moff\x1b[0m"
    assert colours.filter("plain") == "plain"


def test_a_line_that_was_overwritten_keeps_its_last_version_and_colour():
    assert ColourFilter().filter("\x1b[32m1%\r2%\r") == "\x1b[32m2%\x1b[0m"


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J", "\x1b[10;10H", "\x1b]0;t\x07", "\x1b]8;;u\x1b\\", "\x1bP1;2q\x1b\\", "\x1bc",
        "\x1b[?1049h", "\x9b", "\x07", "\x08", "\x1b[>4;1m", "\x1b", "\x1b[", "\x1b]0;t", "\x0e",
    ],
)  # fmt: skip
def test_nothing_but_colours_reaches_the_terminal(hostile):
    assert ColourFilter().filter(f"a{hostile}") == "a"
    line = ColourFilter().filter(f"\x1b[31m{hostile}\x1b[32mb")
    assert line == "\x1b[31m\x1b[32mb\x1b[0m"


def test_help_has_examples_for_each_verb(folder):
    for verb in ((), ("run",), ("watch",), ("doctor",)):
        result = tmuxcc(folder, *verb, "--help")
        assert result.returncode == 0
        assert "Examples:\n" in result.stdout


def test_the_version_is_told(folder):
    result = tmuxcc(folder, "--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tmuxcc ")
