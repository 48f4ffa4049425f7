"""Architecture Compression's view of a network: one row (t, k, o, s, p) a layer (eq 7), without edges.

    t type (1 conv, 2 max pool, 3 batch norm, 4 ReLU, 5 sigmoid, 6 dropout, 7 average pool, 8 linear) | k kernel | o outputs | s stride | p padding

0 where a layer lacks an attribute; o is the number of channels that arrive where a layer has no outputs of its own. A row of type 0 is
no layer (a removed one, or the end of a shorter sequence); type 9, which the paper does not have, is any other layer. Flattenings
have no row: one in front of the first linear layer is implied. Any network can be encoded, but only a chain can be decoded: the
sequence does not say what is joined to what (`topology.py` decodes where the graph is known).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from raysearch.architecture.attributes import MAX_INT
from raysearch.architecture.checks import MAX_ELEMENTS, check
from raysearch.architecture.encoding import layer_attrs, layer_type
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS, Shape
from raysearch.architecture.view import view
from raysearch.errors import InvalidArchitecture

COLUMNS = ("type", "kernel", "outputs", "stride", "padding")
NONE, CONV, MAX_POOL, NORM, RELU, SIGMOID, DROPOUT, AVG_POOL, LINEAR, OTHER = range(10)
MAX_ROWS = 50
"""The paper's longest sequence."""

_TYPE_OF_WORD = {
    "identity": NONE,
    "conv": CONV,
    "maxpool": MAX_POOL,
    "bn": NORM,
    "dropout": DROPOUT,
    "avgpool": AVG_POOL,
    "linear": LINEAR,
}
_TYPE_OF_FUNCTION = {"relu": RELU, "sigmoid": SIGMOID}
_NAMES = ("", "conv", "maxpool", "bn", "relu", "sigmoid", "dropout", "avgpool", "linear")


def encode_sequence(architecture: Architecture) -> np.ndarray:
    """The rows of a network: [T, 5] int64."""
    rows = [
        encode_layer(architecture, architecture.layers[place])
        for place in listed_layers(architecture)
    ]
    return np.array(rows, np.int64).reshape(-1, len(COLUMNS))


def listed_layers(architecture: Architecture) -> tuple[int, ...]:
    """Indices of the layers that have a row: those of the encoders' view but for flattenings."""
    layers = architecture.layers
    return tuple(
        place
        for place in view(architecture).listed
        if layers[place].op != "reshape" or layers[place].attrs["mode"] != "flatten"
    )


def encode_layer(architecture: Architecture, layer: Layer) -> tuple[int, ...]:
    """The row of one layer."""
    kind = _TYPE_OF_WORD.get(layer_type(layer), OTHER)
    if layer.op == "unary":
        kind = _TYPE_OF_FUNCTION.get(layer.attrs["fn"], OTHER)
    if layer.op == "add":
        kind = OTHER
    if kind == NONE:
        return (NONE, 0, 0, 0, 0)
    kernel, stride, padding, _, _, outputs = layer_attrs(
        layer, architecture[layer.inputs[0][0]].shape
    )
    if not outputs:
        outputs = layer.shape[architecture.axis(layer.name)] if layer.shape else 0
    return kind, kernel, outputs, stride, padding


def without_gaps(rows: np.ndarray) -> np.ndarray:
    """The rows without those of type 0: what follows a removed layer moves up. [T', 5]"""
    return rows[rows[:, 0] != NONE]


