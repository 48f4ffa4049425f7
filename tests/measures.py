"""Counts by means that are not ours: torch's operation counter, and the tensors that live while a module runs."""

from __future__ import annotations

import weakref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def macs(module: nn.Module, images: torch.Tensor) -> float:
    """Multiply-accumulates of a forward pass, all images together."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(images)
    return counter.get_total_flops() / 2


class LivingTensors(TorchDispatchMode):
    """Watches the memory of all tensors that are made; what a kernel returns beside its result (indices, statistics) does not count.

    Attributes:
        peak_bytes: the most that lived at once.
    """

    def __init__(self, *owned: torch.Tensor) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._owned = {tensor.untyped_storage().data_ptr() for tensor in owned}
        self._alive: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)), None)
        if made is not None and made.is_floating_point():
            self._alive.append(weakref.ref(made))
        storages = {}
        for tensor in (reference() for reference in self._alive):
            if tensor is not None:
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        total = sum(size for place, size in storages.items() if place not in self._owned)
        self.peak_bytes = max(self.peak_bytes, total)
        self._alive = [reference for reference in self._alive if reference() is not None]
        return result


def peak_bytes(module: nn.Module, image: torch.Tensor) -> int:
    """The most memory that activations take at once; neither the image nor the state counts."""
    watch = LivingTensors(image, *module.parameters(), *module.buffers())
    with watch, torch.no_grad():
        module(image)
    return watch.peak_bytes
