"""The wrapper under which programs run: it must show nowhere but in its mark."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import tmuxcc
import tmuxcc.client.panes
from tmuxcc import ExitStatus

from .helpers import (
    Server,
    children,
    gather,
    is_running,
    python,
    read_to_end,
    run_to_end,
    shell,
    terminal,
    until,
)

pytestmark = pytest.mark.tmux

SHELLS = {
    "sh": ["/bin/sh"],
    "bash": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
}


@pytest.fixture(params=SHELLS)
def wrapper_shell(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> str:
    """A shell that runs the wrapper in place of /bin/sh."""
    name, *options = SHELLS[request.param]
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    original = tmuxcc.client.panes.wrapped

    def wrapped(argv: Sequence[str], nonce: str) -> list[str]:
        words = original(argv, nonce)
        assert words[0] == "/bin/sh"
        return [found, *options, *words[1:]]

    monkeypatch.setattr(tmuxcc.client.panes, "wrapped", wrapped)
    return str(request.param)


async def pid_of(client: tmuxcc.Client, pane: tmuxcc.Pane) -> int:
    """The process of a pane: the wrapper."""
    (told,) = await client.command("display-message", "-p", "-t", pane.pane_id, "#{pane_pid}")
    return int(told)


async def start(client: tmuxcc.Client, argv: list[str]) -> tuple[tmuxcc.Pane, int, int]:
    """A program that says ``up``; its pane, the wrapper and the program."""
    pane = client.pane((await client.new_window(argv=argv)).pane_id)
    assert await pane.wait_for("up", since=0)
    wrapper = await pid_of(client, pane)
    return pane, wrapper, terminal(wrapper)[1]


@pytest.mark.parametrize("size", [1, 20_000, 300_000])
async def test_the_last_bytes_are_there_ten_times_out_of_ten(
    server: Server, size: int, wrapper_shell: str
) -> None:
    async with server.client() as client:
        script = f"head -c {size - 1} /dev/zero | tr '\\0' a; printf Z"
        told = await gather(*[lambda: run_to_end(client, shell(script))] * 10)
        assert told == [(b"a" * (size - 1) + b"Z", ExitStatus(0, None))] * 10


async def test_the_status_is_exact_in_every_shell(server: Server, wrapper_shell: str) -> None:
    statuses = [ExitStatus(code, None) for code in (0, 1, 127, 129, 130, 143, 147, 148, 255)]
    statuses += [ExitStatus(None, number) for number in (1, 2, 3, 6, 9, 13, 15)]
    scripts = [
        f"exit {status.code}" if status.signal is None else f"kill -{status.signal} $$"
        for status in statuses
    ]
    async with server.client() as client:
        told = await gather(
            *((lambda s=script: run_to_end(client, shell(s))) for script in scripts)
        )
        assert told == [(b"", status) for status in statuses]


async def test_tmux_itself_is_told_the_same_status(server: Server, wrapper_shell: str) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "remain-on-exit", "on")
        for script, code in (("exit 7", 7), ("exit 0", 0)):
            made = await client.new_window(argv=shell(script))
            assert (await client.pane(made.pane_id).wait_exit()).code == code

            async def row(pane_id: str = made.pane_id) -> tmuxcc.PaneRow | None:
                await client.command("run-shell", "-b", ":")
                rows = {row.pane_id: row for row in await client.list_panes()}
                return rows[pane_id] if rows[pane_id].pane_dead_status is not None else None

            assert (await until(row)).pane_dead_status == code


async def test_what_can_not_be_run_tells_why(server: Server, folder: Path) -> None:
    plain = folder / "plain"
    plain.write_text("no program", "utf-8")
    async with server.client() as client:
        for program, code in (("no-such-program", 127), (str(plain), 126), ("/", 126)):
            data, status = await run_to_end(client, [program])
            assert status == ExitStatus(code, None)
            assert program.encode() in data


async def test_the_program_owns_the_terminal(server: Server, wrapper_shell: str) -> None:
    script = (
        "import os, signal, time\n"
        "for n in (2, 3): signal.signal(n, lambda n, _: os.write(1, b'got %d\\n' % n))\n"
        "os.write(1, b'up')\n"
        "while True: time.sleep(1)\n"
    )
    async with server.client() as client:
        pane, wrapper, program = await start(client, python(script))
        assert wrapper_shell in Path(f"/proc/{wrapper}/exe").readlink().name
        assert program in children(wrapper)
        assert terminal(program) == (wrapper, program)
        assert os.getpgid(program) == program
        for key, number in (("C-c", 2), ("C-\\", 3)):
            await pane.send_keys(key)
            assert await pane.wait_for(f"got {number}")
        assert is_running(wrapper)
        names = ("display-message", "-p", "-t", pane.pane_id, "#{pane_current_command}")
        assert (await client.command(*names))[0].startswith("python")
        os.kill(program, signal.SIGKILL)
        assert await pane.wait_exit() == ExitStatus(None, 9)


async def test_a_wrapper_that_is_killed_before_it_has_started_the_program_leaves_nothing(
    server: Server, wrapper_shell: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    made = tmuxcc.client.panes.wrapped

    def killed(argv: Sequence[str], nonce: str) -> list[str]:
        # What waits to become the program stops only once its parent is gone.
        words = made(argv, nonce)
        script = words.index("-c") + 1
        for old, new in {
            "orphaned && exit": f"sh -c 'echo $PPID' >{folder}/pid; "
            "while kill -s 0 $$; do sleep 0.01; done; orphaned && exit",
            "\nrc=$?": f"\nwhile [ ! -s {folder}/pid ]; do sleep 0.01; done; kill -s KILL $$"
            "\nrc=$?",
        }.items():
            assert old in words[script]
            words[script] = words[script].replace(old, new, 1)
        return words

    monkeypatch.setattr(tmuxcc.client.panes, "wrapped", killed)
    async with server.client() as client:
        await client.new_window(argv=["sleep", "1000"])
        told = folder / "pid"
        forked = int(await until(lambda: told.exists() and told.read_text("ascii")))
        await until(lambda: not is_running(forked))


async def test_a_program_that_stops_is_continued_in_the_foreground(
    server: Server, wrapper_shell: str
) -> None:
    script = (
        "import os, signal\n"
        "os.write(1, b'up')\n"
        "for _ in range(30):\n"
        " os.kill(os.getpid(), signal.SIGSTOP)\n"
        " os.kill(os.getpid(), signal.SIGTSTP)\n"
        " assert os.tcgetpgrp(0) == os.getpgrp()\n"
        "os.write(1, b'done')\n"
        "os._exit(147)\n"
    )
    async with server.client() as client:
        data, status = await run_to_end(client, python(script))
        assert (data, status) == (b"updone", ExitStatus(147, None))
        # Not a shell: it may be stopped while it starts a child by vfork, which nobody is told. And
        # no handler: it would not be called for what comes just before pause.
        waiting = (
            "import os, signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])\n"
            "os.write(1, b'up')\n"
            "while signal.sigwait([signal.SIGCONT]): os.write(1, b'continued\\n')\n"
        )
        pane, _, program = await start(client, python(waiting))
        for _ in range(3):
            await pane.send_keys("C-z")
            assert await pane.wait_for("continued")
        os.kill(program, signal.SIGKILL)
        assert await pane.wait_exit() == ExitStatus(None, 9)


async def test_a_shell_with_jobs_works_in_it(server: Server) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    async with server.client() as client:
        made = await client.new_window(argv=[bash, "--norc", "-i"], env={"PS1": "PROMPT:"})
        pane = client.pane(made.pane_id)
        await pane.wait_for("PROMPT:", since=0)
        for text, answer in (
            ("echo st''art$((1+1))", "^start2"),
            ("sleep 100 & echo job$!", "^job[0-9]+"),
            ("kill %1; wait %1; echo rc$?", "^rc143"),
            ("exit 6", "exit"),
        ):
            await pane.send_text(text, submit=True)
            assert await pane.wait_for(answer, echo=text.startswith("exit"))
        assert await pane.wait_exit() == ExitStatus(6, None)


NATIVE = """
import json, os, sys
status = open("/proc/self/status").read().splitlines()
fds = {}
for name in os.listdir("/proc/self/fd"):
    try: fds[name] = "pts" if "pts" in os.readlink("/proc/self/fd/" + name) else "other"
    except OSError: pass
