"""Layer vectors: ESNAC's layout, and equality of the fast and the slow path."""

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.encoding import (
    ALL_TYPES,
    ESNAC_TYPES,
    NUM_ATTRS,
    encode_architecture,
    sufficient_types,
)
from raysearch.architecture.view import view
from raysearch.errors import ConfigError


def test_a_batch_encodes_as_its_students_do(teacher):
    for grouping in ("coupled", "by_size"):
        space = SearchSpace(teacher, grouping=grouping)
        types = sufficient_types(teacher)
        for seed in range(20):
            batch = space.sample(2, seed=seed)
            slow = [encode_architecture(space.apply(edits), types=types) for edits in batch]
            np.testing.assert_array_equal(space.encode(batch), np.stack(slow))


def test_esnac_lists_its_layers_and_edges(networks):
    # the published lists hold one more layer and edge: a flatten before the classifier
    for depths, layers, edges in (((2, 2, 2, 2), 60, 67), ((3, 4, 6, 3), 108, 123)):
        seen = view(networks["resnet"](depths, (64, 128, 256, 512), 100))
        assert len(seen.listed) == layers - 1
        assert len(seen.edges) == edges - 1
    plan = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M")
    seen = view(networks["vgg"](plan))
    assert (len(seen.listed), len(seen.edges)) == (55, 54)


def test_esnac_counts_a_skip_pair_wherever_shapes_agree_edges_included(networks):
    # the public code also draws skips along existing edges, where they change nothing: 1605 on ResNet-34, of which 123 are edges
    # (123 and 108 layers with its flatten, which sends and takes no skip)
    teacher = networks["resnet34"]()
    space = SearchSpace(teacher, grouping="by_size")
    assert len(space.skip_pairs) + len(view(teacher).edges) + 1 == 1605
    assert [group.size for group in space.groups] == [64, 128, 256, 512]
    assert len(space.removable) == 98
    assert teacher.num_params == 21_328_292


def test_a_vector_holds_type_attributes_and_links(networks):
    teacher = networks["resnet"]()
    space = SearchSpace(teacher)
    (vectors,) = space.encode(space.batch([space.largest()]))
    assert vectors.shape[1] == 10 + 6 + 2 * 128
    first = vectors[0]
    assert first[ESNAC_TYPES.index("conv")] == 1
    assert first[10:16].tolist() == [3, 1, 1, 1, 3, 16]
    assert np.flatnonzero(first[16:144]).tolist() == []
    assert np.flatnonzero(first[144:]).tolist() == [1]
    seen = view(teacher)
    relu2 = seen.position[teacher.index["layer1.0.relu2"]]
    # two edges come in: from bn2, one place before, and along the shortcut from the stem's relu, six places before
    assert np.flatnonzero(vectors[relu2, 16:144]).tolist() == [1, 6]


def test_a_removed_layer_is_an_identity_with_its_edges(networks):
    space = SearchSpace(networks["resnet"]())
    place = space.teacher.index["bn1"]
    gone = space.batch([space.largest()])
    gone.remove[0, place] = True
    whole = space.encode(space.batch([space.largest()]))[0, 1]
    removed = space.encode(gone)[0, 1]
    assert removed[:10].tolist() == [1] + [0] * 9
    assert not removed[10:16].any()
    assert (removed[16:] == whole[16:]).all()


def test_other_operations_use_the_longer_vocabulary(networks):
    space = SearchSpace(networks["mixed"]())
    batch = space.sample(2, seed=0)
    assert space.encode(batch).shape[2] == len(ALL_TYPES) + NUM_ATTRS + 2 * 128
    assert space.encode(batch, n_max=200).shape[2] == len(ALL_TYPES) + NUM_ATTRS + 2 * 200
    with pytest.raises(ConfigError, match="types lacks"):
        space.encode(batch, types=ESNAC_TYPES)
    with pytest.raises(ConfigError, match="n_max is 5"):
        space.encode(batch, n_max=5)


def test_two_teachers_can_share_a_layout(networks):
    shapes = set()
    for name in ("resnet14", "vgg", "mixed"):
        space = SearchSpace(networks[name]())
        shapes.add(space.encode(space.sample(1, seed=0), n_max=150, types=ALL_TYPES).shape[2])
    assert len(shapes) == 1


def test_an_addition_of_two_consumers_is_listed_as_an_identity(builder):
    b = builder(3, 8, 8)
    for name in "ab":
        b.conv(name, 4, source="x")
    total = b.add("sum", "add", "a", "b")
    b.relu("left", total)
    b.relu("right", total)
    b.add("end", "concat", "left", "right", dim=0)
    seen = view(b.done())
    names = [b.done().layers[k].name for k in seen.listed]
    assert names == ["a", "b", "sum", "left", "right", "end"]
    assert (0, 2) in seen.edges
    assert (1, 2) in seen.edges
