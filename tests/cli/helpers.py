"""The command as a person or a program runs it: a process, its streams, a terminal around it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tmuxcc.swarm.processes import processes_with

PATIENCE = 30.0
"""Seconds until a condition that does not come is a failure. Nothing waits so long that works."""

# Tests that run in the background of a script have these ignored, and children inherit that.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

_OURS = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
PACKAGE_ROOT = Path(__file__).parent.parent.parent


def argv(*words: str) -> list[str]:
    """The argument list of the command."""
    return [sys.executable, "-m", "tmuxcc", *words]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which temporary files and tmux's own sockets are in `folder`."""
    taken = {k: v for k, v in os.environ.items() if k not in _OURS}
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    own = {
        "PYTHONPATH": path,
        "TMPDIR": str(folder),
        "TMUX_TMPDIR": str(folder),
        "TERM": "xterm-256color",
    }
    return {**taken, **own, **more}


def tmuxcc(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        argv(*words),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(folder, **more),
        timeout=PATIENCE * 2,
    )


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait for what nobody tells; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return value


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects, one per line."""
    return [json.loads(line) for line in text.splitlines()]


def run_folders(folder: Path) -> list[Path]:
    """What runs have made in their place for temporary files."""
    return sorted(folder.glob("tmuxcc-run-*"))


def assert_nothing_left(folder: Path) -> None:
    """No folder, no socket, no process that was in a pane of a run, no server of one."""
    assert run_folders(folder) == []
    mark = f"TMUX={folder}/tmuxcc-run-".encode()
    assert eventually(lambda: not processes_with(mark))
    assert eventually(lambda: not servers(folder))


def servers(folder: Path) -> list[int]:
    """Processes of tmux with the socket of a run in `folder`."""
    return servers_in(f"{folder}/tmuxcc-run-")


def servers_in(place: Path | str) -> list[int]:
    """Processes of tmux with a socket whose path begins so."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"-S" in words and any(word.startswith(str(place).encode()) for word in words):
                found.append(int(entry.name))
    return found


class Running:
    """The command while it runs, with pipes or (`terminal`) on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self.text = ""
        self.output = output

    def read(self, seconds: float = PATIENCE) -> bool:
        """Take what has come on stdout (or the terminal); false at its end."""
        ready, _, _ = select.select([self.output], [], [], seconds)
        assert ready, f"silence after {self.text!r}"
        try:
            data = os.read(self.output, 65536)
        except OSError:
            # The end of a terminal.
            data = b""
        self.text += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def wait_text(self, wanted: str) -> None:
        """Read until `wanted` has come."""
        while wanted not in self.text:
            assert self.read(), f"{wanted!r} did not come: {self.text!r}"

    def wait_end(self) -> int:
        """Read to the end; the exit status."""
        while self.read():
            pass
        return self.process.wait(PATIENCE)

    def wait_message(self, wanted: str) -> None:
        """Read stderr until the line `wanted` has come."""
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, b"")
        assert any(line.decode().rstrip("\n") == wanted for line in lines), f"no {wanted!r} came"

    def errors(self) -> str:
        """What was written to stderr, after the end; but for what was waited for."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def signal(self, number: signal.Signals) -> None:
        """As a shell or an init would."""
        self.process.send_signal(number)


@contextmanager
def running(folder: Path, *words: str, **more: str) -> Iterator[Running]:
    """The command with pipes."""
    process = subprocess.Popen(
        argv(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder, **more),
    )
    assert process.stdout is not None
    try:
        yield Running(process, process.stdout.fileno())
    finally:
        _finish(process)


@contextmanager
def on_terminal(
    folder: Path, *words: str, size: tuple[int, int] = (100, 30), **more: str
) -> Iterator[Running]:
    """The command on a terminal of `size` columns and rows that is its controlling one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = subprocess.Popen(
        argv(*words),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(folder, **more),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
    )
    os.close(theirs)
    try:
        yield Running(process, ours)
    finally:
        _finish(process)
        os.close(ours)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def python(code: str) -> str:
    """A CMD that runs Python code without a quote or line end in it."""
    assert not set(code) & set("'\n")
    return f"{sys.executable} -c '{code}'"


def lines_of(output: str, name: str) -> list[str]:
    """The texts behind ``NAME | ``."""
    return [line.partition("| ")[2] for line in output.splitlines() if line.split(" ")[0] == name]
