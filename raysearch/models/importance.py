"""How much each channel of a teacher matters: one score for each channel of each channel variable.

`l1`: the norm of a filter's weights (Li et al., "Pruning Filters for Efficient ConvNets", section 3.1). `taylor`: the first-order change
of the loss when a channel is set to zero (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3.1).
Coupled channels are one channel here: its score is that of all its filters together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from raysearch.architecture.axes import is_last
from raysearch.architecture.channels import ChannelAnalysis, analyse
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.parametric import PARAMETRIC, channel_entry
from raysearch.architecture.variables import Blocks
from raysearch.models.build import State, build, state_keys
from raysearch.models.states import with_folds

Batch = tuple[torch.Tensor, torch.Tensor]
"""(images [B, C, H, W], labels [B] int64 or the probabilities [B, K] that are the right answer)"""

_BY_CHANNEL = frozenset({"conv", "conv_transpose", "linear", "batch_norm"})
"""Operations with parameters (depthwise filters, biases, ...) whose first axis is that of their output's channels."""


def l1_importance(architecture: Architecture, state: State) -> list[np.ndarray]:
    """The sum of the absolute weights that create a channel, in all layers that do.

    Args:
        architecture: the teacher's.
        state: its weights.

    Returns:
        for each channel variable of `analyse(architecture)`, [size] float64.
    """
    analysis = analyse(architecture)
    state = with_folds(architecture, state)
    norms = {key: tensor.detach().abs().double() for key, tensor in state.items()}
    scores = ChannelSums(analysis)
    seen: set[str] = set()
    for layer, blocks in zip(architecture.layers, analysis.outputs, strict=True):
        key = state_keys(layer).get("weight", "")
        if creates_channels(architecture, layer) and key not in seen:
            seen.add(key)
            rows, _ = _rows_and_columns(layer, norms[key])
            scores.add(blocks, rows.cpu().numpy())
    return scores.values


def taylor_importance(
    architecture: Architecture, state: State, batches: Iterable[Batch]
) -> list[np.ndarray]:
    """|sum of w dL/dw| over all parameters of a channel, summed over batches.

    A channel's parameters are the rows that create it, its BatchNorm's, and the columns that read it, in all layers. The network
    runs in evaluation mode; L is the mean cross-entropy of a batch.

    Args:
        architecture: the teacher's.
        state: its weights; they decide the device.
        batches: one pass of gradients each.

    Returns:
        as `l1_importance`.
    """
    module = build(architecture, inherit_from=state).eval()
    parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
    analysis = analyse(architecture)
    totals = ChannelSums(analysis).values
    for images, targets in batches:
        loss = cross_entropy(module(images), targets)
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        changes = {
            key: (weight.detach() * gradient).double().cpu()
            for (key, weight), gradient in zip(parameters.items(), gradients, strict=True)
            if gradient is not None
        }
        scores = ChannelSums(analysis)
        for blocks, change in _by_channel(architecture, analysis, changes):
            scores.add(blocks, change.numpy())
        for total, score in zip(totals, scores.values, strict=True):
            total += np.abs(score)
    return totals


class ChannelSums:
    """Adds up numbers by the channels of channel variables.

    Attributes:
        values: for each variable, [size] float64.
    """

    def __init__(self, analysis: ChannelAnalysis) -> None:
        self.values = [np.zeros(variable.size) for variable in analysis.variables]

    def add(self, blocks: Blocks, numbers: np.ndarray) -> None:
        """Adds the numbers of an axis, [C], to the channels that stand there."""
        start = 0
        for variable, multiplicity in blocks:
            size = len(self.values[variable])
            part = numbers[start : start + size * multiplicity]
            self.values[variable] += part.reshape(size, multiplicity).sum(1)
            start += size * multiplicity


def _by_channel(
    architecture: Architecture, analysis: ChannelAnalysis, changes: Mapping[str, torch.Tensor]
) -> Iterator[tuple[Blocks, torch.Tensor]]:
    """(blocks, [C] sums) of every axis of every parameter that is an axis of channels; shared parameters once."""
    seen: set[str] = set()
    for layer, into, out in zip(
        architecture.layers, analysis.inputs, analysis.outputs, strict=True
    ):
        for role, key in state_keys(layer).items():
            change = changes.get(key)
            if change is None or key in seen:
                continue
            seen.add(key)
            if role == "weight" and creates_channels(architecture, layer):
                rows, columns = _rows_and_columns(layer, change)
                yield out, rows
                yield into, columns
                continue
            entry = _channel_entry(architecture, layer)
            if (
                entry is not None
                and change.shape[entry] == layer.shape[architecture.axis(layer.name)]
            ):
                yield out, change.movedim(entry, 0).reshape(change.shape[entry], -1).sum(1)


def _rows_and_columns(layer: Layer, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums [out] over everything that creates an output channel, and [in] over everything that reads an input channel."""
    groups = layer.attrs.get("groups", 1)
    first = weight.flatten(1).sum(1)
    second = weight.flatten(2).sum(2) if weight.ndim > 2 else weight  # [R, C / groups]
    second = second.unflatten(0, (groups, -1)).sum(1).flatten()  # [C]
    return (second, first) if layer.op == "conv_transpose" else (first, second)


def _channel_entry(architecture: Architecture, layer: Layer) -> int | None:
    """The axis of a layer's parameters, filters apart, that is that of its output's channels."""
    axis = architecture.axis(layer.name)
    if layer.op in PARAMETRIC:
        return channel_entry(layer.op, layer.attrs, len(layer.shape), axis)
    if layer.op == "linear" and not is_last(layer.shape, axis):
        return None
    return 0 if layer.op in _BY_CHANNEL else None


def creates_channels(architecture: Architecture, layer: Layer) -> bool:
    """Whether a layer's filters make new channels; a depthwise convolution changes those that it reads."""
    if layer.op in ("conv", "conv_transpose"):
        return not layer.attrs["groups"] == layer.attrs["in_channels"] > 1
    return layer.op == "linear" and is_last(layer.shape, architecture.axis(layer.name))
