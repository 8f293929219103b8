"""BG/NBD and Gamma-Gamma: published values, the likelihood by hand, known parameters found again, and every refusal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mautolib.statistics import OrderValues, Purchases, Unfit, Why, customer_value, fit_order_values, fit_purchases

#: Fader, Hardie, Lee (2005), table 2, and Fader & Hardie (2013), as printed.
CDNOW = Purchases(r=0.243, alpha=4.414, a=0.793, b=2.426, log_likelihood=-9582.4, customers=2357, repeaters=946)
SPENT = OrderValues(p=6.25, q=3.74, v=15.44, log_likelihood=-4055.9, repeaters=946, correlation=0.11)
#: The first ten customers of CDNOW: repeat orders and their mean value, and what note 025 expects of each.
FIRST_TEN = [(2, 22.35, 24.65), (1, 11.77, 18.91), (0, 0, 35.17), (0, 0, 35.17), (0, 0, 35.17), (7, 73.74, 71.46),
             (1, 11.77, 18.91), (0, 0, 35.17), (2, 25.55, 27.28), (0, 0, 35.17)]  # fmt: skip


def simulate(n: int, r: float, alpha: float, a: float, b: float, *, span: float = 60, seed: int = 7) -> Any:
    """Customers who behave as the model says: arrays x, recency, age."""
    draw = np.random.default_rng(seed)
    rate, leaves, age = draw.gamma(r, 1 / alpha, n), draw.beta(a, b, n), draw.uniform(span / 3, span, n)
    x, recency, now, here = np.zeros(n), np.zeros(n), np.zeros(n), np.ones(n, bool)
    while here.any():
        now = now + draw.exponential(1, n) / np.maximum(rate, 1e-300)
        here &= now < age
        x[here] += 1
        recency[here] = now[here]
        here &= draw.random(n) > leaves
    return x, recency, age


def simulate_values(n: int, p: float, q: float, v: float, seed: int = 7) -> Any:
    draw = np.random.default_rng(seed)
    x = draw.integers(1, 12, n).astype(float)
    return x, draw.gamma(p * x, 1.0) / draw.gamma(q, 1 / v, n) / x


def test_orders_of_a_new_customer_as_published() -> None:
    """As in Hardie's spreadsheet, with the four digits of the parameters it has."""
    fitted = replace(CDNOW, r=0.2426, alpha=4.4135, a=0.7929, b=2.4258)
    wanted = {0.1429: 0.0078, 1: 0.0532, 3: 0.1506, 31.8571: 1.0405, 32: 1.0437, 78: 1.8576}
    for weeks, expected in wanted.items():
        assert fitted.expected_of_new(weeks) == pytest.approx(expected, abs=5e-4)


def test_orders_of_a_known_customer_as_published() -> None:
    """Equation 10, the example of the paper: two repeat orders, the last in week 30.43, of 38.86 weeks."""
    assert CDNOW.expected(39, [2], [30.43], [38.86]) == pytest.approx([1.226], abs=5e-4)
    # Who ordered once is as new: equation 10 and equation 9 agree for a customer without a past.
    assert CDNOW.expected(39, [0], [0], [0]) == pytest.approx([CDNOW.expected_of_new(39)], rel=1e-12)


def test_values_of_orders_as_published() -> None:
    x, value, wanted = (list(each) for each in zip(*FIRST_TEN, strict=True))
    assert SPENT.expected(x, value) == pytest.approx(wanted, abs=0.06)
    assert SPENT.mean == pytest.approx(35.2, abs=0.03)


def test_who_is_still_there() -> None:
    """The chance of equation 7 of note 021, by hand; a long silence after many orders says more than after one."""
    x, recency, age = 2, 30.43, 38.86
    by_hand = 1 / (1 + 0.793 / (2.426 + x - 1) * ((4.414 + age) / (4.414 + recency)) ** (0.243 + x))
    found = CDNOW.alive([2, 0, 20, 20, 5000], [30.43, 0, 38.8, 10, 1], [38.86] * 5)
    assert found[0] == pytest.approx(by_hand, rel=1e-12)
    assert found[1] == 1 and found[2] > 0.95 and found[3] < 1e-4 and found[4] == 0


