"""What customers will buy: BG/NBD (how often, and are they still there) and Gamma-Gamma (for how much).

BG/NBD: P. S. Fader, B. G. S. Hardie, K. L. Lee (2005), "Counting your customers" the easy way, Marketing Science 24(2),
275-284. Gamma-Gamma: P. S. Fader, B. G. S. Hardie (2013), The gamma-gamma model of monetary value, note 025. Both by
maximum likelihood. Promise: parameters only where they mean something; otherwise `Unfit`, with the reason. Pure; knows
nothing of contacts or orders. Called by `analytics.prediction`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[numpy.float64]

__all__ = ["MAX_CORRELATION", "MIN_CUSTOMERS", "MIN_REPEATERS", "OrderValues", "Purchases", "Unfit", "Why",
           "fit_order_values", "fit_purchases"]  # fmt: skip

MIN_CUSTOMERS: Final = 200
#: Who bought again is all the models learn from.
MIN_REPEATERS: Final = 50
#: Gamma-Gamma takes frequency and value for independent; the published example has 0.11.
MAX_CORRELATION: Final = 0.3
#: Below this chance of leaving after an order, "gone" is nothing the data can tell.
_MIN_LEAVING: Final = 0.005
#: Logarithms of parameters, times scaled to the mean age; what runs to the end of it has no maximum.
_BOUND: Final = 10.0
_AT_BOUND: Final = 0.05
#: Standard error in a direction of the parameters' logarithms: above it they are open by a factor of 20 each way.
_MAX_ERROR: Final = 3.0


class Why(StrEnum):
    """Why a model is not used."""

    TOO_FEW_CUSTOMERS = "too_few_customers"
    TOO_FEW_REPEATERS = "too_few_repeaters"
    NOT_CONVERGED = "not_converged"
    NO_MAXIMUM = "no_maximum"
    NOBODY_LEAVES = "nobody_leaves"
    UNDETERMINED = "undetermined"
    NO_MEAN = "no_mean"
    CORRELATED = "correlated"


@dataclass(frozen=True, kw_only=True)
class Unfit:
    """A model that must not be used on these customers."""

    why: Why
    reason: str


@dataclass(frozen=True, kw_only=True)
class Purchases:
    """A fitted BG/NBD model: orders come at a gamma(r, alpha) rate, after each one leaves with a beta(a, b) chance.

    All times are in the unit of the data it was fitted to. Customers are given as arrays: `x` repeat orders (without
    the first), `recency` the time from first to last order, `age` the time from the first order to the end.
    """

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float
    customers: int
    repeaters: int

    def alive(self, x: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """The chance that each is still a customer (Fader & Hardie 2008, note 021); 1 for who ordered once."""
        import numpy as np
        from scipy.special import expit

        x, recency, age = _arrays(x, recency, age)
        log_odds = self._log_gone(x, recency, age)
        return np.asarray(np.where(x > 0, expit(-log_odds), 1.0))

    def expected(self, t: float, x: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Expected orders of each in the time `t` from now (equation 10).

        By Euler's transformation of the hypergeometric function, which stays finite for who ordered hundreds of times.
        """
        import numpy as np
        from scipy.special import hyp2f1

        x, recency, age = _arrays(x, recency, age)
        a = _off_one(self.a)
        z = t / (self.alpha + age + t)
        rest = (1 - z) ** (a - 1) * hyp2f1(a + self.b - 1 - self.r, a - 1, a + self.b + x - 1, z)
        gone = np.where(x > 0, np.exp(np.minimum(self._log_gone(x, recency, age), 700.0)), 0.0)
        return np.asarray((a + self.b + x - 1) / (a - 1) * (1 - rest) / (1 + gone))

    def expected_of_new(self, t: float) -> float:
        """Expected repeat orders of a new customer in the time `t` after the first (equation 9)."""
        from scipy.special import hyp2f1

        a = _off_one(self.a)
        z = t / (self.alpha + t)
        found = hyp2f1(self.r, self.b, a + self.b - 1, z) * (1 - z) ** self.r
        return float((a + self.b - 1) / (a - 1) * (1 - found))

    def _log_gone(self, x: Floats, recency: Floats, age: Floats) -> Floats:
        import numpy as np

        left = math.log(self.a) - np.log(self.b + np.maximum(x, 1) - 1)
        return np.asarray(left + (self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + recency)))


@dataclass(frozen=True, kw_only=True)
class OrderValues:
    """A fitted Gamma-Gamma model: an order of a customer is gamma(p, nu) with nu gamma(q, v) among customers."""

    p: float
    q: float
    v: float
    log_likelihood: float
    repeaters: int
    correlation: float

    @property
    def mean(self) -> float:
        """Mean value of an order of a customer nobody knows anything of."""
        return self.p * self.v / (self.q - 1)

    def expected(self, x: ArrayLike, value: ArrayLike) -> Floats:
        """Expected value of each one's orders to come (equation 5): between the own mean and that of all.

        Args:
            x: repeat orders.
            value: their mean value; not looked at where x is 0.
        """
        import numpy as np

        x, value = _arrays(x, value)
        spent = np.where(x > 0, x * value, 0.0)
        return np.asarray(self.p * (self.v + spent) / (self.p * x + self.q - 1))


