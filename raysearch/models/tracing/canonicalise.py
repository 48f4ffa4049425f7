"""The captured ATen graph as layers: aliases dropped, writes in place made explicit, dead code removed, everything named.

What no rule understands is kept pending (`values.py`) and ends in an opaque layer (`opaque.py`) as soon as it gives a tensor [B, ...] of the
network's precision again.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS, Shape
from raysearch.errors import InvalidArchitecture, UnsupportedTeacher
from raysearch.models.calls import BINARY
from raysearch.models.tracing.capture import Capture, is_in_place, module_label
from raysearch.models.tracing.folding import Folds, fold_program, may_fold, name_states
from raysearch.models.tracing.moves import COPIES, MOVES, RESHAPES, part, parted, shuffled
from raysearch.models.tracing.opaque import Pending, opaque_draft, pending_step
from raysearch.models.tracing.parametric_rules import PARAMETRIC_RULES
from raysearch.models.tracing.rules import (
    ALIASES,
    EXPANSIONS,
    RULES,
    SAME_IF_SAME_TYPE,
    Call,
    Draft,
    NotCanonical,
    bind,
    shape_of,
)
from raysearch.models.tracing.values import (
    Constant,
    Item,
    Made,
    State,
    Step,
    Unreadable,
    Value,
    depends_on_images,
    is_fixed,
    is_symbolic,
    is_trainable,
)

_ALL_RULES = {**MOVES, **RULES, **PARAMETRIC_RULES}
_IGNORED = frozenset({"sym_size", "sym_numel", "_assert_tensor_metadata", "_assert_scalar"})
_MODULE_OPS = frozenset(
    {"batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm", "prelu"}
)
"""Operations whose states must be those of one standard module."""


@dataclass(frozen=True)
class _Found:
    """A layer before it has a name.

    Attributes:
        op, attrs: as in `Layer`.
        producers: the layers of its slots, by position in the list of all layers; -1 is the input.
        states: what its roles read.
        shape: the output's shape without the batch.
        path, kind: the module that computed it; `visit` tells the module's calls apart.
        label: its name where it is not the module's only operation.
    """

    op: str
    attrs: Mapping[str, Any]
    producers: tuple[int, ...]
    states: Mapping[str, Value]
    shape: Shape
    path: str
    kind: str
    visit: str
    label: str


@dataclass(frozen=True)
class _Site:
    """Where a node was computed: the module's path, its class, and a key that differs from call to call."""

    path: str
    kind: str
    visit: str

    @property
    def where(self) -> str:
        """The module as messages name it."""
        return module_label(self.path, self.kind)


@dataclass
class _Reading:
    """The state of one pass over the captured nodes.

    Attributes:
        several: the values that a node with several outputs has.
    """

    capture: Capture
    tensors: Mapping[str, torch.Tensor]
    layers: list[_Found] = field(default_factory=list)
    values: dict[fx.Node, Value] = field(default_factory=dict)
    several: dict[fx.Node, Sequence[Value | None]] = field(default_factory=dict)

    @property
    def images(self) -> Any:
        """The batch of images, as the capture describes it."""
        return self.capture.input.meta["val"]


def canonicalise(captured: Capture, module: nn.Module, input_shape: Shape) -> Architecture:
    """Turns a capture into an `Architecture`.

    Raises:
        UnsupportedTeacher: an operation mixes the images of a batch, is random, or cannot be written down.
    """
    reading = _Reading(captured, _tensors(module))
    reading.values[captured.input] = Made(-1, reading.images)
    for node, name in captured.states.items():
        reading.values[node] = _state(captured, node, name)
    live = _live(captured)
    for node in captured.nodes:
        if node in live:
            _read_node(reading, node)
    output = reading.values.get(captured.output)
    if output is not None and not isinstance(output, Made) and depends_on_images(output):
        raise UnsupportedTeacher(
            f"the teacher's output has the type {output.meta.dtype} and the shape {_text(output.meta.shape)}, but logits [batch, "
            "classes] in the precision of the weights are needed"
        )
    used = _reachable(reading.layers, output.position if isinstance(output, Made) else -1)
    if not any(_has_weights(reading.layers[position]) for position in used):
        raise UnsupportedTeacher(
            "the teacher's output is not computed from the images by any layer with weights"
        )
    names = _names([reading.layers[position] for position in used], module)
    name_of = {-1: names[-1], **dict(zip(used, names, strict=False))}
    folds = Folds(set(reading.tensors))
    layers = [Layer(names[-1], "input", shape=input_shape)]
    for position in used:
        found = reading.layers[position]
        layers.append(_layer(found, name_of[position], name_of, folds, module))
    assert isinstance(output, Made), "only layers of the images have weights"
    return Architecture(input_shape, tuple(layers), name_of[output.position])


