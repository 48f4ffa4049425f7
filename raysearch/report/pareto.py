"""The report's picture of size against accuracy, and its close-up of the students alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.formatting import percent, short_count
from raysearch.objective import pareto_front
from raysearch.report.markup import Html
from raysearch.report.records import Trained
from raysearch.report.run_folder import RunFolder
from raysearch.report.svg import COLOUR, ORIGIN_ROLES, clipped, draw, percent_axis, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROWDED = 0.35  # students within this share of the size axis get a close-up
ORIGIN_MARKS = {"search": "D", "uniform": "s", "random": "^"}
Point = tuple[int, float]  # parameters, validation accuracy


def pareto_figure(run: RunFolder) -> Html | None:
    """All students by size (log) and validation accuracy, with finalists, baselines, teacher, Pareto front and budget."""
    if not _sizes(run):
        return None
    alt = f"Parameters against validation accuracy of {len(searched(run))} searched students"
    best = run.best.scores if run.best else None
    if best and best.num_params:
        alt += f"; the best has {best.num_params:,} parameters and {percent(best.accuracy)}"
    return draw("pareto", lambda axes: _plot(axes, run, close_up=False), alt=f"{alt}.")


def close_up_figure(run: RunFolder) -> Html | None:
    """The same around the students alone, where the teacher's distance squeezes them together."""
    sizes, whole = _sizes(run), run.teacher.num_params
    if len(sizes) < 3 or not whole:
        return None
    low, high = min(sizes), max(sizes)
    if high <= low or np.log(high / low) > CROWDED * np.log(max(high, whole) / low):
        return None
    alt = f"The students alone, from {low:,} to {high:,} parameters."
    return draw("closeup", lambda axes: _plot(axes, run, close_up=True), alt=alt)


def searched(run: RunFolder, status: str = "full") -> list[Point]:
    """Size and accuracy of the search's students that have the searcher's status."""
    return [
        (row.num_params, row.accuracy)
        for row in run.evaluations
        if row.stage == "search" and row.status == status and row.result_status == "ok"
        if row.num_params and row.accuracy is not None
    ]


def front(run: RunFolder) -> list[Point]:
    """The Pareto front of the search's full evaluations, the smallest student first."""
    points = searched(run)
    return sorted(points[place] for place in pareto_front(points))


def _sizes(run: RunFolder) -> list[int]:
    evaluated = [size for status in ("full", "stopped") for size, _ in searched(run, status)]
    trained = [row.scores.num_params for row in run.trained]
    return [*evaluated, *(size for size in trained if size)]


def _plot(axes: Axes, run: RunFolder, *, close_up: bool) -> None:
    floor = _floor(run)
    colour = COLOUR["search"]
    hollow = {"facecolors": "none", "edgecolors": colour, "alpha": 0.55}
    solid = {"color": colour, "alpha": 0.6, "linewidths": 0}
    _scatter(axes, searched(run), floor, "searched (short training)", solid)
    _scatter(axes, searched(run, "stopped"), floor, "stopped early", hollow)
    for row in (*run.baselines, *reversed(run.students)):
        _mark(axes, row, best=run.is_best(row))
    _teacher_and_budget(axes, run, close_up=close_up)
    axes.set_xscale("linear" if close_up else "log")
    axes.set_xlabel("parameters" if close_up else "parameters (log scale)")
    axes.set_ylabel("validation accuracy")
    axes.set_ylim(bottom=floor)
    _draw_front(axes, front(run))
    _size_axis(axes)
    percent_axis(axes)
    _legend(axes)


def _scatter(
    axes: Axes, points: list[Point], floor: float | None, label: str, style: dict[str, Any]
) -> None:
    """The students as dots; those below the axis become small triangles on its edge."""
    array = np.array(thinned(points), dtype=np.float64).reshape(-1, 2)
    low = array[:, 1] < (-np.inf if floor is None else floor)
    axes.scatter(*array[~low].T, s=16, label=label if len(array) else None, **style)
    if floor is not None and low.any():
        axes.scatter(
            array[low, 0], np.full(low.sum(), floor), s=16, marker="v", clip_on=False, **style
        )


