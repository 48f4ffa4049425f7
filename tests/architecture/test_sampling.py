"""The sampling distributions are ESNAC's."""

import numpy as np

from raysearch.architecture import SearchSpace
from raysearch.architecture.sampling import REMOVE_PROBABILITIES, SKIP_PROBABILITIES


def test_layers_are_removed_with_a_probability_of_the_candidate(networks):
    space = SearchSpace(networks["resnet34"](), grouping="by_size")
    shares = space.sample(4000, seed=0).remove[:, space.removable].mean(axis=1)
    assert abs(shares.mean() - np.mean(REMOVE_PROBABILITIES)) < 0.01
    within = np.mean([p * (1 - p) for p in REMOVE_PROBABILITIES]) / len(space.removable)
    assert abs(shares.var() - within - np.var(REMOVE_PROBABILITIES)) < 0.002


def test_width_shares_are_uniform(networks):
    space = SearchSpace(networks["resnet34"](), grouping="by_size", divisor=1)
    batch = space.sample(4000, seed=0)
    widest = batch.widths[:, -1]
    assert widest.min() >= 1
    assert widest.max() <= 512
    histogram = np.histogram(widest, bins=8, range=(0, 512))[0] / 4000
    assert abs(histogram - 1 / 8).max() < 0.02


def test_skips_are_bernoulli_draws_of_the_candidates_level(networks):
    space = SearchSpace(networks["resnet34"](), ["skip"], grouping="by_size")
    batch = space.sample(4000, seed=0)
    counts = np.bincount(batch.skip_rows, minlength=4000)
    pairs = len(space.skip_pairs)
    assert abs(counts.mean() / pairs - np.mean(SKIP_PROBABILITIES)) < 0.001
    hits = np.bincount(batch.skip_pairs, minlength=pairs) / 4000
    assert abs(hits - np.mean(SKIP_PROBABILITIES)).max() < 0.015
    order = batch.skip_rows * pairs + batch.skip_pairs
    assert (np.diff(order) > 0).all()


def test_no_skip_leads_into_a_removed_layer(networks):
    space = SearchSpace(networks["resnet"](), grouping="by_size")
    batch = space.sample(500, seed=0)
    assert len(batch.skip_rows)
    assert not batch.remove[batch.skip_rows, space.skip_pairs[batch.skip_pairs, 1]].any()


def test_flipping_a_skip_twice_drops_it(networks):
    space = SearchSpace(networks["resnet"](), ["skip"])
    batch = space.sample(200, seed=0)
    mutated = space.mutate(batch, 1, num_edits=(1, 1))
    before = [set(edits.skips) for edits in batch]
    after = [set(edits.skips) for edits in mutated]
    assert all(len(a ^ b) == 1 for a, b in zip(before, after, strict=True))
