"""Published values of statistics, and how this library computes each: shared by default tests and those on real data.

`statistics_published.json` beside the unit tests keeps one value a line, with its source. `published` is as printed
there; `exact`, where it is given, the same value from an independent computation (R or SciPy) to all digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from mautolib import statistics as s
from mautolib.statistics import Moments
from mautolib.statistics.sequential import best_rho, mixture_bound, mixture_log

__all__ = ["FILE", "close", "computed", "moments_of", "pair_figures"]

FILE = Path(__file__).parent / "unit" / "statistics_published.json"


def close(found: list[float], wanted: list[float], *, relative: float = 1e-9) -> bool:
    """Equal to `relative` of each; to 1e-15 where 0 is wanted."""
    return len(found) == len(wanted) and all(
        math.isclose(one, other, rel_tol=relative, abs_tol=1e-15) for one, other in zip(found, wanted, strict=True)
    )


def computed(row: Mapping[str, Any]) -> list[float]:
    """What the library says where a table prints `row["published"]`."""
    found = _GROUPS[row["group"]](row["name"], row["input"])
    return list(found) if isinstance(found, list | tuple) else [found]


def moments_of(mean: object, deviation: object, n: int) -> Moments:
    """Sums out of a printed mean and standard deviation."""
    middle, spread = Decimal(str(mean)), Decimal(str(deviation))
    return Moments(n=n, total=middle * n, squares=spread**2 * (n - 1) + n * middle**2)


def pair_figures(part: int, whole: int, other_part: int, other_whole: int) -> dict[str, list[float]]:
    """Everything the library says of two rates, under the names of the golden file."""
    counts = (part, whole, other_part, other_whole)
    table = [[part, other_part], [whole - part, other_whole - other_part]]
    z, chi2, ratio = s.z_test(*counts), s.chi_square(table), s.lift_of_rates(*counts)
    assert ratio.interval is not None
    return {
        "diff": [part / whole - other_part / other_whole], "relative_lift": [ratio.lift],
        "z_pooled": [z.statistic], "p_z_pooled": [z.p_value], "chi2": [chi2.statistic], "p_chi2": [chi2.p_value],
        "ci95_wald": _ends(s.wald_difference(*counts)), "ci95_newcombe": _ends(s.newcombe(*counts)),
        "wilson95_1": _ends(s.wilson(part, whole)), "wilson95_2": _ends(s.wilson(other_part, other_whole)),
        "p_fisher": [s.fisher(*counts)], "risk_ratio": [ratio.lift + 1],
        "rr_ci95": [ratio.interval.low + 1, ratio.interval.high + 1],
    }  # fmt: skip


def _ends(interval: s.Interval) -> list[float]:
    return [interval.low, interval.high]


def _one_rate(name: str, given: list[int]) -> list[float]:
    which = {"wilson": s.wilson, "clopper-pearson": s.clopper_pearson}
    return _ends(which.get(name, s.wald)(*given))


def _fisher(name: str, given: list[list[int]]) -> float:
    (a, b), (c, d) = given
    if name.startswith("tea"):
        return s.fisher_less(c, c + d, a, a + b)
    return (s.fisher_less if name.endswith("less") else s.fisher)(a, a + b, c, c + d)


def _two_rates(name: str, given: list[int]) -> list[float]:
    control, test = given[:2], given[2:]
    confidence = {"us, 99 %": 0.99, "us, 99.9 %": 0.999}.get(name, 0.95)
    p_value = s.chi_square([[control[0], test[0]], [control[1] - control[0], test[1] - test[0]]]).p_value
    ends = s.wald_difference(*test, *control, confidence=confidence)
    return [test[0] / test[1] - control[0] / control[1], *_ends(ends), p_value]


def _several(name: str, given: list[Any]) -> list[float]:
    return s.bonferroni(given) if name.startswith("Bonferroni") else [s.z_test(*given).p_value]


def _two_means(name: str, given: list[Any]) -> list[float]:
    control, test = moments_of(*given[:3]), moments_of(*given[3:])
    if name == "Welch absolute":
        found = s.welch(test, control)
        return [found.difference, *_ends(found.interval), found.p_value]
    lift = s.lift_of_means(test, control)
    assert lift.interval is not None and lift.p_value is not None
    return [lift.lift, *_ends(lift.interval), lift.p_value]


def _mixture(name: str, given: list[float]) -> float:
    rho = best_rho(100, 0.05)
    if "best_rho" in name:
        return best_rho(*given)
    return mixture_log(*given, rho) if "log_superMG" in name else mixture_bound(*given, rho)


_GROUPS: dict[str, Callable[[str, Any], Any]] = {
    "one proportion CI": _one_rate,
    "difference CI": lambda _, given: _ends(s.newcombe(*given)),
    "fisher exact": _fisher,
    "k-sample proportions": lambda _, given: [s.chi_square(given).statistic, s.chi_square(given).p_value],
    "chi-square": lambda name, given: getattr(s.chi_square(given), "p_value" if name.endswith(" p") else "statistic"),
    "binomial exact": lambda _, given: s.binomial_test(*given),
    "two proportions": _two_rates,
    "multiple comparisons": _several,
    "two means": _two_means,
    "peeking false-positive rate": lambda _, looks: s.crossing_probability([1.959963984540054] * looks),
    "group sequential": lambda name, looks: (s.pocock if name.startswith("Pocock") else s.obrien_fleming)(looks),
    "sequential SRM": lambda _, given: [sum(given), s.sequential_sample_ratio(given, [0.1, 0.4, 0.5])],
    "confidence sequence": _mixture,
    "sample size per arm": lambda _, given: s.sample_size(
        given[0], given[1], alpha=given[2], power=given[3], variance=s.Variance.BASELINE
    ),
    "power": lambda _, given: s.power(given[0], given[1], given[3], given[-1], alpha=given[2]),
}
