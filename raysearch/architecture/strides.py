"""Which reshapes and linear layers copy: torch makes a view where it can, and a new tensor where permuted axes are merged.

The strides of every tensor are played through as torch would lay them out. What an opaque layer
makes is not known; reshapes and linear layers that read it take it for dense.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape

Strides = tuple[int, ...]
"""The distance of neighbours along each axis after the batch, in elements."""

_ELEMENT_WISE = frozenset({"unary", "add", "binary", "param_binary", "prelu"})
_MAPS = frozenset({"conv", "pool", "adaptive_pool", "batch_norm", "resize"})
"""Operations that answer a map whose channels lie innermost with one like it."""
_FOLLOWING = _ELEMENT_WISE | _MAPS | {"identity", "dropout", "slice", "permute"}
_LAYING_OUT = frozenset({"layer_norm", "rms_norm", "linear"})
"""Operations whose output is dense whatever the layout of their input."""


def mark_copies(architecture: Architecture) -> Architecture:
    """The network with `contiguous` set on the reshapes that copy, and `strided` on the linear layers whose input is not dense."""
    strides: dict[str, Strides | None] = {}
    layers: list[Layer] = []
    for layer in architecture.layers:
        found, copies = _play(architecture, layer, strides)
        if copies:
            layer = replace(layer, attrs={**layer.attrs, "contiguous": True})
        if layer.op == "linear" and (rows := _rows(*_source(architecture, layer, strides))):
            layer = replace(layer, attrs={**layer.attrs, "strided": rows})
        strides[layer.name] = found
        layers.append(layer)
    return replace(architecture, layers=tuple(layers))


def laid_out_anew(architecture: Architecture) -> frozenset[str]:
    """The layers whose output is dense though their input of the same shape is not, or may not be.

    Without one of them others would read a permuted tensor, and copy it where nobody expects it.
    """
    strides: dict[str, Strides | None] = {}
    found = set()
    for layer in architecture.layers:
        ours, _ = _play(architecture, layer, strides)
        strides[layer.name] = ours
        if layer.op not in _LAYING_OUT:
            continue
        shape, theirs = _source(architecture, layer, strides)
        if shape == layer.shape and (theirs is None or not _is_dense(shape, theirs)):
            found.add(layer.name)
    return frozenset(found)


def _source(
    architecture: Architecture, layer: Layer, strides: Mapping[str, Strides | None]
) -> tuple[Shape, Strides | None]:
    """What arrives in the first slot."""
    first = layer.inputs[0][0]
    return architecture[first].shape, strides[first]


def _play(
    architecture: Architecture, layer: Layer, strides: Mapping[str, Strides | None]
) -> tuple[Strides | None, bool]:
    """The strides of a layer's output, None where they are not known, and whether it is a reshape that copies."""
    sources = [(architecture[slot[0]].shape, strides[slot[0]]) for slot in layer.inputs]
    if layer.op == "opaque":
        return None, False
    if layer.op == "reshape":
        shape, theirs = sources[0]
        found = _reshaped(layer, shape, dense(shape) if theirs is None else theirs)
        return (dense(layer.shape), True) if found is None else (found, False)
    unknown = any(theirs is None for _, theirs in sources)
    if unknown and layer.op in _FOLLOWING and not layer.attrs.get("contiguous"):
        return None, False
    known = [(shape, dense(shape) if theirs is None else theirs) for shape, theirs in sources]
    return _made(layer, known), False


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


def _is_dense(shape: Shape, strides: Strides) -> bool:
    pairs = zip(shape, strides, dense(shape), strict=True)
    return all(size == 1 or ours == theirs for size, ours, theirs in pairs)


def _rows(shape: Shape, strides: Strides | None) -> str:
    """How a linear layer gets at the rows of its input: "" dense as they are, "view", or "copy"."""
    if strides is None or _is_dense(shape, strides):
        return ""
    return "view" if _merged(shape[:-1], strides[:-1]) else "copy"
