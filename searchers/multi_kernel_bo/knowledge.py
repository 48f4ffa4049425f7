"""What the learned kernels know: leave-one-out predictions, and where each student lies in their embeddings (see `searchers.insight`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from searchers.multi_kernel_bo.model import LearnedKernelGP


def left_out(
    kernels: Sequence[LearnedKernelGP], rows: Sequence[np.ndarray], X: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Means of the kernels' predictions of each student from all others, and root mean squares of their deviations: [n], [n].

    A kernel that has not seen a student predicts it as it is; one that has seen it, without it.

    Args:
        kernels: K learned ones; the first student of each is the teacher.
        rows: which of the students each of them saw, K arrays.
        X: [n, ...] the students.
    """
    means, variances = [], []
    for kernel, seen in zip(kernels, rows, strict=True):
        posterior = kernel.posterior(X.to(kernel.train_targets.device), observation_noise=True)
        mean, variance = posterior.mean[:, 0].cpu(), posterior.variance[:, 0].cpu()
        without, deviation = (part.cpu()[1:] for part in kernel.leave_one_out())
        mean[seen], variance[seen] = without, deviation.square()
        means.append(mean)
        variances.append(variance)
    return torch.stack(means).mean(0).numpy(), torch.stack(variances).mean(0).sqrt().numpy()


def embeddings(kernels: Sequence[LearnedKernelGP], X: Tensor) -> np.ndarray:
    """The students' places in all embeddings side by side: [n, K H]."""
    places = [kernel.embedding(X.to(kernel.train_targets.device)).cpu() for kernel in kernels]
    return torch.cat(places, dim=1).numpy()
