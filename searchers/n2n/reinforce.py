"""REINFORCE with a moving-average baseline (N2N, equation 2).

    grad J = 1/m sum_k sum_t grad log P(a_t | h_t) (R_k - b)

DEVIATION from the authors' code, towards the paper: each rollout is credited with its own reward (the code takes the batch's mean for
all), and a batch is one step of Adam. b: the paper's moving average of earlier rewards, its decay not given; the code divides the sum of n
batch means by n + 1, which is biased to zero.

Notation: m rollouts of a batch, T steps, A actions, R_k rewards, b baseline, V_t the critic's value of h_t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probs_of(logits: Tensor, actions: Tensor, free: Tensor) -> Tensor:
    """log P(a_t | h_t), 0 at forced steps: [m, T].

    Args:
        logits: [m, T, A].
        actions: [m, T] int64.
        free: [T] bool, where the policy decides.
    """
    chosen = F.log_softmax(logits, -1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)  # [m, T]
    return torch.where(free, chosen, 0.0)


def policy_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Whose negative gradient is equation 2.

    Args:
        log_probs: [m, T].
        advantages: [m, 1] or [m, T], R_k - b or R_k - V_t; no gradient flows through them.
    """
    return -(log_probs * advantages.detach()).sum(1).mean()


def entropy_of(logits: Tensor, free: Tensor) -> Tensor:
    """The mean over rollouts of the policy's entropies, in nats, summed over the free steps: a scalar.

    Args:
        logits: [m, T, A].
        free: [T] bool.
    """
    log_p = F.log_softmax(logits, -1)
    each = -(log_p.exp() * log_p).sum(-1)  # [m, T]
    return torch.where(free, each, 0.0).sum(1).mean()


def value_loss(values: Tensor, rewards: Tensor, free: Tensor) -> Tensor:
    """The critic's mean squared error over rollouts and free steps (section 6): a scalar.

    Args:
        values: [m, T].
        rewards: [m].
        free: [T] bool, at least one true.
    """
    return (values - rewards[:, None])[:, free].square().mean()


@dataclass
class Baseline:
    """b: the exponential moving average of batch means.

    Attributes:
        decay: of what was known before; 0 takes the last batch's mean.
        value: b; None before the first batch, whose own mean it is then.
    """

    decay: float
    value: float | None = None

    def before(self, mean: float) -> float:
        """b for a batch of this mean: what was known before it."""
        return mean if self.value is None else self.value

    def update(self, mean: float) -> None:
        """Takes a batch's mean in, after b was used."""
        self.value = self.decay * self.before(mean) + (1 - self.decay) * mean
