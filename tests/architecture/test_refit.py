"""N2N's operators: every rule by a hand-made example, and random policies on six families of networks."""

from dataclasses import replace

import numpy as np
import pytest

from raysearch.architecture import Architecture, SearchSpace
from raysearch.architecture.ops import OPS
from raysearch.architecture.refit import (
    Rules,
    may_remove,
    may_shrink,
    remove_layers,
    shrink_layers,
)
from raysearch.errors import ConfigError, InvalidArchitecture

from .nets import SIX, Builder, resnet
from .refits import PAPER, factors


def mask(network, *names):
    return np.array([layer.name in names for layer in network.layers])


def removed(network, *names, rules=PAPER):
    """The student without layers, and the names of those that went."""
    found = remove_layers(network, mask(network, *names), rules)
    went = [network.layers[place].name for place in np.flatnonzero(found.actions)]
    return found.student, went


def chain(*widths, groups=1):
    """3x3 convolutions c0, c1, ... of the given widths, the last one with groups, and a classifier."""
    b = Builder(3, 8, 8)
    for index, width in enumerate(widths):
        b.conv(f"c{index}", width, groups=groups if index == len(widths) - 1 else 1)
    b.mean()
    b.linear("fc", 10)
    return b.done()


def test_the_input_gives_the_number_where_both_sides_have_one_producer():
    student, went = removed(chain(8, 16), "c1")
    assert went == ["c1"]
    assert student["c1"].op == "identity"
    assert student["c0"].attrs["out_channels"] == student["fc"].attrs["in_features"] == 8


def test_the_frozen_input_gives_its_number_to_a_single_producer():
    student, went = removed(chain(8, 16), "c0")
    assert went == ["c0"]
    assert student["c1"].attrs["in_channels"] == 3


def residual():
    b = Builder(3, 8, 8)
    b.conv("stem", 12)
    stem = b.relu("relu")
    b.conv("inner", 20)
    b.bn("inner_bn")
    main = b.conv("outer", 12)
    b.add("add", "add", main, stem)
    b.mean()
    b.linear("fc", 10)
    return b.done()


def test_the_side_with_more_producers_gives_the_number():
    student, went = removed(residual(), "outer")
    assert went == ["outer"]
    assert student["inner"].attrs["out_channels"] == 12
    assert student["inner_bn"].attrs["num_features"] == 12


def test_a_frozen_side_against_several_producers_is_refused():
    network = residual()
    student, went = removed(network, "stem")
    assert went == []
    assert student == network


def test_layers_go_in_the_order_of_the_network_each_judged_by_what_went_before():
    # the stem is judged first, while two layers still make the sum's channels
    assert removed(residual(), "stem", "outer")[1] == ["outer"]
    student, went = removed(residual(), "inner", "outer")
    assert went == ["inner", "outer"]
    assert student["add"].shape == (12, 8, 8)


def test_a_number_that_a_grouped_convolution_does_not_take_is_refused():
    assert removed(chain(6, 8, 16, groups=4), "c1")[1] == []
    student, went = removed(chain(12, 8, 16, groups=4), "c1")
    assert went == ["c1"]
    assert student["c2"].attrs["in_channels"] == 12


def test_a_depthwise_convolution_follows():
    b = Builder(3, 8, 8)
    b.conv("a", 8)
    b.conv("b", 16)
    b.conv("depth", 16, groups=16)
    b.mean()
    b.linear("fc", 10)
    student, went = removed(b.done(), "b")
    assert went == ["b"]
    depth = student["depth"].attrs
    assert (depth["in_channels"], depth["out_channels"], depth["groups"]) == (8, 8, 8)


def test_a_removed_bottleneck_reads_the_whole_concatenation_and_the_larger_student_is_flagged():
    network = SIX["densenet"]()
    name = "block1.2.conv1"
    student, went = removed(network, name)
    assert went == [name]
    arriving = network[name].attrs["in_channels"]
    assert student["block1.2.conv2"].attrs["in_channels"] == arriving == 27
    found = remove_layers(network, mask(network, name), PAPER)
    assert found.is_smaller == (27 * 16 + 2 * 16 + 16 * 54 > 2 * 27 + 27 * 54)
    assert not found.is_smaller


