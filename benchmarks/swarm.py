"""What start, a word to all, a death and the end cost in a swarm of 1 to 200 agents.

Beside it libtmux does what the design document does with it: a window with a shell for each agent,
its title set and its program typed into it, text typed into one after the other, and a look every
100 ms for what has changed. What libtmux takes for the windows alone is shown too. The floor is a
bare `tmux -C` to which all is written at once, which is what tmux itself takes.

    python -m benchmarks.swarm SOCKET TMUX COUNT    (what the memory of a master is measured in)
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import libtmux
import trio
import trio.testing

from tmuxcc import Output
from tmuxcc.swarm.agent import Agent
from tmuxcc.swarm.opening import open_swarm
from tmuxcc.swarm.swarm import Swarm

from .harness import (
    PATIENCE,
    Failed,
    Samples,
    Server,
    Setting,
    Side,
    can_account,
    child_of,
    compare,
    private_memory,
    run_server,
)
from .results import Row, growth
from .sides import Control, unique

TITLE = "The swarm: start, broadcast, death, end"

NOTES = (
    (
        "`spawn` is the time until all agents run: of the swarm under the wrapper that tells their"
        " end, with id, title and description noted in tmux; of libtmux until the last program is"
        " typed into its shell. The floor and `libtmux, bare windows` start the bare program, and"
        " nothing tells which window is whose."
    ),
    "libtmux starts 100 at most: twice as many would take as long as everything else here.",
    (
        "`broadcast` is, for each agent, the time from the call until the agent has echoed the"
        " text (libtmux: until a look every 100 ms shows it)."
    ),
    (
        "`death` is the time from the kill until the waiting caller knows; of libtmux, until a"
        " look every 100 ms finds the pane gone."
    ),
    (
        "`end` of a swarm includes that every process is gone and that this was looked for; of"
        " libtmux it is `kill-session` until the processes are gone."
    ),
)

SIZES = (1, 10, 100, 200)

LIBTMUX_SIZE = 100
"""How many libtmux starts at most: the time for each grows so that 200 would take as long as all
else here."""

COSTS = ("spawn", "broadcast", "death, program killed", "death, wrapper killed", "end")

UNITS = {
    "spawn": "ms",
    "broadcast": "ms",
    "death, program killed": "ms",
    "death, wrapper killed": "ms",
    "end": "ms",
    "memory": "KB/agent",
}

PROGRAM = "cat"
KILLS = 12


def case_of(size: int) -> str:
    """The name of the case."""
    return f"{size} agents" if size != 1 else "1 agent"


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def tmuxcc_side(server: Server, size: int, *, kills: int, words: int) -> Samples:
    """`open_swarm`, `spawn` of all at once, `broadcast`, `wait_exit`, and the end of the block."""
    samples: dict[str, list[float]] = {"broadcast": []}

    async def run() -> None:
        async with open_swarm(
            f"bench-{next(unique)}", tmux=server.tmux, socket_path=server.socket
        ) as swarm:
            start = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(size):
                    nursery.start_soon(swarm.spawn, f"a{number}", [PROGRAM])
            samples["spawn"] = [_since(start)]
            agents = list(swarm.agents.values())
            for _ in range(words):
                samples["broadcast"] += await _broadcast(swarm)
            if kills and can_account():
                half = min(kills, len(agents) // 2)
                samples["death, program killed"] = [
                    await _kill(agent, child_of(agent.pane.pid or 0)) for agent in agents[:half]
                ]
                samples["death, wrapper killed"] = [
                    await _kill(agent, agent.pane.pid or 0) for agent in agents[half : 2 * half]
                ]
            start = time.perf_counter()
        samples["end"] = [_since(start)]

    trio.run(run)
    return samples


async def _broadcast(swarm: Swarm) -> list[float]:
    """For each agent the time until a tap has seen its echo."""
    word = secrets.token_hex(6)
    waiting = {agent.pane_id for agent in swarm.agents.values()}
    echoed = trio.Event()
    samples = []

    def take(event: Output) -> None:
        if word.encode() in event.data and event.pane_id in waiting:
            samples.append(_since(start))
            waiting.discard(event.pane_id)
            if not waiting:
                echoed.set()

    remove = swarm.client.add_tap(take, Output)
    start = time.perf_counter()
    with trio.fail_after(PATIENCE):
        await swarm.broadcast(word)
        await echoed.wait()
    remove()
    return samples


async def _kill(agent: Agent, pid: int) -> float:
    """From the kill until `wait_exit` has returned to one who waited already."""
    known = 0.0

    async def wait() -> None:
        nonlocal known
        await agent.wait_exit()
        known = time.perf_counter()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            start = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
    return (known - start) * 1e3


def libtmux_side(server: Server, size: int, *, kills: int, words: int) -> Samples:
    """The design document's way: `send_keys` and `capture_pane` in turn, a look every 100 ms."""
    samples: dict[str, list[float]] = {"broadcast": []}
    tmux, session = _libtmux_session(server)
    start = time.perf_counter()
    panes = []
    for number in range(size):
        window = session.new_window(window_name=f"agent-a{number}", attach=False)
        pane = window.active_pane
        pane.cmd("select-pane", "-T", f"a{number}")
        # Instead of the shell, so that the end of the program is that of the pane.
        pane.send_keys(f"exec {PROGRAM}", enter=True)
        panes.append(pane)
    samples["spawn"] = [_since(start)]
    for _ in range(words):
        word = secrets.token_hex(6)
        waiting = list(panes)
        start = time.perf_counter()
        for pane in panes:
            pane.send_keys(word, enter=True)
        while True:
            left = []
            for pane in waiting:
                if any(word in line for line in pane.capture_pane()):
                    samples["broadcast"].append(_since(start))
                else:
                    left.append(pane)
            waiting = left
            if not waiting:
                break
            time.sleep(0.1)
    pids = [int(pane.pane_pid) for pane in panes]
    if kills:
        killed = panes[: min(kills, len(panes) // 2)]
        samples["death, program killed"] = []
        for pane, pid in zip(killed, pids, strict=False):
            # At a random moment between two looks.
            time.sleep(secrets.randbelow(100) / 1e3)
            start = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            until = start + secrets.randbelow(100) / 1e3
            while True:
                time.sleep(max(0.0, until - time.perf_counter()))
                listed = tmux.cmd("list-panes", "-s", "-t", session.session_id, "-F", "#{pane_id}")
                if pane.pane_id not in listed.stdout:
                    break
                until = time.perf_counter() + 0.1
            samples["death, program killed"].append(_since(start))
    start = time.perf_counter()
    session.kill()
    _wait_gone(pids)
    samples["end"] = [_since(start)]
    return samples


def bare_libtmux_side(server: Server, size: int, *, kills: int, words: int) -> Samples:
    """A window for each program, and no more: what `new_window` costs."""
    assert not kills
    assert not words
    _, session = _libtmux_session(server)
    start = time.perf_counter()
    windows = [session.new_window(attach=False, window_shell=PROGRAM) for _ in range(size)]
    samples = {"spawn": [_since(start)]}
    pids = [int(window.active_pane.pane_pid) for window in windows]
    session.kill()
    _wait_gone(pids)
    return samples


def _libtmux_session(server: Server) -> tuple[libtmux.Server, libtmux.Session]:
    # What somebody's own shell takes to begin is not libtmux's fault.
    server.run("set-option", "-g", "default-shell", "/bin/sh")
    tmux = libtmux.Server(socket_path=server.socket, tmux_bin=server.tmux)
    return tmux, tmux.new_session(f"libtmux-{next(unique)}", window_command="sleep 100000")


def floor_side(server: Server, size: int, *, kills: int, words: int) -> Samples:
    """The same on a bare `tmux -C`, everything written at once, replies and echoes only counted."""
    session = f"floor-{next(unique)}"
    server.run("new-session", "-d", "-s", session, "-x", "200", "-y", "50", "sleep", "100000")
    line = (
        f'new-window -d -t {session}: -P -F "#{{pane_id}} #{{pane_pid}} #{{window_id}}" {PROGRAM}\n'
    )
    samples: dict[str, list[float]] = {"broadcast": []}
    with closing(Control(server, session=session, flags="ignore-size")) as control:
        start = time.perf_counter()
        control.write(line.encode() * size)
        told = _read_all(control, b"%end ", size)
        samples["spawn"] = [_since(start)]
        panes = re.findall(rb"^(%\d+) (\d+) (@\d+)$", told, re.MULTILINE)
        for _ in range(words):
            word = secrets.token_hex(6).encode()
            start = time.perf_counter()
            control.write(b"".join(b"send-keys -t %b %b Enter\n" % (p[0], word) for p in panes))
            for _ in _echoes(control, word, {p[0] for p in panes}):
                samples["broadcast"].append(_since(start))
        if kills:
            samples["death, program killed"] = []
            for _, pid, window in panes[: min(kills, len(panes) // 2)]:
                start = time.perf_counter()
                os.kill(int(pid), signal.SIGKILL)
                _read_all(control, b"window-close %b\n" % window, 1)
                samples["death, program killed"].append(_since(start))
    start = time.perf_counter()
    server.run("kill-session", "-t", session)
    _wait_gone([int(pid) for _, pid, _ in panes])
    samples["end"] = [_since(start)]
    return samples


def _read_all(control: Control, text: bytes, count: int) -> bytes:
    """Read until `text` has come `count` times."""
    data = b""
    while data.count(text) < count:
        data += control.read()
    return data


def _echoes(control: Control, word: bytes, waiting: set[bytes]) -> Iterator[bytes]:
    """Each of the panes when it has written `word`, which may come in pieces."""
    texts: dict[bytes, bytes] = {}
    rest = b""
    while waiting:
        *lines, rest = (rest + control.read()).split(b"\n")
        for line in lines:
            kind, pane, text = (*line.split(b" ", 2), b"", b"")[:3]
            if kind == b"%output" and pane in waiting:
                texts[pane] = texts.get(pane, b"") + text
                if word in texts[pane]:
                    waiting.remove(pane)
                    yield pane


def _wait_gone(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    for pid in pids:
        while _exists(pid):
            if time.monotonic() > deadline:
                raise Failed(f"process {pid} does not end")
            time.sleep(0.001)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Memory


def memory_side(server: Server, size: int) -> Samples:
    """What a master, a process of its own, has grown by with each of its idle agents."""
    argv = [sys.executable, "-m", "benchmarks.swarm", server.socket, server.tmux, str(size)]
    told = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=PATIENCE)
    before, after = json.loads(told.stdout)
    return {"memory": [(after - before) * 1000 / size]}


async def _be_master(socket: str, tmux: str, size: int) -> None:
    async with open_swarm(f"memory-{os.getpid()}", tmux=tmux, socket_path=socket) as swarm:
        # The first one pays for what is imported and made once.
        await swarm.spawn("first", [PROGRAM])
        await trio.sleep(0.3)
        before = private_memory(os.getpid())
        async with trio.open_nursery() as nursery:
            for number in range(size):
                nursery.start_soon(swarm.spawn, f"a{number}", [PROGRAM])
        await trio.sleep(1)
        print(json.dumps([before, private_memory(os.getpid())]), flush=True)


# All


def run(setting: Setting) -> tuple[list[Row], list[str]]:
    """A case for each size."""
    rows: list[Row] = []
    with run_server(setting.tmux) as server:
        for size in setting.of(SIZES, (1, 4)):
            kills = KILLS if size > 1 else 0

            def side(
                function: Callable[..., Samples], size: int = size, *, kills: int, words: int
            ) -> Side:
                return lambda: function(server, size, kills=kills, words=words)

            sides = {
                "floor": side(floor_side, kills=kills, words=5),
                "tmuxcc": side(tmuxcc_side, kills=kills, words=5),
            }
            if size <= LIBTMUX_SIZE:
                slow = kills if size <= 10 else 0
                sides["libtmux"] = side(libtmux_side, kills=slow, words=1)
            if size == LIBTMUX_SIZE or setting.quick:
                sides["libtmux, bare windows"] = side(bare_libtmux_side, kills=0, words=0)
            rows += compare(
                case_of(size),
                sides,
                rounds=setting.of(2, 1),
                within=22,
                units=UNITS,
                baseline="floor",
            )
        if can_account():
            size = setting.of(100, 4)
            rows += compare(
                case_of(size),
                {"tmuxcc": lambda: memory_side(server, size)},
                rounds=setting.of(2, 1),
                units=UNITS,
            )
    return rows, growth(rows, COSTS, "agents")


if __name__ == "__main__":
    trio.run(_be_master, sys.argv[1], sys.argv[2], int(sys.argv[3]))