def _draw_front(axes: Axes, points: Sequence[Point]) -> None:
    """The front as a staircase: up at its smallest student, level to the right edge after its last."""
    if not points:
        return
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    sizes = [points[0][0], *(size for size, _ in points), right]
    heights = [bottom, *(height for _, height in points), points[-1][1]]
    line = {"color": COLOUR["search"], "linewidth": 1.1}
    axes.step(sizes, heights, where="post", label="Pareto front of the search", **line)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom=bottom)


def _mark(axes: Axes, row: Trained, *, best: bool) -> None:
    """A finally trained student, joined to where its short training had left it."""
    size, accuracy, short = row.scores.num_params, row.scores.accuracy, row.search["accuracy"]
    if not size or accuracy is None:
        return
    colour = COLOUR[row.origin if row.origin in ORIGIN_ROLES else "best"]
    if short is not None:
        axes.plot([size, size], [short, accuracy], color=colour, linewidth=0.8, alpha=0.6)
    star = best and row.origin == "search"
    kind = "best" if star else "finalists" if row.origin == "search" else row.origin
    axes.scatter(
        [size],
        [accuracy],
        s=110 if star else 56 if best else 34,
        marker="*" if star else ORIGIN_MARKS.get(row.origin, "P"),
        facecolors=colour,
        edgecolors=COLOUR["paper"],
        linewidths=0.7,
        zorder=4 if best else 3,
        label=f"{clipped(kind)} (full training)",
    )


def _teacher_and_budget(axes: Axes, run: RunFolder, *, close_up: bool) -> None:
    size, accuracy, limit = run.teacher.num_params, run.teacher.accuracy, run.limit("params")
    if close_up:
        ends = [*_sizes(run), *([limit] if limit else [])]
        margin = 0.08 * (max(ends) - min(ends))
        axes.set_xlim(min(ends) - margin, max(ends) + margin)
    if accuracy is not None and close_up:
        line = {"color": COLOUR["teacher"], "linewidth": 1, "linestyle": (0, (2, 2))}
        axes.axhline(accuracy, label="teacher's accuracy", **line)
    elif accuracy is not None and size:
        edge = {"edgecolors": COLOUR["paper"], "linewidths": 0.7, "zorder": 4}
        axes.scatter(
            [size], [accuracy], s=60, marker="X", color=COLOUR["teacher"], label="teacher", **edge
        )
    if limit:
        line = {"color": COLOUR["budget"], "linewidth": 1.1, "linestyle": (0, (5, 3))}
        axes.axvline(limit, label="budget", **line)


def _floor(run: RunFolder) -> float | None:
    """Where the accuracy axis begins, if a few poor students would press all others together; None: matplotlib decides."""
    values = [value for status in ("full", "stopped") for _, value in searched(run, status)]
    if len(values) < 8:
        return None
    low, high = np.quantile(values, [0.25, 0.75])
    kept = [row.scores.accuracy for row in run.trained if row.scores.accuracy is not None]
    floor = min(low - 2.5 * max(high - low, 0.01), *(value - 0.02 for value in kept), 1.0)
    return float(floor) if min(values) < floor else None


def _size_axis(axes: Axes) -> None:
    """Plain numbers: 10 k, 200 k."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if axes.get_xscale() == "log":
        low, high = axes.get_xlim()
        steps = (
            (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 30 else (1.0, 2.0, 3.0, 5.0)
        )
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value))


def _legend(axes: Axes) -> None:
    """One entry for each kind of mark, below the drawing."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes belong to a figure"
    figure.legend(kinds.values(), kinds.keys(), loc="outside lower center", ncols=3)
