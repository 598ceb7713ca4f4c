"""A raw `tmux -C` for tests: bytes written to it, events read from it, nothing else."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tmuxcc.protocol import Parser, encode_command
from tmuxcc.protocol.events import Event, Reply

PATIENCE = 20.0
"""Seconds until a silent tmux is taken for broken: never reached where things work."""


def _cache() -> Path:
    if "TMUXCC_TMUX_CACHE" in os.environ:
        return Path(os.environ["TMUXCC_TMUX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tmuxcc" / "tmux"


def _find_programs() -> dict[str, str]:
    found = {path.parent.name: str(path) for path in sorted(_cache().glob("*/tmux"))}
    try:
        said = subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=True).stdout
    except OSError:
        return found
    found.setdefault(said.removeprefix("tmux ").strip(), "tmux")
    return found


PROGRAMS = _find_programs()
"""The tmux programs of this machine by version: those of the cache, and the one on PATH."""

SUPPORTED = [version for version in PROGRAMS if not version.startswith("3.1")]


class Control:
    """A control client attached to a session with one pane, that runs cat."""

    def __init__(
        self, process: subprocess.Popen[bytes], tmux: list[str], environment: dict[str, str]
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._parser = Parser()
        self._tmux = tmux
        self._environment = environment

    def read(self) -> list[Event]:
        """The next events, at least one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ready, _, _ = select.select([self._stdout], [], [], deadline - time.monotonic())
            assert ready, "tmux is silent"
            data = os.read(self._stdout.fileno(), 65536)
            assert data, "tmux has closed the connection"
            events = self._parser.receive_data(data)
            assert self._parser.error is None
            if events:
                return events

    def write(self, data: bytes) -> None:
        """Type whole lines."""
        self._stdin.write(data)
        self._stdin.flush()

    def tmux(self, *argv: str) -> str:
        """What another client prints, that does one command."""
        return subprocess.run(
            [*self._tmux, *argv],
            capture_output=True,
            check=True,
            encoding="utf-8",
            env=self._environment,
            timeout=PATIENCE,
        ).stdout

    def run(self, *lines: bytes) -> list[Event]:
        """Type lines; what is written until all of them have been dealt with."""
        marker = secrets.token_hex(16).encode()
        sentinel = encode_command("display-message", "-p", marker)
        self.write(b"".join(line + b"\n" for line in lines) + sentinel)
        events: list[Event] = []
        while True:
            for event in self.read():
                if isinstance(event, Reply) and event.lines == (marker,):
                    return events
                events.append(event)

    def replies(self, *lines: bytes) -> list[Reply]:
        """The replies to lines that were typed, those of hooks included."""
        return [event for event in self.run(*lines) if isinstance(event, Reply)]


@contextmanager
def open_control(version: str, *options: str) -> Iterator[Control]:
    """A server of its own, gone at the end."""
    environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
    with TemporaryDirectory(prefix="tmuxcc") as folder:
        tmux = [PROGRAMS[version], "-S", f"{folder}/s"]
        process = subprocess.Popen(
            [*tmux, "-u", "-f", "/dev/null", "-C", "new-session", *options, "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"LC_ALL": "C.UTF-8"},
            cwd=folder,
        )
        try:
            control = Control(process, tmux, environment)
            while not any(isinstance(event, Reply) for event in control.read()):
                pass
            yield control
        finally:
            subprocess.run([*tmux, "kill-server"], stderr=subprocess.DEVNULL, env=environment)
            process.communicate(timeout=PATIENCE)
