"""What an A/B test has shown so far: its figures, its comparisons, and the decision they allow. Pure.

Takes counts and moments, gives everything of the results but the test's own ids and status. Whoever keeps experiments
calls it, at any moment and as often as wanted: before the deadline a winner needs the sequential intervals, which allow
for that. Nothing is rounded. The statistics are in `mautolib.statistics`; nothing here chooses who gets what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import combinations
from typing import Final

from mautolib import statistics
from mautolib.statistics import Interval, Moments, SampleRatio

__all__ = [
    "CONFIDENCE", "MINIMUMS", "Comparison", "Counts", "Decision", "Figures", "HeldOut", "HoldOutFigures", "Metric",
    "Minimums", "Results", "TestName", "decide", "hold_out_figures",
]  # fmt: skip

CONFIDENCE: Final = 0.95
#: Below this expected count of successes or failures a test of rates is exact.
EXACT_BELOW: Final = 5


class Metric(StrEnum):
    """What the winner is best at; each is per recipient that was sent to."""

    OPEN_RATE = "open_rate"
    CLICK_RATE = "click_rate"
    CONVERSION_RATE = "conversion_rate"
    REVENUE_PER_RECIPIENT = "revenue_per_recipient"


class Decision(StrEnum):
    """What the figures allow to say."""

    WINNER = "winner"
    NO_DIFFERENCE = "no_difference"
    NOT_ENOUGH_DATA = "not_enough_data"
    SRM_DETECTED = "srm_detected"


class TestName(StrEnum):
    """The test of a comparison: `chi2` is the square of `z` and named for pairs out of more than two variants."""

    __test__ = False  # no test of pytest's

    Z = "z"
    CHI2 = "chi2"
    FISHER = "fisher"
    WELCH = "welch"


@dataclass(frozen=True, kw_only=True)
class Minimums:
    """Below these nothing is decided."""

    recipients_per_variant: int = 100
    successes_in_total: int = 10


MINIMUMS: Final = Minimums()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What is known of a variant. Unique recipients, except `revenue` (net, in the reporting currency).

    `revenue_squares` is the sum over recipients of their revenue squared. `due` is false while the hour of a send-time
    variant has not come: it is then left out of the sample-ratio check.
    """

    variant_id: str
    name: str
    assigned: int
    attempted: int
    sent: int
    delivered: int
    unique_opens: int
    unique_clicks: int
    conversions: int = 0
    revenue: Decimal = Decimal(0)
    revenue_squares: Decimal = Decimal(0)
    due: bool = True


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is known of those kept back; they can only buy."""

    recipients: int
    conversions: int
    revenue: Decimal
    revenue_squares: Decimal


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A variant's counts with its rates in percent, None where nothing was sent; the interval is of the metric."""

    counts: Counts
    open_rate: float | None
    click_rate: float | None
    conversion_rate: float | None
    revenue_per_recipient: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`variant_id` less `other_variant_id` in the metric: percentage points, or money per recipient.

    The numbers are None where one of both has too few recipients for them (none for rates, one for revenue).
    """

    variant_id: str
    other_variant_id: str
    test: TestName
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    sequential_low: float | None = None
    sequential_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class HoldOutFigures:
    """Those kept back, and the lift in percent of everybody mailed over them; None where it is not defined."""

    recipients: int
    conversions: int
    revenue: Decimal
    lift: float | None
    lift_low: float | None
    lift_high: float | None


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything the figures say at `as_of`."""

    winner_metric: Metric
    confidence_level: float
    as_of: datetime
    deadline_at: datetime | None
    decision: Decision
    reason: str
    winner_variant_id: str | None
    control_variant_id: str
    minimums: Minimums
    srm: SampleRatio
    variants: tuple[Figures, ...]
    comparisons: tuple[Comparison, ...]
    omnibus_p_value: float | None
    holdout: HoldOutFigures | None


