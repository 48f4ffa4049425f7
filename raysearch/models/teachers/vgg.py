"""VGG networks with BatchNorm and one linear layer (Simonyan and Zisserman, 2015, table 1; the form used for small images).

A pool that would make the image smaller than 1x1 is left out, so that any image size can be taken; what is left of the image
before the classifier is averaged away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

CONFIGURATIONS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "vgg11": ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)),
    "vgg13": ((64, 2), (128, 2), (256, 2), (512, 2), (512, 2)),
    "vgg16": ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    "vgg19": ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}
"""Name -> (width, convolutions) of each stage; a pool follows each stage."""


class VGG(nn.Module):
    """Stages of 3x3 convolutions with a 2x2 max pool after each, an average over what is left, a linear classifier.

    Args:
        stages: (width, convolutions) of each stage.
        num_classes: K.
        input_shape: [C, H, W] of the images.
    """

    def __init__(
        self, stages: Sequence[tuple[int, int]], num_classes: int, input_shape: Sequence[int]
    ) -> None:
        super().__init__()
        channels, *space = input_shape
        layers: list[nn.Module] = []
        for width, count in stages:
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
                layers.append(nn.ReLU())
                channels = width
            if min(space) >= 2:
                layers.append(nn.MaxPool2d(2))
                space = [size // 2 for size in space]
        self.features = nn.Sequential(*layers)
        self.pool = nn.Identity() if max(space) == 1 else nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        self._initialise()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, C, H, W] -> logits [B, K]."""
        return self.classifier(self.pool(self.features(images)).flatten(1))

    def _initialise(self) -> None:
        for child in self.modules():
            if isinstance(child, nn.Conv2d):
                nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(child.bias)  # type: ignore[arg-type]  # every convolution here has one


def vgg(name: str, num_classes: int, input_shape: Sequence[int]) -> VGG:
    """The network called `name` for images [C, H, W] = `input_shape`."""
    return VGG(CONFIGURATIONS[name], num_classes, input_shape)
