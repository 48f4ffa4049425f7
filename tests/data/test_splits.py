"""Splits are disjoint, stratified and seeded."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.data.splits import stratified_split
from raysearch.errors import ConfigError, DataError


@pytest.mark.parametrize("seed", range(20))
def test_a_split_is_a_stratified_partition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, size=200, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    kept, taken = stratified_split(labels, 0.15, seed=seed, field="part")
    assert np.array_equal(np.sort(np.concatenate([kept, taken])), np.arange(200))
    assert len(taken) == 30
    for label in range(5):
        ideal = 0.15 * (labels == label).sum()
        assert abs((labels[taken] == label).sum() - ideal) < 1


def test_the_seed_decides_the_rows() -> None:
    labels = np.arange(100) % 4
    first, again, other = (
        stratified_split(labels, 20, seed=seed, field="part")[1] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(20))
def test_every_class_keeps_a_row_however_much_is_taken(seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [1, 2, 20]))
    kept, taken = stratified_split(labels, 20, seed=seed, field="part")
    assert len(taken) == 20
    assert set(labels[kept]) == {0, 1, 2}


def test_more_rows_than_can_be_spared_are_refused() -> None:
    with pytest.raises(DataError, match=r"data.validation = 19 asks for 19 of 20 rows.* 1 and 18"):
        stratified_split(np.arange(20) % 2, 19, seed=0, field="data.validation")


def test_a_share_that_rounds_to_no_row_is_refused() -> None:
    with pytest.raises(DataError, match="asks for 0 of 3 rows"):
        stratified_split(np.array([0, 1, 1]), 0.1, seed=0, field="data.validation")


@pytest.mark.parametrize("share", [0, -1, 0.0, 1.0, 1.5, True, float("nan"), "half", None])
def test_a_share_that_is_neither_fraction_nor_count_is_refused(share: object) -> None:
    with pytest.raises(ConfigError, match="must be a fraction between 0 and 1 or a number of rows"):
        stratified_split(np.arange(20) % 2, share, seed=0, field="part")  # type: ignore[arg-type]
