"""Intervals and areas against published values and against counting every pair."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib.statistics import area_under_curve, wilson

#: R. G. Newcombe (1998), Two-sided confidence intervals for the single proportion, Statistics in Medicine 17, table I,
#: method 3.
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
#: J. A. Hanley, B. J. McNeil (1982), The meaning and use of the area under a ROC curve, Radiology 143, table I: ratings
#: 1 to 5 of the scans of 51 abnormal and 58 normal patients.
ABNORMAL, NORMAL = (3, 2, 2, 11, 33), (33, 6, 6, 11, 2)


@pytest.mark.parametrize(("part", "whole", "low", "high"), NEWCOMBE)
def test_wilson_is_the_published_interval(part: int, whole: int, low: float, high: float) -> None:
    found = wilson(part, whole)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_wilson_stays_within_0_and_1_and_shrinks() -> None:
    for whole in (1, 2, 10, 1000):
        for part in (0, whole // 2, whole):
            found = wilson(part, whole)
            assert 0 <= found.low <= part / whole <= found.high <= 1
    assert wilson(50, 100, confidence=0.8).high < wilson(50, 100).high
    for part, whole in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="no rate"):
            wilson(part, whole)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, confidence=95)


def test_the_area_of_hanley_and_mcneil_with_delongs_interval() -> None:
    """Stata's manual ([R] roctab) prints for them: area 0.8932, standard error 0.0307, 0.83295 to 0.95339."""
    found = area_under_curve(zip(range(5), ABNORMAL, NORMAL, strict=True))
    assert (round(found.area, 4), round(found.standard_error, 4)) == (0.8932, 0.0307)
    assert (round(found.interval.low, 5), round(found.interval.high, 5)) == (0.83295, 0.95339)


def by_pairs(happened: list[int], others: list[int]) -> tuple[float, float]:
    """Area and DeLong's standard error by looking at every pair of people."""

    def order(one: int, other: int) -> float:
        return 1.0 if one > other else 0.5 if one == other else 0.0

    area = sum(order(x, y) for x, y in itertools.product(happened, others)) / (len(happened) * len(others))
    of_one = [sum(order(x, y) for y in others) / len(others) for x in happened]
    of_other = [sum(order(x, y) for x in happened) / len(happened) for y in others]
    variance = sum(
        sum((each - area) ** 2 for each in shares) / (len(shares) - 1) / len(shares) for shares in (of_one, of_other)
    )
    return area, math.sqrt(variance)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=12), st.lists(st.integers(0, 6), min_size=2, max_size=12),
)
def test_the_area_is_that_of_all_pairs(happened: list[int], others: list[int]) -> None:
    rows = [(float(value), 1, 0) for value in happened] + [(float(value), 0, 1) for value in others]
    found = area_under_curve(rows)
    area, error = by_pairs(happened, others)
    assert found.area == pytest.approx(area, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    turned = area_under_curve((-value, one, other) for value, one, other in rows)
    assert turned.area == pytest.approx(1 - area, abs=1e-12)
    assert 0 <= found.interval.low <= found.area + 1e-12 and found.area - 1e-12 <= found.interval.high <= 1


def test_no_area_without_two_of_each() -> None:
    with pytest.raises(ValueError, match="1 with and 5 without"):
        area_under_curve([(1, 1, 2), (2, 0, 3)])


def test_a_perfect_order_and_a_constant() -> None:
    perfect = area_under_curve([(1, 0, 50), (2, 50, 0)])
    assert (perfect.area, perfect.standard_error, perfect.interval.low) == (1, 0, 1)
    assert area_under_curve([(7, 50, 50)]).area == 0.5
