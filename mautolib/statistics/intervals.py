"""Intervals of rates. Pure; called by whatever shows a rate with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Interval", "quantile", "wilson"]


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
    if not 0 <= part <= whole or whole == 0:
        raise ValueError(f"{part} of {whole} is no rate")
    z, rate = quantile(confidence), part / whole
    middle = (rate + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(rate * (1 - rate) / whole + z * z / (4 * whole * whole))
    # Exactly so at the ends, where rounding leaves 1e-17.
    return Interval(low=0.0 if part == 0 else middle - half, high=1.0 if part == whole else middle + half)
