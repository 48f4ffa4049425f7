"""The sentences about a budget, by examples worked out by hand."""

from raysearch.report.budget import budget_text, budget_use

BEST = {
    "accuracy": 0.961,
    "num_params": 4100,
    "macs": 90_000,
    "memory_bytes": 18_000,
    "latency_ms": 1.8342,
}


def test_every_limit_is_shown_with_what_is_used_of_it():
    budget = {"params": 4200, "memory": 20_000, "latency_ms": 2.0}
    assert budget_use(budget, BEST) == (
        "It uses 4,100 of 4,200 parameters, 18,000 of 20,000 bytes of memory, 1.834 of 2 ms."
    )
    assert budget_text(budget) == "4,200 parameters, 20,000 bytes of memory, 2 ms"


def test_a_floor_that_is_reached_and_one_that_is_not():
    assert budget_use({"accuracy": 0.95}, BEST) == (
        "It reaches 96.1 % on validation, of 95.0 % asked for."
    )
    assert "No fully trained student reaches the 97.0 %" in budget_use({"accuracy": 0.97}, BEST)
    assert budget_text({"accuracy": "98%"}) == "accuracy of 98% of the teacher's or more"


def test_without_a_budget_there_is_nothing_to_say():
    assert budget_use({}, BEST) == budget_text({}) == ""
