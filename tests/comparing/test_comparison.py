"""Whole comparisons on the digits, small enough for a test: cut, continued, extended."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import raysearch
import raysearch.experiment
from raysearch.errors import ConfigError, RunFolderError, RunInterrupted
from raysearch.report import write_report
from searchers.random import RandomAlgorithm

SMALL = {
    "teacher": {"epochs": 3},
    "search": {"first": ["uniform"], "trials": 2, "concurrency": 1},
    "distill": {"epochs": 1},
    "finish": {"epochs": 1, "students": 1},
}


class Twin(RandomAlgorithm):
    """Random search by another name."""


TWIN = f"{__name__}:Twin"
METHODS = ["random", TWIN]


@pytest.fixture(scope="module")
def compare(ray_cluster, tmp_path_factory):
    """`compare(methods, seeds, ...)` under one name."""
    storage = tmp_path_factory.mktemp("runs")

    def compare(methods, seeds, **changes):
        config = {**SMALL, **changes.pop("config", {})}
        arguments = {"storage": str(storage), "name": "small", "progress": False, **changes}
        return raysearch.compare(config, methods, seeds, **arguments)

    return compare


@pytest.fixture(scope="module")
def finished(compare):
    """Two methods with two seeds, cut in the second search and begun again."""
    conclude, calls = raysearch.experiment.conclude, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return conclude(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raysearch.experiment.conclude", interrupted)
        with pytest.raises(RunInterrupted, match="the same command") as cut:
            compare(METHODS, 2)
    folder = cut.value.folder
    done = [path.parent.name for path in folder.glob("runs/*/summary.json")]
    before = {path: path.read_bytes() for path in folder.glob("runs/*/observations.jsonl")}
    return compare(METHODS, 2), done, before


def cells(comparison):
    return comparison.to_pandas().set_index(["method", "seed"])


def test_what_was_finished_is_not_run_again_and_what_was_cut_goes_on(finished):
    comparison, done, before = finished
    assert done == ["random-0"]
    for path, text in before.items():
        assert path.read_bytes().startswith(text)
    frame = cells(comparison)
    assert set(frame.index) == {(method, seed) for method in METHODS for seed in (0, 1)}
    assert (frame["trials"] == 2).all()
    assert (frame["status"] == "done").all()


def test_each_cell_is_a_run_whose_numbers_are_the_csv_s(finished):
    comparison, _, _ = finished
    for row in comparison.to_pandas().to_dict("records"):
        run = raysearch.Result.read(comparison.path / row["path"])
        own = [one for one in run.students if one.metrics["search"] is not None]
        assert row["test_accuracy"] == own[0].test_accuracy
        assert row["value"] == pytest.approx(run.to_pandas()["value"].max(), abs=1e-12)
        assert row["cpu_seconds"] > 0
        assert write_report(run.path).stat().st_size > 0


def test_all_cells_have_one_teacher_and_one_split_and_seeds_of_their_own(finished):
    comparison, _, _ = finished
    runs = comparison.path / "runs"
    weights = {path.read_bytes() for path in runs.glob("*/teacher/weights.safetensors")}
    splits = {path.read_bytes() for path in runs.glob("*/data.json")}
    assert len(weights) == len(splits) == 1
    seeds = [raysearch.load_config(path).run.seed for path in sorted(runs.glob("*/config.yaml"))]
    assert sorted(seeds) == [0, 0, 1, 1]
    firsts = comparison.evaluations.query("method == 'random' and evaluation == 1")
    assert firsts["architecture_id"].nunique() == 2


def test_equal_methods_with_one_seed_get_one_result(finished):
    """Both are random search: a fair pair differs in nothing."""
    comparison, _, _ = finished
    frame = comparison.evaluations
    for seed in (0, 1):
        pair = [frame[(frame["method"] == method) & (frame["seed"] == seed)] for method in METHODS]
        one, two = (set(rows["architecture_id"]) for rows in pair)
        assert one & two
    assert comparison.ranks.keys() == set(METHODS)


def test_the_summary_says_what_two_seeds_can_show(finished):
    comparison, _, _ = finished
    assert "no test can be significant" in comparison.verdict
    summary = json.loads((comparison.path / "compare.json").read_text())
    test = summary["analyses"]["test_accuracy"]
    frame = cells(comparison)["test_accuracy"].unstack("method")
    assert test["pairs"][0]["mean"] == pytest.approx(
        abs((frame[METHODS[0]] - frame[METHODS[1]]).mean()), abs=1e-12
    )
    for method in METHODS:
        assert test["methods"][method]["mean"] == pytest.approx(frame[method].mean())


def test_a_method_is_added_and_another_configuration_is_refused(compare, finished):
    comparison, _, _ = finished
    before = {path: path.stat().st_mtime_ns for path in comparison.path.glob("runs/*/summary.json")}
    more = compare("uniform", "0,", metric="value")
    after = {path: path.stat().st_mtime_ns for path in comparison.path.glob("runs/*/summary.json")}
    assert before.items() <= after.items()
    assert len(after) == 5
    assert set(more.to_pandas()["method"]) == {*METHODS, "uniform"}
    assert any("it had nothing more to propose" in note for note in more.summary["notes"])
    with pytest.raises(ConfigError, match=r"search\.trials is 2 there, 3 here"):
        compare("uniform", "0,", config={"search": {"trials": 3}})
    with pytest.raises(RunFolderError, match="no comparison"):
        compare("uniform", 1, storage=str(comparison.path), name="runs")


def test_a_comparison_of_nothing_new_trains_nothing(compare, finished, monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr("raysearch.api.run", fail)
    monkeypatch.setattr("raysearch.api.resume", fail)
    again = compare(METHODS, 2)
    pd.testing.assert_frame_equal(
        again.to_pandas().query("method != 'uniform'").reset_index(drop=True),
        finished[0].to_pandas().query("method != 'uniform'").reset_index(drop=True),
    )
    assert np.isfinite(again.to_pandas()["test_accuracy"]).all()
