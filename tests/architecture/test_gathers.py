"""Layers that keep some of their inputs: which may, what their students are, and what they cost."""

import json

import numpy as np
import pytest

from raysearch.architecture import Architecture, Edits, EditsBatch, SearchSpace
from raysearch.architecture.checks import check
from raysearch.architecture.encoding import encode_architecture
from raysearch.errors import InvalidArchitecture
from raysearch.report.layers import compare_layers
from tests.thinned import thinned

SEEDS = range(20)


def perceptron(b):
    """LeNet-300-100 in small."""
    net = b(1, 6, 6)
    net.flatten()
    net.linear("fc1", 12)
    net.relu("relu1")
    net.linear("fc2", 8)
    net.relu("relu2")
    net.linear("fc3", 4)
    return net.done()


def lenet(b):
    """LeNet-5 in small, of images of three channels, whose first convolution an identity precedes."""
    net = b(3, 12, 12)
    net.add("named", "identity")
    net.conv("conv1", 4, kernel=5, padding=0, bias=True)
    net.pool("pool1", 2)
    net.conv("conv2", 6, padding=0, bias=True)
    net.flatten()
    net.linear("fc1", 10)
    net.relu("relu1")
    net.linear("fc2", 5)
    return net.done()


def residual(b):
    """A BatchNorm in front of the first convolution, a sum, linear layers of a sum and of positions."""
    net = b(3, 6, 6)
    net.bn("bn0")
    net.conv("conv1", 8, bias=True)
    first = net.relu("relu1")
    net.conv("conv2", 8, bias=True)
    net.add("sum", "add", net.last, first)
    net.linear("rows", 6)
    net.flatten()
    net.linear("fc1", 9)
    net.relu("relu2")
    net.linear("fc2", 9)
    net.relu("relu3")
    net.linear("logits", 4)
    return net.done()


NETS = {"perceptron": perceptron, "lenet": lenet, "residual": residual}


@pytest.fixture(params=NETS)
def space(request, builder):
    return SearchSpace(NETS[request.param](builder))


def test_linear_layers_and_convolutions_of_the_input_may_keep_some_inputs(builder):
    found = {}
    for name, make in NETS.items():
        space = SearchSpace(make(builder))
        found[name] = [space.teacher.layers[place].name for place in space.gatherable]
    assert found == {
        "perceptron": ["fc1", "fc2", "fc3"],
        "lenet": ["conv1", "fc1", "fc2"],
        "residual": ["fc1", "fc2", "logits"],
    }


def test_counts_texts_and_forms_are_those_of_the_student(space):
    """Counted from the attributes of the network that `apply` makes, which are checked as those of a file are."""
    edits = [thinned(space, seed) for seed in SEEDS]
    assert sum(bool(one.inputs) for one in edits) > 10
    batch = space.batch(edits)
    students = [space.apply(one) for one in edits]
    assert space.num_params(batch).tolist() == [one.num_params for one in students]
    assert space.macs(batch).tolist() == [one.macs for one in students]
    assert space.memory(batch).tolist() == [one.memory_bytes for one in students]
    for one, student in zip(edits, students, strict=True):
        assert space.parse(str(one)) == one
        assert check(student) == student
        assert Architecture.from_json(student.to_json()) == student
        assert Architecture.from_compact(student.to_compact()).id == student.id
        assert space.apply(student.to_compact()) == student
        bare = Edits(one.remove, one.widths, one.skips)
        plain = space.apply(bare)
        assert (plain.id == student.id) == (not one.inputs)
        assert encode_architecture(student).shape[0] == (
            encode_architecture(plain).shape[0] + len(one.inputs)
        )
        saved = 0
        for place, kept in one.inputs:
            layer = plain[space.teacher.layers[place].name]
            weight = layer.param_shapes["weight"]
            saved += int(np.prod(weight)) // weight[1] * (weight[1] - len(kept))
        assert plain.num_params - student.num_params == saved
        rows = {row.name: row for row in compare_layers(space.teacher, student)}
        assert not [name for name in rows if "gather" in name]
        shown = [row.skips for row in compare_layers(space.teacher, plain)]
        assert [row.skips for row in rows.values()] == shown


