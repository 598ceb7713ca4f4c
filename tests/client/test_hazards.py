"""The faults of tmux that protocol/versions.py lists: what the client sends does not meet them."""

from __future__ import annotations

import pytest
import trio

import tmuxcc
from tmuxcc import SendOutcome
from tmuxcc.protocol import TmuxVersion, has_capability, has_hazard

from .helpers import Server, flood, gather, run_to_end, shell, until

pytestmark = pytest.mark.tmux


async def start_flood(client: tmuxcc.Client) -> tmuxcc.Pane:
    pane = client.pane((await client.new_window(argv=flood())).pane_id)
    assert await pane.wait_for("yyy", since=0)
    return pane


async def test_a_busy_pane_is_switched_off_and_on_again(server: Server) -> None:
    async with server.client() as client:
        pid = client.server_pid
        pane = await start_flood(client)
        for _ in range(30):
            assert await client.command("refresh-client", "-A", f"{pane.pane_id}:off") == []
            assert await client.command("refresh-client", "-A", f"{pane.pane_id}:on") == []
        await client.command("refresh-client", "-A", f"{pane.pane_id}:continue")
        async with pane.output() as stream:
            while not isinstance(await stream.receive(), tmuxcc.Chunk):
                pass
        assert server.pid == pid


async def test_no_output_is_refused_where_it_would_hang(
    server: Server, tmux_version: TmuxVersion
) -> None:
    async with server.client() as client:
        await start_flood(client)
        if has_hazard(tmux_version, "no-output-hang"):
            with pytest.raises(tmuxcc.InvalidCommand, match="no-output"):
                await client.command("refresh-client", "-f", "no-output")
        else:
            await client.command("refresh-client", "-f", "no-output")
            await client.command("refresh-client", "-f", "!no-output")
        assert await client.command("display-message", "-p", "well") == ["well"]


async def test_a_busy_pane_is_respawned(server: Server, tmux_version: TmuxVersion) -> None:
    async with server.client() as client:
        pid = client.server_pid
        pane_id = server.run("new-window", "-d", "-P", "-F", "#{pane_id}", "yes")
        pane = client.pane(pane_id)
        causes = []
        async with pane.output(since=0) as stream:
            for _ in range(15):
                assert isinstance(await stream.receive(), (tmuxcc.Chunk, tmuxcc.Gap))
                assert await client.command("respawn-pane", "-k", "-t", pane_id, "yes") == []
            await client.command("respawn-pane", "-k", "-t", pane_id, "echo last of all; cat")
            data = b""
            while b"last of all" not in data:
                item = await stream.receive()
                if isinstance(item, tmuxcc.Gap):
                    causes.append(item.cause)
                else:
                    assert isinstance(item, tmuxcc.Chunk)
                    data = data[-100:] + item.data
        # The pause that protects the server loses output, and that is told.
        assert ("pause" in causes) == has_hazard(tmux_version, "respawn-crash")
        assert server.pid == pid


async def test_nothing_is_pasted_into_what_has_just_died(lasting: Server) -> None:
    pane_id = lasting.run("new-window", "-d", "-P", "-F", "#{pane_id}", *shell("exit 3"))
    await until(lambda: lasting.run("display-message", "-pt", pane_id, "#{pane_dead}") == "1")
    async with lasting.client() as client:
        alive = await client.command("display-message", "-p", "#{pane_id}")
        await client.command("set-buffer", "text")
        with pytest.raises(tmuxcc.CommandError, match="target pane has exited"):
            await client.command("paste-buffer", "-t", pane_id)
        assert await client.command("paste-buffer", "-t", alive[0]) == []
        assert await client.pane(alive[0]).wait_for("text", since=0, echo=True)


async def test_typing_to_programs_that_are_just_ending_is_answered(lasting: Server) -> None:
    async with lasting.client() as client:
        pid = client.server_pid
        for number in range(30):
            made = await client.new_window(argv=["sleep", f"0.0{number % 10}"])
            pane = client.pane(made.pane_id)
            await trio.sleep(0.01 * (number % 7))
            assert await pane.send_text("hello") in SendOutcome
            await pane.wait_exit()
        assert lasting.pid == pid


async def test_what_was_just_selected_is_destroyed(server: Server) -> None:
    server.start()
    async with server.client() as client:
        pid = client.server_pid
        for number in range(15):
            name = f"s{number}"
            results = await client.batch(
                [
                    ("new-session", "-d", "-s", name, "cat"),
                    ("new-window", "-t", f"{name}:", "cat"),
                    ("new-window", "-t", f"{name}:", "cat"),
                    ("select-window", "-t", f"{name}:0"),
                    ("kill-window", "-t", f"{name}:0"),
                    ("last-window", "-t", f"{name}:"),
                    ("kill-session", "-t", name),
                ]
            )
            assert results == [[]] * 7
        assert server.pid == pid


