"""One learned kernel's Gaussian process as a BoTorch model.

Zero mean, unit signal variance, fixed noise (the paper's form): only the embedding is learned, by `fit`.
"""

from __future__ import annotations

from typing import Any

import torch
from botorch.models import SingleTaskGP
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean
from linear_operator import to_linear_operator
from torch import Tensor, nn

from searchers.multi_kernel_bo.kernel import ALPHA, EmbeddingKernel

BETA = 0.05
"""Noise variance of the authors' public code; the paper gives no number."""


class LearnedKernelGP(SingleTaskGP):
    """A Gaussian process whose kernel embeds students.

    Args:
        train_X: [n, D] float64, flat layer vectors.
        train_Y: [n, 1] float64, as they are: nothing is standardised.
        embedding: [..., D] -> [..., H].
        alpha: squared length of the kernel in the embedding.
        beta: variance of the noise.
    """

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        embedding: nn.Module,
        *,
        alpha: float = ALPHA,
        beta: float = BETA,
    ) -> None:
        super().__init__(**_parts(train_X, train_Y, EmbeddingKernel(embedding, alpha), beta))
        # SingleTaskGP has made it float64, which would double its time
        self.embedding = embedding.float()
        self.alpha, self.beta = alpha, beta
        self._embedded: SingleTaskGP | None = None
        self._weights: Tensor | None = None

    def train(self, mode: bool = True) -> LearnedKernelGP:
        self._embedded = self._weights = None  # the embedding may change
        return super().train(mode)

    def prior(self) -> MultivariateNormal:
        """The prior of the training students' values.

        As GPyTorch's own `self(train_X)`, but by plain tensors: its lazy kernels switch a setting of the whole process, which kernels that
        are learned side by side would switch for each other, and leave switched.
        """
        (train_X,) = self.train_inputs  # pyright: ignore[reportGeneralTypeIssues]
        kernel = self.covar_module
        assert isinstance(kernel, EmbeddingKernel), "as the constructor makes it"
        zero = torch.zeros_like(self.train_targets)
        covariance = to_linear_operator(kernel.forward(train_X, train_X))
        return MultivariateNormal(zero, covariance)

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        """The posterior at X [..., q, D]; arguments as of `SingleTaskGP.posterior`.

        Taken in the embedding: it is the same process, and each student is embedded once, where GPyTorch's own way would embed the
        training students again for every batch.
        """
        self.eval()
        posterior = self.embedded().posterior(self.embedding(X), *args, **kwargs)
        assert isinstance(posterior, GPyTorchPosterior), "nothing is transformed"
        return posterior

    def means(self, X: Tensor) -> Tensor:
        """The posterior mean at each of n students [n, D]: [n]. Cheaper than `posterior` where no deviation is asked for.

        By its closed form: GPyTorch's way to leave the variances out is a setting of the whole process, so that every other thread's
        variances would become zero.
        """
        self.eval()
        embedded = self.embedded()
        (h,) = embedded.train_inputs  # pyright: ignore[reportGeneralTypeIssues]
        kernel = embedded.covar_module
        assert isinstance(kernel, EmbeddingKernel), "as embedded() makes it"
        if self._weights is None:
            with torch.no_grad():
                noise = self.beta * torch.eye(len(h)).to(h)
                factor = torch.linalg.cholesky(kernel.forward(h, h) + noise)
                self._weights = torch.cholesky_solve(embedded.train_targets[:, None], factor)
        return (kernel.forward(self.embedding(X), h) @ self._weights)[:, 0]

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each training value from all others, the noise included: [n], [n].

        The closed form of `fit.py`, with the embedding that was learned from all of them.
        """
        self.eval()
        embedded = self.embedded()
        (h,) = embedded.train_inputs  # pyright: ignore[reportGeneralTypeIssues]
        prior = embedded.likelihood(embedded.forward(h))
        inverse = torch.linalg.inv(prior.covariance_matrix)  # pyright: ignore[reportAttributeAccessIssue]
        variance = 1 / inverse.diagonal()
        return self.train_targets - inverse @ self.train_targets * variance, variance.sqrt()

    def embedded(self) -> SingleTaskGP:
        """The same process over embeddings: `train_X` are those of the training students [n, H]."""
        if self._embedded is None:
            (train_X,) = self.train_inputs  # pyright: ignore[reportGeneralTypeIssues]
            with torch.no_grad():
                h = self.embedding(train_X)
            train_Y = self.train_targets[:, None]
            kernel = EmbeddingKernel(nn.Identity(), self.alpha)
            self._embedded = SingleTaskGP(**_parts(h, train_Y, kernel, self.beta))
            self._embedded.eval()
        return self._embedded


def _parts(train_X: Tensor, train_Y: Tensor, kernel: nn.Module, beta: float) -> dict[str, Any]:
    """Arguments of a SingleTaskGP with zero mean and fixed noise."""
    likelihood = GaussianLikelihood().double()
    likelihood.noise = torch.tensor(beta, dtype=torch.float64)
    return {
        "train_X": train_X,
        "train_Y": train_Y,
        "likelihood": likelihood.requires_grad_(False),
        "covar_module": kernel,
        "mean_module": ZeroMean(),
        "outcome_transform": None,
    }
