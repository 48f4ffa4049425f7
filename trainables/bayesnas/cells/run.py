"""The run of a super-network: algorithm 1 of BayesNAS (Yang 2019), epoch after epoch, and the students that come out of it. No Ray.

An epoch of the warm-up trains the weights, all switches at 1. A later one trains weights and switches together (step 1) and, at its
updates, takes the curvature of the switches (step 2), the new omega, s and gamma (step 3), and prunes (step 4). Whenever that changes
the cell that would be derived, a student is found, with fresh weights: step 5, w = 1 and training, is the ordinary distillation's.

DEVIATION: the public code makes one update of one batch's curvature, after which a person picks the cell. `faithful` keeps the one
update; otherwise there are several, from several batches each.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from raysearch.architecture import Architecture
from raysearch.bayesnas.cells import SuperNetSettings
from raysearch.models.calibration import recalibrate
from trainables.bayesnas.cells.derived import Sized, Sizing
from trainables.bayesnas.cells.genotype import Genotype
from trainables.bayesnas.cells.recursion import SwitchRecursion
from trainables.bayesnas.cells.supernet import make_super_net
from trainables.bayesnas.cells.switches import Switches
from trainables.bayesnas.cells.thinning import costliest, weakened
from trainables.bayesnas.run import FoundStudent
from trainables.bayesnas.sparse import entropy
from trainables.bayesnas.switch_hessian import exact_diagonal, probed_diagonal
from trainables.context import DistillationContext
from trainables.training import evaluate_batches

WEIGHTS_SHARE = 0.1
"""The share of the images that a faithful run's first epoch sees, and its second one does not."""
_CALIBRATION_BATCHES = 8


