"""`embedding.json` and `embedding.safetensors` in a run's folder: the losses of every refit, and the newest networks' weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from searchers.embedding_gradient.autoencoder import Networks

LOSSES_FILE, WEIGHTS_FILE = "embedding.json", "embedding.safetensors"


def write_knowledge(
    folder: Path, histories: Iterable[Mapping[str, Any]], networks: Networks | None
) -> None:
    """Writes both files; without networks the first alone.

    Args:
        folder: made where it is missing.
        histories: of the refits, as `History.thinned` gives them.
        networks: whose encoder's first filters are `encoder.first.weight` [C, F, 3], and the decoder's last `decoder.last.weight`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refits = sorted(histories, key=lambda one: one["num_observations"])
    (folder / LOSSES_FILE).write_text(json.dumps({"refits": refits}), encoding="utf-8")
    if networks is not None:
        weights = {name: tensor.contiguous() for name, tensor in networks.state_dict().items()}
        save_file(weights, str(folder / WEIGHTS_FILE))
