"""Seeds: the run's, the data's and the teacher's; how arrays are meant; teachers in memory, their precision, and what is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import raysearch
from raysearch.config import load_config
from raysearch.errors import ConfigError, DataError
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


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    return nn.Sequential(*layers)


def make_half():
    """A teacher by its path, as `teacher.model` names it."""
    return network().half()


def test_a_module_without_a_length_is_the_teacher_all_the_same():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def __len__(self):
            return 0

        def forward(self, x):
            return self.body(x)

    given = Listed()
    module, architecture = load_graph(load_config(), 10, (1, 8, 8), given)
    assert architecture.num_params == sum(p.numel() for p in given.parameters())
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(module(x), given.eval()(x))


def test_the_callers_module_keeps_its_mode_and_its_precision():
    given = network().train().double()
    given[1].eval()
    notes: list[str] = []
    module, _ = load_graph(load_config(), 10, (1, 8, 8), given, notes=notes)
    assert given.training
    assert not given[1].training
    assert not module.training
    assert {p.dtype for p in given.parameters()} == {torch.float64}
    assert notes == ["the teacher's float64 weights were cast to float32"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_teacher_of_another_precision_is_cast_to_float32(dtype):
    given = network().to(dtype)
    module, _ = load_graph(load_config(), 10, (1, 8, 8), given)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, given.state_dict()[key].float())
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_a_half_teacher_of_a_callable_is_cast_and_noted():
    config = load_config({"teacher": {"model": "tests.test_subject:make_half"}, "budget": None})
    problem = raysearch.prepare(config)
    assert {p.dtype for p in problem.teacher.parameters()} == {torch.float32}
    assert problem.notes == ("the teacher's float16 weights were cast to float32",)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (nn.Sequential, "the class Sequential.*an instance"),
        (network, "the function network.*call it"),
        ({"0.weight": torch.zeros(1)}, "state_dict.*load_state_dict"),
        (Path("weights.pt"), "weights.pt.*'weights'"),
        (3, "of type int.*Module"),
    ],
)
def test_what_is_no_module_is_one_sentence(teacher, words):
    with pytest.raises(ConfigError, match=f"teacher: .*{words}"):
        raysearch.compress(teacher)
    with pytest.raises(ConfigError, match=f"teacher: .*{words}"):
        raysearch.prepare(load_config(), teacher=teacher)


def test_a_module_and_a_weights_file_are_not_both_taken():
    config = load_config({"teacher": {"weights": "mine.pt"}})
    with pytest.raises(ConfigError, match=r"teacher.weights: 'mine.pt'.*null"):
        raysearch.prepare(config, teacher=network())


def test_of_equally_similar_names_that_with_the_same_beginning_is_suggested():
    with pytest.raises(ConfigError, match=r"did you mean 'resnet1[48]'"):
        load_graph(load_config(None, "teacher.model=resnet15"), 10, (1, 8, 8))
