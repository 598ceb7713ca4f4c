"""The child process itself: `tmuxcc.client.transport`. The children are small shell scripts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from tmuxcc.client import transport
from tmuxcc.client.transport import LocalTransport, Process, open_process
from tmuxcc.errors import OpenError, TmuxNotFound

from ..fake_tmux import is_gone

GUARD = 20


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.005)


async def output(process: Process) -> bytes:
    data = b""
    while True:
        await trio.lowlevel.wait_readable(process.stdout_fd)
        piece = os.read(process.stdout_fd, 65536)
        if not piece:
            return data
        data += piece


async def end(process: Process) -> None:
    with trio.fail_after(GUARD):
        process.close_stdin()
        await process.terminate(0.05)
        process.close_output()


# ------------------------------------------------------------------------------------------ start


@pytest.mark.parametrize("name", ["/no/such/tmux", "no-such-tmux", "/etc/passwd"])
def test_a_program_that_can_not_be_started_is_named(name: str) -> None:
    with pytest.raises(TmuxNotFound) as caught:
        open_process([name, "-V"])
    assert caught.value.program == name
    assert isinstance(caught.value.__cause__, OSError)


def test_what_keeps_a_process_from_starting_is_told() -> None:
    with pytest.raises(OpenError, match="Argument list too long") as caught:
        open_process(["/bin/sh", "x" * (1 << 22)])
    assert not isinstance(caught.value, TmuxNotFound)


@pytest.mark.parametrize("given", [True, False])
async def test_the_child_knows_nothing_of_the_tmux_around_us(
    monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    monkeypatch.setenv("TMUX", "/tmp/x,1,0")
    monkeypatch.setenv("TMUX_PANE", "%1")
    monkeypatch.setenv("KEPT", "yes")
    env = {"TMUX": "x", "TMUX_PANE": "%2", "KEPT": "given"} if given else None
    script = 'printf "%s|%s|%s" "${TMUX-none}" "${TMUX_PANE-none}" "$KEPT"'
    process = open_process(shell(script), env)
    assert await output(process) == b"none|none|" + (b"given" if given else b"yes")
    assert env is None or "TMUX" in env
    await end(process)


async def test_the_child_has_a_session_of_its_own_and_no_other_files() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    process = open_process(shell("sleep 1000"))
    try:
        assert os.getsid(process.pid) == process.pid
        os.close(write)
        # End of file, since the child has no copy of the writing end.
        assert os.read(read, 1) == b""
    finally:
        os.close(read)
        os.killpg(process.pid, signal.SIGKILL)
        await end(process)


async def test_what_is_written_reaches_the_child_and_what_it_writes_us() -> None:
    process = open_process(["cat"])
    os.write(process.stdin_fd, b"hello")
    process.close_stdin()
    process.close_stdin()
    read, write = os.pipe()  # which may have got the number
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(process.stdin_fd, b"nobody's")
    os.close(read)
    os.close(write)
    assert await output(process) == b"hello"
    assert await process.wait() == 0
    process.close_output()
    process.close_output()


# ----------------------------------------------------------------------------------------- stderr


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("", []),
        ("echo one >&2; echo two >&2", ["one", "two"]),
        ("printf 'one\\n\\nhalf' >&2", ["one", "", "half"]),
        ("printf 'a\\377b\\n' >&2", ["a\ufffdb"]),
        ("seq 1 100 >&2", [str(number) for number in range(81, 101)]),
        ("printf '%03000d\\nnext\\n' 0 >&2", ["0" * 1000, "next"]),
        ("printf '%09000d' 0 >&2", ["0" * 1000]),
    ],
)
async def test_the_last_lines_on_stderr_are_kept(script: str, lines: list[str]) -> None:
    process = open_process(shell(script))
    with trio.fail_after(GUARD):
        await process.read_stderr()
    assert list(process.stderr) == lines
    await end(process)


async def test_a_line_on_stderr_that_comes_in_pieces_survives_a_cancellation() -> None:
    process = open_process(shell("printf 'one ' >&2; read x; echo two >&2"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.read_stderr)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    process.close_stdin()
    await process.read_stderr()
    assert list(process.stderr) == ["one two"]
    await end(process)


async def test_a_flood_on_stderr_takes_no_room_and_lets_others_run() -> None:
    process = open_process(shell("exec tr '\\0' x < /dev/zero >&2"))
    turns = 0
    tracemalloc.start()
    try:
        with trio.move_on_after(0.3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.read_stderr)
                while True:
                    await trio.sleep(0.001)
                    turns += 1
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    assert turns > 3
    await end(process)


# -------------------------------------------------------------------------------------------- end


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("sleep 0.05", 0)]
)
async def test_waiting_tells_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, pidfd: bool, script: str, status: int
) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = open_process(shell(script))
    with trio.fail_after(GUARD):
        assert await process.wait() == status
        assert await process.wait() == status
    assert process.exit_status == status
    await end(process)


@pytest.mark.parametrize("pidfd", [True, False])
async def test_many_may_wait_and_be_cancelled(monkeypatch: pytest.MonkeyPatch, pidfd: bool) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = open_process(shell("read x"))
    statuses: list[int] = []

    async def wait() -> None:
        statuses.append(await process.wait())

    with trio.fail_after(GUARD):
        with trio.move_on_after(0.05) as scope:
            await process.wait()
        assert scope.cancelled_caught
        assert process.exit_status is None
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.02)
            process.close_stdin()
    assert statuses == [1, 1, 1]
    await end(process)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("read x; exit 5", 5),
        ("echo; read x; sleep 1000", -signal.SIGTERM),
        ("trap '' TERM; echo; read x; while :; do sleep 0.01; done", -signal.SIGKILL),
        ("trap 'exit 7' TERM; echo; read x; while :; do sleep 0.01; done", 7),
    ],
)
async def test_the_end_is_asked_for_before_it_is_forced(script: str, status: int) -> None:
    process = open_process(shell(script))
    with trio.fail_after(GUARD):
        if "echo" in script:
            await trio.lowlevel.wait_readable(process.stdout_fd)
        process.close_stdin()
        await process.terminate(5 if status == 5 else 0.1)
    assert process.exit_status == status
    assert is_gone(process.pid)
    process.close_output()
    if status < 0:
        # The shell's own child goes by itself, or with its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_local_transport_starts_tmux_as_it_is_told() -> None:
    argv = ["/usr/bin/tmux", "-C", "attach-session"]
    local = LocalTransport()
    assert local.is_local
    assert local.argv(argv)[-3:] == argv


@pytest.mark.parametrize(("system", "found"), [("darwin", "/usr/bin/setpriv"), ("linux", None)])
def test_without_a_death_signal_nothing_stands_before_tmux(
    monkeypatch: pytest.MonkeyPatch, system: str, found: str | None
) -> None:
    transport._death_signal_argv.cache_clear()
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(transport.shutil, "which", lambda _: found)
    assert LocalTransport().argv(["tmux"]) == ["tmux"]
    transport._death_signal_argv.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux only")
async def test_the_child_does_not_outlive_us_even_if_we_are_killed(tmp_path: Path) -> None:
    program = """
import sys, trio
from tmuxcc.client.transport import LocalTransport, open_process
async def main():
    process = open_process(LocalTransport().argv(["sleep", "1000"]))
    print(process.pid, flush=True)
    await trio.sleep_forever()
trio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        # So that it has become what it is to be, and asked for the signal.
        with trio.fail_after(GUARD):
            await wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
            parent.kill()
            await wait_until(lambda: is_gone(pid))
