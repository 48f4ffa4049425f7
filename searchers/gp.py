"""Bayesian optimisation with a plain Gaussian process on hand-made features of the students.

The method that every learned surrogate has to beat: Matern-5/2 on `SearchSpace.features`, log expected improvement (Ament et al.,
"Unexpected Improvements to Expected Improvement for Bayesian Optimization", 2023) over a set of candidates: mutations and variations of
the best students, and fresh ones.

Within a budget of a few per cent a random student is far worse than the evenly scaled one (most of its BatchNorms and activations are
gone), and teaches the model little. So the first students there, and half of the fresh candidates, are variations of the scaled one.

Where the objective is f = R_c R_a of the papers, only R_a is modelled (`searchers.targets`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.threads import torch_threads
from searchers.algorithm import (
    Observation,
    Proposal,
    check_bool,
    check_int,
    check_num_edits,
    check_share,
)
from searchers.candidates import CandidatePool, scaled_variations
from searchers.fidelity import estimated_ends
from searchers.insight import Insight, InsightFailed, principal_map, shown_share
from searchers.ledger import LedgerAlgorithm, fresh_draws
from searchers.targets import Targets, check_composite

if TYPE_CHECKING:
    from raysearch.architecture import Edits, EditsBatch, SearchSpace
    from searchers.surrogate import Surrogate

logger = logging.getLogger(__name__)

MIN_FULL = 2
"""Full observations below which there is nothing to model."""


class GPAlgorithm(LedgerAlgorithm):
    """Gaussian process and log expected improvement.

    Under a budget the first student is the uniformly scaled teacher, and the next ones are variations of it; without one they are
    random. Students that were stopped early enter the model (`use_stopped`) at what they would have come to (`searchers.fidelity`). Outstanding students count
    at their predicted value. While there are fewer than two full observations, proposals are random.

    Args:
        space: where the students come from.
        seed: of the one generator.
        num_initial: students before the model is used, told ones of any status included.
        num_candidates: students that the acquisition function is computed for.
        mutation_share: the share of the candidates that are made of good students, by mutation and by variation; the rest are fresh.
        num_parents: how many of the best predicted students they are made of.
        num_edits: the fewest and the most edits of one mutation.
        composite: model the accuracy ratio and use the exact compression; None: where the space has no budget and the observed
            values are f of the observed metrics.
        use_stopped: learn from students that were stopped early, too.

    Attributes:
        num_fallbacks: proposals that are random because the model failed numerically.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        num_initial: int = 8,
        num_candidates: int = 1000,
        mutation_share: float = 0.75,
        num_parents: int = 10,
        num_edits: tuple[int, int] | list[int] = (1, 4),
        composite: bool | None = None,
        use_stopped: bool = True,
    ) -> None:
        super().__init__(space, seed=seed)
        self.num_initial = check_int("search.options.num_initial", num_initial, 1)
        self._pool = CandidatePool(
            space,
            check_int("search.options.num_candidates", num_candidates, 2),
            check_share("search.options.mutation_share", mutation_share),
            check_int("search.options.num_parents", num_parents, 1),
            check_num_edits(num_edits),
        )
        self.composite = check_composite(composite)
        self.use_stopped = check_bool("search.options.use_stopped", use_stopped)
        self.num_fallbacks = 0

    def warm_up(self) -> None:
        """Imports BoTorch and fits a toy, which costs seconds the first time in a process."""
        from searchers.surrogate import Surrogate

        with torch_threads(1):
            x = np.linspace(0, 1, 4)[:, None]
            Surrogate(x, np.sin(x[:, 0])).log_ei(x, np.ones(4), 0.5)

    def ask(self) -> Proposal | None:
        ledger = self._ledger
        if (uniform := ledger.new_uniform()) is not None:
            return ledger.propose(uniform, origin="uniform")
        fresh = fresh_draws(self.space, self._rng)
        if self.space.limits:
            fresh = (partial(scaled_variations, self.space, rng=self._rng), *fresh)
        full = ledger.full
        if ledger.num_students < self.num_initial or len(full) < MIN_FULL:
            return ledger.propose(ledger.draw_new(*fresh), origin="sample")
        from searchers.surrogate import NUMERICAL_ERRORS

        try:
            found = self._best_candidate(full)
        except NUMERICAL_ERRORS as error:
            self.num_fallbacks += 1
            logger.warning("The model failed, the next student is a random one: %s", error)
            return ledger.propose(ledger.draw_new(*fresh), origin="fallback")
        if found is None:  # every candidate is known
            return ledger.propose(ledger.draw_new(*fresh), origin="sample")
        edits, (mean, sd) = found
        return ledger.propose(edits, origin="model", predicted=mean, predicted_sd=sd)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "num_fallbacks": self.num_fallbacks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.num_fallbacks = state["num_fallbacks"]

    def insight(self) -> Insight | None:
        """What a model of all full observations knows; None while there are fewer than two.

        Raises:
            InsightFailed: the model failed numerically.
        """
        from searchers.surrogate import NUMERICAL_ERRORS

        full = self._ledger.full
        if len(full) < MIN_FULL:
            return None
        try:
            with torch_threads(1):
                evaluated, x, targets, surrogate = self._model(full)
                mean, sd = surrogate.leave_one_out()
                embedding = surrogate.embed(x)
                places = principal_map(embedding)
        except (*NUMERICAL_ERRORS, np.linalg.LinAlgError) as error:
            raise InsightFailed(str(error)) from error
        factor = targets.true_factor(evaluated)
        return Insight(
            architectures=tuple(one.architecture for one in full),
            values=np.array([one.value for one in full]),
            loo_mean=mean * factor,
            loo_sd=sd * factor,
            places=places,
            notes={
                "model": "Gaussian process on features",
                "map_share": shown_share(embedding, places),
            },
        )

    def _model(
        self, full: Sequence[Observation], stopped: Sequence[Observation] = ()
    ) -> tuple[EditsBatch, np.ndarray, Targets, Surrogate]:
        """The evaluated students, their features [n, D], what is modelled, and the model of it."""
        from searchers.surrogate import Surrogate

        targets = Targets.of(self.space, full, self.composite)
        estimated, ends = estimated_ends(self.space, targets, full, stopped)
        evaluated = self.space.batch(one.architecture for one in (*full, *estimated))
        x = self.space.features(evaluated)  # [n, D]
        y = np.concatenate([targets.values(full), ends])
        return evaluated, x, targets, Surrogate(x, y, self.space.feature_blocks.values())

    def _best_candidate(
        self, full: Sequence[Observation]
    ) -> tuple[Edits, tuple[float, float]] | None:
        """The new candidate with the largest expected improvement, and mean and standard deviation of its predicted value.

        None: none of them is new.
        """
        with torch_threads(1):
            evaluated, x, targets, surrogate = self._model(
                full, self._ledger.stopped if self.use_stopped else ()
            )
            predicted = surrogate.predict(x)[0] * targets.factor(evaluated)  # [n]
            candidates = self._pool.draw(evaluated, predicted, self._rng)
            self._believe_pending(surrogate)
            improvement = surrogate.log_ei(
                self.space.features(candidates),
                targets.factor(candidates),
                float(predicted.max()),
            )
        order = np.argsort(-improvement, kind="stable")
        edits = self._ledger.first_new(candidates[int(index)] for index in order)
        return None if edits is None else (edits, self._predict(surrogate, edits, targets))

    def _predict(self, surrogate: Surrogate, edits: Edits, targets: Targets) -> tuple[float, float]:
        """Mean and standard deviation of the value that a training will measure, from what was really observed."""
        batch = self.space.batch([str(edits)])
        surrogate.forget_beliefs()
        with torch_threads(1):
            mean, sd = surrogate.predict(self.space.features(batch), noise=True)
        factor = float(targets.factor(batch)[0])
        return float(mean[0]) * factor, float(sd[0]) * factor

    def _believe_pending(self, surrogate: Surrogate) -> None:
        if self._ledger.pending:
            pending = self.space.batch(self._ledger.pending.values())
            surrogate.believe(self.space.features(pending))
