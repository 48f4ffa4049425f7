"""Where the channels are, and what slices, shuffles, permutations and reshapes do to them."""

import json
import math

import numpy as np
import pytest

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.architecture.channels import analyse
from raysearch.architecture.ops import OPS
from raysearch.architecture.variables import Variables
from raysearch.errors import InvalidArchitecture


def blocks(architecture, name):
    """(size, multiplicity) of a layer's output, and the reasons why they are frozen."""
    found = analyse(architecture)
    axis = found.outputs[architecture.index[name]]
    return [(found.variables[v].size, m) for v, m in axis]


def frozen(architecture, name):
    found = analyse(architecture)
    return [bool(found.variables[v].frozen) for v, _ in found.outputs[architecture.index[name]]]


@pytest.fixture
def map12(builder):
    """A map [12, 4, 6] and what is left to add to it."""
    b = builder(3, 4, 6)
    b.conv("stem", 12)
    return b


def finish(b):
    """A head for whatever shape has come of it."""
    if len(b.shape()) > 1:
        b.flatten("last_flatten")
    b.linear("logits", 2)
    return b.done()


def test_shapes_are_those_of_arrays():
    array = np.arange(3 * 4 * 6).reshape(3, 4, 6)
    cases = {
        ("permute", ("dims", (2, 0, 1)), ("contiguous", False)): array.transpose(2, 0, 1),
        ("slice", ("dim", 2), ("start", 1), ("stop", 6), ("step", 2)): array[:, :, 1:6:2],
        ("slice", ("dim", 0), ("start", 1), ("stop", 2), ("step", 1)): array[1:2],
        ("reshape", ("mode", "merge"), ("start", 1), ("end", 2)): array.reshape(3, 24),
        ("reshape", ("mode", "split"), ("dim", 2), ("sizes", (2, -1))): array.reshape(3, 4, 2, 3),
        ("reshape", ("mode", "flatten")): array.reshape(-1),
    }
    for (op, *attrs), expected in cases.items():
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in attrs}
        assert OPS[op].out_shape(plain, [array.shape]) == expected.shape


def test_the_axis_follows_permutations_reductions_and_reshapes(map12):
    axes = {}
    b = map12
    for name, op, attrs in (
        ("last", "permute", {"dims": [1, 2, 0], "contiguous": False}),
        ("rows", "reduce", {"fn": "mean", "dims": [0], "keepdim": False}),
        ("split", "reshape", {"mode": "split", "dim": 0, "sizes": [2, -1]}),
        ("parts", "reshape", {"mode": "split", "dim": 2, "sizes": [1, -1, 1]}),
        ("merged", "reshape", {"mode": "merge", "start": 0, "end": 2}),
        ("first", "permute", {"dims": [1, 2, 0], "contiguous": True}),
    ):
        b.add(name, op, **attrs)
        axes[name] = b.shape()
    network = finish(b)
    assert axes == {
        "last": (4, 6, 12),
        "rows": (6, 12),
        "split": (2, 3, 12),
        "parts": (2, 3, 1, 12, 1),
        "merged": (6, 12, 1),
        "first": (12, 1, 6),
    }
    places = {name: network.axis(name) for name in axes}
    assert places == {"last": 2, "rows": 1, "split": 2, "parts": 3, "merged": 1, "first": 0}
    assert all(axes[name][place] == 12 for name, place in places.items())
    assert blocks(network, "first") == [(12, 1)]
    assert not any(frozen(network, "first"))


def test_a_linear_layer_on_the_channel_axis_makes_channels(map12):
    map12.add("last", "permute", dims=[1, 2, 0], contiguous=False)
    map12.linear("wide", 20)
    map12.linear("narrow", 5)
    network = finish(map12)
    assert blocks(network, "wide") == [(20, 1)]
    variable = next(v for v in analyse(network).variables if v.size == 20)
    assert (variable.producers, variable.consumers) == (("wide",), ("narrow",))
    space = SearchSpace(network, operations=("shrink",))
    widths = {12: 7, 20: 9, 5: 4}
    student = space.apply(Edits(widths=tuple(widths[g.size] for g in space.groups)))
    assert student["wide"].attrs["in_features"] == 7
    assert student["narrow"].shape == (4, 6, 4)
    # a linear layer multiplies at each of the 4 x 6 places
    assert student["wide"].macs == 24 * 7 * 9


