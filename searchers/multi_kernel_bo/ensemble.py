"""Models of different kinds as one BoTorch model: a Gaussian process on hand-made features, and the learned kernels.

Notation
    X     [..., q, L F + D] students (`inputs.py`)
    mu_0  mean of the process on features, whose deviation is the calibrated one
    mu_k  mean of learned kernel k = 1 .. K

    w     weight of the process on features
    y_i   what was measured of student i; -i: predicted from all others

    mu = w mu_0 + (1 - w) sum_k mu_k / K,   sigma = sigma_0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from searchers.multi_kernel_bo.model import LearnedKernelGP
from searchers.surrogate import Surrogate


class FeatureGP(Model):
    """The Gaussian process of the method `gp` (`searchers.surrogate`), in the targets' own units.

    Args:
        train_X: [n, L F + D]; the last D columns are its inputs.
        train_Y: [n, 1].
        blocks: of the features.

    Raises:
        one of `searchers.surrogate.NUMERICAL_ERRORS`.
    """

    def __init__(self, train_X: Tensor, train_Y: Tensor, blocks: Sequence[slice]) -> None:
        super().__init__()
        self.num_features = max(block.stop for block in blocks)
        features = train_X[:, train_X.shape[-1] - self.num_features :]
        self._surrogate = Surrogate(features.numpy(), train_Y[:, 0].numpy(), blocks)

    @property
    def num_outputs(self) -> int:
        return 1

    def believe(self, features: np.ndarray) -> None:
        """Conditions on students [m, D] at their predicted means (kriging believer)."""
        self._surrogate.believe(features)

    def forget_beliefs(self) -> None:
        """Takes back what `believe` added."""
        self._surrogate.forget_beliefs()

    def predict(
        self, features: np.ndarray, *, noise: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation at students [m, D], of the target or of what a training would measure: [m], [m]."""
        return self._surrogate.predict(features, noise=noise)

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each training value from all others: [n], [n]."""
        return self._surrogate.leave_one_out()

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        """The posterior at X; arguments as of `SingleTaskGP.posterior`."""
        features = X[..., X.shape[-1] - self.num_features :]
        posterior = self._surrogate.model.posterior(features, *args, **kwargs)
        assert isinstance(posterior, GPyTorchPosterior), "nothing is transformed"
        standard, scale = posterior.distribution, self._surrogate.scale
        return GPyTorchPosterior(
            MultivariateNormal(
                standard.mean * scale + self._surrogate.mean,
                standard.lazy_covariance_matrix * scale**2,
            )
        )


def stacking_weight(y: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The weight of the first of two predictions of students, each predicted from all others, whose weighted mean errs the least.

    Least squares over [0, 1] (Wolpert, "Stacked Generalization", 1992; Breiman, "Stacked Regressions", 1996):
    w = sum_i (y_i - b_i) (a_i - b_i) / sum_i (a_i - b_i)^2.

    Args:
        y: [n] what was measured.
        first: [n] a.
        second: [n] b.

    Returns:
        1/2 where both predict the same.
    """
    difference = first - second
    square = float(difference @ difference)
    if not square > 0:
        return 0.5
    return min(max(float((y - second) @ difference) / square, 0.0), 1.0)


class AveragedModel(Model):
    """The process on features and the mean of the learned kernels, averaged; the deviation of the former.

    The learned kernels' own deviations are not calibrated (they vary by how far training went), so they count by their means only.

    Args:
        features: the process on features.
        learned: K fitted models; with none the process on features stands alone.
        weight: w, of the process on features.
    """

    def __init__(
        self, features: FeatureGP, learned: Sequence[LearnedKernelGP], weight: float = 0.5
    ) -> None:
        super().__init__()
        self.features = features
        self.weight = weight if learned else 1.0
        self.learned = list(
            learned
        )  # no ModuleList: an acquisition function would make their networks float64

    @property
    def num_outputs(self) -> int:
        return 1

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        """The posterior at X [..., q, L F + D]."""
        base = self.features.posterior(X, *args, **kwargs).distribution
        if not self.learned:
            return GPyTorchPosterior(base)
        learned = self.learned_means(X.reshape(-1, X.shape[-1])).reshape(X.shape[:-1])  # [..., q]
        mean = self.weight * base.mean + (1 - self.weight) * learned
        return GPyTorchPosterior(MultivariateNormal(mean, base.lazy_covariance_matrix))

    def learned_means(self, X: Tensor) -> Tensor:
        """sum_k mu_k / K at n students [n, L F + D]: [n]."""
        means = [
            model.means(X.to(model.train_targets.device)).to(X.device) for model in self.learned
        ]
        return torch.stack(means).mean(dim=0)
