"""A cheap encoder: the same small network for every layer, then mean and maximum over the layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MLPEncoder(nn.Module):
    """F -> 64 -> 64 for every layer, pooled by mean and maximum, a linear map to 64, on the unit sphere.

    A seventh of the LSTM's cost, and its proposals were not worse. It knows the order of the layers only through their links.

    Args:
        num_columns: F.
        hidden: units of each of its layers, and numbers of the embedding.
    """

    def __init__(self, num_columns: int, hidden: int = 64) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Linear(num_columns, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(2 * hidden, hidden)

    def forward(self, layers: Tensor) -> Tensor:
        """layers: [B, L, F] -> [B, hidden], |h| = 1."""
        each = self.layer(layers)  # [B, L, hidden]
        pooled = torch.cat([each.mean(dim=1), each.amax(dim=1)], dim=-1)  # [B, 2 hidden]
        return torch.nn.functional.normalize(self.head(pooled), dim=-1)
