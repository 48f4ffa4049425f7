"""The learned kernel of ESNAC (Cao, Wang and Kitani, ICLR 2019, equation 4) as a GPyTorch kernel.

Notation
    x      a student's layer vectors, flat          h = g(x; theta)   its embedding, |h| = 1
    alpha  sigma^2, the squared length of the radial basis function; fixed

    k(x, x') = exp(-|h - h'|^2 / (2 sigma^2)),  so k lies in [exp(-2 / alpha), 1]
"""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.kernels import Kernel
from torch import Tensor, nn

ALPHA = 0.01
"""sigma^2 of the authors' public code; the paper gives no number."""


class LayerEmbedding(nn.Module):
    """An encoder of layer vectors as a map of flat inputs, which is what GPs take.

    Args:
        encoder: [B, L, F] in the precision of its weights -> [B, H].
        num_columns: F.
        num_features: D, numbers at the end of an input that are no layer's and are left out.
    """

    def __init__(self, encoder: nn.Module, num_columns: int, num_features: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_columns = num_columns
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., L F + D] -> [..., H], in the precision of x."""
        precision = next(self.encoder.parameters()).dtype
        flat = x[..., : x.shape[-1] - self.num_features].to(precision)
        layers = flat.reshape(-1, flat.shape[-1] // self.num_columns, self.num_columns)
        h = self.encoder(layers)  # [prod(...), H]
        return h.to(x.dtype).reshape(*x.shape[:-1], h.shape[-1])


class EmbeddingKernel(Kernel):
    """A radial basis function of learned embeddings.

    Args:
        embedding: [..., D] -> [..., H]; what the kernel learns.
        alpha: sigma^2.
        kwargs: `batch_shape`, `active_dims` of `gpytorch.kernels.Kernel`.
    """

    alpha: Tensor

    def __init__(self, embedding: nn.Module, alpha: float = ALPHA, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = embedding
        shape = (*self.batch_shape, 1, 1)  # of the batch, for GPyTorch's indexing of kernels
        self.register_buffer("alpha", torch.full(shape, alpha, dtype=torch.float64))

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
        h1 = self.embedding(x1)
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        h2 = h1 if same else self.embedding(x2)
        squared = self.covar_dist(h1, h2, diag=diag, square_dist=True, **params)
        alpha = self.alpha.to(squared.dtype)  # [..., 1, 1]
        return torch.exp(squared / (-2 * (alpha[..., 0] if diag else alpha)))
