"""Checks of what is given to a search space."""

from __future__ import annotations

from collections.abc import Sequence

from raysearch.architecture.edits import Edits, EditsBatch
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import ChannelGroup
from raysearch.errors import ConfigError, InvalidArchitecture

OPERATIONS = ("remove", "shrink", "skip")


def check_operations(operations: Sequence[str]) -> tuple[str, ...]:
    """The operations in the order of `OPERATIONS`.

    Raises:
        ConfigError: one of them is not known.
    """
    if isinstance(operations, str) or not isinstance(operations, Sequence):
        raise ConfigError(f"space.operations is {operations!r}: give a list of {OPERATIONS}")
    for name in operations:
        if name not in OPERATIONS:
            raise ConfigError(f"space.operations has {name!r}: choose from {', '.join(OPERATIONS)}")
    return tuple(name for name in OPERATIONS if name in operations)


def check_edits(
    edits: Edits,
    teacher: Architecture,
    groups: Sequence[ChannelGroup],
    removable: Sequence[int],
    num_pairs: int,
) -> None:
    """Checks one record of edits against a space.

    Raises:
        InvalidArchitecture: with the field that does not fit.
    """
    unknown = sorted(set(edits.remove) - set(removable))
    if unknown:
        layers = teacher.layers
        name = layers[unknown[0]].name if unknown[0] < len(layers) else "which does not exist"
        raise InvalidArchitecture(
            f"remove names layer {unknown[0]} ({name}): this space cannot remove it"
        )
    if len(edits.widths) != len(groups):
        raise InvalidArchitecture(
            f"widths has {len(edits.widths)} entries: this space has {len(groups)} channel groups"
        )
    for group, width in zip(groups, edits.widths, strict=True):
        if not 1 <= width <= group.size or width % group.alignment:
            raise InvalidArchitecture(
                f"widths[{group.id}] is {width}: give a multiple of {group.alignment} in [1, {group.size}]"
            )
    if edits.skips and edits.skips[-1] >= num_pairs:
        raise InvalidArchitecture(
            f"skips names pair {edits.skips[-1]}: this space has {num_pairs} skip pairs"
        )


def check_batch(
    batch: EditsBatch, groups: Sequence[ChannelGroup], removable: Sequence[int], num_pairs: int
) -> None:
    """Checks the shapes and indices of a batch against a space.

    Raises:
        InvalidArchitecture: with the field that does not fit.
    """
    if batch.widths.shape[1] != len(groups):
        raise InvalidArchitecture(
            f"widths has {batch.widths.shape[1]} entries: this space has {len(groups)} channel groups"
        )
    known = [place for place in removable if place < batch.remove.shape[1]]
    if batch.remove[:, known].sum() != batch.remove.sum():
        raise InvalidArchitecture("remove names layers that this space cannot remove")
    pairs = batch.skip_pairs
    if pairs.size and not 0 <= int(pairs.min()) <= int(pairs.max()) < num_pairs:
        raise InvalidArchitecture(
            f"skips names pairs {pairs.min()} to {pairs.max()}: this space has {num_pairs} skip pairs"
        )


def free_architecture(text: str, teacher: Architecture) -> Architecture:
    """Reads a whole network that stands for a student: the compact text of a network with the teacher's input and output.

    Raises:
        InvalidArchitecture: the text is none, or its shapes are others.
    """
    student = Architecture.from_compact(text)
    if student.input_shape != teacher.input_shape:
        raise InvalidArchitecture(
            f"input_shape is {student.input_shape}: the teacher takes {teacher.input_shape}"
        )
    shape, expected = student[student.output].shape, teacher[teacher.output].shape
    if shape != expected:
        raise InvalidArchitecture(f"the output has shape {shape}: the teacher's is {expected}")
    return student
