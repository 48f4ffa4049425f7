"""The ready configurations of BayesNAS: nothing by silence, and what the thesis prints."""

from dataclasses import fields

import pytest

from raysearch.bayesnas.cells import SuperNetSettings
from raysearch.bayesnas.compression import CompressionSettings
from raysearch.models import num_parameters
from raysearch.models.teachers.registry import load_teacher
from searchers.registry import make_algorithm
from searchers.testing import make_chain_space
from tests.papers import (
    CONFIGS,
    assert_nothing_is_left_to_defaults,
    assert_nothing_of_ours_is_added,
    ready,
    written,
)

COMPRESSIONS = ["bayesnas_lenet300", "bayesnas_lenet5", "bayesnas_resnet18"]
SEARCHES = ["bayesnas_cells", "bayesnas_cells_small", "bayesnas_proxyless"]
READY = [*COMPRESSIONS, *SEARCHES, "digits_bayes"]

# model, classes, image, the parameters of recipes.md
TEACHERS = {
    "bayesnas_lenet300": ((1, 28, 28), 266_610),
    "bayesnas_lenet5": ((1, 28, 28), 431_080),
    "bayesnas_resnet18": ((3, 32, 32), 11_173_962),
}


def test_there_is_a_test_for_each_file():
    found = {file.stem for file in CONFIGS.glob("*bayes*.yaml")}
    assert found == set(READY)


@pytest.mark.parametrize("name", READY)
def test_nothing_is_taken_from_our_defaults_in_silence(name):
    assert_nothing_is_left_to_defaults(name)
    kind = SuperNetSettings if name in SEARCHES else CompressionSettings
    named = {field.name for field in fields(kind)} | {"lambda_search", "lambdas"}
    assert set(written(name)["search"]["options"]) == named


@pytest.mark.parametrize("name", READY)
def test_the_method_takes_the_options(name):
    search = ready(name).search
    space = make_chain_space((8, 8))
    method = make_algorithm(search.method, space, options=search.options, num_trials=search.trials)
    settings = method.settings
    assert type(settings).from_dict(settings.to_dict()) == settings
    assert method.num_runs == len(search.options["lambdas"])
    assert [method.ask_run().extra["lam"] for _ in range(method.num_runs)] == search.options[
        "lambdas"
    ]


@pytest.mark.parametrize("name", [*COMPRESSIONS, *SEARCHES])
def test_nothing_of_ours_comes_before_beside_or_between(name):
    config = ready(name)
    assert_nothing_of_ours_is_added(config)
    assert (config.schedule.name, config.baselines) == ("fifo", [])


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_have_the_printed_number_of_parameters(name):
    shape, expected = TEACHERS[name]
    teacher = load_teacher(ready(name).teacher.model, num_classes=10, input_shape=shape)
    assert num_parameters(teacher) == expected


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_the_thesis_s_schedule_and_groups_stand_in_each_compression(name):
    options = ready(name).search.options
    assert (options["updates"], options["interval"]) == (10, 10)
    assert set(options["conv_groups"]) == {"shape", "filter"}
    assert set(options["linear_groups"]) == {"row", "column"}
    assert options["start"] == "teacher"


@pytest.mark.parametrize(("name", "batch"), [("bayesnas_cells", 18), ("bayesnas_proxyless", 32)])
def test_the_thesis_s_protocol_stands_in_each_search(name, batch):
    config = ready(name)
    options = config.search.options
    assert options["faithful"] is True
    assert (options["batch_size"], options["lr"], options["momentum"]) == (batch, 0.1, 0.9)
    assert (options["weight_decay"], options["lambdas"]) == (1e-4, [0.01])
    if options["kind"] == "cells":
        assert (options["num_cells"], options["student_cells"]) == (8, 20)
        assert config.finish.batch_size == 128
    else:
        assert (options["blocks"], options["alpha"], options["groups"]) == (18, 84, 2)
        assert (config.finish.batch_size, config.finish.lr) == (64, 0.1)
        assert config.finish.schedule == "cosine"
    assert (config.finish.init, config.finish.students) == ("fresh", 1)
