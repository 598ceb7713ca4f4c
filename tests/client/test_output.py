"""The output of one pane and its readers: `tmuxcc.client.output` and `.streams`. No tmux here."""

from __future__ import annotations

import gc
import os
import resource
import signal
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from tmuxcc.client import spool
from tmuxcc.client.output import (
    CHUNK_OVERHEAD,
    MAX_CHUNK,
    MAX_PIECES,
    Chunk,
    ExitStatus,
    Gap,
    PaneOutput,
    Restarted,
    Snapshot,
)
from tmuxcc.client.streams import LineStream, LostOutput, OutputStream
from tmuxcc.errors import ConnectionClosed, PaneNotFound

NONCE = "0123456789abcdef" * 2
MARK = f"\x1b]6973;{NONCE};7;\x07".encode()
SMALL = 4 * CHUNK_OVERHEAD


def new_log(
    limit: int = 1 << 20,
    nonces: tuple[bytes, ...] = (),
    told: list[tuple[PaneOutput, bytes]] | None = None,
) -> PaneOutput:
    """A log; what it tells of marks that have come is put into `told`."""
    return PaneOutput(
        "%0", limit, nonces, None if told is None else lambda *mark: told.append(mark)
    )


async def exists() -> None:
    await trio.lowlevel.checkpoint()


def stream_of(
    log: PaneOutput, since: int | None = None, overflow: str = "drop", seed: object = None
) -> OutputStream:
    return OutputStream(
        log,
        since=since,
        overflow=overflow,  # type: ignore[arg-type]
        take_snapshot=seed,  # type: ignore[arg-type]
        check=exists,
    )


def drained(stream: OutputStream) -> list:
    """All that can be read at once; chunks that follow each other as one."""
    items: list = []
    while (item := stream.receive_nowait()) is not None:
        if items and isinstance(item, Chunk) and isinstance(items[-1], Chunk):
            items[-1] = Chunk(items[-1].offset, items[-1].data + item.data)
        else:
            items.append(item)
    return items


def lengths(items: list) -> list:
    return [(i.offset, len(i.data)) if isinstance(i, Chunk) else i for i in items]


# ---------------------------------------------------------------------------------- offsets, past


def test_offsets_count_the_bytes_since_the_beginning() -> None:
    log = new_log()
    stream = stream_of(log)
    for data in (b"one", b"", b"two", b"three"):
        log.receive(data)
        assert stream.receive_nowait() == (Chunk(stream.offset - len(data), data) if data else None)
    assert (log.start, log.end, stream.offset) == (0, 11, 11)


def test_what_nobody_has_looked_at_yet_comes_as_one_chunk() -> None:
    log = new_log()
    early, late = stream_of(log), stream_of(log)
    for data in (b"one", b"two"):
        log.receive(data)
    assert early.receive_nowait() == Chunk(0, b"onetwo")
    log.receive(b"three")
    log.gap("pause")
    log.receive(b"four")
    assert early.receive_nowait() == Chunk(6, b"three")
    assert [late.receive_nowait() for _ in range(4)] == [
        Chunk(0, b"onetwo"),
        Chunk(6, b"three"),
        Gap(11, None, "pause"),
        Chunk(11, b"four"),
    ]


def test_a_stream_that_begins_now_gets_what_comes_next() -> None:
    log = new_log()
    log.receive(b"one")
    stream = stream_of(log)
    log.receive(b"two")
    assert stream.receive_nowait() == Chunk(3, b"two")


