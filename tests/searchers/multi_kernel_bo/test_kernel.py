"""The learned kernel against GPyTorch's own test case and the definition."""

from __future__ import annotations

import unittest

import numpy as np
import pytest
import torch
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase

from searchers.multi_kernel_bo.encoders import LSTMEncoder, MLPEncoder
from searchers.multi_kernel_bo.kernel import EmbeddingKernel, LayerEmbedding
from tests.searchers.multi_kernel_bo.conftest import LastAxis

NUM_COLUMNS = 5


class TestEmbeddingKernel(BaseKernelTestCase, unittest.TestCase):
    """GPyTorch's test case; its inputs have from two to ten numbers."""

    def create_kernel_no_ard(self, **kwargs):
        return EmbeddingKernel(LastAxis(), alpha=2.0, **kwargs)


class TestEmbeddingKernelOfLayers(BaseKernelTestCase, unittest.TestCase):
    """The same with a learned embedding of layers, whose width is what inputs have to be a multiple of."""

    def create_kernel_no_ard(self, **kwargs):
        torch.manual_seed(0)
        return EmbeddingKernel(LayerEmbedding(MLPEncoder(2), 2), alpha=0.1, **kwargs)


def make_x(num=12, num_layers=4, seed=0):
    """Random layer vectors: [num, num_layers * NUM_COLUMNS] float64."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 3, (num, num_layers * NUM_COLUMNS)).astype(float))


@pytest.fixture(params=[MLPEncoder, LSTMEncoder])
def embedding(request):
    torch.manual_seed(0)
    return LayerEmbedding(request.param(NUM_COLUMNS), NUM_COLUMNS).eval()


@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_it_is_the_radial_basis_function_of_the_embeddings(embedding, alpha):
    x1, x2 = make_x(), make_x(7, seed=1)
    with torch.no_grad():
        k = EmbeddingKernel(embedding, alpha)(x1, x2).to_dense().numpy()
        h1, h2 = embedding(x1).numpy(), embedding(x2).numpy()
    gaps = ((h1[:, None] - h2[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(k, np.exp(-gaps / (2 * alpha)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_it_is_a_covariance_between_the_bounds_that_the_unit_sphere_sets(embedding, alpha):
    x = make_x(20)
    with torch.no_grad():
        k = EmbeddingKernel(embedding, alpha)(x).to_dense()
        norms = embedding(x).norm(dim=-1)
    assert torch.allclose(norms, torch.ones(20, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(k, k.T, rtol=0, atol=1e-12)
    assert torch.allclose(k.diagonal(), torch.ones(20, dtype=torch.float64), atol=1e-9)
    assert k.min() >= np.exp(-2 / alpha) * (1 - 1e-6)
    assert k.max() <= 1
    assert torch.linalg.eigvalsh(k).min() > -1e-9
    assert k.min() < 1 - 1e-6, "the students' embeddings differ"


def test_equal_inputs_are_embedded_once():
    embedding = _Counting()
    kernel, x = EmbeddingKernel(embedding), make_x()
    kernel(x, x.clone()).to_dense()
    assert embedding.num_calls == 1
    kernel(x, make_x(seed=1)).to_dense()
    assert embedding.num_calls == 3


def test_features_at_the_end_of_an_input_are_no_layers(embedding):
    x = make_x()
    with_features = torch.cat([x, torch.rand(12, 3, dtype=torch.float64)], dim=1)
    other = LayerEmbedding(embedding.encoder, NUM_COLUMNS, num_features=3)
    with torch.no_grad():
        assert torch.equal(other(with_features), embedding(x))


def test_a_batch_of_batches_is_embedded_as_its_rows_are(embedding):
    x = make_x()
    with torch.no_grad():
        batched, flat = embedding(x.reshape(2, 3, 2, -1)), embedding(x)
    assert batched.shape == (2, 3, 2, flat.shape[-1])
    assert torch.allclose(batched.reshape(12, -1), flat, atol=1e-6)


def test_precision_is_that_of_the_input_while_the_network_stays_in_single(embedding):
    with torch.no_grad():
        assert embedding(make_x()).dtype == torch.float64
        assert embedding(make_x().float()).dtype == torch.float32
    assert {parameter.dtype for parameter in embedding.parameters()} == {torch.float32}


def test_the_gradient_reaches_every_weight(embedding):
    EmbeddingKernel(embedding.train())(make_x()).to_dense().sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert any(parameter.grad.abs().max() > 0 for parameter in embedding.parameters())


class _Counting(torch.nn.Module):
    """Counts its calls."""

    num_calls = 0

    def forward(self, x):
        self.num_calls += 1
        return x
