"""Programs of opaque layers and folds that somebody else wrote: none writes, opens a file, takes all memory, or fails in torch's words."""

import json

import pytest
import torch

from raysearch.architecture import Architecture
from raysearch.errors import InputError
from raysearch.models import build
from raysearch.models.source import model_source

SLOT = {"slot": 0}
STATE = {"state": "w"}


def program(*steps, result=None):
    return {"steps": [list(s) for s in steps], "result": result or {"step": len(steps) - 1}}


def layer(name, op, before, attrs, shape, **params):
    inputs = [[before]] if before else []
    entry = {"name": name, "op": op, "inputs": inputs, "attrs": attrs, "params": params}
    return {**entry, "shape": shape}


def network(middle):
    """Two linear layers around a layer from 4 numbers to 4."""
    layers = [
        layer("images", "input", None, {}, [4]),
        layer("l1", "linear", "images", {"in_features": 4, "out_features": 4, "bias": True}, [4]),
        middle,
        layer("l2", "linear", "op", {"in_features": 4, "out_features": 2, "bias": True}, [2]),
    ]
    data = {"version": 1, "input_shape": [4], "output": "l2", "layers": layers}
    return json.dumps(data)


def opaque(steps, *, key="w.values", dtype=None, shape=(4,)):
    reads = "state" in json.dumps(steps)
    attrs = {
        "program": steps,
        "in_shapes": [[4]],
        "out_shape": [4],
        "macs": 0,
        "params": {"w": list(shape)} if reads else {},
        "buffers": {},
        "dtypes": {"w": dtype} if dtype else {},
        "view": False,
    }
    return network(layer("op", "opaque", "l1", attrs, [4], **({"w": key} if reads else {})))


def folded(steps):
    attrs = {"in_features": 4, "out_features": 4, "bias": False, "folds": {"weight": steps}}
    return network(layer("op", "linear", "l1", attrs, [4]))


def unary(fn, args=(), kwargs=None):
    attrs = {"fn": fn, "args": list(args), "kwargs": kwargs or {}}
    return network(layer("op", "unary", "l1", attrs, [4]))


def call(name, *args, **kwargs):
    return program([f"aten.{name}", list(args), kwargs])


def constant(numbers, shape, dtype="float32"):
    return {"tensor": numbers, "shape": shape, "dtype": dtype}


SPARSE = call(
    "_sparse_coo_tensor_unsafe.default",
    constant([10**9, 10**9], [2, 1], "int64"),
    constant([1.0], [1]),
    [4, 4],
)
DOUBLED = program(
    ["aten.relu.default", [SLOT], {}],
    *(["aten.cat.default", [[{"step": k}, {"step": k}], 1], {}] for k in range(60)),
    ["aten.narrow.default", [{"step": 60}, 1, 0, 4], {}],
)
HOSTILE = {
    "a file": opaque(call("from_file.default", "/etc/passwd")),
    "writes": opaque(call("set_.source_Tensor", SLOT, SLOT)),
    "out": opaque(call("relu.out", SLOT, out=SLOT)),
    "trusts its indices": folded(SPARSE),
    "foreign memory": opaque(call("_nested_view_from_buffer.default", SLOT, SLOT, SLOT, SLOT)),
    "a text for a tensor": opaque(call("relu.default", "__import__('os')")),
    "a device": opaque(call("_to_copy.default", SLOT, device="cuda")),
    "a keyword": opaque(call("uniform.default", SLOT, **{"from": 0.0})),
    "an unknown argument": opaque(call("relu.default", SLOT, other=1)),
    "too few": opaque(call("add.Tensor", SLOT)),
    "huge": opaque(call("full.default", [10**6, 10**6], 1.0)),
    "doubles": opaque(DOUBLED),
    "huge fold": folded(call("full.default", [10**6, 10**6], 1.0)),
    "another shape": opaque(call("cat.default", [SLOT, SLOT], 1)),
    "another batch": opaque(call("cat.default", [SLOT, SLOT], 0)),
    "truth values": opaque(call("gt.Scalar", SLOT, 0)),
    "no such item": opaque(
        program(["aten.sort.default", [SLOT], {}], result={"step": 0, "item": 7})
    ),
    "fold of images": folded(call("relu.default", SLOT)),
    "fold of the batch": folded(call("full.default", [{"batch": 4}, 4], 1.0)),
    "fold of another shape": folded(call("full.default", [3, 3], 1.0)),
    "fold of no axis": folded(call("full.default", [], 1.0)),
    "fold out of range": folded(
        call("take.default", constant([1.0], [1]), constant([9] * 16, [4, 4], "int64"))
    ),
    "whole numbers trained": opaque(call("mul.Tensor", SLOT, STATE), dtype="int64"),
    "a huge state": opaque(call("mul.Tensor", SLOT, {"state": "w"}), shape=(10**6, 10**6)),
    "an argument's name": unary("hardtanh", kwargs={"class": 1}),
    "code as a name": unary("hardtanh", kwargs={"min_val=0, x=__import__('os')": 1}),
    "in place": unary("relu", kwargs={"inplace": True}),
    "a text as a number": unary("pow", ["__import__('os')"]),
    "too many": unary("relu", [1, 2, 3, 4]),
}
NAMES = (
    *("", ".", "a..b", "__class__", "training", "forward", "_modules", "load_state_dict", "graph"),
    *("code", "l1", "l1.weight.x", "l1.forward", 'weight"]; import os', "x\ny", "\ufb01"),
)


def read_and_built(text):
    network = Architecture.from_json(text)
    return build(network, inherit_from=build(network))


def assert_refused(text):
    with pytest.raises(InputError) as caught:
        read_and_built(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_program_is_refused_before_it_runs(name):
    assert_refused(HOSTILE[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_may_not_take_a_name_that_torch_or_a_module_has(name):
    assert_refused(opaque(call("mul.Tensor", SLOT, STATE), key=name))


@pytest.mark.parametrize("name", ['"""; import os', "a\nimport os", "__class__", "\\", 'l1"]'])
def test_a_layer_of_any_name_gives_source_that_only_computes(name):
    text = opaque(call("cumsum.default", SLOT, 1))
    data = json.loads(text)
    data["layers"][2]["name"] = name
    data["layers"][3]["inputs"] = [[name]]
    network = Architecture.from_json(json.dumps(data))
    source = model_source(network)
    compile(source, "model.py", "exec")
    assert "\nimport os" not in source
    assert build(network)(torch.randn(3, 4)).shape == (3, 2)