def decode_chain(rows: Any, input_shape: Sequence[int], num_classes: int) -> Architecture:
    """Makes the network of a sequence: convolutions and linear layers with bias, dropout of one half, a linear layer at the end.

    A convolution in front of a batch normalisation has no bias: the normalisation would take it away and has its own. What a type has no use for is ignored. Inverts `encode_sequence` for the networks that it makes.

    Args:
        rows: [T, 5] whole numbers.
        input_shape: without the batch.
        num_classes: outputs of the last layer.

    Raises:
        InvalidArchitecture: the sequence is no network, whatever it holds.
    """
    table = whole_numbers(rows, (None, len(COLUMNS)))
    table = table[table[:, 0] != NONE]
    if not 1 <= len(table) <= MAX_ROWS:
        raise InvalidArchitecture(f"the sequence has {len(table)} layers: give 1 to {MAX_ROWS}")
    if not (table[:, 0] == CONV).any():
        raise InvalidArchitecture("the sequence has no convolution")
    if (table[-1, 0], table[-1, 2]) != (LINEAR, num_classes):
        raise InvalidArchitecture(
            f"the sequence must end in a linear layer (type {LINEAR}) of {num_classes} outputs"
        )
    shape = tuple(int(size) for size in input_shape)
    layers = [Layer("input", "input", shape=shape)]
    normed = np.append(table[1:, 0] == NORM, False).tolist()
    for position, row in enumerate(table.tolist()):
        _append(layers, position, row, bias=not normed[position])
    return check(Architecture(shape, tuple(layers), layers[-1].name))


def _append(layers: list[Layer], position: int, row: Sequence[int], *, bias: bool) -> None:
    """Adds the layer of a row, and the flattening that it implies; `bias` is a convolution's."""
    kind, where = row[0], f"row {position} of the sequence"
    if not CONV <= kind <= LINEAR:
        raise InvalidArchitecture(f"{where}: type is {kind}, chains have the types 1 to {LINEAR}")
    shape = layers[-1].shape
    if kind == LINEAR and len(shape) > 1:
        flat = (math.prod(shape),)
        attrs = {"mode": "flatten"}
        layers.append(Layer("flatten", "reshape", ((layers[-1].name,),), attrs, flat))
        shape = flat
    op, attrs = _operation(where, row, shape, bias=bias)
    source = (layers[-1].name,)
    made = OPS[op].out_shape(attrs, [shape])
    if min(made) < 1:
        raise InvalidArchitecture(f"{where}: its output would have the shape {list(made)}")
    layers.append(Layer(f"{_NAMES[kind]}{position}", op, (source,), attrs, made))


def _operation(
    where: str, row: Sequence[int], shape: Shape, *, bias: bool
) -> tuple[str, dict[str, Any]]:
    """Operation and attributes of a row that reads a tensor of that shape."""
    kind, kernel, outputs, stride, padding = row
    rank = len(shape) - 1
    if kind in (CONV, MAX_POOL, AVG_POOL):
        if not rank:
            raise InvalidArchitecture(f"{where}: {_NAMES[kind]} stands behind a linear layer")
        if kernel < 1 or stride < 1 or padding < 0:
            raise InvalidArchitecture(
                f"{where}: kernel {kernel}, stride {stride} and padding {padding} make no window"
            )
    window = {"kernel": [kernel] * rank, "stride": [stride] * rank, "padding": [padding] * rank}
    if kind == CONV:
        fixed = {"dilation": [1] * rank, "groups": 1, "bias": bias}
        return "conv", {"in_channels": shape[0], "out_channels": outputs, **window, **fixed}
    if kind in (MAX_POOL, AVG_POOL):
        if padding > kernel // 2:
            raise InvalidArchitecture(
                f"{where}: padding {padding} is more than half of the window of {kernel}"
            )
        if kind == MAX_POOL:
            return "pool", {
                "kind": "max", **window, "dilation": [1] * rank, "ceil_mode": False,
            }  # fmt: skip
        return "pool", {"kind": "avg", **window, "ceil_mode": False, "count_include_pad": True}
    if kind == LINEAR:
        return "linear", {"in_features": shape[0], "out_features": outputs, "bias": True}
    if kind == NORM:
        fixed = {"eps": 1e-5, "momentum": 0.1, "affine": True}
        return "batch_norm", {"num_features": shape[0], **fixed}
    if kind == DROPOUT:
        return "dropout", {"fn": "dropout", "p": 0.5}
    return "unary", {"fn": _NAMES[kind], "args": [], "kwargs": {}}


