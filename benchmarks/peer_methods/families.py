"""The teachers as a practitioner writes them: a constructor with widths and depths, for peers that do not take a traced graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysearch.models.teachers.resnet import ResNet
from raysearch.models.teachers.vgg import VGG

Stages = tuple[tuple[int, int], ...]
"""(width, blocks or convolutions) of each stage."""


@dataclass(frozen=True)
class Family:
    """A ResNet or a VGG.

    Attributes:
        kind: the class.
        stages: the teacher's.
        rest: the constructor's other arguments, by name.
    """

    kind: type[nn.Module]
    stages: Stages
    rest: Mapping[str, Any]

    @classmethod
    def of(cls, teacher: nn.Module, num_classes: int, input_shape: Sequence[int]) -> Family:
        """Reads widths and depths off a teacher.

        Raises:
            TypeError: it is neither a ResNet nor a VGG of ours.
        """
        if isinstance(teacher, ResNet):
            rest = {"num_classes": num_classes, "in_channels": input_shape[0]}
            return cls(ResNet, _resnet_stages(teacher), rest)
        if isinstance(teacher, VGG):
            rest = {"num_classes": num_classes, "input_shape": tuple(input_shape)}
            return cls(VGG, _vgg_stages(teacher), rest)
        raise TypeError(f"a {type(teacher).__name__} has no stages: give a ResNet or a VGG")

    def build(self, stages: Sequence[tuple[int, int]]) -> nn.Module:
        """A freshly initialised member with other widths, and with fewer blocks: those that are left keep their names."""
        full = [
            (width, blocks) for (width, _), (_, blocks) in zip(stages, self.stages, strict=True)
        ]
        module = self.kind(tuple(full), **self.rest)
        for number, (_, kept) in enumerate(stages):
            for names in self._blocks(number)[kept:]:
                for name in names:
                    parent, _, leaf = name.rpartition(".")
                    setattr(module.get_submodule(parent), leaf, nn.Identity())
        return module

    def describe(self) -> dict[str, Any]:
        """What builds the teacher without this package: a file that needs torch only, a class in it, and arguments."""
        file = Path(inspect.getfile(self.kind)).absolute()
        arguments = {"stages": [list(stage) for stage in self.stages], **self.rest}
        return {"file": str(file), "class": self.kind.__name__, "arguments": arguments}

    def _blocks(self, stage: int) -> list[list[str]]:
        """The modules of each block of a stage."""
        if self.kind is ResNet:
            return [[f"stages.{stage}.{block}"] for block in range(self.stages[stage][1])]
        teacher = self.kind(self.stages, **self.rest)
        found: list[list[list[str]]] = [[]]
        for name, layer in teacher.get_submodule("features").named_children():
            if isinstance(layer, nn.MaxPool2d):
                found.append([])
            elif isinstance(layer, nn.Conv2d):
                found[-1].append([f"features.{int(name) + offset}" for offset in range(3)])
        return found[stage]


@torch.no_grad()
def slice_weights(student: nn.Module, teacher: nn.Module) -> None:
    """Gives every tensor of the student the first rows and columns of the teacher's of the same name."""
    source = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        tensor.copy_(source[name][tuple(slice(size) for size in tensor.shape)])


@torch.no_grad()
def fit(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Resizes convolutions, linear layers and BatchNorms to the tensors of a narrower network of the same names, and loads them."""
    for name, layer in module.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None:
            continue
        own = [key for key, _ in (*layer.named_parameters(), *layer.named_buffers())]
        for key in own:
            tensor = state[f"{name}.{key}"].clone()
            setattr(
                layer,
                key,
                nn.Parameter(tensor) if key in dict(layer.named_parameters()) else tensor,
            )
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = weight.shape
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(weight)


def _resnet_stages(teacher: ResNet) -> Stages:
    stages: Any = teacher.stages
    return tuple((stage[0].conv1.out_channels, len(stage)) for stage in stages)


def _vgg_stages(teacher: VGG) -> Stages:
    """A pool ends a stage."""
    widths: list[list[int]] = [[]]
    for layer in teacher.features:
        if isinstance(layer, nn.MaxPool2d):
            widths.append([])
        elif isinstance(layer, nn.Conv2d):
            widths[-1].append(layer.out_channels)
    return tuple((stage[0], len(stage)) for stage in widths if stage)
