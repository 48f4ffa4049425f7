"""The recursion against torch.func.hessian where it must be exact, and against squares of dense Jacobians elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.func import functional_call, hessian, jacrev

from raysearch.errors import ConfigError
from raysearch.models import build, trace
from trainables.bayesnas.recursion import recursive_diagonal, recursive_factors_diagonal


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
    found = recursive_diagonal(built, [(images, torch.zeros(3).long())], output=_squares)  # pyright: ignore[reportArgumentType]
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
            self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.head(x * torch.sigmoid(x))

    odd = build(trace(Odd(), (4,)), inherit_from=Odd())
    with pytest.raises(ConfigError, match=r"search.options.hessian.*mul"):
        recursive_diagonal(odd, [(torch.randn(2, 4), torch.tensor([0, 1]))])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), (5, 4)),
        (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (6, 5)),
        (nn.AvgPool2d(2), (4, 4)),
        (nn.AdaptiveAvgPool2d(1), (3, 4)),
        (nn.AdaptiveAvgPool2d(3), (5, 4)),
        (nn.AvgPool1d(3, 2, padding=1), (6,)),
        (nn.AdaptiveAvgPool1d(2), (5,)),
        (nn.MaxPool2d(3, 1, padding=1), (4, 4)),
    ],
)
@pytest.mark.parametrize("as_function", [False, True])
def test_pools_send_back_the_squares_of_their_coefficients(
    pool: nn.Module, size: tuple[int, ...], as_function: bool
) -> None:
    torch.manual_seed(4)
    conv = nn.Conv1d if len(size) == 1 else nn.Conv2d
    module = nn.Sequential(conv(1, 2, 1, bias=False), pool, nn.Flatten()).double()
    graph = fx.symbolic_trace(module)
    if as_function:
        graph = build(trace(module.float(), (1, *size)), inherit_from=module).double()
        module.double()
    image = torch.randn(1, 1, *size, dtype=torch.float64)
    found = recursive_diagonal(graph, [(image, torch.zeros(1).long())], output=_squares)  # pyright: ignore[reportArgumentType]
    dense = jacrev(module[1:])(module[0](image)).reshape(-1, 2, image.numel())  # [written, C, read]
    wanted = (dense.square() * image.flatten().square()).sum((0, 2))
    torch.testing.assert_close(found["0"].flatten(), wanted)


def _squares(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the sum of squares as the loss."""
    del labels
    return torch.ones_like(logits), logits


class _Paths(nn.Module):
    """Two operations on one image, added, each multiplied by a factor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 3, 3, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return (self.wide(images) * factors[0] + factors[1] * self.deep(images)).flatten(1)


def test_under_a_squared_loss_factors_before_the_output_are_exact_and_sum_over_places() -> None:
    torch.manual_seed(5)
    net = _Paths().double()
    images, factors = torch.randn(3, 2, 4, 4).double(), torch.tensor([0.7, -1.3]).double()
    found = recursive_factors_diagonal(
        fx.symbolic_trace(net), images, factors, torch.zeros(3).long(), output=_squares
    )
    exact = hessian(lambda w: net(images, w).square().sum() / 6)(factors)
    assert isinstance(exact, torch.Tensor)
    torch.testing.assert_close(found, exact.diagonal())


class _Chain(nn.Module):
    """Of width one: factor, tanh, factor, sigmoid, and the logit of one of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x) * factors[0])
        x = torch.sigmoid(self.second(x) * factors[1])
        return self.head(x) * factors[2]


def test_factors_of_a_chain_of_width_one_are_exact_and_never_negative() -> None:
    negative = 0
    for seed in range(8):
        torch.manual_seed(seed)
        net = _Chain().double()
        x, factors, labels = (
            torch.randn(4, 1).double(),
            torch.randn(3).double(),
            torch.rand(4) > 0.5,
        )

        def output(z: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            p = z.sigmoid()
            return p * (1 - p), p - labels[:, None]

        def loss(w: torch.Tensor, net=net, x=x, labels=labels) -> torch.Tensor:
            z = net(x, w)[:, 0]
            return nn.functional.binary_cross_entropy_with_logits(z, labels.double())

        exact = hessian(loss)(factors)
        assert isinstance(exact, torch.Tensor)
        found = recursive_factors_diagonal(
            fx.symbolic_trace(net), x, factors, labels.double(), output=output
        )
        torch.testing.assert_close(found, exact.diagonal().clamp(min=0))
        negative += int(exact.diagonal().lt(0).sum())
    assert negative


def test_a_factor_that_is_read_twice_has_the_sum() -> None:
    class Two(nn.Module):
        def __init__(self, second: int) -> None:
            super().__init__()
            torch.manual_seed(6)
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 3)
            self.place = second

        def forward(self, x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x) * factors[0])
            return self.head(x + x.sigmoid() * factors[self.place])

    x, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    apart, shared = (
        recursive_factors_diagonal(fx.symbolic_trace(Two(k)), x, torch.full((2,), 0.8), labels)
        for k in (1, 0)
    )
    assert apart.gt(0).all()
    torch.testing.assert_close(shared, torch.stack([apart.sum(), torch.tensor(0.0)]))
