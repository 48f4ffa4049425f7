"""Bounds on what trials report: their text, what breaks them, and what is said of a quantity that nobody reports."""

import pytest

from raysearch.errors import ConfigError
from raysearch.models import trace
from raysearch.models.teachers.resnet import resnet
from searchers.algorithm import Observation
from searchers.constraints import (
    Constraint,
    any_violated,
    check_reported,
    costs_of,
    parse_constraints,
    reported,
)

TEACHER = {"num_params": 1000.0, "macs": 5000.0, "memory_bytes": 8000.0}


def observation(extra=None, **metrics):
    return Observation("{}", 0.5, 1.0, "full", metrics=metrics, extra=extra or {})


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("num_params <= 50%", Constraint("num_params", 500.0, "at_most")),
        ("macs<=2e3", Constraint("macs", 2000.0, "at_most")),
        ("accuracy >= 0.9", Constraint("accuracy", 0.9, "at_least")),
        ("class_accuracy/3 >= .8", Constraint("class_accuracy/3", 0.8, "at_least")),
        ("memory_bytes <= 12.5 %", Constraint("memory_bytes", 1000.0, "at_most")),
        ("power <= 2.5", Constraint("power", 2.5, "at_most")),
    ],
)
def test_a_text_is_a_bound(text, constraint):
    assert parse_constraints([text], TEACHER) == (constraint,)


def test_a_constraint_s_text_is_read_again():
    constraint = Constraint("class_accuracy/3", 0.123456789, "at_least")
    assert parse_constraints([str(constraint)]) == (constraint,)
    assert parse_constraints([constraint]) == (constraint,)


def test_none_and_an_empty_list_are_no_constraints():
    assert parse_constraints(None) == parse_constraints([]) == ()


@pytest.mark.parametrize(
    "value",
    [
        "accuracy >= 0.9",
        ["accuracy"],
        ["accuracy > 0.9"],
        ["accuracy >= x"],
        ["accuracy >= nan"],
        [3],
        [{}],
        ["accuracy >= 90%"],
        ["latency_ms <= 50%"],
    ],
)
def test_anything_else_is_refused_in_one_sentence(value):
    with pytest.raises(ConfigError, match=r"search\.options\.constraints") as caught:
        parse_constraints(value, TEACHER)
    assert "\n" not in str(caught.value)


def test_a_share_needs_the_teacher():
    with pytest.raises(ConfigError, match="share of the teacher"):
        parse_constraints(["num_params <= 50%"])


@pytest.mark.parametrize(("value", "broken"), [(0.89, True), (0.9, False), (0.91, False)])
def test_a_value_on_the_bound_is_allowed(value, broken):
    assert Constraint("accuracy", 0.9, "at_least").violated({"accuracy": value}) is broken
    assert Constraint("power", -0.9, "at_most").violated({"power": -value}) is broken


def test_not_a_number_misses_every_bound():
    for kind in ("at_most", "at_least"):
        assert Constraint("power", 1.0, kind).violated({"power": float("nan")})


def test_a_metric_that_no_trial_reports_is_an_error_and_not_satisfied():
    constraint = Constraint("power", 1.0, "at_most")
    with pytest.raises(ConfigError, match=r"'power <= 1' needs 'power'.*distill\.metrics"):
        constraint.violated({"accuracy": 1.0})
    with pytest.raises(ConfigError, match=r"distill\.report: \[class_accuracy\]"):
        Constraint("class_accuracy/3", 1.0, "at_least").violated({})


def test_a_name_that_is_never_reported_shows_beside_a_violated_constraint_too():
    bounds = parse_constraints(["accuracy >= 0.9", "powr <= 1"])
    with pytest.raises(ConfigError, match="powr"):
        any_violated(bounds, observation(accuracy=0.1))


def test_the_numbers_that_a_proposal_carried_count_as_reported():
    one = observation({"latency_ms": 4.0, "origin": "policy", "cached": True}, accuracy=0.8)
    assert reported(one) == {"latency_ms": 4.0, "accuracy": 0.8}
    assert any_violated(parse_constraints(["latency_ms <= 3"]), one)
    assert not any_violated(parse_constraints(["latency_ms <= 5", "accuracy >= 0.5"]), one)
    assert not any_violated((), one)


def test_the_costs_of_an_architecture_are_its_own():
    teacher = trace(resnet("resnet14", 10, (1, 8, 8)), (1, 8, 8))
    assert costs_of(teacher) == {
        "num_params": teacher.num_params,
        "macs": teacher.macs,
        "memory_bytes": teacher.memory_bytes,
    }


def test_what_is_reported_on_request_must_be_asked_for_before_any_trial():
    def check(text, report=("latency_ms", "class_accuracy")):
        check_reported(parse_constraints([text]), report, 10)

    for text in ("latency_ms <= 3", "class_accuracy/9 >= 0.5", "power <= 3", "accuracy >= 0.5"):
        check(text)
    with pytest.raises(ConfigError, match=r"'latency_ms <= 3' needs .*report: \[latency_ms\]"):
        check("latency_ms <= 3", ["class_accuracy"])
    with pytest.raises(ConfigError, match=r"'class_accuracy/3 >= 1' .*report: \[class_accuracy\]"):
        check("class_accuracy/3 >= 1", [])
    for label in ("", "/10", "/-1", "/three"):
        with pytest.raises(ConfigError, match=r"names no class of the data, .* 0 to 9"):
            check(f"class_accuracy{label} >= 0.5")
