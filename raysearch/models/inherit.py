"""Which weights of the teacher a student's layer takes over: slices by provenance.

A layer's weights are the teacher's, indexed by the provenance of what it reads and of what it writes. A student whose layers keep
the same channels everywhere computes what the teacher computes with the other channels set to zero after every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from raysearch.architecture.axes import is_last
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import Shape
from raysearch.architecture.parametric import channel_entry
from raysearch.models.provenance import FRESH, Context, Keep, Origin, follow, identity, is_depthwise


def descends(student: Architecture, teacher: Architecture) -> bool:
    """Whether every layer of a student that has weights is one of the teacher's, by its name, its operation and its kind of weights.

    So are all students that edits make, and those that removal with refit and shrinkage make; a network of its own layers is not.
    """
    return all(_same_kind(layer, teacher) for layer in student.layers if layer.param_shapes)


def _same_kind(layer: Layer, teacher: Architecture) -> bool:
    if layer.name not in teacher.index:
        return False
    theirs = teacher[layer.name]
    ranks = {role: len(shape) for role, shape in layer.param_shapes.items()}
    return theirs.op == layer.op and ranks == {
        role: len(shape) for role, shape in theirs.param_shapes.items()
    }


@dataclass(frozen=True)
class Slice:
    """Where one tensor of a layer comes from.

    Attributes:
        key: the name in the teacher's state.
        rows: [R] the teacher's index of each of our first-axis entries, or `FRESH`; None: all, as it stands.
        columns: [C], or [R, C] where they differ by row (grouped convolutions), the same for the second axis; None: all.
        axis: the axis that `rows` counts; the others follow in their order.
    """

    key: str
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    axis: int = 0

    def copy_to(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Overwrites the entries of `target` that the teacher has; the others stay as they are initialised."""
        if self.rows is None:
            if target.shape == source.shape:
                target.copy_(source)
            return
        if self.axis:
            target, source = target.movedim(self.axis, 0), source.movedim(self.axis, 0)
        columns = (
            np.arange(target.shape[1]) if self.columns is None and target.ndim > 1 else self.columns
        )
        target, source = _centres(target, source)
        if columns is None:
            _copy_rows(target, source, self.rows)
        elif _is_prefix(self.rows, source.shape[0]) and _is_prefix(columns, source.shape[1]):
            target.copy_(source[: len(self.rows), : len(columns)])
        else:
            _copy_grid(target, source, self.rows, columns)

    def is_complete(self, source: Shape, target: Shape) -> bool:
        """Whether every entry of our tensor of shape `target` comes from the teacher's of shape `source`."""
        if self.rows is None:
            return target == source
        if any(ours > theirs for ours, theirs in zip(target[2:], source[2:], strict=True)):
            return False
        sides = [(self.rows, source[self.axis])]
        if self.columns is not None:
            sides.append((self.columns, source[1]))
        return all(bool(np.all((index >= 0) & (index < size))) for index, size in sides)


def plan(
    architecture: Architecture, shapes: Mapping[str, Shape], keep: Keep | None = None
) -> dict[str, dict[str, Slice]]:
    """The slices of every layer with weights: layer name -> role -> slice.

    Args:
        architecture: the student (or the teacher itself).
        shapes: the shapes of the teacher's state by name.
        keep: the teacher's channels that a layer's outputs are; default: the first ones.

    Raises:
        WeightsError: the teacher lacks a tensor that the student needs.
    """
    if not keep and _is_own(architecture, shapes):
        return _as_it_stands(architecture, shapes)
    return {
        context.layer.name: _SLICERS[context.layer.op](context, arriving[0], leaving)
        for context, arriving, leaving in follow(architecture, shapes, keep or {})
        if context.layer.op in _SLICERS
    }


def _is_own(architecture: Architecture, shapes: Mapping[str, Shape]) -> bool:
    """Whether the state of a network with gathers is its own: its layers' weights know nothing of what is not gathered."""
    return any(layer.op == "gather" for layer in architecture.layers) and all(
        shapes.get(layer.params.get(role, f"{layer.name}.{role}")) == shape
        for layer in architecture.layers
        for role, shape in {**layer.param_shapes, **layer.buffer_shapes}.items()
        if role != "num_batches_tracked"  # which some states lack
    )


def _as_it_stands(
    architecture: Architecture, shapes: Mapping[str, Shape]
) -> dict[str, dict[str, Slice]]:
    return {
        layer.name: {
            role: Slice(key)
            for role in (*layer.param_shapes, *layer.buffer_shapes)
            if (key := layer.params.get(role, f"{layer.name}.{role}")) in shapes
        }
        for layer in architecture.layers
        if layer.op in _SLICERS
    }


def _conv_slices(context: Context, arriving: Origin, leaving: Origin) -> dict[str, Slice]:
    teacher = context.teacher_shape("weight")
    groups = context.layer.attrs["groups"]
    columns = arriving.channels
    if is_depthwise(context.layer, teacher, arriving.total):
        columns = np.zeros(1, np.int64)
    elif groups > 1:
        columns = _local_columns(arriving, leaving, groups, teacher)
    return _with_bias(context, Slice(context.key("weight"), leaving.channels, columns), leaving)


