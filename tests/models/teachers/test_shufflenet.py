"""ShuffleNet against ESNAC's printed sizes and graph, and as a teacher whose students build and train."""

import pytest
import torch

from raysearch.architecture import SearchSpace
from raysearch.architecture.view import view
from raysearch.errors import ConfigError
from raysearch.models import build, load_teacher, num_parameters, trace
from raysearch.models.teachers.shufflenet import CONFIGURATIONS, UNITS, shufflenet

SHAPE = (3, 32, 32)

# (scale, groups) -> millions of parameters with 100 classes: the hand-made references of ESNAC's table 2
REFERENCES = {
    (0.5, 1): 0.26,
    (0.5, 2): 0.27,
    (0.5, 3): 0.27,
    (0.5, 4): 0.27,
    (0.5, 8): 0.31,
    (1.5, 1): 2.09,
    (1.5, 2): 2.07,
    (1.5, 3): 2.03,
    (1.5, 4): 1.99,
    (1.5, 8): 2.08,
}


@pytest.fixture(scope="module")
def networks():
    """insert_1x1 -> (a teacher in evaluation mode, its graph)."""
    found = {}
    for inserted in (True, False):
        torch.manual_seed(0)
        teacher = shufflenet(1, 2, inserted, num_classes=100).eval()
        found[inserted] = teacher, trace(teacher, SHAPE)
    return found


@pytest.mark.parametrize(("which", "millions"), REFERENCES.items())
def test_the_references_have_the_printed_number_of_parameters(which, millions):
    scale, groups = which
    found = num_parameters(shufflenet(scale, groups, num_classes=100))
    assert round(found / 1e6, 2) == millions


@pytest.mark.parametrize(("classes", "millions"), [(10, 0.99), (100, 1.06)])
def test_esnacs_teacher_has_the_printed_number_of_parameters(classes, millions):
    found = num_parameters(shufflenet(1, 2, insert_1x1=True, num_classes=classes))
    assert round(found / 1e6, 2) == millions


def test_the_inserted_convolutions_add_a_tenth():
    plain, inserted = (num_parameters(shufflenet(1, 2, flag)) for flag in (False, True))
    assert inserted - plain == (24**2 + 200**2 + 400**2) // 2
    assert 1.10 < inserted / plain < 1.12


def test_esnacs_teacher_has_the_layers_and_edges_of_its_code(networks):
    seen = view(networks[True][1])
    assert (len(seen.listed), len(seen.edges)) == (159, 174)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_name_says_scale_groups_and_insertion(name):
    module = load_teacher(name, num_classes=3, input_shape=(1, 5, 8))
    _, scale, groups, *inserted = name.split("_")
    wanted = shufflenet(float(scale[:-1]), int(groups[1:]), inserted == ["1x1"], num_classes=3)
    stem = 2 * wanted.conv1.weight.shape[0]  # one channel of the images and not three
    assert num_parameters(module) == num_parameters(wanted) - stem


@pytest.mark.parametrize(("scale", "groups"), [(1, 5), (0.37, 8), (0, 2), (0.1, 1), (1, "2")])
def test_widths_that_do_not_fit_are_refused_in_one_sentence(scale, groups):
    with pytest.raises(ConfigError, match="shufflenet: ") as caught:
        shufflenet(scale, groups)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inserted", [True, False])
def test_the_traced_network_gives_the_same_numbers(networks, inserted):
    teacher, architecture = networks[inserted]
    assert architecture.num_params == num_parameters(teacher)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        rebuilt = build(architecture, inherit_from=teacher).eval()
        assert torch.equal(rebuilt(images), teacher(images))


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
@pytest.mark.parametrize("inserted", [True, False])
def test_random_students_have_the_counted_size_and_learn(networks, grouping, inserted):
    teacher, architecture = networks[inserted]
    space = SearchSpace(architecture, grouping=grouping, divisor=1)
    batch = space.sample(6, seed=1)
    images, labels = torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, 3])
    for edits, expected in zip(batch, space.num_params(batch), strict=True):
        student = build(space.apply(edits), inherit_from=teacher)
        assert num_parameters(student) == expected <= architecture.num_params
        loss = torch.nn.functional.cross_entropy(student(images), labels)
        loss.backward()
        gradients = [p.grad for p in student.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_pooled_shortcuts_tie_the_widths_and_inserted_convolutions_free_them(networks):
    """The stem's channels reach the last stage through the poolings, unless a convolution stands before each."""
    reached = {}
    for inserted, (_, architecture) in networks.items():
        groups = SearchSpace(architecture, divisor=1).groups
        stem = next(group for group in groups if "conv1" in group.producers)
        reached[inserted] = {name.split(".")[1] for name in stem.producers if "stages" in name}
    assert reached[False] == set(map(str, range(len(UNITS))))
    assert reached[True] == set()


def test_every_width_can_shrink_to_its_groups(networks):
    space = SearchSpace(networks[True][1], ["shrink"], divisor=1)
    sizes = [layer.shape[0] for layer in space.apply(space.smallest()).layers if layer.op == "conv"]
    assert max(sizes) <= 4
