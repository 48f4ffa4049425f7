"""Architecture Compression's sequences for students of one teacher, whose graph supplies the edges that a sequence lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from raysearch.architecture.axes import is_last
from raysearch.architecture.edits import EditsBatch
from raysearch.architecture.sequences.chains import (
    COLUMNS,
    NONE,
    encode_sequence,
    listed_layers,
    real_numbers,
)
from raysearch.architecture.space import SearchSpace


def encode_students(space: SearchSpace, batch: EditsBatch) -> np.ndarray:
    """The sequences of students: [B, T, 5] int64, equal to `encode_sequence` of each applied student.

    A removed layer is a row of zeros. Skips leave no trace.
    """
    teacher = space.teacher
    listed = list(listed_layers(teacher))
    rows = np.repeat(encode_sequence(teacher)[None], len(batch), axis=0)  # [B, T, 5]
    made = space.channel_numbers(batch.widths)[:, listed]  # [B, T]
    for column, place in enumerate(listed):
        layer = teacher.layers[place]
        other = layer.op == "linear" and not is_last(layer.shape, teacher.axis(layer.name))
        if layer.op != "identity" and layer.shape and not other:
            rows[:, column, 2] = made[:, column]
    remove = np.zeros((len(batch), len(teacher.layers)), bool)
    remove[:, : batch.remove.shape[1]] = batch.remove
    rows[remove[:, listed]] = NONE
    return rows


def decode_onto(space: SearchSpace, rows: Any) -> EditsBatch:
    """The legal edits nearest to sequences, on the teacher's own graph: outputs become widths, and a row of type 0 removes its layer.

    A group's width is its size times the mean of o / o_teacher over those of its producers that stay. Kernels, strides and types are
    not edits of a space and count for nothing; there are no skips. `space.repair` brings the result into the budget.

    Args:
        rows: [B, T, 5], T rows as `encode_students` lists them; need not be whole numbers.

    Raises:
        InvalidArchitecture: not a table of finite numbers of that shape.
    """
    teacher = space.teacher
    listed = list(listed_layers(teacher))
    template = encode_sequence(teacher)
    table = real_numbers(rows, (None, len(listed), len(COLUMNS)))
    gone = np.rint(table[:, :, 0]) == NONE  # [B, T]
    remove = np.zeros((len(table), len(teacher.layers)), bool)
    if space.removable:
        may = np.isin(listed, space.removable)
        remove[:, np.array(listed)[may]] = gone[:, may]
    widths = np.array([[group.size for group in space.groups]] * len(table), np.int64)
    widths = widths.reshape(len(table), len(space.groups))
    if "shrink" not in space.operations:
        return EditsBatch(remove, widths)
    column = {teacher.layers[place].name: column for column, place in enumerate(listed)}
    for group in space.groups:
        columns = [column[name] for name in group.producers if name in column]
        if not columns:
            continue
        stays = ~gone[:, columns]
        share = np.clip(table[:, columns, 2] / template[columns, 2], 0.0, 1.0)
        share = np.where(stays, share, 0.0).sum(axis=1) / np.maximum(stays.sum(axis=1), 1)
        share[~stays.any(axis=1)] = 1.0
        wanted = share * group.size
        stepped = np.rint(wanted / group.divisor) * group.divisor
        nearest = np.clip(stepped, group.min_channels, group.size)
        whole = np.abs(wanted - group.size) < np.abs(wanted - nearest)
        widths[:, group.id] = np.where(whole, group.size, nearest)
    return EditsBatch(remove, widths)
