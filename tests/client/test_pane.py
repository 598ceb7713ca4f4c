"""`Pane` against a real tmux: reading, typing, looking, waiting."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import tmuxcc
from tmuxcc import ExitStatus, SendOutcome
from tmuxcc.client.pane import prepare_text
from tmuxcc.protocol import TmuxVersion, has_capability

from .helpers import OtherClient, Server, gather, python, read_to_end, run_to_end, shell, until

pytestmark = pytest.mark.tmux

# What the input box of an agent does with its keyboard. It pastes only what is bracketed, takes an
# Enter that comes right behind a paste for a part of it, and says how much it was told and what.
AGENT = r"""
import hashlib, os, select, sys, tty
mood = sys.argv[1]
tty.setraw(0)
os.write(1, b"\x1b[?2004h")
text, pasting = b"", False

def draw():
    os.write(1, b"\x1b[2J\x1b[5;1H> " + text.split(b"\n")[-1][-60:])

draw()
os.write(1, b"\x1b]0;ready\x07")
while data := os.read(0, 65536):
    while data:
        if pasting:
            piece, end, data = data.partition(b"\x1b[201~")
            if not end:
                data = b""
            text += piece
            pasting = not end
            if end:
                if data.startswith(b"\r") or select.select([0], [], [], 0.03)[0]:
                    swallowed = data[:1] or os.read(0, 1)
                    text += swallowed
                    data = data[1:]
                draw()
        elif data.startswith(b"\x1b[200~"):
            pasting, data = True, data[6:]
        elif data[0] == 13:
            data = data[1:]
            if mood != "deaf":
                told = hashlib.sha256(text).hexdigest()[:16]
                os.write(1, b"\r\n\x1b[2Jtold %d %s\r\n" % (len(text), told.encode()))
                text = b""
                draw()
            else:
                draw()
        else:
            text += data[:1]
            data = data[1:]
            draw()
"""

# Writes what it reads to a file, byte for byte, until it has as many as it was told.
READER = r"""
import os, sys, tty
tty.setraw(0)
os.write(1, sys.argv[3].encode().decode("unicode_escape").encode() + b"ready")
left = int(sys.argv[2])
with open(sys.argv[1], "wb") as out:
    while left > 0:
        data = os.read(0, 65536)
        left -= len(data)
        out.write(data)
