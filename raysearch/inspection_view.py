"""An inspection on the terminal: tables of layers, channels and students, and whether the budget can be met."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysearch.architecture.groups import ChannelGroup
from raysearch.formatting import count, file_size, short_count
from raysearch.inspection import Inspection

_SHOWN_NAMES = 3
_STUDENTS = {"largest": "largest (the teacher)", "uniform": "scaled into the budget"}


def inspection_view(found: Inspection) -> RenderableType:
    """The whole of it, top down."""
    return Group(*_parts(found))


def _parts(found: Inspection) -> Iterator[RenderableType]:
    shape = " x ".join(map(str, found.input_shape))
    yield Text(f"{found.model}: {shape} -> {found.classes} classes")
    yield _table(
        "Layers",
        ("layer", "op", "output", ">params", ">MACs", "removable"),
        (
            (
                layer.name,
                layer.op,
                " x ".join(map(str, layer.shape)),
                count(layer.num_params) if layer.num_params else "",
                short_count(layer.macs) if layer.macs else "",
                "yes" if layer.removable else "",
            )
            for layer in found.layers
        ),
    )
    yield _table(
        "Channels that the search may shrink",
        ("group", ">channels", ">smallest", ">multiples of", "made by", "read by"),
        (
            (
                str(group.id),
                str(group.size),
                str(group.min_channels),
                str(group.divisor),
                _names(group.producers),
                _names(group.consumers),
            )
            for group in found.groups
        ),
    )
    yield _table(
        "Channels that keep their number",
        (">channels", "why", "made by", "read by"),
        _frozen_rows(found.frozen),
    )
    yield _table(
        "Students",
        ("student", ">params", ">MACs", ">memory", ">latency"),
        (
            (
                _STUDENTS.get(name, name),
                count(row.num_params),
                short_count(row.macs),
                file_size(row.memory_bytes),
                f"{row.latency_ms:.3g} ms",
            )
            for name, row in found.students.items()
        ),
    )
    yield Text(
        f"Memory: weights, and activations at their peak; latency: {found.device}; both for a batch of one."
    )
    yield Text(
        f"About 10^{math.floor(found.log10_students)} students: {found.removable} removable layers, "
        f"{len(found.groups)} widths, {found.skip_pairs} possible skips."
    )
    yield Text(_budget(found))
    for note in found.notes:
        yield Text(f"Note: {note}")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; a column whose name begins with > is set flush right."""
    table = Table(title=f"\n{title}", title_justify="left", box=None, header_style="bold")
    for name in columns:
        right = name.startswith(">")
        table.add_column(
            name.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a name is shown as it is, never read as markup
    return table


def _frozen_rows(groups: Sequence[ChannelGroup]) -> Iterator[tuple[str, ...]]:
    for group in groups:
        yield (str(group.size), group.reason, _names(group.producers), _names(group.consumers))


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _budget(found: Inspection) -> str:
    if found.problem:
        return found.problem
    if not found.limits:
        return "No budget is set."
    limits = ", ".join(_limit(metric, value) for metric, value in found.limits.items())
    return f"The budget can be met: at most {limits}."


def _limit(metric: str, value: float) -> str:
    if metric == "memory":
        return f"{file_size(int(value))} of memory"
    if metric == "latency_ms":
        return f"{value:g} ms"
    return f"{int(value):,} {'parameters' if metric == 'params' else 'MACs'}"
