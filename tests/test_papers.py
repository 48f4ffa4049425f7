"""The ready configurations of ESNAC against the numbers that the paper fixes."""

import pytest

from raysearch.architecture.view import view
from raysearch.models import load_teacher, num_parameters
from raysearch.subject import load_graph, make_space
from searchers.registry import make_algorithm
from tests.papers import (
    CONFIGS,
    assert_nothing_is_left_to_defaults,
    assert_nothing_of_ours_is_added,
    ready,
)

DATA = {"cifar10": 10, "cifar100": 100}

# the printed parameters with 10 and 100 classes in millions; layers, widths and pairs of the search space, which are the
# paper's 1717 dimensions of ResNet-34
TEACHERS = {
    "vgg19": ("vgg19", (20.04, 20.09), (55, 4, 294)),
    "resnet18": ("resnet18", (11.17, 11.22), (60, 4, 465)),
    "resnet34": ("resnet34", (21.28, 21.33), (108, 4, 1605)),
    "shufflenet": ("shufflenet_1x_g2_1x1", (0.99, 1.06), (159, 7, 1992)),
}
ESNAC = [f"{data}_{teacher}" for data in DATA for teacher in TEACHERS]
READY = [*(f"esnac/{name}" for name in ESNAC), "digits_esnac"]

NUMBERS = {
    "data": {"path": None, "validation": 5000, "augment": "flip_crop"},
    "space": {
        "operations": ["remove", "shrink", "skip"],
        "grouping": "by_size",
        "divisor": 1,
        "min_channels": 1,
    },
    "search": {
        "method": "multi_kernel_bo",
        "trials": 20 * 8,
        "first": [],
        "options": {"faithful": True},
    },
    "distill": {
        "loss": "logits_mse",
        "mean_over_classes": True,
        "epochs": 10,
        "optimizer": "adam_l2",
        "lr": 1e-3,
        "weight_decay": 5e-4,
        "batch_size": 128,
        "schedule": "constant",
        "clip_norm": 0,
        "recalibrate": False,
        "value_epoch": "best",
        "inherit": "first",
    },
    "schedule": {"name": "fifo"},
    "finish": {
        "students": 4,
        "halving": False,
        "init": "search",
        "loss": "ce",
        "epochs": 300,
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "batch_size": 128,
        "schedule": "step",
        "milestones": [100, 200],
        "gamma": 0.1,
        "clip_norm": 0,
        "recalibrate": False,
    },
}


def of_esnac(name):
    return ready(f"esnac/{name}")


def test_there_is_a_file_for_each_teacher_and_data_set():
    assert sorted(file.stem for file in (CONFIGS / "esnac").iterdir()) == sorted(ESNAC)


@pytest.mark.parametrize("name", ESNAC)
def test_the_papers_numbers_stand_in_each_file(name):
    config = of_esnac(name)
    data, teacher = name.split("_")
    assert (config.data.name, config.teacher.model) == (data, TEACHERS[teacher][0])
    assert (config.budget, config.objective, config.baselines) == (None, "f", ["random"])
    resolved = config.model_dump()
    for section, values in NUMBERS.items():
        assert {key: resolved[section][key] for key in values} == values


@pytest.mark.parametrize("name", READY)
def test_nothing_is_taken_from_our_defaults_in_silence(name):
    assert_nothing_is_left_to_defaults(name)


@pytest.mark.parametrize("name", ESNAC)
def test_teachers_have_the_printed_parameters(name):
    data, teacher = name.split("_")
    model = of_esnac(name).teacher.model
    module = load_teacher(model, num_classes=DATA[data], input_shape=(3, 32, 32))
    assert round(num_parameters(module) / 1e6, 2) == TEACHERS[teacher][1][data == "cifar100"]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_spaces_have_the_papers_sizes_and_the_method_takes_the_options(teacher):
    """With ten classes: the classes change neither layers nor widths nor pairs."""
    config = of_esnac(f"cifar10_{teacher}")
    _, architecture = load_graph(config, 10, (3, 32, 32))
    space = make_space(config, architecture)
    _, millions, (layers, widths, pairs) = TEACHERS[teacher]
    seen = view(architecture)
    assert round(architecture.num_params / 1e6, 2) == millions[0]
    assert (len(seen.listed), len(space.groups)) == (layers, widths)
    assert len(space.skip_pairs) + len(seen.edges) == pairs
    assert not [group for group in space.groups if group.frozen]
    batch = space.sample(20, seed=0)
    assert (space.num_params(batch) <= architecture.num_params).all()
    method = make_algorithm(config.search.method, space, options=config.search.options)
    assert getattr(method, "faithful", None) is True


@pytest.mark.parametrize("name", READY)
def test_nothing_of_ours_comes_before_beside_or_between(name):
    assert_nothing_of_ours_is_added(ready(name))


def test_the_small_example_differs_from_the_paper_where_it_says_so():
    config, paper = ready("digits_esnac"), of_esnac("cifar10_resnet18")
    differ = {
        f"{name}.{key}" if isinstance(section, dict) else name
        for name, section in config.model_dump().items()
        for key in (section if isinstance(section, dict) else [name])
        if section != paper.model_dump()[name]
        and (not isinstance(section, dict) or section[key] != paper.model_dump()[name][key])
    }
    assert differ == {
        "teacher.model",
        "teacher.input_shape",
        "teacher.epochs",
        "data.name",
        "data.validation",
        "data.augment",
        "search.trials",
        "distill.lr",
        "distill.batch_size",
        "distill.views",
        "finish.epochs",
        "finish.batch_size",
        "finish.milestones",
        "finish.views",
    }
