"""Tests of rates: do two or more groups respond at one rate? Pure functions over counts.

Every p-value is two-sided unless a function says otherwise. The exact tests sum probabilities by recurrence from the
most likely table, so that they stay exact with a million recipients. Called by `campaigns.deciding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mautolib.statistics.intervals import rate_of

__all__ = [
    "Statistic", "binomial_test", "chi_square", "fisher", "fisher_less", "freeman_halton", "smallest_expected",
    "z_test",
]  # fmt: skip

#: Tables as likely as the observed one up to rounding count as equally likely, as in R's fisher.test.
_SAME = 1 + 1e-7
#: More tables than this are not enumerated; with so many the chi-square approximation holds.
_TABLES = 50_000


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A test statistic with its p-value; `df` where its distribution has degrees of freedom."""

    statistic: float
    p_value: float
    df: int | None = None


def z_test(part: int, whole: int, other_part: int, other_whole: int) -> Statistic:
    """z of part / whole against other_part / other_whole with the pooled variance; its square is the chi-square.

    K. Pearson (1900), On the criterion that a given system of deviations ..., Philosophical Magazine 50; as z in J. L.
    Fleiss (1981), Statistical Methods for Rates and Proportions, chapter 2, without continuity correction.

    Raises:
        ValueError: not rates, or nobody or everybody responded (there is nothing to test).
    """
    rate, other_rate = rate_of(part, whole), rate_of(other_part, other_whole)
    pooled = (part + other_part) / (whole + other_whole)
    if pooled in (0.0, 1.0):
        raise ValueError("nobody or everybody responded: no z")
    z = (rate - other_rate) / math.sqrt(pooled * (1 - pooled) * (1 / whole + 1 / other_whole))
    return Statistic(statistic=z, p_value=math.erfc(abs(z) / math.sqrt(2)))


def chi_square(table: Sequence[Sequence[int]]) -> Statistic:
    """Pearson's chi-square of independence of a table of counts, without continuity correction.

    K. Pearson (1900); degrees of freedom after R. A. Fisher (1922), On the interpretation of chi-square from
    contingency tables, Journal of the Royal Statistical Society 85. For rates: one row each of successes and failures.

    Raises:
        ValueError: fewer than two rows or columns, rows of unequal length, a negative count, or an empty row or column.
    """
    from scipy.special import chdtrc

    rows = [sum(row) for row in table]
    if len(rows) < 2 or {len(row) for row in table} != {max(2, len(table[0]))} or any(min(row) < 0 for row in table):
        raise ValueError("a table of counts has two or more rows of two or more columns")
    columns = [sum(column) for column in zip(*table, strict=True)]
    if 0 in rows or 0 in columns:
        raise ValueError("a row or a column is empty: no chi-square")
    whole = sum(rows)
    statistic = math.fsum(
        (seen - row * column / whole) ** 2 / (row * column / whole)
        for row, counts in zip(rows, table, strict=True)
        for column, seen in zip(columns, counts, strict=True)
    )
    df = (len(rows) - 1) * (len(columns) - 1)
    return Statistic(statistic=statistic, p_value=float(chdtrc(df, statistic)), df=df)


def smallest_expected(successes: Sequence[int], totals: Sequence[int]) -> float:
    """The smallest expected count of the table of successes and failures: below 5 an exact test is due.

    W. G. Cochran (1954), Some methods for strengthening the common chi-square tests, Biometrics 10.
    """
    rate = sum(successes) / sum(totals) if sum(totals) else 0.0
    return min(min(whole * rate, whole * (1 - rate)) for whole in totals)


def fisher(part: int, whole: int, other_part: int, other_whole: int) -> float:
    """The two-sided p-value of Fisher's exact test: all tables with these margins that are no likelier than this one.

    R. A. Fisher (1935), The logic of inductive inference, Journal of the Royal Statistical Society 98; two-sided as
    R's fisher.test (J. O. Irwin, 1935).

    Raises:
        ValueError: not counts of a rate; a group may be empty.
    """
    weights, at = _hypergeometric(part, whole, other_part, other_whole)
    return _no_likelier(weights, weights[at])


