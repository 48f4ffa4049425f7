"""Proposals from another search by Gaussian processes on features that mean the same for both teachers (`searchers.relative`).

The paper transfers learned kernels (ESNAC, section 4.3, `transfer`). Here each of K processes is fitted to a random half D_k of the source's
students instead, and proposes the target's student of the largest expected improvement.

Notation
    a      the accuracy ratio R_a, with the exact R_c of each student: f = c a
    f*     the largest c a in D_k
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from raysearch.threads import torch_threads
from searchers.ahead import Cancelled
from searchers.batches import Snapshot
from searchers.multi_kernel_bo.members import MemberOptions, subsets
from searchers.multi_kernel_bo.snapshot import Choice
from searchers.multi_kernel_bo.transfer import (
    one_choice_each,
    source_targets,
    transfer_candidates,
)
from searchers.relative import BLOCKS, relative_features
from searchers.source import Source
from searchers.surrogate import Surrogate
from searchers.targets import Targets

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

MIN_STUDENTS = 2
"""Of a half; where it has fewer, its process sees all students."""

_SUBSETS = 2  # what a seed is for


@dataclass(frozen=True)
class FeatureTransferStep:
    """The first students of a search that begins with another one's knowledge.

    Attributes:
        space: where the students come from.
        source: the other search.
        members: how many processes, and which students each sees.
        num_candidates: expected improvement is computed for, by each process.
    """

    space: SearchSpace
    source: Source
    members: MemberOptions
    num_candidates: int = 1000

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        """Raises one of `searchers.surrogate.NUMERICAL_ERRORS`."""
        with torch_threads(1):
            targets = source_targets(self.source)
            evaluated = self.source.space.batch(one.architecture for one in self.source.full)
            x, y = relative_features(self.source.space, evaluated), targets.values(self.source.full)
            # inside a budget all of the target's students have one size, and only the accuracy counts
            f = y if self.space.limits else y * targets.factor(evaluated)  # [n]
            exact = Targets(self.space, targets.composite and not self.space.limits)
            halves = subsets(len(y), self.members, [*snapshot.seed, _SUBSETS])
            seen = (rows if len(rows) >= MIN_STUDENTS else np.arange(len(y)) for rows in halves)
            models = (
                (Surrogate(x[rows], y[rows], BLOCKS.values()), float(f[rows].max()))
                for rows in seen
            )
            best_of = partial(self._best_of, exact=exact)
            return one_choice_each(models, snapshot.seed, cancelled, best_of)

    def _best_of(
        self,
        surrogate: Surrogate,
        best_f: float,
        rng: np.random.Generator,
        taken: set[str],
        *,
        exact: Targets,
    ) -> Choice:
        """The target's student of the largest expected improvement; of those that no process before took, if it can be."""
        candidates = transfer_candidates(self.space, self.num_candidates, rng)
        x, c = relative_features(self.space, candidates), exact.factor(candidates)
        improvement = surrogate.log_ei(x, c, best_f)
        improvement[[str(edits) in taken for edits in candidates]] = -np.inf
        best = int(improvement.argmax())
        mean, sd = surrogate.predict(x[best : best + 1])
        return Choice(candidates[best], float(mean[0] * c[best]), float(sd[0] * c[best]))
