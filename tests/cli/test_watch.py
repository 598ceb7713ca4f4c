"""``tmuxcc watch`` as a process beside a real tmux server."""

from __future__ import annotations

import base64
import itertools
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .helpers import PATIENCE, Running, eventually, json_lines, running, tmuxcc

pytestmark = pytest.mark.tmux

Tmux = Callable[..., str]


@pytest.fixture
def server(tmux: str, socket_path: Path) -> Tmux:
    """Runs a tmux command on a server with one session, ``work``, in which `cat` runs."""

    def command(*words: str) -> str:
        told = subprocess.run([tmux, "-S", socket_path, *words], capture_output=True, text=True)
        return told.stdout.strip()

    command("-f", "/dev/null", "new-session", "-d", "-s", "work", "-n", "first", "cat")
    command("set-option", "-g", "automatic-rename", "off")
    return command


@pytest.fixture
def own(tmux: str, socket_path: Path) -> tuple[str, ...]:
    """How every command here begins: with the tmux and the server under test."""
    return ("watch", "--tmux", tmux, "-S", str(socket_path))


def wait_watching(run: Running, server: Tmux) -> None:
    """Rename the window until that is told, so that from then on everything is."""
    deadline = time.monotonic() + PATIENCE
    for number in itertools.count():
        server("rename-window", "-t", "work:", f"sync-{number}")
        while select.select([run.output], [], [], 0.1)[0]:
            assert run.read(), run.errors()
            if "WindowRenamed" in run.text:
                return
        assert time.monotonic() < deadline


def events(run: Running) -> list[dict]:
    """What has come so far, in whole lines, without what `wait_watching` caused."""
    whole = run.text[: run.text.rfind("\n") + 1]
    return [row for row in json_lines(whole) if not str(row.get("name")).startswith("sync-")]


def test_an_event_is_an_object_with_its_time_its_class_and_its_fields(folder, own, server):
    with running(folder, *own) as run:
        wait_watching(run, server)
        before = time.time()
        window_id = server("new-window", "-d", "-P", "-F", "#{window_id}", "cat")
        run.wait_text("WindowAdd")
        run.wait_text("\n")
        row = next(row for row in events(run) if row["event"] == "WindowAdd")
        assert row == {"time": row["time"], "event": "WindowAdd", "window_id": window_id}
        assert before - 1 < row["time"] < time.time() + 1
        server("rename-window", "-t", window_id, "ü | '")
        run.wait_text("ü | '")
        assert events(run)[-1]["window_id"] == window_id


def test_output_and_replies_are_left_out_by_default(folder, own, server):
    with running(folder, *own) as run:
        wait_watching(run, server)
        server("send-keys", "-t", "work", "hello", "Enter")
        server("rename-window", "end")
        run.wait_text('"end"')
        assert not {"Output", "ExtendedOutput", "Reply"} & {row["event"] for row in events(run)}


def test_output_is_shown_on_demand(folder, own, server):
    with running(folder, *own, "--output") as run:
        wait_watching(run, server)
        server("send-keys", "-t", "work", "hello", "Enter")
        run.wait_text("hello")
        row = next(row for row in events(run) if "Output" in row["event"])
        assert row["pane_id"] == server("list-panes", "-F", "#{pane_id}")


def test_bytes_are_text_in_which_nothing_is_lost(folder, own, server):
    with running(folder, *own, "--output") as run:
        wait_watching(run, server)
        server("new-window", "-d", "printf 'x\\377\\303\\251y\\n'; cat")
        run.wait_text("\\\\xffé")


def test_bytes_are_base64_on_demand(folder, own, server):
    with running(folder, *own, "--output", "--raw") as run:
        wait_watching(run, server)
        server("new-window", "-d", "printf 'x\\377'; cat")
        eventually(lambda: run.read() and "Output" in run.text)

        def data() -> bytes:
            rows = [row for row in events(run) if "Output" in row["event"]]
            return b"".join(base64.b64decode(row["data"]) for row in rows)

        eventually(lambda: data() == b"x\xff" or (run.read() and False))