def fisher_less(part: int, whole: int, other_part: int, other_whole: int) -> float:
    """One-sided: the chance of `part` or fewer successes of this group, given the margins. Source as `fisher`.

    Raises:
        ValueError: as `fisher`.
    """
    weights, at = _hypergeometric(part, whole, other_part, other_whole)
    return math.fsum(weights[: at + 1]) / math.fsum(weights)


def freeman_halton(successes: Sequence[int], totals: Sequence[int]) -> float | None:
    """Fisher's exact test for more than two groups: its p-value, or None where there are too many tables to add up.

    G. H. Freeman, J. H. Halton (1951), Note on an exact treatment of contingency, goodness of fit and other problems of
    significance, Biometrika 38.

    Raises:
        ValueError: not counts of rates.
    """
    _check(successes, totals)
    hits, whole = sum(successes), sum(totals)
    # The rarer of both outcomes gives the same tables, and fewer steps to each.
    rare = list(successes) if 2 * hits <= whole else [n - k for n, k in zip(totals, successes, strict=True)]
    left = sum(rare)
    if math.comb(left + len(totals) - 1, len(totals) - 1) > _TABLES:
        return None
    ways = [_log_ways(n, left) for n in totals]
    observed = math.fsum(ways[group][count] for group, count in enumerate(rare))
    found = list(_tables(ways, left))
    top = max(found)
    weights = [math.exp(each - top) for each in found]
    return _no_likelier(weights, math.exp(observed - top))


def binomial_test(part: int, whole: int, rate: float) -> float:
    """The exact two-sided p-value of `part` of `whole` where `rate` is expected.

    As R's binom.test: all outcomes that are no likelier than the observed one; after C. J. Clopper, E. S. Pearson
    (1934), Biometrika 26.

    Raises:
        ValueError: no counts of a rate, or `rate` does not lie between 0 and 1.
    """
    rate_of(part, whole)
    if not 0 < rate < 1:
        raise ValueError(f"{rate} does not lie between 0 and 1")
    odds = rate / (1 - rate)
    weights = _from_mode(0, whole, min(whole, int((whole + 1) * rate)), lambda k: (whole - k) / (k + 1) * odds)
    return _no_likelier(weights, weights[part])


def _check(successes: Sequence[int], totals: Sequence[int]) -> None:
    if any(not 0 <= part <= whole for part, whole in zip(successes, totals, strict=True)):
        raise ValueError(f"{list(successes)} of {list(totals)} are no rates")


def _hypergeometric(part: int, whole: int, other_part: int, other_whole: int) -> tuple[list[float], int]:
    """Weights of every table with these margins, and the place of this one."""
    _check((part, other_part), (whole, other_whole))
    hits = part + other_part
    low, high = max(0, hits - other_whole), min(hits, whole)
    mode = min(high, max(low, (hits + 1) * (whole + 1) // (whole + other_whole + 2)))
    weights = _from_mode(low, high, mode, lambda k: (whole - k) * (hits - k) / ((k + 1) * (other_whole - hits + k + 1)))
    return weights, part - low


def _from_mode(low: int, high: int, mode: int, ratio: Callable[[int], float]) -> list[float]:
    """Weights of low..high, 1 at the mode, each from its neighbour: `ratio(k)` is weight(k + 1) / weight(k)."""
    up, down = [1.0], []
    for k in range(mode, high):
        up.append(up[-1] * ratio(k))
    weight = 1.0
    for k in range(mode - 1, low - 1, -1):
        weight /= ratio(k)
        down.append(weight)
    return down[::-1] + up


def _no_likelier(weights: list[float], observed: float) -> float:
    return min(1.0, math.fsum(each for each in weights if each <= observed * _SAME) / math.fsum(weights))


def _log_ways(whole: int, most: int) -> list[float]:
    """Logarithms of "whole choose k" for k = 0..most, minus infinity beyond `whole`."""
    found = [0.0]
    for k in range(most):
        found.append(found[-1] + math.log((whole - k) / (k + 1)) if k < whole else -math.inf)
    return found


def _tables(ways: list[list[float]], left: int) -> Iterator[float]:
    """The logarithm of the weight of every way to spread `left` over the groups."""
    if len(ways) == 1:
        if ways[0][left] > -math.inf:
            yield ways[0][left]
        return
    for count in range(left + 1):
        if ways[0][count] > -math.inf:
            yield from (ways[0][count] + rest for rest in _tables(ways[1:], left - count))
