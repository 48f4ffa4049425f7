"""Proposals from another search's kernels (ESNAC, section 4.3: zero-shot transfer).

K kernels are learned from the source's students, each from its own half D_k, and each proposes the target's student that maximises its
expected improvement: nothing of the target was evaluated yet. A layer means the same in both, so that one encoder reads both teachers'
students; its columns are those that either uses.

Notation
    a      ours: the accuracy ratio R_a, which carries over between teachers of different sizes, with the exact R_c of each student:
           f = c a; the teacher's is 1. The paper's form: the source's values f themselves, c = 1, and the teacher's is 0
    f*     the largest c a in D_k
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from raysearch.threads import torch_threads
from searchers.ahead import Cancelled
from searchers.batches import Snapshot
from searchers.candidates import scaled_variations
from searchers.multi_kernel_bo.acquisition import expected_improvement
from searchers.multi_kernel_bo.fit import FitOptions, fit_all
from searchers.multi_kernel_bo.inputs import Inputs, LayerColumns
from searchers.multi_kernel_bo.members import MemberOptions, make_embeddings, make_members, subsets
from searchers.multi_kernel_bo.model import LearnedKernelGP
from searchers.multi_kernel_bo.snapshot import Choice
from searchers.source import Source
from searchers.targets import NEEDED, Targets

if TYPE_CHECKING:
    from raysearch.architecture import EditsBatch, SearchSpace

M = TypeVar("M")

CHUNK = 64
"""Candidates that are embedded at a time."""

_FITTING, _DRAWING, _SUBSETS = 0, 1, 2  # what a seed is for


@dataclass(frozen=True)
class TransferStep:
    """The first students of a search that begins with another one's knowledge.

    Attributes:
        space: where the students come from.
        source: the other search.
        members: of the kernels.
        fitting: of their networks.
        faithful: the paper's form: the kernels keep the source's values f, beside the teacher's 0.
        num_candidates: expected improvement is computed for, by each kernel.
        num_threads: that learn kernels.
    """

    space: SearchSpace
    source: Source
    members: MemberOptions
    fitting: FitOptions
    faithful: bool = False
    num_candidates: int = 1000
    num_threads: int = 2

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        with torch_threads(1):
            columns = LayerColumns.of(self.source.space, self.space)
            read = Inputs(self.source.space, columns, with_features=False)
            write = Inputs(self.space, columns, with_features=False)
            targets = source_targets(self.source)
            evaluated = self.source.space.batch(one.architecture for one in self.source.full)
            X, y = read(evaluated), targets.values(self.source.full)
            if self.faithful:
                y = y * targets.true_factor(evaluated)
            rows = subsets(len(y), self.members, [*snapshot.seed, _SUBSETS])
            embeddings = make_embeddings(read, self.members, [*snapshot.seed, _FITTING])
            kernels = make_members(X, y, read.teacher(), embeddings, rows, self.members)
            fit_all(kernels, self.fitting, num_threads=self.num_threads, cancelled=cancelled)
            # inside a budget all of the target's students have one size, and only the accuracy counts
            is_f = self.faithful or bool(self.space.limits)
            f = y if is_f else y * targets.factor(evaluated)  # [n]
            exact = Targets(self.space, targets.composite and not is_f)
            models = (
                (kernel, float(f[seen].max(initial=0.0)))
                for kernel, seen in zip(kernels, rows, strict=True)
            )
            best_of = partial(self._best_of, write=write, exact=exact)
            with torch.no_grad():
                return one_choice_each(models, snapshot.seed, cancelled, best_of)

    def _best_of(
        self,
        kernel: LearnedKernelGP,
        best_f: float,
        rng: np.random.Generator,
        taken: set[str],
        *,
        write: Inputs,
        exact: Targets,
    ) -> Choice:
        """The target's student that maximises a kernel's expected improvement; of those that no kernel before it took, if it can be."""
        candidates = transfer_candidates(self.space, self.num_candidates, rng)
        c = torch.from_numpy(exact.factor(candidates))
        h = [
            kernel.embedding(write(candidates[start : start + CHUNK]).to(self.members.device))
            for start in range(0, len(candidates), CHUNK)
        ]
        posterior = kernel.embedded().posterior(torch.cat(h)[:, None], observation_noise=True)
        mean = c * posterior.mean[:, 0, 0].cpu()
        deviation = c * posterior.variance[:, 0, 0].sqrt().cpu()
        improvement = expected_improvement(mean, deviation, best_f)
        is_taken = torch.tensor([str(edits) in taken for edits in candidates])
        best = int(improvement.masked_fill(is_taken, -torch.inf).argmax())
        return Choice(candidates[best], float(mean[best]), float(deviation[best]))


def one_choice_each(
    models: Iterable[tuple[M, float]],
    seed: Sequence[int],
    cancelled: Cancelled,
    best_of: Callable[[M, float, np.random.Generator, set[str]], Choice],
) -> list[Choice]:
    """What each model with its f* proposes, given a generator of its own and the texts that those before it took."""
    choices: list[Choice] = []
    for k, (model, best_f) in enumerate(models):
        if cancelled():
            break
        rng = np.random.default_rng([*seed, _DRAWING, k])
        taken = {str(choice.edits) for choice in choices}
        choices.append(best_of(model, best_f, rng, taken))
    return choices


def source_targets(source: Source) -> Targets:
    """Accuracy ratios, from which f follows; the values as they are where accuracies were not reported."""
    reported = all(one.metrics.keys() >= NEEDED for one in source.full)
    return Targets(source.space, composite=reported)


def transfer_candidates(
    space: SearchSpace, num_candidates: int, rng: np.random.Generator
) -> EditsBatch:
    """Fresh students; inside a budget half of them are variations of the scaled one."""
    if not space.limits:
        return space.sample(num_candidates, rng)
    half = num_candidates // 2
    sampled = space.sample(half, rng)
    varied = scaled_variations(space, num_candidates - half, rng)
    return type(sampled).concatenate([sampled, varied])
