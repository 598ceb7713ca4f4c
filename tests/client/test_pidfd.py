"""The ends of processes, told by the kernel: `tmuxcc.client.pidfd`."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tmuxcc.client.pidfd import ProcessWatch

from .helpers import GUARD, until

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the system tells of no other's end"
)


@asynccontextmanager
async def watching() -> AsyncIterator[ProcessWatch]:
    watch = ProcessWatch()
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            yield watch
            nursery.cancel_scope.cancel()


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_each_end_is_told_once() -> None:
    ended: list[int] = []
    processes = [sleeper() for _ in range(20)]
    async with watching() as watch:
        for process in processes:
            assert watch.watch(process.pid, partial(ended.append, process.pid))
        for process in processes[::2]:
            process.kill()
        await until(lambda: len(ended) == 10)
        for process in processes[1::2]:
            process.kill()
        await until(lambda: len(ended) == 20)
    assert sorted(ended) == sorted(process.pid for process in processes)
    for process in processes:
        process.wait()


async def test_what_is_gone_already_is_told_at_once() -> None:
    process = sleeper()
    process.kill()
    process.wait()
    ended: list[str] = []
    async with watching() as watch:
        assert watch.watch(process.pid, partial(ended.append, "gone"))
        assert ended == ["gone"]


async def test_one_may_be_watched_from_within_the_news_of_another() -> None:
    first, second = sleeper(), sleeper()
    ended: list[str] = []

    def follow() -> None:
        ended.append("first")
        watch.watch(second.pid, partial(ended.append, "second"))
        second.kill()

    async with watching() as watch:
        watch.watch(first.pid, follow)
        first.kill()
        await until(lambda: ended == ["first", "second"])
    first.wait()
    second.wait()


async def test_no_file_stays_open_behind_it() -> None:
    before = open_files()
    with sleeper() as alive, sleeper() as dead:
        ended: list[str] = []
        async with watching() as watch:
            watch.watch(alive.pid, partial(ended.append, "alive"))
            watch.watch(dead.pid, partial(ended.append, "dead"))
            dead.kill()
            await until(lambda: ended == ["dead"])
        assert open_files() == before
        assert not watch.watch(alive.pid, partial(ended.append, "too late"))
        assert open_files() == before
        alive.kill()
    assert ended == ["dead"]


async def test_an_end_is_told_once_also_where_a_child_has_inherited_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inherited: list[int] = []
    original = os.pidfd_open

    def opened(pid: int) -> int:
        pidfd = original(pid)
        inherited.append(os.dup(pidfd))
        return pidfd

    monkeypatch.setattr(os, "pidfd_open", opened)
    first, second = sleeper(), sleeper()
    ended: list[str] = []
    async with watching() as watch:
        for name, process in (("first", first), ("second", second)):
            watch.watch(process.pid, partial(ended.append, name))
        first.kill()
        await until(lambda: ended == ["first"])
        second.kill()
        await until(lambda: ended == ["first", "second"])
    for process, pidfd in zip((first, second), inherited, strict=True):
        process.wait()
        os.close(pidfd)


@pytest.mark.parametrize(
    ("where", "name"), [(os, "pidfd_open"), (select, "epoll")], ids=["pidfd", "epoll"]
)
async def test_where_no_file_can_be_opened_somebody_else_has_to_tell(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with watching() as watch:
        with sleeper() as process, monkeypatch.context() as patch:
            patch.setattr(where, name, refuse)
            assert not watch.watch(process.pid, lambda: None)
            process.kill()


async def test_only_what_is_watched_is_terminated() -> None:
    ended: list[str] = []
    watched, other = sleeper(), sleeper()
    async with watching() as watch:
        assert watch.watch(watched.pid, partial(ended.append, "watched"))
        assert not watch.terminate(other.pid)
        assert watch.terminate(watched.pid)
        await until(lambda: ended)
        assert not watch.terminate(watched.pid), "that number may be of another by now"
        assert other.poll() is None
    assert watched.wait() == -signal.SIGTERM
    other.kill()
    other.wait()
