"""Numbers are written as people read them."""

from __future__ import annotations

import math

import pytest

from raysearch.formatting import MISSING, clock, count, decimal, duration, percent, short_count


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.6, "1 k"),
        (1000, "1 k"),
        (4132, "4.13 k"),
        (41_320, "41.3 k"),
        (413_200, "413 k"),
        (999_700, "1 M"),
        (1_250_000, "1.25 M"),
        (2e9, "2 G"),
        (5e15, "5000 T"),
    ],
)
def test_short_counts_have_three_digits(number: float, text: str) -> None:
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.23, "4.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (62, "1 min 02 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_durations_carry_over(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_clocks_tick() -> None:
    assert [clock(seconds) for seconds in (0, 62.9, 3900, -1)] == [
        "0:00",
        "1:02",
        "1:05:00",
        "0:00",
    ]


def test_missing_numbers_are_a_dash() -> None:
    for value in (None, math.nan, math.inf):
        assert percent(value) == decimal(value) == short_count(value) == duration(value) == MISSING
    assert count(None) == MISSING
    assert percent(0.9617) == "96.2 %"
    assert count(4132) == "4,132"
