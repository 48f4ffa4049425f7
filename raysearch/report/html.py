"""`report.html`: one static file about a run, finished or not, that needs nothing from the network.

The same folder gives the same bytes. Every text that comes from the folder is escaped (`markup.element`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from raysearch.report.bayesnas import bayesnas
from raysearch.report.embedding import embedding
from raysearch.report.insight import insight
from raysearch.report.markup import Child, Html, element, join
from raysearch.report.policies import policies
from raysearch.report.provenance import effort, provenance
from raysearch.report.run_folder import RunFolder
from raysearch.report.sections import figures, headline, layers, results

REPORT_FILE = "report.html"
SECTIONS = (
    headline,
    results,
    figures,
    insight,
    embedding,
    policies,
    bayesnas,
    layers,
    effort,
    provenance,
)


def write_report(run_folder: Path | str) -> Path:
    """Writes `report.html` into a run's folder, from the files in it alone.

    Args:
        run_folder: finished, interrupted or still running.

    Returns:
        The report's path.

    Raises:
        RunFolderError: if the folder is not a run's.
    """
    run = RunFolder.read(run_folder)
    return write_page(run.path / REPORT_FILE, render_report(run))


def render_report(run: RunFolder) -> str:
    """The page as text."""
    return page(run.name, [section(run) for section in SECTIONS])


def page(title: str, sections: Iterable[Child], *, style: str = "") -> str:
    """A whole document in the style of our reports.

    Args:
        title: of the browser's tab.
        sections: of the page, in their order.
        style: more CSS, from the program, never from a user.
    """
    ours = files("raysearch.report").joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · raysearch"),
        element("style", Html(ours + style)),
    )
    body = element("body", element("main", sections))
    return "<!doctype html>\n" + join(element("html", head, Html("\n"), body, lang="en")) + "\n"


def write_page(path: Path, text: str) -> Path:
    """Writes a document at once and returns its path: a browser never sees half a page."""
    draft = path.with_suffix(".html.tmp")
    draft.write_text(text, encoding="utf-8", errors="replace")
    os.replace(draft, path)
    return path
