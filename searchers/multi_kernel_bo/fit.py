"""Learning a kernel: the leave-one-out criterion (ESNAC, equation 5) by Adam, several kernels side by side.

Notation
    K_y    = K + beta I [n, n]           y [n] targets
    mu_i   = y_i - [K_y^-1 y]_i / [K_y^-1]_ii,   sigma_i^2 = 1 / [K_y^-1]_ii   (Rasmussen and Williams 2006, equation 5.12)
    L      = mean_i log N(y_i; mu_i, sigma_i^2), which GPyTorch's LeaveOneOutPseudoLikelihood computes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from gpytorch.mlls import LeaveOneOutPseudoLikelihood
from torch import Tensor

from searchers.multi_kernel_bo.model import LearnedKernelGP

EMA_SHARE = 0.5
LEAST_STEPS = 5


@dataclass(frozen=True)
class FitOptions:
    """How a kernel is learned; the defaults are those of the authors' public code.

    Attributes:
        lr, weight_decay: of Adam.
        max_steps: its steps at most.
        tolerance: it ends once L lies so near to its running mean.
    """

    lr: float = 1e-3
    weight_decay: float = 5e-4
    max_steps: int = 100
    tolerance: float = 1e-3


@dataclass(frozen=True)
class FitReport:
    """How a fit went: L after each step but the last."""

    log_likelihoods: tuple[float, ...]


def fit(
    model: LearnedKernelGP,
    options: FitOptions = FitOptions(),
    cancelled: Callable[[], bool] = lambda: False,
) -> FitReport:
    """Learns the model's embedding in place and leaves the model in eval mode.

    Args:
        model: with at least two training students.
        options: see `FitOptions`.
        cancelled: asked before each step; true ends the fit early.

    Raises:
        one of `searchers.surrogate.NUMERICAL_ERRORS`.
    """
    model.train()
    criterion = LeaveOneOutPseudoLikelihood(model.likelihood, model)
    parameters = list(model.embedding.parameters())
    # not fused: the fused step is for few large tensors, and its first use imports torch's compiler
    adam = torch.optim.Adam(parameters, lr=options.lr, weight_decay=options.weight_decay)
    history: list[float] = []
    mean = 0.0
    for step in range(options.max_steps):
        if cancelled():
            break
        adam.zero_grad()
        value = criterion(model.prior(), model.train_targets)
        assert isinstance(value, Tensor)
        (-value).backward()
        adam.step()
        history.append(value.item())
        mean = history[-1] if not step else EMA_SHARE * mean + (1 - EMA_SHARE) * history[-1]
        if step > LEAST_STEPS and abs(mean - history[-1]) < options.tolerance:
            break
    model.eval()
    return FitReport(tuple(history))


def fit_all(
    models: Sequence[LearnedKernelGP],
    options: FitOptions = FitOptions(),
    *,
    num_threads: int = 2,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[FitReport]:
    """Learns several kernels, each on one thread. The result does not depend on the number of threads."""
    with kernel_threads(num_threads) as pool:
        return list(pool.map(lambda model: fit(model, options, cancelled), models))


def kernel_threads(num_threads: int) -> ThreadPoolExecutor:
    """Threads that work on a kernel each, with one core each."""
    return ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
