"""Which stages may stop their trials early."""

import pytest

from raysearch import load_config
from raysearch.schedules import stage_scheduler

STAGES = ("search", "random", "prune", "finish", "random_finish", "uniform")


def stopping(*overrides):
    """The stages that a configuration's scheduler may stop."""
    scheduler = stage_scheduler(load_config(None, overrides))
    return [stage for stage in STAGES if scheduler.stops(stage)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["search", "random"]),
        (["search.method=prune"], ["random"]),
        (["finish.students=4"], ["search", "random", "finish", "random_finish"]),
        (["finish.students=4", "finish.halving=false"], ["search", "random"]),
        (["schedule.name=fifo"], []),
        (["schedule.name=fifo", "finish.students=8"], ["finish", "random_finish"]),
        (["schedule.name=fifo", "finish.students=8", "finish.halving=false"], []),
    ],
)
def test_each_stage_has_its_own_rule(overrides, expected):
    assert stopping(*overrides) == expected
