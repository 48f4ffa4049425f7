"""Width variables: groupings, divisors, smallest widths."""

import pytest

from raysearch.architecture import SearchSpace
from raysearch.errors import ConfigError


def widths_of(space):
    return [(g.size, g.divisor, g.min_channels) for g in space.groups]


def test_coupled_resnet18_has_twelve_groups_and_by_size_four(networks):
    teacher = networks["resnet"]((2, 2, 2, 2), (64, 128, 256, 512), 100)
    assert len(SearchSpace(teacher).groups) == 12
    assert [g.size for g in SearchSpace(teacher, grouping="by_size").groups] == [64, 128, 256, 512]


def test_narrow_groups_step_by_one_and_wide_ones_by_eight(networks):
    space = SearchSpace(networks["vgg"]((16, 63, "M", 64, 100, "M")))
    assert widths_of(space) == [(16, 1, 1), (63, 1, 1), (64, 8, 8), (100, 8, 8)]


def test_a_divisor_is_taken_as_given_unless_the_group_is_smaller(networks):
    space = SearchSpace(networks["vgg"]((4, 16, "M", 64, "M")), divisor=6)
    assert widths_of(space) == [(4, 1, 1), (16, 6, 6), (64, 6, 6)]


def test_the_smallest_width_is_rounded_up_and_never_above_the_group(networks):
    space = SearchSpace(networks["vgg"]((4, 16, "M", 64, "M")), divisor=4, min_channels=6)
    assert widths_of(space) == [(4, 4, 4), (16, 4, 8), (64, 4, 8)]


def test_grouped_convolutions_widen_the_step(networks):
    space = SearchSpace(networks["mixed"](), divisor=4)
    group = next(g for g in space.groups if "grouped" in g.producers)
    assert (group.divisor, group.alignment) == (12, 3)


def test_ids_are_positions_and_frozen_groups_say_why(teacher):
    space = SearchSpace(teacher)
    everything = (*space.groups, *space.frozen_groups)
    assert [g.id for g in everything] == list(range(len(everything)))
    assert not any(g.frozen for g in space.groups)
    assert all(g.frozen and g.reason for g in space.frozen_groups)
    assert all(g.producers for g in space.groups if g.size != 6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("grouping", "random"), ("divisor", 0), ("divisor", 2.5), ("min_channels", -1)],
)
def test_wrong_settings_are_refused_with_their_name(networks, field, value):
    with pytest.raises(ConfigError, match=f"space.{field}"):
        SearchSpace(networks["vgg"](), **{field: value})
