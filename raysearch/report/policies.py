"""What the policies of a search learned (N2N), as a section of the report; none where the method has no policies.

The drawings are those of the paper (Ashok et al., ICLR 2018): figures 3 to 5, reward, accuracy and compression against the iteration, and
figure 10, the rewards of a search that began with another one's policies beside those of that search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysearch.errors import RunFolderError
from raysearch.formatting import count, decimal, percent
from raysearch.report.markup import Html, bar_cell, element, join, table
from raysearch.report.records import Evaluation, Json, integer, number, text_of
from raysearch.report.run_folder import RunFolder
from raysearch.report.svg import COLOUR, draw, thinned, whole_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = {"remove": "Layer removal", "shrink": "Layer shrinkage"}
"""The stages in their order, and what people call them."""
QUANTITIES = {
    "value": ("reward", "method0", "-"),
    "accuracy": ("accuracy", "method1", "--"),
    "compression": ("compression", "method2", "-."),
}
"""Field of an evaluation -> its label, the role of its colour, its line."""
PARTS = 5
"""The first and the last fifth of a stage's students are compared."""

Curve = Sequence[tuple[int, float]]  # iteration, mean


@dataclass(frozen=True)
class Layer:
    """What a policy does with one layer: the probability that it stays, or the expected share of `factor` that is left, in [0, 1]."""

    name: str
    type: str
    factor: str
    share: float


def policies(run: RunFolder) -> Html | None:
    """Both stages: how they went, and what their policies prefer at the end."""
    parts = [_stage(run, stage) for stage in STAGES]
    if not any(parts):
        return None
    return join(element("h2", "What the policies learned"), parts, _transfer(run))


def of_stage(run: RunFolder, stage: str) -> list[Evaluation]:
    """The fully trained students that a stage's policy proposed, in the order in which they ended."""
    return [
        row
        for row in run.evaluations
        if row.stage == "search" and row.method_stage == stage and row.status == "full"
        if row.iteration is not None and row.value is not None
    ]


def means(rows: Sequence[Evaluation], quantity: str) -> list[tuple[int, float]]:
    """The mean of a quantity over the students of each iteration."""
    found: dict[int, list[float]] = {}
    for row in rows:
        value = getattr(row, quantity)
        if row.iteration is not None and value is not None:
            found.setdefault(row.iteration, []).append(value)
    return [(iteration, float(np.mean(found[iteration]))) for iteration in sorted(found)]


def batch_rewards(run: RunFolder, stage: str) -> list[tuple[int, float]]:
    """The mean reward of every batch that a policy learned from, as the method noted it; before it did, that of the logged students.

    Rewards of the method's own count students that were known already, degenerate ones, and constraints; the log has values alone.
    """
    noted = [
        (iteration, mean)
        for row in _rows(run.policy, "history")
        if row.get("stage") == stage
        if (iteration := integer(row.get("iteration"))) is not None
        if (mean := number(row.get("mean_reward"))) is not None
    ]
    return noted or means(of_stage(run, stage), "value")


def source_of(run: RunFolder) -> RunFolder | None:
    """The run whose policies this one began with, where its folder can still be read."""
    search = run.config.get("search")
    folder = search.get("warm_start") if isinstance(search, Mapping) else None
    if not isinstance(folder, str):
        return None
    try:
        return RunFolder.read(folder)
    except RunFolderError:
        return None


def _stage(run: RunFolder, stage: str) -> Html | None:
    rows, layers = of_stage(run, stage), _layers(run, stage)
    if not rows and not layers:
        return None
    drawing = _figure(stage, rows)
    caption = (
        "Dots are students, lines the means of those that were proposed between two updates of the policy. Marked are the smallest "
        "and the largest student of the stage."
    )
    figure = element("figure", drawing, element("figcaption", caption)) if drawing else None
    return join(
        element("h3", STAGES[stage]),
        element("p", _sentence(rows)) if rows else None,
        element("div", figure, _table(stage, layers), class_="figures"),
    )


def _sentence(rows: Sequence[Evaluation]) -> str:
    """Whether the stage's rewards rose, and its extremes."""
    values = [row.value for row in rows if row.value is not None]
    part = len(values) // PARTS
    text = f"{count(len(values))} students were trained in full"
    if part:
        first, last = np.mean(values[:part]), np.mean(values[-part:])
        text += f"; the mean reward of the first fifth is {decimal(float(first))}, of the last {decimal(float(last))}"
    text += f"; the best one has {decimal(max(values))}."
    smallest, largest = _extremes(rows)
    if smallest is None or largest is None:
        return text
    return f"{text} The smallest has {_of(smallest)}, the largest {_of(largest)}."


def _of(row: Evaluation) -> str:
    return f"{count(row.num_params)} parameters and {percent(row.accuracy)} accuracy"


def _extremes(rows: Sequence[Evaluation]) -> tuple[Evaluation | None, Evaluation | None]:
    """The smallest and the largest student."""
    sized = [row for row in rows if row.num_params is not None and row.compression is not None]
    if not sized:
        return None, None
    return (
        min(sized, key=lambda row: row.num_params or 0),
        max(sized, key=lambda row: row.num_params or 0),
    )


