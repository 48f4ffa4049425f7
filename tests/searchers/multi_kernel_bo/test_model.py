"""A learned kernel's process against its closed form in numpy and against GPyTorch's own way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from gpytorch import settings
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean

from searchers.multi_kernel_bo.encoders import MLPEncoder
from searchers.multi_kernel_bo.kernel import EmbeddingKernel, LayerEmbedding
from searchers.multi_kernel_bo.model import LearnedKernelGP
from tests.searchers.multi_kernel_bo.conftest import LastAxis

ALPHA, BETA = 0.3, 0.05
SHAPES = [(7, 1), (7,), (3, 2), (2, 3, 2)]
"""Of the points that are predicted, without their own axis: batches of one, one batch of seven, batches of two."""


def make_data(num=15, seed=0):
    """X [num, 4], y [num, 1]."""
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.random((num, 4)))
    return X, torch.from_numpy(np.sin(3 * X[:, :1].numpy()) + 0.1 * rng.normal(size=(num, 1)))


@pytest.fixture
def model():
    return LearnedKernelGP(*make_data(), LastAxis(), alpha=ALPHA, beta=BETA)


def gram(x1, x2):
    """k by its definition: [..., n, m]."""
    h1, h2 = (LastAxis()(x).detach().numpy() for x in (x1, x2))
    gaps = ((h1[..., :, None, :] - h2[..., None, :, :]) ** 2).sum(axis=-1)
    return np.exp(-gaps / (2 * ALPHA))


def closed_form(X, y, new):
    """Mean [..., q] and covariance [..., q, q] of textbook regression with zero mean."""
    inverse = np.linalg.inv(gram(X, X) + BETA * np.eye(len(X)))
    cross = gram(new, X)  # [..., q, n]
    covariance = gram(new, new) - cross @ inverse @ cross.swapaxes(-1, -2)
    return (cross @ inverse @ y.numpy())[..., 0], covariance


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_posterior_is_the_closed_form_for_any_shape_of_batches(model, shape, noisy):
    new = make_data(int(np.prod(shape)), seed=1)[0].reshape(*shape, 4)
    with torch.no_grad():
        posterior = model.posterior(new, observation_noise=noisy)
        covariance = posterior.distribution.covariance_matrix.numpy()
    mean, expected = closed_form(*make_data(), new)
    expected = expected + noisy * BETA * np.eye(shape[-1])
    np.testing.assert_allclose(posterior.mean[..., 0].numpy(), mean, atol=1e-9)
    np.testing.assert_allclose(covariance, expected, atol=1e-9)
    diagonal = expected.diagonal(axis1=-1, axis2=-2)
    np.testing.assert_allclose(posterior.variance[..., 0].numpy(), diagonal, atol=1e-9)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_posterior_is_that_of_gpytorchs_own_way_and_of_a_plain_single_task_gp(
    model, shape, noisy
):
    likelihood = GaussianLikelihood().double()
    likelihood.noise = BETA
    plain = SingleTaskGP(
        *make_data(),
        likelihood=likelihood,
        covar_module=EmbeddingKernel(LastAxis(), ALPHA),
        mean_module=ZeroMean(),
        outcome_transform=None,
    )
    new = make_data(int(np.prod(shape)), seed=1)[0].reshape(*shape, 4)
    with torch.no_grad():
        ours = model.posterior(new, observation_noise=noisy).distribution
        others = [
            super(LearnedKernelGP, model).posterior(new, observation_noise=noisy).distribution,
            plain.posterior(new, observation_noise=noisy).distribution,
        ]
        for other in others:
            assert torch.allclose(ours.mean, other.mean, atol=1e-9)
            assert torch.allclose(ours.covariance_matrix, other.covariance_matrix, atol=1e-9)


def test_with_a_network_in_single_precision_it_is_gpytorchs_own_way_too():
    torch.manual_seed(0)
    X, y = make_data()
    model = LearnedKernelGP(X, y, LayerEmbedding(MLPEncoder(2), 2), alpha=0.01)
    new = make_data(6, seed=1)[0]
    with torch.no_grad():
        ours = model.posterior(new).distribution
        other = super(LearnedKernelGP, model).posterior(new).distribution
    assert torch.allclose(ours.mean, other.mean, atol=1e-4)
    assert torch.allclose(ours.covariance_matrix, other.covariance_matrix, atol=1e-4)
    assert model.embedding.encoder.head.weight.dtype == torch.float32


def test_means_alone_are_the_posteriors(model):
    new = make_data(6, seed=1)[0]
    with torch.no_grad():
        assert torch.allclose(model.means(new), model.posterior(new).mean[:, 0], atol=1e-10)


def test_means_alone_change_no_setting_of_the_process():
    """GPyTorch's settings belong to all threads: to skip variances here would make another thread's variances zero."""
    seen = []

    class Watching(LastAxis):
        def forward(self, x):
            seen.append(settings.skip_posterior_variances.on())
            return super().forward(x)

    LearnedKernelGP(*make_data(), Watching()).means(make_data()[0])
    assert seen == [False, False]


def test_the_order_of_the_training_students_does_not_change_the_posterior(model):
    X, y = make_data()
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    other = LearnedKernelGP(X[order], y[order], LastAxis(), alpha=ALPHA, beta=BETA)
    new = make_data(6, seed=1)[0]
    with torch.no_grad():
        one, two = model.posterior(new).distribution, other.posterior(new).distribution
    assert torch.allclose(one.mean, two.mean, atol=1e-12)
    assert torch.allclose(one.covariance_matrix, two.covariance_matrix, atol=1e-12)


def test_after_more_learning_predictions_are_of_the_new_embedding(model):
    new = make_data(6, seed=1)[0]
    with torch.no_grad():
        before = model.means(new), model.posterior(new).mean
        model.train()
        model.embedding.scale.mul_(2)
        after = model.means(new), model.posterior(new).mean
        fresh = LearnedKernelGP(*make_data(), model.embedding, alpha=ALPHA, beta=BETA)
        assert torch.equal(after[0], fresh.means(new))
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_nothing_but_the_embedding_is_learnable(model):
    learnable = [name for name, one in model.named_parameters() if one.requires_grad]
    assert learnable
    assert all("embedding" in name for name in learnable)
    assert model.likelihood.noise.item() == pytest.approx(BETA)
