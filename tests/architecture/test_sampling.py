"""The sampling distributions are ESNAC's."""

import numpy as np

from raysearch.architecture import EditsBatch, SearchSpace
from raysearch.architecture.sampling import (
    REMOVE_PROBABILITIES,
    SKIP_PROBABILITIES,
    VARIED_DEVIATIONS,
    VARIED_REMOVALS,
    WIDTH_DEVIATION,
)


def middling(space, n):
    """A batch of n copies of the teacher at half of its widths."""
    halved = [group.size // 2 for group in space.groups]
    return EditsBatch(
        np.zeros((n, len(space.teacher.layers)), bool),
        np.tile(np.array(halved, np.int64), (n, 1)),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
    )


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


def test_a_mutated_width_moves_in_proportion_to_itself(networks):
    """log(new / old) of N(0, s) has a mean square of s^2, whatever the width; clipping at the teacher's takes a little away."""
    space = SearchSpace(networks["resnet34"](), ["shrink"], divisor=1)
    batch = middling(space, 4000)
    mutated = space.mutate(batch, 0, num_edits=(1, 1))
    changed = mutated.widths != batch.widths
    assert (changed.sum(axis=1) <= 1).all()
    ratios = np.log(mutated.widths[changed] / batch.widths[changed])
    inside = ratios[np.abs(ratios) < np.log(2) - 0.05]
    expected = np.random.default_rng(1).normal(0, WIDTH_DEVIATION, 100_000)
    expected = expected[np.abs(expected) < np.log(2) - 0.05]
    assert abs(inside.std() - expected.std()) < 0.02


def test_a_varied_student_changes_all_widths_and_few_removals(networks):
    space = SearchSpace(networks["resnet34"](), ["remove", "shrink"], divisor=1)
    batch = middling(space, 4000)
    varied = space.vary(batch, 0)
    flips = (varied.remove != batch.remove).sum(axis=1)
    assert flips.max() <= VARIED_REMOVALS
    assert abs((flips > 0).mean() - 0.5 * 3 / 4) < 0.04
    inside = np.log(varied.widths / batch.widths).clip(-0.6, 0.6)
    spread = inside.std(axis=1)
    assert spread.min() < 2 * VARIED_DEVIATIONS[0]
    assert spread.max() > 0.5 * VARIED_DEVIATIONS[1]


def test_varied_students_stay_within_the_budget_and_differ(networks):
    space = SearchSpace(networks["resnet"](), budget={"params": 0.05})
    batch = space.batch([space.uniform()] * 200)
    varied = space.vary(batch, 0)
    assert space.within_budget(varied).all()
    assert len({str(edits) for edits in varied}) > 150
    assert list(space.vary(batch, 0)) == list(varied)
