"""The layer table agrees with the networks it compares."""

from __future__ import annotations

import numpy as np

from raysearch.architecture.refit import Rules, remove_layers, shrink_layers
from raysearch.report.layers import compare_layers


def test_a_network_beside_itself_is_kept(make_net) -> None:
    net = make_net()
    rows = compare_layers(net, net)
    assert [row.name for row in rows] == [
        "conv1",
        *(f"layer{b}.conv{c}" for b in range(3) for c in (1, 2)),
        "fc",
    ]
    assert {row.change for row in rows} == {"kept"}


def test_parameters_of_rows_and_normalisations_add_up(make_net) -> None:
    teacher, student = make_net(), make_net(9, inner=5, removed=("layer1.conv1",))
    rows = compare_layers(teacher, student)
    norms = sum(
        2 * layer.attrs["num_features"] for layer in student.layers if layer.op == "batch_norm"
    )
    assert sum(row.student.num_params for row in rows if row.student) + norms == student.num_params


def test_narrower_and_removed_layers_are_told_apart(make_net) -> None:
    rows = {
        row.name: row
        for row in compare_layers(make_net(), make_net(inner=5, removed=("layer1.conv1",)))
    }
    assert rows["layer1.conv1"].change == "removed"
    assert rows["layer0.conv1"].change == "narrower"
    assert rows["layer0.conv2"].change == "thinner input"
    assert rows["layer1.conv2"].change == "kept"
    before, after = rows["layer0.conv1"].teacher, rows["layer0.conv1"].student
    assert before is not None
    assert after is not None
    assert (before.width, after.width) == (16, 5)
    assert (before.num_params, after.num_params) == (16 * 16 * 9, 16 * 5 * 9)


def test_an_added_skip_is_named_where_it_ends(make_net) -> None:
    rows = {row.name: row for row in compare_layers(make_net(), make_net(skip=True))}
    assert rows["layer2.conv1"].skips == ("conv1.relu",)
    assert sum(len(row.skips) for row in rows.values()) == 1


def test_operations_read_like_words(make_net) -> None:
    rows = {row.name: row.op for row in compare_layers(make_net(), make_net())}
    assert rows["conv1"] == "conv 3×3"
    assert rows["fc"] == "linear"


def test_refitted_layers_may_be_wider_and_have_smaller_kernels(make_net) -> None:
    """The stem's neighbours take what arrives; widths of 16 inside, 24 between the blocks."""
    teacher = make_net(24, inner=16)
    remove = np.array([layer.name == "layer1.conv1" for layer in teacher.layers])
    found = remove_layers(teacher, remove, Rules("paper"))
    factors = np.ones((len(teacher.layers), 3))
    factors[teacher.index["layer0.conv1"], 1] = 0.4  # a kernel of 1
    student = shrink_layers(found.student, factors, Rules("paper")).student
    rows = {row.name: row for row in compare_layers(teacher, student)}
    assert rows["layer1.conv1"].change == "removed"
    assert rows["layer1.conv2"].change == "wider input"
    assert rows["layer0.conv1"].change == "smaller kernel"
    assert rows["layer0.conv1"].op == "conv 3×3 → conv 1×1"
    assert rows["layer2.conv1"].change == "kept"
