"""Whole compression runs in small: budgets, resuming, what is offered, what is told."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from raysearch.architecture import Architecture
from raysearch.bayesnas.compression import CompressionSettings
from raysearch.data import DataSet, distillation_data
from raysearch.errors import BudgetError, ConfigError
from raysearch.models import build, load_teacher, trace
from trainables.bayesnas.compression.run import CompressionRun
from trainables.context import DistillationContext
from trainables.recipe import Recipe
from trainables.training import Training, evaluate_batches, recalibrate

QUICK = CompressionSettings(updates=3, interval=1, recovery=1, images=64, batch_size=32)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(12)
        self.outer = nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.outer_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        inner = torch.relu(self.inner_norm(self.inner(x)))
        x = torch.relu(x + self.outer_norm(self.outer(inner)))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def context(data: DataSet) -> DistillationContext:
    """A trained residual network."""
    torch.manual_seed(0)
    teacher = _Residual()
    plain = distillation_data(data, None, num_views=1).to("cpu")
    training = Training(teacher, plain, Recipe(loss="ce", epochs=4, views=1))
    for _ in range(4):
        training.train_epoch()
    recalibrate(teacher, plain.train)
    module = training.release()
    return DistillationContext(
        teacher=trace(module, (1, 8, 8)).to_json(),
        teacher_weights={key: value.numpy() for key, value in module.state_dict().items()},
        space={"divisor": 1},
        data=distillation_data(data, module, num_views=2),
        recipes={"search": Recipe(epochs=1).to_dict()},
    )


def _finished(run: CompressionRun) -> CompressionRun:
    while not run.complete:
        run.train_epoch()
    return run


@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
@pytest.mark.parametrize("share", [0.5, 0.15])
def test_every_student_is_within_the_budget(
    context: DistillationContext, metric: str, share: float
) -> None:
    teacher = context.search_space
    cost = {"params": teacher.num_params, "macs": teacher.macs, "memory": teacher.memory}[metric]
    whole = int(cost(teacher.largest())[0])
    limit = int(share * whole)
    try:
        run = CompressionRun(context, QUICK, lam=1e-6, budget={metric: limit})
    except BudgetError:
        pytest.fail("this budget can be met")
    _finished(run)
    assert run.students
    sizes = [int(cost(teacher.parse(one.text))[0]) for one in run.students]
    assert max(sizes) <= limit
    assert max(sizes) > 0.6 * limit  # and it is used


@pytest.mark.parametrize("lam", [1e-6, 1e-12])
def test_the_weights_of_a_student_are_those_of_the_run(
    context: DistillationContext, lam: float
) -> None:
    # nothing dies of the small lambda: the budget alone decides, and a state is cut to what the next one is
    run = _finished(CompressionRun(context, QUICK, lam=lam, budget={"params": 1500}))
    student = run.students[-1]
    assert student.epoch == run.epochs_done
    assert len({one.text for one in run.students}) == len(run.students)
    assert student.weights is not None
    module = build(student.architecture, inherit_from=dict(student.weights))
    own = evaluate_batches(module.eval(), context.device_data.validation)
    assert own["accuracy"] == pytest.approx(student.metrics["accuracy"], abs=1e-9)
    assert own["loss"] == pytest.approx(student.metrics["loss"], rel=1e-4)
    assert own["accuracy"] > 0.6  # of three classes


def test_a_large_lambda_leaves_no_room_in_the_budget(context: DistillationContext) -> None:
    """Alone it would leave far less than the budget allows."""
    alone = _finished(CompressionRun(context, QUICK, lam=1e-2)).students[-1].architecture
    run = _finished(CompressionRun(context, QUICK, lam=1e-2, budget={"params": 1500}))
    sizes = [one.architecture.num_params for one in run.students]
    assert alone.num_params < 1000
    assert sizes
    assert 1500 - 146 <= min(sizes) <= max(sizes) <= 1500  # 146: a channel of the inner one


def test_a_resumed_run_has_the_same_gammas_and_students(context: DistillationContext) -> None:
    whole = _finished(CompressionRun(context, QUICK, lam=3e-5))
    cut = CompressionRun(context, QUICK, lam=3e-5)
    for _ in range(2):
        cut.train_epoch()
    file = io.BytesIO()
    torch.save(cut.state_dict(), file)
    file.seek(0)
    again = CompressionRun(context, QUICK, lam=3e-5)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.epochs_done == 2
    _finished(again)
    assert torch.equal(again.prior.gamma, whole.prior.gamma)
    assert again.history == whole.history
    assert [one.text for one in again.students] == [one.text for one in whole.students]
    for key, value in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], value), key


def test_a_larger_lambda_leaves_less(context: DistillationContext) -> None:
    sizes = []
    for lam in (1e-9, 1e-8, 1e-7, 1e-6):
        run = _finished(CompressionRun(context, QUICK, lam=lam))
        last = run.history["epochs"][-1]
        sizes.append(last["num_params"])
        assert last["density"] <= 1
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3], sizes


@pytest.mark.parametrize("prune", ["entropy", "fixed_point"])
@pytest.mark.parametrize("hessian", ["exact", "recursive"])
def test_the_forms_of_the_thesis_run(
    context: DistillationContext, prune: str, hessian: str
) -> None:
    settings = CompressionSettings.from_dict(
        {
            **QUICK.to_dict(),
            "updates": 1,
            "hessian": hessian,
            "prune": prune,
            "inner": 1,
            "scale_hessian": False,
            "loss": "ce",
            "start": "fresh",
            "conv_groups": ["shape", "filter"],
        }
    )
    run = _finished(CompressionRun(context, settings, lam=0.01))
    assert not run.diverged
    for layer in run.history["updates"][-1]["layers"].values():
        assert 0 < layer["kept"] <= layer["weights"]
        assert layer["gamma"] == sorted(layer["gamma"])


def test_a_budget_that_nothing_meets_is_refused(context: DistillationContext) -> None:
    with pytest.raises(BudgetError, match="params"):
        CompressionRun(context, QUICK, lam=1e-6, budget={"params": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "search.options.interval is 0"),
        ({"conv_groups": "filter"}, "search.options.conv_groups"),
        ({"conv_groups": ["filter", "rows"]}, "search.options.conv_groups"),
        ({"conv_groups": [], "linear_groups": []}, "search.options.conv_groups"),
        ({"hessian": "full"}, "search.options.hessian is 'full'"),
        ({"lr": float("nan")}, "search.options.lr"),
        ({"momentum": 1.0}, "search.options.momentum"),
        ({"scale_hessian": 1}, "search.options.scale_hessian"),
        ({"lambda": 1}, "search.options.lambda is not an option"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        CompressionSettings.from_dict(options)


def test_the_built_in_lenets_can_be_compressed(data: DataSet) -> None:
    """A network without BatchNorm, whose single inputs go: the student holds a gather."""
    torch.manual_seed(0)
    make: Callable[..., nn.Module] = load_teacher
    teacher = make("lenet300", num_classes=3, input_shape=(1, 8, 8)).eval()
    architecture: Architecture = trace(teacher, (1, 8, 8))
    context = DistillationContext(
        teacher=architecture.to_json(),
        teacher_weights={key: value.numpy() for key, value in teacher.state_dict().items()},
        space={"divisor": 1},
        data=distillation_data(data, teacher, num_views=1),
        recipes={"search": Recipe(epochs=1).to_dict()},
    )
    run = _finished(CompressionRun(context, QUICK, lam=1e-6, budget={"params": 4000}))
    student = run.students[-1]
    assert student.architecture.num_params <= 4000
    assert any(layer.op == "gather" for layer in student.architecture.layers)
