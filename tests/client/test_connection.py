"""Connections to a tmux that misbehaves: `tmuxcc.client.connection`, `start` and `open_client`.

The tmux is tests/fake_tmux.py, a real process.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

import tmuxcc
from tmuxcc.client import connection as connection_module
from tmuxcc.client import start as start_module
from tmuxcc.client.connection import Connection
from tmuxcc.client.transport import open_process
from tmuxcc.errors import (
    AccessDenied,
    CommandError,
    ConnectionClosed,
    NoServer,
    OpenError,
    ProtocolError,
    SessionNotFound,
    SocketPathTooLong,
    StartTimeout,
    TmuxNotFound,
    UnsupportedVersion,
)
from tmuxcc.protocol.events import Event

from ..fake_tmux import install, is_gone, pids

GUARD = 20
QUESTIONS = 5
"""What a client asks of itself before its block is entered; one more follows."""


class Fake:
    """The fake tmux of one test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.program = Path()
        monkeypatch.setattr(start_module, "START_TIMEOUT", 10.0)

    def plays(self, script: str, **options: str) -> None:
        for name in ("script", "go", "pids", "notes"):
            (self.folder / name).unlink(missing_ok=True)
        self.program = install(self.folder, script, **options)

    @asynccontextmanager
    async def open(
        self, session: str | None = "work", *, settled: bool = True, **options: object
    ) -> AsyncIterator[tmuxcc.Client]:
        with trio.fail_after(GUARD):
            async with tmuxcc.open_client(
                session,
                tmux=self.program,
                socket_path=self.folder / "socket",
                **options,  # type: ignore[arg-type]
            ) as client:
                if settled:
                    await wait_until(lambda: _asked_all(client))
                yield client

    async def go(self) -> None:
        """Let a script go on that waits for the test."""
        await trio.to_thread.run_sync((self.folder / "go").write_bytes, b"go")

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pid(self) -> int:
        return pids(self.folder)[0]

    def assert_gone(self) -> None:
        assert all(is_gone(pid) for pid in pids(self.folder))


@pytest.fixture
def fake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(folder, monkeypatch)


def _asked_all(client: tmuxcc.Client) -> bool:
    now = client.statistics()
    return now.commands_sent > QUESTIONS and not now.in_flight


async def wait_until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.002)


@asynccontextmanager
async def connected(fake: Fake, script: str) -> AsyncIterator[Connection]:
    """A connection without a client."""
    fake.plays(script)
    connection = Connection(open_process([str(fake.program)]))
    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            await connection.wait_started()
            yield connection
            nursery.cancel_scope.cancel()
    fake.assert_gone()


# ------------------------------------------------------------------------------------------ start


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ('reply("can\'t find session: work", flags=0, ok=False)', SessionNotFound, "'work'"),
        ("reply('no sessions', flags=0, ok=False)", SessionNotFound, "no session;"),
        ("complain('no server running on /s\\n')", NoServer, "no tmux server on "),
        ("complain('error connecting to /s (No such file or directory)\\n')", NoServer, "create=T"),
        ("complain('error connecting to /s (Connection refused)\\n')", NoServer, "socket"),
        ("complain('error connecting to /s (Permission denied)\\n')", AccessDenied, "another user"),
        ("reply('access not allowed', flags=0, ok=False)", AccessDenied, "another user"),
        (
            "complain('error connecting to /s (File name too long)\\n')",
            SocketPathTooLong,
            "shorter",
        ),
        ("complain('open terminal failed\\n')", OpenError, "did not attach: open terminal failed"),
        ("pass", OpenError, "it gave no reason"),
        ("raise SystemExit(3)", OpenError, "did not attach"),
        ("die()", OpenError, "did not attach"),
        ("say('%exit server exited')", OpenError, "did not attach: server exited"),
        ("raw(b'%begin 1 1 0\\nhalf')", OpenError, "did not attach"),
        ("raw(b'%begin 1 1')", OpenError, "did not attach"),
        ("say('%end 1 1 0'); stall()", OpenError, "did not attach: the stream broke"),
        ("reply('usage: tmux', flags=0, ok=False)", OpenError, "did not attach: usage: tmux"),
    ],
)
async def test_what_went_wrong_at_the_start_is_one_error_that_says_so(
    fake: Fake, script: str, error: type[OpenError], said: str
) -> None:
    fake.plays(script)
    with pytest.raises(OpenError) as caught:
        async with fake.open():
            raise AssertionError("the block was entered")
    assert type(caught.value) is error
    assert said in str(caught.value)
    fake.assert_gone()


