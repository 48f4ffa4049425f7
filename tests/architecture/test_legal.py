"""Which edits a space offers."""

import numpy as np
import torch
from torch import nn

from raysearch.architecture import Edits, SearchSpace
from raysearch.architecture.checks import check
from raysearch.models import build, trace


def test_esnac_removes_fifty_layers_of_resnet18_and_ninety_eight_of_resnet34(networks):
    resnet18 = networks["resnet"]((2, 2, 2, 2), (64, 128, 256, 512), 100)
    assert len(SearchSpace(resnet18, grouping="by_size").removable) == 50
    assert len(SearchSpace(networks["resnet34"](), grouping="by_size").removable) == 98


def test_esnac_removes_forty_four_layers_of_vgg19(networks):
    plan = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M")
    assert len(SearchSpace(networks["vgg"](plan), grouping="by_size").removable) == 44


def test_a_convolution_between_two_groups_stays_even_where_their_sizes_agree(networks):
    space = SearchSpace(networks["vgg"]((16, 16, "M", 16, "M")))
    assert not any(space.teacher.layers[k].op == "conv" for k in space.removable)


def test_strided_layers_additions_and_the_output_stay(networks):
    space = SearchSpace(networks["resnet"](), grouping="by_size")
    names = {space.teacher.layers[k].name for k in space.removable}
    assert not names & {"conv1", "layer2.0.conv1", "layer1.0.add", "pool", "fc", "x"}
    assert {"layer1.0.conv1", "layer2.0.conv2", "relu", "bn1"} <= names


def test_skip_pairs_run_forward_between_equal_shapes_without_an_edge(teacher):
    for grouping in ("coupled", "by_size"):
        space = SearchSpace(teacher, grouping=grouping)
        layers = teacher.layers
        assert len({tuple(pair) for pair in space.skip_pairs.tolist()}) == len(space.skip_pairs)
        for i, j in space.skip_pairs.tolist():
            assert i < j
            assert len(layers[j].inputs) == 1
            assert layers[i].shape == teacher[layers[j].inputs[0][0]].shape
            assert layers[i].name not in layers[j].inputs[0]


def test_all_edits_at_once_stay_legal_at_any_width(teacher):
    for grouping in ("coupled", "by_size"):
        space = SearchSpace(teacher, grouping=grouping)
        every = tuple(range(len(space.skip_pairs)))
        for seed in range(5):
            rng = np.random.default_rng(seed)
            widths = [
                int(rng.integers(1, g.size // g.alignment + 1)) * g.alignment for g in space.groups
            ]
            for remove in ((), space.removable):
                check(space.apply(Edits(remove, tuple(widths), every)))


class Gated(nn.Module):
    """A gate that is multiplied, a sigmoid that is not, and a clamp before a root."""

    def __init__(self):
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = x.clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1 / 3)
        return self.fc(torch.sigmoid(self.head(x)))


def test_what_keeps_numbers_finite_stays():
    teacher = Gated()
    space = SearchSpace(trace(teacher, (3, 8, 8)))
    names = {space.teacher.layers[k].name for k in space.removable}
    assert {"relu", "squeeze", "sigmoid_1"} <= names
    assert not names & {"sigmoid", "clamp"}
    student = build(space.apply(space.smallest()), inherit_from=teacher)
    assert student(100 * torch.randn(4, 3, 8, 8)).isfinite().all()
