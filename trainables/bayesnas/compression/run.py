"""A compression run (Yang 2019, appendix A, algorithm 2): trains a network under the prior, prunes it, and offers what is left at each state.

With a budget every update also takes away what would die next if lambda grew (`saliency`), so that the size falls evenly, by factors, to the
budget at `REACHED_AT` of the updates, and what a run offers always fits. Once there, nothing is shrunk or pruned any more: within a budget accuracy is
wanted, not less. Without a budget the prior alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.bayesnas.compression import CompressionSettings
from raysearch.models import build
from raysearch.models.keep import ChannelRanking
from trainables.bayesnas import sparse
from trainables.bayesnas.compression.curvature import measurable
from trainables.bayesnas.compression.estimate import Estimate, estimate
from trainables.bayesnas.compression.fitting import Fitter, Limits
from trainables.bayesnas.compression.groups import NO_GROUP, make_groups
from trainables.bayesnas.compression.layers import count_weights, describe
from trainables.bayesnas.compression.penalised import PenalisedTraining, recipe_of, temperatures
from trainables.bayesnas.compression.places import find_places, scale_free
from trainables.bayesnas.compression.prior import GroupPrior
from trainables.bayesnas.compression.saliency import (
    group_worth,
    quadratic_loss,
    units,
)
from trainables.bayesnas.compression.structure import Builder, Structure
from trainables.bayesnas.run import FoundStudent
from trainables.context import DistillationContext
from trainables.training import recalibrate

REACHED_AT = 0.6
"""The share of the updates after which the size is the budget's; the rest is for what then is left to settle."""
SHRINK_EVERY = 4
"""Steps between two proximal steps, which then are as much longer."""
AT_ONCE = 0.5
"""The share of the parameters that one update may take away where no budget says how many."""
RAMP = 0.01
"""What lambda begins with where it rises."""