@pytest.mark.parametrize(
    "script",
    [
        "read_line(); say('%exit')",
        "ignore(signal.SIGTERM); read_line(); stall()",
        "raw(b'%begin 1 1 0'); stall()",
    ],
)
async def test_a_tmux_that_stays_silent_is_not_waited_for(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(start_module, "START_TIMEOUT", 0.3)
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays(f"if 'display-message' in argv:\n  print('3.9')\nelse:\n  {script}")
    with pytest.raises(StartTimeout, match=r"0\.3 s: .*\(the server is 3\.9\)") as caught:
        async with fake.open():
            raise AssertionError("the block was entered")
    assert caught.value.seconds == 0.3
    fake.assert_gone()


async def test_nothing_is_sent_before_the_first_reply_is_whole(fake: Fake) -> None:
    fake.plays("""
import select
def quiet(where):
    note(f"{where}: {'early' if select.select([0], [], [], 0.05)[0] else 'quiet'}")
quiet("nothing said")
raw(b"%begin 1700000000 100 0\\n")
quiet("begun")
raw(b"%end 1700000000 100 ")
quiet("almost")
raw(b"0\\n")
serve()
""")
    async with fake.open() as client:
        assert await client.command("display-message", "-p", "hello") == ["hello"]
    assert fake.notes() == ["nothing said: quiet", "begun: quiet", "almost: quiet"]


@pytest.mark.parametrize(
    ("version", "error", "said"),
    [
        ("echo 'tmux 3.1c'", UnsupportedVersion, "tmux 3.1c was found"),
        ("echo 'cannot load library' >&2; exit 127", OpenError, "-V failed: cannot load library"),
        ("exit 3", OpenError, "-V failed: status 3"),
        ("true", OpenError, "is not tmux: with -V it tells no version"),
        ("exec sleep 1000", StartTimeout, "its version"),
    ],
)
async def test_the_version_is_asked_first(
    fake: Fake,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    error: type[OpenError],
    said: str,
) -> None:
    if error is StartTimeout:
        monkeypatch.setattr(start_module, "START_TIMEOUT", 0.2)
    fake.plays("note('started')", version=version)
    with pytest.raises(OpenError, match=said) as caught:
        async with fake.open():
            raise AssertionError("the block was entered")
    assert type(caught.value) is error
    assert fake.notes() == []


async def test_a_server_that_is_older_than_the_program_is_refused(fake: Fake) -> None:
    fake.plays("""
start()
def old(line):
    reply("3.0a") if b"version" in line else answer(line)
serve(old)
""")
    with pytest.raises(UnsupportedVersion, match=r"3\.0a"):
        async with fake.open():
            raise AssertionError("the block was entered")
    fake.assert_gone()


async def test_a_wrong_request_is_told_before_anything_is_started(fake: Fake) -> None:
    fake.plays("note('started')")
    for options in (
        {"session": None, "create": True},
        {"cwd": "/"},
        {"env": {"A": "b"}},
        {"argv": ["cat"]},
        {"socket_name": "x"},
        {"create": True, "env": {"A=": "b"}},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - each has its own text
            async with fake.open(**options):
                raise AssertionError("the block was entered")
    with pytest.raises(TmuxNotFound, match="no-such-tmux"):
        async with tmuxcc.open_client(tmux="no-such-tmux"):
            raise AssertionError("the block was entered")
    long = "/tmp/" + "x" * 200
    with pytest.raises(SocketPathTooLong, match=long):
        async with tmuxcc.open_client(socket_path=long, tmux=fake.program):
            raise AssertionError("the block was entered")
    assert fake.notes() == []


class _Elsewhere:
    is_local = False

    def __init__(self, *prefix: str) -> None:
        self.prefix = prefix

    def argv(self, tmux_argv: list[str]) -> list[str]:
        return [*self.prefix, *tmux_argv]


async def test_a_transport_that_is_missing_is_named(fake: Fake) -> None:
    fake.plays("start(); serve()")
    with pytest.raises(TmuxNotFound, match="no-such-ssh"):
        async with fake.open(transport=_Elsewhere("no-such-ssh")):
            raise AssertionError("the block was entered")


async def test_another_transport_starts_tmux_its_own_way(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.plays("start(); serve()")
    async with fake.open(transport=_Elsewhere("/usr/bin/env", "FAR=away")) as client:
        assert await client.command("display-message", "-p", "there") == ["there"]
    monkeypatch.setattr(start_module, "START_TIMEOUT", 0.1)
    fake.plays("read_line()")
    with pytest.raises(StartTimeout, match="another version"):
        async with fake.open(transport=_Elsewhere("/usr/bin/env")):
            raise AssertionError("the block was entered")


async def test_the_wait_for_a_silent_server_does_not_stop_other_tasks(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither the client nor the question after the version is answered.
    monkeypatch.setattr(start_module, "START_TIMEOUT", 0.1)
    fake.plays("note('asked') if 'display-message' in argv else None; read_line(); stall()")
    turns = 0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def count() -> None:
            nonlocal turns
            while True:
                turns += bool(fake.notes())
                await trio.sleep(0.001)

        with pytest.raises(StartTimeout, match="does not answer other clients either"):
            async with fake.open():
                raise AssertionError("the block was entered")
        nursery.cancel_scope.cancel()
    assert turns > 20
    fake.assert_gone()


# ---------------------------------------------------------------------------------------- replies


async def test_a_refused_command_is_an_error_and_the_next_is_answered(fake: Fake) -> None:
    fake.plays("start(); serve()")
    async with fake.open() as client:
        with pytest.raises(CommandError, match="it failed"):
            await client.command("fail")
        assert await client.batch([("display-message", "-p", "x"), ("fail",)]) == [
            ["x"],
            _Like(CommandError, "it failed"),
        ]


class _Like:
    def __init__(self, cls: type, said: str) -> None:
        self.cls, self.said = cls, said

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.cls) and self.said in str(other)

    __hash__ = None  # type: ignore[assignment]


async def test_replies_to_hooks_take_no_place(fake: Fake) -> None:
    fake.plays("""
def hooked(line):
    reply("of a hook", flags=0)
    say("%sessions-changed")
    answer(line)
    reply("it failed", flags=0, ok=False)
start()
serve(hooked)
""")
    async with fake.open() as client:
        for number in range(5):
            assert await client.command("display-message", "-p", f"{number}") == [f"{number}"]
        commands = [("display-message", "-p", f"{number}") for number in range(20)]
        assert await client.batch(commands) == [[command[-1]] for command in commands]


async def test_a_line_outside_replies_belongs_to_the_command_that_is_running(fake: Fake) -> None:
    fake.plays("""
def file_error(line):
    reply()
    if b"source-file" in line:
        say("/x/y: No such file or directory")
greet()
serve(lambda line: file_error(line) if b"source-file" in line else answer(line))
""")
    seen = []
    async with fake.open() as client:
        client.add_tap(seen.append, tmuxcc.Unknown)
        with pytest.raises(CommandError, match="/x/y: No such file"):
            await client.command("source-file", "/x/y")
        assert await client.command("display-message", "-p", "next") == ["next"]
    assert seen == [tmuxcc.Unknown(b"/x/y: No such file or directory")]


async def test_a_cancelled_command_keeps_its_place(fake: Fake) -> None:
    fake.plays("""
greet()
first = [read_line()]
while b"second" not in first[-1]:
    first.append(read_line())
wait_for_test()
for line in first:
    answer(line)
serve()
""")
    async with fake.open() as client:
        with trio.move_on_after(0.05) as scope:
            await client.command("display-message", "-p", "first")
        assert scope.cancelled_caught
        assert client.statistics().abandoned == 1
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def second() -> None:
                assert await client.command("display-message", "-p", "second") == ["second"]

            await trio.testing.wait_all_tasks_blocked()
            await fake.go()
        assert (client.statistics().abandoned, client.statistics().in_flight) == (0, 0)


async def test_in_a_storm_with_cancellations_everybody_gets_the_own_reply(fake: Fake) -> None:
    fake.plays("start(); serve()")
    rng = random.Random(7)
    answered = []
    cancelled = []

    async def ask(client: tmuxcc.Client, name: str) -> None:
        scope = trio.CancelScope()
        if rng.random() < 0.5:
            scope.deadline = trio.current_time() + rng.random() * 0.1
        with scope:
            if rng.random() < 0.3:
                await trio.sleep(rng.random() * 0.05)
            if rng.random() < 0.1:
                commands = [("display-message", "-p", f"{name} {n}") for n in range(3)]
                assert await client.batch(commands) == [[c[-1]] for c in commands]
            else:
                assert await client.command("display-message", "-p", name) == [name]
            answered.append(name)
        if scope.cancelled_caught:
            cancelled.append(name)

    async with fake.open() as client:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(ask, client, f"command {number}")
        assert len(answered) + len(cancelled) == 1000
        assert len(answered) > 400
        assert cancelled
        assert await client.command("display-message", "-p", "last") == ["last"]
        assert client.statistics().abandoned == 0


async def test_a_command_that_is_cancelled_half_written_is_written_to_its_end(fake: Fake) -> None:
    fake.plays("""
greet()
wait_for_test()
while line := read_line():
    note(f"{len(line)} {line[:20]} {line[-3:]}")
    reply(str(len(line)))
""")
    async with fake.open() as client:
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0.05) as scope:
            await client.command("set-buffer", "-b", "big", "x" * 5_000_000)
        assert scope.cancelled_caught
        with trio.move_on_after(0.05) as scope:
            await client.command("display-message", "-p", "waits for room")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fake.go)
            length = await client.command("display-message", "-p", "behind")
        assert length == [str(len("display-message -p behind\n"))]
    assert fake.notes() == [
        f"5000019 {b'set-buffer -b big xx'} {b'xx' + bytes([10])}",
        f"26 {b'display-message -p b'} {b'nd' + bytes([10])}",
    ]


async def test_the_number_of_commands_in_flight_is_bounded(fake: Fake) -> None:
    script = "start()\nlines = []\nwait_for_test()\nserve()"
    async with connected(fake, script) as connection:
        done = []

        async def ask(number: int) -> None:
            await connection.wait_room()
            request = connection.send(("display-message", "-p", str(number)))
            assert len(connection.queue) <= connection_module.MAX_IN_FLIGHT
            await connection.wait_reply(request)
            assert request.replies[0].lines == (b"%d" % number,)
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(2500):
                nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(connection.queue) == connection_module.MAX_IN_FLIGHT
            assert connection.requests_sent == connection_module.MAX_IN_FLIGHT
            await fake.go()
        assert sorted(done) == [*range(2500)]
        await connection.wait_idle()


async def test_a_batch_of_any_length_is_answered(fake: Fake) -> None:
    fake.plays("start(); serve()")
    async with fake.open() as client:
        commands = [("display-message", "-p", f"{number}") for number in range(3000)]
        assert await client.batch(iter(commands)) == [[command[-1]] for command in commands]
        assert await client.batch([]) == []


async def test_what_tmux_has_not_read_is_bounded(fake: Fake) -> None:
    script = "start()\nwait_for_test()\nserve(lambda line: reply())"
    async with connected(fake, script) as connection:

        async def ask() -> None:
            await connection.wait_room()
            await connection.wait_reply(connection.send(("set-buffer", "x" * 100_000)))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(connection._outgoing) >= connection_module.MAX_OUTGOING
            assert len(connection._outgoing) <= connection_module.MAX_OUTGOING + 100_100
            assert 10 <= connection.requests_sent < 20
            await fake.go()
        assert connection.requests_sent == 100


# -------------------------------------------------------------------------------------------- end


async def _wait_for_all(client: tmuxcc.Client, during: Callable[[], object]) -> list[Exception]:
    """What everybody who waits is told when `during` ends the connection."""
    told: list[Exception] = []

    async def catch(function: Callable[[], object]) -> None:
        try:
            await function()  # type: ignore[misc]
        except ConnectionClosed as error:
            told.append(error)

    async def watch_events() -> None:
        async with client.events(tmuxcc.Pause) as events:
            async for _ in events:
                raise AssertionError

    async def read(since: int) -> None:
        async for _ in client.pane("%0").output(since=since):
            pass

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(catch, lambda: client.command("display-message", "-p", "never"))
        nursery.start_soon(catch, lambda: client.batch([("set-buffer", "x")] * 2))
        nursery.start_soon(catch, watch_events)
        nursery.start_soon(catch, lambda: read(0))
        nursery.start_soon(catch, client.pane("%0").wait_exit)
        await trio.testing.wait_all_tasks_blocked(0.02)
        await during()  # type: ignore[misc]
    return told


WAITERS = 14


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        ("reply(flags=0); say('%end 1700000000 100 1'); stall()", "a guard without its reply"),
        ("say('%error 1 2 1'); stall()", "a guard without its reply"),
        ("say('%begin 1 nonsense'); stall()", "a guard without its reply"),
        ("numbers = count(3); reply(); reply(); stall()", "a reply was forged"),
        ("ignore(signal.SIGTERM); numbers = count(3); reply(); reply(); stall()", "forged"),
    ],
)
async def test_a_stream_that_breaks_its_rules_is_closed_and_everybody_told(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, ending: str, cause: str
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays(f"""
greet()
say("%output %0 x")
wait_for_test()
{ending}
""")
    async with fake.open() as client:
        told = await _wait_for_all(client, fake.go)
        assert len(told) == WAITERS
        for error in told:
            assert isinstance(error, ConnectionClosed)
            assert isinstance(error.__cause__, ProtocolError)
            assert cause in str(error)
        with pytest.raises(ConnectionClosed, match=cause):
            await client.command("display-message", "-p", "late")
    fake.assert_gone()


@pytest.mark.parametrize(
    ("ending", "reason", "status", "stderr"),
    [
        ("say('%exit')", None, 0, ()),
        ("say('%exit too far behind'); raise SystemExit(1)", "too far behind", 1, ()),
        ("complain('one\\ntwo'); raise SystemExit(255)", None, 255, ("one", "two")),
        ("complain('lost server\\n'); die()", None, -9, ("lost server",)),
        ("raw(b'%begin 1 2 1\\nhalf a reply'); die()", None, -9, ()),
        ("raw(b'%begin 1 2 1\\n%exit server exited\\n')", "server exited", 0, ()),
        # The server has the other end of the pipe and is stuck.
        ("holder = os.fork()\nif not holder: stall()\nnote(str(holder)); die()", None, -9, ()),
    ],
)
async def test_the_end_wakes_everybody_and_says_why(
    fake: Fake, ending: str, reason: str | None, status: int, stderr: tuple[str, ...]
) -> None:
    fake.plays(f"""
greet()
say("%output %0 x")
wait_for_test()
{ending}
""")
    async with fake.open() as client:
        told = await _wait_for_all(client, fake.go)
        for holder in fake.notes():
            os.kill(int(holder), 9)
        assert len(told) == WAITERS
        for error in told:
            assert isinstance(error, ConnectionClosed)
            assert (error.reason, error.exit_status, error.stderr) == (reason, status, stderr)
        with pytest.raises(ConnectionClosed):
            await client.batch([("display-message", "-p", "late")])
        async with client.events() as events:
            with pytest.raises(ConnectionClosed):
                await events.__anext__()
    fake.assert_gone()


async def test_an_exit_that_is_not_followed_by_the_end_is_one(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays("say('%exit no space left'); stall()")
    with pytest.raises(OpenError, match="did not attach: no space left") as caught:
        async with fake.open():
            raise AssertionError("the block was entered")
    assert type(caught.value) is OpenError
    fake.assert_gone()


async def test_what_was_written_before_the_end_is_delivered(fake: Fake) -> None:
    fake.plays("""
greet()
wait_for_test()
say(*(f"%output %0 line {n}" for n in range(1000)))
die()
""")
    seen = []
    async with fake.open() as client:
        client.add_tap(lambda event: seen.append(event.data), tmuxcc.Output)
        await fake.go()
        await client._channel.stream.wait_ended()
    assert seen == [b"line %d" % n for n in range(1000)]


async def test_a_full_pipe_to_a_tmux_that_reads_nothing_ends_with_it(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays("greet(); ignore(signal.SIGTERM); stall()")
    async with fake.open() as client:
        with trio.move_on_after(0.1) as scope:
            await client.command("set-buffer", "x" * 3_000_000)
        assert scope.cancelled_caught
        os.kill(fake.pid, 9)
        with pytest.raises(ConnectionClosed, match="signal 9"):
            await client.command("display-message", "-p", "x")
    fake.assert_gone()


@pytest.mark.parametrize(
    "rest",
    ["serve()", "ignore(signal.SIGTERM); serve(); stall()", "serve(); stall()", "stall()",
     "ignore(signal.SIGTERM); stall()",
     "ignore(signal.SIGTERM)\nwhile True: say('%output %0 ' + 'x' * 1000)",
     "ignore(signal.SIGTERM)\nwhile True: complain('x' * 1000 + chr(10))"],
)  # fmt: skip
async def test_leaving_the_block_ends_any_tmux(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_GRACE", 0.1)
    fake.plays(f"greet()\n{rest}")
    async with fake.open():
        pass
    fake.assert_gone()


# ------------------------------------------------------------------------------------- exceptions


async def test_what_a_tap_raises_comes_out_as_it_is(fake: Fake) -> None:
    fake.plays("greet(); wait_for_test(); say('%sessions-changed'); serve()")
    mistake = ZeroDivisionError("mistake")

    def tap(_: Event) -> None:
        raise mistake

    with pytest.raises(ZeroDivisionError) as caught:
        async with fake.open() as client:
            client.add_tap(tap, tmuxcc.SessionsChanged)
            try:
                await fake.go()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), pytest.raises(ConnectionClosed):
                    await client.command("display-message", "-p", "too late")
    assert caught.value is mistake
    fake.assert_gone()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("own"),
        KeyboardInterrupt(),
        SystemExit(3),
        ExceptionGroup("own", [ValueError(), ExceptionGroup("inner", [KeyError()])]),
        BaseExceptionGroup("own", [KeyboardInterrupt()]),
        ConnectionClosed("own"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_block_raises_comes_out_as_it_is(fake: Fake, error: BaseException) -> None:
    fake.plays("start(); serve()")
    caught: BaseException | None = None
    try:
        async with fake.open():
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert error.__cause__ is None
    fake.assert_gone()


async def test_the_cancellation_of_the_caller_is_just_that(fake: Fake) -> None:
    fake.plays("start(); serve()")
    with trio.CancelScope() as scope:
        async with fake.open():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    fake.assert_gone()


async def test_what_the_block_raises_while_it_is_cancelled_is_not_lost(fake: Fake) -> None:
    fake.plays("start(); serve()")
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="own"):
        async with fake.open():
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                raise ValueError("own")
    fake.assert_gone()


class _CancelAt(trio.abc.Instrument):
    """Cancels `scope` before the step number `left` of the task that made this."""

    def __init__(self, left: int, scope: trio.CancelScope) -> None:
        self.left = left
        self.scope = scope
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@pytest.mark.parametrize("others", [False, True], ids=["alone", "with others"])
async def test_a_cancellation_at_any_moment_leaves_no_process(fake: Fake, others: bool) -> None:
    listing = "reply(f'{os.getpid()} own', '1 other')" if others else "answer(line)"
    step = 0
    completed = False
    struck: set[str] = set()
    while not completed:
        step += 1
        assert step < 300
        fake.plays(f"""
if 'read-only' in argv: complain(argv)
start()
serve(lambda line: {listing} if b"list-clients" in line else answer(line))
""")
        place = "opening"
        with trio.CancelScope() as scope:
            instrument = _CancelAt(step, scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with fake.open(settled=False) as client:
                    place = "the block"
                    assert await client.command("display-message", "-p", "x") == ["x"]
                    async with client.events() as events:
                        await client.batch([("display-message", "-p", "x")] * 3)
                        await events.__anext__()
                    if others:
                        await wait_until(lambda: client.statistics().command_connection)
                    completed = True
            finally:
                trio.lowlevel.remove_instrument(instrument)
        fake.assert_gone()
        if scope.cancelled_caught:
            struck.add(place)
    assert struck == {"opening", "the block"}


def test_a_keyboard_interrupt_ends_the_program_and_tmux(fake: Fake) -> None:
    fake.plays("start(); serve()")
    program = f"""
import sys, trio, tmuxcc
async def main():
    async with tmuxcc.open_client("work", tmux={str(fake.program)!r}, socket_path="/x"):
        print("ready", flush=True)
        await trio.sleep_forever()
try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(2)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0
    fake.assert_gone()


async def test_silence_behind_a_burst_is_broken_by_a_command(fake: Fake) -> None:
    # The second burst is as small as one can be: a pipe that was full while nobody read.
    script = """
start()
for size in 100, 60:
    say(*["%output %0 " + "x" * 989] * size)
    line = read_line()
    note(line.decode().split()[0])
    say(f'%pause %{size}')
    answer(line)
serve()
"""
    async with connected(fake, script) as connection:
        events: list[object] = []
        connection.deliver = events.append
        await wait_until(lambda: tmuxcc.Pause("%60") in events)
        assert tmuxcc.Pause("%100") in events
    assert fake.notes() == ["display-messag"] * 2


async def test_silence_behind_little_output_is_left_alone(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SILENCE", 0.01)
    script = """
start()
say(*["%output %0 " + "x" * 1000] * 3)
note(read_line().decode().split()[-1])
serve()
"""
    async with connected(fake, script) as connection:
        await trio.sleep(0.1)  # ten times as long as a silence behind a burst may be
        connection.send(("display-message", "-p", "ours"))
        await wait_until(fake.notes)
    assert fake.notes() == ["ours"]
