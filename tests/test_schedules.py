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


def test_runs_that_students_come_out_of_have_rungs_of_their_own():
    """From half of their own epochs on, whatever the options for the students' trials say."""
    config = load_config(None, ["schedule.grace_period=3"])
    scheduler = stage_scheduler(config, 40)
    assert scheduler.stops("runs")
    rungs = scheduler._schedulers["runs"]
    assert (rungs._max_t, rungs._brackets[0]._rungs[-1][0]) == (40, 20)
    fifo = load_config(None, ["schedule.name=fifo"])
    assert not stage_scheduler(fifo, 40).stops("runs")
    assert not stage_scheduler(config).stops("runs")
