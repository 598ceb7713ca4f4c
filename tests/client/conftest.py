"""A server for each test of the client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmuxcc.protocol import OLDEST_SUPPORTED, TmuxVersion

from .helpers import Server


@pytest.fixture
def server(tmux: str, tmux_version: TmuxVersion, socket_path: Path) -> Server:
    """A server of the tmux under test, which starts when it is needed."""
    if tmux_version < OLDEST_SUPPORTED:
        pytest.skip(f"tmux {tmux_version} is refused (test_client.py shows that)")
    return Server(tmux, socket_path)


@pytest.fixture
def lasting(server: Server) -> Server:
    """A server whose panes stay when their programs have ended."""
    server.start()
    server.run("set-option", "-g", "remain-on-exit", "on")
    return server
