"""A small part of a real table: digits, really trained.

Made by `python -m benchmarks.tabular slice benchmarks/tables/digits_resnet14.parquet --students 24 --out tests/tables/slice.parquet`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import tabular
from raysearch.architecture import Edits
from raysearch.config import load_config
from raysearch.tables import Judge, Table

FILE = Path(__file__).with_name("slice.parquet")


@pytest.fixture(scope="module")
def part() -> Table:
    return Table.read(FILE)


def test_the_slice_is_small_and_whole(part):
    assert FILE.stat().st_size < 30_000
    assert part.problem == "digits_resnet14_slice"
    assert part.config.teacher.model == "resnet14"
    assert part.epochs == part.config.distill.epochs
    assert part.full_epochs == part.config.finish.epochs


def test_its_rows_are_replayed_exactly(part):
    for row in part.records:
        assert part.evaluate(row["architecture"], seed=row["seed"]).exact
        if row["full_loss"] is not None:
            full = part.finish(row["architecture"], seed=row["seed"])
            assert full.exact
            assert full.test_accuracy == row["test_accuracy"]


def test_ids_are_those_of_the_networks(part):
    for row in part.records:
        assert part.space().architecture_id(row["architecture"]) == row["architecture_id"]


def test_another_text_of_the_same_network_is_answered_by_its_row(part):
    """A skip into a removed layer changes nothing."""
    space, found = part.space(), 0
    for row in part.records:
        edits = space.parse(row["architecture"])
        targets = space.skip_pairs[:, 1].tolist()
        idle = [pair for pair, target in enumerate(targets) if target in edits.remove]
        if idle:
            other = str(Edits(edits.remove, edits.widths, (*edits.skips, *idle)))
            assert other != row["architecture"]
            curve = part.evaluate(other, seed=row["seed"])
            assert curve.exact
            assert curve.loss == part.evaluate(row["architecture"], seed=row["seed"]).loss
            found += 1
    assert found


def test_full_trainings_beat_short_ones(part):
    rows = [row for row in part.records if row["full_loss"] is not None]
    assert np.mean([row["full_loss"][-1] < row["loss"][-1] for row in rows]) > 0.8


def test_what_evolution_proposes_on_it_is_mostly_better_than_the_median(part):
    budget = {"params": 0.05}
    space, judge = part.space(budget), Judge.of(part, budget)
    config = load_config({"budget": budget, "search": {"method": "evolution", "trials": 60}})
    trials = tabular.search(part, space, judge, config, seed=0)
    random = [str(edits) for edits in space.sample(60, seed=5)]
    rewards = [tabular.observe(part, judge, edits, 0)[0].value for edits in random]
    assert np.median([trial.value for trial in trials[-30:]]) > np.median(rewards)


def test_students_that_it_does_not_hold_stay_within_range(part):
    for edits in part.space().sample(20, seed=3):
        curve, full = part.evaluate(str(edits), seed=1), part.finish(str(edits), seed=1)
        assert all(0 <= value <= 1 for value in (*curve.accuracy, *full.accuracy_curve))
        assert 0 <= full.test_accuracy <= 1
        assert all(0 < value < np.inf for value in (*curve.loss, full.loss, full.test_loss))
