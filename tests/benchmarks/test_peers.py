"""The comparison with other tools: small cells really run, students within the budget, statistics against scipy and by hand."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from benchmarks.peer_methods.cells import Cell, CellFile, cells_of, effort, run_cell
from benchmarks.peer_methods.clock import CpuClock
from benchmarks.peer_methods.families import Family, fit, slice_weights
from benchmarks.peer_methods.ours import uniform
from benchmarks.peer_methods.setting import Options, Trained, load_setting, measure
from benchmarks.peer_methods.summary import compare, holm, paired_p, write_summary
from benchmarks.problems import vgg11_half
from raysearch.models.teachers.resnet import ResNet, resnet
from raysearch.models.teachers.vgg import VGG

TINY = (
    "teacher.epochs=1",
    "distill.epochs=1",
    "finish.epochs=1",
    "search.trials=2",
    "distill.views=1",
    "finish.views=1",
)
TEACHERS = [
    ResNet(((6, 2), (8, 2)), 5, 1),
    VGG(((6, 2), (8, 1), (10, 2)), 5, (1, 9, 9)),
]


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "peer", ["uniform", "optuna-tpe", "torch-pruning-l2", "torch-pruning-taylor"]
)
def test_a_cell_gives_a_trained_student_within_the_budget(peer: str) -> None:
    if peer.startswith("torch-pruning"):
        pytest.importorskip("torch_pruning")
    cell = Cell("digits_resnet14", 0.05, 1, peer)
    row = run_cell(cell, Options(overrides=TINY), reference_s=0.0)
    assert row["status"] == "ok"
    assert row["within_budget"]
    assert 0.75 * row["limit"] < row["num_params"] <= row["limit"] == int(0.05 * 174_970)
    assert row["trials"] == (2 if peer == "optuna-tpe" else 1)
    assert row["epochs"] == 2
    assert 0.15 < row["test_accuracy"] <= 1  # a tenth is chance
    assert row["cpu_seconds"] > 0


def test_a_long_cell_trains_until_it_has_taken_the_seconds_of_our_run() -> None:
    cell = Cell("digits_resnet14", 0.05, 1, "uniform-long")
    options = Options(overrides=TINY)
    usual = run_cell(cell, options, reference_s=0.0)
    row = run_cell(cell, options, reference_s=usual["cpu_seconds"] + 1.0)
    assert row["epochs"] > usual["epochs"]


def test_a_diverged_student_is_still_counted() -> None:
    setting = load_setting("digits_resnet14", 0.05, 1, Options(overrides=TINY))
    module, _ = uniform(setting)
    with torch.no_grad():
        next(module.parameters()).fill_(torch.nan)
    row = measure(setting, Trained(module, 0.0, float("inf"), 1, 1.0))
    student = setting.problem.space.apply(setting.problem.space.uniform())
    assert (row["num_params"], row["macs"]) == (student.num_params, student.macs)
    assert row["test_accuracy"] < 0.3


def test_the_teacher_and_the_split_are_the_same_for_all_seeds() -> None:
    first, second = (
        load_setting("digits_resnet14", 0.1, seed, Options(overrides=TINY)) for seed in (0, 1)
    )
    assert first.teacher is second.teacher
    assert first.problem.data is second.problem.data
    assert (first.seed, second.seed) == (0, 1)
    assert first.context.seed != second.context.seed


def test_the_stages_of_the_shared_teachers_are_read_off_them() -> None:
    vgg = Family.of(vgg11_half(10, (1, 28, 28)), 10, (1, 28, 28))
    assert vgg.stages == ((32, 1), (64, 1), (128, 2), (256, 2), (256, 2))
    assert Family.of(resnet("resnet20", 10, (3, 32, 32)), 10, (3, 32, 32)).stages == (
        (16, 3),
        (32, 3),
        (64, 3),
    )
    with pytest.raises(TypeError, match="Linear has no stages"):
        Family.of(nn.Linear(3, 2), 2, (3,))


@pytest.mark.parametrize("teacher", TEACHERS, ids=["resnet", "vgg"])
def test_a_family_of_full_size_with_the_teachers_weights_is_the_teacher(teacher: nn.Module) -> None:
    shape = (1, 9, 9)
    family = Family.of(teacher, 5, shape)
    module = family.build(family.stages)
    slice_weights(module, teacher)
    images = torch.randn(3, *shape)
    torch.testing.assert_close(module.eval()(images), teacher.eval()(images))


@pytest.mark.parametrize("teacher", TEACHERS, ids=["resnet", "vgg"])
def test_a_shallow_member_is_one_that_is_built_so(teacher: nn.Module) -> None:
    family = Family.of(teacher, 5, (1, 9, 9))
    stages = [(3 + number, 1) for number in range(len(family.stages))]
    shallow = family.build(stages)
    built = type(teacher)(tuple(stages), **family.rest)
    assert _sizes(shallow) == _sizes(built)
    assert shallow(torch.randn(2, 1, 9, 9)).shape == (2, 5)


@pytest.mark.parametrize("teacher", TEACHERS, ids=["resnet", "vgg"])
def test_a_narrow_networks_state_turns_the_teacher_into_it(teacher: nn.Module) -> None:
    family = Family.of(teacher, 5, (1, 9, 9))
    narrow = family.build([(width // 2, depth) for width, depth in family.stages]).eval()
    fitted = copy.deepcopy(teacher).eval()
    fit(fitted, narrow.state_dict())
    images = torch.randn(3, 1, 9, 9)
    torch.testing.assert_close(fitted(images), narrow(images))
    assert _sizes(fitted) == _sizes(narrow)


def test_finished_cells_are_read_and_a_torn_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "peers.jsonl"
    file = CellFile(path, effort(TINY))
    file.append(_row("raysearch", 0, 0.9, effort=effort(TINY)))
    file.append(_row("uniform", 0, 0.8, effort=effort(())))
    with path.open("a") as stream:
        stream.write('{"problem": "p", "bud')
    again = CellFile(path, effort(TINY))
    assert list(again.rows) == [("p", 0.05, 0, "raysearch")]
    again.append(_row("uniform", 0, 0.7, effort=effort(TINY)))
    assert len(CellFile(path, effort(TINY)).rows) == 2
    assert again.reference_s(Cell("p", 0.05, 0, "uniform-long")) == 1.0
    assert again.reference_s(Cell("p", 0.05, 1, "uniform-long")) is None


def test_cells_of_a_seed_stand_together() -> None:
    cells = list(cells_of(["a", "b"], [0.1, 0.2], [0, 1], ["x", "y"]))
    assert len({cell.key for cell in cells}) == len(cells) == 16
    groups = [(cell.problem, cell.seed) for cell in cells]
    assert sorted(groups) == groups


def test_holm_is_the_step_down_correction() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_p_value_is_scipys_paired_t_test() -> None:
    ours, theirs = [0.91, 0.93, 0.92, 0.95], [0.90, 0.90, 0.93, 0.92]
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert paired_p(gains) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert paired_p([0.1]) == paired_p([0.0, 0.0]) == paired_p([0.25, 0.25]) == 1.0


def test_differences_are_paired_by_seed_and_no_solution_stays_in_the_table(tmp_path: Path) -> None:
    rows = [_row("raysearch", seed, value) for seed, value in enumerate((0.90, 0.92, 0.94))]
    rows += [_row("uniform", seed, value) for seed, value in ((2, 0.93), (0, 0.89))]
    rows += [{**_row("modelopt-fastnas", 0, None), "status": "no solution", "notes": "too large"}]
    lines = {line["peer"]: line for line in compare(pd.DataFrame(rows))}
    assert lines["uniform"]["gain"][0] == pytest.approx(0.01)
    assert lines["uniform"]["pairs"] == 2
    assert lines["modelopt-fastnas"]["solved"] == 0
    text = write_summary(rows, tmp_path, ["how it was made"])
    assert "no solution: too large" in text
    assert "not told apart by 3 seeds from uniform" in text
    assert "No student within the budget: modelopt-fastnas." in text
    assert len(pd.read_csv(tmp_path / "peers.csv")) == len(rows)
    assert (tmp_path / "peers-p.png").stat().st_size > 1_000


def test_the_clock_counts_other_processes() -> None:
    burn = "import time\nwhile time.process_time() < 0.8: pass"
    with CpuClock() as clock:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert clock.seconds > 0.4  # what it did since the last look is lost


def _sizes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in module.parameters()]


def _row(peer: str, seed: int, accuracy: float | None, **more: Any) -> dict[str, Any]:
    """A cell of 5 % of problem p."""
    return {
        "problem": "p",
        "budget": 0.05,
        "seed": seed,
        "peer": peer,
        "limit": 100,
        "teacher": {"accuracy": 0.99, "num_params": 2000, "macs": 10},
        "effort": {},
        "status": "ok",
        "accuracy": accuracy,
        "test_accuracy": accuracy,
        "num_params": 99,
        "macs": 10,
        "trials": 1,
        "within_budget": True,
        "cpu_seconds": 1.0,
        "notes": "",
        **more,
    }
