"""The encoder, the decoder and the regressors (section 8 of the paper, eqs 8 to 11), as 1-D residual networks.

The paper leaves depths, widths, the embedding's size and how the decoder finds T open; its figure 4 shows at least 100 filters in the
first layers. Here: a first convolution, a residual and a strided block twice, and one linear layer onto the embedding; the decoder is the
mirror. T comes from rows of type 0.

Notation
    x    [B, F, T] a sequence        y    [B, N] its embedding        m    [B, 1, T] 1 where there is a layer
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks.

    Attributes:
        num_features: F.
        num_rows: T_max.
        embedding: N.
        channels: of the first half; the second has twice as many.
        hidden: of the regressors.
        num_regressors: M of accuracy.
        relu_head: f_p ends in a ReLU (the paper), else it is linear.
        by_position: the decoder's output has a bias for each row. DEVIATION of ours: rows of one teacher differ by their place.
    """

    num_features: int
    num_rows: int
    embedding: int
    channels: int
    hidden: int
    num_regressors: int
    relu_head: bool
    by_position: bool

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Rows before, between and behind the strided blocks."""
        half = (self.num_rows + 1) // 2
        return self.num_rows, half, (half + 1) // 2


class MaskedNorm(nn.Module):
    """BatchNorm1d whose statistics leave padding out; of any batch size, and one row is enough.

    Training uses the batch's statistics and remembers them; with `momentum` 1 it keeps those of the last batch, which is how a fit ends,
    so that evaluation is deterministic.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.eps, self.momentum = eps, 0.1

    def forward(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        """x: [B, C, T], m: [B, 1, T] or None -> [B, C, T]."""
        if not self.training:
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, eps=self.eps)
        if m is None and x.shape[0] * x.shape[2] > 1:
            return F.batch_norm(
                x, self.mean, self.var, self.weight, self.bias, True, self.momentum, self.eps
            )
        weight = torch.ones_like(x[:, :1]) if m is None else m
        count = weight.sum().clamp(min=1)
        mean = (x * weight).sum((0, 2)) / count  # [C]
        centred = x - mean[:, None]
        var = (centred.square() * weight).sum((0, 2)) / count
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.var.lerp_(var, self.momentum)
        normal = centred * torch.rsqrt(var + self.eps)[:, None]
        return normal * self.weight[:, None] + self.bias[:, None]


class EncoderBlock(nn.Module):
    """x' = relu(BN(w * x + b)) + x, eq 8; strided: + f_s(x, w2, b2)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(into, out, 3, stride, 1)
        self.norm = MaskedNorm(out)
        self.shortcut = nn.Conv1d(into, out, 1, stride) if stride > 1 else None
        self.stride = stride

    def forward(self, x: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x: [B, C, T], zero where masked -> [B, C', T'] and its mask."""
        beside = x if self.shortcut is None else self.shortcut(x)
        h = self.conv(x)
        m = m if m is None else m[:, :, :: self.stride]
        made = F.relu(self.norm(h, m)) + beside
        return (made, m) if m is None else (made * m, m)


class DecoderBlock(nn.Module):
    """The same with transposed convolutions, eq 9.

    Args:
        into, out: channels.
        longer: the number of rows that a strided block makes, and of those that it reads; None: not strided.
    """

    def __init__(self, into: int, out: int, longer: tuple[int, int] | None = None) -> None:
        super().__init__()
        stride, extra = 1, 0
        if longer is not None:
            stride, extra = 2, longer[0] - (2 * longer[1] - 1)
        self.conv = nn.ConvTranspose1d(into, out, 3, stride, 1, extra)
        self.norm = MaskedNorm(out)
        self.shortcut = None
        if longer is not None:
            self.shortcut = nn.ConvTranspose1d(into, out, 1, stride, 0, extra)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C', T']."""
        beside = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.norm(self.conv(x))) + beside


class Encoder(nn.Module):
    """x -> y."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        narrow, wide = shape.channels, 2 * shape.channels
        self.first = nn.Conv1d(shape.num_features, narrow, 3, 1, 1)
        self.blocks = nn.ModuleList(
            [
                EncoderBlock(narrow, narrow, 1),
                EncoderBlock(narrow, wide, 2),
                EncoderBlock(wide, wide, 1),
                EncoderBlock(wide, wide, 2),
            ]
        )
        self.last = nn.Linear(wide * shape.lengths[2], shape.embedding)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: [B, F, T], mask: [B, T] -> [B, N]; what stands in padding does not matter."""
        m = None if mask is None else mask[:, None]  # [B, 1, T]
        h = self.first(x if m is None else x * m)
        h = h if m is None else h * m
        for block in self.blocks:
            h, m = block(h, m)
        return self.last(h.transpose(1, 2).flatten(1))  # by position, so that padding is the end


class Decoder(nn.Module):
    """y -> what is read as a sequence."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        narrow, wide = shape.channels, 2 * shape.channels
        long, half, quarter = shape.lengths
        self.wide, self.quarter = wide, quarter
        self.first = nn.Linear(shape.embedding, wide * quarter)
        self.blocks = nn.ModuleList(
            [
                DecoderBlock(wide, wide, (half, quarter)),
                DecoderBlock(wide, wide),
                DecoderBlock(wide, narrow, (long, half)),
                DecoderBlock(narrow, narrow),
            ]
        )
        self.last = nn.ConvTranspose1d(narrow, shape.num_features, 3, 1, 1)
        self.place = None
        if shape.by_position:
            self.place = nn.Parameter(torch.zeros(shape.num_features, long))

    def forward(self, y: Tensor) -> Tensor:
        """y: [B, N] -> [B, F, T_max]."""
        h = self.first(y).unflatten(1, (self.quarter, self.wide)).transpose(1, 2)
        for block in self.blocks:
            h = block(h)
        h = self.last(h)
        return h if self.place is None else h + self.place