def test_the_report_says_that_the_input_is_thinner(builder):
    space = SearchSpace(perceptron(builder))
    edits = Edits((), space.largest().widths, (), ((space.teacher.index["fc1"], (1, 5)),))
    rows = compare_layers(space.teacher, space.apply(edits))
    assert [(row.name, row.change) for row in rows] == [
        ("fc1", "thinner input"),
        ("fc2", "kept"),
        ("fc3", "kept"),
    ]


def test_a_budget_counts_the_inputs_that_are_kept(builder):
    space = SearchSpace(perceptron(builder), budget={"params": 300})
    whole = space.largest()
    thin = Edits((), whole.widths, (), ((space.teacher.index["fc1"], (3, 7, 35)),))
    assert space.within_budget(whole).tolist() == [False]
    assert space.within_budget(space.batch([whole, thin, whole])).tolist() == [False, True, False]


def test_a_sum_is_gathered_for_one_reader_alone(builder):
    """fc2 reads relu2 and a skip; the layer behind relu2 by a skip reads all of it."""
    space = SearchSpace(residual(builder))
    index = space.teacher.index
    pairs = [tuple(pair) for pair in space.skip_pairs.tolist()]
    skip = pairs.index((index["fc1"], index["fc2"]))
    inputs = ((index["fc2"], (0, 4, 8)),)
    student = space.apply(Edits((), space.largest().widths, (skip,), inputs))
    gather, reader = student["fc2.gather"], student["fc2"]
    assert gather.inputs == (("relu2", "fc1"),)
    assert (gather.attrs, gather.shape) == ({"dim": 0, "index": [0, 4, 8]}, (3,))
    assert (reader.inputs, reader.attrs["in_features"]) == ((("fc2.gather",),), 3)
    assert student["relu2"].shape == (9,)
    assert check(student) == student


def test_a_removed_layer_lets_the_convolution_read_the_input(builder):
    space = SearchSpace(residual(builder))
    index, full = space.teacher.index, space.largest().widths
    inputs = ((index["conv1"], (0, 2)),)
    with pytest.raises(InvalidArchitecture, match=r"conv1.* does not read the network's input"):
        space.apply(Edits((), full, (), inputs))
    student = space.apply(Edits((index["bn0"],), full, (), inputs))
    assert student["conv1.gather"].shape == (2, 6, 6)
    assert check(student) == student


def test_a_name_that_is_taken_is_made_another(builder):
    net = builder(4)
    net.relu("fc.gather")
    net.linear("fc", 3)
    space = SearchSpace(net.done())
    student = space.apply(Edits((), (), (), ((space.teacher.index["fc"], (1,)),)))
    assert [layer.name for layer in student.layers] == ["x", "fc.gather", "fc.gather_", "fc"]


def test_illegal_inputs_are_refused_in_one_sentence(builder):
    space = SearchSpace(residual(builder))
    index, full = space.teacher.index, list(space.largest().widths)
    narrow = list(full)
    narrow[next(g.id for g in space.groups if "fc1" in g.producers)] = 4
    removed = next(place for place in space.removable if space.teacher.layers[place].op == "linear")
    cases = [
        ("layer 500: the teacher has", (), full, ((500, (0,)),)),
        ("which is a unary", (), full, ((index["relu1"], (0,)),)),
        ("does not read the network's input", (), full, ((index["conv2"], (0,)),)),
        ("maps another axis", (), full, ((index["rows"], (0,)),)),
        ("is removed", (removed,), full, ((removed, (0,)),)),
        ("keeps input 9: there are 9 in", (), full, ((index["fc2"], (0, 9)),)),
        ("keeps input 4: there are 4 in", (), narrow, ((index["fc2"], (0, 4)),)),
        ("keeps all 9: leave the layer out", (), full, ((index["fc2"], tuple(range(9))),)),
    ]
    for message, remove, widths, inputs in cases:
        edits = Edits(remove, tuple(widths), (), inputs)
        for attempt in (
            space.apply,
            lambda one: space.parse(str(one)),
            lambda one: space.macs(one),
        ):
            with pytest.raises(InvalidArchitecture, match=message) as caught:
                attempt(edits)
            assert "\n" not in str(caught.value)


