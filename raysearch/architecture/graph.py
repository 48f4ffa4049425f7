"""A network as data: an immutable directed acyclic graph of named layers.

The specification is the docstring of `Layer` and the table in `ops.py`. Nothing here knows torch: a teacher becomes an
`Architecture` in `raysearch.models.tracing` and a student becomes a module in `raysearch.models.build`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from raysearch.architecture.ops import OPS, Shape
from raysearch.errors import InvalidArchitecture

FORMAT_VERSION = 1
COMPACT_PREFIX = "json:"


def _native(value: Any) -> Any:
    """The JSON-native form of an attribute, so that a network equals what its JSON text gives back."""
    if isinstance(value, list | tuple):
        return [_native(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _native(item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Layer:
    """One operation of a network.

    Attributes:
        name: unique; the teacher's module path where there is one ("layer1.0.conv1"), else one made from the operation ("add_3").
        op: a key of `OPS`.
        inputs: input slots; a slot names the layers whose outputs are *summed* before the operation sees them (a skip edge adds
            a name to a slot; all producers of a slot have one shape).
        attrs: what the operation needs, JSON-native (see `ops.py`).
        shape: the output's shape without the batch axis.
        params: role ("weight", "running_mean", ...) -> the name in the teacher's state_dict. Two layers that name the same entry
            share it.
    """

    name: str
    op: str
    inputs: tuple[tuple[str, ...], ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shape: Shape = ()
    params: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        attrs = {key: _native(value) for key, value in self.attrs.items()}
        object.__setattr__(self, "attrs", MappingProxyType(attrs))
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def __reduce__(self) -> tuple[Any, ...]:  # mapping proxies do not pickle
        return (
            Layer,
            (self.name, self.op, self.inputs, dict(self.attrs), self.shape, dict(self.params)),
        )

    @property
    def param_shapes(self) -> dict[str, Shape]:
        """The shapes of the trainable parameters by role."""
        shapes = OPS[self.op].params(self.attrs)
        untrained = self.attrs.get("untrained")
        return {r: s for r, s in shapes.items() if r not in untrained} if untrained else shapes

    @property
    def buffer_shapes(self) -> dict[str, Shape]:
        """The shapes of the untrained state by role."""
        shapes = OPS[self.op].buffers(self.attrs)
        untrained = self.attrs.get("untrained")
        if untrained:
            states = OPS[self.op].params(self.attrs)
            shapes = {**{r: s for r, s in states.items() if r in untrained}, **shapes}
        return shapes

    @property
    def is_view(self) -> bool:
        """Whether the output shares its input's memory (in evaluation mode)."""
        if self.attrs.get("contiguous") is True:
            return False
        return OPS[self.op].is_view or self.attrs.get("view") is True

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one input."""
        return OPS[self.op].macs(self.attrs, self.shape)


@dataclass(frozen=True)
class Architecture:
    """An immutable network; `layers` stand in topological order and begin with the one `input` layer."""

    input_shape: Shape
    layers: tuple[Layer, ...]
    output: str

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The position of every layer by its name."""
        return {layer.name: position for position, layer in enumerate(self.layers)}

    def __getitem__(self, name: str) -> Layer:
        return self.layers[self.index[name]]

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The axis of every layer's output that holds its channels, see `axes.py`."""
        from raysearch.architecture.axes import channel_axes

        return channel_axes(self)

    def axis(self, name: str) -> int:
        """The channel axis of a layer's output."""
        return self.axes[self.index[name]]

    @cached_property
    def num_params(self) -> int:
        """Trainable parameters, BatchNorm's included, shared ones once."""
        sizes: dict[str, int] = {}
        for layer in self.layers:
            for role, shape in layer.param_shapes.items():
                sizes[layer.params.get(role, f"{layer.name}.{role}")] = math.prod(shape)
        return sum(sizes.values())

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulate operations of one input (batch 1)."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def peak_memory_bytes(self) -> int:
        """The most that activations take at once for one input, in float32; neither weights nor the input count."""
        from raysearch.architecture.memory import peak_activation_bytes

        return peak_activation_bytes(self)

    @cached_property
    def memory_bytes(self) -> int:
        """What inference takes for one input, in float32: `peak_memory_bytes`, and all parameters and buffers."""
        from raysearch.architecture.memory import weight_bytes

        return self.peak_memory_bytes + weight_bytes(self)

    @cached_property
    def id(self) -> str:
        """A short content hash; equal for equal networks (names of layers do not count, those of parameters do)."""
        from raysearch.architecture.canonical import canonical_form

        text = json.dumps(canonical_form(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """The exact, canonical JSON text; `Architecture.from_json` inverts it."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-native form of `to_json`."""
        return {
            "version": FORMAT_VERSION,
            "input_shape": list(self.input_shape),
            "output": self.output,
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "inputs": [list(slot) for slot in layer.inputs],
                    "attrs": dict(layer.attrs),
                    "shape": list(layer.shape),
                    "params": dict(layer.params),
                }
                for layer in self.layers
            ],
        }

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Reads and checks what `to_json` wrote.

        Raises:
            InvalidArchitecture: with the field that is wrong, whatever the text holds.
        """
        from raysearch.architecture.checks import parse_architecture

        return parse_architecture(text)

    def to_compact(self) -> str:
        """One short printable word, "json:" and the compressed JSON text; `Architecture.from_compact` inverts it."""
        data = zlib.compress(self.to_json().encode(), 9)
        return COMPACT_PREFIX + base64.urlsafe_b64encode(data).decode()

    @classmethod
    def from_compact(cls, text: str) -> Architecture:
        """Reads and checks what `to_compact` wrote.

        Raises:
            InvalidArchitecture: whatever the text holds instead.
        """
        from raysearch.architecture.checks import decompress

        return cls.from_json(decompress(text))


__all__ = ["FORMAT_VERSION", "Architecture", "InvalidArchitecture", "Layer"]