def test_only_the_classes_that_are_named_are_shown(folder, own, server):
    with running(folder, *own, "--types", "WindowRenamed,SessionsChanged") as run:
        wait_watching(run, server)
        server("new-window", "-d", "cat")
        server("new-session", "-d", "-s", "other", "cat")
        run.wait_text("SessionsChanged")
        server("rename-window", "-t", "work:", "end")
        run.wait_text('"end"')
        assert {row["event"] for row in events(run)} <= {"WindowRenamed", "SessionsChanged"}


def test_replies_are_shown_when_they_are_named_with_both_times(folder, own, server):
    with running(folder, *own, "--types", "Reply,WindowRenamed") as run:
        wait_watching(run, server)
        # Another client makes ours look who is there.
        with running(folder, *own):
            run.wait_text('"Reply"')
            run.wait_text("\n")
            row = next(row for row in events(run) if row["event"] == "Reply")
            assert isinstance(row["reply_time"], int)
            assert isinstance(row["time"], float)
            assert row["ok"] is True


@pytest.mark.parametrize("types", ["Foo", "WindowAdd,Foo", "", ","])
def test_a_wrong_class_exits_2_with_the_list(folder, own, types):
    result = tmuxcc(folder, *own, "--types", types)
    assert result.returncode == 2
    assert "WindowAdd, WindowClose" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_0_when_it_is_interrupted(folder, own, server, number):
    with running(folder, *own, "work") as run:
        wait_watching(run, server)
        run.signal(number)
        assert run.wait_end() == 0
        assert run.errors() == ""
        assert eventually(lambda: server("list-clients") == "")


@pytest.mark.parametrize("end", ["kill-server", "kill-session"])
def test_when_the_server_or_session_goes_it_ends_with_1_and_says_so(folder, own, server, end):
    with running(folder, *own, "work") as run:
        wait_watching(run, server)
        server(end)
        assert run.wait_end() == 1
        (line,) = run.errors().splitlines()
        assert line.startswith("tmuxcc: the session or its server has gone")


def test_without_a_server_none_is_started(folder, own, socket_path):
    result = tmuxcc(folder, *own)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tmuxcc: no tmux server on {socket_path}: start one")
    assert not socket_path.exists()


def test_a_session_that_is_not_there_is_not_made(folder, own, server):
    result = tmuxcc(folder, *own, "elsewhere")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("tmuxcc: the tmux server has no session 'elsewhere'")
    assert server("list-sessions", "-F", "#{session_name}") == "work"


def test_watching_changes_nothing(folder, own, server):
    listing = ("list-panes", "-a", "-F", "#{session_name} #{pane_id} #{window_width} #{pane_pid}")
    before = server(*listing)
    with running(folder, *own) as run:
        wait_watching(run, server)
        assert server(*listing) == before
    assert server(*listing) == before


def test_a_reader_that_goes_away_ends_it_quietly(folder, own, server):
    with running(folder, *own) as run:
        wait_watching(run, server)
        assert run.process.stdout is not None
        run.process.stdout.close()

        def ended() -> bool:
            server("rename-window", "-t", "work:", str(time.monotonic()))
            return run.process.poll() is not None

        assert eventually(ended)
        assert run.process.wait() == 128 + signal.SIGPIPE
        assert run.errors() == ""


def test_the_socket_may_be_named_before_or_behind_the_verb(folder, tmux, server, socket_path):
    path = str(socket_path)
    for words in (
        ("-S", path, "--tmux", tmux, "watch", "none"),
        ("watch", "-S", path, "--tmux", tmux, "none"),
        ("-L", "wrong", "--tmux", tmux, "watch", "-S", path, "none"),
    ):
        result = tmuxcc(folder, *words)
        assert "no session 'none'" in result.stderr
    assert tmuxcc(folder, "-S", path, "-L", "x", "watch").returncode == 2


def test_a_socket_name_is_looked_up_as_tmux_does(folder, tmux):
    result = tmuxcc(folder, "watch", "--tmux", tmux, "-L", "there")
    assert f"{folder}/tmux-" in result.stderr
    assert "/there" in result.stderr
