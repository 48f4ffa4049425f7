"""A5: channels that torch-pruning prunes together are one group of ours, and no others."""

import pytest
import torch
from torch import nn

from raysearch.architecture import SearchSpace
from raysearch.models import load_teacher, trace
from tests.acceptance.networks import CASES
from tests.torch_state import randomise_statistics

torch_pruning = pytest.importorskip("torch_pruning")

MODELS = ("torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:squeezenet1_1")
SMALL = ("Inception", "DenseBlock", "PreAct", "InvertedResidual")
SHAPE = (3, 64, 64)


def makes_channels(module):
    """Convolutions and linear layers; a depthwise convolution passes on those of its input."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and not module.groups == module.in_channels > 1
    )


def their_partition(module, shape):
    """The sets of modules whose outputs torch-pruning prunes together; the classifier's excepted."""
    graph = torch_pruning.DependencyGraph().build_dependency(module, torch.randn(2, *shape))
    names = {child: name for name, child in module.named_modules()}
    last = [child for child in module.modules() if makes_channels(child)][-1]
    groups = set()
    for group in graph.get_all_groups(
        ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]
    ):
        groups.add(
            frozenset(
                names[item.dep.target.module]
                for item in group
                if makes_channels(item.dep.target.module)
                and graph.is_out_channel_pruning_fn(item.dep.handler)
            )
        )
    return groups


def our_partition(architecture, module):
    children = dict(module.named_modules())
    groups = SearchSpace(architecture).groups
    return {
        frozenset(name for name in group.producers if makes_channels(children[name]))
        for group in groups
    }


@pytest.mark.parametrize("name", MODELS)
def test_groups_of_torchvision_networks_are_those_of_torch_pruning(name):
    module = randomise_statistics(load_teacher(name, num_classes=10, input_shape=SHAPE)).eval()
    architecture = trace(module, SHAPE)
    assert our_partition(architecture, module) == their_partition(module, SHAPE)


@pytest.mark.parametrize("name", SMALL)
def test_groups_of_small_networks_are_those_of_torch_pruning(networks, name):
    module, architecture = networks(name)
    assert our_partition(architecture, module) == their_partition(module, CASES[name].shape)
