"""Shrinkage: fewer filters, smaller windows, less padding (N2N, section 3.2.2).

* Filters: channels that exist or vanish together take one factor, that of their first producer; n' = max(int(n a), 10).
* Kernels: k' is the odd (even) number nearest to k a, for k odd (even), with p' = p - d (k - k') / 2, which keeps the size of the
  feature map. DEVIATION from the authors' int(k a): windows on parallel paths must agree on that size.
* Padding: p' = int(p a), on layers that all paths lead through. There, too, a kernel may shrink that is not padded enough to keep the
  size. The shapes behind such a layer are inferred again, and a linear layer is bound to the features that arrive.

What would not make a network is refused, and the factor counts as 1: a change of size on one of several parallel paths, or one that some
layer behind does not take (paths that round differently, a slice of a map), and another window where two layers share the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raysearch.architecture.channels import analyse
from raysearch.architecture.checks import check_shared, infer_shapes
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS, Shape
from raysearch.architecture.paths import cut_vertices
from raysearch.architecture.refit.removal import with_sizes
from raysearch.architecture.refit.rules import (
    FACTORS,
    Refit,
    Rules,
    deciding_producers,
    may_shrink,
)
from raysearch.errors import InvalidArchitecture


def shrink_layers(
    network: Architecture,
    factors: Sequence[Sequence[float]] | np.ndarray,
    rules: Rules | None = None,
) -> Refit:
    """Shrinks layers.

    Args:
        network: what is edited.
        factors: [L, 3] in (0, 1], columns as in `FACTORS`; 1 keeps.
        rules: what stays on principle.

    Returns:
        The student and the factors that were executed.

    Raises:
        InvalidArchitecture: the factors have another shape or range.
    """
    rules = rules or Rules()
    asked = _checked(network, factors)
    executed = np.ones_like(asked)
    student = _shrink_filters(network, asked[:, 0], executed[:, 0], rules)
    allowed, cuts = may_shrink(network, rules), cut_vertices(network)
    for place in np.flatnonzero(((asked < 1) & allowed)[:, 1:].any(axis=1)).tolist():
        for keys in ((1, 2), (1,), (2,)):  # both; else the kernel alone; else the padding alone
            trial = np.ones(len(FACTORS))
            trial[list(keys)] = asked[place, keys]
            trial[~allowed[place]] = 1.0
            free = rules.free_padding and place in cuts
            if (trial < 1).any() and (found := _with_window(student, place, trial, free)):
                student = found
                executed[place, 1:] = trial[1:]
                break
    return Refit(network, student, executed)


def _checked(network: Architecture, factors: Any) -> np.ndarray:
    try:
        asked = np.array(factors, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArchitecture("factors must be numbers, three for each layer") from None
    if asked.shape != (len(network.layers), len(FACTORS)):
        raise InvalidArchitecture(
            f"factors has shape {asked.shape}: give {len(FACTORS)} for each of {len(network.layers)} layers"
        )
    if not np.all((asked > 0) & (asked <= 1)):
        raise InvalidArchitecture("factors holds a number outside (0, 1]")
    return asked


def _shrink_filters(
    network: Architecture, asked: np.ndarray, executed: np.ndarray, rules: Rules
) -> Architecture:
    """The network with fewer channels; writes the factors that count into `executed` [L]."""
    analysis = analyse(network)
    deciding = deciding_producers(network, analysis, rules)
    sizes: dict[int, int] = {}
    for number, first in enumerate(deciding):
        if first is None:
            continue
        variable, factor = analysis.variables[number], asked[network.index[first]]
        sizes[number] = _fewer(variable.size, variable.divisor, factor, rules.min_channels)
    student = with_sizes(network, analysis, sizes)
    for number, first in enumerate(deciding):
        if first is not None:
            for name in analysis.variables[number].producers:
                executed[network.index[name]] = asked[network.index[first]]
    return student


def _fewer(size: int, divisor: int, factor: float, least: int) -> int:
    """size * factor, not below `least` or the size itself, whichever is smaller, then up to a multiple of the divisor."""
    wanted = max(int(size * factor), min(least, size))
    return min(size, -(-max(wanted, 1) // divisor) * divisor)


def _with_window(
    network: Architecture, place: int, factors: np.ndarray, free: bool
) -> Architecture | None:
    """The network with another window in one layer; None where that is refused.

    Args:
        factors: [3], of which kernel and padding count.
        free: the size of the feature map may change.
    """
    layer = network.layers[place]
    attrs = _window(layer, factors[1], factors[2], free)
    if attrs is None:
        return None
    changed = replace(layer, attrs={**layer.attrs, **attrs})
    layers = (*network.layers[:place], changed, *network.layers[place + 1 :])
    student = Architecture(network.input_shape, layers, network.output)
    try:
        shapes = [network[slot[0]].shape for slot in layer.inputs]
        check_shared(layers)
        if OPS[layer.op].out_shape(changed.attrs, shapes) == layer.shape:
            return student
        return _reshaped(student) if free else None
    except InvalidArchitecture:
        return None


def _window(
    layer: Layer, kernel_factor: float, padding_factor: float, free: bool
) -> dict[str, list[int]] | None:
    """The new kernel and padding; None where the padding would be negative and the size must stay."""
    kernel, padding = layer.attrs["kernel"], layer.attrs["padding"]
    dilation = layer.attrs.get("dilation") or [1] * len(kernel)
    kernels = [_nearest(k, kernel_factor) for k in kernel]
    paddings = [
        p - d * (k - smaller) // 2
        for p, d, k, smaller in zip(padding, dilation, kernel, kernels, strict=True)
    ]
    if padding_factor < 1:
        paddings = [int(p * padding_factor) for p in padding]
    if min(paddings) < 0:
        if not free:
            return None
        paddings = [max(p, 0) for p in paddings]
    if layer.op == "pool":  # torch's limit
        paddings = [min(p, k // 2) for p, k in zip(paddings, kernels, strict=True)]
    return {"kernel": kernels, "padding": paddings}


def _nearest(kernel: int, factor: float) -> int:
    """The number nearest to kernel * factor that is odd or even as the kernel is, at least 1."""
    steps = math.floor(kernel * (1 - factor) / 2 + 0.5)
    return kernel - 2 * min(steps, (kernel - 1) // 2)


def _reshaped(network: Architecture) -> Architecture:
    """The network with the shapes that follow from its attributes; linear layers take the features that arrive.

    Raises:
        InvalidArchitecture: some layer does not take what arrives, or the output would have another shape.
    """
    shapes: dict[str, Shape] = {}
    layers = []
    for layer in network.layers:
        arriving = [shapes[slot[0]] for slot in layer.inputs]
        if layer.op == "input":
            arriving = [network.input_shape]
        if arriving[0] != _arrived(network, layer):
            layer = replace(layer, attrs={**layer.attrs, **_rebound(network, layer, arriving[0])})
        shape = OPS[layer.op].out_shape(layer.attrs, arriving)
        if shape != layer.shape:
            layer = replace(layer, shape=shape)
        shapes[layer.name] = shape
        layers.append(layer)
    student = Architecture(network.input_shape, tuple(layers), network.output)
    infer_shapes(student)
    check_shared(layers)
    if student[student.output].shape != network[network.output].shape:
        raise InvalidArchitecture("the output would have another shape")
    return student


def _arrived(network: Architecture, layer: Layer) -> Shape:
    return network[layer.inputs[0][0]].shape if layer.inputs else network.input_shape


def _rebound(network: Architecture, layer: Layer, arriving: Shape) -> dict[str, int]:
    """The attributes that say what size arrives: a linear layer's features, the end of a slice that reaches to the end."""
    before = _arrived(network, layer)
    if layer.op == "linear" and len(arriving) == 1:
        return {"in_features": arriving[0]}
    if layer.op == "slice":
        dim = layer.attrs["dim"]
        if layer.attrs["stop"] == before[dim]:
            return {"stop": arriving[dim]}
        if arriving[dim] != before[dim]:
            raise InvalidArchitecture(f"{layer.name} takes a part of a map that has another size")
    return {}
