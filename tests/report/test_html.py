"""The report is one static page, whatever the run's state and whatever its texts hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from raysearch.errors import RunFolderError
from raysearch.report import write_report
from raysearch.report.markup import Html, element, join

VOID = {"meta", "br", "hr", "col"}
HOSTILE = "<script>alert(1)</script>\"'&$\\frac{$ </style><!-- {x} \u202e 漢字 \ud800"


class Page(HTMLParser):
    """Collects elements, links and visible text; asserts that every element is closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def _assert_static(page: Page) -> None:
    assert all(link.startswith("#") for link in page.links)
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", page.raw)


def test_a_finished_run_gives_one_static_page_with_everything(complete: Path) -> None:
    path = write_report(complete)
    assert path == complete / "report.html"
    page = Page(path)
    _assert_static(page)
    assert page.tags.count("svg") == 4
    for word in (
        "The search paid (tidy).",
        "96.50 %",  # the best on test
        "98.10 %",  # the teacher on test
        "14,362",
        "layer1.conv1",
        "removed",
        "skip from conv1.relu",
        "1 min 36 s",
        "diverged",
        "20 % of it were split off",
        "A note about tidy.",
        "2.60.0",
        "python -m raysearch run run.name=tidy",
        "method: gp",
    ):
        assert word in page.text, word
    assert "not finished" not in page.text


def test_the_page_of_a_run_is_the_same_each_time_and_small(complete: Path) -> None:
    first = write_report(complete).read_bytes()
    assert write_report(complete).read_bytes() == first
    assert len(first) < 300_000
    assert not list(complete.glob("*.tmp"))


def test_thousands_of_evaluations_stay_below_the_limit(tmp_path: Path, fake_run) -> None:
    folder = fake_run.but(num_search=6000, num_random=6000).write(tmp_path / "run")
    assert write_report(folder).stat().st_size < 1_500_000


def test_a_cut_run_says_so_and_how_to_go_on(partial: Path) -> None:
    page = Page(write_report(partial))
    _assert_static(page)
    assert "This run is not finished. It holds 9 of 9 evaluations so far" in page.text
    assert f"python -m raysearch resume {partial}" in page.text
    assert page.tags.count("svg") >= 2


def test_a_run_without_evaluations_has_a_page(tmp_path: Path, fake_run) -> None:
    folder = fake_run.but(finished=False, num_search=0, num_random=0).write(tmp_path / "run")
    page = Page(write_report(folder))
    assert "No student has been evaluated fully yet." in page.text
    assert "svg" not in page.tags


def test_a_configuration_alone_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {name: x}\n")
    assert "not finished" in Page(write_report(tmp_path)).text


def test_a_folder_that_is_no_run_gets_no_page(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hostile_texts_are_shown_and_not_run(tmp_path: Path, fake_run) -> None:
    folder = fake_run.but(label=HOSTILE).write(tmp_path / "<b>run & co")
    (folder / "baselines/random").rename(folder / "baselines/$<i>x")
    metrics = folder / "baselines/$<i>x/001/metrics.json"
    data = json.loads(metrics.read_text()) | {"origin": HOSTILE}
    metrics.write_text(json.dumps(data))
    summary = json.loads((folder / "summary.json").read_text())
    summary["versions"] = {HOSTILE: HOSTILE}
    summary["trials"] = {HOSTILE: 3}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(folder))
    _assert_static(page)
    assert not {"b", "script"} & set(page.tags)
    assert page.tags.count("style") == 1
    assert "<script>alert(1)</script>" in page.text
    assert "<b>run & co" in page.text


def test_wrong_types_everywhere_still_give_a_page(complete: Path) -> None:
    summary = {"teacher": 3, "best": [], "budget": "x", "baselines": 4, "trials": [1]}
    summary |= {
        "seconds": {"a": "b", "c": 1e999},
        "versions": None,
        "notes": "n",
        "verdict": 5,
        "command": {},
    }
    (complete / "summary.json").write_text(json.dumps(summary))
    odd = {"curve": 3, "search": 4, "accuracy": [], "origin": 7, "epochs": None}
    (complete / "students/001/metrics.json").write_text(json.dumps(odd))
    (complete / "data.json").write_text('{"notes": 3, "classes": {"a": [1, [2]]}, "sizes": 1}')
    (complete / "observations.jsonl").write_text(
        '{"value": "x", "curve": "y", "num_params": -1}\n{}\n'
    )
    _assert_static(Page(write_report(complete)))


def test_text_is_escaped_and_html_is_not() -> None:
    assert element("p", "<a>", Html("<b></b>")) == "<p>&lt;a&gt;<b></b></p>"
    assert element("p", title='"><x', class_=None) == '<p title="&quot;&gt;&lt;x"></p>'
    assert join(["a", 1, None, ["&"]]) == "a1&amp;"
    assert join(Html("<b>") + "<c>") == "&lt;b&gt;&lt;c&gt;"


@pytest.mark.parametrize(
    ("training_s", "found"),
    [(90.0, "48 % of 3 min 07 s was training"), (500.0, None), ("x", None), (float("nan"), None)],
)
def test_the_share_of_training_is_said_where_it_is_known(
    complete: Path, training_s: object, found: str | None
) -> None:
    summary = json.loads((complete / "summary.json").read_text())
    summary["seconds"] = {**summary["seconds"], "total": 186.9}
    summary["training_s"] = training_s
    (complete / "summary.json").write_text(json.dumps(summary))
    text = Page(write_report(complete)).text
    assert (found in text) if found else ("was training" not in text)
