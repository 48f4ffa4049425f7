"""What a comparison of methods says: curves, ranks, tests, and the page that shows them.

Pure functions over two tables: one row a cell (a method with a seed), and one row an evaluation (`raysearch.comparing.records`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysearch.lazy import lazy_names

if TYPE_CHECKING:
    from raysearch.comparing.analysis import Analysis, Pair, analyse
    from raysearch.comparing.curves import anytime
    from raysearch.comparing.ranks import average_ranks, friedman
    from raysearch.comparing.records import METRICS, Metric
    from raysearch.comparing.significance import difference, holm, sign_flip_p

_HOMES = {
    "METRICS": "records",
    "Analysis": "analysis",
    "Metric": "records",
    "Pair": "analysis",
    "analyse": "analysis",
    "anytime": "curves",
    "average_ranks": "ranks",
    "difference": "significance",
    "friedman": "ranks",
    "holm": "significance",
    "sign_flip_p": "significance",
}

__all__ = [
    "METRICS",
    "Analysis",
    "Metric",
    "Pair",
    "analyse",
    "anytime",
    "average_ranks",
    "difference",
    "friedman",
    "holm",
    "sign_flip_p",
]

__getattr__ = lazy_names(__name__, _HOMES)