os.write(1, b"done")
os.read(0, 1)
"""


async def start(client: tmuxcc.Client, argv: list[str], ready: str = "ready") -> tmuxcc.Pane:
    """A program in a window, which has said that it is ready."""
    pane = client.pane((await client.new_window(argv=argv)).pane_id)
    assert await pane.wait_for(ready, since=0)
    return pane


async def start_agent(client: tmuxcc.Client, mood: str = "well") -> tmuxcc.Pane:
    pane = client.pane((await client.new_window(argv=python(AGENT, mood))).pane_id)
    assert await pane.wait_for(">", since=0)
    return pane


# Reading


async def test_offsets_count_every_byte_and_readers_see_the_same(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; read x; seq 20000; echo end"))
        log: list[list[tmuxcc.Chunk]] = [[], []]

        async def read(index: int) -> None:
            async for item in pane.output(since=0):
                assert isinstance(item, tmuxcc.Chunk)
                log[index].append(item)

        await gather(lambda: read(0), lambda: read(1), lambda: pane.send_keys("Enter"))
        for chunks in log:
            offset = 0
            for chunk in chunks:
                assert chunk.offset == offset
                offset += len(chunk.data)
        data = b"".join(chunk.data for chunk in log[0])
        assert data == b"".join(chunk.data for chunk in log[1])
        expected = "".join(f"{number}\r\n" for number in range(1, 20001))
        assert expected.encode() in data
        for since in (1, 5, 1000, len(data) - 1):
            assert await read_to_end(pane.output(since=since)) == data[since:]
        assert await read_to_end(pane.output(since=len(data))) == b""


async def test_a_reader_that_is_broken_off_leaves_nothing_and_a_new_one_starts_now(
    server: Server,
) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; cat"))
        async with pane.output(since=0) as stream:
            async for item in stream:
                assert isinstance(item, tmuxcc.Chunk)
                break
        assert await stream.receive() is None
        with trio.move_on_after(0.05) as scope:
            async for item in pane.output():
                raise AssertionError(item)
        assert scope.cancelled_caught
        async with pane.output() as stream:
            await pane.send_text("later\n")
            item = await stream.receive()
            assert isinstance(item, tmuxcc.Chunk)
            assert item.data.startswith(b"later")


async def test_what_is_no_longer_kept_is_a_counted_gap(server: Server) -> None:
    async with server.client(history=20_000) as client:
        pane = client.pane((await client.new_window(argv=shell("seq 20000; cat"))).pane_id)
        await until(lambda: client.statistics().output_bytes >= 128_894)
        async with pane.output(since=0) as stream:
            gap = await stream.receive()
            chunk = await stream.receive()
        assert isinstance(gap, tmuxcc.Gap)
        assert isinstance(chunk, tmuxcc.Chunk)
        assert (gap.offset, gap.cause) == (0, "history")
        assert gap.size == chunk.offset > 0
        async for line in pane.lines(since=0):
            assert isinstance(line, tmuxcc.LostOutput)
            assert line.gap.size == gap.size
            break


async def test_lines_are_what_a_person_reads(server: Server) -> None:
    async with server.client() as client:
        script = (
            r"printf 'plain\n\033[1;31mred\033[m text\n10%%\r50%%\r100%%\n\033]0;title\007t\n'"
            r"; printf '\303'; printf '\244\n\377?\nunfinished'"
        )
        made = await client.new_window(argv=shell(script))
        pane = client.pane(made.pane_id)
        lines = [line async for line in pane.lines(since=0)]
        assert lines == ["plain", "red text", "100%", "t", "ä", "\ufffd?", "unfinished"]
        raw = [line async for line in pane.lines(since=0, escapes=True)]
        assert raw[1] == "\x1b[1;31mred\x1b[m text"


async def test_a_capture_is_the_screen_and_with_history_all_of_it(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell(r"seq 100; printf '\033[31mred\033[m 🦀 ready'; exec cat"))
        screen = await pane.capture()
        assert screen.split("\n")[-1].strip() == "red 🦀 ready"
        assert "\n50\n" not in screen
        everything = await pane.capture(history=True)
        assert everything.startswith("1\n2\n3\n")
        assert everything.endswith(screen)
        assert "\x1b[31mred\x1b[" in await pane.capture(escapes=True)


@pytest.mark.parametrize("method", ["capture", "output", "lines", "wait_for", "wait_exit", "keys"])
async def test_a_pane_that_never_was_is_not_found(server: Server, method: str) -> None:
    async with server.client() as client:
        pane = client.pane("%4711")

        async def use() -> None:
            with pytest.raises(tmuxcc.PaneNotFound, match="%4711"):
                if method == "capture":
                    await pane.capture()
                elif method == "output":
                    async for _ in pane.output():
                        raise AssertionError
                elif method == "lines":
                    async for _ in pane.lines(since=0):
                        raise AssertionError
                elif method == "wait_for":
                    await pane.wait_for("x")
                elif method == "wait_exit":
                    await pane.wait_exit()
                else:
                    await pane.send_keys("Enter")

        await gather(use, use, use)
        with pytest.raises(tmuxcc.InvalidCommand):
            client.pane("work")


# Typing


def _texts() -> dict[str, str]:
    chance = random.Random(5)
    letters = "abc äé🦀\t;'\"\\#{}$~%\r\x01\x03\x7f\u0085"
    return {
        "lines": "one\ntwo\n\nthree",
        "200 KB": "".join(chance.choice(letters) for _ in range(120_000)) + "\n" * 100,
        "one line of 20 KB": "x" * 20_000,
        "what tmux reads as its own": "-x; kill-server\n#{pane_id}\n%end 1 1 1\n",
    }


@pytest.mark.parametrize("name", _texts())
@pytest.mark.parametrize("bracketed", [False, True], ids=["plain", "bracketed"])
async def test_a_text_arrives_byte_for_byte(
    server: Server, folder: Path, name: str, bracketed: bool
) -> None:
    text = _texts()[name]
    data = text.encode()
    if bracketed:
        data = b"\x1b[200~" + data + b"\x1b[201~"
    file = folder / "read"
    async with server.client() as client:
        mode = r"\x1b[?2004h" if bracketed else ""
        pane = await start(client, python(READER, str(file), str(len(data)), mode))
        await pane.send_text(text)
        assert await pane.wait_for("done", echo=True)
        assert file.read_bytes() == data
        assert await client.command("list-buffers") == []


async def test_several_lines_are_one_input_to_a_program_that_reads_pastes(server: Server) -> None:
    async with server.client() as client:
        pane = await start_agent(client)
        for text in ("one line", "several\nlines\nä🦀", "x" * 3000):
            told = hashlib.sha256(text.encode()).hexdigest()[:16]
            assert await pane.send_text(text, submit=True) is SendOutcome.ACCEPTED
            assert await pane.wait_for(f"told {len(text.encode())} {told}")


async def test_a_text_that_stays_in_the_input_box_is_stranded(server: Server) -> None:
    async with server.client() as client:
        pane = await start_agent(client, "deaf")
        assert await pane.send_text("never taken", submit=True) is SendOutcome.STRANDED
        assert "> never taken" in await pane.capture()


async def test_a_program_that_shows_nothing_leaves_the_outcome_unknown(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("stty -echo; printf ready; exec sleep 1000"))
        assert await pane.send_text("text") is SendOutcome.UNKNOWN
        assert await pane.send_text("text", submit=True) is SendOutcome.UNKNOWN


async def test_nothing_is_sent_to_a_program_that_has_ended(server: Server) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "remain-on-exit", "on")
        pane = client.pane((await client.new_window(argv=["true"])).pane_id)
        assert (await pane.wait_exit()).ok
        assert await pane.send_text("text", submit=True) is SendOutcome.DEAD
        with pytest.raises(tmuxcc.PaneDead):
            await pane.send_keys("Enter")
        # A pane that this client did not start, and of which it knows nothing yet.
        pane_id = server.run("new-window", "-d", "-P", "-F", "#{pane_id}", "exit 3")
        await until(lambda: server.run("display", "-pt", pane_id, "#{pane_dead}") == "1")
        assert await client.pane(pane_id).send_text("text") is SendOutcome.DEAD
        with pytest.raises(tmuxcc.PaneDead):
            await client.pane(pane_id).send_keys("C-c")


async def test_a_text_that_would_end_its_brackets_is_refused(server: Server) -> None:
    async with server.client() as client:
        with pytest.raises(ValueError, match="201~"):
            await client.pane("%0").send_text("a\x1b[201~b")


async def test_keys_are_what_their_names_say(server: Server, folder: Path) -> None:
    keys = ["a b", "Enter", "Up", "M-x", "C-a", "^B", "-l", ";", "two\nlines", "é🦀", "Tab", "F5"]
    expected = "a b\r\x1b[A\x1bx\x01\x02-l;two\nlinesé🦀\t\x1b[15~".encode()
    file = folder / "read"
    async with server.client() as client:
        pane = await start(client, python(READER, str(file), str(len(expected)), ""))
        await pane.send_keys(*keys)
        assert await pane.wait_for("done", echo=True)
        assert file.read_bytes() == expected


async def test_control_keys_stay_bytes_with_extended_keys_on(server: Server, folder: Path) -> None:
    file = folder / "read"
    async with server.client() as client:
        await client.command("set-option", "-s", "extended-keys", "on")
        pane = await start(client, python(READER, str(file), "8", r"\x1b[>4;2m"))
        await pane.send_keys("C-c", "C-d", "two\nli", "C-z")
        assert await pane.wait_for("done", echo=True)
        assert file.read_bytes()[:8] == b"\x03\x04two\nli"


async def test_control_c_interrupts_the_program(server: Server) -> None:
    async with server.client() as client:
        await client.command("set-option", "-s", "extended-keys", "on")
        pane = await start(client, shell(r"printf '\033[>4;1mready'; exec sleep 1000"))
        await pane.send_keys("C-c")
        status = await pane.wait_exit()
        assert status in (ExitStatus(None, 2), ExitStatus(130, None))


async def test_typing_leaves_a_mode_first(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; cat"))
        for mode in (("copy-mode",), ("clock-mode",), ("choose-tree",)):
            await client.command(*mode, "-t", pane.pane_id)
            await pane.send_text(f"text in {mode[0]}", submit=True)
            assert await pane.wait_for(f"^text in {mode[0]}$", echo=True)
            await client.command(*mode, "-t", pane.pane_id)
            await pane.send_keys(f"keys in {mode[0]}", "Enter")
            assert await pane.wait_for(f"^keys in {mode[0]}$", echo=True)


# Waiting for text


async def test_a_pattern_is_found_over_the_borders_of_chunks(server: Server) -> None:
    async with server.client() as client:
        pieces = "for p in r e a '\\303' '\\244' '\\033[' '1m' d y; do printf $p; sleep 0.02; done"
        pane = client.pane((await client.new_window(argv=shell(f"{pieces}; cat"))).pane_id)
        result = await pane.wait_for(["nothing", "reaädy$"], since=0)
        assert (result.outcome, result.index) == ("matched", 1)
        assert result.match is not None
        assert result.match[0] == "reaädy"
        assert result.text == "reaädy"


async def test_the_echo_of_what_was_typed_is_not_found(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; while read x; do echo got $x; done"))
        await pane.send_text("hello", submit=True)
        result = await pane.wait_for("hello")
        assert result.text.strip() == "got hello"
        await pane.send_text("hello", submit=True)
        result = await pane.wait_for("hello", echo=True)
        assert result.text.strip() == "hello"
        assert await pane.wait_for("got hello")
        await pane.send_keys("again", "Enter")
        assert (await pane.wait_for("again")).text.strip() == "got again"


async def test_a_stop_pattern_and_the_end_are_outcomes_of_their_own(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; read x; echo Error: $x; read x; echo bye"))
        await pane.send_text("bad", submit=True)
        result = await pane.wait_for("fine", stop=["nothing", "Error: .*"])
        assert (result.outcome, result.index) == ("stopped", 1)
        assert not result
        await pane.send_text("", submit=True)
        result = await pane.wait_for("fine")
        assert (result.outcome, result.match) == ("exited", None)
        assert "bye" in result.text
        assert (await pane.wait_for("fine")).outcome == "exited"


async def cancelled_after(steps: int, function: Callable[[], Awaitable[object]]) -> None:
    """Run it, and cancel it when others have had so many turns."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with suppress(tmuxcc.PaneNotFound):
                await function()

        nursery.start_soon(run)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_cancelled_reader_of_no_pane_can_ask_again(server: Server, steps: int) -> None:
    async with server.client() as client:
        stream = client.pane("%99").output()
        await cancelled_after(steps, stream.receive)
        with pytest.raises(tmuxcc.PaneNotFound):
            await stream.receive()


