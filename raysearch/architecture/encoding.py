"""Layer vectors for the learned encoders, in ESNAC's layout (section 3.1 of the paper).

    type one-hot (m) | kernel, stride, padding, groups, in, out | in-links by distance (n) | out-links by distance (n)

Raw values, 0 where a layer has none; channels only for convolutions and linear layers. An edge from place i to place j sets in-link
j - i of j and out-link j - i of i. A removed layer is an identity that keeps its edges. m is 10, or 19 where ESNAC's types do not
suffice; n is max(128, L).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.axes import is_last
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.ops import Shape
from raysearch.architecture.view import View, view
from raysearch.errors import ConfigError

# fmt: off
ESNAC_TYPES = (
    "identity", "flatten", "concat", "shuffle", "conv", "maxpool", "avgpool", "act", "bn", "linear",
)
ALL_TYPES = (
    *ESNAC_TYPES, "norm", "mul", "scale", "dropout", "slice", "pad", "softmax", "permute", "other",
)
# fmt: on
N_MAX = 128
NUM_ATTRS = 6
_IN, _OUT, _GROUPS = 4, 5, 3

_TYPE_OF_OP = {
    "identity": "identity",
    "add": "identity",
    "reshape": "flatten",
    "permute": "permute",
    "concat": "concat",
    "slice": "slice",
    "gather": "slice",
    "channel_shuffle": "shuffle",
    "conv": "conv",
    "unary": "act",
    "batch_norm": "bn",
    "linear": "linear",
    "binary": "mul",
    "dropout": "dropout",
    "pad": "pad",
    "softmax": "softmax",
    "conv_transpose": "conv",
    "prelu": "act",
    "param_binary": "scale",
    **dict.fromkeys(
        ("group_norm", "instance_norm", "layer_norm", "rms_norm", "local_response_norm"), "norm"
    ),
}


def layer_type(layer: Layer) -> str:
    """The layer's word in `ALL_TYPES`."""
    if layer.op in ("pool", "adaptive_pool"):
        return f"{layer.attrs['kind']}pool"
    if layer.op == "reduce":
        return {"mean": "avgpool", "amax": "maxpool"}.get(layer.attrs["fn"], "other")
    return _TYPE_OF_OP.get(layer.op, "other")


def layer_attrs(layer: Layer, in_shape: Shape) -> tuple[int, ...]:
    """Kernel, stride, padding, groups, in and out of a layer; 0 where it has none.

    A pooling to a given size, or over whole axes, counts as the sliding window that does the same.
    """
    attrs = layer.attrs
    if layer.op in ("conv", "conv_transpose"):
        window = (attrs["kernel"][0], attrs["stride"][0], attrs["padding"][0])
        return (*window, attrs["groups"], attrs["in_channels"], attrs["out_channels"])
    if layer.op == "linear":
        return (0, 0, 0, 0, attrs["in_features"], attrs["out_features"])
    if layer.op == "pool":
        return (attrs["kernel"][0], attrs["stride"][0], attrs["padding"][0], 0, 0, 0)
    if layer.op == "adaptive_pool":
        kernel = in_shape[1] // max(attrs["output_size"][0], 1)
        return (kernel, kernel, 0, 0, 0, 0)
    if layer.op == "reduce" and attrs["dims"] and len(in_shape) > 1:
        size = in_shape[attrs["dims"][0]]
        return (size, size, 0, 0, 0, 0)
    return (0,) * NUM_ATTRS


def encode_architecture(
    architecture: Architecture, *, n_max: int | None = None, types: Sequence[str] | None = None
) -> np.ndarray:
    """The layer vectors of one network: [L, m + 6 + 2 n] float32.

    Args:
        architecture: the network.
        n_max: n; None: max(128, L).
        types: `ESNAC_TYPES` or `ALL_TYPES`; None: the shorter one that suffices.
    """
    types = types or sufficient_types(architecture)
    return _encode(architecture, view(architecture), n_max, types)


def sufficient_types(architecture: Architecture) -> tuple[str, ...]:
    """ESNAC's ten types where they name every layer of the network, else all."""
    words = {layer_type(layer) for layer in architecture.layers if layer.op != "input"}
    return ESNAC_TYPES if words <= set(ESNAC_TYPES) else ALL_TYPES


def code_table(words: Iterable[str], types: Sequence[str]) -> np.ndarray:
    """Where each word of `ALL_TYPES` stands in `types`: [19] int64, -1 for those that are not there.

    Raises:
        ConfigError: one of the `words`, which a network needs, is not there.
    """
    unknown = sorted(set(words) - set(types))
    if unknown:
        raise ConfigError(f"types lacks {unknown[0]!r}, which this network has: use ALL_TYPES")
    place = {word: index for index, word in enumerate(types)}
    return np.array([place.get(word, -1) for word in ALL_TYPES], np.int64)