def test_thousands_of_orders_stay_finite() -> None:
    found = CDNOW.expected(52, [1000, 5000], [38.8, 1], [38.86, 38.86])
    assert 500 < found[0] < 1400 and found[1] < 1e-100


def test_one_formula_has_a_hole_at_one() -> None:
    at_one, beside = (Purchases(r=0.5, alpha=5, a=a, b=2, log_likelihood=0, customers=1, repeaters=1)
                      for a in (1.0, 1.0001))  # fmt: skip
    about: Any = (52, [3], [20], [30])
    assert at_one.expected(*about) == pytest.approx(beside.expected(*about), rel=1e-3)
    assert at_one.expected_of_new(52) == pytest.approx(beside.expected_of_new(52), rel=1e-3)


def test_the_likelihood_is_that_of_the_paper() -> None:
    """Equation 6 for each of four customers, by the gamma and beta functions themselves; and both gradients."""
    x, recency, age = np.array([0.0, 1, 2, 7]), np.array([0, 3.0, 30.43, 20]), np.array([10, 12.0, 38.86, 39])
    r, alpha, a, b = 0.3, 5.0, 0.9, 2.2

    def beta(one: float, other: float) -> float:
        return math.gamma(one) * math.gamma(other) / math.gamma(one + other)

    total = 0.0
    for n, t, end in zip(x, recency, age, strict=True):
        stays = beta(a, b + n) / beta(a, b) * math.gamma(r + n) * alpha**r / math.gamma(r) / (alpha + end) ** (r + n)
        left = n and (beta(a + 1, b + n - 1) / beta(a, b) * math.gamma(r + n) * alpha**r / math.gamma(r)
                      / (alpha + t) ** (r + n))  # fmt: skip
        total += math.log(stays + left)
    target = customer_value._purchases_target(x, recency, age)
    assert -4 * target(np.log([r, alpha, a, b]))[0] == pytest.approx(total, rel=1e-12)
    values = customer_value._values_target(np.array([1.0, 2, 5]), np.array([10.0, 35, 20]))
    for each, logs in ((target, np.log([r, alpha, a, b])), (values, np.log([6.0, 3.7, 15.4]))):
        steps = np.eye(len(logs)) * 1e-6
        by_steps = [(each(logs + step)[0] - each(logs - step)[0]) / 2e-6 for step in steps]
        assert each(logs)[1] == pytest.approx(by_steps, rel=1e-5)


def test_known_parameters_are_found_again() -> None:
    found = fit_purchases(*simulate(10_000, 0.5, 8, 0.8, 2.4))
    assert isinstance(found, Purchases)
    wanted = {"r": 0.5, "alpha": 8, "a": 0.8, "b": 2.4}
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value, rel=0.15), name
    values = fit_order_values(*simulate_values(10_000, 6, 3.7, 15))
    assert isinstance(values, OrderValues)
    assert [values.p, values.q, values.v] == pytest.approx([6, 3.7, 15], rel=0.15)
    assert values.mean == pytest.approx(6 * 15 / 2.7, rel=0.03)


