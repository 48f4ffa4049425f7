"""Single inputs: layers that read an index subset of what arrives, through a `gather` in front of them.

Channel groups shrink a tensor for all its readers. A gather leaves the tensor whole and gives one reader a part of it: what a linear layer
or the first convolution does not look at any more (pixels, say) is not multiplied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from raysearch.architecture.axes import is_last
from raysearch.architecture.edits import Edits
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.groups import ChannelMap
from raysearch.architecture.ops import OPS
from raysearch.errors import InvalidArchitecture

_SIZE = {"conv": "in_channels", "linear": "in_features"}
"""The attribute of what arrives."""


def check_inputs(edits: Edits, teacher: Architecture, channels: ChannelMap) -> None:
    """Checks the inputs that edits keep; all else must have been checked.

    Raises:
        InvalidArchitecture: a layer cannot keep single inputs, or does not have those, or keeps all.
    """
    removed = set(edits.remove)
    for place, kept in edits.inputs:
        if place >= len(teacher.layers):
            raise InvalidArchitecture(
                f"inputs names layer {place}: the teacher has {len(teacher.layers)}"
            )
        layer = teacher.layers[place]
        wrong = _reason(teacher, channels, place, removed)
        if wrong:
            raise InvalidArchitecture(
                f"inputs names layer {place} ({layer.name}), which {wrong}: choose a linear layer, or a convolution of "
                "the network's input"
            )
        size = int(channels.into.fixed[place] + channels.into.matrix[place] @ edits.widths)
        if kept[-1] >= size:
            raise InvalidArchitecture(
                f"inputs of layer {place} ({layer.name}) keeps input {kept[-1]}: there are {size} in this student"
            )
        if len(kept) == size:
            raise InvalidArchitecture(
                f"inputs of layer {place} ({layer.name}) keeps all {size}: leave the layer out"
            )


def gatherable(
    teacher: Architecture, channels: ChannelMap, remove: Collection[int] = ()
) -> tuple[int, ...]:
    """Indices of the layers that may keep some of their inputs, in a student without the layers `remove`."""
    places = range(len(teacher.layers))
    return tuple(place for place in places if not _reason(teacher, channels, place, remove))


def _reason(
    teacher: Architecture, channels: ChannelMap, place: int, remove: Collection[int]
) -> str:
    """Why a layer cannot keep some of its inputs only; "" where it can."""
    layer = teacher.layers[place]
    if place in remove:
        return "is removed"
    if layer.op not in _SIZE:
        return f"is a {layer.op}"
    if _shares(teacher, layer):
        return "shares its weight"
    if layer.op == "linear":
        features = is_last(layer.shape, channels.axes[place]) and is_last(
            layer.shape, channels.read[place]
        )
        return "" if features else "maps another axis than the channels"
    if layer.attrs["groups"] != 1:
        return "is a grouped convolution"
    return "" if _reads_input(teacher, layer, remove) else "does not read the network's input"


def _shares(teacher: Architecture, layer: Layer) -> bool:
    """Whether another layer has the same weight."""
    keys = Counter(
        one.params.get("weight", f"{one.name}.weight")
        for one in teacher.layers
        if "weight" in one.param_shapes or "weight" in one.buffer_shapes
    )
    return keys[layer.params.get("weight", f"{layer.name}.weight")] > 1


def _reads_input(teacher: Architecture, layer: Layer, remove: Collection[int]) -> bool:
    """Whether nothing but identities, removed layers among them, stands between a layer and the network's input."""
    while len(layer.inputs) == 1 and len(layer.inputs[0]) == 1:
        place = teacher.index[layer.inputs[0][0]]
        layer = teacher.layers[place]
        if layer.op == "input":
            return True
        if layer.op != "identity" and place not in remove:
            return False
    return False


def insert_gathers(student: Architecture, edits: Edits, channels: ChannelMap) -> Architecture:
    """The student whose layers read some of their inputs only; legality is the caller's affair (`check_inputs`).

    Args:
        student: the network that the other edits make; its layers stand in the teacher's order.
        edits: their inputs are kept.
        channels: the teacher's channel numbers.
    """
    layers: list[Layer] = []
    inputs = dict(edits.inputs)
    taken = set(student.index)
    for place, layer in enumerate(student.layers):
        if place in inputs:
            axis, arriving = channels.read[place], student[layer.inputs[0][0]].shape
            gather = _gather(layer, inputs[place], axis, arriving, taken)
            taken.add(gather.name)
            layers += [gather, _reading(layer, gather, axis)]
        else:
            layers.append(layer)
    return replace(student, layers=tuple(layers))


def _gather(
    layer: Layer, kept: Sequence[int], axis: int, arriving: tuple[int, ...], taken: Collection[str]
) -> Layer:
    """The gather in front of a layer; it reads the layer's slot, and so the sum of all its producers."""
    name = f"{layer.name}.gather"
    while name in taken:
        name += "_"
    attrs = {"dim": axis, "index": list(kept)}
    shape = OPS["gather"].out_shape(attrs, [arriving])
    return Layer(name, "gather", layer.inputs, attrs, shape)


def _reading(layer: Layer, gather: Layer, axis: int) -> Layer:
    """A layer behind its gather, which gives it dense rows of fewer entries."""
    attrs = {key: value for key, value in layer.attrs.items() if key != "strided"}
    attrs[_SIZE[layer.op]] = gather.shape[axis]
    return replace(layer, inputs=((gather.name,),), attrs=attrs)
