"""What layers, means and element-wise functions multiply what they read by, and the squares of it, sent backward (Yang 2019, 4-8, 4-10, 4-13)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.grad import conv2d_input

from trainables.bayesnas.compression.curvature import Measurable


def pull(
    layer: Measurable, read: torch.Tensor, signal: torch.Tensor, *, squared: bool = False
) -> torch.Tensor:
    """What a layer's coefficients, or their squares, send back."""
    power = 2 if squared else 1
    if isinstance(layer, nn.Linear):
        return signal @ layer.weight.pow(power)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        weight = layer.weight.pow(power)
        if (
            isinstance(layer, nn.Conv2d)
            and not isinstance(layer.padding, str)
            and layer.padding_mode == "zeros"
        ):
            places = (layer.stride, layer.padding, layer.dilation, layer.groups)
            # without a pass forward
            return conv2d_input(read.shape, weight, signal, *places)  # pyright: ignore[reportArgumentType] - the stub has no tuples
        return torch.func.vjp(lambda x: layer._conv_forward(x, weight, None), read)[1](signal)[0]
    assert layer.running_var is not None
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    return signal * scale.pow(power).view(1, -1, *[1] * (read.ndim - 2))


def mean_coefficient(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    written: torch.Tensor,
) -> torch.Tensor | float:
    """What a mean multiplies each of its terms by: one number, or [1, 1, ...] for the places that are written."""
    read: torch.Tensor = args[0]
    if name == "mean":
        return written[0].numel() / read[0].numel()
    ones = torch.ones_like(read[:1, :1])
    if name != "avg_pool2d":  # windows of several sizes may overlap, but few numbers are written
        dense = torch.func.jacrev(lambda x: function(x, *args[1:], **kwargs))(ones)
        return dense.flatten(-ones.ndim).amax(-1)
    if isinstance(function, nn.AvgPool2d):
        count: Callable[..., torch.Tensor] = copy.copy(function)
        count.divisor_override = 1
    else:
        count = partial(function, divisor_override=1)
    rest = args[1:]
    return function(ones, *rest, **kwargs) / count(ones, *rest, **kwargs)


def slope_of(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """sigma' of an element-wise function."""
    return torch.func.vjp(function, at)[1](torch.ones_like(at))[0]


def derivatives(
    function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sigma' and sigma'' of an element-wise function."""
    found = torch.func.vjp(lambda x: slope_of(function, x), at)
    return found[0], found[1](torch.ones_like(found[0]))[0]