def test_the_unit_of_time_and_money_does_not_matter() -> None:
    x, recency, age = simulate(3000, 0.5, 8, 0.8, 2.4)
    weeks, days = fit_purchases(x, recency, age), fit_purchases(x, recency * 7, age * 7)
    assert isinstance(weeks, Purchases) and isinstance(days, Purchases)
    assert days.alpha == pytest.approx(7 * weeks.alpha, rel=1e-4) and days.a == pytest.approx(weeks.a, rel=1e-4)
    assert days.log_likelihood == pytest.approx(weeks.log_likelihood - x.sum() * math.log(7), abs=1e-4)
    by_weeks, by_days = weeks.expected(52, x, recency, age), days.expected(364, x, recency * 7, age * 7)
    assert by_days == pytest.approx(by_weeks, rel=1e-3)
    n, value = simulate_values(2000, 6, 3.7, 15)
    euro, cent = fit_order_values(n, value), fit_order_values(n, value * 100)
    assert isinstance(euro, OrderValues) and isinstance(cent, OrderValues)
    assert cent.mean == pytest.approx(100 * euro.mean, rel=1e-4)
    assert cent.log_likelihood == pytest.approx(euro.log_likelihood - 2000 * math.log(100), abs=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_prediction_holds_on_time_it_did_not_see(seed: int) -> None:
    """The same customers, watched for twice the time."""
    draw = np.random.default_rng(seed)
    n = 8000
    rate, leaves = draw.gamma(0.5, 1 / 8, n), draw.beta(0.8, 2.4, n)
    early, recency, late = np.zeros(n), np.zeros(n), np.zeros(n)
    now, here = np.zeros(n), np.ones(n, bool)
    while here.any():
        now = now + draw.exponential(1, n) / np.maximum(rate, 1e-300)
        here &= now < 80
        first = here & (now < 40)
        early[first] += 1
        recency[first] = now[first]
        late[here & (now >= 40)] += 1
        here &= draw.random(n) > leaves
    found = fit_purchases(early, recency, np.full(n, 40.0))
    assert isinstance(found, Purchases)
    assert found.expected(40, early, recency, np.full(n, 40.0)).sum() == pytest.approx(late.sum(), rel=0.06)


def why(found: object) -> Why:
    assert isinstance(found, Unfit) and len(found.reason) > 20
    return found.why


def test_when_purchases_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why(fit_purchases([], [], [])) is Why.TOO_FEW_CUSTOMERS
    assert why(fit_purchases(*(each[:199] for each in simulate(300, 0.5, 8, 0.8, 2.4)))) is Why.TOO_FEW_CUSTOMERS
    assert why(fit_purchases([0.0] * 500, [0.0] * 500, [10.0] * 500)) is Why.TOO_FEW_REPEATERS
    # Nobody ever leaves, as in a shop whose customers are shops.
    assert why(fit_purchases(*simulate(3000, 1, 10, 1e-6, 3))) is Why.NOBODY_LEAVES
    # All order at one rate and leave after the first repeat: there is no spread to find.
    same = fit_purchases([1.0] * 400, [5.0] * 400, [40.0] * 400)
    assert why(same) in (Why.NO_MAXIMUM, Why.UNDETERMINED)
    monkeypatch.setattr(customer_value, "_maximum", lambda *_: None)
    assert why(fit_purchases(*simulate(300, 0.5, 8, 0.8, 2.4))) is Why.NOT_CONVERGED


def test_when_order_values_are_refused() -> None:
    x, value = simulate_values(2000, 6, 3.7, 15)
    assert why(fit_order_values(x[:49], value[:49])) is Why.TOO_FEW_REPEATERS
    assert why(fit_order_values(x, value * x)) is Why.CORRELATED
    assert "less" in getattr(fit_order_values(x, value / x), "reason", "")
    assert why(fit_order_values(x, np.full(2000, 9.99))) in (Why.NO_MAXIMUM, Why.UNDETERMINED)
    assert why(fit_order_values(*simulate_values(1000, 6, 0.7, 15))) is Why.NO_MEAN


@pytest.mark.parametrize(
    "customers", [([1], [2], [1]), ([-1], [0], [1]), ([0], [1], [2]), ([1], [0], [2]), ([1, 2], [1], [2]),
                  ([math.nan], [1], [2]), ([[1]], [[1]], [[2]])],
)  # fmt: skip
def test_what_no_customer_can_be(customers: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        fit_purchases(*customers)
    with pytest.raises(ValueError, match="above 0"):
        fit_order_values([1], [0])
