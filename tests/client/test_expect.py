"""Looking for text in pieces, and past what was typed: `tmuxcc.client.expect`."""

from __future__ import annotations

import re
import tracemalloc

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from tmuxcc.client import expect
from tmuxcc.client.expect import TextWindow, WaitResult, compile_patterns
from tmuxcc.client.output import PaneOutput
from tmuxcc.client.pane import Pane
from tmuxcc.client.text import strip_sequences

from .test_text import cuts, nasty, pieces

SEQUENCES = (
    "\x1b[1;31m", "\x1b[m", "\x1b]0;ready\x07", "\x1b]8;;http://ready\x1b\\", "\x1bPready\x1b\\",
    "\x1b(B", "\x1b[?2004h", "\x1b=", "\x07", "\r",
)  # fmt: skip


def found(chunks: list[bytes], *patterns: str, typed: str = "") -> list[tuple[int, str]]:
    """What is found in `chunks` if every match is taken away."""
    window = TextWindow()
    window.expect_echo(typed)
    results = []
    for chunk in chunks:
        window.receive(chunk)
        while (result := window.search(compile_patterns(patterns))) is not None:
            index, match = result
            results.append((index, match[0]))
            window.consume(match.end())
    return results


# ----------------------------------------------------------------------------------------- pieces


def test_text_is_found_where_it_is_cut() -> None:
    assert found([b"rea", b"dy", b" set"], "ready", "set") == [(0, "ready"), (1, "set")]


@given(
    st.lists(st.sampled_from([*SEQUENCES, "r", "e", "ea", "d", "y", "ready", " ", "\n", "é漢🚀"])),
    cuts,
)
@example(["\x1b]0;" + "x" * 5000 + "ready\x07", "ready"], [4600])
@example(["\x1b]0;\udcff\udcff" + "ready\x07", "ready"], [9])
def test_any_chunks_find_the_same(parts: list[str], at: list[int]) -> None:
    data = "".join(parts).encode("utf-8", "surrogateescape")
    text = strip_sequences(data.decode("utf-8", "replace"))
    expected = [(0, "ready")] * text.count("ready")
    assert found(pieces(data, at), "ready") == expected
    assert found(pieces(data, [*range(len(data))]), "ready") == expected


@given(nasty, cuts)
def test_any_chunks_give_the_same_text(data: bytes, at: list[int]) -> None:
    window = TextWindow()
    for piece in pieces(data, at):
        window.receive(piece)
    whole = TextWindow()
    whole.receive(data)
    assert window.text == whole.text


def test_a_sequence_without_end_takes_no_room() -> None:
    for start in (b"\x1b]0;", b"\x1b[1", b"\x1b(", b"\x1bP"):
        window = TextWindow()
        window.receive(start)
        filler = (b" " if start == b"\x1b(" else b"1") * 5000
        for _ in range(50):
            window.receive(filler)
        assert len(window._raw) < 10
        window.receive(b"m\x1b\\ready")
        assert window.text.endswith("ready")
        assert "1" not in window.text


# ------------------------------------------------------------------------------------------ order


def test_the_earliest_match_wins_and_the_first_pattern_where_two_begin_at_the_same_place() -> None:
    window = TextWindow()
    window.receive(b"one two three")
    patterns = compile_patterns(["three", "two", "t", re.compile("TWO", re.IGNORECASE)])
    result = window.search(patterns)
    assert result is not None
    assert (result[0], result[1][0]) == (1, "two")


def test_what_is_consumed_is_not_found_again() -> None:
    window = TextWindow()
    window.receive(b"ready and ready")
    [pattern] = compile_patterns("ready")
    for before in ("ready", " and ready"):
        result = window.search([pattern])
        assert result is not None
        assert window.consume(result[1].end()) == before
    assert window.search([pattern]) is None


def test_anchors_stand_for_each_line() -> None:
    window = TextWindow()
    window.receive(b"one\r\ntwo\r\nthree")
    assert [m[1].span() for p in ("^two$", "e$") if (m := window.search(compile_patterns(p)))] == [
        (4, 7),
        (2, 3),
    ]


def test_patterns_may_be_one_or_many_and_compiled_ones_stay_as_they_are() -> None:
    own = re.compile("x", re.DOTALL)
    assert compile_patterns(own) == [own]
    assert compile_patterns("a") == [re.compile("a", re.MULTILINE)]
    assert compile_patterns(["a", own]) == [re.compile("a", re.MULTILINE), own]
    assert compile_patterns(()) == []


def test_only_a_match_is_true() -> None:
    assert WaitResult("matched", 0, None, "")
    assert not any(WaitResult(o, 0, None, "") for o in ("stopped", "exited", "gap"))


# ------------------------------------------------------------------------------------------- echo

