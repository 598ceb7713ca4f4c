"""How long it takes until all is there: the import, the command, the first event."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import libtmux
import trio

import tmuxcc
from tmuxcc import Output

from .harness import SESSION, PaneInfo, Samples, Server, Setting, Writer, compare, run_server
from .results import Row
from .sides import Control

TITLE = "Import and start"

NOTES = (
    "Whole processes, with bytecode as an installation has it; the floor is `python -c pass`.",
    (
        "First event: from the call (`open_client`; `libtmux.Server`) until a line of a pane"
        " that writes 1000 a second is there, everything imported already."
    ),
)

PROCESS = "process"
FIRST = "first event"

UNITS = {"time": "ms"}


def _process(*words: str) -> Callable[[], Samples]:
    def side() -> Samples:
        start = time.perf_counter()
        _run(words)
        return {"time": [(time.perf_counter() - start) * 1e3]}

    # Bytecode is written where there is none yet.
    _run(words)
    return side


def _run(words: Sequence[str]) -> None:
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    argv = [sys.executable, *words]
    subprocess.run(argv, stdout=subprocess.DEVNULL, env=environment, check=True)


def _timed(function: Callable[[Server, PaneInfo], None], server: Server, pane: PaneInfo):
    def side() -> Samples:
        with closing(Writer([pane.tty], rate=1000, seconds=0.15)) as writer:
            writer.go()
            start = time.perf_counter()
            function(server, pane)
            took = (time.perf_counter() - start) * 1e3
            while not writer.poll():
                time.sleep(0.001)
        return {"time": [took]}

    return side


def floor(server: Server, _: PaneInfo) -> None:
    """Attach and read."""
    control = Control(server)
    control.read_until(b"output %")
    # Its end is not measured elsewhere either, as little as it takes.
    control.close()


def client(server: Server, _: PaneInfo) -> None:
    """Attach and be told."""

    async def run() -> None:
        async with tmuxcc.open_client(
            SESSION, tmux=server.tmux, socket_path=server.socket
        ) as client:
            told = trio.Event()
            client.add_tap(lambda _: told.set(), Output)
            await told.wait()

    trio.run(run)


def polling(server: Server, pane: PaneInfo) -> None:
    """Find the pane and look at it."""
    tmux = libtmux.Server(socket_path=server.socket, tmux_bin=server.tmux)
    looked_at = next(each for each in tmux.panes if each.pane_id == pane.pane_id)
    while not looked_at.capture_pane():
        pass


def run(setting: Setting) -> list[Row]:
    """Processes, then connections."""
    processes: dict[str, Sequence[str]] = {
        "floor": ("-c", "pass"),
        "import tmuxcc": ("-c", "import tmuxcc"),
        "import trio": ("-c", "import trio"),
        "import libtmux": ("-c", "import libtmux"),
        "tmuxcc --help": ("-m", "tmuxcc", "--help"),
    }
    rows = compare(
        PROCESS,
        {name: _process(*words) for name, words in processes.items()},
        rounds=setting.of(2, 1),
        units=UNITS,
        baseline="floor",
    )
    with run_server(setting.tmux) as server, server.panes(1) as (pane,):
        sides = {"floor": floor, "tmuxcc": client, "libtmux": polling}
        rows += compare(
            FIRST,
            {name: _timed(function, server, pane) for name, function in sides.items()},
            rounds=setting.of(2, 1),
            units=UNITS,
            baseline="floor",
        )
    return rows
