"""BatchNorm's statistics after slicing are those of the batches that were shown."""

import copy

import pytest
import torch
from torch import nn

from raysearch.models import recalibrate


@pytest.fixture
def network(trained):
    norms = nn.BatchNorm2d(4), nn.BatchNorm2d(5, momentum=0.3)
    return trained(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), norms[0], nn.Dropout(0.5), nn.Conv2d(4, 5, 3), norms[1].eval()
        )
    )


def test_statistics_are_the_averages_of_the_batches(network):
    batches = [torch.randn(6, 3, 8, 8) + shift for shift in range(3)]
    recalibrate(network, iter(batches))
    maps = [network[0](images) for images in batches]
    mean = torch.stack([one.mean((0, 2, 3)) for one in maps]).mean(0)
    variance = torch.stack([one.var((0, 2, 3)) for one in maps]).mean(0)
    torch.testing.assert_close(network[1].running_mean, mean)
    torch.testing.assert_close(network[1].running_var, variance)


def test_weights_modes_and_momenta_stay(network):
    before = copy.deepcopy(network)
    recalibrate(network, [torch.randn(6, 3, 8, 8)])
    for ours, theirs in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [part.training for part in network] == [True, True, True, True, False]
    assert (network[1].momentum, network[4].momentum) == (0.1, 0.3)


def test_doing_it_twice_changes_nothing_more(network):
    batches = [torch.randn(6, 3, 8, 8) for _ in range(3)]
    recalibrate(network, batches)
    once = copy.deepcopy(network.state_dict())
    recalibrate(network, batches)
    assert all(torch.equal(value, once[name]) for name, value in network.state_dict().items())


def test_without_batches_the_statistics_stay(network):
    before = copy.deepcopy(network.state_dict())
    recalibrate(network, [])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
