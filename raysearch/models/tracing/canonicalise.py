"""The captured ATen graph as layers: aliases dropped, writes in place made explicit, dead code removed, everything named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS, Shape
from raysearch.errors import UnsupportedTeacher
from raysearch.models.tracing.capture import Capture, is_in_place
from raysearch.models.tracing.folding import Folds, name_states, parted_parameters
from raysearch.models.tracing.found import Found, layer_names
from raysearch.models.tracing.reading import Reading, read_node
from raysearch.models.tracing.values import (
    Constant,
    Made,
    State,
    Value,
    depends_on_images,
    is_symbolic,
    is_trainable,
)

_MODULE_OPS = frozenset(
    {"batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm", "prelu"}
)
"""Operations whose states must be those of one standard module."""


def canonicalise(captured: Capture, module: nn.Module, input_shape: Shape) -> Architecture:
    """Turns a capture into an `Architecture`.

    Raises:
        UnsupportedTeacher: an operation mixes the images of a batch, is random, or cannot be written down.
    """
    reading, output, used = _read(captured, module, frozenset())
    read = [value for position in used for value in reading.layers[position].states.values()]
    numbers = {v.name: math.prod(v.meta.shape) for v in read if isinstance(v, State)}
    shared = parted_parameters(read, tolerated=sum(numbers.values()) // 100)
    if shared:
        reading, output, used = _read(captured, module, shared)
    if output is not None and not isinstance(output, Made) and depends_on_images(output):
        raise UnsupportedTeacher(
            f"the teacher's output has the type {output.meta.dtype} and the shape {_text(output.meta.shape)}, but logits [batch, "
            "classes] in the precision of the weights are needed"
        )
    if not any(_has_weights(reading.layers[position]) for position in used):
        raise UnsupportedTeacher(
            "the teacher's output is not computed from the images by any layer with weights"
        )
    names = layer_names([reading.layers[position] for position in used], module)
    name_of = {-1: names[-1], **dict(zip(used, names, strict=False))}
    folds = Folds(set(reading.tensors))
    layers = [Layer(names[-1], "input", shape=input_shape)]
    for position in used:
        found = reading.layers[position]
        layers.append(_layer(found, name_of[position], name_of, folds, module))
    assert isinstance(output, Made), "only layers of the images have weights"
    return Architecture(input_shape, tuple(layers), name_of[output.position])


def _read(
    captured: Capture, module: nn.Module, shared: frozenset[str]
) -> tuple[Reading, Value | None, list[int]]:
    """The captured nodes as layers, the logits, and the layers that they depend on."""
    reading = Reading(captured, _tensors(module), shared=shared)
    reading.values[captured.input] = Made(-1, reading.images)
    for node, name in captured.states.items():
        reading.values[node] = _state(captured, node, name)
    live = _live(captured)
    for node in captured.nodes:
        if node in live:
            read_node(reading, node)
    output = reading.values.get(captured.output)
    used = _reachable(reading.layers, output.position if isinstance(output, Made) else -1)
    return reading, output, used


def _has_weights(found: Found) -> bool:
    return any(map(is_trainable, found.states.values()))


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers by name, those that the state_dict leaves out included."""
    return {
        **dict(module.named_buffers()),
        **dict(module.named_parameters()),
        **module.state_dict(),
    }


def _state(captured: Capture, node: fx.Node, name: str) -> Value:
    meta = node.meta["val"]
    if node in captured.constants:
        return Constant(captured.constants[node], meta)
    return State(name, name in captured.parameters, meta)


def _live(captured: Capture) -> set[fx.Node]:
    """The nodes that the logits may depend on: what leads to them, or to a write in place."""
    live: set[fx.Node] = set()
    waiting = [captured.output, *(node for node in captured.nodes if is_in_place(node))]
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting.extend(node.all_input_nodes)
    return live


def _reachable(layers: Sequence[Found], output: int) -> list[int]:
    """The positions of the layers that the output depends on, in order."""
    needed: set[int] = set()
    waiting = [output]
    while waiting:
        position = waiting.pop()
        if position >= 0 and position not in needed:
            needed.add(position)
            waiting.extend(layers[position].producers)
    return sorted(needed)


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join('batch' if is_symbolic(size) else str(size) for size in shape)}]"


def _layer(
    found: Found, name: str, name_of: Mapping[int, str], folds: Folds, module: nn.Module
) -> Layer:
    attrs, states = dict(found.attrs), dict(found.states)
    params: dict[str, str] = {}
    if states:
        one_module = found.op in _MODULE_OPS or (
            found.op not in ("param_binary", "opaque")
            and not all(isinstance(v, State) for v in states.values())
        )
        params, extra = name_states(folds, name, states, in_module=states if one_module else ())
        trained = OPS[found.op].params(attrs) if found.op != "opaque" else {}
        untrained = [role for role in extra.pop("untrained", ()) if role in trained]
        attrs |= {**extra, **({"untrained": untrained} if untrained else {})}
    if "running_mean" in states:
        owner = params["running_mean"].rpartition(".")[0]
        params["num_batches_tracked"] = f"{owner}.num_batches_tracked"
        norm = dict(module.named_modules()).get(owner)
        if isinstance(norm, nn.modules.batchnorm._NormBase):
            attrs["momentum"] = norm.momentum  # the call has 0 where the module averages
    inputs = tuple((name_of[producer],) for producer in found.producers)
    return Layer(name, found.op, inputs, attrs, found.shape, params)
