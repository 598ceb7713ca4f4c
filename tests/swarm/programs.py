"""Programs for the panes of agents, each as an argument list."""

from __future__ import annotations

from pathlib import Path

from tests.client.helpers import python
from tests.client.test_pane import AGENT, READER

# Says that it is up, then answers each line that it is told.
_WORKER = r"""
import os, sys
print("worker", sys.argv[1], "up", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "shutdown":
        sys.exit(0)
    if word.startswith("exit "):
        sys.exit(int(word[5:]))
    if word.startswith("kill "):
        os.kill(os.getpid(), int(word[5:]))
    print("got", word, flush=True)
"""

# Draws the whole screen again with each key, as an editor does.
_FULL_SCREEN = r"""
import os, tty
tty.setraw(0)
os.write(1, b"\x1b[?1049h\x1b[2J\x1b[1;1Hfull screen")
keys = 0
while os.read(0, 1) != b"q":
    keys += 1
    os.write(1, b"\x1b[2J\x1b[1;1Hkeys: %d" % keys)
os.write(1, b"\x1b[?1049l")
"""

# Neither SIGTERM nor SIGINT nor the hang-up of its terminal end it, and its child has left it.
_STUBBORN = r"""
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
left, right = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.write(right, b"%d" % os.getpid())
    time.sleep(600)
os.wait()
print("stubborn", os.getpid(), os.read(left, 20).decode(), flush=True)
while True:
    time.sleep(600)
"""

# Says what it does through tmux itself, whenever it is told to.
_REPORTER = r"""
import os, subprocess, sys
print("reporter up", flush=True)
set_option = [sys.argv[1], "set-option", "-p", "-t", os.environ["TMUX_PANE"], "@tmuxcc_activity"]
for line in sys.stdin:
    word = line.strip()
    subprocess.run([*set_option, word], check=True)
    print("reported", word, flush=True)
"""


def worker(name: str = "1") -> list[str]:
    """Says "worker NAME up" and "got LINE"; "exit N", "kill N" and "shutdown" end it."""
    return python(_WORKER, name)


def look_alike(mood: str = "well") -> list[str]:
    """An agent with an input box, which honours bracketed pastes and swallows an early Enter."""
    return python(AGENT, mood)


def reader(file: Path, size: int, mode: str = "") -> list[str]:
    """Says "ready", writes `size` bytes of its input to a file, says "done"."""
    return python(READER, str(file), str(size), mode)


def full_screen() -> list[str]:
    """Counts keys on the alternate screen until it gets a "q"."""
    return python(_FULL_SCREEN)


def stubborn() -> list[str]:
    """Heeds no signal that can be ignored; says "stubborn PID PID", its own and its child's."""
    return python(_STUBBORN)


def reporter(tmux: str) -> list[str]:
    """Sets the option by which agents say what they do to each line that it reads."""
    return python(_REPORTER, tmux)
