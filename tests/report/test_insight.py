"""The report's section about the search's model, and the file that it is drawn from."""

from __future__ import annotations

import html
import json
import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest
from scipy import stats

from raysearch.report import keep_knowledge, write_report
from raysearch.report.forecasts import (
    Forecasts,
    forecast_figure,
    map_figure,
    rank_figure,
    student_kinds,
    value_steps,
)
from raysearch.report.insight import calibration_sentences
from raysearch.report.run_folder import RunFolder
from raysearch.report.surrogate import SURROGATE_FILE, read_knowledge, write_knowledge
from raysearch.report.svg import COLOUR, NUM_VALUES
from searchers.insight import Insight, InsightFailed, calibrate

TITLE = html.escape("What the search's model knew")
FIGURES = (forecast_figure, rank_figure, map_figure)


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "observations.jsonl").read_text().splitlines()]


def rewrite(folder: Path, lines: list[dict]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "observations.jsonl").write_text(text)


def make_insight(lines: list[dict]) -> Insight:
    """Of the full lines: predictions with an honest error of .05."""
    full = [line for line in lines if line["status"] == "full"]
    rng = np.random.default_rng(0)
    values = np.array([line["value"] for line in full])
    return Insight(
        tuple(line["architecture"] for line in full),
        values,
        values + 0.05 * rng.normal(size=len(full)),
        np.full(len(full), 0.05),
        rng.normal(size=(len(full), 2)),
        {"model": "an <odd> one", "num_kernels": 8, "map_share": 0.617},
    )


@pytest.fixture
def modelled(complete: Path) -> Path:
    """A finished run whose students were proposed by a model from the sixth on."""
    lines, rng = lines_of(complete), np.random.default_rng(1)
    lines[1]["origin"] = "sample"
    for line in lines[5:]:
        predicted = float(np.exp(-line["loss"]) + 0.05 * rng.normal())
        line |= {"origin": "model", "predicted": predicted, "predicted_sd": 0.05}
    rewrite(complete, lines)
    ids = {line["architecture"]: line["architecture_id"] for line in lines}
    write_knowledge(
        complete / SURROGATE_FILE, make_insight(lines), ids.__getitem__, num_observations=len(lines)
    )
    return complete


# The file


def test_the_file_is_a_plain_table_and_comes_back_as_it_was(modelled: Path) -> None:
    insight = make_insight(lines_of(modelled))
    frame = pandas.read_parquet(modelled / SURROGATE_FILE)
    names = ["architecture_id", "architecture", "value", "loo_mean", "loo_sd", "x", "y"]
    assert list(frame.columns) == names
    np.testing.assert_array_equal(frame[["x", "y"]], insight.places)
    known = read_knowledge(modelled / SURROGATE_FILE)
    assert known is not None
    assert known.num_observations == len(lines_of(modelled))
    assert known.insight.architectures == insight.architectures
    assert known.insight.notes == insight.notes
    for name in ("values", "loo_mean", "loo_sd", "places"):
        np.testing.assert_array_equal(getattr(known.insight, name), getattr(insight, name))
    assert list(known.ids) == list(frame["architecture_id"])


class Modelled:
    """A method whose model can be looked into; counts how often it was."""

    def __init__(self, *answers: Insight | Exception | None) -> None:
        self.answers = list(answers)

    def insight(self) -> Insight | None:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


SOME = Insight(("a", "b"), [0.1, 0.2], [0.1, 0.1], [0.1, 0.1], [[0, 0], [1, 1]])  # pyright: ignore[reportArgumentType]


def keep(algorithm: object, path: Path, count: int) -> str | None:
    return keep_knowledge(algorithm, path, lambda text: f"id-{text}", count)


def test_a_method_without_a_model_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / SURROGATE_FILE
    assert keep(object(), path, 5) is None
    assert keep(Modelled(None), path, 5) is None
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_looked_into_once_for_as_many_observations(tmp_path: Path) -> None:
    path, method = tmp_path / SURROGATE_FILE, Modelled(SOME, SOME)
    for count, left in ((5, 1), (5, 1), (7, 0), (7, 0)):
        assert keep(method, path, count) is None
        assert len(method.answers) == left
    known = read_knowledge(path)
    assert known is not None
    assert (known.num_observations, known.ids) == (7, ("id-a", "id-b"))


