"""A student's trainings from several initialisations, in step: after each epoch the student is what they are on average.

All of them train one epoch before any trains the next, so a student after e epochs is compared with others after e epochs whatever
the number of initialisations is, and a scheduler may stop it there. Architecture Compression (section 5) takes the mean of five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from raysearch.data import DeviceData
from trainables.recipe import Recipe
from trainables.reports import CLASS_ACCURACY
from trainables.training import Training

_STREAM = 104_729  # keeps these seeds apart from those that `Training` derives for its epochs


class RepeatedTraining:
    """The trainings of one student; with one of them, exactly that training.

    Attributes:
        trainings: one an initialisation.
    """

    def __init__(
        self,
        make: Callable[[int], nn.Module],
        data: DeviceData,
        recipe: Recipe,
        *,
        seed: int,
        count: int = 1,
        num_classes: int | None = None,
    ) -> None:
        """Builds all modules; they stay on the device together.

        Args:
            make: seed -> the student with the weights that it starts from.
            data: shared by all trainings of a process; never written to.
            seed: of the first training; those of the others follow from it (`repeat_seeds`).
            num_classes: K, where the accuracy of each class is wanted too.
        """
        self.recipe = recipe
        self.trainings = [
            Training(make(own), data, recipe, seed=own) for own in repeat_seeds(seed, count)
        ]
        self._num_classes = num_classes
        self._points: list[list[dict[str, Any]]] = [[] for _ in self.trainings]

    @property
    def epochs_done(self) -> int:
        """Epochs that every training has behind it."""
        return min(training.epochs_done for training in self.trainings)

    @property
    def epochs_trained(self) -> int:
        """Epochs of all trainings together."""
        return sum(training.epochs_done for training in self.trainings)

    @property
    def complete(self) -> bool:
        return self.epochs_done >= self.recipe.epochs

    @property
    def diverged(self) -> bool:
        """Whether one of them has: the student then has no mean."""
        return any(training.diverged for training in self.trainings)

    def train_epoch(self, after_each: Callable[[], None] = lambda: None) -> None:
        """Brings all trainings to the end of the next epoch and validates them; stops where one diverges.

        Args:
            after_each: called between two trainings, when `state_dict` may be taken.
        """
        target = self.epochs_done + 1
        for training, points in zip(self.trainings, self._points, strict=True):
            if training.epochs_done >= target:  # a state that was saved between two trainings
                continue
            training.train_epoch()
            points.append(training.validate(self._num_classes))
            if training.diverged:
                return
            if self.epochs_done < target:
                after_each()

    @property
    def curve(self) -> list[dict[str, Any]]:
        """For each epoch `epoch` and the means of what `Training.validate` gives; of several `accuracy_repeats`, `loss_repeats` too."""
        epochs = zip(*(points[: self.epochs_done] for points in self._points), strict=True)
        return [_mean(number, points) for number, points in enumerate(epochs, 1)]

    def best(self, score: Callable[[Mapping[str, float]], float]) -> Training:
        """The training whose last epoch scores highest, the first of equals.

        Args:
            score: of a point with `accuracy` and `loss`.
        """
        scores = [score(points[-1]) for points in self._points]
        return self.trainings[scores.index(max(scores))]

    def state_dict(self) -> dict[str, Any]:
        """All that continuing needs, detached from this object; loads with `torch.load(weights_only=True)`."""
        return {
            "trainings": [training.state_dict() for training in self.trainings],
            "points": [[dict(point) for point in points] for points in self._points],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, in the middle of an epoch too; same architecture, data, recipe and number."""
        for training, saved in zip(self.trainings, state["trainings"], strict=True):
            training.load_state_dict(saved)
        self._points = [[dict(point) for point in points] for points in state["points"]]


def repeat_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the initialisations: the first is `seed`, so that a student trained once is the first of several."""
    words = [
        np.random.SeedSequence([seed, _STREAM, number]).generate_state(1, np.uint64)[0]
        for number in range(1, count)
    ]
    return [seed, *(int(word >> np.uint64(1)) for word in words)]


def _mean(epoch: int, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(points) == 1:
        return {"epoch": epoch, **points[0]}
    names = ("accuracy", "loss")
    values = {name: [point[name] for point in points] for name in names}
    mean = {
        "epoch": epoch,
        **{name: float(np.mean(numbers)) for name, numbers in values.items()},
        **{f"{name}_repeats": numbers for name, numbers in values.items()},
    }
    if CLASS_ACCURACY in points[0]:  # the same classes are absent from all of them
        classes = zip(*(point[CLASS_ACCURACY] for point in points), strict=True)
        mean[CLASS_ACCURACY] = [None if None in one else float(np.mean(one)) for one in classes]
    return mean
