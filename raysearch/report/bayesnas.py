"""What the runs of BayesNAS learned (`bayesnas/run-*.json`), as a section of the report; none where the method makes no runs.

A table of all runs, what is left of each over its epochs, and of one run more: the one that the best student comes from, else the one with the
highest reward. The drawings are those of Yang 2019: the prior variances over time; figure A-3, the share of weights kept in each layer;
figures 5-1 and 5-2, the derived cells (`raysearch.report.cells`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.formatting import count, decimal, percent
from raysearch.report.cells import cell_figures
from raysearch.report.markup import Html, element, join, table
from raysearch.report.records import Json, integer, number, text_of
from raysearch.report.svg import COLOUR, NUM_METHODS, clipped, draw, thinned, whole_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from raysearch.report.run_folder import RunFolder

PRUNE_BELOW = 1 / (2 * math.pi * math.e)
"""The prior variance below which a switch or group is pruned."""
LEAST = 1e-6
"""Prior variances are drawn from here on: pruned ones are zero, which a logarithm does not show."""
LINES = ("-", "--", "-.", ":")
MAX_NAMED = 24
"""Layers that a legend names."""
MAX_LAYERS = 40
"""Layers in a figure; of more the smallest are left out."""

HISTORIES = "bayesnas/run-*.json"


def read_histories(folder: Path) -> tuple[tuple[Json, ...], list[str]]:
    """The histories of a run's folder by their numbers, and the names of files that are damaged."""
    found, damaged = [], []
    for file in sorted(folder.glob(HISTORIES)):
        try:
            history = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            history = None
        if isinstance(history, Mapping):
            found.append(history)
        else:
            damaged.append(file.relative_to(folder).as_posix())
    return tuple(found), damaged


def bayesnas(run: RunFolder) -> Html | None:
    """The section; None where there are no runs."""
    if not run.histories:
        return None
    shown = chosen(run)
    kind = text_of(shown.get("kind"))
    figures = [progress_figure(run.histories)]
    figures += [gamma_figure(shown), kept_figure(shown)] if kind == "compression" else []
    figures += [] if kind == "compression" else [switch_figure(shown), *cell_figures(shown)]
    caption = (
        f"The figures below the first are of run {integer(shown.get('run'))}, λ = {_lambda(shown)}."
    )
    return join(
        element("h2", "What the runs found"),
        element("p", _sentence(run), " ", caption if len(run.histories) > 1 else None),
        _table(run),
        element("div", [figure for figure in figures if figure], class_="figures"),
    )


def chosen(run: RunFolder) -> Json:
    """The history of the run that the best student comes from, else of the one with the highest reward."""
    best = None if run.best is None else run.best.architecture_id
    if best:
        for history in run.histories:
            if best in [one.get("architecture_id") for one in _records(history, "students")]:
                return history
    rewards = {integer(record.get("run")): number(record.get("value")) for record in run.runs}

    def reward(history: Json) -> float:
        value = rewards.get(integer(history.get("run")))
        return -math.inf if value is None else value

    return max(run.histories, key=reward)


def _records(data: Json, key: str) -> list[Json]:
    values = data.get(key)
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []


def _lambda(data: Json) -> str:
    value = number(data.get("lam"))
    return "–" if value is None else f"{value:.3g}"


def _sentence(run: RunFolder) -> str:
    total = sum(len(_records(history, "students")) for history in run.histories)
    kinds = {
        "compression": "compressed the teacher",
        "cells": "trained a super-network of cells",
        "proxyless": "trained a super-network of trees",
    }
    did = kinds.get(text_of(run.histories[0].get("kind")), "trained")
    runs = len(run.histories)
    return (
        f"{count(runs)} {'run' if runs == 1 else 'runs'} {did}, each with its own λ, and found {count(total)} "
        f"{'student' if total == 1 else 'students'}; those that the search evaluated are below."
    )


