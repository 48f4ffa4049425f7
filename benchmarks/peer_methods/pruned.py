"""torch-pruning (Fang et al., "DepGraph", 2023; "Isomorphic Pruning", 2024) as its documentation uses it: its pruner class on the teacher, progressively.

Its authors' scripts prune in hundreds of small steps until the wanted size is reached, with the importance measured anew before each;
so do we, and the size is our own exact count. DEVIATION, in its favour, so that it uses small budgets fully: the steps shrink with the
network (through the pruner's own argument for schedules), and the last one ends with the group of layers that makes the network fit.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.peer_methods.setting import NoSolution, Setting, count
from raysearch.errors import MissingPackageError

STEPS = 200
KEPT_AT_THE_END = 0.01
"""The share of the channels that the schedule's last step would leave."""
BATCH = 128
"""Images of a gradient, as in its own scripts; another batch at each step."""


def prune_l2(setting: Setting) -> tuple[nn.Module, str]:
    """L2 norms of whole groups, one ranking for all layers."""
    return _prune(setting, taylor=False)


def prune_taylor(setting: Setting) -> tuple[nn.Module, str]:
    """First-order Taylor importance, one ranking for each kind of group (isomorphic)."""
    return _prune(setting, taylor=True)


def _prune(setting: Setting, *, taylor: bool) -> tuple[nn.Module, str]:
    try:
        import torch_pruning as tp
    except ImportError:
        raise MissingPackageError(
            "this peer needs torch-pruning; run: pip install 'raysearch[prune]'"
        ) from None
    module = copy.deepcopy(setting.teacher).eval()
    importance = tp.importance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            module,
            torch.zeros(1, *setting.problem.data.shape),
            importance=importance.GroupTaylorImportance()
            if taylor
            else importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            isomorphic=taylor,
            pruning_ratio=1.0,
            iterative_steps=STEPS,
            iterative_pruning_ratio_scheduler=_shrinking_steps,
            ignored_layers=[_classifier(module)],
        )
    batches = _batches(setting)
    size = count(module)
    while size > setting.limit:
        if pruner.current_step == STEPS:
            raise NoSolution(f"{STEPS} steps leave {size:,} parameters")
        if taylor:
            module.zero_grad()
            images, labels = next(batches)
            cross_entropy(module(images), labels).backward()
        for group in pruner.step(interactive=True):
            group.prune()
            size = count(module)
            if size <= setting.limit:
                break
    module.zero_grad()
    return module, f"{pruner.current_step} of {STEPS} steps"


def _shrinking_steps(ratio: float, steps: int) -> list[float]:
    """The share of channels that is gone after each step: every step takes the same share of what is left."""
    return [ratio * (1 - KEPT_AT_THE_END ** (step / steps)) for step in range(steps + 1)]


def _classifier(module: nn.Module) -> nn.Module:
    """Its documentation leaves the last layer's outputs, which are the classes, alone."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]


def _batches(setting: Setting) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Training images as the network takes them, with their labels, drawn from the seed."""
    train = setting.context.device_data.train
    generator = torch.Generator().manual_seed(setting.seed)
    while True:
        for indices in train.order(BATCH, generator):
            yield train.take(indices), train.labels[indices]
