"""A step of our own mode: one averaged model of all finished students, and candidates near the best of them.

What differs from the paper, and was measured to be better (benchmarks/results/incumbents.md): the accuracy alone is modelled where the rest is
known; a process on features and the learned kernels are averaged, by weights that they earn with students that are left out;
candidates are mostly changes of good students; the incumbent is the best prediction, not the luckiest value; outstanding students count at
their predictions; a step gives several students, each conditioned on the ones before it (kriging believer, Ginsbourger et al. 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from raysearch.threads import torch_threads
from searchers.ahead import Cancelled
from searchers.algorithm import Observation
from searchers.batches import Snapshot
from searchers.candidates import CandidatePool
from searchers.fidelity import estimated_ends
from searchers.insight import Insight, principal_map, shown_share
from searchers.multi_kernel_bo.acquisition import log_expected_improvement
from searchers.multi_kernel_bo.ensemble import AveragedModel, FeatureGP, stacking_weight
from searchers.multi_kernel_bo.fit import FitOptions, fit_all
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.multi_kernel_bo.knowledge import embeddings, left_out
from searchers.multi_kernel_bo.members import MemberOptions, make_embeddings, make_members, subsets
from searchers.multi_kernel_bo.model import LearnedKernelGP
from searchers.multi_kernel_bo.snapshot import Choice
from searchers.targets import Targets

if TYPE_CHECKING:
    from raysearch.architecture import EditsBatch, SearchSpace

CHUNK_NUMBERS = 4_000_000
"""Numbers of the layer vectors that are written out at a time (32 MB)."""
SHORT_LIST = 64
"""The best candidates, among which the second and later students of a step are chosen."""
NUM_SPARE = 16
"""Further candidates of a step, for those that turn out to be known or, measured, out of the budget."""

_FITTING, _DRAWING, _SUBSETS = 0, 1, 2  # what a seed is for


@dataclass
class ImprovedStep:
    """Our mode's step.

    Attributes:
        space: where the students come from.
        inputs: writes them.
        pool: draws candidates.
        members: of the learned kernels.
        fitting: of their networks.
        composite: as in `Targets.of`.
        use_stopped: whether the process on features learns from stopped students.
        batch_size: students of a step.
        refit_every: full observations between two fits of the networks; the processes take in every observation at once.
        max_observations: the newest that the process on features sees.
        num_threads: that learn kernels.
    """

    space: SearchSpace
    inputs: Inputs
    pool: CandidatePool
    members: MemberOptions
    fitting: FitOptions
    composite: bool | None = None
    use_stopped: bool = True
    batch_size: int = 4
    refit_every: int = 8
    max_observations: int = 500
    num_threads: int = 2
    _fitted: tuple[tuple[Any, ...], list[nn.Module]] = field(default=((), []), init=False)

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        with torch_threads(1), torch.no_grad():
            return self._choose(snapshot, cancelled)

    def _choose(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        rng = np.random.default_rng([*snapshot.seed, _DRAWING])
        targets = Targets.of(self.space, snapshot.full, self.composite)
        stopped = snapshot.stopped if self.use_stopped else ()
        model = self.model(snapshot.full, targets, snapshot.seed[:1], cancelled, stopped=stopped)
        evaluated = self.space.batch(one.architecture for one in snapshot.full)
        seen = self._predict(model, evaluated, targets)
        best_f = float(seen.f.max())
        if snapshot.pending:
            model.features.believe(self.space.features(self.space.batch(snapshot.pending)))
        candidates = self._new(self.pool.draw(evaluated, seen.f.numpy(), rng), snapshot.known)
        if cancelled() or not len(candidates):
            return []
        return self._pick(model, candidates, self._predict(model, candidates, targets), best_f)

    def insight(self, snapshot: Snapshot) -> Insight:
        """What the model of all full observations knows, at most the newest `max_observations` of them."""
        with torch_threads(1), torch.no_grad():
            full = snapshot.full[-self.max_observations :]
            targets = Targets.of(self.space, full, self.composite)
            model = self.model(full, targets, snapshot.seed[:1])
            evaluated = self.space.batch(one.architecture for one in full)
            mean, deviation = model.features.leave_one_out()
            embedding = self.space.features(evaluated)
            if model.learned:
                X = self.inputs(evaluated)
                rows = subsets(len(full), self.members, [*snapshot.seed[:1], _SUBSETS])
                learned = left_out(model.learned, rows, X)[0]
                mean = model.weight * mean + (1 - model.weight) * learned
                embedding = embeddings(model.learned, X)
        places = principal_map(embedding)
        factor = targets.true_factor(evaluated)
        return Insight(
            architectures=tuple(one.architecture for one in full),
            values=np.array([one.value for one in full]),
            loo_mean=mean * factor,
            loo_sd=deviation * factor,
            places=places,
            notes={
                "model": "Gaussian process on features, averaged with learned kernels",
                "num_kernels": len(model.learned),
                "weight_of_features": round(model.weight, 3),
                "map_share": shown_share(embedding, places),
            },
        )

    def model(
        self,
        full: Sequence[Observation],
        targets: Targets,
        seed: tuple[int, ...],
        cancelled: Cancelled = lambda: False,
        *,
        stopped: Sequence[Observation] = (),
    ) -> AveragedModel:
        """The model of the given observations.

        Args:
            full: at least two.
            targets: what is modelled.
            seed: of the search.
            cancelled: see `searchers.ahead`.
            stopped: of trainings that were stopped early; the process on features sees what they would have come to (`searchers.fidelity`).

        Raises:
            one of `searchers.surrogate.NUMERICAL_ERRORS`.
        """
        y = targets.values(full)
        newest = full[-self.max_observations :]
        estimated, ends = estimated_ends(
            self.space, targets, newest, stopped[-self.max_observations :]
        )
        X = self.inputs(self.space.batch(one.architecture for one in (*newest, *estimated)))
        Y = torch.as_tensor(np.concatenate([y[-len(newest) :], ends]))[:, None]
        with torch.enable_grad():
            features = FeatureGP(X, Y, list(self.space.feature_blocks.values()))
            embeddings = self._embeddings(full, y, seed, cancelled)
        learned = self._learned(full, y, embeddings, seed)
        kernels = [one.eval() for one in learned.kernels]
        if not kernels:
            return AveragedModel(features, [])
        known = min(len(newest), len(learned.X))  # that both have seen
        first = features.leave_one_out()[0][len(newest) - known : len(newest)]
        with torch.no_grad():
            second = left_out(kernels, learned.rows, learned.X)[0][-known:]
        stacked = stacking_weight(y[-known:], first, second)
        # halfway to equal shares: with few students, or much noise, it is mostly luck
        return AveragedModel(features, kernels, (0.5 + stacked) / 2)

    def _learned(
        self,
        full: Sequence[Observation],
        y: np.ndarray,
        embeddings: Sequence[nn.Module],
        seed: tuple[int, ...],
    ) -> _Learned:
        """The kernels' processes over the observations; of a long search only what some kernel sees is written out."""
        rows = subsets(len(full), self.members, [*seed, _SUBSETS]) if embeddings else []
        oldest = min((int(one[0]) for one in rows if len(one)), default=0)
        X = self.inputs(self.space.batch(one.architecture for one in full[oldest:]))
        seen = [one - oldest for one in rows]
        teacher = self.inputs.teacher()
        kernels = make_members(X, y[oldest:], teacher, embeddings, seen, self.members)
        return _Learned(kernels, seen, X)

    def _embeddings(
        self,
        full: Sequence[Observation],
        y: np.ndarray,
        seed: tuple[int, ...],
        cancelled: Cancelled,
    ) -> list[nn.Module]:
        """Networks that were learned from the first observations, as many as are a multiple of `refit_every`.

        The last ones are kept. A student that is told again may change what the first observations are.
        """
        num_seen = max(len(y) - len(y) % self.refit_every, min(len(y), self.refit_every))
        seen, y = full[:num_seen], y[:num_seen]
        texts = (one.architecture for one in seen)
        key = (seed, *zip(texts, y.tolist(), strict=True))
        if self._fitted[0] != key:
            embeddings = make_embeddings(self.inputs, self.members, [*seed, num_seen, _FITTING])
            learned = self._learned(seen, y, embeddings, seed).kernels
            fit_all(learned, self.fitting, num_threads=self.num_threads, cancelled=cancelled)
            if cancelled():
                return embeddings  # of a step that nobody wants: not to be kept
            self._fitted = (key, embeddings)
        return self._fitted[1]

    def _new(self, candidates: EditsBatch, known: frozenset[str]) -> EditsBatch:
        """The candidates that have a text of their own and are not known by it."""
        texts = [str(edits) for edits in candidates]
        first = {text: row for row, text in reversed(list(enumerate(texts)))}
        rows = sorted(row for text, row in first.items() if text not in known)
        return candidates[np.array(rows, np.int64)]

    def _predict(self, model: AveragedModel, batch: EditsBatch, targets: Targets) -> _Prediction:
        """What the model expects of students."""
        a, sigma = (
            torch.from_numpy(part) for part in model.features.predict(self.space.features(batch))
        )
        if model.learned:
            rows = max(1, CHUNK_NUMBERS // self.inputs.width)
            parts = [
                model.learned_means(self.inputs(batch[start : start + rows]))
                for start in range(0, len(batch), rows)
            ]
            a = model.weight * a + (1 - model.weight) * torch.cat(parts)
        return _Prediction(a, sigma, torch.from_numpy(targets.factor(batch)))

    def _pick(
        self, model: AveragedModel, batch: EditsBatch, given: _Prediction, best_f: float
    ) -> list[Choice]:
        """The step's students, each believed before the next is chosen, then spare ones."""
        order = given.log_ei(best_f).argsort(descending=True, stable=True)
        # only the best candidates can become the second and later ones
        short = order[: max(SHORT_LIST, self.batch_size + NUM_SPARE)]
        students = batch[short.numpy()]
        features, left = self.space.features(students), given.at(short)
        picked: list[int] = []
        for _ in range(min(self.batch_size, len(students))):
            values = left.log_ei(best_f)
            values[picked] = -torch.inf
            picked.append(int(values.argmax()))
            model.features.believe(features[picked[-1] :][:1])
            # its own mean does not move by being believed; the deviations around it shrink
            left = replace(left, sigma=torch.from_numpy(model.features.predict(features)[1]))
        spare = [row for row in range(len(students)) if row not in picked][:NUM_SPARE]
        model.features.forget_beliefs()
        deviation = given.c[short].numpy() * model.features.predict(features, noise=True)[1]
        mean = given.f[short].tolist()
        return [
            Choice(students[row], mean[row], float(deviation[row])) for row in (*picked, *spare)
        ]


@dataclass(frozen=True)
class _Learned:
    """The kernels' processes, which of the n students X [n, L F + D] each of them has seen, and these."""

    kernels: list[LearnedKernelGP]
    rows: list[np.ndarray]
    X: Tensor


@dataclass(frozen=True)
class _Prediction:
    """What a model expects of n students: a ~ N(a, sigma^2), and f = c a. All [n]."""

    a: Tensor
    sigma: Tensor
    c: Tensor

    @property
    def f(self) -> Tensor:
        return self.c * self.a

    def log_ei(self, best_f: float) -> Tensor:
        """E[(c a - f*)+] = c E[(a - f*/c)+], so it is that of a over f*/c, plus log c."""
        return log_expected_improvement(self.a, self.sigma, best_f / self.c) + self.c.log()

    def at(self, rows: Tensor) -> _Prediction:
        return _Prediction(self.a[rows], self.sigma[rows], self.c[rows])
