"""The operations between two nodes (Yang 2019, section 5-1), as modules that keep the number of channels.

Convolutions are those of the cell-based literature (Liu et al., DARTS, 2019): ReLU before, BatchNorm behind, a separable one twice. A
stride of 2 halves the image, rounding up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.functional import pad

CELL_OPERATIONS = (
    "identity",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "max_pool_3x3",
    "avg_pool_3x3",
)
"""The thesis's seven. No zero operation: absence is what the zero-node's identity switch says."""


class ConvNorm(nn.Sequential):
    """ReLU, convolution, BatchNorm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        affine: bool = True,
    ) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                stride,
                padding=kernel // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class SeparableConv(nn.Sequential):
    """ReLU, depthwise convolution, 1x1 convolution, BatchNorm; `repeats` times, the first with the stride."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        *,
        dilation: int = 1,
        repeats: int = 1,
        affine: bool = True,
    ) -> None:
        layers: list[nn.Module] = []
        for repeat in range(repeats):
            layers += [
                nn.ReLU(),
                nn.Conv2d(
                    channels,
                    channels,
                    kernel,
                    stride if repeat == 0 else 1,
                    padding=dilation * (kernel - 1) // 2,
                    dilation=dilation,
                    groups=channels,
                    bias=False,
                ),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels, affine=affine),
            ]
        super().__init__(*layers)


class FactorizedReduce(nn.Module):
    """Half the image: two 1x1 convolutions with stride 2, one of them on the image shifted by a pixel, side by side."""

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, out_channels - half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, half, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, C, H, W] -> [B, C', ceil(H / 2), ceil(W / 2)]."""
        images = self.relu(images)
        # shifted by a pixel; an odd side has no last one, so a zero stands there
        parts = [self.even(images), self.odd(pad(images, (-1, 1, -1, 1)))]
        return self.bn(torch.cat(parts, dim=1))


def _identity(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine=affine)


def _separable(kernel: int, dilation: int, repeats: int) -> Maker:
    def make(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
        return SeparableConv(
            channels, kernel, stride, dilation=dilation, repeats=repeats, affine=affine
        )

    return make


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d]) -> Maker:
    def make(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
        pool: nn.Module
        if kind is nn.AvgPool2d:
            pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        else:
            pool = nn.MaxPool2d(3, stride, padding=1)
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=affine))

    return make


def _conv(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
    return ConvNorm(channels, channels, 3, stride, groups=groups, affine=affine)


Maker = Callable[[int, int, bool, int], nn.Module]
"""(channels, stride, whether BatchNorms have weights, groups of plain convolutions) -> module."""

_MAKERS: Mapping[str, Maker] = {
    "identity": _identity,
    "sep_conv_3x3": _separable(3, 1, 2),
    "sep_conv_5x5": _separable(5, 1, 2),
    "dil_conv_3x3": _separable(3, 2, 1),
    "dil_conv_5x5": _separable(5, 2, 1),
    "max_pool_3x3": _pool(nn.MaxPool2d),
    "avg_pool_3x3": _pool(nn.AvgPool2d),
    "conv_3x3": _conv,
}
OPERATIONS = tuple(_MAKERS)


def make_operation(
    name: str, channels: int, stride: int, *, affine: bool = True, groups: int = 1
) -> nn.Module:
    """The operation called `name`: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)].

    Args:
        name: one of OPERATIONS.
        channels: C.
        stride: 1 or 2.
        affine: False: BatchNorms without weights, so that only the switch behind them can scale an operation.
        groups: of plain 3x3 convolutions.
    """
    return _MAKERS[name](channels, stride, affine, groups)
