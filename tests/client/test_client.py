"""`open_client` and `Client` against a real tmux."""

from __future__ import annotations

import asyncio
import itertools
import operator
import os
import random
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import tmuxcc
from tmuxcc.client import client as client_module
from tmuxcc.client.transport import Process, open_process
from tmuxcc.protocol import OLDEST_SUPPORTED, TmuxVersion, has_capability, parse_version

from .helpers import (
    OtherClient,
    Server,
    client_pids,
    environment,
    is_running,
    python,
    run_to_end,
    shell,
    until,
)

pytestmark = pytest.mark.tmux

HOSTILE = [
    "",
    " ",
    "-n",
    "--",
    ";",
    "a;",
    "a\\;",
    "a ; kill-server",
    "}",
    "{ kill-server }",
    "#{pane_id} #(touch x) ##",
    "%1 %H %%",
    "~ ~root $HOME ${HOME} `id` $(id)",
    "'\"\\ \\n \\033",
    "two\nlines\n",
    "\n",
    "\r\t\x01\x1b[31m\x7f",
    "%end 1 1 1",
    "ünïcödé 🦀 \u0085 \u2028",
    "\udcff\udc80 no UTF-8",
    "x" * 5000,
]

DUMP = """
import os, sys
file, *arguments = sys.argv[1:]
told = [os.getcwd(), os.environ.get("WEIRD", ""), os.environ.get("TMUXCC_NONE", "none"), *arguments]
with open(file + ".new", "wb") as out:
    out.write(b"\\0".join(map(os.fsencode, told)))
os.rename(file + ".new", file)
"""


# Opening


async def test_a_tmux_that_is_too_old_is_refused_with_the_version_found(
    tmux: str, tmux_version: TmuxVersion, folder: Path, socket_path: Path
) -> None:
    program, found = tmux, tmux_version.text
    if tmux_version >= OLDEST_SUPPORTED:
        program, found = str(folder / "tmux"), "3.1c"
        Path(program).write_text("#!/bin/sh\necho tmux 3.1c\n", "utf-8")
        Path(program).chmod(stat.S_IRWXU)
    with pytest.raises(tmuxcc.UnsupportedVersion, match=found) as caught:
        async with tmuxcc.open_client("work", create=True, tmux=program, socket_path=socket_path):
            raise AssertionError
    assert caught.value.found == found
    assert not socket_path.exists()


def test_under_asyncio_a_client_says_what_to_use_instead() -> None:
    async def main() -> None:
        async with tmuxcc.open_client():
            raise AssertionError

    with pytest.raises(RuntimeError, match=r"trio\.run.*TmuxSwarmManager"):
        asyncio.run(main())


async def test_attaching_starts_no_server(server: Server) -> None:
    server.started = True
    with pytest.raises(tmuxcc.NoServer, match="create=True"):
        async with server.client():
            raise AssertionError
    assert not server.socket.exists()


async def test_a_socket_whose_server_has_died_is_no_server(server: Server) -> None:
    server.start()
    os.kill(server.pid, 9)
    await until(lambda: not server.is_alive)
    with pytest.raises(tmuxcc.NoServer):
        async with server.client():
            raise AssertionError


async def test_attaching_makes_no_session(server: Server) -> None:
    server.start()
    for name in ("other", "wor", "$77", "=work"):
        with pytest.raises(tmuxcc.SessionNotFound) as caught:
            async with server.client(name):
                raise AssertionError
        assert caught.value.session == name
    assert server.run("list-sessions", "-F", "#{session_name}") == "work"


async def test_no_tmux_program_is_told_before_anything_else(server: Server) -> None:
    with pytest.raises(tmuxcc.TmuxNotFound, match="no-such-tmux"):
        async with tmuxcc.open_client(tmux="no-such-tmux"):
            raise AssertionError


async def test_a_session_is_found_by_name_by_id_and_as_the_last_used(server: Server) -> None:
    server.start()
    session_id = server.run("display-message", "-p", "#{session_id}")
    for session in ("work", session_id, None):
        async with server.client(session) as client:
            assert client.session_id == session_id


