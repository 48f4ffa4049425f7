"""How the networks of Architecture Compression learned, refit by refit (`embedding/embedding.json`), as a section of the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.formatting import count, decimal
from raysearch.report.markup import Html, element, join
from raysearch.report.records import number
from raysearch.report.svg import COLOUR, NUM_VALUES, draw, thinned, whole_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from raysearch.report.run_folder import RunFolder

EMBEDDING_FOLDER = "embedding"
LOSSES_FILE = f"{EMBEDDING_FOLDER}/embedding.json"
WEIGHTS_FILE = f"{EMBEDDING_FOLDER}/embedding.safetensors"

LOSSES = {
    "L": "all of it, L = L_d + λ1 L_a + λ2 L_p",
    "L_d": "the decoder's sequence against the real one",
    "L_a": "predicted against measured value",
    "L_p": "predicted against real size",
}
"""Name of a loss -> what it is (equations 12 to 15 of the paper)."""

MAX_REFITS = 20
"""Curves in a figure; of more refits some are left out, never the last."""


@dataclass(frozen=True)
class Refit:
    """One training of the networks.

    Attributes:
        num_observations: students that it learned from.
        steps: where the losses were noted.
        losses: name (of `LOSSES`) -> values at these steps; NaN where there is none.
    """

    num_observations: int
    steps: tuple[float, ...]
    losses: Mapping[str, tuple[float, ...]]

    @classmethod
    def from_json(cls, data: Any) -> Refit:
        """Reads an entry of `refits`.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(data, Mapping):
            raise ValueError("a refit is no object")
        steps = _numbers(data.get("steps"))
        losses = {name: _numbers(data[name]) for name in LOSSES if name in data}
        learned = number(data.get("num_observations"))
        if learned is None or any(len(values) != len(steps) for values in losses.values()):
            raise ValueError("a refit has not as many losses as steps")
        return cls(int(learned), steps, losses)


def read_refits(folder: Path) -> tuple[Refit, ...]:
    """The refits of a run's search, in their order; empty where the method has none.

    Args:
        folder: the run's.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / LOSSES_FILE
    if not file.is_file():
        return ()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["refits"]
        return tuple(Refit.from_json(one) for one in found)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{LOSSES_FILE} cannot be read: {error}") from error


def embedding(run: RunFolder) -> Html | None:
    """The losses of every refit; None where the method has no embedding."""
    drawn = [(name, figure) for name in LOSSES if (figure := loss_figure(run.refits, name))]
    if not drawn:
        return None
    few = shown_refits(run.refits)
    left_out = "" if len(few) == len(run.refits) else f" {len(few)} of {len(run.refits)} are drawn."
    last = run.refits[-1]
    return join(
        element("h2", "How the embedding was learned"),
        element(
            "p",
            f"Encoder, decoder and regressors were trained {count(len(run.refits))} times, the last time on "
            f"{count(last.num_observations)} evaluated students. Light lines are the first trainings, dark ones the last.{left_out}",
        ),
        element(
            "div",
            [
                element("figure", figure, element("figcaption", f"{name}: {LOSSES[name]}."))
                for name, figure in drawn
            ],
            class_="figures",
        ),
    )


def loss_figure(refits: Sequence[Refit], name: str) -> Html | None:
    """One loss over the steps of every refit; None where there is none."""
    shown = shown_refits(with_curve(refits, name))
    if not shown:
        return None
    last = _points(shown[-1], name)
    alt = (
        f"{name} over the steps of {len(shown)} trainings of the embedding; the last one goes from "
        f"{decimal(last[0][1])} to {decimal(last[-1][1])}."
    )
    return draw(f"embedding-{name}", lambda axes: plot_losses(axes, shown, name, COLOUR), alt=alt)


def plot_losses(axes: Axes, refits: Sequence[Refit], name: str, colours: Mapping[str, str]) -> None:
    """Draws one loss of every refit, on a logarithmic scale where all values are positive.

    Args:
        refits: those of `with_curve`; the later ones are darker.
        name: of `LOSSES`.
        colours: of the roles `value0` to `value4`, `ink`.
    """
    lowest = float("inf")
    for place, refit in enumerate(refits):
        points = thinned(_points(refit, name))
        lowest = min(lowest, min(value for _, value in points))
        is_last = place == len(refits) - 1
        step = place * (NUM_VALUES - 1) // max(1, len(refits) - 1)
        axes.plot(
            *zip(*points, strict=True),
            color=colours[f"value{step}"],
            linewidth=2.0 if is_last else 1.1,
            zorder=3 if is_last else 2,
            label=f"{refit.num_observations} students" if place in (0, len(refits) - 1) else None,
        )
    if 0 < lowest < float("inf"):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    whole_axis(axes)
    axes.legend(loc="upper right")


def with_curve(refits: Sequence[Refit], name: str) -> list[Refit]:
    """Those of which a loss can be drawn."""
    return [refit for refit in refits if len(_points(refit, name)) > 1]


def shown_refits(refits: Sequence[Refit]) -> list[Refit]:
    """At most `MAX_REFITS` of them, evenly chosen, the first and the last among them."""
    if len(refits) <= MAX_REFITS:
        return list(refits)
    last = len(refits) - 1
    places = {round(place * last / (MAX_REFITS - 1)) for place in range(MAX_REFITS)}
    return [refits[place] for place in sorted(places)]


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise ValueError("a refit lacks a list of numbers")
    found = map(number, values)
    return tuple(math.nan if value is None else value for value in found)


def _points(refit: Refit, name: str) -> list[tuple[float, float]]:
    values = refit.losses.get(name, ())
    pairs = zip(refit.steps, values, strict=False)
    return [pair for pair in pairs if all(map(math.isfinite, pair))]
