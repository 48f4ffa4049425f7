"""Students of a table that were trained again: whether they differ by more than another seed would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from raysearch.tables import Table
from raysearch.tables.validation import deviations


def differences(
    table: Table, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> pd.DataFrame:
    """Retrained rows against the table's, in units of the spread over seeds.

    Args:
        pairs: (row of the table, its new training).

    Returns:
        A row for each result: its spread over seeds (of asin(sqrt(accuracy)) and log(loss)), rows, how many are equal, the mean difference, the root
        mean square of the difference over sqrt(2) spreads (1 is what another seed would give), and `ok`: all are equal, or it is no
        larger than chance makes it with probability .99. Without repeated rows the spread is unknown (NaN), and only equal rows are ok.
    """
    from scipy import stats

    lines = []
    for name in ("accuracy", "loss", "full_accuracy", "full_loss", "test_accuracy", "test_loss"):
        known = [row for row in table.records if row[name] is not None]
        found = [(old, new) for old, new in pairs if new.get(name) is not None]
        if not found:
            continue
        _, parts = deviations(
            np.array([[_z(row, name)] for row in known]),
            [row["architecture_id"] for row in known],
        )
        spread = float(np.sqrt(np.square(parts).mean())) if len(parts) else float("nan")
        delta = np.array([_z(new, name) - _z(old, name) for old, new in found])
        ratio = float(np.square(delta / (np.sqrt(2) * spread)).mean())
        equal = int((np.abs(delta) < 1e-5).sum())  # the file's precision
        lines.append(
            {
                "result": name,
                "spread": spread,
                "rows": len(found),
                "equal": equal,
                "mean difference": float(
                    np.mean([_end(new, name) - _end(old, name) for old, new in found])
                ),
                "rms / seeds": float(np.sqrt(ratio)),
                "ok": equal == len(found)
                or bool(ratio <= stats.chi2.ppf(0.99, len(found)) / len(found)),
            }
        )
    return pd.DataFrame(lines)


def _end(row: Mapping[str, Any], name: str) -> float:
    """The last value of a curve, or a number."""
    return float(row[name][-1] if isinstance(row[name], list) else row[name])


def _z(row: Mapping[str, Any], name: str) -> float:
    """The same where its spread over seeds is about equal for good students and bad ones: log(loss), asin(sqrt(accuracy))."""
    value = _end(row, name)
    if name.endswith("loss"):
        return float(np.log(max(value, 1e-9)))
    return float(np.arcsin(np.sqrt(np.clip(value, 0, 1))))
