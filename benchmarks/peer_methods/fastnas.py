"""NVIDIA ModelOpt's FastNAS, in an interpreter of its own: its torch and its dependencies stay out of ours.

The worker gets the teacher, the training and validation images as files, and returns the pruned network's weights; our recipe trains
it. FastNAS is deterministic given the data: a cell's seed varies the training only.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.peer_methods.families import Family, fit
from benchmarks.peer_methods.setting import NoSolution, Setting
from raysearch.data.batches import DeviceBatches
from raysearch.errors import MissingPackageError, RunError

WORKER = Path(__file__).with_name("fastnas_worker.py")
PACKAGES = ("nvidia-modelopt", "torchprofile<0.1", "requests", "huggingface_hub")
"""Those after the first are imported by ModelOpt, but not all of them named by it."""


def setup(folder: Path) -> Path:
    """Makes a virtual environment with ModelOpt and this torch's version; returns its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    version = torch.__version__.partition("+")[0]
    subprocess.run(
        [str(python), "-m", "pip", "install", f"torch=={version}", *PACKAGES], check=True
    )
    subprocess.run([str(python), "-c", "import modelopt.torch.prune"], check=True)
    return python


def prune(setting: Setting) -> tuple[nn.Module, str]:
    """FastNAS on the teacher as it is."""
    return _prune(setting, convolution=False)


def prune_convolutional(setting: Setting) -> tuple[nn.Module, str]:
    """FastNAS on the same function with its classifier written as a 1x1 convolution, which frees the last stage's channels."""
    return _prune(setting, convolution=True)


def _prune(setting: Setting, *, convolution: bool) -> tuple[nn.Module, str]:
    python = setting.options.modelopt
    if python is None:
        raise MissingPackageError(
            "this peer needs ModelOpt in an interpreter of its own; run: python benchmarks/peers.py setup-modelopt --venv FOLDER, "
            "and give --modelopt FOLDER/bin/python"
        )
    with tempfile.TemporaryDirectory(prefix="fastnas-") as name:
        folder = Path(name)
        _write_job(setting, folder, convolution=convolution)
        done = subprocess.run(
            [str(python), str(WORKER), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise RunError(f"ModelOpt's interpreter {python} ended with {done.returncode}")
        result = json.loads((folder / "result.json").read_text())
        if "reason" in result:
            raise NoSolution(
                f"{result['reason']} is over the budget; its smallest has {result['smallest']:,} parameters"
            )
        state = torch.load(folder / "student.pt", weights_only=True)
    module = copy.deepcopy(setting.teacher)
    fit(module, state)
    note = f"ModelOpt {result['modelopt']}, {len(result['asked'])} limits tried, the last {result['asked'][-1]:,.0f}"
    return module, note


def _write_job(setting: Setting, folder: Path, *, convolution: bool) -> None:
    data = setting.problem.data
    family = Family.of(setting.teacher, data.num_classes, data.shape)
    job = {
        **family.describe(),
        "limit": setting.limit,
        "convolution": convolution,
        "seed": setting.seed,
    }
    (folder / "job.json").write_text(json.dumps(job))
    torch.save(setting.teacher.state_dict(), folder / "teacher.pt")
    arrays = {}
    for key, part in (("train", data.train), ("val", data.validation)):
        batches = DeviceBatches(part.images, part.labels, data.preprocessing)
        arrays[f"{key}_images"] = batches.take(torch.arange(len(part))).numpy()
        arrays[f"{key}_labels"] = part.labels
    np.savez(folder / "data.npz", allow_pickle=False, **arrays)
