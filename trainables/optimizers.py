"""SGD and AdamW on a few flat tensors, where each rule is a handful of operations.

torch's own optimisers compute the same; the first one that a process makes imports torch's compiler, a second that every worker
would wait for, and a step of theirs costs more than the arithmetic on a small network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # as in torch


class Optimizer(Protocol):
    """Changes the parameters that it was made for by their gradients."""

    def step(self, lr: float) -> None:
        """One update; all gradients are there."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that continuing needs, copied; loads with `torch.load(weights_only=True)`."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        ...


class SGD:
    """Stochastic gradient descent with Nesterov's momentum and L2 weight decay, as `torch.optim.SGD(nesterov=True)`."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, momentum: float, weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._momentum, self._weight_decay = momentum, weight_decay
        self._velocities = [torch.zeros_like(parameter.data) for parameter in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for parameter, velocity in zip(self._parameters, self._velocities, strict=True):
            gradient = _gradient(parameter).add_(parameter, alpha=self._weight_decay)
            velocity.mul_(self._momentum).add_(gradient)
            parameter.sub_(gradient.add_(velocity, alpha=self._momentum), alpha=lr)

    def state_dict(self) -> dict[str, Any]:
        return {"velocities": _copies(self._velocities)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _restore(self._velocities, state["velocities"])


class AdamW:
    """Adam with decoupled weight decay, as `torch.optim.AdamW`."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, weight_decay: float) -> None:
        self._parameters, self._weight_decay = parameters, weight_decay
        self._means = [torch.zeros_like(parameter.data) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter.data) for parameter in parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, lr: float) -> None:
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in _BETAS)  # what the zero start lacks
        moments = zip(self._parameters, self._means, self._squares, strict=True)
        for parameter, mean, square in moments:
            gradient = _gradient(parameter)
            mean.lerp_(gradient, 1 - _BETAS[0])
            square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            size = square.sqrt().div_(math.sqrt(second)).add_(_EPSILON)
            parameter.mul_(1 - lr * self._weight_decay).addcdiv_(mean, size, value=-lr / first)

    def state_dict(self) -> dict[str, Any]:
        return {
            "means": _copies(self._means),
            "squares": _copies(self._squares),
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _restore(self._means, state["means"])
        _restore(self._squares, state["squares"])
        self._steps = state["steps"]


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    """It is scratch memory: the next step forgets it."""
    assert parameter.grad is not None, "flat parameters always have a gradient"
    return parameter.grad


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.detach().cpu().clone() for tensor in tensors]


def _restore(tensors: Sequence[torch.Tensor], saved: Sequence[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, saved, strict=True):
        tensor.copy_(value)
