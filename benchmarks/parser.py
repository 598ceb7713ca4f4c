"""The parser alone: streams as tmux writes them, and the variants that were tried.

    python -m benchmarks.parser [--json]

Medians of several rounds in one run; the ratios between the rows are what lasts.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from codecs import escape_decode
from collections.abc import Callable
from pathlib import Path

import attrs

from tmuxcc.protocol import Parser, decode_octal
from tmuxcc.protocol.events import ExtendedOutput

DATA = Path(__file__).parent.parent / "tests" / "data" / "transcripts"
READ = 1 << 16
ROUNDS = 7

LOG = (
    b"2026-11-22T10:00:00 INFO request served path=/index.html status=200 bytes=51234"
    b" duration=12ms client=192.0.2.7 agent=curl\\015\\012"
)
COLOUR = (
    b"\\033[32m2026-11-22T10:00:00\\033[0m \\033[1;34mINFO\\033[0m request served"
    b" path=\\033[36m/index.html\\033[0m status=200\\015\\012"
)
SCREEN = b"\\033[12;5H\\033[K\\033[38;5;208mcpu\\033[0m \\033[7m 12%\\033[0m\\033[13;5H\\033[K"
TEXT = "Grüße aus Köln, 価格は千円です。 ".encode() + b"\\015\\012"


def streams() -> dict[str, bytes]:
    def lines(piece: bytes, size: int, count: int) -> bytes:
        return b"%%extended-output %%1 0 : %s\n" % (piece * (size // len(piece))) * count

    recorded = (DATA / "3.8" / "output-flood.bin").read_bytes().split(b"%exit")[0]
    return {
        "log text": lines(LOG, 1640, 20_000),
        "coloured log": lines(COLOUR, 1640, 20_000),
        "screen redraws": lines(SCREEN, 1640, 20_000),
        "UTF-8 text": lines(TEXT, 1640, 20_000),
        "recorded flood": recorded * 40,
        "40-byte lines": b"%output %1 0123456789 0123456789 0123456\n" * 300_000,
        "short replies": b"".join(
            b"%%begin 1795334489 %d 1\nhello\n%%end 1795334489 %d 1\n" % (n, n)
            for n in range(100_000)
        ),
    }


def parse(stream: bytes) -> int:
    parser = Parser()
    count = 0
    for start in range(0, len(stream), READ):
        count += len(parser.receive_data(stream[start : start + READ]))
    return count


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


FrozenOutput = attrs.make_class(
    "FrozenOutput", ["pane_id", "data", "age_ms"], frozen=True, slots=True
)


def median_of(function: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--json", action="store_true")
    as_json = options.parse_args().json
    rows: dict[str, dict[str, float]] = {}
    for name, stream in streams().items():
        count = parse(stream)
        seconds = median_of(lambda stream=stream: parse(stream))
        rows[name] = {"MB/s": len(stream) / seconds / 1e6, "events/s": count / seconds}
    pieces = [LOG * 13, COLOUR * 13] * 2_000
    for name, decode in {
        "decode: as built (the codec, then a check)": decode_octal,
        "decode: codec, checked before": by_codec_checked_first,
        "decode: unicode_escape and latin-1": by_unicode_escape,
        "decode: split and table": by_split,
        "decode: regular expression": by_regular_expression,
    }.items():
        assert decode(pieces[0]) == by_regular_expression(pieces[0])
        seconds = median_of(lambda decode=decode: [decode(piece) for piece in pieces])
        rows[name] = {"MB/s": sum(map(len, pieces)) / seconds / 1e6}
    for name, make in {
        "build an event: as built": ExtendedOutput,
        "build an event: frozen": FrozenOutput,
    }.items():
        seconds = median_of(lambda make=make: [make("%1", b"", 0) for _ in range(100_000)])
        rows[name] = {"events/s": 100_000 / seconds}
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for name, row in rows.items():
        speed = f"{row['MB/s']:8.0f} MB/s" if "MB/s" in row else " " * 13
        rate = f"{row['events/s']:12,.0f} events/s" if "events/s" in row else ""
        print(f"{name:44}{speed}{rate}")


if __name__ == "__main__":
    main()