def _figure(stage: str, rows: Sequence[Evaluation]) -> Html | None:
    """Figures 3 to 5."""
    if not rows:
        return None
    ends = ", ".join(
        f"{label} from {curve[0][1]:.3f} to {curve[-1][1]:.3f}"
        for quantity, (label, *_) in QUANTITIES.items()
        if (curve := means(rows, quantity))
    )
    alt = f"{STAGES[stage]} by iteration, means: {ends}."
    return draw(f"policy-{stage}", lambda axes: _plot(axes, rows), alt=alt)


def _plot(axes: Axes, rows: Sequence[Evaluation]) -> None:
    for quantity, (label, role, line) in QUANTITIES.items():
        points = [
            (row.iteration, value)
            for row in rows
            if row.iteration is not None and (value := getattr(row, quantity)) is not None
        ]
        if not points:
            continue
        at, values = zip(*thinned(points), strict=True)
        axes.scatter(at, values, s=8, color=COLOUR[role], alpha=0.35, linewidths=0)
        curve = np.array(means(rows, quantity))  # [iterations, 2]
        axes.plot(curve[:, 0], curve[:, 1], color=COLOUR[role], linestyle=line, label=label)
    for row, name, mark in zip(_extremes(rows), ("smallest", "largest"), ("v", "^"), strict=True):
        if row is not None and row.iteration is not None and row.compression is not None:
            axes.scatter(
                [row.iteration],
                [row.compression],
                s=42,
                marker=mark,
                facecolor="none",
                edgecolor=COLOUR["ink"],
                label=name,
                zorder=4,
            )
    axes.set_xlabel("iteration (update of the policy)")
    axes.set_ylabel("share")
    whole_axis(axes)
    axes.legend(loc="best", ncols=2)


def _transfer(run: RunFolder) -> Html | None:
    """Figure 10."""
    source = source_of(run)
    if source is None:
        return None
    drawn = []
    for stage, title in STAGES.items():
        curves = {
            "this search": batch_rewards(run, stage),
            source.name: batch_rewards(source, stage),
        }
        if all(curves.values()):
            drawing = _transfer_figure(stage, curves)
            drawn.append(element("figure", drawing, element("figcaption", f"{title}.")))
    if not drawn:
        return None
    return join(
        element("h3", "With and without transfer"),
        element(
            "p",
            f"This search began with the policies of {source.name}. Its mean reward by batch, beside that of the search that began with "
            "nothing. Teachers that differ make the levels differ too: what tells is how fast the curves rise.",
        ),
        element("div", drawn, class_="figures"),
    )


def _transfer_figure(stage: str, curves: Mapping[str, Curve]) -> Html:
    ends = ", ".join(
        f"{name} from {curve[0][1]:.3f} to {curve[-1][1]:.3f}" for name, curve in curves.items()
    )

    def plot(axes: Axes) -> None:
        for (name, curve), role, line in zip(
            curves.items(), ("best", "random"), ("-", "--"), strict=True
        ):
            points = np.array(curve)
            axes.plot(points[:, 0], points[:, 1], color=COLOUR[role], linestyle=line, label=name)
        axes.set_xlabel("iteration (update of the policy)")
        axes.set_ylabel("mean reward of the batch")
        whole_axis(axes)
        axes.legend(loc="best")

    alt = f"{STAGES[stage]}, mean reward by iteration: {ends}."
    return draw(f"transfer-{stage}", plot, alt=alt)


def _rows(policy: Json | None, key: str) -> list[Json]:
    """The records of a list in `policy.json`."""
    values = (policy or {}).get(key)
    return [row for row in values if isinstance(row, Mapping)] if isinstance(values, list) else []


def _layers(run: RunFolder, stage: str) -> list[Layer]:
    found = []
    for row in _rows(run.policy, "layers"):
        share = number(row.get("keep" if stage == "remove" else "ratio"))
        if row.get("stage") == stage and share is not None:
            name, kind, factor = (text_of(row.get(key)) for key in ("layer", "type", "factor"))
            found.append(Layer(name, kind, factor, share))
    return found


def _table(stage: str, layers: Sequence[Layer]) -> Html | None:
    if not layers:
        return None
    factors = stage == "shrink" and any(row.factor for row in layers)
    title = "stays with" if stage == "remove" else "expected ratio"
    head = ["layer", "operation", *(["of its"] if factors else []), title, ""]
    rows = [
        element(
            "tr",
            element("th", row.name, scope="row", class_="name"),
            element("td", row.type),
            element("td", row.factor) if factors else None,
            element("td", percent(row.share, 0), class_="num"),
            bar_cell(row.share),
        )
        for row in layers
    ]
    what = "Probability that a layer stays" if stage == "remove" else "Expected ratio of a layer"
    grid = table(
        head, rows, caption=f"{what}, as the policy is at the end", numeric=(len(head) - 2,)
    )
    return element("div", grid, class_="layers")
