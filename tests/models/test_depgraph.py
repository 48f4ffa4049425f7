"""torch-pruning's students, written in our terms, against torch-pruning itself on the teacher's own module."""

import copy
import math
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

from raysearch.architecture import SearchSpace
from raysearch.errors import BudgetError, MissingPackageError, WeightsError
from raysearch.models import build, trace
from raysearch.models.depgraph import GlobalPruner, check_torch_pruning, prune_to_budget
from raysearch.models.keep import keep_sets
from raysearch.models.teachers.resnet import resnet
from raysearch.models.teachers.vgg import VGG

from .nets import Multiplied, OptionA

torch_pruning = pytest.importorskip("torch_pruning")

NETWORKS = {
    "resnet14": (lambda: resnet("resnet14", 10, (1, 8, 8)), (1, 8, 8)),
    "vgg6": (lambda: VGG(((16, 2), (32, 2)), 10, (1, 8, 8)), (1, 8, 8)),
    "torchvision resnet18": (lambda: torchvision.models.resnet18(num_classes=10), (3, 32, 32)),
    "torchvision squeezenet": (
        lambda: torchvision.models.squeezenet1_1(num_classes=10),
        (3, 48, 48),
    ),
    "torchvision mobilenet": (
        lambda: torchvision.models.MobileNetV2(10, width_mult=0.25),
        (3, 32, 32),
    ),
}


def batches(shape):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, *shape, generator=generator), torch.arange(8) % 10) for _ in range(2)]


def directly(teacher, shape, form, ratio):
    """What a user of torch-pruning gets: their own module, pruned; the classifier stays."""
    module = copy.deepcopy(teacher)
    if form == "taylor":
        for images, labels in batches(shape):
            cross_entropy(module(images), labels).backward()
        importance = torch_pruning.importance.GroupTaylorImportance()
    else:
        importance = torch_pruning.importance.MagnitudeImportance(p=2)
    filters = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    torch_pruning.pruner.MetaPruner(
        module,
        torch.zeros(1, *shape),
        importance=importance,
        global_pruning=True,
        isomorphic=form == "taylor",
        pruning_ratio=ratio,
        ignored_layers=filters[-1:],
    ).step()
    return module.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["l2", "taylor"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_student_has_the_channels_and_the_logits_of_torch_prunings_module(name, form, trained):
    make, shape = NETWORKS[name]
    teacher = trained(make()).eval()
    space = SearchSpace(trace(teacher, shape))
    pruner = GlobalPruner(space, teacher.state_dict(), form, lambda: batches(shape))
    found = pruner.pruned(0.55)
    student = space.apply(found.edits)
    keep = keep_sets(student, space.teacher, found.scores)
    ours = build(student, inherit_from=teacher, keep=keep).eval()
    theirs = directly(teacher, shape, form, 0.55)
    assert student.num_params < 0.6 * space.teacher.num_params
    assert student.num_params == sum(p.numel() for p in theirs.parameters())
    images = torch.randn(4, *shape)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)
    pruner.prove(0.55, found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["l2", "taylor"])
@pytest.mark.parametrize("budget", [{"params": 0.1}, {"params": 0.5, "macs": 0.2}, {"memory": 0.3}])
def test_the_budget_is_met_and_less_pruning_would_exceed_it(budget, form, trained):
    make, shape = NETWORKS["vgg6"]
    teacher = trained(make()).eval()
    space = SearchSpace(trace(teacher, shape), budget=budget)
    state = teacher.state_dict()
    found = prune_to_budget(space, state, form, lambda: batches(shape))
    assert space.within_budget(found.edits)[0]
    pruner = GlobalPruner(space, state, form, lambda: batches(shape))
    ratios = [n / 400 for n in range(400)]
    inside = [r for r in ratios if space.within_budget(pruner.pruned(r).edits)[0]]
    best = pruner.pruned(min(inside)).edits  # the least pruning of the grid
    for metric in (space.num_params, space.macs):
        assert metric(found.edits)[0] >= 0.97 * metric(best)[0]


@pytest.mark.filterwarnings("ignore")
def test_a_teacher_inside_the_budget_is_left_whole():
    make, shape = NETWORKS["vgg6"]
    teacher = make().eval()
    space = SearchSpace(trace(teacher, shape), budget={"params": 1.0})
    assert prune_to_budget(space, teacher.state_dict(), "l2", tuple).edits == space.largest()


def test_a_budget_below_torch_prunings_smallest_student_is_named():
    teacher = VGG(((8, 1), (16, 1)), 10, (1, 8, 8)).eval()
    architecture = trace(teacher, (1, 8, 8))
    smallest = SearchSpace(architecture, operations=("remove", "shrink")).smallest()
    free = SearchSpace(architecture)
    limit = math.ceil(int(free.num_params(smallest)[0]) * 1.01)
    space = SearchSpace(architecture, budget={"params": limit})
    with pytest.raises(BudgetError, match=r"smallest student has [\d,]+ parameters"):
        prune_to_budget(space, teacher.state_dict(), "l2", tuple)


def test_one_width_for_layers_of_a_size_is_not_torch_prunings(trained):
    make, shape = NETWORKS["vgg6"]
    teacher = trained(make()).eval()
    space = SearchSpace(trace(teacher, shape), grouping="by_size", budget={"params": 0.3})
    with pytest.raises(WeightsError, match=r"search\.first: .*space\.grouping to 'coupled'"):
        check_torch_pruning(space, teacher.state_dict(), "search.first")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Multiplied, (3, 16, 16)),  # torch-pruning stops with an error
        (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10), (3, 32, 32)),
    ],
)
def test_a_teacher_that_torch_pruning_does_not_understand_is_refused(make, shape):
    teacher = make().eval()
    space = SearchSpace(trace(teacher, shape), budget={"params": 0.3})
    with pytest.raises(WeightsError, match=r"baselines: pruning by 'l2' is not possible .*ours-l1"):
        check_torch_pruning(space, teacher.state_dict(), "baselines")


def test_without_torch_pruning_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    teacher = OptionA().eval()
    space = SearchSpace(trace(teacher, (3, 16, 16)), budget={"params": 0.3})
    with pytest.raises(
        MissingPackageError, match=r"search\.method 'prune': .*pip install 'raysearch\[prune\]'"
    ):
        check_torch_pruning(space, teacher.state_dict(), "search.method 'prune'")
