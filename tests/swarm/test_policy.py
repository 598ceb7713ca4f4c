"""Restarts and brakes, decided without a clock and without tmux: `tmuxcc.swarm.policy`."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import assume, given
from hypothesis import strategies as st

from tmuxcc.errors import InvalidSwarm
from tmuxcc.swarm.checks import MOST
from tmuxcc.swarm.policy import (
    GiveUp,
    OutputBrake,
    OutputLimits,
    Restart,
    RestartHistory,
    RestartPolicy,
    Verdict,
    decide_restart,
    restart_policy,
)

FRESH = RestartHistory()

seconds = st.floats(0, 1e6) | st.sampled_from([0.0, 1e-9, 1.0, 60.0, 1e300])
randoms = st.floats(0, 1, exclude_max=True)


@st.composite
def policies(draw: st.DrawFn, when: tuple[str, ...] = ("on-failure", "always")) -> RestartPolicy:
    delay = draw(seconds)
    return RestartPolicy(
        draw(st.sampled_from(when)),
        delay=delay,
        factor=draw(st.floats(1, 10) | st.sampled_from([1.0, 2.0, 1e300])),
        max_delay=max(delay, draw(seconds)),
        jitter=draw(st.floats(0, 1)),
        max_restarts=draw(st.integers(1, 6)),
        window=draw(st.floats(0.001, 1000)),
        stable_after=draw(st.floats(0, 100)),
    )


histories = st.builds(
    RestartHistory, st.lists(seconds).map(lambda times: tuple(sorted(times))), st.integers(0, 5000)
)


def decide(policy: RestartPolicy, history: RestartHistory = FRESH, **facts) -> Restart | GiveUp:
    given = {"ok": False, "requested": False, "ran_for": 0.0, "now": 0.0, "random": 0.5}
    return decide_restart(policy, history, **{**given, **facts})


def delays(policy: RestartPolicy, count: int, **facts) -> list[float]:
    """The delays of so many restarts, each long after the one before."""
    found, history, now = [], FRESH, 0.0
    for _ in range(count):
        decision = decide(policy, history, now=now, **facts)
        assert isinstance(decision, Restart)
        history = decision.history
        found.append(decision.delay)
        now += decision.delay + policy.window
    return found


# --------------------------------------------------------------------------------- which restarts


@pytest.mark.parametrize(
    ("when", "ok", "restarted"),
    [
        ("no", False, False), ("no", True, False), ("on-failure", False, True),
        ("on-failure", True, False), ("always", False, True), ("always", True, True),
    ],
)  # fmt: skip
def test_the_policy_and_the_end_decide(when, ok, restarted) -> None:
    decision = decide(RestartPolicy(when), ok=ok)
    assert isinstance(decision, Restart) is restarted
    if isinstance(decision, GiveUp):
        assert not decision.crash_loop
        assert decision.reason


@given(policies(), histories, st.booleans(), seconds, seconds, randoms)
def test_an_end_that_was_asked_for_is_final(policy, history, ok, ran_for, now, random) -> None:
    decision = decide(
        policy, history, ok=ok, requested=True, ran_for=ran_for, now=now, random=random
    )
    assert isinstance(decision, GiveUp)
    assert not decision.crash_loop


@given(policies(when=("on-failure", "no")), histories, seconds, seconds, randoms)
def test_a_good_end_is_final_unless_it_is_always(policy, history, ran_for, now, random) -> None:
    decision = decide(policy, history, ok=True, ran_for=ran_for, now=now, random=random)
    assert isinstance(decision, GiveUp)
    assert not decision.crash_loop


@given(policies(), histories, st.booleans(), seconds, seconds, randoms)
def test_the_same_facts_give_the_same_decision(policy, history, ok, ran_for, now, random) -> None:
    facts = {"ok": ok, "ran_for": ran_for, "now": now, "random": random}
    assert decide(policy, history, **facts) == decide(policy, history, **facts)


# ------------------------------------------------------------------------------------------ delays


def test_each_delay_is_the_double_of_the_last_up_to_the_longest() -> None:
    policy = RestartPolicy("always", jitter=0)
    assert delays(policy, 9) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(policies(), histories, seconds, seconds, randoms)
def test_a_delay_is_within_its_bounds(policy, history, ran_for, now, random) -> None:
    decision = decide(policy, history, ran_for=ran_for, now=now, random=random)
    if isinstance(decision, Restart):
        assert 0 <= decision.delay <= policy.max_delay
        assert math.isfinite(decision.delay)
        assert decision.delay >= policy.delay * (1 - policy.jitter)


@given(policies(), st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2))
def test_jitter_spreads_a_delay_by_no_more_than_its_fraction(policy, draws) -> None:
    low, high = (decide(policy, random=draw).delay for draw in sorted(draws))
    assert low <= high
    assert high <= policy.delay * (1 + policy.jitter)


def test_the_longest_delays_are_spread_too() -> None:
    policy = RestartPolicy("always", delay=30, max_delay=30, jitter=0.5)
    drawn = [decide(policy, random=draw / 10).delay for draw in range(10)]
    assert drawn == [15 + 1.5 * draw for draw in range(10)]


@given(policies(), st.integers(1, 30))
def test_without_jitter_no_delay_is_shorter_than_the_last(policy, count) -> None:
    policy = RestartPolicy(
        "always",
        delay=min(policy.delay, 1e9),
        factor=policy.factor,
        max_delay=max(min(policy.delay, 1e9), min(policy.max_delay, 1e9)),
        jitter=0,
        window=policy.window,
        stable_after=1,
    )
    found = delays(policy, count)
    assert all(first <= second for first, second in pairwise(found))
    assert found[0] == policy.delay


def test_a_factor_beyond_all_numbers_is_the_longest_delay() -> None:
    long = RestartHistory((), 10**9)
    assert decide(RestartPolicy("always", jitter=0), long).delay == 30
    assert decide(RestartPolicy("always", delay=0), long).delay == 0


def test_a_stable_run_makes_the_delays_begin_anew() -> None:
    policy = RestartPolicy("always", jitter=0, stable_after=10)
    history = RestartHistory((), 4)
    assert decide(policy, history, ran_for=9.9).delay == 8
    decision = decide(policy, history, ran_for=10)
    assert decision == Restart(0.5, RestartHistory((0.5,), 1))
    assert decide(policy, decision.history, now=1).delay == 1


@given(policies(), histories, st.floats(0, 1e5), randoms)
def test_after_a_stable_run_the_past_does_not_matter_for_the_delay(
    policy, history, more, random
) -> None:
    facts = {"ran_for": policy.stable_after + more, "now": 1e9, "random": random}
    decision = decide(policy, history, **facts)
    # Whether a restart that was planned for later than now is in the window is another matter.
    assume(isinstance(decision, Restart))
    assert decision.delay == decide(policy, FRESH, **facts).delay
    assert decision.history.in_a_row == 1


# -------------------------------------------------------------------------------------- crash loops


def test_a_crash_loop_ends_and_says_how_many_restarts_there_were_in_how_long() -> None:
    policy = RestartPolicy("on-failure", delay=1, factor=1, jitter=0, max_restarts=3, window=60)
    history, now = FRESH, 100.0
    for _ in range(3):
        decision = decide(policy, history, now=now)
        assert isinstance(decision, Restart)
        history = decision.history
        now += 5
    assert decide(policy, history, now=now) == GiveUp(
        "it ended again after 3 restarts within 60 seconds", crash_loop=True
    )
    one = RestartPolicy("always", max_restarts=1, window=0.5)
    assert "after 1 restart within 0.5 seconds" in decide(one, RestartHistory((0.0,))).reason


def test_restarts_leave_the_window_by_time_and_not_by_a_stable_run() -> None:
    policy = RestartPolicy("always", max_restarts=2, window=60, stable_after=10, jitter=0)
    history = RestartHistory((0.0, 30.0), 2)
    assert decide(policy, history, now=59, ran_for=29).crash_loop
    decision = decide(policy, history, now=60, ran_for=29)
    assert decision == Restart(0.5, RestartHistory((31.0, 60.5), 1))


def test_a_restart_that_was_late_counts_from_when_it_was() -> None:
    policy = RestartPolicy("always", max_restarts=1, window=60)
    planned = RestartHistory((0.0,), 1)
    assert isinstance(decide(policy, planned, now=65, ran_for=65), Restart)
    assert decide(policy, planned, now=65, ran_for=10).crash_loop


@given(
    policies(),
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 5), randoms, st.booleans()), max_size=40
    ),
)  # fmt: skip
def test_who_obeys_never_restarts_more_often_than_the_window_allows(policy, runs) -> None:
    history, now = FRESH, 0.0
    ends: list[float] = []
    starts: list[float] = []
    for ran_for, late, random, ok in runs:
        started, now = now, now + ran_for
        decision = decide(policy, history, ok=ok, ran_for=now - started, now=now, random=random)
        if isinstance(decision, GiveUp):
            if decision.crash_loop:
                assert len(starts) >= policy.max_restarts
                break
            continue
        ends.append(now)
        now += decision.delay + late
        starts.append(now)
        history = decision.history
        assert len(history.times) <= policy.max_restarts
    for times in (ends, starts):
        for first, last in zip(times, times[policy.max_restarts :], strict=False):
            assert last - first >= policy.window - 1e-9 * max(1, last)


async def test_a_program_that_keeps_failing_is_restarted_at_these_times(autojump_clock) -> None:
    policy = RestartPolicy("on-failure", delay=1, jitter=0, max_restarts=4, window=60)
    starts = []
    history = FRESH
    began = trio.current_time()
    while True:
        started = trio.current_time()
        starts.append(started - began)
        await trio.sleep(0.25)
        now = trio.current_time()
        decision = decide(policy, history, ran_for=now - started, now=now)
        if isinstance(decision, GiveUp):
            break
        history = decision.history
        await trio.sleep(decision.delay)
    assert starts == pytest.approx([0, 1.25, 3.5, 7.75, 16])
    assert decision.crash_loop


async def test_a_program_that_fails_once_a_day_is_restarted_for_ever(autojump_clock) -> None:
    policy = RestartPolicy("always", jitter=0)
    history = FRESH
    for _ in range(1000):
        await trio.sleep(86400)
        decision = decide(policy, history, ran_for=86400, now=trio.current_time())
        assert isinstance(decision, Restart)
        assert decision.delay == 0.5
        history = decision.history
        assert len(history.times) == 1
        await trio.sleep(decision.delay)


async def test_many_that_fail_at_once_come_back_spread(autojump_clock) -> None:
    policy = RestartPolicy("always", delay=10, jitter=0.5)
    starts = []

    async def restarted(random: float) -> None:
        decision = decide(policy, now=trio.current_time(), random=random)
        await trio.sleep(decision.delay)
        starts.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(restarted, number / 100)
    assert len(set(starts)) == 100
    assert min(starts) - began == pytest.approx(5)
    assert max(starts) - began == pytest.approx(14.9)


# ------------------------------------------------------------------------------------ descriptions


@pytest.mark.parametrize(
    ("values", "where", "said"),
    [
        ({"when": "sometimes"}, "when", 'has to be "no", "on-failure" or "always"'),
        ({"when": []}, "when", "not a list"),
        ({"delay": -1}, "delay", "has to be a number of seconds, at least 0, not -1"),
        ({"delay": "1"}, "delay", "not '1'"),
        ({"delay": True}, "delay", "not True"),
        ({"delay": math.nan}, "delay", "not nan"),
        ({"max_delay": math.inf}, "max_delay", "not inf"),
        ({"max_delay": 0.1}, "max_delay", "at least the delay, 0.5 seconds, not 0.1"),
        ({"factor": 0.5}, "factor", "at least 1"),
        ({"jitter": 1.1}, "jitter", "from 0 to 1, not 1.1"),
        ({"max_restarts": 0}, "max_restarts", "has to be a whole number, at least 1, not 0"),
        ({"max_restarts": 2.0}, "max_restarts", "whole"),
        ({"max_restarts": 10**9999}, "max_restarts", "not a number that large"),
        ({"window": 0}, "window", "at least 0.001"),
        ({"stable_after": None}, "stable_after", "not nothing"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_field(values, where, said) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        RestartPolicy(**values)
    assert caught.value.where == where
    assert said in str(caught.value)


def test_a_policy_can_be_given_by_its_name() -> None:
    own = RestartPolicy("always", delay=2)
    assert restart_policy(own) is own
    assert restart_policy(None) == RestartPolicy("no") == RestartPolicy()
    assert restart_policy("on-failure") == RestartPolicy("on-failure")
    with pytest.raises(InvalidSwarm, match="or a RestartPolicy, not 'never'") as caught:
        restart_policy("never")
    assert caught.value.where == "restart"


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"rate": MOST + 1}, "rate"),
        ({"rate": 1, "burst": 0}, "burst"),
        ({"burst": 1}, "burst"),
        ({"size": -1}, "size"),
        ({"size": "1MB"}, "size"),
        ({"clear_history_after": True}, "clear_history_after"),
    ],
)
def test_wrong_limits_are_refused_with_their_field(values, where) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        OutputLimits(**values)
    assert caught.value.where == where


# ------------------------------------------------------------------------------------------ brakes


def test_without_limits_all_goes_on() -> None:
    brake = OutputBrake(OutputLimits())
    assert all(brake.receive(10**12, 0.0) == Verdict("go-on") for _ in range(10))
    assert brake.received == 10**13


def test_what_goes_over_the_burst_is_held_until_the_burst_is_there_again() -> None:
    brake = OutputBrake(OutputLimits(rate=64, burst=32))
    assert brake.receive(32, 10.0) == Verdict("go-on")
    assert brake.receive(16, 10.0) == Verdict("hold", 10.75)
    assert not brake.resume(10.74)
    assert brake.resume(10.75)
    assert brake.receive(32, 10.75) == Verdict("go-on")
    assert brake.receive(1, 10.75).action == "hold"


def test_the_burst_is_that_of_a_second_if_nothing_else_is_said() -> None:
    brake = OutputBrake(OutputLimits(rate=100))
    assert brake.receive(100, 0.0).action == "go-on"
    assert brake.receive(1, 0.0) == Verdict("hold", 1.01)


def test_output_below_the_rate_is_never_held() -> None:
    brake = OutputBrake(OutputLimits(rate=64, burst=4))
    assert all(brake.receive(4, now / 16).action == "go-on" for now in range(1000))


def test_what_comes_during_a_hold_does_not_make_it_longer() -> None:
    brake = OutputBrake(OutputLimits(rate=100, size=10_000))
    first = brake.receive(101, 0.0)
    assert brake.receive(5000, 0.5) == first
    assert brake.drop(4000) == first
    assert brake.resume(first.until)
    assert brake.drop(1) == Verdict("go-on")
    assert brake.receive(50, first.until) == Verdict("go-on")


def test_a_run_is_cut_when_its_size_is_reached_and_the_next_one_is_not() -> None:
    brake = OutputBrake(OutputLimits(size=100))
    assert brake.receive(99, 0.0) == Verdict("go-on")
    assert brake.receive(1, 0.0) == Verdict("cut")
    assert brake.cut
    assert not brake.resume(1e9)
    assert brake.receive(0, 1.0) == Verdict("cut")
    brake.new_run()
    assert brake.receive(99, 2.0) == Verdict("go-on")


def test_what_was_dropped_counts_for_the_size_of_the_run() -> None:
    brake = OutputBrake(OutputLimits(size=100))
    assert brake.drop(99) == Verdict("go-on")
    assert brake.drop(1) == Verdict("cut")


def test_a_hold_outlasts_the_run_that_brought_it_about() -> None:
    brake = OutputBrake(OutputLimits(rate=100, size=300))
    assert brake.receive(300, 0.0) == Verdict("cut", 3.0)
    brake.new_run()
    assert not brake.resume(2.9)
    assert brake.receive(1, 2.9) == Verdict("hold", 3.0)
    assert brake.resume(3.0)


def test_the_history_is_cleared_whenever_so_much_has_come() -> None:
    brake = OutputBrake(OutputLimits(clear_history_after=100, size=290))
    verdicts = [brake.receive(30, 0.0) for _ in range(10)]
    assert [verdict.clear_history for verdict in verdicts] == [
        False, False, False, True, False, False, False, True, False, False,
    ]  # fmt: skip
    assert [verdict.action for verdict in verdicts] == ["go-on"] * 9 + ["cut"]
    brake.new_run()
    # The history is the pane's, and so are the 60 bytes since it was cleared.
    assert not brake.receive(39, 0.0).clear_history
    assert brake.receive(1, 0.0) == Verdict("go-on", None, clear_history=True)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_away() -> None:
    brake = OutputBrake(OutputLimits(rate=100))
    assert brake.receive(60, 5.0).action == "go-on"
    assert brake.receive(40, 1.0).action == "go-on"
    assert brake.receive(1, 5.0).action == "hold"


@given(
    st.integers(1, 1000),
    st.none() | st.integers(1, 1000),
    st.lists(
        st.tuples(st.floats(0, 3) | st.just(0.0), st.integers(0, 300), st.sampled_from("rrrrrrdn")),
        max_size=60,
    ),
    st.floats(0, 1e6),
)
def test_what_comes_through_is_bounded_in_any_stretch_of_time(rate, burst, steps, now) -> None:
    brake = OutputBrake(OutputLimits(rate=rate, burst=burst))
    through: list[tuple[float, int]] = []
    held: float | None = None
    for wait, size, what in steps:
        now += wait
        if held is not None and now >= held:
            assert brake.resume(now)
            held = None
        if what == "n":
            brake.new_run()
        elif what == "d":
            brake.drop(size)
        elif held is not None:
            assert brake.receive(size, now) == Verdict("hold", held)
        else:
            through.append((now, size))
            held = brake.receive(size, now).until
    for first in range(len(through)):
        total = 0
        for time, size in through[first:]:
            allowed = rate * (time - through[first][0]) + (burst or rate)
            assert total <= allowed * (1 + 1e-9) + 1e-6 * rate
            total += size


@given(st.integers(1, 1000), st.lists(st.tuples(st.integers(0, 300), st.booleans())))
def test_of_one_run_no_more_than_the_size_and_one_piece_comes_through(limit, pieces) -> None:
    brake = OutputBrake(OutputLimits(size=limit))
    through, cut = 0, False
    for size, ends in pieces:
        if ends:
            brake.new_run()
            through, cut = 0, False
        if not cut:
            assert through < limit
            through += size
            cut = brake.receive(size, 0.0).action == "cut"
        else:
            assert brake.receive(size, 0.0).action == "cut"


async def test_a_flood_gets_through_at_the_rate_in_few_pieces(autojump_clock) -> None:
    brake = OutputBrake(OutputLimits(rate=1000))
    began = trio.current_time()
    through = holds = 0
    while trio.current_time() < began + 100:
        through += 100
        verdict = brake.receive(100, trio.current_time())
        if verdict.action == "hold":
            holds += 1
            await trio.sleep_until(verdict.until)
            assert brake.resume(trio.current_time())
        else:
            await trio.sleep(0.0001)
    assert 0.95 * 100_000 <= through <= 1000 * 100 + 1000 + 100
    assert holds <= 100
