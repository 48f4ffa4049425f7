"""ModelOpt's FastNAS, run by the interpreter that has ModelOpt: torch, numpy and ModelOpt, nothing of ours.

    python fastnas_worker.py FOLDER

FOLDER holds `job.json` (the teacher's file, class and arguments; the limit; whether the classifier becomes a convolution),
`teacher.pt` and `data.npz` (the network's inputs); it gets `result.json`, and `student.pt` where there is a student.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import modelopt
import modelopt.torch.nas as mtn
import modelopt.torch.prune as mtp
import numpy as np
import torch
from modelopt.torch.nas.utils import sample
from modelopt.torch.prune.fastnas import FastNASConfig
from modelopt.torch.prune.pruning import PruneModeRegistry
from torch import nn

BATCH = 128
CALIBRATION_BATCHES = 20
ATTEMPTS = 8
"""Searches with other limits: the sensitivities are measured once, so that a further one takes a second."""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    torch.manual_seed(job["seed"])
    state = torch.load(folder / "teacher.pt", weights_only=True)
    with np.load(folder / "data.npz") as stored:
        data = {name: torch.from_numpy(stored[name]) for name in stored.files}
    smallest = _smallest(job, state)
    result = {"modelopt": modelopt.__version__, "smallest": smallest}
    if smallest > job["limit"]:
        result["reason"] = "its smallest network"
    else:
        student, result["asked"] = _search(job, state, data, folder)
        if student is None:
            result["reason"] = "every network that its search by thresholds returns"
        else:
            torch.save(student, folder / "student.pt")
    (folder / "result.json").write_text(json.dumps(result))


def _search(job: Any, state: Any, data: Any, folder: Path) -> tuple[Any, list[float]]:
    """The state of the largest network within the real limit, or None, and the limits that were asked for.

    ModelOpt does not count BatchNorm's parameters, so what it is asked for is lowered until all parameters fit, by bisection.
    """
    low, high = 0.0, float(job["limit"])
    best, best_size, asked = None, 0, []
    for _ in range(ATTEMPTS):
        asked.append((low + high) / 2 if asked else high)
        found = _prune(job, state, data, asked[-1], folder / "sensitivity.pth")
        size = 0 if found is None else sum(one.numel() for one in found.parameters())
        if size > job["limit"]:
            high = asked[-1]
            continue
        low = asked[
            -1
        ]  # a larger one may fit; or ModelOpt found none, so that it must be asked for more
        if found is not None and size > best_size:
            best, best_size = found, size
        if low == high:
            break
    return (None if best is None else _plain_state(best)), asked


def _prune(job: Any, state: Any, data: Any, limit: float, checkpoint: Path) -> nn.Module | None:
    """One search as the guide writes it; None where ModelOpt says that it finds nothing."""
    module = _teacher(job, state)
    images, labels = data["train_images"], data["train_labels"]
    loader = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        pairs = zip(data["val_images"].split(512), data["val_labels"].split(512), strict=True)
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in pairs)
        return 100.0 * right / len(data["val_labels"])

    try:
        pruned, _ = mtp.prune(
            module,
            mode=[("fastnas", _rules())],
            constraints={"params": limit},
            dummy_input=images[:1],
            config={
                "data_loader": loader,
                "max_iter_data_loader": CALIBRATION_BATCHES,
                "collect_func": lambda batch: batch[0],
                "score_func": accuracy,
                "checkpoint": str(checkpoint),
                "verbose": False,
            },
        )
    except (AssertionError, RuntimeError, ValueError) as error:
        print(f"limit {limit:.0f}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return pruned


def _rules() -> dict[str, Any]:
    """The default search space but for the divisor: its 32 leaves narrow teachers a width or two."""
    rules = FastNASConfig().model_dump()
    for by_pattern in rules.values():
        for rule in (by_pattern or {}).values():
            for key in rule or {}:
                if key.endswith("_divisor"):
                    rule[key] = 1
    return rules


def _smallest(job: Any, state: Any) -> int:
    """All parameters of the smallest network of the search space."""
    module = mtn.convert(
        _teacher(job, state), mode=[("fastnas", _rules())], registry=PruneModeRegistry
    )
    sample(module, sample_func=min)
    return sum(one.numel() for one in mtn.export(module).parameters())


def _teacher(job: Any, state: Any) -> nn.Module:
    spec = importlib.util.spec_from_file_location("teacher", job["file"])
    assert spec is not None, job["file"]
    assert spec.loader is not None, job["file"]
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    module = getattr(source, job["class"])(**job["arguments"])
    module.load_state_dict(state)
    return _with_convolution(module) if job["convolution"] else module.eval()


def _with_convolution(module: nn.Module) -> nn.Module:
    """The same function with the linear classifier as a 1x1 convolution of the pooled image.

    FastNAS freezes the channels that reach a linear layer through a flattened image; through a convolution it can search them.
    """

    class Convolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = dict(module.named_children())
            name = "fc" if "fc" in body else "classifier"
            linear = body.pop(name)
            assert isinstance(linear, nn.Linear), name
            self.body = nn.Sequential(*body.values())
            self.head = nn.Conv2d(linear.in_features, linear.out_features, 1)
            self.head.load_state_dict(
                {"weight": linear.weight.data[:, :, None, None], "bias": linear.bias.data}
            )
            self.names = [*body, name]

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(images)).flatten(1)

    return Convolutional().eval()


def _plain_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state with the teacher's names and a linear classifier."""
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    names = getattr(module, "names", None)
    if names is None:
        return state
    named = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if first == "head":
            named[f"{names[-1]}.{rest}"] = tensor.flatten(1) if tensor.dim() == 4 else tensor
        else:
            number, _, rest = rest.partition(".")
            named[f"{names[int(number)]}.{rest}"] = tensor
    return named


if __name__ == "__main__":
    main(Path(sys.argv[1]))
