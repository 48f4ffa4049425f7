"""Smaller kernels and paddings by N2N's operators: what keeps the map, what changes it, and what is refused."""

from dataclasses import replace

import pytest

from raysearch.architecture.checks import check
from raysearch.architecture.ops import OPS
from raysearch.architecture.refit import Rules, shrink_layers

from .nets import SIX, Builder
from .refits import PAPER, factors


def wide(kernel=5, padding=2, dilation=1, joined=False):
    """One wide window, alone or on one of two paths."""
    b = Builder(3, 16, 16)
    stem = b.conv("stem", 4)
    b.conv("wide", 4, kernel=kernel, padding=padding)
    attrs = {**b.layers[-1].attrs, "dilation": [dilation] * 2}
    shape = OPS["conv"].out_shape(attrs, [b.shape(stem)])
    b.layers[-1] = replace(b.layers[-1], attrs=attrs, shape=shape)
    if joined:
        other = b.conv("other", 4, kernel=kernel, padding=padding, source=stem)
        b.add("add", "add", "wide", other)
    b.flatten()
    b.linear("fc", 10)
    return b.done()


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "factor", "expected"),
    [
        (5, 2, 1, 0.7, (3, 1)),
        (5, 2, 1, 0.1, (1, 0)),
        (5, 2, 1, 0.9, (5, 2)),
        (4, 1, 1, 0.5, (2, 0)),
        (4, 1, 1, 0.1, (2, 0)),
        (3, 2, 2, 0.5, (1, 0)),
        (7, 6, 2, 0.5, (3, 2)),
    ],
)
def test_a_smaller_kernel_of_the_same_parity_keeps_the_map(
    kernel, padding, dilation, factor, expected
):
    network = wide(kernel, padding, dilation)
    found = shrink_layers(network, factors(network, wide=(1, factor, 1)), PAPER)
    attrs = found.student["wide"].attrs
    assert (attrs["kernel"], attrs["padding"]) == ([expected[0]] * 2, [expected[1]] * 2)
    assert found.student["fc"] == network["fc"]
    assert found.actions[network.index["wide"], 1] == factor


def test_an_unpadded_kernel_shrinks_where_all_paths_lead_through_it_and_the_linear_layer_follows():
    network = SIX["lenet"]()
    found = shrink_layers(network, factors(network, conv2=(1, 0.5, 1)), PAPER)
    assert found.student["conv2"].attrs["kernel"] == [3, 3]
    assert found.student["conv2"].shape == (16, 12, 12)
    assert found.student["fc1"].attrs["in_features"] == 16 * 6 * 6
    fixed = Rules("paper", min_channels=1, free_padding=False)
    assert shrink_layers(network, factors(network, conv2=(1, 0.5, 1)), fixed).student == network


def test_an_unpadded_kernel_stays_on_one_of_several_paths():
    network = wide(kernel=5, padding=0, joined=True)
    found = shrink_layers(network, factors(network, wide=(1, 0.5, 1)), PAPER)
    assert found.student == network
    assert (found.actions == 1).all()


def test_padding_shrinks_where_all_paths_lead_through_it():
    network = SIX["lenet"]()
    found = shrink_layers(network, factors(network, conv1=(1, 1, 0.5)), PAPER)
    assert found.student["conv1"].attrs["padding"] == [1, 1]
    assert found.student["conv1"].shape == (6, 26, 26)
    assert found.student["fc1"].attrs["in_features"] == 16 * 4 * 4
    network = wide(joined=True)
    assert shrink_layers(network, factors(network, wide=(1, 1, 0.5)), PAPER).student == network


def test_a_change_of_size_that_paths_round_differently_is_refused():
    b = Builder(3, 16, 16)
    stem = b.conv("stem", 4, stride=2)
    left = b.pool("left", 2)
    right = b.conv("right", 4, stride=2, source=stem)
    b.add("add", "add", left, right)
    b.mean()
    b.linear("fc", 10)
    network = (
        b.done()
    )  # unpadded, the stem's map would be 7x7: 3 places by the pool, 4 by the convolution
    found = shrink_layers(network, factors(network, stem=(1, 1, 0.5)), PAPER)
    assert found.student == network
    assert (found.actions == 1).all()


@pytest.mark.parametrize(("stop", "expected"), [(16, 14 // 2), (12, 16 // 2)])
def test_a_slice_to_the_end_follows_another_size_and_a_part_refuses_it(stop, expected):
    b = Builder(3, 16, 16)
    stem = b.conv("stem", 4)
    b.add("part", "slice", dim=1, start=0, stop=stop, step=1)
    b.conv("c", 4, stride=2)
    b.conv("other", 4, stride=2, source=stem)
    b.mean()
    b.linear("fc", 10)
    network = b.done()
    found = shrink_layers(network, factors(network, stem=(1, 1, 0.5)), PAPER)
    assert found.student["other"].shape[1] == expected
    assert (found.student == network) == (stop == 12)


def test_a_window_stays_where_another_layer_shares_the_weights(networks):
    network = networks["mixed"]()
    assert network["shared"].params["weight"] == network["again"].params["weight"]
    asked = factors(network, shared=(1, 0.3, 1), again=(1, 0.3, 1), wide=(1, 0.3, 1))
    found = shrink_layers(network, asked, PAPER)
    kernels = [found.student[name].attrs["kernel"][0] for name in ("shared", "again", "wide")]
    assert kernels == [3, 3, 1]


def test_the_padding_of_a_pool_stays_within_half_of_its_window():
    b = Builder(3, 16, 16)
    window = {"kind": "max", "kernel": [7, 7], "stride": [2, 2], "padding": [3, 3]}
    b.add("pool", "pool", **window)
    b.conv("c", 4)
    b.flatten()
    b.linear("fc", 10)
    network = b.done()
    found = shrink_layers(network, factors(network, pool=(1, 0.3, 0.9)), PAPER)
    assert found.student["pool"].attrs["kernel"] == [3, 3]
    assert found.student["pool"].attrs["padding"] == [1, 1]  # int(3 * 0.9) = 2 is too much
    check(found.student)
