"""Every benchmark runs; how fast is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import command
from benchmarks.run import BENCHMARKS
from tmuxcc.cli import bench as verb

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.tmux
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name: str, tmux: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = run(name, "--quick", "--tmux", tmux, "--json", str(file))

    assert done.returncode == 0, done.stderr
    (question,) = json.loads(file.read_text())["questions"]
    assert question["name"] == name
    assert question["rows"]
    assert BENCHMARKS[name].TITLE in done.stdout


@pytest.mark.tmux
def test_results_can_go_to_stdout_for_programs(tmux: str) -> None:
    done = run("start", "--quick", "--tmux", tmux, "--json", "-")
    assert json.loads(done.stdout)["quick"] is True


def test_an_unknown_name_is_one_line_that_tells_the_known_ones() -> None:
    done = run("speed")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "latency, completeness" in done.stderr


def test_a_missing_tmux_is_one_line() -> None:
    done = run("start", "--quick", "--tmux", "/nonexistent/tmux")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("benchmarks: no program '/nonexistent/tmux'")


# The verb


def test_the_verb_hands_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(command, "perform", lambda names, **options: seen.update(options, n=names))
    words = ["latency", "swarm", "--quick", "--json", "f", "--pictures", "d", "--tmux", "t"]
    done = CliRunner().invoke(verb.bench, words)

    assert done.exit_code == 0, done.output
    assert seen == {
        "n": ("latency", "swarm"),
        "quick": True,
        "json": "f",
        "pictures": "d",
        "tmux": "t",
    }


def test_the_verb_tells_a_failure_in_one_line() -> None:
    done = CliRunner().invoke(verb.bench, ["speed"])
    assert done.exit_code == 1
    assert done.output.startswith("tmuxcc: no benchmark 'speed'")
    assert done.output.count("\n") == 1


def test_without_the_source_the_verb_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verb, "SOURCE", tmp_path)
    done = CliRunner().invoke(verb.bench, [])
    assert done.exit_code == 1
    assert "in a copy of the source run `sh .ci/setup bench`" in done.output
