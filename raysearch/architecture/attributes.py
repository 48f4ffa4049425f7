"""What the attributes of every operation must look like; reads files that anybody may have written."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from raysearch.architecture.opaque import check_opaque
from raysearch.architecture.ops import Attrs, Shape
from raysearch.architecture.programs import DTYPES, check_fold, check_program
from raysearch.errors import InvalidArchitecture

MAX_INT = 2**31 - 1
MAX_LIST = 4096
MAX_DEPTH = 8
MAX_INDEX = 2**20
"""Places that a gather keeps at most."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_Rule = Callable[[Any], str]
"""Returns what was expected, or "" where the value is right."""


def is_int(value: object, least: int = 0) -> bool:
    """A whole number (no bool) in [least, MAX_INT]."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_INT


def _int(least: int) -> _Rule:
    return lambda value: "" if is_int(value, least) else f"a whole number of at least {least}"


def _ints(least: int) -> _Rule:
    def rule(value: Any) -> str:
        right = (
            isinstance(value, list) and len(value) <= 64 and all(is_int(n, least) for n in value)
        )
        return "" if right else f"a list of whole numbers of at least {least}"

    return rule


def _index(value: Any) -> str:
    """Which places are kept."""
    right = isinstance(value, list) and 1 <= len(value) <= MAX_INDEX and all(map(is_int, value))
    right = right and all(one < other for one, other in pairwise(value))
    return "" if right else "ascending whole numbers of at least 0, at least one of them"


def _number(low: float, high: float) -> _Rule:
    def rule(value: Any) -> str:
        right = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and low <= value <= high
        )
        return "" if right else f"a finite number in [{low}, {high}]"

    return rule


def _one_of(*words: str) -> _Rule:
    return lambda value: "" if value in words and isinstance(value, str) else f"one of {words}"


def _bool(value: Any) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _word(value: Any) -> str:
    return "" if isinstance(value, str) and _WORD.fullmatch(value) else "the name of an operator"


def _optional(rule: _Rule) -> _Rule:
    return lambda value: "" if value is None else rule(value)


def _list(value: Any) -> str:
    return "" if isinstance(value, list) else "a list"


def _keywords(value: Any) -> str:
    """Arguments by name that leave the tensor as it is."""
    right = isinstance(value, Mapping) and not any(
        not key.isidentifier() or keyword.iskeyword(key) or key in ("inplace", "out")
        for key in value
    )
    return "" if right else "a mapping of names of arguments"


def _constant(value: Any) -> str:
    right = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return "" if right else "a number"


def _roles(rule: _Rule) -> _Rule:
    def roles(value: Any) -> str:
        right = isinstance(value, Mapping) and len(value) <= MAX_LIST
        for entry in value.values() if right else ():
            if rule(entry):
                return f"each role to have {rule(entry)}"
        return "" if right else "a mapping of roles"

    return roles


def _words(value: Any) -> str:
    right = isinstance(value, list) and not any(_word(word) for word in value)
    return "" if right else "a list of roles"


def _shapes(value: Any) -> str:
    right = isinstance(value, list) and value and not any(_ints(1)(shape) for shape in value)
    return "" if right else "a list of shapes"


def _factors(value: Any) -> str:
    right = isinstance(value, list) and not any(_number(1e-6, 1e6)(factor) for factor in value)
    return "" if right else "a list of factors"


_CONV: Mapping[str, _Rule] = {
    "in_channels": _int(1),
    "out_channels": _int(1),
    "kernel": _ints(1),
    "stride": _ints(1),
    "padding": _ints(0),
    "dilation": _ints(1),
    "groups": _int(1),
    "bias": _bool,
}

COMMON: Mapping[str, _Rule] = {"untrained": _words, "folds": _roles(check_fold)}
"""Attributes that any operation may have."""

RULES: Mapping[str, Mapping[str, _Rule]] = {
    "conv": _CONV,
    "conv_transpose": {**_CONV, "output_padding": _ints(0)},
    "linear": {
        "in_features": _int(1),
        "out_features": _int(1),
        "bias": _bool,
        "strided": _one_of("view", "copy"),
    },
    "batch_norm": {
        "num_features": _int(1),
        "eps": _number(0, 1e6),
        "momentum": _optional(_number(0, 1)),
        "affine": _bool,
        "bias": _bool,
    },
    "unary": {"fn": _word, "args": _list, "kwargs": _keywords},
    "dropout": {"fn": _word, "p": _number(0, 1)},
    "pool": {
        "kind": _one_of("max", "avg"),
        "kernel": _ints(1),
        "stride": _ints(1),
        "padding": _ints(0),
        "dilation": _optional(_ints(1)),
        "ceil_mode": _bool,
        "count_include_pad": _bool,
    },
    "adaptive_pool": {"kind": _one_of("max", "avg"), "output_size": _ints(1)},
    "reduce": {"fn": _one_of("mean", "sum", "amax"), "dims": _ints(0), "keepdim": _bool},
    "binary": {"fn": _word},
    "concat": {"dim": _int(0)},
    "slice": {"dim": _int(0), "start": _int(0), "stop": _int(1), "step": _int(1)},
    "gather": {"dim": _int(0), "index": _index},
    "reshape": {
        "mode": _one_of("flatten", "merge", "split"),
        "start": _int(0),
        "end": _int(0),
        "dim": _int(0),
        "sizes": _ints(-1),
        "contiguous": _bool,
    },
    "permute": {"dims": _ints(0), "contiguous": _bool},
    "channel_shuffle": {"groups": _int(1)},
    "pad": {"pads": _ints(-MAX_INT), "mode": _word, "value": _constant},
    "softmax": {"dim": _int(0), "log": _bool},
    "resize": {
        "fn": _one_of("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"),
        "size": _ints(1),
        "scale": _optional(_factors),
        "align_corners": _optional(_bool),
    },
    "group_norm": {
        "groups": _int(1),
        "num_channels": _int(1),
        "eps": _number(0, 1e6),
        "affine": _bool,
        "bias": _bool,
    },
    "instance_norm": {
        "num_features": _int(1),
        "eps": _number(0, 1e6),
        "momentum": _number(0, 1),
        "affine": _bool,
        "bias": _bool,
        "track": _bool,
    },
    "layer_norm": {"shape": _ints(1), "eps": _number(0, 1e6), "affine": _bool, "bias": _bool},
    "rms_norm": {"shape": _ints(1), "eps": _optional(_number(0, 1e6)), "affine": _bool},
    "local_response_norm": {
        "size": _int(1),
        "alpha": _number(-1e6, 1e6),
        "beta": _number(-1e6, 1e6),
        "k": _number(-1e6, 1e6),
    },
    "prelu": {"num_parameters": _int(1)},
    "param_binary": {"fn": _word, "shape": _ints(1), "reverse": _bool},
    "opaque": {
        "program": check_program,
        "in_shapes": _shapes,
        "out_shape": _ints(1),
        "macs": lambda value: "" if _is_size(value) else "a whole number of at least 0",
        "params": _roles(_ints(1)),
        "buffers": _roles(_ints(0)),
        "dtypes": _roles(_one_of(*DTYPES)),
        "view": _bool,
    },
}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def check_attrs(where: str, op: str, attrs: Attrs, required: Sequence[str]) -> None:
    """Checks that all required attributes are there and every known one has its type and range."""
    for key in required:
        if key not in attrs:
            raise InvalidArchitecture(f"{where}: attrs.{key} is missing, which {op} needs")
    for key, value in attrs.items():
        if (op, key) != ("gather", "index"):  # its rule says all, of more entries than others have
            check_native(f"{where}: attrs.{key}", value)
        rule = RULES.get(op, {}).get(key) or COMMON.get(key)
        expected = rule(value) if rule else ""
        if expected:
            raise InvalidArchitecture(
                f"{where}: attrs.{key} is {shorten(value)}, expected {expected}"
            )
    wrong = check_opaque(attrs) if op == "opaque" else ""
    if wrong:
        raise InvalidArchitecture(f"{where}: {wrong}")


_NEEDS_AXIS = frozenset(
    {
        "batch_norm",
        "linear",
        "group_norm",
        "instance_norm",
        "prelu",
        "channel_shuffle",
        "local_response_norm",
    }
)


def check_fit(where: str, op: str, attrs: Attrs, shapes: Sequence[Shape]) -> None:
    """Checks the attributes against the ranks of the inputs and against each other."""
    rank = len(shapes[0]) if shapes else 0
    if op in ("conv", "conv_transpose", "pool"):
        keys = ["kernel", "stride", "padding"]
        if op != "pool" or attrs.get("dilation"):
            keys.append("dilation")
        if op == "conv_transpose":
            keys.append("output_padding")
        for key in keys:
            if len(attrs[key]) != rank - 1:
                raise InvalidArchitecture(
                    f"{where}: attrs.{key} has {len(attrs[key])} entries, the input has {rank - 1} spatial axes"
                )
    if op == "pool":
        check_pool_padding(where, attrs)
    if op in ("conv", "conv_transpose"):
        for key in ("in_channels", "out_channels"):
            if attrs[key] % attrs["groups"]:
                raise InvalidArchitecture(
                    f"{where}: attrs.groups is {attrs['groups']}, which does not divide {key} {attrs[key]}"
                )
    for key in ("output_size", "size", "scale"):
        sizes = attrs.get(key) if op in ("adaptive_pool", "resize") else None
        if sizes is not None and len(sizes) != rank - 1:
            raise InvalidArchitecture(
                f"{where}: attrs.{key} has {len(sizes)} entries, expected {rank - 1}"
            )
    if op in _NEEDS_AXIS and rank < 1:
        raise InvalidArchitecture(f"{where}: the input has no axis")
    axes = {
        "reduce": attrs.get("dims"),
        "concat": [attrs.get("dim")],
        "softmax": [attrs.get("dim")],
        "slice": [attrs.get("dim")],
        "gather": [attrs.get("dim")],
    }
    for axis in axes.get(op) or []:
        if axis >= rank:
            raise InvalidArchitecture(f"{where}: attrs names axis {axis}, the input has {rank}")
    if op == "concat" and any(len(shape) != rank for shape in shapes):
        raise InvalidArchitecture(f"{where}: the parts have different numbers of axes")
    if op == "pad" and (len(attrs["pads"]) % 2 or len(attrs["pads"]) > 2 * rank):
        raise InvalidArchitecture(f"{where}: attrs.pads needs a pair for each padded axis")
    if op == "permute" and sorted(attrs["dims"]) != list(range(rank)):
        raise InvalidArchitecture(
            f"{where}: attrs.dims is {shorten(attrs['dims'])}, expected an order of the {rank} axes"
        )
    if op == "reshape":
        _check_reshape(where, attrs, rank)


def _check_reshape(where: str, attrs: Attrs, rank: int) -> None:
    """Checks the attributes that the mode of a reshape needs."""
    needed = {"merge": ("start", "end"), "split": ("dim", "sizes")}.get(attrs["mode"], ())
    for key in needed:
        if key not in attrs:
            raise InvalidArchitecture(f"{where}: attrs.{key} is missing, which reshape needs")
    if attrs["mode"] == "merge" and not attrs["start"] < attrs["end"] < rank:
        raise InvalidArchitecture(
            f"{where}: attrs.end is {attrs['end']}, expected more than start and less than the {rank} axes"
        )
    if attrs["mode"] == "split":
        if attrs["dim"] >= rank:
            raise InvalidArchitecture(
                f"{where}: attrs.dim is {attrs['dim']}, the input has {rank} axes"
            )
        if attrs["sizes"].count(-1) != 1 or 0 in attrs["sizes"]:
            raise InvalidArchitecture(
                f"{where}: attrs.sizes is {shorten(attrs['sizes'])}, expected one -1 and numbers of at least 1"
            )


def check_pool_padding(where: str, attrs: Attrs) -> None:
    """Checks torch's limit: at most half of the window, dilated or not."""
    for kernel, padding in zip(attrs["kernel"], attrs["padding"], strict=True):
        if padding > kernel // 2:
            raise InvalidArchitecture(
                f"{where}: attrs.padding of {padding} is more than half of the window of {kernel}"
            )


def check_native(where: str, value: object, depth: int = 0) -> None:
    """Checks that a value is JSON-native, not NaN, and of reasonable size."""
    if depth > MAX_DEPTH:
        raise InvalidArchitecture(f"{where} is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > 2**63:
            raise InvalidArchitecture(f"{where} is a number out of range")
    elif isinstance(value, float):
        if math.isnan(value):
            raise InvalidArchitecture(f"{where} is NaN")
    elif isinstance(value, str):
        if len(value) > 1000:
            raise InvalidArchitecture(f"{where} is a text of {len(value)} characters")
    elif isinstance(value, list | Mapping):
        if len(value) > MAX_LIST:
            raise InvalidArchitecture(f"{where} has {len(value)} entries, at most {MAX_LIST}")
        for item in value.values() if isinstance(value, Mapping) else value:
            check_native(where, item, depth + 1)
    else:
        raise InvalidArchitecture(f"{where} has the type {type(value).__name__}, which JSON lacks")


def shorten(value: object) -> str:
    """The value for a message, at most 60 characters."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."
