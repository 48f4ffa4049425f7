"""The ready configurations of N2N against the numbers that the paper prints."""

import pytest

from raysearch.models import num_parameters
from raysearch.models.teachers.registry import load_teacher
from raysearch.subject import load_graph, make_space
from searchers.registry import make_algorithm
from tests.papers import (
    CONFIGS,
    assert_nothing_is_left_to_defaults,
    assert_nothing_of_ours_is_added,
    ready,
)

# model, classes, images, the printed parameters in millions and the digits that are printed
TEACHERS = {
    "mnist_vgg13": ("vgg13", 10, (1, 28, 28), 9.4, 1),
    "cifar10_vgg19": ("vgg19", 10, (3, 32, 32), 20.0, 1),  # printed: 20.2, see the file
    "cifar10_resnet18": ("resnet18", 10, (3, 32, 32), 11.17, 2),
    "cifar10_resnet34": ("resnet34", 10, (3, 32, 32), 21.28, 2),
    "cifar100_resnet18": ("resnet18", 100, (3, 32, 32), 11.22, 2),
    "cifar100_resnet34": ("resnet34", 100, (3, 32, 32), 21.33, 2),
    "svhn_resnet18": ("resnet18", 10, (3, 32, 32), 11.17, 2),
    "caltech256_resnet18": ("torchvision:resnet18", 257, (3, 224, 224), 11.31, 2),
    "imagenet32_resnet34": ("resnet34", 1000, (3, 32, 32), 21.79, 2),
}
READY = [*(f"n2n/{name}" for name in TEACHERS), "digits_n2n", "n2n_transfer"]
STAGE_ONE_ALONE = {"cifar100_resnet34", "imagenet32_resnet34"}

SEARCH = {"method": "n2n", "first": [], "warm_start": None}
OPTIONS = {
    "faithful": True,
    "iterations": 100,
    "lr_removal": 0.003,
    "lr_shrinkage": 0.01,
    "hidden_removal": 30,
    "hidden_shrinkage": 50,
    "constraints": None,
}
DISTILL = {
    "loss": "logits_mse",
    "mean_over_classes": False,
    "epochs": 5,
    "optimizer": "adam_l2",
    "lr": 5e-4,
    "weight_decay": 5e-4,
    "schedule": "constant",
    "clip_norm": 0,
    "recalibrate": False,
    "inherit": "none",
}
# epochs of teacher and student, rate, batch, milestones, factor
FINAL = {
    "mnist": (50, 0.01, 64, [30], 0.1),
    "cifar10": (150, 0.001, 128, [80, 120], 0.1),
    "cifar100": (150, 0.001, 128, [80, 120], 0.1),
    "svhn": (150, 0.001, 128, [80, 120], 0.1),
    "caltech256": (50, 0.01, 128, [], 0.1),
    "imagenet32": (40, 0.01, 128, [10, 20, 30], 0.2),
}


def of_paper(name):
    return ready(f"n2n/{name}")


def test_there_is_a_file_for_each_teacher_and_data_set():
    assert sorted(file.stem for file in (CONFIGS / "n2n").iterdir()) == sorted(TEACHERS)


@pytest.mark.parametrize("name", TEACHERS)
def test_the_papers_numbers_stand_in_each_file(name):
    config = of_paper(name)
    data, _ = name.split("_")
    assert config.teacher.model == TEACHERS[name][0]
    assert (config.budget, config.objective, config.schedule.name) == (None, "f", "fifo")
    search, distill, finish = (
        section.model_dump() for section in (config.search, config.distill, config.finish)
    )
    assert {key: search[key] for key in SEARCH} == SEARCH
    options = search["options"]
    assert {key: options[key] for key in OPTIONS} == OPTIONS
    assert options["stages"] == ("remove" if name in STAGE_ONE_ALONE else "both")
    assert options["rollouts"] == (3 if data == "imagenet32" else 5)
    stages = 1 if name in STAGE_ONE_ALONE else 2
    assert search["trials"] == 100 * options["rollouts"] * stages
    assert {key: distill[key] for key in DISTILL} == DISTILL
    assert (finish["students"], finish["init"]) == (1, "fresh")
    epochs, lr, batch, milestones, gamma = FINAL[data]
    assert config.teacher.epochs == finish["epochs"] == epochs
    assert (finish["lr"], finish["milestones"], finish["gamma"]) == (lr, milestones, gamma)
    assert finish["batch_size"] == distill["batch_size"] == batch


@pytest.mark.parametrize("name", READY)
def test_nothing_is_taken_from_our_defaults_in_silence(name):
    assert_nothing_is_left_to_defaults(name)


@pytest.mark.parametrize("name", READY)
def test_nothing_of_ours_comes_before_beside_or_between(name):
    assert_nothing_of_ours_is_added(ready(name))


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_have_the_printed_sizes(name):
    config = of_paper(name)
    _, classes, shape, millions, digits = TEACHERS[name]
    module = load_teacher(config.teacher.model, num_classes=classes, input_shape=shape)
    assert round(num_parameters(module) / 1e6, digits) == millions
    asked = config.teacher.input_shape
    assert asked is not None
    assert tuple(asked) == shape


def test_caltech_s_printed_size_does_not_tell_256_classes_from_257():
    """The set has 257 folders, one of them clutter; the paper does not say."""
    model = of_paper("caltech256_resnet18").teacher.model
    sizes = [
        num_parameters(load_teacher(model, num_classes=classes, input_shape=(3, 224, 224)))
        for classes in (256, 257)
    ]
    assert sizes == [11_307_840, 11_308_353]


@pytest.fixture(scope="module")
def space():
    config = of_paper("mnist_vgg13")
    _, architecture = load_graph(config, 10, (1, 28, 28))
    return make_space(config, architecture)


@pytest.mark.parametrize("name", READY)
def test_the_method_takes_the_options(name, space):
    search = ready(name).search
    method = make_algorithm(search.method, space, options=search.options, num_trials=search.trials)
    assert getattr(method, "faithful", None) is True


def test_the_transfer_differs_from_its_source_in_teacher_and_warm_start_alone():
    source, transfer = (ready(name).model_dump() for name in ("digits_n2n", "n2n_transfer"))
    assert (source["teacher"].pop("model"), transfer["teacher"].pop("model")) == (
        "resnet14",
        "resnet20",
    )
    assert source["search"].pop("warm_start") is None
    assert transfer["search"].pop("warm_start") == "runs/digits_n2n"
    assert source == transfer


def test_the_small_example_differs_from_the_paper_where_it_says_so():
    config = ready("digits_n2n")
    paper = of_paper("cifar10_resnet18").model_dump()
    differ = {
        f"{name}.{key}" if isinstance(section, dict) else name
        for name, section in config.model_dump().items()
        for key in (section if isinstance(section, dict) else [name])
        if (section[key] if isinstance(section, dict) else section)
        != (paper[name][key] if isinstance(section, dict) else paper[name])
    }
    assert differ == {
        "teacher.model",
        "teacher.input_shape",
        "teacher.epochs",
        "data.name",
        "data.validation",
        "data.augment",
        "search.trials",
        "search.options",
        "distill.lr",
        "distill.batch_size",
        "distill.views",
        "finish.epochs",
        "finish.optimizer",
        "finish.lr",
        "finish.batch_size",
        "finish.milestones",
        "finish.views",
        "finish.clip_norm",
    }
