"""How a layer is computed: the torch call that stands for each canonical operation.

One table serves both `build.py`, which evaluates the calls, and `source.py`, which prints them, so that a module and its
generated source cannot drift apart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from raysearch.architecture.graph import Layer
from raysearch.architecture.ops import OPS
from raysearch.errors import InvalidArchitecture

UNARY: Mapping[str, str] = {
    "relu": "F.relu",
    "relu6": "F.relu6",
    "hardtanh": "F.hardtanh",
    "leaky_relu": "F.leaky_relu",
    "elu": "F.elu",
    "celu": "F.celu",
    "selu": "F.selu",
    "silu": "F.silu",
    "gelu": "F.gelu",
    "mish": "F.mish",
    "softplus": "F.softplus",
    "threshold": "F.threshold",
    "log_sigmoid": "F.logsigmoid",
    "hardswish": "F.hardswish",
    "hardsigmoid": "F.hardsigmoid",
    "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh",
    "exp": "torch.exp",
    "log": "torch.log",
    "sqrt": "torch.sqrt",
    "rsqrt": "torch.rsqrt",
    "sin": "torch.sin",
    "cos": "torch.cos",
    "erf": "torch.erf",
    "abs": "torch.abs",
    "neg": "torch.neg",
    "square": "torch.square",
    "reciprocal": "torch.reciprocal",
    "pow": "torch.pow",
    "clamp": "torch.clamp",
    "clamp_min": "torch.clamp_min",
    "clamp_max": "torch.clamp_max",
    "add": "torch.add",
    "sub": "torch.sub",
    "rsub": "torch.rsub",
    "mul": "torch.mul",
    "div": "torch.div",
}
"""Element-wise functions of one tensor by their ATen name; the arguments after the tensor are ATen's own."""

BINARY: Mapping[str, str] = {
    "add": "torch.add",
    "sub": "torch.sub",
    "mul": "torch.mul",
    "div": "torch.div",
    "maximum": "torch.maximum",
    "minimum": "torch.minimum",
}
"""Element-wise functions of two tensors by their ATen name."""

PARAM_BINARY: Mapping[str, str] = {**BINARY, "pow": "torch.pow"}
"""Element-wise functions of a tensor and a parameter."""

_DROPOUTS = {
    "dropout": "nn.Dropout",
    "feature_dropout": "nn.Dropout2d",
    "alpha_dropout": "nn.AlphaDropout",
}
_REDUCTIONS = {"mean": "torch.mean", "sum": "torch.sum", "amax": "torch.amax"}
_POOLS = {"max": "max_pool", "avg": "avg_pool"}

_NAMESPACES: Mapping[str, Any] = {
    "F": functional,
    "nn": nn,
    "operator": operator,
    "torch": torch,
}


@dataclass(frozen=True)
class Call:
    """A call as text: a dotted function and its plain arguments; tensor arguments come before `args`.

    Attributes:
        function: "nn.Conv2d", "F.relu", "torch.cat", ...
        args, kwargs: the arguments after the tensors.
        packed: the tensors are handed over as one tuple.
        buffers: of a module, the weights that are no parameters but buffers.
        method: a method without arguments that is called on the result; "" where none is.
    """

    function: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = False
    buffers: tuple[str, ...] = ()
    method: str = ""

    def resolve(self) -> Callable[..., Any]:
        """The function itself."""
        space, _, name = self.function.partition(".")
        return getattr(_NAMESPACES[space], name)


def module_call(layer: Layer) -> Call | None:
    """The constructor of the module that computes a layer; None where a function does."""
    maker = _MODULES.get(layer.op)
    if maker is None:
        return None
    call, untrained = maker(layer), layer.attrs.get("untrained")
    roles = OPS[layer.op].params(layer.attrs) if untrained else ()
    return replace(call, buffers=tuple(r for r in roles if r in untrained)) if untrained else call


def function_call(layer: Layer) -> Call:
    """The function that computes a layer without a module of its own.

    Raises:
        InvalidArchitecture: the operation is not known.
    """
    maker = _FUNCTIONS.get(layer.op)
    if maker is None:
        raise InvalidArchitecture(f"layer {layer.name!r}: operation {layer.op!r} cannot be built")
    return maker(layer)


def weighted_call(layer: Layer) -> Call:
    """A convolution or linear map as a function of (input, weight, bias): for weights that no standard module holds."""
    if layer.op == "linear":
        return Call("F.linear")
    a = layer.attrs
    if layer.op == "conv_transpose":
        keys = ("stride", "padding", "output_padding")
        args = tuple(_flat(a[key]) for key in keys)
        rank = len(a["kernel"])
        return Call(f"F.conv_transpose{rank}d", (*args, a["groups"], _flat(a["dilation"])))
    args = tuple(_flat(a[key]) for key in ("stride", "padding", "dilation"))
    return Call(f"F.conv{len(a['kernel'])}d", (*args, a["groups"]))