def decide(
    variants: Sequence[Counts], metric: Metric, *, as_of: datetime, deadline_at: datetime | None = None,
    held_out: HeldOut | None = None,
) -> Results:  # fmt: skip
    """The results of a test whose first variant is the control.

    In this order: a sample-ratio mismatch, then the minimums; before the deadline (or while there is none yet) a winner
    only if every sequential interval of the best variant excludes 0; from the deadline a winner if every adjusted
    p-value of the best variant is below 0.05, else no difference.

    Raises:
        ValueError: fewer than two variants, or revenue that no recipients can have spent.
    """
    if len(variants) < 2:
        raise ValueError("a test has two variants or more")
    due = [each for each in variants if each.due]
    srm = statistics.sample_ratio([each.sent for each in due])
    comparisons = _adjusted([_compare(one, other, metric, len(variants)) for other, one in combinations(variants, 2)])
    best = max(variants, key=lambda each: _value(each, metric))
    passed = deadline_at is not None and as_of >= deadline_at
    decision, reason = _decision(variants, metric, srm, best, comparisons, passed=passed)
    return Results(
        winner_metric=metric, confidence_level=CONFIDENCE, as_of=as_of, deadline_at=deadline_at, decision=decision,
        reason=reason, winner_variant_id=best.variant_id if decision is Decision.WINNER else None,
        control_variant_id=variants[0].variant_id, minimums=MINIMUMS, srm=srm,
        variants=tuple(_figures(each, metric) for each in variants), comparisons=tuple(comparisons),
        omnibus_p_value=_omnibus(variants, metric) if len(variants) > 2 else None,
        holdout=None if held_out is None else hold_out_figures(variants, held_out, metric),
    )  # fmt: skip


def hold_out_figures(variants: Sequence[Counts], held_out: HeldOut, metric: Metric) -> HoldOutFigures:
    """The lift of everybody mailed over those kept back: in revenue if that is the metric, else in conversions."""
    mailed, kept = sum(each.sent for each in variants), held_out.recipients
    conversions = sum(each.conversions for each in variants)
    found = None
    if metric is Metric.REVENUE_PER_RECIPIENT:
        control = Moments(n=kept, total=held_out.revenue, squares=held_out.revenue_squares)
        if min(mailed, kept) >= 2 and held_out.revenue > 0:
            together = Moments(
                n=mailed, total=sum(each.revenue for each in variants),
                squares=sum(each.revenue_squares for each in variants),
            )  # fmt: skip
            found = statistics.lift_of_means(together, control)
    elif mailed and kept and held_out.conversions:
        found = statistics.lift_of_rates(min(conversions, mailed), mailed, min(held_out.conversions, kept), kept)
    ends = found.interval if found else None
    return HoldOutFigures(
        recipients=kept, conversions=held_out.conversions, revenue=held_out.revenue,
        lift=100 * found.lift if found else None,
        lift_low=100 * ends.low if ends else None, lift_high=100 * ends.high if ends else None,
    )  # fmt: skip


def _decision(
    variants: Sequence[Counts], metric: Metric, srm: SampleRatio, best: Counts, comparisons: Sequence[Comparison], *,
    passed: bool,
) -> tuple[Decision, str]:  # fmt: skip
    what = metric.value.replace("_", " ")
    if srm.detected:
        return Decision.SRM_DETECTED, (
            f"The variants did not reach equal parts of the recipients (p = {srm.p_value:.2g}): something keeps"
            " recipients from some of them, so that their figures cannot be compared"
        )
    if short := _short_of(variants, metric):
        return Decision.NOT_ENOUGH_DATA, short
    own = [each for each in comparisons if best.variant_id in (each.variant_id, each.other_variant_id)]
    if not passed and all(_excludes_zero(each) for each in own):
        return Decision.WINNER, f"{best.name} has the best {what}, beyond doubt at any number of looks"
    if not passed:
        return Decision.NOT_ENOUGH_DATA, f"Before the deadline no variant leads in {what} beyond doubt"
    largest = max(1.0 if each.p_adjusted is None else each.p_adjusted for each in own)
    if largest < 1 - CONFIDENCE:
        return Decision.WINNER, f"{best.name} has the best {what} (p = {largest:.2g})"
    return Decision.NO_DIFFERENCE, f"No variant differs from all others in {what} (p = {largest:.2g})"


def _short_of(variants: Sequence[Counts], metric: Metric) -> str | None:
    """What is missing to the minimums."""
    few = min(variants, key=lambda each: each.sent)
    if few.sent < MINIMUMS.recipients_per_variant:
        return f"{few.name} was sent to {few.sent} of the {MINIMUMS.recipients_per_variant} recipients needed"
    successes = sum(_successes(each, metric) for each in variants)
    if successes < MINIMUMS.successes_in_total:
        return f"{successes} of the {MINIMUMS.successes_in_total} successes needed"
    return None


def _excludes_zero(comparison: Comparison) -> bool:
    low, high = comparison.sequential_low, comparison.sequential_high
    return low is not None and high is not None and (low > 0 or high < 0)


def _successes(counts: Counts, metric: Metric) -> int:
    """Recipients who did it. Results observed elsewhere may tell of more than were sent: never counted above them."""
    found = {Metric.OPEN_RATE: counts.unique_opens, Metric.CLICK_RATE: counts.unique_clicks}
    return min(found.get(metric, counts.conversions), counts.sent)


def _revenue(counts: Counts) -> Moments:
    return Moments(n=counts.sent, total=counts.revenue, squares=counts.revenue_squares)


