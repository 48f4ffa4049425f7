"""Multi-kernel Bayesian optimisation (ESNAC: Cao, Wang and Kitani, "Learnable Embedding Space for Efficient Neural Architecture
Compression", ICLR 2019), as an ask/tell algorithm: the paper's own form, and ours.

    faithful   steps of K students, one for each of K fresh kernels, with a barrier between steps    (`faithful.py`)
    ours       one averaged model of everything that is finished, no barrier                          (`improved.py`)

A step is computed in a thread as soon as a result has come, while other students train. What it gives depends on the seed and on what
was told, never on when it was ready.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raysearch.errors import ConfigError
from searchers.ahead import Cancelled
from searchers.algorithm import (
    Exhausted,
    Proposal,
    check_bool,
    check_choice,
    check_int,
    check_num_edits,
    check_share,
)
from searchers.batches import MIN_FULL, Batch, BatchedAlgorithm
from searchers.insight import Insight
from searchers.ledger import check_version
from searchers.multi_kernel_bo.options import ACQUISITIONS, ENCODERS, StepOptions, check_device
from searchers.multi_kernel_bo.snapshot import Choice, Step
from searchers.source import read_source
from searchers.targets import check_composite

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace
    from searchers.multi_kernel_bo.feature_transfer import FeatureTransferStep
    from searchers.multi_kernel_bo.transfer import TransferStep

logger = logging.getLogger(__name__)

KNOWN_STEPS = 8
"""Faithful: the search ends after so many steps in a row without a new student."""

TRANSFER = (2**31, 0)
"""Key of the step that begins with another search's kernels: no search is ever told so many outcomes."""