def _local_columns(arriving: Origin, leaving: Origin, groups: int, teacher: Shape) -> np.ndarray:
    """[R, C / groups]: the inputs of a row's group, counted within the teacher's group that the row comes from."""
    rows, width = teacher[:2]
    per_group = max(1, rows * width // arriving.total)  # the teacher's rows in a group
    ours = np.repeat(arriving.channels.reshape(groups, -1), len(leaving.channels) // groups, axis=0)
    local = ours - (leaving.channels // per_group * width)[:, None]
    return np.where((ours < 0) | (local < 0) | (local >= width), FRESH, local)


def _transposed_slices(context: Context, arriving: Origin, leaving: Origin) -> dict[str, Slice]:
    """The rows of a transposed convolution's weight are the inputs, its columns the outputs of their group."""
    teacher = context.teacher_shape("weight")
    groups, rows = context.layer.attrs["groups"], len(arriving.channels)
    columns = leaving.channels
    if is_depthwise(context.layer, teacher, arriving.total):
        columns = np.arange(len(leaving.channels) // rows)
    elif groups > 1:
        per_group, width = max(1, arriving.total // groups), teacher[1]
        ours = np.repeat(columns.reshape(groups, -1), rows // groups, axis=0)
        local = ours - (arriving.channels // per_group * width)[:, None]
        columns = np.where((ours < 0) | (local < 0) | (local >= width), FRESH, local)
    return _with_bias(context, Slice(context.key("weight"), arriving.channels, columns), leaving)


def _linear_slices(context: Context, arriving: Origin, leaving: Origin) -> dict[str, Slice]:
    attrs = context.layer.attrs
    if not is_last(context.layer.shape, context.axis):  # another axis: as it stands
        leaving, arriving = identity(attrs["out_features"]), identity(attrs["in_features"])
    columns = arriving.channels
    if arriving.total != context.teacher_shape("weight")[1]:
        columns = np.full(attrs["in_features"], FRESH)  # bound to features that the teacher lacks
    weight = Slice(context.key("weight"), leaving.channels, columns)
    return _with_bias(context, weight, leaving)


def _with_bias(context: Context, weight: Slice, leaving: Origin) -> dict[str, Slice]:
    slices = {"weight": weight}
    if context.layer.attrs["bias"]:
        context.teacher_shape("bias")
        slices["bias"] = Slice(context.key("bias"), leaving.channels)
    return slices


def _norm_slices(context: Context, arriving: Origin, leaving: Origin) -> dict[str, Slice]:
    del arriving
    slices = {}
    for role in ("weight", "bias", "running_mean", "running_var"):
        if role in context.layer.param_shapes or role in context.layer.buffer_shapes:
            context.teacher_shape(role)
            slices[role] = Slice(context.key(role), leaving.channels)
    if context.key("num_batches_tracked") in context.shapes:
        slices["num_batches_tracked"] = Slice(context.key("num_batches_tracked"))
    return slices


def _parametric_slices(context: Context, arriving: Origin, leaving: Origin) -> dict[str, Slice]:
    """Parameters whose channels may be any axis, or that do not know them."""
    layer = context.layer
    slices = {}
    for role in {**layer.param_shapes, **layer.buffer_shapes}:
        # the teacher's: of a student's single channel and of a parameter for all of them the shapes are one
        shape = context.teacher_shape(role)
        attrs = {**layer.attrs, "shape": shape, "num_parameters": shape[0] if shape else 1}
        entry = channel_entry(layer.op, attrs, len(layer.shape), context.axis)
        rows = None if entry is None else leaving.channels
        slices[role] = Slice(context.key(role), rows, axis=entry or 0)
    return slices


def _opaque_slices(context: Context, arriving: Origin, leaving: Origin) -> dict[str, Slice]:
    """States of an opaque layer are taken over as they stand."""
    for role in context.layer.params:
        context.teacher_shape(role)
    return {role: Slice(context.key(role)) for role in context.layer.params}


_SLICERS: Mapping[str, Callable[[Context, Origin, Origin], dict[str, Slice]]] = {
    "conv": _conv_slices,
    "linear": _linear_slices,
    "batch_norm": _norm_slices,
    "group_norm": _norm_slices,
    "instance_norm": _norm_slices,
    "conv_transpose": _transposed_slices,
    **dict.fromkeys(("layer_norm", "rms_norm", "prelu", "param_binary"), _parametric_slices),
    "opaque": _opaque_slices,
}


def _centres(target: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both restricted to the window that two kernels of different sizes share when their centres lie on each other."""
    for axis in range(2, target.ndim):
        shared = min(target.shape[axis], source.shape[axis])
        target = target.narrow(axis, (target.shape[axis] - shared) // 2, shared)
        source = source.narrow(axis, (source.shape[axis] - shared) // 2, shared)
    return target, source


def _is_prefix(index: np.ndarray, size: int) -> bool:
    """Whether these are the first entries of an axis of that size."""
    return index.ndim == 1 and len(index) <= size and np.array_equal(index, np.arange(len(index)))


def _valid(index: np.ndarray, size: int) -> np.ndarray:
    return (index >= 0) & (index < size)


def _copy_rows(target: torch.Tensor, source: torch.Tensor, rows: np.ndarray) -> None:
    known = _valid(rows, source.shape[0])
    ours = torch.from_numpy(np.flatnonzero(known)).to(target.device)
    theirs = torch.from_numpy(rows[known]).to(source.device)
    target[ours] = source[theirs].to(target.device, target.dtype)


def _copy_grid(
    target: torch.Tensor, source: torch.Tensor, rows: np.ndarray, columns: np.ndarray
) -> None:
    rows_grid, columns_grid = np.broadcast_arrays(rows[:, None], columns)  # [R, C]
    known = _valid(rows_grid, source.shape[0]) & _valid(columns_grid, source.shape[1])
    ours = tuple(torch.from_numpy(axis).to(target.device) for axis in np.nonzero(known))
    theirs = (rows_grid[known], columns_grid[known])
    taken = source[tuple(torch.from_numpy(axis).to(source.device) for axis in theirs)]
    target[ours] = taken.to(target.device, target.dtype)
