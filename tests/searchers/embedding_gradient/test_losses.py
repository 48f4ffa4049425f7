"""The losses against closed forms and PyTorch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from searchers.embedding_gradient.inputs import NUM_TYPES, Sequences
from searchers.embedding_gradient.losses import (
    accuracy_loss,
    compression_loss,
    joint,
    reconstruction,
    size_loss,
)


def test_the_size_loss_is_pytorchs_huber_loss_with_delta_one():
    p_hat = torch.tensor([-3.0, -1.0, -0.2, 0.0, 0.4, 1.0, 5.0])
    p = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert torch.allclose(size_loss(p_hat, p), torch.nn.HuberLoss(delta=1.0)(p_hat, p))


def test_the_accuracy_loss_is_the_mean_absolute_error_and_weights_count():
    a_hat, a = torch.tensor([[0.2, 0.9], [0.6, 0.7]]), torch.tensor([0.5, 0.5])
    assert accuracy_loss(a_hat, a).item() == pytest.approx((0.3 + 0.4 + 0.1 + 0.2) / 4)
    weight = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert accuracy_loss(a_hat, a, weight).item() == pytest.approx((0.3 + 3 * 0.1) / 4)


def test_the_joint_loss_is_equation_15():
    parts = (torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0))
    assert joint(*parts, 0.5, 0.25).item() == 3.0


def test_compression_is_equation_17_and_a_budget_makes_small_ones_free():
    a_hat, p_hat = torch.tensor([0.9, 0.4]), torch.tensor([2.0, -0.5])
    lam = torch.tensor([1.0, 2.0])
    found = compression_loss(a_hat, p_hat, lam, 1.0, 0.0, below_is_fine=False)
    assert found.tolist() == pytest.approx([0.1 + 1.5, 0.6 + 2 * 0.125])
    within = compression_loss(a_hat, p_hat, lam, 1.0, 0.0, below_is_fine=True)
    assert within.tolist() == pytest.approx([0.1 + 1.5, 0.6])


def sequences():
    """Two layers and a row of padding."""
    types = torch.tensor([[1, 4, 0]])
    attributes = torch.tensor([[[1.0, 2.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0] * 4]])
    x = torch.arange(15.0).reshape(1, 5, 3)
    return Sequences(x, None, types, attributes)


def test_reconstruction_of_the_right_answer_with_even_types_is_log_of_their_number():
    target = sequences()
    output = torch.zeros(1, NUM_TYPES + 4, 3)
    output[:, NUM_TYPES:] = target.attributes.transpose(1, 2)
    assert reconstruction(output, target, raw=False).item() == pytest.approx(math.log(NUM_TYPES))


def test_attributes_of_absent_layers_do_not_count():
    target, output = sequences(), torch.zeros(1, NUM_TYPES + 4, 3)
    before = reconstruction(output, target, raw=False)
    output[:, NUM_TYPES:, 2] = 100.0
    assert torch.equal(reconstruction(output, target, raw=False), before)
    output[:, NUM_TYPES + 1, 1] = 3.0
    assert reconstruction(output, target, raw=False) > before


def test_the_papers_reconstruction_is_the_mean_norm_of_the_raw_rows():
    target = sequences()
    expected = np.linalg.norm(target.x[0].numpy(), axis=0).mean()
    found = reconstruction(torch.zeros(1, 5, 3), target, raw=True)
    assert found.item() == pytest.approx(expected, rel=1e-6)
