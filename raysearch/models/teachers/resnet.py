"""CIFAR-style residual networks (He et al., "Deep Residual Learning for Image Recognition", 2016).

Two families, both with a 3x3 stem for small images:

* the 6n + 2 family of section 4.2 (widths 16, 32, 64): resnet14, resnet20, resnet56. DEVIATION: shortcuts that change the shape
  are 1x1 convolutions with BatchNorm (option B), not zero padding, as all later work on compression has them;
* the family of table 1 (widths 64 to 512): resnet18 (11.17 M parameters for 10 classes) and resnet34 (21.28 M), without the
  stem's pooling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

CONFIGURATIONS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "resnet14": ((16, 2), (32, 2), (64, 2)),
    "resnet18": ((64, 2), (128, 2), (256, 2), (512, 2)),
    "resnet20": ((16, 3), (32, 3), (64, 3)),
    "resnet34": ((64, 3), (128, 4), (256, 6), (512, 3)),
    "resnet56": ((16, 9), (32, 9), (64, 9)),
}
"""Name -> (width, blocks) of each stage."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, C, H, W] -> [B, width, H / stride, W / stride]."""
        residual = self.relu1(self.bn1(self.conv1(images)))
        residual = self.bn2(self.conv2(residual))
        return self.relu2(residual + self.shortcut(images))


class ResNet(nn.Module):
    """A 3x3 stem, stages of basic blocks (each stage but the first halves the image), a linear classifier.

    Args:
        stages: (width, blocks) of each stage.
        num_classes: K.
        in_channels: the images' channels.
    """

    def __init__(
        self, stages: Sequence[tuple[int, int]], num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        width = stages[0][0]
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        blocks = []
        for stage, (next_width, count) in enumerate(stages):
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(width, next_width, stride))
                width = next_width
            blocks.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)
        _initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, C, H, W] -> logits [B, K]."""
        features = self.stages(self.relu(self.bn1(self.conv1(images))))
        return self.fc(self.pool(features).flatten(1))


def resnet(name: str, num_classes: int, input_shape: Sequence[int]) -> ResNet:
    """The network called `name` for images [C, H, W] = `input_shape`."""
    return ResNet(CONFIGURATIONS[name], num_classes, input_shape[0])


def _initialise(module: nn.Module) -> None:
    """He initialisation of the convolutions (fan out), as in the reference implementations."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
