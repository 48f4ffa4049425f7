"""`observations.jsonl` and its kin: finished evaluations as lines of JSON, and the way from an observation to a line and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from searchers.algorithm import Observation


class ObservationLog:
    """An append-only JSON-lines file of finished evaluations; a torn last line is dropped when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = _read_lines(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one line, and returns when it is on the disk."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(dict(record))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("rb+") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


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