class SuperNetRun:
    """Trains one super-network of a lambda; implements `trainables.bayesnas.run.Run`.

    Attributes:
        students: one for each genotype that an update made, in their order; at least one when the run is complete.
        complete, diverged: see `Run`.
        switches: their state.
        network: the super-network's module.
    """

    def __init__(
        self,
        context: DistillationContext,
        settings: SuperNetSettings,
        *,
        lam: float,
        budget: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            context: its data, teacher's shapes and device.
            settings: of network and training.
            lam: the factor of the switches' penalty, > 0.
            budget: absolute limits by "params", "macs", "memory".
            seed: of everything random.

        Raises:
            BudgetError: no student of this search is certain to fit.
        """
        assert lam > 0, "lambda divides the curvature"
        self.settings, self.lam, self.seed = settings, lam, seed
        self._data = context.device_data
        device = self._data.train.device
        teacher = context.search_space.teacher
        self._sizing = Sizing(
            teacher.input_shape,
            teacher[teacher.output].shape[-1],
            settings.student_channels,
            settings.student_cells,
            settings.min_channels,
            dict(budget or {}),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(seed, 0))
            self._net = make_super_net(settings, teacher.input_shape, self._sizing.num_classes)
        self._sizing.check(costliest(settings))
        self.network = self._net.network.to(device)
        if device.type == "cpu":
            self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - the stub lacks this overload
        self.switches = Switches(self._net.layout.graphs, device)
        self._optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._set_on()
        self.students: list[FoundStudent] = []
        self.diverged = False
        self.epochs_done = 0
        self._updates = 0
        self._epochs: list[dict[str, Any]] = []
        self._gammas: list[list[float]] = []
        self._sized: dict[Genotype, Sized | None] = {}

    @property
    def epochs_target(self) -> int:
        return self.settings.epochs_target

    @property
    def complete(self) -> bool:
        return self.diverged or self.epochs_done >= self.epochs_target

    @property
    def genotype(self) -> Genotype:
        """What would be derived now."""
        return self._net.genotype(self.switches.gamma.cpu(), self.settings.max_paths)

    @property
    def history(self) -> dict[str, Any]:
        """JSON-native, for the report."""
        names = self._net.layout.names
        return {
            "kind": self.settings.kind,
            "lam": self.lam,
            "epochs": copy.deepcopy(self._epochs),
            "switches": {
                name: [gammas[place] for gammas in self._gammas] for place, name in enumerate(names)
            },
            "genotype": self.genotype.to_dict(),
        }

    def train_epoch(self) -> dict[str, float]:
        """One epoch and its updates, then validation of the super-network as it is now."""
        generator = torch.Generator().manual_seed(_mix(self.seed, 1 + self.epochs_done))
        batches = self._batches(generator)
        learns_switches = self.epochs_done >= self.settings.weight_epochs
        update_after = self._update_steps(len(batches)) if learns_switches else frozenset()
        total = torch.zeros((), device=self._data.train.device)
        num_images = 0
        for step, indices in enumerate(batches):
            self.network.train()
            lr = self._learning_rate(step, len(batches))
            total += self._step(indices, generator, lr, learns_switches) * len(indices)
            num_images += len(indices)
            if step in update_after and self._is_finite(total):
                self._update(batches[: step + 1], generator)
        self.epochs_done += 1
        loss = float(total) / num_images
        self.diverged = self.diverged or not self._is_finite(total)
        return self._finish_epoch(loss)

    def _batches(self, generator: torch.Generator) -> list[torch.Tensor]:
        """The epoch's batches of indices."""
        train = self._data.train
        batches = train.order(self.settings.batch_size, generator)
        if not self.settings.faithful:
            return batches
        split = torch.Generator().manual_seed(_mix(self.seed, 0))
        order = torch.randperm(len(train), generator=split)
        share = max(1, round(WEIGHTS_SHARE * len(train)))
        chosen = order[:share] if self.epochs_done == 0 else order[share:]
        chosen = chosen[torch.randperm(len(chosen), generator=generator)].to(train.device)
        return list(
            torch.tensor_split(chosen, max(1, round(len(chosen) / self.settings.batch_size)))
        )

    def _update_steps(self, num_steps: int) -> frozenset[int]:
        """After which steps of an epoch gamma is updated; the last one is among them."""
        parts = min(self.settings.updates_an_epoch, num_steps)
        return frozenset((part + 1) * num_steps // parts - 1 for part in range(parts))

    def _learning_rate(self, step: int, num_steps: int) -> float:
        settings = self.settings
        if settings.faithful or settings.schedule == "constant":
            return settings.lr
        done = (self.epochs_done + step / num_steps) / settings.epochs
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _images(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A random view of each image."""
        train = self._data.train
        if train.num_views == 1:
            return train.take(indices)
        views = torch.randint(train.num_views, indices.shape, generator=generator)
        return train.take(indices, views.to(indices.device))

    def _step(
        self, indices: torch.Tensor, generator: torch.Generator, lr: float, learns_switches: bool
    ) -> torch.Tensor:
        """One step of the weights and, with them, of the switches; returns the loss, detached."""
        weights = self.switches.weights.clone().requires_grad_(learns_switches)
        factors = self._factors(weights) if learns_switches else None
        logits = self._net.logits(self._images(indices, generator), factors)
        loss = cross_entropy(logits, self._data.train.labels[indices])
        self._optimizer.zero_grad()
        loss.backward()
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        if learns_switches:
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_([weights], self.settings.clip_norm)
            # none where all trees have lost their paths
            gradient = torch.zeros_like(weights) if weights.grad is None else weights.grad
            momentum = self.settings.momentum
            self.switches.step(gradient, lr=self.settings.lr, momentum=momentum, lam=self.lam)
        return loss.detach()

    def _update(self, seen: list[torch.Tensor], generator: torch.Generator) -> None:
        """Steps 2 to 4; offers a student where the genotype is another one now."""
        before = self.genotype
        batches = seen[-self.settings.curvature_batches :]
        hessian = sum((self._curvature(b, generator) for b in batches), torch.tensor(0.0))
        assert isinstance(hessian, torch.Tensor)
        self.switches.update(hessian / len(batches), self.lam)
        self._updates += 1
        self._gammas.append([float(f"{gamma:.6g}") for gamma in self.switches.gamma.tolist()])
        kept = self._net.kept(self._net.genotype(self.switches.gamma.cpu()))
        mask = self._net.layout.mask(kept).to(self.switches.weights.device)
        pruned = not torch.equal(mask, self.switches.active)
        self.switches.keep(mask)
        self._set_on()
        if pruned:
            recalibrate(
                _Gated(self), (self._images(b, generator) for b in seen[-_CALIBRATION_BATCHES:])
            )
        if self.genotype != before:
            self._offer()

    def _curvature(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """H of one batch, [S]; BatchNorm in evaluation mode, so that samples are independent."""
        images = self._images(indices, generator)
        self.network.eval()
        if self.settings.hessian == "recursive":
            labels = self._data.train.labels[indices]
            self._recursion = self._recursion or SwitchRecursion(self._net, self._on)
            return self._recursion.diagonal(images, labels, self.switches.weights)

        def logits_of(copies: torch.Tensor) -> torch.Tensor:
            return self._net.logits(images, self._factors(copies))

        if self.settings.hessian == "exact":
            return exact_diagonal(logits_of, self.switches.weights, len(images))
        return probed_diagonal(
            logits_of,
            self.switches.weights,
            len(images),
            generator=generator,
            probes=self.settings.probes,
        )

    def _factors(self, switches: torch.Tensor) -> list[Any]:
        return self._net.layout.factors(switches, self._on)

    def _set_on(self) -> None:
        """Which paths are computed."""
        active = self.switches.active.tolist()
        self._on = [[active[place] for place in group] for group in self._net.layout.operations]
        self._recursion: SwitchRecursion | None = None

    def _offer(self) -> None:
        """The student of the present genotype, where one fits."""
        sized = self._size()
        if sized is None:
            return
        architecture = self._sizing.architecture(sized)
        text = architecture.to_compact()
        if any(student.text == text for student in self.students):
            return
        size = {"channels": sized.channels, "num_cells": sized.num_cells}
        paths = {"paths": sized.genotype.num_paths}
        self.students.append(
            FoundStudent(text, architecture, None, self.epochs_done + 1, {**size, **paths})
        )

    def _size(self) -> Sized | None:
        """The present genotype at its width."""
        genotype = self.genotype
        if genotype not in self._sized:
            weaken = partial(weakened, self._net, self.switches.gamma)
            self._sized[genotype] = self._sizing.fit(genotype, weaken)
        return self._sized[genotype]

    def _is_finite(self, total: torch.Tensor) -> bool:
        return math.isfinite(float(total)) and self.switches.is_finite

    def _finish_epoch(self, train_loss: float) -> dict[str, float]:
        """Validates, and writes the epoch's line of the history."""
        found = {"accuracy": 0.0, "loss": math.inf}
        if not self.diverged:
            found = evaluate_batches(_Gated(self), self._data.validation)
            self.diverged = not math.isfinite(found["loss"])
        if self.complete and not self.diverged and not self.students:
            self._offer()
        sized = None if self.diverged else self._size()
        active = [on for group in self._on for on in group]
        line: dict[str, float] = {
            "accuracy": found["accuracy"] if not self.diverged else 0.0,
            "loss": found["loss"] if not self.diverged else math.inf,
            "train_loss": train_loss,
            "num_params": sized.costs["params"] if sized else 0,
            "macs": sized.costs["macs"] if sized else 0,
            "active_switches": sum(active),
            "entropy": self._entropy(),
        }
        finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
        self._epochs.append({"epoch": self.epochs_done, **finite})
        return line

    def _entropy(self) -> float:
        """The mean differential entropy of the operations' switches that are on, in nats."""
        places = [p for group in self._net.layout.operations for p in group]
        gamma = self.switches.gamma[places]
        gamma = gamma[(gamma > 0) & self.switches.active[places]]
        return float(entropy(gamma).mean()) if len(gamma) else 0.0

    def state_dict(self) -> dict[str, Any]:
        """All that continuing needs; loads with `torch.load(weights_only=True)`."""
        return {
            "network": {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "switches": self.switches.state_dict(),
            "epochs_done": self.epochs_done,
            "updates": self._updates,
            "diverged": self.diverged,
            "epochs": copy.deepcopy(self._epochs),
            "gammas": copy.deepcopy(self._gammas),
            "students": [
                {"text": s.text, "epoch": s.epoch, "metrics": dict(s.metrics)}
                for s in self.students
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; same context, settings, lambda and budget."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.switches.load_state_dict(state["switches"])
        self.epochs_done, self._updates = state["epochs_done"], state["updates"]
        self.diverged = state["diverged"]
        self._epochs, self._gammas = (
            copy.deepcopy(state["epochs"]),
            copy.deepcopy(state["gammas"]),
        )
        self.students = [
            FoundStudent(
                one["text"],
                Architecture.from_compact(one["text"]),
                None,
                one["epoch"],
                one["metrics"],
            )
            for one in state["students"]
        ]
        self._set_on()


class _Gated(nn.Module):
    """The super-network with its switches as they are: [B, C, H, W] -> [B, K]."""

    def __init__(self, run: SuperNetRun) -> None:
        super().__init__()
        self.network = run.network
        self._logits = run._net.logits
        self._factors = run._factors(run.switches.weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._logits(images, self._factors)


def _mix(seed: int, number: int) -> int:
    """A 63-bit seed of its own for each part of a run."""
    words = np.random.SeedSequence([seed, number]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1
