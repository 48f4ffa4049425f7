"""The networks: padding, lengths, batch statistics, seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.architecture.sequences import sample_chains
from searchers.embedding_gradient.autoencoder import MaskedNorm, Networks, Regressors, Shape
from searchers.embedding_gradient.inputs import Coding
from searchers.embedding_gradient.training import make_networks


def shape_of(num_rows, **changed):
    sizes = {"num_features": 14, "embedding": 6, "channels": 4, "hidden": 8, "num_regressors": 2}
    return Shape(
        **{"num_rows": num_rows, "relu_head": False, "by_position": True} | sizes | changed
    )


@pytest.fixture
def chains():
    """Chains of at most 12 layers in 16 rows."""
    rows = sample_chains(200, 0, (3, 32, 32), 10)
    rows = rows[(rows[:, :, 0] != 0).sum(axis=1) <= 12]
    return rows[:20, :16]


@pytest.mark.parametrize("training", [False, True])
def test_what_stands_in_padding_never_changes_the_embedding(chains, training):
    networks = make_networks(shape_of(16), 0).train(training)
    coding = Coding.of(chains, raw=False, aligned=False)
    sequences = coding(chains)
    Y = networks.encode(sequences.x, sequences.mask)
    spoilt = sequences.x + 100 * (1 - sequences.mask[:, None])
    assert torch.equal(networks.encode(spoilt, sequences.mask), Y)


@pytest.mark.parametrize("training", [False, True])
def test_more_padding_never_changes_the_embedding(chains, training):
    """A network for longer sequences with the same weights, whatever it has for the rows behind."""
    short, long = make_networks(shape_of(16), 0), make_networks(shape_of(24), 1)
    state = short.encoder.state_dict()
    weight = long.encoder.last.weight.detach().clone()
    weight[:, : state["last.weight"].shape[1]] = state["last.weight"]
    long.encoder.load_state_dict(state | {"last.weight": weight})
    coding = Coding.of(chains, raw=False, aligned=False)
    wide = np.pad(chains, ((0, 0), (0, 8), (0, 0)))
    longer = Coding(24, False, False, np.pad(coding.center, ((0, 8), (0, 0))), coding.scale)
    one, two = coding(chains), longer(wide)
    Y = short.train(training).encode(one.x, one.mask)
    assert torch.allclose(long.train(training).encode(two.x, two.mask), Y, atol=1e-5)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 9, 16, 45, 50])
def test_the_decoder_gives_as_many_rows_as_the_encoder_reads(num_rows):
    networks = make_networks(shape_of(num_rows), 0)
    x = torch.randn(3, 14, num_rows)
    Y = networks.encode(x, None)
    assert Y.shape == (3, 6)
    assert networks.decode(Y).shape == x.shape
    assert networks.f_a(Y).shape == (2, 3)
    assert networks.f_p(Y).shape == (1, 3)


def test_the_masked_norm_is_pytorchs_over_what_is_not_masked():
    x, mask = torch.randn(4, 3, 6), torch.ones(4, 1, 6)
    mask[0, :, 2:], mask[2, :, 5:] = 0, 0
    found = MaskedNorm(3).train()(x, mask)
    seen = x.transpose(1, 2)[mask[:, 0] > 0]  # [rows, 3]
    expected = torch.nn.BatchNorm1d(3)(seen)
    assert torch.allclose(found.transpose(1, 2)[mask[:, 0] > 0], expected, atol=1e-5)
    plain = MaskedNorm(3).train()
    assert torch.allclose(plain(x, torch.ones(4, 1, 6)), plain(x), atol=1e-5)


def test_a_batch_of_one_row_is_no_trouble():
    for mask in (None, torch.ones(1, 1, 1)):
        norm = MaskedNorm(3).train()
        assert norm(torch.randn(1, 3, 1), mask).isfinite().all()
    networks = make_networks(shape_of(1), 0).train()
    assert networks.encode(torch.randn(1, 14, 1), torch.ones(1, 1)).isfinite().all()


def test_regressors_are_three_hidden_layers_and_the_papers_heads():
    """One of two, by hand."""
    torch.manual_seed(0)
    for head, end in (("sigmoid", torch.sigmoid), ("relu", torch.relu), ("linear", lambda h: h)):
        both = Regressors(2, 6, 8, head)
        for parameter in both.parameters():
            torch.nn.init.normal_(parameter)
        h = y = torch.randn(5, 6)
        for place in range(4):
            h = h @ both.weights[place][1].T + both.biases[place][1]
            h = torch.relu(h) if place < 3 else end(h)
        assert torch.allclose(both(y)[1], h[:, 0], atol=1e-4)


def test_the_seed_alone_decides_the_weights_and_the_global_generator_stays():
    before = torch.random.get_rng_state()
    one, two, other = (make_networks(shape_of(9), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["encoder.first.weight"], other["encoder.first.weight"])


def test_first_weights_have_pytorchs_own_spread():
    shape = shape_of(9, channels=64)
    networks, plain = make_networks(shape, 0), torch.nn.Conv1d(14, 64, 3)
    assert isinstance(networks, Networks)
    ratio = networks.encoder.first.weight.std() / plain.weight.std()
    assert 0.9 < ratio < 1.1