def test_numbers_that_double_from_layer_to_layer_end_before_they_are_absurd():
    b = Builder(3, 4, 4)
    source, names = b.conv("stem", 64), []
    for index in range(30):
        names.append(b.conv(f"c{index}", 8, source=source))
        source = b.add(f"cat{index}", "concat", source, names[-1], dim=0)
    b.mean()
    b.linear("fc", 10)
    network = b.done()
    student, went = removed(network, *names)
    # 64 * 2**10 channels arrive at c10
    assert went[:10] == names[:10]
    assert "c10" in went
    assert "c11" not in went
    assert student["c11"].attrs["in_channels"] == 2**17
    assert student["c11"].shape[0] == 8


def test_channels_that_meet_part_by_part_keep_their_parts():
    b = Builder(3, 8, 8)
    left = b.conv("left", 4)
    right = b.conv("right", 6, source="x")
    b.add("cat", "concat", left, right, dim=0)
    b.conv("mid", 20)
    b.relu("relu")
    b.add("first", "slice", dim=0, start=0, stop=12, step=1)
    b.conv("a", 8)
    b.add("second", "slice", "relu", dim=0, start=12, stop=20, step=1)
    b.conv("b", 8)
    b.add("sum", "add", "a", "b")
    b.mean()
    b.linear("fc", 10)
    student, went = removed(b.done(), "mid")
    assert went == ["mid"]
    assert student["first"].shape[0] == student["a"].attrs["in_channels"] == 4
    assert student["second"].shape[0] == student["b"].attrs["in_channels"] == 6


def test_a_removed_linear_layer_behind_a_flattening_leaves_all_places():
    student, went = removed(SIX["lenet"](), "fc1")
    assert went == ["fc1"]
    assert student["fc2"].attrs["in_features"] == 16 * 5 * 5


@pytest.mark.parametrize("name", ["conv2", "pool1", "flatten", "fc3"])
def test_what_changes_the_map_or_makes_the_logits_stays(name):
    assert removed(SIX["lenet"](), name)[1] == []


def test_an_operation_that_nobody_knows_stays_and_keeps_its_channels(monkeypatch):
    monkeypatch.setattr("raysearch.architecture.ops.OPS", {**OPS, "mystery": OPS["softmax"]})
    monkeypatch.setattr("raysearch.architecture.graph.OPS", {**OPS, "mystery": OPS["softmax"]})
    monkeypatch.setattr("raysearch.architecture.checks.OPS", {**OPS, "mystery": OPS["softmax"]})
    network = chain(8, 16, 16)
    layers = [
        replace(layer, op="mystery", attrs={"dim": 1, "log": False}, params={})
        if layer.name == "c1"
        else replace(layer, attrs={**layer.attrs, "in_channels": 8})
        if layer.name == "c2"
        else layer
        for layer in network.layers
    ]
    layers[2] = replace(layers[2], shape=(8, 8, 8))
    network = Architecture(network.input_shape, tuple(layers), network.output)
    assert removed(network, "c1")[1] == []
    assert removed(network, "c0")[1] == []  # 3 channels arrive where 8 are frozen
    assert removed(network, "c2")[1] == ["c2"]


def test_the_reference_keeps_ends_strides_linear_layers_average_pools_and_shortcuts():
    network = resnet((1, 2), (12, 20), input_shape=(3, 16, 16))
    allowed = may_remove(network, Rules())
    names = {layer.name for layer, may in zip(network.layers, allowed, strict=True) if may}
    blocks = {"layer1.0.": ("conv1",), "layer2.0.": (), "layer2.1.": ("conv1",)}
    expected = {"bn1", "relu"}
    for prefix, parts in blocks.items():
        expected |= {prefix + part for part in ("bn1", "relu1", "conv2", "bn2", "relu2", *parts)}
    assert names == expected
    assert removed(network, "conv1", "layer2.0.down.bn", "relu", rules=Rules())[1] == ["relu"]


@pytest.mark.parametrize("bad", [[True], np.ones(13), [[True] * 13]])
def test_removals_of_another_form_are_refused(bad):
    with pytest.raises(InvalidArchitecture, match="remove has shape"):
        remove_layers(SIX["lenet"](), bad)


