"""Random students of which some layers keep some of their inputs, for the tests of gathers."""

from __future__ import annotations

import numpy as np

from raysearch.architecture import Edits, SearchSpace


def thinned(space: SearchSpace, seed: int, chance: float = 0.7) -> Edits:
    """Random edits within the space; each layer that may keep some of its inputs does so with this probability."""
    rng = np.random.default_rng(seed)
    base = space.sample(1, rng)[0]
    student, inputs = space.apply(base), []
    for place in space.gatherable:
        layer = student[space.teacher.layers[place].name]
        if place in base.remove or rng.random() >= chance:
            continue
        size = layer.attrs["in_features" if layer.op == "linear" else "in_channels"]
        if size > 1:
            kept = rng.permutation(size)[: rng.integers(1, size)]
            inputs.append((place, tuple(kept.tolist())))
    return Edits(base.remove, base.widths, base.skips, tuple(inputs))
