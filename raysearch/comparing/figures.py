"""The drawings of a comparison: anytime curves, values by evaluation, their histogram, and the final students.

A plot draws on axes that it is given, in colours that it is given, so that one serves the page (`report.svg`) and the PNG file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raysearch.comparing.curves import anytime
from raysearch.comparing.records import METRICS, numbers, only
from raysearch.report.markup import Html
from raysearch.report.svg import (
    COLOUR,
    NUM_METHODS,
    STYLE,
    clipped,
    draw,
    percent_axis,
    thinned,
    whole_axis,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
BINS = 30
MAX_MARKS = 600
"""Of one method in the scatter."""
AXES = {
    "evaluation": "evaluation",
    "epochs_spent": "epochs trained",
    "seconds_spent": "seconds (training and proposing)",
}
PAPER = {
    "ink": "#1c1d1f",
    "muted": "#66696e",
    "grid": "#e8e8e4",
    "paper": "#ffffff",
    "method0": "#0060a0",
    "method1": "#c65a00",
    "method2": "#00795a",
    "method3": "#a8437c",
    "method4": "#8a6d00",
    "method5": "#2f8fc4",
    "method6": "#7a4fb0",
    "method7": "#66696e",
}
"""The colours of the PNG file, as in style.css."""

Colours = Mapping[str, str]


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: unique on the page.
        plot: draws on axes in the colours of a palette.
        alt: what it shows, for who cannot see it.
        caption: below it.
    """

    name: str
    plot: Callable[[Axes, Colours], None]
    alt: str
    caption: str

    def svg(self) -> Html:
        """As an `svg` element of the page."""
        return draw(self.name, lambda axes: self.plot(axes, COLOUR), alt=self.alt)


def role(methods: Sequence[str], method: str) -> str:
    """The role of a method's colour: that of its place among the methods."""
    return f"method{methods.index(method) % NUM_METHODS}"


def drawings(
    cells: pd.DataFrame, evaluations: pd.DataFrame, methods: Sequence[str], metric: str
) -> list[Drawing]:
    """All figures that the tables hold something for.

    Args:
        cells, evaluations: see `raysearch.comparing.records`.
        methods: in the order of their colours.
        metric: what the final students are compared by.
    """
    found = []
    if len(numbers(evaluations, "best")):
        found += [_anytime(evaluations, methods, axis) for axis in AXES]
        found += [_scatter(evaluations, methods), _histogram(evaluations, methods)]
    if len(numbers(cells, metric)):
        found.append(_finals(cells, methods, metric))
    return found


