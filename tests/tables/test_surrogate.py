"""The surrogate: its errors computed anew, its noise of the right size, its trees walked rightly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import Ridge

from raysearch.tables.features import describe_students
from raysearch.tables.forest import MIN_LEAF, NUM_TREES, Forest
from raysearch.tables.smooth import Trend, tune
from raysearch.tables.stage import Columns, StageModel
from raysearch.tables.validation import NUM_FOLDS, fold_of
from tests.tables.conftest import EPOCHS, SEED_NOISE, quality


@pytest.fixture(scope="module")
def described(table):
    """Descriptions, short outcomes and ids of the rows."""
    space = table.space()
    x = describe_students(space, space.batch(row["architecture"] for row in table.records))
    values = np.array([[*row["accuracy"], *row["loss"]] for row in table.records])
    return x, values, [row["architecture_id"] for row in table.records]


def test_the_walked_trees_predict_what_scikit_learn_predicts():
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((60, 5)), rng.standard_normal((60, 3)) * [1, 10, 100]
    standard = (z - z.mean(axis=0)) / z.std(axis=0)
    reference = ExtraTreesRegressor(
        NUM_TREES, min_samples_leaf=MIN_LEAF, max_features=0.5, random_state=0
    ).fit(x, standard)
    new = rng.standard_normal((20, 5))
    expected = reference.predict(new) * z.std(axis=0) + z.mean(axis=0)
    np.testing.assert_allclose(Forest.fit(x, z)(new), expected, rtol=1e-9, atol=1e-9)


def test_the_trend_is_a_ridge_regression_of_standardised_inputs():
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((30, 4)) * 5 + 3, rng.standard_normal((30, 2))
    at = (x[:, (1, 3)] - x[:, (1, 3)].mean(axis=0)) / x[:, (1, 3)].std(axis=0)
    expected = Ridge(alpha=1.0).fit(at, z).predict(at)
    np.testing.assert_allclose(Trend.fit(x, z, (1, 3))(x), expected, rtol=1e-9)
    np.testing.assert_allclose(Trend.fit(x, z, ())(x[:2]), [z.mean(axis=0)] * 2)


def test_folds_keep_the_seeds_of_a_student_together_and_are_even():
    keys = [f"{number:03}" for number in range(50)] * 2
    folds = fold_of(keys)
    assert (folds[:50] == folds[50:]).all()
    assert (np.bincount(folds) == 100 // NUM_FOLDS).all()
    assert (fold_of(keys[::-1]) == folds[::-1]).all()


def test_the_cross_validated_error_equals_one_computed_anew(table, described):
    """By scikit-learn's own predictions, fold by fold, on students that the model has not seen."""
    x, values, keys = described
    z = np.concatenate([np.arcsin(np.sqrt(values[:, :EPOCHS])), np.log(values[:, EPOCHS:])], axis=1)
    kernel, folds = tune(x, z, ()), fold_of(keys)
    matern = ConstantKernel(kernel.scale) * Matern(kernel.length, nu=2.5)
    predicted = np.empty_like(z)
    for fold in range(NUM_FOLDS):
        known, held = folds != fold, folds == fold
        assert not {key for key, here in zip(keys, held, strict=True) if here} & {
            key for key, here in zip(keys, known, strict=True) if here
        }
        shift, scale = x[known].mean(axis=0), x[known].std(axis=0)
        scale = np.where(scale > 1e-12, scale, 1)
        mean = z[known].mean(axis=0)
        rest = (
            z[known] - mean
        )  # rounded in the same steps: trees choose among equal splits by the last digit
        spread = rest.std(axis=0)
        target = (rest - rest.mean(axis=0)) / spread
        forest = ExtraTreesRegressor(
            NUM_TREES, min_samples_leaf=MIN_LEAF, max_features=0.5, random_state=0
        ).fit(x[known], target)
        process = GaussianProcessRegressor(matern + WhiteKernel(kernel.noise), optimizer=None)
        process.fit((x[known] - shift) / scale, target)
        both = forest.predict(x[held]) + process.predict((x[held] - shift) / scale)
        predicted[held] = np.clip(
            both / 2 * spread + mean, z[known].min(axis=0), z[known].max(axis=0)
        )
    errors = table.surrogate.errors
    for target, column, expected in (
        ("accuracy", EPOCHS - 1, np.sin(predicted) ** 2),
        ("loss", 2 * EPOCHS - 1, np.exp(predicted)),
    ):
        budget = np.array([row["budget"] is not None for row in table.records])
        for label, rows in (("all", budget | True), ("0.5", budget), ("none", ~budget)):
            line = errors[(errors["target"] == target) & (errors["budget"] == label)].iloc[0]
            truth, guess = values[rows, column], expected[rows, column]
            assert line["rows"] == len(truth)
            assert line["mae"] == pytest.approx(np.abs(truth - guess).mean(), rel=1e-3)
            assert line["rmse"] == pytest.approx(np.sqrt(np.mean((truth - guess) ** 2)), rel=1e-3)
            assert line["spearman"] == pytest.approx(stats.spearmanr(truth, guess)[0], abs=2e-3)
            assert line["kendall"] == pytest.approx(stats.kendalltau(truth, guess)[0], abs=2e-3)