def _table(run: RunFolder) -> Html:
    """All runs: lambda, how they ended, what was left of them."""
    known = {integer(record.get("run")): record for record in run.runs}
    evaluated = {row.architecture_id for row in run.evaluations if row.stage == "search"}
    rows = []
    for history in run.histories:
        place = integer(history.get("run"))
        record = known.get(place, {})
        last = (_records(history, "epochs") or [{}])[-1]
        found = _records(history, "students")
        tried = sum(one.get("architecture_id") in evaluated for one in found)
        rows.append(
            element(
                "tr",
                element("th", count(place), scope="row"),
                element("td", _lambda(history), class_="num"),
                element("td", text_of(record.get("status"), "going on")),
                element("td", count(integer(last.get("epoch"))), class_="num"),
                element("td", percent(number(last.get("accuracy"))), class_="num"),
                element("td", count(integer(last.get("num_params"))), class_="num"),
                element("td", count(_active(last)), class_="num"),
                element("td", decimal(number(last.get("entropy")), 2), class_="num"),
                element("td", f"{len(found)} ({tried})", class_="num"),
            )
        )
    head = ["run", "λ", "ended", "epochs", "accuracy", "parameters"]
    head += [_active_title(run.histories[0]), "entropy in nats", "students (evaluated)"]
    caption = "The runs, as they stood at their last epoch; accuracy is that of the validation part"
    return table(head, rows, caption=caption, numeric=(1, *range(3, len(head))))


def _active(epoch: Json) -> int | None:
    groups = integer(epoch.get("active_groups"))
    return integer(epoch.get("active_switches")) if groups is None else groups


def _active_title(history: Json) -> str:
    return "active groups" if history.get("kind") == "compression" else "active switches"


def progress_figure(histories: Sequence[Json]) -> Html | None:
    """What is active of each run over its epochs, as a share of its beginning."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for history in histories:
        points = [
            (epoch, active)
            for one in _records(history, "epochs")
            if (epoch := integer(one.get("epoch"))) is not None
            if (active := _active(one)) is not None
        ]
        if points:
            first = max(1, points[0][1])
            curves[f"λ = {_lambda(history)}"] = [(at, active / first) for at, active in points]
    if not curves:
        return None
    what = _active_title(histories[0])
    ends = ", ".join(f"{name}: {percent(curve[-1][1])}" for name, curve in curves.items())

    def plot(axes: Axes) -> None:
        for place, (name, curve) in enumerate(curves.items()):
            at, shares = zip(*thinned(curve), strict=True)
            axes.plot(at, shares, **_line(place), label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{what}, share of the first epoch's")
        whole_axis(axes)
        axes.legend(loc="best", ncols=2)

    drawing = draw("bayesnas-active", plot, alt=f"{what} at the end: {ends}.")
    return _with_caption(drawing, f"How many {what} each run has, epoch by epoch.")


def gamma_figure(history: Json) -> Html | None:
    """The prior variances of a compression's groups over its updates: the median of each layer, half of its groups around it."""
    layers = _by_layer(history)
    curves = {
        layer: curve
        for layer, rows in layers.items()
        if (curve := [(at, q) for at, one in rows if (q := _quantiles(one)) is not None])
    }
    if not curves:
        return None

    def plot(axes: Axes) -> None:
        for place, (layer, curve) in enumerate(curves.items()):
            at = [epoch for epoch, _ in curve]
            values = np.maximum(np.array([q for _, q in curve]), LEAST)  # [updates, 5]
            style = _line(place)
            axes.plot(at, values[:, 2], **style, label=clipped(layer))
            axes.fill_between(
                at, values[:, 1], values[:, 3], color=style["color"], alpha=0.12, linewidth=0
            )
        _threshold(axes)
        if len(curves) <= MAX_NAMED:
            axes.legend(loc="lower left", ncols=3, fontsize=6.5, handlelength=1.8)

    ends = ", ".join(f"{layer} {curve[-1][1][2]:.2g}" for layer, curve in curves.items())
    drawing = draw("bayesnas-gamma", plot, alt=f"Median prior variance at the last update: {ends}.")
    text = "Prior variances γ of each layer's groups: the median, and the middle half. Groups below the dotted line are pruned."
    return _with_caption(drawing, text)


