"""Layers as the policies read them."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture.sequences.policy import policy_sequence
from searchers.n2n.features import encode_factors, encode_rows, num_features
from searchers.n2n.steps import listed_layers
from tests.architecture.conftest import resnet, vgg

ROWS = np.array([[1, 3, 2, 1, 15, 0, 4], [4, 0, 0, 0, 15, 1, 3], [5, 0, 0, 0, 3, 0, 0]])


def test_scaled_features_by_hand():
    found = encode_rows(ROWS, raw=False)
    expected = np.zeros((3, 17))
    expected[[0, 1, 2], [1, 4, 5]] = 1
    expected[0, 11:] = 1, 1, 1, 1, 0, 1
    expected[1, 14:] = 1, 0.25, 0.75
    expected[2, 14] = 2 / 4  # log2(1 + 3) / log2(1 + 15)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_raw_features_are_the_authors_integers():
    np.testing.assert_array_equal(encode_rows(ROWS, raw=True), ROWS)


@pytest.mark.parametrize("raw", [True, False])
def test_the_number_of_features_does_not_depend_on_the_network(raw):
    for network in (resnet(), vgg(), resnet(blocks=(1, 1, 1))):
        rows = policy_sequence(network)
        found = encode_rows(rows, raw=raw)
        assert found.shape == (len(rows), num_features(raw=raw))
        assert found.dtype == np.float32
        assert raw or (0 <= found.min() <= found.max() <= 1)


def test_the_factor_of_a_step_is_one_hot():
    expected = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(encode_factors(np.array([-1, 0, 1, 2])), expected)


def test_removed_layers_are_gone_from_the_sequence():
    from raysearch.architecture import SearchSpace
    from raysearch.architecture.edits import Edits

    space = SearchSpace(resnet())
    remove = space.removable[:3]
    widths = space.largest().widths
    rows, places = listed_layers(space.apply(Edits(remove, widths)))
    whole, all_places = listed_layers(space.teacher)
    assert len(rows) == len(whole) - 3
    assert places == [place for place in all_places if place not in remove]