def write_png(figures: Sequence[Drawing], path: Path) -> None:
    """All figures in one picture, for slides and papers."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stand_ins = {COLOUR[name]: colour for name, colour in PAPER.items()}
    settings = {key: _translated(value, stand_ins) for key, value in STYLE.items()}
    with matplotlib.rc_context(settings):
        rows = -(-len(figures) // 2)
        figure = Figure(figsize=(11, 3.7 * rows), dpi=140)
        FigureCanvasAgg(figure)
        for place, drawing in enumerate(figures):
            drawing.plot(figure.add_subplot(rows, 2, place + 1), PAPER)
        draft = path.with_name(f".{path.name}.tmp")
        figure.savefig(draft, format="png", metadata={"Software": None})
        draft.replace(path)


def _translated(value: object, stand_ins: Mapping[str, str]) -> object:
    return stand_ins.get(value, value) if isinstance(value, str) else value


def _anytime(evaluations: pd.DataFrame, methods: Sequence[str], axis: str) -> Drawing:
    bands = anytime(evaluations, axis)
    ends = ", ".join(f"{name} ends at {bands[name].mean[-1]:.4f}" for name in bands)
    seeds = max(one.num_seeds for one in bands.values())
    spread = "; the band is one standard error" if seeds > 1 else ""

    def plot(axes: Axes, colours: Colours) -> None:
        for place, method in enumerate(methods):
            if method not in bands:
                continue
            one, colour = bands[method], colours[role(methods, method)]
            line = {"linestyle": DASHES[place % len(DASHES)], "label": clipped(method)}
            # a little beyond the end, where the last step would else be a mere upright
            x = np.append(one.x, one.x[-1] + 0.03 * (one.x[-1] - one.x[0] or 1.0))
            mean, error = np.append(one.mean, one.mean[-1]), np.append(one.error, one.error[-1])
            axes.step(x, mean, where="post", color=colour, **line)
            area = {"step": "post", "color": colour, "alpha": 0.18, "linewidth": 0}
            axes.fill_between(x, mean - error, mean + error, **area)
        axes.set_ylim(*_limits([one.mean for one in bands.values()]))
        axes.set_xlabel(AXES[axis])
        axes.set_ylabel("best value so far")
        if axis == "evaluation":
            whole_axis(axes)
        axes.legend(loc="best")  # a short search leaves a low line

    return Drawing(
        f"anytime-{axis.replace('_', '-')}",
        plot,
        f"Best value so far by {AXES[axis]}: {ends}.",
        f"The best value so far by {AXES[axis]}, the mean over seeds{spread}. A search that has ended keeps its best.",
    )


def _scatter(evaluations: pd.DataFrame, methods: Sequence[str]) -> Drawing:
    full = _full(evaluations)

    def plot(axes: Axes, colours: Colours) -> None:
        for place, method in enumerate(methods):
            rows = only(full, "method", method)
            x, y = numbers(rows, "evaluation"), numbers(rows, "value")
            some = thinned(np.arange(len(x)))[:MAX_MARKS]
            # beside each other, not upon each other
            shift = 0.5 * ((place + 0.5) / len(methods) - 0.5)
            axes.scatter(
                x[some] + shift,
                y[some],
                s=11,
                marker=MARKS[place % len(MARKS)],
                color=colours[role(methods, method)],
                alpha=0.6,
                linewidths=0,
                label=clipped(method),
            )
        axes.set_xlabel("evaluation")
        axes.set_ylabel("value")
        whole_axis(axes)
        axes.legend(loc="lower right")

    return Drawing(
        "scatter",
        plot,
        f"Value by evaluation of {len(full)} students.",
        "The value of each student by the number of its evaluation, all seeds; those stopped early or failed are left out.",
    )


def _histogram(evaluations: pd.DataFrame, methods: Sequence[str]) -> Drawing:
    full = _full(evaluations)
    edges = np.histogram_bin_edges(numbers(full, "value"), bins=BINS)

    def plot(axes: Axes, colours: Colours) -> None:
        for place, method in enumerate(methods):
            values = numbers(only(full, "method", method), "value")
            if not len(values):
                continue
            heights = np.histogram(values, edges)[0] / len(values)
            colour = colours[role(methods, method)]
            line = DASHES[place % len(DASHES)]
            axes.stairs(heights, edges, color=colour, linestyle=line, label=clipped(method))
        axes.set_xlabel("value")
        axes.set_ylabel("share of the method's students")
        percent_axis(axes)
        axes.legend(loc="upper left")

    return Drawing(
        "histogram",
        plot,
        "Histogram of values by method.",
        "How often each value came, as shares of each method's students.",
    )


def _finals(cells: pd.DataFrame, methods: Sequence[str], metric: str) -> Drawing:
    about = METRICS[metric]
    found = {method: numbers(only(cells, "method", method), metric) for method in methods}
    scores = {method: values for method, values in found.items() if len(values)}
    means = ", ".join(f"{name} {values.mean():.4f}" for name, values in scores.items())

    def plot(axes: Axes, colours: Colours) -> None:
        for place, (method, values) in enumerate(scores.items()):
            colour = colours[role(methods, method)]
            spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
            mark = {"s": 20, "marker": MARKS[place % len(MARKS)], "linewidths": 0, "alpha": 0.7}
            axes.scatter(place + spread, values, color=colour, **mark)
            mean = values.mean()
            if len(values) > 1:
                error = values.std(ddof=1) / np.sqrt(len(values))
                bar = [mean - error, mean + error]
                axes.plot([place + 0.28] * 2, bar, color=colours["muted"], linewidth=1)
            axes.plot(place + 0.28, mean, "_", color=colour, markersize=12)
        axes.set_xticks(range(len(scores)), [clipped(method) for method in scores])
        axes.set_xlim(-0.6, len(scores) - 0.4)
        axes.set_ylabel(about.label)
        if about.share:
            percent_axis(axes)
        if len(scores) > 4:
            axes.tick_params(axis="x", labelrotation=20)

    return Drawing(
        "finals",
        plot,
        f"{about.label} of the final students, means: {means}.",
        f"The {about.label} of each seed, and beside it the mean with its standard error.",
    )


def _full(evaluations: pd.DataFrame) -> pd.DataFrame:
    return only(evaluations, "status", "full")


def _limits(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Vertical limits that show where curves differ: the steep beginning may leave the axes."""
    finite = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = float(np.quantile(finite, 0.03)), float(finite.max())
    margin = max(0.15 * (high - low), 0.002)
    return low - margin, high + margin