@pytest.mark.parametrize(("size", "limit"), [(1, 1 << 20), (1000, 1 << 20), (30_000, 1 << 17)])
def test_a_chunk_is_bounded(size: int, limit: int) -> None:
    log = new_log(limit=limit)
    stream = stream_of(log)
    for _ in range(1000):
        log.receive(b"x" * size)
    chunks = []
    while (item := stream.receive_nowait()) is not None:
        if isinstance(item, Chunk):
            chunks.append(item)
    assert max(len(chunk.data) for chunk in chunks) <= max(size, min(MAX_CHUNK, limit // 8))
    assert max(len(chunk.data) for chunk in chunks) <= size * MAX_PIECES


def test_a_stream_begins_now_or_at_any_offset_of_the_past_or_future() -> None:
    log = new_log()
    log.receive(b"0123")
    log.receive(b"4567")
    for since in range(9):
        assert drained(stream_of(log, since)) == ([Chunk(since, b"01234567"[since:])][: 8 - since])
    assert drained(stream_of(log, -5)) == [Chunk(0, b"01234567")]
    now, later = stream_of(log), stream_of(log, 10)
    log.receive(b"89ab")
    log.receive(b"cd")
    assert drained(now) == [Chunk(8, b"89abcd")]
    assert drained(later) == [Chunk(10, b"abcd")]


def test_a_past_that_is_not_kept_any_more_is_a_gap_of_its_size() -> None:
    log = new_log(limit=1000)
    for _ in range(20):
        log.receive(b"x" * 100)
    assert 0 < log.start < log.end == 2000
    for since in (0, 1, log.start - 1):
        assert lengths(drained(stream_of(log, since))) == [
            Gap(since, log.start - since, "history"),
            (log.start, 2000 - log.start),
        ]
    assert lengths(drained(stream_of(log, log.start))) == [(log.start, 2000 - log.start)]


def test_a_gap_of_the_past_is_not_passed_over() -> None:
    log = new_log()
    log.gap("pause")
    log.receive(b"one")
    log.gap("pause")
    assert drained(stream_of(log, 0)) == [Gap(0, None, "pause"), Chunk(0, b"one"),
                                          Gap(3, None, "pause")]  # fmt: skip
    assert drained(stream_of(log, 1)) == [Chunk(1, b"ne"), Gap(3, None, "pause")]
    assert drained(stream_of(log, 3)) == [Gap(3, None, "pause")]
    assert drained(stream_of(log)) == []


def test_the_size_is_unknown_only_where_the_gap_spans_one_that_is() -> None:
    log = new_log(limit=1000)
    log.receive(b"x" * 100)
    log.gap("pause")
    for _ in range(20):
        log.receive(b"x" * 100)
    assert drained(stream_of(log, 0))[0] == Gap(0, None, "history")
    assert drained(stream_of(log, 100))[0] == Gap(100, None, "history")
    assert drained(stream_of(log, 101))[0] == Gap(101, log.start - 101, "history")


def test_the_past_is_a_gap_even_if_it_goes_on_being_forgotten() -> None:
    log = new_log(limit=1000)
    for _ in range(20):
        log.receive(b"x" * 100)
    start = log.start
    for overflow in ("drop", "spool"):
        stream = stream_of(log, 0, overflow)
        for _ in range(20):
            log.receive(b"x" * 100)
        items = lengths(drained(stream))
        assert items[0] == Gap(0, start, "history")
        if overflow == "drop":
            assert items[1] == Gap(start, log.start - start, "overflow")
        assert items[-1][0] + items[-1][1] == log.end
        assert sum(i.size if isinstance(i, Gap) else i[1] for i in items) == log.end
        start = log.start


# ------------------------------------------------------------------------------------------- gaps


def test_a_reader_that_is_too_slow_finds_a_gap_just_where_it_lost_something() -> None:
    log = new_log(limit=1000)
    slow, quick = stream_of(log), stream_of(log)
    log.receive(b"first")
    assert drained(slow) == [Chunk(0, b"first")]
    read = 0
    for _ in range(50):
        log.receive(b"x" * 100)
        read += sum(len(item.data) for item in drained(quick))
    assert read == log.end
    assert lengths(drained(slow)) == [
        Gap(5, log.start - 5, "overflow"),
        (log.start, log.end - log.start),
    ]
    assert (slow.dropped, quick.dropped) == (log.start - 5, 0)


def test_the_gap_at_a_pause_stands_in_order() -> None:
    log = new_log()
    stream = stream_of(log)
    log.receive(b"before")
    log.gap("pause")
    log.receive(b"behind")
    assert log.gaps == 1
    assert drained(stream) == [Chunk(0, b"before"), Gap(6, None, "pause"), Chunk(6, b"behind")]


def test_what_is_held_comes_behind_the_snapshot() -> None:
    log = new_log()
    plain = stream_of(log)
    log.receive(b"before")
    log.gap("seed")
    log.hold()
    log.hold()
    log.receive(b"hel")
    log.receive(b"d")
    assert drained(plain) == [Chunk(0, b"before"), Gap(6, None, "seed")]
    number = log.release(b"screen")
    assert log.item(number) == Snapshot(6, b"screen")
    assert drained(plain) == [Chunk(6, b"held")]
    assert log.next_number - number == 2


def test_a_lost_snapshot_is_no_loss_for_a_reader_that_wants_none() -> None:
    log = new_log(limit=SMALL)
    log.receive(b"one")
    stream = stream_of(log)
    log.hold()
    log.release(b"screen" * 100)
    log.receive(b"two")
    log.gap("pause")
    log.gap("pause")
    assert log.first_number == 2
    assert drained(stream) == [Chunk(3, b"two"), Gap(6, None, "pause"), Gap(6, None, "pause")]


def test_what_is_kept_is_bounded_whatever_it_is() -> None:
    log = new_log(limit=10_000)
    tracemalloc.start()
    try:
        for _ in range(3000):
            log.receive(b"x")
            log.gap("pause")
            log.hold()
            log.receive(b"y" * 100)
            log.release(b"screen" * 10)
        assert tracemalloc.get_traced_memory()[0] < 60_000
    finally:
        tracemalloc.stop()
    assert log.end == 3000 * 101


# ------------------------------------------------------------------------------------------ spool


def test_a_spooled_stream_loses_nothing_and_keeps_the_order() -> None:
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    data = os.urandom(30_000)
    for start in range(0, 10_000, 100):
        log.receive(data[start : start + 100])
    log.gap("pause")
    for start in range(10_000, 20_000, 100):
        log.receive(data[start : start + 100])
    assert drained(stream) == [
        Chunk(0, data[:10_000]),
        Gap(10_000, None, "pause"),
        Chunk(10_000, data[10_000:20_000]),
    ]
    # Once more, with the emptied file.
    for start in range(20_000, 30_000, 100):
        log.receive(data[start : start + 100])
    assert drained(stream) == [Chunk(20_000, data[20_000:])]
    assert stream.dropped == 0


def test_what_was_read_is_not_spooled_again() -> None:
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    log.receive(b"one")
    log.gap("pause")
    assert drained(stream) == [Chunk(0, b"one"), Gap(3, None, "pause")]
    for _ in range(20):
        log.receive(b"x" * 100)
    assert drained(stream) == [Chunk(3, b"x" * 2000)]


def test_what_is_spooled_waits_in_a_file_and_is_read_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "SPOOL_PIECE", 5000)
    log = new_log(limit=10_000)
    stream = stream_of(log, overflow="spool")
    line = b"x" * 1000
    tracemalloc.start()
    try:
        for _ in range(3000):
            log.receive(b"".join([line]))
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
    sizes = []
    while (item := stream.receive_nowait()) is not None:
        assert isinstance(item, Chunk)
        sizes.append(len(item.data))
    assert sum(sizes) == 3_000_000
    assert max(sizes) == 5000


def test_the_disk_gets_back_what_a_reader_has_read_that_never_catches_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "SPOOL_PIECE", 1000)
    monkeypatch.setattr(spool, "SPOOL_FILE", 5000)
    files: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def make_noted(**options: Any) -> IO[bytes]:
        files.append(make(**options))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", make_noted)
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    data = os.urandom(200_000)
    read = bytearray()
    for start in range(0, len(data), 1000):
        log.receive(data[start : start + 1000])
        if start >= 10_000:
            item = stream.receive_nowait()
            assert isinstance(item, Chunk)
            read += item.data
            assert sum(os.fstat(f.fileno()).st_size for f in files if not f.closed) <= 16_000
    assert len(read) < len(data)
    assert read + b"".join(item.data for item in drained(stream)) == data
    assert len(files) > 30
    stream.close()
    assert all(file.closed for file in files)


