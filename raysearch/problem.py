"""What a run is about, checked before anything is computed: data, teacher, graph, space, method.

`prepare` raises every error that bad input can cause; after it, only training is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raysearch.architecture import Architecture, SearchSpace
from raysearch.checking import check_method, check_names, try_metrics
from raysearch.cluster import check_local_resources
from raysearch.config import Config
from raysearch.data import DataSet
from raysearch.errors import DataError
from raysearch.files import RunFiles, read_json
from raysearch.models import build
from raysearch.objective import Floor, ObjectiveName, parse_floor, resolve_objective
from raysearch.recovery import read_card, read_teacher_graph, read_teacher_weights
from raysearch.subject import (
    ArrayPair,
    input_shape,
    load_data_set,
    load_graph,
    make_space,
    space_arguments,
)
from searchers.runs import MakesRuns

SIZES = ("params", "macs", "memory")


@dataclass(frozen=True, eq=False)
class Problem:
    """A checked run: everything but the training.

    Attributes:
        config: the resolved configuration.
        data: the data set, split.
        teacher: the module, in eval mode.
        has_weights: the teacher came trained; otherwise it is trained first.
        architecture: the teacher's graph.
        space: the students, within the budget.
        objective: how they are rewarded.
        floor: the accuracy that a student must reach; None: none is asked for.
        run_settings: what the runs of the method are told, where it makes runs.
        notes: what is worth knowing of the teacher, as sentences.
    """

    config: Config
    data: DataSet
    teacher: nn.Module
    has_weights: bool
    architecture: Architecture
    space: SearchSpace
    objective: ObjectiveName
    floor: Floor | None = None
    run_settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """What is made small where an accuracy is asked for: "params", or "macs" or "memory" where these are limited instead."""
        return next((key for key in SIZES if key in self.space.limits), SIZES[0])

    @property
    def space_arguments(self) -> dict[str, Any]:
        """What decides the meaning of an edit string."""
        return space_arguments(self.config)


def prepare(
    config: Config,
    *,
    teacher: nn.Module | None = None,
    data: tuple[ArrayPair, ArrayPair | None] | None = None,
) -> Problem:
    """Loads and checks everything that a run needs.

    Args:
        config: the configuration.
        teacher: a trained module that takes the place of `teacher.model`.
        data: ((x_train, y_train), (x_test, y_test) or None) that takes the place of `data.name`.

    Raises:
        InputError: one sentence that names the field, the value and the remedy.
    """
    check_local_resources(config)
    check_names(config)
    data_set = load_data_set(config, data, teacher=teacher)
    shape = input_shape(config, data_set)
    notes: list[str] = []
    module, architecture = load_graph(config, data_set.num_classes, shape, teacher, notes=notes)
    has_weights = teacher is not None or config.teacher.weights is not None
    return _problem(
        config, data_set, module, architecture, has_weights=has_weights, notes=tuple(notes)
    )


def reopen(config: Config, files: RunFiles) -> Problem:
    """The problem of a run that is continued.

    Needs nothing of what the user handed over in memory: the run's folder holds such data, and the teacher's graph and weights.

    Raises:
        InputError: as `prepare`; or the data are not those that the run began with.
    """
    arrays = _load_arrays(files.arrays) if files.arrays.exists() else None
    if not files.teacher_card.exists():
        return prepare(config, data=arrays)
    check_local_resources(config)
    check_names(config)
    before = read_json(files.data, holds=["hash"])["hash"]
    read_card(files)  # a damaged one is told before anything is done
    architecture = read_teacher_graph(files)
    data_set = load_data_set(config, arrays, shape=architecture.input_shape)
    if data_set.hash != before:
        raise DataError(
            f"data.name: {config.data.name!r} has changed since the run began (hash {data_set.hash}, then {before}); "
            "restore the data, or start a new run"
        )
    weights = read_teacher_weights(files)
    module = build(architecture, inherit_from=weights).eval()
    return _problem(
        config, data_set, module, architecture, has_weights=True, measured=files.latency
    )


def _problem(
    config: Config,
    data: DataSet,
    module: nn.Module,
    architecture: Architecture,
    *,
    has_weights: bool,
    measured: Path | None = None,
    notes: tuple[str, ...] = (),
) -> Problem:
    """The problem of a loaded teacher; `measured` is a file of earlier measurements of latency."""
    space = make_space(config, architecture, measured)
    method = check_method(config, space, module, architecture, data.num_classes)
    try_metrics(config, space, module)
    budget = config.limits
    floor = parse_floor(budget["accuracy"]) if "accuracy" in budget else None
    objective = resolve_objective(
        config.objective, has_budget=bool(budget), has_floor=floor is not None
    )
    settings = getattr(method, "settings", None)
    return Problem(
        config,
        data,
        module,
        has_weights,
        architecture,
        space,
        objective,
        floor,
        settings.to_dict() if isinstance(method, MakesRuns) and settings is not None else {},
        notes,
    )


def save_arrays(path: Path, data: tuple[ArrayPair, ArrayPair | None]) -> None:
    """Keeps in-memory data for `reopen`; plain arrays, no pickle."""
    (x, y), test = data
    arrays = {"x_train": x, "y_train": y}
    if test is not None:
        arrays |= {"x_test": test[0], "y_test": test[1]}
    np.savez(path, allow_pickle=False, **{k: _as_numpy(v) for k, v in arrays.items()})


def _load_arrays(path: Path) -> tuple[ArrayPair, ArrayPair | None]:
    with np.load(path, allow_pickle=False) as stored:
        test = (stored["x_test"], stored["y_test"]) if "x_test" in stored else None
        return (stored["x_train"], stored["y_train"]), test


def _as_numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def check_teacher_accuracy(
    accuracy: float, data: DataSet, *, given: bool = True
) -> tuple[str, ...]:
    """Notes on a teacher that is not worth imitating.

    Args:
        given: it came with its weights; False: it was trained here.

    Raises:
        DataError: it knows nothing at all, so that no student can be measured against it.
    """
    if (not math.isfinite(accuracy) or accuracy <= 0) and not given:
        raise DataError(
            f"teacher.epochs: the teacher, trained here, has a validation accuracy of {accuracy:.4f} on {len(data.validation)} "
            "images; give more of them (data.validation), more teacher.epochs, or a trained teacher (teacher.weights)"
        )
    if not math.isfinite(accuracy) or accuracy <= 0:
        raise DataError(
            f"teacher.weights: the teacher's validation accuracy is {accuracy:.4f}; its classes or its preprocessing "
            "do not fit the data (input = (pixel * scale - mean) / std, see data.json)"
        )
    chance = 1 / data.num_classes
    if accuracy < 1.5 * chance:
        return (
            f"the teacher's validation accuracy is {accuracy:.3f}, hardly above chance ({chance:.3f})",
        )
    return ()
