"""Random students: ESNAC's sampling distributions and random edits of given students, for whole batches.

The probabilities are those of ESNAC's public code (`comp_action_rand`; the paper does not give them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.edits import EditsBatch

REMOVE_PROBABILITIES = (0.3, 0.4, 0.5, 0.6, 0.7)
SKIP_PROBABILITIES = (0.003, 0.005, 0.01, 0.03, 0.05)
MUTATION_SHARES = {"remove": 0.5, "shrink": 0.35, "skip": 0.15}
WIDTH_DEVIATION = 0.35
"""Standard deviation of the logarithm of one width's change. Students of a few per cent have widths far below the teacher's: only steps
in proportion to their own width are small for all of them."""
VARIED_DEVIATIONS = (0.05, 0.6)
"""Where a student is varied as a whole: the range of the standard deviation of all log widths' changes."""
VARIED_TILT = 1.5
"""The same: how far the first and the last group's log widths move apart from the middle's, in units of that deviation. Within a budget of
parameters the best students are often wide where maps are large and filters cheap, which independent changes hardly find."""
VARIED_REMOVALS = 3
"""The same: every second student has up to so many removals flipped."""


@dataclass(frozen=True, eq=False)
class Dimensions:
    """What may vary in a space.

    Attributes:
        num_layers: L.
        removable: [R] int64 layer indices; empty where removal is not an operation.
        sizes, steps: [G] int64, the teacher's widths and their grid.
        shrink: widths may vary.
        num_pairs: P, 0 where skips are not an operation.
    """

    num_layers: int
    removable: np.ndarray
    sizes: np.ndarray
    steps: np.ndarray
    shrink: bool
    num_pairs: int


def sample_edits(dimensions: Dimensions, n: int, rng: np.random.Generator) -> EditsBatch:
    """Draws n students of any size; widths are not yet on their grid.

    Each draws its removal probability, one shrink ratio a ~ U(0, 1) a group (width int((1 - a) size)), and its skip probability.
    """
    remove = np.zeros((n, dimensions.num_layers), bool)
    removal = rng.choice(REMOVE_PROBABILITIES, size=(n, 1))
    remove[:, dimensions.removable] = rng.random((n, len(dimensions.removable))) < removal
    widths = np.broadcast_to(dimensions.sizes, (n, len(dimensions.sizes))).copy()
    if dimensions.shrink:
        widths = ((1.0 - rng.random(widths.shape)) * widths).astype(np.int64)
    rows, pairs = _sample_skips(n, dimensions.num_pairs, rng)
    return EditsBatch(remove, widths, rows, pairs)


