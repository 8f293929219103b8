"""What looking several times costs: the chance that a test crosses given bounds at any of its looks.

Exact for a normal statistic, by integrating its density from look to look. Pure; for planning and for checking the
sequential intervals, not called while a test runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["crossing_probability", "obrien_fleming", "pocock"]


def crossing_probability(bounds: Sequence[float], times: Sequence[float] | None = None, *, drift: float = 0.0) -> float:
    """The chance that |z| exceeds `bounds[i]` at look i or any other.

    P. Armitage, C. K. McPherson, B. C. Rowe (1969), Repeated significance tests on accumulating data, JRSS A 132:
    the density of the sum among the tests that have not stopped, by Gauss-Legendre quadrature.

    Args:
        bounds: in standard errors, one for each look.
        times: the information at each look, growing; equal steps of 1 unless given.
        drift: the mean of z at information 1; 0 gives the false-positive rate, else the power (either direction).

    Raises:
        ValueError: not one time for each bound, or times that do not grow.
    """
    import numpy

    times = list(times) if times is not None else [float(look) for look in range(1, len(bounds) + 1)]
    steps = [now - before for before, now in zip([0.0, *times], times, strict=False)]
    if len(times) != len(bounds) or not bounds or min(steps) <= 0:
        raise ValueError("each look has a bound and a time, and times grow")
    weights = points = numpy.zeros(0)
    for bound, time, step in zip(bounds, times, steps, strict=True):
        half = bound * math.sqrt(time)
        # Fine enough for the step just made and for the whole interval.
        new_points, new_weights = numpy.polynomial.legendre.leggauss(max(48, math.ceil(8 * half / math.sqrt(step))))
        new_points, new_weights = new_points * half, new_weights * half
        before = points if len(points) else numpy.zeros(1)
        mass = weights if len(points) else numpy.ones(1)
        gaps = (new_points[:, None] - before[None, :] - drift * step) / math.sqrt(step)
        density = numpy.exp(-0.5 * gaps * gaps) @ mass / math.sqrt(2 * math.pi * step)
        points, weights = new_points, new_weights * density
    return 1.0 - float(weights.sum())


def pocock(looks: int, *, alpha: float = 0.05) -> float:
    """The one bound for |z| at `looks` equally spaced looks that keeps the false-positive rate at `alpha`.

    S. J. Pocock (1977), Group sequential methods in the design and analysis of clinical trials, Biometrika 64.
    """
    return _solve(lambda bound: crossing_probability([bound] * looks) - alpha)


def obrien_fleming(looks: int, *, alpha: float = 0.05) -> float:
    """The bound at the last of `looks` equally spaced looks; at look i it is this times sqrt(looks / i).

    P. C. O'Brien, T. R. Fleming (1979), A multiple testing procedure for clinical trials, Biometrics 35.
    """
    scale = [math.sqrt(looks / look) for look in range(1, looks + 1)]
    return _solve(lambda bound: crossing_probability([bound * each for each in scale]) - alpha)


def _solve(excess: Callable[[float], float]) -> float:
    from scipy.optimize import brentq

    return float(brentq(excess, 0.5, 8.0, xtol=1e-12))
