"""The ready configurations of Architecture Compression against the numbers that the paper fixes."""

import shlex

import pytest

from raysearch.config import load_config
from raysearch.models import load_teacher, num_parameters
from raysearch.plan import effort_of
from raysearch.subject import load_graph, make_space
from searchers.registry import make_algorithm
from tests.papers import (
    CONFIGS,
    assert_nothing_is_left_to_defaults,
    assert_nothing_of_ours_is_added,
    ready,
)

# classes, shape, parameters with our widths and the printed ones; the final recipe: epochs, rate, batch, milestones; steps of the fit
PAPER = {
    "fashion_mnist_conv7": (10, (1, 28, 28), 707_754, 0.708, (50, 0.01, 64, [30]), 80_000),
    "cifar10_conv10": (10, (3, 32, 32), 24_351_562, 24.4, (150, 0.001, 128, [80, 120]), 100_000),
    "cifar100_conv10": (100, (3, 32, 32), 24_443_812, 24.4, (150, 0.001, 128, [80, 120]), 100_000),
    "svhn_conv10": (10, (3, 32, 32), 24_351_562, 24.4, (150, 0.001, 128, [80, 120]), 80_000),
}
READY = [*(f"architecture_compression/{name}" for name in PAPER), "digits_embedding"]

DISTILL = {
    "loss": "ce",
    "epochs": 5,
    "repeats": 5,
    "optimizer": "adam_l2",
    "weight_decay": 0,
    "schedule": "constant",
    "clip_norm": 0,
    "recalibrate": False,
    "value_epoch": "last",
    "inherit": "none",
}
FINISH = {
    "init": "fresh",
    "loss": "ce",
    "optimizer": "adam_l2",
    "weight_decay": 0,
    "schedule": "step",
    "gamma": 0.1,
    "halving": False,
    "clip_norm": 0,
    "recalibrate": False,
}


def of_paper(name):
    return ready(f"architecture_compression/{name}")


def test_there_is_a_file_for_each_teacher_and_data_set():
    found = (CONFIGS / "architecture_compression").iterdir()
    assert sorted(file.stem for file in found) == sorted(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers_stand_in_each_file(name):
    config = of_paper(name)
    _, shape, _, _, final, steps = PAPER[name]
    data, _, model = name.rpartition("_")
    assert (config.data.name, config.teacher.model) == (data, model)
    assert config.teacher.input_shape == list(shape)
    assert (config.budget, config.objective, config.baselines) == (None, "f", [])
    distill, finish = config.distill.model_dump(), config.finish.model_dump()
    assert {key: distill[key] for key in DISTILL} == DISTILL
    assert {key: finish[key] for key in FINISH} == FINISH
    epochs, lr, batch, milestones = final
    assert (finish["epochs"], finish["lr"], finish["milestones"]) == (epochs, lr, milestones)
    assert config.teacher.epochs == epochs
    assert (distill["lr"], distill["batch_size"], finish["batch_size"]) == (lr, batch, batch)
    options = config.search.options
    assert options["faithful"] is options["chains"] is True
    assert (options["num_initial"], options["sampler"]) == (1500, "paper")
    assert (options["a_0"], options["p_0"], options["fit_steps"]) == (1.0, 0.0, steps)
    assert config.search.trials == 1500 + len(options["eta"]) * len(options["lam"])
    assert effort_of(config).epochs_of_trial == 25


@pytest.mark.parametrize("name", PAPER)
def test_teachers_have_the_printed_sizes(name):
    classes, shape, params, printed, _, _ = PAPER[name]
    model = of_paper(name).teacher.model
    assert num_parameters(load_teacher(model, num_classes=classes, input_shape=shape)) == params
    assert params / 1e6 == pytest.approx(printed, rel=3e-3)


@pytest.fixture(scope="module", params=["fashion_mnist_conv7", "cifar10_conv10"])
def space(request):
    """Of one file for each network."""
    config = of_paper(request.param)
    classes, shape, params, _, _, _ = PAPER[request.param]
    _, architecture = load_graph(config, classes, shape)
    assert architecture.num_params == params
    return make_space(config, architecture)


def test_the_method_takes_the_options(space):
    for name in PAPER:
        search = of_paper(name).search
        method = make_algorithm(search.method, space, options=search.options)
        assert (method.faithful, method.num_initial) == (True, 1500)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_command_in_the_small_ones_comment_is_the_papers_form():
    """Options are merged with those of the file, which asks for edits."""
    file = CONFIGS / "digits_embedding.yaml"
    line = next(one for one in file.read_text("utf-8").splitlines() if "faithful: true" in one)
    _, _, _, _, path, *overrides = shlex.split(line.removeprefix("#"))
    assert CONFIGS.parent / path == file
    config = load_config(file, overrides)
    _, architecture = load_graph(config, 10, (1, 8, 8))
    method = make_algorithm(
        config.search.method, make_space(config, architecture), options=config.search.options
    )
    options = method.step_options  # pyright: ignore[reportAttributeAccessIssue]
    assert options.faithful is options.chains is True
    assert config.search.trials == 40 + len(options.eta) * len(options.lam)


@pytest.mark.parametrize("name", READY)
def test_nothing_is_taken_from_our_defaults_in_silence(name):
    assert_nothing_is_left_to_defaults(name)


@pytest.mark.parametrize("name", READY)
def test_nothing_of_ours_comes_before_beside_or_between(name):
    assert_nothing_of_ours_is_added(ready(name))
