"""Malformed and hostile text gives InvalidArchitecture that names the field; nothing else ever comes out."""

import base64
import json
import random
import zlib

import pytest

from raysearch.architecture import Architecture
from raysearch.errors import InvalidArchitecture
from tests.json_places import places


@pytest.fixture
def data(networks):
    return networks["resnet"]().to_dict()


def layer(data, name):
    return next(entry for entry in data["layers"] if entry["name"] == name)


def set_attr(name, key, value):
    return lambda data: layer(data, name)["attrs"].update({key: value})


def set_field(name, key, value):
    return lambda data: layer(data, name).update({key: value})


def set_top(key, value):
    return lambda data: data.update({key: value})


DAMAGE = {
    "cycle": (set_field("conv1", "inputs", [["relu"]]), "inputs names 'relu'.*cycle"),
    "itself": (set_field("conv1", "inputs", [["conv1"]]), "inputs names 'conv1'"),
    "missing input": (set_field("bn1", "inputs", [["ghost"]]), "'ghost', which does not exist"),
    "no slot": (set_field("bn1", "inputs", []), "inputs has 0 slots"),
    "empty slot": (set_field("bn1", "inputs", [[]]), "inputs must be"),
    "two slots": (set_field("bn1", "inputs", [["conv1"], ["conv1"]]), "inputs has 2 slots"),
    "unequal sum": (set_field("bn1", "inputs", [["conv1", "x"]]), "sums the shapes"),
    "inputs text": (set_field("bn1", "inputs", "conv1"), "inputs must be"),
    "negative width": (set_attr("conv1", "out_channels", -4), "attrs.out_channels is -4"),
    "zero width": (set_attr("conv1", "out_channels", 0), "attrs.out_channels is 0"),
    "float width": (set_attr("conv1", "out_channels", 16.0), "attrs.out_channels is 16.0"),
    "bool width": (set_attr("conv1", "out_channels", True), "attrs.out_channels is True"),
    "text width": (set_attr("conv1", "out_channels", "16"), "attrs.out_channels is '16'"),
    "huge width": (set_attr("conv1", "out_channels", 10**40), "attrs.out_channels"),
    "large width": (set_attr("conv1", "out_channels", 2**31 - 1), "conv1"),
    "zero stride": (set_attr("conv1", "stride", [0, 1]), "attrs.stride"),
    "rank": (set_attr("conv1", "kernel", [3]), "attrs.kernel has 1 entries"),
    "kernel too large": (set_attr("conv1", "kernel", [99, 99]), "output would have the shape"),
    "groups": (set_attr("conv1", "groups", 2), "attrs.groups is 2"),
    "eps": (set_attr("bn1", "eps", "small"), "attrs.eps is 'small'"),
    "infinite eps": (set_attr("bn1", "eps", float("inf")), "attrs.eps"),
    "nan": (set_attr("bn1", "eps", float("nan")), "NaN"),
    "nan inside": (set_attr("relu", "args", [[float("nan")]]), "NaN"),
    "nested attribute": (set_attr("relu", "args", [[[[[[[[[[1]]]]]]]]]]), "nested"),
    "unary code": (set_attr("relu", "fn", "__import__('os')"), "attrs.fn"),
    "shape": (set_field("conv1", "shape", [17, 32, 32]), "shape is"),
    "shape type": (set_field("conv1", "shape", "big"), "shape is 'big'"),
    "unknown op": (set_field("relu", "op", "exec"), "op is 'exec'"),
    "op type": (set_field("relu", "op", ["conv"]), "op is"),
    "second input": (set_field("relu", "op", "input"), "exactly the first layer"),
    "unknown key": (set_field("relu", "extra", 1), "'extra' is unknown"),
    "missing key": (lambda d: layer(d, "relu").pop("attrs"), "attrs is missing"),
    "missing attribute": (
        lambda d: layer(d, "conv1")["attrs"].pop("bias"),
        "attrs.bias is missing",
    ),
    "duplicate name": (set_field("relu", "name", "bn1"), "'bn1' is used twice"),
    "empty name": (set_field("relu", "name", ""), "name is ''"),
    "name type": (set_field("relu", "name", 7), "name is 7"),
    "params type": (set_field("conv1", "params", {"weight": 3}), "params must map"),
    "unknown role": (set_field("conv1", "params", {"soul": "x"}), "params.'soul'"),
    "shared by two shapes": (
        set_field("fc", "params", {"weight": "conv1.weight"}),
        "another shape",
    ),
    "version": (set_top("version", 99), "version is 99"),
    "version type": (set_top("version", True), "version is True"),
    "no layers": (set_top("layers", []), "layers must be"),
    "layers type": (set_top("layers", {}), "layers must be"),
    "layer type": (set_top("layers", [3]), "name is None"),
    "too many layers": (lambda d: d.update(layers=d["layers"] * 500), "layers must be"),
    "output": (set_top("output", "ghost"), "output is 'ghost'"),
    "output type": (set_top("output", ["fc"]), "output is"),
    "input shape": (set_top("input_shape", [3, -1, 32]), "input_shape is"),
    "input size": (set_top("input_shape", [3, 2**30, 2**30]), "input_shape is"),
    "top key": (set_top("code", "rm"), "'code' is unknown"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damage_is_refused_with_the_field(data, name):
    damage, message = DAMAGE[name]
    damage(data)
    with pytest.raises(InvalidArchitecture, match=message):
        Architecture.from_json(json.dumps(data))


TEXTS = {
    "empty": "",
    "not JSON": "hello",
    "cut": '{"version": 1, "layers": [',
    "a number": "3",
    "null": "null",
    "a list": "[]",
    "deep": "[" * 200_000,
    "deep objects": '{"a":' * 100_000,
    "long number": '{"version": ' + "9" * 100_000 + "}",
    "NaN": "NaN",
    "repeated key": '{"version": 1, "version": 1}',
    "surrogate": '{"\\ud800": 1}',
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_text_that_is_no_network_is_refused(name):
    with pytest.raises(InvalidArchitecture):
        Architecture.from_json(TEXTS[name])


def test_only_text_is_read():
    with pytest.raises(InvalidArchitecture, match="bytes"):
        Architecture.from_json(b"{}")  # type: ignore[arg-type]


def test_infinity_is_kept_where_it_means_something(builder):
    b = builder(1, 4, 4)
    b.add("pad", "pad", pads=[1, 1], mode="constant", value=float("-inf"))
    b.add("clamp", "unary", fn="clamp", args=[0.0, float("inf")], kwargs={})
    assert Architecture.from_json(b.done().to_json()) == b.done()


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "fits"),
    [
        (3, 1, 1, True),
        (3, 2, 1, False),
        (3, 2, 2, False),
        (3, 1, 2, True),
        (2, 1, 1, True),
        (1, 1, 1, False),
    ],
)
def test_a_pool_is_padded_by_no_more_than_half_of_its_window(
    builder, kernel, padding, dilation, fits
):
    window = {"kernel": kernel, "stride": 1, "padding": padding, "dilation": dilation}
    b = builder(1, 8, 8)
    b.add("pool", "pool", kind="max", **{key: [value] * 2 for key, value in window.items()})
    if fits:
        assert Architecture.from_json(b.done().to_json()) == b.done()
    else:
        with pytest.raises(InvalidArchitecture, match=r"attrs\.padding .* half of the window"):
            Architecture.from_json(b.done().to_json())


def pack(data: bytes) -> str:
    return "json:" + base64.urlsafe_b64encode(data).decode()


COMPACT = {
    "no prefix": "abc",
    "no base64": "json:***",
    "no zlib": pack(b"hello"),
    "cut": pack(zlib.compress(b"{}" * 1000)[:-8]),
    "tail": pack(zlib.compress(b"{}") + b"more"),
    "bomb": pack(zlib.compress(b" " * 2**28)),
    "not text": pack(zlib.compress(b"\xff\xfe")),
}


@pytest.mark.parametrize("name", list(COMPACT))
def test_compact_text_that_is_no_network_is_refused(name):
    with pytest.raises(InvalidArchitecture):
        Architecture.from_compact(COMPACT[name])


JUNK = [
    None,
    -1,
    0,
    3,
    10**30,
    1e308,
    float("nan"),
    "x",
    "relu",
    [],
    {},
    [[]],
    True,
    ["relu"],
    [[["x"]]],
]


@pytest.mark.parametrize("name", ["vgg", "mixed"])
def test_random_damage_never_raises_anything_else(networks, name):
    text = networks[name]().to_json()
    everywhere = list(places(json.loads(text)))
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        data = json.loads(text)
        *path, key = rng.choice(everywhere)
        target = data
        for step in path:
            target = target[step]
        target[key] = rng.choice(JUNK)
        try:
            network = Architecture.from_json(json.dumps(data))
            assert Architecture.from_json(network.to_json()) == network
            assert network.num_params + network.macs + network.peak_memory_bytes > 0
            assert network.id
        except InvalidArchitecture:
            refused += 1
    assert refused > 250
