"""The curvature of the mean cross-entropy with regard to scalar switches: the diagonal of the generalised Gauss-Newton matrix (GGN).

Notation
    w       [S] the switches; f_b(w) in R^K the logits of sample b; p_b = softmax(f_b); J_b = df_b/dw, [K, S]
    A_b     diag(p_b) - p_b p_b^T, the Hessian of the cross-entropy in the logits, whatever the label
    L_b     diag(sqrt p_b) - p_b sqrt(p_b)^T, a root: L_b L_b^T = A_b, because sum p = 1
    H       (1 / B) sum_b J_b^T A_b J_b; wanted is its diagonal, which is >= 0

Three ways to the same diagonal:
* `exact_diagonal`: one backward pass a column of L, for all samples and all switches at once. A sample's gradient is its own, because every
  sample is given a copy of the switches.
* `probed_diagonal` (what runs use): r_b in {-1, 1}^K drawn for each sample, v_b = L_b r_b, so that E[v v^T] = A_b, and
  (1 / B) sum_b (J_b^T v_b)^2 is unbiased with one backward pass a probe. It is within the limit of 3 backward passes of a training step
  where the exact one is not (benchmarks/bayesnas.py): a cell's super-network has more switches than classes, so that one forward-mode
  pass a switch costs most of all.
* `forward_diagonal`: one `torch.func.jvp` a switch; needs no copies of the switches, so samples may depend on each other.

Samples must not see each other in the first two: BatchNorm in evaluation mode. The thesis's own diagonal, which is another one, is in
`trainables.bayesnas.recursion`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

Logits = Callable[[torch.Tensor], torch.Tensor]
"""[B, S] switches, a row a sample -> [B, K] logits."""

SharedLogits = Callable[[torch.Tensor], torch.Tensor]
"""[S] switches -> [B, K] logits."""


def exact_diagonal(logits_of: Logits, switches: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The diagonal by K backward passes: [S].

    Args:
        logits_of: samples independent of each other.
        switches: [S].
        batch_size: B.
    """
    copies, logits = _forward(logits_of, switches, batch_size)
    root = root_factor(logits.detach().softmax(dim=1))  # [B, K, K]
    total = torch.zeros_like(switches)
    num_classes = logits.shape[1]
    for column in range(num_classes):
        cotangent = root[:, :, column]
        total += _squares(copies, logits, cotangent, keep=column + 1 < num_classes)
    return total / batch_size


def probed_diagonal(
    logits_of: Logits,
    switches: torch.Tensor,
    batch_size: int,
    *,
    generator: torch.Generator,
    probes: int = 1,
) -> torch.Tensor:
    """An unbiased estimate of the diagonal by `probes` backward passes: [S].

    Args:
        logits_of: samples independent of each other.
        switches: [S].
        batch_size: B.
        generator: of the signs, on the CPU.
    """
    copies, logits = _forward(logits_of, switches, batch_size)
    p = logits.detach().softmax(dim=1)
    root = p.sqrt()
    total = torch.zeros_like(switches)
    for probe in range(probes):
        signs = torch.randint(2, logits.shape, generator=generator).to(p) * 2 - 1
        mixed = root * signs  # L r = sqrt(p) r - p sum(sqrt(p) r)
        cotangent = mixed - p * mixed.sum(dim=1, keepdim=True)
        total += _squares(copies, logits, cotangent, keep=probe + 1 < probes)
    return total / (probes * batch_size)


def forward_diagonal(logits_of: SharedLogits, switches: torch.Tensor) -> torch.Tensor:
    """The diagonal by one forward-mode pass a switch: [S].

    Args:
        logits_of: samples may depend on each other.
        switches: [S].
    """
    found = []
    for direction in torch.eye(len(switches), dtype=switches.dtype, device=switches.device):
        logits, tangent = cast(
            tuple[torch.Tensor, torch.Tensor],
            torch.func.jvp(logits_of, (switches,), (direction,)),
        )
        p = logits.softmax(dim=1)
        # t^T (diag p - p p^T) t is the variance of t under p
        mean = (p * tangent).sum(dim=1, keepdim=True)
        found.append((p * (tangent - mean).square()).sum(dim=1).mean())
    return torch.stack(found).detach()


def root_factor(p: torch.Tensor) -> torch.Tensor:
    """L with L L^T = diag(p) - p p^T: p [B, K] -> [B, K, K]."""
    root = p.sqrt()
    return torch.diag_embed(root) - p[:, :, None] * root[:, None, :]


def _forward(
    logits_of: Logits, switches: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        copies = switches.detach().expand(batch_size, -1).clone().requires_grad_()
        return copies, logits_of(copies)


def _squares(
    copies: torch.Tensor, logits: torch.Tensor, cotangent: torch.Tensor, *, keep: bool
) -> torch.Tensor:
    """sum_b (J_b^T v_b)^2; only the gradients of activations are computed on the way, none of weights."""
    (gradient,) = torch.autograd.grad(
        logits, copies, cotangent, retain_graph=keep, materialize_grads=True
    )
    return gradient.square().sum(dim=0)