fds = {name: kind for name, kind in fds.items() if name in "012" or kind == "pts"}
told = {
    "fds": sorted(fds.items()),
    "blocked": [line for line in status if line.startswith("SigBlk")],
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "mask": os.umask(0),
    "nice": os.nice(0),
}
with open(sys.argv[1] + ".new", "w") as out: json.dump(told, out)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


async def test_descriptors_and_environment_are_as_without_it(server: Server, folder: Path) -> None:
    variables = {"rc": "1", "P": "2", "said": "3", "sig": "4", "LC_ALL": "C.UTF-8", "PATH": "/bin"}
    async with server.client() as client:
        told = []
        for name in ("native", "wrapped", "kept"):
            file = folder / name
            if name == "kept":
                await client.keep_wrapper("TMUXCC_TEST")
            argv = python(NATIVE, str(file))
            if name == "native":
                words = [word for item in variables.items() for word in ("-e", "=".join(item))]
                await client.command("new-window", "-d", "-c", "/usr", *words, "--", *argv)
            else:
                await client.new_window(cwd="/usr", env=variables, argv=argv)
            await until(file.exists)
            told.append(json.loads(file.read_text("utf-8")))
            del told[-1]["environment"]["TMUX_PANE"]
        # A shell that starts a program says where it was and what it ran.
        for one in told:
            for variable in ("_", "OLDPWD", "SHLVL", "PWD"):
                one["environment"].pop(variable, None)
        native, wrapped, kept = told
        assert wrapped == kept == native
        assert [name for name, _ in wrapped["fds"]] == ["0", "1", "2"]


