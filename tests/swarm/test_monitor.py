"""The one reader that every agent has: what it counts and keeps of what an agent writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.client.helpers import Server, shell, until
from tmuxcc.swarm.log import LogFile
from tmuxcc.swarm.monitor import COALESCE, Monitor
from tmuxcc.swarm.policy import OutputLimits
from tmuxcc.swarm.rules import kind_for
from tmuxcc.swarm.state import Activity

pytestmark = pytest.mark.tmux


async def test_what_was_read_before_the_program_was_known_to_run_is_weighed_later(
    server: Server,
) -> None:
    async with server.client() as client:
        argv = shell("echo ready; read x")
        pane = client.pane((await client.new_window(argv=argv)).pane_id)
        running = False
        monitor = Monitor(
            client,
            kind_for(argv, "generic"),
            limits=OutputLimits(),
            log=None,
            ready_pattern=None,
            is_running=lambda: running,
            capture=pane.capture,
            changed=lambda: None,
            became_ready=lambda: None,
        )
        monitor.expect_program(pane)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run)
            await until(lambda: monitor.lines == 1)
            await trio.testing.wait_all_tasks_blocked(2 * COALESCE)
            running = True
            monitor.note_running()
            await until(lambda: monitor.activity is Activity.IDLE)
            monitor.expect_program(pane)
            assert monitor.activity is not Activity.IDLE, "that was the last program"
            nursery.cancel_scope.cancel()


async def test_of_what_was_taken_over_only_what_is_new_goes_to_the_log(
    server: Server, tmp_path: Path
) -> None:
    async with server.client() as client:
        argv = shell("echo first; read x; echo second; read x")
        pane = client.pane((await client.new_window(argv=argv)).pane_id)
        await pane.wait_for("first", since=0)
        pane.forget()
        await pane.adopt()
        log = LogFile(tmp_path / "a.log")
        monitor = Monitor(
            client,
            kind_for(argv),
            limits=OutputLimits(),
            log=log,
            ready_pattern=None,
            is_running=lambda: True,
            capture=pane.capture,
            changed=lambda: None,
            became_ready=lambda: None,
        )
        taken_over = pane.statistics().output_bytes
        monitor.begin_at(taken_over)
        # Before the monitor has read anything.
        server.run("send-keys", "-t", pane.pane_id, "Enter")
        await until(lambda: pane.statistics().output_bytes >= taken_over + len("\r\nsecond\r\n"))
        monitor.expect_program(pane)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run)
            await until(lambda: monitor.lines == 3)
            nursery.cancel_scope.cancel()
        kept = (tmp_path / "a.log").read_bytes()
        assert b"first" not in kept
        assert kept.endswith(b"\r\nsecond\r\n")
