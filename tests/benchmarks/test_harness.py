"""That the harness reports what is there: known delays, lost and repeated lines, fair turns."""

from __future__ import annotations

import itertools
import statistics
import time
import weakref
from contextlib import closing
from math import inf

import pytest

from benchmarks.harness import (
    END,
    CpuMeter,
    EndWatch,
    Record,
    Samples,
    Server,
    Side,
    Tally,
    Writer,
    can_account,
    compare,
    cpu_of,
    interleave,
    run_server,
    stamped_line,
)
from benchmarks.results import Row
from benchmarks.sides import Scene, floor, libtmux_polling, lines

MS = 1_000_000


class Clock:
    """A time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def fake_source(delay_ms: float, *, count: int = 50, cut: bool = False) -> Record:
    """A record of lines, written every 10 ms, that a source with a known delay hands on."""
    clock = Clock()
    record = Record(clock)
    for number in range(count):
        clock.now = number * 10 * MS
        data = stamped_line(0, number, clock.now)
        if cut:
            record.receive("pane", data[:5])
            data = data[5:]
        clock.now += int(delay_ms * MS)
        record.receive("pane", data)
    return record


def reported(record: Record) -> Row:
    """The row that a benchmark makes of it."""
    rows = compare(
        "a case",
        {"fake": lambda: {"latency": record.latencies()}},
        rounds=1,
        units={"latency": "ms"},
    )
    return rows[0]


@pytest.mark.parametrize("delay", [0.2, 3.0, 54.0])
@pytest.mark.parametrize("cut", [False, True])
def test_a_known_delay_is_reported_within_5_per_cent(delay: float, cut: bool) -> None:
    row = reported(fake_source(delay, cut=cut))

    assert row.n == 50
    for figure in (row.p50, row.p90, row.p99, row.max):
        assert figure == pytest.approx(delay, rel=0.05)


def test_quantiles_of_mixed_delays_are_those_of_the_samples() -> None:
    clock = Clock()
    record = Record(clock)
    for number in range(100):
        written = clock.now
        clock.now += (number + 1) * MS
        record.receive("pane", stamped_line(0, number, written))

    row = reported(record)

    assert (row.p50, row.p90, row.p99, row.max) == (50.5, 90.0, 99.0, 100.0)


def test_a_poll_is_charged_with_the_time_until_its_look() -> None:
    clock = Clock()
    record = Record(clock)
    screen = b""
    for number in range(100):
        clock.now = number * 7 * MS
        screen += stamped_line(0, number, clock.now)
        if number % 10 == 9:
            clock.now += 2 * MS
            record.look(screen)

    # Ten lines, seven ms apart, for each look, which comes two ms after the last of them.
    expected = [2 + 7 * back for _ in range(10) for back in range(10)]
    assert sorted(record.latencies()) == sorted(expected)
    assert record.repeats == 0


def test_a_side_that_loses_lines_is_shown_to_lose_them() -> None:
    clock = Clock()
    record = Record(clock)
    for number in range(90):
        clock.now += MS
        if number % 3 != 0:
            record.receive("pane", stamped_line(0, number, clock.now))

    assert len(record.arrivals()) == 60
    assert {number for _, number in record.arrivals()} == {n for n in range(90) if n % 3}


def test_a_side_that_repeats_lines_is_shown_to_repeat_them() -> None:
    clock = Clock()
    record = Record(clock)
    for number in (0, 1, 1, 2, 2, 2):
        record.receive("pane", stamped_line(0, number, 5))

    assert len(record.arrivals()) == 3
    assert record.repeats == 3


def test_lines_of_different_panes_and_streams_are_kept_apart() -> None:
    record = Record(Clock())
    first, second = stamped_line(0, 0, 1), stamped_line(1, 0, 2)
    record.receive("a", first[:4])
    record.receive("b", second[:3])
    record.receive("a", first[4:])
    record.receive("b", second[3:])

    assert set(record.arrivals()) == {(0, 0), (1, 0)}


def test_what_was_written_before_the_record_began_counts_for_nothing() -> None:
    clock = Clock()
    clock.now = 100
    record = Record(clock)
    record.look(stamped_line(0, 7, 99) + stamped_line(0, 0, 100))

    assert set(record.arrivals()) == {(0, 0)}


def test_a_line_without_its_end_has_not_arrived() -> None:
    record = Record(Clock())
    record.receive("pane", stamped_line(0, 0, 1).rstrip())
    assert record.arrivals() == {}


def test_a_tally_counts_bytes_and_lines() -> None:
    tally = Tally()
    tally.receive("pane", b"one\r\ntwo\r\nth")
    tally.receive("pane", b"ree\r\n")
    assert (tally.bytes, tally.lines, tally.sightings) == (17, 3, [])


# Turns


def recording(name: str, order: list[str]) -> Side:
    def side() -> Samples:
        order.append(name)
        return {"figure": [float(len(order))]}

    return side


def test_every_side_runs_once_a_round_and_no_round_is_like_the_one_before() -> None:
    order: list[str] = []
    names = ["a", "b", "c", "d"]
    found = interleave({name: recording(name, order) for name in names}, 4, within=inf)

    rounds = [order[start : start + 4] for start in range(0, 16, 4)]
    assert all(sorted(each) == names for each in rounds)
    assert len({each[0] for each in rounds}) > 1
    assert all(one != other for one, other in itertools.pairwise(rounds))
    assert list(found["figure"]) == names
    assert [len(found["figure"][name]) for name in names] == [4] * 4


def test_no_side_pays_for_what_the_one_before_it_has_left() -> None:
    left: list[weakref.ref[Clock]] = []

    def side() -> Samples:
        garbage = Clock()
        garbage.itself = garbage
        there = [each() for each in left]
        left.append(weakref.ref(garbage))
        return {"left": [float(sum(each is not None for each in there))]}

    found = interleave({"one": side, "other": side}, 2, within=inf)

    assert found == {"left": {"one": [[0.0], [0.0]], "other": [[0.0], [0.0]]}}


@pytest.mark.parametrize(("each", "rounds"), [(1.0, 4), (2.5, 3), (4.0, 2), (60.0, 1)])
def test_a_slow_machine_makes_fewer_rounds(
    each: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)

    def side() -> Samples:
        nonlocal clock
        clock += each
        return {"time": [each]}

    assert interleave({"side": side}, 4, within=9) == {"time": {"side": [[each]] * rounds}}


def test_ratios_are_those_of_the_same_round() -> None:
    # The machine gets slower and slower; one side always takes twice as long as the other.
    slow = iter([2.0, 20.0, 200.0])
    quick = iter([1.0, 10.0, 100.0])

    rows = compare(
        "a case",
        {"floor": lambda: {"time": [next(quick)]}, "side": lambda: {"time": [next(slow)]}},
        rounds=3,
        within=inf,
        units={"time": "ms"},
        baseline="floor",
    )

    side = next(row for row in rows if row.side == "side")
    assert (side.ratio, side.ratio_low, side.ratio_high) == (2.0, 2.0, 2.0)
    assert side.medians == (2.0, 20.0, 200.0)
    assert side.p50 == 20.0, "the median, not the best"


# The writer, the end, and the sides on a real tmux


class Written:
    """A writer that is done when it is told to be."""

    def __init__(self, panes: int) -> None:
        self.panes = panes
        self.done = False

    def poll(self) -> bool:
        return self.done


def test_the_end_is_known_by_the_end_line_of_each_pane_even_if_it_comes_in_pieces() -> None:
    ends = EndWatch(Written(2))
    assert not ends.saw("a", b"line\r\n" + END[:2])
    assert not ends.saw("b", b"line\r\n" + END + b"\r\n")
    assert not ends.saw("b", b"")
    assert ends.saw("a", END[2:] + b"\r\n")


def test_nothing_is_given_up_before_all_is_written() -> None:
    writer = Written(1)
    ends = EndWatch(writer)
    assert not ends.over()
    writer.done = True
    assert not ends.over(), "the last lines may be on their way"


@pytest.fixture
def server(tmux: str):
    with run_server(tmux) as server:
        yield server


@pytest.mark.tmux
def test_what_is_written_into_panes_is_seen_line_by_line(server: Server) -> None:
    with server.panes(2) as panes:
        for watch in (floor, lines):
            scene = Scene(server, panes, rate=200, seconds=0.2)
            seen = watch(scene).arrivals()
            assert scene.written == 80
            assert set(seen) == {(pane, number) for pane in range(2) for number in range(40)}
            assert all(now >= written for written, now in seen.values())


@pytest.mark.tmux
def test_a_poll_that_is_too_slow_misses_what_has_scrolled_away(server: Server) -> None:
    with server.panes(1) as panes:
        scene = Scene(server, panes, rate=2000, seconds=0.5)
        seen = libtmux_polling(4)(scene).arrivals()
        # One look before, one after all is written: the last screenful is all there is.
        assert scene.written == 1000
        assert 0 < len(seen) <= 2 * 50
        assert (0, 999) in seen


@pytest.mark.tmux
def test_the_writer_spreads_its_lines_over_the_time_and_panes(server: Server) -> None:
    with server.panes(3) as panes:
        scene = Scene(server, panes, rate=100, seconds=0.5)
        seen = floor(scene).arrivals()
        moments = sorted(written for written, _ in seen.values())
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert len(seen) == 150
        assert scene.took >= 0.4
        assert statistics.pstdev(gaps) > 0.2 * statistics.mean(gaps), "they have random moments"


def test_a_writer_that_is_never_read_is_killed() -> None:
    with closing(Writer(["/dev/null"], rate=1, seconds=100)) as writer:
        writer.go()
        writer.kill()


@pytest.mark.skipif(not can_account(), reason="only Linux tells")
@pytest.mark.tmux
def test_cpu_is_that_of_this_process_and_of_its_children_apart(server: Server) -> None:
    meter = CpuMeter(server.pid)
    start = time.process_time()
    while time.process_time() < start + 0.05:
        pass
    used = meter.stop()
    assert used.own >= 0.05
    assert used.children < used.own
    assert cpu_of(server.pid) > 0