def test_a_model_that_fails_costs_a_note_and_the_old_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, method = tmp_path / SURROGATE_FILE, Modelled(SOME, InsightFailed("not positive"))
    keep(method, path, 5)
    with caplog.at_level(logging.WARNING):
        note = keep(method, path, 6)
    assert note == "the search's model could not be looked into at the end (not positive)"
    assert "not positive" in caplog.text
    assert not path.exists()
    with pytest.raises(ZeroDivisionError):
        keep(Modelled(ZeroDivisionError()), path, 6)


# The section


def test_a_run_without_a_model_has_no_such_section(complete: Path) -> None:
    assert TITLE not in write_report(complete).read_text()


def test_the_section_shows_predictions_calibration_and_map(modelled: Path) -> None:
    text = write_report(modelled).read_text()
    assert TITLE in text
    assert text.count("<svg") == 4 + 3
    section = text[text.index(TITLE) : text.index("Effort")]
    found = Forecasts.of(RunFolder.read(modelled))
    assert f"of the {len(found)} students that it proposed" in section
    assert f"rank correlation {found.rank_correlation:.2f}" in section
    assert "over the last 20 of them" in section
    assert "The two directions hold 62 %" in section
    assert "neither over- nor underconfident" in section
    assert "Model: an &lt;odd&gt; one; num kernels: 8." in section
    assert write_report(modelled).read_text() == text


def test_forecasts_are_the_searchs_full_students_with_a_prediction(modelled: Path) -> None:
    lines = [one for one in lines_of(modelled) if one["status"] == "full" and "predicted" in one]
    random = modelled / "baselines/random/observations.jsonl"
    random.write_text(json.dumps(lines[0]).replace('"search"', '"random"') + "\n")
    found = Forecasts.of(RunFolder.read(modelled))
    np.testing.assert_array_equal(found.predicted, [one["predicted"] for one in lines])
    np.testing.assert_array_equal(found.measured, [one["value"] for one in lines])
    expected = stats.spearmanr(found.predicted, found.measured).statistic
    assert found.rank_correlation == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_proposals_of_the_model_get_a_sentence_and_no_figure(
    modelled: Path, count: int
) -> None:
    lines, left = lines_of(modelled), count
    for line in lines:
        if line["status"] == "full" and "predicted" in line:
            left -= 1
            if left < 0:
                del line["predicted"]
    rewrite(modelled, lines)
    run = RunFolder.read(modelled)
    assert forecast_figure(run) is None
    assert rank_figure(run) is None
    said = {
        0: "no student that was",
        1: "one student only that was",
        4: "4 students only that were",
    }
    assert f"The model proposed {said[count]}" in write_report(modelled).read_text()


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_of_the_model_is_well_formed_svg_that_says_what_it_shows(
    modelled: Path, figure
) -> None:
    text = figure(RunFolder.read(modelled))
    assert text is not None
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert len(root.get("aria-label", "")) > 40
    assert "var(--ink)" in text
    assert not any(colour in text for colour in COLOUR.values())
    assert not re.search(r"<image|href=\"(?!#)", text)


def test_values_that_are_no_numbers_break_nothing(modelled: Path) -> None:
    lines = lines_of(modelled)
    lines[6] |= {"predicted": float("nan")}
    lines[8] |= {"predicted": "x", "predicted_sd": []}
    lines[9] |= {"predicted_sd": -1.0}
    lines[10] |= {"predicted_sd": None, "origin": 7}
    rewrite(modelled, lines)
    insight = make_insight(lines)
    insight.values[0], insight.loo_mean[1], insight.loo_sd[2] = np.nan, np.inf, 0
    insight.places[3] = np.nan
    write_knowledge(modelled / SURROGATE_FILE, insight, lambda text: text, len(lines))
    text = write_report(modelled).read_text()
    assert text.count("<svg") == 7
    assert "nan" not in text[text.index(TITLE) : text.index("Effort")].lower()


