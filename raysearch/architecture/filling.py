"""Gives what is left of a budget to single channel groups, for a whole batch of students.

Notation: B candidates, G groups, T terms of the cost model, M limits, t terms that one group enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.costs import CostModel
from raysearch.architecture.groups import ChannelGroup


@dataclass(frozen=True, eq=False)
class Filler:
    """What filling needs to know of a space.

    Attributes:
        costs: the space's cost model.
        metrics: the M columns of the cost model that are limited.
        limits: [M] float64.
        sizes, steps: [G] int64: the teacher's width and the grid.
        order: the groups, those first whose step costs most.
        touched: for each group the terms that it enters.
    """

    costs: CostModel
    metrics: tuple[int, ...]
    limits: np.ndarray
    sizes: np.ndarray
    steps: np.ndarray
    order: tuple[int, ...]
    touched: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls,
        costs: CostModel,
        groups: Sequence[ChannelGroup],
        metrics: tuple[int, ...],
        limits: np.ndarray,
        num_layers: int,
    ) -> Filler:
        """Prepares filling up to limits [M] on the given columns of the cost model."""
        sizes = np.array([group.size for group in groups], np.int64)
        steps = np.array([group.divisor for group in groups], np.int64)
        order = np.arange(len(groups))
        if metrics and len(groups):
            narrower = np.concatenate([sizes - np.diag(steps), sizes[None]])  # [G + 1, G]
            keep = costs.keep(np.zeros((1, num_layers), bool))
            totals = costs.totals(keep, narrower, metrics)
            order = np.argsort(-((totals[-1] - totals[:-1]) / limits).max(axis=1), kind="stable")
        enters = (costs.in_matrix != 0) | (costs.out_matrix != 0)  # [T, G]
        touched = tuple(np.flatnonzero(column) for column in enters.T)
        return cls(costs, metrics, limits, sizes, steps, tuple(order.tolist()), touched)

    def slack(self, keep: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """What is left of every limit: keep [B, T], widths [B, G] -> [B, M]; negative where it is exceeded."""
        return self.limits - self.costs.totals(keep, widths, self.metrics)

    def __call__(
        self, keep: np.ndarray, widths: np.ndarray, *, once: bool = False, last: int | None = None
    ) -> np.ndarray:
        """Widens group after group as far as the limits allow.

        Args:
            keep: [B, T].
            widths: [B, G] on the grid, inside the limits.
            once: one step for each group at most; otherwise as many as fit, after which no group can take one.
            last: a group that comes after all others.

        Returns:
            The new widths [B, G].
        """
        widths, slack = widths.copy(), self.slack(keep, widths)
        u, v = self.costs.channels(widths)
        order = self.order
        if last is not None:
            order = (*(group for group in order if group != last), last)
        for group in order:
            terms = self.touched[group]
            alive, into, out = keep[:, terms], u[:, terms], v[:, terms]
            width = widths[:, group]
            fewest = np.zeros(len(widths), np.int64)
            most = -(-(self.sizes[group] - width) // self.steps[group])
            most = np.minimum(most, 1) if once else most
            while (fewest < most).any():
                steps = (fewest + most + 1) // 2
                cost = self._cost(group, alive, into, out, self._added(group, width, steps))
                fits = (cost <= slack).all(axis=1)
                fewest, most = np.where(fits, steps, fewest), np.where(fits, most, steps - 1)
            more = self._added(group, width, fewest)
            if more.any():
                slack -= self._cost(group, alive, into, out, more)
                widths[:, group] += more
                du, dv = self._channels_added(group, more)
                u[:, terms] += du
                v[:, terms] += dv
        return widths

    def _added(self, group: int, width: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The channels that some steps add: width, steps [B] -> [B]; the last step ends at the teacher's width."""
        step = self.steps[group]
        target = np.minimum(width // step * step + steps * step, self.sizes[group])
        return np.where(steps > 0, target - width, 0)

    def _channels_added(self, group: int, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How u and v of the touched terms change: more [B] -> two [B, t]."""
        terms = self.touched[group]
        du = more[:, None] * self.costs.in_matrix[terms, group] / self.costs.groups[terms]
        return du, more[:, None] * self.costs.out_matrix[terms, group]

    def _cost(
        self, group: int, alive: np.ndarray, into: np.ndarray, out: np.ndarray, more: np.ndarray
    ) -> np.ndarray:
        """What `more` [B] channels of a group cost: [B, M]; alive, into, out: [B, t] of the touched terms."""
        du, dv = self._channels_added(group, more)
        terms, columns = self.touched[group], list(self.metrics)
        uv, by_v, by_u = (
            coefficients[terms][:, columns]
            for coefficients in (self.costs.uv, self.costs.v, self.costs.u)
        )
        product = alive * ((into + du) * (out + dv) - into * out)
        return product @ uv + (alive * dv) @ by_v + (alive * du) @ by_u
