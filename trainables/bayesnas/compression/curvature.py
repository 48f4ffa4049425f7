"""The diagonal of the generalised Gauss-Newton matrix of a network's weights, batched.

With logits z(W) of one image, p = softmax(z) and J = dz/dW, the matrix of the cross-entropy is J^T (diag p - p p^T) J; its diagonal is never negative.
That of distillation at the temperature T, whose loss is multiplied by T^2, is the same with p = softmax(z / T); a mixture of losses has the mixture.

* `draws` labels y drawn from p: the mean square of d(-log p_y)/dW is the diagonal in expectation (the Fisher information), from one pass backward a
  draw;
* exactly: diag p - p p^T = sum_c u_c u_c^T with u_c = sqrt(p_c) (e_c - p), one pass backward a class.

The mean is over images, as the loss's. A weight that is used at many places of an image has one gradient for each image, the sum over its
places: so must its square be taken (the thesis averages over places, 4-13).

The same gradients say what the matrix has beside its diagonal along one direction: that of a whole slice of weights, d/ds of the loss where the slice is
multiplied by s, is the sum of w dE/dw over it (`Slopes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import pad, unfold

Inputs = dict[str, list[tuple[torch.Tensor, torch.Tensor]]]
"""For each layer what it read and what it wrote, once for each call."""

Signals = Sequence[tuple[torch.Tensor, torch.Tensor | None]]
"""For each call of a layer what it read, and the gradient of what it wrote; None: the loss does not depend on it."""

_CHUNK = 1 << 19
"""So many gradients of single images are held at a time, as numbers: what a core's cache holds."""


@dataclass(frozen=True, eq=False)
class Slopes:
    """The sums of w dE/dw over the slices of one layer's weight, for each image.

    Attributes:
        columns: [B, in / groups] over the weights that read an input channel; of BatchNorm over each single weight.
        rows: [B, out] over each filter's weights; None: nobody wanted them.
    """

    columns: torch.Tensor
    rows: torch.Tensor | None


class Observer(Protocol):
    """Who is told the slopes of all layers."""

    def wants_rows(self, path: str) -> bool:
        """Whether the rows of a layer are wanted, too."""
        ...

    def add(self, slopes: Mapping[str, Slopes]) -> None:
        """Takes the slopes, path -> slopes, once for each batch and draw (each class, where the matrix is exact): the sum of their squares over
        draws (classes) estimates (is) the matrix along the slice."""
        ...


Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Measurable = nn.Linear | nn.Conv1d | nn.Conv2d | Norm


