"""N2N's two policies (sections 3.2 and 10.1 of the paper): recurrent networks that read a sequence of layers of any length.

    removal     P(a_t | h_{t-1}, h_{t+1}, x_t)     bidirectional LSTM, 2 x 30, all actions sampled in one pass
    shrinkage   P(a_t | a_{t-1}, h_{t-1}, x_t)     LSTM, 2 x 50, reads the action before as one-hot and as its ratio

Notation: m rollouts, T steps, F features, A actions, H hidden units. Weights are drawn as torch's own layers draw theirs, from a given
generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from searchers.n2n.steps import FULL, KEEP, NUM_RATIOS

NUM_LAYERS = 2


class RemovalPolicy(nn.Module):
    """Keeps or removes each layer.

    Args:
        num_features: F.
        hidden: H of each direction.
        critic: adds a value V_t beside the actions.
        generator: of the weights.
    """

    num_actions = 2

    def __init__(
        self, num_features: int, *, hidden: int, critic: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.hidden = hidden
        with torch.random.fork_rng(devices=[]):  # what the modules draw themselves is overwritten
            self.lstm = nn.LSTM(num_features, hidden, NUM_LAYERS, bidirectional=True)
            self.head = nn.Linear(2 * hidden, self.num_actions)
            self.critic = nn.Linear(2 * hidden, 1) if critic else None
        _draw_weights(self, hidden, generator)

    def forward(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [m, T, 2], and the critic's values [m, T].

        Args:
            x: [T, F].
            actions: [m, T]; the network is the same for all, so only m counts.
        """
        h, _ = self.lstm(x)  # [T, 2 H]
        return _heads(self, h.expand(len(actions), *h.shape))

    @torch.no_grad()
    def sample(self, x: Tensor, free: Tensor, generator: torch.Generator) -> Tensor:
        """The actions of one rollout: [T] int64.

        Args:
            x: [T, F].
            free: [T] bool; elsewhere the layer is kept.
            generator: of the actions.
        """
        probabilities = self.head(self.lstm(x)[0]).softmax(-1)  # [T, 2]
        drawn = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
        return torch.where(free, drawn, KEEP)


class ShrinkagePolicy(nn.Module):
    """Chooses a ratio at each step, knowing the one before.

    Args:
        num_features: F.
        hidden: H.
        critic: adds a value V_t beside the actions.
        generator: of the weights.
    """

    num_actions = NUM_RATIOS

    def __init__(
        self, num_features: int, *, hidden: int, critic: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.hidden = hidden
        inputs = num_features + self.num_actions + 1
        with torch.random.fork_rng(devices=[]):  # what the modules draw themselves is overwritten
            self.lstm = nn.LSTM(inputs, hidden, NUM_LAYERS, batch_first=True)
            self.head = nn.Linear(hidden, self.num_actions)
            self.critic = nn.Linear(hidden, 1) if critic else None
        _draw_weights(self, hidden, generator)

    def forward(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [m, T, 10], and the critic's values [m, T].

        Args:
            x: [T, F].
            actions: [m, T], of which each step reads the one before it.
        """
        before = torch.cat([torch.full_like(actions[:, :1], -1), actions[:, :-1]], 1)  # [m, T]
        shared = x.expand(len(actions), *x.shape)
        h, _ = self.lstm(torch.cat([shared, _previous(before, x)], -1))  # [m, T, H]
        return _heads(self, h)

    @torch.no_grad()
    def sample(self, x: Tensor, free: Tensor, generator: torch.Generator | None) -> Tensor:
        """The actions of one rollout: [T] int64.

        Args:
            x: [T, F].
            free: [T] bool; elsewhere nothing shrinks.
            generator: of the actions; None: the most probable one at each step.
        """
        actions = torch.full((len(x) + 1,), FULL)
        actions[0] = -1  # before the first step there is none; step t is actions[t + 1]
        state, start = None, 0
        for step in free.nonzero().squeeze(1).tolist():  # forced steps between run in one call
            before = actions[start : step + 1]
            inputs = torch.cat([x[start : step + 1], _previous(before, x)], -1)
            h, state = self.lstm(inputs.unsqueeze(0), state)
            logits = self.head(h[0, -1])
            if generator is None:
                actions[step + 1] = logits.argmax()
            else:
                actions[step + 1] = torch.multinomial(
                    logits.softmax(-1), 1, generator=generator
                ).squeeze()
            start = step + 1
        return actions[1:]


def _previous(actions: Tensor, x: Tensor) -> Tensor:
    """Actions as input, one-hot and their ratio: [..., 11] of x's type, zeros for -1."""
    one_hot = F.one_hot(actions + 1, NUM_RATIOS + 1)[..., 1:].to(x.dtype)
    return torch.cat([one_hot, ((actions + 1) / NUM_RATIOS).to(x.dtype).unsqueeze(-1)], -1)


def _heads(policy: RemovalPolicy | ShrinkagePolicy, h: Tensor) -> tuple[Tensor, Tensor | None]:
    values = None if policy.critic is None else policy.critic(h).squeeze(-1)
    return policy.head(h), values


def _draw_weights(policy: nn.Module, hidden: int, generator: torch.Generator) -> None:
    """Uniform within 1 / sqrt(H) for the LSTM and 1 / sqrt(inputs) for linear layers."""
    with torch.no_grad():
        for module in policy.modules():
            if isinstance(module, nn.LSTM | nn.Linear):
                size = hidden if isinstance(module, nn.LSTM) else module.in_features
                for weight in module.parameters(recurse=False):
                    bound = 1 / math.sqrt(size)
                    weight.uniform_(-bound, bound, generator=generator)
