"""A step as in the paper (ESNAC, algorithm 1 and its public code), through a faster implementation of the same mathematics.

K fresh kernels; kernel k learns from a random half D_k of the evaluated students and from the teacher, whose value is 0; it proposes the
student that maximises its own expected improvement. In the first step nothing is evaluated, and the K students are random, as the paper has
it (the public code takes the expected improvement of untrained kernels, which is largest far from the teacher).

Notation
    D_k     each evaluated student with probability 1/2, and the teacher with y = 0
    f*      the largest value in D_k
    EI_k    `acquisition.py`, sigma with the noise
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from raysearch.threads import torch_threads
from searchers.ahead import Cancelled
from searchers.batches import Snapshot
from searchers.insight import Insight, principal_map, shown_share
from searchers.multi_kernel_bo.acquisition import expected_improvement
from searchers.multi_kernel_bo.fit import FitOptions, fit_all, kernel_threads
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.multi_kernel_bo.knowledge import embeddings, left_out
from searchers.multi_kernel_bo.members import MemberOptions, make_embeddings, make_members, subsets
from searchers.multi_kernel_bo.model import LearnedKernelGP
from searchers.multi_kernel_bo.snapshot import Choice

if TYPE_CHECKING:
    from raysearch.architecture import Edits, EditsBatch, SearchSpace

CHUNK = 64
"""Candidates that are embedded at a time; outputs do not depend on it, and larger chunks are slower."""

_ONE_POSTERIOR = threading.Lock()
"""GPyTorch's lazy kernels switch a setting of the whole process."""

_FITTING, _DRAWING, _SUBSETS = 0, 1, 2  # what a seed is for

Score = Callable[["EditsBatch"], np.ndarray]


@dataclass(frozen=True)
class FaithfulStep:
    """The paper's step.

    Attributes:
        space: where the students come from.
        inputs: writes them.
        members: of the kernels.
        fitting: of their networks.
        acquisition: "random": EI over fresh samples; "evolution": maximised by evolution (section 3.2 and table 6).
        num_candidates: EI is computed for, by each kernel.
        num_threads: that learn kernels.
    """

    space: SearchSpace
    inputs: Inputs
    members: MemberOptions
    fitting: FitOptions
    acquisition: str = "random"
    num_candidates: int = 1000
    num_threads: int = 2

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        with torch_threads(1):
            kernels = self.kernels(snapshot, cancelled)

            def choose(k: int) -> Choice | None:
                rng = np.random.default_rng([*snapshot.seed, _DRAWING, k])
                with torch.no_grad():  # of this thread
                    if cancelled():
                        return None
                    chosen = self._best_of(kernels[k], rng) if snapshot.full else self._random(rng)
                    return self._choice(kernels[k], chosen)

            with kernel_threads(self.num_threads) as pool:
                return [one for one in pool.map(choose, range(len(kernels))) if one is not None]

    def insight(self, snapshot: Snapshot) -> Insight:
        """What K kernels of all full observations know, on average."""
        with torch_threads(1):
            kernels = self.kernels(snapshot, lambda: False)
            rows = subsets(len(snapshot.full), self.members, [*snapshot.seed, _SUBSETS])
            with torch.no_grad():
                X = self.inputs(self.space.batch(one.architecture for one in snapshot.full))
                mean, deviation = left_out(kernels, rows, X)
                embedding = embeddings(kernels, X)
        places = principal_map(embedding)
        return Insight(
            architectures=tuple(one.architecture for one in snapshot.full),
            values=np.array([one.value for one in snapshot.full]),
            loo_mean=mean,
            loo_sd=deviation,
            places=places,
            notes={
                "model": "learned kernels",
                "num_kernels": len(kernels),
                "map_share": shown_share(embedding, places),
            },
        )

    def kernels(self, snapshot: Snapshot, cancelled: Cancelled) -> list[LearnedKernelGP]:
        """The K learned kernels of a snapshot."""
        X = self.inputs(self.space.batch(one.architecture for one in snapshot.full))
        y = np.array([one.value for one in snapshot.full], float)  # [n]
        embeddings = make_embeddings(self.inputs, self.members, [*snapshot.seed, _FITTING])
        rows = subsets(len(y), self.members, [*snapshot.seed, _SUBSETS])
        made = make_members(X, y, self.inputs.teacher(), embeddings, rows, self.members)
        learnable = [kernel for kernel in made if len(kernel.train_targets) > 1]
        fit_all(learnable, self.fitting, num_threads=self.num_threads, cancelled=cancelled)
        return [kernel.eval() for kernel in made]

    def _random(self, rng: np.random.Generator) -> Edits:
        return self.space.sample(1, rng)[0]

    def _best_of(self, kernel: LearnedKernelGP, rng: np.random.Generator) -> Edits:
        """The student that maximises the kernel's expected improvement."""
        best_f = float(kernel.train_targets.max())

        def score(batch: EditsBatch) -> np.ndarray:
            mean, deviation = self._predict(kernel, batch)
            return expected_improvement(mean, deviation, best_f).numpy()

        if self.acquisition == "random":
            candidates = self.space.sample(self.num_candidates, rng)
            return candidates[int(np.argmax(score(candidates)))]
        return evolve(self.space, score, self.num_candidates, rng)

    def _choice(self, kernel: LearnedKernelGP, chosen: Edits) -> Choice:
        mean, deviation = self._predict(kernel, self.space.batch([chosen]))
        return Choice(chosen, float(mean[0]), float(deviation[0]))

    def _predict(self, kernel: LearnedKernelGP, batch: EditsBatch) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a noisy value: [n], [n]."""
        h = [
            kernel.embedding(self.inputs(batch[start : start + CHUNK]).to(self.members.device))
            for start in range(0, len(batch), CHUNK)
        ]
        with _ONE_POSTERIOR:
            posterior = kernel.embedded().posterior(torch.cat(h)[:, None], observation_noise=True)
            return posterior.mean[:, 0, 0].cpu(), posterior.variance[:, 0, 0].sqrt().cpu()


def evolve(space: SearchSpace, score: Score, num_scored: int, rng: np.random.Generator) -> Edits:
    """Maximises a score of students by evolution, with as many scored students as random sampling would take.

    The paper does not say which evolution: a population of a tenth of them, of which each generation keeps the best half and replaces
    the rest by mutations of it.
    """
    size = max(2, num_scored // 10)
    population = space.sample(size, rng)
    scores = score(population)
    left = num_scored - size
    while left > 0:
        keep = np.argsort(-scores, kind="stable")[: (size + 1) // 2]
        num_children = min(left, size - len(keep)) or 1
        parents = population[keep[rng.integers(len(keep), size=num_children)]]
        children = space.mutate(parents, rng)
        population = type(population).concatenate([population[keep], children])
        scores = np.concatenate([scores[keep], score(children)])
        left -= num_children
    return population[int(np.argmax(scores))]
