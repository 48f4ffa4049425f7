"""What the loss of a whole channel, or of one input, costs: the curvature along a gate that shuts it.

The diagonal treats weights as if each were lost alone. Those of one filter are lost together, and together they cost 2 to 15 times the sum of their
diagonal terms, by layer: filters of convolutions look too cheap beside the units of a linear layer. Let a gate s multiply what a channel hands on;
the Gauss-Newton matrix of s, the mean over images of (dE/ds)^2 with labels drawn from the network itself, needs no more than the gradients of which
the diagonal is made: dE/ds = sum w dE/dw over the weights that read the channel, in all layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from trainables.bayesnas.compression.curvature import Slopes
from trainables.bayesnas.compression.places import Places


class Gates:
    """Sums up the curvature of gates, batch by batch (`add`).

    Args:
        places: the network's channels.
    """

    def __init__(self, places: Places) -> None:
        self._rows: dict[str, slice | torch.Tensor] = {}
        self._columns: dict[str, slice | torch.Tensor] = {}
        self._names: dict[str, str] = {}
        is_read = np.zeros(places.num_channels, bool)
        for one in places.filters:
            if one.columns is not None:
                is_read[one.columns] = True
        for one in places.filters:
            path = one.layer.params.get("weight", f"{one.layer.name}.weight")
            path = path.removesuffix(".weight")
            self._names[path] = one.layer.name
            if one.columns is not None:
                self._columns[path] = _where(one.columns)
            if not is_read[one.rows].all():
                self._rows[path] = _where(one.rows)
        self._read = torch.zeros(places.num_channels, dtype=torch.float64)
        self._created = torch.zeros_like(self._read)
        self._inputs: dict[str, torch.Tensor] = {}

    def wants_rows(self, path: str) -> bool:
        """Whether a layer creates a channel that no layer reads with weights of its own."""
        return path in self._rows

    def add(self, slopes: Mapping[str, Slopes]) -> None:
        """One batch: path of the layer -> its slopes; images' sums of squares are added."""
        some = next(iter(slopes.values())).columns
        read = some.new_zeros(len(some), len(self._read))
        created = torch.zeros_like(read) if self._rows else read
        for path, slope in slopes.items():
            if slope.rows is not None and path in self._rows:
                _add_at(created, self._rows[path], slope.rows)
            if path in self._columns:
                _add_at(read, self._columns[path], slope.columns)
                squares = slope.columns.square().sum(0).double().cpu()
                name = self._names[path]
                self._inputs[name] = self._inputs.get(name, 0.0) + squares
        self._read += read.square().sum(0).double().cpu()
        if self._rows:
            self._created += created.square().sum(0).double().cpu()

    def channels(self, num_images: int) -> np.ndarray:
        """[channels] half the curvature: the loss of each channel, by the layers that read it; where none does with weights of its own, by those that create it."""
        found = torch.where(self._read > 0, self._read, self._created)
        return (found / (2 * num_images)).numpy()

    def inputs(self, num_images: int) -> dict[str, np.ndarray]:
        """Layer -> [in] half the curvature of each of its inputs alone."""
        return {name: (total / (2 * num_images)).numpy() for name, total in self._inputs.items()}


def _where(channels: np.ndarray) -> slice | torch.Tensor:
    """Channels as an index; as a slice where they follow each other, which is the ordinary case and much the faster."""
    first, count = int(channels[0]), len(channels)
    if (channels == np.arange(first, first + count)).all():
        return slice(first, first + count)
    return torch.from_numpy(channels)


def _add_at(totals: torch.Tensor, where: slice | torch.Tensor, values: torch.Tensor) -> None:
    """Adds [B, n] values to the totals [B, channels] of their channels, in place."""
    if isinstance(where, slice):
        totals[:, where] += values
    else:
        totals.index_add_(1, where.to(totals.device), values)
