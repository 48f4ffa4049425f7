"""Architecture Compression (ICLR 2019 submission) as an ask/tell algorithm: the paper's own form, and ours.

    ours       a warm-up, then batches from descents in an embedding that is learned again as results arrive; no barrier  (`proposing.py`)
    faithful   a warm-up of random architectures, one fit, one gradient step from the teacher for each eta and lambda       (`faithful.py`)

A step is computed in a thread as soon as a result has come, while other students train. What it gives depends on the seed and on what
was told, never on when it was ready.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from searchers.ahead import Ahead, Cancelled
from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.candidates import scaled_variations
from searchers.embedding_gradient.options import OPTION_NAMES, check_options
from searchers.embedding_gradient.prior import Prior, read_prior
from searchers.embedding_gradient.snapshot import Choice, Snapshot, Step
from searchers.insight import Insight, InsightFailed
from searchers.ledger import DRAWS, Ledger, check_version, fresh_draws

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace
    from searchers.embedding_gradient.domain import Domain

logger = logging.getLogger(__name__)

MIN_FULL = 2
"""Full observations below which there is nothing to learn from."""

_ONE_AT_A_TIME = threading.Lock()
"""Held by whatever uses the networks: a look inside shares the step's."""


@dataclass
class _Batch:
    """The students of one step.

    Attributes:
        key: the number of tellings when it began, and how many steps began at the same number before it.
        num_outcomes: the outcomes that it knows are so many of the oldest.
        snapshot: what it is computed from.
        taken: how many of its students were looked at.
        num_given: how many of them were proposed.
        spent: it has no more.
    """

    key: tuple[int, int]
    num_outcomes: int
    snapshot: Snapshot
    taken: int = 0
    num_given: int = 0
    spent: bool = False


