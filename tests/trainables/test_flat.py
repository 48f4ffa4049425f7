"""Parameters in one tensor train as those of an ordinary module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trainables.flat import FlatParameters


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 5))


def _loss(module: nn.Module, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4, 2, 5, 5, generator=generator)
    dtype = next(module.parameters()).dtype
    return 20 * module(images.to(dtype)).square().sum()


@pytest.mark.parametrize("channels_last", [False, True])
def test_steps_are_those_of_an_ordinary_optimiser_with_clipped_gradients(
    channels_last: bool,
) -> None:
    module = _module()
    if channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.double()
    plain = copy.deepcopy(module)
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    flat = FlatParameters(module)
    ours = torch.optim.SGD(flat.parameters, **settings)  # type: ignore[arg-type]
    theirs = torch.optim.SGD(plain.parameters(), **settings)  # type: ignore[arg-type]
    for step in range(3):
        flat.zero_grad()
        _loss(module, step).backward()
        flat.clip_grad(0.5)
        ours.step()
        theirs.zero_grad()
        _loss(plain, step).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        theirs.step()
    for one, two in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=1e-9)
        assert one.stride() == two.stride()


def test_a_short_gradient_is_left_as_it_is() -> None:
    module = _module()
    flat = FlatParameters(module)
    _loss(module, 0).backward()
    before = [weight.grad.clone() for weight in module.parameters() if weight.grad is not None]
    flat.clip_grad(1e9)
    for weight, gradient in zip(module.parameters(), before, strict=True):
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient)


def test_what_is_not_trained_and_what_is_shared_stays_so() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    frozen = first.bias.data_ptr()
    flat = FlatParameters(nn.Sequential(first, second))
    assert sum(weight.numel() for weight in flat.parameters) == 32  # 16 + 4, each to a full line
    assert second.weight is first.weight
    assert first.bias.data_ptr() == frozen


def test_two_types_have_a_tensor_each_and_one_norm() -> None:
    single, double = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False).double()
    module = nn.Sequential(single, double)
    flat = FlatParameters(module)
    (3 * single.weight.sum() + 4 * double.weight.sum()).backward()
    flat.clip_grad(1.0)
    lengths = [
        weight.grad.norm().item() for weight in module.parameters() if weight.grad is not None
    ]
    assert lengths == pytest.approx([0.6, 0.8], rel=1e-4)


def test_a_released_module_owns_its_memory_and_has_no_gradients() -> None:
    module = _module()
    flat = FlatParameters(module)
    _loss(module, 0).backward()
    expected = copy.deepcopy(module.state_dict())
    flat.release()
    storages = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    assert len(storages) == len(list(module.parameters()))
    assert all(weight.grad is None for weight in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, expected[key])


def test_a_number_that_is_not_finite_is_found() -> None:
    module = _module()
    flat = FlatParameters(module)
    assert flat.is_finite()
    with torch.no_grad():
        next(module.parameters())[0, 0, 0, 0] = torch.nan
    assert not flat.is_finite()
