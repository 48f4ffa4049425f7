"""Features of students that do not depend on the teacher, against counting by hand on the students themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.models import load_teacher, trace
from searchers.relative import BLOCKS, relative_features
from searchers.testing import make_chain_space


@pytest.fixture(scope="module")
def resnet():
    shape = (1, 8, 8)
    return SearchSpace(trace(load_teacher("resnet14", num_classes=10, input_shape=shape), shape))


def test_their_number_is_the_same_for_every_teacher_and_the_teacher_is_the_origin(resnet):
    for space in (resnet, make_chain_space((8,)), make_chain_space((8, 8, 8, 8, 8))):
        (teacher,) = relative_features(space, space.batch([space.largest()]))
        assert len(teacher) == max(block.stop for block in BLOCKS.values()) == 16
        assert np.all(teacher[BLOCKS["kept"]] == 1)
        assert np.all(teacher[9:] == 0)
        found = relative_features(space, space.sample(50, seed=0))
        assert np.isfinite(found).all()
        assert np.abs(found).max() < 3


def test_they_count_what_the_students_are(resnet):
    batch = resnet.sample(20, seed=1)
    layers, full = resnet.teacher.layers, resnet.teacher
    for features, edits in zip(relative_features(resnet, batch), batch, strict=True):
        student = resnet.apply(edits)
        thirds = [3 * i // len(layers) for i in range(len(layers))]
        kinds = {"conv": 0, "linear": 0, "batch_norm": 1}
        for kind in range(3):
            for third in range(3):
                there = [
                    i
                    for i in resnet.removable
                    if kinds.get(layers[i].op, 2) == kind and thirds[i] == third
                ]
                left = [i for i in there if i not in edits.remove]
                share = len(left) / len(there) if there else 1
                assert features[3 * kind + third] == pytest.approx(share)
        assert features[14] == pytest.approx(math.log10(student.num_params / full.num_params) / 3)
        assert features[15] == pytest.approx(math.log10(student.macs / full.macs) / 3)
        assert features[13] == pytest.approx(
            math.log1p(len(edits.skips)) / math.log1p(len(resnet.skip_pairs))
        )


def test_widths_are_averaged_over_thirds_of_the_depth():
    """A chain of three convolutions: the last makes half of its channels, the first a quarter."""
    space = make_chain_space((8, 8, 8))
    edits = space.parse("e1..CIE.")
    assert edits.widths == (2, 8, 4)
    (features,) = relative_features(space, space.batch([edits]))
    names = [layer.op for layer in space.teacher.layers]
    thirds = [3 * i // len(names) for i, op in enumerate(names) if op in ("conv", "linear")]
    logs = [-2.0, 0.0, -1.0, 0.0]  # the classifier keeps its classes
    for third in range(3):
        there = [log for log, at in zip(logs, thirds, strict=True) if at == third]
        assert features[9 + third] * 4 == pytest.approx(np.mean(there) if there else 0)
    assert features[12] * 4 == pytest.approx(-2)
