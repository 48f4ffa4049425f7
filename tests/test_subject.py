"""Seeds: the run's, the data's and the teacher's; how arrays are meant; teachers that know nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from raysearch.config import load_config
from raysearch.errors import DataError
from raysearch.problem import check_teacher_accuracy
from raysearch.subject import load_data_set, load_graph


def parts(seeds):
    """The validation rows and the teacher's weights with these seeds."""
    config = load_config(None, seeds)
    data = load_data_set(config)
    teacher, _ = load_graph(config, data.num_classes, data.shape)
    return data.hash, torch.cat([p.flatten() for p in teacher.parameters()])


def test_runs_that_differ_in_their_seed_share_data_and_teacher_where_these_have_their_own():
    fixed = ["data.seed=0", "teacher.seed=0"]
    split, weights = parts(["run.seed=0"])
    for seed in (1, 2):
        same_split, same_weights = parts([f"run.seed={seed}", *fixed])
        assert same_split == split
        assert torch.equal(same_weights, weights)
    other_split, other_weights = parts(["run.seed=1"])
    assert other_split != split
    assert not torch.equal(other_weights, weights)


@pytest.mark.parametrize(
    ("stored", "convolution", "expected"),
    [
        ((8, 8, 4), nn.Conv2d(8, 2, 1), (8, 8, 4)),
        ((8, 8, 4), nn.Conv2d(4, 2, 1), (4, 8, 8)),
        ((50, 6, 1), nn.Conv2d(1, 2, 1), (1, 50, 6)),
        ((32, 32, 3), nn.Conv2d(1, 2, 1), (3, 32, 32)),
        ((1, 40), nn.Conv1d(1, 2, 1), (1, 40)),
        ((8, 40), nn.Conv2d(1, 2, 1), (1, 8, 40)),
    ],
)
def test_a_teacher_in_memory_tells_how_arrays_are_meant(stored, convolution, expected):
    arrays = ((np.zeros((20, *stored), np.uint8), np.arange(20) % 2), None)
    teacher = nn.Sequential(convolution)
    assert load_data_set(load_config(), arrays, teacher=teacher).shape == expected


def test_the_configured_shape_tells_how_the_arrays_of_a_callable_are_meant(tmp_path, monkeypatch):
    (tmp_path / "signals.py").write_text(
        "import numpy as np\ndef load(): return np.zeros((20, 2, 40)), np.arange(20) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {"data": {"name": "signals:load"}, "teacher": {"input_shape": [2, 40]}}
    assert load_data_set(load_config(config)).shape == (2, 40)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, r"teacher.weights: .* preprocessing do not fit"),
        (False, r"teacher.epochs: the teacher, trained here, .* on 270 images.*data.validation"),
    ],
)
def test_a_teacher_that_knows_nothing_is_refused_with_what_can_be_done(given, message):
    data = load_data_set(load_config(None, ["data.validation=270"]))
    with pytest.raises(DataError, match=message):
        check_teacher_accuracy(0.0, data, given=given)
