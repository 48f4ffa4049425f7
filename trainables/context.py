"""What all trials of a run share: the teacher, the data, the recipes, and how a student is rewarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from raysearch.architecture import Architecture, SearchSpace
from raysearch.data import DeviceData, DistillationData
from raysearch.data.batches import to_device
from raysearch.errors import InvalidArchitecture
from raysearch.models.keep import ChannelRanking
from raysearch.objective import ObjectiveName
from trainables.recipe import Recipe
from trainables.reports import CLASS_ACCURACY


@dataclass(frozen=True, eq=False)
class DistillationContext:
    """Everything that all trials share; lives once a machine in Ray's object store, arrays are read without a copy.

    Attributes:
        teacher: the teacher's architecture as JSON.
        teacher_weights: its state, name -> array.
        space: keyword arguments of `SearchSpace` that decide what an edit string means.
        data: training and validation part, and the teacher's cached logits.
        recipes: by stage, as `Recipe.to_dict` gives them; "search" is the default.
        value_epochs: by stage: which epoch's accuracy, loss and reward are a student's: its "last" (the default), or its "best" so far.
        init: by stage: "inherit" (slices of the teacher's weights, the default), "fresh", or "search" (the weights that the short
            training left in `weights_folder`, else as the stage "search").
        repeats: by stage: from how many initialisations a student is trained; 1 where a stage is not named.
        channel_scores: how important the teacher's channels are (`raysearch.models.scores`), which decides what "inherit" keeps; None:
            the first channels.
        rankings: other scores by name, which a trial's config may ask for in its key `channels`.
        objective, teacher_accuracy: how a student is rewarded; the accuracy is the teacher's on the validation part.
        floor: the accuracy that is wanted at least, for the objective "smallest"; `size` ("params", "macs" or "memory") is what is made
            small.
        report: what results hold on request: "class_accuracy".
        metrics: `package.module:callable` that measures a trained student (see `trainables.reports`); None: nothing.
        device: "cpu" or "cuda".
        threads: intra-op threads of a trial on the CPU.
        weights_folder: where finished students' weights and unfinished trainings are kept; None: nowhere.
        limits: what students of runs (`trainables.bayesnas`) may cost, absolute numbers by metric ("params", "macs", "memory"); empty: anything.
        run_settings: what such a run is told where its trial's config says nothing.
        history_folder: where runs leave their histories for the report; None: nowhere.
        timeout_s: a trial that has trained longer ends with what it has; None: no limit.
        seed: of initialisation and batches.
    """

    teacher: str
    teacher_weights: Mapping[str, np.ndarray]
    space: Mapping[str, Any]
    data: DistillationData
    recipes: Mapping[str, Mapping[str, Any]]
    value_epochs: Mapping[str, str] = field(default_factory=dict)
    init: Mapping[str, str] = field(default_factory=dict)
    repeats: Mapping[str, int] = field(default_factory=dict)
    channel_scores: Sequence[np.ndarray] | None = None
    rankings: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    objective: ObjectiveName = "f"
    teacher_accuracy: float = 1.0
    floor: float | None = None
    size: str = "params"
    report: Sequence[str] = ()
    metrics: str | None = None
    device: str = "cpu"
    threads: int = 1
    weights_folder: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    run_settings: Mapping[str, Any] = field(default_factory=dict)
    history_folder: str | None = None
    timeout_s: float | None = None
    seed: int = 0

    @cached_property
    def search_space(self) -> SearchSpace:
        """The space that reads edit strings; without a budget, which only proposers need."""
        return SearchSpace(Architecture.from_json(self.teacher), **self.space)

    @property
    def reported_classes(self) -> int | None:
        """K where the accuracy of each class is to be reported."""
        teacher = self.search_space.teacher
        return teacher[teacher.output].shape[-1] if CLASS_ACCURACY in self.report else None

    @cached_property
    def teacher_state(self) -> dict[str, torch.Tensor]:
        """The teacher's weights as tensors that share the store's memory."""
        return {name: to_device(array, "cpu") for name, array in self.teacher_weights.items()}

    @cached_property
    def ranking(self) -> ChannelRanking:
        """Which of the teacher's channels students keep."""
        return ChannelRanking(self.search_space.teacher, self.channel_scores)

    def ranking_of(self, name: str | None) -> ChannelRanking:
        """Which channels a student keeps whose trial names one of `rankings`; None: as all do.

        Raises:
            InvalidArchitecture: the name is not known.
        """
        if name is None:
            return self.ranking
        if name not in self.rankings:
            known = ", ".join(sorted(self.rankings)) or "none"
            raise InvalidArchitecture(f"channels: {name!r} is not known; known are {known}")
        return ChannelRanking(self.search_space.teacher, self.rankings[name])

    @cached_property
    def device_data(self) -> DeviceData:
        """Images, labels and logits, resident on the device."""
        return self.data.to(self.device)

    def recipe(self, stage: str) -> Recipe:
        """The training recipe of a stage."""
        return Recipe.from_dict(self.recipes.get(stage, self.recipes["search"]))