@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_cancelled_look_at_the_screen_forgets_nothing(server: Server, steps: int) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; read x; echo wanted; exec cat"))
        assert await pane.wait_for("ready", since=0)
        await pane.send_keys("Enter")
        await until(lambda: pane.statistics().output_bytes >= len("ready\r\n\r\nwanted\r\n"))
        await cancelled_after(steps, lambda: pane.wait_for("never", screen=True))
        assert await pane.wait_for("wanted")


@pytest.mark.parametrize("steps", range(1, 12))
async def test_typing_that_is_cancelled_leaves_no_buffer(server: Server, steps: int) -> None:
    async with server.client() as client:
        pane = await start(client, shell("echo ready; exec cat"))

        async def prepare() -> None:
            async with prepare_text(client, "secret"):
                await trio.sleep_forever()

        await cancelled_after(steps, prepare)
        await cancelled_after(steps, lambda: pane.send_text("secret"))
        assert await client.command("list-buffers") == []


async def test_a_wait_begins_where_the_last_one_ended(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("printf ready; read x; printf 'a1 a2 a3'; cat"))
        await pane.send_keys("Enter")
        for number in (1, 2, 3):
            result = await pane.wait_for("a([0-9])")
            assert result.match is not None
            assert result.match[1] == str(number)
        with trio.move_on_after(0.05) as scope:
            await pane.wait_for("a([0-9])")
        assert scope.cancelled_caught
        result = await pane.wait_for("a([0-9])", since=0)
        assert result.match is not None
        assert result.match[1] == "1"


