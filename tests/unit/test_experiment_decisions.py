"""What the figures of an A/B test allow to say, rule by rule; the numbers in it are those of mautolib.statistics."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mautolib import statistics as s
from mautolib.campaigns.deciding import Counts, Decision, HeldOut, Metric, Results, TestName, decide
from mautolib.statistics import Moments

DEADLINE = datetime(2026, 5, 2, 12, tzinfo=UTC)
BEFORE = DEADLINE - timedelta(seconds=1)


def variant(
    name: str, sent: int = 1000, opens: int = 0, clicks: int = 0, conversions: int = 0, revenue: str = "0",
    squares: str = "0", due: bool = True,
) -> Counts:  # fmt: skip
    return Counts(
        variant_id=f"id-{name}", name=name, assigned=sent, attempted=sent, sent=sent, delivered=sent,
        unique_opens=opens, unique_clicks=clicks, conversions=conversions, revenue=Decimal(revenue),
        revenue_squares=Decimal(squares), due=due,
    )  # fmt: skip


def at_deadline(*variants: Counts, metric: Metric = Metric.OPEN_RATE, held_out: HeldOut | None = None) -> Results:
    return decide(variants, metric, as_of=DEADLINE, deadline_at=DEADLINE, held_out=held_out)


def before(*variants: Counts, metric: Metric = Metric.OPEN_RATE) -> Results:
    found = decide(variants, metric, as_of=BEFORE, deadline_at=DEADLINE)
    without = decide(variants, metric, as_of=BEFORE)
    assert (without.decision, without.reason) == (found.decision, found.reason)  # no deadline yet is before it
    return found


def test_two_rates() -> None:
    found = at_deadline(variant("A", opens=200), variant("B", opens=240))
    assert (found.decision, found.winner_variant_id, found.control_variant_id) == (Decision.WINNER, "id-B", "id-A")
    assert found.reason == "B has the best open rate (p = 0.031)"
    assert found.omnibus_p_value is None and found.holdout is None and found.confidence_level == 0.95
    (pair,) = found.comparisons
    assert (pair.variant_id, pair.other_variant_id, pair.test) == ("id-B", "id-A", TestName.Z)
    assert pair.difference == pytest.approx(4)
    ends, lasting = s.newcombe(240, 1000, 200, 1000), s.sequential_rates(240, 1000, 200, 1000)
    assert (pair.ci_low, pair.ci_high) == (100 * ends.low, 100 * ends.high)
    assert (pair.sequential_low, pair.sequential_high) == (100 * lasting.low, 100 * lasting.high)
    assert pair.p_value == pair.p_adjusted == s.z_test(240, 1000, 200, 1000).p_value
    control = found.variants[0]
    assert (control.open_rate, control.click_rate, control.conversion_rate) == (20, 0, 0)
    assert control.revenue_per_recipient == 0
    wilson = s.wilson(200, 1000)
    assert (control.ci_low, control.ci_high) == (100 * wilson.low, 100 * wilson.high)


def test_the_same_figures_are_not_enough_a_second_before_the_deadline() -> None:
    found = before(variant("A", opens=200), variant("B", opens=240))
    assert (found.decision, found.winner_variant_id) == (Decision.NOT_ENOUGH_DATA, None)
    assert found.reason == "Before the deadline no variant leads in open rate beyond doubt"


def test_a_lead_beyond_doubt_wins_before_the_deadline() -> None:
    found = before(variant("A", opens=290), variant("B", opens=200))
    assert (found.decision, found.winner_variant_id) == (Decision.WINNER, "id-A")
    assert found.reason == "A has the best open rate, beyond doubt at any number of looks"
    assert found.comparisons[0].sequential_high is not None and found.comparisons[0].sequential_high < 0


def test_no_difference() -> None:
    found = at_deadline(variant("A", opens=200), variant("B", opens=210))
    assert (found.decision, found.winner_variant_id) == (Decision.NO_DIFFERENCE, None)
    assert found.reason == "No variant differs from all others in open rate (p = 0.58)"
    assert at_deadline(variant("A", opens=200), variant("B", opens=200)).decision is Decision.NO_DIFFERENCE


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        ((variant("A", 99, 30), variant("B", 100, 60)), "A was sent to 99 of the 100 recipients needed"),
        ((variant("A", 100, 0), variant("B", 100, 9)), "9 of the 10 successes needed"),
        ((variant("A", 0), variant("B", 0)), "A was sent to 0 of the 100 recipients needed"),
    ],
)
def test_below_the_minimums_nothing_is_decided(variants: tuple[Counts, ...], reason: str) -> None:
    for found in (at_deadline(*variants), before(*variants)):
        assert (found.decision, found.reason) == (Decision.NOT_ENOUGH_DATA, reason)
    assert at_deadline(variant("A", 100, 0), variant("B", 100, 10)).decision is Decision.WINNER


def test_a_sample_ratio_mismatch_comes_first() -> None:
    uneven = (variant("A", 1000, 100), variant("B", 1200, 400))
    for found in (at_deadline(*uneven), before(*uneven), at_deadline(variant("A", 5), variant("B", 60, 50))):
        assert (found.decision, found.winner_variant_id) == (Decision.SRM_DETECTED, None)
    assert found.srm.expected == (32.5, 32.5) and found.srm.observed == (5, 60) and found.srm.detected
    # p = 0.0012 and 0.0009: detected below 0.001.
    assert not at_deadline(variant("A", 1000, 90), variant("B", 1149, 90)).srm.detected
    assert at_deadline(variant("A", 1000, 90), variant("B", 1153, 90)).srm.detected


def test_a_variant_whose_hour_has_not_come_is_no_mismatch() -> None:
    waiting = before(variant("A", 1000, 200), variant("B", 0, due=False))
    assert waiting.decision is Decision.NOT_ENOUGH_DATA and waiting.srm.observed == (1000,)
    assert waiting.reason == "B was sent to 0 of the 100 recipients needed"
    assert waiting.variants[1].open_rate is waiting.variants[1].ci_low is None
    pair = waiting.comparisons[0]
    assert (pair.difference, pair.ci_low, pair.p_value, pair.p_adjusted, pair.sequential_high) == (None,) * 5
    assert decide([variant("A", 0, due=False), variant("B", 0, due=False)], Metric.OPEN_RATE, as_of=BEFORE).srm == (
        s.sample_ratio([])
    )


def test_few_successes_are_tested_exactly() -> None:
    found = at_deadline(variant("A", 200, clicks=0), variant("B", 200, clicks=9), metric=Metric.CLICK_RATE)
    assert found.comparisons[0].test is TestName.FISHER and found.decision is Decision.NOT_ENOUGH_DATA
    assert found.comparisons[0].p_value == pytest.approx(s.fisher(9, 200, 0, 200))
    at_five = at_deadline(variant("A", 200, clicks=1), variant("B", 200, clicks=9), metric=Metric.CLICK_RATE)
    assert at_five.comparisons[0].test is TestName.Z


def test_three_variants_are_adjusted_and_the_best_must_beat_both() -> None:
    close = at_deadline(variant("A", opens=200), variant("B", opens=240), variant("C", opens=245))
    assert close.decision is Decision.NO_DIFFERENCE
    assert [(each.variant_id, each.other_variant_id) for each in close.comparisons] == [
        ("id-B", "id-A"), ("id-C", "id-A"), ("id-C", "id-B"),
    ]  # fmt: skip
    assert {each.test for each in close.comparisons} == {TestName.CHI2}
    p_values = [each.p_value for each in close.comparisons]
    known = [each for each in p_values if each is not None]
    assert [each.p_adjusted for each in close.comparisons] == s.holm(known)
    table = [[200, 240, 245], [800, 760, 755]]
    assert close.omnibus_p_value == s.chi_square(table).p_value
    clear = at_deadline(variant("A", opens=200), variant("B", opens=210), variant("C", opens=280))
    assert (clear.decision, clear.winner_variant_id) == (Decision.WINNER, "id-C")
    # Only for the test against A p is small, not after Holm: 0.031 becomes 0.093.
    assert at_deadline(variant("A", opens=200), variant("B", opens=240), variant("C", opens=200)).decision is (
        Decision.NO_DIFFERENCE
    )
    lasting = s.sequential_rates(280, 1000, 200, 1000, comparisons=3)
    assert clear.comparisons[1].sequential_low == 100 * lasting.low


def test_before_the_deadline_every_interval_of_the_best_counts() -> None:
    assert before(variant("A", opens=100), variant("B", opens=300), variant("C", opens=290)).decision is (
        Decision.NOT_ENOUGH_DATA
    )
    found = before(variant("A", opens=300), variant("B", opens=100), variant("C", opens=100))
    assert (found.decision, found.winner_variant_id) == (Decision.WINNER, "id-A")


def test_few_successes_of_three_variants() -> None:
    some = [variant("A", 150, 2), variant("B", 150, 1), variant("C", 150, 6)]
    found = at_deadline(*some)
    assert found.omnibus_p_value == s.freeman_halton([2, 1, 6], [150, 150, 150])
    assert {each.test for each in found.comparisons} == {TestName.FISHER}
    assert at_deadline(variant("A", 0), variant("B"), variant("C")).omnibus_p_value is None
    none = at_deadline(variant("A"), variant("B"), variant("C"))
    assert none.omnibus_p_value == 1 and [each.p_adjusted for each in none.comparisons] == [1, 1, 1]


#: Hillstrom's three mails: spend of 64,000 recipients (tests/unit/test_statistics_published.py).
SPEND = (
    variant("None", 21306, conversions=122, revenue="13908.33", squares="2870050.3621"),
    variant("Mens", 21307, conversions=267, revenue="30311.69", squares="6759024.4973"),
    variant("Womens", 21387, conversions=189, revenue="23038.11", squares="4911446.5763"),
)


def test_revenue() -> None:
    found = at_deadline(*SPEND, metric=Metric.REVENUE_PER_RECIPIENT)
    assert (found.decision, found.winner_variant_id) == (Decision.WINNER, "id-Mens")
    assert {each.test for each in found.comparisons} == {TestName.WELCH}
    assert found.omnibus_p_value == pytest.approx(8.201713951512879e-07, rel=1e-9)
    assert [each.p_value for each in found.comparisons] == pytest.approx(
        [1.163814968225482e-07, 0.0011293971023632495, 0.03046865118529923], rel=1e-9
    )
    first = found.comparisons[0]
    assert (first.variant_id, first.difference) == ("id-Mens", pytest.approx(0.7698271558945368, rel=1e-9))
    assert (first.ci_low, first.ci_high) == pytest.approx((0.4851397325684076, 1.0545145792206658), rel=1e-9)
    ours, others = (Moments(n=each.sent, total=each.revenue, squares=each.revenue_squares) for each in SPEND[1::-1])
    lasting = s.sequential_means(ours, others, comparisons=3)
    assert (first.sequential_low, first.sequential_high) == (lasting.low, lasting.high)
    mens = found.variants[1]
    assert mens.revenue_per_recipient == pytest.approx(1.422616511005773)
    ends = s.mean_interval(Moments(n=21307, total=Decimal("30311.69"), squares=Decimal("6759024.4973")))
    assert (mens.ci_low, mens.ci_high) == (ends.low, ends.high)
    # Mens against Womens is 0.03 on the deadline, and in doubt to whoever looks often.
    assert before(*SPEND, metric=Metric.REVENUE_PER_RECIPIENT).decision is Decision.NOT_ENOUGH_DATA


def test_revenue_without_enough_to_compute_it() -> None:
    found = at_deadline(variant("A", 1), variant("B", 1), variant("C", 1), metric=Metric.REVENUE_PER_RECIPIENT)
    assert found.comparisons[0].p_value is None and found.omnibus_p_value is None
    assert (found.variants[0].revenue_per_recipient, found.variants[0].ci_low) == (0, None)
    nobody = at_deadline(variant("A"), variant("B"), variant("C"), metric=Metric.REVENUE_PER_RECIPIENT)
    assert nobody.decision is Decision.NOT_ENOUGH_DATA and nobody.comparisons[0].p_value == 1
    assert nobody.omnibus_p_value is None
    everybody = [variant(name, 100, conversions=100, revenue=each, squares=more)
                 for name, each, more in (("A", "500", "2500"), ("B", "700", "4900"))]  # fmt: skip
    assert at_deadline(*everybody, metric=Metric.REVENUE_PER_RECIPIENT).winner_variant_id == "id-B"


def test_results_from_elsewhere_may_tell_of_more_than_was_sent() -> None:
    found = at_deadline(variant("A", 100, opens=150), variant("B", 100, opens=20))
    assert found.variants[0].open_rate == 100 and found.winner_variant_id == "id-A"
    assert at_deadline(variant("A", 0, opens=5), variant("B", 0, opens=7)).decision is Decision.NOT_ENOUGH_DATA


def test_hold_out() -> None:
    kept = HeldOut(recipients=21306, conversions=122, revenue=Decimal("13908.33"),
                   revenue_squares=Decimal("2870050.3621"))  # fmt: skip
    mailed = SPEND[1:]
    found = at_deadline(*mailed, metric=Metric.CONVERSION_RATE, held_out=kept).holdout
    assert found is not None and found.recipients == 21306
    wanted = s.lift_of_rates(456, 42694, 122, 21306)
    assert wanted.interval is not None
    assert (found.lift, found.lift_low, found.lift_high) == (
        100 * wanted.lift, 100 * wanted.interval.low, 100 * wanted.interval.high,
    )  # fmt: skip
    money = at_deadline(*mailed, metric=Metric.REVENUE_PER_RECIPIENT, held_out=kept).holdout
    assert money is not None and money.lift == pytest.approx(91.4, abs=0.1)  # 1.2496 of 0.6528 a head
    assert money.lift_low is not None and money.lift_high is not None and 0 < money.lift_low < 91.4 < money.lift_high
    nothing = HeldOut(recipients=0, conversions=0, revenue=Decimal(0), revenue_squares=Decimal(0))
    for metric in Metric:
        empty = at_deadline(*mailed, metric=metric, held_out=nothing).holdout
        assert empty is not None and (empty.lift, empty.lift_low, empty.lift_high) == (None, None, None)
        nobody = replace(nothing, recipients=500)
        assert getattr(at_deadline(*mailed, metric=metric, held_out=nobody).holdout, "lift", 0) is None


def test_one_variant_is_no_test() -> None:
    with pytest.raises(ValueError, match="two variants"):
        at_deadline(variant("A"))


@st.composite
def many_variants(draw: st.DrawFn) -> list[Counts]:
    found = []
    for name in "ABCDE"[: draw(st.integers(2, 5))]:
        sent = draw(st.sampled_from([0, 1, 2, 99, 100, 150, 3000]))
        opens = draw(st.integers(0, sent + 3))
        bought = draw(st.integers(0, min(sent, 40)))
        each = draw(st.integers(0, 10_000))
        found.append(
            variant(name, sent, opens, draw(st.integers(0, opens)), bought, str(bought * each), str(bought * each**2),
                    due=draw(st.booleans()))
        )  # fmt: skip
    return found


@settings(deadline=None, derandomize=True, max_examples=150)
@given(many_variants(), st.sampled_from(Metric), st.booleans())
@pytest.mark.thorough
def test_any_counts_give_results_that_hold_together(variants: list[Counts], metric: Metric, late: bool) -> None:
    found = decide(variants, metric, as_of=DEADLINE if late else BEFORE, deadline_at=DEADLINE)
    json.dumps(asdict(found), default=str, allow_nan=False)
    assert len(found.comparisons) == len(variants) * (len(variants) - 1) // 2
    assert (found.winner_variant_id is not None) == (found.decision is Decision.WINNER) and found.reason
    assert found.srm.detected == (found.decision is Decision.SRM_DETECTED)
    for each in found.comparisons:
        if each.difference is not None:
            ends = (each.sequential_low, each.ci_low, each.difference, each.ci_high, each.sequential_high)
            known = [end for end in ends if end is not None]
            assert len(known) == 5 and all(one <= other + 1e-9 for one, other in itertools.pairwise(known))
            assert each.p_value is not None and each.p_adjusted is not None
            assert 0 <= each.p_value <= each.p_adjusted <= 1
    if found.decision is Decision.WINNER:
        values = [getattr(each, metric.value) for each in found.variants]
        best = found.variants[values.index(max(values))]
        assert best.counts.variant_id == found.winner_variant_id and values.count(max(values)) == 1
        # No early winner that would not also win at the deadline.
        assert decide(variants, metric, as_of=DEADLINE, deadline_at=DEADLINE).decision is Decision.WINNER
