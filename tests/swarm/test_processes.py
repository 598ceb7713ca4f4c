"""What is told of processes, whom signals hit, and who belongs to whom: `swarm.processes`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.cli.helpers import eventually
from tests.client.helpers import GUARD, is_running, python, until
from tmuxcc.swarm import processes
from tmuxcc.swarm.processes import (
    Identity,
    ProcessState,
    Snapshot,
    all_processes,
    command_line,
    halt,
    identity,
    is_alive,
    is_listening,
    process_state,
    processes_with,
    send_signal,
    send_signal_to,
    send_signal_to_group,
    take_snapshot,
    wait_gone,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@contextmanager
def running(argv: Sequence[str] = ("sleep", "1000"), **options: Any) -> Iterator[subprocess.Popen]:
    """A process that is gone after the block."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def known(pid: int) -> Identity:
    found = identity(pid)
    assert found is not None
    return found


def has(pid: int, what: Callable[[ProcessState], Any]) -> ProcessState | None:
    """The state of a process if that is so."""
    state = process_state(pid)
    return state if state is not None and what(state) else None


# States


def test_a_state_tells_what_the_system_tells() -> None:
    with running(start_new_session=True) as process:
        state = process_state(process.pid)
        assert state is not None
        assert (state.pid, state.parent) == (process.pid, os.getpid())
        assert (state.group, state.session) == (process.pid, process.pid)
        assert (state.terminal, state.foreground_group, state.threads) == (0, -1, 1)
        assert not state.has_ended
        assert state.identity == Identity(process.pid, state.start_time)
        ours = process_state(os.getpid())
        assert ours is not None
        assert 0 < ours.start_time <= state.start_time


def test_a_terminal_is_told_by_its_device_number() -> None:
    ours, theirs = os.openpty()
    device = os.fstat(theirs).st_rdev
    script = "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.read(0, 1)"
    with subprocess.Popen(python(script), stdin=theirs, start_new_session=True) as process:
        os.close(theirs)
        state = eventually(lambda: has(process.pid, lambda state: state.terminal))
        os.write(ours, b"\n")
    os.close(ours)
    assert (state.terminal, state.foreground_group) == (device, process.pid)


@pytest.mark.parametrize("name", ["a b", ") S 1 (", "\n", "é", "("])
def test_odd_names_move_no_field(name: str, folder: Path) -> None:
    program = folder / name
    program.symlink_to("/bin/sleep")
    with running([str(program), "1000"]) as process:
        state = eventually(lambda: has(process.pid, lambda state: state.name == name))
        assert state.parent == os.getpid()


def test_one_that_has_ended_is_told_from_one_whose_first_thread_has() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        state = process_state(process.pid)
        assert state is not None
        assert (state.state, state.has_ended) == ("Z", True)
        assert identity(process.pid) is None
        assert process.pid not in {each.pid for each in all_processes()}
    assert process_state(process.pid) is None
    assert identity(process.pid) is None
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with running(python(script)) as process:
        state = eventually(lambda: has(process.pid, lambda state: state.state == "Z"))
        assert not state.has_ended
        assert is_alive(state.identity)
        assert process.pid in {each.pid for each in all_processes()}


def test_command_lines_and_listening_sockets_are_told(folder: Path) -> None:
    argv = python("import time; time.sleep(1000)", "", "é x")
    with running(argv) as process:
        eventually(lambda: command_line(process.pid) == argv)
    assert command_line(process.pid) == []
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not is_listening(path)
        server.listen()
        assert is_listening(path)
    assert not is_listening(path)
    assert not is_listening(folder / "t")


def test_an_entry_of_the_environment_finds_the_whole_session() -> None:
    env = {**os.environ, "TMUXCC_TEST_X": "abc"}
    with running(["sh", "-c", "env -i sleep 1000 & wait"], env=env, start_new_session=True) as one:

        def found() -> set[int]:
            return {each.pid for each in processes_with(b"TMUXCC_TEST_X=ab")}

        pids = eventually(lambda: len(found()) == 2 and found())
        assert one.pid in pids
        assert processes_with(b"MUXCC_TEST_X=") == []
        send_signal(pids, signal.SIGKILL)
    send_signal(pids, signal.SIGKILL)


