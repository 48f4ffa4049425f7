"""The compact encoding says what the dense one says, in arrays that are linear in layers and edits."""

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.encoding import ALL_TYPES, ESNAC_TYPES, NUM_ATTRS, sufficient_types
from raysearch.errors import ConfigError


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
def test_the_dense_form_is_the_dense_encoding(teacher, grouping):
    space = SearchSpace(teacher, grouping=grouping)
    for seed in range(20):
        batch = space.sample(8, seed=seed)
        compact = space.encode_compact(batch)
        np.testing.assert_array_equal(compact.dense(), space.encode(batch))
        np.testing.assert_array_equal(
            compact.dense(n_max=150, types=ALL_TYPES),
            space.encode(batch, n_max=150, types=ALL_TYPES),
        )


def test_skips_into_removed_layers_are_not_listed(networks):
    space = SearchSpace(networks["resnet"](), grouping="by_size")
    batch = space.sample(50, seed=0)
    batch.remove[:, list(space.removable)] = True
    compact = space.encode_compact(batch)
    assert set(space.skip_pairs[batch.skip_pairs, 1]) & set(space.removable)
    assert len(compact.skip_rows) < len(batch.skip_rows)
    np.testing.assert_array_equal(compact.dense(), space.encode(batch))


def test_a_slice_is_the_encoding_of_its_candidates(networks):
    space = SearchSpace(networks["resnet"](), grouping="by_size")
    batch = space.sample(100, seed=1)
    compact = space.encode_compact(batch)
    for rows in (slice(0, 10), slice(37, 64), slice(90, None), slice(-5, None), slice(50, 50)):
        part = compact[rows]
        assert len(part) == len(batch[rows])
        np.testing.assert_array_equal(part.dense(), space.encode(batch[rows]))
    with pytest.raises(ValueError, match="steps of 1"):
        compact[::2]


def test_the_arrays_have_the_promised_form(teacher):
    space = SearchSpace(teacher)
    batch = space.sample(7, seed=0)
    compact = space.encode_compact(batch)
    places = compact.types.shape[1]
    assert (compact.types.dtype, compact.types.shape) == (np.uint8, (7, places))
    assert (compact.attrs.dtype, compact.attrs.shape) == (np.float32, (7, places, NUM_ATTRS))
    assert compact.edges.shape == (len(compact.edges), 2)
    assert len(compact.skip_rows) == len(compact.skip_sources) == len(compact.skip_targets)
    assert (np.diff(compact.skip_rows) >= 0).all()
    assert (compact.skip_sources < compact.skip_targets).all()
    assert compact.vocabulary == sufficient_types(teacher)


def test_the_size_grows_with_layers_and_edits_not_with_pairs_of_layers(networks):
    def nbytes(depth):
        space = SearchSpace(networks["resnet"]((depth,) * 3), operations=("remove", "shrink"))
        compact = space.encode_compact(space.sample(100, seed=0))
        return (compact.types.nbytes + compact.attrs.nbytes) / compact.types.shape[1]

    assert nbytes(2) == nbytes(8) == 100 * (1 + 4 * NUM_ATTRS)


def test_an_empty_batch_encodes(networks):
    space = SearchSpace(networks["vgg"]())
    assert space.encode_compact(space.batch([])).dense().shape[0] == 0


def test_a_layout_that_cannot_hold_the_network_is_refused(networks):
    space = SearchSpace(networks["mixed"]())
    compact = space.encode_compact(space.sample(2, seed=0))
    with pytest.raises(ConfigError, match="types lacks"):
        compact.dense(types=ESNAC_TYPES)
    with pytest.raises(ConfigError, match="n_max is 5"):
        compact.dense(n_max=5)


def test_channel_numbers_beyond_float32_round_as_the_dense_ones_do(builder):
    b = builder(3, 999, 999)
    b.conv("conv", 33)
    b.flatten()
    b.linear("fc", 2)
    space = SearchSpace(b.done())
    assert space.teacher["fc"].attrs["in_features"] > 2**24
    batch = space.sample(20, seed=0)
    np.testing.assert_array_equal(space.encode_compact(batch).dense(), space.encode(batch))