def _sample_skips(
    n: int, num_pairs: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Exact Bernoulli draws for [n, num_pairs] by their geometric gaps: (rows, pairs), sorted."""
    level = rng.integers(len(SKIP_PROBABILITIES), size=n)
    found = []
    for index, probability in enumerate(SKIP_PROBABILITIES):
        rows = np.flatnonzero(level == index)
        places = _bernoulli(len(rows) * num_pairs, probability, rng)
        found.append(rows[places // max(num_pairs, 1)] * num_pairs + places % max(num_pairs, 1))
    keys = np.sort(np.concatenate(found))
    return keys // max(num_pairs, 1), keys % max(num_pairs, 1)


def _bernoulli(length: int, probability: float, rng: np.random.Generator) -> np.ndarray:
    """The places of the successes among `length` trials, ascending."""
    if not length:
        return np.zeros(0, np.int64)
    mean = length * probability
    places = np.cumsum(rng.geometric(probability, size=int(mean + 8 * math.sqrt(mean) + 16))) - 1
    while places[-1] < length:
        more = rng.geometric(probability, size=len(places))
        places = np.concatenate([places, places[-1] + np.cumsum(more)])
    return places[places < length]


def mutate_edits(
    dimensions: Dimensions, batch: EditsBatch, rng: np.random.Generator, num_edits: tuple[int, int]
) -> EditsBatch:
    """Applies between num_edits[0] and num_edits[1] random edits to every student; widths may leave their grid.

    An edit flips a removal, multiplies one width by exp(N(0, .35)) (and moves it by one step at least), or flips a skip, in the shares
    of `MUTATION_SHARES`.
    """
    remove, widths = batch.remove.copy(), batch.widths.copy()
    possible = {
        "remove": len(dimensions.removable),
        "shrink": len(dimensions.sizes) if dimensions.shrink else 0,
        "skip": dimensions.num_pairs,
    }
    shares = np.array([MUTATION_SHARES[kind] * (possible[kind] > 0) for kind in possible])
    if not shares.any() or not len(batch):
        return batch
    counts = rng.integers(num_edits[0], num_edits[1] + 1, size=len(batch))
    rows = np.repeat(np.arange(len(batch)), counts)
    kinds = rng.choice(3, size=len(rows), p=shares / shares.sum())
    removals, changes, flips = (rows[kinds == kind] for kind in range(3))
    if len(removals):
        layers = dimensions.removable[rng.integers(possible["remove"], size=len(removals))]
        np.logical_xor.at(remove, (removals, layers), True)
    if len(changes):
        groups = rng.integers(possible["shrink"], size=len(changes))
        _change_widths(dimensions, widths, changes, groups, rng)
    skip_rows, skip_pairs = batch.skip_rows, batch.skip_pairs
    if len(flips):
        pairs = rng.integers(possible["skip"], size=len(flips))
        skip_rows, skip_pairs = _flip(batch, flips, pairs, possible["skip"])
    return EditsBatch(remove, widths, skip_rows, skip_pairs)


def vary_edits(dimensions: Dimensions, batch: EditsBatch, rng: np.random.Generator) -> EditsBatch:
    """Varies every student as a whole: all widths by log-normal factors, those of early against those of late groups by one more, and up
    to three removals in every second one.

    How far the widths go is drawn for each student from `VARIED_DEVIATIONS`; they may leave their grid.
    """
    remove, widths, n = batch.remove.copy(), batch.widths, len(batch)
    if dimensions.shrink:
        deviation = rng.uniform(*VARIED_DEVIATIONS, size=(n, 1))
        depth = np.linspace(-1.0, 1.0, widths.shape[1])
        tilt = VARIED_TILT * rng.standard_normal((n, 1)) * depth  # [n, G]
        factors = np.exp(deviation * (rng.standard_normal(widths.shape) + tilt))
        widths = np.clip(np.rint(widths * factors), 1, dimensions.sizes).astype(np.int64)
    if len(dimensions.removable):
        counts = rng.integers(VARIED_REMOVALS + 1, size=n) * (rng.random(n) < 0.5)
        rows = np.repeat(np.arange(n), counts)
        layers = dimensions.removable[rng.integers(len(dimensions.removable), size=len(rows))]
        np.logical_xor.at(remove, (rows, layers), True)
    return EditsBatch(remove, widths, batch.skip_rows, batch.skip_pairs)


def _change_widths(
    dimensions: Dimensions,
    widths: np.ndarray,
    rows: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Multiplies widths[rows, groups] by exp(N(0, .35)), moving each by at least one step; in place."""
    step = dimensions.steps[groups]
    change = widths[rows, groups] * np.expm1(rng.normal(0.0, WIDTH_DEVIATION, size=len(rows)))
    change = np.copysign(np.maximum(np.abs(change), step), change).astype(np.int64)
    np.add.at(widths, (rows, groups), change)
    np.clip(widths, 1, dimensions.sizes, out=widths)


def _flip(
    batch: EditsBatch, rows: np.ndarray, pairs: np.ndarray, num_pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the skips that are not there and drops those that are: (rows, pairs), sorted."""
    keys = np.concatenate(
        [batch.skip_rows * num_pairs + batch.skip_pairs, rows * num_pairs + pairs]
    )
    keys, counts = np.unique(keys, return_counts=True)
    keys = keys[counts % 2 == 1]
    return keys // num_pairs, keys % num_pairs
