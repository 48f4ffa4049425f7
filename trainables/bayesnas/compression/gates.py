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
        self._places = places
        self._read = np.zeros(places.num_channels)
        self._created = np.zeros(places.num_channels)
        self._inputs: dict[str, np.ndarray] = {}
        self._by_path = {_path(one.layer.params, one.layer.name): one for one in places.filters}

    def add(self, slopes: Mapping[str, Slopes]) -> None:
        """One batch: path of the layer -> its slopes; images' sums of squares are added."""
        count = self._places.num_channels
        some = next(iter(slopes.values()))
        read = torch.zeros(len(some.rows), count, dtype=torch.float64)
        created = torch.zeros_like(read)
        for path, slope in slopes.items():
            filters = self._by_path.get(path)
            if filters is None:
                continue
            created.index_add_(1, torch.from_numpy(filters.rows), slope.rows.double().cpu())
            if filters.columns is None:
                continue
            columns = slope.columns.double().cpu()
            read.index_add_(1, torch.from_numpy(filters.columns), columns)
            name = filters.layer.name
            squares = columns.square().sum(0).numpy()
            self._inputs[name] = self._inputs.get(name, 0.0) + squares
        self._read += read.square().sum(0).numpy()
        self._created += created.square().sum(0).numpy()

    def channels(self, num_images: int) -> np.ndarray:
        """[channels] half the curvature: the loss of each channel, by the layers that read it; where none does with weights of its own, by those that create it."""
        return np.where(self._read > 0, self._read, self._created) / (2 * num_images)

    def inputs(self, num_images: int) -> dict[str, np.ndarray]:
        """Layer -> [in] half the curvature of each of its inputs alone."""
        return {name: total / (2 * num_images) for name, total in self._inputs.items()}


def _path(params: Mapping[str, str], name: str) -> str:
    return params.get("weight", f"{name}.weight").removesuffix(".weight")