def fit_purchases(x: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Purchases | Unfit:
    """Fit BG/NBD to customers; see `Purchases` for the arrays.

    Raises:
        ValueError: arrays of different lengths, or times that cannot be.
    """
    x, recency, age = _arrays(x, recency, age)
    if ((x < 0) | (recency < 0) | (recency > age) | ((x == 0) != (recency == 0))).any():
        raise ValueError("each customer needs 0 <= recency <= age, and a recency exactly with repeat orders")
    repeaters = int((x > 0).sum())
    if (unfit := _too_few(len(x), repeaters)) is not None:
        return unfit
    scale = float(age.mean())
    target = _purchases_target(x, recency / scale, age / scale)
    found = _maximum(target, [(0.0, 0.0, 0.0, 0.0), (-1.0, -1.5, -0.5, 1.0), (1.0, 1.0, -2.0, 1.5)])
    names = ("r", "alpha", "a", "b")
    if found is not None:
        r, alpha, a, b = (math.exp(each) for each in found.x)
        if a / (a + b) < _MIN_LEAVING:
            return Unfit(why=Why.NOBODY_LEAVES, reason=(
                f"the model finds that after an order {a / (a + b):.2%} of customers leave: nobody ever does, so it "
                "cannot tell who is still there"))  # fmt: skip
    if (unfit := _unusable(found, target, names, len(x))) is not None:
        return unfit
    return Purchases(
        r=r, alpha=alpha * scale, a=a, b=b, customers=len(x), repeaters=repeaters,
        log_likelihood=-float(found.fun) * len(x) - float(x.sum()) * math.log(scale),
    )  # fmt: skip


def fit_order_values(x: ArrayLike, value: ArrayLike) -> OrderValues | Unfit:
    """Fit Gamma-Gamma to customers who ordered again.

    Args:
        x: repeat orders of each, above 0.
        value: mean value of these, above 0, in one currency.

    Raises:
        ValueError: arrays of different lengths, or a value that is not above 0.
    """
    import numpy as np

    x, value = _arrays(x, value)
    if not ((x > 0) & (value > 0)).all():
        raise ValueError("only customers with repeat orders above 0 can be fitted")
    if len(x) < MIN_REPEATERS:
        return Unfit(why=Why.TOO_FEW_REPEATERS,
                     reason=f"{len(x)} customers ordered again; {MIN_REPEATERS} are needed")  # fmt: skip
    varies = x.std() > 0 and value.std() > 0
    correlation = float(np.corrcoef(x, value)[0, 1]) if varies else 0.0
    if abs(correlation) > MAX_CORRELATION:
        return Unfit(why=Why.CORRELATED, reason=(
            f"who orders more often also spends {'more' if correlation > 0 else 'less'} on an order (correlation "
            f"{correlation:.2f}); the model takes both for independent"))  # fmt: skip
    scale = float(value.mean())
    target = _values_target(x, value / scale)
    found = _maximum(target, [(0.0, 1.0, 0.0), (1.5, 1.3, 0.0), (0.0, 2.5, 1.5)])
    if (unfit := _unusable(found, target, ("p", "q", "v"), len(x))) is not None:
        return unfit
    p, q, v = (math.exp(each) for each in found.x)
    if q <= 1:
        return Unfit(why=Why.NO_MEAN, reason=f"orders of customers vary without bound (q is {q:.2f}): there is no mean")
    return OrderValues(
        p=p, q=q, v=v * scale, repeaters=len(x), correlation=correlation,
        log_likelihood=-float(found.fun) * len(x) - len(x) * math.log(scale),
    )  # fmt: skip


_Target = Callable[[Any], tuple[float, Any]]


def _purchases_target(x: Floats, recency: Floats, age: Floats) -> _Target:
    """Minus the mean log likelihood (equation 6) by logarithms of the parameters, with its gradient.

    What depends on x alone is computed once for each different x.
    """
    import numpy as np
    from scipy.special import digamma, gammaln

    counts, at = np.unique(x, return_inverse=True)
    again = x > 0
    number = len(x)

    def target(logs: Floats) -> tuple[float, Floats]:
        r, alpha, a, b = np.exp(logs)
        common = (gammaln(r + counts) - gammaln(r) + r * math.log(alpha) + gammaln(a + b) - gammaln(b)
                  + gammaln(b + counts) - gammaln(a + b + counts))[at]  # fmt: skip
        log_age, log_recency = np.log(alpha + age), np.log(alpha + recency)
        stays = -(r + x) * log_age
        left = math.log(a) - np.log(b + np.maximum(counts, 1) - 1)[at] - (r + x) * log_recency
        both = np.where(again, np.logaddexp(stays, left), stays)
        gone = np.where(again, np.exp(left - both), 0.0)
        stay = 1 - gone
        by_r = (digamma(r + counts) - digamma(r))[at] + math.log(alpha) - stay * log_age - gone * log_recency
        by_alpha = r / alpha - (r + x) * (stay / (alpha + age) + gone / (alpha + recency))
        both_ab = (digamma(a + b) - digamma(a + b + counts))[at]
        by_a = both_ab + gone / a
        by_b = both_ab + (digamma(b + counts) - digamma(b))[at] - gone / (b + np.maximum(x, 1) - 1)
        slopes = np.array([by_r.sum() * r, by_alpha.sum() * alpha, by_a.sum() * a, by_b.sum() * b])
        return -float((common + both).sum()) / number, -slopes / number

    return target


def _values_target(x: Floats, value: Floats) -> _Target:
    """Minus the mean log likelihood (equation 1a of note 025, of means of x orders), with its gradient."""
    import numpy as np
    from scipy.special import digamma, gammaln

    log_value, log_x, spent, number = np.log(value), np.log(x), x * value, len(x)

    def target(logs: Floats) -> tuple[float, Floats]:
        p, q, v = np.exp(logs)
        log_sum = np.log(v + spent)
        found = (gammaln(p * x + q) - gammaln(p * x) - gammaln(q) + q * math.log(v)
                 + (p * x - 1) * log_value + p * x * log_x - (p * x + q) * log_sum)  # fmt: skip
        by_p = x * (digamma(p * x + q) - digamma(p * x) + log_value + log_x - log_sum)
        by_q = digamma(p * x + q) - digamma(q) + math.log(v) - log_sum
        by_v = q / v - (p * x + q) / (v + spent)
        slopes = np.array([by_p.sum() * p, by_q.sum() * q, by_v.sum() * v])
        return -float(found.sum()) / number, -slopes / number

    return target


def _maximum(target: _Target, starts: Sequence[tuple[float, ...]]) -> Any:
    """The best of what is found from several starts; None where no search ends."""
    from scipy.optimize import minimize

    bounds = [(-_BOUND, _BOUND)] * len(starts[0])
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = [minimize(target, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for start in starts]
    ended = [each for each in found if math.isfinite(each.fun) and (each.success or abs(each.jac).max() < 1e-5)]
    return min(ended, key=lambda each: float(each.fun), default=None)


def _unusable(found: Any, target: _Target, names: Sequence[str], number: int) -> Unfit | None:
    """Why an estimate is none: not found, at the end of what was searched, or left open by the data."""
    import numpy as np

    if found is None:
        return Unfit(why=Why.NOT_CONVERGED, reason="the search for the best parameters did not come to an end")
    far = [name for name, log in zip(names, found.x, strict=True) if abs(log) > _BOUND - _AT_BOUND]
    if far:
        return Unfit(why=Why.NO_MAXIMUM, reason=f"{' and '.join(far)} run to the border: no values fit best")
    step = 1e-4
    steps = np.eye(len(names)) * step
    curve = np.array([(target(found.x + one)[1] - target(found.x - one)[1]) / (2 * step) for one in steps])
    return _undetermined((curve + curve.T) / 2 * number, names)


def _undetermined(curve: Floats, names: Sequence[str]) -> Unfit | None:
    """Whether the likelihood is next to flat in some direction: then very different parameters are as good.

    Args:
        curve: second derivatives of minus the log likelihood by the logarithms of the parameters.
    """
    import numpy as np

    values, directions = np.linalg.eigh(curve)
    if values.min() > 1 / _MAX_ERROR**2:
        return None
    worst = names[int(np.abs(directions[:, int(values.argmin())]).argmax())]
    return Unfit(why=Why.UNDETERMINED, reason=f"the customers do not tell {worst}: very different values are as good")


def _too_few(customers: int, repeaters: int) -> Unfit | None:
    if customers < MIN_CUSTOMERS:
        return Unfit(why=Why.TOO_FEW_CUSTOMERS, reason=f"{customers} customers; {MIN_CUSTOMERS} are needed")
    if repeaters < MIN_REPEATERS:
        reason = f"{repeaters} of {customers} customers ordered again; {MIN_REPEATERS} are needed"
        return Unfit(why=Why.TOO_FEW_REPEATERS, reason=reason)
    return None


def _off_one(a: float) -> float:
    """The formulas divide by a - 1; at 1 they have a limit, which they are near enough to here."""
    return a if abs(a - 1) > 1e-6 else 1 + 1e-6


def _arrays(*given: ArrayLike) -> list[Floats]:
    import numpy as np

    arrays = [np.asarray(each, dtype=np.float64) for each in given]
    if len({each.shape for each in arrays}) != 1 or arrays[0].ndim != 1:
        raise ValueError("the arrays are not as long as each other")
    if not all(np.isfinite(each).all() for each in arrays):
        raise ValueError("a value is missing or infinite")
    return arrays
