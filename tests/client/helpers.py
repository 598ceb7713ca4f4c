"""What the tests of the client share: a private server, programs for panes, and waiting."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import tmuxcc

GUARD = 90.0
"""Seconds after which a test is stuck: no test is about time."""


class Server:
    """A tmux server of the version under test, on a socket of its own."""

    def __init__(self, program: str, socket: Path) -> None:
        self.program = program
        self.socket = socket
        self.started = False

    def run(
        self, *argv: str | bytes, env: Mapping[str, str] | None = None, check: bool = True
    ) -> str:
        """Run one tmux command in a process of its own; what it prints."""
        told = subprocess.run(
            [self.program, "-u", "-S", self.socket, *argv],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=env,
            timeout=GUARD,
        )
        text = told.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")
        assert not check or told.returncode == 0, (argv[:3], told.stderr)
        return text

    def start(
        self,
        *,
        config: str | Path = "/dev/null",
        size: tuple[int, int] = (80, 24),
        argv: Sequence[str] = ("cat",),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, with a session ``work``."""
        self.started = True
        where = ("-f", str(config), "new-session", "-d", "-s", "work")
        self.run(*where, "-x", str(size[0]), "-y", str(size[1]), *argv, env=env)

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.run("display-message", "-p", "#{pid}"))

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self.run("-N", "list-sessions", "-F", "#{session_id}", check=False) != ""

    @asynccontextmanager
    async def client(
        self, session: str | None = "work", **options: Any
    ) -> AsyncIterator[tmuxcc.Client]:
        """A client of it; it is started if it is not yet."""
        if not self.started and not options.get("create"):
            self.start()
        with trio.fail_after(GUARD):
            async with tmuxcc.open_client(
                session, tmux=self.program, socket_path=self.socket, **options
            ) as client:
                yield client


class OtherClient:
    """A control client of somebody else: attached, reading, saying nothing."""

    def __init__(self, server: Server, session: str = "work", flags: str = "ignore-size") -> None:
        self._process = subprocess.Popen(
            [server.program, "-u", "-S", server.socket, "-C", "attach", "-t", session, "-f", flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def __enter__(self) -> OtherClient:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(GUARD)


def shell(script: str) -> list[str]:
    """The argument list that runs a shell script."""
    return ["/bin/sh", "-c", script]


def python(script: str, *arguments: str) -> list[str]:
    """The argument list that runs a Python script, quickly."""
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


def flood(byte: str = "y") -> list[str]:
    """A program that never stops writing."""
    return ["yes", byte * 60]


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` (a function, perhaps async) gives something true; that.

    Raises `trio.TooSlowError` after `GUARD` seconds.
    """
    with trio.fail_after(GUARD):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            await trio.sleep(0.01)


async def read_to_end(stream: tmuxcc.OutputStream) -> bytes:
    """All that a pane writes until its program ends; nothing may be missing."""
    pieces = []
    async for item in stream:
        assert isinstance(item, tmuxcc.Chunk), item
        pieces.append(item.data)
    return b"".join(pieces)


async def run_to_end(
    client: tmuxcc.Client, argv: Sequence[str], **options: Any
) -> tuple[bytes, tmuxcc.ExitStatus]:
    """Run a program in a window of its own: all that it wrote, and how it ended."""
    created = await client.new_window(argv=argv, **options)
    pane = client.pane(created.pane_id)
    data = await read_to_end(pane.output(since=0))
    return data, await pane.wait_exit()


def client_pids(server: Server) -> set[int]:
    """The tmux clients that the server knows."""
    told = server.run("-N", "list-clients", "-F", "#{client_pid}", check=False)
    return {int(pid) for pid in told.split()}


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """The children of a process."""
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in told.stdout.split()]


def terminal(pid: int) -> tuple[int, int]:
    """The session of a process, and the foreground group of its terminal."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return int(fields[3]), int(fields[5])


async def gather(*functions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run async functions side by side; their results in order."""
    results: list[Any] = [None] * len(functions)

    async def run(index: int) -> None:
        results[index] = await functions[index]()

    async with trio.open_nursery() as nursery:
        for index in range(len(functions)):
            nursery.start_soon(run, index)
    return results


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of the tests with changes; None takes a variable away."""
    result = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result