def test_one_awful_student_does_not_press_the_others_together(modelled: Path) -> None:
    lines = lines_of(modelled)
    place = next(i for i, line in enumerate(lines) if line["status"] == "full" and i > 5)
    lines[place]["value"] = -40.0
    rewrite(modelled, lines)
    text = forecast_figure(RunFolder.read(modelled))
    assert text is not None
    assert "beyond the axes" in text
    assert "−40" not in text


def test_equal_values_and_equal_students_have_a_page(modelled: Path) -> None:
    lines = lines_of(modelled)
    for line in lines:
        line["value"] = None if line["value"] is None else 0.5
        line |= {"predicted": 0.5} if "predicted" in line else {}
    rewrite(modelled, lines)
    insight = make_insight(lines)
    insight.places[:] = 0
    write_knowledge(modelled / SURROGATE_FILE, insight, lambda text: text, len(lines))
    run = RunFolder.read(modelled)
    assert (rank_figure(run), map_figure(run)) == (None, None)
    assert "rank correlation –" in write_report(modelled).read_text()


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense"])
def test_a_damaged_file_is_left_out_and_named(modelled: Path, content: bytes) -> None:
    (modelled / SURROGATE_FILE).write_bytes(content)
    text = write_report(modelled).read_text()
    assert "surrogate.parquet is damaged and is left out." in text
    assert "Can it be trusted?" not in text


def test_another_table_is_no_knowledge(tmp_path: Path) -> None:
    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / SURROGATE_FILE)
    with pytest.raises(ValueError, match=r"surrogate\.parquet cannot be read"):
        read_knowledge(tmp_path / SURROGATE_FILE)


def test_the_map_tells_how_each_student_came_about(modelled: Path) -> None:
    metrics = modelled / "students/003/metrics.json"  # the uniform one
    first = lines_of(modelled)[0]
    data = json.loads(metrics.read_text()) | {"architecture_id": first["architecture_id"]}
    metrics.write_text(json.dumps(data))
    run = RunFolder.read(modelled)
    assert run.knowledge is not None
    kinds = dict(zip(run.knowledge.insight.architectures, student_kinds(run), strict=True))
    places = {text: int(text.removeprefix("r:tidy")) for text in kinds}
    expected = {0: "uniform", 1: "drawn"}
    for text, kind in kinds.items():
        assert kind == expected.get(places[text], "model" if places[text] >= 5 else "first")


def test_the_steps_of_the_values_hold_equally_many_and_the_best_is_in_the_last() -> None:
    values = np.random.default_rng(0).permutation(50).astype(float)
    steps, edges = value_steps(values)
    assert [int((steps == step).sum()) for step in range(NUM_VALUES)] == [10] * NUM_VALUES
    assert (np.diff(steps[np.argsort(values)]) >= 0).all()
    assert (edges[0], edges[-1]) == (0, 49)
    assert set(value_steps(np.ones(7))[0]) == {NUM_VALUES - 1}


@pytest.mark.parametrize(
    ("spread", "outliers", "said"),
    [
        (1.0, 0, "neither over- nor underconfident, as far as 400 students"),
        (0.4, 0, "is overconfident: its errors are 2.5 times"),
        (3.0, 0, "is underconfident: its errors are only 3"),
        (1.0, 4, "overconfident about the odd ones"),
    ],
)
def test_calibration_in_plain_words(spread: float, outliers: int, said: str) -> None:
    rng = np.random.default_rng(0)
    mean = 5 * rng.normal(size=400)
    y = mean + rng.normal(size=400)
    y[:outliers] += 40
    found = calibrate(y, mean, np.full(400, spread))
    assert found is not None
    text = calibration_sentences(found)
    assert said in text
    assert ("worse" if outliers else "better") in text or spread == 0.4


def test_a_model_that_knows_nothing_is_told_so() -> None:
    y = np.random.default_rng(0).normal(size=400)
    found = calibrate(y, np.zeros(400), np.ones(400))
    assert found is not None
    assert "about as well as mean and spread" in calibration_sentences(found)
