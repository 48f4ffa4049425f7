"""`compare.html`: one static page about a comparison, in the style of a run's report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from raysearch.comparing.analysis import Analysis, Pair
from raysearch.comparing.curves import Floats
from raysearch.comparing.figures import Drawing, role
from raysearch.comparing.records import METRICS, numbers, only, rows_of
from raysearch.formatting import MISSING, count, decimal, duration, percent
from raysearch.report.html import page
from raysearch.report.markup import Html, element, join, table

if TYPE_CHECKING:
    import pandas as pd

EQUAL = {
    "trials": "the same number of trials for each search",
    "epochs": "the same number of epochs for each search, those really trained",
    "seconds": "the same seconds for each search, of training and of proposing",
}


@dataclass(frozen=True, eq=False)
class Contents:
    """What the page shows.

    Attributes:
        name: the comparison's.
        cells, evaluations: see `raysearch.comparing.records`.
        methods: in the order of their colours.
        analyses: by metric; the first one is what the verdict is about.
        drawings: the figures.
        equal: what is equal for all: a key of `EQUAL`.
        budget: that in words, such as "8 trials".
        replay: what is known of the table whose values were replayed; None: students were really trained.
        notes: sentences that the reader should know.
        facts: title -> text, such as the teacher and the versions.
        command: what makes the comparison again.
        config: its configuration as YAML.
    """

    name: str
    cells: pd.DataFrame
    evaluations: pd.DataFrame
    methods: Sequence[str]
    analyses: Mapping[str, Analysis]
    drawings: Sequence[Drawing]
    equal: str
    budget: str
    replay: Mapping[str, Any] | None
    notes: Sequence[str]
    facts: Mapping[str, str]
    command: str
    config: str

    @property
    def main(self) -> Analysis:
        """The analysis that the verdict is about."""
        return next(iter(self.analyses.values()))


def render(contents: Contents) -> str:
    """The page as text; the same contents give the same text."""
    style = files("raysearch.comparing").joinpath("style.css").read_text(encoding="utf-8")
    parts = (_headline, _results, _figures, _tests, _costs, _cells, _how, _provenance)
    title = f"{contents.name} · comparison"
    return page(title, [part(contents) for part in parts], style=style)


def score(metric: str, value: float | None, digits: int = 2) -> str:
    """A score of a metric for people."""
    if value is None or not math.isfinite(value):
        return MISSING
    return percent(value, digits) if METRICS[metric].share else decimal(value, digits + 2)


def p_text(p: float) -> str:
    """0.0312 -> "0.031"; a p that rounds to nothing says so."""
    if not math.isfinite(p):
        return MISSING
    return "< 0.001" if p < 0.001 else decimal(p)


def _headline(contents: Contents) -> Html:
    done = only(contents.cells, "status", "done")
    replayed = None
    if contents.replay is not None:
        replayed = element(
            "p",
            element("strong", "Replayed, not trained. "),
            _replay_text(contents.replay, contents.evaluations),
            class_="partial",
        )
    cards = (
        ("methods", count(len(contents.methods)), ""),
        ("seeds that all methods have", count(contents.main.num_seeds), ""),
        ("equal for all", contents.budget, ""),
        ("students evaluated", count(len(contents.evaluations)), f"in {len(done)} searches"),
    )
    items = [
        element(
            "div",
            element("dt", title),
            element("dd", value, element("small", note) if note else None),
        )
        for title, value, note in cards
    ]
    return element(
        "header",
        element("h1", f"raysearch · {contents.name} · comparison of methods"),
        replayed,
        element("p", contents.main.verdict, class_="verdict"),
        element("dl", items, class_="cards"),
    )


def _replay_text(replay: Mapping[str, Any], evaluations: pd.DataFrame) -> str:
    exact = float(numbers(evaluations, "exact").mean()) if len(evaluations) else 0.0
    return (
        f"Every value comes from a table of {count(replay['trainings'])} trainings of {count(replay['students'])} students "
        f"({replay['problem']}): {percent(exact)} of the evaluations are trainings of the table, the others predictions of its "
        f"surrogate with noise of the size of its error. {replay['error_text']}"
    )


def _results(contents: Contents) -> Html:
    metrics = [name for name in contents.analyses if len(numbers(contents.cells, name))]
    head = ["method", "mean rank"]
    head += [METRICS[name].label for name in metrics]
    head += ["parameters", "seeds"]
    rows = [_result_row(contents, method, metrics) for method in contents.main.methods]
    about = contents.main.about.label
    return join(
        element("h2", "Results"),
        table(head, rows, caption="Methods by their mean rank"),
        element(
            "p",
            f"Ranks are by {about}, over the seeds that all methods have; ties share their places. Scores are the mean over seeds ± the "
            "standard deviation. The best value is of the search's short trainings; everything else is of each search's final student, "
            "chosen by its validation result after the full training. Nothing was chosen by the test part.",
            class_="note",
        ),
    )


def _result_row(contents: Contents, method: str, metrics: Sequence[str]) -> Html:
    rows = only(contents.cells, "method", method)
    rank = contents.main.ranks.get(method)
    cells = [decimal(rank, 2)]
    for name in metrics:
        analysis = contents.analyses[name]
        mean, deviation = analysis.means[method], analysis.deviations[method]
        spread = f" ± {_spread(name, deviation)}" if math.isfinite(deviation) else ""
        cells.append(score(name, mean) + spread)
    sizes = numbers(rows, "num_params")
    cells.append(count(round(float(sizes.mean()))) if len(sizes) else MISSING)
    cells.append(count(len(only(rows, "status", "done"))))
    best = rank is not None and rank == min(contents.main.ranks.values())
    return element(
        "tr",
        element("th", _swatch(contents, method), method, scope="row"),
        [element("td", cell, class_="num") for cell in cells],
        class_="best" if best else None,
    )


def _spread(metric: str, deviation: float) -> str:
    return f"{100 * deviation:.2f}" if METRICS[metric].share else decimal(deviation, 4)


def _swatch(contents: Contents, method: str) -> Html:
    return element(
        "span", class_="swatch", style=f"background:var(--{role(contents.methods, method)})"
    )


def _figures(contents: Contents) -> Html | None:
    drawn = [
        element("figure", one.svg(), element("figcaption", one.caption))
        for one in contents.drawings
    ]
    if not drawn:
        return None
    return join(element("h2", "The searches"), element("div", drawn, class_="figures"))


def _tests(contents: Contents) -> Html | None:
    """All pairs by the main metric; the other metrics in a folded table."""
    main = contents.main
    if not main.pairs:
        return None
    others = [one for one in contents.analyses.values() if one is not main]
    head = ("pair", "ahead by", "95 % interval", "d", "seeds won / tied / lost", "p", "p (Holm)")
    return join(
        element("h2", f"Can they be told apart? By {main.about.label}"),
        table(
            head,
            [_pair_row(main, pair) for pair in main.pairs],
            caption="Paired tests of all pairs",
        ),
        element("p", _friedman_text(main), class_="note"),
        element(
            "p",
            "Each pair of methods is compared seed by seed: same teacher, same data, same seed of training. p is that of the exact "
            "two-sided sign-flip permutation test of the mean difference, then corrected for all pairs by Holm's method. The interval is "
            "Student's, d the mean difference over the standard deviation of the differences. Pairs in bold are clear at 5 %.",
            class_="note",
        ),
        element(
            "details",
            element("summary", "The same by other measures"),
            [
                join(
                    element("h3", one.about.label),
                    table(
                        head,
                        [_pair_row(one, pair) for pair in one.pairs],
                        caption=f"Paired tests by {one.about.label}",
                    ),
                )
                for one in others
            ],
        )
        if others
        else None,
    )


def _pair_row(analysis: Analysis, pair: Pair) -> Html:
    one, share = pair.difference, analysis.about.share
    scale, digits = (100, 2) if share else (1, 4)
    unit = " points" if share else ""
    low, high = (decimal(scale * x, digits) for x in (one.low, one.high))
    cells = (
        f"{decimal(scale * one.mean, digits)}{unit}",
        f"{low} to {high}",
        decimal(one.standardised, 2),
        f"{one.wins} / {one.ties} / {one.losses}",
        p_text(one.p),
        p_text(pair.p_holm),
    )
    return element(
        "tr",
        element("th", f"{pair.first} – {pair.second}", scope="row"),
        [element("td", cell, class_="num") for cell in cells],
        class_="clear" if pair.clear else None,
    )


def _friedman_text(analysis: Analysis) -> str | None:
    test = analysis.friedman
    if test is None:
        return None
    rough = ", a rough approximation for so few seeds" if test.num_blocks < 10 else ""
    return (
        f"Friedman's test over all methods: p = {p_text(test.p)} ({test.num_blocks} seeds, chi squared {test.statistic:.2f}{rough}); "
        f"Kendall's W = {test.agreement:.2f}."
    )


def _costs(contents: Contents) -> Html:
    done = only(contents.cells, "status", "done")
    head = (
        "method",
        "trials",
        "stopped",
        "failed",
        "epochs",
        "seconds of training",
        "CPU seconds",
        "seconds of proposing",
        "full training, CPU seconds",
    )
    rows = []
    for method in contents.methods:
        cells = only(done, "method", method)
        counts = ("trials", "stopped", "failed", "epochs", "seconds")
        amounts = [_mean(numbers(cells, key)) for key in counts]
        seconds = ("cpu_seconds", "propose_s", "finish_cpu_seconds")
        amounts += [_mean(numbers(cells, key), 2) for key in seconds]
        rows.append(
            element(
                "tr",
                element("th", _swatch(contents, method), method, scope="row"),
                [element("td", cell, class_="num") for cell in amounts],
            )
        )
    return join(
        element("h2", "What a search cost"),
        table(head, rows, caption="Mean cost of a search by method"),
        element(
            "p",
            f"Means over seeds. Equal for all: {EQUAL[contents.equal]} ({contents.budget}). Seconds are summed over the trials, "
            "each by its own clock; on a busy machine CPU seconds are the fairer ones, and the figure takes them where students were "
            "trained on the CPU.",
            class_="note",
        ),
    )


def _mean(values: Floats, digits: int = 1) -> str:
    return f"{values.mean():,.{digits}f}".removesuffix(".0") if len(values) else MISSING


def _cells(contents: Contents) -> Html:
    metrics = [name for name in contents.analyses if len(numbers(contents.cells, name))]
    head = ("method", "seed", *(METRICS[name].label for name in metrics), "parameters", "trials")
    rows = [
        element(
            "tr",
            element("th", _cell_name(row), scope="row"),
            element("td", str(row["seed"]), class_="num"),
            [element("td", score(name, row[name]), class_="num") for name in metrics],
            element("td", _whole(row["num_params"]), class_="num"),
            element("td", _whole(row["trials"]), class_="num"),
        )
        for row in rows_of(contents.cells)
    ]
    return join(
        element("h2", "Every search"),
        element("div", table(head, rows, caption="Every method and seed"), class_="layers"),
    )


def _cell_name(row: Mapping[str, Any]) -> Html | str:
    if row["status"] != "done":
        return f"{row['method']} (failed: {row['reason']})"
    if not isinstance(row["path"], str):
        return row["method"]
    return element("a", row["method"], href=f"{row['path']}/report.html")


def _whole(value: Any) -> str:
    return count(int(value)) if isinstance(value, int | float) and value == value else MISSING


def _how(contents: Contents) -> Html | None:
    if not contents.notes:
        return None
    return join(
        element("h2", "What to know"),
        element("ul", [element("li", note) for note in contents.notes]),
    )


def _provenance(contents: Contents) -> Html:
    facts = [[element("dt", title), element("dd", text)] for title, text in contents.facts.items()]
    wall = numbers(contents.cells, "wall_s")
    if len(wall):
        total = duration(float(wall.sum()))
        facts.append([element("dt", "wall time of all runs"), element("dd", total)])
    return join(
        element("h2", "Where it comes from"),
        element("dl", facts, class_="facts"),
        element("h3", "Make it again"),
        element("pre", element("code", contents.command)),
        element(
            "details",
            element("summary", "The configuration of all searches"),
            element("pre", element("code", contents.config)),
        ),
    )
