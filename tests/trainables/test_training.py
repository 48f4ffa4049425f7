"""One student's training: it learns, it continues exactly, it touches nothing that is not its own."""

from __future__ import annotations

import copy
import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.data import DataSet, DeviceBatches, DeviceData, distillation_data
from trainables.recipe import Recipe
from trainables.training import Training, evaluate, evaluate_batches, recalibrate

from .conftest import Network

_RECIPE = Recipe(epochs=4, lr=0.05, optimizer="sgd", batch_size=32)


def _same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("loss", ["kd", "ce", "ce_logits"])
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.05), ("adam", 0.01)])
def test_a_student_learns(
    loss: str, optimizer: str, lr: float, data: DataSet, network: Network
) -> None:
    teacher = network(seed=9, width=12)
    labels_only = distillation_data(data).to("cpu")
    recipe = Recipe(loss="ce", epochs=4, lr=0.05, optimizer="sgd", batch_size=32)
    training = Training(teacher, labels_only, recipe)
    for _ in range(4):
        training.train_epoch()
    training.validate()
    resident = distillation_data(data, teacher, num_views=3).to("cpu")
    recipe = Recipe(loss=loss, epochs=8, lr=lr, optimizer=optimizer, batch_size=32)  # type: ignore[arg-type]
    student = Training(network(), resident, recipe)
    losses = [student.train_epoch()["train_loss"] for _ in range(8)]
    assert losses[-1] < 0.5 * losses[0]
    assert student.validate()["accuracy"] > 0.9


def test_squared_logits_pull_the_student_to_its_teacher(
    resident: DeviceData, network: Network
) -> None:
    recipe = Recipe(loss="logits_mse", epochs=8, lr=0.01, optimizer="adam", batch_size=32)
    training = Training(network(), resident, recipe)
    losses = [training.train_epoch()["train_loss"] for _ in range(8)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["one_cycle", "step"])
