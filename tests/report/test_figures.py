"""What the figures draw is right, and how they are drawn is safe to inline."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from raysearch.report.curves import best_so_far, learning_figure, progress_figure
from raysearch.report.pareto import close_up_figure, front, pareto_figure, searched
from raysearch.report.run_folder import RunFolder
from raysearch.report.svg import COLOUR, MAX_POINTS, thinned

FIGURES = (pareto_figure, close_up_figure, progress_figure, learning_figure)


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_the_set_of_undominated_students(tmp_path: Path, fake_run, seed: int) -> None:
    run = RunFolder.read(fake_run.but(seed=seed, wide=True, num_search=60).write(tmp_path / "run"))
    points = set(searched(run))
    undominated = {
        (size, value)
        for size, value in points
        if not any(s <= size and v >= value and (s, v) != (size, value) for s, v in points)
    }
    assert len(undominated) > 1
    assert front(run) == sorted(undominated)


def test_only_full_good_evaluations_of_the_search_are_on_the_front(complete: Path) -> None:
    run = RunFolder.read(complete)
    rows = [row for row in run.evaluations if row.stage == "search"]
    assert len(searched(run)) == sum(row.status == "full" for row in rows)
    assert len(searched(run, "stopped")) == sum(row.status == "stopped" for row in rows)


def test_best_so_far_is_the_maximum_of_what_came_before() -> None:
    values = [np.nan, 0.3, 0.1, np.nan, 0.7, 0.6]
    expected = [np.nan] + [np.nanmax(values[: end + 1]) for end in range(1, len(values))]
    np.testing.assert_array_equal(best_so_far(values), expected)
    assert best_so_far([]).size == 0


def test_thinning_keeps_few_and_drops_nothing_from_a_few() -> None:
    assert thinned(list(range(MAX_POINTS))) == list(range(MAX_POINTS))
    assert len(thinned(list(range(10 * MAX_POINTS + 1)))) <= MAX_POINTS
    assert thinned([]) == []


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_well_formed_svg_in_the_colours_of_the_page(complete: Path, figure) -> None:
    text = figure(RunFolder.read(complete))
    assert text is not None
    root = ElementTree.fromstring(text)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert len(root.get("aria-label", "")) > 20
    assert "var(--ink)" in text
    assert not any(colour in text for colour in COLOUR.values())


def test_ids_are_unique_over_all_figures_and_every_reference_leads_somewhere(
    complete: Path,
) -> None:
    run = RunFolder.read(complete)
    roots = [ElementTree.fromstring(figure(run) or "") for figure in FIGURES]
    elements = [element for root in roots for element in root.iter()]
    ids = [element.get("id") for element in elements if element.get("id")]
    assert len(ids) == len(set(ids))
    references = [value for element in elements if (value := element.get("href"))]
    assert references
    assert {value[1:] for value in references} <= set(ids)


@pytest.mark.parametrize("figure", FIGURES)
def test_an_empty_run_has_no_figures(tmp_path: Path, fake_run, figure) -> None:
    empty = fake_run.but(finished=False, num_search=0, num_random=0).write(tmp_path / "run")
    assert figure(RunFolder.read(empty)) is None


def test_one_evaluation_is_enough_for_a_picture(tmp_path: Path, fake_run) -> None:
    run = RunFolder.read(
        fake_run.but(finished=False, num_search=1, num_random=0).write(tmp_path / "run")
    )
    assert pareto_figure(run) is not None
    assert progress_figure(run) is not None
