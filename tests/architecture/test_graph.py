"""Networks as data: counts, hashes, round trips."""

import pickle
from dataclasses import replace

import pytest

from raysearch.architecture import Architecture, Layer
from raysearch.architecture.checks import check, infer_shapes
from raysearch.errors import InvalidArchitecture


def test_json_gives_back_the_same_network(teacher):
    assert Architecture.from_json(teacher.to_json()) == teacher
    assert Architecture.from_json(teacher.to_json()).to_json() == teacher.to_json()


def test_compact_text_gives_back_the_same_network(teacher):
    text = teacher.to_compact()
    assert text.startswith("json:")
    assert text.isprintable()
    assert " " not in text
    assert Architecture.from_compact(text) == teacher


def test_a_pickled_network_is_the_same(teacher):
    assert pickle.loads(pickle.dumps(teacher)) == teacher


def test_tuples_in_attributes_become_lists_so_that_json_is_exact():
    layer = Layer("c", "pool", (("x",),), {"kernel": (2, 2), "deep": {"a": (1, (2,))}})
    assert layer.attrs["kernel"] == [2, 2]
    assert layer.attrs["deep"] == {"a": [1, [2]]}


def test_esnac_networks_have_the_published_number_of_parameters(networks):
    # esnac: 100 classes; ResNet-18 and ResNet-34 with bias-free convolutions and projection shortcuts
    assert networks["resnet34"]().num_params == 21_328_292
    resnet18 = networks["resnet"]((2, 2, 2, 2), (64, 128, 256, 512), 100)
    assert resnet18.num_params == 11_220_132


def test_parameters_and_macs_of_one_convolution_follow_the_formula(builder):
    b = builder(3, 8, 6)
    b.conv("c", 4, kernel=3, stride=2, bias=True)
    architecture = b.done()
    assert architecture.layers[-1].shape == (4, 4, 3)
    assert architecture.num_params == 4 * 3 * 9 + 4
    assert architecture.macs == 4 * 4 * 3 * 27


def test_shared_parameters_count_once(networks, count_params):
    mixed = networks["mixed"]()
    assert mixed.num_params == count_params(mixed)
    conv = mixed["shared"]
    apart = tuple(
        replace(layer, params={"weight": "own"}) if layer.name == "again" else layer
        for layer in mixed.layers
    )
    own = replace(mixed, layers=apart)
    assert own.num_params - mixed.num_params == 9 * conv.attrs["in_channels"] * 32


def test_stated_shapes_are_those_that_follow_from_the_input(teacher):
    assert infer_shapes(teacher) == tuple(layer.shape for layer in teacher.layers)
    assert check(teacher) == teacher


def test_infer_shapes_refuses_channels_that_do_not_fit(networks):
    vgg = networks["vgg"]()
    layers = list(vgg.layers)
    place = vgg.index["conv2"]
    layers[place] = replace(layers[place], attrs={**layers[place].attrs, "in_channels": 5})
    with pytest.raises(InvalidArchitecture, match=r"conv2.*in_channels is 5, but 16 arrive"):
        infer_shapes(replace(vgg, layers=tuple(layers)))
