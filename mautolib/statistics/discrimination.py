"""How well a number tells those to whom something happened from those to whom it did not.

Pure; works on counts by distinct value, so that a million contacts are a few thousand rows. Called by
`scoring.prediction`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from mautolib.statistics.intervals import Interval, quantile

__all__ = ["Area", "area_under_curve"]


@dataclass(frozen=True, kw_only=True)
class Area:
    """The area under the ROC curve: the chance that of two people the one to whom it happened has the higher value.

    Equal values count half; 0.5 is no better than a coin.
    """

    area: float
    standard_error: float
    interval: Interval


def area_under_curve(counts: Iterable[tuple[float, int, int]], *, confidence: float = 0.95) -> Area:
    """The area and its interval, out of (value, how many it happened to, how many it did not) in any order.

    Variance: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson (1988), Comparing the areas under two or more correlated
    receiver operating characteristic curves: a nonparametric approach, Biometrics 44, for one curve. The interval is
    the normal one, cut at 0 and 1.

    Raises:
        ValueError: fewer than two of either kind.
    """
    rows = [
        (value, sum(row[1] for row in same), sum(row[2] for row in same))
        for value, same in ((value, list(each)) for value, each in groupby(sorted(counts), key=itemgetter(0)))
    ]
    with_it, without = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if min(with_it, without) < 2:
        raise ValueError(f"{with_it} with and {without} without the outcome: two of each are needed")
    # Each person's share of pairs that are in the right order: of those with it, and of those without.
    placed: list[tuple[int, float]] = []
    placed_without: list[tuple[int, float]] = []
    below = happened_below = 0
    for _, happened, not_happened in rows:
        placed.append((happened, (below + not_happened / 2) / without))
        placed_without.append((not_happened, (with_it - happened_below - happened / 2) / with_it))
        below, happened_below = below + not_happened, happened_below + happened
    area = sum(number * share for number, share in placed) / with_it
    variance = _variance(placed, area) / with_it + _variance(placed_without, area) / without
    error = math.sqrt(variance)
    half = quantile(confidence) * error
    return Area(
        area=area, standard_error=error, interval=Interval(low=max(0.0, area - half), high=min(1.0, area + half))
    )


def _variance(placed: list[tuple[int, float]], mean: float) -> float:
    whole = sum(number for number, _ in placed)
    return sum(number * (share - mean) ** 2 for number, share in placed) / (whole - 1)
