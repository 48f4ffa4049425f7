"""Reading networks that anybody may have written: malformed or hostile text raises `InvalidArchitecture`, which names the field."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from raysearch.architecture.attributes import check_attrs, check_fit, is_int, shorten
from raysearch.architecture.graph import COMPACT_PREFIX, FORMAT_VERSION, Architecture, Layer
from raysearch.architecture.ops import OPS, Shape
from raysearch.errors import InvalidArchitecture

MAX_TEXT = 32 * 2**20
"""Characters of JSON text; the networks we know have less than one in a hundred of it."""
MAX_LAYERS = 10_000
MAX_AXES = 8
MAX_ELEMENTS = 2**40
MAX_SOURCES = 4096
MAX_EDGES = 200_000
_KEYS = {"version", "input_shape", "output", "layers"}
_LAYER_KEYS = {"name", "op", "inputs", "attrs", "shape", "params"}


def parse_architecture(text: str) -> Architecture:
    """Reads the JSON text of a network and checks all of it.

    Raises:
        InvalidArchitecture: with the field that is wrong, whatever the text holds.
    """
    if not isinstance(text, str):
        raise InvalidArchitecture(f"an architecture is JSON text, got {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InvalidArchitecture(f"the JSON text has {len(text)} characters, at most {MAX_TEXT}")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_parse_constant)
    except RecursionError:
        raise InvalidArchitecture("the JSON text is nested too deep") from None
    except InvalidArchitecture:
        raise
    except ValueError as error:
        raise InvalidArchitecture(f"the JSON text cannot be read: {shorten(str(error))}") from None
    return _architecture(data)


def decompress(text: str) -> str:
    """The JSON text inside the compact text of a network.

    Raises:
        InvalidArchitecture: the text is not one, or holds more than `MAX_TEXT` characters.
    """
    if not isinstance(text, str) or not text.startswith(COMPACT_PREFIX):
        raise InvalidArchitecture(f"a compact architecture must begin with {COMPACT_PREFIX!r}")
    if len(text) > MAX_TEXT:
        raise InvalidArchitecture("the compact architecture is too long")
    try:
        data = base64.b64decode(text[len(COMPACT_PREFIX) :], altchars=b"-_", validate=True)
        decoder = zlib.decompressobj()
        raw = decoder.decompress(data, MAX_TEXT)
        if decoder.unconsumed_tail or not decoder.eof or decoder.unused_data:
            raise InvalidArchitecture("the compact architecture is cut, too large, or has a tail")
        return raw.decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        if isinstance(error, InvalidArchitecture):
            raise
        raise InvalidArchitecture("the compact architecture cannot be decompressed") from None


def check(architecture: Architecture) -> Architecture:
    """Checks a network in memory as strictly as one that is read, and returns it."""
    return _architecture(architecture.to_dict())


def infer_shapes(architecture: Architecture) -> tuple[Shape, ...]:
    """The output shape of every layer as it follows from the input, whatever shapes the layers state.

    Raises:
        InvalidArchitecture: where an operation does not take what arrives.
    """
    shapes: dict[str, Shape] = {}
    for layer in architecture.layers:
        arriving = [_slot_shape(layer, slot, shapes) for slot in layer.inputs]
        if layer.op == "input":
            arriving = [architecture.input_shape]
        shapes[layer.name] = _out_shape(layer, arriving)
    return tuple(shapes.values())


def check_shared(layers: Sequence[Layer]) -> None:
    """Checks that layers that name the same parameter agree on its shape.

    Raises:
        InvalidArchitecture: with the layer that does not.
    """
    seen: dict[str, Shape] = {}
    for layer in layers:
        for role, shape in {**layer.param_shapes, **layer.buffer_shapes}.items():
            entry = layer.params.get(role, f"{layer.name}.{role}")
            if seen.setdefault(entry, shape) != shape:
                raise InvalidArchitecture(
                    f"layer {shorten(layer.name)}: params.{role} names {shorten(entry)}, which has another shape elsewhere"
                )


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise InvalidArchitecture("the JSON text repeats a key inside one object")
    return out


def _parse_constant(word: str) -> float:
    if word == "NaN":
        raise InvalidArchitecture("the JSON text holds NaN")
    return float(word)


def _architecture(data: Any) -> Architecture:
    if not isinstance(data, dict):
        raise InvalidArchitecture(f"an architecture is a JSON object, got {shorten(data)}")
    _check_keys("the architecture", data, _KEYS)
    if data["version"] != FORMAT_VERSION or not is_int(data["version"]):
        raise InvalidArchitecture(
            f"version is {shorten(data['version'])}, this program reads version {FORMAT_VERSION}"
        )
    input_shape = _shape("input_shape", data["input_shape"])
    entries = data["layers"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_LAYERS:
        raise InvalidArchitecture(f"layers must be a list of 1 to {MAX_LAYERS} layers")
    layers: list[Layer] = []
    shapes: dict[str, Shape] = {}
    names, edges = _names(entries), 0
    for position, entry in enumerate(entries):
        layer = _layer(f"layers[{position}]", entry)
        _check_inputs(layer, position, shapes, names)
        arriving = [_slot_shape(layer, slot, shapes) for slot in layer.inputs]
        found = _out_shape(layer, arriving if position else [input_shape])
        if found != layer.shape:
            raise InvalidArchitecture(
                f"layer {shorten(layer.name)}: shape is {list(layer.shape)}, its inputs give {list(found)}"
            )
        shapes[layer.name] = layer.shape
        layers.append(layer)
        edges += sum(map(len, layer.inputs))
        if edges > MAX_EDGES:
            raise InvalidArchitecture(f"layers have more than {MAX_EDGES} edges")
    output = data["output"]
    if not isinstance(output, str) or output not in shapes:
        raise InvalidArchitecture(f"output is {shorten(output)}, which is not the name of a layer")
    check_shared(layers)
    return Architecture(input_shape, tuple(layers), output)


def _check_keys(where: str, data: Mapping[str, Any], expected: set[str]) -> None:
    for key in sorted(expected - set(data)):
        raise InvalidArchitecture(f"{where}: {key} is missing")
    for key in sorted(set(data) - expected):
        raise InvalidArchitecture(f"{where}: {shorten(key)} is unknown")


def _names(entries: list[Any]) -> set[str]:
    names: set[str] = set()
    for position, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not 1 <= len(name) <= 500:
            raise InvalidArchitecture(
                f"layers[{position}]: name is {shorten(name)}, expected 1 to 500 characters"
            )
        if name in names:
            raise InvalidArchitecture(f"layers[{position}]: name {shorten(name)} is used twice")
        names.add(name)
    return names


def _layer(where: str, entry: dict[str, Any]) -> Layer:
    _check_keys(where, entry, _LAYER_KEYS)
    where = f"layer {shorten(entry['name'])}"
    op = entry["op"]
    if not isinstance(op, str) or op not in OPS:
        raise InvalidArchitecture(f"{where}: op is {shorten(op)}, expected one of {', '.join(OPS)}")
    inputs = entry["inputs"]
    if not isinstance(inputs, list) or not all(_is_slot(slot) for slot in inputs):
        raise InvalidArchitecture(f"{where}: inputs must be a list of lists of names of layers")
    if sum(map(len, inputs)) > MAX_SOURCES:
        raise InvalidArchitecture(f"{where}: inputs name more than {MAX_SOURCES} layers")
    if not isinstance(entry["attrs"], dict):
        raise InvalidArchitecture(
            f"{where}: attrs is {shorten(entry['attrs'])}, expected an object"
        )
    check_attrs(where, op, entry["attrs"], OPS[op].required)
    _check_params(where, op, entry["attrs"], entry["params"])
    return Layer(
        entry["name"],
        op,
        tuple(tuple(slot) for slot in inputs),
        entry["attrs"],
        _shape(f"{where}: shape", entry["shape"]),
        entry["params"],
    )


def _is_slot(slot: object) -> bool:
    return isinstance(slot, list) and bool(slot) and all(isinstance(name, str) for name in slot)


def _check_params(where: str, op: str, attrs: dict[str, Any], params: Any) -> None:
    if not isinstance(params, dict) or not all(isinstance(v, str) for v in params.values()):
        raise InvalidArchitecture(f"{where}: params must map roles to names of parameters")
    roles = {*OPS[op].params(attrs), *OPS[op].buffers(attrs)}
    for role in sorted(set(params) - roles):
        raise InvalidArchitecture(f"{where}: params.{shorten(role)} is not a parameter of {op}")


def _shape(where: str, value: Any) -> Shape:
    right = (
        isinstance(value, list)
        and len(value) <= MAX_AXES
        and all(is_int(size, 1) for size in value)
        and math.prod(value) <= MAX_ELEMENTS
    )
    if not right:
        raise InvalidArchitecture(
            f"{where} is {shorten(value)}, expected at most {MAX_AXES} whole numbers of at least 1"
        )
    return tuple(value)


def _check_inputs(
    layer: Layer, position: int, before: Mapping[str, Shape], names: set[str]
) -> None:
    where = f"layer {shorten(layer.name)}"
    if (layer.op == "input") != (position == 0):
        raise InvalidArchitecture(f"{where}: exactly the first layer must have the op 'input'")
    least, most = _SLOTS.get(layer.op, (1, 1))
    if not least <= len(layer.inputs) <= most:
        raise InvalidArchitecture(
            f"{where}: inputs has {len(layer.inputs)} slots, {layer.op} takes {least} to {most}"
        )
    for name in (name for slot in layer.inputs for name in slot):
        if name not in names:
            raise InvalidArchitecture(
                f"{where}: inputs names {shorten(name)}, which does not exist"
            )
        if name not in before:
            raise InvalidArchitecture(
                f"{where}: inputs names {shorten(name)}, which does not come before it (a cycle, or a wrong order)"
            )


_SLOTS = {
    "input": (0, 0),
    "add": (1, MAX_SOURCES),
    "binary": (2, 2),
    "concat": (1, MAX_SOURCES),
    "opaque": (1, MAX_SOURCES),
}


def _slot_shape(layer: Layer, slot: Sequence[str], shapes: Mapping[str, Shape]) -> Shape:
    first = shapes[slot[0]]
    for name in slot[1:]:
        if shapes[name] != first:
            raise InvalidArchitecture(
                f"layer {shorten(layer.name)}: inputs sums the shapes {list(first)} and {list(shapes[name])}"
            )
    return first


def _out_shape(layer: Layer, arriving: Sequence[Shape]) -> Shape:
    where = f"layer {shorten(layer.name)}"
    check_fit(where, layer.op, layer.attrs, arriving)
    try:
        shape = OPS[layer.op].out_shape(layer.attrs, arriving)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{where}: {error}") from None
    if any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise InvalidArchitecture(f"{where}: its output would have the shape {list(shape)}")
    sizes = [math.prod(size) for size in layer.param_shapes.values()]
    if max(sizes, default=0) > MAX_ELEMENTS:
        _too_many(where)
    return shape


def _too_many(where: str) -> NoReturn:
    raise InvalidArchitecture(f"{where}: it would have more than {MAX_ELEMENTS} parameters")
