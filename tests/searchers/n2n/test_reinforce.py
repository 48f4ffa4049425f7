"""Equation 2 of the paper against closed forms and enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch

from searchers.n2n.reinforce import (
    Baseline,
    entropy_of,
    log_probs_of,
    policy_loss,
    value_loss,
)
from tests.searchers.n2n.conftest import make_input, make_policy


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


FREE = torch.tensor([True, False, True, True])
ACTIONS = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1], [1, 0, 0, 2], [2, 1, 1, 0], [0, 0, 2, 2]])
REWARDS = torch.tensor([0.3, -1.0, 0.7, 0.1, 0.5], dtype=torch.float64)


def test_the_gradient_is_equation_two():
    logits = draw(5, 4, 3).requires_grad_()
    baseline = 0.2
    loss = policy_loss(log_probs_of(logits, ACTIONS, FREE), (REWARDS - baseline)[:, None])
    (ascent,) = torch.autograd.grad(-loss, logits)
    one_hot = torch.nn.functional.one_hot(ACTIONS, 3).double()
    score = (one_hot - logits.detach().softmax(-1)) * FREE[:, None]
    expected = score * (REWARDS - baseline)[:, None, None] / 5
    torch.testing.assert_close(ascent, expected, rtol=0, atol=1e-12)


def test_with_a_critic_each_step_has_its_own_advantage_and_the_values_follow_the_rewards():
    logits, values = draw(5, 4, 3).requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    loss = policy_loss(log_probs_of(logits, ACTIONS, FREE), REWARDS[:, None] - values)
    loss = loss + value_loss(values, REWARDS, FREE)
    by_logits, by_values = torch.autograd.grad(loss, (logits, values))
    advantages = REWARDS[:, None] - values.detach()
    one_hot = torch.nn.functional.one_hot(ACTIONS, 3).double()
    score = (one_hot - logits.detach().softmax(-1)) * FREE[:, None]
    torch.testing.assert_close(by_logits, -score * advantages[:, :, None] / 5, rtol=0, atol=1e-12)
    expected = -2 * advantages * FREE / (5 * int(FREE.sum()))
    torch.testing.assert_close(by_values, expected, rtol=0, atol=1e-12)


def test_the_gradient_of_the_entropy():
    logits = draw(5, 4, 3).requires_grad_()
    (found,) = torch.autograd.grad(entropy_of(logits, FREE), logits)
    p = logits.detach().softmax(-1)
    entropies = -(p * p.log()).sum(-1, keepdim=True)
    expected = -p * (p.log() + entropies) * FREE[:, None] / 5  # dH/dz_i = -p_i (log p_i + H)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_entropy_of_even_chances_is_the_logarithm_of_their_number():
    assert entropy_of(torch.zeros(2, 4, 10), FREE).item() == pytest.approx(
        3 * torch.tensor(10.0).log().item(), rel=1e-6
    )


@pytest.mark.parametrize("baseline", [-1.0, 0.35, 4.0])
def test_a_baseline_changes_no_expected_gradient(baseline):
    policy, x = make_policy("remove"), make_input(3)
    actions = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    rewards = draw(8, seed=2)
    free = torch.ones(3, dtype=torch.bool)

    def expected_gradient(b):
        policy.zero_grad()
        log_probs = log_probs_of(policy(x, actions)[0], actions, free)
        weights = log_probs.sum(1).exp().detach() * 8  # policy_loss takes the mean
        policy_loss(log_probs, (weights * (rewards - b))[:, None]).backward()
        return torch.cat([weight.grad.flatten() for weight in policy.parameters()])

    without = expected_gradient(0.0)
    torch.testing.assert_close(expected_gradient(baseline), without, rtol=0, atol=1e-12)
    # and it is the gradient of the expected reward
    policy.zero_grad()
    log_probs = log_probs_of(policy(x, actions)[0], actions, free).sum(1)
    (-(log_probs.exp() * rewards).sum()).backward()
    exact = torch.cat([weight.grad.flatten() for weight in policy.parameters()])
    torch.testing.assert_close(without, exact, rtol=0, atol=1e-12)


def test_the_baseline_is_a_moving_average_that_begins_with_the_first_mean():
    baseline = Baseline(0.9)
    means, used = [0.5, 1.5, -0.5, 0.25], []
    for mean in means:
        used.append(baseline.before(mean))
        baseline.update(mean)
    second = 0.5
    third = 0.9 * second + 0.1 * 1.5
    fourth = 0.9 * third + 0.1 * -0.5
    assert used == pytest.approx([0.5, second, third, fourth])
    assert baseline.value == pytest.approx(0.9 * fourth + 0.1 * 0.25)