def kept_figure(history: Json) -> Html | None:
    """Figure A-3: the share of weights that is kept in each layer."""
    updates = _records(history, "updates")
    layers = updates[-1].get("layers") if updates else None
    shares = {
        text_of(name): kept / weights
        for name, one in (layers.items() if isinstance(layers, Mapping) else ())
        if isinstance(one, Mapping)
        if (kept := number(one.get("kept"))) is not None
        if (weights := number(one.get("weights")))
    }
    if not shares:
        return None

    def plot(axes: Axes) -> None:
        places = range(len(shares))
        axes.bar(places, [100 * share for share in shares.values()], color=COLOUR["search"])
        axes.set_xticks(list(places), [clipped(name) for name in shares], rotation=60, ha="right")
        axes.set_ylabel("weights kept in %")

    listed = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    drawing = draw("bayesnas-kept", plot, alt=f"Weights kept: {listed}.")
    text = "The share of each layer's weights that the masks keep; the built student's count is another, because shapes must fit."
    return _with_caption(drawing, text)


def switch_figure(history: Json) -> Html | None:
    """The prior variances of a super-network's switches over the updates."""
    switches = history.get("switches")
    curves: dict[str, list[float]] = {}
    for name, values in switches.items() if isinstance(switches, Mapping) else ():
        if isinstance(values, list) and values:
            numbers = [0.0 if (value := number(one)) is None else value for one in values]
            curves[text_of(name)] = numbers
    if not curves:
        return None
    left = sum(curve[-1] > PRUNE_BELOW for curve in curves.values())

    def plot(axes: Axes) -> None:
        for curve in thinned(list(curves.values())):
            kept = curve[-1] > PRUNE_BELOW
            axes.plot(
                range(1, len(curve) + 1),
                np.maximum(curve, LEAST),
                color=COLOUR["best" if kept else "muted"],
                linestyle="-" if kept else "--",
                linewidth=0.8,
                alpha=0.6,
                marker="." if len(curve) == 1 else None,
            )
        _threshold(axes, "update")
        whole_axis(axes)

    alt = f"Prior variances of {len(curves)} switches; {left} are above the threshold at the end."
    drawing = draw("bayesnas-switches", plot, alt=alt)
    text = f"Prior variances γ of the {count(len(curves))} switches; the {count(len(curves) - left)} dashed ones are pruned."
    return _with_caption(drawing, text)


def _by_layer(history: Json) -> dict[str, list[tuple[int, Json]]]:
    """Layer -> (epoch of the update, its entry); the largest layers where there are many."""
    found: dict[str, list[tuple[int, Json]]] = {}
    for update in _records(history, "updates"):
        epoch, layers = integer(update.get("epoch")), update.get("layers")
        if epoch is None or not isinstance(layers, Mapping):
            continue
        for name, one in layers.items():
            if isinstance(one, Mapping):
                found.setdefault(text_of(name), []).append((epoch, one))

    def size(name: str) -> float:
        return number(found[name][0][1].get("weights")) or 0.0

    large = set(sorted(found, key=size, reverse=True)[:MAX_LAYERS])
    return {name: rows for name, rows in found.items() if name in large}


def _quantiles(entry: Json) -> list[float] | None:
    """[5]: minimum, quartiles and maximum of a layer's gammas."""
    values = entry.get("gamma")
    numbers = [number(one) for one in values] if isinstance(values, list) else []
    return (
        [one for one in numbers if one is not None]
        if len(numbers) == 5 and None not in numbers
        else None
    )


def _threshold(axes: Axes, label: str = "epoch") -> None:
    axes.axhline(PRUNE_BELOW, color=COLOUR["budget"], linestyle=":", linewidth=1.2)
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("prior variance γ")


def _line(place: int) -> dict[str, Any]:
    """A curve's colour, and beyond the colours its dashes."""
    colour, dashes = place % NUM_METHODS, place // NUM_METHODS
    return {"color": COLOUR[f"method{colour}"], "linestyle": LINES[dashes % len(LINES)]}


def _with_caption(drawing: Html, text: str) -> Html:
    return element("figure", drawing, element("figcaption", text))
