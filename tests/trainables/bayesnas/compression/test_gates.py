"""What is lost together: gates against the dense matrix, and against the true loss of a network that lost a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from raysearch.models import trace
from trainables.bayesnas.compression.curvature import diagonal
from trainables.bayesnas.compression.gates import Gates
from trainables.bayesnas.compression.places import Places, find_places
from trainables.bayesnas.compression.saliency import coherence, quadratic_loss


class _Net(nn.Module):
    """A residual sum whose channels two layers create and two read, one of them behind a flatten; a depthwise convolution on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.inner = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.back = nn.Conv2d(4, 3, 1)
        self.head = nn.Linear(3 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.stem(x))
        x = x + self.back(torch.relu(self.depthwise(torch.relu(self.inner(x)))))
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


# by hand: (who reads the channels of a group, how many of its inputs are one channel); the first created by `stem`, the second by `inner`
READERS: list[tuple[str, list[tuple[str, int]]]] = [
    ("stem", [("inner", 1), ("head", 4)]),
    ("inner", [("back", 1)]),
]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return _Net().double().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _places(net: nn.Module) -> Places:
    return find_places(trace(net.float(), (2, 4, 4)))


def _gated(
    net: nn.Module, images: torch.Tensor, readers: Sequence[tuple[str, int]], gate: torch.Tensor
) -> torch.Tensor:
    """The logits where the weights that read channel c are multiplied by gate[c]."""
    weights = dict(net.named_parameters())
    changed = {}
    for name, numbers in readers:
        weight = weights[f"{name}.weight"]
        factor = gate.repeat_interleave(numbers).view(1, -1, *[1] * (weight.ndim - 2))
        changed[f"{name}.weight"] = weight * factor
    return functional_call(net, {**weights, **changed}, (images,))


def _dense(
    logits: Callable[[torch.Tensor], torch.Tensor], count: int, num_images: int
) -> np.ndarray:
    """[count] half the diagonal of J^T (diag p - p p^T) J, the mean over images, where all gates are open."""
    one = torch.ones(count, dtype=torch.float64)
    jacobian = jacrev(logits)(one)  # [B, K, count]
    p = logits(one).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    found = torch.einsum("bkc,bkl,blc->c", jacobian, middle, jacobian) / (2 * num_images)
    return found.detach().numpy()


def test_a_gate_has_the_curvature_of_the_dense_matrix(net: nn.Module, images: torch.Tensor) -> None:
    places = _places(net)
    net = net.double()
    gates = Gates(places)
    diagonal(net, images.split(4), draws=None, observer=gates)
    found = gates.channels(len(images))
    for creator, readers in READERS:
        channels = next(one.rows for one in places.filters if one.layer.name == creator)

        def logits(gate: torch.Tensor, readers: list[tuple[str, int]] = readers) -> torch.Tensor:
            return _gated(net, images, readers, gate)

        wanted = _dense(logits, len(channels), len(images))
        np.testing.assert_allclose(found[channels], wanted, rtol=1e-6)


def test_an_input_behind_a_flatten_has_a_gate_of_its_own(
    net: nn.Module, images: torch.Tensor
) -> None:
    places = _places(net)
    net = net.double()
    gates = Gates(places)
    diagonal(net, [images], draws=None, observer=gates)

    def logits(gate: torch.Tensor) -> torch.Tensor:
        return _gated(net, images, [("head", 1)], gate)

    wanted = _dense(logits, 12, len(images))
    np.testing.assert_allclose(gates.inputs(len(images))["head"], wanted, rtol=1e-6)


def test_a_channel_that_only_a_grouped_convolution_reads_is_judged_where_it_is_created(
    images: torch.Tensor,
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 5)
    )  # fmt: skip
    places = find_places(trace(net, (2, 4, 4)))
    net = net.double().eval()
    gates = Gates(places)
    assert gates.wants_rows("0")
    assert not gates.wants_rows("2")
    diagonal(net, images.split(4), draws=None, observer=gates)
    weights = dict(net.named_parameters())

    def logits(gate: torch.Tensor) -> torch.Tensor:
        changed = {"0.weight": weights["0.weight"] * gate.view(-1, 1, 1, 1)}
        return functional_call(net, {**weights, **changed}, (images,))

    wanted = _dense(logits, 4, len(images))
    channels = next(one.rows for one in places.filters if one.layer.name == "0")
    np.testing.assert_allclose(gates.channels(len(images))[channels], wanted, rtol=1e-6)


def test_drawn_labels_give_gates_in_the_mean(net: nn.Module, images: torch.Tensor) -> None:
    places = _places(net)
    exact, drawn = Gates(places), Gates(places)
    generator = torch.Generator().manual_seed(0)
    diagonal(net.double(), [images], draws=None, observer=exact)
    diagonal(net, [images], draws=600, generator=generator, observer=drawn)
    wanted = exact.channels(len(images))
    assert np.abs(drawn.channels(len(images)) - wanted).sum() / wanted.sum() < 0.15


def test_weights_that_push_one_way_lose_more_together() -> None:
    """A linear layer that sums n equal inputs into a channel: the loss of all is n^2 times that of one, the diagonal knows n of it."""
    count = 8
    adding = nn.Linear(count, 1, bias=False)
    nn.init.ones_(adding.weight)
    net = nn.Sequential(adding, nn.Linear(1, 2, bias=False))
    images = torch.ones(3, count, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [3.0]])
    places = find_places(trace(net, (count,)))
    net = net.double()
    gates = Gates(places)
    weights = dict(net.named_parameters())
    hessian = {
        f"{path}.weight": value
        for path, value in diagonal(net, [images], draws=None, observer=gates).items()
    }
    losses = quadratic_loss(weights, hessian)
    found = coherence(places, losses, gates.channels(3), gates.inputs(3))
    channel = next(one.rows for one in places.filters if one.layer.name == "0")
    # created by n weights (their sum is 1/n of the whole), read by a slice of two: the mean of both sums is what it is compared with
    whole = gates.channels(3)[channel[0]]
    alone = (whole / count + float(losses["1.weight"].sum())) / 2
    assert found.channels[channel[0]] == pytest.approx(whole / alone)
    assert float(losses["0.weight"].sum()) == pytest.approx(whole / count)
