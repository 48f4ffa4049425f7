"""Extremely randomised trees (Geurts et al. 2006), fitted by scikit-learn and answered fast for one student at a time.

A forest's prediction is an average of training targets: it cannot leave their range, however odd the student.
scikit-learn needs about 10 ms for a single row, most of it overhead a tree; all trees walked at once need a tenth of a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_TREES = 200
MIN_LEAF = 2


@dataclass(frozen=True, eq=False)
class Forest:
    """All trees in one set of arrays; T trees, N nodes of all of them, D features, O outputs.

    Attributes:
        roots: [T] int64, the trees' first nodes.
        children: [N, 2] int64: where a feature is at most the threshold, and where it is above; a leaf is its own child.
        feature: [N] int64, threshold: [N] float64.
        value: [N, O] float64.
    """

    roots: np.ndarray
    children: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, z: np.ndarray, seed: int = 0) -> Forest:
        """Fits z: [n, O] on x: [n, D]; every output counts by its own variance."""
        from sklearn.ensemble import ExtraTreesRegressor

        mean, scale = z.mean(axis=0), z.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        regressor = ExtraTreesRegressor(
            NUM_TREES, min_samples_leaf=MIN_LEAF, max_features=0.5, random_state=seed
        ).fit(x, (z - mean) / scale)
        trees = [one.tree_ for one in regressor.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
        children, values = [], []
        for root, tree in zip(roots, trees, strict=True):
            pair = np.stack([tree.children_left, tree.children_right], axis=1)
            own = np.arange(tree.node_count)[:, None]
            children.append(root + np.where(pair < 0, own, pair))
            values.append(tree.value.reshape(tree.node_count, -1))
        return cls(
            roots,
            np.concatenate(children),
            np.maximum(np.concatenate([tree.feature for tree in trees]), 0),
            np.concatenate([tree.threshold for tree in trees]),
            np.concatenate(values) * scale + mean,
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x: [m, D] -> [m, O]."""
        x = x.astype(np.float32)  # as scikit-learn compares
        return np.stack([self._one(row) for row in x]) if len(x) else self.value[:0]

    def _one(self, x: np.ndarray) -> np.ndarray:
        nodes = self.roots  # [T]
        while True:
            above = (x[self.feature[nodes]] > self.threshold[nodes]).astype(np.int64)
            below = self.children[nodes, above]
            if np.array_equal(below, nodes):
                return self.value[nodes].mean(axis=0)  # [O]
            nodes = below