async def test_a_script_that_tmux_keeps_is_the_same(server: Server) -> None:
    async with server.client() as client:
        started = []
        for keeps in (False, True):
            if keeps:
                await client.keep_wrapper("TMUXCC_TEST")
            pane, _, _ = await start(client, shell("echo up; exec sleep 600"))
            where = ("display-message", "-p", "-t", pane.pane_id, "#{pane_start_command}")
            (words,) = await client.command(*where)
            started.append(re.sub("[0-9a-f]{32}", "NONCE", words))
        assert started[0] == started[1]
        assert await run_to_end(client, shell("echo x; exit 3")) == (b"x\r\n", ExitStatus(3, None))
        pane, _, program = await start(client, shell("echo up; exec sleep 600"))
        os.kill(program, signal.SIGKILL)
        assert await pane.wait_exit() == ExitStatus(None, 9)


async def test_a_script_that_somebody_has_unset_is_a_failure(server: Server) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "remain-on-exit", "on")
        await client.keep_wrapper("TMUXCC_TEST")
        await client.command("set-environment", "-g", "-u", "TMUXCC_TEST")
        pane = client.pane((await client.new_window(argv=shell("echo never"))).pane_id)
        assert await pane.wait_exit() == ExitStatus(127, None)
        assert "never" not in await pane.capture()


async def test_the_mark_is_invisible(server: Server, wrapper_shell: str) -> None:
    async with server.client() as client:
        await client.command("set-option", "-g", "remain-on-exit", "on")
        await client.command("set-option", "-g", "history-limit", "100")
        made = await client.new_window(argv=shell("printf 'one\\ntwo'"))
        pane = client.pane(made.pane_id)
        assert await read_to_end(pane.output(since=0)) == b"one\r\ntwo"
        # With the history: where tmux says that the pane is dead it scrolls first.
        shown = await pane.capture(history=True, escapes=True)
        assert shown.split("\n")[:2] == ["one", "two"]
        assert "6973" not in shown


