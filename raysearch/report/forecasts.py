"""The report's pictures of the search's model: predictions against measurements, their rank correlation, and the map of the students.

Each figure is None where the run holds too little to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysearch.formatting import decimal
from raysearch.report.markup import Html
from raysearch.report.run_folder import RunFolder
from raysearch.report.svg import COLOUR, NUM_VALUES, draw, thinned, whole_axis
from searchers.insight import WINDOW, running_spearman, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_FORECASTS = 5
"""Predicted and measured students below which there is a sentence and no figure."""

KINDS = {
    "model": ("o", "proposed by the model"),
    "drawn": ("^", "drawn at random"),
    "uniform": ("s", "uniformly scaled teacher"),
    "transfer": ("v", "from another run's model"),
    "first": ("D", "given to the search"),
}
"""How a student came about -> its mark on the map, and the mark's name."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Students whose value was predicted before their full training, in the order of their end.

    Attributes:
        predicted: [n]
        sd: the prediction's standard deviation, 0 where it gave none. [n]
        measured: [n]
    """

    predicted: Array
    sd: Array
    measured: Array

    @classmethod
    def of(cls, run: RunFolder) -> Forecasts:
        """Those of the run's search; failed students and those stopped early have nothing to compare with."""
        found = [
            (row.predicted, max(0.0, row.predicted_sd or 0.0), row.value)
            for row in run.evaluations
            if row.stage == "search" and row.status == "full"
            if row.predicted is not None and row.value is not None
        ]
        return cls(*np.array(found, dtype=np.float64).reshape(-1, 3).T)

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def rank_correlation(self) -> float:
        """Over all of them; NaN where undefined."""
        return spearman(self.predicted, self.measured)


def forecast_figure(run: RunFolder) -> Html | None:
    """What the model expected of each student, against what its training gave."""
    found = Forecasts.of(run)
    if len(found) < MIN_FORECASTS:
        return None
    error = float(np.mean(np.abs(found.predicted - found.measured)))
    alt = (
        f"Predicted against measured reward of {len(found)} students proposed by the model: rank correlation "
        f"{decimal(found.rank_correlation, 2)}, mean absolute error {decimal(error)}."
    )
    return draw("forecasts", lambda axes: _plot_forecasts(axes, found), alt=alt)


def rank_figure(run: RunFolder) -> Html | None:
    """The rank correlation of predictions and measurements over the search."""
    found = Forecasts.of(run)
    ends, values = running_spearman(found.predicted, found.measured)
    known = np.isfinite(values)
    if len(found) <= MIN_FORECASTS or known.sum() < 2:
        return None
    ends, values = ends[known], values[known]
    alt = (
        f"Rank correlation of prediction and measurement over the last {WINDOW} students of the model: "
        f"{values[0]:.2f} after {ends[0]}, {values[-1]:.2f} after {ends[-1]}."
    )
    return draw("ranks", lambda axes: _plot_ranks(axes, ends, values), alt=alt)


def map_figure(run: RunFolder) -> Html | None:
    """The students as the model sees them, coloured by their values."""
    if run.knowledge is None:
        return None
    insight = run.knowledge.insight
    usable = np.isfinite(insight.places).all(axis=1) & np.isfinite(insight.values)
    places, values = insight.places[usable], insight.values[usable]
    if len(values) < MIN_FORECASTS or not np.ptp(places):
        return None
    kinds = [kind for kind, use in zip(student_kinds(run), usable, strict=True) if use]
    alt = (
        f"Map of {len(values)} students, near each other where the model takes them for alike, coloured by reward from "
        f"{values.min():.3f} to {values.max():.3f}."
    )
    return draw("map", lambda axes: _plot_map(axes, places, values, kinds), alt=alt)


def student_kinds(run: RunFolder) -> list[str]:
    """How each student of `run.knowledge` came about, a key of `KINDS`. [n]"""
    assert run.knowledge is not None, "the caller has looked"
    origins = {row.architecture_id: row.origin for row in run.evaluations if row.stage == "search"}
    uniform = {row.architecture_id for row in run.trained if row.origin == "uniform"}
    names = {"sample": "drawn", "fallback": "drawn"}
    found = []
    for key in run.knowledge.ids:
        origin = "uniform" if key in uniform else origins.get(key, "")
        kind = names.get(origin, origin)
        found.append(kind if kind in KINDS else "first")
    return found


