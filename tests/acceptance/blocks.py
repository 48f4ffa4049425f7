"""The blocks of the small networks; all keep the number of channels unless they say otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(in_channels: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU in place."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def normed(channels: int, norm: nn.Module) -> nn.Sequential:
    """Two convolutions around a normalisation."""
    first, last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, norm, nn.GELU(), last)


class PreAct(nn.Module):
    """Norm and activation before the convolution; the sum is read twice."""

    def __init__(self, channels):
        super().__init__()
        self.bn1, self.conv1 = (
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 20, 3, padding=1, bias=False),
        )
        self.bn2, self.conv2 = (
            nn.BatchNorm2d(20),
            nn.Conv2d(20, channels, 3, padding=1, bias=False),
        )

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(y)))


class SE(nn.Module):
    """Squeeze and excitation by linear layers."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1)
        self.fc = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
        self.out = nn.Conv2d(16, channels, 1)

    def forward(self, x):
        x = self.conv(x)
        b, c = x.shape[:2]
        gate = self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1)
        return self.out(x * gate.expand_as(x))


class CBAM(nn.Module):
    """Attention over channels and over space."""

    def __init__(self, channels):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.space = nn.Conv2d(2, 1, 7, padding=3)
        self.last = conv_bn(channels, 12)

    def forward(self, x):
        def gate(y):
            return self.expand(F.relu(self.reduce(y)))

        x = x * torch.sigmoid(gate(F.adaptive_avg_pool2d(x, 1)) + gate(F.adaptive_max_pool2d(x, 1)))
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.last(x * torch.sigmoid(self.space(maps)))


class SelfAttention(nn.Module):
    """Attention over the places of a map, as in SAGAN."""

    def __init__(self, channels):
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, 4, 1), nn.Conv2d(channels, 4, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.full((1,), 0.5))
        self.last = conv_bn(channels, 12)

    def forward(self, x):
        b, c, h, w = x.shape
        query = self.query(x).view(b, -1, h * w).permute(0, 2, 1)
        weights = torch.softmax(torch.bmm(query, self.key(x).view(b, -1, h * w)), -1)
        y = torch.bmm(self.value(x).view(b, -1, h * w), weights.permute(0, 2, 1))
        return self.last(self.gamma * y.view(b, c, h, w) + x)


class OptionA(nn.Module):
    """A basic block whose shortcut takes every second place and pads channels with zeros."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.stride, self.more = stride, channels - in_channels

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            half = self.more // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
        return F.relu(x + y)


class Res2(nn.Module):
    """Splits that feed each other."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.last = conv_bn(channels, 12, 1), nn.Conv2d(12, channels, 1)
        self.convs = nn.ModuleList([conv_bn(4, 4) for _ in range(2)])

    def forward(self, x):
        parts = list(torch.split(self.first(x), 4, dim=1))
        out = [parts[0]]
        for part, conv in zip(parts[1:], self.convs, strict=True):
            out.append(conv(part + out[-1]))
        return F.relu(x + self.last(torch.cat(out, 1)))


class CSP(nn.Module):
    """Half of the channels pass by."""

    def __init__(self, channels):
        super().__init__()
        self.widen, self.body = (
            conv_bn(channels, 16, 1),
            nn.Sequential(conv_bn(8, 8), conv_bn(8, 8)),
        )
        self.join = conv_bn(16, channels, 1)

    def forward(self, x):
        left, right = self.widen(x).chunk(2, dim=1)
        return self.join(torch.cat([left, right + self.body(right)], 1))


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: chunk, depthwise branch, concatenation, shuffle."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        depthwise = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.branch = nn.Sequential(conv_bn(half, half, 1), depthwise, nn.BatchNorm2d(half))

    def forward(self, x):
        keep, work = x.chunk(2, dim=1)
        x = torch.cat((keep, self.branch(work)), dim=1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class Grouped(nn.Module):
    """ResNeXt's block."""

    def __init__(self, channels, groups):
        super().__init__()
        self.first, self.last = conv_bn(channels, 24, 1), nn.Conv2d(24, channels, 1)
        self.middle = nn.Conv2d(24, 24, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(24)

    def forward(self, x):
        return F.relu(x + self.last(F.relu(self.norm(self.middle(self.first(x))))))


class DepthMultiplier(nn.Module):
    """Every channel makes two of its own."""

    def __init__(self, channels):
        super().__init__()
        self.deep = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels)
        self.norm, self.point = nn.BatchNorm2d(2 * channels), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x):
        return self.point(F.relu6(self.norm(self.deep(x))))


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)),
            *(nn.Hardswish(), nn.Conv2d(24, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x):
        return x + self.layers(x)


class Inception(nn.Module):
    """Four branches that are concatenated."""

    def __init__(self, channels):
        super().__init__()
        self.one, self.three = conv_bn(channels, 4, 1), conv_bn(channels, 4)
        self.five = nn.Sequential(conv_bn(channels, 2, 1), conv_bn(2, 2, 5))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(channels, 2, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Dense(nn.Module):
    """Two layers that each add `growth` channels to all before."""

    def __init__(self, channels, growth):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + k * growth),
                nn.ReLU(),
                nn.Conv2d(channels + k * growth, growth, 3, padding=1, bias=False),
            )
            for k in range(2)
        )

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class LayerScale(nn.Module):
    """A learned factor a channel, and a fixed one as a buffer."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1))
        self.register_buffer("offset", torch.randn(1, channels, 1, 1))

    def forward(self, x):
        return F.relu(x + self.gamma * self.conv(x) - self.offset)


class ConvNeXt(nn.Module):
    """Depthwise convolution, then LayerNorm and linear layers on channels last."""

    def __init__(self, channels):
        super().__init__()
        self.deep = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 20), nn.Linear(20, channels)
        self.gamma = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class ECA(nn.Module):
    """A one-dimensional convolution along the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.last = conv_bn(12, 12)

    def forward(self, x):
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return self.last(x * torch.sigmoid(gate))


