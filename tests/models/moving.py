"""Small networks that move channels: slices, shuffles, permutations and reshapes, as users write them."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(into, out, kernel=3, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


class ViewSize(nn.Module):
    """Flattens by hand, and leaves the size open."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8, stride=2)
        self.hidden = nn.Linear(8 * 16, 12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 2)
        return self.fc(torch.relu(self.hidden(x.view(x.size(0), -1))))


class ViewSE(nn.Module):
    """Squeeze and excitation between views, as most hand-written ones are."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16)
        self.gate = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
        self.last = conv(16, 12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        y = self.gate(y).view(b, c, 1, 1)
        x = self.last(x * y.expand_as(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))


class SelectiveKernel(nn.Module):
    """Two branches, stacked, weighed by a softmax between them (Li et al. 2019)."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.near, self.far = conv(8, 12), conv(8, 12, 5)
        self.squeeze = nn.Linear(12, 6)
        self.weigh = nn.Linear(6, 24)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        both = torch.stack([self.near(x), self.far(x)], dim=1)
        y = torch.relu(self.squeeze(both.sum(dim=1).mean((2, 3))))
        y = torch.softmax(self.weigh(y).view(-1, 2, 12, 1, 1), dim=1)
        return self.fc((both * y).sum(dim=1).mean((2, 3)))


class SplitAttention(nn.Module):
    """A grouped convolution whose halves are weighed against each other (ResNeSt, radix 2)."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.body = conv(8, 24, groups=2)
        self.squeeze = nn.Conv2d(12, 6, 1)
        self.weigh = nn.Conv2d(6, 24, 1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.body(self.stem(x))
        b, c, h, w = x.shape
        x = x.reshape(b, 2, c // 2, h, w)
        y = self.weigh(torch.relu(self.squeeze(x.sum(1).mean((2, 3), keepdim=True))))
        y = y.view(b, 1, 2, -1).transpose(1, 2)
        y = F.softmax(y, dim=1).reshape(b, -1).view(b, -1, 1, 1)
        x = x * y.reshape(b, 2, c // 2, 1, 1)
        return self.fc(x.sum(dim=1).mean((2, 3)))


class CrossStage(nn.Module):
    """Half of the channels pass by the block (CSPNet): chunk and concatenate."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16)
        self.block = nn.Sequential(conv(8, 10), conv(10, 8))
        self.last = conv(24, 12, 1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, dim=1)
        right = right + self.block(right)
        x = self.last(torch.cat([left, right, left[:, :, :, :]], 1))
        return self.fc(x.mean([2, 3]))


class Scales(nn.Module):
    """Four parts of the channels, each convolved with the result of the one before (Res2Net)."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16)
        self.convs = nn.ModuleList(conv(4, 4) for _ in range(3))
        self.last = nn.Conv2d(16, 16, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        parts = torch.split(x, 4, 1)
        made, y = [parts[0]], parts[1]
        for index, layer in enumerate(self.convs):
            y = layer(y if index == 0 else y + parts[index + 1])
            made.append(y)
        return self.fc((self.last(torch.cat(made, 1)) + x).mean((2, 3)))


class Uneven(nn.Module):
    """Slices by hand at places that no layer begins at, and one of every second row."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 11)
        self.one, self.two = conv(4, 6), conv(7, 6)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        y = torch.cat([self.one(x[:, 3:7]), self.two(x.narrow(1, 4, 7))], dim=1)[:, :, ::2, 1:]
        return self.fc(y.amax(dim=(-1, -2)))


class Block(nn.Module):
    """ConvNeXt's segment with the channels last; without its LayerNorm."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.deep = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.wide, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x):
        y = self.deep(x).permute(0, 2, 3, 1)
        return x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)


class ChannelsLast(nn.Module):
    """Blocks with the channels last, and a flattening of [H, W, C]."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.blocks = nn.Sequential(Block(12, 20), Block(12, 16))
        self.fc = nn.Linear(12 * 16, 10)

    def forward(self, x):
        x = self.blocks(self.stem(x)).movedim(1, -1)
        return self.fc(torch.flatten(x.contiguous(), 1))


