"""The paper's step, against a plain rewriting of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.batches import Snapshot
from searchers.multi_kernel_bo.encoders import MLPEncoder
from searchers.multi_kernel_bo.faithful import FaithfulStep, evolve
from searchers.multi_kernel_bo.fit import FitOptions
from searchers.multi_kernel_bo.kernel import LayerEmbedding
from searchers.multi_kernel_bo.members import MemberOptions
from tests.searchers.multi_kernel_bo.conftest import some_observed
from tests.searchers.multi_kernel_bo.test_acquisition import quadrature

NUM_CANDIDATES = 40


def never():
    return False


def make_snapshot(full):
    return Snapshot(tuple(full), (), frozenset(), (0, len(full), 0))


@pytest.fixture(scope="module")
def make_step(space, inputs):
    def make(**options):
        encoder = options.pop("encoder", "mlp")
        members = MemberOptions(options.pop("num_kernels", 3), encoder, anchor=0.0)
        fitting = FitOptions(max_steps=8)
        return FaithfulStep(
            space, inputs, members, fitting, **{"num_candidates": NUM_CANDIDATES} | options
        )

    return make


@pytest.fixture(scope="module")
def full(space):
    return some_observed(space, 10)


def predict(kernel, X):
    """Mean and deviation of noisy values by the closed form: [m], [m]."""
    (train_X,) = kernel.train_inputs
    with torch.no_grad():
        h, h_new = kernel.embedding(train_X).numpy(), kernel.embedding(X).numpy()
    y = kernel.train_targets.numpy()

    def k(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * 0.01))

    inverse = np.linalg.inv(k(h, h) + 0.05 * np.eye(len(h)))
    cross = k(h_new, h)
    variance = 1 + 0.05 - np.einsum("mn,nk,mk->m", cross, inverse, cross)
    return cross @ inverse @ y, np.sqrt(variance)


def test_the_first_students_are_random(make_step, space, inputs):
    """The kernels are untrained then, and know the teacher alone; what they expect is told all the same."""
    step, snapshot = make_step(), make_snapshot(())
    for k, (choice, kernel) in enumerate(
        zip(step(snapshot, never), step.kernels(snapshot, never), strict=True)
    ):
        (drawn,) = space.sample(1, np.random.default_rng([*snapshot.seed, 1, k]))
        assert choice.edits == drawn
        mean, deviation = predict(kernel, inputs(space.batch([drawn])))
        assert (choice.predicted, choice.predicted_sd) == pytest.approx(
            (mean[0], deviation[0]), abs=1e-4
        )


def test_each_kernel_proposes_the_largest_improvement_among_its_own_samples(
    make_step, space, inputs, full
):
    step, snapshot = make_step(), make_snapshot(full[:10])
    choices, kernels = step(snapshot, never), step.kernels(snapshot, never)
    assert len(choices) == len(kernels) == 3
    for k, (choice, kernel) in enumerate(zip(choices, kernels, strict=True)):
        samples = space.sample(NUM_CANDIDATES, np.random.default_rng([*snapshot.seed, 1, k]))
        mean, deviation = predict(kernel, inputs(samples))
        best_f = float(kernel.train_targets.max())
        ei = [quadrature(m, s, best_f) for m, s in zip(mean, deviation, strict=True)]
        best = int(np.argmax(ei))
        assert choice.edits == samples[best]
        assert choice.predicted == pytest.approx(mean[best], abs=1e-4)
        assert choice.predicted_sd == pytest.approx(deviation[best], abs=1e-4)


def test_a_kernel_knows_some_of_the_students_and_the_teacher_at_zero(make_step, inputs, full):
    kernels = make_step(num_kernels=6).kernels(make_snapshot(full), never)
    values = {one.value for one in full}
    for kernel in kernels:
        (train_X,) = kernel.train_inputs
        first, *rest = kernel.train_targets.tolist()
        assert first == 0
        assert torch.equal(train_X[:1], inputs.teacher())
        assert set(rest) < values
    assert len({tuple(kernel.train_targets.tolist()) for kernel in kernels}) == 6


def test_hyper_parameters_are_the_papers(make_step, full):
    for kernel in make_step().kernels(make_snapshot(full), never):
        assert kernel.alpha == 0.01
        assert kernel.likelihood.noise.item() == pytest.approx(0.05)
    assert FitOptions() == FitOptions(lr=1e-3, weight_decay=5e-4, max_steps=100, tolerance=1e-3)
    assert MemberOptions().num_kernels == 8
    assert MemberOptions().share == 0.5


def test_untrained_kernels_of_the_first_step_are_left_as_drawn(make_step):
    step = make_step()
    first, again = (step.kernels(make_snapshot(()), never) for _ in range(2))
    assert [len(kernel.train_targets) for kernel in first] == [1, 1, 1]
    for one, two in zip(first, again, strict=True):
        assert isinstance(one.embedding, LayerEmbedding)
        assert isinstance(one.embedding.encoder, MLPEncoder)
        pairs = zip(one.embedding.parameters(), two.embedding.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_the_number_of_threads_changes_nothing(make_step, full, encoder):
    one, three = (
        make_step(num_threads=n, encoder=encoder)(make_snapshot(full), never) for n in (1, 3)
    )
    assert one == three


def test_the_order_of_the_results_decides_only_which_kernel_sees_which_student(make_step, full):
    """Halves are drawn by position; whoever sees all of them gives the same in any order."""
    everyone = make_step()
    step = FaithfulStep(
        everyone.space,
        everyone.inputs,
        MemberOptions(2, "mlp", share=1.1, anchor=0.0),
        FitOptions(max_steps=3),
        num_candidates=NUM_CANDIDATES,
    )
    forward, backward = (step(make_snapshot(one), never) for one in (full, full[::-1]))
    assert [one.edits for one in forward] == [one.edits for one in backward]
    np.testing.assert_allclose(
        [one.predicted for one in forward], [one.predicted for one in backward], atol=1e-4
    )


@pytest.mark.parametrize("num_scored", [2, 37, 100])
def test_evolution_scores_as_many_students_as_sampling_would(space, num_scored):
    scored = []

    def score(batch):
        scored.append(len(batch))
        return -space.num_params(batch).astype(float)

    evolve(space, score, num_scored, np.random.default_rng(0))
    assert sum(scored) == num_scored


def test_evolution_finds_higher_scores_than_sampling(space):
    def score(batch):
        return -np.abs(space.num_params(batch) - 300) - 50.0 * batch.remove.sum(axis=1)

    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = score(space.batch([evolve(space, score, 200, rng)]))[0]
        gains.append(found - score(space.sample(200, rng)).max())
    assert np.mean(gains) > 0


def test_a_step_may_maximise_by_evolution(make_step, full):
    choices = make_step(acquisition="evolution")(make_snapshot(full), never)
    assert len(choices) == 3
    assert make_step(acquisition="evolution")(make_snapshot(full), never) == choices
