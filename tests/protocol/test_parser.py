"""Bytes in, events out: `tmuxcc.protocol.parser`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tmuxcc.protocol import Parser, decode_octal, events
from tmuxcc.protocol import parser as parser_module
from tmuxcc.protocol.events import (
    ExtendedOutput,
    LayoutChange,
    Output,
    Reply,
    SessionsChanged,
    SubscriptionChanged,
    Unknown,
)

from .streams import (
    assert_events,
    damaged_streams,
    escape,
    guarded,
    parse,
    replied,
    streams,
)
from .vectors import DATA, of_kind, unescape

# ---------------------------------------------------------------------------- vectors of peers

_CLASSES = {
    "client-detached": (events.ClientDetached, "client"),
    "client-session-changed": (events.ClientSessionChanged, "client", "session", "name"),
    "config-error": (events.ConfigError, "text"),
    "exit": (events.Exit, "reason"),
    "extended-output": (events.ExtendedOutput, "pane", "data", "age_ms"),
    "layout-change": (LayoutChange, "window", "layout", "visible_layout", "flags"),
    "message": (events.Message, "text"),
    "output": (Output, "pane", "data"),
    "pane-mode-changed": (events.PaneModeChanged, "pane"),
    "paste-buffer-changed": (events.PasteBufferChanged, "name"),
    "paste-buffer-deleted": (events.PasteBufferDeleted, "name"),
    "pause": (events.Pause, "pane"),
    "reply": (Reply, "ts", "num", "flags", "body", "ok"),
    "session-changed": (events.SessionChanged, "session", "name"),
    "session-renamed": (events.SessionRenamed, "session", "name"),
    "session-window-changed": (events.SessionWindowChanged, "session", "window"),
    "sessions-changed": (SessionsChanged,),
    "subscription-changed": (
        SubscriptionChanged, "name", "session", "window", "index", "pane", "value",
    ),
    "unknown": (Unknown, "line"),
    "unlinked-window-add": (events.UnlinkedWindowAdd, "window"),
    "unlinked-window-close": (events.UnlinkedWindowClose, "window"),
    "unlinked-window-renamed": (events.UnlinkedWindowRenamed, "window", "name"),
    "window-add": (events.WindowAdd, "window"),
    "window-close": (events.WindowClose, "window"),
    "window-pane-changed": (events.WindowPaneChanged, "window", "pane"),
    "window-renamed": (events.WindowRenamed, "window", "name"),
}  # fmt: skip
_RAW = {"data", "line"}
_UNFINISHED = {"partial", "open-block"}


def _event(shape: dict, data: bytes) -> object:
    if "any_of" in shape:
        assert {"unknown", "protocol-error"} & set(shape["any_of"]), shape
        return Unknown(unescape(shape["line"]) if "line" in shape else data.rstrip(b"\n"))
    cls, *fields = _CLASSES[shape["t"]]
    values = []
    for field in fields:
        value = shape[field]
        if field == "body":
            value = tuple(unescape(line) for line in value)
        elif isinstance(value, str):
            value = unescape(value)
            value = value if field in _RAW else value.decode("utf-8", "surrogateescape")
        values.append(value)
    return cls(*values)


@pytest.mark.parametrize("vector", of_kind("stream"))
def test_stream_of_a_peer_gives_its_events(vector: dict) -> None:
    data = unescape(vector["input"])
    shapes = vector["expected"]
    kinds = {kind for shape in shapes for kind in [shape.get("t"), *shape.get("any_of", [])]}
    unfinished = bool(kinds & _UNFINISHED)
    expected = [] if unfinished else [_event(shape, data) for shape in shapes]
    assert_events(data, expected)
    _, parser = parse(data)
    assert parser.receive_eof() == []
    assert (parser.error is not None) == unfinished


@pytest.mark.parametrize(
    "vector",
    of_kind(
        "stream-dcs",
        skipped={
            "stream-dcs-002": "-CC wraps the stream in a DCS for terminals; tmuxcc starts -C",
            "stream-dcs-003": "-CC wraps the stream in a DCS for terminals; tmuxcc starts -C",
        },
    ),
)
def test_stream_in_a_dcs_of_a_peer(vector: dict) -> None:
    raise AssertionError(f"no way to check the vector {vector['id']}")


@pytest.mark.parametrize("vector", of_kind("stream-anti"))
def test_known_bug_of_a_peer_is_not_copied(vector: dict) -> None:
    right = vector["expected"]["right"]
    data = unescape(vector["input"]).replace(b"<65537 x 'a'>", b"a" * 65537)
    if vector["id"] == "stream-anti-004":
        assert right == "one output event of 65537 bytes"
        expected = [Output("%1", b"a" * 65537)]
    else:
        expected = [_event(shape, data) for shape in right]
    found, _ = parse(data)
    assert found == expected
    found, _ = parse(data, [9, 10])
    assert found == expected


@pytest.mark.parametrize("vector", of_kind("stream-recover"))
def test_begin_inside_a_reply_is_body_and_the_reply_stays_open(vector: dict) -> None:
    data = unescape(vector["input"])
    assert_events(data, [])
    assert_events(
        data + b"%end 1 1 1\n",
        [Reply(1, 1, 1, (b"partial-a", b"%begin 1 2 1", b"full-b", b"%end 1 2 1"), True)],
    )


@pytest.mark.parametrize("vector", of_kind("stream-unavoidable"))
def test_forged_end_cuts_a_reply_and_the_true_end_shows_as_unknown(vector: dict) -> None:
    guard = b"1363006971 2 1"
    assert_events(
        unescape(vector["input"]),
        [Reply(1363006971, 2, 1, (b"captured output",), True), Unknown(b"%end " + guard)],
    )


@pytest.mark.parametrize("vector", of_kind("decode"))
def test_payload_of_a_peer_is_decoded_leniently(vector: dict) -> None:
    expected = vector["expected"]
    wanted = unescape(expected.get("bytes", expected.get("lenient")))
    assert decode_octal(unescape(vector["input"])) == wanted


def test_events_own_their_bytes() -> None:  # behaviour-005
    buffer = bytearray(b"%output %0 before\n%begin 1 1 1\nbefore\n%end 1 1 1\n")
    found = Parser().receive_data(buffer)
    buffer[:] = b"x" * len(buffer)
    assert found == [Output("%0", b"before"), Reply(1, 1, 1, (b"before",), True)]


def test_reply_over_the_limit_is_cut_and_counted_and_the_next_one_is_whole() -> None:
    # behaviour-006; a line counts with its LF
    data = guarded(1, *[b"x" * 16] * 64) + guarded(2, b"kept")
    cut = Reply(1700000000, 1, 1, (), True, omitted=1088)
    assert_events(data, [cut, replied(2, b"kept")], max_reply=16)


# -------------------------------------------------------------------------------- transcripts

TRANSCRIPTS = DATA / "transcripts"

# Where lines have no event of their own, the beginnings of those lines.
UNNAMED = {
    "blocking": (b"line1", b"'exit 3' returned 3", b"No such file", b"/nosuch/", b"/tmp/sample/"),
    "cc-pty": (b"\x1bP1000p%begin ", b"%end "),  # the DCS of -CC hides the first %begin
    "hooks": (b"RENHOOK",),
    "spoof": (b"%end 1795334",),
    "subscriptions": (b"b ",),
    "wait-event": (b"event=", b"exit_status=", b"exit_success=", b"pane=", b"window="),
}


def _transcripts(pattern: str) -> list:
    paths = sorted(TRANSCRIPTS.glob(pattern))
    assert paths, pattern
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in paths]


@pytest.mark.parametrize("path", _transcripts("*/*.bin"))
def test_every_line_of_a_transcript_has_its_event(path: Path) -> None:
    parser = Parser()
    found = parser.receive_data(path.read_bytes())
    unknown = [event.line for event in found if isinstance(event, Unknown)]
    assert all(line.startswith(UNNAMED.get(path.stem, ())) for line in unknown)
    assert bool(unknown) == (path.stem in UNNAMED)
    assert parser.receive_eof() == []
    # The DCS ends in ESC \ without a line end.
    assert (parser.error is not None) == (path.stem == "cc-pty")


@pytest.mark.parametrize("path", _transcripts("*/[a-np-z]*.bin") + _transcripts("*/output-b*.bin"))
def test_transcript_may_be_cut_anywhere(path: Path) -> None:
    data = path.read_bytes()
    found, _ = parse(data)
    if path.stem == "cc-pty":
        data = data.removesuffix(b"\x1b\\")
    assert_events(data, found)


@pytest.mark.parametrize("path", _transcripts("*/output-flood.bin"))
def test_flood_may_be_cut_anywhere(path: Path) -> None:
    data = path.read_bytes()
    found, _ = parse(data)
    for size in (1, 7, 4096, 65536):
        assert parse(data, range(size, len(data), size))[0] == found


@pytest.mark.parametrize("path", _transcripts("*/output-*.raw"))
def test_output_is_what_the_pane_wrote(path: Path) -> None:
    found, _ = parse(path.with_suffix(".bin").read_bytes())
    data = b"".join(event.data for event in found if isinstance(event, Output))
    assert path.read_bytes() in data


@pytest.mark.parametrize("path", _transcripts("*/spoof.bin"))
def test_forged_end_in_a_capture_ends_it_early_without_a_fence(path: Path) -> None:
    found, _ = parse(path.read_bytes())
    at = next(at for at, event in enumerate(found) if isinstance(event, Unknown))
    assert isinstance(found[at - 1], Reply)
    assert all(isinstance(event, Unknown) for event in found[at : at + 9])


@pytest.mark.parametrize("path", _transcripts("*/spoof.bin"))
def test_fences_find_the_true_end_of_a_capture_full_of_forged_ends(path: Path) -> None:
    marker = b"SENTINEL-9f2c"
    *head, capture, sentinel, detach = path.read_bytes().split(b"%begin ")
    opening = guarded(1, marker)
    data = b"%begin ".join([*head, b""])[: -len(b"%begin ")] + opening
    data += b"%begin " + b"%begin ".join([capture, sentinel, detach])
    body = capture.split(b"\n")[1:-2]

    found, parser = parse(data, fences=[marker])

    assert parser.error is None
    assert not [event for event in found if isinstance(event, Unknown)]
    lines = [event.lines for event in found if isinstance(event, Reply)]
    assert lines[-4:] == [(marker,), tuple(body), (marker,), ()]
    assert_events(data, found, fences=[marker])


# --------------------------------------------------------------------------------- properties

QUICK = settings(deadline=None, max_examples=60)
PATIENT = settings(deadline=None, max_examples=200)


@QUICK
@given(streams())
def test_a_valid_stream_gives_its_events_however_cut(stream: tuple) -> None:
    data, expected = stream
    assert_events(data, expected)


@PATIENT
@given(damaged_streams() | st.binary(max_size=300), st.data())
def test_any_bytes_give_the_same_events_however_cut(data: bytes, draw: st.DataObject) -> None:
    whole, _ = parse(data)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    found, parser = parse(data, cuts)
    assert found == whole
    parser.receive_eof()
    assert parser.receive_data(b"more") == []


@PATIENT
@given(
    damaged_streams(),
    st.lists(st.integers(0, 400), max_size=8),
    st.sampled_from([0, 1, 20, 100]),
    st.booleans(),
)
def test_limits_do_not_depend_on_the_cuts(
    data: bytes, cuts: list[int], max_reply: int, fenced: bool
) -> None:
    marker = b"M" * 8
    if fenced:
        data = guarded(1, marker) + data + guarded(9, marker) + data
    how = {"fences": [marker] if fenced else [], "max_line": 128, "max_reply": max_reply}
    whole, parser = parse(data, **how)
    found, other = parse(data, sorted(cut for cut in cuts if cut < len(data)), **how)
    assert found == whole
    assert str(other.error) == str(parser.error)


@PATIENT
@given(streams())
def test_a_reply_over_the_limit_keeps_the_stream_in_step(stream: tuple) -> None:
    data, expected = stream
    found, _ = parse(data, max_reply=30)
    assert len(found) == len(expected)
    for event, whole in zip(found, expected, strict=True):
        if isinstance(event, Reply) and event.omitted:
            kept = len(event.lines)
            assert event.lines == whole.lines[:kept]
            assert event.omitted == sum(len(line) + 1 for line in whole.lines[kept:])
            assert sum(len(line) + 1 for line in whole.lines[: kept + 1]) > 30
        else:
            assert event == whole


@PATIENT
@given(st.binary(max_size=400))
@example(bytes(range(256)))
def test_decode_octal_undoes_the_escaping_of_tmux(data: bytes) -> None:
    assert decode_octal(escape(data)) == data


@pytest.mark.parametrize("filler", [b"", b"x" * 500])
@pytest.mark.parametrize(
    "odd", [b"\\", b"\\9", b"\\z", b"\\400", b"\\18", b"\\xzz", b"\\x4"], ids=repr
)
def test_decode_octal_leaves_a_foreign_escape_alone(odd: bytes, filler: bytes) -> None:
    assert decode_octal(filler + b"\\012" + odd) == filler + b"\n" + odd


# ----------------------------------------------------------------------------------- the lines


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"%extended-output %1 5 : a : b", ExtendedOutput("%1", b"a : b", 5)),
        (b"%extended-output %1 5 : ", ExtendedOutput("%1", b"", 5)),
        (b"%extended-output %1 5 x y : a", ExtendedOutput("%1", b"a", 5)),
        (b"%extended-output %1 12345678901 : \\134", ExtendedOutput("%1", b"\\", 12345678901)),
        (b"%output %7 ", Output("%7", b"")),
        (b"%layout-change @1 L", LayoutChange("@1", "L", None, None)),
        (b"%layout-change @1 L,1 V,1 ", LayoutChange("@1", "L,1", "V,1", "")),
        (
            b"%subscription-changed two words $1 @2 3 %4 later : v : w",
            SubscriptionChanged("two words", "$1", "@2", 3, "%4", "v : w"),
        ),
        (b"%session-renamed $1 ", events.SessionRenamed("$1", "")),
        (b"%session-renamed old form", events.SessionRenamed(None, "old form")),
        (b"%exit ", events.Exit(None)),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_line_with_unusual_fields(line: bytes, event: object) -> None:
    # Twice: the second time the pane is known, and the line takes the quick way.
    assert_events(line + b"\n" + line + b"\n", [event, event])


@pytest.mark.parametrize(
    "line",
    [
        b"%output",
        b"%output %1",
        b"%output 1 x",
        b"%output  %1 x",
        b"%extended-output %1 5 :",
        b"%extended-output %1 5 x: y",
        b"%extended-output 1 5 : y",
        b"%extended-output %1 x : y",
        b"%extended-output %1 " + b"1" * 21 + b" : y",
        b"%session-changed $1",
        b"%session-renamed",
        b"%session-window-changed $1",
        b"%session-window-changed $1 x",
        b"%unlinked-window-renamed",
        b"%client-session-changed a $1",
        b"%client-session-changed  $1 x",
        b"%client-detached",
        b"%layout-change @1",
        b"%layout-change @1 ",
        b"%layout-change @1  x",
        b"%layout-change x L",
        b"%subscription-changed a $1 @2 3 : v",
        b"%subscription-changed a $1 @2 3 %4",
        b"%begin 1 2 x",
        b"%begin 1 2 3 4",
        b"%pause %1234567890123456789012",
    ],
    ids=bytes.decode,
)
def test_known_name_with_wrong_fields_is_unknown(line: bytes) -> None:
    # Known panes must not change that.
    assert_events(b"%output %1 x\n" + line + b"\n", [Output("%1", b"x"), Unknown(line)])


def test_names_keep_bytes_that_are_no_utf8() -> None:
    (event,) = Parser().receive_data(b"%window-renamed @1 \xff\xc3\n")
    assert event.name.encode("utf-8", "surrogateescape") == b"\xff\xc3"


def test_cr_before_lf_is_dropped_outside_replies() -> None:
    assert_events(b"%output %1 a\r\n%output %1 b\n", [Output("%1", b"a"), Output("%1", b"b")])


def test_cr_is_dropped_inside_a_reply_whose_begin_has_it() -> None:
    data = guarded(1, b"a\r", b"", b"%end 1 1 1").replace(b"\n", b"\r\n")
    assert_events(data, [replied(1, b"a\r", b"", b"%end 1 1 1")])


def test_cr_is_kept_inside_a_reply_whose_begin_has_none() -> None:
    end = b"%end 1700000000 1 1\r"
    assert_events(guarded(1, b"a\r", end), [replied(1, b"a\r", end)])


def test_more_panes_than_are_kept_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_module, "MAX_KNOWN_PANES", 2)
    parser = Parser()
    data = b"".join(b"%%output %%%d x\n" % (pane % 5) for pane in range(20))
    found = parser.receive_data(data)
    assert found == [Output(f"%{pane % 5}", b"x") for pane in range(20)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_chunk_is_taken(kind: type) -> None:
    assert Parser().receive_data(kind(b"%output %1 a\r\n")) == [Output("%1", b"a")]


# -------------------------------------------------------------------------------------- limits


def test_line_over_the_limit_is_cut_and_counted() -> None:
    long = b"%output %1 " + b"x" * 200
    data = b"%output %1 a\n" + long + b"\n%output %1 b\n"
    cut = Unknown(long[:128], omitted=len(long) - 128)
    assert_events(data, [Output("%1", b"a"), cut, Output("%1", b"b")], max_line=128)


def test_line_of_just_the_limit_is_whole() -> None:
    line = b"%output %1 " + b"x" * 117
    assert_events(line + b"\n", [Output("%1", b"x" * 117)], max_line=128)


def test_line_of_a_reply_over_the_limit_is_cut_and_what_follows_is_counted() -> None:
    data = guarded(1, b"a", b"x" * 200, b"b") + guarded(2, b"c")
    cut = Reply(1700000000, 1, 1, (b"a", b"x" * 128), True, omitted=72 + 2)
    assert_events(data, [cut, replied(2, b"c")], max_line=128)


def test_guard_with_a_tail_over_the_limit_is_no_guard() -> None:
    begin = b"%begin " + b"1" * 20 + b" " + b"2" * 20 + b" " + b"3" * 20
    line = begin + b" " * 200
    assert_events(line + b"\n", [Unknown(line[:128], omitted=len(line) - 128)], max_line=128)


def test_blank_lines_count_too() -> None:
    data = guarded(1, *[b""] * 10)
    assert_events(data, [Reply(1700000000, 1, 1, (b"",) * 4, True, omitted=6)], max_reply=4)


def test_endless_line_takes_no_more_memory_than_the_limit() -> None:
    parser = Parser(max_line=128)
    for _ in range(1000):
        assert parser.receive_data(b"xyz") == []
    assert sum(map(len, parser._pieces)) == 128
    assert len(parser._pieces) <= 128
    assert parser.receive_data(b"\n") == [Unknown((b"xyz" * 43)[:128], omitted=3000 - 128)]


def test_a_limit_shorter_than_a_guard_cuts_all_lines_but_guards() -> None:
    data = b"%begin 1700000000 1 1\n" + b"x" * 20 + b"\n%end 1700000000 1 1\n" + b"y" * 20 + b"\n"
    cut = Reply(1700000000, 1, 1, (b"x" * 17,), True, omitted=3)

    assert_events(data, [cut, Unknown(b"y" * 17, omitted=3)], max_line=17)


@pytest.mark.parametrize("limits", [{"max_line": 0}, {"max_reply": -1}])
def test_limit_under_which_nothing_works_is_refused(limits: dict) -> None:
    with pytest.raises(ValueError, match="max_line"):
        Parser(**limits)


# ----------------------------------------------------------------------------- end of the stream


def test_end_between_lines_is_no_error_and_may_be_said_twice() -> None:
    parser = Parser()
    parser.receive_data(b"%exit\n")
    assert parser.receive_eof() == []
    assert parser.receive_eof() == []
    assert parser.error is None


def test_data_after_the_end_is_an_error_and_gives_nothing() -> None:
    parser = Parser()
    parser.receive_eof()
    assert parser.receive_data(b"%exit\n") == []
    assert parser.error is not None
    assert parser.error.line == b"%exit\n"
    assert parser.receive_data(b"%exit\n") == []


def test_end_inside_a_line_says_which() -> None:
    parser = Parser()
    parser.receive_data(b"%sessions-cha")
    assert parser.receive_eof() == []
    assert str(parser.error) == "the stream ended inside a line"
    assert parser.error.line == b"%sessions-cha"


@pytest.mark.parametrize(
    ("lines", "exits"),
    [
        ([b"text", b"%exit too far behind"], [events.Exit("too far behind")]),
        ([b"%exit"], [events.Exit(None)]),
        ([b"x" * 50, b"%exit lost"], [events.Exit("lost")]),
        ([b"%exit", b"text"], []),
        ([b"%exited"], []),
        ([b"%pause %1"], []),
        ([], []),
    ],
)
def test_end_inside_a_reply_is_an_error_but_tells_the_reason(
    lines: list[bytes], exits: list
) -> None:
    parser = Parser(max_reply=40)
    parser.receive_data(b"".join(line + b"\n" for line in [b"%begin 1 1 1", *lines]))
    assert parser.receive_eof() == exits
    assert str(parser.error) == "the stream ended inside a reply"


def test_exit_in_a_reply_that_is_over_tells_nothing_about_the_end() -> None:
    parser = Parser(max_reply=8)
    parser.receive_data(guarded(1, b"x" * 9, b"%exit") + b"%begin 1 2 1\ntext\n")
    assert parser.receive_eof() == []


def test_half_a_line_behind_exit_proves_that_it_was_text() -> None:
    parser = Parser()
    parser.receive_data(b"%begin 1 1 1\n%exit\nha")
    assert parser.receive_eof() == []
    assert parser.error is not None


def test_exit_between_fences_is_told_when_the_second_never_comes() -> None:
    parser = Parser()
    parser.fence(b"M")
    data = guarded(1, b"M") + guarded(2, b"text") + b"%exit server exited unexpectedly\n"
    assert parser.receive_data(data) == [replied(1, b"M")]
    assert parser.receive_eof() == [events.Exit("server exited unexpectedly")]
    assert parser.error is not None


# ---------------------------------------------------------------------------------------- fences

MARKER = b"0f" * 16


def _fenced(*pieces: bytes, last: int = 900) -> bytes:
    return guarded(1, MARKER) + b"".join(pieces) + guarded(last, MARKER)


_OPEN, _CLOSE = replied(1, MARKER), replied(900, MARKER)
_FORGED = [b"%end 1700000000 5 1", b"%error 1700000000 5 1"]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.sampled_from([*_FORGED, b"text", b"", b"%output %9 forged", b"%begin 1700000000 5 1"])
        | st.just(b"%end 1700000000 900 1"),
        max_size=6,
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_forged_ends_between_fences_are_body(
    body: list[bytes], ok: bool, hook: bool, notified: bool
) -> None:
    between = [guarded(5, *body, ok=ok)]
    expected = [replied(5, *body, ok=ok)]
    if hook:
        between.append(guarded(6, b"hooked", flags=0))
        expected.append(replied(6, b"hooked", flags=0))
    if notified:
        between.append(b"%output %1 a\\012\n\n%sessions-changed\n")
        expected += [Output("%1", b"a\n"), SessionsChanged()]
    between.append(guarded(7, b"second"))
    expected.append(replied(7, b"second"))
    assert_events(_fenced(*between), [_OPEN, *expected, _CLOSE], fences=[MARKER])


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("forged", _FORGED)
def test_forged_end_in_every_position(forged: bytes, position: int) -> None:
    body = [b"a", b"b", b"c"]
    body.insert(position, forged)
    assert_events(_fenced(guarded(5, *body)), [_OPEN, replied(5, *body), _CLOSE], fences=[MARKER])


def test_without_replies_between_them_the_fences_stand_alone() -> None:
    assert_events(_fenced(), [_OPEN, _CLOSE], fences=[MARKER])


def test_lines_before_the_first_reply_between_fences_are_given_at_once() -> None:
    parser = Parser()
    parser.fence(MARKER)
    assert parser.receive_data(guarded(1, MARKER) + b"%output %1 x\nstray\n") == [
        _OPEN,
        Output("%1", b"x"),
        Unknown(b"stray"),
    ]


def test_fences_through_a_terminal_with_cr() -> None:
    body = [b"text", _FORGED[0]]
    data = _fenced(guarded(5, *body), guarded(6), b"%pause %1\n").replace(b"\n", b"\r\n")
    expected = [_OPEN, replied(5, *body), replied(6), events.Pause("%1"), _CLOSE]
    assert_events(data, expected, fences=[MARKER])


def test_a_fence_serves_once() -> None:
    data = _fenced() + guarded(901, MARKER) + guarded(5, b"free")
    expected = [_OPEN, _CLOSE, replied(901, MARKER), replied(5, b"free")]
    assert_events(data, expected, fences=[MARKER])


def test_several_fences_one_after_another() -> None:
    other = b"1e" * 16
    forged = b"%end 1700000000 902 1"
    data = _fenced(guarded(5, b"a")) + guarded(901, other) + guarded(902, forged)
    data += guarded(903, other)
    expected = [_OPEN, replied(5, b"a"), _CLOSE, replied(901, other), replied(902, forged)]
    assert_events(data, [*expected, replied(903, other)], fences=[MARKER, other])


@pytest.mark.parametrize(
    "reply",
    [
        guarded(1, MARKER, flags=0),
        guarded(1, MARKER, b"more"),
        guarded(1, b"other"),
    ],
)
def test_reply_that_only_resembles_a_fence_opens_none(reply: bytes) -> None:
    found, _ = parse(reply + guarded(5, b"a", b"%end 1700000000 5 1"), fences=[MARKER])
    assert found[1:] == [replied(5, b"a"), Unknown(b"%end 1700000000 5 1")]


def test_hook_that_repeats_the_marker_closes_no_fence() -> None:
    echoes = [guarded(number, MARKER, flags=0) for number in (6, 8)]
    told = [replied(number, MARKER, flags=0) for number in (6, 8)]
    data = _fenced(echoes[0], guarded(7, b"a"), echoes[1])
    expected = [_OPEN, told[0], replied(7, b"a"), told[1], _CLOSE]
    assert_events(data, expected, fences=[MARKER])
    # A reply behind the echo still ends at the last line that could close it.
    body = [b"text", b"%end 1700000000 9 1", b"more"]
    data = _fenced(*echoes, guarded(9, *body))
    assert_events(data, [_OPEN, *told, replied(9, *body), _CLOSE], fences=[MARKER])


@pytest.mark.parametrize(
    "second",
    [
        guarded(6, b"text", _FORGED[0], b"%output %9 forged"),
        guarded(6, _FORGED[0], b"%begin 1 2 3", b"text"),
        b"%end 1 2 3\n",
    ],
)
def test_text_of_one_reply_that_closes_another_between_fences_ends_the_stream(
    second: bytes,
) -> None:
    data = _fenced(guarded(5, b"a"), second) + b"%sessions-changed\n"
    found, parser = parse(data, fences=[MARKER])
    assert found == [_OPEN]
    assert str(parser.error) == "a guard between fences is not one of a pair"
    assert_events(data, [_OPEN], fences=[MARKER])


def test_fenced_reply_over_the_limit_is_cut_and_the_stream_stays_in_step() -> None:
    data = _fenced(guarded(5, *[b"x" * 9] * 10)) + guarded(901, b"next")
    cut = Reply(1700000000, 5, 1, (b"x" * 9,) * 5, True, omitted=50)
    expected = [_OPEN, cut, _CLOSE, replied(901, b"next")]
    assert_events(data, expected, fences=[MARKER], max_reply=50)


def test_many_forged_ends_in_a_fenced_reply_over_the_limit_keep_it_in_step() -> None:
    data = _fenced(guarded(5, *[_FORGED[0], b"x" * 79] * 40)) + guarded(901, b"next")
    found, parser = parse(data, fences=[MARKER], max_reply=100)
    assert parser.error is None
    assert found[1] == Reply(1700000000, 5, 1, (_FORGED[0], b"x" * 79), True, omitted=3900)
    assert found[2:] == [_CLOSE, replied(901, b"next")]
    assert_events(data, found, fences=[MARKER], max_reply=100)


def test_long_line_in_a_fenced_reply_is_cut() -> None:
    data = _fenced(guarded(5, b"x" * 200))
    cut = Reply(1700000000, 5, 1, (b"x" * 128,), True, omitted=72)
    assert_events(data, [_OPEN, cut, _CLOSE], fences=[MARKER], max_line=128)


@pytest.mark.parametrize("flood", [b"%output %1 x\n" * 40, b"%output %1 " + b"x" * 200 + b"\n"])
def test_more_than_fits_behind_a_fenced_reply_ends_the_stream(flood: bytes) -> None:
    data = _fenced(guarded(5, b"a"), flood) + b"%sessions-changed\n"
    found, parser = parse(data, fences=[MARKER], max_line=128, max_reply=100)
    assert found == [_OPEN]
    assert "behind a fenced reply" in str(parser.error)
    assert_events(data, [_OPEN], fences=[MARKER], max_line=128, max_reply=100)


def test_error_in_the_first_line_of_a_chunk_ends_the_stream_there() -> None:
    data = _fenced(b"%end 1 2 3\n", guarded(5), b"%end 1 2 3\n") + b"%sessions-changed\n"
    cut = data.index(b"%sessions") - 1
    found, parser = parse(data, [cut], fences=[MARKER])
    assert found == [_OPEN, Unknown(b"%end 1 2 3")]
    assert parser.error is not None


@pytest.mark.parametrize("marker", [b"", b"two\nlines"])
def test_marker_that_is_no_line_is_refused(marker: bytes) -> None:
    with pytest.raises(ValueError, match="marker"):
        Parser().fence(marker)


def test_transcripts_are_described() -> None:
    for path in TRANSCRIPTS.glob("*/*.bin"):
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert described["note"]
        assert path.with_suffix(".in").exists()