def test_a_shared_weight_and_a_grouped_convolution_keep_all_inputs(builder):
    net = builder(4, 5, 5)
    net.conv("grouped", 4, groups=2)
    net.flatten()
    net.linear("one", 100)
    net.linear("two", 100)
    both = net.done()
    layers = list(both.layers)
    layers[-1] = type(layers[-1])(
        "two", "linear", layers[-1].inputs, layers[-1].attrs, layers[-1].shape, layers[-2].params
    )
    space = SearchSpace(Architecture(both.input_shape, tuple(layers), "two"))
    for name, message in (("one", "shares its weight"), ("grouped", "is a grouped convolution")):
        edits = Edits((), space.largest().widths, (), ((space.teacher.index[name], (0,)),))
        with pytest.raises(InvalidArchitecture, match=message):
            space.apply(edits)


def test_what_searches_make_of_such_students_has_all_inputs(space):
    """Mutations, variations and repairs drop them; encodings do not see them; a batch gives them back otherwise."""
    parents = space.batch([thinned(space, seed) for seed in SEEDS])
    bare = EditsBatch(parents.remove, parents.widths, parents.skip_rows, parents.skip_pairs)
    assert parents.inputs
    for made in (space.mutate(parents, 0), space.vary(parents, 0), space.repair(parents)):
        assert not made.inputs
        assert not len(made.input_rows)
    assert list(space.mutate(parents, 3)) == list(space.mutate(bare, 3))
    assert list(space.repair(parents)) == list(space.repair(bare))
    assert np.array_equal(space.encode(parents), space.encode(bare))
    assert np.array_equal(space.encode_compact(parents).dense(), space.encode(bare))


def test_a_space_without_any_operation_drops_the_inputs_of_what_it_mutates(builder):
    space = SearchSpace(perceptron(builder), operations=())
    inputs = ((space.teacher.index["fc1"], (1, 5)),)
    parent = Edits((), space.largest().widths, (), inputs)
    assert list(space.mutate(space.batch([parent]), 0)) == [space.largest()]


def test_a_student_with_a_gather_may_be_a_teacher(builder):
    """Its gathered channels are frozen; what it costs is counted as for all others."""
    first = SearchSpace(perceptron(builder))
    inputs = ((first.teacher.index["fc2"], (0, 3, 11)),)
    teacher = first.apply(Edits((), first.largest().widths, (), inputs))
    space = SearchSpace(teacher)
    assert [group.producers for group in space.groups] == [("fc2",)]
    batch = space.sample(10, 0)
    students = [space.apply(edits) for edits in batch]
    assert space.memory(batch).tolist() == [student.memory_bytes for student in students]
    assert space.macs(batch).tolist() == [student.macs for student in students]
    for student in students:
        assert check(student) == student


GATHER_DAMAGE = {
    "descending": [3, 1],
    "repeated": [1, 1],
    "empty": [],
    "negative": [-1, 2],
    "fraction": [0.5],
    "text": "01",
    "bool": [True],
    "missing": [0, 12],
}


@pytest.mark.parametrize("case", GATHER_DAMAGE)
def test_a_damaged_gather_in_a_file_is_refused(case, builder):
    space = SearchSpace(perceptron(builder))
    inputs = ((space.teacher.index["fc2"], (0, 3)),)
    data = space.apply(Edits((), space.largest().widths, (), inputs)).to_dict()
    gather = next(layer for layer in data["layers"] if layer["op"] == "gather")
    gather["attrs"] = {"dim": 0, "index": GATHER_DAMAGE[case]}
    expected = "index names place 12" if case == "missing" else "attrs.index is"
    with pytest.raises(InvalidArchitecture, match=f"fc2.gather.*{expected}"):
        Architecture.from_json(json.dumps(data))
