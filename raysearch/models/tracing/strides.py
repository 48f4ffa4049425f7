"""Which reshapes and linear layers copy: torch makes a view where it can, and a new tensor where permuted axes are merged.

The strides of every tensor are played through as torch would lay them out. What is not known is taken for dense, in the order of its axes.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape

Strides = tuple[int, ...]
"""The distance of neighbours along each axis after the batch, in elements."""

_ELEMENT_WISE = frozenset({"unary", "add", "binary", "param_binary", "prelu"})
_MAPS = frozenset({"conv", "pool", "adaptive_pool", "batch_norm", "resize"})
"""Operations that answer a map whose channels lie innermost with one like it."""


def mark_copies(architecture: Architecture) -> Architecture:
    """The network with `contiguous` set on the reshapes that copy, and `strided` on the linear layers whose input is not dense."""
    strides: dict[str, Strides] = {}
    layers: list[Layer] = []
    for layer in architecture.layers:
        sources = [(architecture[slot[0]].shape, strides[slot[0]]) for slot in layer.inputs]
        found = _reshaped(layer, *sources[0]) if layer.op == "reshape" else _made(layer, sources)
        if found is None:
            layer = replace(layer, attrs={**layer.attrs, "contiguous": True})
            found = dense(layer.shape)
        if layer.op == "linear" and (rows := _rows(*sources[0])):
            layer = replace(layer, attrs={**layer.attrs, "strided": rows})
        strides[layer.name] = found
        layers.append(layer)
    return replace(architecture, layers=tuple(layers))


def dense(shape: Shape) -> Strides:
    """The strides of a tensor that lies in the order of its axes."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _like(shape: Shape, other: Strides) -> Strides:
    """The strides of a dense tensor whose axes lie in the same order as another's."""
    strides, step = [0] * len(shape), 1
    for axis in sorted(range(len(shape)), key=lambda axis: (other[axis], -axis)):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def _made(layer: Layer, sources: list[tuple[Shape, Strides]]) -> Strides:
    """The strides of an output that is no reshape."""
    attrs = layer.attrs
    if layer.op in _ELEMENT_WISE:
        whole = (strides for shape, strides in sources if shape == layer.shape)
        other = next(whole, None)
        return dense(layer.shape) if other is None else _like(layer.shape, other)
    if layer.op in ("identity", "dropout"):
        return sources[0][1]
    if layer.op == "slice":
        strides = list(sources[0][1])
        strides[attrs["dim"]] *= attrs["step"]
        return tuple(strides)
    if layer.op == "permute" and not attrs["contiguous"]:
        return tuple(sources[0][1][dim] for dim in attrs["dims"])
    if layer.op in _MAPS and len(layer.shape) > 1:
        shape, strides = sources[0]
        if shape[0] > 1 and strides[0] < min(strides[1:]):
            return _like(layer.shape, strides)
    return dense(layer.shape)


def _reshaped(layer: Layer, shape: Shape, strides: Strides) -> Strides | None:
    """The strides of a view; None where there is none."""
    attrs = layer.attrs
    if attrs["mode"] == "split":
        dim, sizes = attrs["dim"], layer.shape[attrs["dim"] :][: len(attrs["sizes"])]
        parts = (strides[dim] * step for step in dense(sizes))
        return (*strides[:dim], *parts, *strides[dim + 1 :])
    whole = attrs["mode"] == "flatten"
    start, end = (0, len(shape) - 1) if whole else (attrs["start"], attrs["end"])
    axes = [axis for axis in range(start, end + 1) if shape[axis] > 1]
    if not _merged(shape[start : end + 1], strides[start : end + 1]):
        return None
    return (*strides[:start], strides[axes[-1]] if axes else 1, *strides[end + 1 :])


def _merged(shape: Shape, strides: Strides) -> bool:
    """Whether a view can make one axis of all of these."""
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    return all(
        strides[outer] == strides[inner] * shape[inner] for outer, inner in itertools.pairwise(axes)
    )


def _rows(shape: Shape, strides: Strides) -> str:
    """How a linear layer gets at the rows of its input: "" dense as they are, "view", or "copy"."""
    pairs = zip(shape, strides, dense(shape), strict=True)
    if all(size == 1 or ours == theirs for size, ours, theirs in pairs):
        return ""
    return "view" if _merged(shape[:-1], strides[:-1]) else "copy"