def test_the_surrogate_ranks_unseen_students(table, space, unseen):
    truth = [quality(space, edits) for edits in unseen]
    guess = [table.evaluate(edits).loss[-1] for edits in unseen]
    assert stats.spearmanr(truth, guess)[0] > 0.8


def test_a_predicted_short_training_ranks_the_predicted_full_one_as_real_ones_do(table, unseen):
    short = [-table.evaluate(edits).loss[-1] for edits in unseen]
    full = [table.finish(edits).accuracy for edits in unseen]
    ranking = table.ranking.set_index(["signal", "truth", "budget"])
    real = ranking.loc[("loss", "full_accuracy", "all"), "spearman"]
    assert stats.spearmanr(short, full)[0] == pytest.approx(real, abs=0.1)


def test_the_noise_over_seeds_has_the_size_of_the_repeated_rows(table, unseen):
    logs = [
        [np.log(table.evaluate(edits, seed=seed).loss[-1]) for seed in range(12)]
        for edits in unseen[:40]
    ]
    spread = np.sqrt(np.var(logs, axis=1, ddof=1).mean())
    assert 0.6 * SEED_NOISE < spread < 1.6 * SEED_NOISE


def test_predictions_miss_the_truth_by_as_much_as_cross_validation_found(table, space, unseen):
    """The residual that is lent to an architecture makes up for what the model lacks; it is not there twice."""
    stage = table.surrogate.short
    logs = np.array(
        [np.log(np.mean([table.evaluate(e, seed=s).loss[-1] for s in range(6)])) for e in unseen]
    )
    x = describe_students(space, space.batch(unseen))
    smooth = stage.model(x)[:, stage.columns.loss]
    z = np.log([row["loss"][-1] for row in table.records])
    error = np.sqrt(np.mean((z - np.log(stage.expected[:, stage.columns.loss])) ** 2))
    lent = np.sqrt(np.mean((logs - smooth) ** 2))
    kept = np.sqrt(max(error**2 - SEED_NOISE**2, 0))
    assert 0.6 * kept < lent < 1.4 * error


def test_a_model_of_pure_noise_over_seeds_keeps_nothing_for_the_architecture():
    """Outcomes that depend on nothing but the seed: the residual is the seed's, and the architecture's part vanishes."""
    rng = np.random.default_rng(0)
    keys = [f"{number // 4}" for number in range(160)]
    x = np.repeat(rng.standard_normal((40, 3)), 4, axis=0)
    values = np.stack([np.full(160, 0.5), np.exp(0.1 * rng.standard_normal(160))], axis=1)
    stage = StageModel.fit(Columns(1), x, values, keys)
    own = np.sqrt(np.mean(stage.own.lent[:, 1] ** 2))
    assert own < 0.5 * 0.1
    assert np.sqrt(np.mean(stage.repeated.lent[:, 1] ** 2)) == pytest.approx(0.1, rel=0.15)


def test_without_repeated_rows_a_student_is_the_same_for_every_seed():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    values = np.stack([rng.random(40), np.exp(x[:, 0])], axis=1)
    stage = StageModel.fit(Columns(1), x, values, [str(number) for number in range(40)])
    new = rng.standard_normal(3)
    assert (stage.predict(new, "a", 0) == stage.predict(new, "a", 1)).all()
    assert (stage.predict(new, "a", 0) != stage.predict(new, "b", 0)).any()


def test_transformed_outcomes_come_back():
    columns = Columns(2, test=True)
    values = np.array([[0.0, 1.0, 0.3, 2.5, 0.999, 1e-4]])
    np.testing.assert_allclose(columns.to_values(columns.to_z(values)), values, atol=1e-12)
