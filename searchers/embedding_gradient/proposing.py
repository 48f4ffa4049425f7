"""A step of our own mode: many descents at once, all students on their paths judged by the model, the best ones proposed.

Far descents start at the teacher, the best evaluated students and random ones, each with several lambda, and are read by the decoder.
Near ones start at the best students, each believes one regressor, and they are read by the encoder (`near`). A point of a path
is a promise of the regressors at a place where no architecture need be; what counts is its nearest legal student, encoded again. By turns
with ends of descents go random changes of good students, judged in the same way: descents lead to where the regressors err on the high side, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raysearch.threads import torch_threads
from searchers.ahead import Cancelled
from searchers.algorithm import Observation
from searchers.batches import Snapshot
from searchers.embedding_gradient.autoencoder import Networks
from searchers.embedding_gradient.descent import DescentOptions, Goal, descend, walk
from searchers.embedding_gradient.domain import Domain
from searchers.embedding_gradient.fitting import Fitter, Learned, joined
from searchers.embedding_gradient.model import Model
from searchers.embedding_gradient.options import StepOptions
from searchers.embedding_gradient.prior import Prior
from searchers.embedding_gradient.snapshot import Choice
from searchers.insight import Insight, principal_map, shown_share
from searchers.targets import LEAST_FACTOR, Targets

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

MAX_RANKED = 256
"""Of the judged ones that are kept."""
MAX_ATTEMPTS = 3
"""Lots of descents after which a random student is proposed instead."""
MAX_JUDGED = 4096
"""Decoded students that are judged in a step."""
NUM_NEIGHBOURS = 2048
"""Changes of good students that are judged in a step."""
ENCODE_EVERY = 15
"""Steps between two returns to the embedding of the nearest student, where the trust region asks for it."""

MIN_ERRORS, MAX_ERRORS = 4, 32
"""Predictions that tell how good predictions are."""
AROUND = 24
"""Students around each that near descents are read from."""
PACES = (0.5, 1.0, 2.0)
"""Lengths of near descents until they go on from a student, in units of the distance of students around; at random."""
HOP_STEPS = 8
"""Of a near descent, until it goes on from a student."""

_DRAWING = 1


@dataclass
class DescentStep:
    """Our mode's step.

    Attributes:
        space, domain: the students.
        options: of the method.
        prior: what another run knows.
        fitter: makes the models.
    """

    space: SearchSpace
    domain: Domain
    options: StepOptions
    prior: Prior | None
    fitter: Fitter
    _last: tuple[tuple[Any, ...], list[Choice]] | None = None

    def __call__(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        with torch_threads(1):
            return self._choose(snapshot, cancelled)

    def _choose(self, snapshot: Snapshot, cancelled: Cancelled) -> list[Choice]:
        """The new ones of the judged; where none is left, of descents from further random starts."""
        first = self._first(snapshot.full)
        again = snapshot.seed[-1]
        for attempt in range(again, again + MAX_ATTEMPTS):
            judged = self._judged(first, (snapshot.seed[0], len(first), attempt), cancelled)
            if cancelled():
                return []
            new = [choice for choice in judged if choice.text not in snapshot.known]
            if new:
                return new
        return []

    def _judged(
        self, full: Sequence[Observation], seed: tuple[int, ...], cancelled: Cancelled
    ) -> list[Choice]:
        """The students of one lot of descents, the best first. They change with the model, which is every few observations."""
        targets = self._targets(full)
        learned = self._with_prior(self._learned(full, targets), targets)
        key = (seed, learned.key)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        options, rng = self.options, np.random.default_rng([*seed, _DRAWING])
        model = self.fitter.fit(learned, seed[0], cancelled)
        if cancelled():
            return []
        good = self._best(full, targets, model) if full else []
        found = self.near(model, good, rng, cancelled) if good and self.options.num_local else []
        found += self.candidates(model, good, rng, cancelled)
        near = []
        if options.neighbour_share > 0 and good:
            near = self.domain.neighbours(good[: options.num_starts], NUM_NEIGHBOURS, rng)
        origin = dict.fromkeys(near, "mutation") | dict.fromkeys(found, "descent")
        if cancelled() or not origin:
            return []
        judged = self._rank(model, origin, targets, rng, past_error(full))
        self._last = key, judged
        return judged

    def candidates(
        self,
        model: Model,
        good: Sequence[str],
        rng: np.random.Generator,
        cancelled: Cancelled = lambda: False,
    ) -> list[str]:
        """The distinct legal students on the paths of the descents.

        Args:
            model: of the observations.
            good: evaluated students to begin with, the best first.
            rng: draws the random starts.
            cancelled: see `searchers.ahead`.
        """
        starts, rows = self._starts(good, rng)
        lam = torch.tensor(self.options.lam).repeat(len(starts))
        origins = [text for text in starts for _ in self.options.lam]
        Y = model.embed(rows).repeat_interleave(len(self.options.lam), dim=0)  # [S, N]
        path = self._paths(model, Y, lam, origins, cancelled)  # [steps, S, N]
        decoded = model.read(path.flatten(0, 1))[: MAX_JUDGED * 4]
        return self.domain.decode(decoded, origins * len(path))[:MAX_JUDGED]

    def goal(self, model: Model) -> Goal:
        """Of the descents: without a budget p_0 is far below every student, so that all of them want to be small."""
        options = self.options
        least = float(model.sizes(1.0)) if options.p_0 is None else options.p_0
        p_0, below = least, False
        metric = {"params": "params", "macs": "macs", "latency": "latency_ms"}[options.size]
        if options.p_0 is None and metric in self.space.limits:
            p_0, below = float(model.sizes(self.space.limits[metric])), True
        return Goal(options.a_0, p_0, below, options.kappa)

    def insight(self, snapshot: Snapshot) -> Insight:
        """What models of parts of the observations say of the rest (5-fold cross-validation), and the map of the embedding.

        Raises:
            FitDiverged
        """
        with torch_threads(1):
            full = snapshot.full
            targets = self._targets(full)
            learned = self._learned(full, targets)
            mean, sd = self.fitter.cross_validate(
                self._with_prior(learned, targets), snapshot.seed[0]
            )
            mean, sd = mean[-len(full) :], sd[-len(full) :]
            noise = float(np.sqrt(np.mean(np.square(mean - learned.values))))
            model = self.fitter.fit(
                self._with_prior(learned, targets), snapshot.seed[0], lambda: False, keep=False
            )
            embedding = model.embed(learned.rows).double().numpy()
            places = principal_map(embedding)
        texts = tuple(one.architecture for one in full)
        factor = self._factor(texts, targets)
        factor[factor <= LEAST_FACTOR] = 0.0
        return Insight(
            architectures=texts,
            values=np.array([one.value for one in full]),
            loo_mean=mean * factor,
            loo_sd=np.sqrt(np.square(sd) + noise**2) * factor,
            places=places,
            notes={
                "model": "regressors on a learned embedding, cross-validated in five parts",
                "num_regressors": self.options.num_regressors,
                "map_share": shown_share(embedding, places),
            },
        )

    def networks(self, snapshot: Snapshot) -> Networks:
        """The newest that the search used; raises FitDiverged."""
        with torch_threads(1):
            first = self._first(snapshot.full)
            targets = self._targets(first)
            learned = self._with_prior(self._learned(first, targets), targets)
            return self.fitter.fit(learned, snapshot.seed[0], lambda: False).networks

    # What is learned from

    def _targets(self, full: Sequence[Observation]) -> Targets:
        """f needs accuracy ratios of everything that is learned from."""
        composite = self.options.composite
        if composite is None and self.prior is not None and not self.prior.has_ratios:
            composite = False
        return Targets.of(self.space, full, composite)

    def _first(self, full: Sequence[Observation]) -> Sequence[Observation]:
        """The observations that the networks have learned from: as many as are a multiple of `refit_every`."""
        every = self.options.refit_every
        return full[: max(len(full) - len(full) % every, min(len(full), every))]

    def _learned(self, full: Sequence[Observation], targets: Targets) -> Learned:
        texts = [one.architecture for one in full]
        return Learned(
            self.domain.rows(texts),
            targets.values(full),
            self.domain.sizes(texts, self.options.size),
        )

    def _with_prior(self, learned: Learned, targets: Targets) -> Learned:
        if self.prior is None:
            return learned
        values = self.prior.values(composite=targets.composite)
        return joined(
            Learned(self.prior.rows, values, self.prior.sizes), learned, self.domain.num_rows
        )

    # Descents

    def _starts(
        self, good: Sequence[str], rng: np.random.Generator
    ) -> tuple[list[str | None], np.ndarray]:
        """Students that descents begin with, and their rows."""
        num_random = max(1, self.options.num_starts // 4)
        texts = list(good[: max(1, self.options.num_starts - num_random - 1)])
        texts += self.domain.sample(num_random, rng)
        rows = np.concatenate([self.domain.teacher_rows[None], self.domain.rows(texts)])
        return [None, *texts], rows

    def near(
        self,
        model: Model,
        good: Sequence[str],
        rng: np.random.Generator,
        cancelled: Cancelled = lambda: False,
    ) -> list[str]:
        """Students near good ones that lie where descents from these go, each descent by one regressor.

        A decoder of so few examples blurs: what it makes of a student differs from the student as much as another one does, and along
        a path it hardly changes which layers are there. So small steps are read by the encoder: of the legal students around the one
        that a descent began with, those whose embeddings are the nearest to its path; it goes on from the nearest to its end.

        Args:
            model, good, rng, cancelled: as for `candidates`.
        """
        num = self.options.num_local
        texts = [good[place % min(len(good), self.options.num_parents)] for place in range(num)]
        turn = torch.as_tensor(rng.permutation(num))
        which = turn % self.options.num_regressors
        lam = torch.tensor(self.options.lam)[turn % len(self.options.lam)]
        pace = torch.tensor(PACES)[torch.as_tensor(rng.integers(len(PACES), size=num))]
        goal, whiten = self.goal(model), model.cloud.whiten
        found: dict[str, None] = {}
        for _ in range(self.options.num_hops):
            if cancelled():
                break
            rows, text_at = self.domain.around(texts, AROUND, rng)  # [S, A, T, 5]
            Y = model.embed(rows.reshape(-1, *rows.shape[2:])).unflatten(0, rows.shape[:2])
            Z = whiten(Y)  # [S, A, N]
            length = pace * (Z - Z[:, :1]).norm(dim=2)[:, 1:].median(1).values / HOP_STEPS
            path = walk(
                model.networks, model.cloud, Y[:, 0], lam, goal, which, length, HOP_STEPS
            )  # [steps, S, N]
            places = torch.cdist(whiten(path).transpose(0, 1), Z).argmin(2)  # [S, steps]
            for start, place in sorted({*_pairs(places)} - {(start, 0) for start in range(num)}):
                if (text := text_at(start, place)) is not None:
                    found[text] = None
            texts = [text_at(*pair) or texts[pair[0]] for pair in _pairs(places[:, -1:])]
        return list(found)

    def _paths(
        self,
        model: Model,
        Y: Tensor,
        lam: Tensor,
        origins: Sequence[str | None],
        cancelled: Cancelled,
    ) -> Tensor:
        options, goal = self.options, self.goal(model)
        radius = DescentOptions.radius if options.trust in ("cloud", "both") else float("inf")
        if options.trust in ("cloud", "none"):
            how = DescentOptions(options.descent_steps, radius=radius)
            return descend(model.networks, model.cloud, Y, lam, goal, how, cancelled)
        parts, left = [], options.descent_steps
        while left > 0 and not cancelled():
            how = DescentOptions(min(left, ENCODE_EVERY), radius=radius)
            parts.append(descend(model.networks, model.cloud, Y, lam, goal, how, cancelled))
            left -= ENCODE_EVERY
            if len(parts[-1]):
                Y = model.embed(self.domain.nearest(model.read(parts[-1][-1])))
        return torch.cat(parts)

    # Choosing

    def _best(self, full: Sequence[Observation], targets: Targets, model: Model) -> list[str]:
        """Evaluated students by the mean of what was measured and what the model makes of it, the best first."""
        texts = [one.architecture for one in full]
        measured = targets.values(full)
        believed, _ = model.predict(model.embed(self.domain.rows(texts)))
        value = (measured + believed) / 2 * self._factor(texts, targets)
        return [texts[int(place)] for place in np.argsort(-value, kind="stable")]

    def _rank(
        self,
        model: Model,
        origin: dict[str, str],
        targets: Targets,
        rng: np.random.Generator,
        error: float,
    ) -> list[Choice]:
        """The best of the judged students; `error`: of predictions so far, which no standard deviation is below."""
        texts = list(origin)
        factor = self._factor(texts, targets)
        Y = model.embed(self.domain.rows(texts))
        mean, sd = model.predict(Y)
        if self.options.pick == "thompson":
            with torch.no_grad():
                drawn = model.values.to_value(model.networks.f_a(Y).double().numpy()) * factor
            order = _in_turns(drawn[rng.permutation(len(drawn))])
        else:
            bound = self.options.kappa if self.options.pick == "bound" else 0.0
            order = np.argsort(-(mean - bound * sd) * factor, kind="stable").tolist()
        changed = [origin[texts[place]] == "mutation" for place in order]
        order = shared_out(order, changed, self.options.neighbour_share)[:MAX_RANKED]
        spread = np.maximum(np.hypot(sd, model.noise) * factor, error)
        return [
            Choice(
                texts[place],
                origin[texts[place]],
                float(mean[place] * factor[place]),
                float(spread[place]),
            )
            for place in order
        ]

    def _factor(self, texts: Sequence[str], targets: Targets) -> np.ndarray:
        """R_c of each student where the objective is f, else ones."""
        if not targets.composite:
            return np.ones(len(texts))
        params = self.domain.sizes(texts, "params")
        compression = 1 - params / self.space.teacher.num_params
        return np.maximum(compression * (2 - compression), LEAST_FACTOR)


def past_error(full: Sequence[Observation]) -> float:
    """Root mean square of what was measured less what had been predicted, of the newest proposals; 0 while they are few.

    Regressors that were fitted to a student agree on it, and the best looking of many candidates is lucky: both make them too sure.
    """
    errors = [
        one.value - one.extra["predicted"]
        for one in full
        if one.value is not None and one.extra.get("predicted") is not None
    ][-MAX_ERRORS:]
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) >= MIN_ERRORS else 0.0


def _pairs(places: Tensor) -> list[tuple[int, int]]:
    """[S, K] -> (row, entry) of each entry."""
    return [(row, place) for row, some in enumerate(places.tolist()) for place in some]


def shared_out(order: Sequence[int], is_second: Sequence[bool], share: float) -> list[int]:
    """Two kinds by turns, so that of any first n `share` are of the second kind, or one less; each kind in its order, all of one where the other ends.

    Args:
        order: what is shared out, the best first.
        is_second: the kind of each.
        share: in [0, 1].
    """
    kinds = [
        [one for one, second in zip(order, is_second, strict=True) if second is kind]
        for kind in (False, True)
    ]
    found: list[int] = []
    for place in range(1, len(order) + 1):
        wanted = int(place * share + 1e-9) > int((place - 1) * share + 1e-9)
        first = kinds[wanted] or kinds[not wanted]
        found.append(first.pop(0))
    return found


def _in_turns(values: np.ndarray) -> list[int]:
    """The best of each row in turn, without repetitions: the columns of [M, B]."""
    orders = np.argsort(-values, axis=1, kind="stable")
    return list(dict.fromkeys(orders.T.ravel().tolist()))
