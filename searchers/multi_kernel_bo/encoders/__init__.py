"""Networks that embed a student's layer vectors on the unit sphere, by name.

A new one is a file here and a row in `ENCODERS`: a module made with the number of columns F, [B, L, F] float32 -> [B, H], |h| = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from searchers.multi_kernel_bo.encoders.lstm import LSTMEncoder
from searchers.multi_kernel_bo.encoders.mlp import MLPEncoder

ENCODERS: Mapping[str, Callable[[int], nn.Module]] = {"lstm": LSTMEncoder, "mlp": MLPEncoder}
"""Name -> (number of columns) -> module."""

__all__ = ["ENCODERS", "LSTMEncoder", "MLPEncoder"]
