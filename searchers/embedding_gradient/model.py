"""What a fit knows: networks with the units of what they read and say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from searchers.embedding_gradient.autoencoder import Networks
from searchers.embedding_gradient.descent import Cloud
from searchers.embedding_gradient.inputs import Coding

MARGIN = 0.1
"""Ours: the best and the worst value that is told apart lie so far from the sigmoid's ends."""
REACH = 3.0
"""Ours: values further below the median than so many times the distance of a good one above it are all bad."""


@dataclass(frozen=True)
class ValueScale:
    """Values as a* in [0, 1]: v = low + a (high - low)."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> ValueScale:
        """Ours, from the observed: good students must be told apart, however bad the bad ones are."""
        best, middle = float(values.max()), float(np.median(values))
        above = max(float(np.quantile(values, 0.9)) - middle, 1e-3)
        worst = min(max(float(values.min()), middle - REACH * above), best - 1e-3)
        step = (best - worst) / (1 - 2 * MARGIN)
        return cls(worst - MARGIN * step, best + MARGIN * step)

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """a*, clipped."""
        return np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)

    def to_value(self, units: np.ndarray) -> np.ndarray:
        """Inverts `to_unit`."""
        return self.low + units * (self.high - self.low)


@dataclass(frozen=True)
class SizeScale:
    """Sizes as p*: ours (log size - mean) / sd; the paper's without the logarithm, v1's text without centring."""

    log: bool
    mean: float
    sd: float

    @classmethod
    def of(cls, sizes: np.ndarray, *, log: bool, centred: bool) -> SizeScale:
        """Of the architectures that f_p learns from."""
        values = np.log(sizes) if log else sizes
        sd = float(values.std())
        mean = float(values.mean())
        if log:
            sd = max(sd, 1e-2)
        elif sd <= 1e-6 * abs(mean):
            sd = 1.0  # all sizes are one
        return cls(log, mean if centred else 0.0, sd)

    def __call__(self, sizes: np.ndarray | float) -> np.ndarray:
        """p* of sizes."""
        sizes = np.asarray(sizes, np.float64)
        values = np.log(np.maximum(sizes, 1e-9)) if self.log else sizes
        return (values - self.mean) / self.sd


@dataclass(frozen=True, eq=False)
class Model:
    """Trained networks in their units.

    Attributes:
        networks: encoder, decoder, regressors.
        coding: rows -> x.
        values: a* -> value.
        sizes: size -> p*.
        cloud: where the embeddings of what was learned from lie.
        noise: standard deviation of a value around its prediction.
    """

    networks: Networks
    coding: Coding
    values: ValueScale
    sizes: SizeScale
    cloud: Cloud
    noise: float

    def embed(self, rows: np.ndarray) -> Tensor:
        """[B, T, 5] -> [B, N]"""
        with torch.no_grad():
            sequences = self.coding(rows)
            return self.networks.encode(sequences.x, sequences.mask)

    def read(self, Y: Tensor) -> np.ndarray:
        """The rows that points decode to: [B, N] -> [B, T_max, 5]"""
        with torch.no_grad():
            return self.coding.read(self.networks.decode(Y))

    def predict(self, Y: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the regressors, in units of value: [B], [B]"""
        with torch.no_grad():
            a_hat = self.networks.f_a(Y).double().numpy()  # [M, B]
        return self.values.to_value(a_hat.mean(0)), a_hat.std(0) * (
            self.values.high - self.values.low
        )