async def test_agents_in_windows_of_their_own_are_all_killed_at_once(server: Server) -> None:
    server.start()
    async with server.client() as client:
        pid = client.server_pid
        for _ in range(3):
            session = await client.new_session(argv=["cat"])
            windows = [await client.new_window(session_id=session, argv=["cat"]) for _ in range(9)]
            await client.command("select-window", "-t", windows[4])
            await gather(
                *(
                    (lambda window=window: client.command("kill-window", "-t", window))
                    for window in (session.window_id, *windows)
                )
            )
            assert session not in [row.session_id for row in await client.list_sessions()]
        assert server.pid == pid


async def test_a_reply_of_64_mib_ends_at_most_this_client(
    server: Server, tmux_version: TmuxVersion
) -> None:
    server.start()
    pid = server.pid
    file = server.socket.with_name("large")
    with file.open("wb") as out:
        for _ in range(66):
            out.write((b"x" * 1023 + b"\n") * 1024)
    server.run("load-buffer", "-b", "large", str(file))
    thrown_out = has_hazard(tmux_version, "large-reply-exit")
    expected = tmuxcc.ConnectionClosed if thrown_out else tmuxcc.ReplyTooLarge
    async with server.client() as client:
        with pytest.raises(expected) as caught:
            await client.command("show-buffer", "-b", "large")
        if thrown_out:
            assert "too far behind" in str(caught.value)
        else:
            assert await client.command("display-message", "-p", "well") == ["well"]
    async with server.client() as client:
        assert client.server_pid == pid


async def test_a_negative_width_is_refused_where_it_hangs(
    server: Server, tmux_version: TmuxVersion
) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "@x", "a\u0085b")
        if has_hazard(tmux_version, "negative-width-loop"):
            with pytest.raises(tmuxcc.InvalidCommand, match="negative width"):
                await client.command("display-message", "-p", "#{=-5:@x}")
        else:
            assert len(await client.command("display-message", "-p", "#{=-5:@x}")) == 1
        assert len(await client.list_panes()) == 1


async def test_popups_and_waiting_are_refused_on_every_version(server: Server) -> None:
    async with server.client() as client:
        for argv in (("display-popup", "-B", "true"), ("popup",), ("wait-for", "x"), ("wait", "x")):
            with pytest.raises(tmuxcc.InvalidCommand):
                await client.command(*argv)
        await client.command("wait-for", "-S", "x")
        assert await client.command("display-message", "-p", "well") == ["well"]


async def test_the_end_of_many_children_at_once_is_not_missed(server: Server) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "remain-on-exit", "on")
        made = server.run(
            *("new-window", "-d", "-P", "-F", "#{pane_id}", "sleep 0.2; exit 9"),
            *(word for _ in range(11) for word in (";", *NEW)),
        )
        statuses = await gather(*(client.pane(pane_id).wait_exit for pane_id in made.split()))
        assert statuses == [tmuxcc.ExitStatus(9, None)] * 12


NEW = ("new-window", "-d", "-P", "-F", "#{pane_id}", "sleep 0.2; exit 9")


async def test_buffer_names_with_line_ends_do_not_end_the_client(
    server: Server, tmux_version: TmuxVersion
) -> None:
    async with server.client() as client, client.events() as events:
        for name in ("a\nb", "a\n%exit", "a\n%window-add @4711"):
            with trio.move_on_after(5):
                try:
                    await client.command("set-buffer", "-b", name, "text")
                except tmuxcc.CommandError:
                    assert has_capability(tmux_version, "raw-paste")
        await client.command("rename-window", "end")
        async for event in events:
            if isinstance(event, tmuxcc.WindowRenamed) and event.name == "end":
                break
        assert await client.command("display-message", "-p", "well") == ["well"]


async def test_a_killed_window_of_ones_own_is_noticed_however_it_is_told(server: Server) -> None:
    async with server.client() as client:
        made = await client.new_window(argv=["cat"])
        pane = client.pane(made.pane_id)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pane.wait_exit)
                await until(lambda: client.statistics().panes >= 1)
                await client.command("kill-window", "-t", made)


async def test_what_programs_write_last_is_not_lost(server: Server) -> None:
    async with server.client() as client:
        told = await gather(
            *[lambda: run_to_end(client, shell("head -c 20000 /dev/zero | tr '\\0' x"))] * 10
        )
        assert told == [(b"x" * 20000, tmuxcc.ExitStatus(0, None))] * 10
