"""The life of ``tmuxcc run``: a private server, its programs, and an end that leaves nothing.

Nothing is printed here; a `Reporter` is told. The programs are stopped in two steps, gently (what
a person at the terminal would do) and firmly (SIGKILL); then the server, whatever the programs
left behind, and the folder of the socket go, in this order and in every case.
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import trio
from attrs import define, frozen

from ..client.client import Client, open_client
from ..client.output import ExitStatus
from ..client.start import created_options
from ..client.streams import LineStream, LostOutput
from ..errors import TmuxError
from ..swarm.processes import identity, process_state, processes_with, send_signal
from ..swarm.server import end_session, no_start_argv, run_tmux
from .folder import CONFIGURATION, SOCKET, private_folder
from .interrupts import stop_signals
from .text import Writer, output_status

SESSION = "run"
"""What the session of the private server is called."""

HISTORY = 8 << 20
"""Bytes of a pane that may wait for a slow reader of our output before some are lost."""

KILLED = 2.0
"""Seconds for what was killed to be gone and its end to be read."""

STRAYS = 1.0
"""Seconds between SIGTERM and SIGKILL for what the programs left in the background."""

# Read by the server before its first pane. Programs that have ended stay to be looked at, and the
# session does not end with a first program that is quicker than the second is started.
# The server ends when we do: even SIGKILL ends our tmux client, the only one that is attached.
SETTINGS = """\
set -s exit-empty on
set -s exit-unattached on
set -s set-clipboard off
set -g default-terminal screen-256color
set -g history-limit 50000
set -g remain-on-exit on
set -g automatic-rename off
set -g allow-rename off
set -g status-left "[tmuxcc run] "
set -g status-left-length 20
set -g status-right ""
"""


@define(eq=False)
class Job:
    """One program: what to run, and what has become of it.

    `stopped`: it ended because it was told to. `remark` is said in place of how it ended, where
    there is more to say.
    """

    name: str
    argv: list[str]
    pane_id: str = ""
    wrapper_pid: int = 0
    started: float = 0.0
    seconds: float | None = None
    lines: int = 0
    bytes: int = 0
    lost: int = 0
    gaps: int = 0
    status: ExitStatus | None = None
    ended: bool = False
    stopped: bool = False
    restarts: int = 0
    remark: str = ""


@frozen
class Plan:
    """How to run them. `size` is asked again when the terminal changes, if `follow_size` is set."""

    tmux: str
    shown_tmux: str
    cwd: Path
    env: Mapping[str, str]
    size: Callable[[], tuple[int, int]]
    follow_size: bool
    grace: float
    fail_fast: bool


class Reporter(Protocol):
    """Who is told what happens. `escapes`: whether lines keep their terminal sequences."""

    escapes: bool
    writer: Writer

    def message(self, text: str) -> None:
        """Tell the person something."""

    def started(self, job: Job) -> None:
        """A program has its pane."""

    def line(self, job: Job, line: str) -> None:
        """A program wrote a line; a `LostOutput` says that some are missing here."""

    def exited(self, job: Job) -> None:
        """A program has ended, and its last line was told."""

    def summary(self, status: int) -> None:
        """All have ended; `status` is our own exit status."""


async def tell_lines(lines: LineStream, job: Job, reporter: Reporter) -> None:
    """Report what a program writes, to its end, no quicker than it is taken."""
    async with lines:
        async for line in lines:
            if isinstance(line, LostOutput):
                job.gaps += 1
                job.lost += line.gap.size or 0
            else:
                job.lines += 1
            reporter.line(job, line)
            if reporter.writer.is_full:
                await reporter.writer.wait_room()


class Runner:
    """Runs jobs once, from nothing to nothing."""

    def __init__(self, jobs: Sequence[Job], plan: Plan, reporter: Reporter) -> None:
        self._jobs = jobs
        self._plan = plan
        self._reporter = reporter
        self._writer = reporter.writer
        self._client: Client | None = None
        self._nursery: trio.Nursery
        self._variable = b""
        self._body = trio.CancelScope()
        self._patience: trio.CancelScope | None = None
        self._interrupted: int | None = None
        self._failed_first: Job | None = None
        self._failure: TmuxError | None = None

    async def run(self) -> int:
        """Run all of it; our exit status. Raises `OpenError` if there is no tmux to run it in."""
        more = (signal.SIGWINCH,) if self._plan.follow_size else ()
        with (
            stop_signals(*more) as received,
            private_folder(SETTINGS) as folder,
        ):
            try:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._heed_signals, received)
                    self._nursery.start_soon(self._heed_reader)
                    self._nursery.start_soon(self._writer.run)
                    with self._body:
                        await self._serve(folder / SOCKET, folder / CONFIGURATION)
                    status = await self._tell_end()
                    self._nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    pid = 0 if self._client is None else self._client.server_pid
                    await _end_server(self._plan.tmux, folder / SOCKET, pid)
        if self._failure is not None and self._patience is None:
            raise self._failure
        return status

    async def _tell_end(self) -> int:
        """Tell what has not been told yet; our exit status, which that may change."""
        await self._writer.wait_written()
        if self._client is not None and self._writer.failure is None:
            self._reporter.summary(self._status())
            await self._writer.wait_written()
        return self._status()

    async def _serve(self, socket: Path, configuration: Path) -> None:
        self._variable = pane_variable(socket)
        plan, first = self._plan, self._jobs[0]
        try:
            async with open_client(
                SESSION,
                create=True,
                size=plan.size(),
                socket_path=socket,
                config_file=configuration,
                tmux=plan.tmux,
                cwd=plan.cwd,
                env=plan.env,
                argv=first.argv,
                history=HISTORY,
            ) as client:
                first.started = time.monotonic()
                await self._start_others(client)
                self._client = client
                attach = [plan.shown_tmux, "-S", str(socket), "attach"]
                self._reporter.message(f"attach: {shlex.join(attach)}")
                async with trio.open_nursery() as nursery:
                    for job in self._jobs:
                        nursery.start_soon(self._follow, client, job)
        except TmuxError as error:
            self._failure = error

    async def _start_others(self, client: Client) -> None:
        """Make the other windows, in order and without waiting for each."""
        options = ["-d", "-t", f"{client.session_id}:", "-P", "-F", "#{pane_id} #{pane_pid}"]
        options += created_options(self._plan.cwd, self._plan.env)
        others = self._jobs[1:]
        programs = [client.wrap(job.argv) for job in others]
        commands: list[list[str]] = []
        for job, program in zip(others, programs, strict=True):
            name = job.name.replace("#", "##")
            commands.append(["new-window", *options, "-n", name, "--", *program])
            job.started = time.monotonic()
        results = await client.batch(
            [*commands, ["list-panes", "-a", "-F", "#{pane_id} #{pane_pid}"]]
        )
        for result in results:
            if isinstance(result, TmuxError):
                raise result
        *made, panes = [result for result in results if not isinstance(result, TmuxError)]
        for job, program, lines in zip(others, programs, made, strict=True):
            job.pane_id, _, pid = lines[0].partition(" ")
            job.wrapper_pid = int(pid or 0)
            client.watch_program(job.pane_id, job.wrapper_pid, program)
        known = {job.pane_id for job in others}
        first = self._jobs[0]
        pids = dict(line.split(" ") for line in panes)
        first.pane_id = next(pane_id for pane_id in pids if pane_id not in known)
        # From tmux 3.8 on a pane that is dead already has none.
        first.wrapper_pid = int(pids[first.pane_id] or 0)
        await client.command("rename-window", "-t", first.pane_id, first.name.replace("#", "##"))
        for job in self._jobs:
            self._reporter.started(job)

    async def _follow(self, client: Client, job: Job) -> None:
        """Report what one program writes, to its end."""
        pane = client.pane(job.pane_id)
        try:
            lines = pane.lines(since=0, escapes=self._reporter.escapes)
            await tell_lines(lines, job, self._reporter)
            job.status = await pane.wait_exit()
        except TmuxError as error:
            self._failure = error
        job.ended = True
        job.seconds = time.monotonic() - job.started
        job.bytes = client.pane(job.pane_id).statistics().output_bytes
        self._reporter.exited(job)
        failed = job.status is None or not job.status.ok
        if failed and self._plan.fail_fast and self._patience is None:
            self._failed_first = job
            self._stop(signal.SIGTERM, f"{job.name} failed, stopping the others…")

    # Stopping

    async def _heed_signals(self, received: AsyncIterator[int]) -> None:
        async for number in received:
            if number == signal.SIGWINCH:
                await self._resize()
                continue
            if self._interrupted is None:
                self._interrupted = number
            if self._patience is None:
                self._stop(number, "stopping… (again to kill)")
            else:
                self._patience.cancel()
                self._writer.hurry()

    async def _heed_reader(self) -> None:
        """Whoever read our output has gone, so there is nobody to run anything for."""
        await self._writer.failed.wait()
        if self._patience is None:
            self._stop(signal.SIGTERM, None)

    async def _resize(self) -> None:
        if self._client is not None:
            columns, rows = self._plan.size()
            with suppress(TmuxError):
                await self._client.command("refresh-client", "-C", f"{columns}x{rows}")

    def _stop(self, number: int, message: str | None) -> None:
        self._patience = trio.CancelScope()
        if message is not None:
            self._reporter.message(message)
        self._nursery.start_soon(self._stop_jobs, number, self._patience)

    async def _stop_jobs(self, number: int, patience: trio.CancelScope) -> None:
        """Gently, then firmly. Cancelled when all is over, usually long before its end."""
        if self._client is not None:
            patience.deadline = trio.current_time() + self._plan.grace
            with patience:
                for job in self._jobs:
                    if not job.ended:
                        await self._ask_to_end(self._client, job, number)
                await trio.sleep_forever()
            wrappers = {job.wrapper_pid for job in self._jobs}
            # The wrappers stay to tell how their programs ended.
            programs = {each.pid for each in processes_with(self._variable)} - wrappers
            send_signal(programs, signal.SIGKILL)
            await trio.sleep(KILLED)
        self._body.cancel()
        self._writer.hurry()

    async def _ask_to_end(self, client: Client, job: Job, number: int) -> None:
        """As the terminal would: Ctrl-C typed, or the signal to the group in the foreground."""
        wrapper = process_state(job.wrapper_pid) if job.wrapper_pid else None
        if number != signal.SIGINT and wrapper is not None and wrapper.foreground_group > 0:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(wrapper.foreground_group, number)
            return
        with suppress(TmuxError):
            await client.pane(job.pane_id).send_keys("C-c")

    # The end

    def _status(self) -> int:
        if self._interrupted is not None:
            return 128 + self._interrupted
        if self._writer.failure is not None:
            return output_status(self._writer.failure)
        counted = [self._failed_first] if self._failed_first is not None else self._jobs
        numbers = [None if job.status is None else status_number(job.status) for job in counted]
        return max(1 if number is None else number for number in numbers)


def status_number(status: ExitStatus) -> int | None:
    """The exit status that stands for how a program ended, as shells count; None if not known."""
    if status.signal is not None:
        return 128 + status.signal
    return status.code


async def _end_server(tmux: str, socket: Path, server_pid: int) -> None:
    """End the server and all that its panes have left behind. Takes a few seconds at most."""
    argv = no_start_argv(tmux, socket)
    if not server_pid:
        told = await run_tmux(argv, "display-message", "-p", "#{pid}")
        server_pid = int(told) if told.strip().isdigit() else 0
    server = identity(server_pid) if server_pid else None
    await end_session(argv, SESSION, own_server=True, server=server)
    variable = pane_variable(socket)
    for number in (signal.SIGTERM, signal.SIGKILL):
        send_signal([each.pid for each in processes_with(variable)], number)
        with trio.move_on_after(STRAYS):
            # Also those that they start meanwhile, which are no children of ours.
            while processes_with(variable):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            return


def pane_variable(socket: Path) -> bytes:
    """What begins an entry in the environment of every process in a pane of this server."""
    return b"TMUX=" + os.fsencode(socket) + b","
