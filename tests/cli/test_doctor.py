"""``tmuxcc doctor`` as a process, with and without a server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tmuxcc.protocol import CAPABILITIES, HAZARDS, TmuxVersion

from .helpers import argv, environment, eventually, on_terminal, run_folders, running, tmuxcc

pytestmark = pytest.mark.tmux


@pytest.fixture
def own(tmux: str, socket_path: Path) -> tuple[str, ...]:
    """How every command here begins: with the tmux and the server under test."""
    return ("doctor", "--tmux", tmux, "-S", str(socket_path))


@pytest.fixture
def server(tmux: str, socket_path: Path) -> int:
    """The process id of a server."""
    command = [tmux, "-S", socket_path, "-f", "/dev/null", "new-session", "-d", "-s", "work", "cat"]
    subprocess.run(command, check=True)
    told = subprocess.run(
        [tmux, "-S", socket_path, "display-message", "-p", "#{pid}"], capture_output=True, text=True
    )
    return int(told.stdout)


def report(folder: Path, *words: str, **more: str) -> dict:
    """What it says to programs."""
    result = tmuxcc(folder, *words, "--json", **more)
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told["ok"] is (result.returncode == 0)
    return told


def checks(told: dict) -> dict[str, tuple[str, str]]:
    return {check["what"]: (check["level"], check["text"]) for check in told["checks"]}


def test_it_tells_program_and_version(folder, own, tmux, tmux_version):
    told = report(folder, *own)
    assert told["ok"] is True
    assert checks(told)["tmux"] == ("ok", f"{tmux_version} at {tmux}")
    assert told["version"] == tmux_version.text


def test_without_a_server_it_says_so_and_starts_none(folder, own, socket_path):
    told = report(folder, *own)
    assert checks(told)["server"] == ("ok", f"none runs on {socket_path}")
    assert not socket_path.exists()


def test_it_tells_the_servers_version_and_process(folder, own, server, socket_path, tmux_version):
    told = report(folder, *own)
    text = f"{tmux_version}, process {server}, on {socket_path}"
    assert checks(told)["server"] == ("ok", text)


def test_capabilities_and_hazards_are_those_of_this_version(folder, own, tmux_version: TmuxVersion):
    told = report(folder, *own)
    has = {row["name"]: row["has"] for row in told["capabilities"]}
    assert has == {each.name: each.since <= tmux_version for each in CAPABILITIES}
    hazards = {row["name"]: (row["text"], row["guard"]) for row in told["hazards"]}
    assert hazards == {h.name: (h.text, h.guard) for h in HAZARDS if h.affects(tmux_version)}
    text = " ".join(tmuxcc(folder, *own).stdout.split())
    for text_of_hazard, guard in hazards.values():
        assert text_of_hazard in text
        assert guard in text


def test_without_tmux_it_says_what_to_do_and_exits_1(folder):
    result = tmuxcc(folder, "doctor", "--tmux", "no-such-tmux")
    assert result.returncode == 1
    assert "no program 'no-such-tmux': install tmux 3.2 or later" in result.stdout


def test_a_tmux_that_is_too_old_is_wrong(folder):
    old = folder / "tmux"
    old.write_text("#!/bin/sh\necho tmux 3.1c\n")
    old.chmod(0o700)
    told = report(folder, "doctor", "--tmux", str(old))
    assert told["ok"] is False
    level, text = checks(told)["tmux"]
    assert level == "wrong"
    assert "3.1c" in text
    assert "3.2 or later" in text


def test_a_tmux_that_does_not_run_is_wrong(folder):
    broken = folder / "tmux"
    broken.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    broken.chmod(0o700)
    told = report(folder, "doctor", "--tmux", str(broken))
    assert checks(told)["tmux"][0] == "wrong"
    assert "broken" in checks(told)["tmux"][1]


def test_sockets_are_alive_or_stale_with_mode_and_owner(folder, own, tmux, tmux_version):
    place = folder / f"tmux-{os.getuid()}"
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place / "stale"))
    (place / "no-socket").touch()
    run = [tmux, "-L", "alive", "-f", "/dev/null"]
    subprocess.run([*run, "new-session", "-d", "cat"], env=environment(folder), check=True)
    try:
        told = report(folder, *own)
    finally:
        subprocess.run([*run, "kill-server"], env=environment(folder), check=True)
    rows = {Path(row["path"]).name: row for row in told["sockets"]}
    assert {name: row["alive"] for name, row in rows.items()} == {"alive": True, "stale": False}
    assert rows["alive"]["mode"].startswith("srw")
    assert rows["alive"]["owner"]
    level, text = checks(told)["stale sockets"]
    assert level == "note"
    assert str(place / "stale") in text


def test_clients_of_the_server_are_listed(folder, own, tmux, server, socket_path):
    with running(folder, "watch", "--tmux", tmux, "-S", str(socket_path), "work"):
        row = eventually(lambda: report(folder, *own)["clients"])[0]
        assert row["client_control_mode"] is True
        assert "pause-after=1" in row["client_flags"]


def test_looking_attaches_nobody_and_changes_nothing(folder, own, tmux, server, socket_path):
    log = folder / "log"
    hooks = ("client-attached", "client-detached", "session-created", "window-linked")
    for hook in hooks:
        command = f"run-shell -b 'echo {hook} >>{log}'"
        subprocess.run([tmux, "-S", socket_path, "set-hook", "-g", hook, command], check=True)
    report(folder, *own)
    assert not log.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="found by /proc")
def test_clients_of_ours_whose_program_is_gone_are_found(folder, own, tmux, server, socket_path):
    # As by a program that was killed where the kernel can't tell its client; its input stays open.
    reading, writing = os.pipe()
    client = f"{tmux} -S {socket_path} -C attach-session -f pause-after=1,ignore-size"
    script = f"exec 3<&0; {client} <&3 >/dev/null 2>&1 &"
    subprocess.run(["sh", "-c", script], stdin=reading, start_new_session=True, check=True)
    try:
        rows = eventually(
            lambda: [
                row
                for row in report(folder, *own)["leftovers"]
                if str(socket_path) in row["command"]
            ]
        )
        assert len(rows) == 1
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="found by /proc")
def test_a_server_that_a_client_of_ours_has_started_is_no_leftover(folder, own, tmux, socket_path):
    client = [tmux, "-S", socket_path, "-f", "/dev/null", "-C", "new-session", "-s", "work"]
    subprocess.run([*client, "-f", "pause-after=1", "cat"], input=b"", capture_output=True)

    told = report(folder, *own)

    assert checks(told)["server"][0] == "ok"
    assert not [row for row in told["leftovers"] if str(socket_path) in row["command"]]


def test_folders_of_killed_runs_are_told(folder, own, tmux):
    with running(folder, "run", "--tmux", tmux, "sh -c 'echo up; sleep 1000'") as run:
        run.wait_text("up")
        assert "folders" not in checks(report(folder, *own))
        run.process.kill()
        run.process.wait()
        (place,) = run_folders(folder)
        level, text = eventually(lambda: checks(report(folder, *own)).get("folders"))
        assert level == "note"
        assert str(place) in text


@pytest.mark.parametrize(("name", "level"), [("C.UTF-8", "ok"), ("C", "note")])
def test_a_locale_without_utf_8_is_noted(folder, own, name, level):
    assert checks(report(folder, *own, LC_ALL=name))["locale"][0] == level


def test_the_wrapper_shell_is_looked_for(folder, own):
    told = checks(report(folder, *own))
    assert told["wrapper"][0] == "ok"
    if sys.platform == "linux":
        assert told["setpriv"][0] in ("ok", "note")


def test_a_missing_setpriv_is_noted(folder, own, tmux):
    result = subprocess.run(
        argv(*own, "--json"),
        capture_output=True,
        text=True,
        env=environment(folder, PATH=str(folder)),
    )
    if sys.platform == "linux":
        assert checks(json.loads(result.stdout))["setpriv"][0] == "note"


def test_on_a_terminal_there_are_tables_in_colour(folder, own, server):
    with on_terminal(folder, *own, size=(120, 50)) as run:
        assert run.wait_end() == 0
    assert "\x1b[" in run.text
    assert "faults of tmux" in run.text
    assert max(map(len, run.text.splitlines())) < 400


def test_piped_it_is_plain(folder, own, server):
    result = tmuxcc(folder, *own)
    assert "\x1b" not in result.stdout
    assert result.stdout.startswith("ok  ")
