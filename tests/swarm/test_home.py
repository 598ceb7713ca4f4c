"""Where a swarm lives, and who may run it: `swarm.home`."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.helpers import PACKAGE_ROOT, eventually
from tests.client.helpers import GUARD, Server
from tmuxcc.errors import InvalidSwarm, SessionCreationError, SocketPathTooLong, SwarmRunning
from tmuxcc.swarm.home import (
    Home,
    running_swarms,
    stale_swarms,
    swarm_folder,
)

IS_ROOT = os.getuid() == 0


@pytest.fixture(autouse=True)
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for /tmp."""
    monkeypatch.delenv("TMUXCC_DIR", raising=False)
    monkeypatch.setenv("TMUX_TMPDIR", str(folder))
    return folder


@pytest.fixture
def parent(base: Path) -> Path:
    """The folder of this user's swarms, not there yet."""
    return base / f"tmuxcc-{os.getuid()}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


@contextmanager
def program(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Python that has a `Home` of the swarm ``demo``, with pipes."""
    preamble = "import os, subprocess, sys, time\nfrom tmuxcc.swarm.home import Home\n"
    with subprocess.Popen(
        [sys.executable, "-c", f"{preamble}home = Home('demo')\n{script}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


HOLD = "with home.locked():\n print('locked', flush=True)\n sys.stdin.read()\n"


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# The place


def test_a_swarm_has_one_place_for_all_shells_of_a_user(parent: Path) -> None:
    assert swarm_folder("demo") == parent / "demo"
    told = subprocess.run(
        [sys.executable, "-c", "from tmuxcc.swarm.home import *; print(swarm_folder('demo'))"],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str(swarm_folder("demo"))


def test_a_variable_names_another(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUXCC_DIR", str(base / "x"))
    assert swarm_folder("demo") == base / "x" / "demo"
    monkeypatch.setenv("TMUXCC_DIR", "")
    assert swarm_folder("demo") == base / f"tmuxcc-{os.getuid()}" / "demo"


@pytest.mark.parametrize("form", ["{}/", "{}/../{name}", "relative", "{link}", "{}//"])
def test_odd_ways_to_name_the_base_are_one(
    base: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    usual = swarm_folder("demo")
    link = base / "link"
    link.symlink_to(base)
    monkeypatch.chdir(base.parent)
    given = base.name if form == "relative" else form.format(base, name=base.name, link=link)
    monkeypatch.setenv("TMUX_TMPDIR", given)
    assert swarm_folder("demo") == usual


def test_without_a_base_it_is_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("TMUX_TMPDIR")
        else:
            monkeypatch.setenv("TMUX_TMPDIR", value)
        assert swarm_folder("demo").parent.parent == Path("/tmp").resolve()


@pytest.mark.parametrize("cluster_id", ["", ".", "..", "a/b", "/", "a\0b", "-x", "x" * 65, "é"])
def test_what_is_no_id_has_no_place(cluster_id: str) -> None:
    with pytest.raises(InvalidSwarm):
        swarm_folder(cluster_id)
    with pytest.raises(InvalidSwarm):
        Home(cluster_id)


# The folder


def test_the_folders_are_for_their_user_alone(parent: Path) -> None:
    home = Home("demo")
    assert not parent.exists()
    before = os.umask(0)
    try:
        with home.locked():
            assert (mode(parent), mode(home.folder)) == (0o700, 0o700)
            path = home.write_configuration("set -g status off\n")
            assert path == home.folder / "tmux.conf"
            assert path.read_text() == "set -g status off\n"
    finally:
        os.umask(before)
    assert home.folder.exists()


def test_a_folder_that_is_open_to_others_is_closed(parent: Path) -> None:
    home = Home("demo")
    home.folder.mkdir(parents=True)
    for folder in (parent, home.folder):
        folder.chmod(0o777)
    with home.locked():
        assert (mode(parent), mode(home.folder)) == (0o700, 0o700)


def test_a_folder_that_can_not_be_closed_is_refused(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a file system without modes.
    parent.mkdir(mode=0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with pytest.raises(SessionCreationError, match=r"open to others.*TMUXCC_DIR"):
        Home("demo").locked().__enter__()


@pytest.mark.parametrize("where", ["parent", "folder"])
@pytest.mark.parametrize("what", ["link", "dangling link", "file"])
def test_a_link_in_its_place_is_refused_and_not_followed(
    base: Path, parent: Path, where: str, what: str
) -> None:
    target = base / "target"
    if what == "link":
        target.mkdir(mode=0o755)
    home = Home("demo")
    place = parent if where == "parent" else home.folder
    if where == "folder":
        parent.mkdir(mode=0o700)
    if what == "file":
        place.touch()
    else:
        place.symlink_to(target)
    with pytest.raises(SessionCreationError, match=r"is a link or no folder.*TMUXCC_DIR"):
        home.locked().__enter__()
    if what == "link":
        assert mode(target) == 0o755
        assert list(target.iterdir()) == []
    else:
        assert not target.exists()


def test_a_link_in_place_of_the_lock_is_not_followed(base: Path) -> None:
    home = Home("demo")
    home.folder.mkdir(parents=True)
    (home.folder / "lock").symlink_to(base / "target")
    with pytest.raises(SessionCreationError, match="can't be opened"):
        home.locked().__enter__()
    assert not (base / "target").exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")
@pytest.mark.parametrize("where", ["parent", "folder"])
def test_a_folder_of_somebody_else_is_refused(parent: Path, where: str) -> None:
    home = Home("demo")
    home.folder.mkdir(parents=True)
    os.chown(parent if where == "parent" else home.folder, 12345, -1)
    with pytest.raises(SessionCreationError, match="belongs to user 12345") as caught:
        home.locked().__enter__()
    assert "set TMUXCC_DIR to a folder of your own" in str(caught.value)
    assert running_swarms() == stale_swarms() == []


def test_a_base_in_which_anybody_can_replace_it_is_refused(base: Path) -> None:
    base.chmod(0o777)
    with pytest.raises(SessionCreationError, match=r"chmod \+t"):
        Home("demo").locked().__enter__()
    base.chmod(0o1777)
    with Home("demo").locked():
        pass


def test_a_base_that_is_missing_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", str(base / "missing"))
    with pytest.raises(SessionCreationError, match=f"no folder {base}/missing: make it"):
        Home("demo").locked().__enter__()
    assert running_swarms() == []


@pytest.mark.skipif(IS_ROOT, reason="root can write everywhere")
def test_a_base_that_can_not_be_written_is_named(base: Path) -> None:
    base.chmod(0o500)
    with pytest.raises(SessionCreationError, match="Permission denied"):
        Home("demo").locked().__enter__()
    base.chmod(0o700)


def test_a_folder_that_was_chosen_is_used_as_it_is(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = base / "chosen"
    monkeypatch.setenv("TMUXCC_DIR", str(chosen))
    with Home("demo").locked():
        assert mode(chosen) == 0o700
    chosen.chmod(0o755)
    with Home("demo").locked():
        assert mode(chosen) == 0o755
        assert mode(chosen / "demo") == 0o700
    chosen.chmod(0o775)
    with pytest.raises(SessionCreationError, match="chmod go-w"):
        Home("demo").locked().__enter__()
    assert mode(chosen) == 0o775


def test_a_path_too_long_for_a_socket_makes_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 103 if sys.platform == "darwin" else 107
    fits = base / ("x" * (limit - len(f"{base}//tmuxcc-{os.getuid()}/demo/socket")))
    fits.mkdir()
    monkeypatch.setenv("TMUX_TMPDIR", str(fits))
    home = Home("demo")
    assert len(os.fsencode(home.socket_path)) == limit
    with home.locked(), listening(home.socket_path):
        assert [found.cluster_id for found in running_swarms()] == ["demo"]
    longer = Home("demo1")
    with pytest.raises(SocketPathTooLong):
        longer.locked().__enter__()
    assert not longer.folder.exists()


# The lock


def test_two_masters_are_one_too_many(parent: Path) -> None:
    with program(HOLD) as process:
        assert said(process) == "locked"
        with pytest.raises(SwarmRunning) as caught:
            Home("demo").locked().__enter__()
        assert caught.value.master_pid == process.pid
        assert str(process.pid) in str(caught.value)
        with Home("other").locked():
            pass
        process.communicate("", GUARD)
        assert process.returncode == 0
    with Home("demo").locked():
        pass


def test_in_one_process_too(parent: Path) -> None:
    with Home("demo").locked():
        with pytest.raises(SwarmRunning) as caught:
            Home("demo").locked().__enter__()
        assert caught.value.master_pid == os.getpid()
    with Home("demo").locked():
        pass


def test_a_master_that_was_killed_holds_nothing(parent: Path) -> None:
    with program(HOLD) as process:
        assert said(process) == "locked"
        process.kill()
        process.wait(GUARD)
        home = Home("demo")
        assert str(process.pid) in (home.folder / "lock").read_text()
        with home.locked():
            assert (home.folder / "lock").read_text().split()[0] == str(os.getpid())
        assert (home.folder / "lock").read_text() == ""


def test_no_child_inherits_the_lock(parent: Path) -> None:
    script = (
        "with home.locked():\n"
        " child = subprocess.Popen(['cat'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        " print(child.pid, flush=True)\n"
        " sys.stdin.read()\n"
    )
    with program(script) as process:
        child = int(said(process))
        process.kill()
        process.wait(GUARD)
        os.kill(child, 0)
        with Home("demo").locked():
            pass
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.tmux
def test_neither_tmux_nor_its_panes_inherit_it(tmux: str, server: Server) -> None:
    script = (
        "with home.locked():\n"
        " subprocess.run([sys.argv[1], '-S', sys.argv[2], '-f', '/dev/null',"
        " 'new-session', '-d', 'cat'], close_fds=False, check=True)\n"
        " print('started', flush=True)\n"
        " sys.stdin.read()\n"
    )
    with program(script, tmux, str(server.socket)) as process:
        assert said(process) == "started"
        process.kill()
        process.wait(GUARD)
        assert server.is_alive
        with Home("demo").locked():
            pass


def test_of_many_that_race_one_gets_it_at_a_time(parent: Path) -> None:
    # Each takes it, checks that nobody else has it, and removes the folder now and then.
    script = (
        "from tmuxcc.errors import SwarmRunning\n"
        "taken = 0\n"
        "while taken < 50:\n"
        " try:\n"
        "  with home.locked():\n"
        "   path = home.folder.parent / 'alone'\n"
        "   path.touch(exist_ok=False)\n"
        "   path.unlink()\n"
        "   taken += 1\n"
        "   if taken % 2: assert home.remove()\n"
        " except SwarmRunning as error:\n"
        "  assert error.master_pid not in (None, 0, os.getpid())\n"
        "print('done')\n"
    )
    with program(script) as one, program(script) as two, program(script) as three:
        for process in (one, two, three):
            assert process.communicate(timeout=GUARD)[0] == "done\n"
            assert process.returncode == 0


def test_what_needs_the_lock_says_so(parent: Path) -> None:
    home = Home("demo")
    for use in (home.remove, lambda: home.note_mark("A=b"), lambda: home.write_configuration("")):
        with pytest.raises(RuntimeError, match="locked"):
            use()


def test_what_stands_in_the_lock_of_old_is_no_matter(parent: Path) -> None:
    home = Home("demo")
    home.folder.mkdir(parents=True)
    for text in ("", "x y\n", "1\n", f"{os.getpid()} 1\n", "\0" * 1000):
        (home.folder / "lock").write_text(text)
        assert ids(stale_swarms()) == ["demo"]
        with home.locked():
            pass


def test_a_lock_of_nobody_known_is_told_as_such(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxcc.swarm.home._PATIENCE", 0.01)
    home = Home("demo")
    home.folder.mkdir(parents=True)
    script = "import fcntl; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
    wait = "print('locked', flush=True); sys.stdin.read()"
    with program(script + wait, str(home.folder / "lock")) as process:
        assert said(process) == "locked"
        with pytest.raises(SessionCreationError, match="keeps a lock"):
            home.locked().__enter__()


# What is found, and cleared up


def ids(found: Sequence[object]) -> list[str]:
    return [each.cluster_id for each in found]  # type: ignore[attr-defined]


def test_what_runs_is_told_from_what_was_left(parent: Path) -> None:
    assert running_swarms() == stale_swarms() == []
    kept, starting, stale = (Home(name) for name in ("kept", "starting", "stale"))
    for home in (kept, stale):
        with home.locked():
            pass
    with listening(kept.socket_path), starting.locked():
        (found,) = running_swarms()
        assert (found.cluster_id, found.folder) == ("kept", kept.folder)
        assert (found.socket_path, found.listening) == (kept.socket_path, True)
        assert found.master_pid is None
        assert ids(stale_swarms()) == ["stale"]
    assert ids(stale_swarms()) == ["kept", "stale", "starting"]
    with kept.locked():
        # A socket on which nobody listens.
        assert kept.socket_path.exists()
        assert running_swarms() == []
        kept.socket_path.unlink()
        with listening(kept.socket_path):
            (found,) = running_swarms()
            assert found.master_pid == os.getpid()


def test_what_is_no_swarms_is_not_looked_at(parent: Path) -> None:
    parent.mkdir(mode=0o700)
    (parent / "file").touch()
    (parent / "empty").mkdir()
    (parent / "not an id").mkdir()
    (parent / "not an id" / "lock").touch()
    (parent / "link").symlink_to(parent / "not an id")
    assert running_swarms() == stale_swarms() == []


def test_the_folder_goes_when_nothing_is_left(parent: Path) -> None:
    home = Home("demo")
    with home.locked():
        home.write_configuration("")
        with listening(home.socket_path):
            assert not home.remove()
            assert home.folder.exists()
        (home.folder / "socket.lock").touch()
        assert home.remove()
        assert not home.folder.exists()
        # It is free for the next one already.
        with Home("demo").locked():
            pass
    assert (home.folder / "lock").exists()


def test_the_files_of_others_stay_with_the_folder(parent: Path) -> None:
    home = Home("demo")
    with home.locked():
        (home.folder / "agent-1.log").write_text("x")
        assert home.remove()
    assert [path.name for path in home.folder.iterdir()] == ["agent-1.log"]
    assert stale_swarms() == []


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_the_folder_stays_while_processes_of_the_swarm_run(parent: Path) -> None:
    home = Home("demo")
    assert home.mark is None
    env = {**os.environ, "TMUXCC_SWARM": "demo:1"}
    with subprocess.Popen(["sleep", "1000"], env=env) as process:
        with home.locked():
            home.note_mark("TMUXCC_SWARM=demo:1")
            assert not home.remove()
        assert home.mark == "TMUXCC_SWARM=demo:1"
        process.kill()
    with home.locked():
        assert home.remove()
    assert not home.folder.exists()
    assert home.mark is None


def test_looking_is_in_nobodys_way(parent: Path) -> None:
    script = (
        "from tmuxcc.swarm.home import stale_swarms\n"
        "print('up', flush=True)\n"
        "while True: stale_swarms()\n"
    )
    with program(script) as one, program(script) as two:
        assert said(one) == said(two) == "up"
        for _ in range(300):
            with Home("demo").locked():
                pass


def test_a_stale_swarm_of_a_killed_master_is_run_again(parent: Path) -> None:
    with program(HOLD) as process:
        assert said(process) == "locked"
        process.kill()
        eventually(lambda: process.poll() is not None)
    assert ids(stale_swarms()) == ["demo"]
    home = Home("demo")
    with home.locked():
        assert stale_swarms() == []
        assert home.remove()
    assert stale_swarms() == []
