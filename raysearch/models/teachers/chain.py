"""Plain chains of convolutions for small images: conv, BatchNorm, ReLU, now and then a pool, one linear classifier.

conv7 and conv10 are the teachers of Architecture Compression (ICLR 2019 submission), which prints their sizes alone, 708K and 24.4M
parameters. The widths here give 707,754 (one channel, 28x28, 10 classes), 24.35M and 24.44M (three channels, 10 and 100 classes); they
are natural, not the only ones. conv5 is a small one of ours, for 8x8 digits.

Every layer is one that `raysearch.architecture.sequences.chains` has a type for, so a chain is its sequence, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Chain:
    """The form of one network.

    Attributes:
        stages: the widths of the convolutions; a 2x2 max pool stands between two stages.
        average: the last map is averaged before the classifier; False: the classifier reads all of it.
    """

    stages: tuple[tuple[int, ...], ...]
    average: bool


CONFIGURATIONS: Mapping[str, Chain] = {
    "conv5": Chain(((16, 16), (32, 32), (64,)), average=True),
    "conv7": Chain(((32, 32), (64, 64), (128, 128, 256)), average=False),
    "conv10": Chain(((64, 256), (256, 256, 256), (256, 256), (1024, 1024, 1024)), average=True),
}


def chain(name: str, num_classes: int, input_shape: Sequence[int]) -> nn.Sequential:
    """The network called `name`: [B, C, H, W] -> logits [B, K].

    A pool that would make the image smaller than 1x1 is left out, so any size can be taken. The average goes over squares of the
    shorter side, because a sequence knows one window for all sides: of an image that is not square several are left.

    Args:
        num_classes: K.
        input_shape: [C, H, W] of the images.
    """
    form = CONFIGURATIONS[name]
    channels, *sides = input_shape
    layers: list[nn.Module] = []
    for number, widths in enumerate(form.stages):
        if number and min(sides) >= 2:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        for width in widths:
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    if form.average and (window := min(sides)) >= 2:
        layers.append(nn.AvgPool2d(window))
        sides = [side // window for side in sides]
    layers += [nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], num_classes)]
    return nn.Sequential(*layers)
