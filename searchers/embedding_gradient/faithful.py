"""A step of the paper's own form: one fit to all architectures, one gradient step from the teacher's embedding.

The paper takes one eta and one lambda and prints neither; here each pair gives a student. a* is the measured accuracy itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from raysearch.threads import torch_threads
from searchers.ahead import Cancelled
from searchers.algorithm import Observation
from searchers.batches import Snapshot
from searchers.embedding_gradient.autoencoder import Networks
from searchers.embedding_gradient.descent import Goal, one_step
from searchers.embedding_gradient.domain import Domain
from searchers.embedding_gradient.fitting import Fitter, Learned, joined
from searchers.embedding_gradient.options import StepOptions
from searchers.embedding_gradient.prior import Prior
from searchers.embedding_gradient.snapshot import Choice
from searchers.insight import Insight, principal_map, shown_share

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

LOOK_STEPS = 1000
"""Of a fit that is only looked at: one of the paper's 100,000 steps takes hours, and six of them would be made at a run's end."""


@dataclass
class FaithfulStep:
    """The paper's step; attributes as in `DescentStep`."""

    space: SearchSpace
    domain: Domain
    options: StepOptions
    prior: Prior | None
    fitter: Fitter

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        with torch_threads(1):
            learned = self._with_prior(self._learned(snapshot.full))
            model = self.fitter.fit(learned, snapshot.seed[0], cancelled)
            if cancelled():
                return []
            pairs = [(eta, lam) for lam in self.options.lam for eta in self.options.eta]
            eta, lam = torch.tensor(pairs).T  # [S]
            goal = Goal(self.options.a_0, self.options.p_0 or 0.0, below_is_fine=False)
            Y = model.embed(self.domain.teacher_rows[None]).expand(len(pairs), -1)
            rows = model.read(one_step(model.networks, Y, lam, goal, eta))
            texts = self.domain.decode(rows, [None] * len(rows))
        return [Choice(text, "descent") for text in texts if text not in snapshot.known]

    def insight(self, snapshot: Snapshot) -> Insight:
        """As in `DescentStep`, by fits of at most `LOOK_STEPS`; only where the value is the accuracy do its predictions say something of it.

        Raises:
            FitDiverged
        """
        with torch_threads(1):
            full, seed = snapshot.full, snapshot.seed[0]
            learned = self._learned(full)
            everything = self._with_prior(learned)
            mean, sd = self.fitter.cross_validate(everything, seed, LOOK_STEPS)
            mean, sd = mean[-len(full) :], sd[-len(full) :]
            model = self.fitter.newest or self.fitter.fit(
                everything, seed, lambda: False, keep=False, most_steps=LOOK_STEPS
            )
            embedding = model.embed(learned.rows).double().numpy()
        values = np.array([one.value for one in full], float)
        # the reward is a multiple of the accuracy where it is f; the ratio of both translates
        scale = values / np.where(learned.values > 0, learned.values, 1.0)
        noise = float(np.sqrt(np.mean(np.square(mean - learned.values))))
        places = principal_map(embedding)
        return Insight(
            architectures=tuple(one.architecture for one in full),
            values=values,
            loo_mean=mean * scale,
            loo_sd=np.sqrt(np.square(sd) + noise**2) * np.abs(scale),
            places=places,
            notes={
                "model": "one regressor on a learned embedding, cross-validated in five parts",
                "cross_validation_steps": min(self.options.fit_steps, LOOK_STEPS),
                "map_share": shown_share(embedding, places),
            },
        )

    def networks(self, snapshot: Snapshot) -> Networks:
        """The newest that the search used; made again only in another process. Raises FitDiverged."""
        if self.fitter.newest is not None:
            return self.fitter.newest.networks
        with torch_threads(1):
            learned = self._with_prior(self._learned(snapshot.full))
            return self.fitter.fit(learned, snapshot.seed[0], lambda: False).networks

    def _learned(self, full: tuple[Observation, ...]) -> Learned:
        texts = [one.architecture for one in full]
        return Learned(
            self.domain.rows(texts),
            np.array([_accuracy(one) for one in full], float),
            self.domain.sizes(texts, self.options.size),
        )

    def _with_prior(self, learned: Learned) -> Learned:
        if self.prior is None:
            return learned
        values = np.array([_accuracy(one) for one in self.prior.full], float)
        return joined(
            Learned(self.prior.rows, values, self.prior.sizes), learned, self.domain.num_rows
        )


def _accuracy(observation: Observation) -> float:
    """a*: the accuracy where it is reported, else the objective."""
    value = observation.metrics.get("accuracy", observation.value)
    assert value is not None, "a full observation has a value"
    return value
