"""Looking often: how often the sequential rule finds a difference that is not there, and what it costs in power.

The chance of crossing is computed exactly for a normal statistic, and simulated for what campaigns really count: few
successes, mail still going out, recipients answering late, revenue of a few buyers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from mautolib import statistics as s
from mautolib.campaigns.deciding import Counts, Decision, Metric, decide
from mautolib.statistics import Interval, Moments
from mautolib.statistics.intervals import newcombe_at
from mautolib.statistics.sequential import TUNED_FOR, best_rho, mixture_bound, mixture_log

LOOKS = 20
SEED = 20261123
#: (tests simulated, marks): a few thousand looks by default, a few hundred thousand with the slow tests.
SIZES = [pytest.param(400, id="small"), pytest.param(8000, id="large", marks=pytest.mark.slow)]
Looks = Iterator[tuple[tuple[int, int], ...]]


def mailing_goes_on(rng: Any, rate: float, recipients: int, groups: int) -> Looks:
    """(successes, recipients) of each group at every look, more recipients each time."""
    successes, step = [0] * groups, recipients // LOOKS
    for look in range(1, LOOKS + 1):
        successes = [before + int(rng.binomial(step, rate)) for before in successes]
        yield tuple((each, look * step) for each in successes)


def answers_come_late(rng: Any, rate: float, recipients: int, groups: int) -> Looks:
    """Everybody has their mail; from a thousandth of the answers to all of them, evenly in the logarithm."""
    successes, before = [0] * groups, 0.0
    for look in range(LOOKS):
        share = 10 ** (3 * look / (LOOKS - 1) - 3)
        chance = rate * (share - before) / (1 - rate * before)
        successes = [each + int(rng.binomial(recipients - each, chance)) for each in successes]
        before = share
        yield tuple((each, recipients) for each in successes)


def false_alarms(runs: int, looks: Any, excludes: Any) -> float:
    """In which part of `runs` tests `excludes` was true at any look."""
    import numpy

    rng = numpy.random.default_rng(SEED)
    found = sum(any(excludes(groups) for groups in looks(rng)) for _ in range(runs)) / runs
    print(f"{runs} tests of {LOOKS} looks: {100 * found:.2f} % false alarms")
    return found


def apart(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.parametrize("life", [mailing_goes_on, answers_come_late])
@pytest.mark.parametrize(("rate", "recipients"), [(0.02, 10_000), (0.25, 2_000), (0.6, 2_000)])
def test_twenty_looks_at_equal_rates(runs: int, life: Any, rate: float, recipients: int) -> None:
    def looks(rng: Any) -> Looks:
        return life(rng, rate, recipients, 2)

    lasting = false_alarms(runs, looks, lambda groups: apart(s.sequential_rates(*groups[0], *groups[1])))
    single = false_alarms(runs, looks, lambda groups: apart(s.newcombe(*groups[0], *groups[1])))
    assert lasting <= 0.05
    # Whoever stops at the first interval of a single look that excludes 0 errs in every fifth test or more often.
    assert single > 0.15


@pytest.mark.parametrize("runs", SIZES)
def test_twenty_looks_at_all_pairs_of_four(runs: int) -> None:
    def excludes(groups: tuple[tuple[int, int], ...]) -> bool:
        pairs = [(one, other) for at, one in enumerate(groups) for other in groups[:at]]
        return any(apart(s.sequential_rates(*one, *other, comparisons=6)) for one, other in pairs)

    assert false_alarms(runs, lambda rng: answers_come_late(rng, 0.2, 1500, 4), excludes) <= 0.05


def buying(rng: Any, buyers: float, recipients: int) -> Iterator[tuple[Moments, Moments]]:
    """Spend of two groups at every look: few buy, for an amount whose logarithm is normal with deviation 1."""
    numbers, step = [(0.0, 0.0), (0.0, 0.0)], recipients // LOOKS
    for look in range(1, LOOKS + 1):
        for group in (0, 1):
            spent = rng.lognormal(4, 1, rng.binomial(step, buyers))
            numbers[group] = (numbers[group][0] + float(spent.sum()), numbers[group][1] + float(spent @ spent))
        yield tuple(Moments(n=look * step, total=a, squares=b) for a, b in numbers)  # type: ignore[misc]


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.thorough
def test_twenty_looks_at_equal_revenue(runs: int) -> None:
    lasting = false_alarms(runs, lambda rng: buying(rng, 0.02, 10_000), lambda pair: apart(s.sequential_means(*pair)))
    assert lasting <= 0.05


@pytest.mark.parametrize("runs", SIZES)
def test_the_interval_holds_a_real_difference_at_every_look(runs: int) -> None:
    import numpy

    rng, missed = numpy.random.default_rng(SEED), 0
    for _ in range(runs):
        one, other = mailing_goes_on(rng, 0.13, 4000, 1), mailing_goes_on(rng, 0.10, 4000, 1)
        ends = [s.sequential_rates(*a[0], *b[0]) for a, b in zip(one, other, strict=True)]
        missed += any(not each.low <= 0.03 <= each.high for each in ends)
    assert missed / runs <= 0.05


def counts_of(name: str, opens: int, sent: int) -> Counts:
    return Counts(
        variant_id=name, name=name, assigned=sent, attempted=sent, sent=sent, delivered=sent, unique_opens=opens,
        unique_clicks=0, conversions=0, revenue=Decimal(0), revenue_squares=Decimal(0),
    )  # fmt: skip


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.thorough
def test_twenty_looks_at_the_decision(runs: int) -> None:
    deadline = datetime(2026, 5, 2, 12, tzinfo=UTC)

    def wins(groups: tuple[tuple[int, int], ...]) -> bool:
        variants = [counts_of(str(at), *each) for at, each in enumerate(groups)]
        found = decide(variants, Metric.OPEN_RATE, as_of=deadline - timedelta(hours=1), deadline_at=deadline)
        return found.decision is Decision.WINNER

    assert false_alarms(min(runs, 4000), lambda rng: mailing_goes_on(rng, 0.2, 2000, 2), wins) <= 0.05


def normal(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def rule(signal: float, looks: int) -> tuple[list[float], list[float]]:
    times = [signal * look / looks for look in range(1, looks + 1)]
    return [s.multiplier(time) for time in times], times


@pytest.mark.parametrize("looks", [1, 20, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("signal", [50, 250, 1000, 20_000])
def test_the_rule_errs_in_fewer_than_5_of_100_tests(looks: int, signal: float) -> None:
    assert s.crossing_probability(*rule(signal, looks)) <= 0.05


#: Signal at the end, then of 20 looks in percent: false alarms, power where one look has 80 and 90 %, and false alarms
#: of whoever also tests at 5 % at the last look (docs/statistics.md).
POWER = [(100, 0.5, 44, 61, 5.1), (250, 1.1, 49, 66, 5.3), (1000, 1.5, 47, 64, 5.7), (4000, 1.3, 41, 57, 5.7)]


@pytest.mark.parametrize(("signal", "false", "power_80", "power_90", "both"), POWER)
def test_the_power_that_is_paid_for_looking(
    signal: float, false: float, power_80: int, power_90: int, both: float
) -> None:
    from scipy.special import ndtri

    bounds, times = rule(signal, LOOKS)
    assert round(100 * s.crossing_probability(bounds, times), 1) == false
    for power, wanted in ((0.8, power_80), (0.9, power_90)):
        drift = float(ndtri(0.975) + ndtri(power)) / math.sqrt(signal)
        assert round(100 * s.crossing_probability(bounds, times, drift=drift)) == wanted
    last = [*bounds[:-1], float(ndtri(0.975))]
    assert round(100 * s.crossing_probability(last, times), 1) == both


def test_the_same_power_needs_twice_the_recipients_at_most_or_so() -> None:
    from scipy.special import ndtri

    drift = float(ndtri(0.975) + ndtri(0.8)) / math.sqrt(500)
    assert s.crossing_probability(*rule(500 * 1.8, LOOKS), drift=drift) > 0.8


def test_crossing_agrees_with_a_plain_double_integral() -> None:
    from scipy.integrate import quad

    def within(first: float) -> float:
        low, high = (normal(end * math.sqrt(2) - first) for end in (-1.96, 1.96))
        return math.exp(-first * first / 2) / math.sqrt(2 * math.pi) * (high - low)

    assert s.crossing_probability([1.96, 1.96]) == pytest.approx(1 - quad(within, -1.96, 1.96)[0], abs=1e-10)
    assert s.crossing_probability([1.96]) == pytest.approx(math.erfc(1.96 / math.sqrt(2)), abs=1e-13)
    drift = s.crossing_probability([1.96], [4.0], drift=1.0)
    assert drift == pytest.approx(normal(2 - 1.96) + normal(-2 - 1.96), abs=1e-13)


def test_the_reach_of_the_interval() -> None:
    alpha = 0.05
    rho = best_rho(TUNED_FOR, alpha)
    # At its bound the martingale is worth one over alpha: Ville's inequality.
    assert mixture_log(mixture_bound(400, alpha, rho), 400, rho) == pytest.approx(math.log(1 / alpha))
    reaches = {signal: s.multiplier(signal) for signal in (0, 10, 80, TUNED_FOR, 1400, 100_000)}
    assert reaches[0] == 30 and round(reaches[10], 1) == 5.1 and round(reaches[TUNED_FOR], 3) == 3.035
    assert all(reaches[signal] < 1.05 * reaches[TUNED_FOR] for signal in (80, 1400))
    assert min(reaches.values()) > 1.96 and reaches[100_000] < 3.8


def test_several_intervals_share_the_level_and_each_goes_by_its_own_clock() -> None:
    for pairs in (3, 10):
        assert s.multiplier(400, comparisons=pairs) == pytest.approx(s.multiplier(400, confidence=1 - 0.05 / pairs))
    reach = s.multiplier(2000 * 1100.5 / 900.5, comparisons=3)
    assert s.sequential_rates(600, 1000, 500, 1000, comparisons=3) == newcombe_at(600, 1000, 500, 1000, reach)
    # Twice the spend of everybody is the same information: money has no unit here.
    one, other = Moments(n=5000, total=7000, squares=900_000), Moments(n=5000, total=5000, squares=700_000)
    plain, twice = (
        s.sequential_means(
            Moments(n=5000, total=by * 7000, squares=by**2 * 900_000),
            Moments(n=5000, total=by * 5000, squares=by**2 * 700_000),
        )
        for by in (1, 2)
    )
    assert (twice.low, twice.high) == (pytest.approx(2 * plain.low), pytest.approx(2 * plain.high))
    both = one + other
    half = s.multiplier(both.n * both.mean**2 / both.variance) * s.welch(one, other).error
    assert plain.high - plain.low == pytest.approx(2 * half, rel=0.002)  # Student's tail of 10,000 is nearly normal
