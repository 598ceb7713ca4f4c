"""Private tmux servers for the tests, and the check that none of them leaves anything behind.

``TMUXCC_TEST_TMUX`` names the tmux to test with; the default is the one on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tmuxcc.protocol import TmuxVersion, parse_version

RUN_ID = uuid.uuid4().hex
"""In the environment of every process that a test starts, so that a stray one can be recognised."""

os.environ["TMUXCC_TEST_RUN"] = RUN_ID
os.environ["LC_ALL"] = "C.UTF-8"
os.environ["PS1"] = "$ "
os.environ["SHELL"] = "/bin/sh"
os.environ.pop("ENV", None)
for name in ("TMUX", "TMUX_PANE", "TMUX_TMPDIR"):
    os.environ.pop(name, None)

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="session")
def tmux() -> str:
    """The tmux program under test."""
    program = shutil.which(os.environ.get("TMUXCC_TEST_TMUX", "tmux"))
    assert program is not None, "install tmux, or set TMUXCC_TEST_TMUX"
    return program


@pytest.fixture(scope="session")
def tmux_version(tmux: str) -> TmuxVersion:
    """Its version."""
    told = subprocess.run([tmux, "-V"], capture_output=True, text=True, check=True)
    return parse_version(told.stdout)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket in it."""
    path = Path(tempfile.mkdtemp(prefix="tmuxcc-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def socket_path(folder: Path, tmux: str) -> Iterator[Path]:
    """The path of a socket on which no server listens yet; its server is killed at the end."""
    path = folder / "socket"
    yield path
    subprocess.run([tmux, "-S", path, "-N", "kill-server"], capture_output=True, check=False)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    if sys.platform != "linux":
        return
    deadline = time.monotonic() + 10
    while strays := _strays():
        if time.monotonic() > deadline:
            pytest.fail("processes were left behind:\n" + "\n".join(strays))
        time.sleep(0.05)


def _strays() -> list[str]:
    mark = f"TMUXCC_TEST_RUN={RUN_ID}".encode()
    strays = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")[:150]
                if line:
                    strays.append(f"{entry.name}: {line.decode(errors='replace')}")
        except OSError:
            continue
    return strays
