"""The paper's encoder."""

from __future__ import annotations

import pytest
import torch

from searchers.multi_kernel_bo.encoders import LSTMEncoder

X = torch.rand(50, 7, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return LSTMEncoder(9).eval()


def test_it_has_four_layers_of_64_units_in_both_directions(encoder):
    sizes = {name: tuple(weight.shape) for name, weight in encoder.lstm.named_parameters()}
    assert sum(name.startswith("weight_ih") for name in sizes) == 8
    assert sizes["weight_ih_l0"] == (4 * 64, 9)
    assert sizes["weight_ih_l3_reverse"] == (4 * 64, 2 * 64)


def test_it_is_the_normalised_mean_over_positions_of_the_last_layer(encoder):
    with torch.no_grad():
        h = encoder(X)
        mean = encoder.lstm(X)[0].sum(dim=1) / X.shape[1]
    assert h.shape == (50, 128)
    assert torch.allclose(h, mean / mean.square().sum(dim=1, keepdim=True).sqrt(), atol=1e-6)
    assert torch.allclose(h.norm(dim=1), torch.ones(50), atol=1e-6)


@pytest.mark.parametrize("size", [1, 8, 24])
def test_the_size_of_a_chunk_does_not_change_embeddings(encoder, size):
    with torch.no_grad():
        chunks = torch.cat([encoder(part) for part in X.split(size)])
        assert torch.allclose(chunks, encoder(X), rtol=0, atol=1e-6)


def test_the_order_of_layers_matters(encoder):
    with torch.no_grad():
        assert not torch.allclose(encoder(X.flip(1)), encoder(X), atol=1e-5)
