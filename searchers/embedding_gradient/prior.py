"""What another run knows: its students as sequences with what was measured (`search.warm_start`).

A sequence of this teacher's layers is read whatever space it comes from: another budget, another grouping, another searcher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysearch.errors import ConfigError
from searchers.algorithm import Observation
from searchers.source import Source, read_source
from searchers.targets import NEEDED, ratio

if TYPE_CHECKING:
    from raysearch.architecture import Architecture, SearchSpace

LEAST = 2
"""Students of another run below which it teaches nothing."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Another run's full observations.

    Attributes:
        full: n of them.
        rows: [n, T, 5] their sequences; zeros behind shorter ones.
        sizes: [n] float64, what f_p regresses.
        has_budget: of the search that begins with them.
    """

    full: tuple[Observation, ...]
    rows: np.ndarray
    sizes: np.ndarray
    has_budget: bool

    @property
    def has_ratios(self) -> bool:
        """Whether accuracy ratios are known."""
        return all(one.metrics.keys() >= NEEDED for one in self.full)

    def values(self, *, composite: bool) -> np.ndarray:
        """What the search models: accuracy ratios where composite; within a budget exp(-loss), as the objective is there; else the value.

        [n] float64
        """
        if composite:
            return np.array([ratio(one) for one in self.full])
        if self.has_budget and all("loss" in one.metrics for one in self.full):
            return np.exp([-one.metrics["loss"] for one in self.full])
        return np.array([one.value for one in self.full], float)


def read_prior(space: SearchSpace, path: str, *, chains: bool, size: str, num_rows: int) -> Prior:
    """Reads a run's folder.

    Args:
        space: of the search that begins.
        path: of the folder.
        chains: its students are free chains.
        size: what f_p regresses.
        num_rows: T_max; longer chains are left out.

    Raises:
        ConfigError: it is no run, or its students do not fit.
    """
    from raysearch.architecture.sequences import encode_sequence, without_gaps

    source = read_source(path, whole=chains)
    _check_teacher(space.teacher, source, path, chains=chains)
    full, sequences, sizes = [], [], []
    for one in source.full:
        student = source.space.apply(one.architecture)
        rows = encode_sequence(student)
        if chains:
            rows = without_gaps(rows)
        counts = {"params": student.num_params, "macs": student.macs}
        found = {**counts, "latency": one.metrics.get("latency_ms")}[size]
        fits = len(rows) <= num_rows if chains else len(rows) == num_rows
        if found is not None and fits:
            full.append(one)
            sequences.append(rows)
            sizes.append(float(found))
    if len(full) < LEAST:
        reports = " and report latency_ms" if size == "latency" else ""
        wanted = f"at most {num_rows} layers" if chains else "this teacher's layers"
        raise ConfigError(
            f"search.warm_start is {str(path)!r}, of whose students {len(full)} have {wanted}{reports}, "
            f"but {LEAST} are needed: choose another run"
        )
    longest = max(map(len, sequences))
    padded = [np.pad(rows, ((0, longest - len(rows)), (0, 0))) for rows in sequences]
    return Prior(tuple(full), np.stack(padded), np.array(sizes), bool(space.limits))


def _check_teacher(teacher: Architecture, source: Source, path: str, *, chains: bool) -> None:
    from raysearch.architecture.sequences import encode_sequence

    other = source.space.teacher
    ours, theirs = encode_sequence(teacher), encode_sequence(other)
    if chains:
        fits = other.input_shape == teacher.input_shape
        fits &= other[other.output].shape == teacher[teacher.output].shape
        wanted = "the same input and outputs as"
    else:
        fits = ours.shape == theirs.shape
        fits = fits and bool((ours == theirs)[:, [0, 1, 3, 4]].all())  # widths may differ
        wanted = "the layers of"
    if not fits:
        raise ConfigError(
            f"search.warm_start is {str(path)!r}, whose teacher ({len(theirs)} layers) has not {wanted} this one ({len(ours)} layers): "
            "give a run of the same teacher"
        )