def test_channels_that_belong_together_take_the_factor_of_their_first_producer():
    network = residual()
    found = shrink_layers(
        network,
        factors(network, stem=(0.5, 1, 1), inner=(0.9, 1, 1), outer=(0.1, 1, 1), fc=(0.1, 1, 1)),
        PAPER,
    )
    widths = [found.student[name].attrs["out_channels"] for name in ("stem", "inner", "outer")]
    assert widths == [6, 18, 6]
    executed = [found.actions[network.index[name], 0] for name in ("stem", "inner", "outer", "fc")]
    assert executed == [0.5, 0.9, 0.5, 1.0]  # the logits are frozen
    assert np.flatnonzero(may_shrink(network, PAPER)[:, 0]).tolist() == [
        network.index["stem"],
        network.index["inner"],
    ]


def test_no_layer_gets_fewer_channels_than_ten_unless_it_has_fewer():
    network = chain(8, 16, 40)
    found = shrink_layers(
        network, factors(network, c0=(0.1, 1, 1), c1=(0.5, 1, 1), c2=(0.7, 1, 1)), Rules("paper")
    )
    assert [found.student[f"c{i}"].attrs["out_channels"] for i in range(3)] == [8, 10, 28]


def test_numbers_of_filters_stay_legal_for_grouped_convolutions():
    network = chain(16, 16, groups=8)
    found = shrink_layers(network, factors(network, c0=(0.6, 1, 1), c1=(0.1, 1, 1)), PAPER)
    assert found.student["c1"].attrs["in_channels"] == 16  # 9.6 up to a multiple of 8
    assert found.student["c1"].attrs["out_channels"] == 8


def test_the_reference_shrinks_only_filters_inside_blocks():
    network = SIX["option_b"]()
    allowed = may_shrink(network, Rules())
    windows = {network.layers[place].name for place in np.flatnonzero(allowed[:, 1])}
    assert windows == {"conv1"}
    filters = [network.layers[place].name for place in np.flatnonzero(allowed[:, 0])]
    # the first convolution of a block that halves the map is strided, hence fixed
    assert filters == [
        "conv1",
        "layer1.0.conv1",
        "layer2.0.conv2",
        "layer2.1.conv1",
        "layer3.0.conv2",
    ]


@pytest.mark.parametrize(
    "bad",
    [np.ones((13, 2)), np.zeros((13, 3)), [["a"] * 3] * 13, [[2.0] * 3] * 13, [[np.nan] * 3] * 13],
)
def test_factors_of_another_form_are_refused(bad):
    with pytest.raises(InvalidArchitecture, match="factors"):
        shrink_layers(SIX["lenet"](), bad)


@pytest.mark.parametrize("bad", [{"fixed": "all"}, {"min_channels": 0}, {"min_channels": True}])
def test_rules_that_do_not_exist_are_refused(bad):
    with pytest.raises(ConfigError):
        Rules(**bad)


@pytest.mark.parametrize("name", SIX)
def test_random_policies_make_legal_students_that_their_executed_actions_make_again(name):
    network = SIX[name]()
    space = SearchSpace(network)
    rng = np.random.default_rng(0)
    size, executed = len(network.layers), 0
    for trial in range(34):
        rules = PAPER if trial % 2 else Rules(min_channels=2)
        asked = rng.random(size) < (0.2, 0.5, 0.8)[trial % 3]
        first = remove_layers(network, asked, rules)
        assert not (first.actions & ~(asked & may_remove(network, rules))).any()
        lookup = rng.integers(1, 11, (size, 3)) / 10
        second = shrink_layers(first.student, lookup, rules)
        again = remove_layers(network, first.actions, rules)
        assert again.student == first.student
        assert (again.actions == first.actions).all()
        again = shrink_layers(first.student, second.actions, rules)
        assert again.student == second.student
        assert (again.actions == second.actions).all()
        kept = (second.actions == 1) | (second.actions == lookup)
        assert kept[:, 1:].all()
        text = second.student.to_compact()
        assert space.apply(text) == second.student
        for step in (first, second):
            assert step.is_smaller == (step.student.num_params < step.network.num_params)
        executed += first.actions.sum() + (second.actions[:, 1:] < 1).sum()
    assert executed > 34