def measurable(module: nn.Module) -> dict[str, Measurable]:
    """The layers whose weights have a curvature here: path -> layer."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, Measurable) and isinstance(layer.weight, torch.Tensor)
    }


def diagonal(
    module: nn.Module,
    batches: Iterable[torch.Tensor],
    *,
    layers: Iterable[str] | None = None,
    draws: int | None = 1,
    temperatures: Mapping[float, float] | None = None,
    generator: torch.Generator | None = None,
    observer: Observer | None = None,
) -> dict[str, torch.Tensor]:
    """The diagonal for the weight of every measurable layer.

    Args:
        module: a classifier; it is run in evaluation mode.
        batches: [B, C, H, W] images.
        layers: paths of the layers to measure; None: all that are measurable.
        draws: labels drawn for each image; None: the exact diagonal.
        temperatures: T -> the share of its loss, the shares adding up to 1; None: the cross-entropy alone, T = 1.
        generator: of the labels, on the CPU.
        observer: is told the slopes on the way.

    Returns:
        path of the layer -> a tensor of its weight's shape, the mean over all images.
    """
    found = measurable(module)
    chosen = {name: found[name] for name in (found if layers is None else layers)}
    totals = {name: torch.zeros_like(layer.weight) for name, layer in chosen.items()}
    was_training = module.training
    module.eval()
    seen = 0
    with torch.enable_grad():
        for images in batches:
            seen += len(images)
            with _recorded(chosen) as calls:
                logits = module(images.detach().requires_grad_())
            outputs = [written for pairs in calls.values() for _, written in pairs]
            for direction in _directions(logits, draws, temperatures or {1.0: 1.0}, generator):
                gradients = iter(
                    torch.autograd.grad(
                        logits, outputs, direction, retain_graph=True, allow_unused=True
                    )
                )
                slopes: dict[str, Slopes] = {}
                for name, pairs in calls.items():
                    signals = [(read, next(gradients)) for read, _ in pairs]
                    layer = chosen[name]
                    if observer is None:
                        _add_squares(totals[name], layer, signals)
                    elif found_here := _add_squares_and_tell(
                        totals[name], layer, signals, rows=observer.wants_rows(name)
                    ):
                        slopes[name] = found_here
                if observer is not None:
                    observer.add(slopes)
    module.train(was_training)
    with torch.no_grad():
        return {name: total / max(1, seen) for name, total in totals.items()}


def _directions(
    logits: torch.Tensor,
    draws: int | None,
    temperatures: Mapping[float, float],
    generator: torch.Generator | None,
) -> Iterator[torch.Tensor]:
    """[B, K] what to send backward."""
    shares = torch.tensor(list(temperatures.values()), dtype=torch.float64)
    chances = torch.stack([(logits.detach() / t).softmax(dim=1) for t in temperatures])  # [T, B, K]
    if draws is None:
        for share, of_one in zip(shares.tolist(), chances, strict=True):
            for label in range(logits.shape[1]):
                unit = torch.zeros_like(of_one)
                unit[:, label] = 1
                yield (share * of_one[:, label : label + 1]).sqrt() * (unit - of_one)
        return
    images = torch.arange(len(logits), device=logits.device)
    for _ in range(draws):
        which = torch.multinomial(shares, len(logits), replacement=True, generator=generator)
        drawn = chances[which.to(logits.device), images]  # [B, K]
        label = torch.multinomial(drawn.cpu(), 1, generator=generator).to(drawn.device)
        unit = torch.zeros_like(drawn).scatter_(1, label, 1)
        yield (unit - drawn) / draws**0.5


@contextmanager
def _recorded(layers: Mapping[str, Measurable]) -> Iterator[Inputs]:
    calls: Inputs = {name: [] for name in layers}
    handles = []
    for name, layer in layers.items():

        def keep(_: nn.Module, args: Any, output: torch.Tensor, name: str = name) -> None:
            calls[name].append((args[0].detach(), output))

        handles.append(layer.register_forward_hook(keep))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _add_squares(total: torch.Tensor, layer: Measurable, signals: Signals) -> None:
    """Adds, over the images, the squares of each image's gradient, which is summed over the layer's calls."""
    if (one := _outer(layer, signals)) is not None:
        read, signal = one
        total += signal.square().T @ read.square()  # [out, in]: squares of outer products
        return
    for gradient in _chunks(layer, signals):
        total += gradient.square_().sum(0).view_as(total)


@torch.no_grad()
def _add_squares_and_tell(
    total: torch.Tensor, layer: Measurable, signals: Signals, *, rows: bool
) -> Slopes | None:
    """The same, and the slopes; None: the loss does not depend on the layer."""
    weight = layer.weight
    if (one := _outer(layer, signals)) is not None:
        _add_squares(total, layer, signals)
        read, signal = one
        columns = (signal @ weight).mul_(read)
        return Slopes(columns, signal * (read @ weight.T) if rows else None)
    found: list[Slopes] = []
    for gradient in _chunks(layer, signals):
        if weight.ndim == 1:
            each = gradient * weight
            found.append(Slopes(each, each if rows else None))
        else:
            each = gradient.view(len(gradient), len(weight), -1) * weight.flatten(1)
            columns = each.sum(1).view(len(each), weight.shape[1], -1).sum(2)
            found.append(Slopes(columns, each.sum(2) if rows else None))
        total += gradient.square_().sum(0).view_as(total)
    if not found:
        return None
    by_row = [one.rows for one in found if one.rows is not None]
    return Slopes(torch.cat([one.columns for one in found]), torch.cat(by_row) if by_row else None)


def _outer(layer: Measurable, signals: Signals) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a linear layer read, and the gradient of what it wrote, where each image's gradient is their outer product."""
    if len(signals) != 1 or not isinstance(layer, nn.Linear):
        return None
    read, signal = signals[0]
    return (read, signal) if signal is not None and read.ndim == 2 else None


def _chunks(layer: Measurable, signals: Signals) -> Iterator[torch.Tensor]:
    """[b, ...] the gradients of single images, some images at a time."""
    used = [(read, signal) for read, signal in signals if signal is not None]
    if not used:
        return
    step = max(1, _CHUNK // max(1, layer.weight.numel()))
    for start in range(0, len(used[0][0]), step):
        parts = [
            _gradients(layer, read[start : start + step], signal[start : start + step])
            for read, signal in used
        ]
        yield parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _gradients(layer: Measurable, read: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """[B, ...] the gradient of a layer's weight for each image.

    Args:
        read: [B, ...] its input.
        signal: [B, ...] the gradient of its output.
    """
    if isinstance(layer, nn.Linear):
        return torch.einsum("b...o,b...i->boi", signal, read)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return conv_gradients(layer, read, signal)
    normal = normalised(layer, read)
    return (signal * normal).flatten(2).sum(2) if read.ndim > 2 else signal * normal


def normalised(layer: Norm, read: torch.Tensor) -> torch.Tensor:
    """What BatchNorm in evaluation mode makes of its input before its factors and offsets."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    shape = (1, -1, *[1] * (read.ndim - 2))
    scale = (layer.running_var + layer.eps).rsqrt()
    return (read - layer.running_mean.view(shape)) * scale.view(shape)


def conv_gradients(
    layer: nn.Conv1d | nn.Conv2d, read: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    """[B, out, in / groups * kernel] the sums over places of signal times what the kernel sees there."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    read = pad(read, layer._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv1d):
        read, signal = read.unsqueeze(2), signal.unsqueeze(2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    windows = unfold(read, kernel, dilation=dilation, stride=stride)  # [B, in * kernel, L]
    signal = signal.flatten(2)  # [B, out, L]
    if layer.groups == 1:
        return signal @ windows.transpose(1, 2)
    parts = signal.unflatten(1, (layer.groups, -1))
    windows = windows.unflatten(1, (layer.groups, -1))
    return (parts @ windows.transpose(2, 3)).flatten(1, 2)
