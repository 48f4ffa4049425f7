"""What a run found, as sections of the report: each a function from a run to HTML, None where the run holds nothing for it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from raysearch.formatting import MISSING, count, decimal, duration, percent, short_count
from raysearch.report.curves import learning_figure, progress_figure
from raysearch.report.layers import Row as LayerRow
from raysearch.report.layers import compare_layers
from raysearch.report.markup import Html, bar_cell, element, join, table
from raysearch.report.pareto import close_up_figure, pareto_figure, searched
from raysearch.report.records import Trained, integer
from raysearch.report.run_folder import RunFolder
from raysearch.report.table import Row, result_rows
from raysearch.report.verdict import verdict

Card = tuple[str, str, str]  # title, number, note


def headline(run: RunFolder) -> Html:
    """The run's name, the verdict, the key numbers."""
    return element(
        "header",
        element("h1", f"raysearch · {run.name}"),
        _partial_note(run),
        element("p", _verdict(run), class_="verdict"),
        _budget_use(run),
        _cards(run),
    )


def results(run: RunFolder) -> Html | None:
    """The teacher, the finalists and the baselines in numbers."""
    rows = result_rows(run)
    if not rows:
        return None
    head = ("network", "parameters", "of teacher", "MACs", "validation", "test", "reward", "epochs")
    return join(
        element("h2", "Results"),
        table(head, [_result_row(row) for row in rows], caption="Teacher, finalists and baselines"),
        element(
            "p",
            "Students are chosen by their validation result; the test part is looked at once, at the end.",
            class_="note",
        ),
    )


def figures(run: RunFolder) -> Html | None:
    """All drawings with their captions."""
    stopped = len(searched(run, "stopped"))
    captions = (
        (
            pareto_figure(run),
            "Size and accuracy. Dots are students after the search's short training, marks in colour after full training; "
            "thin lines join the two. Triangles on the lower edge lie below it.",
        ),
        (close_up_figure(run), "The same, the students alone (linear scale)."),
        (
            progress_figure(run),
            "The best reward so far, by finished evaluation; dots are single students"
            + (f"; the {stopped} stopped early are left out." if stopped else "."),
        ),
        (learning_figure(run), "Learning curves of the full trainings, on the validation part."),
    )
    drawn = [
        element("figure", drawing, element("figcaption", text))
        for drawing, text in captions
        if drawing is not None
    ]
    if not drawn:
        return None
    return join(element("h2", "The search"), element("div", drawn, class_="figures"))


def layers(run: RunFolder) -> Html | None:
    """The best student beside its teacher, layer by layer."""
    teacher, student = run.teacher_architecture, run.best_architecture
    if teacher is None or student is None:
        return None
    rows = compare_layers(teacher, student)
    changes = Counter(row.change for row in rows)
    skips = sum(len(row.skips) for row in rows)
    text = ", ".join(f"{number} {change}" for change, number in sorted(changes.items()))
    added = (
        f"{skips} skip connection{'s' if skips != 1 else ''} added"
        if skips
        else "no skip connection added"
    )
    head = ("layer", "operation", "channels", "parameters", "kept", "change")
    total = element(
        "tr",
        element("th", "all layers", scope="row"),
        element("td"),
        element("td"),
        element("td", f"{count(teacher.num_params)} → {count(student.num_params)}", class_="num"),
        bar_cell(student.num_params / max(1, teacher.num_params)),
        element("td", percent(student.num_params / max(1, teacher.num_params))),
        class_="total",
    )
    body = [*map(_layer_row, rows), total]
    grid = table(head, body, caption="Teacher and best student by layer", numeric=(2, 3))
    return join(
        element("h2", "Teacher and best student, layer by layer"),
        element("p", f"Of {len(rows)} layers with a row: {text}; {added}." if rows else None),
        element("div", grid, class_="layers"),
        element(
            "p",
            "Channels and parameters are the teacher's → the student's. Normalisations, activations and sums have no row; "
            "the last line counts them.",
            class_="note",
        ),
    )


def _partial_note(run: RunFolder) -> Html | None:
    if not run.partial:
        return None
    done = len([row for row in run.evaluations if row.stage == "search"])
    search = run.config.get("search")
    planned = search.get("trials") if isinstance(search, Mapping) else None
    of = f" of {planned}" if isinstance(planned, int) else ""
    return element(
        "p",
        element("strong", "This run is not finished. "),
        f"It holds {done}{of} evaluations so far; ",
        element("code", f"python -m raysearch resume {shlex.quote(str(run.path))}"),
        " goes on with it.",
        class_="partial",
    )