def test_a_slice_splits_the_channels_where_it_begins_and_ends(map12):
    map12.add("middle", "slice", "stem", dim=0, start=2, stop=9, step=1)
    network = finish(map12)
    assert blocks(network, "stem") == [(2, 1), (7, 1), (3, 1)]
    assert blocks(network, "middle") == [(7, 1)]
    space = SearchSpace(network, operations=("shrink",))
    assert [g.size for g in space.groups] == [2, 7, 3]
    student = space.apply(Edits(widths=(1, 4, 2)))
    assert student["stem"].attrs["out_channels"] == 7
    assert (student["middle"].attrs["start"], student["middle"].attrs["stop"]) == (1, 5)
    assert Architecture.from_json(student.to_json()) == student


def test_a_slice_within_repeated_channels_freezes_them(builder):
    b = builder(3, 4, 4)
    b.conv("stem", 4)
    b.conv("deep", 12, groups=4)  # each channel takes three places
    b.add("part", "slice", dim=0, start=4, stop=12, step=1)
    network = finish(b)
    assert all(frozen(network, "stem"))
    space = SearchSpace(network)
    assert space.apply(space.largest()) == network


@pytest.mark.parametrize(
    ("dim", "step", "free"), [(1, 1, True), (2, 2, True), (0, 2, False)], ids=str
)
def test_slices_of_places_leave_channels_alone_and_steps_over_channels_freeze(
    map12, dim, step, free
):
    map12.add("part", "slice", dim=dim, start=1, stop=4, step=step)
    network = finish(map12)
    assert frozen(network, "stem") == [not free]


def test_a_flattening_from_the_last_axis_repeats_the_whole_list(map12):
    map12.add("last", "permute", dims=[1, 2, 0], contiguous=False)
    map12.flatten("flat")
    map12.linear("logits", 2)
    network = map12.done()
    assert blocks(network, "flat") == [(12, 1)] * 24
    space = SearchSpace(network, operations=("shrink",))
    student = space.apply(Edits(widths=(5,)))
    assert student["logits"].attrs["in_features"] == 5 * 24
    assert space.num_params(Edits(widths=(5,)))[0] == student.num_params


def test_equal_parts_of_the_channels_become_the_same_channels(map12):
    map12.add("parts", "reshape", mode="split", dim=0, sizes=[3, -1])
    map12.add("sum", "reduce", fn="sum", dims=[0], keepdim=False)
    network = finish(map12)
    assert blocks(network, "stem") == [(4, 1)] * 3
    assert blocks(network, "sum") == [(4, 1)]


def test_runs_of_channels_stay_together(map12):
    map12.add("runs", "reshape", mode="split", dim=0, sizes=[-1, 3])
    map12.add("mean", "reduce", fn="mean", dims=[1], keepdim=False)
    network = finish(map12)
    assert blocks(network, "stem") == [(4, 3)]
    assert not any(frozen(network, "mean"))
    student = SearchSpace(network, operations=("shrink",)).apply(Edits(widths=(3,)))
    assert student["stem"].attrs["out_channels"] == 9


def test_shuffles_ask_for_widths_that_their_groups_divide(map12):
    map12.add("shuffle", "channel_shuffle", groups=4)
    network = finish(map12)
    (variable,) = (v for v in analyse(network).variables if v.size == 12)
    assert variable.divisor == 4
    assert not variable.frozen


def test_a_convolution_over_another_axis_freezes_the_channels(map12):
    map12.add("last", "permute", dims=[2, 1, 0], contiguous=False)  # [6, 4, 12]
    map12.conv("across", 8)
    network = finish(map12)
    assert all(frozen(network, "stem"))
    assert network.axis("across") == 0
    assert not any(frozen(network, "across"))
    student = SearchSpace(network, operations=("shrink",)).apply(Edits(widths=(3,)))
    assert student["across"].attrs["in_channels"] == 6
    assert student["across"].shape == (3, 4, 12)


def test_a_gate_with_the_channels_elsewhere_freezes_both(map12):
    map12.add("mean", "reduce", fn="mean", dims=[1, 2], keepdim=True)
    map12.add("turned", "permute", dims=[1, 2, 0], contiguous=False)  # [1, 1, 12]
    map12.conv("square", 6, source="stem")
    map12.add("wide", "pad", "square", pads=[3, 3], mode="constant", value=0.0)  # [6, 4, 12]
    map12.add("product", "binary", "wide", "turned", fn="mul")
    network = finish(map12)
    assert all(frozen(network, "stem"))
    assert not any(frozen(network, "square"))


