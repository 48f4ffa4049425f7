"""Networks of one and of three dimensions through the whole way: data, graph, training, a resumed run, the exported student."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import raysearch
from raysearch import load_config, prepare
from raysearch.data import Preprocessing, from_arrays
from raysearch.errors import ConfigError, DataError
from raysearch.files import RunFiles, read_json
from raysearch.problem import reopen
from tests.trainables.untrained import make_untrained, trial

SHAPES = {1: (2, 40), 3: (2, 4, 6, 5)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))


def _network(rank: int) -> nn.Module:
    convolution, pool = (
        (nn.Conv1d, nn.AdaptiveAvgPool1d) if rank == 1 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            convolution(2, 8, 3, padding=1),
            nn.ReLU(),
            convolution(8, 8, 3, padding=1),
            nn.ReLU(),
            pool(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        ).eval()


def _samples(rank: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two classes: channel 0 is brighter, or channel 1."""
    rng = np.random.default_rng(rank)
    labels = np.arange(count) % 2
    samples = rng.integers(0, 100, (count, *SHAPES[rank]), dtype=np.uint8)
    samples[np.arange(count), labels] += 100
    return samples, labels


def _config(storage: Path) -> dict[str, Any]:
    return {
        "budget": {"params": 0.5},
        "search": {"method": "random", "trials": 2},
        "distill": {"epochs": 1},
        "finish": {"students": 1, "epochs": 1},
        "baselines": [],
        "resources": {"device": "cpu"},
        "run": {"storage": str(storage), "name": "r"},
    }


@pytest.mark.parametrize("rank", [1, 3])
def test_samples_of_any_rank_are_normalised_by_channel(rank: int) -> None:
    samples, labels = _samples(rank)
    data = from_arrays((samples, labels), validation=6, sample=SHAPES[rank])
    assert data.shape == SHAPES[rank]
    assert data.augment == "none"
    axes = (0, *range(2, samples.ndim))
    train = data.train.images / 255
    assert np.allclose(data.preprocessing.mean, train.mean(axes))
    values = data.preprocessing(torch.from_numpy(data.train.images)).numpy()
    assert np.allclose(values.mean(axes), 0, atol=1e-5)
    assert np.allclose(values.std(axes), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"data.augment is 'crop', .*: set none"):
        from_arrays((samples, labels), augment="crop", sample=SHAPES[rank])
    with pytest.raises(DataError, match=r"data.resize is for images .*: leave it null"):
        from_arrays((samples, labels), resize=8, sample=SHAPES[rank])


@pytest.mark.parametrize("rank", [1, 3])
def test_a_trial_of_any_rank_trains(rank: int, tmp_path: Path) -> None:
    problem = prepare(
        load_config(_config(tmp_path)), teacher=_network(rank), data=(_samples(rank), None)
    )
    assert problem.architecture.input_shape == SHAPES[rank]
    result = trial(make_untrained(problem), str(problem.space.uniform())).train()
    assert result["num_params"] <= problem.architecture.num_params / 2
    assert np.isfinite(result["loss"])


@pytest.mark.parametrize("rank", [1, 3])
def test_cells_are_for_images_only(rank: int, tmp_path: Path) -> None:
    config = _config(tmp_path) | {"search": {"method": "bayes_nas", "trials": 2}}
    with pytest.raises(ConfigError, match=r"search.method is 'bayes_nas', .* choose another"):
        prepare(load_config(config), teacher=_network(rank), data=(_samples(rank), None))


def test_a_run_of_one_dimension_gives_a_student(tmp_path: Path) -> None:
    samples, labels = _samples(1)
    result = raysearch.compress(
        _network(1),
        ((samples, labels), (samples[:10], labels[:10])),
        config=_config(tmp_path),
        progress=False,
    )
    spec = importlib.util.spec_from_file_location("student_1d", result.best.path / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = RunFiles(result.path)
    stored = Preprocessing.from_dict(read_json(files.data)["preprocessing"])
    pixels = torch.from_numpy(samples[:7])
    assert torch.allclose(module.preprocess(pixels), stored(pixels), atol=1e-6)
    assert module.Student().eval()(module.preprocess(pixels)).shape == (7, 2)
    assert (
        reopen(load_config(files.config), files).data.shape == SHAPES[1]
    )  # no teacher in memory tells it