def _flat(values: Any) -> Any:
    """One number where all axes agree, else a tuple."""
    values = tuple(values)
    return values[0] if len(set(values)) == 1 else values


def _conv(layer: Layer) -> Call:
    return _convolution("nn.Conv", layer, stride=1, padding=0, dilation=1)


def _conv_transpose(layer: Layer) -> Call:
    return _convolution(
        "nn.ConvTranspose", layer, stride=1, padding=0, output_padding=0, dilation=1
    )


def _convolution(kind: str, layer: Layer, **defaults: int) -> Call:
    """A module of a convolution; what has its default is not written."""
    a = layer.attrs
    kwargs: dict[str, Any] = {"kernel_size": _flat(a["kernel"])}
    for key, default in defaults.items():
        if _flat(a[key]) != default:
            kwargs[key] = _flat(a[key])
    if a["groups"] != 1:
        kwargs["groups"] = a["groups"]
    if not a["bias"]:
        kwargs["bias"] = False
    return Call(f"{kind}{len(a['kernel'])}d", (a["in_channels"], a["out_channels"]), kwargs)


def _group_norm(layer: Layer) -> Call:
    a = layer.attrs
    return Call(
        "nn.GroupNorm",
        (a["groups"], a["num_channels"]),
        _changed(a, eps=1e-5, affine=True) | _unbiased(a),
    )


def _instance_norm(layer: Layer) -> Call:
    a = layer.attrs
    kwargs = _changed(a, eps=1e-5, momentum=0.1)
    kwargs |= {"affine": True} if a["affine"] else {}
    kwargs |= {"track_running_stats": True} if a["track"] else {}
    kwargs |= _unbiased(a)
    return Call(f"nn.InstanceNorm{max(1, len(layer.shape) - 1)}d", (a["num_features"],), kwargs)


def _layer_norm(layer: Layer) -> Call:
    a = layer.attrs
    kwargs = _changed(a, eps=1e-5)
    if not a["affine"]:
        kwargs["elementwise_affine"] = False
    elif not a["bias"]:
        kwargs["bias"] = False
    return Call("nn.LayerNorm", (_shape(a["shape"]),), kwargs)


def _rms_norm(layer: Layer) -> Call:
    a = layer.attrs
    kwargs = _changed(a, eps=None) | ({} if a["affine"] else {"elementwise_affine": False})
    return Call("nn.RMSNorm", (_shape(a["shape"]),), kwargs)


def _shape(values: Any) -> Any:
    """A normalised shape as it is usually written."""
    values = tuple(values)
    return values[0] if len(values) == 1 else values