async def test_the_screen_is_searched_first_if_asked(server: Server) -> None:
    async with server.client() as client:
        await start(client, shell("printf 'shown ready'; cat"))
        async with server.client() as late:
            pane = late.pane((await late.list_panes())[-1].pane_id)
            with trio.move_on_after(0.05) as scope:
                await pane.wait_for("shown")
            assert scope.cancelled_caught
            assert await pane.wait_for("shown", screen=True)


async def test_a_loss_ends_a_wait_with_gap(server: Server) -> None:
    async with server.client(history=10_000) as client:
        pane = await start(client, shell("printf ready; read x; seq 100000; cat"))
        await pane.send_keys("Enter")
        await until(lambda: client.statistics().output_bytes > 500_000)
        assert (await pane.wait_for("never")).outcome == "gap"


# Waiting for the end


@pytest.mark.parametrize("remain", ["off", "on"])
async def test_the_exit_status_is_exact(server: Server, remain: str) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "remain-on-exit", remain)
        codes = (0, 1, 2, 3, 77, 126, 127, 128, 129, 130, 137, 143, 200, 255)
        signals = (1, 2, 3, 6, 9, 13, 14, 15)

        async def check(script: str, expected: ExitStatus) -> None:
            data, status = await run_to_end(client, shell(f"printf x; {script}"))
            assert (data, status) == (b"x", expected)

        async with trio.open_nursery() as nursery:
            for code in codes:
                nursery.start_soon(check, f"exit {code}", ExitStatus(code, None))
            for number in signals:
                nursery.start_soon(check, f"kill -{number} $$", ExitStatus(None, number))