def link_width(num_layers: int, n_max: int | None) -> int:
    """n, the columns of the in-links and of the out-links.

    Raises:
        ConfigError: n_max is too small for the network.
    """
    n = max(N_MAX, num_layers) if n_max is None else n_max
    if n < num_layers:
        raise ConfigError(f"n_max is {n_max}: this network has {num_layers} layers, give no less")
    return n


def link_columns(
    source: np.ndarray, target: np.ndarray, m: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The columns of edges from `source` to `target` [E] in the target's vectors (in-links) and in the source's (out-links).

    Distance d is written in column d of its part, as in ESNAC's code; column 0 stays empty.
    """
    distance = m + NUM_ATTRS + target - source
    return distance, distance + n


def _layer_words(architecture: Architecture, seen: View) -> list[str]:
    return [layer_type(architecture.layers[place]) for place in seen.listed]


def _layer_attrs(architecture: Architecture, seen: View) -> np.ndarray:
    """Attributes of the listed layers: [L, 6] int64."""
    layers = [architecture.layers[place] for place in seen.listed]
    rows = [layer_attrs(layer, architecture[layer.inputs[0][0]].shape) for layer in layers]
    return np.array(rows, np.int64).reshape(-1, NUM_ATTRS)


def _encode(
    architecture: Architecture, seen: View, n_max: int | None, types: Sequence[str]
) -> np.ndarray:
    words = _layer_words(architecture, seen)
    m, n = len(types), link_width(len(words), n_max)
    codes = code_table(words, types)
    out = np.zeros((len(words), m + NUM_ATTRS + 2 * n), np.float32)
    out[np.arange(len(words)), codes[[ALL_TYPES.index(word) for word in words]]] = 1
    out[:, m : m + NUM_ATTRS] = _layer_attrs(architecture, seen)
    source, target = np.array(seen.edges, np.int64).reshape(-1, 2).T
    into, made = link_columns(source, target, m, n)
    out[target, into] = out[source, made] = 1
    return out


@dataclass(frozen=True, eq=False)
class BatchEncoder:
    """Encodes edits without building students: the teacher's vectors, then what the edits change.

    Attributes:
        teacher, seen: the network and its view.
        channels: its channel numbers in the widths.
        pairs: [P, 2] int64 places of the skip pairs in the view.
    """

    teacher: Architecture
    seen: View
    channels: ChannelMap
    pairs: np.ndarray

    @classmethod
    def of(
        cls, teacher: Architecture, channels: ChannelMap, skip_pairs: np.ndarray
    ) -> BatchEncoder:
        """Prepares the encoder of a space."""
        seen = view(teacher)
        return cls(teacher, seen, channels, np.array(seen.position, np.int64)[skip_pairs])

    def encode(
        self, batch: EditsBatch, *, n_max: int | None = None, types: Sequence[str] | None = None
    ) -> np.ndarray:
        """Equal to `encode_architecture` of every applied student: [B, L, F] float32."""
        types = types or sufficient_types(self.teacher)
        template = _encode(self.teacher, self.seen, n_max, types)
        m = len(types)
        out = np.repeat(template[None], len(batch), axis=0)  # [B, L, F]
        for place, column, fixed, row in self.variable_columns():
            out[:, place, m + column] = fixed + batch.widths @ row
        gone, place = np.nonzero(batch.remove[:, self.seen.listed])
        out[gone, place, : m + NUM_ATTRS] = 0
        out[gone, place, types.index("identity")] = 1
        source, target = self.pairs[batch.skip_pairs].T
        into, made = link_columns(source, target, m, link_width(len(template), n_max))
        out[batch.skip_rows, target, into] = 1
        out[batch.skip_rows, source, made] = 1
        return out

    def teacher_words(self) -> list[str]:
        """The types of the teacher's listed layers: [L]."""
        return _layer_words(self.teacher, self.seen)

    def teacher_attrs(self) -> np.ndarray:
        """The attributes of the teacher's listed layers: [L, 6] int64."""
        return _layer_attrs(self.teacher, self.seen)

    def variable_columns(self) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """The attributes that the widths decide, as (place, column, fixed, row [G]): fixed + row @ widths."""
        into, made = self.channels.into, self.channels.out
        for place, index in enumerate(self.seen.listed):
            layer = self.teacher.layers[index]
            linear = layer.op == "linear" and is_last(layer.shape, self.channels.axes[index])
            conv = layer.op in ("conv", "conv_transpose")
            if conv or linear:
                yield place, _IN, int(into.fixed[index]), into.matrix[index]
                yield place, _OUT, int(made.fixed[index]), made.matrix[index]
            if conv and layer.attrs["groups"] == layer.attrs["in_channels"] > 1:
                yield place, _GROUPS, int(into.fixed[index]), into.matrix[index]