def _value(counts: Counts, metric: Metric) -> float:
    if counts.sent == 0:
        return float("-inf")
    if metric is Metric.REVENUE_PER_RECIPIENT:
        return _revenue(counts).mean
    return _successes(counts, metric) / counts.sent


def _figures(counts: Counts, metric: Metric) -> Figures:
    def percent(of: Metric) -> float | None:
        return 100 * _successes(counts, of) / counts.sent if counts.sent else None

    ends: Interval | None = None
    scale = 1.0
    if metric is not Metric.REVENUE_PER_RECIPIENT and counts.sent:
        ends, scale = statistics.wilson(_successes(counts, metric), counts.sent, confidence=CONFIDENCE), 100.0
    elif metric is Metric.REVENUE_PER_RECIPIENT and counts.sent > 1:
        ends = statistics.mean_interval(_revenue(counts), confidence=CONFIDENCE)
    return Figures(
        counts=counts, open_rate=percent(Metric.OPEN_RATE), click_rate=percent(Metric.CLICK_RATE),
        conversion_rate=percent(Metric.CONVERSION_RATE),
        revenue_per_recipient=_revenue(counts).mean if counts.sent else None,
        ci_low=scale * ends.low if ends else None, ci_high=scale * ends.high if ends else None,
    )  # fmt: skip


def _compare(one: Counts, other: Counts, metric: Metric, variants: int) -> Comparison:
    """The comparison of a pair, not adjusted yet; its sequential interval holds together with those of all pairs."""
    if metric is Metric.REVENUE_PER_RECIPIENT:
        return _compare_revenue(one, other, variants * (variants - 1) // 2)
    parts = (_successes(one, metric), _successes(other, metric))
    exact = statistics.smallest_expected(parts, (one.sent, other.sent)) < EXACT_BELOW
    test = TestName.FISHER if exact else TestName.Z if variants == 2 else TestName.CHI2
    if min(one.sent, other.sent) == 0:
        return Comparison(variant_id=one.variant_id, other_variant_id=other.variant_id, test=test)
    counts = (parts[0], one.sent, parts[1], other.sent)
    ends = statistics.newcombe(*counts, confidence=CONFIDENCE)
    lasting = statistics.sequential_rates(*counts, confidence=CONFIDENCE, comparisons=variants * (variants - 1) // 2)
    return Comparison(
        variant_id=one.variant_id, other_variant_id=other.variant_id, test=test,
        difference=100 * (parts[0] / one.sent - parts[1] / other.sent),
        ci_low=100 * ends.low, ci_high=100 * ends.high,
        p_value=statistics.fisher(*counts) if exact else statistics.z_test(*counts).p_value,
        sequential_low=100 * lasting.low, sequential_high=100 * lasting.high,
    )  # fmt: skip


def _compare_revenue(one: Counts, other: Counts, pairs: int) -> Comparison:
    if min(one.sent, other.sent) < 2:
        return Comparison(variant_id=one.variant_id, other_variant_id=other.variant_id, test=TestName.WELCH)
    found = statistics.welch(_revenue(one), _revenue(other), confidence=CONFIDENCE)
    lasting = statistics.sequential_means(_revenue(one), _revenue(other), confidence=CONFIDENCE, comparisons=pairs)
    return Comparison(
        variant_id=one.variant_id, other_variant_id=other.variant_id, test=TestName.WELCH,
        difference=found.difference, ci_low=found.interval.low, ci_high=found.interval.high, p_value=found.p_value,
        sequential_low=lasting.low, sequential_high=lasting.high,
    )  # fmt: skip


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    known = [each.p_value for each in comparisons if each.p_value is not None]
    adjusted = iter(statistics.holm(known))
    return [each if each.p_value is None else replace(each, p_adjusted=next(adjusted)) for each in comparisons]


def _omnibus(variants: Sequence[Counts], metric: Metric) -> float | None:
    """The p-value of "all variants are alike"; None where it is not defined."""
    if metric is Metric.REVENUE_PER_RECIPIENT:
        spread = min(each.sent for each in variants) > 1 and any(_revenue(each).variance > 0 for each in variants)
        return statistics.analysis_of_variance([_revenue(each) for each in variants]).p_value if spread else None
    parts, totals = [_successes(each, metric) for each in variants], [each.sent for each in variants]
    if min(totals) == 0:
        return None
    if statistics.smallest_expected(parts, totals) < EXACT_BELOW:
        exact = statistics.freeman_halton(parts, totals)
        if exact is not None:
            return exact
    table = [parts, [whole - part for part, whole in zip(parts, totals, strict=True)]]
    return statistics.chi_square(table).p_value
