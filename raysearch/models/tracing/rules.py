"""What each ATen operation becomes: one rule a canonical operation of `raysearch.architecture.ops`.

A rule reads the arguments of a node by the names of ATen's own schema and returns what the layer is; `canonicalise.py` finds the
producers. A new operation is a row in `RULES`; what has no row, or raises `NotCanonical`, becomes part of an opaque
layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from raysearch.errors import UnsupportedTeacher
from raysearch.models.calls import BINARY, PARAM_BINARY, UNARY
from raysearch.models.tracing.values import Made

_WEIGHT_ONLY = "bias" in inspect.signature(nn.BatchNorm2d).parameters
"""Whether this torch has normalisations with a weight and no bias."""


class NotCanonical(Exception):
    """A call is no canonical operation: it becomes part of an opaque layer. The text says why."""


@dataclass(frozen=True)
class Call:
    """One ATen call.

    Attributes:
        node: the call in the captured graph.
        name: ATen's base name without the in-place mark ("relu").
        args: argument name -> value as the schema has it, defaults filled in; tensors are nodes.
        where: the module, as messages name it.
        fixed: the nodes that depend on parameters, buffers and constants alone.
    """

    node: fx.Node
    name: str
    args: Mapping[str, Any]
    where: str
    fixed: frozenset[fx.Node] = frozenset()

    def refuse(self, why: str) -> UnsupportedTeacher:
        """The error that names the module, the operation and the reason."""
        return UnsupportedTeacher(f"{self.where}: operation {self.node.target} {why}")

    def unknown(self, why: str) -> NotCanonical:
        """The error after which the call is tried as part of an opaque layer."""
        return NotCanonical(why)

    def size(self, argument: str, axis: int) -> int:
        """The size of an axis other than the batch."""
        size = shape_of(self.args[argument])[axis]
        if not isinstance(size, int):
            raise self.unknown("is given a size that depends on the batch")
        return size

    def rank(self, argument: str) -> int:
        """Axes of a tensor argument, the batch included."""
        return len(shape_of(self.args[argument]))

    def axis(self, argument: str, dim: int) -> int:
        """An axis counted from the first after the batch."""
        rank = self.rank(argument)
        axis = dim % max(rank, 1) - 1
        if axis < 0:
            raise self.refuse(
                "acts on the batch axis, so the images of a batch are not independent"
            )
        return axis


@dataclass(frozen=True)
class Draft:
    """What a call is as a layer.

    Attributes:
        op, attrs: as in `Layer`.
        inputs: one node (or layer's output) a slot; a draft stands for a layer of its own in between.
        params: role -> the node that holds it.
    """

    op: str
    inputs: tuple[fx.Node | Made | Draft, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, fx.Node] = field(default_factory=dict)


Rule = Callable[[Call], Draft]


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape of a node's tensor, the batch included (a symbol)."""
    return tuple(node.meta["val"].shape)


def aten_name(node: fx.Node) -> str:
    """The base name of the ATen operation that a node calls; "" where it calls none."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema is not None else ""


def bind(node: fx.Node, where: str, fixed: frozenset[fx.Node] = frozenset()) -> Call:
    """Reads a node's arguments by the names of its schema."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    values: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(node.args):
            value = node.args[position]
        elif argument.name in node.kwargs:
            value = node.kwargs[argument.name]
        else:
            value = argument.default_value if argument.has_default_value() else None
        values[argument.name] = value
    packet = target._schema.name.removeprefix("aten::")
    return Call(node, packet.removesuffix("_"), values, where, fixed)


def weights(call: Call, *roles: str) -> dict[str, fx.Node]:
    """The nodes of those roles that the call has."""
    return {role: call.args[role] for role in roles if call.args.get(role) is not None}


def spread(values: Any, rank: int) -> list[int]:
    """One entry an axis: ATen allows one number for all."""
    values = [values] if isinstance(values, int) else list(values)
    return values * rank if len(values) == 1 else values


def _conv(call: Call) -> Draft:
    weight = tuple(call.args["weight"].meta["val"].shape)
    rank = len(weight) - 2
    if call.rank("input") != rank + 2:
        raise call.unknown("is given an input without a batch axis")
    attrs: dict[str, Any] = {
        "in_channels": weight[1] * call.args["groups"],
        "out_channels": weight[0],
        "kernel": list(weight[2:]),
        "stride": spread(call.args["stride"], rank),
        "dilation": spread(call.args["dilation"], rank),
        "groups": call.args["groups"],
        "bias": call.args["bias"] is not None,
    }
    padding = call.args["padding"]
    source: Any = call.args["input"]
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(attrs["dilation"], attrs["kernel"], strict=True)]
        padding = [pad // 2 for pad in total]
        if any(pad % 2 for pad in total):  # even kernels: torch pads the far side by one more
            pads = [more for pad in reversed(total) for more in (0, pad % 2)]
            source = Draft("pad", (source,), {"pads": pads, "mode": "constant", "value": 0.0})
    attrs["padding"] = [0] * rank if padding == "valid" else spread(padding, rank)
    return Draft("conv", (source,), attrs, weights(call, "weight", "bias"))


def _linear(call: Call) -> Draft:
    out_features, in_features = call.args["weight"].meta["val"].shape
    attrs = {
        "in_features": in_features,
        "out_features": out_features,
        "bias": call.args["bias"] is not None,
    }
    return Draft("linear", (call.args["input"],), attrs, weights(call, "weight", "bias"))


def affine(call: Call) -> dict[str, bool]:
    """The attributes that say which of weight and bias a normalisation has."""
    has_weight, has_bias = (call.args[role] is not None for role in ("weight", "bias"))
    if has_bias and not has_weight:
        raise call.unknown("has a bias without a weight")
    if has_bias or not has_weight:
        return {"affine": has_weight}
    if not _WEIGHT_ONLY:
        raise call.unknown("has a weight without a bias")
    return {"affine": True, "bias": False}


def _batch_norm(call: Call) -> Draft:
    if call.args["training"] or call.args["running_mean"] is None:
        raise call.refuse(
            "normalises by the batch even in evaluation, so its images are not independent"
        )
    attrs = {
        "num_features": call.size("input", 1),
        "eps": call.args["eps"],
        "momentum": call.args["momentum"],
        **affine(call),
    }
    roles = ("weight", "bias", "running_mean", "running_var")
    return Draft("batch_norm", (call.args["input"],), attrs, weights(call, *roles))


def _first_tensor(call: Call) -> str:
    return "self" if "self" in call.args else "input"


def _pointwise(call: Call) -> Draft:
    """One tensor and numbers, or two tensors (`add`, `mul`, ...)."""
    first = _first_tensor(call)
    others = {key: value for key, value in call.args.items() if key != first}
    if isinstance(others.get("other"), fx.Node):
        if not isinstance(others["other"].meta.get("val"), torch.Tensor):
            raise call.refuse(
                "computes with a number that is taken from data or from the batch size"
            )
        return _two_tensors(call, others)
    nodes = [value for value in others.values() if isinstance(value, fx.Node)]
    if any(not isinstance(node.meta.get("val"), torch.Tensor) for node in nodes):
        raise call.refuse("computes with a number that is taken from data or from the batch size")
    if nodes:
        if call.name == "pow" and nodes[0] in call.fixed:
            return _with_parameter(call, call.args[first], nodes[0], reverse=False)
        raise call.unknown("takes several tensors")
    if call.name not in UNARY:
        raise call.unknown("is not supported with a number")
    args, kwargs = _plain_arguments(call, first)
    return Draft("unary", (call.args[first],), {"fn": call.name, "args": args, "kwargs": kwargs})


def _two_tensors(call: Call, others: Mapping[str, Any]) -> Draft:
    if others.get("alpha", 1) != 1 or others.get("rounding_mode") is not None:
        raise call.unknown("is not supported with alpha or rounding_mode")
    inputs = (call.args["self"], others["other"])
    if any(node in call.fixed for node in inputs):
        reverse = inputs[0] in call.fixed
        images, parameter = inputs[::-1] if reverse else inputs
        return _with_parameter(call, images, parameter, reverse=reverse)
    if call.name == "rsub":
        return Draft("binary", inputs[::-1], {"fn": "sub"})
    if call.name == "add":
        return Draft("add", inputs)
    if call.name not in BINARY:
        raise call.unknown("of two tensors is not supported")
    return Draft("binary", inputs, {"fn": call.name})


def _with_parameter(call: Call, images: fx.Node, parameter: fx.Node, *, reverse: bool) -> Draft:
    """An operand that is a parameter, a buffer, or computed from such."""
    name = call.name
    if name == "rsub":
        name, reverse = "sub", not reverse
    if name not in PARAM_BINARY:
        raise call.unknown("with a parameter is not supported")
    if parameter.meta["val"].dtype != images.meta["val"].dtype:
        raise call.unknown("changes the precision")
    shape = [int(size) for size in shape_of(parameter)]
    attrs = {"fn": name, "shape": shape, "reverse": reverse and name not in _COMMUTATIVE}
    return Draft("param_binary", (images,), attrs, {"weight": parameter})


_COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum"})


def _plain_arguments(call: Call, first: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as they were written, without the tensor; ATen's keyword-only ones by name."""
    target: Any = call.node.target
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in target._schema.arguments:
        value = call.args[argument.name]
        if argument.name == first:
            continue
        if argument.kwarg_only:
            if value != argument.default_value:
                kwargs[argument.name] = value
        else:
            args.append(value)
    while args and _is_default(target, len(args) + len(kwargs), args[-1]):
        args.pop()
    if call.name == "elu" and args[1:]:
        raise call.unknown("is supported with alpha only")
    return args, kwargs


def _is_default(target: Any, position: int, value: Any) -> bool:
    argument = target._schema.arguments[position]
    return argument.has_default_value() and argument.default_value == value


def _dropout(call: Call) -> Draft:
    attrs = {"fn": call.name, "p": call.args["p"]}
    return Draft("dropout", (call.args[_first_tensor(call)],), attrs)


def _pool(call: Call) -> Draft:
    kind, rank = call.name[:3], int(call.name[8])
    if call.args.get("divisor_override") is not None:
        raise call.unknown("is not supported with divisor_override")
    kernel = spread(call.args["kernel_size"], rank)
    attrs: dict[str, Any] = {
        "kind": kind,
        "kernel": kernel,
        "stride": spread(call.args["stride"] or kernel, rank),
        "padding": spread(call.args["padding"], rank),
        "dilation": spread(call.args.get("dilation") or 1, rank),
        "ceil_mode": call.args["ceil_mode"],
        "count_include_pad": call.args.get("count_include_pad", True),
    }
    return Draft("pool", (call.args[_first_tensor(call)],), attrs)


def _adaptive_pool(call: Call) -> Draft:
    size = spread(call.args["output_size"], int(call.name[-2]))
    attrs = {"kind": call.name[9:12], "output_size": size}
    return Draft("adaptive_pool", (call.args["self"],), attrs)


def _reduce(call: Call) -> Draft:
    dims = call.args.get("dim")
    if not dims and dims != 0:
        raise call.refuse("acts on the batch axis, so the images of a batch are not independent")
    if call.args.get("dtype") is not None:
        raise call.unknown("changes the precision")
    axes = sorted(call.axis("self", dim) for dim in ([dims] if isinstance(dims, int) else dims))
    attrs = {"fn": call.name, "dims": axes, "keepdim": call.args["keepdim"]}
    return Draft("reduce", (call.args["self"],), attrs)


def _concat(call: Call) -> Draft:
    parts = tuple(call.args["tensors"])
    rank = len(shape_of(parts[0]))
    dim = call.args["dim"] % rank - 1
    if dim < 0:
        raise call.refuse("acts on the batch axis, so the images of a batch are not independent")
    return Draft("concat", parts, {"dim": dim})


def _pad(call: Call) -> Draft:
    pads = list(call.args["pad"])
    if len(pads) // 2 >= call.rank("self"):
        raise call.refuse("acts on the batch axis, so the images of a batch are not independent")
    attrs = {
        "pads": pads,
        "mode": call.args.get("mode", "constant"),
        "value": float(call.args.get("value") or 0.0),
    }
    return Draft("pad", (call.args["self"],), attrs)


def _softmax(call: Call) -> Draft:
    if call.args.get("dtype") is not None:
        raise call.unknown("changes the precision")
    attrs = {"dim": call.axis("self", call.args["dim"]), "log": call.name == "log_softmax"}
    return Draft("softmax", (call.args["self"],), attrs)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    "linear": _linear,
    "batch_norm": _batch_norm,
    **dict.fromkeys((*UNARY, *BINARY), _pointwise),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **{f"{kind}_pool{rank}d": _pool for kind in ("max", "avg") for rank in (1, 2, 3)},
    **{f"max_pool{rank}d_with_indices": _pool for rank in (1, 2, 3)},
    **{
        f"adaptive_{kind}_pool{rank}d": _adaptive_pool
        for kind in ("max", "avg")
        for rank in (1, 2, 3)
    },
    **dict.fromkeys(("mean", "sum", "amax"), _reduce),
    **dict.fromkeys(("cat", "concat"), _concat),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
}
"""ATen base name -> rule."""

EXPANSIONS = frozenset({"expand", "expand_as"})
"""Operations that repeat a tensor along axes of size 1, which a pointwise operation does by itself."""

ALIASES = frozenset({"detach", "alias", "lift_fresh", "lift_fresh_copy"})
"""Operations whose result is their first argument."""

SAME_IF_SAME_TYPE = frozenset(
    {"to", "_to_copy", "type_as", "float", "view", "reshape", "flatten", "squeeze", "slice"}
    | {"unflatten", "view_as", "reshape_as", "expand", "expand_as", "narrow"}
)
"""Operations whose result is their first argument where neither shape nor precision changes."""
