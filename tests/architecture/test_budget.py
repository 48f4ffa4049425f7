"""Budget values: fractions, numbers, text; and their errors."""

import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.budget import resolve_budget
from raysearch.errors import BudgetError

TEACHER = {"params": 1_000_000, "macs": 50_000_000}


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (0.05, 50_000),
        (1.0, 1_000_000),
        (1, 1_000_000),
        (1234, 1234),
        (5000.9, 5000),
        ("60%", 600_000),
        ("0.1", 100_000),
        ("0.25M", 250_000),
        (" 800k ", 800_000),
        ("1e5", 100_000),
        ("2G", 1_000_000),
        (10**30, 1_000_000),
        ("100%", 1_000_000),
    ],
)
def test_values_become_numbers(value, limit):
    assert resolve_budget({"params": value}, TEACHER) == {"params": limit}


@pytest.mark.parametrize(
    "value",
    [
        0,
        0.0,
        -0.1,
        -5,
        "0",
        "0%",
        "150%",
        "-1k",
        "many",
        "",
        "k",
        "1.2.3",
        "1MM",
        "nan",
        "inf",
        float("nan"),
        float("inf"),
        True,
        None,
        [0.1],
        {},
        "0.0001k",
    ],
)
def test_other_values_are_refused_with_their_name(value):
    with pytest.raises(BudgetError, match=r"budget\.params"):
        resolve_budget({"params": value}, TEACHER)


def test_milliseconds_are_taken_as_they_are():
    assert resolve_budget({"latency_ms": 0.5}, TEACHER) == {"latency_ms": 0.5}
    assert resolve_budget({"latency_ms": 3, "params": 10}, TEACHER)["latency_ms"] == 3.0


@pytest.mark.parametrize("value", [0, -1.0, "2", "50%", True, float("nan"), float("inf"), None])
def test_a_latency_that_is_no_positive_number_is_refused(value):
    with pytest.raises(BudgetError, match=r"budget\.latency_ms"):
        resolve_budget({"latency_ms": value}, TEACHER)


def test_an_accuracy_is_checked_and_limits_nothing():
    assert resolve_budget({"accuracy": 0.9, "params": 10}, TEACHER) == {"params": 10}
    assert resolve_budget({"accuracy": "98%"}, TEACHER) == {}
    with pytest.raises(BudgetError, match=r"budget\.accuracy is 1\.5"):
        resolve_budget({"accuracy": 1.5}, TEACHER)


def test_unknown_metrics_and_other_types_are_refused():
    with pytest.raises(BudgetError, match=r"budget\.parameters is unknown"):
        resolve_budget({"parameters": 0.5}, TEACHER)
    with pytest.raises(BudgetError, match="give a mapping"):
        resolve_budget(0.5, TEACHER)  # type: ignore[arg-type]


def test_no_budget_is_no_limit():
    assert resolve_budget(None, TEACHER) == resolve_budget({}, TEACHER) == {}


@pytest.mark.parametrize("metric", ["params", "macs"])
def test_a_budget_that_no_student_meets_names_the_smallest_one(networks, metric):
    teacher = networks["resnet"]()
    free = SearchSpace(teacher)
    least = int(
        getattr(free.apply(free.smallest()), "num_params" if metric == "params" else "macs")
    )
    with pytest.raises(BudgetError, match=f"{least:,}"):
        SearchSpace(teacher, budget={metric: least - 1})
    space = SearchSpace(teacher, budget={metric: least})
    assert space.within_budget(space.sample(20, seed=0)).all()
