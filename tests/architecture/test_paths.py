"""Dominators and residual blocks, against brute force and by hand."""

import pytest

from raysearch.architecture.paths import (
    cut_vertices,
    immediate_dominators,
    producers,
    sum_blocks,
)

from .nets import SIX


def reachable(network, without):
    """Indices that a path from the input reaches when one layer is taken out."""
    found = {0} - {without}
    for place, layer in enumerate(network.layers):
        if place != without and found & set(producers(network, layer)):
            found.add(place)
    return found


@pytest.mark.parametrize("name", SIX)
def test_dominators_are_the_layers_that_cannot_be_taken_out(name):
    network = SIX[name]()
    above = immediate_dominators(network)
    output = network.index[network.output]
    cuts = cut_vertices(network)
    for place in range(len(network.layers)):
        assert (place in cuts) == (output not in reachable(network, place))
    for place in range(1, len(network.layers)):
        dominators = [d for d in range(place) if place not in reachable(network, d)]
        assert above[place] == max(dominators)


def test_a_residual_block_lies_between_its_fork_and_its_sum():
    network = SIX["option_b"]()
    names = [layer.name for layer in network.layers]
    block = next(b for b in sum_blocks(network) if names[b.join] == "layer2.0.add")
    assert names[block.fork] == "layer1.0.relu2"
    inside = {name for name in names if name.startswith("layer2.0.")}
    assert {names[m] for m in block.members} == inside - {"layer2.0.add", "layer2.0.relu2"}
    assert [names[m] for m in block.longest] == [
        f"layer2.0.{part}" for part in ("conv1", "bn1", "relu1", "conv2", "bn2")
    ]


def test_a_skip_into_a_layer_makes_a_block(builder):
    b = builder(3, 8, 8)
    b.conv("a", 4)
    b.relu("r")
    b.conv("b", 4)
    b.relu("s")
    b.add("c", "unary", ("s", "a"), fn="relu", args=[], kwargs={})
    b.mean()
    (block,) = sum_blocks(b.done())
    assert (block.fork, block.join, block.longest) == (1, 5, (2, 3, 4))