def value_steps(values: Array) -> tuple[NDArray[np.int64], Array]:
    """Steps of about equally many students, from the poorest to the best.

    Args:
        values: [n] finite, n >= 1.

    Returns:
        Each student's step in 0 .. `NUM_VALUES` - 1, the best always in the last: [n]; and the steps' edges: [`NUM_VALUES` + 1].
    """
    edges = np.quantile(values, np.linspace(0, 1, NUM_VALUES + 1))
    return np.searchsorted(edges[1:-1], values, side="right"), edges


def _plot_forecasts(axes: Axes, found: Forecasts) -> None:
    low, high = _limits(found)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    line = {"color": COLOUR["muted"], "linewidth": 1, "linestyle": (0, (4, 3))}
    axes.plot([low, high], [low, high], label="prediction came true", **line)
    shown = thinned(np.arange(len(found)))
    predicted, measured = found.predicted[shown], found.measured[shown]
    x, y = np.clip(predicted, low, high), np.clip(measured, low, high)
    off = (x != predicted) | (y != measured)
    colour = COLOUR["search"]
    axes.errorbar(
        x[~off],
        y[~off],
        xerr=found.sd[shown][~off],
        fmt="none",
        ecolor=colour,
        alpha=0.45,
        elinewidth=0.9,
    )
    axes.scatter(x[~off], y[~off], s=20, color=COLOUR["best"], linewidths=0, zorder=3)
    if off.any():
        axes.scatter(
            x[off], y[off], s=22, marker="v", color=colour, clip_on=False, label="beyond the axes"
        )
    axes.set_xlabel("predicted reward (bars: 1 standard deviation)")
    axes.set_ylabel("measured reward")
    axes.legend(loc="upper left")


def _limits(found: Forecasts) -> tuple[float, float]:
    """Axes that a few very poor students do not stretch."""
    ends = np.concatenate([found.predicted, found.measured])
    quarter, half = np.quantile(ends, [0.25, 0.5])
    low, high = max(ends.min(), quarter - 4 * max(half - quarter, 0.005)), ends.max()
    margin = max(0.08 * (high - low), 0.002)
    return float(low - margin), float(high + margin)


def _plot_ranks(axes: Axes, ends: NDArray[np.int64], values: Array) -> None:
    axes.axhline(0, color=COLOUR["muted"], linewidth=0.8)
    axes.plot(ends, values, color=COLOUR["best"])
    axes.set_ylim(min(-0.1, float(values.min()) - 0.05), 1.03)
    axes.set_xlabel("students of the model so far")
    axes.set_ylabel("rank correlation")
    whole_axis(axes)


def _plot_map(axes: Axes, places: Array, values: Array, kinds: Sequence[str]) -> None:
    steps, edges = value_steps(values)
    edge = {"edgecolors": COLOUR["muted"], "linewidths": 0.6}
    for kind, (marker, _) in KINDS.items():
        for step in range(NUM_VALUES):  # the better lie above
            here = np.array([one == kind for one in kinds]) & (steps == step)
            style = {
                "marker": marker,
                "facecolors": COLOUR[f"value{step}"],
                "zorder": 2 + step / 10,
            }
            axes.scatter(*places[here].T, s=34, **style, **edge)
    best = places[int(np.argmax(values))]
    star = {"facecolors": COLOUR["uniform"], "edgecolors": COLOUR["paper"], "linewidths": 0.7}
    axes.scatter(*best, s=150, marker="*", zorder=4, **star)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    _map_legend(axes, edges, set(steps.tolist()), [kind for kind in KINDS if kind in kinds])


def _map_legend(axes: Axes, edges: Array, steps: set[int], kinds: Sequence[str]) -> None:
    """The steps of the values, best first, the marks, and the star."""
    from matplotlib.lines import Line2D

    def entry(marker: str, fill: str, label: str, size: float = 6) -> Line2D:
        colours = {"markerfacecolor": COLOUR[fill], "markeredgecolor": COLOUR["muted"]}
        style = {"markeredgewidth": 0.6, "markersize": size, "linestyle": "none"}
        return Line2D([], [], marker=marker, label=label, **colours, **style)

    entries = [
        entry("o", f"value{step}", f"{edges[step]:.3f} to {edges[step + 1]:.3f}")
        for step in sorted(steps, reverse=True)
    ]
    entries += [entry(KINDS[kind][0], "paper", KINDS[kind][1]) for kind in kinds]
    entries.append(entry("*", "uniform", "best", 10))
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes belong to a figure"
    figure.legend(handles=entries, loc="outside lower center", ncols=3)
