"""Bytes to lines, and text without terminal sequences: `tmuxcc.client.text`."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tmuxcc.client.expect import TextWindow
from tmuxcc.client.text import (
    _SEQUENCE,
    LineSplitter,
    decode,
    incomplete_tail,
    strip_sequences,
)

from ..protocol.vectors import of_kind, unescape

NASTY = (
    b"\n", b"\r", b"\r\n", b"\x1b", b"\x1b[", b"\x1b[31m", b"\x1b]0;title\x07", b"\x1bP1$r\x1b\\",
    b"\xe2\x94\x80", b"\xf0\x9f\x9a\x80", b"\xe2", b"\x80", b"\xff", b"\t", b"a", b"word ",
)  # fmt: skip
nasty = st.lists(st.sampled_from(NASTY) | st.binary(max_size=6), max_size=30).map(b"".join)
cuts = st.lists(st.integers(0, 200), max_size=12)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    """`data`, cut at these places."""
    places = sorted({min(place, len(data)) for place in at})
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


def split(chunks: list[bytes], *, escapes: bool = False, max_line: int = 1 << 16) -> list[str]:
    """All lines of `chunks`, the unfinished one at the end included."""
    splitter = LineSplitter(escapes=escapes, max_line=max_line)
    lines = [line for chunk in chunks for line in splitter.receive(chunk)]
    return lines + splitter.finish()


# ---------------------------------------------------------------------------------------- vectors


@pytest.mark.parametrize("vector", of_kind("utf8"))
def test_text_of_a_peer_comes_as_soon_as_its_characters_are_whole(vector: dict) -> None:
    window = TextWindow()
    found = []
    for chunk in vector["input"]:
        window.receive(unescape(chunk))
        found.append(window.consume(len(window.text)))
    assert found == [json.loads(f'"{_json(piece)}"') for piece in vector["expected"]["text_pieces"]]


def _json(piece: str) -> str:
    text = piece.encode("ascii").decode("unicode_escape")
    return json.dumps(text)[1:-1]


# ------------------------------------------------------------------------------------------ lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"\n\n", ["", ""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\r\n", ["one", "two"]),
        (b" 10%\r 50%\r100%\n", ["100%"]),
        (b" 10%\r\x1b[K 50%\r", [" 50%"]),
        (b"\x1b[1;31merror\x1b[m: no\n", ["error: no"]),
        (b"\x1b]0;title\x07$ \x1b[?2004hls\n", ["$ ls"]),
        ("é漢🚀\n".encode(), ["é漢🚀"]),
        (b"a\xffb\xe2\x94\n", ["a\ufffdb\ufffd"]),
        (b"a\tb\x00\x07\x7fc\n", ["a\tbc"]),
        (b"\r", []),
        (b"\x1b[31m", []),
    ],
)
def test_lines_are_text_without_ends_and_sequences(data: bytes, lines: list[str]) -> None:
    assert split([data]) == lines


def test_sequences_stay_where_they_are_wanted() -> None:
    data = b"\x1b[31m 10%\r 50%\x1b[m\r\n\x1b[1m"
    assert split([data], escapes=True) == ["\x1b[31m 10%\r 50%\x1b[m", "\x1b[1m"]


@given(nasty, cuts, st.booleans(), st.sampled_from([1, 2, 3, 7, 1 << 16]))
@example(b"x" * 8 + b"\r\n", [8], False, 7)
def test_any_chunks_give_the_same_lines(
    data: bytes, at: list[int], escapes: bool, max_line: int
) -> None:
    whole = split([data], escapes=escapes, max_line=max_line)
    assert split(pieces(data, at), escapes=escapes, max_line=max_line) == whole
    assert split(pieces(data, [*range(len(data))]), escapes=escapes, max_line=max_line) == whole


@given(nasty, st.booleans())
@example(b"\x1b]0;left open\nnext\n", False)
def test_many_lines_at_once_are_what_each_is_alone(data: bytes, escapes: bool) -> None:
    expected = []
    for line in (data + b"\n").split(b"\n")[:-1]:
        text = line.rstrip(b"\r")
        if not escapes:
            text = text.rpartition(b"\r")[2]
        expected.append(decode(text) if escapes else _SEQUENCE.sub("", decode(text)))
    assert split([data + b"\n"], escapes=escapes) == expected


@given(st.text(max_size=60), cuts, st.integers(4, 9))
def test_a_line_that_is_too_long_comes_in_pieces_and_loses_nothing(
    text: str, at: list[int], max_line: int
) -> None:
    data = text.replace("\n", "").replace("\r", "").encode()
    splitter = LineSplitter(escapes=True, max_line=max_line)
    lines = []
    for piece in pieces(data, at):
        lines += splitter.receive(piece)
        assert sum(map(len, splitter._pieces)) <= max_line
    lines += splitter.finish()
    assert "".join(lines).encode() == data
    assert all(0 < len(line.encode()) <= max_line for line in lines)


def test_the_carriage_return_at_the_limit_makes_no_line_of_its_own() -> None:
    assert split([b"12345678\r\nnext\n"], max_line=8) == ["12345678", "next"]
    assert split([b"1234567\r\nnext\n"], max_line=8) == ["1234567", "next"]


def test_a_sequence_at_the_limit_leaves_no_half_behind() -> None:
    assert "".join(split([b"123456\x1b[31mred\n"], max_line=8)) == "123456red"


def test_a_program_that_never_ends_its_line_is_seen() -> None:
    splitter = LineSplitter(escapes=False, max_line=10)
    assert splitter.receive(b"." * 25) == ["." * 10, "." * 10]
    assert splitter.receive(b"\n") == ["." * 5]


# -------------------------------------------------------------------------------------- sequences


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[m", "\x1b[38;2;1;2;3m", "\x1b[?25l", "\x1b[ q", "\x1b[>4;2m", "\x1b[2 q", "\x1b[4:3m",
        "\x1b]0;title\x07", "\x1b]8;;http://e.org\x1b\\", "\x1bP1$r0m\x1b\\", "\x1b_Gi=1;A\x1b\\",
        "\x1bX text \x1b\\", "\x1b^pm\x1b\\", "\x1bktitle\x1b\\",
        "\x1b(B", "\x1b)0", "\x1b#8", "\x1b=", "\x1b>", "\x1b7", "\x1b8", "\x1bM", "\x1bc",
        "\x1b%G", "\x07", "\x08", "\x00", "\x0e", "\x7f", "\x9b",
    ],
)  # fmt: skip
def test_a_sequence_is_removed_and_what_stands_around_it_stays(sequence: str) -> None:
    assert strip_sequences(f"[a]{sequence}[b]") == "[a][b]"
    assert strip_sequences(sequence) == ""


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31", ""),
        ("\x1b[31\x1b[1mx", "x"),
        ("\x1b]0;never ended", ""),
        ("\x1b]0;broken off\x1b[31mx", "x"),
        ("\x1b\x1b[mx", "x"),
        ("x\x1b", "x"),
        ("x\x1b(", "x"),
    ],
)
def test_what_is_cut_or_broken_off_is_removed_too(text: str, stripped: str) -> None:
    assert strip_sequences(text) == stripped


@given(st.text())
def test_stripping_leaves_no_control_character(text: str) -> None:
    stripped = strip_sequences(text)
    assert not any((c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f" for c in stripped)
    assert strip_sequences(stripped) == stripped


@given(nasty.map(decode) | st.text())
def test_the_quick_way_to_strip_is_exact(text: str) -> None:
    assert strip_sequences(text) == _SEQUENCE.sub("", text)


# ------------------------------------------------------------------------------------- characters


@given(st.text(max_size=20), st.binary(max_size=20))
def test_the_incomplete_tail_is_what_the_decoder_would_still_wait_for(
    text: str, other: bytes
) -> None:
    data = text.encode()
    for end in range(len(data) + 1):
        head = data[:end]
        held = incomplete_tail(head)
        assert decode(head[: end - held]) == head.decode(errors="ignore")
    assert 0 <= incomplete_tail(other) <= min(3, len(other))


@pytest.mark.parametrize("data", [b"\x80", b"\x80\x80\x80", b"a", b"\xff", b"\xc0", b"\xf5", b""])
def test_what_can_begin_no_character_is_not_waited_for(data: bytes) -> None:
    assert incomplete_tail(data) == 0