class TestVariables:
    def test_runs_meet_single_channels(self):
        variables = Variables()
        left, right = variables.new(4), variables.new(12)
        assert variables.unify(((left, 3),), ((right, 1),)) == ((left, 3),)
        assert variables.resolve(((right, 2),)) == ((left, 6),)

    def test_runs_of_two_and_three_meet_in_runs_of_six(self):
        variables = Variables()
        left, right = variables.new(6), variables.new(4)
        (block,) = variables.unify(((left, 2),), ((right, 3),))
        assert (variables.size[block[0]], block[1]) == (2, 6)

    def test_runs_that_do_not_fit_are_frozen(self):
        variables = Variables()
        left, right = variables.new(2), variables.new(7)
        rest = variables.new(1)
        variables.unify(((left, 4),), ((right, 1), (rest, 1)))
        assert variables.length(((left, 4),)) == variables.length(((right, 1), (rest, 1))) == 8
        assert all(variables.frozen[v] for v, _ in variables.resolve(((left, 4),)))

    def test_a_cut_keeps_the_order_and_the_length(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            variables = Variables()
            own = [variables.new(int(rng.integers(1, 6))) for _ in range(3)]
            axis = tuple((int(rng.choice(own)), int(rng.integers(1, 3))) for _ in range(4))
            total = variables.length(axis)
            place = int(rng.integers(0, total + 1))
            cut = variables.cut(axis, place)
            if cut is not None:
                left, right = (variables.resolve(side) for side in cut)
                assert variables.length(left) == place
                assert left + right == variables.resolve(axis)


DAMAGE = {
    "slice": [
        ({"dim": 3}, "axis 3"),
        ({"start": -1}, "attrs.start"),
        ({"stop": 13}, "does not lie"),
        ({"start": 9}, "does not lie"),
        ({"step": 0}, "attrs.step"),
        ({"stop": 2.5}, "attrs.stop"),
        ({"stop": 10**30}, "attrs.stop"),
    ],
    "permute": [
        ({"dims": [0, 1]}, "attrs.dims"),
        ({"dims": [0, 0, 1]}, "attrs.dims"),
        ({"dims": "012"}, "attrs.dims"),
        ({"contiguous": 1}, "attrs.contiguous"),
    ],
    "channel_shuffle": [({"groups": 5}, "groups is 5"), ({"groups": 0}, "attrs.groups")],
    "merge": [
        ({"end": 3}, "attrs.end"),
        ({"end": 0}, "attrs.end"),
        ({"start": 2}, "attrs.end"),
        ({"mode": "exec"}, "attrs.mode"),
    ],
    "split": [
        ({"dim": 3}, "attrs.dim"),
        ({"sizes": [2, 6]}, "attrs.sizes"),
        ({"sizes": [-1, -1]}, "attrs.sizes"),
        ({"sizes": [0, -1]}, "attrs.sizes"),
        ({"sizes": [5, -1]}, "does not divide"),
        ({"sizes": [-2, 1]}, "attrs.sizes"),
    ],
}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [(name, change, words) for name, cases in DAMAGE.items() for change, words in cases],
)
def test_damage_is_refused_with_the_layer_and_the_field(map12, name, change, words):
    b = map12
    b.add("slice", "slice", "stem", dim=0, start=2, stop=9, step=1)
    b.add("permute", "permute", "stem", dims=[1, 2, 0], contiguous=False)
    b.add("channel_shuffle", "channel_shuffle", "stem", groups=4)
    b.add("merge", "reshape", "stem", mode="merge", start=0, end=1)
    b.add("split", "reshape", "stem", mode="split", dim=0, sizes=[3, -1])
    data = finish(b).to_dict()
    next(layer for layer in data["layers"] if layer["name"] == name)["attrs"].update(change)
    with pytest.raises(InvalidArchitecture, match=words) as caught:
        Architecture.from_json(json.dumps(data))
    assert name in str(caught.value)


def test_many_slices_of_one_tensor_are_read_quickly(builder):
    b = builder(3, 2, 2)
    b.conv("stem", 512)
    names = [
        b.add(f"s{i}", "slice", "stem", dim=0, start=i, stop=i + 1, step=1) for i in range(512)
    ]
    b.add("cat", "concat", *reversed(names), dim=0)
    network = finish(b)
    assert math.prod(network["cat"].shape) == 2048
    assert blocks(network, "cat") == [(1, 1)] * 512