ECHOES = {
    "plain": b"$ echo ready\r\n",
    "highlighted": b"$ \x1b[32mecho\x1b[m \x1b[1mready\x1b[m\x1b[K\r\n",
    "wrapped": b"$ echo r \rea \rdy\r\n",
    "wrapped by the terminal": b"$ echo re\r\nady\r\n",
    "drawn again": b"$ \x1b[7mecho ready\x1b[m\r\x1b[2C\x1b[Kecho ready\r\n",
    "drawn thrice": b"$ echo ready\r$ echo ready\r$ echo ready\r\n",
    "wrapped and drawn again": b"$ echo rea \rdy\x1b[Aecho rea \rdy\r\n",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_an_echo_is_never_found_however_it_is_cut(echo: bytes) -> None:
    data = echo + b"ready\r\n"
    for cut in range(len(data)):
        assert found(pieces(data, [cut]), "ready", typed="echo ready") == [(0, "ready")]
    assert found(pieces(data, [*range(len(data))]), "ready", typed="echo ready") == [(0, "ready")]


@given(st.sampled_from(sorted(ECHOES)), cuts)
def test_a_part_of_an_echo_is_never_found(name: str, at: list[int]) -> None:
    assert found(pieces(ECHOES[name], at), "re", "ech", "o r", typed="echo ready") == []


def test_the_output_is_found_though_it_looks_like_the_echo() -> None:
    data = b"$ echo ready\r\necho ready\r\n"
    assert found([data], "echo ready", typed="echo ready") == [(0, "echo ready")]


def test_the_echo_of_each_line_is_taken_out() -> None:
    data = b"> first\r\n> second\r\nfirst\r\nsecond\r\n"
    assert found([data], "first", "second", typed="first\n\nsecond\n") == [
        (0, "first"),
        (1, "second"),
    ]


def test_what_was_typed_is_found_once_its_echo_is_not_waited_for() -> None:
    window = TextWindow()
    window.expect_echo("ready")
    window.forget_echoes()
    window.receive(b"ready")
    assert window.search(compile_patterns("ready")) is not None


def test_other_text_is_found_while_the_echo_is_still_coming() -> None:
    window = TextWindow()
    window.expect_echo("echo ready")
    window.receive(b"warning\r\n$ echo rea")
    assert window.search(compile_patterns("rea")) is None
    result = window.search(compile_patterns("warning"))
    assert result is not None
    window.consume(result[1].end())
    window.receive(b"dy\r\nready")
    result = window.search(compile_patterns("ready"))
    assert result is not None
    assert window.text[: result[1].start()] == "\n$ \n"


def test_consuming_between_two_drawings_of_an_echo_keeps_its_place() -> None:
    window = TextWindow()
    window.expect_echo("ls")
    window.receive(b"hello $ ls")
    result = window.search(compile_patterns("hello"))
    assert result is not None
    window.consume(result[1].end())
    window.receive(b"\r$ ls\r\nls: ready")
    assert window.text == " $ $ \nls: ready"


# ----------------------------------------------------------------------------------------- bounds


def test_old_text_is_dropped_and_the_newest_kept() -> None:
    window = TextWindow()
    window.receive(b"early ")
    for _ in range(40):
        window.receive(b"x" * 10_000)
    window.receive(b" late")
    assert expect.MAX_TEXT <= len(window.text) <= 2 * expect.MAX_TEXT
    assert window.text.endswith("x late")
    assert not window.text.startswith("e")


def test_a_flood_needs_no_more_room_than_the_text_that_is_kept() -> None:
    window = TextWindow()
    window.expect_echo("never comes")
    window.receive(b"x" * 300_000)
    tracemalloc.start()
    try:
        for _ in range(100):
            window.receive(b"\x1b[m" + b"x" * 16_000)
        assert tracemalloc.get_traced_memory()[0] < 4 * expect.MAX_TEXT
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------- pane


class _Panes:
    """One pane, which exists and only writes."""

    def __init__(self) -> None:
        self.output = PaneOutput("%0", 1 << 22, ())

    def log(self, pane_id: str) -> PaneOutput:
        return self.output

    async def check(self, pane_id: str) -> None:
        await trio.lowlevel.checkpoint()

    def take_expectation(self, pane_id: str) -> None:
        return None

    def keep_expectation(self, *arguments: object) -> None:
        pass


async def test_nothing_of_a_long_past_goes_by_unsearched() -> None:
    panes = _Panes()
    for number in range(2000):
        panes.output.receive(b"%d %s\r\n" % (number, b"." * 1000))
    pane = Pane(None, panes, "%0")  # type: ignore[arg-type]
    with trio.fail_after(10):
        for number in (0, 1, 1000, 1999):
            result = await pane.wait_for(rf"^{number} ", since=0)
            assert (result.outcome, result.match and result.match[0]) == ("matched", f"{number} ")
