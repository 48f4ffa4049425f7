"""The captured ATen graph as layers: aliases dropped, writes in place made explicit, dead code removed, everything named."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS, Shape
from raysearch.errors import InvalidArchitecture, UnsupportedTeacher
from raysearch.models.calls import BINARY
from raysearch.models.tracing.capture import Capture, is_in_place, module_label
from raysearch.models.tracing.moves import COPIES, MOVES, PARTED, RESHAPES, part, parted, shuffled
from raysearch.models.tracing.rules import (
    ALIASES,
    EXPANSIONS,
    RULES,
    SAME_IF_SAME_TYPE,
    Call,
    Draft,
    bind,
    shape_of,
)


@dataclass(frozen=True)
class _Found:
    """A layer before it has a name.

    Attributes:
        draft: what it is.
        producers: the layers of its slots, by position in the list of all layers; -1 is the input.
        shape: the output's shape without the batch.
        path, kind: the module that computed it; `visit` tells the module's calls apart.
        label: its name where it is not the module's only operation.
    """

    draft: Draft
    producers: tuple[int, ...]
    shape: Shape
    path: str
    kind: str
    visit: str
    label: str


@dataclass
class _Reading:
    """The state of one pass over the captured nodes."""

    capture: Capture
    layers: list[_Found] = field(default_factory=list)
    holder: dict[fx.Node, int] = field(default_factory=dict)  # the layer whose output a node is

    def shape(self, position: int) -> Shape:
        """The output shape of a layer without the batch; -1 is the input."""
        if position >= 0:
            return self.layers[position].shape
        return tuple(int(size) for size in shape_of(self.capture.input)[1:])


def canonicalise(captured: Capture, module: nn.Module, input_shape: Shape) -> Architecture:
    """Turns a capture into an `Architecture`.

    Raises:
        UnsupportedTeacher: an operation is not known, or mixes the images of a batch.
    """
    reading = _Reading(captured)
    reading.holder[captured.input] = -1
    for node in captured.nodes:
        _read_node(reading, node)
    output = reading.holder.get(captured.output, -1)
    used = _reachable(reading.layers, output)
    if not any(reading.layers[position].draft.params for position in used):
        raise UnsupportedTeacher(
            "the teacher's output is not computed from the images by any layer with weights"
        )
    names = _names([reading.layers[position] for position in used], module)
    name_of = {-1: names[-1], **dict(zip(used, names, strict=False))}
    layers = [Layer(names[-1], "input", shape=input_shape)]
    for position in used:
        layers.append(_layer(reading, reading.layers[position], name_of[position], name_of, module))
    return Architecture(input_shape, tuple(layers), name_of[output])


def _read_node(reading: _Reading, node: fx.Node) -> None:
    path, kind, visit = _place(node)
    where = module_label(path, kind)
    several = parted(node)
    if several is not None and several.args[0] in reading.holder:
        call = bind(several, where)
        position = _emit(reading, call, part(call, node), path, kind, visit)
        _check_shape(reading, call, node, position)
        reading.holder[node] = position
        return
    if node.target is operator.getitem and node.args[0] in reading.holder:
        if node.args[1] == 0:
            reading.holder[node] = reading.holder[node.args[0]]  # type: ignore[index]
        return  # a further output that something reads is refused at its reader
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        raise UnsupportedTeacher(f"{where}: {node.target} inside forward is not supported yet")
    if not isinstance(node.target, torch._ops.OpOverload):
        if isinstance(node.meta.get("val"), torch.Tensor):
            raise UnsupportedTeacher(f"{where}: operation {node.target} is not supported")
        return  # arithmetic with sizes
    call = bind(node, where)
    tensors = [n for n in node.all_input_nodes if n in reading.holder]
    if not tensors or call.name in PARTED:
        return  # sizes, constants: refused where something reads them as a tensor
    if _is_alias(reading, call, tensors[0]):
        reading.holder[node] = reading.holder[tensors[0]]
        return
    if call.name not in RULES and call.name not in MOVES and call.name not in COPIES:
        if isinstance(node.meta.get("val"), (torch.Tensor, list, tuple)) or node.users:
            _refuse_unknown(call)
        return
    _append(reading, call, path, kind, visit)


def _refuse_unknown(call: Call) -> None:
    if call.name in ("sym_size", "sym_numel", "_assert_tensor_metadata", "_assert_scalar"):
        return
    raise call.refuse("is not supported yet")


def _append(reading: _Reading, call: Call, path: str, kind: str, visit: str) -> None:
    """Adds the layers of a call."""
    draft = _draft(reading, call)
    position = _emit(reading, call, draft, path, kind, visit)
    _check_shape(reading, call, call.node, position)
    if is_in_place(call.node):  # whoever reads the overwritten tensor later reads the result
        overwritten = reading.layers[position].producers[0]
        for node, held in reading.holder.items():
            if held == overwritten:
                reading.holder[node] = position
    reading.holder[call.node] = position


def _draft(reading: _Reading, call: Call) -> Draft:
    """What a call is as a layer."""
    if call.name in COPIES:
        copied = _copied(reading, call)
        assert copied is not None, "a copy that makes no difference is an alias"
        return copied
    shuffle = shuffled(call.node) if call.name in RESHAPES else None
    if shuffle is not None and shuffle.attrs["groups"] > 1 and shuffle.inputs[0] in reading.holder:
        return shuffle
    return (RULES.get(call.name) or MOVES[call.name])(call)


def _copied(reading: _Reading, call: Call) -> Draft | None:
    """A permutation that is copied into its new order; None where the copy makes no difference."""
    source = call.node.args[0]
    held = reading.holder[source]  # type: ignore[index]
    found = reading.layers[held].draft if held >= 0 else None
    keeps = call.args.get("memory_format") in (None, torch.preserve_format)
    if found is None or found.op != "permute" or found.attrs["contiguous"]:
        return None
    if call.name == "clone" and keeps:
        return None
    return replace(found, attrs={**found.attrs, "contiguous": True})


def _emit(reading: _Reading, call: Call, draft: Draft, path: str, kind: str, visit: str) -> int:
    """Adds a layer, behind those that it is drafted to read, and returns its position."""
    producers: list[int] = []
    for source in draft.inputs:
        if isinstance(source, Draft):
            producers.append(_emit(reading, call, source, path, kind, visit))
            continue
        if source not in reading.holder:
            state = reading.capture.states.get(source)
            what = f"the parameter or buffer {state!r}" if state else f"{source.target}"
            raise call.refuse(f"computes with {what} directly, which is not supported yet")
        producers.append(reading.holder[source])
    for role, tensor in draft.params.items():
        if tensor not in reading.capture.states:
            raise call.refuse(
                f"has a {role} that is computed from other parameters, which is not supported yet"
            )
    try:
        shape = OPS[draft.op].out_shape(draft.attrs, [reading.shape(p) for p in producers])
    except InvalidArchitecture as error:
        raise call.refuse(f"is not supported here: {error}") from error
    found = _Found(draft, tuple(producers), shape, path, kind, visit, call.name)
    reading.layers.append(found)
    return len(reading.layers) - 1


def _check_shape(reading: _Reading, call: Call, node: fx.Node, position: int) -> None:
    """The shape that the capture found must be that of our own rule."""
    value: Any = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = value[0]
    if value is None:  # several outputs: the first is read through getitem
        value = next(user.meta["val"] for user in node.users if user.args[1] == 0)
    batch = reading.capture.input.meta["val"].shape[0]
    if str(value.shape[0] if len(value.shape) else None) != str(batch):
        raise call.refuse("moves values across the batch axis")
    shape, expected = tuple(int(size) for size in value.shape[1:]), reading.shape(position)
    if expected != shape:
        raise call.refuse(f"gives {list(shape)} where {list(expected)} was expected")


def _is_alias(reading: _Reading, call: Call, tensor: fx.Node) -> bool:
    """Whether a call's result is what it reads, for all that follows."""
    if call.name in COPIES:
        return _copied(reading, call) is None
    if call.name in ALIASES:
        return True
    if call.name in EXPANSIONS and _is_repeated_by_readers(call):
        return True
    before, after = tensor.meta.get("val"), call.node.meta.get("val")
    if call.name not in SAME_IF_SAME_TYPE or before is None or after is None:
        return False
    if before.dtype != after.dtype:
        raise call.refuse(f"changes the precision from {before.dtype} to {after.dtype}")
    return str(tuple(before.shape)) == str(tuple(after.shape))


