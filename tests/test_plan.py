"""Who is trained fully."""

import pytest

from raysearch.plan import with_near_misses


def record(name, value, num_params):
    return {"architecture_id": name, "value": value, "num_params": num_params}


FULL = [
    record("a", 1.9, 100),
    record("b", 1.8, 200),
    record("c", 1.7, 300),
    record("small", 0.99, 90),
    record("large", 0.98, 400),
    record("smaller", 0.9, 20),
]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["a"]),
        (2, ["a", "b"]),
        (3, ["a", "b", "small"]),
        (6, ["a", "b", "c", "large", "small", "smaller"]),
    ],
)
def test_a_third_of_the_finalists_are_smaller_ones_that_nearly_reached_the_floor(count, expected):
    chosen = with_near_misses(FULL[:count], FULL, "params")
    assert [one["architecture_id"] for one in chosen] == expected


def test_where_none_reached_the_floor_the_most_accurate_are_trained():
    missed = FULL[3:]
    assert with_near_misses(missed[:3], missed, "params") == missed
    assert with_near_misses([], [], "params") == []