def test_a_loaded_training_continues_bit_for_bit(
    optimizer: str, schedule: str, resident: DeviceData, network: Network
) -> None:
    recipe = replace(_RECIPE, optimizer=optimizer, schedule=schedule, milestones=(3,))
    whole = Training(network(), resident, recipe, seed=5)
    expected = [{**whole.train_epoch(), **whole.validate()} for _ in range(4)]
    first = Training(network(), resident, recipe, seed=5)
    found = [{**first.train_epoch(), **first.validate()} for _ in range(2)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Training(network(seed=1), resident, recipe, seed=6)
    second.load_state_dict(torch.load(file, weights_only=True))
    found += [{**second.train_epoch(), **second.validate()} for _ in range(2)]
    assert found == expected
    assert _same(whole.module, second.module)
    assert second.epochs_done == 4


def test_a_saved_state_does_not_follow_the_training(resident: DeviceData, network: Network) -> None:
    training = Training(network(), resident, _RECIPE)
    training.train_epoch()
    state = training.state_dict()
    kept = copy.deepcopy(state)
    training.train_epoch()
    for key, value in kept["module"].items():
        assert torch.equal(state["module"][key], value)
    training.load_state_dict(state)
    training.train_epoch()
    again = Training(network(), resident, _RECIPE)
    again.load_state_dict(state)
    again.train_epoch()
    assert _same(training.module, again.module)


def test_the_seed_decides_the_training(resident: DeviceData, network: Network) -> None:
    trainings = [Training(network(), resident, _RECIPE, seed=seed) for seed in (0, 0, 1)]
    for training in trainings:
        training.train_epoch()
    assert _same(trainings[0].module, trainings[1].module)
    assert not _same(trainings[0].module, trainings[2].module)


def test_the_global_generator_is_neither_read_nor_moved(
    resident: DeviceData, network: Network
) -> None:
    modules = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        training = Training(network(), resident, _RECIPE)
        training.train_epoch()
        training.validate()
        assert torch.equal(before, torch.get_rng_state())
        modules.append(training.module)
    assert _same(*modules)


def test_the_shared_data_are_never_written(resident: DeviceData, network: Network) -> None:
    assert resident.logits is not None
    before = (resident.train.images.clone(), resident.logits.clone())
    training = Training(network(), resident, _RECIPE)
    training.train_epoch()
    training.validate()
    assert torch.equal(before[0], resident.train.images)
    assert torch.equal(before[1], resident.logits)


def test_validation_leaves_the_weights_and_the_further_training_alone(
    resident: DeviceData, network: Network
) -> None:
    watched, blind = (Training(network(), resident, _RECIPE) for _ in range(2))
    for _ in range(3):
        watched.train_epoch()
        watched.validate()
        blind.train_epoch()
    for one, two in zip(watched.module.parameters(), blind.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_training_that_blows_up_is_marked_and_not_raised(
    resident: DeviceData, network: Network
) -> None:
    recipe = replace(_RECIPE, lr=1e20, loss="logits_mse", schedule="constant", clip_norm=0.0)
    training = Training(network(), resident, recipe)
    training.train_epoch()
    assert training.diverged
    assert training.validate() == {"accuracy": 0.0, "loss": math.inf}
    assert training.state_dict()["diverged"]


@pytest.mark.parametrize("clip_norm", [0.01, 0.1])
def test_a_step_is_no_longer_than_the_gradients_limit(
    clip_norm: float, resident: DeviceData, network: Network
) -> None:
    """One plain SGD step of a too long gradient moves the weights by lr * clip_norm."""
    recipe = Recipe(
        epochs=1,
        optimizer="sgd",
        lr=2.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        batch_size=10_000,
        clip_norm=clip_norm,
    )
    training = Training(network(), resident, recipe)
    before = [weight.detach().clone() for weight in training.module.parameters()]
    training.train_epoch()
    moved = [new - old for new, old in zip(training.module.parameters(), before, strict=True)]
    length = torch.cat([change.flatten() for change in moved]).norm().item()
    assert length == pytest.approx(2.0 * clip_norm, rel=1e-3)


_TORCHS = {
    "adam": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.5),
    "adam_l2": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.5),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.5),
    "sgd nesterov": lambda p: torch.optim.SGD(
        p, lr=0.02, momentum=0.9, weight_decay=0.5, nesterov=True
    ),
}


def test_optimisers_step_as_torchs(data: DataSet) -> None:
    """Four full-batch steps at a constant rate, without a limit on the gradient."""
    labels_only = distillation_data(data, num_views=1).to("cpu")
    images = labels_only.train.take(torch.arange(len(labels_only.train)))
    ends = {}
    for name, make in _TORCHS.items():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        theirs = copy.deepcopy(module)
        recipe = Recipe(
            loss="ce",
            epochs=4,
            optimizer=name.split()[0],  # type: ignore[arg-type]
            nesterov=name != "sgd",
            lr=0.02,
            weight_decay=0.5,
            schedule="constant",
            batch_size=10_000,
            clip_norm=0.0,
        )
        training = Training(module, labels_only, recipe)
        optimiser = make(theirs.parameters())
        for _ in range(4):
            training.train_epoch()
            optimiser.zero_grad()
            nn.functional.cross_entropy(theirs(images), labels_only.train.labels).backward()
            optimiser.step()
        ends[name] = theirs[1].weight.detach()
        assert torch.allclose(module[1].weight, ends[name], atol=2e-6), name
    for one, other in itertools.combinations(ends, 2):  # else the test could not tell them apart
        assert (ends[one] - ends[other]).abs().max() > 1e-4, (one, other)


def test_students_can_be_judged_by_the_statistics_that_training_left(
    resident: DeviceData, network: Network
) -> None:
    training = Training(network(), resident, replace(_RECIPE, recalibrate=False))
    training.train_epoch()
    before = copy.deepcopy(training.module)
    found = training.validate()
    assert _same(training.module, before)
    assert found == evaluate_batches(before, resident.validation)
    training.recipe = _RECIPE
    training.validate()
    assert not _same(training.module, before)


