"""The trials in Tune's own snapshot of an experiment.

Tune copies its snapshot to the storage file by file, while it may already be writing the next one. What is left after a crash can hold
the trials of one moment and the searcher of an earlier or a later one, so a restored searcher compares the two.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.utils import flatten_dict

logger = logging.getLogger(__name__)

PATTERN = "experiment_state-*.json"


@dataclasses.dataclass(frozen=True)
class SnapshotTrial:
    """One trial as Tune remembers it.

    Attributes:
        trial_id: Tune's.
        status: "PENDING", "RUNNING", "PAUSED", "TERMINATED" or "ERROR".
        result: its last result, flat and with its config, as Tune hands it to a searcher's hooks.
        reported: there was a result at all; without one, `result` holds the config alone.
    """

    trial_id: str
    status: str
    result: dict[str, Any]
    reported: bool


def read_trials(folder: Path) -> list[SnapshotTrial] | None:
    """The trials of the newest snapshot in a folder, in the order of their start; None where there is none that can be read."""
    newest = max(folder.glob(PATTERN), default=None, key=lambda path: path.name)
    if newest is None:
        return None
    try:
        stored = json.loads(newest.read_text(encoding="utf-8"))["trial_data"]
        return [_read(state, metadata) for state, metadata in stored]
    except Exception as error:  # noqa: BLE001 - the format is Tune's own: a restored search also goes on without it
        logger.warning("Tune's snapshot %s cannot be read (%r): not compared", newest.name, error)
        return None


def _read(state: str, metadata: str) -> SnapshotTrial:
    trial = Trial.from_json_state(state, stub=True)
    trial.restore_run_metadata(metadata)
    result = flatten_dict({**trial.run_metadata.last_result, "config": trial.config})
    return SnapshotTrial(trial.trial_id, trial.status, result, trial.has_reported_at_least_once)