def test_a_large_backlog_is_in_a_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SPOOL_FILE", 1000)
    before = len(list(Path("/dev/fd").iterdir()))
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    data = os.urandom(1_000_000)
    for start in range(0, len(data), 1000):
        log.receive(data[start : start + 1000])
    assert len(list(Path("/dev/fd").iterdir())) - before < 60
    assert b"".join(item.data for item in drained(stream)) == data


@contextmanager
def file_size_limited(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_is_a_gap_behind_what_was_written() -> None:
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    with file_size_limited(5050):
        for _ in range(100):
            log.receive(b"x" * 100)
    items = lengths(drained(stream))
    # The limit lies inside a chunk: what could not be written whole is part of the gap.
    assert items == [
        (0, 5000),
        Gap(5000, log.start - 5000, "spool"),
        (log.start, log.end - log.start),
    ]
    assert stream.dropped == log.start - 5000
    for _ in range(100):
        log.receive(b"x" * 100)
    assert lengths(drained(stream))[0] == Gap(10_000, log.start - 10_000, "spool")


def test_without_a_place_for_the_file_the_loss_is_a_gap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    for _ in range(100):
        log.receive(b"x" * 100)
    assert drained(stream)[0] == Gap(0, log.start, "spool")


def test_the_file_is_gone_with_the_stream() -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/dev/fd").iterdir()))

    before = open_files()
    for close in (True, False):
        log = new_log(limit=1000)
        stream = stream_of(log, overflow="spool")
        for _ in range(100):
            log.receive(b"x" * 100)
        assert open_files() == before + 1
        if close:
            stream.close()
            stream.close()
        else:
            del stream
        assert open_files() == before
        for _ in range(100):
            log.receive(b"x" * 100)
        assert open_files() == before


# ------------------------------------------------------------------------------------------- mark


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (b";0;", ExitStatus(0, None)),
        (b";255;", ExitStatus(255, None)),
        (b";;9", ExitStatus(None, 9)),
        (b";;", ExitStatus(None, None)),
    ],
)
def test_the_mark_is_taken_out_wherever_it_is_cut(end: bytes, status: ExitStatus) -> None:
    mark = b"\x1b]6973;" + NONCE.encode() + end + b"\x07"
    data = b"out\x1b[m\x1b]6973;" + b"put" + mark
    cuts = [[cut] for cut in range(len(data))] + [list(range(1, len(data)))]
    for cut in cuts:
        told: list[tuple[PaneOutput, bytes]] = []
        log = new_log(nonces=(NONCE.encode(),), told=told)
        stream = stream_of(log)
        for start, stop in pairwise([0, *cut, len(data)]):
            assert not log.ended
            log.receive(data[start:stop])
        assert log.ended
        assert told == [(log, NONCE.encode())]
        assert log.exit_status == status
        assert b"".join(c.data for c in drained(stream)) == data[: -len(mark)]


def test_what_comes_behind_the_mark_is_ignored() -> None:
    log = new_log(nonces=(NONCE.encode(),))
    stream = stream_of(log)
    log.receive(b"out" + MARK + b"put")
    log.receive(b"more")
    log.gap("pause")
    log.finish(ExitStatus(0, None))
    log.fail(ConnectionClosed())
    assert drained(stream) == [Chunk(0, b"out")]
    assert (log.exit_status, log.failure, log.end, log.gaps) == (ExitStatus(7, None), None, 3, 0)


