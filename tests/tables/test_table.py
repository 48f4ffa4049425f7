"""What a table answers: exactly for its rows, from its surrogate for all others."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

from raysearch.errors import InvalidArchitecture, TableError
from raysearch.tables import Judge, Table
from tests.tables.conftest import EPOCHS, FULL_EPOCHS, SEEDS


def test_the_space_is_that_of_the_rows(table, space):
    assert table.architecture.id == space.teacher.id
    assert table.space().groups == space.groups
    tight = table.space({"params": 0.3})
    assert tight.num_params(tight.sample(20, seed=0)).max() <= 0.3 * space.teacher.num_params


def test_every_row_is_replayed_exactly(table):
    for row in table.records:
        curve = table.evaluate(row["architecture"], seed=row["seed"])
        assert curve.exact
        assert curve.accuracy == tuple(row["accuracy"])
        assert curve.loss == tuple(row["loss"])
        assert curve.cpu_seconds == pytest.approx(row["cpu_seconds"])


def test_every_full_training_is_replayed_exactly(table):
    for row in table.records:
        if row["full_accuracy"] is not None:
            full = table.finish(row["architecture"], seed=row["seed"])
            assert full.exact
            assert full.accuracy_curve == tuple(row["full_accuracy"])
            assert (full.accuracy, full.loss) == (row["full_accuracy"][-1], row["full_loss"][-1])
            assert (full.test_accuracy, full.test_loss) == (row["test_accuracy"], row["test_loss"])
            assert full.cpu_seconds == row["full_cpu_seconds"]


def test_seeds_that_no_row_has_take_the_rows_in_turn(table):
    edits = table.records[0]["architecture"]
    answers = [table.evaluate(edits, seed=seed).loss for seed in range(2 * len(SEEDS))]
    assert answers[: len(SEEDS)] == answers[len(SEEDS) :]
    assert len(set(answers)) == len(SEEDS)


def test_fewer_epochs_are_the_beginning_of_the_curve_and_their_share_of_the_seconds(table, unseen):
    for edits in (table.records[0]["architecture"], unseen[0]):
        whole, part = table.evaluate(edits, seed=1), table.evaluate(edits, seed=1, epochs=2)
        assert part.loss == whole.loss[:2]
        assert part.accuracy == whole.accuracy[:2]
        assert part.cpu_seconds == pytest.approx(whole.cpu_seconds * 2 / EPOCHS)


def test_students_that_are_in_no_row_are_predicted_within_range(table, unseen):
    for edits in unseen:
        for seed in (0, 1):
            curve, full = table.evaluate(edits, seed=seed), table.finish(edits, seed=seed)
            assert not curve.exact
            assert not full.exact
            assert len(curve.loss) == EPOCHS
            assert len(full.loss_curve) == FULL_EPOCHS
            accuracies = [*curve.accuracy, *full.accuracy_curve, full.test_accuracy]
            assert all(0 <= value <= 1 for value in accuracies)
            losses = [*curve.loss, *full.loss_curve, full.test_loss]
            assert all(0 < value < math.inf for value in losses)
            assert curve.cpu_seconds > 0
            assert full.cpu_seconds > 0


def test_the_strangest_students_are_not_extrapolated(table, space):
    losses = [row["loss"][-1] for row in table.records]
    for edits in (space.smallest(), space.largest()):
        loss = table.evaluate(str(edits), seed=3).loss[-1]
        assert min(losses) / 3 < loss < 3 * max(losses)


def test_answers_do_not_depend_on_who_asked_before(path, table, unseen):
    again = Table.read(path)
    for edits in reversed(unseen[:20]):
        assert again.finish(edits, seed=2) == table.finish(edits, seed=2)
        assert again.evaluate(edits, seed=2) == table.evaluate(edits, seed=2)


def test_a_pickled_table_answers_the_same(table, unseen):
    again = pickle.loads(pickle.dumps(table))
    assert again.evaluate(unseen[0], seed=1) == table.evaluate(unseen[0], seed=1)


def test_a_student_whose_short_training_alone_is_known_is_finished_by_prediction(table):
    row = next(row for row in table.records if row["full_accuracy"] is None)
    assert table.evaluate(row["architecture"]).exact
    assert not table.finish(row["architecture"]).exact


def test_a_diverged_row_stays_diverged(rows, write):
    limit = float(np.finfo(np.float32).max)
    last = {**rows[-1], "accuracy": [0.0] * EPOCHS, "loss": [limit] * EPOCHS}
    for name in ("full_accuracy", "full_loss", "test_accuracy", "test_loss", "full_cpu_seconds"):
        last.pop(name, None)
    table = Table.read(write([*rows[:-1], last]))
    assert table.evaluate(last["architecture"]).loss == (math.inf,) * EPOCHS
    full = table.finish(last["architecture"])
    assert (full.accuracy, full.loss) == (0.0, math.inf)
    assert table.surrogate.num_diverged == 1
    assert table.surrogate.errors["rmse"].max() < 10


def test_a_table_that_is_too_small_answers_its_rows_alone(rows, write, unseen):
    table = Table.read(write(rows[:3]))
    assert table.evaluate(rows[0]["architecture"]).exact
    with pytest.raises(TableError, match=r"holds 1 students, and a surrogate needs 10"):
        table.evaluate(unseen[0])


def test_a_table_without_full_trainings_says_so(rows, write):
    short = [{k: v for k, v in row.items() if "full" not in k and "test" not in k} for row in rows]
    table = Table.read(write(short))
    assert not table.evaluate(str(table.space().smallest())).exact
    with pytest.raises(TableError, match="too few full trainings"):
        table.finish(rows[0]["architecture"])


@pytest.mark.parametrize("edits", ["nonsense", "e1..B.", "e1..zzzzzz."])
def test_a_text_that_does_not_fit_is_refused(table, edits):
    with pytest.raises(InvalidArchitecture):
        table.evaluate(edits)


def test_description_is_json(table):
    import json

    described = json.loads(json.dumps(table.describe(), allow_nan=False))
    assert described["trainings"] == len(table)
    assert described["full_trainings"] == sum(row["test_loss"] is not None for row in table.records)
    targets = {line["target"] for line in described["surrogate_errors"]}
    assert targets == {
        "accuracy",
        "loss",
        "full_accuracy",
        "full_loss",
        "test_accuracy",
        "test_loss",
    }


def test_the_spread_over_seeds_is_the_standard_deviation_within_students(table):
    by_hand = [
        np.var([row["loss"][-1] for row in table.records if row["architecture_id"] == key], ddof=1)
        for key in {row["architecture_id"] for row in table.records if row["seed"] > 0}
    ]
    assert table.seed_spread["loss"] == pytest.approx(math.sqrt(np.mean(by_hand)))


def test_the_ranking_of_the_short_training_is_spearmans_over_students(table):
    from scipy import stats

    rows = [row for row in table.records if row["seed"] == 0 and row["full_loss"] is not None]
    short = [-row["loss"][-1] for row in rows]
    full = [row["full_accuracy"][-1] for row in rows]
    ranking = table.ranking
    line = ranking[
        (ranking["budget"] == "all")
        & (ranking["signal"] == "loss")
        & (ranking["truth"] == "full_accuracy")
    ].iloc[0]
    assert line["rows"] == len(rows)
    assert line["spearman"] == pytest.approx(stats.spearmanr(short, full)[0])
    assert line["spearman"] > 0.9


def test_the_judge_rewards_as_a_run_does(table):
    student = table.apply(table.records[0]["architecture"])
    c = 1 - student.num_params / table.teacher.num_params
    assert Judge.of(table, {"params": 0.5}).reward(student, 0.8, 0.3) == pytest.approx(
        math.exp(-0.3)
    )
    assert Judge.of(table).reward(student, 0.8, 0.3) == pytest.approx(c * (2 - c) * 0.8 / 0.95)
    floor = Judge.of(table, {"macs": 0.5, "accuracy": "90%"})
    smaller = 1 - student.macs / table.teacher.macs
    assert floor.reward(student, 0.86, 0.3) == pytest.approx(1 + smaller)
    assert floor.reward(student, 0.171, 0.3) == pytest.approx(0.171 / (0.9 * 0.95))


def test_reading_a_table_loads_neither_torch_nor_ray(path):
    script = (
        "import sys\nfrom raysearch.tables import Table\n"
        f"table = Table.read({str(path)!r})\ntable.finish(str(table.space().smallest()))\n"
        "print([name for name in ('torch', 'ray', 'botorch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