def _has_weights(found: _Found) -> bool:
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


def _read_node(reading: _Reading, node: fx.Node) -> None:
    site = _site(node)
    if node.target is operator.getitem:
        _read_item(reading, node, site)
    elif isinstance(node.target, torch._ops.HigherOrderOperator):
        _read_region(reading, node, site)
    elif isinstance(node.target, torch._ops.OpOverload):
        _read_call(reading, node, site)
    elif isinstance(node.meta.get("val"), torch.Tensor):
        raise UnsupportedTeacher(f"{site.where}: operation {node.target} is not supported")
    # else arithmetic with sizes


def _read_item(reading: _Reading, node: fx.Node, site: _Site) -> None:
    source, index = node.args
    assert isinstance(source, fx.Node)
    divided = parted(node)
    if divided is not None and isinstance(reading.values.get(divided.args[0]), Made):  # type: ignore[arg-type]
        call = replace(bind(divided, site.where), node=node)
        try:
            draft = part(bind(divided, site.where), node)
            reading.values[node] = _canonical(reading, call, draft, site)
        except NotCanonical:
            pass
        else:
            return
    made = reading.several.get(source)
    found = made[index] if made else None  # type: ignore[index]
    step = reading.values.get(source)
    if found is None and isinstance(step, Step):
        found = Item(step, int(index), node.meta["val"])  # type: ignore[arg-type]
    if found is not None:
        reading.values[node] = _presented(reading, found, bind_item(node, source, site), site)


def bind_item(node: fx.Node, source: fx.Node, site: _Site) -> Call:
    """The call whose item a node is, for messages."""
    return (
        replace(bind(source, site.where), node=node)
        if _is_aten(source)
        else Call(node, "getitem", {}, site.where)
    )