@pytest.mark.parametrize(
    "forged",
    [
        b"\x1b]6973;" + b"f" * 32 + b";0;\x07",
        MARK[:-1] + b"\x1b\\",
        MARK.replace(b";7;", b";7777;"),
        MARK.replace(b";7;", b";7"),
        b"\x1b]6973;\x07",
        b"\x1b]6973;" + b"0" * 100,
        MARK[:-1],
        b"\x1b",
        b"\x1b]69",
    ],
)
def test_a_forged_or_unfinished_mark_is_output(forged: bytes) -> None:
    for cut in range(len(forged) + 1):
        told: list[tuple[PaneOutput, bytes]] = []
        log = new_log(nonces=(NONCE.encode(),), told=told)
        stream = stream_of(log)
        log.receive(b"a" + forged[:cut])
        log.receive(forged[cut:])
        log.receive(b"b" + forged)
        assert not log.ended
        log.finish(ExitStatus(None, None))
        assert not told
        [chunk] = drained(stream)
        assert chunk == Chunk(0, b"a" + forged + b"b" + forged)
        assert log.end == len(chunk.data)


def test_a_mark_that_is_repeated_is_neither_output_nor_the_end_of_the_next_program() -> None:
    """A wrapper repeats it on its way out, when the next program may be on its way in."""
    mark, size = b"\x1b]6973;" + NONCE.encode() + b";0;\x07", 20
    for cut in range(len(mark)):
        log = new_log(nonces=(NONCE.encode(), b"0" * 32))
        log.kept_open = True
        stream = stream_of(log)
        log.receive(b"one" + mark)
        log.restart()
        repeated = b"two" + mark + b"three" * size + mark + b"four"
        log.receive(repeated[:cut])
        log.receive(repeated[cut:])
        assert log.exit_status is None
        chunks = [item.data for item in drained(stream) if isinstance(item, Chunk)]
        assert b"".join(chunks) == b"onetwo" + b"three" * size + b"four"


def test_a_mark_behind_a_forged_one_ends_the_output() -> None:
    log = new_log(nonces=(NONCE.encode(),))
    stream = stream_of(log)
    forged = b"\x1b]6973;" + b"f" * 32 + b";0;\x07"
    log.receive(forged + forged + MARK)
    assert drained(stream) == [Chunk(0, forged + forged)]
    assert log.exit_status == ExitStatus(7, None)


def test_a_mark_that_is_held_ends_the_output_when_it_is_released() -> None:
    log = new_log(nonces=(NONCE.encode(),))
    stream = stream_of(log)
    log.hold()
    log.receive(b"one ")
    log.receive(b"two" + MARK[:9])
    log.receive(MARK[9:])
    assert log.exit_status is None
    log.release(b"screen")
    assert log.exit_status == ExitStatus(7, None)
    assert log.item(0) == Snapshot(0, b"screen")
    assert drained(stream) == [Chunk(0, b"one two")]


def test_a_mark_that_is_held_goes_before_what_is_said_of_the_end() -> None:
    for end in (
        lambda log: log.finish(ExitStatus(None, None)),
        lambda log: log.fail(ConnectionClosed()),
    ):
        log = new_log(nonces=(NONCE.encode(),))
        stream = stream_of(log)
        log.hold()
        log.receive(b"last words" + MARK)
        log.gap("killed")
        end(log)
        assert drained(stream) == [Chunk(0, b"last words")]
        assert (log.exit_status, log.failure) == (ExitStatus(7, None), None)


def test_what_is_held_can_be_moved_to_another_log() -> None:
    log, other = new_log(), new_log(nonces=(NONCE.encode(),))
    stream = stream_of(other)
    log.hold()
    log.receive(b"one")
    log.gap("pause")
    log.receive(b"two" + MARK)
    other.receive(b"zero ")
    log.move_held(other)
    assert drained(stream) == [Chunk(0, b"zero one"), Gap(8, None, "pause"), Chunk(8, b"two")]
    assert other.exit_status == ExitStatus(7, None)
    log.receive(b"more")
    assert log.end == 4


def test_what_is_held_is_counted_where_the_output_is_muted() -> None:
    log = new_log()
    stream = stream_of(log)
    log.mute()
    log.hold()
    log.receive(b"held")
    log.release(None)
    log.unmute()
    assert drained(stream) == [Gap(0, 4, "limit")]


@pytest.mark.parametrize("held", [False, True])
def test_what_may_be_a_mark_is_output_where_something_is_missing(held: bool) -> None:
    log = new_log(nonces=(NONCE.encode(),))
    stream = stream_of(log)
    if held:
        log.hold()
    log.receive(b"one" + MARK[:5])
    log.gap("pause")
    log.receive(MARK[5:])
    log.finish(ExitStatus(None, None))
    items = drained(stream)
    assert b"".join(i.data for i in items if isinstance(i, Chunk)) == b"one" + MARK
    assert held or items == [Chunk(0, b"one" + MARK[:5]), Gap(8, None, "pause"),
                             Chunk(8, MARK[5:])]  # fmt: skip


