"""What a run that is continued finds in its folder, damaged or gone maybe: the teacher, the last session, the weights of fully trained students."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from raysearch.architecture import Architecture
from raysearch.errors import InputError, RunFolderError
from raysearch.files import RunFiles, read_json
from raysearch.observations import ObservationLog
from searchers.algorithm import Proposal

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


def read_teacher_weights(files: RunFiles) -> dict[str, torch.Tensor]:
    """The teacher's weights of a run's folder.

    Raises:
        RunFolderError: their file is missing or damaged.
    """
    path = files.teacher / "weights.safetensors"
    if not _is_whole(path):
        state = "damaged" if path.exists() else "missing"
        raise RunFolderError(f"{path}: {state}; restore it, or start a new run")
    return load_file(path)


def read_session(files: RunFiles) -> tuple[dict[str, Any], list[Proposal]]:
    """What an earlier session left: its times, and the students that were in training when it was cut.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = next((file for file in (files.session, files.summary) if file.exists()), None)
    if path is None:
        return {}, []
    session = read_json(path, holds=["seconds"])
    try:
        return session, [Proposal(**one) for one in session.get("pending", [])]
    except TypeError as error:
        raise RunFolderError(
            f"{path}: damaged ({error}); restore it, or delete it: the students in training then begin anew"
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
        if record["status"] == "full" and not _is_whole(weights):
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
            if isinstance(metrics, dict) and _is_whole(path.parent / "weights.safetensors"):
                found.append((path.parent, metrics))
    return found


def _is_whole(path: Path) -> bool:
    """Whether a file of weights is there and has all that its header promises."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False
