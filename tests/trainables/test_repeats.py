"""Several initialisations of one student: each is the training that it would be alone, and what is reported is their mean."""

from __future__ import annotations

import io

import pytest
import torch

from raysearch.data import DeviceData
from trainables.recipe import Recipe
from trainables.repeats import RepeatedTraining, repeat_seeds
from trainables.training import Training

from .conftest import Network

RECIPE = Recipe(epochs=3, lr=0.05, batch_size=32)


def repeated(network: Network, data: DeviceData, count: int = 3, seed: int = 5) -> RepeatedTraining:
    return RepeatedTraining(lambda own: network(own % 1000), data, RECIPE, seed=seed, count=count)


def test_each_training_is_what_it_is_alone(resident: DeviceData, network: Network) -> None:
    together = repeated(network, resident)
    for _ in range(3):
        together.train_epoch()
    alone = []
    for seed, kept in zip(repeat_seeds(5, 3), together.trainings, strict=True):
        training = Training(network(seed % 1000), resident, RECIPE, seed=seed)
        alone.append([])
        for _ in range(3):
            training.train_epoch()
            alone[-1].append(training.validate())
        for one, two in zip(training.module.parameters(), kept.module.parameters(), strict=True):
            assert torch.equal(one, two)
    assert together.complete
    assert together.epochs_trained == 9
    for epoch, point in enumerate(together.curve):
        assert point["epoch"] == epoch + 1
        for name in ("accuracy", "loss"):
            single = [points[epoch][name] for points in alone]
            assert point[f"{name}_repeats"] == single
            assert point[name] == pytest.approx(sum(single) / 3)


def test_one_initialisation_is_a_plain_training(resident: DeviceData, network: Network) -> None:
    single = repeated(network, resident, count=1)
    single.train_epoch()
    assert set(single.curve[0]) == {"epoch", "accuracy", "loss"}
    plain = Training(network(5), resident, RECIPE, seed=5)
    plain.train_epoch()
    assert single.curve[0]["loss"] == plain.validate()["loss"]


def test_a_state_of_the_middle_of_an_epoch_continues_bit_for_bit(
    resident: DeviceData, network: Network
) -> None:
    whole, first = repeated(network, resident), repeated(network, resident)
    states: list[bytes] = []

    def save() -> None:
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        states.append(file.getvalue())

    for _ in range(2):
        whole.train_epoch()
        first.train_epoch(save)
    assert len(states) == 4  # between the three trainings of each epoch
    for saved in states:
        second = repeated(network, resident, seed=99)
        second.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))
        while second.epochs_done < 2:
            second.train_epoch()
        assert second.curve == whole.curve
        for one, two in zip(whole.trainings, second.trainings, strict=True):
            assert all(map(torch.equal, one.module.parameters(), two.module.parameters()))


def test_accuracies_of_classes_are_means_too(resident: DeviceData, network: Network) -> None:
    classes = RepeatedTraining(network, resident, RECIPE, seed=0, count=2, num_classes=4)
    classes.train_epoch()
    single = [training.validate(4)["class_accuracy"] for training in classes.trainings]
    found = classes.curve[0]["class_accuracy"]
    assert found[3] is None  # no image has that label
    assert found[:3] == pytest.approx(
        [(a + b) / 2 for a, b in zip(*single, strict=True) if a is not None]
    )


def test_seeds_differ_and_begin_with_the_runs_own() -> None:
    seeds = repeat_seeds(3, 50)
    assert seeds[0] == 3
    assert len(set(seeds)) == 50
    assert repeat_seeds(3, 5) == seeds[:5]
    assert not set(seeds) & set(repeat_seeds(4, 50))
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_best_is_that_of_the_last_epoch(resident: DeviceData, network: Network) -> None:
    together = repeated(network, resident)
    together.train_epoch()
    losses = together.curve[0]["loss_repeats"]
    best = together.best(lambda point: -point["loss"])
    assert best is together.trainings[losses.index(min(losses))]
    assert together.best(lambda point: 0.0) is together.trainings[0]