class EmbeddingGradientAlgorithm:
    """Gradient descent in a learned embedding of architectures.

    Only full observations are learned from. Early-stopped ones are not comparable with them, and are only never proposed again.

    Args:
        space: where the students come from.
        seed: of everything random.
        faithful: the paper's form.
        warm_start: the folder of another run of a teacher with the same layers: its students are learned from beside the search's own,
            and there is no warm-up.
        num_initial: random students before the first descent, told ones of any status included. None: 1,500 where faithful (section
            5), else 16.
        chains: students are free chains instead of edits of the teacher, which must be a chain itself. None: where faithful.
        sampler: of random chains, "paper" or "restricted" (`raysearch.architecture.sequences.sampling`). None: the paper's where
            faithful.
        size: what f_p regresses: "params", "macs", or "latency" (only with a latency budget, which measures it).
        centred: faithful: p* has mean 0 (the paper's version 2), else it is the size over its standard deviation (version 1).
        embedding: N, the embedding's size. The paper does not give it.
        channels: of the first convolutions; None: 128 where faithful (figure 4 shows at least 100), else 16.
        hidden: of the regressors.
        num_regressors: M regressors of accuracy; None: 1 where faithful, else 8.
        kappa: standard deviations of the M regressors that are taken off a_hat, in the descents and where `pick` is "bound".
        semi_supervised: ours: the networks learn from architectures without an accuracy, too, whose size is known all the same.
        pretrain_steps: ours: steps on those before the first fit.
        fit_steps: of a fit; None: 100,000 where faithful, else 50.
        refit_every: ours: full observations between two fits.
        batch_size: ours: students of a step, while no result comes.
        num_starts: ours: descents begin at the teacher, at the best evaluated students and at some random ones, so many in all.
        descent_steps: ours: steps of Adam, 200 at most.
        eta: faithful: lengths of the one gradient step.
        lam: values of lambda, each for every start.
        a_0: the target of the accuracy; 1 in the paper.
        p_0: the target of the size, in units of p*; None: 0 where faithful, else the budget of that size, or as small as can be.
        trust: ours: "cloud" pulls descents back to where known architectures lie, "encode" returns to the embedding of the nearest student
            every few steps, "both", "none".
        neighbour_share: ours: the share of the judged students that are changes of the best ones instead of ends of descents.
        pick: ours: students are proposed by their mean prediction, by the lower ("bound"), or by one regressor each ("thompson").
        composite: ours: as in `searchers.targets`.

    Attributes:
        num_fallbacks: proposals that are random because the fit diverged or the descents found nothing new.
        knowledge_folder: where a run keeps what `write_knowledge` writes.
        keeps_state: the losses of earlier refits are not in the log.
    """

    knowledge_folder = "embedding"
    keeps_state = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        faithful: bool = False,
        warm_start: str | None = None,
        num_initial: int | None = None,
        chains: bool | None = None,
        sampler: str | None = None,
        size: str = "params",
        centred: bool = True,
        embedding: int = 32,
        channels: int | None = None,
        hidden: int = 64,
        num_regressors: int | None = None,
        kappa: float = 1.0,
        semi_supervised: bool = True,
        pretrain_steps: int = 0,
        fit_steps: int | None = None,
        refit_every: int = 4,
        batch_size: int = 4,
        num_starts: int = 12,
        descent_steps: int = 60,
        eta: float | Sequence[float] = (0.1, 0.3, 1.0, 3.0),
        lam: float | Sequence[float] = (0.03, 0.1, 0.3, 1.0),
        a_0: float = 1.0,
        p_0: float | None = None,
        trust: str = "both",
        neighbour_share: float = 0.0,
        pick: str = "bound",
        composite: bool | None = None,
    ) -> None:
        self.space = space
        given = {key: value for key, value in locals().items() if key in OPTION_NAMES}
        self.num_initial, self._options = check_options(space, given)
        self.faithful = self._options.faithful
        self.num_fallbacks = 0
        self._prior: Prior | None = None
        if warm_start is not None:
            how = {"chains": self._options.chains, "size": self._options.size}
            self._prior = read_prior(space, warm_start, **how)
        if self._options.chains:
            self._domain()  # refuses a teacher that is no chain
        self._seed = seed
        self._ledger = Ledger(space)
        self._rng = np.random.default_rng(seed)
        self._num_told = 0
        self._was_asked = False
        self._batch: _Batch | None = None
        self._step: Step | None = None
        self._histories: dict[int, dict[str, Any]] = {}
        self._ahead: Ahead[list[Choice]] = Ahead()

    @property
    def busy(self) -> bool:
        """Whether `ask` would wait for a step; begins to compute it."""
        batch = self._current()
        if batch is None:
            return False
        self._ahead.start(batch.key, partial(self._run, batch))
        return not self._ahead.is_ready(batch.key)

    @property
    def background_s(self) -> float:
        """Seconds of proposing that no call of `ask` took."""
        return self._ahead.unnoticed_s

    def warm_up(self) -> None:
        """Imports torch, which costs seconds the first time in a process."""
        self._step_of_mode()

    def ask(self) -> Proposal | None:
        ledger = self._ledger
        uniform = None if self.faithful or self._options.chains else ledger.new_uniform()
        if uniform is not None:
            return ledger.propose(uniform, origin="uniform")
        if self._warms_up:
            return self._random("warm_up")
        batch = self._current()
        if batch is None:
            if self.faithful and ledger.pending:
                return None  # the paper learns from all of them at once
            return self._random("warm_up")
        from searchers.embedding_gradient.training import FitDiverged

        self._was_asked = True
        try:
            choices = self._ahead.result(batch.key, partial(self._run, batch))
        except FitDiverged as error:
            batch.spent = True
            return self._fallback(f"The fit diverged ({error})")
        return self._next(batch, choices)

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)
        self._num_told += 1
        if self._was_asked:  # else it is a line of a log, told before the search goes on
            self._was_asked = False
            _ = self.busy

    def state_dict(self) -> dict[str, Any]:
        batch = self._batch
        return {
            "version": 1,
            "ledger": self._ledger.state_dict(),
            "rng": self._rng.bit_generator.state,
            "num_fallbacks": self.num_fallbacks,
            "num_told": self._num_told,
            "histories": list(self._histories.values()),
            "batch": None
            if batch is None
            else {
                "key": list(batch.key),
                "num_outcomes": batch.num_outcomes,
                "known": sorted(batch.snapshot.known),
                "taken": batch.taken,
                "num_given": batch.num_given,
                "spent": batch.spent,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 1)
        self._ahead.stop()
        self._ledger.load_state_dict(state["ledger"])
        self._rng.bit_generator.state = state["rng"]
        self.num_fallbacks = state["num_fallbacks"]
        self._num_told = state["num_told"]
        with _ONE_AT_A_TIME:
            self._histories.clear()
            self._histories |= {one["num_observations"]: one for one in state["histories"]}
        self._batch = None
        if (saved := state["batch"]) is not None:
            key = (saved["key"][0], saved["key"][1])
            snapshot = self._snapshot(key, saved["num_outcomes"], saved["known"])
            counts = (saved["taken"], saved["num_given"], saved["spent"])
            self._batch = _Batch(key, saved["num_outcomes"], snapshot, *counts)

    def insight(self) -> Insight | None:
        """What a model of all full observations knows; None while there are fewer than two.

        Raises:
            InsightFailed: a fit diverged.
        """
        if len(self._ledger.full) < MIN_FULL:
            return None
        from searchers.embedding_gradient.training import FitDiverged

        snapshot = self._snapshot((self._num_told, 0), len(self._ledger.told), ())
        try:
            with _ONE_AT_A_TIME:
                return self._step_of_mode().insight(snapshot)
        except FitDiverged as error:
            raise InsightFailed(str(error)) from error

    def write_knowledge(self, folder: Path) -> None:
        """Writes `embedding.json`, the losses of every refit, and `embedding.safetensors`, the weights of the newest networks.

        Nothing is written while there are fewer than two full observations; a fit that diverges leaves the losses alone.

        Args:
            folder: made where it is missing.
        """
        if len(self._ledger.full) < MIN_FULL:
            return
        from searchers.embedding_gradient.knowledge import write_knowledge
        from searchers.embedding_gradient.training import FitDiverged

        snapshot = self._snapshot((self._num_told, 0), len(self._ledger.told), ())
        with _ONE_AT_A_TIME:
            try:
                networks = self._step_of_mode().networks(snapshot)
            except FitDiverged as error:
                logger.warning("There are no weights to write: %s", error)
                networks = None
            write_knowledge(folder, self._histories.values(), networks)

    # Steps

    @property
    def _warms_up(self) -> bool:
        ledger = self._ledger
        if self._prior is not None:
            return False
        if ledger.num_students < self.num_initial:
            return True
        return not self.faithful and len(ledger.full) < MIN_FULL

    def _current(self) -> _Batch | None:
        """The step whose students come next, begun where there is none; None: there is nothing to begin it with."""
        batch, ledger = self._batch, self._ledger
        is_fresh = batch is not None and (self.faithful or batch.key[0] == self._num_told)
        if batch is not None and is_fresh and not batch.spent:
            return batch
        if self._warms_up or (self._prior is None and len(ledger.full) < MIN_FULL):
            return None
        if self.faithful and ledger.pending:
            return None  # a round's results are awaited
        again = batch is not None and batch.key[0] == self._num_told
        key = (self._num_told, batch.key[1] + 1 if again and batch is not None else 0)
        num_outcomes = len(ledger.told)
        known = [*ledger.pending.values(), *(one.architecture for one in ledger.told.values())]
        self._batch = _Batch(key, num_outcomes, self._snapshot(key, num_outcomes, known))
        return self._batch

    def _snapshot(self, key: tuple[int, int], num_outcomes: int, known: Sequence[str]) -> Snapshot:
        outcomes = list(self._ledger.told.values())[:num_outcomes]
        return Snapshot(
            full=tuple(one for one in outcomes if one.status == "full"),
            known=frozenset(known),
            seed=(self._seed, *key),
        )

    def _run(self, batch: _Batch, cancelled: Cancelled) -> list[Choice]:
        with _ONE_AT_A_TIME:
            return self._step_of_mode()(batch.snapshot, cancelled)

    def _step_of_mode(self) -> Step:
        if self._step is None:
            from searchers.embedding_gradient.steps import make_step

            self._step = make_step(self.space, self._options, self._prior, self._histories)
        return self._step

    def _domain(self) -> Domain:
        from searchers.embedding_gradient.domain import make_domain

        return make_domain(self.space, self._options)

    # Proposals

    def _next(self, batch: _Batch, choices: list[Choice]) -> Proposal | None:
        """The next new student of a step, then those of another one; a random one where a step has none at all."""
        most = len(choices) if self.faithful else self._options.batch_size
        while batch.taken < len(choices) and batch.num_given < most:
            choice = choices[batch.taken]
            batch.taken += 1
            if (text := self._if_new(choice.text)) is not None:
                batch.num_given += 1
                return self._propose(choice, text)
        batch.spent = True
        if not batch.num_given:
            return self._fallback("The descents found nothing new")
        return self.ask()

    def _if_new(self, text: str) -> str | None:
        """The student if it is new, inside a latency budget by measurement."""
        if self._options.chains or "latency_ms" not in self.space.limits:
            return text if self._ledger.is_new(text) else None
        edits = self._ledger.first_new([self.space.parse(text)])
        return None if edits is None else str(edits)

    def _propose(self, choice: Choice, text: str) -> Proposal:
        extra: dict[str, Any] = {"origin": choice.origin}
        if choice.predicted is not None and choice.predicted_sd is not None:
            extra["predicted"] = round(choice.predicted, 6)
            extra["predicted_sd"] = round(choice.predicted_sd, 6)
        return self._ledger.propose(text, **extra)

    def _fallback(self, reason: str) -> Proposal:
        self.num_fallbacks += 1
        logger.warning("%s; the next student is a random one.", reason)
        return self._random("fallback")

    def _random(self, origin: str) -> Proposal:
        """A new random student.

        Raises:
            Exhausted: there is none.
        """
        ledger = self._ledger
        if not self._options.chains:
            fresh = fresh_draws(self.space, self._rng)
            if self.space.limits:
                fresh = (partial(scaled_variations, self.space, rng=self._rng), *fresh)
            return ledger.propose(ledger.draw_new(*fresh), origin=origin)
        domain = self._domain()
        for size in DRAWS:
            for text in domain.sample(size, self._rng):
                if ledger.is_new(text):
                    return ledger.propose(text, origin=origin)
        raise Exhausted
