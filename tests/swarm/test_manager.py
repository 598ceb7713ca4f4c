"""`TmuxSwarmManager`: code that was written for the design document runs, under both libraries."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import tmuxcc
from tmuxcc import AgentPane, AgentStatus, TmuxSwarmManager
from tmuxcc.swarm.home import running_swarms

from ..client.helpers import GUARD, Server, is_running

pytestmark = pytest.mark.tmux

# The document's closing example: imports changed, its folder filled in, nothing else.
EXAMPLE = """
import {library}
from tmuxcc import TmuxSwarmManager

async def main():
    # Initialize
    manager = TmuxSwarmManager(
        cluster_id="test-cluster",
        base_dir={base_dir!r}
    )
    await manager.start()

    # Spawn agents
    await manager.spawn_agent(
        "agent-1",
        "python -m agents.worker --id=1"
    )
    await manager.spawn_agent(
        "agent-2",
        "python -m agents.worker --id=2"
    )

    # Stream output
    async for line in manager.stream_agent_output("agent-1"):
        print(f"[agent-1] {{line}}")

    # Broadcast
    await manager.broadcast("status")

    # Cleanup
    await manager.shutdown()

if __name__ == "__main__":
    {library}.run({main})
"""

# The second waits to be asked, whatever happens, and notes that it was. The first works until the
# second does that.
WORKER = """
import os, signal, sys, time
print("worker", sys.argv[1], flush=True)
if sys.argv[1] == "--id=1":
    while not os.path.exists("listening"):
        time.sleep(0.01)
    print("done")
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("listening", "w").close()
    with open("asked", "w") as out:
        out.write(sys.stdin.readline())
"""


@pytest.fixture
def place(folder: Path, tmux: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the document's agents, in which `tmux` and `python` are those under test."""
    (folder / "agents").mkdir()
    (folder / "agents" / "__init__.py").touch()
    (folder / "agents" / "worker.py").write_text(WORKER)
    (folder / "bin").mkdir()
    (folder / "bin" / "tmux").symlink_to(tmux)
    (folder / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TMUXCC_DIR", str(folder))
    return folder


def run_in_both(function: Callable[..., object], *args: object) -> None:
    """Run an async function under trio, and then once more under asyncio."""

    async def with_guard() -> None:
        with trio.fail_after(GUARD):
            await function(*args)  # type: ignore[misc]

    trio.run(with_guard)
    asyncio.run(function(*args))  # type: ignore[arg-type]


@pytest.mark.parametrize(("library", "main"), [("trio", "main"), ("asyncio", "main()")])
def test_the_closing_example_runs_as_printed(place: Path, library: str, main: str) -> None:
    """S-T7, S-2, S-5: and the broadcast is reached, since the stream ends with its agent."""
    script = place / "example.py"
    script.write_text(EXAMPLE.format(library=library, main=main, base_dir=str(place)))
    root = Path(tmuxcc.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=GUARD,
    )
    assert (done.stdout, done.stderr) == ("[agent-1] worker --id=1\n[agent-1] done\n", "")
    assert (place / "asked").read_text() == "status\n"
    assert running_swarms() == []


def test_names_and_signatures_are_those_of_the_document() -> None:
    """S-4.1, S-4.2, S-4.3."""
    wanted = {
        "__init__": "(self, cluster_id, base_dir=None, socket_path=None)",
        "start": "(self)",
        "shutdown": "(self, graceful=True)",
        "spawn_agent": "(self, agent_id, command, env=None)",
        "kill_agent": "(self, agent_id, graceful=True)",
        "get_agent_status": "(self, agent_id)",
        "stream_agent_output": "(self, agent_id, poll_interval=0.1)",
        "capture_agent_output": "(self, agent_id)",
        "broadcast": "(self, message)",
        "send_to_agent": "(self, agent_id, message)",
        "list_agents": "(self)",
        "get_session_info": "(self)",
    }
    for name, signature in wanted.items():
        found = inspect.signature(getattr(TmuxSwarmManager, name))
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
        assert str(inspect.Signature(bare)) == signature, name
    fields = ["agent_id", "pane_id", "window_id", "session_id", "pane", "status"]
    assert [attribute.name for attribute in AgentPane.__attrs_attrs__] == fields
    assert [status.value for status in AgentStatus] == [
        "pending", "running", "stopped", "failed", "unknown",
    ]  # fmt: skip


def test_statuses_follow_the_agents(place: Path) -> None:
    """S-4.3.5, S-E1."""

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        await manager.start()
        good = await manager.spawn_agent("good", "sh -c 'read x; exit 0'")
        bad = await manager.spawn_agent("bad", "sh -c 'read x; exit 3'", env={"A": "b c"})
        assert manager.get_agent_status("good") is AgentStatus.RUNNING
        assert manager.get_agent_status("nobody") is AgentStatus.UNKNOWN
        assert manager.list_agents() == ["good", "bad"]
        await manager.broadcast("go")
        for agent_id in ("good", "bad"):
            assert [line async for line in manager.stream_agent_output(agent_id)] == ["go"]
        assert manager.get_agent_status("good") is AgentStatus.STOPPED
        assert manager.get_agent_status("bad") is AgentStatus.FAILED
        with pytest.raises(tmuxcc.PaneDeadError):
            await manager.send_to_agent("bad", "hello")
        await manager.kill_agent("good")
        assert manager.list_agents() == ["bad"]
        assert good.status is AgentStatus.STOPPED
        await manager.shutdown()
        assert bad.pane_id != good.pane_id

    run_in_both(use)


def test_a_command_may_need_a_shell_and_its_environment_is_exact(place: Path) -> None:
    """S-3.2, S-4.3.3: nothing is typed, so nothing is quoted."""

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        await manager.start()
        env = {"WORD": "a  'b' $HOME; #{pane_id}"}
        await manager.spawn_agent("pipe", 'printf "%s\\n" "$WORD" | cat', env)
        assert [line async for line in manager.stream_agent_output("pipe")] == [env["WORD"]]
        await manager.shutdown()

    run_in_both(use)


def test_what_is_sent_is_text_whatever_it_looks_like(place: Path) -> None:
    """S-4.3.9."""

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        await manager.start()
        await manager.spawn_agent("a", "cat")
        for text in ("Enter", "C-c", "end;", "$(date) `x` #{pane_id} %%"):
            await manager.send_to_agent("a", text)
        while (await manager.capture_agent_output("a")).count("%%") < 2:
            pass
        shown = (await manager.capture_agent_output("a")).split()
        assert shown.count("Enter") == shown.count("C-c") == shown.count("end;") == 2
        await manager.shutdown()

    run_in_both(use)


def test_errors_are_those_of_the_document(place: Path, server: Server) -> None:
    """S-4.4: each has a raiser."""

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        with pytest.raises(tmuxcc.SessionNotFoundError):
            await manager.spawn_agent("a", "cat")
        with pytest.raises(tmuxcc.SessionCreationError, match="no folder"):
            await TmuxSwarmManager("one", str(place / "missing")).start()
        with pytest.raises(tmuxcc.SessionCreationError):
            await TmuxSwarmManager("one two", str(place)).start()
        await manager.start()
        with pytest.raises(tmuxcc.SessionCreationError):
            await manager.start()
        with pytest.raises(tmuxcc.SessionCreationError):
            await TmuxSwarmManager("one", str(place)).start()
        with pytest.raises(ValueError, match="no agent 'b'"):
            await manager.kill_agent("b")
        with pytest.raises(tmuxcc.AgentNotFoundError):
            manager.stream_agent_output("b")
        with pytest.raises(tmuxcc.AgentNotFoundError):
            await manager.capture_agent_output("b")
        await manager.spawn_agent("a", "cat")
        with pytest.raises(tmuxcc.AgentExistsError):
            await manager.spawn_agent("a", "cat")
        await manager.shutdown()
        with pytest.raises(tmuxcc.SessionNotFoundError):
            await manager.broadcast("x")
        assert manager.get_session_info() == {"active": False}
        await manager.shutdown()

    assert issubclass(tmuxcc.TmuxSwarmError, tmuxcc.TmuxError)
    run_in_both(use)


def test_the_session_is_described(place: Path) -> None:
    """S-4.3.11, S-D2."""

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        assert manager.get_session_info() == {"active": False}
        await manager.start()
        await manager.spawn_agent("a", "cat")
        await manager.spawn_agent("b", "cat")
        info = manager.get_session_info()
        assert info.pop("session_id").startswith("$")
        assert info == {
            "active": True,
            "session_name": "swarm-one",
            "windows": 2,
            "agent_count": 2,
        }
        await manager.shutdown(graceful=False)

    run_in_both(use)


def test_a_manager_on_the_socket_of_others_leaves_them_alone(place: Path, server: Server) -> None:
    server.start()

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place), str(server.socket))
        await manager.start()
        await manager.spawn_agent("a", "cat")
        assert "swarm-one" in server.run("list-sessions")
        await manager.shutdown()
        assert server.run("list-sessions", "-F", "#{session_name}") == "work"

    run_in_both(use)