def valid_chains(rows: Any, input_shape: Sequence[int], num_classes: int) -> np.ndarray:
    """Which sequences `decode_chain` makes networks of, without making them: [B] bool.

    Args:
        rows: [B, T, 5] whole numbers.
        input_shape, num_classes: as for `decode_chain`.
    """
    table = whole_numbers(rows, (None, None, len(COLUMNS)))
    count = len(table)
    size = np.tile(np.array(input_shape[1:], np.float64), (count, 1))  # exact below 2**53
    channels = np.full(count, float(input_shape[0]))
    flat = np.full(count, len(input_shape) == 1)
    valid = np.ones(count, bool)
    last = np.zeros((count, 2), np.int64)
    for column in range(table.shape[1]):
        kind, *window = table[:, column].T
        kernel, outputs, stride, padding = (value.astype(np.float64) for value in window)
        conv, linear = kind == CONV, kind == LINEAR
        pool = (kind == MAX_POOL) | (kind == AVG_POOL)
        slides, makes = conv | pool, conv | linear
        valid &= (kind >= NONE) & (kind <= LINEAR)
        valid &= ~slides | (~flat & (kernel >= 1) & (stride >= 1) & (padding >= 0))
        valid &= ~pool | (padding <= kernel // 2)
        valid &= ~makes | (outputs >= 1)
        after = (size + 2 * padding[:, None] - kernel[:, None]) // np.maximum(stride, 1)[
            :, None
        ] + 1
        size = np.where((slides & valid)[:, None], after, size)
        valid &= np.all((size >= 1) & (size <= MAX_INT), axis=1)
        into = np.where(flat, channels, channels * size.prod(axis=1))
        valid &= ~linear | (into <= MAX_INT)
        weights = np.where(conv, channels * kernel ** (len(input_shape) - 1), into) * outputs
        valid &= ~makes | (weights <= MAX_ELEMENTS)
        channels = np.where(makes, outputs, channels)
        flat |= linear
        valid &= np.where(flat, channels, channels * size.prod(axis=1)) <= MAX_ELEMENTS
        last = np.where((kind != NONE)[:, None], table[:, column, [0, 2]], last)
        size, channels = np.where(valid[:, None], size, 1.0), np.where(valid, channels, 1.0)
    listed = (table[:, :, 0] != NONE).sum(axis=1)
    valid &= (listed >= 1) & (listed <= MAX_ROWS) & (table[:, :, 0] == CONV).any(axis=1)
    return valid & (last[:, 0] == LINEAR) & (last[:, 1] == num_classes)


def whole_numbers(rows: Any, shape: Sequence[int | None]) -> np.ndarray:
    """The rows as int64.

    Raises:
        InvalidArchitecture: they are not whole numbers of reasonable size, or have another shape (None: any length).
    """
    table = real_numbers(rows, shape)
    if not np.all((table == np.floor(table)) & (np.abs(table) <= MAX_INT)):
        raise InvalidArchitecture(f"the sequence holds what is not a whole number up to {MAX_INT}")
    return table.astype(np.int64)


def real_numbers(rows: Any, shape: Sequence[int | None]) -> np.ndarray:
    """The rows as float64.

    Raises:
        InvalidArchitecture: they are not finite numbers, or have another shape (None: any length).
    """
    try:
        table = np.asarray(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArchitecture("the sequence is not a table of numbers") from None
    fits = table.ndim == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, table.shape, strict=True)
    )
    if not fits:
        wanted = [size or "any" for size in shape]
        raise InvalidArchitecture(f"the sequence has shape {table.shape}: expected {wanted}")
    if not np.all(np.isfinite(table)):
        raise InvalidArchitecture("the sequence holds a number that is not finite")
    return table
