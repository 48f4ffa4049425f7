"""`observations.jsonl` and its kin: finished evaluations as lines of JSON, and the way from an observation to a line and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raysearch.errors import RunFolderError
from searchers.algorithm import Observation

EVALUATION = ("architecture", "architecture_id", "value", "status", "fidelity", "curve")
"""The keys of every line that `to_record` wrote."""


class ObservationLog:
    """An append-only JSON-lines file of finished evaluations; a torn last line is dropped when it is opened.

    Args:
        path: of the file.
        holds: keys that every line must have.

    Raises:
        RunFolderError: a line is damaged that is not a torn last one.
    """

    def __init__(self, path: Path, *, holds: Sequence[str] = ()) -> None:
        self.path = path
        self.records = _read_lines(path, holds)
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one line, and returns when it is on the disk."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(dict(record))


def _read_lines(path: Path, holds: Sequence[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines = enumerate(whole.split(b"\n"), start=1)
    records = [_parsed(path, number, line, holds) for number, line in lines if line.strip()]
    if len(whole) < len(data):
        with path.open("rb+") as file:
            file.truncate(len(whole))
    return records


def _parsed(path: Path, number: int, line: bytes, holds: Sequence[str]) -> dict[str, Any]:
    """One line; raises RunFolderError."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError(f"a {type(record).__name__}, not an object")
        if missing := [key for key in holds if key not in record]:
            raise ValueError(f"no {missing[0]!r}")
        if holds and record["status"] == "full":
            _check_full(record)
    except ValueError as error:
        raise RunFolderError(
            f"{path}: line {number} is damaged ({error}); restore the file, or delete that line: nothing else is lost"
        ) from None
    return record


def _check_full(record: Mapping[str, Any]) -> None:
    """Raises ValueError where a full evaluation has no value to be ranked by."""
    for key, kind in (("architecture", str), ("value", int | float), ("curve", list)):
        if not isinstance(record[key], kind):
            raise ValueError(f"{key} is {record[key]!r}")


def to_record(observation: Observation) -> dict[str, Any]:
    """The line of `observations.jsonl` for an observation."""
    metrics = {
        key: int(value) if key in _COUNTS else value
        for key, value in observation.metrics.items()
        if _is_finite(value)
    }
    extra = dict(observation.extra)
    extra.pop("architecture", None)
    return {
        "architecture": observation.architecture,
        "architecture_id": extra.pop("architecture_id", None),
        "value": observation.value,
        "status": observation.status,
        "fidelity": observation.fidelity,
        "curve": list(observation.curve),
        **metrics,
        **_renamed(observation.details),
        **extra,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_COUNTS = frozenset(
    [
        "num_params",
        "macs",
        "memory_bytes",
        "epochs_done",
        "epochs_target",
        "epochs_trained",
        "value_epoch",
        "peak_memory_bytes",
    ]
)


def _renamed(details: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's own `status` (ok, invalid, diverged) gives way to the observation's."""
    renamed = dict(details)
    if "status" in renamed:
        renamed["result_status"] = renamed.pop("status")
    return renamed


def from_record(record: Mapping[str, Any]) -> Observation:
    """The observation that `to_record` wrote; whole numbers that trials do not report were its proposal's."""
    named = {"architecture", "value", "status", "fidelity", "curve"}
    rest = {key: value for key, value in record.items() if key not in named}
    numbers = {
        key: value for key, value in rest.items() if isinstance(value, float) or key in _COUNTS
    }
    return Observation(
        architecture=record["architecture"],
        value=record["value"],
        fidelity=record["fidelity"],
        status=record["status"],
        curve=tuple(record["curve"]),
        metrics=numbers,
        extra={key: value for key, value in rest.items() if key not in numbers},
    )


def _is_finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
