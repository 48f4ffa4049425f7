"""A4: the fast encodings are those of the students' own networks."""

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.encoding import encode_architecture
from tests.acceptance.networks import CASES


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
@pytest.mark.parametrize("name", list(CASES))
def test_dense_and_compact_encodings_are_those_of_the_applied_edits(networks, name, grouping):
    _, architecture = networks(name)
    space = SearchSpace(architecture, grouping=grouping)
    batch = space.batch([*space.sample(8, seed=2), space.smallest(), space.largest()])
    compact, dense = space.encode_compact(batch), space.encode(batch)
    np.testing.assert_array_equal(compact.dense(), dense)
    for edits, vectors in zip(batch, dense, strict=True):
        student = encode_architecture(space.apply(edits), types=compact.vocabulary)
        np.testing.assert_array_equal(vectors, student)
