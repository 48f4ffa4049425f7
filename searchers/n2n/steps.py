"""The sequence of decisions of a policy on one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raysearch.architecture import Architecture
from raysearch.architecture.sequences.policy import N2N_TYPES, policy_sequence
from raysearch.architecture.view import view

REMOVE, KEEP = 0, 1
"""Actions of removal."""
NUM_RATIOS = 10
"""Actions of shrinkage: action a keeps the share (a + 1) / 10."""
FULL = NUM_RATIOS - 1
"""The action of shrinkage that changes nothing."""
NO_FACTOR = -1


@dataclass(frozen=True, eq=False)
class Steps:
    """What a policy walks through: the layers in their order, each with its decisions, or with one forced step where it has none.

    Attributes:
        rows: [T, 7] int64, of `policy_sequence`.
        layers: T names.
        factors: [T] int64, what a step of shrinkage decides on (positions in `FACTORS`), `NO_FACTOR` elsewhere.
        free: [T] bool, where the policy decides; elsewhere the action that changes nothing is forced, and has no log-probability.
    """

    rows: np.ndarray
    layers: tuple[str, ...]
    factors: np.ndarray
    free: np.ndarray

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def types(self) -> list[str]:
        """The words of the layers' types."""
        return [N2N_TYPES[row] for row in self.rows[:, 0]]


@dataclass(frozen=True, eq=False)
class Executed:
    """What came of actions.

    Attributes:
        architecture: the student's text; None: there is none, or it is not smaller than the teacher.
        actions: [T] int64, those that were executed.
    """

    architecture: str | None
    actions: np.ndarray


class Meaning(Protocol):
    """What a policy's actions do; `execute` takes the actions [T] of one rollout, forced ones included."""

    steps: Steps

    def execute(self, actions: np.ndarray) -> Executed: ...


def listed_layers(network: Architecture) -> tuple[np.ndarray, list[int]]:
    """The rows [L, 7] of the layers that policies see, and their indices; what was removed (an identity) is gone."""
    rows, places = policy_sequence(network), view(network).listed
    stay = [network.layers[place].op != "identity" for place in places]
    return rows[stay], [place for place, stays in zip(places, stay, strict=True) if stays]


def removal_steps(network: Architecture, may_remove: Callable[[int], bool]) -> Steps:
    """One step a layer.

    Args:
        may_remove: a layer's index -> whether the policy decides.
    """
    rows, places = listed_layers(network)
    names = tuple(network.layers[place].name for place in places)
    free = np.array([may_remove(place) for place in places], bool)
    return Steps(rows, names, np.full(len(places), NO_FACTOR), free)


def shrinkage_steps(
    network: Architecture, decisions: Callable[[int], Sequence[int]]
) -> tuple[Steps, list[int]]:
    """A step for each decision, and the layer's index at each step.

    Args:
        decisions: a layer's index -> the factors that are decided there, each a position in `FACTORS`.
    """
    rows, listed = listed_layers(network)
    chosen, places, factors = [], [], []
    for row, place in zip(rows, listed, strict=True):
        for factor in decisions(place) or [NO_FACTOR]:
            chosen.append(row)
            places.append(place)
            factors.append(factor)
    names = tuple(network.layers[place].name for place in places)
    found = np.array(factors, np.int64)
    return Steps(np.array(chosen, np.int64), names, found, found != NO_FACTOR), places
