"""What a comparison says: means, ranks, the tests of all pairs, Friedman's test, and a verdict in one honest sentence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raysearch.comparing.curves import Floats
from raysearch.comparing.ranks import Friedman, average_ranks, friedman, score_table
from raysearch.comparing.records import METRICS, Metric, numbers
from raysearch.comparing.significance import (
    ALPHA,
    Difference,
    difference,
    holm,
    seeds_needed,
    smallest_p,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pair:
    """Two methods, the better one (by the mean difference) first.

    Attributes:
        difference: what the first is ahead by, in the metric's unit: where less is better, how much less.
        p_holm: of the difference, corrected for all pairs.
    """

    first: str
    second: str
    difference: Difference
    p_holm: float = math.nan

    @property
    def clear(self) -> bool:
        """Whether chance is ruled out at the level `ALPHA`."""
        return self.p_holm <= ALPHA


@dataclass(frozen=True)
class Analysis:
    """The result of `analyse`.

    Attributes:
        metric: its name in `METRICS`.
        methods: in the order of their mean ranks, then as given.
        num_seeds: blocks (problems and seeds) that all methods have.
        means, deviations: of the metric by method, over its own cells; a missing one is NaN.
        ranks: the mean ranks, 1 is the best; empty where no block is complete.
        pairs: all pairs, the smallest p first.
        friedman: over all methods, None where it says nothing.
        num_failed: cells without a result.
    """

    metric: str
    methods: tuple[str, ...]
    num_seeds: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    ranks: Mapping[str, float]
    pairs: tuple[Pair, ...]
    friedman: Friedman | None
    num_failed: int

    @property
    def about(self) -> Metric:
        """The metric's label and direction."""
        return METRICS[self.metric]

    @cached_property
    def verdict(self) -> str:
        """What can be said, and what cannot, in a sentence or two."""
        if len(self.methods) < 2:
            return "One method alone is compared with nothing."
        if not self.num_seeds:
            return "Nothing can be said: no seed was finished by all methods."
        if self.num_seeds < 2:
            return f"Nothing can be told apart with one seed; {self._leader}. {self._needed}"
        clear = [pair for pair in self.pairs if pair.clear]
        if not clear:
            return f"Nothing can be told apart with {self._seeds}; {self._leader}. {self._needed}".rstrip()
        leaders = dict.fromkeys(pair.first for pair in clear)
        named = "; ".join(self._ahead(leader, clear) for leader in leaders)
        rest = "; nothing else can be told apart" if len(clear) < len(self.pairs) else ""
        return f"By {self.about.label} over {self._seeds} {named}{rest}."

    @property
    def _seeds(self) -> str:
        return "one seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds"

    @property
    def _leader(self) -> str:
        """Who has the best mean rank, which is no proof."""
        best = min(self.ranks.values())
        leaders = [method for method in self.methods if self.ranks[method] == best]
        if len(leaders) > 1:
            return f"{' and '.join(leaders)} share the best mean rank ({best:.2f})"
        return f"{leaders[0]} has the best mean rank ({best:.2f} of {len(self.methods)})"

    @property
    def _needed(self) -> str:
        """Why so few seeds cannot show anything; "" where they could."""
        count = len(self.pairs)
        least = smallest_p(self.num_seeds, count)
        if least <= ALPHA:
            return ""
        pairs = f"corrected for {count} pairs" if count > 1 else "for one pair"
        return f"With {self._seeds} no test can be significant: the smallest possible p is {least:.2g} ({pairs}); {seeds_needed(count)} seeds are the fewest that could."

    def _ahead(self, leader: str, clear: Sequence[Pair]) -> str:
        """Whom a method is clearly ahead of, and by how much."""
        scale, digits, unit = (100, 2, " points") if self.about.share else (1, 4, "")
        rivals = []
        for pair in clear:
            if pair.first == leader:
                one = pair.difference
                mean, low, high = (f"{scale * x:.{digits}f}" for x in (one.mean, one.low, one.high))
                p = f"{pair.p_holm:.2g}"
                rivals.append(f"{pair.second} (by {mean}{unit}, {low} to {high}; p = {p})")
        return f"{leader} is ahead of {' and of '.join(rivals)}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-native; NaN becomes null."""
        return _plain(
            {
                "metric": self.metric,
                "label": self.about.label,
                "higher_is_better": self.about.higher,
                "num_seeds": self.num_seeds,
                "num_failed": self.num_failed,
                "methods": {
                    method: {
                        "mean": self.means[method],
                        "deviation": self.deviations[method],
                        "rank": self.ranks.get(method),
                    }
                    for method in self.methods
                },
                "pairs": [
                    {
                        "first": pair.first,
                        "second": pair.second,
                        **asdict(pair.difference),
                        "p_holm": pair.p_holm,
                        "clear": pair.clear,
                    }
                    for pair in self.pairs
                ],
                "friedman": None if self.friedman is None else asdict(self.friedman),
                "smallest_possible_p": smallest_p(self.num_seeds, max(1, len(self.pairs))),
                "verdict": self.verdict,
            }
        )


def analyse(cells: pd.DataFrame, metric: str, methods: Sequence[str]) -> Analysis:
    """Compares methods by one metric.

    Args:
        cells: from `records.cells_frame`; rows of failed cells have NaN.
        metric: a key of `METRICS`.
        methods: those to compare.
    """
    higher = METRICS[metric].higher
    table = score_table(cells, metric, methods)
    ranks = average_ranks(table, higher_is_better=higher)
    order = sorted(methods, key=lambda method: ranks.get(method, math.inf))
    pairs = [_pair(table, one, two, higher) for one, two in itertools.combinations(order, 2)]
    corrected = holm([pair.difference.p for pair in pairs])
    pairs = [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]
    pairs.sort(key=lambda pair: (math.isnan(pair.p_holm), pair.p_holm, pair.difference.p))
    return Analysis(
        metric=metric,
        methods=tuple(order),
        num_seeds=len(table.dropna()),
        means={method: _mean(numbers(table, method)) for method in methods},
        deviations={method: _deviation(numbers(table, method)) for method in methods},
        ranks=ranks,
        pairs=tuple(pairs),
        friedman=friedman(table),
        num_failed=sum(status != "done" for status in cells["status"]),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _deviation(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _pair(table: pd.DataFrame, one: str, two: str, higher: bool) -> Pair:
    sign = 1 if higher else -1
    found = difference(sign * table[one], sign * table[two])
    if found.mean < 0:
        return Pair(two, one, difference(sign * table[two], sign * table[one]))
    return Pair(one, two, found)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