def test_the_end_of_the_connection_gives_up_what_is_held() -> None:
    log = new_log(nonces=(NONCE.encode(),))
    stream = stream_of(log)
    log.hold()
    log.receive(b"held\x1b]6973;ab")
    log.fail(ConnectionClosed())
    assert drained(stream) == [Chunk(0, b"held\x1b]6973;ab")]


# ------------------------------------------------------------------------------------ any history

data = st.binary(min_size=1, max_size=40) | st.just(b"z" * 700)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), data),
        st.tuples(st.just("receive"), data),
        st.tuples(st.just("gap"), st.sampled_from(["pause", "seed"])),
        st.tuples(st.just("hold"), st.none()),
        st.tuples(st.just("release"), st.none() | st.just(b"screen") | st.just(b"s" * 500)),
        st.tuples(st.just("open"), st.tuples(st.sampled_from([None, 0, 1, 50, 99]), st.booleans())),
        st.tuples(st.just("read"), st.tuples(st.integers(0, 9), st.integers(1, 5))),
        st.tuples(st.just("close"), st.integers(0, 9)),
    ),
    max_size=60,
)


class _Model:
    """A reader's places in the true history: a list of bytes (int) and of gaps (str)."""

    def __init__(self, truth: list, since: int | None) -> None:
        self.truth = truth
        offset = sum(isinstance(atom, int) for atom in truth)
        first, seen = 0, 0
        while seen < (offset if since is None else since):
            seen += isinstance(truth[first], int)
            first += 1
        self.places = {len(truth) if since is None else first}

    def offset(self, place: int) -> int:
        return sum(isinstance(atom, int) for atom in self.truth[:place])

    def read(self, item: Chunk | Gap, offset_behind: int) -> None:
        """Go on as `item` says; no place is left where it is not true."""
        assert {self.offset(place) for place in self.places} == {item.offset}
        if isinstance(item, Chunk):
            wanted = list(item.data)
            self.places = {
                place + len(wanted)
                for place in self.places
                if self.truth[place : place + len(wanted)] == wanted
            }
        elif item.cause in ("pause", "seed"):
            assert item.size is None
            self.places = {p + 1 for p in self.places if self.truth[p : p + 1] == [item.cause]}
        elif item.size is not None:
            self.places = {
                place + item.size
                for place in self.places
                if all(isinstance(atom, int) for atom in self.truth[place : place + item.size])
            }
        else:
            self.places = {
                behind
                for place in self.places
                for behind in range(place + 1, len(self.truth) + 1)
                if self.offset(behind) == offset_behind
                and any(isinstance(atom, str) for atom in self.truth[place:behind])
            }
        assert item != Gap(item.offset, 0, getattr(item, "cause", ""))
        assert {self.offset(place) for place in self.places} == {offset_behind}


@given(steps, st.sampled_from([SMALL, 1000, 1 << 20]))
@example([("gap", "pause"), ("open", (0, False)), ("read", (0, 1))], SMALL)
def test_any_history_is_told_truly_to_every_reader(script: list, limit: int) -> None:
    log = new_log(limit=limit)
    truth: list = []
    held: list | None = None
    readers: list = []

    def read(stream: OutputStream, model: _Model, count: int) -> None:
        for _ in range(count):
            peeked = stream.peek_gap()
            item = stream.receive_nowait()
            assert peeked is None or peeked == item
            if item is None:
                assert len(truth) in model.places
                return
            model.read(item, stream.offset)
            assert not (isinstance(item, Gap) and item.cause == "overflow" and model.spooled)

    for verb, argument in script:
        if verb == "receive":
            log.receive(argument)
            (truth if held is None else held).extend(argument)
        elif verb == "gap" and held is None:
            log.gap(argument)
            truth.append(argument)
        elif verb == "hold":
            log.hold()
            held = [] if held is None else held
        elif verb == "release":
            log.release(argument)
            truth += held or []
            held = None
        elif verb == "open":
            since, spooled = argument
            since = None if since is None else min(since, log.end)
            model = _Model(truth, since)
            model.spooled = spooled
            readers.append((stream_of(log, since, "spool" if spooled else "drop"), model))
        elif verb == "read" and readers:
            which, count = argument
            read(*readers[which % len(readers)], count)
        elif verb == "close" and readers:
            readers.pop(argument % len(readers))[0].close()
        kept = [log.item(n) for n in range(log.first_number, log.next_number)]
        size = sum(CHUNK_OVERHEAD + len(getattr(item, "data", b"")) for item in kept)
        assert size == log._size
        assert size <= limit + limit // 8 or len(kept) == 1
        assert log.end == sum(isinstance(atom, int) for atom in truth)
    log.finish(ExitStatus(0, None))
    truth += held or []
    for stream, model in readers:
        read(stream, model, 1000)
        assert stream.receive_nowait() is None
        stream.close()


# ---------------------------------------------------------------------------------------- waiting


async def test_a_reader_waits_and_is_woken() -> None:
    log = new_log()
    seen: list = []

    async def read(stream: OutputStream) -> None:
        async with stream:
            async for item in stream:
                seen.append(item)  # noqa: PERF401 - one by one, as they come

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, stream_of(log))
        nursery.start_soon(read, stream_of(log))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        log.receive(b"one")
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [Chunk(0, b"one")] * 2
        log.gap("pause")
        await trio.testing.wait_all_tasks_blocked()
        assert seen[2:] == [Gap(3, None, "pause")] * 2
        log.hold()
        log.receive(b"two")
        log.release(None)
        await trio.testing.wait_all_tasks_blocked()
        assert seen[4:] == [Chunk(3, b"two")] * 2
        log.finish(ExitStatus(0, None))
    assert len(seen) == 6
    assert log.exit_status is not None
    assert log.exit_status.ok