async def test_a_killed_wrapper_or_pane_is_an_end_of_unknown_status(server: Server) -> None:
    async with server.client() as client:

        async def end(kill: Callable[[tmuxcc.Pane], object]) -> ExitStatus:
            pane = await start(client, shell("printf ready; exec sleep 1000"))
            result = kill(pane)
            if result is not None:
                await result  # type: ignore[misc]
            return await pane.wait_exit()

        def kill_wrapper(pane: tmuxcc.Pane) -> None:
            os.kill(int(server.run("display", "-pt", pane.pane_id, "#{pane_pid}")), 9)

        for kill in (
            kill_wrapper,
            lambda pane: client.command("kill-pane", "-t", pane.pane_id),
            lambda pane: client.command("kill-window", "-t", pane.pane_id),
        ):
            assert await end(kill) == ExitStatus(None, None)


async def test_the_end_of_a_pane_of_the_users_is_seen_too(
    server: Server, tmux_version: TmuxVersion
) -> None:
    async with server.client() as client:

        async def end(script: str) -> ExitStatus:
            pane_id = server.run("new-window", "-d", "-P", "-F", "#{pane_id}", script)
            return await client.pane(pane_id).wait_exit()

        signalled = has_capability(tmux_version, "dead-signal")
        unknown = ExitStatus(None, None)
        assert await end("read x < /dev/null; sleep 0.3; exit 3") == unknown
        await client.command("set-option", "-g", "remain-on-exit", "on")
        ended = await gather(
            lambda: end("exit 0"),
            lambda: end("sleep 0.3; exit 3"),
            lambda: end("sleep 0.3; kill -9 $$"),
        )
        assert ended[:2] == [ExitStatus(0, None), ExitStatus(3, None)]
        assert ended[2] == (ExitStatus(None, 9) if signalled else unknown)


async def test_every_waiter_is_told_the_end_and_late_ones_too(server: Server) -> None:
    async with server.client() as client:
        pane = await start(client, shell("printf ready; read x; exit 7"))
        told = await gather(
            pane.wait_exit,
            pane.wait_exit,
            lambda: pane.wait_for("x"),
            lambda: pane.send_keys("Enter"),
        )
        assert told[0] == told[1] == await pane.wait_exit() == ExitStatus(7, None)
        assert told[2].outcome == "exited"


