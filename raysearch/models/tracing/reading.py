"""One pass over the captured nodes: every ATen call becomes a layer, an alias, or a pending value.

What no rule understands is kept pending (`values.py`) and ends in an opaque layer (`opaque.py`) as soon as it gives a tensor [B, ...] of the
network's precision again.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from raysearch.architecture.ops import OPS, Shape
from raysearch.architecture.programs import MAX_CONSTANT
from raysearch.errors import InvalidArchitecture, UnsupportedTeacher
from raysearch.models.calls import BINARY
from raysearch.models.tracing.capture import Capture, is_in_place
from raysearch.models.tracing.folding import fold_program, is_computed, may_fold, sources
from raysearch.models.tracing.found import Found, Site, site_of
from raysearch.models.tracing.further_rules import FURTHER_RULES, response_normalised
from raysearch.models.tracing.moves import COPIES, MOVES, RESHAPES, part, parted, shuffled
from raysearch.models.tracing.opaque import Pending, opaque_draft, pending_step
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
    Step,
    Unreadable,
    Value,
    depends_on_images,
    is_fixed,
    is_symbolic,
)

_ALL_RULES = {**MOVES, **RULES, **FURTHER_RULES}
_IGNORED = frozenset({"sym_size", "sym_numel", "_assert_tensor_metadata", "_assert_scalar"})


@dataclass
class Reading:
    """The state of one pass over the captured nodes.

    Attributes:
        several: the values that a node with several outputs has.
        parts: for a part of another tensor that tensor and the call that took the part.
        shared: parameters that no weight may be folded from, because other layers read them too.
    """

    capture: Capture
    tensors: Mapping[str, torch.Tensor]
    layers: list[Found] = field(default_factory=list)
    values: dict[fx.Node, Value] = field(default_factory=dict)
    several: dict[fx.Node, Sequence[Value | None]] = field(default_factory=dict)
    parts: dict[Value, tuple[Value, Call]] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()

    @property
    def images(self) -> Any:
        """The batch of images, as the capture describes it."""
        return self.capture.input.meta["val"]


def read_node(reading: Reading, node: fx.Node) -> None:
    """Takes up one node.

    Raises:
        UnsupportedTeacher: it mixes the images of a batch, is random, or cannot be written down.
    """
    site = site_of(node)
    if node.target is operator.getitem:
        _read_item(reading, node, site)
    elif isinstance(node.target, torch._ops.HigherOrderOperator):
        _read_region(reading, node, site)
    elif isinstance(node.target, torch._ops.OpOverload):
        _read_call(reading, node, site)
    elif isinstance(node.meta.get("val"), torch.Tensor):
        raise UnsupportedTeacher(f"{site.where}: operation {node.target} is not supported")
    # else arithmetic with sizes


def _read_item(reading: Reading, node: fx.Node, site: Site) -> None:
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
    found = made[index] if made and index < len(made) else None  # type: ignore
    step = reading.values.get(source)
    if found is None and isinstance(step, Step):
        found = Item(step, int(index), node.meta["val"])  # type: ignore[arg-type]
    if found is not None:
        call = Call(node, str(source.target).split(".")[-2:][0], {}, site.where)
        reading.values[node] = _presented(reading, found, call, site)


def _read_region(reading: Reading, node: fx.Node, site: Site) -> None:
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
            read_node(reading, inside)


def _is_graph(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _read_call(reading: Reading, node: fx.Node, site: Site) -> None:
    values = reading.values
    made = _made_constant(node)
    if made is not None:
        values[node] = made
        return
    sources = [n for n in node.all_input_nodes if n in values]
    fixed = frozenset(n for n in sources if is_fixed(values[n]))
    call = bind(node, site.where, fixed)
    if call.name in _IGNORED or not isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
        return  # a number: refused where something computes with it
    if sources and _is_alias(reading, call, sources[0]):
        source = values[sources[0]]
        is_copy = call.name == "clone" and isinstance(source, Made)
        values[node] = replace(source) if is_copy else source  # writes into a copy leave the source
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
            _settle(reading, call, made, site)
            if isinstance(node.meta["val"], torch.Tensor):
                return
            reading.several[node] = [made]  # further outputs stay pending
    try:
        step = pending_step(call, values, reading.images, moving=bool(moving))
    except Unreadable as error:
        raise call.refuse(f"{why}, and {error}" if moving else str(error)) from error
    if node in reading.several:
        values[node] = step
        return
    _settle(reading, call, _presented(reading, step, call, site), site)


def _made_constant(node: fx.Node) -> Constant | None:
    """What `x.new_zeros(3)` and its like make: they take no values from x."""
    name = str(node.target).split(".")[1] if str(node.target).startswith("aten.new_") else ""
    meta: Any = node.meta.get("val")
    fill = {"new_zeros": 0, "new_ones": 1}.get(name, node.args[-1] if name == "new_full" else None)
    plain = isinstance(meta, torch.Tensor) and not any(map(is_symbolic, meta.shape))
    if not plain or not isinstance(fill, int | float) or meta.numel() > MAX_CONSTANT:
        return None
    return Constant(torch.full(tuple(meta.shape), fill, dtype=meta.dtype), meta)


def _settle(reading: Reading, call: Call, value: Value, site: Site) -> None:
    """Records what a node is; whoever reads an overwritten tensor later reads the result."""
    node, values = call.node, reading.values
    if is_in_place(node):
        _overwrite(reading, values[node.args[0]], value, call, site)  # type: ignore[index]
    elif call.name in _SCATTER:
        reading.parts[value] = (values[node.args[0]], call)  # type: ignore[index]
    values[node] = value


def _overwrite(reading: Reading, old: Value, new: Value, call: Call, site: Site) -> None:
    """Puts a new value in the place of an old one, and into the tensor that the old one is a part of."""
    for node, held in list(reading.values.items()):
        if held is old:
            reading.values[node] = new
    if old not in reading.parts:
        return
    whole, taken = reading.parts[old]
    dims = [
        taken.args[name] for name in ("dim", "index", "start", "end", "step") if name in taken.args
    ]
    if not all(isinstance(number, int | None) for number in dims):
        return  # the proof on numbers decides
    step = Step(_SCATTER[taken.name], (whole, new, *dims), {}, whole.meta)
    _overwrite(reading, whole, _presented(reading, step, call, site), call, site)


_SCATTER = {
    "slice": torch.ops.aten.slice_scatter.default,
    "select": torch.ops.aten.select_scatter.default,
}
"""Calls that take a part of a tensor, and what writes such a part back."""


def _draft(reading: Reading, call: Call) -> Draft:
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
    normalised = response_normalised(call) if call.name == "div" else None
    return normalised or _ALL_RULES[call.name](call)


def _copied(reading: Reading, call: Call) -> Draft | None:
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


def _canonical(reading: Reading, call: Call, draft: Draft, site: Site) -> Made:
    value: Any = call.node.meta["val"]
    meta = value if isinstance(value, torch.Tensor) else value[0]
    _check_batch(reading, call, meta)
    shape = tuple(meta.shape[1:])
    if meta.dtype != reading.images.dtype or any(map(is_symbolic, shape)):
        raise NotCanonical("changes the precision")
    return _append(reading, call, draft, site, shape, meta)


def _check_batch(reading: Reading, call: Call, meta: Any) -> None:
    batch = reading.images.shape[0]
    if str(meta.shape[0] if len(meta.shape) else None) != str(batch):
        if not any(map(is_symbolic, meta.shape)):
            raise call.refuse("moves values across the batch axis")
        raise NotCanonical("moves the batch axis")


def _append(
    reading: Reading, call: Call, draft: Draft, site: Site, shape: Shape | None, meta: Any
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
    if any(sources(value) & reading.shared for value in states.values() if is_computed(value)):
        raise NotCanonical("has weights that are computed from those of other layers")
    try:
        expected = OPS[draft.op].out_shape(draft.attrs, shapes)
    except InvalidArchitecture as error:
        raise NotCanonical(f"is not supported here: {error}") from error
    if shape is not None and expected != shape:
        raise NotCanonical(f"gives {list(shape)} where {list(expected)} was expected")
    found = (draft.op, draft.attrs, tuple(producers), states, expected)
    return Made(_add(reading, call, site, *found), meta)


def _add(
    reading: Reading,
    call: Call,
    site: Site,
    op: str,
    attrs: Mapping[str, Any],
    producers: tuple[int, ...],
    states: Mapping[str, Value],
    shape: Shape,
) -> int:
    """Adds a layer and returns its position."""
    place = (site.path, site.kind, site.visit, call.name)
    reading.layers.append(Found(op, attrs, producers, states, shape, *place))
    return len(reading.layers) - 1


def _check_readable(value: Value) -> None:
    try:
        fold_program(value)
    except Unreadable as error:
        raise NotCanonical(str(error)) from error


def _shape_of(reading: Reading, made: Made) -> Shape:
    if made.position >= 0:
        return reading.layers[made.position].shape
    return tuple(int(size) for size in reading.images.shape[1:])


def _presented(reading: Reading, value: Value, call: Call, site: Site) -> Value:
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
    found = ("opaque", draft.attrs, draft.producers, draft.states, shape[1:])
    return Made(_add(reading, call, site, *found), meta)


def _is_alias(reading: Reading, call: Call, tensor: fx.Node) -> bool:
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
