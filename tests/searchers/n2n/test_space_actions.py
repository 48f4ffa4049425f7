"""Actions as edits of a space."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture import Edits, SearchSpace
from searchers.n2n.space_actions import HEADROOM, SpaceRemoval, SpaceShrinkage
from searchers.n2n.steps import FULL, KEEP, REMOVE
from searchers.testing import make_chain_space
from tests.architecture.conftest import mixed, resnet, vgg


def random_actions(steps, rng, top):
    """Actions of a policy with even chances."""
    forced = KEEP if top == 2 else FULL
    return np.where(steps.free, rng.integers(top, size=len(steps)), forced)


def test_forced_layers_survive_a_thousand_samples():
    space = SearchSpace(resnet(blocks=(1, 1, 1)), grouping="by_size")
    meaning, rng = SpaceRemoval(space), np.random.default_rng(0)
    assert set(np.array(meaning.steps.layers)[meaning.steps.free]) == {
        space.teacher.layers[place].name for place in space.removable
    }
    removed = set()
    for _ in range(1000):
        actions = random_actions(meaning.steps, rng, 2)
        executed = meaning.execute(actions)
        if executed.architecture is not None:
            removed |= set(space.parse(executed.architecture).remove)
        assert (executed.actions[~meaning.steps.free] == KEEP).all()
    assert removed == set(space.removable)


def test_without_a_budget_what_is_asked_is_what_is_done():
    space = SearchSpace(vgg(), grouping="by_size")
    meaning, rng = SpaceRemoval(space), np.random.default_rng(0)
    for _ in range(20):
        actions = random_actions(meaning.steps, rng, 2)
        executed = meaning.execute(actions)
        np.testing.assert_array_equal(executed.actions, actions)
        asked = np.array(meaning.steps.layers)[actions == REMOVE]
        edits = Edits(tuple(space.teacher.index[name] for name in asked), space.largest().widths)
        smaller = space.num_params(edits)[0] < space.teacher.num_params
        assert executed.architecture == (str(edits) if smaller else None)


def test_the_teacher_itself_is_degenerate():
    space = SearchSpace(resnet(), grouping="by_size")
    removal = SpaceRemoval(space)
    assert removal.execute(np.full(len(removal.steps), KEEP)).architecture is None
    shrinkage = SpaceShrinkage(space, space.largest())
    assert shrinkage.execute(np.full(len(shrinkage.steps), FULL)).architecture is None


def test_a_ratio_is_one_of_the_base_s_width():
    space = make_chain_space((10, 20, 30))
    base = Edits((), (10, 8, 30))
    meaning = SpaceShrinkage(space, base)
    free = np.flatnonzero(meaning.steps.free)
    assert [meaning.steps.layers[step] for step in free] == ["conv0", "conv1", "conv2"]
    actions = np.full(len(meaning.steps), FULL)
    actions[free] = 2, 6, 0  # .3, .7, .1
    executed = meaning.execute(actions)
    assert space.parse(executed.architecture or "").widths == (3, 5, 3)
    np.testing.assert_array_equal(executed.actions, actions)


def test_stage_two_keeps_removals_and_reads_the_network_without_them():
    space = make_chain_space((8, 8, 8), grouping="by_size", operations=("remove", "shrink"))
    base = Edits((space.teacher.index["conv1"],), space.largest().widths)
    meaning = SpaceShrinkage(space, base)
    assert "conv1" not in meaning.steps.layers
    actions = np.where(meaning.steps.free, 4, FULL)
    edits = space.parse(meaning.execute(actions).architecture or "")
    assert (edits.remove, edits.widths) == (base.remove, (4,))


def test_a_group_is_decided_at_the_first_producer_that_is_left():
    space = SearchSpace(resnet(), grouping="by_size")
    first = space.groups[0].producers
    removable = [space.teacher.layers[place].name for place in space.removable]
    gone = [name for name in first if name in removable and name != first[0]]
    base = Edits(tuple(space.teacher.index[name] for name in gone), space.largest().widths)
    meaning = SpaceShrinkage(space, base)
    decided = [meaning.steps.layers[step] for step in np.flatnonzero(meaning.steps.free)]
    network = space.apply(base)
    expected = [
        next(name for name in group.producers if network[name].op != "identity")
        for group in space.groups
    ]
    assert sorted(decided) == sorted(expected)


def test_nothing_shrinks_where_that_is_no_operation():
    space = make_chain_space((8, 8), grouping="by_size", operations=("remove",))
    assert not SpaceShrinkage(space, space.largest()).steps.free.any()


@pytest.mark.parametrize("network", [resnet, vgg, mixed])
@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
def test_within_a_budget_students_are_repaired_and_the_executed_actions_credited(network, grouping):
    space = SearchSpace(network(), grouping=grouping, budget={"params": 0.2})
    rng, removal = np.random.default_rng(0), SpaceRemoval(space)
    shrinkage = SpaceShrinkage(space, space.uniform())
    base = np.array(space.uniform().widths)
    sizes = np.array([group.size for group in space.groups])
    for _ in range(30):
        executed = removal.execute(random_actions(removal.steps, rng, 2))
        edits = space.parse(executed.architecture or "")
        assert space.within_budget(edits).all()
        gone = np.array(removal.steps.layers)[executed.actions == REMOVE]
        assert {space.teacher.index[name] for name in gone} == set(edits.remove)
        asked = random_actions(shrinkage.steps, rng, 10)
        executed = shrinkage.execute(asked)
        edits = space.parse(executed.architecture or "")
        assert space.within_budget(edits).all()
        ratios = (executed.actions[shrinkage.steps.free] + 1) / 10
        groups = shrinkage._groups
        reference = np.minimum(HEADROOM * base, sizes)[groups]
        steps = np.array([space.groups[group].divisor for group in groups])
        given = np.array(edits.widths)[groups]
        # a tenth's half, and a step of the group's grid, unless the width is out of reach
        near = np.abs(given - ratios * reference) <= 0.05 * reference + steps + 1e-9
        assert (near | (given > reference) | (ratios == 0.1)).all()