class MultiKernelBOAlgorithm(BatchedAlgorithm[Choice]):
    """Bayesian optimisation with several learned kernels.

    Only full observations enter the learned kernels and the paper's form. Students that were stopped early enter our process on features at what
    they would have come to (`searchers.fidelity`).

    Args:
        space: where the students come from.
        seed: of everything random.
        faithful: the paper's form: a barrier after each K students, no exclusion of known ones, values as they are.
        num_kernels: K; the paper's ablation has 1, 2, 4, 8 and 16.
        encoder: "mlp" or "lstm" (the paper's); "features": no learned kernel, ours then is the process on features alone; None: lstm
            where faithful, else mlp.
        acquisition: faithful: "random" takes the best of `num_candidates` samples, "evolution" evolves as many (table 6).
        num_initial: ours: students before the model is used, told ones of any status included.
        num_candidates: students that the acquisition function is computed for, by each kernel where faithful.
        mutation_share: ours: the share of the candidates that are made of good students; the rest are fresh.
        num_parents: ours: how many of the best predicted students they are made of.
        num_edits: ours: the fewest and the most edits of one mutation.
        batch_size: ours: students of a step, while no result comes.
        refit_every: ours: full observations between two fits of the networks.
        composite: ours: model the accuracy ratio and use the exact compression; None: where the space has no budget and the observed values
            are f of the observed metrics.
        use_stopped: ours: learn from students that were stopped early, too.
        warm_start: the folder of another run, of any teacher: the first K students are those that kernels learned from its search choose
            (section 4.3 of the paper); ours then goes on without random ones. With "features" they are chosen by as many processes on
            features that do not depend on the teacher.
        transfer_only: nothing more is proposed (the paper's zero-shot form).
        num_threads: that learn kernels, each with one core.
        device: of the networks: "cpu", "cuda", or "auto" for CUDA where this process has it.

    Attributes:
        num_fallbacks: proposals that are random because the model failed numerically.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        faithful: bool = False,
        num_kernels: int = 8,
        encoder: str | None = None,
        acquisition: str = "random",
        num_initial: int = 8,
        num_candidates: int = 1000,
        mutation_share: float = 0.75,
        num_parents: int = 10,
        num_edits: tuple[int, int] | list[int] = (1, 4),
        batch_size: int = 4,
        refit_every: int = 8,
        composite: bool | None = None,
        use_stopped: bool = True,
        warm_start: str | None = None,
        transfer_only: bool = False,
        num_threads: int = 2,
        device: str = "auto",
    ) -> None:
        super().__init__(space, seed)
        self.faithful = check_bool("search.options.faithful", faithful)
        _check_mode(self.faithful, acquisition)
        self.num_initial = check_int("search.options.num_initial", num_initial, 1)
        self._options = StepOptions(
            faithful=faithful,
            num_kernels=check_int("search.options.num_kernels", num_kernels, 1),
            encoder=_check_encoder(encoder, faithful),
            acquisition=check_choice("search.options.acquisition", acquisition, ACQUISITIONS),
            num_candidates=check_int("search.options.num_candidates", num_candidates, 2),
            mutation_share=check_share("search.options.mutation_share", mutation_share),
            num_parents=check_int("search.options.num_parents", num_parents, 1),
            num_edits=check_num_edits(num_edits),
            batch_size=check_int("search.options.batch_size", batch_size, 1),
            refit_every=check_int("search.options.refit_every", refit_every, 1),
            composite=check_composite(composite),
            use_stopped=check_bool("search.options.use_stopped", use_stopped),
            num_threads=check_int("search.options.num_threads", num_threads, 1),
            device=check_device(device),
        )
        self.transfer_only = check_bool("search.options.transfer_only", transfer_only)
        self._source = None if warm_start is None else read_source(warm_start)
        self._check_transfer()
        self._has_transferred = self._source is None
        self._num_known = 0  # proposals of the faithful mode since the last new student
        self._step: Step | None = None

    def warm_up(self) -> None:
        """Imports torch and BoTorch, which costs seconds the first time in a process."""
        self._step_of_mode()

    def ask(self) -> Proposal | None:
        if not self.faithful and (uniform := self._ledger.new_uniform()) is not None:
            return self._ledger.propose(uniform, origin="uniform")
        batch = self._current()
        if batch is None:
            if self._has_transferred and self.transfer_only:
                raise Exhausted
            return None if self.faithful else self._random("sample")
        if self._num_known >= KNOWN_STEPS * self._options.num_kernels:
            raise Exhausted
        from searchers.surrogate import NUMERICAL_ERRORS

        try:
            choices = self._choices(batch)
        except NUMERICAL_ERRORS as error:
            self._end(batch)
            self.num_fallbacks += 1
            logger.warning("The model failed, the next student is a random one: %s", error)
            return self._random("fallback")
        if self.faithful:
            return self._next_as_is(batch, choices)
        return self._next_new(batch, choices) or self.ask()

    def state_dict(self) -> dict[str, Any]:
        more = {"num_known": self._num_known, "has_transferred": self._has_transferred}
        return {"version": 1, **self._books(), **more}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, 1)
        self._open_books(state)
        self._num_known = state["num_known"]
        self._has_transferred = state["has_transferred"]

    def insight(self) -> Insight | None:
        """What a model of all full observations knows; None while there are fewer than two.

        Raises:
            InsightFailed: the model failed numerically.
        """
        from searchers.surrogate import NUMERICAL_ERRORS

        return self._look(
            lambda snapshot: self._step_of_mode().insight(snapshot),
            (*NUMERICAL_ERRORS, np.linalg.LinAlgError),
        )

    # Steps

    def _current(self) -> Batch | None:
        ledger = self._ledger
        batch = self._unspent(lasts=self.faithful or not self._has_transferred)
        if batch is not None:
            return batch
        if not self._has_transferred:
            self._batch = Batch(TRANSFER, 0, self._snapshot(TRANSFER, 0, ()))
            return self._batch
        if self.transfer_only:
            return None
        if self.faithful:
            if ledger.pending:
                return None  # the paper's barrier
        elif ledger.num_students < self.num_initial or len(ledger.full) < MIN_FULL:
            return None
        return self._begin()

    def _compute(self, batch: Batch, cancelled: Cancelled) -> list[Choice]:
        step = self._transfer() if batch.key == TRANSFER else self._step_of_mode()
        return step(batch.snapshot, cancelled)

    def _transfer(self) -> TransferStep | FeatureTransferStep:
        from searchers.multi_kernel_bo.steps import make_transfer

        assert self._source is not None, "there is a step of transfer"
        return make_transfer(self.space, self._source, self._options)

    def _end(self, batch: Batch) -> None:
        """The step gives no more students."""
        batch.spent = True
        self._has_transferred = True

    def _check_transfer(self) -> None:
        """Refuses options that do not go together."""
        if self.transfer_only and self._source is None:
            raise ConfigError(
                "search.options.transfer_only is true, but search.warm_start names no run: give the folder of one"
            )

    def _step_of_mode(self) -> Step:
        if self._step is None:
            from searchers.multi_kernel_bo.steps import make_step

            self._step = make_step(self.space, self._options)
        return self._step

    # Proposals

    def _next_as_is(self, batch: Batch, choices: list[Choice]) -> Proposal | None:
        """The paper's: whatever a kernel chose, known or not."""
        choice = choices[batch.taken]
        batch.taken += 1
        if batch.taken == len(choices):
            self._end(batch)
        if self._ledger.is_new(choice.edits):
            self._num_known = 0
            return self._propose(choice, batch)
        self._num_known += 1  # its outcome is known, or will be
        return Proposal(str(choice.edits), _expectation(choice, batch))

    def _next_new(self, batch: Batch, choices: list[Choice]) -> Proposal | None:
        """The next student of a step that is new; where there is none a random one, or, after a transfer, what follows it."""
        while batch.taken < len(choices):
            choice = choices[batch.taken]
            batch.taken += 1
            if (edits := self._ledger.first_new([choice.edits])) is not None:
                return self._propose(replace(choice, edits=edits), batch)
        self._end(batch)
        return None if batch.key == TRANSFER else self._random("sample")

    def _propose(self, choice: Choice, batch: Batch) -> Proposal:
        return self._ledger.propose(choice.edits, **_expectation(choice, batch))

    def _random(self, origin: str) -> Proposal:
        return self._ledger.propose(self._ledger.draw_new(*self._fresh_draws()), origin=origin)


def _expectation(choice: Choice, batch: Batch) -> dict[str, Any]:
    """What a trial's config says of its proposal."""
    if batch.key != TRANSFER and not batch.snapshot.full:
        return {"origin": "sample"}  # the paper's first step: no kernel has learned, or chosen
    return {
        "origin": "transfer" if batch.key == TRANSFER else "model",
        "predicted": round(choice.predicted, 6),
        "predicted_sd": round(choice.predicted_sd, 6),
    }


def _check_mode(faithful: bool, acquisition: object) -> None:
    """Refuses what our own form would leave unused without a word."""
    if acquisition == "evolution" and not faithful:
        raise ConfigError(
            "search.options.acquisition is 'evolution', which only the faithful form has: set faithful to true, or remove it"
        )


def _check_encoder(encoder: object, faithful: bool) -> str:
    """The encoder's name; None: the mode's own."""
    if encoder is None:
        return "lstm" if faithful else "mlp"
    if faithful and encoder == "features":
        raise ConfigError(
            "search.options.encoder is 'features', which the faithful form has no kernels with: choose lstm or mlp"
        )
    return check_choice("search.options.encoder", encoder, ENCODERS)
