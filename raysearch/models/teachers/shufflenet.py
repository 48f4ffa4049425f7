"""ShuffleNet (Zhang, Zhou, Lin and Sun, 2018, table 1) for small images, in the form that ESNAC compressed.

ESNAC (Cao, Wang and Kitani, 2019) prints twelve sizes: ten references of 0.5x and 1.5x (table 2), and its teacher 1x, g = 2 with 10 and
100 classes (table 1). This form has all twelve: a 1x1 stem of 24 channels at each scale, no pooling behind it; units whose inner width is a
quarter of what their residual branch gives, down to a multiple of the groups; and, in the teacher alone, a grouped 1x1 convolution
before each pooling (`insert_1x1`; section 6.4), which is the tenth that its size (.99 M, 1.06 M) has above the plain network's
(.89 M, .96 M).

A unit that halves the image joins its pooled input to its output. So the width of a stage is tied to that of the stage before, up to the
stem; the inserted convolutions set it free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from raysearch.errors import ConfigError

WIDTHS: Mapping[int, tuple[int, int, int]] = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
"""Groups -> the width of each stage at scale 1."""

UNITS = (4, 8, 4)
"""Units of each stage; the first one halves the image."""

STEM = 24

CONFIGURATIONS: Mapping[str, tuple[float, int, bool]] = {
    f"shufflenet_{scale:g}x_g{groups}{suffix}": (scale, groups, bool(suffix))
    for scale in (0.5, 1.0, 1.5)
    for groups in WIDTHS
    for suffix in ("", "_1x1")
}
"""Name -> (scale, groups, insert_1x1)."""

NAMES = "shufflenet_{0.5x,1x,1.5x}_{g1,g2,g3,g4,g8}, each also with _1x1"
"""All of them, for people."""


class Unit(nn.Module):
    """Figure 2 of the paper: a grouped 1x1 convolution, a shuffle, a depthwise 3x3 one, another grouped 1x1 one, and a shortcut.

    Args:
        in_channels: what it reads.
        width: what it gives; with stride 2 the pooled input is a part of that.
        stride: 1 adds the input, 2 joins the pooled input.
        groups: of both 1x1 convolutions, but the first unit's first one, which reads few channels, has none (section 3.2).
        insert_1x1: a grouped 1x1 convolution before the pooling.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, groups: int, *, insert_1x1: bool
    ) -> None:
        super().__init__()
        branch = width - in_channels if stride == 2 else width
        inner = branch // 4 // groups * groups
        reading = 1 if in_channels == STEM else groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=reading, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(groups)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, branch, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(branch)
        self.joins = stride == 2
        self.shortcut = nn.Sequential()
        if self.joins:
            if insert_1x1:
                self.shortcut.append(
                    nn.Conv2d(in_channels, in_channels, 1, groups=groups, bias=False)
                )
            self.shortcut.append(nn.AvgPool2d(3, stride, padding=1))
        self.relu3 = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, C, H, W] -> [B, width, H / stride, W / stride]."""
        branch = self.shuffle(self.relu1(self.bn1(self.conv1(images))))
        branch = self.bn3(self.conv3(self.bn2(self.conv2(branch))))
        shortcut = self.shortcut(images)
        return self.relu3(torch.cat((branch, shortcut), 1) if self.joins else branch + shortcut)


class ShuffleNet(nn.Module):
    """A 1x1 stem, three stages of units (each halves the image), an average over what is left, a linear classifier.

    Args:
        widths: of each stage.
        groups: of the 1x1 convolutions; divides every width.
        num_classes: K.
        in_channels: the images' channels.
        insert_1x1: see `Unit`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        groups: int,
        num_classes: int,
        in_channels: int = 3,
        *,
        insert_1x1: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU()
        stages, channels = [], STEM
        for width, count in zip(widths, UNITS, strict=True):
            units = []
            for position in range(count):
                stride = 2 if position == 0 else 1
                units.append(Unit(channels, width, stride, groups, insert_1x1=insert_1x1))
                channels = width
            stages.append(nn.Sequential(*units))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, C, H, W] -> logits [B, K]."""
        features = self.stages(self.relu(self.bn1(self.conv1(images))))
        return self.fc(self.pool(features).flatten(1))


def shufflenet(
    scale: float,
    groups: int,
    insert_1x1: bool = False,
    *,
    num_classes: int = 10,
    input_shape: Sequence[int] = (3, 32, 32),
) -> ShuffleNet:
    """ShuffleNet `scale`x with g = `groups`; ESNAC's teacher is `shufflenet(1, 2, insert_1x1=True)`.

    Args:
        scale: of the stages' widths.
        groups: 1, 2, 3, 4 or 8.
        insert_1x1: a grouped 1x1 convolution before each pooling, so that a stage's width does not depend on the one before.
        num_classes: K of the logits [B, K].
        input_shape: [C, H, W] of the images.

    Raises:
        ConfigError: other groups, or a scale that gives no widths that they divide.
    """
    if groups not in WIDTHS:
        listed = ", ".join(map(str, WIDTHS))
        raise ConfigError(f"shufflenet: groups is {groups!r}, but it must be one of {listed}")
    widths = [round(scale * width) for width in WIDTHS[groups]]
    if widths[0] < STEM + 4 * groups or any(width % groups for width in widths):
        raise ConfigError(
            f"shufflenet: scale {scale!r} gives the widths {widths}, but multiples of groups = {groups} from "
            f"{STEM + 4 * groups} on are needed; use 0.5, 1 or 1.5"
        )
    return ShuffleNet(widths, groups, num_classes, input_shape[0], insert_1x1=insert_1x1)


def named(name: str, num_classes: int, input_shape: Sequence[int]) -> ShuffleNet:
    """The network called `name` (a key of `CONFIGURATIONS`) for images [C, H, W] = `input_shape`."""
    scale, groups, insert_1x1 = CONFIGURATIONS[name]
    return shufflenet(scale, groups, insert_1x1, num_classes=num_classes, input_shape=input_shape)
