"""Fitting encoder, decoder and regressors together: L = L_d + l1 L_a + l2 L_p (Algorithm 1 of the paper, "training").

Architectures and their sizes cost nothing, only accuracies do. So ours trains the autoencoder and f_p on many architectures of the space
once ("pretraining"), and each refit begins there and adds the few that have an accuracy (semi-supervised). A refit is a pure function of
seed and observations: nothing needs to be saved.

Notation
    n observations, m unlabelled architectures        a [n] in [0, 1]        p [.] standardised sizes
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from searchers.ahead import Cancelled
from searchers.embedding_gradient.autoencoder import Networks, Shape
from searchers.embedding_gradient.inputs import Sequences
from searchers.embedding_gradient.losses import accuracy_loss, joint, reconstruction, size_loss

MAX_POINTS = 200
"""Of a history that is kept."""
PERIOD, DROP = 0.3, 0.2
"""Faithful: the rate falls to a fifth after each 30 % of the iterations. The paper says "period 30" without a unit."""

RISE = 0.1
"""Ours: the share of the steps in which the rate rises; then it falls as a cosine."""


class FitDiverged(Exception):
    """The loss is not finite."""


@dataclass(frozen=True)
class FitOptions:
    """How the networks are fitted.

    Attributes:
        faithful: SGD with Nesterov's momentum .5, batches of observations alone; else Adam, a cosine, and unlabelled architectures.
        num_pretrain: steps on unlabelled architectures, once.
        num_steps: of a refit.
        lr: the first rate.
        batch_size: observations of a step at most.
        num_unlabelled: of a step.
        l1, l2: weights of L_a and L_p, which the paper does not give.
        spread: of the regressors' random weights on observations (Bayesian bootstrap): 0 none, 1 exponential.
    """

    faithful: bool = False
    num_pretrain: int = 300
    num_steps: int = 100
    lr: float = 3e-3
    batch_size: int = 64
    num_unlabelled: int = 128
    l1: float = 1.0
    l2: float = 1.0
    weight_decay: float = 1e-3
    spread: float = 1.0


@dataclass(frozen=True)
class Examples:
    """Architectures to learn from.

    Attributes:
        sequences: B of them.
        sizes: p*, [B]; None: not known.
        values: a*, [B]; None: not known.
    """

    sequences: Sequences
    sizes: Tensor | None
    values: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, rows: Tensor) -> Examples:
        sizes = None if self.sizes is None else self.sizes[rows]
        values = None if self.values is None else self.values[rows]
        return Examples(self.sequences[rows], sizes, values)


@dataclass
class History:
    """The losses of a fit, one number a step.

    Attributes:
        num_observations: that it learned from.
    """

    num_observations: int
    L: list[float] = field(default_factory=list)
    L_d: list[float] = field(default_factory=list)
    L_a: list[float] = field(default_factory=list)
    L_p: list[float] = field(default_factory=list)

    def thinned(self, num_points: int = MAX_POINTS) -> dict[str, object]:
        """JSON-native, with at most so many points, the last one among them."""
        stride = max(1, -(-len(self.L) // num_points))
        steps = list(range(len(self.L) - 1, -1, -stride))[::-1]
        losses = {"L": self.L, "L_d": self.L_d, "L_a": self.L_a, "L_p": self.L_p}
        thin = {key: [float(f"{all_[s]:.5g}") for s in steps] for key, all_ in losses.items()}
        return {"num_observations": self.num_observations, "steps": steps, **thin}


def make_networks(shape: Shape, seed: int) -> Networks:
    """Untrained ones."""
    return Networks(shape, torch.Generator().manual_seed(seed))


def pretrain(
    networks: Networks, cloud: Examples, options: FitOptions, seed: int, cancelled: Cancelled
) -> Networks:
    """The autoencoder and f_p on architectures without accuracies; in place.

    Raises:
        FitDiverged
    """
    generator = torch.Generator().manual_seed(seed)

    def batch() -> tuple[Examples, Tensor | None]:
        size = min(options.num_unlabelled, len(cloud))
        return cloud[torch.randint(len(cloud), (size,), generator=generator)], None

    _descend(networks, batch, options, options.num_pretrain, History(0), cancelled)
    _settle(networks, [cloud])
    return networks


def refit(
    pretrained: Networks,
    observed: Examples,
    cloud: Examples | None,
    options: FitOptions,
    seed: int,
    cancelled: Cancelled,
) -> tuple[Networks, History]:
    """All four networks on the observations, and on some unlabelled architectures beside them.

    Args:
        pretrained: where it begins; stays as it is.
        observed: with values.
        cloud: unlabelled ones; None: the observations alone.
        options: of the fit.
        seed: of batches and weights.
        cancelled: see `searchers.ahead`; a cancelled fit is of no use.

    Raises:
        FitDiverged
    """
    networks = copy.deepcopy(pretrained)
    generator = torch.Generator().manual_seed(seed)
    num = len(networks.f_a.weights[0])
    drawn = torch.rand((num, len(observed)), generator=generator).clamp(min=1e-6)
    weight = 1 - options.spread + options.spread * -drawn.log()  # [M, n] of mean 1
    if num == 1:
        weight = torch.ones_like(weight)

    def batch() -> tuple[Examples, Tensor]:
        size = min(options.batch_size, len(observed))
        rows = torch.randperm(len(observed), generator=generator)[:size]
        seen = observed[rows]
        if cloud is None:
            return seen, weight[:, rows]
        beside = cloud[torch.randint(len(cloud), (options.num_unlabelled,), generator=generator)]
        return _stack(seen, beside), weight[:, rows]

    history = History(len(observed))
    _descend(networks, batch, options, options.num_steps, history, cancelled)
    _settle(networks, [observed] if cloud is None else [observed, cloud])
    return networks, history


def losses(
    networks: Networks, examples: Examples, weight: Tensor | None, options: FitOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """L_d, L_a and L_p of a batch whose first architectures have accuracies.

    Args:
        networks: the four.
        examples: B architectures.
        weight: [M, b] of the first b architectures' accuracies; None: no accuracy is known.
        options: of the fit.
    """
    sequences = examples.sequences
    y = networks.encode(sequences.x, sequences.mask)
    L_d = reconstruction(networks.decode(y), sequences, raw=options.faithful)
    L_a = L_p = L_d.new_zeros(())
    if weight is not None and examples.values is not None:
        L_a = accuracy_loss(networks.f_a(y[: weight.shape[1]]), examples.values, weight)
    if examples.sizes is not None:
        L_p = size_loss(networks.f_p(y[: len(examples.sizes)])[0], examples.sizes)
    return L_d, L_a, L_p


def _descend(
    networks: Networks,
    batch: Callable[[], tuple[Examples, Tensor | None]],
    options: FitOptions,
    num_steps: int,
    history: History,
    cancelled: Cancelled,
) -> None:
    networks.train().requires_grad_(True)
    networks.set_momentum(0.1)
    optimizer, schedule = _optimizer(networks, options, num_steps)
    for _ in range(num_steps):
        if cancelled():
            return
        examples, weight = batch()
        L_d, L_a, L_p = losses(networks, examples, weight, options)
        L = joint(L_d, L_a, L_p, options.l1, options.l2)
        numbers = [float(part) for part in (L.detach(), L_d.detach(), L_a.detach(), L_p.detach())]
        if not all(map(_is_finite, numbers)):
            raise FitDiverged(f"the loss is {numbers[0]} after {len(history.L)} steps")
        for kept, number in zip(
            (history.L, history.L_d, history.L_a, history.L_p), numbers, strict=True
        ):
            kept.append(number)
        optimizer.zero_grad(set_to_none=True)
        L.backward()
        optimizer.step()
        schedule.step()


def _is_finite(number: float) -> bool:
    return abs(number) < float("inf")  # NaN is not


def _optimizer(
    networks: Networks, options: FitOptions, num_steps: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    parameters = list(networks.parameters())
    if options.faithful:
        sgd = torch.optim.SGD(parameters, lr=options.lr, momentum=0.5, nesterov=True)
        period = max(1, round(PERIOD * num_steps))
        return sgd, torch.optim.lr_scheduler.StepLR(sgd, period, DROP)
    adam = torch.optim.AdamW(
        parameters, lr=options.lr, weight_decay=options.weight_decay, foreach=True
    )
    rise = max(1, round(RISE * num_steps))

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))

    return adam, torch.optim.lr_scheduler.LambdaLR(adam, share)


def _settle(networks: Networks, parts: list[Examples]) -> None:
    """Fixes the norms' statistics as those of what was learned from, and ends the training."""
    sequences = Sequences.concatenate([part.sequences for part in parts])
    networks.set_momentum(1.0)
    with torch.no_grad():
        networks.decode(networks.encode(sequences.x, sequences.mask))
    networks.eval()
    networks.requires_grad_(False)


def _stack(first: Examples, second: Examples) -> Examples:
    """Both, the values of the first alone."""
    sizes = first.sizes
    if first.sizes is not None and second.sizes is not None:
        sizes = torch.cat([first.sizes, second.sizes])
    return Examples(Sequences.concatenate([first.sequences, second.sequences]), sizes, first.values)
