"""The states of an agent, as values: its life, what it is doing, and the design document's status.

Pure. How it is known what an agent is doing is in activity.py; when it is started again, in
policy.py.
"""

from __future__ import annotations

from enum import Enum

from ..client.output import ExitStatus


class Life(Enum):
    """How far an agent's program has come.

    PENDING: wanted, not asked of tmux yet. STARTING: asked for. RUNNING: it has its pane. EXITED:
    it has ended, by itself or because it was told to; it may be started again. FAILED: it could not
    be started, or is not started any more since it fails again and again, or its tmux is gone.
    """

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    FAILED = "failed"


class Activity(Enum):
    """What an agent is doing."""

    BUSY = "busy"
    """It works, or has been given something and has not said that it is done."""
    IDLE = "idle"
    """It waits for the next task."""
    BLOCKED = "blocked"
    """It waits for a person's decision: a permission, a yes or no."""
    UNKNOWN = "unknown"
    """There is no telling; `ActivityTracker.explain` says why."""


class AgentStatus(Enum):
    """One word for an agent: what the design document calls its status."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"


NEXT: dict[Life, frozenset[Life]] = {
    Life.PENDING: frozenset({Life.STARTING, Life.FAILED}),
    Life.STARTING: frozenset({Life.RUNNING, Life.EXITED, Life.FAILED}),
    Life.RUNNING: frozenset({Life.EXITED, Life.FAILED}),
    Life.EXITED: frozenset({Life.STARTING, Life.FAILED}),
    Life.FAILED: frozenset({Life.STARTING}),
}
"""What may follow each state."""


def status_of(life: Life, exit_status: ExitStatus | None, *, requested: bool) -> AgentStatus:
    """The status for a state. `requested`: somebody asked the program to end.

    A program that ended on request has stopped, whatever it made of its exit status.
    """
    if life in (Life.PENDING, Life.STARTING):
        return AgentStatus.PENDING
    if life is Life.RUNNING:
        return AgentStatus.RUNNING
    if life is Life.FAILED:
        return AgentStatus.FAILED
    if requested or (exit_status is not None and exit_status.ok):
        return AgentStatus.STOPPED
    if exit_status is None or (exit_status.code is None and exit_status.signal is None):
        return AgentStatus.UNKNOWN
    return AgentStatus.FAILED
