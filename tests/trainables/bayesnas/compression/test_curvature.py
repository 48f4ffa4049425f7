"""The diagonals against dense matrices: J^T (diag p - p p^T) J, and torch.func.hessian where the recursion must be exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

from raysearch.errors import ConfigError
from raysearch.models import build, trace
from trainables.bayesnas.compression.curvature import diagonal
from trainables.bayesnas.compression.recursion import recursive_diagonal


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


def _hessian_diagonal(module: nn.Module, images, labels, name: str) -> torch.Tensor:
    parameters = {key: value.detach() for key, value in module.named_parameters()}

    def loss(weight: torch.Tensor) -> torch.Tensor:
        logits = functional_call(
            module, {**parameters, name: weight.view_as(parameters[name])}, (images,)
        )
        return nn.functional.cross_entropy(logits, labels)

    full = hessian(loss)(parameters[name].flatten())
    return full.diagonal().view_as(parameters[name])


def test_the_recursion_is_exact_for_the_last_layer() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    built = build(trace(module, (4,)), inherit_from=module).double()
    images, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    found = recursive_diagonal(built, [(images, labels)])  # pyright: ignore[reportArgumentType] - a GraphModule
    torch.testing.assert_close(found["2"], _hessian_diagonal(built, images, labels, "2.weight"))


def test_the_recursion_is_exact_for_a_chain_of_width_one() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(
        nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1), nn.Sigmoid(), nn.Linear(1, 2)
    )
    built = build(trace(module, (1,)), inherit_from=module).double()
    images, labels = torch.randn(5, 1, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    # two logits are not a chain: the loss must be a function of one number
    with torch.no_grad():
        built.get_parameter("4.weight")[1] = 0.0

    def output(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p = logits.softmax(1)
        keep = torch.tensor([1.0, 0.0], dtype=logits.dtype)
        gradient = p - nn.functional.one_hot(labels, 2)
        return p * (1 - p) * keep, gradient * keep

    found = recursive_diagonal(built, [(images, labels)], output=output)  # pyright: ignore[reportArgumentType]
    for name in ("0", "2"):
        wanted = _hessian_diagonal(built, images, labels, f"{name}.weight").clamp(min=0)
        torch.testing.assert_close(found[name], wanted)


def test_a_convolution_under_a_squared_loss_is_exact_and_sums_over_places() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten())
    built = build(trace(module, (2, 4, 4)), inherit_from=module).double()
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64)

    def output(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        del labels
        return torch.ones_like(logits), logits  # of half the squares' sum

    found = recursive_diagonal(built, [(images, torch.zeros(3).long())], output=output)  # pyright: ignore[reportArgumentType]
    weight = built.get_parameter("0.weight").detach()

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return (
            functional_call(built, {"0.weight": flat.view_as(weight)}, (images,)).square().sum() / 6
        )

    wanted = hessian(loss)(weight.flatten()).diagonal().view_as(weight)
    torch.testing.assert_close(found["0"], wanted)


def test_the_recursion_runs_through_residual_networks_and_refuses_what_it_does_not_know() -> None:
    from raysearch.models import load_teacher

    torch.manual_seed(0)
    resnet = load_teacher("resnet14", num_classes=3, input_shape=(1, 8, 8))
    built = build(trace(resnet, (1, 8, 8)), inherit_from=resnet)
    batch = (torch.randn(2, 1, 8, 8), torch.tensor([0, 2]))
    found = recursive_diagonal(built, [batch])  # pyright: ignore[reportArgumentType]
    assert all(torch.isfinite(values).all() and (values >= 0).all() for values in found.values())
    assert all(float(values.sum()) > 0 for values in found.values())

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x * torch.sigmoid(x))

    odd = build(trace(Odd(), (4,)), inherit_from=Odd())
    with pytest.raises(ConfigError, match=r"search.options.hessian.*mul"):
        recursive_diagonal(odd, [(torch.randn(2, 4), torch.tensor([0, 1]))])  # pyright: ignore[reportArgumentType]