def _is_aten(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def _read_region(reading: _Reading, node: fx.Node, site: _Site) -> None:
    """A part of `forward` under no_grad, or with autocast switched off: read as if it stood outside."""
    name = str(node.target)
    body = next((i for i, arg in enumerate(node.args) if _is_graph(arg)), None)
    if body is None or not name.startswith("wrap_with") or ("autocast" in name and node.args[2]):
        raise UnsupportedTeacher(f"{site.where}: {name} inside forward is not supported")
    holder = node.args[body]
    assert isinstance(holder, fx.Node)
    inner: Any = getattr(holder.graph.owning_module, str(holder.target))
    given = iter(node.args[body + 1 :])
    for inside in inner.graph.nodes:
        if inside.op == "placeholder":
            value = reading.values.get(next(given))  # type: ignore[arg-type]
            if value is not None:
                reading.values[inside] = value
        elif inside.op == "output":
            reading.several[node] = [reading.values.get(out) for out in inside.args[0]]
        elif inside.op == "call_function":
            _read_node(reading, inside)


def _is_graph(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _read_call(reading: _Reading, node: fx.Node, site: _Site) -> None:
    values = reading.values
    sources = [n for n in node.all_input_nodes if n in values]
    fixed = frozenset(n for n in sources if is_fixed(values[n]))
    call = bind(node, site.where, fixed)
    if call.name in _IGNORED or not isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
        return  # a number: refused where something computes with it
    if sources and _is_alias(reading, call, sources[0]):
        values[node] = values[sources[0]]
        return
    why = "is not supported"
    moving = [n for n in sources if depends_on_images(values[n])]
    known = call.name in _ALL_RULES or call.name in COPIES
    if moving and known and all(isinstance(values[n], Made) for n in moving):
        try:
            made = _canonical(reading, call, _draft(reading, call), site)
        except NotCanonical as error:
            why = str(error)
        else:
            _settle(reading, node, made)
            if not isinstance(node.meta["val"], torch.Tensor):
                reading.several[node] = [made]
            return
    try:
        step = pending_step(call, values, reading.images, moving=bool(moving))
    except Unreadable as error:
        raise call.refuse(f"{why}, and {error}" if moving else str(error)) from error
    _settle(reading, node, _presented(reading, step, call, site))


def _settle(reading: _Reading, node: fx.Node, value: Value) -> None:
    """Records what a node is; whoever reads an overwritten tensor later reads the result."""
    if is_in_place(node):
        overwritten = reading.values[node.args[0]]  # type: ignore[index]
        for other, held in list(reading.values.items()):
            if held is overwritten:
                reading.values[other] = value
    reading.values[node] = value


def _draft(reading: _Reading, call: Call) -> Draft:
    """What a call is as a layer."""
    if call.name in COPIES:
        copied = _copied(reading, call)
        assert copied is not None, "a copy that makes no difference is an alias"
        return copied
    shuffle = shuffled(call.node) if call.name in RESHAPES else None
    if shuffle is not None and shuffle.attrs["groups"] > 1:
        source = shuffle.inputs[0]
        if isinstance(source, fx.Node) and isinstance(reading.values.get(source), Made):
            return shuffle
    return _ALL_RULES[call.name](call)


def _copied(reading: _Reading, call: Call) -> Draft | None:
    """A permutation that is copied into its new order; None where the copy makes no difference."""
    source = reading.values[call.node.args[0]]  # type: ignore[index]
    found = (
        reading.layers[source.position]
        if isinstance(source, Made) and source.position >= 0
        else None
    )
    keeps = call.args.get("memory_format") in (None, torch.preserve_format)
    if found is None or found.op != "permute" or found.attrs["contiguous"]:
        return None
    if call.name == "clone" and keeps:
        return None
    attrs = {**found.attrs, "contiguous": True}
    return Draft("permute", (Made(found.producers[0], None),), attrs)


def _canonical(reading: _Reading, call: Call, draft: Draft, site: _Site) -> Made:
    value: Any = call.node.meta["val"]
    meta = value if isinstance(value, torch.Tensor) else value[0]
    _check_batch(reading, call, meta)
    shape = tuple(meta.shape[1:])
    if meta.dtype != reading.images.dtype or any(map(is_symbolic, shape)):
        raise NotCanonical("changes the precision")
    return _append(reading, call, draft, site, shape, meta)


def _check_batch(reading: _Reading, call: Call, meta: Any) -> None:
    batch = reading.images.shape[0]
    if str(meta.shape[0] if len(meta.shape) else None) != str(batch):
        if not any(map(is_symbolic, meta.shape)):
            raise call.refuse("moves values across the batch axis")
        raise NotCanonical("moves the batch axis")


def _append(
    reading: _Reading, call: Call, draft: Draft, site: _Site, shape: Shape | None, meta: Any
) -> Made:
    """Adds a layer, and those that its draft has in between; `shape` is None for the latter."""
    producers: list[int] = []
    shapes: list[Shape] = []
    for source in draft.inputs:
        if isinstance(source, Draft):
            made: Any = _append(reading, call, source, site, None, None)
        else:
            made = source if isinstance(source, Made) else reading.values.get(source)
        if not isinstance(made, Made):
            raise NotCanonical("computes with parameters directly")
        producers.append(made.position)
        shapes.append(_shape_of(reading, made))
    states = {
        role: reading.values[node] for role, node in draft.params.items() if node in reading.values
    }
    if len(states) < len(draft.params) or not all(is_fixed(value) for value in states.values()):
        raise NotCanonical("has weights that depend on the images")
    for value in states.values():
        _check_readable(value)
    if not all(map(may_fold, states.values())):
        raise NotCanonical("has weights that take fewer numbers to compute than to hold")
    try:
        expected = OPS[draft.op].out_shape(draft.attrs, shapes)
    except InvalidArchitecture as error:
        raise NotCanonical(f"is not supported here: {error}") from error
    if shape is not None and expected != shape:
        raise NotCanonical(f"gives {list(shape)} where {list(expected)} was expected")
    reading.layers.append(
        _Found(
            draft.op,
            draft.attrs,
            tuple(producers),
            states,
            expected,
            site.path,
            site.kind,
            site.visit,
            call.name,
        )
    )
    return Made(len(reading.layers) - 1, meta)


def _check_readable(value: Value) -> None:
    try:
        fold_program(value)
    except Unreadable as error:
        raise NotCanonical(str(error)) from error


def _shape_of(reading: _Reading, made: Made) -> Shape:
    if made.position >= 0:
        return reading.layers[made.position].shape
    return tuple(int(size) for size in reading.images.shape[1:])


def _presented(reading: _Reading, value: Value, call: Call, site: _Site) -> Value:
    """The output of a new opaque layer where a pending value is a tensor [B, ...] of the images; else the value itself."""
    meta, batch = value.meta, reading.images.shape[0]
    if (
        isinstance(value, Made)
        or not isinstance(meta, torch.Tensor)
        or not depends_on_images(value)
    ):
        return value
    shape = tuple(meta.shape)
    ready = shape and str(shape[0]) == str(batch) and not any(map(is_symbolic, shape[1:]))
    if not ready or meta.dtype != reading.images.dtype or 0 in shape[1:]:
        return value
    pending = Pending(value, reading.images.dtype, lambda made: _shape_of(reading, made))
    try:
        draft = opaque_draft(pending, reading.tensors)
    except Unreadable as error:
        raise call.refuse(str(error)) from error
    reading.layers.append(
        _Found(
            "opaque",
            draft.attrs,
            draft.producers,
            draft.states,
            shape[1:],
            site.path,
            site.kind,
            site.visit,
            call.name,
        )
    )
    return Made(len(reading.layers) - 1, meta)


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join('batch' if is_symbolic(size) else str(size) for size in shape)}]"


