"""How a run came about, as sections of the report: effort, data, versions, configuration, commands."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from raysearch.formatting import count, duration, percent
from raysearch.report.markup import Html, bar_cell, element, join, table
from raysearch.report.run_folder import RunFolder

INDICES = ("notes", "validation", "test", "rows_of")  # shown elsewhere, or rows of the source
LONG_TEXT = 300  # characters of one fact; more is cut
LONG_LIST = 12  # members of one fact; more are counted


def effort(run: RunFolder) -> Html | None:
    """Where the time went, and how the trials ended."""
    seconds = {name: value for name, value in run.seconds.items() if name != "total"}
    trials = run.trials or Counter(row.ending for row in run.evaluations)
    parts = [
        _bars("Where the time went", "phase", seconds, duration),
        _bars("Trials by status", "status", trials, lambda value: count(round(value))),
    ]
    shown = [part for part in parts if part is not None]
    if not shown:
        return None
    training = (run.summary or {}).get("training_s")
    sentence = (
        training_sentence(training, run.seconds.get("total", 0.0))
        if isinstance(training, int | float)
        else ""
    )
    return join(
        element("h2", "Effort"),
        element("p", f"{sentence}.") if sentence else None,
        element("div", shown, class_="two"),
    )


def training_sentence(training_s: float, total_s: float) -> str:
    """What share of a run was training, without a full stop; empty where that is not known.

    Args:
        training_s: the teacher's training, and the trials' steps divided by the trials at once.
        total_s: the wall time.
    """
    if not 0 < training_s <= total_s < math.inf:
        return ""
    share = percent(training_s / total_s, 0)
    rest = duration(total_s - training_s)
    return f"{share} of {duration(total_s)} was training; starting, testing, reporting and waiting took {rest}"


def provenance(run: RunFolder) -> Html:
    """Data, notes, versions, configuration, and how to make the run again."""
    notes = _texts((run.summary or {}).get("notes")) + _texts(run.data.get("notes"))
    notes = list(dict.fromkeys([*notes, *run.problems]))
    return join(
        element("h2", "Where it comes from"),
        element(
            "div",
            element("section", element("h3", "Data"), _facts(run.data, skip=INDICES)),
            element("section", element("h3", "Versions"), _facts(run.summary_part("versions"))),
            class_="two",
        ),
        [element("h3", "Notes"), element("ul", [element("li", note) for note in notes])]
        if notes
        else None,
        element("h3", "Make it again"),
        _command(run),
        element(
            "details",
            element("summary", "The resolved configuration"),
            element("pre", element("code", run.config_text)),
        ),
    )


def _bars(
    title: str, kind: str, values: Mapping[str, float], show: Callable[[float], str]
) -> Html | None:
    """A table of amounts with bars."""
    if not values:
        return None
    top = max(max(values.values()), 1e-9)
    rows = [
        element(
            "tr",
            element("th", name.replace("_", " "), scope="row"),
            element("td", show(value), class_="num"),
            bar_cell(value / top),
        )
        for name, value in values.items()
    ]
    grid = table((kind, "", ""), rows, caption=title, numeric=(1,))
    return element("section", element("h3", title), grid)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _facts(values: Mapping[str, Any], skip: tuple[str, ...] = ()) -> Html:
    shown = [
        (key, value)
        for key, value in values.items()
        if key not in skip and value not in (None, "", [], {})
    ]
    if not shown:
        return element("p", "Not recorded.", class_="note")
    return element(
        "dl",
        [
            [element("dt", str(key).replace("_", " ")), element("dd", _fact(value))]
            for key, value in shown
        ],
        class_="facts",
    )


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_fact(part)}" for key, part in value.items())
    if isinstance(value, list):
        return (
            ", ".join(map(_fact, value)) if len(value) <= LONG_LIST else f"{len(value):,} entries"
        )
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONG_TEXT else text[:LONG_TEXT] + " …"


def _command(run: RunFolder) -> Html:
    """The command that made the run, and one that makes it again from this folder alone."""
    made = (run.summary or {}).get("command")
    again = f"python -m raysearch run {shlex.quote(str(run.path / 'config.yaml'))} run.name={shlex.quote(run.name + '-again')}"
    return join(
        element("pre", element("code", made))
        if isinstance(made, str) and made not in ("", again)
        else None,
        element("p", "From this folder's configuration, under a new name:", class_="note"),
        element("pre", element("code", again)),
    )
