"""The channel analysis on networks whose partition is known."""

from raysearch.architecture.channels import analyse


def sizes(architecture, *, frozen=False):
    return sorted(v.size for v in analyse(architecture).variables if bool(v.frozen) == frozen)


def outputs(architecture, name):
    """(size, multiplicity) blocks of a layer's output."""
    found = analyse(architecture)
    blocks = found.outputs[architecture.index[name]]
    return [(found.variables[v].size, m) for v, m in blocks]


def test_a_residual_network_has_one_variable_a_stage_and_one_a_block(networks):
    found = analyse(networks["resnet"]())
    free = [v for v in found.variables if not v.frozen]
    assert sorted(v.size for v in free) == [16] * 3 + [32] * 3 + [64] * 3
    stage = next(v for v in free if "conv1" in v.producers)
    assert stage.producers == ("conv1", "layer1.0.conv2", "layer1.1.conv2")
    assert "layer2.0.down.conv" in stage.consumers
    assert "bn1" in stage.consumers


def test_input_and_logits_are_frozen_with_a_reason(networks):
    found = analyse(networks["vgg"]())
    frozen = {v.frozen: v.size for v in found.variables if v.frozen}
    assert frozen == {"it is the network's input": 3, "it is the network's output": 10}


def test_flatten_repeats_every_channel(networks):
    assert outputs(networks["vgg"](), "flatten") == [(64, 16)]


def test_a_channel_pad_splits_the_variable_it_is_added_to(builder):
    b = builder(3, 8, 8)
    small = b.conv("small", 4)
    b.add("pad", "pad", pads=[0, 0, 0, 0, 2, 3], mode="constant", value=0.0)
    b.conv("wide", 9, source=small)
    b.add("sum", "add", "pad", "wide")
    b.mean()
    b.linear("fc", 2)
    network = b.done()
    assert outputs(network, "wide") == outputs(network, "pad") == [(2, 1), (4, 1), (3, 1)]
    assert sizes(network) == [2, 3, 4]


def test_concatenations_of_other_boundaries_are_refined_to_common_ones(builder):
    b = builder(3, 8, 8)
    for name, width in (("a", 2), ("b", 4), ("c", 4), ("d", 2)):
        b.conv(name, width, source="x")
    b.add("left", "concat", "a", "b", dim=0)
    b.add("right", "concat", "c", "d", dim=0)
    b.add("sum", "add", "left", "right")
    b.conv("last", 3)
    assert outputs(b.done(), "sum") == [(2, 1), (2, 1), (2, 1)]


def test_a_network_added_to_its_rotation_ends_and_stays_consistent(builder):
    b = builder(3, 8, 8)
    b.conv("a", 7, source="x")
    b.conv("b", 3, source="x")
    b.add("ab", "concat", "a", "b", dim=0)
    b.add("ba", "concat", "b", "a", dim=0)
    b.add("sum", "add", "ab", "ba")
    b.conv("last", 3)
    network = b.done()
    assert sum(size * m for size, m in outputs(network, "sum")) == 10
    assert outputs(network, "ab") == outputs(network, "ba")


def test_depthwise_convolutions_pass_channels_on(builder):
    b = builder(3, 8, 8)
    b.conv("stem", 6)
    b.conv("deep", 12, groups=6)
    b.conv("last", 2)
    assert outputs(b.done(), "deep") == [(6, 2)]
    assert sizes(b.done()) == [6]


def test_one_input_channel_and_one_group_is_no_depthwise_convolution(builder):
    b = builder(1, 8, 8)
    b.conv("stem", 6)
    b.conv("last", 2)
    assert sizes(b.done()) == [6]
    assert sizes(b.done(), frozen=True) == [1, 2]


def test_grouped_convolutions_ask_for_divisible_widths(builder):
    b = builder(3, 8, 8)
    b.conv("stem", 12)
    b.conv("grouped", 18, groups=3)
    b.conv("last", 2)
    assert {v.size: v.divisor for v in analyse(b.done()).variables if not v.frozen} == {
        12: 3,
        18: 3,
    }


def test_gates_share_the_channels_of_what_they_gate(networks):
    network = networks["mixed"]()
    assert outputs(network, "scale") == outputs(network, "expand")
    found = analyse(network)
    index = network.index
    assert found.outputs[index["scale"]] == found.outputs[index["grouped"]]


def test_layers_that_share_weights_share_their_channels(networks):
    network, found = networks["mixed"](), None
    found = analyse(network)
    shared, again = network.index["shared"], network.index["again"]
    assert found.outputs[shared] == found.outputs[again]
    assert found.inputs[shared] == found.inputs[again]


def test_softmax_and_means_over_channels_freeze_them(builder):
    for op, attrs in (
        ("softmax", {"dim": 0, "log": False}),
        ("reduce", {"fn": "mean", "dims": [0], "keepdim": True}),
    ):
        b = builder(3, 8, 8)
        b.conv("stem", 6)
        b.add("over", op, **attrs)
        b.conv("last", 2)
        stem = analyse(b.done()).variables[1]
        assert stem.size == 6
        assert "over" in stem.frozen


def test_a_linear_layer_on_the_last_axis_leaves_channels_alone(builder):
    b = builder(3, 8, 8)
    b.conv("stem", 6)
    b.linear("mix", 5)
    b.conv("last", 2)
    assert outputs(b.done(), "mix") == [(6, 1)]
    assert sizes(b.done()) == [6]
