"""Operations with parameters along the channels, and opaque layers, without torch."""

import json
import math

import numpy as np
import pytest

from raysearch.architecture import Architecture, SearchSpace
from raysearch.architecture.encoding import encode_architecture
from raysearch.architecture.parametric import channel_entry
from raysearch.architecture.programs import check_program, label, operands
from raysearch.errors import InvalidArchitecture

PROGRAM = {
    "steps": [
        ["aten.reshape.default", [{"slot": 0}, [{"batch": 2}, -1]], {}],
        ["aten.mul.Tensor", [{"step": 0}, {"state": "scale"}], {}],
        ["aten.view_as.default", [{"step": 1}, {"slot": 0}], {}],
    ],
    "result": {"step": 2},
}


def opaque(b, name="opaque"):
    shape = list(b.shape())
    return b.add(
        name,
        "opaque",
        program=PROGRAM,
        in_shapes=[shape],
        out_shape=shape,
        macs=1000,
        params={"scale": [1]},
        buffers={},
        dtypes={},
        view=False,
    )


def network(builder):
    """Every operation of `parametric.py`, on channels first and last, and an opaque layer before the last convolution."""
    b = builder(3, 8, 6)
    b.add("shift", "param_binary", fn="sub", shape=[3, 1, 1], reverse=False)
    b.conv("stem", 16)
    b.add("group", "group_norm", groups=4, num_channels=16, eps=1e-5, affine=True)
    b.add("alone", "group_norm", groups=16, num_channels=16, eps=1e-5, affine=False)
    b.add("slope", "prelu", num_parameters=16)
    b.add(
        "instance",
        "instance_norm",
        num_features=16,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track=True,
    )
    b.add("whole", "layer_norm", shape=[16, 8, 6], eps=1e-5, affine=True, bias=False)
    b.add("rows", "rms_norm", shape=[6], eps=None, affine=True)
    b.add("gamma", "param_binary", fn="mul", shape=[1, 16, 1, 6], reverse=False)
    b.add("gate", "param_binary", fn="div", shape=[], reverse=True)
    b.add("last", "permute", dims=[1, 2, 0], contiguous=False)
    b.add("norm", "layer_norm", shape=[16], eps=1e-6, affine=True, bias=True)
    b.linear("up", 24)
    b.add("scale", "param_binary", fn="mul", shape=[24], reverse=False)
    b.add("first", "permute", dims=[2, 0, 1], contiguous=True)
    window = {"kernel": [3, 2], "stride": [2, 1], "padding": [1, 0], "dilation": [1, 1]}
    b.add(
        "transposed",
        "conv_transpose",
        in_channels=24,
        out_channels=20,
        output_padding=[1, 0],
        groups=2,
        bias=True,
        **window,
    )
    b.add("wider", "resize", fn="nearest", size=[20, 9], scale=None, align_corners=None)
    b.conv("middle", 10)
    opaque(b)
    b.conv("head", 12)
    b.mean()
    b.linear("logits", 5)
    return b.done()


def count(architecture):
    """Parameters from the attributes alone."""
    total = 0
    for layer in architecture.layers:
        a = layer.attrs
        total += {
            "conv": lambda a: a["out_channels"] * a["in_channels"] * math.prod(a["kernel"]),
            "conv_transpose": lambda a: (
                a["in_channels"] * a["out_channels"] // a["groups"] * math.prod(a["kernel"])
                + a["out_channels"]
            ),
            "linear": lambda a: a["out_features"] * (a["in_features"] + 1),
            "group_norm": lambda a: 2 * a["num_channels"] * a["affine"],
            "instance_norm": lambda a: 2 * a["num_features"] * a["affine"],
            "prelu": lambda a: a["num_parameters"],
            "layer_norm": lambda a: (1 + a["bias"]) * math.prod(a["shape"]),
            "rms_norm": lambda a: math.prod(a["shape"]),
            "param_binary": lambda a: math.prod(a["shape"]),
            "opaque": lambda _: 1,
        }.get(layer.op, lambda _: 0)(a)
    return total


