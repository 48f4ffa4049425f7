"""The report's curves: the best reward so far, and how the finalists learned.

Each function takes a run and returns an `svg` element, or None where the run holds nothing to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raysearch.formatting import percent
from raysearch.report.markup import Html
from raysearch.report.records import Evaluation, Trained
from raysearch.report.run_folder import RunFolder
from raysearch.report.svg import (
    COLOUR,
    ORIGIN_ROLES,
    clipped,
    draw,
    percent_axis,
    thinned,
    whole_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = {"search": ("search", "best", "-"), "random": ("random baseline", "random", "--")}
"""Stage -> its label, the role of its colour, its line."""

DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))


def progress_figure(run: RunFolder) -> Html | None:
    """The best reward so far by evaluation, of the search and of the random baseline."""
    stages = {stage: _values(run.evaluations, stage) for stage in STAGES}
    shown = {stage: values for stage, values in stages.items() if np.isfinite(values).any()}
    if not shown:
        return None
    ends = ", ".join(
        f"{stage} reaches {np.nanmax(values):.3f} in {len(values)} evaluations"
        for stage, values in shown.items()
    )
    alt = f"Best reward so far: {ends}."
    return draw("progress", lambda axes: _plot_progress(axes, shown), alt=alt)


def learning_figure(run: RunFolder) -> Html | None:
    """Validation accuracy by epoch of the finally trained students, against the teacher's."""
    rows = [row for row in (*run.students, *run.baselines) if len(row.curve) > 1]
    if not rows:
        return None
    ends = ", ".join(f"{run.label(row)} ends at {percent(row.curve[-1].accuracy)}" for row in rows)
    alt = f"Validation accuracy by epoch: {ends}."
    return draw("learning", lambda axes: _plot_learning(axes, rows, run), alt=alt)


def best_so_far(values: ArrayLike) -> NDArray[np.float64]:
    """The running maximum; NaN (a failed evaluation, or one stopped early) counts as nothing.

    Args:
        values: [n].

    Returns:
        [n], NaN before the first value.
    """
    array = np.asarray(values, dtype=np.float64)
    return np.fmax.accumulate(array) if array.size else array


def _values(rows: Sequence[Evaluation], stage: str) -> NDArray[np.float64]:
    """The stage's rewards in the order of the file; NaN for what was not trained in full. [n]"""
    values = [row.value if row.status == "full" else None for row in rows if row.stage == stage]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _plot_progress(axes: Axes, stages: dict[str, NDArray[np.float64]]) -> None:
    for stage, values in stages.items():
        label, role, line = STAGES[stage]
        colour = COLOUR[role]
        at = np.arange(1, len(values) + 1)
        best = best_so_far(values)
        dots = thinned(np.flatnonzero(np.isfinite(values)))
        axes.scatter(at[dots], values[dots], s=12, color=colour, alpha=0.45, linewidths=0)
        axes.step(at, best, where="post", color=colour, label=label, linestyle=line)
    finite = np.concatenate(list(stages.values()))
    finite = finite[np.isfinite(finite)]
    poor = 0.1 if len(finite) > 20 else 0.0  # of many, the poorest may leave the axes
    low, high = float(np.quantile(finite, poor)), float(finite.max())
    margin = max(0.12 * (high - low), 0.01)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("evaluation")
    axes.set_ylabel("reward (short training)")
    whole_axis(axes)
    axes.legend(loc="upper left")


def _plot_learning(axes: Axes, rows: Sequence[Trained], run: RunFolder) -> None:
    for place, row in enumerate(rows):
        best = run.is_best(row)
        role = row.origin if row.origin in ORIGIN_ROLES else "best" if best else "search"
        points = [point for point in row.curve if point.accuracy is not None]
        axes.plot(
            [point.epoch for point in points],
            [point.accuracy or 0.0 for point in points],
            color=COLOUR[role],
            linestyle="-" if best else DASHES[place % len(DASHES)],
            linewidth=2.0 if best else 1.3,
            zorder=3 if best else 2,
            label=clipped(run.label(row)),
        )
    if run.teacher.accuracy is not None:
        level = {"color": COLOUR["teacher"], "linewidth": 1, "linestyle": (0, (2, 2))}
        axes.axhline(run.teacher.accuracy, label="teacher", **level)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy")
    whole_axis(axes)
    percent_axis(axes)
    axes.legend(loc="lower right")
