"""Gives what is left of a budget to single channel groups, for a whole batch of students.

Notation: B candidates, G groups, T terms of the cost model, M limits, S moments of memory, t terms that one group enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysearch.architecture.groups import ChannelGroup
from raysearch.architecture.limits import Limits, Load


@dataclass(frozen=True, eq=False)
class Filler:
    """What filling needs to know of a space.

    Attributes:
        limits: the limited metrics.
        sizes, steps: [G] int64: the teacher's width and the grid.
        order: the groups, those first whose step costs most.
        touched: for each group the terms that it enters.
    """

    limits: Limits
    sizes: np.ndarray
    steps: np.ndarray
    order: tuple[int, ...]
    touched: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls, limits: Limits, groups: Sequence[ChannelGroup], teacher: tuple[np.ndarray, np.ndarray]
    ) -> Filler:
        """Prepares filling up to the limits; teacher: its `remove` [1, L] and `skips` [1, P]."""
        sizes = np.array([group.size for group in groups], np.int64)
        steps = np.array([group.divisor for group in groups], np.int64)
        order = np.arange(len(groups))
        if limits.columns and len(groups):
            narrower = np.concatenate([sizes - np.diag(steps), sizes[None]])  # [G + 1, G]
            used = limits.bounds - limits.slack(limits.load(*teacher), narrower)  # [G + 1, M]
            saved = ((used[-1] - used[:-1]) / limits.bounds).max(axis=1)
            order = np.argsort(-saved, kind="stable")
        enters = (limits.costs.in_matrix != 0) | (limits.costs.out_matrix != 0)  # [T, G]
        touched = tuple(np.flatnonzero(column) for column in enters.T)
        return cls(limits, sizes, steps, tuple(order.tolist()), touched)

    def __call__(
        self, load: Load, widths: np.ndarray, *, once: bool = False, last: int | None = None
    ) -> np.ndarray:
        """Widens group after group as far as the limits allow.

        Args:
            load: of the B students.
            widths: [B, G] on the grid, inside the limits.
            once: one step for each group at most; otherwise as many as fit, after which no group can take one.
            last: a group that comes after all others.

        Returns:
            The new widths [B, G].
        """
        state = _Filling(self, load, widths.copy())
        order = self.order
        if last is not None:
            order = (*(group for group in order if group != last), last)
        for group in order:
            state.widen(group, once)
        return state.widths


class _Filling:
    """The state of one filling: widths, and what they use, brought up to date group by group."""

    def __init__(self, filler: Filler, load: Load, widths: np.ndarray) -> None:
        self.filler, self.load, self.widths = filler, load, widths
        limits = filler.limits
        self.costs, self.columns = limits.costs, list(limits.columns)
        # of a memory limit the moments are taken off where steps are tried: they are a maximum
        self.slack = load.bounds - self.costs.totals(load.keep, widths, self.columns)  # [B, M]
        self.moments = None if load.moments is None else load.moments.at(widths)  # [B, S]
        self.u, self.v = self.costs.channels(widths)

    def widen(self, group: int, once: bool) -> None:
        """Gives a group as many steps as fit."""
        filler, terms, width = self.filler, self.filler.touched[group], self.widths[:, group]
        alive, into, out = self.load.keep[:, terms], self.u[:, terms], self.v[:, terms]
        fewest = np.zeros(len(width), np.int64)
        most = -(-(filler.sizes[group] - width) // filler.steps[group])
        most = np.minimum(most, 1) if once else most
        while (fewest < most).any():
            steps = (fewest + most + 1) // 2
            more = self._added(group, width, steps)
            cost = self._cost(group, alive, into, out, more)
            if self.moments is not None:
                memory = filler.limits.memory
                cost[:, memory] += self._moments_with(self.moments, group, more).max(axis=1)
            fits = (cost <= self.slack).all(axis=1)
            fewest, most = np.where(fits, steps, fewest), np.where(fits, most, steps - 1)
        more = self._added(group, width, fewest)
        if more.any():
            self.slack -= self._cost(group, alive, into, out, more)
            if self.moments is not None:
                self.moments = self._moments_with(self.moments, group, more)
            self.widths[:, group] += more
            du, dv = self._channels_added(group, more)
            self.u[:, terms] += du
            self.v[:, terms] += dv

    def _moments_with(self, moments: np.ndarray, group: int, more: np.ndarray) -> np.ndarray:
        """The moments [B, S] after `more` [B] channels of a group."""
        assert self.load.moments is not None
        return moments + self.load.moments.slopes[:, :, group] * more[:, None]

    def _added(self, group: int, width: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The channels that some steps add: width, steps [B] -> [B]; the last step ends at the teacher's width."""
        step = self.filler.steps[group]
        target = np.minimum(width // step * step + steps * step, self.filler.sizes[group])
        return np.where(steps > 0, target - width, 0)

    def _channels_added(self, group: int, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How u and v of the touched terms change: more [B] -> two [B, t]."""
        terms = self.filler.touched[group]
        du = more[:, None] * self.costs.in_matrix[terms, group] / self.costs.groups[terms]
        return du, more[:, None] * self.costs.out_matrix[terms, group]

    def _cost(
        self, group: int, alive: np.ndarray, into: np.ndarray, out: np.ndarray, more: np.ndarray
    ) -> np.ndarray:
        """What `more` [B] channels of a group cost in the columns: [B, M]; alive, into, out: [B, t] of the touched terms."""
        du, dv = self._channels_added(group, more)
        terms = self.filler.touched[group]
        uv, by_v, by_u = (
            coefficients[terms][:, self.columns]
            for coefficients in (self.costs.uv, self.costs.v, self.costs.u)
        )
        product = alive * ((into + du) * (out + dv) - into * out)
        return product @ uv + (alive * dv) @ by_v + (alive * du) @ by_u
