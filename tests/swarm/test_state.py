"""The states of agents, and the one word for each."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing

from tmuxcc.client.output import ExitStatus
from tmuxcc.swarm.policy import (
    GiveUp,
    OutputBrake,
    OutputLimits,
    RestartHistory,
    RestartPolicy,
    decide_restart,
)
from tmuxcc.swarm.state import NEXT, AgentStatus, Life, status_of

STATUSES = [
    None,
    ExitStatus(None, None),
    ExitStatus(0, None),
    ExitStatus(3, None),
    ExitStatus(None, 9),
]


def test_s_4_1_the_words_are_those_of_the_design_document() -> None:
    """S-4.1."""
    assert {each.name: each.value for each in AgentStatus} == {
        "PENDING": "pending",
        "RUNNING": "running",
        "STOPPED": "stopped",
        "FAILED": "failed",
        "UNKNOWN": "unknown",
    }


def test_every_state_has_one_word() -> None:
    for life, status, requested in itertools.product(Life, STATUSES, (False, True)):
        word = status_of(life, status, requested=requested)
        if life in (Life.PENDING, Life.STARTING):
            assert word is AgentStatus.PENDING
        elif life is Life.RUNNING:
            assert word is AgentStatus.RUNNING
        elif life is Life.FAILED:
            assert word is AgentStatus.FAILED


@pytest.mark.parametrize(
    ("status", "requested", "word"),
    [
        (ExitStatus(0, None), False, AgentStatus.STOPPED),
        (ExitStatus(0, None), True, AgentStatus.STOPPED),
        (ExitStatus(3, None), False, AgentStatus.FAILED),
        (ExitStatus(3, None), True, AgentStatus.STOPPED),
        (ExitStatus(None, 9), False, AgentStatus.FAILED),
        (ExitStatus(None, 9), True, AgentStatus.STOPPED),
        (ExitStatus(None, None), False, AgentStatus.UNKNOWN),
        (ExitStatus(None, None), True, AgentStatus.STOPPED),
        (None, False, AgentStatus.UNKNOWN),
    ],
)
def test_how_it_ended_decides_unless_the_end_was_asked_for(
    status: ExitStatus | None, requested: bool, word: AgentStatus
) -> None:
    assert status_of(Life.EXITED, status, requested=requested) is word


def test_every_state_can_be_reached_and_none_is_a_trap_but_by_intent() -> None:
    assert set(NEXT) == set(Life)
    reached = {Life.PENDING}
    while more := {after for life in reached for after in NEXT[life]} - reached:
        reached |= more
    assert reached == set(Life)
    assert all(Life.STARTING in _after(life) for life in Life)
    assert Life.PENDING not in {after for following in NEXT.values() for after in following}


def _after(life: Life) -> set[Life]:
    reached: set[Life] = set()
    waiting = [life]
    while waiting:
        for after in NEXT[waiting.pop()]:
            if after not in reached:
                reached.add(after)
                waiting.append(after)
    return reached


async def test_restarts_and_holds_come_when_they_are_due(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = RestartPolicy("always", delay=10, factor=2, max_delay=100, jitter=0, window=1000)
    history, starts = RestartHistory(), [trio.current_time()]
    while True:
        await trio.sleep(1)
        now = trio.current_time()
        decision = decide_restart(
            policy, history, ok=False, requested=False, ran_for=1, now=now, random=0.5
        )
        if isinstance(decision, GiveUp):
            break
        history = decision.history
        await trio.sleep(decision.delay)
        starts.append(trio.current_time())
    waits = [round(after - before - 1) for before, after in itertools.pairwise(starts)]
    assert waits == [10, 20, 40, 80, 100]
    assert decision.crash_loop

    brake = OutputBrake(OutputLimits(rate=100, burst=1000))
    heard, begun = 0, trio.current_time()
    while trio.current_time() < begun + 100:
        verdict = brake.receive(500, trio.current_time())
        heard += 500
        if verdict.action == "hold":
            assert verdict.until is not None
            await trio.sleep_until(verdict.until)
            assert brake.resume(trio.current_time())
    assert heard <= 100 * 110 + 1000 + 500
