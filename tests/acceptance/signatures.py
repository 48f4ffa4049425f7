"""Networks whose input is no image, or which give several outputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from tests.acceptance import blocks


class MultiOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = blocks.conv_bn(3, 12), nn.Linear(12, 10)
        self.extra = nn.Linear(12, 4)

    def forward(self, x):
        x = self.body(x).mean((2, 3))
        return self.extra(x), self.fc(x)


class DictOut(MultiOut):
    def forward(self, x):
        extra, logits = super().forward(x)
        return {"aux": extra, "logits": logits}


class Audio(nn.Module):
    """One-dimensional convolutions on a wave."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(1, 8, 9, stride=4), nn.BatchNorm1d(8)
        self.conv2, self.bn2 = nn.Conv1d(8, 16, 3, padding=1), nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 4)
        return self.fc(F.relu(self.bn2(self.conv2(x))).mean(-1))


class Video(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8)
        self.conv2, self.pool = nn.Conv3d(8, 12, (1, 3, 3), stride=(1, 2, 2)), nn.MaxPool3d(2)
        self.fc = nn.Linear(12, 6)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool3d(F.relu(self.conv2(x)), 1).flatten(1))
