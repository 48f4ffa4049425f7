"""One stage's policy as it learns: sampled rollouts in, gradient steps out, everything that a later process needs in its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysearch.threads import torch_threads
from searchers.n2n.features import encode_factors, encode_rows, num_features
from searchers.n2n.options import PolicyOptions
from searchers.n2n.policies import RemovalPolicy, ShrinkagePolicy
from searchers.n2n.reinforce import (
    Baseline,
    entropy_of,
    log_probs_of,
    policy_loss,
    value_loss,
)
from searchers.n2n.rollouts import Rollout
from searchers.n2n.steps import NUM_RATIOS, Executed, Meaning, Steps

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Controller:
    """A policy, its optimiser, and the rollouts of the batch that is not full yet.

    Args:
        options: of the policy.
        meaning: what its actions do.
        weights: of a policy that was trained elsewhere; None: fresh ones.

    Attributes:
        iteration: updates so far.
        batch: rollouts with a reward that wait for the batch to be full, in the order of their rewards.
        history: a record of each update: `stage, iteration, mean_reward, max_reward, baseline, entropy`, the last in nats a free step.
    """

    def __init__(
        self,
        options: PolicyOptions,
        meaning: Meaning,
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.options = options
        self.meaning = meaning
        self.iteration = 0
        self.batch: list[Rollout] = []
        self.history: list[dict[str, Any]] = []
        self._generator = torch.Generator().manual_seed(options.seed)
        self.policy = make_policy(options, self._generator)
        if weights is not None:
            found = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
            self.policy.load_state_dict(found, strict=False)  # the critic may be fresh
        self._optimiser = torch.optim.Adam(self.policy.parameters(), lr=options.lr)
        self._baseline = Baseline(options.baseline_decay)
        self._x = inputs_of(meaning.steps, options)
        self._free = torch.from_numpy(meaning.steps.free)

    def sample(self) -> Executed:
        """One rollout of the policy as it is now."""
        with torch_threads(1):
            actions = self.policy.sample(self._x, self._free, self._generator)
        return self.meaning.execute(actions.numpy())

    def take(self, rollout: Rollout, reward: float) -> None:
        """Credits a rollout; the m-th of a batch makes the update (a search that goes on with a smaller m may have more)."""
        self.batch.append(replace(rollout, reward=reward))
        if len(self.batch) >= self.options.rollouts:
            batch, self.batch = self.batch, []
            with torch_threads(1):
                self._update(batch)

    def _update(self, batch: list[Rollout]) -> None:
        """One step of Adam along equation 2, at the weights as they are now."""
        # in the order of sampling: so a batch means the same whatever order its rewards came in
        batch = sorted(batch, key=lambda rollout: rollout.id)
        options, free = self.options, self._free
        actions = torch.tensor([rollout.actions for rollout in batch])  # [m, T]
        one = [rollout.reward for rollout in batch if rollout.reward is not None]
        rewards, mean = torch.tensor(one, dtype=self._x.dtype), float(np.mean(one))  # [m]
        baseline = self._baseline.before(mean)
        logits, values = self.policy(self._x, actions)
        log_probs, entropy = log_probs_of(logits, actions, free), entropy_of(logits, free)
        advantages = rewards[:, None] - (baseline if values is None else values)
        repeats = all(rollout.known for rollout in batch)
        weight = max(options.entropy, options.explore if repeats else 0.0)
        loss = policy_loss(log_probs, advantages) - weight * entropy
        if values is not None:
            loss = loss + value_loss(values, rewards, free)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._baseline.update(mean)
        self.history.append(
            {
                "stage": options.kind,
                "iteration": self.iteration,
                "mean_reward": mean,
                "max_reward": max(one),
                "baseline": baseline,
                "entropy": entropy.item() / max(1, int(free.sum())),
            }
        )
        self.iteration += 1

    @torch.no_grad()
    def table(self) -> list[dict[str, Any]]:
        """What the policy does with each layer that it decides on, in the order of the network: records of `layer, type, stage`, and

        remove: `keep`, the probability that it stays.
        shrink: `factor` and `ratio`, the expected one after the most probable actions before it.
        """
        steps, options = self.meaning.steps, self.options
        with torch_threads(1):
            actions = torch.zeros(len(steps), dtype=torch.int64)
            if isinstance(self.policy, ShrinkagePolicy):
                actions = self.policy.sample(self._x, self._free, None)
            probabilities = self.policy(self._x, actions[None])[0][0].softmax(-1)  # [T, A]
        found = []
        for step in np.flatnonzero(steps.free):
            row: dict[str, Any] = {
                "layer": steps.layers[step],
                "type": steps.types[step],
                "stage": options.kind,
            }
            found.append(row | _chances(probabilities[step].double().numpy(), steps, int(step)))
        return found

    def weights(self) -> dict[str, np.ndarray]:
        """The policy's, by name."""
        return {name: _array(value) for name, value in self.policy.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-native values and numpy arrays."""
        moments = self._optimiser.state_dict()["state"]
        return {
            "weights": self.weights(),
            "moments": {
                str(index): {name: _array(values[name]) for name in _MOMENTS}
                for index, values in moments.items()
            },
            "generator": _array(self._generator.get_state()),
            "baseline": self._baseline.value,
            "iteration": self.iteration,
            "batch": [rollout.to_dict() for rollout in self.batch],
            "history": [dict(record) for record in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverts `state_dict`."""
        self.policy.load_state_dict({name: _tensor(v) for name, v in state["weights"].items()})
        whole = self._optimiser.state_dict()
        whole["state"] = {
            int(index): {name: _tensor(value) for name, value in values.items()}
            for index, values in state["moments"].items()
        }
        self._optimiser.load_state_dict(whole)
        self._generator.set_state(_tensor(state["generator"]))
        self._baseline.value = state["baseline"]
        self.iteration = state["iteration"]
        self.batch = [Rollout.from_dict(values) for values in state["batch"]]
        self.history = [dict(record) for record in state["history"]]


def make_policy(
    options: PolicyOptions, generator: torch.Generator
) -> RemovalPolicy | ShrinkagePolicy:
    """A fresh policy of a stage."""
    make = RemovalPolicy if options.kind == "remove" else ShrinkagePolicy
    return make(
        input_size(options.kind, raw=options.raw_features),
        hidden=options.hidden,
        critic=options.actor_critic,
        generator=generator,
    )


def input_size(kind: str, *, raw: bool) -> int:
    """F of a stage's policy; independent of the network."""
    return num_features(raw=raw) + (0 if kind == "remove" else encode_factors(np.zeros(0)).shape[1])


def inputs_of(steps: Steps, options: PolicyOptions) -> Tensor:
    """What the policy reads: [T, F] float32."""
    parts = [encode_rows(steps.rows, raw=options.raw_features)]
    if options.kind == "shrink":
        parts.append(encode_factors(steps.factors))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _chances(probabilities: np.ndarray, steps: Steps, step: int) -> dict[str, Any]:
    from raysearch.architecture.refit import FACTORS

    if len(probabilities) == 2:
        return {"keep": float(probabilities[1])}
    ratios = np.arange(1, NUM_RATIOS + 1) / NUM_RATIOS
    return {"factor": FACTORS[steps.factors[step]], "ratio": float(probabilities @ ratios)}


def _array(value: Tensor) -> np.ndarray:
    return value.detach().numpy().copy()


def _tensor(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(value))
