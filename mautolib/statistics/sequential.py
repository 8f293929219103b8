"""Intervals that stay true however often somebody looks: a test may be stopped at any look.

The number of standard errors comes from Robbins' normal mixture. Its clock is the signal gathered so far, (overall mean
/ its standard error) squared: for rates about the number of successes. So it runs on while a test still mails (more
recipients) and while recipients answer late (more successes of the same recipients), and it has no unit. Asymptotic:
the false-positive rate was simulated, see docs/statistics.md. Called by `campaigns.deciding`.
"""

from __future__ import annotations

import math
from typing import Final

from mautolib.statistics.intervals import Interval, newcombe_at, quantile, rate_of
from mautolib.statistics.means import Moments, welch

__all__ = [
    "TUNED_FOR", "best_rho", "mixture_bound", "mixture_log", "multiplier", "sequential_means", "sequential_rates",
]  # fmt: skip

#: The signal at which the intervals are narrowest (3.04 standard errors at 95 %): fixed before any test starts, as it
#: must be. From 80 to 1400 they are within 5 % of that.
TUNED_FOR: Final = 250.0
#: No interval is wider than so many standard errors: before the first successes.
_WIDEST: Final = 30.0


def best_rho(time: float, alpha: float) -> float:
    """The parameter of the mixture that makes its bound about smallest at `time`.

    S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence
    sequences, Annals of Statistics 49, section 3.5: time / (2 log(1 / alpha) + log(1 + 2 log(1 / alpha))).
    """
    return time / (2 * math.log(1 / alpha) + math.log1p(2 * math.log(1 / alpha)))


def mixture_log(distance: float, time: float, rho: float) -> float:
    """The logarithm of the two-sided normal mixture martingale at `distance` and variance `time`.

    H. Robbins (1970), Statistical methods related to the law of the iterated logarithm, Annals of Mathematical
    Statistics 41: log(rho / (time + rho)) / 2 + distance squared / (2 (time + rho)).
    """
    return 0.5 * math.log(rho / (time + rho)) + distance * distance / (2 * (time + rho))


def mixture_bound(time: float, alpha: float, rho: float) -> float:
    """What a Brownian motion leaves, on either side and at any time, with probability at most `alpha`.

    Howard et al. (2021), Annals of Statistics 49, equation 14: where `mixture_log` is log(1 / alpha).
    """
    return math.sqrt((time + rho) * (math.log((time + rho) / rho) + 2 * math.log(1 / alpha)))


def multiplier(signal: float, *, confidence: float = 0.95, comparisons: int = 1) -> float:
    """How many standard errors the interval reaches at `signal`; `comparisons` intervals hold together (Bonferroni).

    For sums that are normal only in the limit: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas (2024),
    Time-uniform central limit theory and asymptotic confidence sequences, Annals of Statistics 52.

    Raises:
        ValueError: `confidence` does not lie between 0 and 1.
    """
    quantile(confidence)
    alpha = (1 - confidence) / comparisons
    signal = max(signal, 1e-9)
    found = mixture_bound(signal, alpha, best_rho(TUNED_FOR, alpha)) / math.sqrt(signal)
    return min(found, _WIDEST)


def sequential_rates(
    part: int, whole: int, other_part: int, other_whole: int, *, confidence: float = 0.95, comparisons: int = 1
) -> Interval:
    """The interval of part / whole - other_part / other_whole, valid at any number of looks.

    Newcombe's interval (see `newcombe`) at `multiplier` standard errors, so that it always contains the interval of a
    single look. Its clock is successes / (1 - rate) of both groups together: the odds, because of recipients who all
    have their mail the successes are a Brownian bridge in the rate and a Brownian motion in the odds.

    Raises:
        ValueError: not rates.
    """
    rate_of(part, whole)
    rate_of(other_part, other_whole)
    hits, everybody = part + other_part, whole + other_whole
    signal = everybody * (hits + 0.5) / (everybody - hits + 0.5)
    reach = multiplier(signal, confidence=confidence, comparisons=comparisons)
    return newcombe_at(part, whole, other_part, other_whole, reach)


def sequential_means(one: Moments, other: Moments, *, confidence: float = 0.95, comparisons: int = 1) -> Interval:
    """The interval of one mean minus the other, valid at any number of looks.

    Welch's standard error times `multiplier`, with Student's tail instead of the normal one for few numbers.

    Raises:
        ValueError: fewer than two numbers in a group.
    """
    from scipy.special import ndtr, stdtrit

    found, both = welch(one, other, confidence=confidence), one + other
    if found.error == 0:
        return found.interval
    signal = both.n * both.mean**2 / both.variance
    reach = multiplier(signal, confidence=confidence, comparisons=comparisons)
    half = -float(stdtrit(found.df, ndtr(-reach))) * found.error
    return Interval(low=found.difference - half, high=found.difference + half)