async def test_what_is_made_with_create_stays_and_is_found_again(server: Server) -> None:
    async with server.client("new #{x}", create=True, argv=["cat"], size=(90, 33)) as client:
        (pane,) = await client.list_panes()
        assert (pane.pane_width, pane.pane_height) == (90, 33)
        (session,) = await client.list_sessions()
    async with server.client("new #{x}", create=True, argv=["false"]) as client:
        assert [row.pane_id for row in await client.list_panes()] == [pane.pane_id]
        assert [row.session_id for row in await client.list_sessions()] == [session.session_id]


async def test_the_first_program_of_a_created_session_gets_its_arguments_exactly(
    server: Server, folder: Path
) -> None:
    where = folder / "a #{b};"
    where.mkdir()
    arguments = ["a;", ";", "\\;", "#{pane_id}", "two\nlines", "", "'\"", "é🦀"]
    async with server.client(
        "made;",
        create=True,
        cwd=where,
        env={"WEIRD": "v;"},
        argv=python(DUMP, str(folder / "told"), *arguments),
    ) as client:
        pane = client.pane((await client.list_panes())[0].pane_id)
        assert (await pane.wait_exit()).ok
        told = (folder / "told").read_bytes().split(b"\0")
    assert told == [os.fsencode(word) for word in (str(where), "v;", "none", *arguments)]


async def test_the_sizes_of_windows_are_left_alone_unless_a_size_is_asked_for(
    server: Server,
) -> None:
    server.start(size=(200, 50))
    server.run("set-option", "-g", "window-size", "latest")
    async with server.client() as client:
        (row,) = await client.list_windows()
        assert (row.window_width, row.window_height) == (200, 50)
    async with server.client(size=(100, 40)) as client:

        async def has_changed() -> bool:
            (row,) = await client.list_windows()
            return (row.window_width, row.window_height) == (100, 40)

        await until(has_changed)


async def test_tmux_and_its_pane_are_not_in_the_environment_of_the_client(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    monkeypatch.setenv("TMUX", "/nowhere/socket,1,0")
    monkeypatch.setenv("TMUX_PANE", "%77")
    async with server.client() as client:
        variables = Path(f"/proc/{client.client_pid}/environ").read_bytes().split(b"\0")
        names = {variable.partition(b"=")[0] for variable in variables}
        assert b"PATH" in names
        assert not names & {b"TMUX", b"TMUX_PANE"}


async def test_inside_tmux_its_server_is_the_default(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    monkeypatch.setenv("TMUX", f"{server.socket},1,0")
    with trio.fail_after(10):
        async with tmuxcc.open_client(tmux=server.program) as client:
            assert client.server_pid == server.pid


async def test_closing_leaves_the_session_and_takes_the_client(server: Server) -> None:
    async with server.client() as client:
        pid = client.client_pid
        assert client_pids(server) == {pid}
    assert not is_running(pid)
    assert client_pids(server) == set()
    assert server.is_alive


async def test_after_the_block_every_call_says_that_the_connection_is_closed(
    server: Server,
) -> None:
    async with server.client() as client:
        (row,) = await client.list_panes()
    with trio.fail_after(5):
        with pytest.raises(tmuxcc.ConnectionClosed):
            await client.command("list-windows")
        with pytest.raises(tmuxcc.ConnectionClosed):
            await client.batch([("list-windows",), ("list-panes",)])
        with pytest.raises(tmuxcc.ConnectionClosed):
            async for _ in client.pane(row.pane_id).output():
                raise AssertionError


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "LANG": None},
        {"LC_ALL": None, "LANG": None, "LC_CTYPE": None},
        {"LC_ALL": "xx_YY.ISO-8859-1"},
    ],
    ids=str,
)
async def test_text_is_whole_without_a_utf8_locale(
    server: Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None]
) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    async with server.client("schön 🦀", create=True, argv=shell("printf 'ä🦀\\n'; cat")) as client:
        (row,) = await client.list_panes()
        pane = client.pane(row.pane_id)
        assert (await pane.wait_for("ä🦀", since=0)).outcome == "matched"
        assert "ä🦀" in await pane.capture()
        assert [session.session_name for session in await client.list_sessions()] == ["schön 🦀"]


# Commands


async def test_arguments_reach_tmux_byte_for_byte(server: Server, folder: Path) -> None:
    async with server.client() as client:
        for index, text in enumerate(HOSTILE):
            data = text.encode("utf-8", "surrogateescape")
            for argument in (text, data):
                if not data:
                    continue
                await client.command("set-buffer", "-b", "b", "--", argument)
                file = folder / str(index)
                await client.command("save-buffer", "-b", "b", str(file))
                assert file.read_bytes() == data


