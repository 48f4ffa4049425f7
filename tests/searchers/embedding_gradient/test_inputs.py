"""Sequences as numbers, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.architecture.sequences import encode_students, sample_chains
from raysearch.errors import ConfigError
from searchers.embedding_gradient.inputs import NUM_TYPES, Coding, padded


def as_output(coding, sequences):
    """What a perfect decoder would say."""
    if coding.raw:
        return sequences.x
    onehot = torch.nn.functional.one_hot(sequences.types, NUM_TYPES).float() * 10
    return torch.cat([onehot, sequences.attributes], dim=2).transpose(1, 2)


@pytest.mark.parametrize("raw", [False, True])
def test_what_is_coded_is_read_back(space, raw):
    rows = encode_students(space, space.sample(50, 0))
    coding = Coding.of(rows, raw=raw, aligned=not raw)
    found = coding.read(as_output(coding, coding(rows)))
    assert np.array_equal(np.rint(found), rows)


@pytest.mark.parametrize("raw", [False, True])
def test_chains_are_read_back_too(raw):
    rows = sample_chains(50, 0, (3, 32, 32), 10)
    coding = Coding.of(rows, raw=raw, aligned=False)
    assert np.array_equal(np.rint(coding.read(as_output(coding, coding(rows)))), rows)


def test_the_mask_ends_behind_the_last_layer():
    rows = np.zeros((2, 6, 5), np.int64)
    rows[0, [0, 2], 0] = 1  # a gap is not the end
    rows[1, :4, 0] = 1
    coding = Coding.of(rows, raw=False, aligned=False)
    assert coding(rows).mask.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_where_rows_are_a_teachers_layers_nothing_is_padding(space):
    rows = encode_students(space, space.sample(4, 0))
    assert Coding.of(rows, raw=False, aligned=True)(rows).mask is None


def test_longer_sequences_than_the_longest_are_refused():
    with pytest.raises(ConfigError, match=r"search\.warm_start has students of 7 layers"):
        padded(np.zeros((1, 7, 5)), 6)


def test_outputs_that_are_not_numbers_are_read_as_some_rows():
    rows = sample_chains(8, 0, (3, 32, 32), 10)
    coding = Coding.of(rows, raw=True, aligned=False)
    wild = torch.full((1, 5, 50), torch.nan)
    wild[0, :, 3] = torch.inf
    assert np.isfinite(coding.read(wild)).all()