def _verdict(run: RunFolder) -> str:
    text = (run.summary or {}).get("verdict")
    if isinstance(text, str) and text:
        return text
    if run.best is None or run.partial:
        full = (row for row in run.evaluations if row.stage == "search" and row.status == "full")
        best = max((row.value for row in full if row.value is not None), default=None)
        if best is None:
            return "No student has been evaluated fully yet."
        return f"The best reward of the search so far is {best:.3f}."
    baselines = {row.origin: _comparable(row) for row in run.trained if row.origin != "search"}
    sizes = run.data.get("sizes")
    num_test = integer(sizes.get("test")) if isinstance(sizes, Mapping) else None
    return verdict(_comparable(run.best), baselines, num_test)


def _budget_use(run: RunFolder) -> Html | None:
    text = (run.summary or {}).get("budget_use")
    return element("p", text) if isinstance(text, str) and text else None


def _comparable(row: Trained) -> dict[str, Any]:
    """What `verdict` compares."""
    identity = {"origin": row.origin, "architecture_id": row.architecture_id or None}
    return {**asdict(row.scores), **identity}


def _cards(run: RunFolder) -> Html | None:
    """The numbers that a reader looks for first."""
    teacher, best = run.teacher, run.best.scores if run.best else None
    cards = _partial_cards(run)
    if best is not None:
        size = (
            best.num_params / teacher.num_params if best.num_params and teacher.num_params else None
        )
        cards = [
            (
                "test accuracy",
                percent(best.test_accuracy),
                f"teacher {percent(teacher.test_accuracy)}",
            ),
            ("validation accuracy", percent(best.accuracy), f"teacher {percent(teacher.accuracy)}"),
            (
                "parameters",
                count(best.num_params),
                f"{percent(size)} of {count(teacher.num_params)}",
            ),
            ("MACs", short_count(best.macs), f"teacher {short_count(teacher.macs)}"),
        ]
    rows = [row for row in run.evaluations if row.stage == "search"]
    failed = sum(row.status == "failed" for row in rows)
    cards.append(
        ("students searched", count(len(rows)), f"{failed} failed" if failed else "none failed")
    )
    total = _total_seconds(run)
    if total:
        cards.append(("wall time", duration(total), ""))
    items = [
        element(
            "div",
            element("dt", title),
            element("dd", value, element("small", note) if note else None),
        )
        for title, value, note in cards
    ]
    return element("dl", items, class_="cards")


def _partial_cards(run: RunFolder) -> list[Card]:
    """What is known before there is a student."""
    teacher, limit = run.teacher, run.limit("params")
    share = limit / teacher.num_params if limit and teacher.num_params else None
    return [
        ("teacher's accuracy", percent(teacher.accuracy), "on validation"),
        ("teacher's parameters", count(teacher.num_params), ""),
        (
            "budget",
            short_count(limit),
            f"parameters, {percent(share)} of the teacher" if limit else "",
        ),
    ]


def _total_seconds(run: RunFolder) -> float:
    return run.seconds.get("total", sum(run.seconds.values()))


def _result_row(row: Row) -> Html:
    cells = (
        count(row["num_params"]),
        percent(row["share_of_teacher"]),
        short_count(row["macs"]),
        percent(row["accuracy"], 2),
        percent(row["test_accuracy"], 2),
        decimal(row["reward"]),
        count(row["epochs"]),
    )
    return element(
        "tr",
        element("th", row["label"], scope="row"),
        [element("td", cell, class_="num") for cell in cells],
        class_="best" if row["best"] else None,
    )


def _layer_row(row: LayerRow) -> Html:
    before, after = row.teacher, row.student
    params = [side.num_params if side else 0 for side in (before, after)]
    change = row.change + (f", skip from {', '.join(row.skips)}" if row.skips else "")
    share = params[1] / params[0] if params[0] else None
    return element(
        "tr",
        element("th", row.name, scope="row", class_="name"),
        element("td", row.op),
        element(
            "td",
            _arrow(before.width if before else None, after.width if after else None),
            class_="num",
        ),
        element("td", _arrow(*params) if any(params) else MISSING, class_="num"),
        bar_cell(share),
        element("td", change),
        class_=row.change if row.change == "removed" else None,
    )


def _arrow(before: int | None, after: int | None) -> str:
    return count(before) if before == after else f"{count(before)} → {count(after)}"
