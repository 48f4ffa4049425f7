"""A module's parameters as views of one tensor, so that a step of a small network is a few operations and not a few for each layer."""

from __future__ import annotations

import torch
from torch import nn

_ALIGNED = 16  # numbers: a vector register, and a cache line of float32


class FlatParameters:
    """Moves what a module learns into one tensor for each type, and the gradients likewise.

    The module works as before: its parameters are the same objects, and load and save as they did. Their gradients are never None;
    `backward` adds to them, so `zero_grad` comes first. Whoever stores their memory must copy them: they share it.

    Attributes:
        parameters: one flat parameter for each type, for the optimiser; what an optimiser does to each number alone, it does to
            these as it would to the module's.
    """

    def __init__(self, module: nn.Module) -> None:
        """Takes the module over; it must not be moved to another device or type until `release`."""
        self._members = [weight for weight in module.parameters() if weight.requires_grad]
        types = dict.fromkeys(weight.dtype for weight in self._members)
        self.parameters = [
            _flatten([weight for weight in self._members if weight.dtype == dtype])
            for dtype in types
        ]

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for gradient in self._gradients():
            gradient.zero_()

    def clip_grad(self, max_norm: float) -> None:
        """Scales the gradients down to this Euclidean length, taken over all of them together, where they are longer."""
        gradients = self._gradients()
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        factor = (max_norm / (norm + 1e-6)).clamp_(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)

    def is_finite(self) -> bool:
        """Whether every number is."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

    def release(self) -> None:
        """Gives the module's parameters memory of their own again, and no gradients; this object is of no use afterwards."""
        for weight in self._members:
            weight.data = weight.data.clone()
            weight.grad = None

    def _gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


def _flatten(weights: list[nn.Parameter]) -> nn.Parameter:
    """One parameter with the numbers and the gradient of all of these, which become views of it."""
    starts, size = [], 0
    for weight in weights:
        starts.append(size)
        size += -(-weight.numel() // _ALIGNED) * _ALIGNED
    flat = nn.Parameter(weights[0].new_zeros(size))
    flat.grad = torch.zeros_like(flat)
    for weight, start in zip(weights, starts, strict=True):
        dense = weight.detach().clone()  # without gaps, in the layout that it had
        view = flat.data.as_strided(dense.shape, dense.stride(), start)
        view.copy_(dense)
        weight.data = view
        weight.grad = flat.grad.as_strided(dense.shape, dense.stride(), start)
    return flat