# Snapshots

FIRST = r"""
import os, sys
def write(text):
    os.write(1, text.encode())
write("\x1b[2J\x1b[H")
for row in range(30):
    write(f"\x1b[{31 + row % 7}mline {row}\x1b[m \u6f22\u5b57 \U0001f980 \u00e4e\u0301\t|\r\n")
write("x" * 200)
SETUP
write("\x1b]0;ready\x07\x1b[3")
os.read(0, 1)
write("1mred\x1b[m after\r\n")
for row in range(10):
    write(f"\x1b[1;4{row % 7}m more {row}\x1b[m\r\n")
write("\x1b[5;10Hthere\x1b[K\x1b7\x1b[2;2Hx\x1b8y\x1b]0;finished\x07")
os.read(0, 1)
os.read(0, 1)
"""
SCREENS = {
    "plain": "",
    "alternate screen": r'write("\x1b[?1049h\x1b[H\x1b[42mfull \x1b[m screen")',
    "scroll region": r'write("\x1b[5;12r\x1b[7;3Hin the region")',
    "origin mode": r'write("\x1b[5;12r\x1b[?6h\x1b[3;3Hin the region")',
    "insert mode": r'write("\x1b[4h\x1b[3;3Hinserted\x1b[?25l")',
    "no wrapping": r'write("\x1b[?7l" + "z" * 300)',
    "application keys": r'write("\x1b=\x1b[?1h\x1b[?1002h\x1b[?1006h\x1b[?2004h\x1b[10;70H")',
    "last column": r'write("\x1b[9;1H" + "w" * 80)',
}
STATE = (
    "#{cursor_x},#{cursor_y},#{alternate_on},#{cursor_flag},#{scroll_region_upper},"
    "#{scroll_region_lower},#{insert_flag},#{keypad_flag},#{keypad_cursor_flag},#{wrap_flag},"
    "#{origin_flag},#{mouse_button_flag},#{mouse_sgr_flag}"
)


async def look(client: tmuxcc.Client, pane_id: str) -> list[list[str]]:
    """All that a pane shows, with its colours, and the state of its terminal."""
    screen, state = await client.batch(
        [
            ("capture-pane", "-peN", "-t", pane_id),
            ("display-message", "-p", "-t", pane_id, STATE),
        ]
    )
    assert isinstance(screen, list)
    assert isinstance(state, list)
    return [[line.rstrip() for line in screen], state]


async def redraw(client: tmuxcc.Client, file: Path, data: bytes) -> list[list[str]]:
    """What a fresh pane shows that is fed with `data`."""
    file.write_bytes(data + b"\x1b]0;finished\x07")
    pane = client.pane(
        (await client.new_window(argv=shell(f"stty raw -echo; cat {file}; exec cat"))).pane_id
    )
    title = ("display-message", "-p", "-t", pane.pane_id, "#{pane_title}")

    async def is_drawn() -> bool:
        return await client.command(*title) == ["finished"]

    await until(is_drawn)
    return await look(client, pane.pane_id)


async def collect_from_snapshot(stream: tmuxcc.OutputStream, end: bytes) -> bytes:
    """The last snapshot (or the start) and what follows it, up to `end`."""
    data = b""
    causes = []
    async for item in stream:
        if isinstance(item, tmuxcc.Gap):
            causes.append(item.cause)
            continue
        data = item.data if isinstance(item, tmuxcc.Snapshot) else data + item.data
        if data.endswith(end) or end in data[-4096:]:
            return data
    raise AssertionError(causes)


@pytest.mark.parametrize("name", SCREENS)
async def test_a_snapshot_and_what_follows_draw_exactly_what_is_shown(
    server: Server, folder: Path, name: str
) -> None:
    async with server.client() as client:
        made = await client.new_window(argv=python(FIRST.replace("SETUP", SCREENS[name])))
        pane = client.pane(made.pane_id)
        async with pane.output(since=0) as stream:
            await collect_from_snapshot(stream, b"\x1b]0;ready\x07\x1b[3")
        async with pane.output(seed=True) as stream:
            snapshot = await stream.receive()
            assert isinstance(snapshot, tmuxcc.Snapshot)
            await client.command("send-keys", "-t", pane.pane_id, "Enter")
            data = snapshot.data + await collect_from_snapshot(stream, b"\x1b]0;finished\x07")
        assert await redraw(client, folder / "data", data) == await look(client, pane.pane_id)