class Regressors(nn.Module):
    """M networks of three hidden layers on the embedding, computed together (eqs 10, 11)."""

    def __init__(self, num: int, embedding: int, hidden: int, head: str) -> None:
        super().__init__()
        sizes = [embedding, hidden, hidden, hidden, 1]
        self.weights = nn.ParameterList(
            [torch.empty(num, out, into) for into, out in itertools.pairwise(sizes)]
        )
        self.biases = nn.ParameterList([torch.empty(num, 1, out) for out in sizes[1:]])
        self.head = head

    def forward(self, y: Tensor) -> Tensor:
        """y: [B, N] -> [M, B]."""
        h = y.expand(len(self.weights[0]), *y.shape)  # [M, B, N]
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight.transpose(1, 2))
            if place < len(self.weights) - 1:
                h = F.relu(h)
        h = h[:, :, 0]
        if self.head == "sigmoid":
            return torch.sigmoid(h)
        return F.relu(h) if self.head == "relu" else h


class Networks(nn.Module):
    """All four; the weights come from one generator, never from the global one.

    Args:
        shape: their sizes.
        generator: of the first weights.
    """

    def __init__(self, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):
            self.encoder = Encoder(shape)
            self.decoder = Decoder(shape)
            self.f_a = Regressors(shape.num_regressors, shape.embedding, shape.hidden, "sigmoid")
            self.f_p = Regressors(
                1, shape.embedding, shape.hidden, "relu" if shape.relu_head else "linear"
            )
        self.to_empty(device="cpu")
        for module in self.modules():
            _initialise(module, generator)

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: [B, F, T], mask: [B, T] -> [B, N]."""
        return self.encoder(x, mask)

    def decode(self, y: Tensor) -> Tensor:
        """y: [B, N] -> [B, F, T_max]."""
        return self.decoder(y)

    def set_momentum(self, momentum: float) -> None:
        """Of all norms."""
        for module in self.modules():
            if isinstance(module, MaskedNorm):
                module.momentum = momentum


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's own distributions: U(-b, b) with b = 1 / sqrt(fan in)."""
    if isinstance(module, MaskedNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
        nn.init.zeros_(module.mean)
        nn.init.ones_(module.var)
    elif isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
        axis = 0 if isinstance(module, nn.ConvTranspose1d) else 1
        bound = 1 / math.sqrt(module.weight.shape[axis] * math.prod(module.weight.shape[2:]))
        nn.init.uniform_(module.weight, -bound, bound, generator)
        assert module.bias is not None, "all layers have one"
        nn.init.uniform_(module.bias, -bound, bound, generator)
    elif isinstance(module, Regressors):
        for weight, bias in zip(module.weights, module.biases, strict=True):
            bound = math.sqrt(3) * math.sqrt(2) / math.sqrt(weight.shape[2])
            last = weight is module.weights[-1]
            nn.init.uniform_(weight, -bound, bound, generator)
            if last:
                with torch.no_grad():
                    weight.mul_(0.5)
            nn.init.zeros_(bias)
    elif isinstance(module, Decoder) and module.place is not None:
        nn.init.zeros_(module.place)
