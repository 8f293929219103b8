"""Intervals of one rate and of the difference of two. Pure; called by whatever shows a rate with its uncertainty.

Rates are fractions of 1, never percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

__all__ = [
    "Interval", "clopper_pearson", "newcombe", "newcombe_at", "quantile", "rate_of", "wald", "wald_difference",
    "wilson",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Both ends of a two-sided interval."""

    low: float
    high: float


def quantile(confidence: float) -> float:
    """The standard normal quantile of a two-sided interval: 1.96 for 0.95.

    Raises:
        ValueError: `confidence` does not lie between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(part: int, whole: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of the rate part / whole, without continuity correction.

    E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22; recommended
    for small samples by L. D. Brown, T. T. Cai, A. DasGupta (2001), Statistical Science 16.

    Raises:
        ValueError: `part` does not lie between 0 and `whole`, or `whole` is 0.
    """
    return _score(part, whole, quantile(confidence))


def wald(part: int, whole: int, *, confidence: float = 0.95) -> Interval:
    """The plain normal interval of the rate part / whole, cut at 0 and 1: for comparison with others' tables only.

    P. S. Laplace (1812), Théorie analytique des probabilités; method 1 of R. G. Newcombe (1998), Two-sided confidence
    intervals for the single proportion, Statistics in Medicine 17. It covers too rarely: show `wilson`.

    Raises:
        ValueError: as `wilson`.
    """
    rate = rate_of(part, whole)
    half = quantile(confidence) * math.sqrt(rate * (1 - rate) / whole)
    return Interval(low=max(0.0, rate - half), high=min(1.0, rate + half))


def clopper_pearson(part: int, whole: int, *, confidence: float = 0.95) -> Interval:
    """The exact interval of the rate part / whole: never covers too rarely, and is wider than `wilson`.

    C. J. Clopper, E. S. Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the
    binomial, Biometrika 26, by quantiles of the beta distribution.

    Raises:
        ValueError: as `wilson`.
    """
    from scipy.special import betaincinv

    rate_of(part, whole)
    tail = (1 - confidence) / 2
    quantile(confidence)  # refuses what is no confidence
    low = 0.0 if part == 0 else float(betaincinv(part, whole - part + 1, tail))
    high = 1.0 if part == whole else float(betaincinv(part + 1, whole - part, 1 - tail))
    return Interval(low=low, high=high)


def newcombe(part: int, whole: int, other_part: int, other_whole: int, *, confidence: float = 0.95) -> Interval:
    """The interval of part / whole - other_part / other_whole out of both Wilson intervals: the one to show.

    R. G. Newcombe (1998), Interval estimation for the difference between independent proportions: comparison of eleven
    methods, Statistics in Medicine 17, method 10 (hybrid score). It stays within -1 and 1 and holds with few successes.

    Raises:
        ValueError: as `wilson`.
    """
    return newcombe_at(part, whole, other_part, other_whole, quantile(confidence))


def newcombe_at(part: int, whole: int, other_part: int, other_whole: int, z: float) -> Interval:
    """`newcombe` at `z` standard errors instead of a confidence.

    Raises:
        ValueError: as `wilson`.
    """
    rate, other_rate = rate_of(part, whole), rate_of(other_part, other_whole)
    one, other = _score(part, whole, z), _score(other_part, other_whole, z)
    difference = rate - other_rate
    return Interval(
        low=difference - math.hypot(rate - one.low, other.high - other_rate),
        high=difference + math.hypot(one.high - rate, other_rate - other.low),
    )


def wald_difference(part: int, whole: int, other_part: int, other_whole: int, *, confidence: float = 0.95) -> Interval:
    """The plain normal interval of the difference of two rates, each with its own variance: for others' tables only.

    Method 1 of R. G. Newcombe (1998), Statistics in Medicine 17:873-890. Show `newcombe`.

    Raises:
        ValueError: as `wilson`.
    """
    rate, other_rate = rate_of(part, whole), rate_of(other_part, other_whole)
    error = math.sqrt(rate * (1 - rate) / whole + other_rate * (1 - other_rate) / other_whole)
    half = quantile(confidence) * error
    return Interval(low=rate - other_rate - half, high=rate - other_rate + half)


def rate_of(part: int, whole: int) -> float:
    """part / whole.

    Raises:
        ValueError: `part` does not lie between 0 and `whole`, or `whole` is 0.
    """
    if not 0 <= part <= whole or whole == 0:
        raise ValueError(f"{part} of {whole} is no rate")
    return part / whole


def _score(part: int, whole: int, z: float) -> Interval:
    rate = rate_of(part, whole)
    middle = (rate + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(rate * (1 - rate) / whole + z * z / (4 * whole * whole))
    # Exactly so at the ends, where rounding leaves 1e-17.
    return Interval(low=0.0 if part == 0 else middle - half, high=1.0 if part == whole else middle + half)
