"""The model of a table's rows: a straight line in a few inputs, and for what is left a forest and a Gaussian process, averaged.

The line says what is known beforehand to matter most and may be all that few rows can tell: size, and how the short training went.

Notation
    X      [n, D] standardised inputs       Z   [n, O] standardised outputs
    k      s (1 + r + r^2 / 3) exp(-r),  r = sqrt(5) |x - x'| / l       (Matern-5/2; Rasmussen and Williams 2006, equation 4.17)
    alpha  (K + v I)^-1 Z, so that the mean at x is k(x, X) alpha
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysearch.tables.forest import Forest

NUM_TUNED = 300
"""Rows that the kernel's three numbers are tuned on."""


@dataclass(frozen=True)
class Kernel:
    """s, l and v of the notation."""

    scale: float
    length: float
    noise: float

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a: [m, D], b: [n, D] -> [m, n]."""
        square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        r = np.sqrt(5 * np.maximum(square, 0)) / self.length
        return self.scale * (1 + r + r * r / 3) * np.exp(-r)


@dataclass(frozen=True, eq=False)
class Standard:
    """Shift and scale of columns; constant ones are left at 0."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Standard:
        scale = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(scale > 1e-12, scale, 1.0))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class Trend:
    """Ridge regression of unit penalty on some standardised inputs.

    Attributes:
        columns: of x; none: the mean alone.
        inputs: their standardisation.
        mean: [O], slope: [number of columns, O].
    """

    columns: tuple[int, ...]
    inputs: Standard
    mean: np.ndarray
    slope: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, z: np.ndarray, columns: tuple[int, ...]) -> Trend:
        """x: [n, D], z: [n, O]."""
        inputs = Standard.of(x[:, columns])
        at, mean = inputs(x[:, columns]), z.mean(axis=0)
        gram = at.T @ at + np.eye(len(columns))
        return cls(columns, inputs, mean, np.linalg.solve(gram, at.T @ (z - mean)))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x: [m, D] -> [m, O]."""
        return self.inputs(x[:, self.columns]) @ self.slope + self.mean


def tune(x: np.ndarray, z: np.ndarray, columns: tuple[int, ...]) -> Kernel:
    """The kernel of the largest marginal likelihood of what the trend leaves, within bounds that keep it from following single rows.

    x: [n, D], z: [n, O]; `columns` are the trend's.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    z = z - Trend.fit(x, z, columns)(x)
    rows = np.random.default_rng(0).permutation(len(x))[:NUM_TUNED]
    x, z = Standard.of(x)(x)[rows], Standard.of(z)(z)[rows]
    shape = ConstantKernel(1.0, (0.1, 10)) * Matern(10.0, (2, 1e3), nu=2.5)
    process = GaussianProcessRegressor(shape + WhiteKernel(0.3, (0.02, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a number at its bound is as good
        process.fit(x, z)
    fitted: Any = process.kernel_
    scale, length, noise = np.exp(fitted.theta)
    return Kernel(float(scale), float(length), float(noise))


@dataclass(frozen=True, eq=False)
class Blend:
    """A trend, and the average of a forest and a Gaussian process for what it leaves; kept within the range of what it was fitted to.

    Both have about the same error. A process alone would be the very model that some of the compared searchers use, and flatter them;
    a forest alone is a staircase on which neighbours are equal.

    Attributes:
        trend, forest, kernel: the three.
        inputs, outputs: how rows are standardised.
        x: [n, D] and alpha: [n, O], of the notation.
        low, high: [O], the range.
    """

    trend: Trend
    forest: Forest
    kernel: Kernel
    inputs: Standard
    outputs: Standard
    x: np.ndarray
    alpha: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, z: np.ndarray, columns: tuple[int, ...], kernel: Kernel) -> Blend:
        """x: [n, D], z: [n, O]; `columns` are the trend's."""
        trend = Trend.fit(x, z, columns)
        rest = z - trend(x)
        inputs, outputs = Standard.of(x), Standard.of(rest)
        at = inputs(x)
        gram = kernel(at, at) + kernel.noise * np.eye(len(at))
        return cls(
            trend,
            Forest.fit(x, rest),
            kernel,
            inputs,
            outputs,
            at,
            np.linalg.solve(gram, outputs(rest)),
            z.min(axis=0),
            z.max(axis=0),
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x: [m, D] -> [m, O]."""
        smooth = self.kernel(self.inputs(x), self.x) @ self.alpha
        smooth = smooth * self.outputs.scale + self.outputs.mean
        return np.clip(self.trend(x) + (smooth + self.forest(x)) / 2, self.low, self.high)
