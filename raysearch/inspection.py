"""What a configuration would search, before any compute is spent: the teacher's layers and channels, the space, its budget.

`Inspection.to_dict()` is the JSON of `raysearch inspect --json`:

    model             the teacher's name
    input_shape       of one input
    classes           K of its logits
    layers            name, op, shape, num_params, macs, removable; num_params counts a shared parameter at its first layer
    groups            id, size, divisor, min_channels, producers, consumers: the widths that the search may choose
    frozen            size, reason, producers, consumers: channels that keep their number, and why
    removable         how many layers may be removed
    skip_pairs        how many skips may be added
    log10_students    decimal logarithm of the number of different edits, the budget left out
    students          largest (the teacher itself), median (of random ones, whatever the budget), smallest, and uniform (the
                      teacher scaled into the budget, where there is one), each with num_params, macs, memory_bytes, latency_ms and
                      architecture (text of the edits)
    device            where latency was measured, for a batch of one
    budget            limits (absolute numbers by metric), feasible, reason (the sentence where it cannot be met, else null)
    notes             what else is worth knowing, as sentences
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.architecture.groups import ChannelGroup
from raysearch.checking import check_method, check_names
from raysearch.config import Config
from raysearch.errors import BudgetError, ConfigError, DataError
from raysearch.models.latency import LatencyMeter
from raysearch.subject import (
    ArrayPair,
    input_shape,
    latency_device,
    load_data_set,
    load_graph,
    make_space,
    space_arguments,
)

SAMPLE = 200
"""How many random students the median is taken of."""


@dataclass(frozen=True)
class LayerRow:
    """A layer of the teacher."""

    name: str
    op: str
    shape: tuple[int, ...]
    num_params: int
    macs: int
    removable: bool


@dataclass(frozen=True)
class StudentRow:
    """What a student costs; its memory is that of the weights and of the activations at their peak, for one input."""

    num_params: int
    macs: int
    memory_bytes: int
    latency_ms: float
    architecture: str


@dataclass(frozen=True)
class Inspection:
    """See the module; `problem` is the BudgetError's sentence, "" where the budget can be met."""

    model: str
    input_shape: tuple[int, ...]
    classes: int
    layers: tuple[LayerRow, ...]
    groups: tuple[ChannelGroup, ...]
    frozen: tuple[ChannelGroup, ...]
    skip_pairs: int
    log10_students: float
    students: Mapping[str, StudentRow]
    device: str
    limits: Mapping[str, float]
    problem: str
    notes: tuple[str, ...]

    @property
    def removable(self) -> int:
        """How many layers may be removed."""
        return sum(layer.removable for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The JSON-native form that the module documents."""
        channels = ("size", "producers", "consumers")
        widths = ("id", "divisor", "min_channels")
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers],
            "groups": [_record(group, (*widths, *channels)) for group in self.groups],
            "frozen": [_record(group, ("reason", *channels)) for group in self.frozen],
            "removable": self.removable,
            "skip_pairs": self.skip_pairs,
            "log10_students": self.log10_students,
            "students": {name: asdict(row) for name, row in self.students.items()},
            "device": self.device,
            "budget": {
                "limits": dict(self.limits),
                "feasible": not self.problem,
                "reason": self.problem or None,
            },
            "notes": list(self.notes),
        }


def inspect(
    config: Config,
    *,
    teacher: nn.Module | None = None,
    data: tuple[ArrayPair, ArrayPair | None] | None = None,
) -> Inspection:
    """Loads the teacher, traces it, and looks at its space; trains nothing.

    Args:
        config: the configuration; with `teacher.input_shape` the data may be missing.
        teacher, data: take the place of `teacher.model` and `data.name`.

    Raises:
        InputError: one sentence that names the field, the value and the remedy.
    """
    check_names(config)
    shape, classes, notes = _facts(config, data, teacher)
    cast: list[str] = []
    module, architecture = load_graph(config, classes, shape, teacher, notes=cast)
    space = SearchSpace(architecture, **space_arguments(config))
    device = latency_device(config)
    meter: Callable[[Architecture], float] = LatencyMeter(device)
    limits: Mapping[str, float] = {}
    problem = ""
    shown = {
        "largest": space.largest(),
        "median": _median(space, config.run.seed),
        "smallest": space.smallest(),
    }
    try:
        within = make_space(config, architecture)
        limits, meter = within.limits, within.meter or meter
        check_method(
            config, within, module, architecture, architecture[architecture.output].shape[-1]
        )
        if limits:
            shown["uniform"] = within.uniform()
    except BudgetError as error:
        problem = str(error)
    return Inspection(
        model=config.teacher.model if teacher is None else type(teacher).__name__,
        input_shape=tuple(architecture.input_shape),
        classes=architecture[architecture.output].shape[-1],
        layers=_layers(architecture, space),
        groups=space.groups,
        frozen=space.frozen_groups,
        skip_pairs=len(space.skip_pairs),
        log10_students=_log10_students(space),
        students=_students(space, shown, meter),
        device=device,
        limits=limits,
        problem=problem,
        notes=(*notes, *cast, *_elsewhere(config, device), *_floor(config)),
    )


def _facts(
    config: Config, arrays: tuple[ArrayPair, ArrayPair | None] | None, teacher: nn.Module | None
) -> tuple[tuple[int, ...], int | None, tuple[str, ...]]:
    """The input's shape, the number of classes (None: the network's own), and notes."""
    asked = config.teacher.input_shape
    if asked is not None and arrays is None and "data" not in config.model_fields_set:
        return tuple(asked), None, ("no data are named, so the classes are the network's own",)
    try:
        data = load_data_set(config, arrays, teacher=teacher)
    except (ConfigError, DataError) as error:
        if asked is None:
            raise
        note = f"the data cannot be read, so the classes are the network's own: {error}"
        return tuple(asked), None, (note,)
    return input_shape(config, data), data.num_classes, ()


def _elsewhere(config: Config, device: str) -> tuple[str, ...]:
    """A note where latency is not measured on the device that was asked for."""
    if config.resources.device not in ("auto", device):
        return (
            f"resources.device is {config.resources.device}, which is not here: latency is that of the {device}",
        )
    return ()


def _floor(config: Config) -> tuple[str, ...]:
    if "accuracy" not in config.limits:
        return ()
    return ("budget.accuracy is a floor: whether a student reaches it is known after training",)


def _layers(architecture: Architecture, space: SearchSpace) -> tuple[LayerRow, ...]:
    removable = set(space.removable)
    seen: set[str] = set()
    rows = []
    for place, layer in enumerate(architecture.layers):
        own = {
            layer.params.get(role, f"{layer.name}.{role}"): math.prod(shape)
            for role, shape in layer.param_shapes.items()
        }
        num_params = sum(size for key, size in own.items() if key not in seen)
        seen |= set(own)
        rows.append(
            LayerRow(layer.name, layer.op, layer.shape, num_params, layer.macs, place in removable)
        )
    return tuple(rows)


def _log10_students(space: SearchSpace) -> float:
    """Of the number of different edits; some of them make the same network."""
    choices = len(space.removable) + len(space.skip_pairs)
    widths = 0.0
    if "shrink" in space.operations:
        grids = (set(range(g.min_channels, g.size, g.divisor)) | {g.size} for g in space.groups)
        widths = sum(math.log10(len(grid)) for grid in grids)
    return choices * math.log10(2) + widths


def _median(space: SearchSpace, seed: int) -> Edits:
    """Of random students the one with the middle number of parameters."""
    batch = space.sample(SAMPLE, seed=seed)
    order = np.argsort(space.num_params(batch), kind="stable")
    return batch[int(order[len(order) // 2])]


def _students(
    space: SearchSpace, shown: Mapping[str, Edits], meter: Callable[[Architecture], float]
) -> dict[str, StudentRow]:
    rows: dict[str, StudentRow] = {}
    for name, edits in shown.items():
        student = space.apply(edits)
        rows[name] = StudentRow(
            student.num_params, student.macs, student.memory_bytes, meter(student), str(edits)
        )
    return rows


def _record(group: ChannelGroup, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(group, name) for name in names}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
