"""What the search's model knew, as a section of the report; none where the method has no model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from raysearch.formatting import count, decimal, percent
from raysearch.report.forecasts import (
    MIN_FORECASTS,
    Forecasts,
    forecast_figure,
    map_figure,
    rank_figure,
)
from raysearch.report.markup import Html, element, join, table
from raysearch.report.records import number
from raysearch.report.run_folder import RunFolder
from searchers.insight import MIN_PAIRS, WINDOW, Calibration, calibrate

MIN_JUDGED = 5
"""Leave-one-out predictions below which their calibration is not judged."""

CLEAR_GAIN = 0.05  # nats a student; less is no difference


def insight(run: RunFolder) -> Html | None:
    """Predictions against measurements, calibration, map."""
    found = Forecasts.of(run)
    if not len(found) and run.knowledge is None:
        return None
    return join(
        element("h2", "What the search's model knew"),
        _few(found),
        element("div", _figures(run, found), _calibration(run), class_="figures"),
        _notes(run),
    )


def calibration_sentences(found: Calibration) -> str:
    """Whether the model was too sure of itself, and whether it knew anything, in plain words."""
    ratio = math.sqrt(found.mean_squared_z)
    noise = 2 * math.sqrt(2 / found.count)
    usual = 0.8 - math.sqrt(0.8 * 0.2 / found.count)  # nominal content less its standard error
    if found.mean_squared_z > 1 + noise and found.coverage[0.8] >= usual:
        trust = (
            "Most of its predictions are as good as it says, but a few students missed by far more than it expected: "
            f"it is overconfident about the odd ones (errors {ratio:.1f} times its stated spread on the whole)."
        )
    elif found.mean_squared_z > 1 + noise:
        trust = f"The model is overconfident: its errors are {ratio:.1f} times as large as it says."
    elif found.mean_squared_z < 1 - noise:
        trust = f"The model is underconfident: its errors are only {percent(ratio, 0)} as large as it says."
    else:
        trust = f"The model is neither over- nor underconfident, as far as {found.count} students can tell."
    if not math.isfinite(found.gain):
        return trust
    if abs(found.gain) < CLEAR_GAIN:
        return f"{trust} It predicts a student left out about as well as mean and spread of the others do."
    word = "better" if found.gain > 0 else "worse"
    return (
        f"{trust} It predicts a student left out {word} than mean and spread of the others do, "
        f"by {abs(found.gain):.2f} nats."
    )


def _few(found: Forecasts) -> Html | None:
    if len(found) >= MIN_FORECASTS:
        return None
    if not len(found):
        text = "The model proposed no student that was trained in full, so no prediction can be checked."
    elif len(found) == 1:
        text = "The model proposed one student only that was trained in full: too few to judge its predictions."
    else:
        text = f"The model proposed {len(found)} students only that were trained in full: too few to judge its predictions."
    return element("p", text)


def _figures(run: RunFolder, found: Forecasts) -> list[Html]:
    error = float(np.mean(np.abs(found.predicted - found.measured))) if len(found) else math.nan
    share = number(_method_notes(run).get("map_share"))
    shown = (
        f" The two directions hold {percent(share, 0)} of what tells them apart."
        if share is not None
        else ""
    )
    captions = (
        (
            forecast_figure(run),
            f"What the model expected of the {len(found)} students that it proposed and that were trained in full, before their training, "
            f"against what came out: rank correlation {decimal(found.rank_correlation, 2)}, mean absolute error {decimal(error)}. "
            "Dots on the dashed line were predicted exactly.",
        ),
        (
            rank_figure(run),
            f"Spearman's rank correlation of prediction and measurement over the last {WINDOW} of them, over all while there are fewer "
            f"(from {MIN_PAIRS} on): 1 is a perfect order, 0 a guess.",
        ),
        (
            map_figure(run),
            "The students as the model sees them at the end: near each other is what it takes for alike. Colour is the reward, the "
            f"shape says how a student came about.{shown}",
        ),
    )
    return [
        element("figure", drawing, element("figcaption", text))
        for drawing, text in captions
        if drawing is not None
    ]


def _calibration(run: RunFolder) -> Html | None:
    if run.knowledge is None:
        return None
    known = run.knowledge.insight
    found = calibrate(known.values, known.loo_mean, known.loo_sd)
    if found is None or found.count < MIN_JUDGED:
        text = "Too few students were trained in full to judge how sure the model may be."
        return element("section", element("h3", "Can it be trusted?"), element("p", text))
    cells = [
        (f"inside the central {percent(share, 0)}", percent(share, 0), percent(inside, 0))
        for share, inside in found.coverage.items()
    ]
    cells += [
        (
            "squared error / variance",
            "1",
            decimal(found.mean_squared_z, 2),
        ),
        (
            "log density (nats)",
            decimal(found.plain_log_density, 2),
            decimal(found.log_density, 2),
        ),
    ]
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", expected, class_="num"),
            element("td", value, class_="num"),
        )
        for name, expected, value in cells
    ]
    caption = "Calibration of the leave-one-out predictions"
    return element(
        "section",
        element("h3", "Can it be trusted?"),
        element("p", calibration_sentences(found)),
        table(("students left out", "expected", "found"), rows, caption=caption),
        element(
            "p",
            f"Each of the {count(found.count)} students that were trained in full is predicted by the model from all others. The log "
            "density is the mean over them; expected is that of mean and spread of the others, without a model.",
            class_="note",
        ),
    )


def _notes(run: RunFolder) -> Html | None:
    """What the method says of its model."""
    notes = {key: value for key, value in _method_notes(run).items() if key != "map_share"}
    if not notes:
        return None
    parts = [f"{str(key).replace('_', ' ')}: {_shown(value)}" for key, value in notes.items()]
    text = "; ".join(parts)
    return element("p", f"{text[:1].upper()}{text[1:]}.", class_="note")


def _method_notes(run: RunFolder) -> Mapping[str, object]:
    return run.knowledge.insight.notes if run.knowledge is not None else {}


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
