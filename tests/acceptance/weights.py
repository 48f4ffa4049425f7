"""Networks that hold their weights otherwise than one layer each: shared, computed, bare, or under a keyword's name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.acceptance import blocks


class FuncParam(nn.Module):
    """Weights as bare parameters, given to functions."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) * 0.2)
        self.offset = nn.Parameter(torch.randn(8) * 0.1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.weight = nn.Parameter(torch.randn(10, 8) * 0.3)

    def forward(self, x):
        x = F.conv2d(x, self.kernel, self.offset, padding=1)
        return F.linear(F.relu(x * self.scale).mean((2, 3)), self.weight)


class CalledTwice(nn.Module):
    """One convolution at two places."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = F.relu(self.norm1(self.shared(self.stem(x))))
        return self.fc(F.relu(self.norm2(self.shared(x))).mean((2, 3)))


class TiedWeights(nn.Module):
    """Two modules that hold one parameter."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.a, self.b = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        return self.fc(F.relu(self.b(F.relu(self.a(F.relu(self.stem(x)))))).mean((2, 3)))


class KeywordNames(nn.Module):
    """Submodules called as Python's words and built-ins are."""

    def __init__(self):
        super().__init__()
        self.add_module("class", nn.Conv2d(3, 8, 3, padding=1))
        self.add_module("print", nn.BatchNorm2d(8))
        self.add_module("1x1", nn.Conv2d(8, 8, 1))
        self.add_module("self", nn.Conv2d(8, 8, 1))
        self.add_module("__hidden", nn.Conv2d(8, 8, 1))
        self.add_module("naïve", nn.Linear(8, 10))

    def forward(self, x):
        parts = self._modules
        x = parts["1x1"](F.relu(parts["print"](parts["class"](x))))
        x = parts["__hidden"](F.relu(parts["self"](F.relu(x))))
        return parts["naïve"](x.mean((2, 3)))


class ScaledTwice(nn.Module):
    """A convolution as it is, and once more with scaled weights, which stay computed."""

    def __init__(self):
        super().__init__()
        self.stem = blocks.conv_bn(3, 12)
        self.scale = nn.Parameter(torch.rand(16, 1, 1, 1) + 0.5)
        self.conv, self.last = nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(16, 12, 1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        scaled = F.conv2d(x, self.conv.weight * self.scale, self.conv.bias, padding=1)
        x = self.last(F.relu(scaled)) + self.last(F.relu(self.conv(x)))
        return self.fc((x * x.new_full((1,), 0.5)).mean((2, 3)))


class ScaledScarcely(nn.Module):
    """A small convolution as it is, and once more with scaled weights: few numbers are folded, below the module."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = blocks.conv_bn(3, 12), nn.Conv2d(12, 12, 1)
        self.scale = nn.Parameter(torch.rand(12, 1, 1, 1) + 0.5)
        self.fc = nn.Linear(12 * 16 * 16, 10)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(F.conv2d(x, self.conv.weight * self.scale, self.conv.bias)) + self.conv(x)
        return self.fc(x.flatten(1))
