"""What an agent's program is started with.

When that happens, and in which pane, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InvalidSwarm
from .spec import AgentSpec, read_env_file


class Program:
    """The program of an agent.

    `marks` are the variables by which its processes, and those they start, are known as the
    agent's. `secrets` are variables that are noted nowhere. Paths of `spec` are relative to
    `base_dir`. `variables` are those that it gets beside those of the tmux server, as of the last
    start.
    """

    def __init__(
        self,
        agent_id: str,
        spec: AgentSpec,
        *,
        marks: Mapping[str, str],
        secrets: Mapping[str, str],
        base_dir: Path,
    ) -> None:
        self.marks = marks
        self.variables = marks
        self.cwd = base_dir / (spec.cwd or ".")
        """The folder that it starts in."""
        self._agent_id = agent_id
        self._spec = spec
        self._secrets = dict(secrets)
        self._base_dir = base_dir

    @property
    def argv(self) -> Sequence[str]:
        """The program and its arguments."""
        return self._spec.argv

    @property
    def mark_entries(self) -> tuple[bytes, ...]:
        """What every process of the agent has in its environment."""
        return tuple(f"{name}={value}".encode() for name, value in self.marks.items())

    def prepare(self) -> None:
        """Make `variables` anew for another start, and see that it can be made.

        Raises `InvalidSwarm` if the folder is gone, in place of which tmux would take another, if
        the file of variables can't be read, or if a secret was known to an earlier master only.
        """
        spec, from_file = self._spec, {}
        if not self.cwd.is_dir():
            raise InvalidSwarm(
                f"there is no folder {self.cwd} to start in", f"{self._agent_id}.cwd"
            )
        if spec.env_file is not None:
            from_file = read_env_file(self._base_dir / spec.env_file)
        env = {**spec.env, **from_file, **self._secrets}
        if missing := [name for name in spec.secret_names if name not in env]:
            raise InvalidSwarm(
                f"this master does not know {', '.join(missing)}: give it in secrets or env_file",
                f"{self._agent_id}.secrets",
            )
        self.variables = {**env, **self.marks}
