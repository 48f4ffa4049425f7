"""The cheap encoder."""

from __future__ import annotations

import pytest
import torch

from searchers.multi_kernel_bo.encoders import MLPEncoder

X = torch.rand(50, 7, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return MLPEncoder(9).eval()


def test_it_pools_every_layers_numbers_by_mean_and_maximum(encoder):
    with torch.no_grad():
        h = encoder(X)
        each = torch.stack([encoder.layer(X[:, i]) for i in range(7)])  # [L, B, 64]
        pooled = torch.cat([each.sum(dim=0) / 7, each.max(dim=0).values], dim=1)
        expected = pooled @ encoder.head.weight.T + encoder.head.bias
    assert h.shape == (50, 64)
    expected = expected / expected.square().sum(dim=1, keepdim=True).sqrt()
    assert torch.allclose(h, expected, atol=1e-6)
    assert torch.allclose(h.norm(dim=1), torch.ones(50), atol=1e-6)


@pytest.mark.parametrize("size", [1, 8, 24])
def test_the_size_of_a_chunk_does_not_change_embeddings(encoder, size):
    with torch.no_grad():
        chunks = torch.cat([encoder(part) for part in X.split(size)])
        assert torch.allclose(chunks, encoder(X), rtol=0, atol=1e-6)