async def test_a_mark_wakes_the_reader_too() -> None:
    log = new_log(nonces=(NONCE.encode(),))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream_of(log).receive)
        await trio.testing.wait_all_tasks_blocked()
        log.receive(MARK)


async def test_the_end_of_the_connection_is_raised_behind_the_last_byte_every_time() -> None:
    log = new_log()
    stream = stream_of(log)
    log.receive(b"last")
    log.fail(ConnectionClosed("too far behind"))
    log.fail(ConnectionClosed("again"))
    assert await stream.receive() == Chunk(0, b"last")
    depths = set()
    for _ in range(5):
        with pytest.raises(ConnectionClosed, match="too far behind") as caught:
            await stream.receive()
        depths.add(len(caught.traceback))
    assert len(depths) == 1, "the traceback grows"


async def test_a_cancelled_wait_loses_nothing() -> None:
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool")
    collected = bytearray()
    for number in range(200):
        with trio.CancelScope() as scope:
            if number % 3 == 0:
                scope.cancel()
            log.receive(b"%050d" % number)
            if number % 5 == 0:
                scope.cancel()
            async for item in stream:
                assert isinstance(item, Chunk)
                collected += item.data
                if number % 7 == 0 or len(collected) == log.end:
                    scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    log.finish(ExitStatus(0, None))
    async for item in stream:
        assert isinstance(item, Chunk)
        collected += item.data
    assert bytes(collected) == b"".join(b"%050d" % number for number in range(200))


async def test_one_task_reads_a_stream_at_a_time() -> None:
    log = new_log()
    stream = stream_of(log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive()
        log.receive(b"x")
    log.receive(b"y")
    assert await stream.receive() == Chunk(1, b"y")


async def test_closing_ends_the_iteration_of_another_task() -> None:
    log = new_log()
    stream = stream_of(log)

    async def read() -> None:
        async for _ in stream:
            raise AssertionError("nothing was written")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        stream.close()
    log.receive(b"x")
    assert await stream.receive() is None


@pytest.mark.parametrize("overflow", ["drop", "spool"])
async def test_a_loop_that_is_broken_off_leaves_nothing_behind(overflow: str) -> None:
    log = new_log(limit=1000)
    for _ in range(2):
        log.receive(b"x" * 100)
        async for item in stream_of(log, log.start, overflow):
            if isinstance(item, Chunk):
                if item.offset + len(item.data) > 3000:
                    break
                for _ in range(20):
                    log.receive(b"x" * 100)
    gc.collect()
    assert len(log.spooling) == len(log.seeded) == len(log._waiting) == 0


async def test_a_pane_that_does_not_exist_is_told_to_whoever_waits_for_it() -> None:
    async def missing() -> None:
        raise PaneNotFound("%9")

    log = new_log()
    for begin in ("__aenter__", "receive"):
        stream = OutputStream(log, since=None, overflow="drop", take_snapshot=None, check=missing)
        with pytest.raises(PaneNotFound):
            await getattr(stream, begin)()
    log.receive(b"kept")
    stream = OutputStream(log, since=0, overflow="drop", take_snapshot=None, check=missing)
    assert await stream.receive() == Chunk(0, b"kept")


def test_a_wrong_overflow_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="'drop' or 'spool', not 'block'"):
        stream_of(new_log(), overflow="block")


def test_only_code_zero_is_well() -> None:
    assert ExitStatus(0, None).ok
    assert not ExitStatus(1, None).ok
    assert not ExitStatus(None, 9).ok
    assert not ExitStatus(None, None).ok


def test_the_last_word_of_the_program_tells_whether_it_reads_pastes() -> None:
    log = new_log()
    assert not log.reads_pastes()
    log.receive(b"$ \x1b[?20")
    log.gap("pause")
    log.receive(b"\x1b[?2004h$ ")
    assert log.reads_pastes()
    log.receive(b"ls\x1b[?2004l\r\n")
    assert not log.reads_pastes()


# -------------------------------------------------------------------------------------- snapshots


class _Seeder:
    """Takes snapshots of a log; `behind` is written before the reader sees that there is one."""

    def __init__(self, log: PaneOutput, behind: bytes = b"") -> None:
        self.log = log
        self.behind = behind
        self.taken = 0

    async def __call__(self) -> int:
        await trio.lowlevel.checkpoint()
        self.taken += 1
        self.log.gap("seed")
        self.log.hold()
        number = self.log.release(b"screen %d" % self.taken)
        self.log.receive(self.behind)
        return number


async def test_a_seeded_stream_begins_with_a_snapshot_and_what_follows_it() -> None:
    for entered in (False, True):
        log = new_log()
        log.receive(b"before")
        seeder = _Seeder(log, b"behind")
        stream = stream_of(log, seed=seeder)
        if entered:
            await stream.__aenter__()
        assert await stream.receive() == Snapshot(6, b"screen 1")
        log.receive(b" it")
        assert drained(stream) == [Chunk(6, b"behind it")]
        assert seeder.taken == 1


