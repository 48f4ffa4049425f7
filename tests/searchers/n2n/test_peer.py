"""The whole of the learning against another implementation of the equations, in numpy: a softmax policy on a bandit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from searchers.n2n.rollouts import Rollout
from tests.searchers.n2n.conftest import make_controller

ARMS, M, UPDATES = 2, 5, 60
BETA1, BETA2, EPSILON = (
    0.9,
    0.999,
    1e-8,
)  # of Adam (Kingma and Ba, algorithm 1), and torch's defaults


class Table(nn.Module):
    """A logit for each action of each step, whatever is read."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.from_numpy(logits.copy()))

    def forward(self, x, actions):
        return self.logits.expand(len(actions), *self.logits.shape), None


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def peer(logits, batches, free, lr, decay, entropy):
    """The logits [T, A] after each batch of (actions [m, T], rewards [m]), and the baseline that each was compared with."""
    z = logits.copy()
    first, second, b = np.zeros_like(z), np.zeros_like(z), None
    found, baselines = [], []
    for t, (actions, rewards) in enumerate(batches, start=1):
        b = rewards.mean() if b is None else b
        p = softmax(z)
        ascent = np.zeros_like(z)
        for taken, reward in zip(actions, rewards, strict=True):  # equation 2
            for step, action in enumerate(taken):
                if free[step]:
                    ascent[step] += (np.eye(z.shape[1])[action] - p[step]) * (reward - b)
        ascent /= len(rewards)
        entropies = -(p * np.log(p)).sum(-1, keepdims=True)
        ascent += entropy * free[:, None] * -p * (np.log(p) + entropies)
        g = -ascent
        first = BETA1 * first + (1 - BETA1) * g
        second = BETA2 * second + (1 - BETA2) * g**2
        z = z - lr * (first / (1 - BETA1**t)) / (np.sqrt(second / (1 - BETA2**t)) + EPSILON)
        baselines.append(b)
        b = decay * b + (1 - decay) * rewards.mean()
        found.append(z)
    return found, baselines


@pytest.mark.parametrize("entropy", [0.0, 0.05])
def test_a_bandit_is_learned_step_by_step_as_a_peer_does(entropy):
    rng = np.random.default_rng(0)
    free = np.array([True, False, True])
    start = rng.normal(size=(3, ARMS))
    arms = np.array(
        [[0.9, 0.1], [0.0, 0.0], [-0.3, 0.4]]
    )  # mean reward of each action at each step
    controller = make_controller(
        num_steps=3, forced=(1,), rollouts=M, lr=0.05, baseline_decay=0.8, entropy=entropy
    )
    controller.policy = Table(start)
    controller._optimiser = torch.optim.Adam(controller.policy.parameters(), lr=0.05)
    controller._x = controller._x.double()

    batches, learned, number = [], [], 0
    for _ in range(UPDATES):
        p = softmax(controller.policy.logits.detach().numpy())
        actions = np.array([[rng.choice(ARMS, p=row) for row in p] for _ in range(M)])
        actions[:, 1] = 1
        rewards = np.array([arms[range(3), taken].sum() for taken in actions])
        rewards += rng.normal(scale=0.3, size=M)
        batches.append((actions, rewards))
        for taken, reward in zip(actions.tolist(), rewards.tolist(), strict=True):
            controller.take(Rollout(number, "remove", 0, tuple(taken), "a", "a"), reward)
            number += 1
        learned.append(controller.policy.logits.detach().numpy().copy())

    expected, baselines = peer(start, batches, free, 0.05, 0.8, entropy)
    np.testing.assert_allclose(learned, expected, rtol=0, atol=1e-12)
    assert [row["baseline"] for row in controller.history] == pytest.approx(baselines, abs=1e-12)
    p = softmax(learned[-1])
    assert p[0, 0] > 0.8
    assert p[2, 1] > 0.8
    np.testing.assert_array_equal(learned[-1][1], start[1])  # a forced step learns nothing