async def test_an_option_set_to_anything_is_shown_again(
    server: Server, tmux_version: TmuxVersion
) -> None:
    escaped = parse_version("3.4") <= tmux_version <= parse_version("3.5a")
    async with server.client() as client:
        for text in HOSTILE:
            if escaped and any(c < " " or c == "\x7f" or c > "\ud7ff" for c in text):
                continue  # tmux writes its controls as text there (hazard escaped-replies)
            await client.command("set-option", "-g", "--", "@x", text)
            shown = await client.command("show-options", "-gv", "@x")
            # The line end that closes the reply also closes a last empty line.
            assert "\n".join(shown) in (text, text.removesuffix("\n"))


async def test_what_tmux_refuses_is_an_error_with_its_words(server: Server) -> None:
    async with server.client() as client:
        with pytest.raises(tmuxcc.CommandError, match="can't find window") as caught:
            await client.command("select-window", "-t", "@99")
        assert caught.value.argv == ("select-window", "-t", "@99")
        with pytest.raises(tmuxcc.CommandError, match="unknown command"):
            await client.command("no-such-command", "%end 1 1 1\n")
        assert await client.command("display-message", "-p", "still here") == ["still here"]


async def test_what_would_hold_the_connection_is_refused_unsent(server: Server) -> None:
    async with server.client() as client:
        sent = client.statistics().commands_sent
        for argv in (
            ("wait-for", "never"),
            ("wait", "never"),
            ("run-shell", "sleep 100"),
            ("run", "sleep 100"),
            ("if-shell", "sleep 100", "list-panes"),
            ("command-prompt",),
            ("confirm-before", "kill-server"),
            ("display-popup",),
            ("display-panes",),
            ("display-menu", "a", "b", "c"),
            ("A=1",),
            ("",),
            (),
            ("set-buffer", "NUL \0"),
            (3,),
            ("list-panes", "-t", None),
        ):
            with pytest.raises(tmuxcc.InvalidCommand):
                await client.command(*argv)
            with pytest.raises(tmuxcc.InvalidCommand):
                await client.batch([("list-panes",), argv])
        assert client.statistics().commands_sent == sent


async def test_a_line_without_a_reply_or_with_several_shifts_nothing(server: Server) -> None:
    async with server.client() as client:
        for number in range(20):
            await client.command("if-shell", "-F", "1", "list-panes ; list-windows")
            assert await client.command("display-message", "-p", f"a{number}") == [f"a{number}"]
            await client.command("source-file", "/dev/null")
            await client.command("run-shell", "-b", ":")
            assert await client.command("display-message", "-p", f"b{number}") == [f"b{number}"]


async def test_in_a_batch_each_has_its_own_result(server: Server) -> None:
    async with server.client() as client:
        results = await client.batch(
            [
                ("display-message", "-p", "first"),
                ("select-window", "-t", "@99"),
                ("display-message", "-p", "two\nlines"),
                ("rename-window", "renamed"),
                ("display-message", "-p", "#{window_name}"),
            ]
        )
        assert results[0] == ["first"]
        assert isinstance(results[1], tmuxcc.CommandError)
        assert results[2:] == [["two", "lines"], [], ["renamed"]]
        assert await client.batch([]) == []


async def test_thousands_of_commands_in_a_batch_wait_for_room(server: Server) -> None:
    async with server.client() as client:
        results = await client.batch(
            [("display-message", "-p", f"{number}" + "x" * 2000) for number in range(5000)]
        )
        assert results == [[f"{number}" + "x" * 2000] for number in range(5000)]
        assert client.statistics().in_flight == 0


async def test_cancelled_commands_take_nobody_elses_reply(server: Server) -> None:
    chance = random.Random(1)
    answered = 0

    async def ask(client: tmuxcc.Client, number: int) -> None:
        nonlocal answered
        delay = chance.choice([0, 0, 0.0005, 0.002, 10])
        argv = ("display-message", "-p", f"#{{=8:pane_id}} {number}")
        with trio.move_on_after(delay):
            assert await client.command(*argv) == [f"%0 {number}"]
            answered += 1

    async with server.client() as client:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(ask, client, number)
                if number % 20 == 0:
                    await trio.lowlevel.checkpoint()
        assert await client.command("display-message", "-p", "last") == ["last"]
        statistics = client.statistics()
        assert statistics.in_flight == statistics.abandoned == 0
        assert 200 <= answered < 1000