async def test_another_snapshot_comes_behind_each_overflow() -> None:
    log = new_log(limit=1000)
    seeder = _Seeder(log)
    async with stream_of(log, seed=seeder) as stream:
        assert await stream.receive() == Snapshot(0, b"screen 1")
        for _ in range(20):
            log.receive(b"x" * 100)
        assert await stream.receive() == Gap(0, log.start, "overflow")
        assert await stream.receive() == Snapshot(2000, b"screen 2")
        log.receive(b"y")
        assert await stream.receive() == Chunk(2000, b"y")


async def test_a_snapshot_behind_a_pause_is_taken_from_the_log() -> None:
    log = new_log()
    seeder = _Seeder(log)
    async with stream_of(log, seed=seeder) as stream:
        assert await stream.receive() == Snapshot(0, b"screen 1")
        log.gap("pause")
        log.hold()
        log.release(b"resumed")
        assert await stream.receive() == Gap(0, None, "pause")
        assert await stream.receive() == Snapshot(0, b"resumed")
    assert seeder.taken == 1
    assert not log.seeded


async def test_a_snapshot_that_is_gone_already_is_taken_again() -> None:
    log = new_log(limit=1000)
    seeder = _Seeder(log, b"x" * 1200)
    async with stream_of(log, seed=seeder) as stream:
        seeder.behind = b""
        assert await stream.receive() == Gap(0, None, "overflow")
        assert await stream.receive() == Snapshot(1200, b"screen 2")


async def test_a_pane_that_has_ended_is_not_asked_for_a_snapshot() -> None:
    log = new_log()
    log.finish(ExitStatus(0, None))
    seeder = _Seeder(log)
    async with stream_of(log, seed=seeder) as stream:
        assert await stream.receive() is None
    assert await stream_of(log, seed=seeder).receive() is None
    assert seeder.taken == 0


async def test_a_pane_that_ends_while_its_snapshot_is_taken_just_ends() -> None:
    log = new_log()

    async def ends() -> int:
        await trio.lowlevel.checkpoint()
        log.receive(b"last")
        log.finish(ExitStatus(0, None))
        return log.release(None)

    async with stream_of(log, seed=ends) as stream:
        assert await stream.receive() == Chunk(0, b"last")
        assert await stream.receive() is None


async def test_a_spooled_stream_goes_on_from_its_snapshot() -> None:
    log = new_log(limit=1000)
    stream = stream_of(log, overflow="spool", seed=_Seeder(log))
    for _ in range(20):
        log.receive(b"x" * 100)
    async with stream:
        log.receive(b"y")
        assert await stream.receive() == Snapshot(2000, b"screen 1")
        assert await stream.receive() == Chunk(2000, b"y")


# ------------------------------------------------------------------------------------------ lines


async def all_lines(log: PaneOutput, *, escapes: bool = False) -> list[str]:
    async with LineStream(stream_of(log, 0), escapes=escapes) as lines:
        return [line async for line in lines]


async def test_lines_come_whole_and_the_last_one_at_the_end() -> None:
    log = new_log()
    for piece in (b"o", b"ne\r\n\x1b[1mtw", b"o\x1b[m\r\nthree"):
        log.receive(piece)
    log.finish(ExitStatus(0, None))
    assert await all_lines(log) == ["one", "two", "three"]
    assert await all_lines(log, escapes=True) == ["one", "\x1b[1mtwo\x1b[m", "three"]


async def test_a_line_says_where_output_was_lost() -> None:
    log = new_log()
    log.receive(b"one\nbeg")
    log.gap("pause")
    log.receive(b"inning\n")
    log.finish(ExitStatus(0, None))
    lines = await all_lines(log)
    assert lines == ["one", "beg", "[tmuxcc: some output lost here: pause]", "inning"]
    assert [type(line) for line in lines] == [str, str, LostOutput, str]
    assert lines[2].gap == Gap(7, None, "pause")  # type: ignore[attr-defined]


async def test_lost_bytes_are_counted() -> None:
    log = new_log(limit=1000)
    lines = LineStream(stream_of(log), escapes=False)
    for _ in range(20):
        log.receive(b"x" * 99 + b"\n")
    assert await lines.__anext__() == f"[tmuxcc: {log.start} bytes lost here: overflow]"
    assert lines.dropped == log.start


async def test_the_last_line_is_given_before_the_connection_is_told_to_be_closed() -> None:
    log = new_log()
    log.receive(b"one\ntwo")
    log.fail(ConnectionClosed())
    lines = LineStream(stream_of(log, 0), escapes=False)
    assert [await lines.__anext__() for _ in range(2)] == ["one", "two"]
    for _ in range(2):
        with pytest.raises(ConnectionClosed):
            await lines.__anext__()


async def test_a_cancelled_wait_for_a_line_loses_no_part_of_it() -> None:
    log = new_log()
    lines = LineStream(stream_of(log), escapes=False)
    log.receive(b"beg")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.__anext__)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    log.receive(b"inning\n")
    assert await lines.__anext__() == "beginning"


