"""Opaque layers: computations that are replayed as they are, and whose channels are therefore frozen.

Attributes
    program     what is computed (see `programs.py`)
    in_shapes   the shape of each input, which must arrive unchanged
    out_shape   the output's shape
    macs        multiply-accumulate operations of one input, counted once at capture
    params, buffers     role -> shape of the states that the program reads
    dtypes      role -> precision, of those that are not the network's
    view        the output shares its input's memory
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.architecture.programs import check_program, operands
from raysearch.errors import InvalidArchitecture

Shape = tuple[int, ...]
Attrs = Mapping[str, Any]

REQUIRED = ("program", "in_shapes", "out_shape", "macs", "params", "buffers", "dtypes", "view")


def out_shape(attrs: Attrs, shapes: Sequence[Shape]) -> Shape:
    """The recorded output shape, where the recorded inputs arrive."""
    recorded = [tuple(shape) for shape in attrs["in_shapes"]]
    if recorded != list(shapes):
        raise InvalidArchitecture(
            f"its inputs must keep the shapes {[list(shape) for shape in recorded]}, but "
            f"{[list(shape) for shape in shapes]} arrive"
        )
    return tuple(attrs["out_shape"])


def params(attrs: Attrs) -> dict[str, Shape]:
    return {role: tuple(shape) for role, shape in attrs["params"].items()}


def buffers(attrs: Attrs) -> dict[str, Shape]:
    return {role: tuple(shape) for role, shape in attrs["buffers"].items()}


def macs(attrs: Attrs, shape: Shape) -> int:
    return attrs["macs"]


def check_opaque(attrs: Attrs) -> str:
    """What is wrong between the attributes, or ""; each of them has its right form."""
    roles = {*attrs["params"], *attrs["buffers"]}
    for state in operands(attrs["program"], "state"):
        if state not in roles:
            return f"attrs.program reads the state {state[:60]!r}, which params and buffers lack"
    for slot in operands(attrs["program"], "slot"):
        if slot >= len(attrs["in_shapes"]):
            return f"attrs.program reads slot {slot}, but in_shapes has {len(attrs['in_shapes'])}"
    for role in attrs["params"]:
        if "float" not in attrs["dtypes"].get(role, "float32"):
            return f"attrs.dtypes.{role[:60]} is {attrs['dtypes'][role]}, which cannot be trained"
    if set(attrs["dtypes"]) - roles:
        return "attrs.dtypes names a role that params and buffers lack"
    return ""


__all__ = ["REQUIRED", "buffers", "check_opaque", "check_program", "macs", "out_shape", "params"]
