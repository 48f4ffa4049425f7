"""The losses of training and of compression (sections 4.3 and 4.4 of the paper, eqs 12 to 17), as functions of tensors.

Notation
    a_hat, a*   predicted and measured accuracy            p_hat, p*   predicted and true size, standardised
    a_0, p_0    the targets of compression                 l1, l2      weights of L_a and L_p in training
    lambda      weight of L_p in compression
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from searchers.embedding_gradient.inputs import NUM_TYPES, WIDTH, Sequences

DELTA = 1.0
"""Of the Huber loss, eq 14."""
TINY = 1e-12
"""Keeps the gradient of a norm finite at zero."""


def reconstruction(output: Tensor, target: Sequences, *, raw: bool) -> Tensor:
    """L_d, eq 12: how far the decoder is from the sequence.

    raw: the norm of the error of the five numbers, as eq 12 is printed, over all T_max rows, padding included, since T must be found
    (it has T + 1 terms). The text calls it a mean squared error; with that, widths of up to 4096 and the paper's rate the fit
    diverges in its second step. Ours: cross-entropy of the type and squared error of the attributes of
    layers that are there. DEVIATION: a type is no number, and raw widths drown the rest.

    Args:
        output: [B, F, T_max] the decoder's.
        target: B sequences.
        raw: the paper's form.
    """
    if raw:
        return (output - target.x).square().sum(1).clamp(min=TINY).sqrt().mean()
    kinds = F.cross_entropy(output[:, :NUM_TYPES], target.types)
    present = (target.types != 0).float()[:, :, None]  # [B, T_max, 1]
    error = (output[:, NUM_TYPES:].transpose(1, 2) - target.attributes).square() * present
    total = present.sum().clamp(min=1)
    width = error[:, :, WIDTH].sum() / total
    return kinds + width + (error.sum() / total - width) / (error.shape[2] - 1)


def accuracy_loss(a_hat: Tensor, a: Tensor, weight: Tensor | None = None) -> Tensor:
    """L_a = |a_hat - a*|, eq 13: the mean over everything, or a weighted one.

    Args:
        a_hat: [M, B]
        a: [B] or a number's tensor.
        weight: [M, B]
    """
    error = (a_hat - a).abs()
    return error.mean() if weight is None else (error * weight).sum() / weight.sum()


def size_loss(p_hat: Tensor, p: Tensor) -> Tensor:
    """L_p = Huber(p_hat - p*) with delta 1, eq 14: the mean."""
    error = (p_hat - p).abs()
    return torch.where(error < DELTA, 0.5 * error.square(), DELTA * (error - 0.5 * DELTA)).mean()


def joint(L_d: Tensor, L_a: Tensor, L_p: Tensor, l1: float, l2: float) -> Tensor:
    """L = L_d + l1 L_a + l2 L_p, eq 15."""
    return L_d + l1 * L_a + l2 * L_p


def compression_loss(
    a_hat: Tensor, p_hat: Tensor, lam: Tensor, a_0: float, p_0: float, *, below_is_fine: bool
) -> Tensor:
    """L_c = |a_hat - a_0| + lambda Huber(p_hat - p_0) of each network, eqs 16 and 17.

    Args:
        a_hat: [B]
        p_hat: [B]
        lam: [B] lambda.
        a_0, p_0: the targets; the paper's are 1 and 0.
        below_is_fine: a network smaller than p_0 costs nothing (a budget), else it does (the paper).

    Returns:
        [B]
    """
    error = p_hat - p_0
    error = F.relu(error) if below_is_fine else error.abs()
    huber = torch.where(error < DELTA, 0.5 * error.square(), DELTA * (error - 0.5 * DELTA))
    return (a_hat - a_0).abs() + lam * huber