@pytest.mark.parametrize("how", ["kill-pane", "kill-window", "SIGKILL", "SIGTERM", "respawn-pane"])
async def test_whatever_ends_the_pane_takes_the_program_with_it(
    server: Server, wrapper_shell: str, how: str
) -> None:
    async with server.client() as client:
        pane, wrapper, program = await start(
            client, shell("sleep 1000 & sleep 1001 & echo up; sleep 1002; :")
        )
        pids = [wrapper, program]

        def has_all() -> bool:
            pids[2:] = children(program)
            return len(pids) == 5

        await until(has_all)
        if how.startswith("SIG"):
            os.kill(wrapper, getattr(signal, how))
        elif how == "respawn-pane":
            await client.command(how, "-k", "-t", pane.pane_id, "cat")
        else:
            await client.command(how, "-t", pane.pane_id)
        await until(lambda: not any(map(is_running, pids)))


async def test_killing_the_server_takes_every_program_with_it(server: Server) -> None:
    async with server.client() as client:
        _, wrapper, program = await start(client, shell("sleep 1000 & echo up; sleep 1001; :"))
        await until(lambda: len(children(program)) == 2)
        pids = [wrapper, program, *children(program)]
        server.run("kill-server")
        await until(lambda: not any(map(is_running, pids)))


async def test_the_wrapper_goes_as_soon_as_its_mark_was_read(server: Server) -> None:
    async with server.client() as client:
        pane, wrapper, _ = await start(client, shell("echo up; read x"))
        await pane.send_keys("Enter")
        assert (await pane.wait_exit()).ok
        await until(lambda: not is_running(wrapper))
        assert children(wrapper) == []


ODD: dict[str, tuple[str, ExitStatus]] = {
    "raw": ("stty raw -echo -opost; printf x", ExitStatus(0, None)),
    "closed": ("exec <&- >&- 2>&-", ExitStatus(0, None)),
    "redirected": ("exec </dev/null >/dev/null 2>&1", ExitStatus(0, None)),
    "an unfinished sequence": ("printf '\\033]0;unfinished'", ExitStatus(0, None)),
    "an unfinished string": ("printf '\\033Pq'", ExitStatus(0, None)),
    "everything killed": ("kill -9 0", ExitStatus(None, 9)),
    "signals ignored": ('trap "" HUP INT QUIT TERM TSTP TTOU TTIN; printf x', ExitStatus(0, None)),
    "a session of its own": ("setsid sh -c 'echo x'", ExitStatus(0, None)),
    "a child left behind": ("sleep 1000 & exit 3", ExitStatus(3, None)),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_programs_end_like_any_other(
    server: Server, wrapper_shell: str, name: str
) -> None:
    script, status = ODD[name]
    async with server.client() as client:
        _, told = await run_to_end(client, shell(script))
        assert told == status


def is_stopped(tty: str) -> bool:
    """Whether a terminal takes no output; a dot that it takes is shown."""
    fd = os.open(tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        os.write(fd, b".")
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


async def test_the_end_is_told_also_where_control_s_has_stopped_the_terminal(
    server: Server, wrapper_shell: str
) -> None:
    async with server.client() as client:
        pane, wrapper, program = await start(client, shell("echo up; exec sleep 600"))
        await pane.send_keys("C-s")
        tty = (await client.command("display-message", "-pt", pane.pane_id, "#{pane_tty}"))[0]
        await until(lambda: is_stopped(tty))
        os.kill(program, signal.SIGTERM)
        assert await pane.wait_exit() == ExitStatus(None, 15)
        await until(lambda: not is_running(wrapper))


async def test_control_c_at_the_very_end_leaves_a_true_status(server: Server) -> None:
    script = "import os, time\nos.write(1, b's')\ntime.sleep(0.01)\nos._exit(4)"
    async with server.client() as client:

        async def run() -> ExitStatus:
            pane = client.pane((await client.new_window(argv=python(script))).pane_id)
            await pane.wait_for("s", since=0)
            with suppress(tmuxcc.PaneDead, tmuxcc.PaneNotFound):
                await pane.send_keys("C-c", "C-c", "C-\\")
            return await pane.wait_exit()

        for status in await gather(*[run] * 20):
            assert status in (ExitStatus(4, None), ExitStatus(None, 2), ExitStatus(None, 3))
