"""The Gaussian process of `searchers.gp`: a Matern-5/2 kernel on hand-made features, and log expected improvement.

The only module here that imports BoTorch when it is imported.

Notation
    X        [n, D] features of evaluated students          y   [n] their targets, standardised inside
    c        [m] R_c = C (2 - C) of candidates, known exactly (ones where the target is the objective itself)
    mu, sd   posterior of the target a; the objective is f = c a, so f ~ N(c mu, (c sd)^2)
    f*       the incumbent: the best predicted objective of the evaluated students
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.exceptions import ModelFittingError, OptimizationWarning
from botorch.models import SingleTaskGP
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

NUMERICAL_ERRORS = (
    NotPSDError,
    NanError,
    ModelFittingError,
    torch.linalg.LinAlgError,  # pyright: ignore[reportPrivateImportUsage]  # documented there
)
"""What a fit or a posterior may raise on unlucky data; everything else is a bug."""

FIT_OPTIONS = {"maxiter": 50, "ftol": 1e-6}
"""Of L-BFGS: a fit takes 10 to 40 steps; going on to scipy's own tolerance moves predictions by a fraction of the noise."""


class BlockMatern(Kernel):
    """Matern-5/2 with one length scale for each block of features.

    k(x, x') = (1 + s + s^2 / 3) exp(-s),  s^2 = 5 sum_b |x_b - x'_b|^2 / (|b| l_b^2): a block counts by its mean squared distance, so
    that one of fifty bits does not outweigh a single number. Lengths have a log-normal prior around e^0.5.

    Args:
        blocks: the columns of each block; together all columns, in order.
    """

    length: Tensor
    _block_of: Tensor
    _root_size: Tensor

    def __init__(self, blocks: Sequence[slice]) -> None:
        super().__init__()
        prior = LogNormalPrior(0.5, 1.0)
        lower = GreaterThan(2.5e-2, transform=None)  # pyright: ignore[reportArgumentType]
        initial = torch.full((len(blocks),), float(prior.mode), dtype=torch.float64)
        self.register_parameter("length", torch.nn.Parameter(initial))  # [number of blocks]
        self.register_constraint("length", lower)
        self.register_prior("length_prior", prior, "length")
        sizes = torch.tensor([block.stop - block.start for block in blocks])
        self.register_buffer("_block_of", torch.repeat_interleave(sizes))  # [D]
        self.register_buffer("_root_size", sizes.double().sqrt())

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """x1: [..., n, D], x2: [..., m, D] -> [..., n, m], or [..., n] where diag."""
        del last_dim_is_batch
        distance = self.covar_dist(self.scaled(x1), self.scaled(x2), diag=diag, **params)
        s = math.sqrt(5) * distance
        return (1 + s + s.square() / 3) * torch.exp(-s)

    def scaled(self, x: Tensor) -> Tensor:
        """Features in units of the lengths, where the plain distance is the kernel's: [..., D]."""
        return x / (self.length * self._root_size)[self._block_of]


