"""The layer-by-layer comparison of a teacher and its student, as rows.

A student's layers keep the teacher's names; a removed layer is gone or has the operation identity; a skip appends a layer's name to
an input slot. Activations, normalisations and sums are counted in the totals and get no row of their own, unless a skip ends there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from raysearch.architecture.graph import Architecture, Layer

QUIET = {"input", "batch_norm", "unary", "dropout", "add", "binary", "reshape", "pad", "identity"}
QUIET |= {"reduce", "adaptive_pool", "softmax", "concat", "gather"}
WIDTHS = ("out_channels", "out_features")


@dataclass(frozen=True)
class Side:
    """One layer in one network: output channels (None where it has none) and trainable parameters."""

    width: int | None
    num_params: int


@dataclass(frozen=True)
class Row:
    """One layer in both networks.

    Attributes:
        name: the layer's.
        op: what it does, for people: "conv 3×3 /2".
        teacher: None for a layer that only the student has.
        student: None for a layer that the student has lost.
        skips: the layers whose outputs were newly added to this one's input.
        window_changed: the student's kernel is another; then `op` names both.
    """

    name: str
    op: str
    teacher: Side | None
    student: Side | None
    skips: tuple[str, ...] = ()
    window_changed: bool = False

    @property
    def change(self) -> str:
        """In a word or two: "kept", "narrower", "thinner input", "removed" or "added"; where layers are refitted also "wider", "wider input"."""
        if self.student is None:
            return "removed"
        if self.teacher is None:
            return "added"
        before, after = self.teacher.width or 0, self.student.width or 0
        if before != after:
            return "narrower" if after < before else "wider"
        if self.student.num_params == self.teacher.num_params:
            return "kept"
        if self.window_changed:
            return "smaller kernel"
        less = self.student.num_params < self.teacher.num_params
        return "thinner input" if less else "wider input"


def compare_layers(teacher: Architecture, student: Architecture) -> tuple[Row, ...]:
    """The rows in the teacher's order; layers that only the student has come last."""
    rows = []
    for layer in teacher.layers:
        now = _alive(student, layer.name)
        skips = () if now is None else added_skips(layer, _past_gather(student, now))
        if layer.op in QUIET and not skips:
            continue
        after = None if now is None else _side(now)
        changed = now is not None and now.attrs.get("kernel") != layer.attrs.get("kernel")
        op = f"{describe(layer)} → {describe(now)}" if now and changed else describe(layer)
        rows.append(Row(layer.name, op, _side(layer), after, skips, changed))
    for layer in student.layers:
        if layer.name not in teacher.index and layer.op not in QUIET:
            rows.append(Row(layer.name, describe(layer), None, _side(layer)))
    return tuple(rows)


def _past_gather(student: Architecture, layer: Layer) -> Layer:
    """The layer as if it read what is gathered for it."""
    before = student[layer.inputs[0][0]] if layer.inputs else layer
    return replace(layer, inputs=before.inputs) if before.op == "gather" else layer


def added_skips(teacher: Layer, student: Layer) -> tuple[str, ...]:
    """The producers that the student's layer sums beyond the teacher's; a rewired input is no skip."""
    found: list[str] = []
    for before, after in zip(teacher.inputs, student.inputs, strict=False):
        new = [name for name in after if name not in before]
        surplus = len(after) - len(before)
        found += new[-surplus:] if surplus > 0 else []
    return tuple(found)


def describe(layer: Layer) -> str:
    """The operation with its kernel, stride and groups: "conv 3×3 /2", "max pool 2×2"."""
    attrs = layer.attrs
    words = [layer.op.replace("_", " ")]
    if layer.op in ("pool", "adaptive_pool"):
        words = [str(attrs.get("kind", "")), "pool"]
    if layer.op == "unary":
        words = [str(attrs.get("fn", "unary"))]
    kernel, stride = attrs.get("kernel"), attrs.get("stride")
    if kernel:
        words.append("×".join(map(str, kernel)))
    if stride and max(stride) > 1:
        words.append(f"/{max(stride)}")
    groups = attrs.get("groups", 1)
    if groups != 1:
        words.append("depthwise" if groups == attrs.get("in_channels") else f"{groups} groups")
    return " ".join(word for word in words if word)


def _alive(student: Architecture, name: str) -> Layer | None:
    layer = student[name] if name in student.index else None
    return None if layer is None or layer.op == "identity" else layer


def _side(layer: Layer) -> Side:
    width = next((layer.attrs[key] for key in WIDTHS if key in layer.attrs), None)
    return Side(width, sum(math.prod(shape) for shape in layer.param_shapes.values()))
