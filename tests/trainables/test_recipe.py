"""Recipes as data, and the learning rate at every step."""

from __future__ import annotations

import json

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from raysearch.errors import ConfigError
from trainables.recipe import Recipe


def test_a_recipe_survives_json() -> None:
    recipe = Recipe(loss="ce_logits", schedule="step", milestones=(3, 5), lr=0.3, epochs=7)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_absent_keys_take_their_defaults() -> None:
    assert Recipe.from_dict({"lr": 0.5}) == Recipe(lr=0.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", "mse"),
        ("optimizer", "lion"),
        ("schedule", "none"),
        ("epochs", 0),
        ("batch_size", 0),
        ("views", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("temperature", -1.0),
        ("momentum", 1.5),
        ("alpha", -0.1),
        ("weight_decay", -1e-4),
        ("unknown", 1),
    ],
)
def test_a_wrong_value_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        Recipe.from_dict({key: value})


def _rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    num_steps = recipe.epochs * steps_per_epoch
    return [recipe.learning_rate(step, num_steps, steps_per_epoch) for step in range(num_steps)]


def _torch_rates(make: type, num_steps: int, lr: float, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer, **options)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    rates = _rates(Recipe(schedule="cosine", lr=0.2, epochs=4), 5)
    assert rates == pytest.approx(_torch_rates(CosineAnnealingLR, 20, 0.2, T_max=20))


def test_one_cycle_is_near_torchs() -> None:
    """Torch's ends one step before the last and peaks one step earlier; with many steps that is all the difference."""
    rates = _rates(Recipe(lr=0.2, epochs=10), 100)
    expected = _torch_rates(OneCycleLR, 1000, 0.2, max_lr=0.2, total_steps=1001)
    assert rates == pytest.approx(expected, abs=0.2 * 5e-3)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (4, 19), (20, 100)])
def test_annealed_schedules_end_near_zero_and_reach_their_peak(
    schedule: str, epochs: int, steps: int
) -> None:
    rates = _rates(Recipe(schedule=schedule, lr=0.1, epochs=epochs), steps)  # type: ignore[arg-type]
    assert min(rates) > 0
    assert rates[-1] <= 0.1 * 2.5 * (1.5 / (epochs * steps)) ** 2 + 0.1 * 0.36 * (
        epochs * steps < 10
    )
    assert max(rates) == pytest.approx(0.1, rel=0.06)


def test_step_falls_at_each_milestone() -> None:
    recipe = Recipe(schedule="step", milestones=(2, 3), gamma=0.1, lr=1.0, epochs=4)
    assert _rates(recipe, 2) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_is_constant() -> None:
    assert set(_rates(Recipe(schedule="constant", lr=0.3), 5)) == {0.3}


def test_only_plain_cross_entropy_needs_no_teacher() -> None:
    assert not Recipe(loss="ce").needs_teacher
    assert Recipe(loss="kd").needs_teacher
