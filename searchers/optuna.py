"""Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011) over the edits.

A student is a point of an Optuna space: one bit for each removable layer, one share for each channel group, and a
few slots for skips. What Optuna samples is repaired to the budget, and what Optuna is told is the repaired student, so that its
model sees what was trained. Early-stopped students are told as pruned, with their curves, and never mixed with full ones; failed
ones are told as failed; outstanding ones as running, which TPE counts as bad near itself (constant liar).

The study is rebuilt from the books at each step, which costs milliseconds: so the state is only the books and a generator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from searchers.algorithm import Observation, Proposal, check_int, check_num_edits
from searchers.ledger import LedgerAlgorithm, fresh_draws, repeat, unmeasured

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from raysearch.architecture import Edits, EditsBatch, SearchSpace

_STATES = {"full": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


class TPEAlgorithm(LedgerAlgorithm):
    """Optuna's TPE; the first student under a budget is the uniformly scaled teacher, the next ones are random.

    Args:
        space: where the students come from.
        seed: of the one generator, which also seeds Optuna's sampler at each step.
        num_initial: students before the model is used (Optuna's own default is 10).
        num_skips: slots for skips; a student with more keeps them, but Optuna sees only the first ones.
        multivariate: Optuna's joint estimator instead of independent ones.
        num_edits: of a mutation, which replaces a sampled student that is known already.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        num_initial: int = 10,
        num_skips: int = 4,
        multivariate: bool = False,
        num_edits: tuple[int, int] | list[int] = (1, 4),
    ) -> None:
        super().__init__(space, seed=seed)
        self.num_initial = check_int("search.options.num_initial", num_initial, 1)
        self.num_skips = check_int("search.options.num_skips", num_skips, 0)
        self.multivariate = bool(multivariate)
        self.num_edits = check_num_edits(num_edits)

    def warm_up(self) -> None:
        """Imports Optuna."""
        import optuna  # noqa: F401

    def ask(self) -> Proposal | None:
        ledger = self._ledger
        if (uniform := ledger.new_uniform()) is not None:
            return ledger.propose(uniform, origin="uniform")
        fresh = fresh_draws(self.space, self._rng)
        if ledger.num_students < self.num_initial or not ledger.full:
            return ledger.propose(ledger.draw_new(*fresh), origin="sample")
        edits = self._sample_model()
        if ledger.is_new(edits):
            return ledger.propose(edits, origin="model")

        def neighbours(size: int) -> EditsBatch:
            return self.space.mutate(
                repeat(edits, size), self._rng, num_edits=self.num_edits, **unmeasured(self.space)
            )

        return ledger.propose(ledger.draw_new(neighbours, *fresh), origin="mutation")

    def study(self, seed: int = 0) -> Study:
        """The search so far as an Optuna study; `seed` is its sampler's."""
        import optuna

        sampler = optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=0,
            multivariate=self.multivariate,
        )
        with quiet():
            study = optuna.create_study(direction="maximize", sampler=sampler)
            distributions = self._distributions()
            for observation in self._ledger.told.values():
                study.add_trial(self._trial(observation.architecture, observation, distributions))
            for text in self._ledger.pending.values():
                study.add_trial(self._trial(text, None, distributions))
        return study

    def _sample_model(self) -> Edits:
        """What Optuna proposes, repaired."""
        from raysearch.architecture import Edits, EditsBatch

        study = self.study(int(self._rng.integers(2**31)))
        params = study.ask(self._distributions()).params
        slots = (params.get(f"skip_{slot}", 0) for slot in range(self.num_skips))
        edits = Edits(
            remove=tuple(layer for layer in self.space.removable if params[f"remove_{layer}"]),
            widths=tuple(
                round(params[f"width_{index}"] * group.size)
                for index, group in enumerate(self.space.groups)
            ),
            skips=tuple(pair - 1 for pair in slots if pair),
        )
        num_layers = len(self.space.teacher.layers)
        return self.space.repair(EditsBatch.from_edits([edits], num_layers))[0]

    def _distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's space; a skip slot holds 0 (none) or a pair's index plus one."""
        from optuna.distributions import FloatDistribution, IntDistribution

        removals = {f"remove_{layer}": IntDistribution(0, 1) for layer in self.space.removable}
        widths = {
            f"width_{index}": FloatDistribution(group.min_channels / group.size, 1.0)
            for index, group in enumerate(self.space.groups)
        }
        num_pairs = len(self.space.skip_pairs)
        slots = range(self.num_skips if num_pairs else 0)
        return {
            **removals,
            **widths,
            **{f"skip_{slot}": IntDistribution(0, num_pairs) for slot in slots},
        }

    def _params(
        self, edits: Edits, distributions: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A student as a point of Optuna's space."""
        removed = set(edits.remove)
        params: dict[str, Any] = {
            f"remove_{layer}": int(layer in removed) for layer in self.space.removable
        }
        for index, (group, width) in enumerate(zip(self.space.groups, edits.widths, strict=True)):
            # pruned students know no grid, so they may be narrower than it begins
            params[f"width_{index}"] = max(width, group.min_channels) / group.size
        skips = [pair + 1 for pair in edits.skips] + [0] * self.num_skips
        params |= {f"skip_{slot}": skips[slot] for slot in range(self.num_skips)}
        return {name: params[name] for name in distributions}

    def _trial(
        self,
        text: str,
        observation: Observation | None,
        distributions: dict[str, BaseDistribution],
    ) -> FrozenTrial:
        """A told (or, without an observation, outstanding) student as one of Optuna's trials."""
        from optuna.trial import TrialState, create_trial

        state = _STATES[observation.status] if observation else "RUNNING"
        curve = observation.curve if observation else ()
        return create_trial(
            state=TrialState[state],
            value=observation.value if observation and observation.status == "full" else None,
            params=self._params(self.space.parse(text), distributions),
            distributions=distributions,
            intermediate_values=dict(enumerate(curve, start=1)),
            user_attrs={"architecture": text},
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from announcing each rebuilt study."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
