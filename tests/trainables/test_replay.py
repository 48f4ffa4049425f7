"""Tune trials that are looked up in a table."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from raysearch.tables import Judge, Table
from searchers import EvolutionSearch, GPSearch, make_algorithm
from searchers.testing import make_chain_space
from tests.tables.conftest import EPOCHS, FULL_EPOCHS, make_about, make_rows
from tests.tuning import fit
from trainables import ReplayTrainable
from trainables.distillation import DistillationTrainable
from trainables.replay import ReplayContext

BUDGET = {"params": 0.5}


@pytest.fixture(scope="module")
def table() -> Table:
    space = make_chain_space((12, 16, 16, 16))
    return Table(make_about(space), [_row(row) for row in make_rows(space)])


def _row(row):
    """With the nulls that a file holds."""
    full = ("full_accuracy", "full_loss", "test_accuracy", "test_loss", "full_cpu_seconds")
    return dict.fromkeys(full) | row


@pytest.fixture
def replay(table):
    """`replay(config)` sets a trainable up, without Ray."""

    def make(config, **options):
        return local(ReplayContext(table, Judge.of(table, BUDGET), **options), config)

    return make


def local(context, config):
    """A trial without `bound`, which wants Ray."""

    class Local(ReplayTrainable):
        def setup(self, config):
            super().setup(config, context)

    return Local(config)


def to_end(trainable):
    results = [trainable.train()]
    while not results[-1]["done"]:
        results.append(trainable.train())
    return results


def search(table, searcher, folder, **options):
    """A search on the table, one student at a time."""
    trainable = ReplayTrainable.bound(table, budget=BUDGET)
    settings = {"num_samples": -1, "max_concurrent_trials": 1, **options}
    return fit(trainable, folder, search_alg=searcher, **settings)


def test_a_trial_reports_the_rows_epochs(table, replay):
    row = table.records[0]
    results = to_end(replay({"architecture": row["architecture"]}))
    assert [one["loss"] for one in results] == row["loss"]
    assert [one["accuracy"] for one in results] == row["accuracy"]
    assert [one["reward"] for one in results] == [math.exp(-loss) for loss in row["loss"]]
    assert [one["epochs_done"] for one in results] == [1, 2, 3]
    assert results[-1]["seconds"] == pytest.approx(row["cpu_seconds"])
    assert results[-1]["loss_curve"] == row["loss"]
    last = results[-1]
    assert (last["num_params"], last["macs"]) == (row["num_params"], row["macs"])
    assert last["epochs_target"] == EPOCHS
    assert last["exact"] is True


def test_a_finishing_stage_reports_the_full_training(table, replay):
    row = next(row for row in table.records if row["full_loss"] is not None)
    results = to_end(replay({"architecture": row["architecture"], "stage": "finish"}))
    assert [one["loss"] for one in results] == row["full_loss"]
    assert results[-1]["epochs_target"] == FULL_EPOCHS
    assert results[-1]["test_accuracy"] == row["test_accuracy"]
    assert "test_accuracy" not in results[0]


def test_the_keys_are_those_of_the_distillation(replay, table):
    """Every key that a distillation's result and its sizes hold, but the memory of a process that trains nothing."""
    source = "".join(
        inspect.getsource(method)
        for method in (DistillationTrainable._result, DistillationTrainable._sizes)
    )
    keys = set(re.findall(r'^ {12}"(\w+)":', source, re.M)) - {"peak_memory_bytes"}
    assert {"reward", "memory_bytes", "epochs_target", "loss_curve"} <= keys
    assert keys <= to_end(replay({"architecture": table.records[0]["architecture"]}))[-1].keys()


def test_a_text_that_does_not_fit_is_an_invalid_student(replay):
    (result,) = to_end(replay({"architecture": "nonsense"}))
    assert (result["status"], result["accuracy"], result["loss"]) == ("invalid", 0.0, math.inf)
    assert "nonsense" in result["reason"]


def test_a_diverged_row_is_a_diverged_student(table):
    limit = float(np.finfo(np.float32).max)
    broken = {**table.records[0], "loss": [1.0, limit, limit], "accuracy": [0.5, 0.0, 0.0]}
    context = ReplayContext(
        Table(table.about, [broken, *table.records[1:]]), Judge.of(table, BUDGET)
    )
    results = to_end(local(context, {"architecture": broken["architecture"]}))
    assert [one["status"] for one in results] == ["ok", "diverged"]
    assert results[-1]["reward"] == 0.0


def test_a_reused_actor_forgets_the_student_before(table, replay):
    first, second = table.records[0], table.records[-1]
    trainable = replay({"architecture": first["architecture"]})
    trainable.train()
    assert trainable.reset({"architecture": second["architecture"]})
    assert [one["loss"] for one in to_end(trainable)] == second["loss"]


def test_a_checkpoint_continues_with_the_next_epoch(table, replay, tmp_path):
    row = table.records[0]
    trainable = replay({"architecture": row["architecture"]})
    trainable.train()
    trainable.save_checkpoint(str(tmp_path))
    again = replay({"architecture": row["architecture"]})
    again.load_checkpoint(str(tmp_path))
    assert [one["loss"] for one in to_end(again)] == row["loss"][1:]


def test_the_seed_of_the_config_chooses_the_row(table, replay):
    row = next(row for row in table.records if row["seed"] == 2)
    config = {"architecture": row["architecture"]}
    assert to_end(replay({**config, "seed": 2}))[-1]["loss"] == row["loss"][-1]
    assert to_end(replay(config, seed=2))[-1]["loss"] == row["loss"][-1]
    assert to_end(replay(config))[-1]["loss"] != row["loss"][-1]


@pytest.mark.usefixtures("ray_cluster")
def test_a_gaussian_process_with_asha_searches_the_table_in_tune(table, tmp_path):
    space = table.space(BUDGET)
    searcher = GPSearch(space=space, num_trials=14, seed=0, num_initial=5, num_candidates=64)
    scheduler = AsyncHyperBandScheduler(
        time_attr="epochs_done", max_t=EPOCHS, grace_period=1, reduction_factor=2
    )
    results = search(
        table,
        searcher,
        tmp_path,
        param_space={"seed": 1},
        scheduler=scheduler,
        metric="reward",
        mode="max",
    )
    assert not results.errors
    assert len(searcher.observations) == 14
    statuses = {one.status for one in searcher.observations}
    assert statuses == {"full", "stopped"}
    judge = Judge.of(table, BUDGET)
    for one in searcher.observations:
        curve = table.evaluate(one.architecture, seed=1)
        student = table.apply(one.architecture)
        known = [judge.reward(student, *p) for p in zip(curve.accuracy, curve.loss, strict=True)]
        assert list(one.curve) == known[: len(one.curve)]
    best = results.get_best_result()
    assert best.metrics["num_params"] <= 0.5 * table.teacher.num_params
    assert best.metrics["reward"] == max(one.curve[-1] for one in searcher.observations)


@pytest.mark.usefixtures("ray_cluster")
def test_one_at_a_time_tune_finds_what_the_bare_algorithm_finds(table, tmp_path):
    space, options = table.space(BUDGET), {"population": 4, "tournament": 2}
    searcher = EvolutionSearch(space=space, num_trials=8, seed=3, **options)
    search(table, searcher, tmp_path)
    algorithm = make_algorithm("evolution", space, 3, options)
    for observation in searcher.observations:
        assert algorithm.ask().architecture == observation.architecture
        algorithm.tell(observation)
