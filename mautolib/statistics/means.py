"""Means out of count, sum and sum of squares: Welch's test, its interval, analysis of variance. Pure.

The sums may be Decimals straight from the database: means and variances are computed exactly and rounded once, so that
a large mean with a small spread loses nothing. Called by `campaigns.deciding`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from mautolib.statistics.intervals import Interval, quantile
from mautolib.statistics.proportions import Statistic

__all__ = ["Moments", "Number", "Welch", "analysis_of_variance", "mean_interval", "t_quantile", "welch", "welch_of"]

Number = int | float | Decimal


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is kept of n numbers: their count, sum, and sum of squares."""

    n: int
    total: Number
    squares: Number

    @property
    def mean(self) -> float:
        """The mean.

        Raises:
            ValueError: there are no numbers.
        """
        if self.n < 1:
            raise ValueError("no numbers, no mean")
        return float(Fraction(self.total) / self.n)

    @property
    def variance(self) -> float:
        """The variance with n - 1 below.

        Raises:
            ValueError: fewer than two numbers, or no numbers have these sums.
        """
        if self.n < 2:
            raise ValueError(f"{self.n} numbers have no variance")
        spread = self._spread
        if spread < -Fraction(1, 10**9) * Fraction(self.squares):
            raise ValueError("a sum of squares below the square of the sum: no numbers have these sums")
        return max(0.0, float(spread / (self.n - 1)))

    @property
    def _spread(self) -> Fraction:
        return Fraction(self.squares) - Fraction(self.total) ** 2 / self.n

    def __add__(self, other: Moments) -> Moments:
        """Both lots together."""
        return Moments(
            n=self.n + other.n, total=_sum(self.total, other.total), squares=_sum(self.squares, other.squares)
        )


@dataclass(frozen=True, kw_only=True)
class Welch:
    """A difference of two means with its standard error, t, degrees of freedom, two-sided p-value and interval."""

    difference: float
    error: float
    statistic: float
    df: float
    p_value: float
    interval: Interval


def welch(one: Moments, other: Moments, *, confidence: float = 0.95) -> Welch:
    """Welch's t of one mean minus the other; the groups may have different variances.

    B. L. Welch (1947), The generalization of "Student's" problem when several different population variances are
    involved, Biometrika 34, with his degrees of freedom. Numbers without any spread: p is 1 if the means are equal,
    else 0, and the interval is the difference alone.

    Raises:
        ValueError: fewer than two numbers in a group.
    """
    return welch_of(
        one.mean - other.mean, (one.variance / one.n, one.n - 1), (other.variance / other.n, other.n - 1),
        confidence=confidence,
    )  # fmt: skip


def welch_of(difference: float, one: tuple[float, int], other: tuple[float, int], *, confidence: float = 0.95) -> Welch:
    """`welch` of any two independent estimates, each given by its squared standard error and degrees of freedom."""
    from scipy.special import stdtr

    squared = one[0] + other[0]
    if squared == 0:
        return Welch(
            difference=difference, error=0.0, statistic=math.copysign(math.inf, difference) if difference else 0.0,
            df=float(one[1] + other[1]), p_value=0.0 if difference else 1.0,
            interval=Interval(low=difference, high=difference),
        )  # fmt: skip
    # Of shares, so that no square of a tiny variance is lost.
    df = 1 / ((one[0] / squared) ** 2 / one[1] + (other[0] / squared) ** 2 / other[1])
    error = math.sqrt(squared)
    half = t_quantile(confidence, df) * error
    return Welch(
        difference=difference, error=error, statistic=difference / error, df=df,
        p_value=2 * float(stdtr(df, -abs(difference) / error)),
        interval=Interval(low=difference - half, high=difference + half),
    )  # fmt: skip


def mean_interval(numbers: Moments, *, confidence: float = 0.95) -> Interval:
    """Student's interval of a mean.

    Student (1908), The probable error of a mean, Biometrika 6. With many zeros and a few large orders it needs some
    dozens of orders to cover as it says.

    Raises:
        ValueError: fewer than two numbers.
    """
    half = t_quantile(confidence, numbers.n - 1) * math.sqrt(numbers.variance / numbers.n)
    return Interval(low=numbers.mean - half, high=numbers.mean + half)


def analysis_of_variance(groups: Sequence[Moments]) -> Statistic:
    """The F test that all groups have one mean; `df` is that of the numerator.

    R. A. Fisher (1925), Statistical Methods for Research Workers, chapter 7.

    Raises:
        ValueError: fewer than two groups, an empty group, or numbers without any spread.
    """
    from scipy.special import fdtrc

    if len(groups) < 2:
        raise ValueError("one group has nothing to differ from")
    whole = groups[0]
    for each in groups[1:]:
        whole += each
    between = math.fsum(each.n * (each.mean - whole.mean) ** 2 for each in groups)
    within = math.fsum(each.variance * (each.n - 1) for each in groups)
    if within == 0:
        raise ValueError("numbers without any spread: no F")
    df, rest = len(groups) - 1, whole.n - len(groups)
    statistic = between / df / (within / rest)
    return Statistic(statistic=statistic, p_value=float(fdtrc(df, rest, statistic)), df=df)


def t_quantile(confidence: float, df: float) -> float:
    """Student's quantile of a two-sided interval: 2.09 for 0.95 and 20 degrees of freedom.

    Raises:
        ValueError: `confidence` does not lie between 0 and 1.
    """
    from scipy.special import stdtrit

    quantile(confidence)
    return -float(stdtrit(df, (1 - confidence) / 2))


def _sum(one: Number, other: Number) -> Number:
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one + other
    return one + other if not isinstance(one, Decimal) and not isinstance(other, Decimal) else float(one) + float(other)
