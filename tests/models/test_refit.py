"""Refitted students as modules: they are built with the teacher's weights, run and train."""

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.architecture import Architecture
from raysearch.architecture.refit import Rules, remove_layers, shrink_layers
from raysearch.architecture.sequences import decode_chain, sample_chains, valid_chains
from raysearch.models import build, num_parameters, trace
from raysearch.models.importance import l1_importance
from raysearch.models.inherit import descends
from raysearch.models.keep import ChannelRanking
from tests.architecture.nets import SIX


@pytest.mark.parametrize("name", SIX)
def test_refitted_students_are_built_and_trained(name):
    network = SIX[name]()
    teacher = build(network)
    rng = np.random.default_rng(1)
    images = torch.randn(2, *network.input_shape)
    for _ in range(11):
        found = remove_layers(network, rng.random(len(network.layers)) < 0.4, Rules("paper"))
        lookup = rng.integers(1, 11, (len(network.layers), 3)) / 10
        student = shrink_layers(found.student, lookup, Rules("paper", min_channels=2)).student
        module = build(student, inherit_from=teacher)
        assert num_parameters(module) == student.num_params
        logits = module(images)
        assert logits.shape == (2, 10)
        assert torch.isfinite(logits).all()
        logits.square().sum().backward()
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("name", SIX)
def test_refitted_students_keep_the_important_channels_where_they_have_the_teachers(name):
    """What a trial does with `distill.inherit`: no width of a refitted student need follow from the teacher's."""
    network = SIX[name]()
    teacher = build(network)
    ranking = ChannelRanking(network, l1_importance(network, teacher.state_dict()))
    rng = np.random.default_rng(2)
    for _ in range(5):
        found = remove_layers(network, rng.random(len(network.layers)) < 0.4, Rules("paper"))
        lookup = rng.integers(1, 11, (len(network.layers), 3)) / 10
        student = shrink_layers(found.student, lookup, Rules("paper", min_channels=2)).student
        assert descends(student, network)
        again = Architecture.from_compact(student.to_compact())
        assert again.id == student.id
        module = build(again, inherit_from=teacher, keep=ranking.keep(again))
        assert num_parameters(module) == student.num_params
        assert torch.isfinite(module(torch.randn(2, *network.input_shape))).all()


def test_a_network_of_its_own_layers_does_not_descend_from_a_teacher():
    teacher = trace(crossing(3, 1, 256), (3, 8, 8))
    chain = next(
        decode_chain(one, (3, 8, 8), 5)
        for one in sample_chains(200, 0, (3, 8, 8), 5)
        if valid_chains(one[None], (3, 8, 8), 5)[0]
    )
    assert not descends(chain, teacher)
    assert descends(teacher, teacher)
    assert not descends(trace(nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten()), (3, 8, 8)), chain)


def crossing(kernel, padding, features):
    return nn.Sequential(
        nn.Conv2d(3, 4, kernel, padding=padding), nn.Flatten(), nn.Linear(features, 5)
    )


def test_a_smaller_kernel_takes_the_centre_of_the_teachers():
    teacher = crossing(5, 2, 256)
    student = build(trace(crossing(3, 1, 256), (3, 8, 8)), inherit_from=teacher)
    assert torch.equal(student.get_submodule("0").weight, teacher[0].weight[:, :, 1:4, 1:4])
    assert torch.equal(student.get_submodule("2").weight, teacher[2].weight)


def test_a_larger_kernel_has_the_teachers_in_its_centre_and_is_fresh_around_it():
    teacher = crossing(3, 1, 256)
    architecture = trace(crossing(5, 2, 256), (3, 8, 8))
    torch.manual_seed(0)
    found = build(architecture, inherit_from=teacher).get_submodule("0").weight
    torch.manual_seed(0)
    expected = nn.Conv2d(3, 4, 5, padding=2).weight.detach().clone()
    expected[:, :, 1:4, 1:4] = teacher[0].weight.detach()
    assert torch.equal(found, expected)


def test_a_linear_layer_that_other_features_reach_starts_afresh_but_for_its_bias():
    teacher = crossing(3, 1, 256)
    architecture = trace(crossing(3, 0, 144), (3, 8, 8))
    torch.manual_seed(0)
    found = build(architecture, inherit_from=teacher).get_submodule("2")
    torch.manual_seed(0)
    assert torch.equal(found.weight, nn.Linear(144, 5).weight)
    assert torch.equal(found.bias, teacher[2].bias)