def test_a_recipe_draws_no_more_views_than_it_asks_for(
    data: DataSet, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distillation sees the views that its teacher answered, a training by labels all of them."""
    resident = distillation_data(data, network(seed=9), num_views=20, num_answered=2).to("cpu")
    assert resident.logits is not None
    assert len(resident.logits) == 2
    seen: set[int] = set()
    take = DeviceBatches.take

    def spy(self: DeviceBatches, indices: torch.Tensor, view: torch.Tensor | int = 0) -> object:
        seen.update([view] if isinstance(view, int) else view.tolist())
        return take(self, indices, view)

    monkeypatch.setattr(DeviceBatches, "take", spy)
    for loss, views, expected in (("kd", 2, 2), ("ce", 20, 20)):
        seen.clear()
        recipe = replace(_RECIPE, loss=loss, views=views)  # type: ignore[arg-type]
        Training(network(), resident, recipe).train_epoch()
        assert seen == set(range(expected))
    with pytest.raises(AssertionError, match="no logits"):
        Training(network(), resident, replace(_RECIPE, views=3))


def test_weights_that_are_not_finite_are_found_in_validation(
    resident: DeviceData, network: Network
) -> None:
    training = Training(network(), resident, _RECIPE)
    with torch.no_grad():
        next(training.module.parameters()).fill_(math.nan)
    assert training.validate()["accuracy"] == 0
    assert training.diverged


def test_evaluation_is_accuracy_and_mean_cross_entropy(data: DataSet, network: Network) -> None:
    module = network()
    inputs = data.preprocessing(torch.from_numpy(data.test.images))
    with torch.no_grad():
        logits = module.eval()(inputs).double().numpy()
    labels = data.test.labels
    log_sum = np.log(np.exp(logits).sum(axis=1))
    expected = (log_sum - logits[np.arange(len(labels)), labels]).mean()
    found = evaluate(module, data.test.images, labels, data.preprocessing, batch_size=7)
    assert found["accuracy"] == (logits.argmax(axis=1) == labels).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluation_gives_the_module_back_in_its_mode(data: DataSet, network: Network) -> None:
    batches = DeviceBatches(data.test.images, data.test.labels, data.preprocessing)
    for mode in (True, False):
        module = network().train(mode)
        evaluate_batches(module, batches)
        assert module.training == mode


def test_recalibrated_statistics_are_those_of_the_training_images(resident: DeviceData) -> None:
    """A BatchNorm right after the input must see the inputs' own mean and variance."""
    norm = nn.BatchNorm2d(1)
    module = nn.Sequential(norm)
    recalibrate(module, resident.train)
    inputs = resident.train.take(torch.arange(len(resident.train)))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.item() == pytest.approx(inputs.mean().item(), abs=1e-4)
    assert norm.running_var.item() == pytest.approx(inputs.var().item(), rel=1e-2)
    assert norm.momentum == 0.1
    assert norm.training


def test_a_network_without_batch_norm_is_left_alone(resident: DeviceData) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = copy.deepcopy(module)
    recalibrate(module, resident.train)
    assert _same(module, before)


@pytest.mark.parametrize("batch_size", [1, 2, 163, 10_000])
def test_any_batch_size_trains(batch_size: int, data: DataSet, network: Network) -> None:
    resident = distillation_data(data).to("cpu")
    recipe = Recipe(loss="ce", epochs=1, lr=0.001, batch_size=batch_size)
    training = Training(network(), resident, recipe)
    assert math.isfinite(training.train_epoch()["train_loss"])


def test_both_memory_layouts_train_alike(resident: DeviceData, network: Network) -> None:
    losses = []
    for channels_last in (True, False):
        module = network(dropout=0.0)  # which draws its masks in the memory's order
        training = Training(module, resident, _RECIPE, channels_last=channels_last)
        losses.append([training.train_epoch()["train_loss"] for _ in range(2)])
        assert all(value.is_contiguous() for value in training.state_dict()["module"].values())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