# Events


async def test_events_come_in_order_filtered_by_class(server: Server) -> None:
    async with server.client() as client:
        async with client.events(tmuxcc.WindowAdd, tmuxcc.WindowRenamed) as events:
            first = await client.new_window("one", argv=["cat"])
            await client.command("rename-window", "-t", first, "two")
            await client.new_session("other", argv=["cat"])
            await client.command("rename-window", "-t", first, "three")
            seen = []
            async for event in events:
                seen.append(event)
                if event == tmuxcc.WindowRenamed(first, "three"):
                    break
        assert tmuxcc.WindowAdd(first) in seen
        assert {type(event) for event in seen} <= {tmuxcc.WindowAdd, tmuxcc.WindowRenamed}
        names = [e.name for e in seen if isinstance(e, tmuxcc.WindowRenamed)]
        assert names[-2:] == ["two", "three"]


async def test_whoever_asks_for_output_gets_it_under_flow_control_too(server: Server) -> None:
    async with server.client() as client, client.events(tmuxcc.Output) as events:
        made = await client.new_window(argv=shell("printf hello; cat"))
        data = b""
        while b"hello" not in data:
            event = await anext(events)
            assert isinstance(event, tmuxcc.ExtendedOutput)
            if event.pane_id == made.pane_id:
                data += event.data


async def test_a_tap_is_called_at_once_and_until_it_is_removed(server: Server) -> None:
    async with server.client() as client:
        seen: list[object] = []
        remove = client.add_tap(seen.append)
        await client.command("rename-window", "tapped")
        await until(lambda: any(isinstance(e, tmuxcc.WindowRenamed) for e in seen))
        assert any(isinstance(event, tmuxcc.Reply) for event in seen)
        remove()
        count = len(seen)
        await client.command("rename-window", "again")
        await client.command("list-panes")
        assert len(seen) == count


async def test_what_a_tap_raises_comes_out_of_the_block_as_it_is(server: Server) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("of the tap")

    with pytest.raises(ZeroDivisionError, match="of the tap"):
        async with server.client() as client:
            client.add_tap(broken, tmuxcc.WindowRenamed)
            await client.command("rename-window", "x")
            await trio.sleep_forever()
    assert client_pids(server) == set()
    assert server.is_alive


async def test_a_watched_format_tells_its_first_value_and_each_change(server: Server) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "@x", "first")
        async with client.watch_format("<#{@x}>") as changes:
            assert (await anext(changes)).value == "<first>"
            await client.command("set-option", "-g", "@x", "a\n%exit forged\n}, #{pane_id}")
            change = await anext(changes)
            assert change.value.startswith("<a")
            assert "%exit forged" in change.value
            assert "\n" not in change.value
            assert change.session_id == client.session_id
        async with client.watch_format(
            "#{pane_title},#{?pane_active,on,off}", pane_id="%*"
        ) as changes:
            assert (await anext(changes)).value.endswith(",on")


async def test_only_a_pane_or_a_window_can_be_watched(server: Server) -> None:
    async with server.client() as client:
        with pytest.raises(tmuxcc.InvalidCommand):
            async with client.watch_format("#{pane_id}", pane_id="%1:x"):
                raise AssertionError


# Lists and making things


