"""The importance scores of one teacher: computed once, kept in a file, used by all students."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from raysearch.architecture.graph import Architecture
from raysearch.errors import ConfigError
from raysearch.models.build import State
from raysearch.models.importance import Batch, l1_importance, taylor_importance
from raysearch.models.pruning import pruning_importance

RANKINGS = ("first", "l1", "taylor", "pruning")


def channel_scores(
    ranking: str, architecture: Architecture, state: State, batches: Callable[[], Iterable[Batch]]
) -> list[np.ndarray] | None:
    """Scores the channels of a teacher.

    Args:
        ranking: one of `RANKINGS`.
        architecture: the teacher's.
        state: its weights.
        batches: gives training images and their labels, on the weights' device; called where the ranking looks at data.

    Returns:
        for each channel variable [size] float64; None: no scores, the first channels are kept.

    Raises:
        ConfigError: the ranking is not known.
        MissingPackageError, WeightsError: it is not possible here, or not for this teacher.
    """
    if ranking == "first":
        return None
    if ranking == "l1":
        return l1_importance(architecture, state)
    if ranking == "taylor":
        return taylor_importance(architecture, state, batches())
    if ranking == "pruning":
        device = next(iter(state.values())).device
        return pruning_importance(
            architecture, state, torch.zeros(2, *architecture.input_shape, device=device)
        )
    raise ConfigError(
        f"distill.inherit: {ranking!r} is not known; choose one of none, {', '.join(RANKINGS)}"
    )


def save_scores(
    path: Path, architecture: Architecture, scores: Iterable[np.ndarray], *, edits: str = ""
) -> None:
    """Writes scores as safetensors, one array a channel variable; `edits`: the student that they belong to, if to one."""
    arrays = {str(number): values for number, values in enumerate(scores)}
    temporary = path.with_suffix(".tmp")
    save_file(arrays, temporary, metadata={"architecture": architecture.id, "edits": edits})
    temporary.replace(path)


def load_scores(path: Path, architecture: Architecture) -> list[np.ndarray] | None:
    """Reads what `save_scores` wrote; None where there is no readable file of this teacher."""
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("architecture") != architecture.id:
                return None
            return [file.get_tensor(str(number)) for number in range(len(file.keys()))]
    except (OSError, SafetensorError):
        return None


def load_edits(path: Path) -> str:
    """The `edits` that `save_scores` wrote into a file that `load_scores` can read."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata()["edits"]
