"""Policies over made-up sequences, and controllers whose actions have rewards in closed form; a small space, and what the algorithm over it is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.algorithm import Observation
from searchers.n2n.controller import Controller
from searchers.n2n.options import PolicyOptions
from searchers.n2n.policies import RemovalPolicy, ShrinkagePolicy
from searchers.n2n.rollouts import Rollout
from searchers.n2n.steps import NO_FACTOR, Executed, Steps
from searchers.testing import make_chain_space

NUM_FEATURES = 4
POLICIES = {"remove": RemovalPolicy, "shrink": ShrinkagePolicy}


def make_policy(kind, seed=0, critic=False, hidden=6):
    """A small policy in double precision."""
    generator = torch.Generator().manual_seed(seed)
    policy = POLICIES[kind](NUM_FEATURES, hidden=hidden, critic=critic, generator=generator)
    return policy.double()


def make_input(num_steps, seed=0):
    """[T, F] random features."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(num_steps, NUM_FEATURES, generator=generator, dtype=torch.float64)


def make_options(kind="remove", **changes):
    """The paper's, but for what is changed."""
    values = {
        "kind": kind,
        "hidden": 8,
        "lr": 0.003,
        "rollouts": 5,
        "baseline_decay": 0.9,
        "entropy": 0.0,
        "explore": 0.0,
        "actor_critic": False,
        "raw_features": False,
        "seed": 0,
    }
    return PolicyOptions(**{**values, **changes})


def make_steps(num_steps, forced=()):
    """A sequence of convolutions that grow wider."""
    rows = np.array([[1, 3, 1, 1, 8 * (step + 1), 0, 0] for step in range(num_steps)])
    free = np.array([step not in forced for step in range(num_steps)])
    names = tuple(f"layer{step}" for step in range(num_steps))
    return Steps(rows, names, np.where(free, 0, NO_FACTOR), free)


class Echo:
    """Actions mean themselves; every student is smaller than the teacher."""

    def __init__(self, steps):
        self.steps = steps

    def execute(self, actions):
        return Executed("".join(map(str, actions)), actions)


def make_controller(num_steps=4, forced=(), **options):
    options = make_options(**options)
    return Controller(options, Echo(make_steps(num_steps, forced)))


def roll(controller, rewards, reward_of):
    """Samples and credits so many rollouts."""
    for number in range(rewards):
        actions = tuple(controller.sample().actions.tolist())
        name = "".join(map(str, actions))
        rollout = Rollout(number, controller.options.kind, 0, actions, name, name)
        controller.take(rollout, reward_of(actions))


def make_space(**options):
    """Layers of equal width, so that convolutions may go."""
    return make_chain_space((8, 8, 8, 8), **{"grouping": "by_size", **options})


def full(proposal, value, **metrics):
    return Observation(
        proposal.architecture, value, 1.0, "full", metrics=metrics, extra=proposal.extra
    )


def rewards_of(algorithm, stage="remove"):
    """The rewards that wait in the stage's batch."""
    return [rollout.reward for rollout in algorithm._controllers[stage].batch]


@pytest.fixture(params=sorted(POLICIES))
def kind(request):
    return request.param
