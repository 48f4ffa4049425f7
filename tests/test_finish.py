"""Who comes first among the finalists."""

from functools import partial
from types import SimpleNamespace

import pytest

from raysearch.errors import RunError
from raysearch.files import RunFiles
from raysearch.finish import Finalist, Outcome, conclude, keeps_all, rank
from raysearch.stages import Candidate


def finalist(name, accuracy, loss=0.1, value=0.0):
    record = {"accuracy": accuracy, "loss": loss, "value": value}
    return Finalist(Candidate(name, name, "search"), record)


def problem(objective, size="params"):
    """Students cost what their names say: "PARAMS/MACS"."""

    def apply(name):
        params, macs = map(int, name.split("/"))
        return SimpleNamespace(num_params=params, macs=macs)

    return SimpleNamespace(space=SimpleNamespace(apply=apply), objective=objective, size=size)


def order(finalists, *args):
    ranked = sorted(finalists, key=partial(rank, *args))
    return [one.candidate.architecture for one in ranked]


FINALISTS = [
    finalist("50/9", 0.99),
    finalist("20/8", 0.95),
    finalist("30/7", 0.96),
    finalist("10/1", 0.90),
    finalist("5/2", 0.94),
]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("params", ["20/8", "30/7", "50/9", "5/2", "10/1"]),
        ("macs", ["30/7", "20/8", "50/9", "5/2", "10/1"]),
    ],
)
def test_with_a_floor_the_smallest_that_reaches_it_comes_first_then_the_most_accurate(
    size, expected
):
    assert order(FINALISTS, problem("smallest", size), 0.95) == expected


def test_within_a_budget_the_cross_entropy_counts_and_then_the_accuracy():
    finalists = [
        finalist("1/1", 0.97, loss=0.2),
        finalist("2/2", 0.96, loss=0.1),
        finalist("3/3", 0.98, loss=0.2),
    ]
    assert order(finalists, problem("accuracy"), None) == ["2/2", "3/3", "1/1"]


def test_without_a_budget_the_reward_counts():
    rewarded = [finalist("1/1", 0.9, value=0.3), finalist("2/2", 0.8, value=0.5)]
    assert order(rewarded, problem("f"), None) == ["2/2", "1/1"]


def test_constraints_are_looked_up_in_the_full_training_then_in_the_short_one_then_measured():
    def admits(observation):
        metrics = {**observation.extra, **observation.metrics}
        return metrics["accuracy"] >= 0.9 and metrics["power"] <= 5 and metrics["latency_ms"] <= 2

    config = SimpleNamespace(distill=SimpleNamespace(report=["latency_ms"]))
    space = SimpleNamespace(limits=(), latency_ms=lambda texts: [len(text) for text in texts])
    asked = SimpleNamespace(config=config, space=space)

    def keeps(name, accuracy, **short):
        whole = {"architecture": name, "fidelity": 1.0, "status": "full", "curve": []}
        record = {**whole, "accuracy": accuracy, "value": 0.5}
        candidate = Candidate(name, name, "search", {**whole, "accuracy": 0.1, **short})
        return keeps_all(asked, admits, Finalist(candidate, record))

    assert keeps("a", 0.95, power=5.0)
    assert not keeps("a", 0.85, power=5.0)
    assert not keeps("a", 0.95, power=6.0)
    assert not keeps("aaa", 0.95, power=5.0)  # three milliseconds
    assert keeps_all(asked, None, finalist("a", 0.1))


def test_what_was_asked_for_and_not_reached_is_said():
    assert Outcome({}, {}).notes == []
    (floor,) = Outcome({}, {}, floor_met=False).notes
    (constraint,) = Outcome({}, {}, floor_met=True, is_admitted=False).notes
    assert "accuracy that was asked for" in floor
    assert "constraints" in constraint


def test_the_end_without_a_student_says_why(tmp_path):
    """The only finalist diverged in its full training."""

    def log(*reasons):
        return SimpleNamespace(log=SimpleNamespace(records=[{"reason": r} for r in reasons] + [{}]))

    logs = {"search": log("out of memory"), "finish": log("not finite")}
    plan = SimpleNamespace(finalists=[], runs=None, **logs)
    with pytest.raises(RunError, match="not finite; out of memory"):
        conclude(None, RunFiles(tmp_path), plan, lambda module, part: {})  # type: ignore[arg-type]
