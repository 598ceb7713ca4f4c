"""What must hold for any bytes: each check takes what a fuzzer made up, and raises."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from tmuxcc.errors import InvalidCommand, LayoutError, ProtocolError
from tmuxcc.protocol import (
    Layout,
    Parser,
    Replies,
    RequestQueue,
    decode_octal,
    encode_command,
    expected_replies,
    layout_checksum,
    parse_layout,
    parse_version,
)
from tmuxcc.protocol.events import (
    Event,
    ExtendedOutput,
    LayoutChange,
    Output,
    Reply,
    SessionsChanged,
    Unknown,
)

DATA = Path(__file__).parent.parent / "tests" / "data"
MARKER = b"fence"

TOKENS = (
    b"\n", b"\r\n", b" ", b"%", b"\\", b"\\012", b"\\400", b"\0", b"\xff", b" : ", b"fence\n",
    b"%begin 1 1 1\n", b"%end 1 1 1\n", b"%error 1 1 1\n", b"%begin 1 2 1\nfence\n%end 1 2 1\n",
    b"%begin 1 3 1\r\n", b"%end 1 3 1\r\n", b"%begin 1 4 0\n", b"%end 1 4 0\n",
    b"%output %0 ", b"%extended-output %0 1 : ", b"%exit\n", b"%layout-change @0 ",
    b"%subscription-changed a $0 - - - : ", b"b25f,80x24,0,0,2", b"'", b'"', b"#{", b"A=", b"-",
)  # fmt: skip


def seeds() -> list[bytes]:
    """Recorded streams and what was typed for them; the long ones in pieces."""
    found = []
    for path in sorted(DATA.glob("transcripts/*/*.bin")) + sorted(DATA.glob("transcripts/*/*.in")):
        data = path.read_bytes()
        found += [data[start : start + 4000] for start in range(0, min(len(data), 40000), 4000)]
    return found


def _parse(
    data: bytes, cuts: list[int], limits: dict[str, int], fenced: bool
) -> tuple[list[Event], Parser]:
    parser = Parser(**limits)
    if fenced:
        parser.fence(MARKER)
    events: list[Event] = []
    for start, end in pairwise([0, *cuts, len(data)]):
        events += parser.receive_data(data[start:end])
        assert parser._pieces_size <= limits["max_line"]
        assert parser._body_size <= limits["max_reply"]
    events += parser.receive_eof()
    assert parser.receive_data(b"%exit\n") == []
    return events, parser


def _slowly(data: bytes) -> tuple[list[bytes], list[tuple[str, bytes]]]:
    """The bodies of the replies and the output of a stream, by the shortest program there is."""
    bodies, output, body, ends = [], [], None, ()
    for line in data.split(b"\n")[:-1]:
        if body is not None:
            if ends[0][-1:] == b"\r":
                line = line.removesuffix(b"\r")
            if line in [end.removesuffix(b"\r") for end in ends]:
                bodies.append(b"\n".join(body))
                body = None
            else:
                body.append(line)
        elif re.fullmatch(rb"%begin( [0-9]{1,20}){3}\r?", line):
            body, ends = [], (b"%end" + line[6:], b"%error" + line[6:])
        elif match := re.fullmatch(rb"%output (%[0-9]{1,20}) ((?s:.*?))\r?", line):
            output.append((match[1].decode(), decode_octal(match[2])))
    return bodies, output


def check_parser(data: bytes) -> None:
    """The first four bytes choose limits and cuts, the others are the stream."""
    head, data = data[:4].ljust(4, b"\0"), data[4:]
    small = head[0] & 1 > 0
    fenced = head[0] & 2 > 0
    limits = {
        "max_line": 128 if small else 2**20,
        "max_reply": head[1] // 4 if small else 2**20,
    }
    step = head[2] + 1
    whole, parser = _parse(data, [], limits, fenced)
    for cuts in (
        list(range(step, len(data), step)),
        [head[3] * len(data) // 256],
        list(range(1, min(len(data), 2000))),
    ):
        found, other = _parse(data, cuts, limits, fenced)
        assert found == whole, "the cuts changed the events"
        assert str(other.error) == str(parser.error), "the cuts changed the error"

    queue = RequestQueue()
    queue.add(["a"], MARKER if fenced else b"")
    queue.add(["b"])
    answered = 0
    for event in whole:
        if isinstance(event, Reply):
            assert not any(b"\n" in line for line in event.lines)
            try:
                answered += queue.receive_reply(event) is not None
            except ProtocolError:
                break
        elif isinstance(event, Unknown):
            assert event.line
            queue.receive_stray(event.line)
        elif isinstance(event, LayoutChange):
            check_layout(event.layout)
    assert len(queue.close()) == 2 - answered

    if not small and not fenced and parser.error is None:
        bodies, output = _slowly(data)
        assert [b"\n".join(event.lines) for event in whole if isinstance(event, Reply)] == bodies
        plain = [event for event in whole if type(event) is Output]
        assert [(event.pane_id, event.data) for event in plain] == output
        for event in whole:
            if isinstance(event, ExtendedOutput):
                assert event.age_ms >= 0

    if small and not fenced:
        check_limits(data, whole, limits)
    check_fence(data)


def check_limits(data: bytes, found: list[Event], limits: dict[str, int]) -> None:
    """Of each reply the first lines are kept, and the rest is counted to the byte."""
    replies = [event for event in found if isinstance(event, Reply)]
    unlimited = [event for event in Parser().receive_data(data) if isinstance(event, Reply)]
    assert len(replies) == len(unlimited)
    for reply, whole in zip(replies, unlimited, strict=True):
        kept = [line[: limits["max_line"]] for line in whole.lines[: len(reply.lines)]]
        assert list(reply.lines) == kept
        size = sum(len(line) + 1 for line in whole.lines)
        assert sum(len(line) + 1 for line in reply.lines) + reply.omitted == size


def check_fence(data: bytes) -> None:
    """Between fences a reply is whole, whatever its text."""
    begin, end = b"%begin 9 2 1\n", b"%end 9 2 1"
    text = data.replace(b"%end 1 1 1", end).replace(b"%error 1 1 1", b"%error 9 2 1")
    lines = [line for line in text.split(b"\n") if line != MARKER]
    stream = b"%begin 9 1 1\nfence\n%end 9 1 1\n" + begin
    stream += b"".join(line + b"\n" for line in lines) + end + b"\n"
    stream += b"%sessions-changed\n%begin 9 3 1\nfence\n%end 9 3 1\n"
    parser = Parser()
    parser.fence(MARKER)
    found = parser.receive_data(stream)
    assert found == [
        Reply(9, 1, 1, (MARKER,), True),
        Reply(9, 2, 1, tuple(lines), True),
        SessionsChanged(),
        Reply(9, 3, 1, (MARKER,), True),
    ], "a fenced reply was not whole"


def check_decoding(data: bytes) -> None:
    """Escaping as tmux does it is undone, and nothing else is refused."""
    escaped = b"".join(
        b"\\%03o" % byte if byte < 0x20 or byte == 0x5C else bytes([byte]) for byte in data
    )
    assert decode_octal(escaped) == data
    assert len(decode_octal(data)) <= len(data)


def check_layout(text: str) -> None:
    """A layout or a `LayoutError`, and then one with the right checksum."""
    try:
        layout = parse_layout(text)
    except LayoutError:
        if text.isascii() and len(text) < 2000:
            try:
                layout = parse_layout(f"{layout_checksum(text):04x},{text}")
            except LayoutError:
                return
        else:
            return
    assert isinstance(layout, Layout)
    assert all(pane.pane_id is not None and not pane.children for pane in layout.panes())


def _read_back(line: bytes) -> list[bytes]:
    """What tmux makes of an encoded line (yylex in cmd-parse.y), as far as its form is used."""
    words = []
    for word in re.findall(rb"""(?:'[^']*'|"[^"]*"|[^ '"\n])+""", line):
        pieces = re.findall(rb"""'([^']*)'|"('+)"|\\([0-3][0-7]{2})|([A-Za-z0-9_./-]+)""", word)
        words.append(
            b"".join(
                bytes([int(octal, 8)]) if octal else single + double + bare
                for single, double, octal, bare in pieces
            )
        )
    return words


def check_commands(data: bytes) -> None:
    """The words are separated by a byte of the fuzzer's own choice."""
    separator, data = data[:1] or b" ", data[1:]
    argv = data.split(separator)
    try:
        line = encode_command(*argv)
    except InvalidCommand:
        assert b"\0" in data or not argv[0] or b"=" in argv[0]
    else:
        assert re.fullmatch(rb"[ -~]+\n", line)
        assert _read_back(line) == argv
        assert encode_command(*[word.decode("utf-8", "surrogateescape") for word in argv]) == line
    replies = expected_replies(argv)
    texts = [word.decode("utf-8", "surrogateescape") for word in argv]
    assert expected_replies(texts) is replies
    if replies is Replies.ONE and "--" not in texts:
        assert b"\n" not in data.replace(separator, b"")
    parse_version(texts[0])
    check_layout(texts[-1])
    check_decoding(data[:500])