@pytest.mark.parametrize("seconds", [0, 0.01, 0.02, 0.04])
def test_a_start_that_is_cancelled_leaves_nothing(place: Path, seconds: float) -> None:
    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        with trio.move_on_after(seconds) as scope:
            await manager.start()
        if scope.cancelled_caught:
            assert running_swarms() == []
            await manager.start()
        assert manager.list_agents() == []
        await manager.shutdown()
        assert running_swarms() == []

    trio.run(use)


def test_a_start_is_cancelled_also_where_tmux_hangs(place: Path) -> None:
    (place / "bin" / "tmux").unlink()
    (place / "bin" / "tmux").write_text("#!/bin/sh\nexec sleep 1000\n")
    (place / "bin" / "tmux").chmod(0o755)

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        with trio.fail_after(5):
            with trio.move_on_after(0.1) as scope:
                await manager.start()
        assert scope.cancelled_caught
        assert running_swarms() == []

    trio.run(use)


def test_a_manager_that_is_not_shut_down_ends_with_its_program(place: Path) -> None:
    """S-R4."""
    pids: list[int] = []

    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        await manager.start()
        pane = await manager.spawn_agent("a", "sleep 600")
        assert pane.pane.pid is not None
        pids.append(pane.pane.pid)

    run_in_both(use)
    assert not any(is_running(pid) for pid in pids)
    assert running_swarms() == []


def test_breaking_off_a_stream_leaves_the_agent_alone(place: Path) -> None:
    async def use() -> None:
        manager = TmuxSwarmManager("one", str(place))
        await manager.start()
        await manager.spawn_agent("a", "sh -c 'seq 2; read x; echo $x'")
        async for line in manager.stream_agent_output("a", poll_interval=5):
            if line == "2":
                break
        await manager.send_to_agent("a", "go on")
        lines = [line async for line in manager.stream_agent_output("a")]
        assert lines == ["1", "2", "go on", "go on"]
        await manager.shutdown()

    run_in_both(use)
