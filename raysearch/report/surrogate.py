"""`surrogate.parquet`: what the search's model knew at the end, one row for each student that it learned from (docs/run-folder.md)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raysearch.report.records import integer
from searchers.insight import Insight, InsightFailed

logger = logging.getLogger(__name__)

SURROGATE_FILE = "surrogate.parquet"
NUMBERS = ("value", "loo_mean", "loo_sd", "x", "y")
_META = b"raysearch"


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The file's content.

    Attributes:
        ids: of the insight's architectures.
        insight: as the method gave it.
        num_observations: lines of `observations.jsonl` when it was written.
    """

    ids: tuple[str, ...]
    insight: Insight
    num_observations: int | None


def keep_knowledge(
    algorithm: object, path: Path, identify: Callable[[str], str], num_observations: int
) -> str | None:
    """Writes what a method's model knows, if it has one that can be looked into; a file of as many observations stays.

    Args:
        algorithm: the method; `insight()` is optional.
        path: of the file.
        identify: edits' text -> architecture_id.
        num_observations: evaluations in the search's log.

    Returns:
        A note for the run where the model failed numerically, which is no reason to fail the run.
    """
    look = getattr(algorithm, "insight", None)
    if look is None or _holds(path, num_observations):
        return None
    path.unlink(missing_ok=True)  # of a shorter search
    try:
        insight: Insight | None = look()
    except InsightFailed as error:
        logger.warning("The search's model could not be looked into: %s", error)
        return f"the search's model could not be looked into at the end ({error})"
    if insight is not None:
        write_knowledge(path, insight, identify, num_observations)
    return None


def write_knowledge(
    path: Path, insight: Insight, identify: Callable[[str], str], num_observations: int
) -> None:
    """Writes the file at once.

    Args:
        path: of the file.
        insight: of the run's method.
        identify: edits' text -> architecture_id.
        num_observations: evaluations in the search's log.
    """
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = {
        "architecture_id": [identify(text) for text in insight.architectures],
        "architecture": list(insight.architectures),
        "value": insight.values,
        "loo_mean": insight.loo_mean,
        "loo_sd": insight.loo_sd,
        "x": insight.places[:, 0],
        "y": insight.places[:, 1],
    }
    meta = {"num_observations": num_observations, "notes": dict(insight.notes)}
    grid = pyarrow.table(columns).replace_schema_metadata({_META: json.dumps(meta)})
    draft = path.with_suffix(".parquet.tmp")
    pyarrow.parquet.write_table(grid, draft)
    os.replace(draft, path)


def read_knowledge(path: Path) -> Knowledge | None:
    """Reads the file; None where it is missing.

    Raises:
        ValueError: it is damaged, or no such file.
    """
    if not path.is_file():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        grid = pyarrow.parquet.read_table(path)
        meta = json.loads((grid.schema.metadata or {}).get(_META, b"{}"))
        numbers = {name: np.array(grid[name].to_pylist(), dtype=np.float64) for name in NUMBERS}
        texts = [
            tuple(map(str, grid[name].to_pylist())) for name in ("architecture_id", "architecture")
        ]
    except (OSError, KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    notes = meta.get("notes") if isinstance(meta, Mapping) else None
    return Knowledge(
        ids=texts[0],
        insight=Insight(
            architectures=texts[1],
            values=numbers["value"],
            loo_mean=numbers["loo_mean"],
            loo_sd=numbers["loo_sd"],
            places=np.stack([numbers["x"], numbers["y"]], axis=1),
            notes=notes if isinstance(notes, Mapping) else {},
        ),
        num_observations=integer(meta.get("num_observations"))
        if isinstance(meta, Mapping)
        else None,
    )


def _holds(path: Path, num_observations: int) -> bool:
    """Whether the file was written after so many evaluations."""
    try:
        known = read_knowledge(path)
    except ValueError:
        return False
    return known is not None and known.num_observations == num_observations
