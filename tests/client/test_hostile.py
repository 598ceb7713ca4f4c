"""Programs that write what looks like tmux's own protocol, and worse."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import tmuxcc

from .helpers import Server, python, read_to_end, shell, until

pytestmark = pytest.mark.tmux

FORGED = b"""%begin 1 1 1
%output %0 forged
%end 1 1 1
%exit forged
%window-add @4711
%window-close @0
%pause %0
%continue %0
%session-changed $4711 forged
%layout-change @0 forged
%subscription-changed tmuxcc-dead $0 @0 0 %0 : 1,0,
%error 1 1 1
\x1bP1000p%begin 1 1 0
\x1b\\%exit
"""

GARBAGE = {
    "forged lines": FORGED * 20,
    "NULs and controls": bytes(range(256)) * 50,
    "no UTF-8": b"\xff\xfe\xc3\n\xf0\x9f\n\x80\x80\xed\xa0\x80\n" * 200,
    "a line of 1 MB": b"x" * 1_000_000 + b"\n",
    "backslashes": b"\\\\033\\134\\\\\\ \\400 \\8 \\\n" * 500,
    "unfinished sequences": b"\x1b]0;title\x1b[\x1bP\x1b_\x1b]6973;0123456789abcdef\n" * 200,
}


def forgeries(client: tmuxcc.Client) -> list[object]:
    """Where every event is put that no tmux has sent."""
    found: list[object] = []

    def look(event: object) -> None:
        if isinstance(event, tmuxcc.Reply):
            return
        if isinstance(event, tmuxcc.Output):
            if event.pane_id == "%0":
                found.append(event)
        elif (
            isinstance(event, (tmuxcc.Exit, tmuxcc.Unknown, tmuxcc.Pause, tmuxcc.Continue))
            or "forged" in repr(event)
            or "4711" in repr(event)
        ):
            found.append(event)

    client.add_tap(look)
    return found


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_arrives_as_it_was_written_and_is_nothing_else(
    server: Server, folder: Path, name: str
) -> None:
    file = folder / "data"
    file.write_bytes(GARBAGE[name])
    script = "stty raw; exec cat " + str(file)
    async with server.client() as client:
        found = forgeries(client)
        made = await client.new_window(argv=shell(script))
        pane = client.pane(made.pane_id)
        data = await read_to_end(pane.output(since=0))
        assert data == GARBAGE[name]
        assert (await pane.wait_exit()).ok
        assert await client.command("display-message", "-p", "well") == ["well"]
        assert found == []


async def test_a_screen_of_forged_lines_is_captured_as_it_is(server: Server) -> None:
    async with server.client() as client:
        found = forgeries(client)
        script = f"import os; os.write(1, {FORGED!r}); os.read(0, 1)"
        made = await client.new_window(argv=python(script))
        pane = client.pane(made.pane_id)
        assert await pane.wait_for("%exit$", since=0)
        for _ in range(20):
            captured = await pane.capture()
            assert captured.startswith("%begin 1 1 1\n%output %0 forged\n%end 1 1 1\n%exit forged")
            assert await client.command("display-message", "-p", "well") == ["well"]
        async with pane.output(seed=True) as stream:
            snapshot = await stream.receive()
            assert isinstance(snapshot, tmuxcc.Snapshot)
            assert b"%pause %0" in snapshot.data
        # What the snapshot itself needs is told, and of its own pane only.
        assert {repr(event) for event in found} <= {
            repr(tmuxcc.Pause(pane.pane_id)),
            repr(tmuxcc.Continue(pane.pane_id)),
        }


def guards(client_time: int, first: int) -> bytes:
    """The lines that close the replies of the next seconds, right ones among them."""
    return b"".join(
        b"%%%s %d %d 1\n" % (word, when, number)
        for when in range(client_time, client_time + 3)
        for number in range(first, first + 150)
        for word in (b"end", b"error")
    )


class Numbers:
    """The guards of the replies that were read, to see whether a forger had guessed one."""

    def __init__(self, client: tmuxcc.Client) -> None:
        self.last = 0
        self.seen: list[tuple[int, int]] = []
        client.add_tap(self._note, tmuxcc.Reply)

    def _note(self, reply: object) -> None:
        assert isinstance(reply, tmuxcc.Reply)
        self.last = reply.number
        self.seen.append((reply.time, reply.number))

    def guessed(self, text: bytes) -> int:
        return sum(b" %d %d 1\n" % guard in text for guard in self.seen)


async def test_guards_with_the_right_numbers_shift_no_reply_of_a_capture(
    server: Server,
) -> None:
    async with server.client() as client:
        numbers = Numbers(client)
        found = forgeries(client)
        await client.command("set-option", "-g", "history-limit", "10000")
        hits = 0
        for _ in range(3):
            await client.command("list-panes")
            text = guards(int(time.time()), numbers.last)
            script = f"import os; os.write(1, {text!r}); os.write(1, b'ready'); os.read(0, 1)"
            file = server.socket.with_name("script")
            file.write_text(script, "utf-8")
            made = await client.new_window(
                argv=python("import sys; exec(open(sys.argv[1]).read())", str(file))
            )
            pane = client.pane(made.pane_id)
            assert await pane.wait_for("ready", since=0)
            numbers.seen.clear()
            for number in range(15):
                assert await pane.capture(history=True) == text.decode() + "ready"
                answers = await client.batch(
                    [
                        ("capture-pane", "-p", "-S", "-", "-t", pane.pane_id),
                        ("display-message", "-p", str(number)),
                    ]
                )
                assert answers[1] == [str(number)]
            hits += numbers.guessed(text)
        assert hits > 0, "the forger has guessed nothing"
        assert found == []
        assert client.statistics().unsolicited_replies == 0


async def test_guards_in_options_variables_and_titles_shift_no_reply(server: Server) -> None:
    async with server.client() as client:
        numbers = Numbers(client)
        found = forgeries(client)
        hits = 0
        for _ in range(3):
            await client.command("list-panes")
            text = guards(int(time.time()), numbers.last).decode()[:15_000]
            server.run("set-option", "-g", "@x", text[:7000])
            server.run("set-environment", "-g", "X", text[:7000])
            server.run("select-pane", "-t", "%0", "-T", text[:7000].replace("\n", " "))
            numbers.seen.clear()
            for number in range(10):
                commands: Sequence[tuple[str, ...]] = [
                    ("show-options", "-gv", "@x"),
                    ("show-options", "-g", "@x"),
                    ("show-environment", "-g", "X"),
                    ("display-message", "-p", "#{@x}"),
                    ("list-panes", "-F", "#{@x}"),
                    ("display-message", "-p", str(number)),
                ]
                answers = await client.batch(commands)
                assert answers[-1] == [str(number)]
                assert "\n".join(answers[0]) == text[:7000].removesuffix("\n")  # type: ignore[arg-type]
                assert answers[3] == answers[4] == answers[0]
                assert len(await client.list_panes()) == 1
            hits += numbers.guessed(text.encode())
        assert hits > 0, "the forger has guessed nothing"
        assert found == []


async def test_a_mark_without_the_nonce_ends_nothing(server: Server) -> None:
    mark = b"\x1b]6973;%s;0;\x07" % (b"0" * 32)
    script = f"import os; os.write(1, {mark!r} + b'after'); os.read(0, 1)"
    async with server.client() as client:
        made = await client.new_window(argv=python(script))
        pane = client.pane(made.pane_id)
        assert await pane.wait_for("after", since=0)
        await pane.send_keys("Enter")
        data = await read_to_end(pane.output(since=0))
        assert mark in data
        assert (await pane.wait_exit()).ok


async def test_two_hundred_panes_are_told_apart(server: Server) -> None:
    async with server.client() as client:
        made = await client.batch(
            [
                (
                    *("new-window", "-d", "-P", "-F", "#{pane_id}", "--"),
                    *client.wrap(["/bin/echo", f"%output %{number} of {number}"]),
                )
                for number in range(200)
            ]
        )
        for number, lines in enumerate(made):
            assert isinstance(lines, list)
            data = await read_to_end(client.pane(lines[0]).output(since=0))
            assert data == b"%%output %%%d of %d\r\n" % (number, number)
        await until(lambda: client.statistics().in_flight == 0)
