"""The statistics of A/B tests against SciPy and NumPy over random data, and at the edges where both give up."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib import statistics as s
from mautolib.statistics import Moments, Pairs

QUIET = settings(deadline=None, derandomize=True, max_examples=40)
COUNT = st.integers(0, 60)


@st.composite
def rates(draw: st.DrawFn, groups: int = 2, most: int = 60) -> tuple[list[int], list[int]]:
    totals = [draw(st.integers(1, most)) for _ in range(groups)]
    return [draw(st.integers(0, whole)) for whole in totals], totals


def table_of(parts: list[int], totals: list[int]) -> list[list[int]]:
    return [parts, [whole - part for part, whole in zip(parts, totals, strict=True)]]


def moments(numbers: list[Any]) -> Moments:
    return Moments(n=len(numbers), total=sum(numbers), squares=sum(each * each for each in numbers))


@settings(QUIET, max_examples=15)
@given(rates())
@pytest.mark.thorough
def test_fisher_is_that_of_scipy(drawn: tuple[list[int], list[int]]) -> None:
    from scipy.stats import fisher_exact

    (part, other), (whole, rest) = drawn
    table = [[part, whole - part], [other, rest - other]]
    assert s.fisher(part, whole, other, rest) == pytest.approx(fisher_exact(table).pvalue, rel=1e-9)
    less = fisher_exact(table, alternative="less").pvalue
    assert s.fisher_less(part, whole, other, rest) == pytest.approx(less, rel=1e-9)


@QUIET
@given(rates(groups=3, most=12))
def test_freeman_and_haltons_test_is_that_of_adding_up_all_tables(drawn: tuple[list[int], list[int]]) -> None:
    parts, totals = drawn
    a, b, c = totals
    hits = sum(parts)
    every = {
        (i, j, hits - i - j): math.comb(a, i) * math.comb(b, j) * math.comb(c, hits - i - j)
        for i in range(a + 1) for j in range(b + 1) if 0 <= hits - i - j <= c
    }  # fmt: skip
    wanted = sum(each for each in every.values() if each <= every[tuple(parts)]) / sum(every.values())  # type: ignore[index]
    assert s.freeman_halton(parts, totals) == pytest.approx(wanted, rel=1e-9)


def test_freeman_and_haltons_test_of_two_groups_is_fishers_and_ends_somewhere() -> None:
    assert s.freeman_halton([2, 15], [12, 18]) == pytest.approx(s.fisher(2, 12, 15, 18), rel=1e-12)
    assert s.freeman_halton([0, 0, 0], [5, 5, 5]) == s.freeman_halton([5, 5, 5], [5, 5, 5]) == 1
    assert s.freeman_halton([900, 800, 700], [10_000] * 3) is None
    assert s.freeman_halton([9_998, 9_990, 9_999], [10_000] * 3) == pytest.approx(
        s.freeman_halton([2, 10, 1], [10_000] * 3), rel=1e-12
    )


@QUIET
@given(rates(groups=4))
def test_chi_square_and_z_are_those_of_scipy(drawn: tuple[list[int], list[int]]) -> None:
    from scipy.stats import chi2_contingency

    parts, totals = drawn
    if 0 < sum(parts) < sum(totals):
        found, wanted = s.chi_square(table_of(parts, totals)), chi2_contingency(table_of(parts, totals))
        assert (found.statistic, found.p_value, found.df) == (
            pytest.approx(wanted.statistic, rel=1e-9, abs=1e-12), pytest.approx(wanted.pvalue, rel=1e-9), wanted.dof,
        )  # fmt: skip
        smallest = s.smallest_expected(parts, totals)
        assert smallest == pytest.approx(wanted.expected_freq.min(), rel=1e-9)
    if 0 < sum(parts[:2]) < sum(totals[:2]):
        z = s.z_test(parts[0], totals[0], parts[1], totals[1])
        pair = s.chi_square(table_of(parts[:2], totals[:2]))
        assert z.statistic**2 == pytest.approx(pair.statistic, rel=1e-9, abs=1e-12)
        assert z.p_value == pytest.approx(pair.p_value, rel=1e-9)


@QUIET
@given(COUNT, COUNT, st.floats(0.01, 0.99))
def test_the_exact_binomial_test_is_that_of_scipy(part: int, rest: int, rate: float) -> None:
    from scipy.stats import binomtest

    if part + rest:
        wanted = binomtest(part, part + rest, rate).pvalue
        assert s.binomial_test(part, part + rest, rate) == pytest.approx(wanted, rel=1e-6)


@QUIET
@given(rates())
def test_intervals_hold_the_rate_and_turn_with_it(drawn: tuple[list[int], list[int]]) -> None:
    from scipy.stats import binomtest

    (part, other), (whole, rest) = drawn
    exact = binomtest(part, whole).proportion_ci(method="exact")
    found = s.clopper_pearson(part, whole)
    assert (found.low, found.high) == (pytest.approx(exact.low, rel=1e-9), pytest.approx(exact.high, rel=1e-9))
    one, turned = s.newcombe(part, whole, other, rest), s.newcombe(other, rest, part, whole)
    assert (one.low, one.high) == (pytest.approx(-turned.high, abs=1e-12), pytest.approx(-turned.low, abs=1e-12))
    difference = part / whole - other / rest
    lasting = s.sequential_rates(part, whole, other, rest)
    ends = (lasting.low, one.low, difference, one.high, lasting.high)
    assert ends[0] >= -1 - 1e-12 and ends[-1] <= 1 + 1e-12
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(ends))
    wider = s.sequential_rates(part, whole, other, rest, comparisons=3)
    assert wider.low <= lasting.low + 1e-12 and lasting.high <= wider.high + 1e-12


NUMBERS = st.lists(st.integers(-500, 5000).map(lambda cents: Decimal(cents) / 100), min_size=2, max_size=12)


@QUIET
@given(NUMBERS, NUMBERS, NUMBERS)
def test_means_are_compared_as_scipy_does(a: list[Decimal], b: list[Decimal], c: list[Decimal]) -> None:
    from scipy.stats import f_oneway, ttest_ind

    lists = [[float(each) for each in numbers] for numbers in (a, b, c)]
    groups = [moments(numbers) for numbers in (a, b, c)]
    if min(len(set(numbers)) for numbers in lists) > 1:
        found, wanted = s.welch(groups[0], groups[1]), ttest_ind(lists[0], lists[1], equal_var=False)
        ends = wanted.confidence_interval()
        assert found.statistic == pytest.approx(wanted.statistic, rel=1e-8, abs=1e-9)
        assert found.df == pytest.approx(wanted.df, rel=1e-9)
        assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-8)
        assert found.interval.low == pytest.approx(ends.low, rel=1e-8, abs=1e-9)
        assert found.interval.high == pytest.approx(ends.high, rel=1e-8, abs=1e-9)
        everybody = s.analysis_of_variance(groups).p_value
        if everybody < 0.999:  # of equal means rounding leaves SciPy a negative F
            assert everybody == pytest.approx(f_oneway(*lists).pvalue, rel=1e-8)
        lasting = s.sequential_means(groups[0], groups[1])
        assert lasting.low <= found.interval.low and found.interval.high <= lasting.high


def test_a_small_spread_about_a_large_mean_is_not_lost() -> None:
    numbers = [Decimal("1000000000.01"), Decimal("1000000000.02"), Decimal("1000000000.03")]
    assert moments(numbers).variance == 0.0001
    assert moments(numbers).mean == 1000000000.02
    assert (moments(numbers) + moments([1, 2])).n == 5
    assert (moments([0.5]) + moments([Decimal("0.25")])).mean == 0.375


def test_numbers_without_spread() -> None:
    same, more = moments([5, 5, 5]), moments([7, 7])
    assert (s.welch(same, same).p_value, s.welch(same, same).statistic) == (1, 0)
    found = s.welch(more, same)
    assert (found.p_value, found.statistic, found.interval) == (0, math.inf, s.Interval(low=2, high=2))
    assert s.sequential_means(more, same) == s.Interval(low=2, high=2)
    assert s.lift_of_means(more, same).interval == s.Interval(low=0.4, high=0.4)


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (lambda: s.z_test(0, 5, 0, 5), "nobody or everybody"),
        (lambda: s.chi_square([[0, 0], [5, 5]]), "empty"),
        (lambda: s.chi_square([[1, 2, 3]]), "two or more"),
        (lambda: s.chi_square([[1, 2], [3]]), "two or more"),
        (lambda: s.chi_square([[1, -2], [3, 4]]), "two or more"),
        (lambda: s.fisher(6, 5, 0, 5), "no rates"),
        (lambda: s.freeman_halton([1, -1], [5, 5]), "no rates"),
        (lambda: s.binomial_test(1, 2, 1.0), "between 0 and 1"),
        (lambda: s.newcombe(1, 0, 1, 2), "no rate"),
        (lambda: s.sequential_rates(1, 2, 1, 0), "no rate"),
        (lambda: s.welch(moments([1]), moments([1, 2])), "no variance"),
        (lambda: moments([]).mean, "no mean"),
        (lambda: Moments(n=3, total=30, squares=1).variance, "no numbers have these sums"),
        (lambda: s.analysis_of_variance([moments([1, 1]), moments([1, 1])]), "no F"),
        (lambda: s.analysis_of_variance([moments([1, 2])]), "nothing to differ"),
        (lambda: s.sample_ratio([5, -1]), "not negative"),
        (lambda: s.sample_ratio([5, 5], [1, 0]), "positive"),
        (lambda: s.lift_of_rates(1, 5, 0, 5), "no lift"),
        (lambda: s.lift_of_means(moments([1, 2]), moments([0, 0])), "no lift"),
        (lambda: s.power(0.1, 0.0, 5, 5), "a variance"),
        (lambda: s.sample_size(0.5, 0.0), "different rates"),
        (lambda: s.sample_size(0.9, 0.2), "between 0 and 1"),
        (lambda: s.multiplier(5, confidence=95), "between 0 and 1"),
        (lambda: s.crossing_probability([1.96, 1.96], [1.0]), "a time"),
        (lambda: s.crossing_probability([1.96, 1.96], [1.0, 1.0]), "times grow"),
    ],
)
def test_what_cannot_be_computed_is_refused(refused: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        refused()


def test_corrections() -> None:
    from scipy.stats import false_discovery_control

    p_values = [0.01, 0.04, 0.03, 0.005]
    assert s.holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert s.benjamini_hochberg(p_values) == pytest.approx(list(false_discovery_control(p_values)))
    assert s.holm([0.5, 0.9]) == [1.0, 1.0] and s.holm([]) == []
    assert s.holm([0.04]) == s.bonferroni([0.04]) == s.benjamini_hochberg([0.04]) == [0.04]


def test_sample_ratio() -> None:
    found = s.sample_ratio([821588, 815482])
    assert found.detected and found.p_value == pytest.approx(1.8e-6, rel=0.02)  # R. Kohavi et al. (2020), chapter 21
    assert s.sample_ratio([30, 10], [3, 1]).chi2 == 0
    assert not s.sample_ratio([0, 0]).detected and not s.sample_ratio([7]).detected
    assert s.sequential_sample_ratio([500, 500], [1, 1]) == 1
    assert s.sequential_sample_ratio([600, 400], [1, 1]) < 1e-6


def test_lifts() -> None:
    found = s.lift_of_rates(60, 1000, 50, 1000)
    assert found.lift == pytest.approx(0.2) and found.interval is not None and found.interval.low < 0
    assert s.lift_of_rates(0, 10, 5, 10) == s.Lift(lift=-1.0, interval=None)


def test_cuped_is_the_regression_on_what_was_before() -> None:
    import numpy

    rng = numpy.random.default_rng(3)
    groups = []
    for effect in (2.0, 0.0):
        before = rng.gamma(2, 10, 4000)
        groups.append((20 + 0.8 * before + effect + rng.normal(0, 8, 4000), before))
    packed = [
        Pairs(n=len(y), y=float(y.sum()), yy=float(y @ y), x=float(x.sum()), xx=float(x @ x), xy=float(x @ y))
        for y, x in groups
    ]
    found = s.cuped(*packed)
    centred_y = numpy.concatenate([y - y.mean() for y, _ in groups])
    centred_x = numpy.concatenate([x - x.mean() for _, x in groups])
    theta = (centred_x @ centred_y) / (centred_x @ centred_x)
    means = [(y - theta * x).mean() for y, x in groups]
    assert found.theta == pytest.approx(theta, rel=1e-9)
    assert found.test.difference == pytest.approx(means[0] - means[1], rel=1e-9)
    wanted = math.sqrt(sum((y - theta * x).var(ddof=1) / len(y) for y, x in groups))
    assert found.test.error == pytest.approx(wanted, rel=1e-9)
    # What is gone is the squared correlation; the difference is still there, and the interval still holds it.
    correlation = numpy.corrcoef(centred_x, centred_y)[0, 1]
    assert found.reduction == pytest.approx(correlation**2, abs=0.02)
    assert found.test.interval.low < 2 < found.test.interval.high
    assert found.lift is not None and 0.03 < found.lift.lift < 0.09


def test_cuped_without_a_spread_before_is_welch() -> None:
    one = Pairs(n=3, y=6, yy=14, x=3, xx=3, xy=6)
    other = Pairs(n=3, y=3, yy=5, x=3, xx=3, xy=3)
    found = s.cuped(one, other)
    plain = s.welch(Moments(n=3, total=6, squares=14), Moments(n=3, total=3, squares=5))
    assert (found.theta, found.reduction) == (0, 0) and found.test == plain
