"""Sampling, mutating and repairing: of many students at once, for every kind of budget that needs no clock."""

import numpy as np
import pytest

from raysearch.architecture import Architecture, SearchSpace

MANY = 240
BUDGETS = {
    "none": None,
    "params": {"params": 0.3},
    "macs": {"macs": 0.25},
    "memory": {"memory": 0.5},
    "all": {"params": 0.4, "macs": 0.35, "memory": 0.6},
}
NETWORKS = ("Inception", "GroupConv", "OptionA")


@pytest.fixture(params=[(name, kind) for name in NETWORKS for kind in BUDGETS], ids="-".join)
def space(request, networks):
    name, kind = request.param
    return SearchSpace(networks(name)[1], budget=BUDGETS[kind])


def same(left, right):
    return (
        np.array_equal(left.remove, right.remove)
        and np.array_equal(left.widths, right.widths)
        and np.array_equal(left.skip_rows, right.skip_rows)
        and np.array_equal(left.skip_pairs, right.skip_pairs)
    )


def assert_legal(space, batch):
    assert space.within_budget(batch).all()
    for group, widths in zip(space.groups, batch.widths.T, strict=True):
        assert ((widths % group.divisor == 0) | (widths == group.size)).all()
        assert (widths >= group.min_channels).all()
        assert (widths <= group.size).all()


def test_samples_are_inside_seeded_and_left_alone_by_repair(space):
    batch = space.sample(MANY, seed=0)
    assert len(batch) == MANY
    assert_legal(space, batch)
    assert same(batch, space.repair(batch))
    few = space.sample(12, seed=1)
    assert same(few, space.sample(12, seed=1))
    assert not same(few, space.sample(12, seed=2))


def test_mutants_are_inside_seeded_and_left_alone_by_repair(space):
    parents = space.sample(MANY, seed=0)
    batch = space.mutate(parents, 0)
    assert_legal(space, batch)
    assert same(batch, space.mutate(parents, 0))
    assert same(batch, space.repair(batch))


def test_any_legal_student_is_repaired_to_one_inside_alone_or_in_a_batch(space):
    extremes = space.batch([space.largest(), space.smallest()])
    repaired = space.repair(extremes)
    assert_legal(space, repaired)
    for row, edits in enumerate(extremes):
        assert space.repair(space.batch([edits]))[0] == repaired[row]


def test_texts_and_networks_survive_a_round_trip(space):
    for edits in space.sample(20, seed=4):
        assert space.parse(str(edits)) == edits
        assert len(str(edits)) < 1000
        student = space.apply(edits)
        assert Architecture.from_json(student.to_json()) == student
        assert Architecture.from_compact(student.to_compact()) == student


def test_the_networks_of_samples_are_inside_the_budget(space):
    limits = space.limits
    for edits in space.sample(20, seed=3):
        student = space.apply(edits)
        counted = {"params": student.num_params, "macs": student.macs}
        for metric in set(limits) & set(counted):
            assert counted[metric] <= limits[metric]
        if "memory" in limits:
            needed = student.memory_bytes
            assert needed <= limits["memory"]
