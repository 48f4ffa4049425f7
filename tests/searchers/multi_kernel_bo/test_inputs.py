"""Students as inputs: which columns are left out, and that leaving them out changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.architecture import SearchSpace
from searchers.multi_kernel_bo.encoders import LSTMEncoder, MLPEncoder
from searchers.multi_kernel_bo.inputs import Inputs, LayerColumns
from searchers.testing import make_chain_space
from tests.architecture.conftest import mixed, resnet


def all_columns(space, batch):
    """The layer vectors untrimmed: [B, L, m + 6 + 2 n]."""
    return space.encode_compact(batch).dense()


def test_no_student_uses_a_column_that_is_left_out(any_space):
    columns = LayerColumns.of(any_space)
    batch = any_space.sample(200, 0)
    batch = type(batch).concatenate([batch, any_space.mutate(batch[:50], np.random.default_rng(0))])
    dense = all_columns(any_space, batch)
    used = np.flatnonzero(dense.any(axis=(0, 1)))
    assert set(used) <= set(columns.kept)
    assert len(columns.kept) < dense.shape[2]
    np.testing.assert_array_equal(columns.encode(any_space, batch), dense[:, :, columns.kept])


def test_the_paper_s_layout_has_272_columns():
    space = make_chain_space((8, 8))
    columns = LayerColumns.of(space)
    assert len(columns.types) + 6 + 2 * columns.num_links == 272
    assert all_columns(space, space.sample(1, 0)).shape[2] == 272


@pytest.mark.parametrize("encoder", [MLPEncoder, LSTMEncoder])
def test_embeddings_are_those_of_all_columns_to_the_bit(any_space, encoder):
    """Weights that are multiples of 1/256: the sums over columns are exact, in whatever order a processor adds them."""
    columns, batch = LayerColumns.of(any_space), any_space.sample(6, 0)
    dense = torch.from_numpy(all_columns(any_space, batch))
    torch.manual_seed(0)
    full, trimmed = encoder(dense.shape[2]), encoder(len(columns.kept))
    kept = torch.from_numpy(columns.kept)
    state = full.state_dict()
    for name, weight in state.items():
        weight.copy_((weight * 256).round() / 256)
        if weight.shape[-1] == dense.shape[2]:
            state[name] = weight[:, kept]
    trimmed.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(full(dense), trimmed(dense[:, :, kept]))


def test_two_teachers_share_the_union_of_their_columns():
    spaces = SearchSpace(resnet()), SearchSpace(mixed())
    union = LayerColumns.of(*spaces)
    assert union.types == LayerColumns.of(*reversed(spaces)).types
    for space in spaces:
        dense = space.encode_compact(space.sample(50, 0)).dense(
            n_max=union.num_links, types=union.types
        )
        assert set(np.flatnonzero(dense.any(axis=(0, 1)))) <= set(union.kept)


def test_an_input_is_the_layer_vectors_and_then_the_features(space, inputs):
    batch = space.sample(5, 0)
    X = inputs(batch)
    layers = inputs.columns.encode(space, batch).reshape(5, -1)
    assert X.dtype == torch.float64
    assert X.shape == (5, inputs.width)
    np.testing.assert_array_equal(X[:, : -inputs.num_features], layers)
    np.testing.assert_array_equal(X[:, -inputs.num_features :], space.features(batch))


def test_the_teacher_is_the_student_without_edits(space, inputs):
    largest = space.parse(str(space.largest()))
    assert space.apply(largest).id == space.teacher.id
    assert torch.equal(inputs.teacher(), inputs(space.batch([largest])))


def test_features_may_be_left_out(space):
    inputs = Inputs(space, LayerColumns.of(space), with_features=False)
    assert inputs.num_features == 0
    assert inputs.width == len(space.teacher.layers[1:]) * len(inputs.columns.kept)
