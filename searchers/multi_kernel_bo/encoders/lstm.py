"""The paper's encoder: a bidirectional LSTM over the layers (ESNAC, section 3.1; sizes of its public code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LSTMEncoder(nn.Module):
    """4 x 64 bi-LSTM, the mean over all positions of its last layer's outputs, on the unit sphere.

    One `nn.LSTM`, which on the CPU is a fused primitive: a cell of our own, batched over kernels, was measured 4 times slower.

    Args:
        num_columns: F.
        hidden: units of each direction.
        num_layers: of the LSTM.
    """

    def __init__(self, num_columns: int, hidden: int = 64, num_layers: int = 4) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            num_columns, hidden, num_layers=num_layers, batch_first=True, bidirectional=True
        )

    def forward(self, layers: Tensor) -> Tensor:
        """layers: [B, L, F] -> [B, 2 hidden], |h| = 1."""
        outputs, _ = self.lstm(layers)  # [B, L, 2 hidden]
        return torch.nn.functional.normalize(outputs.mean(dim=1), dim=-1)
