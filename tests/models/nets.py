"""Small networks with the joints that channels meet in: sums, concatenations, padded shortcuts, gates, groups."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import DenseNet, MobileNetV2, ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck


class LeNet(nn.Module):
    """Convolutions without BatchNorm, and a flattened map of more than one place."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 9, 24)
        self.fc2 = nn.Linear(24, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class _OptionABlock(nn.Module):
    def __init__(self, into, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.before = stride, (out - into) // 2
        self.after = out - into - self.before

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(F.avg_pool2d(x, 1, 2), (0, 0, 0, 0, self.before, self.after))
        return torch.relu(x + y)


class OptionA(nn.Module):
    """He et al.'s shortcuts without parameters: half the places, zeros for the new channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        sizes = [(8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 24, 2)]
        self.blocks = nn.Sequential(*(_OptionABlock(*size) for size in sizes))
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        x = self.blocks(torch.relu(self.bn(self.stem(x))))
        return self.fc(x.mean((2, 3)))


class SE(nn.Module):
    """Squeeze and excitation: a gate computed from the channels that it multiplies."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.bn = nn.BatchNorm2d(16)
        self.squeeze = nn.Conv2d(16, 6, 1)
        self.excite = nn.Conv2d(6, 16, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc((x * gate).mean((2, 3)))


class PreAct(nn.Module):
    """BatchNorm before the convolutions: sums that are read without one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 1, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (12, 20, 12))
        self.conv1 = nn.Conv2d(12, 20, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(20, 12, 3, 1, 1, bias=False)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv1(torch.relu(self.bn1(x)))
        x = x + self.conv2(torch.relu(self.bn2(y)))
        return self.fc(torch.relu(self.bn3(x)).mean((2, 3)))


class Multiplied(nn.Module):
    """Depthwise convolutions with two outputs a channel, behind a concatenation, flattened."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 5, 3, 1, 1)
        self.right = nn.Conv2d(3, 7, 3, 1, 1)
        self.norm = nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 24, 3, 1, 1, groups=12)
        self.fc = nn.Linear(24 * 4, 10)

    def forward(self, x):
        x = self.norm(torch.cat((self.left(x), self.right(x)), 1))
        return self.fc(F.adaptive_avg_pool2d(torch.relu(self.deep(x)), 2).flatten(1))


class Padded(nn.Module):
    """Zero channels that no sum explains, and a part of the channels read by groups and by a flattening."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3, 1, 1)
        self.norm = nn.BatchNorm2d(12)
        self.groups = nn.Conv2d(8, 6, 3, 1, 1, groups=2)
        self.fc = nn.Linear(12 * 4 + 6 * 4, 10)

    def forward(self, x):
        x = self.norm(F.pad(self.stem(x), (0, 0, 0, 0, 2, 1)))
        y = self.groups(x[:, 3:11])
        return self.fc(torch.cat([F.adaptive_avg_pool2d(z, 2).flatten(1) for z in (x, y)], 1))


class Further(nn.Module):
    """Parameters by channel that are no filters, and filters whose rows are their inputs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.slope = nn.PReLU(8)
        self.scale = nn.Parameter(torch.linspace(0.5, 2.0, 8).view(1, 8, 1, 1))
        self.up = nn.ConvTranspose2d(8, 12, 2, 2)
        self.deep = nn.ConvTranspose2d(12, 12, 3, 1, 1, groups=12)
        self.groups = nn.ConvTranspose2d(12, 8, 3, 1, 1, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.slope(self.norm(self.stem(x))) * self.scale
        x = self.groups(torch.relu(self.deep(self.up(x))))
        return self.fc(torch.relu(x).mean((2, 3)))


def small_networks():
    """Name -> (a function that makes the network, the shape of its input)."""
    shape = (3, 16, 16)
    mobile = [[1, 8, 1, 1], [3, 12, 2, 1], [3, 16, 2, 2]]
    return {
        "lenet": (LeNet, shape),
        "option_a": (OptionA, shape),
        "se": (SE, shape),
        "preact": (PreAct, shape),
        "multiplied": (Multiplied, shape),
        "padded": (Padded, shape),
        "further": (Further, shape),
        "resnet18": (lambda: ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10), (3, 32, 32)),
        "mobilenet_v2": (
            lambda: MobileNetV2(10, inverted_residual_setting=mobile, dropout=0.0),
            (3, 32, 32),
        ),
        "densenet": (lambda: DenseNet(8, (2, 3, 2), 16, num_classes=10), (3, 32, 32)),
        "resnext": (
            lambda: ResNet(Bottleneck, [1, 2, 1, 1], 10, groups=4, width_per_group=4),
            (3, 32, 32),
        ),
    }
