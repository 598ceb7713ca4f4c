"""Swarm files and what they leave behind, for the tests of the verbs of swarms."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tmuxcc.swarm.processes import ProcessState, processes_with

from .helpers import eventually, json_lines, servers_in, tmuxcc

STUBBORN = "sh -c 'trap : INT TERM HUP; echo up; while :; do sleep 1; done'"
"""A program that does not end when it is asked to."""


def swarm_file(folder: Path, text: str, name: str = "demo.toml") -> str:
    """A swarm file in `folder`; its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


def swarm_folder(folder: Path, cluster_id: str = "demo") -> Path:
    """Where a swarm that was started with the environment of the helpers lives."""
    return folder.resolve() / f"tmuxcc-{os.getuid()}" / cluster_id


def socket_of(folder: Path, cluster_id: str = "demo") -> str:
    """The socket of its tmux server."""
    return str(swarm_folder(folder, cluster_id) / "socket")


def in_tmux(tmux: str, socket: str, *words: str) -> str:
    """What a command of tmux prints."""
    told = subprocess.run([tmux, "-S", socket, "-N", *words], capture_output=True, text=True)
    return told.stdout.strip()


def agents(folder: Path, tmux: str, *words: str) -> dict[str, dict[str, Any]]:
    """What ``tmuxcc ps --json`` says of each agent."""
    told = tmuxcc(folder, "ps", "--json", "--tmux", tmux, *words)
    assert told.returncode == 0, told.stderr
    return {row["name"]: row for row in json_lines(told.stdout)}


def wait_state(folder: Path, tmux: str, name: str, state: str) -> dict[str, Any]:
    """Wait until an agent is in a state; what is said of it then."""

    def reached() -> dict[str, Any] | None:
        found = agents(folder, tmux).get(name)
        return found if found is not None and found["state"] == state else None

    result: dict[str, Any] = eventually(reached)
    return result


def of_agents(folder: Path, cluster_id: str = "demo") -> list[ProcessState]:
    """The processes in the panes of a swarm, and what they have started."""
    return processes_with(f"TMUX={socket_of(folder, cluster_id)},".encode())


def assert_no_swarm_left(folder: Path) -> None:
    """No folder of a swarm, no server, no process that was in a pane of one."""
    parent = folder.resolve() / f"tmuxcc-{os.getuid()}"
    assert eventually(lambda: not parent.exists() or not list(parent.iterdir()))
    mark = f"TMUX={parent}/".encode()
    assert eventually(lambda: not processes_with(mark))
    assert eventually(lambda: not servers_in(parent))
