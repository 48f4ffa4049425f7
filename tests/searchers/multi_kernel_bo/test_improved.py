"""A step of our own mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from searchers.batches import Snapshot
from searchers.candidates import CandidatePool
from searchers.multi_kernel_bo import improved
from searchers.multi_kernel_bo.ensemble import stacking_weight
from searchers.multi_kernel_bo.fit import FitOptions
from searchers.multi_kernel_bo.improved import ImprovedStep, _Prediction
from searchers.multi_kernel_bo.knowledge import left_out
from searchers.multi_kernel_bo.members import MemberOptions, subsets
from searchers.targets import Targets
from tests.searchers.multi_kernel_bo.conftest import observed, some_observed


def never():
    return False


def make_snapshot(full, pending=(), known=(), number=0):
    texts = [*pending, *known, *(one.architecture for one in full)]
    return Snapshot(tuple(full), tuple(pending), frozenset(texts), (0, number, 0))


@pytest.fixture(scope="module")
def make_step(space, inputs):
    def make(**options):
        members = MemberOptions(options.pop("num_kernels", 2))
        fitting = FitOptions(lr=3e-3, max_steps=5)
        pool = CandidatePool(space, 48)
        return ImprovedStep(space, inputs, pool, members, fitting, batch_size=3, **options)

    return make


@pytest.fixture(scope="module")
def full(space):
    return some_observed(space, 12)


def test_the_composite_improvement_is_that_of_f_by_monte_carlo():
    rng = np.random.default_rng(0)
    a, sigma = rng.uniform(0.7, 1, 6), rng.uniform(0.02, 0.2, 6)
    c, best_f = np.array([1.0, 0.95, 0.8, 0.6, 0.99, 0.3]), 0.75
    prediction = _Prediction(*(torch.from_numpy(part) for part in (a, sigma, c)))
    f = c * (a + sigma * rng.normal(size=(400_000, 6)))
    gains = np.maximum(f - best_f, 0)
    error = gains.std(axis=0) / np.sqrt(len(gains))
    ei = prediction.log_ei(best_f).exp().numpy()
    assert (np.abs(ei - gains.mean(axis=0)) < 5 * error + 1e-12).all()
    assert (ei[:3] > 1e-3).all(), "of some students an improvement is expected"


def test_a_step_depends_on_its_snapshot_alone(make_step, full):
    """Whatever was computed before, on however many threads, and however many students are written out at a time."""
    snapshot = make_snapshot(full)
    first = make_step()(snapshot, never)
    used = make_step(num_threads=1)
    used(make_snapshot(full[:9], number=1), never)
    assert used(snapshot, never) == first
    assert used(snapshot, never) == first


def test_the_size_of_a_chunk_changes_no_choice(make_step, full, monkeypatch):
    first = make_step()(make_snapshot(full), never)
    monkeypatch.setattr(improved, "CHUNK_NUMBERS", 1)
    again = make_step()(make_snapshot(full), never)
    assert [one.edits for one in again] == [one.edits for one in first]
    np.testing.assert_allclose(
        [one.predicted for one in again], [one.predicted for one in first], atol=1e-6
    )


def test_networks_that_are_kept_are_those_that_would_be_learned_again(make_step, space, full):
    """A student that is told again may be another outcome among the first ones."""
    step = make_step(refit_every=4)
    step(make_snapshot(full), never)
    retold = (observed(space, full[0].architecture, accuracy=0.2), *full[1:])
    snapshot = make_snapshot(retold)
    assert step(snapshot, never) == make_step(refit_every=4)(snapshot, never)


def test_between_two_fits_the_networks_stay_and_the_processes_take_in_every_student(
    make_step, space, full
):
    step = make_step(refit_every=8)
    models = []
    for count in (8, 9, 12):
        targets = Targets.of(space, full[:count], None)
        models.append(step.model(full[:count], targets, (0,)))
    first, second, third = (model.learned for model in models)
    assert [one.embedding for one in first] == [one.embedding for one in third]
    seen = [[len(kernel.train_targets) for kernel in model.learned] for model in models]
    assert seen[0] < seen[1] or seen[1] < seen[2]
    assert len(second) == 2


def test_the_better_predictions_of_left_out_students_weigh_more(make_step, space, full):
    """Values that are linear in the features, which the process on them learns at once; and noise, where neither is better."""
    step = make_step()
    evaluated = space.batch(one.architecture for one in full)
    linear = space.features(evaluated).mean(axis=1)
    linear = (linear - linear.mean()) / linear.std()

    def weight(values):
        told = [
            replace(one, value=float(v), metrics={}) for one, v in zip(full, values, strict=True)
        ]
        return step.model(told, Targets.of(space, told, None), (0,)).weight

    noise = np.random.default_rng(0).normal(size=len(full))
    assert 0.25 <= weight(noise) < weight(linear) <= 0.75
    assert weight(linear) > 0.7


def test_a_long_search_weighs_by_the_students_that_both_have_seen(make_step, space, full):
    """With three students for the process on features: by hand from what each predicts of these, left out."""
    step = replace(make_step(), max_observations=3)
    targets = Targets.of(space, full, None)
    y = targets.values(full)
    with torch.no_grad():
        model = step.model(full, targets, (0,))
        rows = subsets(len(full), step.members, [0, 2])
        X = step.inputs(space.batch(one.architecture for one in full))
        second = left_out(model.learned, rows, X)[0][-3:]
    first = model.features.leave_one_out()[0]
    expected = (0.5 + stacking_weight(y[-3:], first, second)) / 2
    assert model.weight == pytest.approx(expected, abs=1e-9)


def test_nothing_known_is_chosen_and_nothing_twice(make_step, full):
    step = make_step()
    first = step(make_snapshot(full), never)
    known = [str(one.edits) for one in first[:5]]
    again = step(make_snapshot(full, known=known), never)
    for choices in (first, again):
        texts = [str(one.edits) for one in choices]
        assert len(set(texts)) == len(texts) > 3
    assert not {str(one.edits) for one in again} & set(known)


def test_the_first_choice_has_the_largest_expected_improvement(make_step, space, full):
    """By brute force over the same candidates, with the model's own means and deviations."""
    step, snapshot = make_step(), make_snapshot(full)
    choices = step(snapshot, never)
    with torch.no_grad():
        targets = Targets.of(space, full, None)
        model = step.model(full, targets, (0,))
        evaluated = space.batch(one.architecture for one in full)
        seen = step._predict(model, evaluated, targets).f.numpy()
        drawn = step.pool.draw(evaluated, seen, np.random.default_rng([*snapshot.seed, 1]))
        new = [edits for edits in drawn if str(edits) not in snapshot.known]
        given = step._predict(model, space.batch(new), targets)
    assert targets.composite
    assert choices[0].edits == new[int(given.log_ei(seen.max()).argmax())]
    row = new.index(choices[0].edits)
    assert choices[0].predicted == pytest.approx(float(given.f[row]), abs=1e-9)


