"""Groups, structures and masks: shapes stay consistent, and the masked network is the built student."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.architecture import SearchSpace
from raysearch.models import build, load_teacher, trace
from raysearch.models.keep import ChannelRanking
from trainables.bayesnas import sparse
from trainables.bayesnas.compression.groups import Groups, Member, make_groups
from trainables.bayesnas.compression.places import find_places
from trainables.bayesnas.compression.prior import GroupPrior
from trainables.bayesnas.compression.structure import Builder

SHAPES = {
    "resnet14": (1, 8, 8),
    "lenet5": (1, 28, 28),
    "lenet300": (1, 8, 8),
    "colour": (3, 12, 12),
    "inverted": (3, 12, 12),
}


class _Colour(nn.Module):
    """A first convolution on colours, a concatenation, and two linear layers behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.left = nn.Conv2d(6, 4, 1)
        self.right = nn.Conv2d(6, 5, 3, padding=1)
        self.hidden = nn.Linear(9 * 16, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([self.left(x), torch.relu(self.right(x))], 1)
        x = nn.functional.avg_pool2d(x, 3)
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class _Inverted(nn.Module):
    """Depthwise convolutions within a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.branch = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.branch(x)).mean((2, 3)))


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"colour": _Colour, "inverted": _Inverted}
    module = (
        own[name]() if name in own else load_teacher(name, num_classes=10, input_shape=SHAPES[name])
    )
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            assert part.running_mean is not None
            part.running_mean.normal_()
    return module.eval()


def _builder(name: str, module: nn.Module, kinds: tuple[Sequence[str], Sequence[str]]) -> Builder:
    architecture = trace(module, SHAPES[name])
    places = find_places(architecture)
    return Builder(SearchSpace(architecture, divisor=1), places, make_groups(places, *kinds))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "kinds", [(("filter", "channel"), ("row", "column")), (("shape", "filter"), ("row", "column"))]
)
def test_the_masked_network_is_the_built_student(
    name: str, kinds: tuple[Sequence[str], Sequence[str]]
) -> None:
    """With every choice of dead groups, for counts and logits; drawn from 5 seeds, from a tenth to nine tenths dead."""
    module = _network(name)
    builder = _builder(name, module, kinds)
    teacher = builder.places.architecture
    images = torch.randn(3, *SHAPES[name])
    for seed, share in enumerate((0.1, 0.3, 0.5, 0.7, 0.9)):
        rng = np.random.default_rng(seed)
        living = rng.random(builder.groups.count) > share
        worth = rng.random(builder.groups.count)
        structure = builder.settle(living, worth)
        edits = builder.edits(structure)
        student = builder.space.apply(edits)
        assert builder.space.parse(str(edits)) == edits
        assert int(builder.space.num_params(edits)[0]) == student.num_params
        masked = build(teacher, inherit_from=module)
        parameters = dict(masked.named_parameters())
        masks = builder.masks(structure, parameters)
        with torch.no_grad():
            for key, mask in masks.items():
                parameters[key].mul_(mask)
        keep = ChannelRanking(teacher, builder.scores(structure, worth)).keep(student)
        small = build(student, inherit_from=masked.state_dict(), keep=keep)
        assert sum(p.numel() for p in small.parameters()) == student.num_params
        torch.testing.assert_close(
            small.eval()(images), masked.eval()(images), rtol=1e-5, atol=1e-5
        )


def test_nothing_is_lost_of_a_whole_structure_and_never_all_of_anything() -> None:
    module = _network("lenet5")
    builder = _builder("lenet5", module, (("filter", "channel"), ("row", "column")))
    whole = builder.settle(np.ones(builder.groups.count, bool), np.ones(builder.groups.count))
    assert builder.edits(whole) == builder.space.largest()
    none = builder.settle(np.zeros(builder.groups.count, bool), np.ones(builder.groups.count))
    assert builder.edits(none).widths == (1, 1, 1)


def test_a_channel_of_a_residual_sum_lives_while_one_reader_does() -> None:
    module = _network("resnet14")
    builder = _builder("resnet14", module, (("channel",), ()))
    living = np.ones(builder.groups.count, bool)
    readers = {name: ids for name, kinds in builder.groups.reading.items() for ids in kinds}
    first = builder.places.filters[1].layer.name  # reads the stem's sum, as others do
    channel_group = int(readers[first][0, 0])
    shared = [name for name, ids in readers.items() if channel_group in ids]
    assert len(shared) > 1
    living[channel_group] = False
    structure = builder.settle(living, np.ones(builder.groups.count))
    assert int((~structure.kept).sum()) == 1


def test_precisions_of_stacked_groups_add_up_and_omega_is_the_root_of_a_5() -> None:
    torch.manual_seed(0)
    weight, hessian = torch.randn(3, 4), torch.rand(3, 4)
    groups = Groups(
        7,
        (
            Member("w", "w", "row", torch.arange(3).reshape(3, 1)),
            Member("w", "w", "column", torch.arange(3, 7).reshape(1, 4)),
        ),
        np.zeros(0, np.int64),
        {},
    )
    prior = GroupPrior(groups, {"w": weight})
    prior.update({"w": weight}, {"w": hessian}, factor=0.1)
    unit = float(weight.square().mean().sqrt())
    rows, columns = weight.norm(dim=1) / unit, weight.norm(dim=0) / unit  # omega(0) = 1
    torch.testing.assert_close(prior.gamma, torch.cat([rows, columns]))
    gamma = 1 / (1 / rows[:, None] + 1 / columns)
    scaled = hessian / 0.1 * unit**2
    alpha = 1 / gamma - (1 / (1 / gamma + scaled)) / gamma**2
    omega = torch.cat([alpha.sum(1), alpha.sum(0)]).sqrt()
    torch.testing.assert_close(prior.omega, omega, rtol=1e-4, atol=1e-5)


def test_the_proximal_step_is_that_of_the_penalty() -> None:
    """One group: the minimum of |w - v|^2 / 2 + step omega |w| / unit is the shrunk v."""
    torch.manual_seed(0)
    weight = torch.randn(2, 3)
    groups = Groups(
        2, (Member("w", "w", "row", torch.arange(2).reshape(2, 1)),), np.zeros(0, np.int64), {}
    )
    prior = GroupPrior(groups, {"w": weight})
    prior.omega = torch.tensor([0.3, 50.0])
    unit, step, given = prior.unit["w"], 0.1, weight.clone()
    prior.shrink({"w": weight}, step)
    length = given[0].norm()
    torch.testing.assert_close(weight[0], given[0] * (1 - step * 0.3 / (unit * length)))
    assert weight[1].eq(0).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_linear_regression_recovers_its_groups(seed: int) -> None:
    """Ten groups of four inputs, three of them used: sparse Bayes with known noise finds which (at least 19 of 20 seeds; all of these)."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.zeros(10, 4)
    used = torch.randperm(10, generator=generator)[:3]
    true[used] = torch.randn(3, 4, generator=generator).sign() * (
        0.5 + torch.rand(3, 4, generator=generator)
    )
    x = torch.randn(200, 40, generator=generator)
    noise = 0.3
    y = x @ true.flatten() + noise * torch.randn(200, generator=generator)
    lam = noise**2 / 200  # of the mean of half the squares
    weight = torch.zeros(1, 40)
    ids = torch.arange(10).repeat_interleave(4).reshape(1, 40)
    groups = Groups(10, (Member("w", "w", "column", ids),), np.zeros(0, np.int64), {})
    weight[0] = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    hessian = {"w": x.square().mean(0, keepdim=True)}
    prior = GroupPrior(groups, {"w": weight})
    for _ in range(30):
        prior.update({"w": weight}, hessian, factor=lam)
        for _ in range(50):
            residual = x @ weight[0] - y
            weight[0] -= 0.2 * x.T @ residual / 200
            prior.shrink({"w": weight}, 0.2 * lam)
    found = torch.nonzero(~sparse.is_pruned(prior.gamma) & (prior.lengths({"w": weight}) > 0))
    assert set(found.flatten().tolist()) == set(used.tolist())
