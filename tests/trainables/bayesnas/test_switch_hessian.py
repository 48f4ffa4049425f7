"""The switches' curvature against the dense matrix, and against second derivatives where the two agree."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainables.bayesnas.switch_hessian import (
    exact_diagonal,
    forward_diagonal,
    probed_diagonal,
    root_factor,
)

B, S, K = 6, 5, 4


class Gated:
    """Two layers of tanh and ReLU whose units are multiplied by switches, one of them twice; double precision."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.x, self.first, self.second = normal(B, 3), normal(3, S), normal(S, K)
        self.switches = normal(S)
        self.labels = torch.randint(K, (B,), generator=generator)

    def __call__(self, switches: torch.Tensor) -> torch.Tensor:
        """[S] or [B, S] -> [B, K]."""
        hidden = torch.tanh(self.x @ self.first * switches)
        return (hidden * switches.roll(1, -1)).relu() @ self.second


@pytest.fixture
def net() -> Gated:
    return Gated()


def dense_diagonal(net: Gated) -> torch.Tensor:
    """The diagonal of sum_b J_b^T (diag p - p p^T) J_b / B, with J by reverse mode."""
    jacobian = torch.autograd.functional.jacobian(net, net.switches)
    assert isinstance(jacobian, torch.Tensor)
    p = net(net.switches).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("bks,bkl,blt->st", jacobian, middle, jacobian).div(B).diagonal()


def test_the_root_is_one() -> None:
    p = torch.rand(3, K, dtype=torch.float64).softmax(1)
    root = root_factor(p)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(root @ root.mT, expected)


def test_backward_and_forward_mode_give_the_dense_diagonal(net: Gated) -> None:
    expected = dense_diagonal(net)
    torch.testing.assert_close(exact_diagonal(net, net.switches, B), expected)
    torch.testing.assert_close(forward_diagonal(net, net.switches), expected)
    assert (expected >= 0).all()


def test_probes_have_the_diagonal_as_their_mean(net: Gated) -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.stack(
        [probed_diagonal(net, net.switches, B, generator=generator) for _ in range(2000)]
    )
    expected = dense_diagonal(net)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected).abs() <= 4 * error + 1e-12).all()
    many = probed_diagonal(net, net.switches, B, generator=generator, probes=2000)
    torch.testing.assert_close(many, expected, rtol=0.1, atol=1e-6)


def test_where_logits_are_linear_in_the_switches_it_is_the_hessian() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(B, S, K, dtype=torch.float64)  # of operations, which are added
    labels = torch.randint(K, (B,))
    switches = torch.randn(S, dtype=torch.float64)

    def logits(w: torch.Tensor) -> torch.Tensor:
        return (w[..., None] * outputs).sum(1)

    hessian = torch.func.hessian(lambda w: cross_entropy(logits(w), labels))(switches)
    assert isinstance(hessian, torch.Tensor)
    torch.testing.assert_close(exact_diagonal(logits, switches, B), hessian.diagonal())


def test_a_switch_that_is_not_read_has_no_curvature() -> None:
    outputs = torch.randn(B, K)
    found = exact_diagonal(lambda w: outputs * w[:, :1], torch.ones(S), B)
    assert found[1:].eq(0).all()
    generator = torch.Generator().manual_seed(0)
    probed = probed_diagonal(lambda w: outputs * w[:, :1], torch.ones(S), B, generator=generator)
    assert probed[0] > 0
    assert probed[1:].eq(0).all()