def _is_repeated_by_readers(call: Call) -> bool:
    """Whether all readers of an expansion are functions of two tensors, which expand by themselves."""
    before, after = shape_of(call.args["self"]), shape_of(call.node)
    same_batch = len(before) == len(after) and str(before[0]) == str(after[0])
    return same_batch and all(
        isinstance(user.target, torch._ops.OpOverload)
        and user.target._schema.name.removeprefix("aten::").removesuffix("_") in BINARY
        for user in call.node.users
    )


def _place(node: fx.Node) -> tuple[str, str, str]:
    """The module that computed a node: its path, its class, and a key that differs from call to call."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", "the teacher", ""
    visit, (path, kind) = list(stack.items())[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    return path, name.rpartition(".")[2], visit


def _reachable(layers: Sequence[_Found], output: int) -> list[int]:
    """The positions of the layers that the output depends on, in order."""
    needed: set[int] = set()
    waiting = [output]
    while waiting:
        position = waiting.pop()
        if position >= 0 and position not in needed:
            needed.add(position)
            waiting.extend(layers[position].producers)
    return sorted(needed)


def _names(layers: Sequence[_Found], module: nn.Module) -> list[str]:
    """Unique, stable names, the input's last: a module's path where it has one main operation, else path.operation.

    A module that is called again gets "_1", "_2", ... behind its path.
    """
    paths = {path for path, _ in module.named_modules()} - {""}
    counts = Counter((layer.path, layer.visit) for layer in layers)
    mains = Counter((layer.path, layer.visit) for layer in layers if layer.draft.params)
    taken: set[str] = set()
    names = []
    for layer in layers:
        key = (layer.path, layer.visit)
        leaf = not any(path.startswith(f"{layer.path}.") for path in paths)
        main = mains[key] == 1 and bool(layer.draft.params)
        alone = counts[key] == 1 and leaf
        if layer.path and (main or alone):
            names.append(_unique(layer.path, taken, paths - {layer.path}))
        else:
            name = f"{layer.path}.{layer.label}" if layer.path else layer.label
            names.append(_unique(name, taken, paths))
        taken.add(names[-1])
    return [*names, _unique("input", taken, paths)]


def _unique(name: str, taken: set[str], reserved: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken or candidate in reserved:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _layer(
    reading: _Reading, found: _Found, name: str, name_of: dict[int, str], module: nn.Module
) -> Layer:
    states = reading.capture.states
    params = {role: states[node] for role, node in found.draft.params.items()}
    trainable = OPS[found.draft.op].params(found.draft.attrs)
    for role in trainable:
        if params[role] not in reading.capture.parameters:
            raise UnsupportedTeacher(
                f"{module_label(found.path, found.kind)}: its {role} {params[role]!r} is a buffer, not a parameter, "
                "which is not supported yet"
            )
    attrs = dict(found.draft.attrs)
    if found.draft.op == "batch_norm":
        params, attrs = _batch_norm_state(found, params, attrs, module)
    inputs = tuple((name_of[producer],) for producer in found.producers)
    return Layer(name, found.draft.op, inputs, attrs, found.shape, params)


def _batch_norm_state(
    found: _Found, params: dict[str, str], attrs: dict[str, Any], module: nn.Module
) -> tuple[dict[str, str], dict[str, Any]]:
    """Adds the batch counter, which evaluation does not read, and the momentum that only training knows."""
    owner = params["running_mean"].rpartition(".")[0]
    counter = f"{owner}.num_batches_tracked"
    norm = module.get_submodule(owner)
    if any(key != f"{owner}.{role}" for role, key in params.items()) or not hasattr(
        norm, "num_batches_tracked"
    ):
        raise UnsupportedTeacher(
            f"{module_label(found.path, found.kind)}: a batch norm outside torch's own modules is not supported yet"
        )
    momentum = getattr(norm, "momentum", attrs["momentum"])
    return {**params, "num_batches_tracked": counter}, {**attrs, "momentum": momentum}
