"""A server for each test of the swarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.helpers import Server
from tmuxcc.protocol import OLDEST_SUPPORTED, TmuxVersion


@pytest.fixture
def server(tmux: str, tmux_version: TmuxVersion, socket_path: Path) -> Server:
    """A server of the tmux under test, which starts when it is needed."""
    if tmux_version < OLDEST_SUPPORTED:
        pytest.skip(f"tmux {tmux_version} is refused")
    return Server(tmux, socket_path)
