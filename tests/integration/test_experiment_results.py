"""What an A/B test brought, counted by hand from a ledger made row by row; the analysts' view equals the results."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text, update

from api.routes.ab_tests import rate, shown_results
from mautolib.campaigns import experiment_control, experiment_results, experiments, totals
from mautolib.campaigns.deciding import Decision, Metric
from mautolib.campaigns.experiment_model import (
    TRANSITIONS,
    AbStatus,
    AbTest,
    AbTestType,
    NewAbTest,
    NewVariant,
    require,
)
from mautolib.campaigns.experiment_results import VariantFigures
from mautolib.db import tables
from mautolib.errors import InvalidTransition
from mautolib.settings import Settings
from tests.builders import NOW, ago, make_campaign, make_contact, make_content, make_hit, make_message, make_order

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LATER = NOW + 30 * DAY


def started(tx: Connection, settings: Settings, *, variants: int = 2, **changes: Any) -> AbTest:
    """A test that was armed and planned a day before NOW, as run 1 of its campaign."""
    new = NewAbTest(
        campaign_id=make_campaign(tx), name="Which", **changes,
        variants=tuple(NewVariant(name=f"V{n}", subject=f"S{n}", send_delay_minutes=n) for n in range(variants)),
    )  # fmt: skip
    made = experiments.create(tx, settings, new, actor="test", now=ago(days=2))
    experiment_control.start(tx, settings, made.test_id, now=ago(days=2))
    return experiments.put(tx, made.test_id, ago(days=1), planned_at=ago(days=1), planned_occurrence=1)


def mail(tx: Connection, test: AbTest, position: int | None, status: str = "sent", **fields: Any) -> tuple[int, int]:
    """A contact of the test slice with a variant (None: of the part in `fields`), and the message."""
    contact = fields.pop("contact", None) or make_contact(tx)
    known = {"ab_part": "test", "variant_id": None if position is None else test.variants[position].variant_id,
             "campaign_id": test.campaign_id, **fields}  # fmt: skip
    return contact, make_message(tx, contact, status=status, **known)


def many(tx: Connection, test: AbTest, position: int, count: int, opens: int) -> None:
    """Mail to `count` people, of whom some open it; in one statement each."""
    values = {"variant": test.variants[position].variant_id, "campaign": test.campaign_id, "now": NOW, "count": count,
              "content": make_content(tx), "opens": opens}  # fmt: skip
    tx.execute(text("""
        with people as (
            insert into contacts (email, email_key)
            select 'v' || :variant || 'p' || n || '@shop.example', 'v' || :variant || 'p' || n || '@shop.example'
            from generate_series(1, :count) as n
            returning contact_id
        ),
        sent as (
            insert into messages (contact_id, kind, campaign_id, variant_id, ab_part, content_id, dedupe_key, status,
                due_at, next_try_at, give_up_at, queued_at, sent_at)
            select contact_id, 'campaign', :campaign, :variant, 'test', :content, 'many:' || contact_id, 'sent',
                :now, :now, :now, :now, :now
            from people
            returning contact_id, message_id
        ),
        opened as (
            insert into hits (occurred_at, kind, contact_id, message_id)
            select :now, 'open', contact_id, message_id from sent limit :opens
            returning hit_id
        )
        insert into hit_verdicts (hit_id, rule_version, verdict) select hit_id, 1, 'human' from opened
    """), values)  # fmt: skip


def figures(tx: Connection, test: AbTest, position: int = 0) -> VariantFigures:
    return experiment_results.figures_of(tx, [test.test_id])[test.variants[position].variant_id]


def picked(found: VariantFigures, names: str) -> list[Any]:
    return [getattr(found, name) for name in names.split()]


def test_the_ledger_of_the_slice_is_counted_as_campaigns_are(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    for status in ("sent", "sent", "delivered", "complained"):
        mail(tx, test, 0, status)
    mail(tx, test, 0, "bounced", bounced_at=NOW)
    mail(tx, test, 0, "bounced", bounced_at=NOW, sent_at=NOW, reason="soft")
    mail(tx, test, 0, "failed", last_stage="rcpt", last_code=552)
    mail(tx, test, 0, "failed", last_stage="build")
    mail(tx, test, 0, "unknown")
    mail(tx, test, 0, "skipped", reason="suppressed")
    mail(tx, test, 0, "queued")
    mail(tx, test, 0, "sending")
    counted = "assigned attempted sent delivered bounced waiting"
    assert picked(figures(tx, test), counted) == [12, 8, 5, 4, 2, 2]
    assert picked(figures(tx, test, 1), counted) == [0] * 6
    query = text("select recipients, attempted, sent, delivered, bounced from analytics.campaign_performance "
                 "where campaign_id = :id")  # fmt: skip
    assert list(tx.execute(query, {"id": test.campaign_id}).one()) == [12, 8, 5, 4, 2]


def test_the_rest_that_got_the_winner_is_not_compared(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    mail(tx, test, 0)
    contact, message = mail(tx, test, 0, ab_part="rest")
    make_hit(tx, contact, message)
    make_order(tx, contact, NOW + HOUR)
    mail(tx, test, 0, kind="test", ab_part=None)
    assert picked(figures(tx, test), "assigned sent unique_opens conversions") == [1, 1, 0, 0]


def test_only_people_open_and_the_newest_verdict_counts(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    (reader, read), (clicker, clicked), (robot, crawled), (late, judged) = (mail(tx, test, 0) for _ in range(4))
    make_hit(tx, reader, read)
    make_hit(tx, reader, read)
    make_hit(tx, clicker, clicked, "click", occurred_at=NOW + 60 * DAY)
    make_hit(tx, robot, crawled, "click", verdict="bot")
    make_hit(tx, robot, crawled, verdict=None)
    make_hit(tx, robot, crawled, "unsubscribe")
    again = make_hit(tx, late, judged)
    assert picked(figures(tx, test), "unique_opens unique_clicks") == [3, 1]
    newer = text("insert into hit_verdicts (hit_id, rule_version, verdict) values (:id, 2, 'prefetch')")
    tx.execute(newer, {"id": again})
    assert picked(figures(tx, test), "unique_opens unique_clicks") == [2, 1]


def test_an_order_counts_within_the_days_after_the_hand_over(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    assert test.conversion_days == settings.attribution_click_days == 5
    for moment in (NOW - timedelta(seconds=1), NOW, NOW + 5 * DAY, NOW + 5 * DAY + timedelta(seconds=1)):
        contact, _ = mail(tx, test, 0)
        make_order(tx, contact, moment, total="10")
    contact, _ = mail(tx, test, 0)
    make_order(tx, contact, NOW + DAY, total="30", refunded_total="10")
    make_order(tx, contact, NOW + 2 * DAY, total="5.5")
    unsent, _ = mail(tx, test, 0, "queued")
    make_order(tx, unsent, NOW + HOUR)
    found = figures(tx, test)
    assert picked(found, "conversions revenue revenue_squares") == [
        3, Decimal("45.5"), 10**2 + 10**2 + Decimal("25.5") ** 2
    ]  # fmt: skip


def test_money_is_of_the_newest_orders_currency_at_the_days_rate(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    first, second, third, fourth = (mail(tx, test, 0)[0] for _ in range(4))
    make_order(tx, first, NOW + HOUR, total="100", currency="GBP", fx_rate=Decimal("1.25"))
    make_order(tx, second, NOW + HOUR, total="70", reporting_currency="EUR")
    make_order(tx, third, NOW + HOUR, total="50", currency="JPY", fx_rate=None, fx_date=None)
    make_order(tx, fourth, NOW + 2 * HOUR, total="1")
    assert picked(figures(tx, test), "conversions revenue revenue_squares") == [4, 126, 125**2 + 1]


def test_the_days_are_those_of_when_it_was_armed(tx: Connection, settings: Settings) -> None:
    from dataclasses import replace

    new = NewAbTest(campaign_id=make_campaign(tx), name="Which",
                    variants=(NewVariant(subject="A"), NewVariant(subject="B")))  # fmt: skip
    made = experiments.create(tx, replace(settings, attribution_click_days=2), new, actor="test", now=NOW)
    assert made.conversion_days == 2
    armed = experiment_control.start(tx, replace(settings, attribution_click_days=30), made.test_id, now=NOW)
    assert armed.conversion_days == 30
    contact, _ = mail(tx, armed, 0)
    make_order(tx, contact, NOW + 29 * DAY)
    assert figures(tx, armed).conversions == 1


def test_the_deadline_waits_for_the_last_hand_over(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings, wait_hours=4)

    def deadline() -> Any:
        return experiment_results.evaluate(tx, test, now=LATER).deadline_at

    assert deadline() == ago(days=1) + 4 * HOUR, "planned, and nobody to mail"
    mail(tx, test, 0)
    mail(tx, test, 1, sent_at=NOW + HOUR)
    _, waiting = mail(tx, test, 1, "queued")
    assert deadline() is None
    messages = tables.messages
    tx.execute(update(messages).where(messages.c.message_id == waiting).values(status="skipped", reason="expired"))
    assert deadline() == NOW + 5 * HOUR
    mail(tx, test, None, "queued", ab_part="rest")
    experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, "sent", now=LATER)
    assert deadline() == NOW + 5 * HOUR


def test_a_test_nobody_planned_has_no_deadline(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    unplanned = experiments.put(tx, test.test_id, NOW, planned_at=None, planned_occurrence=None)
    assert experiment_results.evaluate(tx, unplanned, now=LATER).deadline_at is None
    experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, "sent", now=NOW)
    assert experiment_results.evaluate(tx, unplanned, now=LATER).deadline_at == NOW + 4 * HOUR


def test_the_hour_of_a_variant_that_has_not_come_is_no_mismatch(tx: Connection, settings: Settings) -> None:
    for test_type, detected in ((AbTestType.SEND_TIME, False), (AbTestType.SUBJECT, True)):
        test = started(tx, settings, test_type=test_type)
        many(tx, test, 0, 200, 50)
        mail(tx, test, 1, "queued")
        found = experiment_results.evaluate(tx, test, now=NOW)
        assert found.srm.detected is detected
        assert (found.decision is Decision.SRM_DETECTED) is detected


@pytest.mark.parametrize(
    ("opens", "now", "decision", "winner"),
    [
        ((100, 135), NOW + 3 * HOUR, Decision.NOT_ENOUGH_DATA, None),
        ((100, 135), NOW + 4 * HOUR, Decision.WINNER, 1),
        ((100, 300), NOW, Decision.WINNER, 1),
        ((150, 151), NOW + 4 * HOUR, Decision.NO_DIFFERENCE, None),
        ((3, 4), NOW + 4 * HOUR, Decision.NOT_ENOUGH_DATA, None),
    ],
)
def test_the_figures_decide(
    tx: Connection, settings: Settings, opens: tuple[int, int], now: Any, decision: Decision, winner: int | None
) -> None:
    test = started(tx, settings)
    for position, count in enumerate(opens):
        many(tx, test, position, 1000, count)
    found = experiment_results.evaluate(tx, test, now=now)
    expected = None if winner is None else str(test.variants[winner].variant_id)
    assert (found.decision, found.winner_variant_id) == (decision, expected)
    assert found.control_variant_id == str(test.control.variant_id)


def test_a_completed_test_keeps_its_decision_and_goes_on_counting(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    many(tx, test, 0, 1000, 100)
    many(tx, test, 1, 1000, 150)
    done = experiment_control.select_winner(tx, test.test_id, None, now=NOW + 4 * HOUR)
    assert (done.decision, done.winner_variant_id) == (Decision.WINNER, test.variants[1].variant_id)
    tx.execute(text("insert into hit_verdicts (hit_id, rule_version, verdict) select hit_id, 2, 'bot' from hits"))
    found = experiment_results.results(tx, done, now=NOW + DAY)
    assert (found.decision, found.winner_variant_id) == (Decision.WINNER, str(done.winner_variant_id))
    assert "p = " in found.reason and [each.counts.unique_opens for each in found.variants] == [0, 0]
    assert experiment_results.evaluate(tx, done, now=NOW + DAY).decision is Decision.NOT_ENOUGH_DATA


def test_those_kept_back_buy_too(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings, holdout_percentage=10.0, winner_metric=Metric.REVENUE_PER_RECIPIENT)
    for total in ("12", "8"):
        contact, _ = mail(tx, test, 0)
        make_order(tx, contact, NOW + HOUR, total=total)
    kept = {"ab_part": "holdout", "reason": "holdout"}
    buyers = [mail(tx, test, None, "skipped", **kept)[0] for _ in range(4)]
    make_order(tx, buyers[0], NOW + HOUR, total="3")
    make_order(tx, buyers[0], NOW + DAY, total="2")
    make_order(tx, buyers[1], NOW - HOUR, total="9")
    make_order(tx, buyers[2], NOW + 6 * DAY, total="9")
    # Skipped for another reason, held out of another run, and of another campaign.
    mail(tx, test, None, "skipped", ab_part=None, reason="unsubscribed")
    mail(tx, test, None, "skipped", **kept, occurrence=2)
    mail(tx, test, None, "skipped", **{**kept, "campaign_id": make_campaign(tx)})
    held_out = experiment_results.evaluate(tx, test, now=LATER).holdout
    assert held_out is not None
    assert (held_out.recipients, held_out.conversions, held_out.revenue) == (4, 1, 5)
    assert held_out.lift == pytest.approx(100 * (10 / 1.25 - 1))
    without = started(tx, settings)
    assert experiment_results.evaluate(tx, without, now=LATER).holdout is None


def view(tx: Connection, test: AbTest) -> list[dict[str, Any]]:
    query = text("select * from analytics.ab_test_results where test_id = :id order by variant_id")
    return [dict(row) for row in tx.execute(query, {"id": test.test_id}).mappings()]


def test_the_view_equals_the_results(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings, variants=3)
    for position, opens in enumerate((10, 20, 0)):
        many(tx, test, position, 101 + position, opens) if position < 2 else None
    contact, _ = mail(tx, test, 1)
    make_order(tx, contact, NOW + HOUR, total="10.01")
    for kind in ("sent", "opened", "clicked", "clicked"):
        experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, kind, now=NOW)
    # More openers than mails were told of.
    for _ in range(3):
        experiment_control.observe(tx, test.test_id, test.variants[2].variant_id, "opened", now=NOW)
    done = experiment_control.select_winner(tx, test.test_id, test.variants[1].variant_id, now=LATER)
    answer = shown_results(done, experiment_results.results(tx, done, now=LATER)).model_dump()
    rows = view(tx, done)
    assert [row["variant_id"] for row in rows] == [each.variant_id for each in done.variants]
    assert [row["is_control"] for row in rows] == [True, False, False]
    assert [row["is_winner"] for row in rows] == [False, True, False]
    for row, shown in zip(rows, answer["variants"], strict=True):
        for name in ("assigned", "attempted", "sent", "delivered", "unique_opens", "unique_clicks", "conversions",
                     "revenue"):  # fmt: skip
            assert row[name] == shown[name], name
        for name in ("open_rate", "click_rate", "conversion_rate", "revenue_per_recipient"):
            if shown[name] is None:
                assert row[name] is None
            else:
                assert float(row[name]) == pytest.approx(float(shown[name]), abs=0.00501), name
        assert (row["variant_name"], row["decision"]) == (shown["name"], answer["decision"])
        assert (row["campaign_id"], row["reporting_currency"]) == (done.campaign_id, "USD")
    assert [row["unique_opens"] for row in rows] == [12, 20, 3] and rows[2]["open_rate"] is None


def test_a_list_shows_the_last_count_and_what_was_seen_elsewhere(tx: Connection, settings: Settings) -> None:
    test, other = started(tx, settings), started(tx, settings)
    names = "sent bounced unique_opens unique_clicks conversions revenue"
    contact, message = mail(tx, test, 0)
    make_hit(tx, contact, message, "click")
    make_order(tx, contact, NOW + HOUR, total="10.01")
    mail(tx, test, 0, "bounced")
    for kind in ("sent", "clicked", "bounced"):
        experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, kind, now=NOW)

    def listed() -> list[list[Any]]:
        found = experiment_results.last_counted(tx, [test.test_id, other.test_id])
        return [picked(found[each.variant_id], names) for each in (*test.variants, *other.variants)]

    none = [0] * 6
    assert listed() == [[1, 1, 1, 1, 0, 0], none, none, none]
    experiment_results.recount(tx, NOW)
    assert listed() == [[1, 1, 1, 1, 0, 0], none, none, none], "the campaign itself was not counted yet"
    totals.refresh_many(tx, [test.campaign_id, other.campaign_id], NOW)
    experiment_results.recount(tx, NOW)
    assert listed() == [picked(figures(tx, test), names), none, none, none]
    assert listed()[0] == [2, 2, 2, 2, 1, Decimal("10.01")]
    tx.execute(text("insert into hit_verdicts (hit_id, rule_version, verdict) select hit_id, 2, 'bot' from hits"))
    experiment_results.recount(tx, NOW + HOUR)
    assert listed()[0][2] == 2, "the same age as the campaign's figures"
    # Whoever recounts a campaign (feedback does with every notice): its test follows, whatever its age.
    totals.refresh_many(tx, [test.campaign_id], NOW + HOUR)
    experiment_results.recount(tx, NOW + HOUR)
    assert listed()[0][2] == 1
    assert experiment_results.last_counted(tx, []) == {}


def test_a_view_row_survives_figures_no_shop_has(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    contact, _ = mail(tx, test, 0)
    for _ in range(2):
        make_order(tx, contact, NOW + HOUR, total="999999999999999", fx_rate=9999999999)
    for _ in range(2):
        experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, "clicked", now=NOW)
    assert (view(tx, test)[0]["revenue"], view(tx, test)[0]["click_rate"]) == (Decimal("99999999999999.0000"), 100)


def test_only_bounces_seen_elsewhere_are_attempts(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    for kind in ("bounced", "bounced", "sent"):
        experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, kind, now=NOW)
    assert picked(figures(tx, test), "assigned attempted sent delivered bounced") == [2, 2, 1, 0, 2]


def test_erased_people_stay_counted(tx: Connection, settings: Settings) -> None:
    test = started(tx, settings)
    contact, message = mail(tx, test, 0)
    make_hit(tx, contact, message)
    make_order(tx, contact, NOW + HOUR)
    experiment_control.observe(tx, test.test_id, test.variants[0].variant_id, "sent", contact_id=contact, now=NOW)
    before = figures(tx, test)
    tx.execute(text("delete from contacts where contact_id = :id"), {"id": contact})
    assert figures(tx, test) == before and before.sent == 2


def test_the_figures_of_one_test_are_not_those_of_another(tx: Connection, settings: Settings) -> None:
    tests = [started(tx, settings) for _ in range(2)]
    for test, count in zip(tests, (1, 3), strict=True):
        for _ in range(count):
            mail(tx, test, 1)
    found = experiment_results.figures_of(tx, [test.test_id for test in tests])
    assert [found[test.variants[1].variant_id].sent for test in tests] == [1, 3] and len(found) == 4
    assert experiment_results.figures_of(tx, []) == {}


def test_every_step_is_in_the_diagram_or_refused() -> None:
    steps: Sequence[tuple[AbStatus, AbStatus]] = list(itertools.product(AbStatus, repeat=2))
    allowed = {(one, other) for one, others in TRANSITIONS.items() for other in others}
    assert {f"{one}>{other}" for one, other in allowed} == {
        "draft>running", "draft>completed", "draft>cancelled", "running>completed", "running>cancelled"
    }  # fmt: skip
    for one, other in steps:
        if (one, other) in allowed:
            require(one, other, "do this")
        else:
            with pytest.raises(InvalidTransition, match=f"Cannot do this in '{one.value}' status"):
                require(one, other, "do this")


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 0, None), (1, 3, 33.33), (2, 3, 66.67), (1, 800, 0.13), (5, 3, 100.0), (0, 9, 0.0)],
)
def test_rates_have_two_decimals_half_up(part: int, whole: int, expected: float | None) -> None:
    assert rate(part, whole) == expected
