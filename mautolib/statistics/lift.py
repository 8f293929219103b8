"""Lift: by which part of the control's rate or mean a group is above it; with CUPED, out of less noise.

Lifts are fractions of 1, never percent: 0.2 is a fifth more. Pure; called by `campaigns.deciding` for hold-outs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from mautolib.statistics.intervals import Interval, quantile, rate_of
from mautolib.statistics.means import Moments, Number, Welch, t_quantile, welch, welch_of

__all__ = ["Adjusted", "Lift", "Pairs", "cuped", "lift_of_means", "lift_of_rates"]


@dataclass(frozen=True, kw_only=True)
class Lift:
    """The lift, and its interval where there is one."""

    lift: float
    interval: Interval | None
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What is kept of n people: y of the period, x of the time before, their squares and their product, summed."""

    n: int
    y: Number
    yy: Number
    x: Number
    xx: Number
    xy: Number

    @property
    def covariance(self) -> float:
        """The covariance of y and x with n - 1 below."""
        return float((Fraction(self.xy) - Fraction(self.x) * Fraction(self.y) / self.n) / (self.n - 1))


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """A difference of means after CUPED.

    `theta` is what was subtracted for each unit of x; `reduction` the part of the squared standard error that is gone.
    """

    theta: float
    reduction: float
    test: Welch
    lift: Lift | None


def lift_of_rates(part: int, whole: int, control_part: int, control_whole: int, *, confidence: float = 0.95) -> Lift:
    """(part / whole) / (control_part / control_whole) - 1, with the interval of the logarithm of the ratio.

    D. Katz, J. Baptista, S. P. Azen, M. C. Pike (1978), Obtaining confidence intervals for the risk ratio in cohort
    studies, Biometrics 34. Without a success in the group itself the lift is -1 and has no interval.

    Raises:
        ValueError: not rates, or the control has no success.
    """
    rate, control = rate_of(part, whole), rate_of(control_part, control_whole)
    if control_part == 0:
        raise ValueError("the control has no success: no lift")
    if part == 0:
        return Lift(lift=-1.0, interval=None)
    error = math.sqrt(1 / part - 1 / whole + 1 / control_part - 1 / control_whole)
    ratio, reach = rate / control, math.exp(quantile(confidence) * error)
    return Lift(lift=ratio - 1, interval=Interval(low=ratio / reach - 1, high=ratio * reach - 1))


def lift_of_means(group: Moments, control: Moments, *, confidence: float = 0.95) -> Lift:
    """The group's mean over the control's, less 1, with the interval of the delta method and Welch's t.

    A. Deng, U. Knoblich, J. Lu (2018), Applying the delta method in metric analytics, KDD. The squared error is
    var / n of the group over the control's mean squared, plus that of the control times the ratio squared.

    Raises:
        ValueError: fewer than two numbers in a group, or a control without a positive mean.
    """
    return _relative(welch(group, control, confidence=confidence), control.mean, group.variance / group.n,
                     control.variance / control.n, confidence)  # fmt: skip


def cuped(group: Pairs, control: Pairs, *, confidence: float = 0.95) -> Adjusted:
    """The difference of the groups' means of y, less what x of the time before explains of it.

    A. Deng, Y. Xu, R. Kohavi, T. Walker (2013), Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data, WSDM: y - theta x with theta = covariance / variance of x, both within the groups. x must be
    known before the groups were drawn. Without any spread of x nothing is subtracted.

    Raises:
        ValueError: fewer than two people in a group.
    """
    ys = [Moments(n=each.n, total=each.y, squares=each.yy) for each in (group, control)]
    xs = [Moments(n=each.n, total=each.x, squares=each.xx) for each in (group, control)]
    spread = math.fsum(each.variance * (each.n - 1) for each in xs)
    together = math.fsum(each.covariance * (each.n - 1) for each in (group, control))
    theta = together / spread if spread else 0.0
    middle = (xs[0] + xs[1]).mean
    means = [y.mean - theta * (x.mean - middle) for y, x in zip(ys, xs, strict=True)]
    squared = [
        max(0.0, y.variance - 2 * theta * each.covariance + theta * theta * x.variance) / each.n
        for y, x, each in zip(ys, xs, (group, control), strict=True)
    ]
    test = welch_of(means[0] - means[1], (squared[0], group.n - 1), (squared[1], control.n - 1), confidence=confidence)
    before = math.fsum(y.variance / y.n for y in ys)
    return Adjusted(
        theta=theta, reduction=1 - test.error**2 / before if before else 0.0, test=test,
        lift=_relative(test, means[1], squared[0], squared[1], confidence) if means[1] > 0 else None,
    )  # fmt: skip


def _relative(test: Welch, base: float, squared: float, base_squared: float, confidence: float) -> Lift:
    """`test.difference` over `base`, by the delta method out of both squared standard errors."""
    if not base > 0:
        raise ValueError("the control has no positive mean: no lift")
    from scipy.special import stdtr

    lift = test.difference / base
    error = math.sqrt(squared + base_squared * (1 + lift) ** 2) / base
    if error == 0:
        return Lift(lift=lift, interval=Interval(low=lift, high=lift))
    half = t_quantile(confidence, test.df) * error
    return Lift(lift=lift, interval=Interval(low=lift - half, high=lift + half),
                p_value=2 * float(stdtr(test.df, -abs(lift) / error)))  # fmt: skip
