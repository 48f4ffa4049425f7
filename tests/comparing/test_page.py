"""The page of a comparison: whole, self-contained, and safe whatever a method is called."""

import re

import numpy as np
import pytest

from raysearch.comparing.analysis import analyse
from raysearch.comparing.figures import drawings, write_png
from raysearch.comparing.page import Contents, render
from raysearch.comparing.records import (
    cell_row,
    cells_frame,
    evaluation_rows,
    evaluations_frame,
    failed_row,
)
from raysearch.comparing.terminal import terminal_table

HOSTILE = "<script>alert(1)</script>:X"


def records(seed, quality):
    rng = np.random.default_rng(seed)
    return [
        {
            "value": quality + 0.05 * rng.random(),
            "status": "full" if place % 4 else "stopped",
            "epochs_done": 4,
            "seconds": 1.0,
            "propose_s": 0.1,
            "cpu_seconds": 0.9,
        }
        for place in range(6)
    ]


def contents(methods, seeds=3, failed=False):
    cells, evaluations = [], []
    for number, method in enumerate(methods):
        for seed in range(seeds):
            found = records(seed, 0.5 + 0.1 * number)
            row = cell_row("p", method, seed, found)
            scores = {"accuracy": 0.9 + 0.01 * number, "test_accuracy": 0.9 + 0.01 * seed}
            cells.append(row | scores | {"num_params": 100, "path": f"runs/{number}-{seed}"})
            evaluations += evaluation_rows("p", method, seed, found)
    if failed:
        cells.append(failed_row("p", methods[0], seeds, "a & b < c"))
    frame, table = cells_frame(cells), evaluations_frame(evaluations)
    metrics = ("test_accuracy", "accuracy", "value")
    return Contents(
        name="mine",
        cells=frame,
        evaluations=table,
        methods=methods,
        analyses={name: analyse(frame, name, methods) for name in metrics},
        drawings=drawings(frame, table, methods, "test_accuracy"),
        equal="trials",
        budget="6 trials",
        replay=None,
        notes=["one thing to know"],
        facts={"teacher": "resnet14"},
        command="python -m raysearch compare",
        config="run: {}",
    )


@pytest.fixture(scope="module")
def page():
    return render(contents(["gp", "random", HOSTILE], failed=True))


def test_the_page_shows_every_part_and_needs_nothing_from_the_network(page):
    for heading in ("Results", "The searches", "told apart", "cost", "Every search", "again"):
        assert re.search(rf"<h[23]>[^<]*{heading}", page), heading
    assert page.count("<svg") == 6
    assert "src=" not in page
    assert "no test can be significant" in page


def test_names_and_reasons_are_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b &lt; c" in page


def test_the_same_contents_give_the_same_bytes():
    assert render(contents(["gp", "random"])) == render(contents(["gp", "random"]))


def test_every_colour_of_the_page_is_defined_in_both_schemes(page):
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    for name in set(re.findall(r"var\(--(\w+)\)", page)):
        assert style.count(f"--{name}:") == 2, name
    assert "#0102" not in page  # a stand-in that was not replaced


@pytest.mark.parametrize(
    ("methods", "seeds"), [(["gp"], 1), (["gp", "tpe"], 1), (list("abcdefghij"), 2)]
)
def test_few_and_many_methods_have_a_page_a_picture_and_a_table(methods, seeds, tmp_path):
    made = contents(methods, seeds)
    assert made.main.verdict in render(made).replace("&#x27;", "'")
    write_png(made.drawings, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert terminal_table(made).row_count == len(methods)


def test_a_comparison_in_which_everything_failed_still_has_a_page():
    frame = cells_frame([failed_row("p", "gp", 0, "no"), failed_row("p", "tpe", 0, "no")])
    made = contents(["gp", "tpe"])
    empty = Contents(
        **{
            **vars(made),
            "cells": frame,
            "evaluations": evaluations_frame([]),
            "analyses": {"test_accuracy": analyse(frame, "test_accuracy", ["gp", "tpe"])},
            "drawings": drawings(frame, evaluations_frame([]), ["gp", "tpe"], "test_accuracy"),
        }
    )
    assert "Nothing can be said" in render(empty)
