"""The distillation losses, as pure functions of logits.

Notation
    s: [B, K] the student's logits; t: [B, K] the teacher's logits; y: [B] int64 labels.
    CE(s, y) = -1/B sum_b log softmax(s_b)[y_b]
    L2(s, t) = 1/B sum_b ||s_b - t_b||_2^2, raw logits, summed over the K classes (Ashok et al., N2N, section 3.3; their code uses
        torch's MSELoss, which is L2 / K)
    KL(s, t) = 1/B sum_b sum_k p_bk (log p_bk - log q_bk), p = softmax(t / T), q = softmax(s / T) (Hinton et al. 2015)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, log_softmax, mse_loss, nll_loss

from trainables.recipe import Recipe

Loss = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor]
"""(s [B, K], t [B, K] or None, y [B]) -> scalar."""


def squared_logits(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L2(s, t): student, teacher: [B, K]."""
    return (student - teacher).square().sum(dim=1).mean()


def softened_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(s, t) at temperature T, not yet times T^2: student, teacher: [B, K]."""
    log_q = log_softmax(student / temperature, dim=1)
    log_p = log_softmax(teacher / temperature, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def kd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    alpha: float,
    temperature: float,
) -> torch.Tensor:
    """alpha CE(s, y) + (1 - alpha) T^2 KL(s, t)."""
    return _KD.apply(student, teacher, labels, alpha, temperature)  # pyright: ignore[reportReturnType] - apply has no types


class _KD(torch.autograd.Function):
    """`kd` with its gradient in s by hand, a third of autograd's operations on tensors of a few hundred numbers.

    d kd / d s_b = 1/B [alpha (softmax(s_b) - onehot(y_b)) + (1 - alpha) T (q_b - p_b)]
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        teacher: torch.Tensor,
        labels: torch.Tensor,
        alpha: float,
        temperature: float,
    ) -> torch.Tensor:
        log_q = log_softmax(student / temperature, dim=1)
        log_p = log_softmax(teacher / temperature, dim=1)
        log_s = log_softmax(student, dim=1)
        p = log_p.exp()
        soft = torch.dot(p.flatten(), log_p.sub_(log_q).flatten())
        hard, share = nll_loss(log_s, labels), 1 / len(labels)
        if ctx.needs_input_grad[0]:
            gradient = log_q.exp_().sub_(p).mul_((1 - alpha) * temperature * share)
            gradient.add_(log_s.exp_(), alpha=alpha * share)
            ones = torch.full_like(labels, -alpha * share, dtype=gradient.dtype)
            ctx.save_for_backward(gradient.scatter_add_(1, labels[:, None], ones[:, None]))
        return hard.mul_(alpha).add_(soft, alpha=(1 - alpha) * temperature**2 * share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - once_differentiable's type
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None, None, None


def ce_logits(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """CE(s, y) + beta L2(s, t)."""
    return cross_entropy(student, labels) + beta * squared_logits(student, teacher)


def loss_function(recipe: Recipe) -> Loss:
    """The recipe's loss with its constants bound."""
    if recipe.loss == "ce":
        return lambda student, teacher, labels: cross_entropy(student, labels)
    if recipe.loss == "logits_mse" and recipe.mean_over_classes:
        return lambda student, teacher, labels: mse_loss(student, _given(teacher))
    if recipe.loss == "logits_mse":
        return lambda student, teacher, labels: squared_logits(student, _given(teacher))
    if recipe.loss == "ce_logits":
        return lambda student, teacher, labels: ce_logits(
            student, _given(teacher), labels, beta=recipe.beta
        )
    return lambda student, teacher, labels: kd(
        student, _given(teacher), labels, alpha=recipe.alpha, temperature=recipe.temperature
    )


def _given(teacher: torch.Tensor | None) -> torch.Tensor:
    assert teacher is not None, "this loss needs the teacher's logits"
    return teacher
