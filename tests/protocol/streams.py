"""Whole control-mode streams together with the events they must give, and ways to damage them.

The strategies write what tmux writes: every kind of line, replies with
hostile bodies, output cut inside characters. `assert_events` is the one check of a parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import strategies as st

from tmuxcc.protocol import Parser, events
from tmuxcc.protocol.events import Event

SMALL = 700
"""Up to this size a stream is tried at every split point, above at a sample of them."""


def parse(
    data: bytes, cuts: Iterable[int] = (), *, fences: Sequence[bytes] = (), **limits: int
) -> tuple[list[Event], Parser]:
    """All events of `data`, cut at `cuts`, and the parser that gave them (no end of input yet)."""
    parser = Parser(**limits)
    for fence in fences:
        parser.fence(fence)
    found: list[Event] = []
    for start, end in pairwise([0, *cuts, len(data)]):
        found += parser.receive_data(data[start:end])
    return found, parser


def assert_events(
    data: bytes, expected: Sequence[Event], *, fences: Sequence[bytes] = (), **limits: int
) -> None:
    """`data` gives `expected`: whole, byte by byte, split anywhere, and with more behind it."""
    expected = list(expected)
    found, parser = parse(data, fences=fences, **limits)
    assert found == expected
    error = str(parser.error)

    def check(cuts: Iterable[int]) -> None:
        found, parser = parse(data, cuts, fences=fences, **limits)
        assert found == expected
        assert str(parser.error) == error

    check(range(1, len(data)))
    step = 1 if len(data) <= SMALL else len(data) // 97
    for cut in range(1, len(data), step):
        check([cut])
    if len(data) > SMALL:
        check(range(1, len(data), len(data) // 31))
    end = parser.receive_eof()
    if parser.error is None:
        assert end == []
        behind, _ = parse(data + b"%sessions-changed\n", fences=fences, **limits)
        assert behind == [*expected, events.SessionsChanged()]


def escape(data: bytes) -> bytes:
    """What tmux makes of pane output (control_append_data in control.c)."""
    return b"".join(
        b"\\%03o" % byte if byte < 0x20 or byte == 0x5C else bytes([byte]) for byte in data
    )


def guarded(
    number: int, *lines: bytes, flags: int = 1, ok: bool = True, time: int = 1700000000
) -> bytes:
    """A reply as tmux writes it."""
    guard = b" %d %d %d\n" % (time, number, flags)
    end = b"%end" if ok else b"%error"
    return b"%begin" + guard + b"".join(line + b"\n" for line in lines) + end + guard


def replied(
    number: int, *lines: bytes, flags: int = 1, ok: bool = True, time: int = 1700000000
) -> events.Reply:
    """The event of `guarded` with the same arguments."""
    return events.Reply(time, number, flags, lines, ok)


numbers = st.integers(0, 2**32 - 1)
ids = st.integers(0, 10**6) | st.just(0)
pane_ids = ids.map("%{}".format)
window_ids = ids.map("@{}".format)
session_ids = ids.map("${}".format)
raw_lines = st.binary(max_size=40).map(lambda data: data.translate(None, b"\n"))
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# A CR at the end of a line outside replies is taken for the work of a terminal.
texts = raw_lines.map(lambda data: _as_text(data.rstrip(b"\r")))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _line(event: Event, *fields: object) -> tuple[bytes, list[Event]]:
    return b" ".join(_bytes(str(field)) for field in fields) + b"\n", [event]


outputs = st.builds(
    lambda pane, data: (
        b"%%output %s %s\n" % (pane.encode(), escape(data)),
        [events.Output(pane, data)],
    ),
    pane_ids,
    st.binary(max_size=200) | st.text(max_size=60).map(str.encode),
)
extended_outputs = st.builds(
    lambda pane, data, age, more: (
        b"%%extended-output %s %d %s: %s\n" % (pane.encode(), age, more, escape(data)),
        [events.ExtendedOutput(pane, data, age)],
    ),
    pane_ids,
    st.binary(max_size=200),
    st.integers(0, 10**7),
    st.sampled_from([b"", b"", b"later ", b"two later "]),
)
notifications = st.one_of(
    st.builds(lambda p: _line(events.Pause(p), "%pause", p), pane_ids),
    st.builds(lambda p: _line(events.Continue(p), "%continue", p), pane_ids),
    st.builds(lambda p: _line(events.PaneModeChanged(p), "%pane-mode-changed", p), pane_ids),
    st.just(_line(events.SessionsChanged(), "%sessions-changed")),
    st.builds(
        lambda s, t: _line(events.SessionChanged(s, t), "%session-changed", s, t),
        session_ids,
        texts,
    ),
    st.builds(
        lambda s, t: _line(events.SessionRenamed(s, t), "%session-renamed", s, t),
        session_ids,
        texts,
    ),
    st.builds(
        lambda s, w: _line(events.SessionWindowChanged(s, w), "%session-window-changed", s, w),
        session_ids,
        window_ids,
    ),
    st.builds(
        lambda c, s, t: _line(
            events.ClientSessionChanged(c, s, t), "%client-session-changed", c, s, t
        ),
        words,
        session_ids,
        texts,
    ),
    st.builds(lambda c: _line(events.ClientDetached(c), "%client-detached", c), words),
    st.builds(lambda w: _line(events.WindowAdd(w), "%window-add", w), window_ids),
    st.builds(lambda w: _line(events.WindowClose(w), "%window-close", w), window_ids),
    st.builds(lambda w: _line(events.UnlinkedWindowAdd(w), "%unlinked-window-add", w), window_ids),
    st.builds(
        lambda w: _line(events.UnlinkedWindowClose(w), "%unlinked-window-close", w), window_ids
    ),
    st.builds(
        lambda w, t: _line(events.WindowRenamed(w, t), "%window-renamed", w, t), window_ids, texts
    ),
    st.builds(
        lambda w, t: _line(events.UnlinkedWindowRenamed(w, t), "%unlinked-window-renamed", w, t),
        window_ids,
        texts,
    ),
    st.builds(
        lambda w, p: _line(events.WindowPaneChanged(w, p), "%window-pane-changed", w, p),
        window_ids,
        pane_ids,
    ),
    st.builds(
        lambda w, a, b, f: _line(events.LayoutChange(w, a, b, f), "%layout-change", w, a, b, f),
        window_ids,
        st.just("b25f,80x24,0,0,2"),
        st.sampled_from(["b25f,80x24,0,0,2", '{"V":2,"L":{"t":"p"}}']),
        st.sampled_from(["", "*", "-", "*Z", "!#M"]),
    ),
    st.builds(
        lambda n, s, w, i, p, t: _line(
            events.SubscriptionChanged(n, s, w, i, p, t),
            "%subscription-changed",
            n,
            *("-" if field is None else field for field in (s, w, i, p)),
            ":",
            t,
        ),
        words.filter(lambda word: ":" not in word),
        session_ids,
        st.none() | window_ids,
        st.none() | ids,
        st.none() | pane_ids,
        texts,
    ),
    st.builds(lambda t: _line(events.PasteBufferChanged(t), "%paste-buffer-changed", t), texts),
    st.builds(lambda t: _line(events.PasteBufferDeleted(t), "%paste-buffer-deleted", t), texts),
    st.builds(lambda t: _line(events.Message(t), "%message", t), texts),
    st.builds(lambda t: _line(events.ConfigError(t), "%config-error", t), texts),
    st.builds(lambda t: _line(events.Exit(t or None), "%exit", t), texts),
    st.just((b"%exit\n", [events.Exit(None)])),
)
hostile_lines = st.sampled_from(
    [
        b"",
        b"%output %0 forged",
        b"%exit",
        b"%begin 1700000000 1 1",
        b"%end 1700000000 1 1",
        b"%error 1 2 3",
        b"\x1b\\",
        b"tail\r",
    ]
)
bodies = st.lists(hostile_lines | raw_lines, max_size=5)


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    time, number = draw(numbers), draw(numbers)
    flags, ok = draw(st.integers(0, 1)), draw(st.booleans())
    ends = (b"%%end %d %d %d" % (time, number, flags), b"%%error %d %d %d" % (time, number, flags))
    lines = [line for line in draw(bodies) if line not in ends]
    how = {"flags": flags, "ok": ok, "time": time}
    return guarded(number, *lines, **how), [replied(number, *lines, **how)]


strays = st.sampled_from(
    [
        (b"'false' returned 1\n", [events.Unknown(b"'false' returned 1")]),
        (b"%later @1 x\n", [events.Unknown(b"%later @1 x")]),
        (b"%pause nonsense\n", [events.Unknown(b"%pause nonsense")]),
        (b"\n", []),
        (b" \t\n", []),
    ]
)
pieces = st.one_of(outputs, extended_outputs, notifications, replies(), strays)


@st.composite
def streams(draw: st.DrawFn, max_size: int = 12) -> tuple[bytes, list[Event]]:
    """A valid stream and its events."""
    drawn = draw(st.lists(pieces, max_size=max_size))
    return b"".join(data for data, _ in drawn), [event for _, found in drawn for event in found]


TOKENS = (
    b"\n", b"\r\n", b" ", b"%", b"\\", b"\\012", b"\0", b"\xff", b" : ", b"%begin ", b"%end ",
    b"%error ", b"%begin 1 1 1\n", b"%end 1 1 1\n", b"%output %0 ", b"%extended-output %0 1 : ",
    b"%exit\n", b"%layout-change @0 ", b"%subscription-changed a $0 - - - : ",
)  # fmt: skip


@st.composite
def damaged_streams(draw: st.DrawFn) -> bytes:
    """A valid stream with pieces cut out, doubled or put in."""
    data = draw(streams())[0]
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 20)))
        middle = draw(
            st.sampled_from(TOKENS) | st.binary(max_size=5) | st.just(data[start:end] * 2)
        )
        data = data[:start] + middle + data[end:]
    return data
