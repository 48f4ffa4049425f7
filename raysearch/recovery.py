"""What a run that is continued finds damaged or gone: the teacher of its folder, and the weights of fully trained students."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysearch.architecture import Architecture
from raysearch.errors import InputError, RunFolderError
from raysearch.files import RunFiles, read_json
from raysearch.observations import ObservationLog

CARD = ("accuracy", "loss", "macs", "notes", "num_params", "weights")
"""What the rest of a run reads in `teacher/card.json`."""


def read_card(files: RunFiles) -> dict[str, Any]:
    """The content of `teacher/card.json`; raises RunFolderError."""
    return read_json(files.teacher_card, holds=CARD)


def read_teacher_graph(files: RunFiles) -> Architecture:
    """The teacher's graph of a run's folder.

    Raises:
        RunFolderError: its file is missing or damaged.
    """
    path = files.teacher / "architecture.json"
    try:
        return Architecture.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(f"{path}: missing; restore it, or start a new run") from None
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise RunFolderError(
            f"{path}: damaged ({error}); restore it, or start a new run"
        ) from error


def forget_lost(finished: ObservationLog, files: RunFiles) -> None:
    """Takes full trainings whose weights are gone out of a log in memory, so that these students are trained again.

    Weights that the students' own folders still hold are taken from there. The file keeps its lines; that of the new training, which
    comes later, counts.
    """
    exported = {
        (metrics["architecture_id"], metrics["trial_id"]): folder
        for folder, metrics in _exported(files)
        if metrics.get("trial_id") and "architecture_id" in metrics
    }
    kept = []
    for record in finished.records:
        weights = files.weights / f"{record['stage']}-{record['architecture_id']}.safetensors"
        if record["status"] == "full" and not weights.exists():
            folder = exported.get((record["architecture_id"], record.get("trial_id")))
            if folder is None:
                continue
            weights.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / "weights.safetensors", weights)
        kept.append(record)
    finished.records[:] = kept


def _exported(files: RunFiles) -> list[tuple[Path, Mapping[str, Any]]]:
    """Folders of finished students, and what their `metrics.json` says; damaged ones are left out, for they are written anew."""
    found = []
    for pattern in ("students/*/metrics.json", "baselines/*/*/metrics.json"):
        for path in files.folder.glob(pattern):
            try:
                metrics = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(metrics, dict) and (path.parent / "weights.safetensors").is_file():
                found.append((path.parent, metrics))
    return found