async def test_lists_are_typed_whatever_the_names_hold(server: Server, folder: Path) -> None:
    directory = folder / "new\nline #{pane_id} \t🦀"
    directory.mkdir()
    async with server.client() as client:
        window = await client.new_window(
            "#{pane_id} ' \" ; 🦀 \\", argv=shell("echo up; cat"), cwd=directory
        )
        await client.command("select-pane", "-t", window.pane_id, "-T", "title %end 1 1 1 🦀")
        session = await client.new_session("#(x) 🦀 '", argv=["cat"])
        windows = {row.window_id: row for row in await client.list_windows()}
        assert windows[window].window_name.startswith("#{pane_id} ' \" ; 🦀 \\")
        assert windows[window].session_id == client.session_id
        assert windows[window].window_layout.endswith(window.pane_id[1:])
        sessions = {row.session_id: row.session_name for row in await client.list_sessions()}
        assert sessions[session].endswith("x) 🦀 '")
        pane = client.pane(window.pane_id)
        # While the program is being started, tmux may not know of any directory.
        assert await pane.wait_for("up", since=0)
        panes = {row.pane_id: row for row in await client.list_panes()}
        row = panes[window.pane_id]
        assert row.pane_title == "title %end 1 1 1 🦀"
        assert row.pane_pid is not None
        assert row.pane_current_path == str(directory).replace("\n", "").replace("\t", "")
        assert row.pane_dead is False
        assert [row.pane_id for row in await client.list_panes(window)] == [window.pane_id]
        assert [row.window_id for row in await client.list_windows(session)] == [session.window_id]
        clients = await client.list_clients()
        assert [row.client_pid for row in clients] == [client.client_pid]
        assert clients[0].client_control_mode is True


async def test_names_that_hold_controls_or_no_utf8_do_not_break_a_list(server: Server) -> None:
    async with server.client() as client:
        for name in ("a\nb", "\x1b[31m", "\udcff\udcfe", "%end 1 2 3\n%begin 4 5 6"):
            results = await client.batch(
                [
                    ("rename-window", name),
                    ("set-option", "-g", "@x", name),
                    ("select-pane", "-T", name),
                    ("set-environment", "X", name),
                ]
            )
            assert all(isinstance(one, (list, tmuxcc.CommandError)) for one in results)
            assert len(await client.list_windows()) == 1
            assert len(await client.list_panes()) == 1


async def test_programs_get_their_directory_environment_and_arguments_exactly(
    server: Server, folder: Path
) -> None:
    arguments = [word for word in HOSTILE if len(word) < 5000]
    value = "v #{pane_id} ; \n 'ü' \udcff"
    async with server.client() as client:
        for number, name in enumerate(["a #{pane_id} b", "%H;", "é\n🦀", "~"]):
            directory = folder / name
            directory.mkdir()
            file = str(folder / str(number))
            options = {
                "cwd": directory,
                "env": {"WEIRD": value},
                "argv": python(DUMP, file, *arguments),
            }
            if number == 0:
                made = await client.new_session("s", **options)
                assert made == made.session_id
            elif number == 1:
                made = await client.new_window(**options)
                assert made == made.window_id
            else:
                made = await client.split_window("%0", horizontal=number == 2, **options)
                assert made == made.pane_id
            await until(Path(file).exists)
            told = Path(file).read_bytes().split(b"\0")
            assert told == [os.fsencode(w) for w in (str(directory), value, "none", *arguments)]


@pytest.mark.parametrize("name", ["missing", "file", "~"])
async def test_no_program_is_started_in_a_folder_that_is_not_there(
    lasting: Server, folder: Path, name: str
) -> None:
    (folder / "file").touch()
    cwd = name if name == "~" else folder / name
    async with lasting.client() as client:
        pane = client.pane("%0")
        for start in (
            lambda: client.new_session(argv=["cat"], cwd=cwd),
            lambda: client.new_window(cwd=cwd),
            lambda: client.split_window("%0", argv=["cat"], cwd=cwd),
            lambda: pane.respawn(["cat"], cwd=cwd, kill=True),
            lambda: lasting.client("another", create=True, cwd=cwd).__aenter__(),
        ):
            with pytest.raises(tmuxcc.InvalidCommand, match="no folder"):
                await start()
        (row,) = await client.list_panes()
        assert (row.pane_id, row.pane_dead) == ("%0", False)


async def test_what_is_made_is_not_selected_and_its_size_is_as_asked(server: Server) -> None:
    async with server.client() as client:
        await client.new_window(argv=["cat"])
        half = await client.split_window("%0", horizontal=True, size=20, argv=["cat"])
        third = await client.split_window("%0", size="25%", argv=["cat"])
        panes = {row.pane_id: row for row in await client.list_panes()}
        assert panes[half].pane_width == 20
        assert panes[third].pane_height in (5, 6)
        assert panes["%0"].pane_active
        (current,) = [row for row in await client.list_windows() if row.window_active]
        assert current.window_id == panes["%0"].window_id