class CompressionRun:
    """One compression of the context's teacher; see `trainables.bayesnas.run.Run`.

    Args:
        context: teacher, data, space.
        settings: how.
        lam: lambda of (A-1), the price of a group of weights; with the Hessian in its units, about the loss that one weight must be worth.
        budget: absolute limits ("params", "macs", "memory"); None: none.
        seed: of everything random.

    Raises:
        InvalidArchitecture: the network has no group of weights that could be pruned.
        BudgetError: no student is within the budget.
    """

    def __init__(
        self,
        context: DistillationContext,
        settings: CompressionSettings,
        *,
        lam: float,
        budget: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.context = context
        self.settings = settings
        self.lam = lam
        self.seed = seed
        self.space = SearchSpace(
            context.search_space.teacher, **{**context.space, "budget": dict(budget or {}) or None}
        )
        self.limits: dict[str, float] = dict(self.space.limits)
        self.students: list[FoundStudent] = []
        self._epochs: list[dict[str, float]] = []
        self._updates: list[dict[str, Any]] = []
        self._worth: np.ndarray | None = None
        self._since = 0.0  # step lengths since the last proximal step; zero between epochs
        self._training = PenalisedTraining(
            _start(context, settings, seed),
            context.device_data,
            recipe_of(settings),
            after_step=self._after_step,
            seed=seed,
        )
        self._weights = dict(self._training.module.named_parameters())
        places = find_places(context.search_space.teacher)
        measured = {f"{path}.weight" for path in measurable(self._training.module)}
        groups = make_groups(
            places, settings.conv_groups, settings.linear_groups, measured=measured
        )
        self.builder = Builder(context.search_space, places, groups)
        self._fitter = Fitter(self.builder, self.space)
        self.prior = GroupPrior(groups, self._weights, scale_free(places))
        self._take(self.builder.whole())

    # The contract of a run

    @property
    def epochs_done(self) -> int:
        return self._training.epochs_done

    @property
    def epochs_target(self) -> int:
        return self.settings.epochs

    @property
    def complete(self) -> bool:
        return self.diverged or self.epochs_done >= self.epochs_target

    @property
    def diverged(self) -> bool:
        return self._training.diverged

    @property
    def history(self) -> dict[str, Any]:
        return {
            "kind": "compression",
            "lam": self.lam,
            "epochs": self._epochs,
            "updates": self._updates,
        }

    def train_epoch(self) -> dict[str, float]:
        """One epoch; at the end of an interval the state is offered, and the prior updated."""
        self._training.train_epoch()
        self._shrink_rest()
        metrics = self._training.validate()
        found = {**metrics, **self._sizes()}
        if self.epochs_done % self.settings.interval == 0 and not self.diverged:
            self._end_interval(metrics)
        self._epochs.append({"epoch": self.epochs_done, **found})
        return found

    def _end_interval(self, metrics: Mapping[str, float]) -> None:
        """Offers a state before it changes, and at the end; then updates."""
        updates = len(self._updates) < self.settings.updates and not self._arrived
        if updates or self.complete:
            self._estimate = self._measure()
            if self._updates:
                self._offer(metrics)
        if updates and not self.complete:
            self._update()

    def _sizes(self) -> dict[str, float]:
        """Of the state that the metrics are of."""
        student = self.context.search_space.apply(self.edits)
        counts = self._count_weights().values()
        weights, kept = sum(total for total, _ in counts), max(1, sum(left for _, left in counts))
        return {
            "num_params": student.num_params,
            "macs": student.macs,
            "active_groups": int(self.structure.living.sum()),
            "density": kept / weights,
            "entropy": self._mean_entropy(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "training": self._training.state_dict(),
            "prior": self.prior.state_dict(),
            "living": torch.from_numpy(self.structure.living),
            "worth": None if self._worth is None else torch.from_numpy(self._worth),
            "epochs": list(self._epochs),
            "updates": list(self._updates),
            "students": [
                {
                    "text": one.text,
                    "weights": dict(one.weights or {}),
                    "epoch": one.epoch,
                    "metrics": dict(one.metrics),
                }
                for one in self.students
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._training.load_state_dict(state["training"])
        self.prior.load_state_dict(state["prior"])
        self._worth = None if state["worth"] is None else state["worth"].numpy()
        living = state["living"].numpy()
        if self._worth is not None:
            self._take(self.builder.settle(living, self._worth))
        self._epochs, self._updates = list(state["epochs"]), list(state["updates"])
        apply = self.context.search_space.apply
        self.students = [
            FoundStudent(
                one["text"], apply(one["text"]), one["weights"], one["epoch"], one["metrics"]
            )
            for one in state["students"]
        ]

    # The state of the pruning

    @property
    def edits(self) -> Edits:
        """The student as it stands, within the budget or not."""
        return self.builder.edits(self.structure)

    @property
    def module(self) -> fx.GraphModule:
        """The network under its masks."""
        module = self._training.module
        assert isinstance(module, fx.GraphModule)  # `build` makes no other
        return module

    def _take(self, structure: Structure) -> None:
        self.structure = structure
        self.masks = self.builder.masks(structure, self._weights)
        # whether a budget was asked for, and is met; steps ask, so it is not counted again there
        self._arrived = bool(self.limits) and self._fitter.fits(structure, self.limits)
        self._apply_masks()

    def _apply_masks(self) -> None:
        with torch.no_grad():
            for key, mask in self.masks.items():
                self._weights[key].mul_(mask)

    # What happens in a step

    def _after_step(self, step: int, learning_rate: float) -> None:
        """Keeps what is pruned at zero, and now and then takes the penalty's part of the steps."""
        self._since += learning_rate / (1 - self.settings.momentum)
        if (step + 1) % SHRINK_EVERY == 0:
            self._shrink_rest()
        else:
            self._apply_masks()

    def _shrink_rest(self) -> None:
        length, self._since = self._since, 0.0
        with torch.no_grad():
            # before the first update all omega are one; after the last what is left recovers
            if length and 0 < len(self._updates) < self.settings.updates and not self._arrived:
                self.prior.shrink(
                    {k: self._weights[k].data for k in self.prior.groups.keys},
                    length * self._lam_now,
                )
            self._apply_masks()

    # What happens at an update

    def _update(self) -> None:
        settings, groups = self.settings, self.builder.groups
        keys = groups.keys
        self.prior.measure(self._weights, {key: self.masks[key] for key in keys})
        factor = self._lam_now if settings.scale_hessian else None
        self.prior.update(
            self._weights, self._estimate.hessian, factor=factor, inner=settings.inner
        )
        worth = self._worths()
        if settings.prune == "entropy":
            dead = sparse.is_pruned(self.prior.gamma).cpu().numpy()
        else:
            dead = self._dead_in_the_end(worth)
        structure = self._gently(self.builder.settle(self.structure.living & ~dead, worth))
        share = min(1.0, (len(self._updates) + 1) / math.ceil(REACHED_AT * settings.updates))
        if self.limits:
            if self._fitter.fits(structure, self.limits):
                structure = self.structure  # the prior alone would leave room in the budget
            structure = self._within(structure, self._fitter.interim(share))
        self._take(structure)
        self._updates.append({"epoch": self.epochs_done, "layers": self._by_layer()})

    @property
    def _lam_now(self) -> float:
        """lambda until the next update, and at it: it rises to the whole, so that neither the penalty nor an update ruins a network at once."""
        updates = self.settings.updates
        if self.settings.prune == "entropy" or updates == 1:
            return self.lam
        left = 1 - min(len(self._updates), updates - 1) / (updates - 1)
        return self.lam * RAMP**left

    def _gently(self, structure: Structure) -> Structure:
        """A structure that takes at most `AT_ONCE` of the parameters away, the units of the least price: a Hessian holds nearby only."""
        least = (1 - AT_ONCE) * self._fitter.cost("params", self.structure)
        if self._fitter.cost("params", structure) >= least:
            return structure
        return self._within(self.structure, {"params": least})

    def _within(self, structure: Structure, limits: Limits) -> Structure:
        losses = quadratic_loss(self._weights, self._estimate.hessian)
        assert self._worth is not None
        return self._fitter.within(
            structure, limits, losses=losses, worth=self._worth, together=self._estimate.together
        )

    def _dead_in_the_end(self, worth: np.ndarray) -> np.ndarray:
        """[G] the groups that the iteration would bring to zero at this lambda, see `CompressionSettings.prune`."""
        groups, lam = self.builder.groups, self._lam_now
        living = groups.sums(
            {key: self.masks[key].expand_as(self._weights[key]).contiguous() for key in groups.keys}
        )
        sizes = np.maximum(living.cpu().numpy(), 1)
        dead = worth / sizes < 2 * lam
        dead[groups.filter_group[groups.filter_group != NO_GROUP]] = False
        each = {filters.layer.name: 1.0 for filters in self.builder.places.filters}
        losses = quadratic_loss(self._weights, self._estimate.hessian)
        for unit in units(self.builder.places, groups, self.structure, losses, each):
            if unit.price < 2 * lam:
                dead[unit.groups] = True
        return dead

    def _measure(self) -> Estimate:
        """Of the images that the update's number draws."""
        train = self.context.device_data.train
        recalibrate(self.module, train, seed=self.seed)
        return estimate(
            self.module,
            train,
            self.settings,
            self.builder.places,
            temperatures=temperatures(self._training.recipe),
            seed=self.seed * 1_000_003 + self.epochs_done,
        )

    def _worths(self) -> np.ndarray:
        losses = quadratic_loss(self._weights, self._estimate.hessian)
        self._worth = group_worth(self.builder.groups, losses)
        return self._worth

    # What is offered

    def _offer(self, metrics: Mapping[str, float]) -> None:
        """The state as a student; one that is beyond the budget is cut to it."""
        structure = self.structure
        exact = self._fitter.fits(structure, self.limits)
        if not exact:
            self._worths()
            structure = self._within(structure, self.limits)
        edits = self.builder.edits(structure)
        if not self._fitter.fits(structure, self.limits):
            edits = self.space.repair(self.space.batch([edits]))[0]  # layers must go, too
        text = str(edits)
        student = self.context.search_space.apply(text)
        weights = self._student_weights(student, structure)
        measured = {key: float(metrics[key]) for key in ("accuracy", "loss")} if exact else {}
        found = FoundStudent(text, student, weights, self.epochs_done, measured)
        # within a budget a run ends with the structure that an earlier state was cut to, and has trained it since
        self.students = [one for one in self.students if one.text != text] + [found]

    def _student_weights(
        self, student: Architecture, structure: Structure
    ) -> dict[str, torch.Tensor]:
        worth = self._worth if self._worth is not None else np.ones(self.builder.groups.count)
        ranking = ChannelRanking(
            self.context.search_space.teacher, self.builder.scores(structure, worth)
        )
        state = {key: value.detach() for key, value in self.module.state_dict().items()}
        for key, mask in self.builder.masks(structure, self._weights).items():
            state[key] = state[key] * mask
        built = build(student, inherit_from=state, keep=ranking.keep(student))
        return {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in built.state_dict().items()
        }

    # What is told

    def _count_weights(self) -> dict[str, tuple[int, int]]:
        return count_weights(self.builder, self._weights, self.masks)

    def _by_layer(self) -> dict[str, dict[str, Any]]:
        living = torch.from_numpy(self.structure.living)
        return describe(self.builder, self._count_weights(), living, self.prior.gamma.cpu())

    def _mean_entropy(self) -> float:
        living = torch.from_numpy(self.structure.living)
        gamma = self.prior.gamma.cpu()[living].clamp(*sparse.GAMMA_RANGE)
        return float(sparse.entropy(gamma).mean()) if len(gamma) else 0.0


def _start(
    context: DistillationContext, settings: CompressionSettings, seed: int
) -> torch.nn.Module:
    """The network that is compressed."""
    state = context.teacher_state if settings.start == "teacher" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(context.search_space.teacher, inherit_from=state)
