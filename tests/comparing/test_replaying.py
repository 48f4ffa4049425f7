"""Searches over a table: the values are the table's, the stages those of a run, and Ray never starts."""

import json
import math

import pandas as pd
import pytest
import ray

import raysearch
from raysearch.comparing.manifest import Cell, make_manifest
from raysearch.comparing.replaying import Replay
from raysearch.errors import ConfigError, InputError, RunFolderError
from tests.comparing.conftest import BUDGET, loss_of

SMALL = ["budget.params=0.5", "search.trials=6", "finish.students=2"]


@pytest.fixture(scope="module")
def compared(table_file, tmp_path_factory):
    """Three methods with four seeds, replayed."""
    running = ray.is_initialized()
    done = raysearch.compare(
        methods="random,evolution,uniform",
        seeds=4,
        table=table_file,
        overrides=SMALL,
        storage=str(tmp_path_factory.mktemp("runs")),
        name="replayed",
    )
    assert ray.is_initialized() == running
    return done


def cell(table, method, seed, overrides=SMALL):
    config = raysearch.load_config(table.config.model_dump(), overrides)
    manifest = make_manifest(config, method, [seed], "trials")
    replay = Replay(table, manifest.config)
    return replay.run("chain", manifest.cell_config(Cell(method, seed), None))


def test_the_uniform_student_of_the_table_is_replayed_as_it_was_trained(table):
    row, evaluations = cell(table, "uniform", 3)
    space = table.space(BUDGET)
    loss = loss_of(space, str(space.uniform()))
    assert row["value"] == pytest.approx(math.exp(-loss), rel=1e-5)
    assert row["test_accuracy"] == pytest.approx(math.exp(-0.75 * loss), rel=1e-5)
    assert row["loss"] == pytest.approx(0.7 * loss, rel=1e-5)
    assert (row["trials"], row["epochs"], row["cpu_seconds"]) == (1, 2, 2.0)
    assert row["finish_cpu_seconds"] == 3.0
    assert (row["exact"], row["replayed"]) == (1.0, True)
    assert evaluations[0]["exact"]


def test_the_first_student_is_the_uniform_one_but_not_of_random_search(table):
    uniform = table.identify(str(table.space(BUDGET).uniform()))
    firsts = {m: cell(table, m, 0)[1][0]["architecture_id"] for m in ("evolution", "random")}
    assert firsts["evolution"] == uniform
    assert firsts["random"] != uniform


def test_no_student_is_evaluated_twice_and_all_are_within_the_budget(compared):
    rows = compared.evaluations
    for _, search in rows.groupby(["method", "seed"]):
        assert search["architecture_id"].is_unique
    limit = 0.5 * teacher_params(compared)
    assert (rows["num_params"] <= limit).all()


def teacher_params(compared):
    row = compared.to_pandas().iloc[0]
    return row["num_params"] / (1 - row["compression"])


def test_the_final_student_is_the_best_of_the_most_valued_by_validation(table):
    row, evaluations = cell(table, "random", 1)
    valued = sorted(evaluations, key=lambda one: -one["value"])[:2]
    results = [table.finish(one["architecture"], seed=1) for one in valued]
    best = max(results, key=lambda result: (result.accuracy, -result.loss))
    assert row["accuracy"] == best.accuracy
    assert row["test_accuracy"] == best.test_accuracy


def test_the_same_seed_gives_the_same_search(table):
    for method in ("random", "evolution"):
        drop = ("propose_s", "seconds_spent")
        one, two = (
            [{k: v for k, v in e.items() if k not in drop} for e in cell(table, method, 2)[1]]
            for _ in range(2)
        )
        assert one == two


def test_equal_epochs_are_kept(table):
    config = raysearch.load_config(table.config.model_dump(), [*SMALL, "search.epochs=7"])
    manifest = make_manifest(config, "random", 1, "epochs")
    row, _ = Replay(table, manifest.config).run(
        "chain", manifest.cell_config(Cell("random", 0), None)
    )
    assert (row["epochs"], row["trials"]) == (6, 3)


def test_the_folder_says_that_values_are_replayed(compared):
    cells = compared.to_pandas()
    assert len(cells) == 12
    assert cells["replayed"].all()
    assert ((cells["exact"] >= 0) & (cells["exact"] <= 1)).all()
    page = (compared.path / "compare.html").read_text()
    assert "Replayed, not trained." in page
    assert "cross-validated errors" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    summary = json.loads((compared.path / "compare.json").read_text())
    assert summary["replayed"]["students"] == 60
    assert set(compared.ranks) == {"random", "evolution", "uniform"}
    assert (compared.path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_more_seeds_are_added_and_nothing_is_replayed_again(compared, table_file):
    runs = compared.path / "runs"
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("replay.json")}
    again = raysearch.compare(
        methods="evolution",
        seeds="4,5",
        table=table_file,
        overrides=SMALL,
        storage=str(compared.path.parent),
        name="replayed",
    )
    after = {file: file.stat().st_mtime_ns for file in runs.rglob("replay.json")}
    new = {file.parent.name for file in after.keys() - before.keys()}
    assert new == {"evolution-4", "evolution-5"}
    assert before.items() <= after.items()
    assert len(again.to_pandas()) == 14
    assert again.summary["analyses"]["value"]["num_seeds"] == 4  # those that all methods have


def test_another_training_than_the_table_s_is_refused(table_file, tmp_path):
    wrong = {
        "distill.epochs=9": "distill.epochs",
        "teacher.model=vgg11": "teacher.model",
        "finish.lr=0.5": "finish.lr",
        "data.name=mnist": "data.name",
    }
    for override, key in wrong.items():
        with pytest.raises(ConfigError, match=rf"{key}.*'chain' was made with"):
            raysearch.compare(
                methods="random",
                table=table_file,
                overrides=[*SMALL, override],
                storage=str(tmp_path),
            )
    assert not any(tmp_path.iterdir())


def test_a_budget_that_nothing_meets_and_a_table_that_is_none_are_refused(table_file, tmp_path):
    storage = str(tmp_path / "runs")
    with pytest.raises(InputError, match="smallest"):
        raysearch.compare(
            methods="random", table=table_file, overrides=["budget.params=3"], storage=storage
        )
    (tmp_path / "no.parquet").write_text("rows")
    with pytest.raises(InputError, match=r"no\.parquet"):
        raysearch.compare(methods="random", table=tmp_path / "no.parquet", storage=storage)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("prune", "'prune' prunes the teacher's weights"),
        ("bayes_nas", "'bayes_nas' finds its students in trainings of its own"),
    ],
)
def test_a_method_that_needs_the_teacher_s_weights_is_refused(table_file, tmp_path, method, words):
    with pytest.raises(ConfigError, match=words):
        raysearch.compare(
            methods=f"random,{method}", table=table_file, overrides=SMALL, storage=str(tmp_path)
        )
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_taken_is_refused(table_file, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunFolderError, match=r"'mine' exists .* is no comparison"):
        raysearch.compare(
            methods="random", table=table_file, storage=str(tmp_path), name="mine", overrides=SMALL
        )


def test_the_csv_reads_back(compared):
    frame = pd.read_csv(compared.path / "evaluations.csv")
    assert {"method", "seed", "evaluation", "value", "best", "exact"} <= set(frame.columns)