class SplitAttention(nn.Module):
    """ResNeSt's: two parts, a softmax between them."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=2)
        self.fc1, self.fc2 = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, 2 * channels, 1)

    def forward(self, x):
        x = F.relu(self.conv(x))
        b, c, h, w = x.shape
        parts = x.view(b, 2, c // 2, h, w)
        gap = parts.sum(1).mean((2, 3), keepdim=True)
        gate = self.fc2(F.relu(self.fc1(gap))).view(b, 2, c // 2)
        return (parts * torch.softmax(gate, 1).view(b, 2, c // 2, 1, 1)).sum(1)


class SelectiveKernel(nn.Module):
    """SKNet's: branches are stacked and chosen among."""

    def __init__(self, channels):
        super().__init__()
        self.small, self.large = conv_bn(channels, channels), conv_bn(channels, channels, 5)
        self.fc1 = nn.Linear(channels, 6)
        self.heads = nn.ModuleList([nn.Linear(6, channels) for _ in range(2)])

    def forward(self, x):
        maps = torch.stack([self.small(x), self.large(x)], 1)
        hidden = F.relu(self.fc1(maps.sum(1).mean((2, 3))))
        gates = torch.softmax(torch.stack([head(hidden) for head in self.heads], 1), 1)
        return (maps * gates[..., None, None]).sum(1)


class Maxout(nn.Module):
    """The larger of neighbouring channels; halves them and widens again."""

    def __init__(self, channels):
        super().__init__()
        self.wide, self.last = nn.Conv2d(channels, 16, 3, padding=1), conv_bn(8, channels)

    def forward(self, x):
        x = self.wide(x)
        b, c, h, w = x.shape
        return self.last(x.view(b, c // 2, 2, h, w).max(2)[0])


class GRN(nn.Module):
    """ConvNeXt V2's global response normalisation, channels last."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.last = nn.Conv2d(channels, 16, 3, padding=1), conv_bn(16, channels)
        self.gamma = nn.Parameter(torch.rand(1, 1, 1, 16))
        self.beta = nn.Parameter(torch.rand(1, 1, 1, 16))

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1)
        size = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        norm = size / (size.mean(dim=-1, keepdim=True) + 1e-6)
        return self.last((self.gamma * (x * norm) + self.beta + x).permute(0, 3, 1, 2))


class BlurPool(nn.Module):
    """Anti-aliased striding: a depthwise convolution whose weights are a buffer."""

    def __init__(self, channels):
        super().__init__()
        kernel = torch.tensor([1.0, 2.0, 1.0])
        kernel = kernel[:, None] * kernel[None]
        self.register_buffer("kernel", (kernel / kernel.sum()).repeat(channels, 1, 1, 1))
        self.conv, self.last = conv_bn(channels, channels), conv_bn(channels, channels)

    def forward(self, x):
        x = F.pad(self.conv(x), (1, 1, 1, 1), mode="reflect")
        return self.last(F.conv2d(x, self.kernel, stride=2, groups=x.shape[1]))


class GatedUnit(nn.Module):
    """A gated linear unit over channels and a swish."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.last = nn.Conv2d(channels, 16, 3, padding=1), nn.Conv2d(8, channels, 1)

    def forward(self, x):
        left, right = self.conv(x).chunk(2, 1)
        return F.silu(self.last(left * torch.sigmoid(right)), inplace=True)


class SliceWriter(nn.Module):
    def forward(self, x):
        x = x.clone()
        x[:, ::2] *= 2
        return x


class ViewWriter(nn.Module):
    def forward(self, x):
        y = x * 1.0
        y.view(-1).sub_(1.0)
        return y.relu()


class ChunkWriter(nn.Module):
    def forward(self, x):
        x = x + 0.0
        left, right = x.chunk(2, 1)
        left.add_(right)
        return x
