"""Small networks as users write them: one quirk each, random weights, 10 classes or fewer.

`CASES` maps a name to what is needed to trace one. The networks of `REFUSED` cannot have a right student; each names the words that the
refusal must hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from tests.acceptance import blocks
from tests.acceptance.signatures import Audio, DictOut, MultiOut, Video
from tests.acceptance.weights import (
    CalledTwice,
    FuncParam,
    KeywordNames,
    ScaledScarcely,
    ScaledTwice,
    TiedWeights,
)

SHAPE = (3, 16, 16)


@dataclass(frozen=True)
class Case:
    """How to trace a network.

    Attributes:
        make: builds it.
        shape: of one input.
        output_index: for several outputs.
        folded: weights are computed from others, so that names and counts of parameters differ from the module's.
        permutes: moves channels; where there is only one, torch saves a copy that we count.
        temporaries: some of its operations are several calls of torch, whose tensors between are not ours to count.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = SHAPE
    output_index: int | str | None = None
    folded: bool = False
    permutes: bool = False
    temporaries: bool = False


class Classifier(nn.Module):
    """A stem of 12 channels, some blocks, average, a linear layer."""

    def __init__(self, *parts: nn.Module, channels: int = 12, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = blocks.conv_bn(in_channels, 12)
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 40), nn.Linear(40, 30), nn.Linear(30, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = x.view(-1, 64)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class ViewSize(nn.Module):
    """The batch and the features by x.size, with arithmetic on them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8 * 49, 10)

    def forward(self, x):
        x = self.conv(x).relu()
        side = int(math.sqrt(x.shape[2] * x.shape[3]))
        return self.fc(x.view(x.size(0), x.size(1) * side * side))


class ControlFlow(nn.Module):
    """Branches on shapes and flags, a loop over modules."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.narrow = nn.Conv2d(8, 8, 3, stride=2)
        self.fc = nn.Linear(8, 10)
        self.deep = True

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else x + layer(x)
            x = F.relu(x)
        if x.shape[-1] > 8 and self.deep:
            x = self.narrow(x)
        return self.fc(x.flatten(2).mean(-1))


class ConcatPool(nn.Module):
    """fastai's head: average and maximum side by side."""

    def __init__(self):
        super().__init__()
        self.body = blocks.conv_bn(3, 12)
        self.mean, self.top = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.bn, self.fc = nn.BatchNorm1d(24), nn.Linear(24, 10)

    def forward(self, x):
        x = self.body(x)
        return self.fc(self.bn(torch.cat([self.top(x), self.mean(x)], 1).flatten(1)))


class NumpyInside(nn.Module):
    """Constants by numpy at run time."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        x = self.conv(x) * float(np.sqrt(2.0)) + torch.from_numpy(np.float32([0.5])).item()
        return self.fc(F.relu(x).mean((2, 3)))


class PermuteHead(nn.Module):
    """Channels last before the flatten."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = blocks.conv_bn(3, 8, stride=4), nn.Linear(8 * 16, 10)

    def forward(self, x):
        return self.fc(self.body(x).permute(0, 2, 3, 1).flatten(1))


class Autoencoder(nn.Module):
    """Down, up by a transposed convolution, joined with what came before."""

    def __init__(self):
        super().__init__()
        self.down, self.low = blocks.conv_bn(3, 8), blocks.conv_bn(8, 16, stride=2)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.norm, self.last = nn.BatchNorm2d(8), blocks.conv_bn(16, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        high = self.down(x)
        up = F.relu(self.norm(self.up(self.low(high))))
        return self.fc(self.last(torch.cat([high, up], 1)).mean((2, 3)))


class Upsampling(nn.Module):
    """Two resolutions that meet by interpolation, as in HRNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.low = blocks.conv_bn(3, 12), blocks.conv_bn(12, 12, stride=2)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        high = self.stem(x)
        low = F.interpolate(self.low(high), scale_factor=2.0, mode="nearest")
        return self.fc(F.relu(high + low).mean((2, 3)))


class ConvHead(nn.Module):
    """A fully convolutional classifier; log-probabilities."""

    def __init__(self):
        super().__init__()
        self.body, self.last = blocks.conv_bn(3, 12), nn.Conv2d(12, 10, 1)

    def forward(self, x):
        return F.log_softmax(F.avg_pool2d(self.last(self.body(x)), 16).squeeze(-1).squeeze(-1), 1)


def option_a_resnet() -> nn.Module:
    return Classifier(
        blocks.OptionA(12, 12, 1), blocks.OptionA(12, 24, 2), blocks.OptionA(24, 24, 1), channels=24
    )


def weight_normed() -> nn.Module:
    conv = parametrizations.weight_norm(nn.Conv2d(12, 12, 3, padding=1))
    return Classifier(conv, nn.ReLU())


def spectral_normed() -> nn.Module:
    conv = parametrizations.spectral_norm(nn.Conv2d(12, 12, 3, padding=1))
    return Classifier(conv, nn.ReLU())


def bias_free() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10, bias=False)
    )


def same_padding() -> nn.Module:
    """Even kernels pad their two sides differently."""
    return Classifier(
        *(nn.Conv2d(12, 16, 4, padding="same"), nn.ReLU()),
        *(nn.Conv2d(16, 12, (1, 2), padding="same", dilation=3), nn.ReLU()),
        nn.Conv2d(12, 12, (5, 1), padding="same", dilation=2),
    )


def plain_norms() -> nn.Module:
    return Classifier(nn.Conv2d(12, 12, 3), nn.BatchNorm2d(12, affine=False), nn.LeakyReLU(0.2))


def _classifier(*parts: Callable[[], nn.Module], channels: int = 12) -> Callable[[], nn.Module]:
    return lambda: Classifier(*(part() for part in parts), channels=channels)


CASES: dict[str, Case] = {
    "LeNet": Case(LeNet, (1, 16, 16)),
    "ViewSize": Case(ViewSize),
    "ControlFlow": Case(ControlFlow),
    "PreAct": Case(_classifier(lambda: blocks.PreAct(12), lambda: blocks.PreAct(12))),
    "FuncParam": Case(FuncParam),
    "SE": Case(_classifier(lambda: blocks.SE(12))),
    "CBAM": Case(_classifier(lambda: blocks.CBAM(12)), temporaries=True),
    "SpecNorm": Case(spectral_normed, folded=True),
    "WeightNorm": Case(weight_normed, folded=True),
    "PReLUNet": Case(
        _classifier(nn.PReLU, lambda: nn.Conv2d(12, 12, 3), lambda: nn.PReLU(12)),
    ),
    "ConcatPool": Case(ConcatPool),
    "SelfAttn": Case(_classifier(lambda: blocks.SelfAttention(12)), temporaries=True),
    "NumpyInside": Case(NumpyInside),
    "MultiOut": Case(MultiOut, output_index=1),
    "DictOut": Case(DictOut, output_index="logits"),
    "CalledTwice": Case(CalledTwice),
    "TiedWeights": Case(TiedWeights),
    "OptionA": Case(option_a_resnet),
    "Res2Net": Case(_classifier(lambda: blocks.Res2(12))),
    "CSP": Case(_classifier(lambda: blocks.CSP(12))),
    "Shuffle": Case(_classifier(lambda: blocks.Shuffle(12), lambda: blocks.Shuffle(12))),
    "GroupConv": Case(_classifier(lambda: blocks.Grouped(12, 3))),
    "DepthMultiplier": Case(_classifier(lambda: blocks.DepthMultiplier(12))),
    "InvertedResidual": Case(_classifier(lambda: blocks.Inverted(12), lambda: blocks.Inverted(12))),
    "Inception": Case(_classifier(lambda: blocks.Inception(12))),
    "DenseBlock": Case(_classifier(lambda: blocks.Dense(12, 6), channels=24)),
    "GroupNorm": Case(_classifier(lambda: blocks.normed(12, nn.GroupNorm(3, 12)))),
    "InstanceNorm": Case(_classifier(lambda: blocks.normed(12, nn.InstanceNorm2d(12)))),
    "InstanceNormAffine": Case(
        _classifier(lambda: blocks.normed(12, nn.InstanceNorm2d(12, affine=True))),
        temporaries=True,
    ),
    "ConvNeXt": Case(_classifier(lambda: blocks.ConvNeXt(12), lambda: blocks.ConvNeXt(12))),
    "ECA": Case(_classifier(lambda: blocks.ECA())),
    "SplitAttention": Case(_classifier(lambda: blocks.SplitAttention(12)), temporaries=True),
    "SelectiveKernel": Case(_classifier(lambda: blocks.SelectiveKernel(12)), temporaries=True),
    "Maxout": Case(_classifier(lambda: blocks.Maxout(12)), temporaries=True),
    "GRN": Case(_classifier(lambda: blocks.GRN(12)), temporaries=True),
    "BlurPool": Case(_classifier(lambda: blocks.BlurPool(12))),
    "Audio": Case(Audio, (1, 200)),
    "Video": Case(Video, (3, 4, 12, 12)),
    "NonSquare": Case(_classifier(lambda: blocks.conv_bn(12, 12, stride=2)), (3, 33, 47)),
    "ConvTranspose": Case(Autoencoder),
    "Upsampling": Case(Upsampling),
    "PlainNorms": Case(plain_norms),
    "BiasFree": Case(bias_free),
    "SamePadding": Case(same_padding),
    "KeywordNames": Case(KeywordNames),
    "ScaledTwice": Case(ScaledTwice, folded=True, temporaries=True),
    "ScaledScarcely": Case(ScaledScarcely, folded=True),
    "PermuteHead": Case(PermuteHead, permutes=True),
    "ConvHead": Case(ConvHead),
    "ScaleNet": Case(_classifier(lambda: blocks.LayerScale(12))),
    "FusedSiLU": Case(_classifier(lambda: blocks.GatedUnit(12))),
}


class HardBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)).reshape(7, 8))


class DataDep(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        x = self.conv(x)
        x = x.relu() if x.sum() > 0 else x.tanh()
        return self.fc(x.mean((2, 3)))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "HardBatch": (HardBatch, "batch"),
    "DataDep": (DataDep, "depends on the values"),
    "MultiOut": (MultiOut, "output_index"),
    "DictOut": (DictOut, "output_index"),
}

VIEW_WRITERS: dict[str, Callable[[], nn.Module]] = {
    "slice": lambda: Classifier(blocks.SliceWriter()),
    "view": lambda: Classifier(blocks.ViewWriter()),
    "chunk": lambda: Classifier(blocks.ChunkWriter()),
}
"""Networks that write into a part of a tensor in place: to be refused, or right."""
