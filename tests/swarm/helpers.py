"""What the tests of swarms share: a swarm on a private server, and masters that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

import tmuxcc
from tests.client.helpers import GUARD, Server, environment

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def swarm_on(
    server: Server, cluster_id: str = "demo", **options: Any
) -> AsyncIterator[tmuxcc.Swarm]:
    """A swarm on the socket of `server`, whether that runs or not."""
    with trio.fail_after(GUARD):
        async with tmuxcc.open_swarm(
            cluster_id, socket_path=server.socket, tmux=server.program, **options
        ) as swarm:
            yield swarm


async def lines_of(agent: tmuxcc.Agent) -> list[str]:
    """All that an agent has written when it is over."""
    async with agent.lines() as lines:
        return [line async for line in lines]


async def said(agent: tmuxcc.Agent, pattern: str) -> str:
    """Wait until it has written, from its first byte on, what `pattern` finds; that."""
    result = await agent.wait_for(pattern, since=0, echo=True)
    assert result, (pattern, result)
    assert result.match is not None
    return result.match[0]


def option(server: Server, pane_id: str, name: str) -> str:
    """A user option of a pane; empty if it is not set."""
    return server.run("show-options", "-pqv", "-t", pane_id, name)


def marked(mark: str, *, name: str = "TMUXCC_SWARM") -> dict[int, str]:
    """The processes with this mark in their environment, with their argument lists."""
    entry = f"{name}={mark}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and entry in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words:
                    found[int(folder.name)] = words
    return found


def is_clean(server: Server, mark: str) -> bool:
    """Whether no process of a swarm is left, and its server is gone."""
    return not marked(mark) and not server.is_alive


# A master that hangs says where, and ends before whoever waits for it gives up.
_MASTER_GUARD = GUARD - 10

# Opens a swarm, runs the body (which may use swarm, say and forever), and stays until it is told.
_MASTER = """
import faulthandler, json, os, signal, sys
import trio
import tmuxcc
from tests.client.helpers import *
from tests.swarm.programs import *
from tests.swarm.helpers import *

def say(**values):
    print(json.dumps(values), flush=True)

async def main(socket, tmux, cluster_id, options):
    options = dict(options, tmux=tmux)
    if socket:
        options["socket_path"] = socket
    faulthandler.dump_traceback_later({guard} + 5, exit=True)
    with trio.fail_after({guard}):
        async with tmuxcc.open_swarm(cluster_id, **options) as swarm:
            say(mark=swarm.mark, client=swarm.client.client_pid, socket=str(swarm.socket_path))
{body}

trio.run(main, *json.loads(sys.argv[1]))
"""


class Master:
    """Another program that runs a swarm."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self.told: dict[str, Any] = {}

    async def hear(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        line = await trio.to_thread.run_sync(self.process.stdout.readline)
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read())
        return dict(json.loads(line))

    async def end(self, number: signal.Signals | None = None) -> int:
        """Send it a signal, wait until it has ended; its exit status."""
        if number is not None:
            os.kill(self.pid, number)
        return await trio.to_thread.run_sync(self.process.wait, GUARD)


@asynccontextmanager
async def master(
    server: Server | None,
    body: str,
    *,
    cluster_id: str = "demo",
    env: Mapping[str, str] | None = None,
    program: str = "",
    **options: Any,
) -> AsyncIterator[Master]:
    """Run a master with this body; `Master.told` is what it says of its swarm at first."""
    indented = textwrap.indent(body.strip(), " " * 12)
    socket = None if server is None else str(server.socket)
    tmux = program if server is None else server.program
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _MASTER.format(body=indented, guard=_MASTER_GUARD),
            json.dumps([socket, tmux, cluster_id, options]),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(PYTHONPATH=str(ROOT)), **(env or {})},
    )
    with trio.fail_after(GUARD), _killed(process):
        other = Master(process)
        other.told = await other.hear()
        yield other


@contextmanager
def _killed(process: subprocess.Popen[str]) -> Iterator[None]:
    with process:
        try:
            yield
        finally:
            process.kill()