def test_fast_counts_are_those_of_the_applied_students(builder):
    teacher = network(builder)
    space = SearchSpace(teacher, divisor=1)
    batch = space.sample(60, 0)
    for edits, params, macs in zip(batch, space.num_params(batch), space.macs(batch), strict=True):
        student = space.apply(edits)
        assert student.num_params == params == count(student)
        assert student.macs == macs
        assert Architecture.from_json(student.to_json()) == student


def test_all_channels_but_those_around_an_opaque_layer_are_free(builder):
    space = SearchSpace(network(builder), divisor=1)
    assert [group.size for group in space.groups] == [16, 24, 20, 12]
    assert [group.alignment for group in space.groups] == [4, 2, 2, 1]
    reasons = {group.reason for group in space.frozen_groups}
    assert "opaque (view_as) is replayed as it is" in reasons


def test_batches_are_encoded_like_single_students(builder):
    teacher = network(builder)
    space = SearchSpace(teacher)
    batch = space.sample(20, 1)
    for row, edits in zip(space.encode(batch), batch, strict=True):
        single = encode_architecture(space.apply(edits))
        assert np.array_equal(row, single)


def test_normalisations_and_slopes_may_be_removed_but_scales_stay(builder):
    teacher = network(builder)
    removable = {teacher.layers[place].name for place in SearchSpace(teacher).removable}
    assert {"group", "alone", "slope", "instance", "whole", "rows"} <= removable
    assert not removable & {"shift", "gamma", "gate", "scale", "opaque"}
    assert "norm" not in removable  # it reads a permuted view, which others would have to copy


@pytest.mark.parametrize(
    ("op", "attrs", "rank", "axis", "entry"),
    [
        ("param_binary", {"shape": [8, 1, 1]}, 3, 0, 0),
        ("param_binary", {"shape": [1, 8, 1, 1]}, 3, 0, 1),
        ("param_binary", {"shape": [8]}, 3, 2, 0),
        ("param_binary", {"shape": [8]}, 3, 0, None),
        ("param_binary", {"shape": [1, 1, 1]}, 3, 0, None),
        ("param_binary", {"shape": []}, 3, 0, None),
        ("layer_norm", {"shape": [8]}, 3, 2, 0),
        ("layer_norm", {"shape": [8, 4, 4]}, 3, 0, 0),
        ("layer_norm", {"shape": [4]}, 3, 0, None),
        ("prelu", {"num_parameters": 1}, 3, 0, None),
        ("prelu", {"num_parameters": 8}, 3, 0, 0),
        ("group_norm", {}, 3, 0, 0),
    ],
)
def test_the_axis_of_a_parameter_that_follows_the_channels(op, attrs, rank, axis, entry):
    assert channel_entry(op, attrs, rank, axis) == entry


WRONG = {
    "group_norm": [({"groups": 3}, "groups"), ({"groups": 0}, "groups"), ({"eps": -1}, "eps")],
    "prelu": [({"num_parameters": 5}, "num_parameters")],
    "conv_transpose": [
        ({"output_padding": [1]}, "output_padding"),
        ({"groups": 7}, "groups"),
        ({"in_channels": 12}, "in_channels"),
        ({"stride": [0, 1]}, "stride"),
    ],
    "param_binary": [({"shape": [5, 1, 1]}, "shape"), ({"shape": [2, 3, 1, 1]}, "shape")],
    "layer_norm": [({"shape": [16, 8]}, "shape"), ({"shape": [2**31]}, "shape")],
    "instance_norm": [({"num_features": 4}, "num_features"), ({"track": 1}, "track")],
    "resize": [({"size": [3]}, "size"), ({"fn": "exec"}, "fn"), ({"scale": [0.0, 1.0]}, "scale")],
    "opaque": [
        ({"macs": -1}, "macs"),
        ({"macs": 2**60}, "macs"),
        ({"in_shapes": []}, "in_shapes"),
        ({"in_shapes": [[1, 2]]}, "must keep the shapes"),
        ({"params": {}}, "scale"),
        ({"params": {"scale": [0]}}, "params"),
        ({"dtypes": {"scale": "object"}}, "dtypes"),
        ({"view": 1}, "view"),
        ({"program": []}, "program"),
        ({"program": {"steps": [], "result": {"step": 0}}}, "program"),
    ],
}


