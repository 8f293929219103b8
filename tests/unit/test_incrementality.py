"""What a hold-out shows, as pure arithmetic: against SciPy, and simulated to see that intervals keep their promise."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from mautolib.analytics import incrementality
from mautolib.analytics.incrementality import Arm, Incrementality, Verdict, measure
from mautolib.statistics import Pairs

START = datetime(2026, 9, 1, tzinfo=UTC)
BEFORE = (START - timedelta(days=90), START)
SEED = 20261123
#: (reports simulated, marks)
SIZES = [pytest.param(400, id="small"), pytest.param(4000, id="large", marks=pytest.mark.slow)]


def arm(y: Any, x: Any) -> Arm:
    """A group out of what each contact spent, and spent before (arrays)."""
    sums = {"y": y.sum(), "yy": y @ y, "x": x.sum(), "xx": x @ x, "xy": x @ y}
    customers = int((y > 0).sum())
    return Arm(contacts=len(y), customers=customers, orders=customers,
               pairs=Pairs(n=len(y), **{name: float(value) for name, value in sums.items()}))  # fmt: skip


def measured(mailed: Arm, held_out: Arm, *, shares: tuple[float, float] | None = None) -> Incrementality:
    return measure(
        mailed, held_out, shares=shares or (mailed.contacts, held_out.contacts), from_at=START,
        to_at=START + timedelta(days=30), percent=Decimal(10), before=BEFORE,
    )  # fmt: skip


def shoppers(rng: Any, size: int, *, share: float = 0.3, factor: float = 1.0, noise: float = 10) -> tuple[Any, Any]:
    """What `size` contacts spend and spent before: most of them nothing, the others about as much as before."""
    taste = rng.gamma(2, 20, size) * (rng.random(size) < share)
    spent = taste * factor * (rng.random(size) < 0.9) + (taste > 0) * rng.gamma(1, noise, size)
    return spent, taste + (taste > 0) * rng.gamma(1, noise, size)


def test_the_figures_are_those_of_scipy() -> None:
    import numpy
    from scipy import stats

    rng = numpy.random.default_rng(SEED)
    groups = [shoppers(rng, 3000, factor=1.3), shoppers(rng, 600)]
    found = measured(*(arm(*each) for each in groups))
    assert found.verdict is Verdict.MEASURED
    assert found.revenue is not None and found.adjusted is not None and found.conversion is not None
    plain = stats.ttest_ind(groups[0][0], groups[1][0], equal_var=False)
    wanted = plain.confidence_interval(0.95)
    assert found.revenue.p_value == pytest.approx(plain.pvalue, rel=1e-9)
    assert (found.revenue.low, found.revenue.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    # CUPED is the same test of what is left of y: the slope within the groups, nothing else.
    centred = [(y - y.mean(), x - x.mean()) for y, x in groups]
    theta = sum(y @ x for y, x in centred) / sum(x @ x for _, x in centred)
    left = [y - theta * x for y, x in groups]
    test = stats.ttest_ind(*left, equal_var=False)
    wanted = test.confidence_interval(0.95)
    assert found.theta == pytest.approx(theta, rel=1e-9)
    assert found.adjusted.difference == pytest.approx(left[0].mean() - left[1].mean(), rel=1e-9)
    assert (found.adjusted.low, found.adjusted.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    assert found.adjusted.p_value == pytest.approx(test.pvalue, rel=1e-9)
    assert found.total_low == pytest.approx(wanted.low * 3000, rel=1e-9)
    assert found.total_high == pytest.approx(wanted.high * 3000, rel=1e-9)
    gone = 1 - sum(y.var(ddof=1) / len(y) for y in left) / sum(y.var(ddof=1) / len(y) for y, _ in groups)
    assert found.reduction == pytest.approx(gone, rel=1e-9)
    ordered = [int((y > 0).sum()) for y, _ in groups]
    chi = stats.chi2_contingency([ordered, [3000 - ordered[0], 600 - ordered[1]]], correction=False)
    assert found.conversion.p_value == pytest.approx(chi.pvalue, rel=1e-9)
    assert found.conversion.difference == pytest.approx(100 * (ordered[0] / 3000 - ordered[1] / 600))
    assert found.conversion.low < found.conversion.difference < found.conversion.high


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.parametrize("factor", [1.0, 1.2], ids=["no_effect", "a_fifth_more"])
def test_intervals_hold_the_truth_and_cuped_narrows_them(runs: int, factor: float) -> None:
    """95 of 100 intervals hold the effect that was put in, plain and adjusted; CUPED takes off rho squared."""
    import numpy

    rng = numpy.random.default_rng(SEED)
    # Mean of taste is 0.3 * 40, of which nine tenths are spent again: what the factor adds is known.
    truth = 0.3 * 40 * 0.9 * (factor - 1)
    held = {"plain": 0, "adjusted": 0}
    gone, squared = 0.0, 0.0
    for _ in range(runs):
        mailed, kept = shoppers(rng, 2000, factor=factor), shoppers(rng, 500)
        found = measured(arm(*mailed), arm(*kept))
        assert found.revenue is not None and found.adjusted is not None and found.reduction is not None
        held["plain"] += found.revenue.low <= truth <= found.revenue.high
        held["adjusted"] += found.adjusted.low <= truth <= found.adjusted.high
        gone += found.reduction / runs
        squared += float(numpy.corrcoef(*kept)[0, 1]) ** 2 / runs
    print({name: number / runs for name, number in held.items()}, f"reduction {gone:.3f}, rho squared {squared:.3f}")
    reach = 4 * math.sqrt(0.95 * 0.05 / runs)
    assert all(abs(number / runs - 0.95) < reach for number in held.values()), held
    assert gone == pytest.approx(squared, abs=0.02) and gone > 0.5


@pytest.mark.parametrize(("mailed", "kept", "customers", "verdict"), [
    ((900, 100), (900, 100), 10, Verdict.MEASURED), ((900, 99), (900, 99), 10, Verdict.NOT_ENOUGH_DATA),
    ((99, 900), (99, 900), 10, Verdict.NOT_ENOUGH_DATA), ((900, 100), (900, 100), 9, Verdict.NOT_ENOUGH_DATA),
    ((9000, 1000), (80, 20), 10, Verdict.SRM_DETECTED), ((0, 0), (9, 1), 0, Verdict.NOT_ENOUGH_DATA),
])  # fmt: skip
def test_too_little_or_a_wrong_split_says_nothing(
    mailed: tuple[int, int], kept: tuple[float, float], customers: int, verdict: Verdict
) -> None:
    def group(size: int, buyers: int) -> Arm:
        return Arm(contacts=size, customers=buyers, orders=buyers, pairs=Pairs(
            n=size, y=Decimal(10 * buyers), yy=Decimal(100 * buyers), x=0, xx=0, xy=0))  # fmt: skip

    found = measured(group(mailed[0], customers), group(mailed[1], 0), shares=kept)
    assert found.verdict is verdict
    assert (found.reason == "") == (verdict is Verdict.MEASURED) == (found.revenue is not None)
    if found.revenue is not None:
        assert found.revenue.lift is None, "nobody held out bought: no lift, though a difference"
        assert found.adjusted is not None and found.adjusted.difference == found.revenue.difference
        assert (found.theta, found.reduction) == pytest.approx((0, 0), abs=1e-12)
    assert incrementality.figures(found)["incremental_revenue"] == found.total
