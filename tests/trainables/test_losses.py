"""The losses against hand-valued cases and torch's own functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from trainables.losses import ce_logits, kd, loss_function, softened_kl, squared_logits
from trainables.recipe import Recipe


def _logits(seed: int) -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


_STUDENT, _TEACHER, _LABELS = _logits(0), _logits(1), torch.tensor([0, 3, 1, 1, 2])


def test_squared_logits_sum_over_classes_and_average_over_images() -> None:
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert squared_logits(student, teacher).item() == (1 + 4 + 9 + 16) / 2


def test_squared_logits_are_classes_times_torchs_mean() -> None:
    expected = 4 * functional.mse_loss(_STUDENT, _TEACHER)
    assert squared_logits(_STUDENT, _TEACHER).item() == pytest.approx(expected.item())


def test_squared_logits_can_be_torchs_mean() -> None:
    recipe = Recipe(loss="logits_mse", mean_over_classes=True)
    expected = functional.mse_loss(_STUDENT, _TEACHER)
    assert loss_function(recipe)(_STUDENT, _TEACHER, _LABELS).item() == expected.item()


def test_softened_kl_by_hand() -> None:
    student = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor(
        [[2 * math.log(3.0), 0.0]], dtype=torch.float64
    )  # p = (3/4, 1/4) at T = 2
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert softened_kl(student, teacher, 2.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_softened_kl_is_torchs(temperature: float) -> None:
    expected = functional.kl_div(
        functional.log_softmax(_STUDENT / temperature, dim=1),
        functional.softmax(_TEACHER / temperature, dim=1),
        reduction="batchmean",
    )
    assert softened_kl(_STUDENT, _TEACHER, temperature).item() == pytest.approx(expected.item())


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it() -> None:
    assert softened_kl(_TEACHER, _TEACHER, 4.0).item() == pytest.approx(0, abs=1e-12)
    assert squared_logits(_TEACHER, _TEACHER).item() == 0


def test_kd_mixes_labels_and_teacher() -> None:
    hard = functional.cross_entropy(_STUDENT, _LABELS).item()
    soft = 9 * softened_kl(_STUDENT, _TEACHER, 3.0).item()
    for alpha in (0.0, 0.3, 1.0):
        mixed = kd(_STUDENT, _TEACHER, _LABELS, alpha=alpha, temperature=3.0).item()
        assert mixed == pytest.approx(alpha * hard + (1 - alpha) * soft)


def test_the_softened_gradient_keeps_its_size_at_high_temperature() -> None:
    """Hinton et al. 2015, section 2.1: T^2 KL tends to 1 / (2 K) ||s - t||^2 for zero-mean logits."""
    student = (_STUDENT - _STUDENT.mean(dim=1, keepdim=True)).requires_grad_()
    teacher = _TEACHER - _TEACHER.mean(dim=1, keepdim=True)
    kd(student, teacher, _LABELS, alpha=0.0, temperature=1e5).backward()
    assert student.grad is not None
    expected = (student.detach() - teacher) / (4 * 5)
    assert torch.allclose(student.grad, expected, rtol=1e-3, atol=1e-5)


def test_ce_logits_adds_the_squared_logits() -> None:
    expected = functional.cross_entropy(_STUDENT, _LABELS) + 0.2 * squared_logits(
        _STUDENT, _TEACHER
    )
    assert ce_logits(_STUDENT, _TEACHER, _LABELS, beta=0.2).item() == pytest.approx(expected.item())


def test_a_recipe_names_its_loss_and_constants() -> None:
    expected = {
        "ce": functional.cross_entropy(_STUDENT, _LABELS),
        "logits_mse": squared_logits(_STUDENT, _TEACHER),
        "ce_logits": ce_logits(_STUDENT, _TEACHER, _LABELS, beta=0.7),
        "kd": kd(_STUDENT, _TEACHER, _LABELS, alpha=0.2, temperature=5.0),
    }
    for name, value in expected.items():
        recipe = Recipe(loss=name, alpha=0.2, temperature=5.0, beta=0.7)  # type: ignore[arg-type]
        assert loss_function(recipe)(_STUDENT, _TEACHER, _LABELS).item() == value.item()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_gradient_of_kd_by_hand_is_autograds(alpha: float) -> None:
    student = _STUDENT.clone().requires_grad_()
    expected = alpha * functional.cross_entropy(student, _LABELS)
    expected = expected + (1 - alpha) * 9 * softened_kl(student, _TEACHER, 3.0)
    found = kd(student, _TEACHER, _LABELS, alpha=alpha, temperature=3.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    (wanted,) = torch.autograd.grad(2 * expected, student)
    (given,) = torch.autograd.grad(2 * found, student)
    assert torch.allclose(given, wanted, rtol=1e-12, atol=1e-14)