@pytest.mark.parametrize(
    ("op", "change", "word"),
    [(op, change, word) for op, cases in WRONG.items() for change, word in cases],
    ids=str,
)
def test_wrong_attributes_are_named(builder, op, change, word):
    data = network(builder).to_dict()
    layer = next(layer for layer in data["layers"] if layer["op"] == op)
    layer["attrs"].update(change)
    with pytest.raises(InvalidArchitecture) as caught:
        Architecture.from_json(json.dumps(data))
    assert layer["name"] in str(caught.value)
    assert word in str(caught.value)


STEP = ["aten.relu.default", [{"slot": 0}], {}]
WRONG_PROGRAMS = [
    {"steps": [STEP]},
    {"steps": [STEP], "result": {"step": 1}},
    {"steps": [STEP], "result": {"slot": 0}},
    {"steps": [["os.system", ["ls"], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu", [], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default; import os", [], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [{"step": 0}], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [{"code": "1"}], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [{"slot": -1}], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [{"slot": 0, "state": "a"}], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [], {"a b": 1}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [{"device": "cuda:7"}], {}]], "result": {"step": 0}},
    {"steps": [["aten.relu.default", [{"dtype": "object"}], {}]], "result": {"step": 0}},
    {"steps": [STEP] * 5000, "result": {"step": 0}},
    {"steps": [], "result": {"tensor": [1, 2], "shape": [3], "dtype": "float32"}},
    {"steps": [], "result": {"data": ["AAAA"], "shape": [1], "dtype": "float32"}},
    {"steps": [], "result": {"data": ["AA!A"], "shape": [3], "dtype": "uint8"}},
    {"steps": [], "result": {"data": ["A" * 4000], "shape": [3000], "dtype": "uint8"}},
    {"steps": [], "result": {"tensor": ["1"], "shape": [1], "dtype": "float32"}},
]


@pytest.mark.parametrize("program", WRONG_PROGRAMS, ids=lambda p: str(p)[:60])
def test_a_program_that_is_malformed_is_refused(program):
    assert check_program(program)


def test_a_wrong_fold_names_its_layer(builder):
    data = network(builder).to_dict()
    layer = next(layer for layer in data["layers"] if layer["op"] == "conv")
    layer["attrs"]["folds"] = {"weight": {"steps": [["rm", [], {}]], "result": {"step": 0}}}
    with pytest.raises(InvalidArchitecture, match=r"stem.*attrs.folds.*ATen overload"):
        Architecture.from_json(json.dumps(data))


def test_operands_and_label_of_a_program():
    assert check_program(PROGRAM) == ""
    assert sorted(operands(PROGRAM, "slot")) == [0, 0]
    assert list(operands(PROGRAM, "state")) == ["scale"]
    assert label(PROGRAM) == "view_as"


def test_untrained_roles_are_state_but_no_parameters(builder):
    b = builder(3, 8, 8)
    b.conv("conv", 8, bias=True)
    b.mean()
    b.linear("fc", 4)
    teacher = b.done()
    data = teacher.to_dict()
    data["layers"][1]["attrs"]["untrained"] = ["weight"]
    changed = Architecture.from_json(json.dumps(data))
    assert changed["conv"].param_shapes == {"bias": (8,)}
    assert changed["conv"].buffer_shapes == {"weight": (8, 3, 3, 3)}
    assert teacher.num_params - changed.num_params == 8 * 3 * 9
    space = SearchSpace(changed)
    batch = space.sample(10, 0)
    assert [space.apply(e).num_params for e in batch] == space.num_params(batch).tolist()
