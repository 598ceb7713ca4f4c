"""``tmuxcc up``: the agents of a swarm file, started in order, shown, and ended in order.

The command line and what is printed stand here; the life of the swarm is in master.py.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from ..client.output import ExitStatus
from ..client.start import find_server
from ..swarm.file import SwarmFile, read_swarm_file, start_layers
from .master import Master, Plan, UpReporter
from .options import SECONDS, Target, take_target
from .report import JsonReport, TextReport, ended_text
from .runner import Job
from .swarms import choose
from .text import give_up_stdout


@click.command(short_help="Run a swarm of agents from a file.")
@click.argument(
    "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-d", "--detach", is_flag=True, help="Start all, wait until they are ready, and leave them."
)
@click.option("--adopt", is_flag=True, help="Take over what runs of that swarm already.")
@click.option(
    "--grace",
    type=SECONDS,
    metavar="SECONDS",
    help="How long an agent may take to end before it is killed. [default: its own grace]",
)
@click.option(
    "--log-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep what each agent writes in DIR/NAME.log. [default: it is not kept]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line on stdout.")
@click.option("-L", "socket_name", metavar="NAME", help="Run on this tmux server, by its name.")
@click.option("-S", "socket_path", metavar="PATH", help="Run on this tmux server, by its socket.")
@click.option("--tmux", metavar="PROGRAM", help="The tmux to use. [default: the one on PATH]")
@click.pass_context
def up(
    ctx: click.Context,
    file: Path,
    names: Sequence[str],
    detach: bool,
    adopt: bool,
    grace: float | None,
    log_dir: Path | None,
    as_json: bool,
    socket_name: str | None,
    socket_path: str | None,
    tmux: str | None,
) -> None:
    """Run the agents that FILE (TOML or YAML) describes, and show their lines as they are written.

    Each is started when those that it comes after are ready, and started again when it ends as its
    restart policy says. With NAMEs (web-* for many) only these are, and those they come after. The
    swarm has a tmux server of its own unless -L or -S names another, and any shell can look at it
    and drive it with ps, logs, send, broadcast, wait, stop and down.

    \b
    Example, demo.toml:
      [agents.db]
      command = "redis-server --port 7777"
      ready = {port = 7777}
      [agents.worker]
      command = "python3 worker.py --id {n}"
      replicas = 3
      after = ["db"]
      restart = "on-failure"

    \b
    Keys of an agent, or in [defaults] of all:
      command or argv, replicas, env, env_file, cwd, kind, log, after
      restart = "no", "on-failure", "always" or {when, delay, max_restarts, window, …}
      ready = {pattern or command or port, timeout}
      stop = {keys or text or signal, grace}
      limits = {rate, burst, size, clear_history_after}
    Above the agents: cluster, base_dir, env, env_file.
    In their words {n} is the number of a replica and {id} its name.

    \b
    Examples:
      tmuxcc up demo.toml
      tmuxcc up --detach demo.toml && tmuxcc logs -f
      tmuxcc up demo.toml worker-1

    Ctrl-C, SIGTERM and SIGHUP stop the agents gently, each before those that it came after; a
    second time they are killed. It ends too when all agents have ended for good, or another shell
    says `tmuxcc down`. What the agents have started is then gone, in the background or not.

    With --detach nobody is left to start again what ends, and to write log files; a later
    `tmuxcc up --adopt` takes that up. Agents that run are taken over as they are, and those of
    FILE that are not there yet are started.

    --json writes objects whose "event" is started, ready, line, lost, ended (again in "again_in"
    seconds), failed, exited, or at the end summary.

    Exit status: that of the worst agent, where one that was stopped is as good as 0; 128+n after
    signal n; with --detach 1 if one did not become ready.
    """  # noqa: D301 - the \b is for click
    target = take_target(ctx, Target(socket_name, socket_path, None, tmux))
    if target.config_file:
        raise click.UsageError("a swarm's server has settings of its own: -f is for other verbs")
    if detach and log_dir is not None:
        raise click.UsageError("with --detach nobody is left to write log files")
    swarm_file = read_swarm_file(file)
    chosen = _with_those_before(swarm_file, names)
    jobs = [Job(name, list(swarm_file.agents[name].argv)) for name in chosen]
    reporter: UpReporter = UpJson(jobs) if as_json else UpText(jobs)
    # Here already, so that a tmux that is not there costs nothing.
    server = find_server(
        socket_path=target.socket_path,
        socket_name=target.socket_name,
        config_file=None,
        tmux=target.tmux,
        transport=None,
    )
    if target.socket_name:
        # tmux makes the folder of named sockets by itself, but only when it is given a name.
        Path(server.socket).parent.mkdir(mode=0o700, exist_ok=True)
    elsewhere = target.socket_name or target.socket_path
    plan = Plan(
        file=file,
        cluster_id=swarm_file.cluster_id,
        base_dir=swarm_file.base_dir,
        specs={name: swarm_file.agents[name] for name in chosen},
        after={name: swarm_file.after[name] for name in chosen},
        socket_path=Path(server.socket) if elsewhere else None,
        tmux=target.tmux,
        shown_tmux=_shown_tmux(target),
        adopt=adopt,
        detach=detach,
        grace=grace,
        log_dir=log_dir,
    )
    status = trio.run(Master(jobs, plan, reporter).run)
    if reporter.writer.failure is not None:
        give_up_stdout(reporter.writer.failure)
    ctx.exit(status)


def _shown_tmux(target: Target) -> str:
    return shlex.quote(shutil.which(target.tmux) or target.tmux) if target.tmux else "tmux"


def _with_those_before(file: SwarmFile, names: Sequence[str]) -> list[str]:
    """The agents that are named and all that have to be ready for them, in order of their start."""
    wanted = set(choose(names, file.agents))
    queue = list(wanted)
    while queue:
        before = set(file.after[queue.pop()]) - wanted
        wanted |= before
        queue += before
    return [name for layer in start_layers(file.after) for name in layer if name in wanted]


class UpText(TextReport):
    """For people: messages for what happens to agents."""

    def restarting(self, job: Job, status: ExitStatus | None, delay: float) -> None:
        """A program has ended and will be started again."""
        self.message(f"{job.name} {ended_text(status)}, again in {delay:.1f} s")

    def ready(self, job: Job) -> None:
        """An agent with a condition for it has become ready."""
        self.message(f"{job.name} is ready")

    def failed(self, job: Job, why: str) -> None:
        """An agent is not or no more what it should be."""
        self.message(f"{job.name}: {why}")

    def ended(self, job: Job) -> None:
        """An agent has ended for good while others go on."""
        how = "was stopped" if job.stopped else ended_text(job.status)
        self.message(f"{job.name} {how}")


class UpJson(JsonReport):
    """For programs."""

    def restarting(self, job: Job, status: ExitStatus | None, delay: float) -> None:
        """A program has ended and will be started again."""
        status = status or ExitStatus(None, None)
        self.put(
            "ended",
            name=job.name,
            code=status.code,
            signal=status.signal,
            again_in=round(delay, 3),
        )

    def ready(self, job: Job) -> None:
        """An agent with a condition for it has become ready."""
        self.put("ready", name=job.name)

    def failed(self, job: Job, why: str) -> None:
        """An agent is not or no more what it should be."""
        self.put("failed", name=job.name, why=why)

    def ended(self, job: Job) -> None:
        """Nothing: that it has exited is told anyway."""
