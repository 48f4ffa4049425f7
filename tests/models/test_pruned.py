"""Students pruned by our own ranking: inside the budget, by the order of normalised importance, against a slow loop."""

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.architecture import Edits, SearchSpace
from raysearch.architecture.channels import analyse
from raysearch.errors import ConfigError
from raysearch.models import trace
from raysearch.models.importance import l1_importance
from raysearch.models.pruned import check_forms, check_prunable, pruned_student
from raysearch.models.teachers.resnet import resnet

from .nets import LeNet, OptionA, small_networks


def scores_for(space, rng):
    """Random importance, some channels and some layers far above others."""
    return [
        rng.lognormal(rng.uniform(-3, 3), 1.5, variable.size)
        for variable in analyse(space.teacher).variables
    ]


def slow_prefix(space, scores):
    """Widths of the longest list of best channels, the best first, that fits the budget: one channel after the other."""
    ranked = []
    for number, group in enumerate(space.group_of):
        if group >= 0:
            normal = np.sort(scores[number] / scores[number].mean())[::-1]
            ranked += [(-value, group) for value in normal[1:]]  # the first channel always stays
    widths = [1] * len(space.groups)
    for _, group in sorted(ranked):
        widths[group] += 1
        if not space.within_budget(Edits(widths=tuple(widths)))[0]:
            widths[group] -= 1
            break
    return widths


@pytest.mark.parametrize("budget", [{"params": 0.2}, {"macs": 0.1, "params": 0.5}, {"memory": 0.5}])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_channels_of_the_whole_network_stay_and_then_what_still_fits(budget, seed):
    space = SearchSpace(trace(OptionA(), (3, 16, 16)), divisor=1, budget=budget)
    scores = scores_for(space, np.random.default_rng(seed))
    found = pruned_student(space, scores)
    assert found.remove == ()
    assert space.within_budget(found)[0]
    prefix = slow_prefix(space, scores)
    assert all(ours >= theirs for ours, theirs in zip(found.widths, prefix, strict=True))
    for group in space.groups:
        if found.widths[group.id] < group.size:
            wider = list(found.widths)
            wider[group.id] += 1
            assert not space.within_budget(Edits(widths=tuple(wider)))[0], group


def test_importance_counts_relative_to_the_mean_of_its_layer():
    space = SearchSpace(trace(LeNet(), (3, 16, 16)), divisor=1, budget={"params": 0.3})
    scores = scores_for(space, np.random.default_rng(0))
    scaled = [values * 10.0 ** (number % 5 - 2) for number, values in enumerate(scores)]
    assert pruned_student(space, scores) == pruned_student(space, scaled)


def test_a_layer_with_a_few_channels_that_matter_is_pruned_most():
    space = SearchSpace(trace(LeNet(), (3, 16, 16)), divisor=1, budget={"params": 0.3})
    variables = analyse(space.teacher).variables
    scores = [np.ones(variable.size) for variable in variables]
    second = space.teacher.index["conv2"]
    ((number, _),) = analyse(space.teacher).outputs[second]
    scores[number][2:] = 1e-6
    widths = pruned_student(space, scores).widths
    shares = [width / group.size for width, group in zip(widths, space.groups, strict=True)]
    assert min(shares) == shares[space.group_of[number]] < 0.3


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
@pytest.mark.parametrize("name", small_networks())
def test_students_of_any_network_are_legal_and_fill_the_budget(name, grouping):
    make, shape = small_networks()[name]
    teacher = make()
    architecture = trace(teacher, shape)
    space = SearchSpace(architecture, grouping=grouping, budget={"params": 0.4})
    found = pruned_student(space, l1_importance(architecture, teacher.state_dict()))
    student = space.apply(found)
    assert student.num_params <= space.limits["params"]
    assert str(space.repair(space.batch([found]))[0]) == str(found)


def test_widths_keep_the_grid_of_the_space():
    teacher = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(64, 5)
    )
    architecture = trace(teacher, (3, 5, 5))
    space = SearchSpace(architecture, budget={"params": 0.3})
    widths = pruned_student(space, l1_importance(architecture, teacher.state_dict())).widths
    assert len(widths) == 2
    assert all(width % 8 == 0 for width in widths)


def test_where_the_smallest_widths_are_too_large_layers_are_removed():
    architecture = trace(resnet("resnet14", 10, (1, 8, 8)), (1, 8, 8))
    space = SearchSpace(architecture, divisor=1, min_channels=12, budget={"params": 0.1})
    narrow = Edits(widths=(12,) * len(space.groups))
    assert not space.within_budget(narrow)[0]
    found = pruned_student(space, scores_for(space, np.random.default_rng(0)))
    assert found.remove
    assert space.within_budget(found)[0]


def test_a_channel_can_be_weighed_by_its_cost():
    torch.manual_seed(0)
    space = SearchSpace(trace(OptionA(), (3, 16, 16)), divisor=1, budget={"params": 0.3})
    scores = [np.ones(variable.size) for variable in analyse(space.teacher).variables]
    scores = [values + np.arange(len(values)) / 10 for values in scores]
    plain, weighed = (pruned_student(space, scores, per_cost=own) for own in (False, True))
    # with one profile of importance in all layers, cheap channels stay and more of them
    assert sum(weighed.widths) > sum(plain.widths)
    assert space.within_budget(weighed)[0]


def test_what_cannot_be_pruned_is_said_with_the_field():
    architecture = trace(LeNet(), (3, 16, 16))
    with pytest.raises(ConfigError, match=r"search\.first: pruning needs a size"):
        check_prunable(SearchSpace(architecture), "search.first")
    fixed = SearchSpace(architecture, operations=("remove",), budget={"params": 1.0})
    with pytest.raises(ConfigError, match=r"baselines: .*lacks 'shrink'"):
        check_prunable(fixed, "baselines")


@pytest.mark.parametrize("forms", ["l2", [], ["l3"], ["l2", "l2"], None, [["l2"]]])
def test_forms_that_are_not_known_are_refused(forms):
    with pytest.raises(ConfigError, match=r"search\.options\.forms must list some of l2, taylor"):
        check_forms("search.options.forms", forms)
