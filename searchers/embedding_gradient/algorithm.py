"""Architecture Compression (ICLR 2019 submission) as an ask/tell algorithm: the paper's own form, and ours.

    ours       a warm-up, then batches from descents in an embedding that is learned again as results arrive; no barrier  (`proposing.py`)
    faithful   a warm-up of random architectures, one fit, one gradient step from the teacher for each eta and lambda       (`faithful.py`)

A step is computed in a thread as soon as a result has come, while other students train. What it gives depends on the seed and on what
was told, never on when it was ready.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchers.ahead import Cancelled
from searchers.algorithm import Exhausted, Proposal
from searchers.batches import MIN_FULL, ONE_AT_A_TIME, Batch, BatchedAlgorithm, Snapshot
from searchers.embedding_gradient.options import OPTION_NAMES, StepOptions, check_options
from searchers.embedding_gradient.prior import Prior, read_prior
from searchers.embedding_gradient.snapshot import Choice, Step
from searchers.insight import Insight
from searchers.ledger import DRAWS, check_version

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace
    from searchers.embedding_gradient.domain import Domain

logger = logging.getLogger(__name__)


class EmbeddingGradientAlgorithm(BatchedAlgorithm[Choice]):
    """Gradient descent in a learned embedding of architectures.

    Only full observations are learned from. Early-stopped ones are not comparable with them, and are only never proposed again.

    Args:
        space: where the students come from.
        seed: of everything random.
        faithful: the paper's form.
        warm_start: the folder of another run of a teacher with the same layers: its students are learned from beside the search's own,
            and there is no warm-up. Where chains, the run of any teacher with the same input and outputs, whose students may be chains, too;
            those longer than T_max are left out.
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
        num_local: ours: short descents from the best students, which are read by the encoder (`proposing.py`).
        num_parents: ours: how many students these begin with.
        num_hops: ours: how often these go on from the student that they have reached.
        descent_steps: ours: steps of Adam, 200 at most.
        eta: faithful: lengths of the one gradient step.
        lam: values of lambda, each for every start.
        a_0: the target of the accuracy; 1 in the paper.
        p_0: the target of the size, in units of p*; None: 0 where faithful, else the budget of that size, or as small as can be.
        trust: ours: "cloud" pulls descents back to where known architectures lie, "encode" returns to the embedding of the nearest student
            every few steps, "both", "none".
        neighbour_share: ours: the share of the proposals that are changes of the best students, judged like the ends of descents, by turns with
            these.
        pick: ours: students are proposed by their mean prediction, by the lower bound ("bound"), or by one regressor each ("thompson").
        composite: ours: regress the accuracy ratio and use the exact compression; None: where the space has no budget and the observed values
            are f of the observed metrics.

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
        num_local: int = 48,
        num_parents: int = 5,
        num_hops: int = 1,
        descent_steps: int = 60,
        eta: float | Sequence[float] = (0.1, 0.3, 1.0, 3.0),
        lam: float | Sequence[float] = (0.03, 0.1, 0.3, 1.0),
        a_0: float = 1.0,
        p_0: float | None = None,
        trust: str = "both",
        neighbour_share: float = 0.5,
        pick: str = "mean",
        composite: bool | None = None,
    ) -> None:
        super().__init__(space, seed)
        given = {key: value for key, value in locals().items() if key in OPTION_NAMES}
        self.num_initial, self._options = check_options(space, given)
        self.faithful = self._options.faithful
        domain = self._domain()  # refuses a teacher that is no chain where one is needed
        self._prior: Prior | None = None
        if warm_start is not None:
            self._prior = read_prior(
                space,
                warm_start,
                chains=self._options.chains,
                size=self._options.size,
                num_rows=domain.num_rows,
            )
        self._step: Step | None = None
        self._histories: dict[int, dict[str, Any]] = {}

    @property
    def step_options(self) -> StepOptions:
        """The checked options of the steps."""
        return self._options

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

        try:
            choices = self._choices(batch)
        except FitDiverged as error:
            batch.spent = True
            return self._fallback(f"The fit diverged ({error})")
        return self._next(batch, choices)

    def state_dict(self) -> dict[str, Any]:
        histories = list(self._histories.values())
        return {"version": 2, **self._books(), "histories": histories}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 2)
        self._open_books(state)
        with ONE_AT_A_TIME:
            self._histories.clear()
            self._histories |= {one["num_observations"]: one for one in state["histories"]}

    def insight(self) -> Insight | None:
        """What a model of all full observations knows; None while there are fewer than two.

        Raises:
            InsightFailed: a fit diverged.
        """
        from searchers.embedding_gradient.training import FitDiverged

        return self._look(lambda snapshot: self._step_of_mode().insight(snapshot), (FitDiverged,))

    def write_knowledge(self, folder: Path) -> None:
        """Writes `embedding.json`, the losses of every refit, and `embedding.safetensors`, the weights of the newest networks.

        Nothing is written while there are fewer than two full observations; a fit that diverges leaves the losses alone.

        Args:
            folder: made where it is missing.
        """
        self._ahead.stop()  # a step that nobody will ask for: a fit of the paper's takes hours
        snapshot = self._learned_last()
        if snapshot is None:
            return
        from searchers.embedding_gradient.knowledge import write_knowledge
        from searchers.embedding_gradient.training import FitDiverged

        with ONE_AT_A_TIME:
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

    def _current(self) -> Batch | None:
        batch, ledger = self._unspent(lasts=self.faithful), self._ledger
        if batch is not None:
            return batch
        if self._warms_up or (self._prior is None and len(ledger.full) < MIN_FULL):
            return None
        if self.faithful and ledger.pending:
            return None  # a round's results are awaited
        return self._begin()

    def _compute(self, batch: Batch, cancelled: Cancelled) -> list[Choice]:
        return self._step_of_mode()(batch.snapshot, cancelled)

    def _step_of_mode(self) -> Step:
        if self._step is None:
            from searchers.embedding_gradient.steps import make_step

            self._step = make_step(self.space, self._options, self._prior, self._histories)
        return self._step

    def _domain(self) -> Domain:
        from searchers.embedding_gradient.domain import make_domain

        return make_domain(self.space, self._options)

    def _learned_last(self) -> Snapshot | None:
        """What the newest networks have learned from; where faithful what the batch was computed from, since each fit takes hours."""
        newest = self._newest()
        if newest is None or not self.faithful or self._batch is None:
            return newest
        return self._batch.snapshot

    # Proposals

    def _next(self, batch: Batch, choices: list[Choice]) -> Proposal | None:
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
            draws = self._fresh_draws()
            if self.space.limits and ledger.num_students % 2:
                draws = draws[1:]  # every other one is no variation of the scaled student
            return ledger.propose(ledger.draw_new(*draws), origin=origin)
        from searchers.embedding_gradient.chains import make_chain_domain

        domain = make_chain_domain(self.space, self._options.sampler, faithful=self.faithful)
        for draw in (domain.sample, domain.near_teacher):
            for size in DRAWS:
                for text in draw(size, self._rng):
                    if ledger.is_new(text):
                        return ledger.propose(text, origin=origin)
        raise Exhausted
