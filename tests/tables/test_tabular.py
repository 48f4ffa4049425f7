"""The command line over a table: benchmarks/tabular.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tabular
from benchmarks.retraining import differences
from raysearch.config import load_config
from raysearch.tables import Judge, Table
from tests.tables.conftest import SEED_NOISE, train

ROOT = Path(__file__).resolve().parents[2]
BUDGET = {"params": 0.5}


def searching(method, trials):
    return load_config(
        {
            "budget": BUDGET,
            "search": {"method": method, "trials": trials},
            "finish": {"students": 2},
        }
    )


@pytest.fixture(scope="module")
def median(table):
    """The median reward of random students within the budget."""
    space, judge = table.space(BUDGET), Judge.of(table, BUDGET)
    edits = [str(one) for one in space.sample(100, seed=11)]
    return np.median([tabular.observe(table, judge, one, 0)[0].value for one in edits])


@pytest.mark.parametrize("method", ["random", "evolution", "gp"])
def test_a_search_proposes_different_students_within_the_budget(table, method):
    space, judge = table.space(BUDGET), Judge.of(table, BUDGET)
    trials = tabular.search(table, space, judge, searching(method, 10), seed=0)
    assert len({table.identify(trial.architecture) for trial in trials}) == len(trials) == 10
    counts = space.num_params(space.batch(trial.architecture for trial in trials))
    assert counts.max() <= space.limits["params"]


def test_what_a_gaussian_process_proposes_is_mostly_better_than_the_median(table, median):
    space, judge = table.space(BUDGET), Judge.of(table, BUDGET)
    trials = tabular.search(table, space, judge, searching("gp", 20), seed=0)
    assert (
        np.median([trial.value for trial in trials[8:]]) > median
    )  # the first eight are not the model's


def test_the_means_never_fall_with_more_trials(table):
    means, summary = tabular.run(table, searching("random", 10), seeds=4)
    assert list(means.index) == [4, 8, 10]
    assert means["best reward"].is_monotonic_increasing
    assert 0 < summary["test accuracy"] < 1
    assert 0 <= summary["exact"] <= 1


def test_the_same_seeds_give_the_same_means(table):
    first, _ = tabular.run(table, searching("evolution", 6), seeds=2)
    second, _ = tabular.run(table, searching("evolution", 6), seeds=2)
    assert first.equals(second)


def test_the_commands_print_what_is_asked(path, capsys):
    assert tabular.main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    for part in ("144 trainings of 120 students", "Spread over seeds", "Are predicted students"):
        assert part in text
    command = ["run", str(path), "--method", "random", "--seeds", "2", "--trials", "4"]
    assert tabular.main([*command, "budget.params=0.5"]) == 0
    assert "best reward" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["info", "none.parquet"], "no such table"),
        (["run", "{path}", "budget.param=0.5"], "budget.param"),
        (["run", "{path}", "--method", "magic"], "magic"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(path, capsys, arguments, complaint):
    assert tabular.main([text.format(path=path) for text in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert complaint in error
    assert "\n" not in error


@pytest.mark.parametrize("start", [["-m", "benchmarks.tabular"], ["benchmarks/tabular.py"]])
def test_it_starts_as_a_module_and_as_a_file(path, tmp_path, start):
    out = tmp_path / "part.parquet"
    command = [sys.executable, *start, "slice", str(path), "--students", "16", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    part = Table.read(out)
    rows = {(row["architecture_id"], row["seed"]): row for row in Table.read(path).records}
    assert len({row["architecture_id"] for row in part.records}) == 16
    assert all(rows[row["architecture_id"], row["seed"]] == row for row in part.records)
    assert any(row["seed"] > 0 for row in part.records)


def retrained(table, space, shift=0.0, seed=100):
    """Pairs of rows and new trainings with another seed, their losses shifted."""
    pairs = []
    for row in table.records[::6]:
        new = train(space, row["architecture"], seed + row["seed"], full=False)
        new["loss"] = [loss * np.exp(shift) for loss in new["loss"]]
        pairs.append((row, new))
    return pairs


def test_trainings_with_other_seeds_are_within_the_spread_of_seeds(table, space):
    result = differences(table, retrained(table, space)).set_index("result")
    assert list(result.index) == ["accuracy", "loss"]
    assert result.loc["loss", "spread"] == pytest.approx(SEED_NOISE, rel=0.3)
    assert result["ok"].all()
    assert result.loc["loss", "rms / seeds"] == pytest.approx(1, rel=0.4)


def test_the_same_trainings_are_equal(table):
    result = differences(table, [(row, row) for row in table.records[:9]])
    assert (result["equal"] == result["rows"]).all()
    assert result["ok"].all()


def test_a_table_of_another_training_is_found_out(table, space):
    result = differences(table, retrained(table, space, shift=4 * SEED_NOISE))
    assert not result.set_index("result").loc["loss", "ok"]