async def test_no_program_is_refused_and_a_missing_one_tells_127(server: Server) -> None:
    async with server.client() as client:
        for argv in ([], [""], "ls"):
            with pytest.raises(tmuxcc.InvalidCommand):
                await client.new_window(argv=argv)
        data, status = await run_to_end(client, ["no-such-program"])
        assert status == tmuxcc.ExitStatus(127, None)
        assert b"no-such-program" in data


async def test_many_programs_started_in_one_batch_are_read_from_their_first_byte(
    server: Server,
) -> None:
    async with server.client() as client:
        made = await client.batch(
            [
                (
                    *("new-window", "-d", "-P", "-F", "#{pane_id}", "--"),
                    *client.wrap(shell(f"echo first {number}; seq 100; echo last {number}")),
                )
                for number in range(30)
            ]
        )
        expected = [str(n) for n in range(1, 101)]
        for number, lines in enumerate(made):
            assert isinstance(lines, list)
            read = [line async for line in client.pane(lines[0]).lines(since=0)]
            assert read == [f"first {number}", *expected, f"last {number}"]


# Configurations, and company

ODD_CONFIGURATIONS = {
    "aliases": """
        set -s command-alias[100] 'list-panes=display-messag -p shadow ; list-windows'
        set -s command-alias[101] 'list-windows=display-messag -p "%end 1 1 1"'
        set -s command-alias[102] 'new-window=display-messag -p none ; new-window'
        set -s command-alias[103] 'refresh-client=display-messag -p no'
        set -s command-alias[104] 'capture-pane=list-sessions'
        set -s command-alias[105] 'display-message=list-keys ; list-windows'
        set -s command-alias[106] 'show-options=list-sessions ; list-windows'
        set -s command-alias[107] 'list-commands=list-sessions'
        """,
    "hooks": """
        set-hook -g after-list-panes 'display-message -p "%end 1 1 1"'
        set-hook -g after-new-window 'list-windows ; display-message -p hook'
        set-hook -g after-display-message 'list-sessions'
        set-hook -g after-capture-pane 'display-message -p captured'
        set-hook -g after-refresh-client 'display-message -p refreshed'
        set-hook -g client-attached 'display-message -p attached'
        set-hook -g window-linked 'display-message -p linked'
        set-hook -g pane-exited 'display-message -p exited'
        set-hook -g session-window-changed 'display-message -p changed'
        """,
    "destroyed when unattached": "set -g destroy-unattached on\n",
    "panes that remain": "set -g remain-on-exit on\nset -g remain-on-exit-format 'gone'\n",
    "no status line": "set -g status off\nset -g window-size smallest\nset -g base-index 1\n"
    "setw -g pane-base-index 1\nset -g renumber-windows on\nset -g automatic-rename off\n",
    "odd default command": "set -g default-command 'exec cat'\nset -g mouse on\n",
    "odd default shell": "set -g default-shell /bin/true\nset -g set-titles on\n",
    "broken": "no-such-command\nset -g no-such-option 1\nset -g prefix C-a\n",
}


@pytest.mark.parametrize("name", ODD_CONFIGURATIONS)
async def test_an_odd_configuration_changes_nothing(
    server: Server, folder: Path, name: str
) -> None:
    config = folder / "tmux.conf"
    config.write_text(ODD_CONFIGURATIONS[name], "utf-8")
    async with server.client(
        "odd", create=True, config_file=config, argv=shell("echo up; cat")
    ) as client:
        (row,) = await client.list_panes()
        pane = client.pane(row.pane_id)
        assert await pane.wait_for("up", since=0)
        await pane.send_text("typed", submit=True)
        assert await pane.wait_for("typed", echo=True)
        assert "typed" in await pane.capture()
        for _ in range(3):
            data, status = await run_to_end(client, shell("echo one; exit 3"))
            assert data == b"one\r\n"
            assert status == tmuxcc.ExitStatus(3, None)
        async with pane.output(seed=True) as stream:
            snapshot = await anext(stream)
            assert isinstance(snapshot, tmuxcc.Snapshot)
            assert b"typed" in snapshot.data
        assert await client.command("display-message", "-p", "end") == ["end"]
        assert "odd" in [row.session_name for row in await client.list_sessions()]
        await until(lambda: client.statistics().in_flight == 0)
        with OtherClient(server, "odd"):
            await until(lambda: client.statistics().command_connection)
            assert await client.command("display-message", "-p", "end") == ["end"]