def test_outstanding_students_turn_the_step_elsewhere(make_step, full):
    step = make_step()
    first = step(make_snapshot(full), never)[0]
    others = step(make_snapshot(full, pending=[str(first.edits)]), never)
    assert str(first.edits) not in {str(one.edits) for one in others}


def test_predicted_deviations_are_those_of_a_measurement(make_step, full):
    choices = make_step()(make_snapshot(full), never)
    assert all(0 < one.predicted_sd < 1 for one in choices)
    assert all(-0.5 < one.predicted < 1.5 for one in choices)


def test_without_learned_kernels_a_step_is_that_of_the_features(make_step, full):
    choices = make_step(num_kernels=0)(make_snapshot(full), never)
    assert len(choices) > 3


def test_a_step_that_nobody_wants_gives_nothing_and_keeps_no_unfinished_networks(make_step, full):
    step, snapshot = make_step(), make_snapshot(full)
    assert step(snapshot, lambda: True) == []
    assert step(snapshot, never) == make_step()(snapshot, never)


def test_the_process_on_features_sees_the_newest_only(make_step, space, full):
    limited = replace(make_step(), max_observations=5)
    model = limited.model(full, Targets.of(space, full, None), (0,))
    assert len(model.features._surrogate.model.train_targets) == 5


def test_values_beyond_f_are_modelled_as_they_are(make_step, space, full):
    other = [replace(one, value=one.value - 3, metrics={}) for one in full]
    choices = make_step()(make_snapshot(other), never)
    assert all(-4 < one.predicted < -1 for one in choices)
