"""Hand-made features of students."""

from itertools import pairwise

import numpy as np

from raysearch.architecture import SearchSpace


def test_the_teacher_has_full_widths_and_nothing_removed(teacher):
    space = SearchSpace(teacher)
    (row,) = space.features(space.batch([space.largest()]))
    blocks = {name: row[columns] for name, columns in space.feature_blocks.items()}
    assert not blocks["remove"].any()
    assert (blocks["width"] == 1).all()
    assert not blocks["log_width"].any()
    assert (blocks["stage"] == 1).all()
    assert blocks["params"].tolist() == [0]


def test_blocks_cover_all_columns_and_stay_near_unit_range(teacher):
    for budget in (None, {"params": 0.1}):
        space = SearchSpace(teacher, budget=budget)
        features = space.features(space.sample(200, seed=0))
        slices = sorted((s.start, s.stop) for s in space.feature_blocks.values())
        assert slices[0][0] == 0
        assert slices[-1][1] == features.shape[1]
        assert all(a[1] == b[0] for a, b in pairwise(slices))
        assert np.isfinite(features).all()
        assert abs(features).max() <= 1.5
        assert features.dtype == np.float32


def test_values_follow_the_edits(networks):
    space = SearchSpace(networks["resnet"]())
    batch = space.sample(50, seed=0)
    features, blocks = space.features(batch), space.feature_blocks
    assert (features[:, blocks["remove"]] == batch.remove[:, space.removable]).all()
    sizes = [g.size for g in space.groups]
    np.testing.assert_allclose(features[:, blocks["width"]], batch.widths / sizes, rtol=1e-6)
    share = space.num_params(batch) / space.teacher.num_params
    np.testing.assert_allclose(features[:, blocks["params"]][:, 0], np.log10(share) / 3, rtol=1e-5)
    skips = np.bincount(batch.skip_rows, minlength=50)
    expected = np.log1p(skips) / np.log1p(len(space.skip_pairs))
    np.testing.assert_allclose(features[:, blocks["skips"]][:, 0], expected, rtol=1e-5)


def test_a_space_without_some_operations_has_no_columns_for_them(networks):
    space = SearchSpace(networks["vgg"](), ["shrink"])
    assert space.features(space.sample(3, seed=0)).shape[1] == 2 * len(space.groups) + 1