async def test_many_readers_share_one_log() -> None:
    log = new_log(limit=100_000)
    counts = dict.fromkeys(range(50), 0)

    async def read(name: int) -> None:
        async with LineStream(stream_of(log), escapes=False) as lines:
            async for line in lines:
                assert line == f"line {counts[name]}"
                counts[name] += 1

    async with trio.open_nursery() as nursery:
        for name in counts:
            nursery.start_soon(read, name)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(100):
            log.receive(b"line %d\r\n" % number)
            if number % 10 == 0:
                await trio.lowlevel.checkpoint()
        log.finish(ExitStatus(0, None))
    assert set(counts.values()) == {100}


def test_slow_readers_cost_nothing_more() -> None:
    log = new_log(limit=100_000)
    streams = [stream_of(log, 0) for _ in range(200)]
    tracemalloc.start()
    try:
        for _ in range(2000):
            log.receive(b"".join([b"x" * 1000]))
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()
    assert {drained(stream)[0] for stream in streams[:1]} == {Gap(0, log.start, "overflow")}


# One program after the other, and what a program is not allowed to write


def test_a_restart_stands_where_it_happened_and_the_stream_goes_on() -> None:
    log = new_log()
    stream = stream_of(log)
    log.kept_open = True
    log.receive(b"one")
    log.finish(ExitStatus(3, None))
    assert not log.ended
    log.restart()
    log.receive(b"two")
    log.finish(ExitStatus(0, None))
    assert drained(stream) == [
        Chunk(0, b"one"),
        Restarted(3, ExitStatus(3, None)),
        Chunk(3, b"two"),
    ]
    assert (log.last_status, log.exit_status) == (ExitStatus(3, None), ExitStatus(0, None))
    assert not log.ended
    log.kept_open = False
    assert log.ended


async def test_a_stream_of_one_program_ends_with_it_though_another_may_follow() -> None:
    log = new_log()
    log.kept_open = True
    stream = OutputStream(
        log, since=0, overflow="drop", take_snapshot=None, check=exists, one_program=True
    )
    log.receive(b"one")
    log.finish(ExitStatus(0, None))
    assert await stream.receive() == Chunk(0, b"one")
    assert await stream.receive() is None


async def test_an_unfinished_line_ends_where_its_program_does() -> None:
    log = new_log()
    log.kept_open = True
    log.receive(b"half")
    log.finish(ExitStatus(0, None))
    log.restart()
    log.receive(b"whole\n")
    log.kept_open = False
    log.finish(ExitStatus(0, None))
    lines = LineStream(stream_of(log, 0), escapes=False)
    assert [line async for line in lines] == ["half", "whole"]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=30), st.integers(0, 300))
def test_what_a_muted_pane_writes_is_counted_exactly(
    pieces: list[tuple[bool, bytes]], since: int
) -> None:
    log = new_log()
    stream = stream_of(log)
    muted = b"".join(data for is_muted, data in pieces if is_muted)
    for is_muted, data in pieces:
        if is_muted:
            log.mute()
        else:
            log.unmute()
        log.receive(data)
    log.finish(ExitStatus(0, None))
    items = drained(stream)
    kept = b"".join(item.data for item in items if isinstance(item, Chunk))
    gaps = [item for item in items if isinstance(item, Gap)]
    assert kept == b"".join(data for is_muted, data in pieces if not is_muted)
    assert sum(gap.size or 0 for gap in gaps) == len(muted) == stream.dropped
    assert all(gap.cause == "limit" for gap in gaps)
    assert log.end == len(kept) + len(muted)
    # Offsets fit together, from wherever one begins to read.
    for start in (0, min(since, log.end)):
        offset = start
        for item in drained(stream_of(log, start)):
            assert item.offset == offset
            offset += len(item.data) if isinstance(item, Chunk) else item.size or 0
        assert offset == log.end


def test_a_pause_while_muted_is_told_and_muting_goes_on() -> None:
    log = new_log()
    stream = stream_of(log)
    log.mute()
    log.receive(b"12345")
    log.gap("pause")
    log.receive(b"678")
    assert log.muted
    log.unmute()
    assert drained(stream) == [Gap(0, 5, "limit"), Gap(5, None, "pause"), Gap(5, 3, "limit")]


def test_the_end_of_a_muted_program_is_seen() -> None:
    log = new_log(nonces=(NONCE.encode(),))
    stream = stream_of(log)
    log.mute()
    log.receive(b"lost\x1b]6973;" + NONCE.encode() + b";7;\x07")
    assert log.exit_status == ExitStatus(7, None)
    assert drained(stream) == [Gap(0, 4, "limit")]


@given(st.lists(st.sampled_from([b"\x1b[?2004h", b"\x1b[?2004l", b"text", b"\x1b["]), max_size=12))
def test_the_wish_for_bracketed_pastes_is_known_however_it_is_cut(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    wanted = data.rfind(b"\x1b[?2004h") > data.rfind(b"\x1b[?2004l")
    for step in (1, 3, 7, 8, 9, 100):
        log = new_log()
        for start in range(0, len(data), step):
            log.receive(data[start : start + step])
            if start % 2:
                log.reads_pastes()
        assert log.reads_pastes() == wanted
