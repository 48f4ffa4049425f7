"""Actions with refit: students are networks of their own."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.refit import FACTORS, Rules, remove_layers, shrink_layers
from searchers.n2n.refit_actions import RefitRemoval, RefitShrinkage
from searchers.n2n.steps import FULL, KEEP, REMOVE
from tests.architecture.conftest import Builder, resnet, vgg

RULES = {"reference": Rules(), "paper": Rules("paper")}


@pytest.fixture(params=["chain", "residual"])
def teacher(request):
    if request.param == "chain":
        return vgg(plan=(16, "M", 24, 24, "M"), input_shape=(3, 8, 8))
    return resnet(blocks=(1, 2), widths=(12, 16), input_shape=(3, 8, 8))


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_every_student_applies_and_is_smaller_than_the_teacher(teacher, rules):
    space, rng = SearchSpace(teacher), np.random.default_rng(0)
    removal = RefitRemoval(teacher, rules)
    made = []
    for _ in range(60):
        bits = rng.random(len(removal.steps)) < 0.7
        executed = removal.execute(np.where(removal.steps.free & ~bits, REMOVE, KEEP))
        assert (executed.actions[~removal.steps.free] == KEEP).all()
        if executed.architecture is not None:
            made.append(space.apply(executed.architecture))
            assert made[-1].num_params < teacher.num_params
            # what is credited makes the same student again
            assert removal.execute(executed.actions).architecture == executed.architecture
    assert len(made) > 10
    base = min(made, key=lambda student: abs(student.num_params - 0.7 * teacher.num_params))
    shrinkage = RefitShrinkage(base, teacher, rules, windows=True)
    shrunk = 0
    for _ in range(60):
        asked = np.where(shrinkage.steps.free, rng.integers(10, size=len(shrinkage.steps)), FULL)
        executed = shrinkage.execute(asked)
        assert (executed.actions[~shrinkage.steps.free] == FULL).all()
        if executed.architecture is not None:
            shrunk += 1
            assert space.apply(executed.architecture).num_params < teacher.num_params
            assert shrinkage.execute(executed.actions).architecture == executed.architecture
    assert shrunk > 10


def test_actions_are_those_of_the_operators():
    teacher = vgg(plan=(16, "M", 24, 24, "M"), input_shape=(3, 8, 8))
    removal = RefitRemoval(teacher, Rules())
    actions = np.full(len(removal.steps), KEEP)
    names = list(removal.steps.layers)
    actions[names.index("conv3")] = REMOVE
    remove = np.array([layer.name == "conv3" for layer in teacher.layers])
    student = remove_layers(teacher, remove, Rules()).student
    assert removal.execute(actions).architecture == student.to_compact()

    shrinkage = RefitShrinkage(student, teacher, Rules("paper"), windows=True)
    steps = shrinkage.steps
    pairs = [
        (steps.layers[step], FACTORS[steps.factors[step]]) for step in np.flatnonzero(steps.free)
    ]
    assert ("conv2", "filters") in pairs
    assert ("conv2", "kernel") in pairs
    actions = np.full(len(steps), FULL)
    factors = np.ones((len(student.layers), 3))
    for (layer, factor), step in zip(pairs, np.flatnonzero(steps.free), strict=True):
        if (layer, factor) in (("conv2", "filters"), ("conv0", "kernel")):
            actions[step] = 5
            factors[student.index[layer], FACTORS.index(factor)] = 0.6
    expected = shrink_layers(student, factors, Rules("paper")).student
    assert shrinkage.execute(actions).architecture == expected.to_compact()


def test_by_default_only_filters_shrink_and_hidden_linear_layers_are_left():
    b = Builder(3, 8, 8)
    for step in (b.conv("conv", 16), b.relu("relu"), b.flatten()):
        assert step
    b.linear("hidden", 40)
    b.relu("relu2")
    b.linear("head", 10)
    teacher = b.done()

    def decisions(rules, windows):
        steps = RefitShrinkage(teacher, teacher, rules, windows=windows).steps
        free = np.flatnonzero(steps.free)
        return [(steps.layers[step], FACTORS[steps.factors[step]]) for step in free]

    assert decisions(Rules(), False) == [("conv", "filters")]
    assert decisions(Rules("paper"), False) == [("conv", "filters"), ("hidden", "filters")]
    assert decisions(Rules("paper"), True) == [
        ("conv", "filters"),
        ("conv", "kernel"),
        ("conv", "padding"),
        ("hidden", "filters"),
    ]


def test_linear_layers_that_read_too_much_are_degenerate():
    b = Builder(3, 80, 80)
    b.conv("stem", 8)
    b.conv("wide", 8)
    b.conv("wider", 8)
    b.flatten()  # 51,200 features
    b.linear("head", 2)
    teacher = b.done()
    removal = RefitRemoval(teacher, Rules())
    actions = np.full(len(removal.steps), KEEP)
    actions[removal.steps.layers.index("wide")] = REMOVE
    executed = removal.execute(actions)
    assert executed.architecture is None
    np.testing.assert_array_equal(executed.actions, actions)


def test_in_stage_two_linear_layers_that_read_too_little_are_degenerate():
    b = Builder(3, 4, 4)
    b.conv("stem", 16)
    b.conv("last", 12)
    b.pool("pool", 4)
    b.flatten()
    b.linear("head", 2)
    teacher = b.done()
    shrinkage = RefitShrinkage(teacher, teacher, Rules(min_channels=1), windows=False)
    actions = np.full(len(shrinkage.steps), FULL)
    last = shrinkage.steps.layers.index("last")
    for action, fits in ((8, True), (6, False)):  # 10 features, 8 features
        actions[last] = action
        assert (shrinkage.execute(actions).architecture is not None) is fits
