"""Learning a kernel: the leave-one-out criterion by brute force, the stop rule, and threads."""

from __future__ import annotations

import gpytorch
import linear_operator
import numpy as np
import pytest
import torch
from gpytorch.mlls import LeaveOneOutPseudoLikelihood
from scipy import stats

from searchers.multi_kernel_bo.fit import FitOptions, fit, fit_all
from searchers.multi_kernel_bo.members import MemberOptions, make_embeddings, make_members, subsets
from searchers.multi_kernel_bo.model import LearnedKernelGP
from tests.searchers.multi_kernel_bo.conftest import LastAxis

FEW = FitOptions(lr=3e-3, max_steps=12)


def gram(model):
    """K_y of the training students."""
    (X,) = model.train_inputs
    with torch.no_grad():
        h = model.embedding(X).numpy()
    gaps = ((h[:, None] - h[None]) ** 2).sum(axis=2)
    return np.exp(-gaps / (2 * model.alpha)) + model.beta * np.eye(len(h))


def leave_one_out(model):
    """L: every student predicted by a process over all the others."""
    K, y = gram(model), model.train_targets.numpy()
    total = 0.0
    for i in range(len(y)):
        rest = np.delete(np.arange(len(y)), i)
        weights = np.linalg.solve(K[np.ix_(rest, rest)], K[rest, i])
        total += stats.norm.logpdf(y[i], weights @ y[rest], np.sqrt(K[i, i] - weights @ K[rest, i]))
    return total / len(y)


@pytest.fixture
def toy(space, inputs):
    """Students and a value that depends on depth alone: X, y, all of a space."""
    students = space.sample(20, 0)
    return inputs(students), 1 - students.remove.mean(axis=1)


def make_kernels(inputs, toy, num_kernels=3, encoder="mlp", anchor=1.0):
    """Fresh kernels over random halves."""
    options = MemberOptions(num_kernels, encoder, anchor=anchor)
    rows = subsets(len(toy[1]), options, [0])
    embeddings = make_embeddings(inputs, options, [1])
    return make_members(*toy, inputs.teacher(), embeddings, rows, options)


def weights_of(model):
    return torch.nn.utils.parameters_to_vector(model.embedding.parameters()).detach()


def test_the_criterion_is_leave_one_out_by_brute_force():
    rng = np.random.default_rng(0)
    X, y = torch.from_numpy(rng.random((12, 4))), torch.from_numpy(rng.random((12, 1)))
    model = LearnedKernelGP(X, y, LastAxis(), alpha=0.2, beta=0.05).train()
    value = LeaveOneOutPseudoLikelihood(model.likelihood, model)(model(X), model.train_targets)
    assert value.item() == pytest.approx(leave_one_out(model), abs=1e-10)


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_the_fit_follows_that_criterion_and_raises_it(inputs, toy, encoder):
    (model,) = make_kernels(inputs, toy, 1, encoder)
    before = leave_one_out(model)
    report = fit(model, FitOptions(lr=3e-3, max_steps=25, tolerance=0.0))
    assert report.log_likelihoods[0] == pytest.approx(before, abs=1e-5)
    assert len(report.log_likelihoods) == 25
    assert leave_one_out(model) > before + 0.05
    assert not model.training


def test_equal_students_are_no_numerical_failure(inputs, toy):
    """Their kernel is singular; the noise is what makes it invertible."""
    X, y = toy
    embedding = make_embeddings(inputs, MemberOptions(1), [1])[0]
    model = LearnedKernelGP(X[:1].repeat(9, 1), torch.from_numpy(y[:9, None]), embedding)
    fit(model, FEW)
    with torch.no_grad():
        posterior = model.posterior(X[:1])
    assert posterior.mean.item() == pytest.approx(y[:9].sum() / (9 + 0.05), rel=1e-6)


def test_it_ends_once_the_criterion_lies_near_its_running_mean(inputs, toy):
    (model,) = make_kernels(inputs, toy, 1)
    history = fit(model, FitOptions(lr=3e-3, tolerance=2e-3)).log_likelihoods
    mean, ends = history[0], []
    for step, value in enumerate(history):
        mean = 0.5 * mean + 0.5 * value
        ends.append(step > 5 and abs(mean - value) < 2e-3)
    assert ends == [False] * (len(history) - 1) + [True]
    assert 7 <= len(history) < 100


def test_any_number_of_threads_gives_the_same_kernels_to_the_bit(inputs, toy):
    fitted = []
    for num_threads in (1, 3):
        kernels = make_kernels(inputs, toy, 3)
        fit_all(kernels, FEW, num_threads=num_threads)
        fitted.append(torch.stack([weights_of(kernel) for kernel in kernels]))
    (alone,) = make_kernels(inputs, toy, 3)[:1]
    fit(alone, FEW)
    assert torch.equal(*fitted)
    assert torch.equal(fitted[0][0], weights_of(alone))


def test_kernels_that_are_learned_side_by_side_switch_no_setting_of_the_process(
    inputs, toy, monkeypatch
):
    """Two threads would switch it for each other, and the last to leave would leave it as the other had set it."""
    switched = []
    flags = gpytorch.settings._feature_flag, linear_operator.settings._feature_flag
    for flag in flags:
        monkeypatch.setattr(flag, "__enter__", lambda self: switched.append(type(self).__name__))
    fit_all(make_kernels(inputs, toy, 3), FEW)
    assert switched == []


def test_the_prior_is_gpytorchs_own(inputs, toy):
    (model,) = make_kernels(inputs, toy, 1)
    model.train()
    own, gpytorchs = model.prior(), model(*model.train_inputs)
    assert torch.allclose(own.mean, gpytorchs.mean)
    assert torch.allclose(own.covariance_matrix, gpytorchs.covariance_matrix, atol=1e-6)


def test_students_that_a_kernel_does_not_see_do_not_change_it(inputs, toy):
    """Each kernel has a matrix of its own subset: nothing is padded."""
    X, y = toy
    options = MemberOptions(1, "mlp")
    rows = subsets(len(y), options, [0])
    unseen = np.setdiff1d(np.arange(len(y)), rows[0])
    changed = y.copy()
    changed[unseen] += 5
    for targets in (y, changed):
        embeddings = make_embeddings(inputs, options, [1])
        (model,) = make_members(X, targets, inputs.teacher(), embeddings, rows, options)
        report = fit(model, FEW)
        if targets is y:
            first = report
    assert report == first


def test_a_fit_that_nobody_wants_ends(inputs, toy):
    asked = iter([False, False, False, True])
    (model,) = make_kernels(inputs, toy, 1)
    assert len(fit(model, cancelled=lambda: next(asked)).log_likelihoods) == 3
