"""What the README shows is run as it is written; its two shell lines are run by .ci/run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def block(name: str) -> str:
    match = re.search(
        rf"^<!-- run: {name} -->\n```\w+\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"the README has no block {name!r}"
    return match[1]


def run(name: str, folder: Path, tmux: str) -> list[str]:
    """The lines that a block prints, with the tmux under test."""
    (folder / "tmux").symlink_to(tmux)
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TMUX_TMPDIR": str(folder),
    }

    done = subprocess.run(
        [sys.executable, "-c", block(name)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.tmux
def test_the_snippet_does_what_its_comments_say(folder: Path, tmux: str) -> None:
    assert run("snippet", folder, tmux) == [
        "compiling",
        "ExitStatus(code=3, signal=None)",
        "42",
        "['demo']",
    ]


@pytest.mark.tmux
def test_the_swarm_does_what_its_comments_say(folder: Path, tmux: str) -> None:
    assert run("swarm", folder, tmux) == [
        "{<SendOutcome.ACCEPTED: 'accepted'>}",
        "ready",
        "status",
        "done: status",
        "ExitStatus(code=0, signal=None)",
        "AgentStatus.STOPPED",
    ]


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_the_shell_lines_are_single_lines_that_begin_with_the_set_up(name: str) -> None:
    line = block(name)

    assert line.count("\n") == 1
    assert shlex.split(line)[:2] == ["sh", ".ci/setup"]
