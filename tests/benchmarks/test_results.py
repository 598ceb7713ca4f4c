"""The file of results, the figures made of it, and that the READMEs say what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import readme, tables, targets
from benchmarks.results import (
    STORED,
    Question,
    Results,
    exponent,
    from_json,
    growth,
    load,
    quantile,
    summarize,
    to_json,
)
from benchmarks.run import BENCHMARKS


@pytest.fixture
def results() -> Results:
    rows = summarize(
        "1 pane, 100 lines/s",
        "latency",
        "ms",
        {
            "floor": [[0.1, 0.2], [0.3]],
            "tmuxcc tap": [[0.2, 0.4], [0.6]],
            "libtmux, 100 ms": [[50], []],
        },
        baseline="floor",
        keep_quantiles=True,
    )
    machine = {"tmux": "3.8", "python": "CPython 3.14", "cores": "2"}
    libraries = {"trio": "0.35", "libtmux": "0.62"}
    question = Question("latency", "A title", 1.5, rows, ("A note.",))
    return Results({**machine, **libraries}, False, 1.5, [question])


def test_what_is_stored_is_read_back_as_it_was(results: Results) -> None:
    text = to_json(results)
    assert from_json(text) == results
    assert to_json(from_json(text)) == text


def test_results_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="run the benchmarks again"):
        from_json('{"schema": 0}')


def test_a_round_without_samples_counts_in_no_figure(results: Results) -> None:
    row = results.row("latency", "1 pane, 100 lines/s", "libtmux, 100 ms", "latency")
    assert row is not None
    assert (row.n, row.medians, row.p50) == (1, (50.0,), 50.0)
    assert row.ratio == pytest.approx(50 / 0.15, rel=1e-3)


def test_a_quantile_is_a_sample() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert [quantile(samples, part) for part in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert quantile([7.0], 0.99) == 7.0


@pytest.mark.parametrize("power", [0.0, 1.0, 1.37, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    costs = {n: 3.2 * n**power for n in (1, 10, 50, 200)}
    assert exponent(costs) == pytest.approx(power, abs=1e-9)


def test_growth_is_told_for_each_side_that_was_measured_at_two_sizes() -> None:
    rows = [
        row
        for size in (1, 10, 100)
        for row in summarize(
            f"{size} agents",
            "end",
            "ms",
            {"floor": [[2.0 * size]], "tmuxcc": [[3.0]], "slow": [[9.0]] if size == 1 else []},
        )
    ]
    assert growth(rows, ["end", "spawn"], "agents") == [
        "`end` grows as n^1.00 (floor), n^0.00 (tmuxcc); n is 1 to 100 agents."
    ]


def test_one_size_has_no_exponent() -> None:
    with pytest.raises(ValueError, match="two sizes"):
        exponent({10: 1.0})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.0, "1"), (12.345, "12.3"), (75432, "75,400"), (100, "100")],
)
def test_a_figure_has_three_digits(value: float, text: str) -> None:
    assert tables.figure(value) == text


def test_tables_show_each_side_with_its_ratio_to_the_floor(results: Results) -> None:
    (table,) = tables.of_question(results.questions[0])
    assert table.columns[-1] == "x floor"
    by_side = {row[0]: row for row in table.rows}
    assert by_side["floor"][-1] == ""
    assert by_side["tmuxcc tap"][1:6] == ("0.4", "0.6", "0.6", "0.6", "3")
    assert by_side["tmuxcc tap"][-1] == "2"
    assert "| tmuxcc tap | 0.4 |" in tables.markdown(table)


def test_a_target_is_met_or_missed_by_its_limit(results: Results) -> None:
    found = {target.text: (target, value) for target, value in targets.found(results)}
    target, value = found["event latency by tap, p50"]
    assert value == 2.0
    assert not target.met(value)
    assert target.met(1.2)


def test_pictures_are_the_same_for_the_same_results(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    from benchmarks import pictures

    first = pictures.draw(results, tmp_path / "one")
    second = pictures.draw(results, tmp_path / "two")
    assert [file.name for file in first] == ["latency.svg", "latency.png"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert "tmuxcc tap" in first[0].read_text(encoding="utf-8")


# What is committed


def test_the_stored_run_is_a_whole_one() -> None:
    results = load(STORED)
    assert not results.quick
    assert [question.name for question in results.questions] == list(BENCHMARKS)
    assert len(targets.found(results)) == len(targets.TARGETS)


@pytest.mark.parametrize("file", readme.FILES, ids=["project", "benchmarks"])
def test_the_figures_in_the_readmes_are_those_of_the_stored_run(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "<!-- bench: " in text
    assert readme.filled(text, load(STORED)) == text, "run `python -m benchmarks.readme`"


def test_each_picture_that_a_readme_shows_is_there() -> None:
    for file in readme.FILES:
        for picture in re.findall(r"\]\(([^)]*\.(?:svg|png))\)", file.read_text(encoding="utf-8")):
            assert (file.parent / picture).is_file(), picture


def test_a_block_that_nobody_knows_is_an_error(results: Results) -> None:
    with pytest.raises(KeyError, match="unheard-of"):
        readme.filled("<!-- bench: unheard-of -->\n<!-- /bench -->\n", results)
