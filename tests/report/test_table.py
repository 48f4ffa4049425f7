"""The results table holds every finally trained network once, with the numbers of the files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from rich.console import Console

from raysearch.report import terminal_table, write_results_table


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_results_are_the_teacher_the_best_the_others_the_baselines(complete: Path) -> None:
    rows = _read(write_results_table(complete))
    assert [row["name"] for row in rows] == ["teacher", "001", "002", "003", "random"]
    assert [row["best"] for row in rows] == ["False", "True", "False", "False", "False"]
    assert [row["origin"] for row in rows[1:]] == ["search", "search", "uniform", "random"]


def test_every_number_is_the_one_of_the_metrics(complete: Path) -> None:
    for row in _read(write_results_table(complete))[1:]:
        metrics = json.loads((complete / row["path"] / "metrics.json").read_text())
        for key in ("accuracy", "test_accuracy", "loss", "reward", "compression"):
            assert float(row[key]) == metrics[key]
        for key in ("num_params", "macs", "epochs"):
            assert row[key] == str(metrics[key])
        assert float(row["search_accuracy"]) == metrics["search"]["accuracy"]
        assert abs(float(row["share_of_teacher"]) + float(row["compression"]) - 1) < 1e-12


def test_a_baseline_without_a_folder_comes_from_the_summary(complete: Path) -> None:
    file = complete / "summary.json"
    summary = json.loads(file.read_text())
    summary["baselines"]["pruned"] = {"accuracy": 0.9, "num_params": 2000}
    file.write_text(json.dumps(summary))
    row = _read(write_results_table(complete))[-1]
    assert (row["name"], row["role"]) == ("pruned", "baseline")
    assert (row["num_params"], row["macs"]) == ("2000", "")


def test_a_partial_run_has_its_teacher_alone(partial: Path) -> None:
    assert [row["name"] for row in _read(write_results_table(partial))] == ["teacher"]


def test_the_terminal_table_shows_each_network_and_fits_the_terminal(complete: Path) -> None:
    console = Console(width=90, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(complete))
    text = console.export_text()
    for word in (
        "teacher",
        "student 001 (best)",
        "14,362",
        "98.1 %",
        "student 003 (uniform)",
        "random",
    ):
        assert word in text
    assert max(map(len, text.splitlines())) <= 90


def test_names_are_not_read_as_markup(complete: Path) -> None:
    (complete / "baselines/random").rename(complete / "baselines/[red]x[,red]")
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(complete))
    assert "[red]x" in console.export_text()
