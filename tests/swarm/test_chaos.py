"""The chaos run (`fuzz/chaos.py`), a short one: what it finds has a seed."""

from __future__ import annotations

import sys

import pytest

from fuzz.chaos import Options, run_chaos
from tests.client.helpers import Server

pytestmark = [
    pytest.mark.tmux,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]


async def test_a_swarm_stands_random_blows(server: Server) -> None:
    report = await run_chaos(Options(seconds=15, seed=2026, agents=8, tmux=server.program))
    assert not report.violations, str(report)
    assert report.lines
    assert sum(report.events.values()) > 50