async def test_an_alias_that_somebody_makes_later_makes_commands_slow_at_most(
    server: Server,
) -> None:
    async with server.client() as client:
        server.run("set-option", "-s", "command-alias[77]", "display-message=list-keys")
        with OtherClient(server) as other:
            await until(lambda: other.pid in client_pids(server))
            assert "work" in [row.session_name for row in await client.list_sessions()]
            data, status = await run_to_end(client, shell("echo one; exit 4"))
            assert (data, status.code) == (b"one\r\n", 4)


async def test_the_end_of_our_session_is_no_error_of_the_block(server: Server) -> None:
    for _ in range(10):
        async with server.client("ends", create=True, argv=["cat"]) as client:
            await client.command("kill-session")
            with suppress(tmuxcc.ConnectionClosed, tmuxcc.PaneNotFound):
                await client.pane("%0").wait_exit()


async def test_a_second_client_changes_nothing_but_the_way_of_commands(server: Server) -> None:
    async with server.client() as client:
        assert not client.statistics().command_connection
        with OtherClient(server) as other:
            await until(lambda: client.statistics().command_connection)
            assert {client.client_pid, other.pid} < client_pids(server)
            data, status = await run_to_end(client, shell("echo one; exit 4"))
            assert (data, status.code) == (b"one\r\n", 4)
            assert await client.command("display-message", "-p", "#{client_pid}") == [
                str(client.client_pid)
            ]
        await until(lambda: not client.statistics().command_connection)
        assert client_pids(server) == {client.client_pid}
        data, status = await run_to_end(client, shell("echo two; exit 5"))
        assert (data, status.code) == (b"two\r\n", 5)


async def test_a_second_connection_that_can_not_be_started_costs_nothing_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def open_too_long(argv: Sequence[str]) -> Process:
        attempts.append(argv)
        return open_process([*argv, "x" * (1 << 22)])

    async with server.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(client_module, "open_process", open_too_long)
            with OtherClient(server):
                await until(lambda: attempts)
                assert await client.command("display-message", "-p", "x") == ["x"]
                assert not client.statistics().command_connection
        with OtherClient(server):
            await until(lambda: client.statistics().command_connection)


async def test_a_second_connection_that_is_thrown_out_is_tried_again_ever_less(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[float] = []

    def open_counted(argv: Sequence[str]) -> Process:
        attempts.append(trio.current_time())
        return open_process(argv)

    async with server.client() as client:
        monkeypatch.setattr(client_module, "open_process", open_counted)
        throw_out = "if-shell -F '#{m:*no-output*,#{client_flags}}' detach-client"
        await client.command("set-hook", "-g", "client-attached", throw_out)
        with OtherClient(server):
            await until(lambda: len(attempts) == 4)
        pauses = [later - sooner for sooner, later in itertools.pairwise(attempts)]
        assert [*map(operator.ge, pauses, (0.1, 0.2, 0.4))] == [True] * 3
        assert await client.command("display-message", "-p", "end") == ["end"]


async def test_statistics_count_what_was_done(server: Server) -> None:
    async with server.client() as client:
        before = client.statistics()
        assert before.generation == client.generation == 1
        await client.batch([("list-panes",)] * 5)
        data, _ = await run_to_end(client, shell("seq 1000"))
        after = client.statistics()
        assert after.commands_sent >= before.commands_sent + 6
        assert after.bytes_received >= before.bytes_received + len(data)
        assert after.output_bytes - before.output_bytes >= len(data)
        assert after.panes >= 1
        assert after.gaps == after.pauses == 0


async def test_the_version_is_that_of_the_server(server: Server, tmux_version: TmuxVersion) -> None:
    async with server.client() as client:
        assert client.version == tmux_version
        assert has_capability(client.version, "flow-control")


async def test_a_process_starts_without_the_variables_of_tmux() -> None:
    process = open_process(
        [sys.executable, "-c", "import os; print(sorted(os.environ))"],
        environment(TMUX="a", TMUX_PANE="b"),
    )
    await process.wait()
    told = os.read(process.stdout_fd, 1 << 16).decode()
    process.close_stdin()
    process.close_output()
    assert "'PATH'" in told
    assert "'TMUX'" not in told
    assert "'TMUX_PANE'" not in told
