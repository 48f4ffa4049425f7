"""Training a teacher that came without weights, and keeping it in the user's cache by content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from raysearch.data import DataSet, DistillationData, cache_folder, make_views
from raysearch.errors import RunError
from trainables.recipe import Recipe
from trainables.training import Training, evaluate

_logger = logging.getLogger(__name__)
_REPORTS = 10  # validations during one training, about

_LATER_KEYS = {"nesterov": True, "mean_over_classes": False, "recalibrate": True}
"""Keys of a recipe that older versions had not, and what they did: teachers that those cached are found again."""

Progress = Callable[[dict[str, Any]], None]
"""Called in the training process with {"epoch", "epochs", "train_loss", "accuracy", "loss"} after each validation."""


def teacher_recipe(epochs: int) -> Recipe:
    """The recipe of a teacher that is trained from labels: SGD, one cycle."""
    return Recipe(
        loss="ce", epochs=epochs, optimizer="sgd", lr=0.1, batch_size=64, views=max(2, epochs)
    )


def train_teacher(
    module: nn.Module,
    data: DataSet,
    *,
    epochs: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    channels_last: bool = False,
) -> dict[str, Any]:
    """Train in place by labels, with as many views as epochs, so that views hardly repeat.

    Args:
        recipe: None: `teacher_recipe(epochs)`.
        channels_last: faster on a CPU, but not for modules that call `view` on feature maps; undone at the end.

    Returns:
        {"accuracy", "loss"} on the validation part, "epochs", "seconds" and "history", the progress dicts.
    """
    recipe = recipe or teacher_recipe(epochs)
    views = make_views(
        len(data.train), num_views=recipe.views, augment=data.augment, shape=data.shape, seed=seed
    )
    resident = DistillationData(data.train, data.validation, data.preprocessing, views).to(device)
    training = Training(module, resident, recipe, seed=seed, channels_last=channels_last)
    every = max(1, recipe.epochs // _REPORTS)
    history: list[dict[str, Any]] = []
    start = time.perf_counter()
    for epoch in range(1, recipe.epochs + 1):
        metrics = training.train_epoch()
        if epoch % every == 0 or epoch == recipe.epochs or training.diverged:
            event = {"epoch": epoch, "epochs": recipe.epochs, **metrics, **training.validate()}
            history.append(event)
            if progress is not None:
                progress(event)
        if training.diverged:
            raise RunError(
                f"the teacher's training diverged in epoch {epoch}: give teacher.weights or another teacher.model"
            )
    # left in the other layout, the teacher would answer a little differently from the graph traced of it
    training.release().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return {
        "accuracy": history[-1]["accuracy"],
        "loss": history[-1]["loss"],
        "epochs": recipe.epochs,
        "seconds": time.perf_counter() - start,
        "history": history,
    }


def cached_teacher(
    module: nn.Module,
    data: DataSet,
    *,
    identity: str,
    epochs: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    channels_last: bool = False,
) -> dict[str, Any]:
    """`train_teacher`, unless the same teacher was trained before on the same data with the same recipe and seed.

    Args:
        identity: what `module` is apart from its weights: its architecture's id, or the name and arguments that built it.

    Returns:
        As train_teacher, and "cached": whether the weights came from the cache, and "key".
    """
    recipe = recipe or teacher_recipe(epochs)
    key = teacher_key(identity, data.hash, recipe, seed)
    folder = cache_folder() / "teachers" / key
    card = _load(folder, module)
    if card is not None:
        metrics = evaluate(
            module,
            data.validation.images,
            data.validation.labels,
            data.preprocessing,
            device=device,
        )
        module.eval()
        return {**card, **metrics, "cached": True, "key": key}
    card = train_teacher(
        module,
        data,
        epochs=epochs,
        seed=seed,
        device=device,
        progress=progress,
        recipe=recipe,
        channels_last=channels_last,
    )
    try:
        _store(folder, module, card)
    except OSError as error:
        _logger.warning("the trained teacher cannot be kept in %s: %s", folder, error)
    return {**card, "cached": False, "key": key}


def teacher_key(identity: str, data_hash: str, recipe: Recipe, seed: int) -> str:
    """The cache's key: everything that the trained weights depend on."""
    values = recipe.to_dict()
    for key, default in _LATER_KEYS.items():
        if values[key] == default:
            del values[key]
    content = [identity, data_hash, values, seed]
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _load(folder: Path, module: nn.Module) -> dict[str, Any] | None:
    """Fill `module` from a cache entry; None when there is none, or when it is damaged or does not fit."""
    if not folder.is_dir():
        return None
    try:
        card = json.loads((folder / "card.json").read_text())
        weights = folder / "weights.safetensors"
        if not isinstance(card, dict) or card.get("weights") != _file_hash(weights):
            raise ValueError("its weights are not those of its card")
        state = load_file(weights)
        _check_fit(state, module)
    except (OSError, ValueError, SafetensorError) as error:
        _logger.warning("the cached teacher in %s is damaged (%s) and trained again", folder, error)
        return None
    module.load_state_dict(state)
    return {key: value for key, value in card.items() if key != "weights"}


def _check_fit(state: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    if {key: tuple(value.shape) for key, value in state.items()} != wanted:
        raise ValueError("its tensors are not the module's")


def _store(folder: Path, module: nn.Module, card: Mapping[str, Any]) -> None:
    """Write an entry in a folder of its own, then move it into place in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        weights = draft / "weights.safetensors"
        state = {
            key: value.detach().cpu().contiguous().clone()
            for key, value in module.state_dict().items()
        }
        save_file(state, weights)
        (draft / "card.json").write_text(json.dumps({**card, "weights": _file_hash(weights)}))
        if folder.exists():  # damaged: an intact entry would have been used
            os.replace(folder, draft / "old")
        os.replace(draft, folder)
        shutil.rmtree(folder / "old", ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _file_hash(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
