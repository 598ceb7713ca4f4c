"""The parser alone, on what a real tmux wrote, and the variants that were tried and have lost.

The floor is what any parser in Python has to do at least: cut the stream into lines.
"""

from __future__ import annotations

import re
import time
from codecs import escape_decode
from collections.abc import Callable, Mapping, Sequence

import attrs

from tmuxcc.client.text import LineSplitter, decode, strip_sequences
from tmuxcc.protocol import Parser, decode_octal
from tmuxcc.protocol.events import ExtendedOutput

from .harness import Samples, Setting, Side, compare, run_server
from .recordings import record
from .results import Row

TITLE = "The parser alone"

NOTES = (
    "The streams are what `tmux -C` wrote for seeded texts, in reads of 64 KiB.",
    (
        "`decode` turns octal escapes into bytes. As built it uses the codec of string escapes"
        " and checks the result; the other variants lost."
    ),
    "`lines` turns chunks of 8 KiB into lines of text without terminal sequences.",
    "The event as built is not frozen: that costs on each of them.",
)

READ = 1 << 16
CHUNK = 1 << 13

UNITS = {"speed": "MB/s", "events": "1/s"}


def parse(stream: bytes) -> int:
    """All of it; how many events."""
    parser = Parser()
    count = 0
    for start in range(0, len(stream), READ):
        count += len(parser.receive_data(stream[start : start + READ]))
    return count


def split(stream: bytes) -> int:
    """Only cut into lines."""
    rest = b""
    count = 0
    for start in range(0, len(stream), READ):
        *lines, rest = (rest + stream[start : start + READ]).split(b"\n")
        count += len(lines)
    return count


# Ways to decode


_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_TABLE = {b"%03o" % byte: bytes([byte]) for byte in range(256)}


def by_split(data: bytes) -> bytes:
    first, *rest = data.split(b"\\")
    return first + b"".join([_TABLE[piece[:3]] + piece[3:] for piece in rest])


def by_regular_expression(data: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: _TABLE[match[1]], data)


def by_unicode_escape(data: bytes) -> bytes:
    return data.decode("unicode_escape").encode("latin-1")


_FOREIGN = re.compile(rb"\\(?![01][0-7]{2})").search


def by_codec_checked_first(data: bytes) -> bytes:
    return by_regular_expression(data) if _FOREIGN(data) else escape_decode(data)[0]


def lines_as_built(chunks: Sequence[bytes]) -> int:
    splitter = LineSplitter(escapes=False)
    return sum(len(splitter.receive(chunk)) for chunk in chunks)


def lines_one_by_one(chunks: Sequence[bytes]) -> int:
    count = 0
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        count += len([strip_sequences(decode(line.rstrip(b"\r"))) for line in whole])
    return count


LINES: Mapping[str, Callable[[Sequence[bytes]], int]] = {
    "as built": lines_as_built,
    "line by line": lines_one_by_one,
}


FrozenOutput = attrs.make_class(
    "FrozenOutput", ["pane_id", "data", "age_ms"], frozen=True, slots=True
)


DECODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "as built": decode_octal,
    "codec, checked before": by_codec_checked_first,
    "unicode_escape and latin-1": by_unicode_escape,
    "split and table": by_split,
    "regular expression": by_regular_expression,
}


def _timed(function: Callable[[], int], size: int) -> Side:
    """The side that gives the speed for `size` bytes and, where `function` counts, for events."""

    def side() -> Samples:
        start = time.perf_counter()
        count = function()
        took = time.perf_counter() - start
        found = {"speed": [size / took / 1e6]} if size else {}
        return {**found, "events": [count / took]} if count else found

    return side


def payloads(stream: bytes) -> list[bytes]:
    """What the messages of a stream carry, undecoded."""
    return re.findall(rb"^%extended-output %[0-9]+ [0-9]+ : (.*)$", stream, re.MULTILINE)


def streams(setting: Setting) -> dict[str, bytes]:
    """What to parse: recordings, and two that are made to be hard."""
    with run_server(setting.tmux) as server:
        recorded = record(server, setting.of(1_000_000, 50_000))
    size = setting.of(4_000_000, 200_000)
    found = {name: stream * (1 + size // len(stream)) for name, stream in recorded.items()}
    count = setting.of(40_000, 2_000)
    found["40-byte messages"] = b"%output %1 0123456789 0123456789 0123456\n" * count
    found["short replies"] = b"".join(
        b"%%begin 1795334489 %d 1\nhello\n%%end 1795334489 %d 1\n" % (n, n) for n in range(count)
    )
    return found


def run(setting: Setting) -> list[Row]:
    """Streams, then variants."""
    rounds = setting.of(2, 1)
    rows: list[Row] = []
    recorded = streams(setting)
    for name, stream in recorded.items():
        rows += compare(
            name,
            {
                "floor": _timed(lambda stream=stream: split(stream) * 0, len(stream)),
                "tmuxcc.Parser": _timed(lambda stream=stream: parse(stream), len(stream)),
            },
            rounds=rounds,
            units=UNITS,
            baseline="floor",
        )
    for name in ("log", "coloured log", "full-screen redraws"):
        pieces = payloads(recorded[name])[: setting.of(2_000, 50)]
        assert all(
            decoder(piece) == by_regular_expression(piece)
            for decoder in DECODERS.values()
            for piece in pieces[:50]
        )

        def all_of(decoder: Callable[[bytes], bytes], pieces: list[bytes] = pieces) -> int:
            for piece in pieces:
                decoder(piece)
            return 0

        rows += compare(
            f"decode, {name}",
            {
                told: _timed(lambda decoder=decoder: all_of(decoder), sum(map(len, pieces)))
                for told, decoder in DECODERS.items()
            },
            rounds=rounds,
            units=UNITS,
            baseline="as built",
        )
    text = b"".join([decode_octal(piece) for piece in payloads(recorded["coloured log"])])
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    assert lines_as_built(chunks) == lines_one_by_one(chunks)
    rows += compare(
        "lines, coloured log",
        {
            told: _timed(lambda lines_of=lines_of: lines_of(chunks) * 0, len(text))
            for told, lines_of in LINES.items()
        },
        rounds=rounds,
        units=UNITS,
        baseline="as built",
    )
    count = setting.of(100_000, 1_000)

    def build(make: Callable[[str, bytes, int], object]) -> int:
        for _ in range(count):
            make("%1", b"", 0)
        return count

    rows += compare(
        "build an event",
        {
            "as built": _timed(lambda: build(ExtendedOutput), 0),
            "frozen": _timed(lambda: build(FrozenOutput), 0),
        },
        rounds=rounds,
        units=UNITS,
        baseline="as built",
    )
    return rows
