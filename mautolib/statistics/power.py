"""Power and sample size of a fixed-horizon test: how many recipients a difference needs. Pure; for planning."""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import NormalDist

from mautolib.statistics.intervals import quantile

__all__ = ["Variance", "power", "sample_size"]


class Variance(StrEnum):
    """Which variance a sample size assumes when there is no difference, and when there is one."""

    POOLED = "pooled"  #: none: both groups at the mean rate; else each its own (Fleiss 1981, equation 3.14)
    UNPOOLED = "unpooled"  #: each its own, in both cases
    BASELINE = "baseline"  #: none: both groups at the base rate; else each its own (Evan Miller's calculator)


def power(difference: float, variance: float, n: int, other_n: int, *, alpha: float = 0.05) -> float:
    """The chance that a two-sided z test at `alpha` finds `difference` between means, in its own direction.

    J. Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, chapter 2, by the normal distribution. For
    rates `variance` is rate x (1 - rate).

    Raises:
        ValueError: an empty group, no positive variance, or an `alpha` outside 0..1.
    """
    if min(n, other_n) < 1 or variance <= 0:
        raise ValueError("power needs two groups and a variance")
    return NormalDist().cdf(abs(difference) / math.sqrt(variance * (1 / n + 1 / other_n)) - quantile(1 - alpha))


def sample_size(
    rate: float, difference: float, *, alpha: float = 0.05, power: float = 0.8, variance: Variance = Variance.POOLED
) -> float:
    """Recipients per group for a two-sided test of `rate` against `rate + difference`; round up.

    J. L. Fleiss (1981), Statistical Methods for Rates and Proportions, chapter 3, without continuity correction:
    (z(alpha / 2) x sd if equal + z(power) x sd if different) squared / difference squared.

    Raises:
        ValueError: a rate outside 0..1, no difference, or `alpha` or `power` outside 0..1.
    """
    other = rate + difference
    if not (0 < rate < 1 and 0 < other < 1) or difference == 0 or not 0 < power < 1:
        raise ValueError("two different rates between 0 and 1, and a power between 0 and 1")
    own, mean = rate * (1 - rate) + other * (1 - other), (rate + other) / 2
    equal = {Variance.POOLED: 2 * mean * (1 - mean), Variance.UNPOOLED: own, Variance.BASELINE: 2 * rate * (1 - rate)}
    reach = quantile(1 - alpha) * math.sqrt(equal[variance]) + NormalDist().inv_cdf(power) * math.sqrt(own)
    return reach * reach / (difference * difference)