class Surrogate:
    """A fitted model of the target over features.

    Args:
        x: [n, D] features, n >= 2.
        y: [n] targets.
        blocks: the columns of the features' blocks; None: one block.

    Raises:
        one of NUMERICAL_ERRORS.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, blocks: Iterable[slice] | None = None) -> None:
        self.mean, self.scale = float(np.mean(y)), float(np.std(y)) or 1.0
        inputs = torch.as_tensor(x, dtype=torch.float64)  # [n, D]
        targets = torch.as_tensor((y - self.mean) / self.scale, dtype=torch.float64)
        every = blocks or [slice(0, x.shape[1])]
        self._kernel = BlockMatern([block for block in every if block.stop > block.start])
        self.model = SingleTaskGP(
            inputs,
            targets[:, None],
            likelihood=_likelihood(),
            covar_module=self._kernel,
            outcome_transform=None,
        )
        _fit(ExactMarginalLogLikelihood(self.model.likelihood, self.model))
        self._observed = inputs, targets

    def predict(self, x: np.ndarray, *, noise: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free target, or of what a training would measure: [m], [m].

        Raises:
            NanError: they are not finite.
        """
        with torch.no_grad():
            inputs = torch.as_tensor(x, dtype=torch.float64)
            posterior = self.model.posterior(inputs, observation_noise=noise)
        mean = posterior.mean[:, 0].numpy() * self.scale + self.mean
        variance = posterior.variance[:, 0].detach()  # the noise has a gradient
        sd = variance.sqrt().numpy() * self.scale
        if not np.isfinite([mean, sd]).all():
            raise NanError("the model's predictions are not finite")
        return mean, sd

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each target from all others, the noise included: [n], [n].

        Rasmussen and Williams, Gaussian Processes for Machine Learning, eqs 5.10 to 5.12: mu_i = y_i - [Ky^-1 y]_i / [Ky^-1]_ii and
        var_i = 1 / [Ky^-1]_ii. Lengths, noise and level stay those that were fitted to all.
        """
        inputs, targets = self._observed
        with torch.no_grad():
            prior = self.model.likelihood(self.model.forward(inputs))  # of the measured targets
            assert isinstance(prior, MultivariateNormal), "a Gaussian likelihood"
            chol = torch.linalg.cholesky(prior.covariance_matrix)
            inverse = torch.cholesky_inverse(chol)  # Ky^-1
            variance = 1 / inverse.diagonal()
            mean = targets - inverse @ (targets - prior.mean) * variance
        return mean.numpy() * self.scale + self.mean, variance.sqrt().numpy() * self.scale

    def embed(self, x: np.ndarray) -> np.ndarray:
        """Features in units of the learned lengths: [m, D]."""
        with torch.no_grad():
            return self._kernel.scaled(torch.as_tensor(x, dtype=torch.float64)).numpy()

    def believe(self, x: np.ndarray) -> None:
        """Conditions on outstanding students at their predicted means (kriging believer, Ginsbourger et al. 2010).

        Their own means do not move by it, so that one step for all equals one after the other.
        """
        believed, _ = self.predict(x)
        standard = torch.as_tensor((believed - self.mean) / self.scale)
        assert isinstance(self.model.train_inputs, tuple)
        inputs = torch.cat([self.model.train_inputs[0], torch.as_tensor(x, dtype=torch.float64)])
        targets = torch.cat([self.model.train_targets, standard])
        self.model.set_train_data(inputs, targets, strict=False)

    def forget_beliefs(self) -> None:
        """Takes back what `believe` added."""
        self.model.set_train_data(*self._observed, strict=False)

    def log_ei(self, x: np.ndarray, c: np.ndarray, best_f: float) -> np.ndarray:
        """Log expected improvement of f = c a over the incumbent.

        E[(c a - f*)+] = c E[(a - f*/c)+], so it is that of the target over f*/c, plus log c.

        Args:
            x: [m, D] candidates.
            c: [m] positive.
            best_f: f*, in the objective's units.

        Returns:
            [m]
        """
        threshold = torch.as_tensor((best_f / c - self.mean) / self.scale, dtype=torch.float64)
        acquisition = LogExpectedImprovement(self.model, best_f=threshold[:, None])
        with torch.no_grad():
            values = acquisition(torch.as_tensor(x, dtype=torch.float64)[:, None])  # [m]
        return values.numpy() + np.log(c * self.scale)


def _likelihood() -> GaussianLikelihood:
    """Noise of which about half of all variance is expected.

    A short training with another seed gives another value, and within a budget that is as much as students differ by. On the tables of
    trained students this prior predicts better at every budget than BoTorch's own (which expects 2 %), by rank and by density.
    """
    prior = LogNormalPrior(math.log(0.5), 0.7)
    constraint = GreaterThan(1e-4, transform=None, initial_value=prior.mode)  # pyright: ignore[reportArgumentType]
    return GaussianLikelihood(noise_prior=prior, noise_constraint=constraint).double()


def _fit(mll: ExactMarginalLogLikelihood) -> None:
    """Maximises the marginal likelihood with the priors by L-BFGS, from the priors' modes.

    BoTorch's own `fit_gpytorch_mll` starts again from draws of the global generator when the line search ends early, which would
    make a search depend on what ran before it; where L-BFGS ends is good enough.

    Raises:
        ModelFittingError: it ended outside the numbers.
    """
    mll.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizationWarning)
        fit_gpytorch_mll_scipy(mll, options=dict(FIT_OPTIONS))
    mll.eval()
    if not all(bool(parameter.isfinite().all()) for parameter in mll.parameters()):
        raise ModelFittingError("the hyper-parameters are not finite")
