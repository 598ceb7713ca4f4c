"""Ready conditions that are tried: a command that succeeds, a port that takes a connection."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.client.helpers import GUARD, until
from tmuxcc.swarm import ready as module
from tmuxcc.swarm.ready import probe
from tmuxcc.swarm.spec import Ready


async def test_a_command_is_tried_until_it_succeeds(tmp_path: Path) -> None:
    done = False

    async def run() -> None:
        nonlocal done
        command = ("sh", "-c", 'echo x >>tries; [ -e "$NAME" ]')
        await probe(Ready(command=command), cwd=tmp_path, env={"NAME": "here"})
        done = True

    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            tries = tmp_path / "tries"
            await until(lambda: tries.exists() and len(tries.read_text().split()) >= 3)
            assert not done
            (tmp_path / "here").touch()
    assert done


async def test_a_command_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    program = tmp_path / "program"
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            wanted = Ready(command=(str(program),))
            nursery.start_soon(lambda: probe(wanted, cwd=tmp_path, env={}))
            await trio.testing.wait_all_tasks_blocked()
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)


async def test_a_port_is_tried_until_somebody_listens(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        wanted = Ready(port=listener.getsockname()[1])
        with trio.fail_after(GUARD):
            with trio.move_on_after(0.1) as scope:
                await probe(wanted, cwd=tmp_path, env={})
            assert scope.cancelled_caught
            listener.listen()
            await probe(wanted, cwd=tmp_path, env={})


async def test_a_try_that_hangs_is_given_up_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_TIMEOUT", 0.2)
    command = ("sh", "-c", "[ -e tried ] && exit 0; echo $$ >tried; exec sleep 600")
    with trio.fail_after(GUARD):
        await probe(Ready(command=command), cwd=tmp_path, env={})
    pid = int((tmp_path / "tried").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_cancelled_try_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            wanted = Ready(command=("sh", "-c", "echo $$ >pid; exec sleep 600"))
            nursery.start_soon(lambda: probe(wanted, cwd=tmp_path, env={}))
            await until(lambda: file.exists() and file.read_text().strip())
            nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
