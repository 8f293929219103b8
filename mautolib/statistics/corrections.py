"""Adjusting p-values of several comparisons. Pure; called by `campaigns.deciding`."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["benjamini_hochberg", "bonferroni", "holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: whoever acts below 0.05 errs anywhere in at most 5 of 100 tests.

    S. Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6: the
    i-th smallest of m times m - i + 1, never below one before it, at most 1. No assumption on dependence.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(_ascending(p_values)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Each times their number, at most 1: promises what `holm` promises, and finds less.

    O. J. Dunn (1961), Multiple comparisons among means, JASA 56.
    """
    return [min(1.0, each * len(p_values)) for each in p_values]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the share of false ones among those found (not for any): to sift many tests, not to decide one.

    Y. Benjamini, Y. Hochberg (1995), Controlling the false discovery rate, JRSS B 57: the i-th smallest of m times
    m / i, never above one after it.
    """
    adjusted, smallest = [0.0] * len(p_values), 1.0
    for rank, place in reversed(list(enumerate(_ascending(p_values), start=1))):
        smallest = min(smallest, p_values[place] * len(p_values) / rank)
        adjusted[place] = smallest
    return adjusted


def _ascending(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=p_values.__getitem__)