class Tokens(nn.Module):
    """Places as a sequence: [C, H, W] -> [H * W, C]; a mean, and the first token."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.wide, self.narrow = nn.Linear(12, 18), nn.Linear(18, 12)
        self.mix = nn.Linear(16, 16)
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.narrow(torch.relu(self.wide(x)))
        x = x + self.mix(x.mT).swapaxes(1, 2)
        return self.fc(torch.cat([x[:, 0], x.mean(dim=1)], dim=-1))


class Shuffle(nn.Module):
    """ShuffleNet V2's unit: half of the channels pass, and both halves are interleaved."""

    def __init__(self, groups=2):
        super().__init__()
        self.stem = conv(3, 16)
        self.branches = nn.ModuleList(nn.Sequential(conv(8, 10, 1), conv(10, 8)) for _ in range(2))
        self.last = conv(16, 12, 1)
        self.fc = nn.Linear(12, 10)
        self.groups = groups

    def shuffle(self, x):
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous()
        return x.view(b, -1, h, w)

    def forward(self, x):
        x = self.stem(x)
        for branch in self.branches:
            left, right = x.chunk(2, 1)
            x = self.shuffle(torch.cat((left, branch(right)), 1))
        return self.fc(self.last(x).mean((2, 3)))


class GroupShuffle(nn.Module):
    """ShuffleNet's first unit: grouped convolutions with torch's own shuffle between."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 12)
        self.one, self.two = conv(12, 18, 1, groups=3), conv(18, 12, 1, groups=3)
        self.deep = nn.Conv2d(18, 18, 3, padding=1, groups=18)
        self.shuffle = nn.ChannelShuffle(3)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.two(self.deep(self.shuffle(self.one(x))))
        return self.fc(x.mean((2, 3)))


class EfficientAttention(nn.Module):
    """A one-dimensional convolution over the channels (ECA): their number must stay."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 12)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.last = conv(12, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        y = F.adaptive_avg_pool2d(x, 1)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return self.fc(self.last(x * torch.sigmoid(y).expand_as(x)).mean((2, 3)))


class PlaceAttention(nn.Module):
    """A gate for places from the mean and the maximum over the channels (CBAM)."""

    def __init__(self):
        super().__init__()
        self.stem, self.middle = conv(3, 12), conv(12, 10)
        self.conv = nn.Conv2d(2, 1, 7, padding=3)
        self.fc = nn.Linear(10, 10)

    def forward(self, x):
        x = self.stem(x)
        both = torch.cat((x.mean(1, keepdim=True), x.amax(1).unsqueeze(1)), 1)
        return self.fc(self.middle(x * torch.sigmoid(self.conv(both))).mean((2, 3)))


class GroupMean(nn.Module):
    """The mean over runs of adjacent channels, and over runs that are apart."""

    def __init__(self):
        super().__init__()
        self.stem, self.other = conv(3, 12), conv(3, 12)
        self.fc = nn.Linear(10, 10)

    def forward(self, x):
        near = self.stem(x).unflatten(1, (4, 3)).mean(2)
        apart = self.other(x).unflatten(1, (2, -1)).mean(1)
        return self.fc(torch.cat([near, apart], 1).mean((2, 3)))


def exact_networks():
    """As `small_networks`: those whose students are their teacher without some channels."""
    makers = (
        ViewSize,
        ViewSE,
        SelectiveKernel,
        SplitAttention,
        CrossStage,
        Scales,
        Uneven,
        ChannelsLast,
        Tokens,
        EfficientAttention,
        PlaceAttention,
        GroupMean,
    )
    return {maker.__name__: (maker, (3, 16, 16)) for maker in makers}


def all_networks():
    """The same, and those that shuffle channels."""
    makers = (Shuffle, GroupShuffle)
    return {**exact_networks(), **{maker.__name__: (maker, (3, 16, 16)) for maker in makers}}