async def test_after_a_pause_a_seeded_stream_goes_on_from_a_snapshot(
    server: Server, folder: Path
) -> None:
    flood = python(
        "import os, signal\n"
        "stop = False\n"
        "def end(*_):\n global stop; stop = True\n"
        "signal.signal(signal.SIGINT, end)\n"
        "n = 0\n"
        "while not stop:\n"
        ' n += 1; os.write(1, b"\\x1b[3%dm%d flood \\xc3\\xa4\\x1b[m\\r\\n" % (n % 8, n) * 20)\n'
        'os.write(1, b"last\\x1b]0;finished\\x07")\n'
        "os.read(0, 1); os.read(0, 1)\n"
    )
    async with server.client() as client:
        pane = client.pane((await client.new_window(argv=flood)).pane_id)
        causes: list[str] = []
        data = b""
        async with pane.output(seed=True) as stream:
            # With somebody else attached tmux reads on while we do not, and pauses us.
            with OtherClient(server):
                while client.statistics().pauses < 2:
                    # Nothing else does it: the oldest output has to be a second old.
                    time.sleep(1.3)  # noqa: ASYNC251
                    await trio.sleep(0.05)
            await pane.send_keys("C-c")
            async for item in stream:
                if isinstance(item, tmuxcc.Gap):
                    causes.append(item.cause)
                elif isinstance(item, tmuxcc.Snapshot):
                    causes.append("snapshot")
                    data = item.data
                else:
                    data += item.data
                    if b"last\x1b]0;finished\x07" in data[-200:]:
                        break
        assert "pause" in causes
        assert causes[-1] == "snapshot"
        shown = await look(client, pane.pane_id)
        assert await redraw(client, folder / "data", data) == shown


async def test_where_a_snapshot_is_cancelled_the_other_readers_have_theirs(server: Server) -> None:
    async with server.client() as client:
        pane = client.pane((await client.new_window(argv=["yes"])).pane_id)
        found: list[str] = []

        async def read() -> None:
            async with pane.output(seed=True) as stream:
                async for item in stream:
                    if not found or found[-1] != type(item).__name__:
                        found.append(type(item).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await until(lambda: found)
            for steps in range(20):
                async with trio.open_nursery() as inner:
                    stream = pane.output(seed=True)
                    inner.start_soon(stream.receive)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    inner.cancel_scope.cancel()
            end = pane.statistics().output_bytes
            await until(lambda: pane.statistics().output_bytes > end + 100_000)
            # Where it was cancelled half way, output goes on before it is made up for.
            await until(lambda: found[-3:] == ["Gap", "Snapshot", "Chunk"])
            nursery.cancel_scope.cancel()


async def test_who_waits_for_a_snapshot_when_the_client_is_left_is_told(server: Server) -> None:
    server.start()
    for steps in range(10):
        async with trio.open_nursery() as nursery, server.client() as client:
            pane = client.pane((await client.new_window(argv=["cat"])).pane_id)
            stream = pane.output(seed=True)

            async def read(stream: tmuxcc.OutputStream = stream) -> None:
                with pytest.raises(tmuxcc.ConnectionClosed):
                    while True:
                        await stream.receive()

            nursery.start_soon(read)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()


async def test_a_pane_that_goes_while_it_is_paused_ends_its_seeded_stream(server: Server) -> None:
    async with server.client() as client:
        pane = client.pane((await client.new_window(argv=["yes"])).pane_id)
        async with pane.output(seed=True) as stream:
            await client.batch(
                [
                    ("refresh-client", "-A", f"{pane.pane_id}:pause"),
                    ("kill-pane", "-t", pane.pane_id),
                ]
            )
            async for _ in stream:
                pass
        assert await pane.wait_exit() == ExitStatus(None, None)
        assert await client.command("display-message", "-p", "well") == ["well"]