def _is_alias(reading: _Reading, call: Call, tensor: fx.Node) -> bool:
    """Whether a call's result is what it reads, for all that follows."""
    if call.name in COPIES:
        return isinstance(reading.values[tensor], Made) and _copied(reading, call) is None
    if call.name in ALIASES:
        return True
    if call.name in EXPANSIONS and _is_repeated_by_readers(call):
        return True
    before, after = tensor.meta.get("val"), call.node.meta.get("val")
    if call.name not in SAME_IF_SAME_TYPE or before is None or after is None:
        return False
    return before.dtype == after.dtype and str(tuple(before.shape)) == str(tuple(after.shape))


def _is_repeated_by_readers(call: Call) -> bool:
    """Whether all readers of an expansion are functions of two tensors, which expand by themselves."""
    before, after = shape_of(call.args["self"]), shape_of(call.node)
    same_batch = len(before) == len(after) and str(before[0]) == str(after[0])
    return same_batch and all(
        isinstance(user.target, torch._ops.OpOverload)
        and user.target._schema.name.removeprefix("aten::").removesuffix("_") in BINARY
        for user in call.node.users
    )


def _site(node: fx.Node) -> _Site:
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return _Site("", "the teacher", "")
    visit, (path, kind) = list(stack.items())[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    return _Site(path, name.rpartition(".")[2], visit)


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
    mains = Counter((layer.path, layer.visit) for layer in layers if _is_main(layer))
    taken: set[str] = set()
    names = []
    for layer in layers:
        key = (layer.path, layer.visit)
        leaf = not any(path.startswith(f"{layer.path}.") for path in paths)
        main = mains[key] == 1 and _is_main(layer)
        alone = counts[key] == 1 and leaf
        if layer.path and (main or alone):
            names.append(_unique(layer.path, taken, paths - {layer.path}))
        else:
            name = f"{layer.path}.{layer.label}" if layer.path else layer.label
            names.append(_unique(name, taken, paths))
        taken.add(names[-1])
    return [*names, _unique("input", taken, paths)]


def _is_main(layer: _Found) -> bool:
    """Whether a layer may stand for the module that computed it."""
    return bool(layer.states) and layer.op not in ("opaque", "param_binary")


def _unique(name: str, taken: set[str], reserved: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken or candidate in reserved:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _layer(
    found: _Found, name: str, name_of: Mapping[int, str], folds: Folds, module: nn.Module
) -> Layer:
    attrs, states = dict(found.attrs), dict(found.states)
    params: dict[str, str] = {}
    if states and found.op == "opaque":
        params = {role: state.name for role, state in states.items() if isinstance(state, State)}
    elif states:
        one_module = found.op in _MODULE_OPS or (
            found.op != "param_binary" and not all(isinstance(v, State) for v in states.values())
        )
        params, extra = name_states(folds, name, states, in_module=states if one_module else ())
        trained = OPS[found.op].params(attrs)
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
