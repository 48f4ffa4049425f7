"""The chains against the published sizes, and against their sequences."""

import pytest
import torch
from torch import nn

from raysearch.architecture.sequences import decode_chain, encode_sequence, valid_chains
from raysearch.models import num_parameters, trace
from raysearch.models.teachers.chain import CONFIGURATIONS, chain

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 9), (3, 1, 1)]


@pytest.mark.parametrize(
    ("name", "classes", "shape", "expected"),
    [
        ("conv7", 10, (1, 28, 28), 707_754),
        ("conv10", 10, (3, 32, 32), 24_351_562),
        ("conv10", 100, (3, 32, 32), 24_443_812),
    ],
)
def test_the_networks_have_the_published_number_of_parameters(name, classes, shape, expected):
    assert num_parameters(chain(name, classes, shape)) == expected


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_name_counts_convolutions(name):
    module = chain(name, 10, (3, 32, 32))
    assert sum(isinstance(m, nn.Conv2d) for m in module) == int(name[4:])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["conv5", "conv7"])
def test_a_chain_is_its_sequence(name, shape):
    """Traced, encoded and decoded: the same layers, shapes, parameters and MACs; the names alone are others."""
    module = chain(name, 7, shape).eval()
    with torch.no_grad():
        assert module(torch.zeros(2, *shape)).shape == (2, 7)
    traced = trace(module, input_shape=shape)
    rows = encode_sequence(traced)
    assert valid_chains(rows[None], shape, 7).all()
    decoded = decode_chain(rows, shape, 7)
    for one, other in zip(traced.layers, decoded.layers, strict=True):
        assert (one.op, one.shape) == (other.op, other.shape)
        assert {key: one.attrs[key] for key in other.attrs} == dict(other.attrs), one.name
    assert (decoded.num_params, decoded.macs) == (traced.num_params, traced.macs)
    assert (encode_sequence(decoded) == rows).all()


def test_the_seven_layers_leave_a_map_of_seven_by_seven():
    classifier = chain("conv7", 10, (1, 28, 28))[-1]
    assert isinstance(classifier, nn.Linear)
    assert classifier.in_features == 256 * 7 * 7
