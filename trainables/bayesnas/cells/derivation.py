"""Which paths a network keeps, from the variances of its switches. The thesis picks its cells by hand; this is a rule for it.

1. A path is kept where its gamma passes the entropy criterion (algorithm 1, step 4).
2. A cell's node that no path leads into then keeps the one with the largest gamma, the first of equals, because the cell's output is the
   concatenation of all four nodes. A tree may lose all paths: its block has a shortcut.
3. Where a node may have so many paths only, those with the largest gamma stay.
4. What nothing reads goes: a branch of a tree without leaves, an input of a cell, and a whole cell (`network.live_cells`).
"""

from __future__ import annotations

from collections.abc import Sequence

from trainables.bayesnas.cells.genotype import Path
from trainables.bayesnas.sparse import PRUNE_BELOW


def cell_paths(
    paths: Sequence[Path], gamma: Sequence[float], *, max_paths: int | None = None
) -> tuple[Path, ...]:
    """The paths that a cell keeps, in their order.

    Args:
        paths: all of a cell.
        gamma: of each.
        max_paths: the most into a node; None: no limit.
    """
    kept: set[int] = set()
    for node in sorted({path.target for path in paths}):
        places = [place for place, path in enumerate(paths) if path.target == node]
        places.sort(key=lambda place: -gamma[place])  # stable: the first of equals stays first
        passing = [place for place in places if gamma[place] > PRUNE_BELOW]
        kept.update((passing or places[:1])[:max_paths])
    return tuple(path for place, path in enumerate(paths) if place in kept)


def kept_in_tree(paths: Sequence[Path], gamma: Sequence[float], *, output: int) -> tuple[Path, ...]:
    """The paths that a tree keeps: those between its root, node 0, and its output whose every operation passes."""
    passing = [path for path, value in zip(paths, gamma, strict=True) if value > PRUNE_BELOW]
    while True:
        reached = {0} | {path.target for path in passing}
        read = {output} | {path.source for path in passing}
        alive = [path for path in passing if path.source in reached and path.target in read]
        if len(alive) == len(passing):
            return tuple(alive)
        passing = alive


def without_weakest(
    paths: Sequence[Path], gamma: Sequence[float], *, spare: bool
) -> tuple[Path, ...] | None:
    """The paths without the one that has the least gamma, the last of equals; None where none can go.

    Args:
        gamma: of each path.
        spare: the only path into a node stays.
    """
    counts: dict[int, int] = {}
    for path in paths:
        counts[path.target] = counts.get(path.target, 0) + 1
    places = [p for p, path in enumerate(paths) if not spare or counts[path.target] > 1]
    if not places:
        return None
    weakest = min(places, key=lambda place: (gamma[place], -place))
    return tuple(path for place, path in enumerate(paths) if place != weakest)