# Signals


def test_a_signal_hits_who_was_meant() -> None:
    with running() as one, running() as other:
        meant = known(one.pid)
        assert send_signal_to([meant], signal.SIGTERM) == [meant]
        assert one.wait(GUARD) == -signal.SIGTERM
        assert other.poll() is None


@pytest.fixture(params=["by a handle", "by number"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without pidfds."""
    if request.param == "by number":
        monkeypatch.delattr(os, "pidfd_open")
    return str(request.param)


def test_a_number_that_was_given_again_is_never_signalled(way: str) -> None:
    with running() as bystander, running() as meant:
        now = known(bystander.pid)
        before = Identity(now.pid, now.start_time - 1)
        assert not is_alive(before)
        sent = send_signal_to([before, known(meant.pid)], signal.SIGKILL)
        assert [each.pid for each in sent] == [meant.pid]
        assert meant.wait(GUARD) == -signal.SIGKILL
        state = process_state(bystander.pid)
        assert state is not None
        old = attrs.evolve(state, start_time=before.start_time)
        assert not send_signal_to_group(old, signal.SIGKILL)
        moved = attrs.evolve(state, group=os.getpgrp() + 1)
        assert not send_signal_to_group(moved, signal.SIGKILL)
        assert bystander.poll() is None


def test_those_that_have_ended_or_are_not_ours_get_no_signal(way: str) -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        state = process_state(process.pid)
        assert state is not None
        mark = state.identity
        assert send_signal_to([mark], signal.SIGTERM) == []
    assert send_signal_to([mark], signal.SIGTERM) == []
    send_signal([mark.pid], signal.SIGTERM)


def test_a_group_gets_a_signal_at_once() -> None:
    script = "sleep 1000 & sleep 1000 & wait"
    with running(["sh", "-c", script], start_new_session=True) as process:
        eventually(lambda: [each.group for each in all_processes()].count(process.pid) == 3)
        state = process_state(process.pid)
        assert state is not None
        assert send_signal_to_group(state, signal.SIGKILL)
        assert process.wait(GUARD) == -signal.SIGKILL
        assert not send_signal_to_group(state, signal.SIGKILL)


# Waiting


async def test_the_end_of_many_is_waited_for(way: str) -> None:
    with running() as one, running() as other:
        marks = [known(one.pid), known(other.pid), Identity(os.getpid(), 1)]
        with trio.fail_after(GUARD):
            async with trio.open_nursery() as nursery:
                over = trio.Event()

                async def wait() -> None:
                    await wait_gone(marks)
                    over.set()

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                one.kill()
                while is_running(one.pid):
                    await trio.lowlevel.checkpoint()
                assert not over.is_set()
                other.kill()
                await over.wait()
        assert not any(map(is_alive, marks))


async def test_waiting_can_be_cancelled_and_leaves_no_descriptor(way: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with running() as process:
        for _ in range(3):
            with trio.move_on_after(0.001) as scope:
                await wait_gone([known(process.pid)])
            assert scope.cancelled_caught
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_one_whose_first_thread_has_ended_is_waited_for() -> None:
    script = (
        "import ctypes, os, threading\n"
        "threading.Thread(target=os.read, args=(0, 1)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen(python(script), stdin=subprocess.PIPE) as process:
        mark = known(process.pid)

        with trio.fail_after(GUARD):
            await until(lambda: has(process.pid, lambda state: state.state == "Z"))
            with trio.move_on_after(0.02):
                await wait_gone([mark])
                pytest.fail("it is not gone")
            assert process.stdin is not None
            process.stdin.close()
            await wait_gone([mark])


# Families of real processes


def env(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


MARKED = {"TMUXCC_SWARM": f"t:{uuid4().hex}", "TMUXCC_AGENT": "a"}
MARKS = tuple(f"{name}={value}".encode() for name, value in MARKED.items())


def test_a_family_has_sessions_and_descendants_and_what_bears_the_marks() -> None:
    # A child in its session; one that left it and forgot all; a daemon with the marks alone.
    script = (
        "sleep 1000 & setsid env -i sleep 1001 & (setsid sleep 1002 </dev/null >/dev/null 2>&1 &)"
        "; sh -c 'sleep 1003 & exit' ; wait"
    )
    with running(["sh", "-c", script], env=env(**MARKED), start_new_session=True) as process:
        root = known(process.pid)

        def family() -> dict[str, int]:
            found = take_snapshot().family(roots=[root], marks=MARKS)
            return {" ".join(command_line(each.pid)): each.pid for each in found}

        names = {"sleep 1000", "sleep 1001", "sleep 1002", "sleep 1003"}
        eventually(lambda: len(family()) == 5 and names <= family().keys())
        pids = family()
        assert process.pid in pids.values()
        # By the marks alone, without a root.
        only_marked = {each.pid for each in take_snapshot().family(marks=MARKS)}
        assert only_marked == set(pids.values())
        assert take_snapshot().family(marks=[MARKS[0], b"TMUXCC_AGENT=b"]) == []
        assert take_snapshot().family(marks=[b"TMUXCC_AGENT="]) == []
        assert take_snapshot().family() == []
        send_signal(pids.values(), signal.SIGKILL)


def test_we_and_our_parents_and_the_spared_are_in_no_family() -> None:
    with running(start_new_session=True) as process:
        snapshot = take_snapshot()
        state = process_state(os.getppid())
        assert state is not None
        roots = [known(os.getpid()), state.identity, known(1), known(process.pid)]
        assert [each.pid for each in snapshot.family(roots=roots)] == [process.pid]
        assert snapshot.family(roots=roots, spare=[process.pid]) == []


def test_all_that_bear_the_marks_are_stopped_but_the_spared() -> None:
    group = {"start_new_session": True, "env": env(**MARKED)}
    with (
        running(**group) as one,
        running(["sh", "-c", "sleep 1000 & wait"], **group) as spared,
        running(env=env(TMUXCC_AGENT="a")) as other,
    ):
        eventually(lambda: len(take_snapshot(environments=True).marked(MARKS)) == 3)
        assert halt(MARKS, spare=[spared.pid]) == [known(one.pid)]
        eventually(lambda: has(one.pid, lambda state: state.state == "T"))
        members = take_snapshot().family(marks=MARKS)
        assert len(members) == 3
        assert [each.pid for each in members if each.state == "T"] == [one.pid]
        assert has(other.pid, lambda state: state.state != "T")
        assert halt(()) == []
        send_signal_to([each.identity for each in members], signal.SIGKILL)


def test_who_is_born_while_others_are_looked_at_is_seen_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = os.listdir
    with ExitStack() as stack:
        late: list[int] = []
        stop = threading.Event()

        def listdir(path: str) -> list[str]:
            names = original(path)
            thread = threading.Thread(target=stop.wait)
            thread.start()
            stack.callback(stop.set)
            assert thread.native_id is not None
            late.append(thread.native_id)
            late.append(stack.enter_context(running()).pid)
            return names

        monkeypatch.setattr(os, "listdir", listdir)
        seen = take_snapshot().processes
        # The number of the thread is no process's.
        assert [pid in seen for pid in late] == [False, True]
        assert process_state(late[0]) is not None


# Families of invented ones


def made(pid: int, parent: int = 1, session: int = 0, **more: Any) -> ProcessState:
    values = {
        "name": "x", "state": "S", "group": pid, "terminal": 0, "foreground_group": -1,
        "threads": 1, "start_time": 10 * pid,
    }  # fmt: skip
    return ProcessState(pid=pid, parent=parent, session=session or pid, **{**values, **more})


def snapshot(
    *states: ProcessState, environments: Mapping[int, bytes] | None = None
) -> tuple[Snapshot, list[int]]:
    """A snapshot, and the pids whose environment was read, in order."""
    asked: list[int] = []

    def read(pid: int) -> bytes:
        asked.append(pid)
        return (environments or {}).get(pid, b"\0")

    return Snapshot([made(1), made(os.getpid()), *states], read), asked


def pids(states: Sequence[ProcessState]) -> list[int]:
    return sorted(each.pid for each in states)


A, B, C, D = (70_001, 70_002, 70_003, 70_004)


def test_a_root_of_the_past_counts_for_nothing() -> None:
    seen, _ = snapshot(made(A), made(B, A))
    assert pids(seen.family(roots=[Identity(A, 10 * A)])) == [A, B]
    assert seen.family(roots=[Identity(A, 10 * A - 1)]) == []
    assert seen.family(roots=[Identity(D, 1)]) == []


def test_a_marked_process_does_not_give_away_the_session_it_is_a_guest_in() -> None:
    marked = {B: b"\0M=1\0"}
    seen, _ = snapshot(made(A), made(B, A, A), made(C, A, A), made(D, B, A), environments=marked)
    assert pids(seen.family(marks=[b"M=1"])) == [B, D]
    # Nor our own, even if its leader has gone.
    ours = made(os.getpid(), session=A)
    seen, _ = snapshot(made(B, 1, A), made(C, 1, A), ours, environments=marked)
    assert pids(seen.family(marks=[b"M=1"])) == [B]
    # But where there is no leader, nobody else can have brought it there.
    seen, _ = snapshot(made(B, 1, A), made(C, 1, A), environments=marked)
    assert pids(seen.family(marks=[b"M=1"])) == [B, C]


def test_processes_whose_session_is_not_known_here_are_no_session() -> None:
    states = [attrs.evolve(made(pid), session=0, group=0) for pid in (A, B)]
    seen, _ = snapshot(*states, environments={A: b"\0M=1"})
    assert pids(seen.family(marks=[b"M=1"])) == [A]
    assert seen.whole_groups([states[0]]) == set()


def test_those_that_have_ended_are_no_members_but_lead_to_some() -> None:
    seen, _ = snapshot(made(A, state="Z"), made(B, 1, A), made(C, A))
    assert pids(seen.family(roots=[Identity(A, 10 * A)])) == [B, C]


def test_nothing_is_found_through_the_spared() -> None:
    seen, _ = snapshot(made(A), made(B, A), made(C, B, C), made(D, A))
    assert pids(seen.family(roots=[Identity(A, 10 * A)], spare=[B])) == [A, D]


def test_marks_are_whole_entries() -> None:
    environments = {
        A: b"\0M=1\0N=2\0",
        B: b"\0M=12\0N=2",
        C: b"\0XM=1\0N=2\0",
        D: b"\0N=2\0P=M=1\0",
    }
    seen, _ = snapshot(*map(made, environments), environments=environments)
    assert seen.marked([b"M=1", b"N=2"]) == {A}
    assert seen.marked([b"N=2"]) == {A, B, C, D}
    assert seen.marked([b"M=12"]) == {B}
    assert seen.marked([b"M=1", b"N=3"]) == set()
    assert seen.marked([]) == set()


def test_environments_are_read_late_and_once() -> None:
    seen, asked = snapshot(made(A), made(B, state="Z"), made(C))
    assert seen.family(roots=[Identity(A, 10 * A)])
    assert asked == []
    for number in range(100):
        assert seen.family(marks=[b"M=1", b"N=%d" % number]) == []
    assert sorted(asked) == sorted([1, os.getpid(), A, C])


def test_a_group_is_whole_without_those_that_have_ended_or_do_not_belong() -> None:
    group = {"group": A}
    members = [made(A, **group), made(B, A, A, **group)]
    seen, _ = snapshot(*members, made(C, A, A, state="Z", **group))
    assert seen.whole_groups(members) == {A}
    assert seen.whole_groups(members[:1]) == set()
    assert seen.whole_groups([]) == set()


# Without /proc


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has neither /proc nor pidfds."""

    def nothing(_path: str) -> bytes:
        return b""

    def no_names(_path: object) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(processes, "_read", nothing)
    monkeypatch.setattr(processes, "_has_proc", lambda: False)
    monkeypatch.setattr(os, "listdir", no_names)
    monkeypatch.delattr(os, "pidfd_open")


async def test_elsewhere_a_process_is_its_number(no_proc: None) -> None:
    with running() as process:
        assert process_state(process.pid) is None
        assert list(all_processes()) == []
        assert take_snapshot().family(roots=[Identity(process.pid, 0)], marks=MARKS) == []
        mark = known(process.pid)
        assert mark == Identity(process.pid, 0)
        assert send_signal_to([mark], signal.SIGKILL) == [mark]
        process.wait()
        with trio.fail_after(GUARD):
            await wait_gone([mark])
        assert not is_alive(mark)
