"""The diagonal against the dense matrix J^T (diag p - p p^T) J."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from trainables.bayesnas.compression.curvature import diagonal


class _Net(nn.Module):
    """Strided, padded, grouped and shared convolutions, BatchNorm, and a linear layer behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2, bias=False)
        self.head = nn.Linear(4 * 3 * 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = self.grouped(torch.tanh(self.grouped(x)))  # called twice
        return self.head(x.flatten(1))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    module = _Net().double()
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(module.norm.weight, 0.5, 2)
    return module.eval()


def _dense(module: nn.Module, images: torch.Tensor, name: str, temperature: float) -> torch.Tensor:
    parameters = dict(module.named_parameters())

    def logits(weight: torch.Tensor) -> torch.Tensor:
        return functional_call(module, {**parameters, name: weight}, (images,))

    jacobian = jacrev(logits)(parameters[name]).flatten(2)  # [B, K, P]
    p = (logits(parameters[name]) / temperature).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    found = torch.einsum("bkp,bkl,blp->p", jacobian, middle, jacobian) / len(images)
    return found.view_as(parameters[name]).detach()


@pytest.mark.parametrize("temperatures", [{1.0: 1.0}, {1.0: 0.3, 4.0: 0.7}])
def test_the_exact_diagonal_is_that_of_the_dense_matrix(
    net: nn.Module, temperatures: dict[float, float]
) -> None:
    images = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    found = diagonal(net, images.split(2), draws=None, temperatures=temperatures)
    assert set(found) == {"first", "norm", "grouped", "head"}
    for path, values in found.items():
        wanted = sum(
            share * _dense(net, images, f"{path}.weight", t) for t, share in temperatures.items()
        )
        torch.testing.assert_close(values, wanted)


def test_drawn_labels_give_the_diagonal_in_the_mean(net: nn.Module) -> None:
    images = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    temperatures = {1.0: 0.5, 3.0: 0.5}
    exact = diagonal(net, [images], draws=None, temperatures=temperatures)
    drawn = diagonal(net, [images], draws=600, temperatures=temperatures, generator=generator)
    for path, values in exact.items():
        assert float((drawn[path] - values).abs().sum() / values.sum()) < 0.15


def test_the_curvature_leaves_mode_and_weights_alone(net: nn.Module) -> None:
    before = {key: value.clone() for key, value in net.state_dict().items()}
    diagonal(net.train(), [torch.randn(2, 2, 6, 6, dtype=torch.float64)])
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