def _changed(attrs: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Those attributes that differ from torch's defaults."""
    return {key: attrs[key] for key, default in defaults.items() if attrs[key] != default}


def _unbiased(attrs: Mapping[str, Any]) -> dict[str, bool]:
    """The keyword of a normalisation with a weight alone."""
    return {} if attrs.get("bias", True) else {"bias": False}


def _linear(layer: Layer) -> Call:
    a = layer.attrs
    return Call(
        "nn.Linear", (a["in_features"], a["out_features"]), {} if a["bias"] else {"bias": False}
    )


def _batch_norm(layer: Layer) -> Call:
    a = layer.attrs
    kwargs = {
        key: a[key]
        for key, default in (("eps", 1e-05), ("momentum", 0.1), ("affine", True))
        if a[key] != default
    }
    kwargs |= _unbiased(a)
    return Call(f"nn.BatchNorm{max(1, len(layer.shape) - 1)}d", (a["num_features"],), kwargs)


def _dropout(layer: Layer) -> Call:
    return Call(_known(layer, "fn", _DROPOUTS), (layer.attrs["p"],))


def _known(layer: Layer, key: str, names: Mapping[str, str]) -> str:
    """What an attribute stands for; an architecture file must not be able to name any other function."""
    if layer.attrs[key] not in names:
        raise InvalidArchitecture(
            f"layer {layer.name!r}: {key} is {layer.attrs[key]!r}, but {', '.join(names)} are known"
        )
    return names[layer.attrs[key]]


def _unary(layer: Layer) -> Call:
    kwargs = dict(layer.attrs["kwargs"])
    for name in kwargs:
        if not name.isidentifier():
            raise InvalidArchitecture(f"layer {layer.name!r}: {name!r} is no argument's name")
    return Call(_known(layer, "fn", UNARY), tuple(layer.attrs["args"]), kwargs)


def _binary(layer: Layer) -> Call:
    return Call(_known(layer, "fn", BINARY))


def _pool(layer: Layer) -> Call:
    a = layer.attrs
    kwargs: dict[str, Any] = {}
    if list(a["stride"]) != list(a["kernel"]):
        kwargs["stride"] = _flat(a["stride"])
    if any(a["padding"]):
        kwargs["padding"] = _flat(a["padding"])
    if set(a.get("dilation") or [1]) != {1}:
        kwargs["dilation"] = _flat(a["dilation"])
    if a.get("ceil_mode"):
        kwargs["ceil_mode"] = True
    if a["kind"] == "avg" and not a.get("count_include_pad", True):
        kwargs["count_include_pad"] = False
    return Call(
        f"F.{_known(layer, 'kind', _POOLS)}{len(a['kernel'])}d", (_flat(a["kernel"]),), kwargs
    )


def _adaptive_pool(layer: Layer) -> Call:
    a = layer.attrs
    size = tuple(a["output_size"])
    return Call(f"F.adaptive_{_known(layer, 'kind', _POOLS)}{len(size)}d", (_flat(size),))


def _resize(layer: Layer) -> Call:
    a = layer.attrs
    size = {"size": tuple(a["size"])} if a["scale"] is None else {"scale_factor": tuple(a["scale"])}
    kwargs = {key: _flat(value) for key, value in size.items()}
    kwargs |= {} if a["fn"] == "nearest" else {"mode": a["fn"]}
    kwargs |= {"align_corners": True} if a["align_corners"] else {}
    return Call("F.interpolate", kwargs=kwargs)


def _reduce(layer: Layer) -> Call:
    a = layer.attrs
    dims = tuple(dim + 1 for dim in a["dims"])
    kwargs: dict[str, Any] = {"dim": dims[0] if len(dims) == 1 else dims}
    if a["keepdim"]:
        kwargs["keepdim"] = True
    return Call(_known(layer, "fn", _REDUCTIONS), kwargs=kwargs)


def _concat(layer: Layer) -> Call:
    return Call("torch.cat", kwargs={"dim": layer.attrs["dim"] + 1}, packed=True)


def _pad(layer: Layer) -> Call:
    a = layer.attrs
    kwargs: dict[str, Any] = {}
    if a["mode"] != "constant":
        kwargs["mode"] = a["mode"]
    elif a["value"]:
        kwargs["value"] = a["value"]
    return Call("F.pad", (tuple(a["pads"]),), kwargs)


def _softmax(layer: Layer) -> Call:
    name = "F.log_softmax" if layer.attrs["log"] else "F.softmax"
    return Call(name, kwargs={"dim": layer.attrs["dim"] + 1})


def _slice(layer: Layer) -> Call:
    a = layer.attrs
    if a["step"] == 1:
        return Call("torch.narrow", (a["dim"] + 1, a["start"], a["stop"] - a["start"]))
    places = [slice(None)] * (a["dim"] + 1) + [slice(a["start"], a["stop"], a["step"])]
    return Call("operator.getitem", (tuple(places),))


def _reshape(layer: Layer) -> Call:
    a = layer.attrs
    if a["mode"] == "flatten":
        return Call("torch.flatten", (1,))
    if a["mode"] == "merge":
        return Call("torch.flatten", (a["start"] + 1, a["end"] + 1))
    return Call("torch.unflatten", (a["dim"] + 1, tuple(a["sizes"])))


def _permute(layer: Layer) -> Call:
    dims = (0, *(dim + 1 for dim in layer.attrs["dims"]))
    method = "contiguous" if layer.attrs["contiguous"] else ""
    return Call("torch.permute", (dims,), method=method)


_RESPONSE = {"alpha": 1e-4, "beta": 0.75, "k": 1.0}

_MODULES: Mapping[str, Callable[[Layer], Call]] = {
    "conv": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "conv_transpose": _conv_transpose,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "prelu": lambda layer: Call(
        "nn.PReLU", tuple(_changed(layer.attrs, num_parameters=1).values())
    ),
}

_FUNCTIONS: Mapping[str, Callable[[Layer], Call]] = {
    "unary": _unary,
    "binary": _binary,
    "add": lambda _: Call("torch.add"),
    "pool": _pool,
    "adaptive_pool": _adaptive_pool,
    "reduce": _reduce,
    "resize": _resize,
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
    "permute": _permute,
    "channel_shuffle": lambda layer: Call("F.channel_shuffle", (layer.attrs["groups"],)),
    "pad": _pad,
    "softmax": _softmax,
    "local_response_norm": lambda layer: Call(
        "F.local_response_norm", (layer.attrs["size"],), _changed(layer.attrs, **_RESPONSE)
    ),
    "param_binary": lambda layer: Call(_known(layer, "fn", PARAM_BINARY)),
}
