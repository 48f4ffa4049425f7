"""A super-network's run: it prunes, learns, offers students within the budget, and continues exactly."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import torch

from raysearch.bayesnas.cells import SuperNetSettings
from raysearch.errors import BudgetError, ConfigError
from raysearch.models import build
from tests.trainables.untrained import make_problem, make_untrained
from trainables.bayesnas.cells.run import SuperNetRun
from trainables.bayesnas.cells.switches import Switches
from trainables.bayesnas.dependency import Edge, SwitchGraph, SwitchGraphs
from trainables.context import DistillationContext
from trainables.recipe import Recipe
from trainables.repeats import RepeatedTraining

TREES = SuperNetSettings(
    kind="proxyless", epochs=6, warm_up=1, blocks=1, width=8, alpha=8, student_channels=8, lr=0.05
)
CELLS = SuperNetSettings(
    batch_size=64,
    hessian_batches=1,
    epochs=2,
    warm_up=1,
    channels=2,
    num_cells=3,
    student_channels=2,
    student_cells=1,
    max_paths=1,
)


@pytest.fixture(scope="module")
def context() -> DistillationContext:
    """The digits, with enough of them to learn from."""
    config = {"data": {"validation": 200}, "distill": {"epochs": 1}}
    return make_untrained(make_problem(config))


@pytest.fixture(scope="module")
def few(context: DistillationContext) -> DistillationContext:
    """The same with 64 training images."""
    train = context.data.train
    short = replace(train, images=train.images[:64], labels=train.labels[:64])
    views = replace(context.data.views, shifts=context.data.views.shifts[:, :64])
    return replace(context, data=replace(context.data, train=short, views=views, logits=None))


def test_a_small_search_on_digits_prunes_and_learns(context: DistillationContext) -> None:
    run = SuperNetRun(context, TREES, lam=0.007, budget={"params": 8_000}, seed=0)
    lines = []
    while not run.complete:
        lines.append(run.train_epoch())
    assert not run.diverged
    assert lines[-1]["accuracy"] > 0.6
    assert lines[0]["active_switches"] == 3 * 12 > lines[-1]["active_switches"]
    assert run.students
    for student in run.students:
        assert student.architecture.num_params <= 8_000
        assert context.search_space.apply(student.text) == student.architecture
    history = run.history
    assert json.loads(json.dumps(history)) == history
    assert len(history["epochs"]) == 6
    assert {len(gammas) for gammas in history["switches"].values()} == {5}


def test_a_student_is_distilled_as_any_other(few: DistillationContext) -> None:
    run = SuperNetRun(few, replace(TREES, epochs=2), lam=0.05, budget={"macs": 300_000}, seed=0)
    while not run.complete:
        run.train_epoch()
    (student, *_) = run.students
    training = RepeatedTraining(
        lambda seed: build(few.search_space.apply(student.text)),
        few.device_data,
        Recipe(loss="ce", epochs=1),
        seed=0,
        count=1,
    )
    training.train_epoch()
    assert training.curve[-1]["loss"] < 10


@pytest.mark.parametrize("settings", [CELLS, replace(TREES, epochs=2)])
def test_a_run_that_is_saved_and_loaded_ends_with_the_same_gammas(
    few: DistillationContext, settings: SuperNetSettings
) -> None:
    whole = SuperNetRun(few, settings, lam=0.05, seed=3)
    whole.train_epoch()
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    while not whole.complete:
        whole.train_epoch()
    torch.rand(3)  # the global generator does not matter
    file.seek(0)
    again = SuperNetRun(few, settings, lam=0.05, seed=3)
    again.load_state_dict(torch.load(file, weights_only=True))
    while not again.complete:
        again.train_epoch()
    assert torch.equal(whole.switches.gamma, again.switches.gamma)
    assert torch.equal(whole.switches.weights, again.switches.weights)
    assert whole.history == again.history
    assert [s.text for s in whole.students] == [s.text for s in again.students]
    assert whole.students
    other = SuperNetRun(few, settings, lam=0.05, seed=4)
    other.train_epoch()
    assert other.history["epochs"][0] != whole.history["epochs"][0]


@pytest.mark.parametrize("settings", [CELLS, replace(TREES, epochs=2)])
def test_a_run_takes_the_recursion_for_its_curvature(
    few: DistillationContext, settings: SuperNetSettings
) -> None:
    runs = [
        SuperNetRun(few, replace(settings, hessian=name), lam=0.01, seed=0)
        for name in ("recursive", "exact")
    ]
    for run in runs:
        while not run.complete:
            run.train_epoch()
    recursive, exact = runs
    assert not recursive.diverged
    assert recursive.students
    assert recursive.switches.gamma.isfinite().all()
    assert not torch.equal(recursive.switches.gamma, exact.switches.gamma)
    assert recursive.history["epochs"][0] == exact.history["epochs"][0]  # before any update


def test_the_faithful_protocol_updates_once_and_splits_the_images(few: DistillationContext) -> None:
    run = SuperNetRun(few, replace(TREES, faithful=True), lam=0.01, seed=0)
    first = torch.cat(run._batches(torch.Generator().manual_seed(0)))
    run.train_epoch()
    second = torch.cat(run._batches(torch.Generator().manual_seed(0)))
    assert len(first) == 6
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(64))
    assert run.switches.weights.eq(1).all()
    run.train_epoch()
    assert run.complete
    assert {len(gammas) for gammas in run.history["switches"].values()} == {1}


def test_a_run_that_diverges_says_so(few: DistillationContext) -> None:
    run = SuperNetRun(few, replace(TREES, lr=1e30, clip_norm=0), lam=0.01, seed=0)
    line = run.train_epoch()
    assert run.diverged
    assert run.complete
    assert line["accuracy"] == 0
    json.dumps(run.history, allow_nan=False)


def test_a_budget_below_every_network_is_refused_before_training(few: DistillationContext) -> None:
    with pytest.raises(BudgetError, match=r"budget.params of 100 .* needs"):
        SuperNetRun(few, CELLS, lam=0.01, budget={"params": 100})


def test_a_switch_ends_where_the_penalty_puts_it() -> None:
    # E = h / 2 (w - m)^2: w = sign(m) max(|m| - lam omega / h, 0), as in sparse.py's fixed points
    switches = Switches(SwitchGraphs((SwitchGraph(1, (Edge(0, 1, 3),)),)), torch.device("cpu"))
    m, h, lam = torch.tensor([0.3, -0.5, 0.005]), 1.0, 0.01
    for _ in range(2000):
        switches.step(h * (switches.weights - m), lr=0.1, momentum=0.9, lam=lam)
    torch.testing.assert_close(switches.weights, torch.tensor([0.29, -0.49, 0.0]))
    switches.update(torch.full((3,), h), lam)
    omega = (1 / lam / (1 + 1 / lam)) ** 0.5
    expected = torch.tensor([0.29, 0.49, 0.0]) / omega
    torch.testing.assert_close(switches.gamma, expected)
    assert switches.active.tolist() == [True, True, False]
    switches.keep(switches.active)
    switches.step(-torch.ones(3), lr=0.1, momentum=0.9, lam=lam)
    assert switches.weights[2] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "rings"),
        ("epochs", 0),
        ("warm_up", 8),
        ("lr", 0),
        ("max_paths", 0),
        ("momentum", 1),
    ],
)
def test_wrong_settings_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"search\.options\.{name} is .*, but it must be"):
        SuperNetSettings.from_dict({name: value})
    with pytest.raises(ConfigError, match=r"search\.options\.cell is not an option of bayes_nas"):
        SuperNetSettings.from_dict({"cell": 1})


def test_settings_survive_json() -> None:
    settings = replace(TREES, max_paths=2)
    assert SuperNetSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
