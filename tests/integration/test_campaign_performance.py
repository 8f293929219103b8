"""What a campaign brought, counted by hand; the views show no personal data; stats equal the views."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError

from mautolib.analytics import readers
from mautolib.db import tables
from mautolib.errors import NotFound
from mautolib.scoring import recalculate_within
from tests.builders import (
    NOW,
    ago,
    make_campaign,
    make_contact,
    make_content,
    make_event,
    make_hit,
    make_message,
    make_order,
    make_suppression,
    make_tag,
)


def send(tx: Connection, campaign: int, status: str = "sent", **fields: Any) -> tuple[int, int]:
    """A contact and its message of a campaign."""
    contact = make_contact(tx)
    content = fields.pop("content_id", None) or make_content(tx)
    return contact, make_message(tx, contact, campaign_id=campaign, status=status, content_id=content, **fields)


def performance(tx: Connection, campaign: int) -> dict[str, Any]:
    return readers.campaign_performance(tx, campaign)


def picked(row: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: row[name] for name in names.split()}


def test_every_message_is_counted_once(tx: Connection) -> None:
    campaign = make_campaign(tx, name="Spring", status="sent")
    for status in ("sent", "sent", "delivered", "complained"):
        send(tx, campaign, status, **({"complained_at": NOW} if status == "complained" else {}))
    send(tx, campaign, "bounced", bounced_at=NOW)
    send(tx, campaign, "bounced", bounced_at=NOW, sent_at=NOW, reason="soft")
    send(tx, campaign, "failed", last_stage="rcpt", last_code=552)
    send(tx, campaign, "failed", last_stage="build")
    send(tx, campaign, "failed", last_stage="rcpt", last_code=450)
    send(tx, campaign, "unknown")
    send(tx, campaign, "skipped", reason="suppressed")
    send(tx, campaign, "queued")
    send(tx, campaign, "sent", kind="test")
    row = performance(tx, campaign)
    assert picked(row, "recipients skipped attempted sent delivered bounced hard_bounced soft_bounced failed unknown "
                       "complained") == {
        "recipients": 12, "skipped": 1, "attempted": 8, "sent": 5, "delivered": 4, "bounced": 2, "hard_bounced": 1,
        "soft_bounced": 1, "failed": 3, "unknown": 1, "complained": 1,
    }  # fmt: skip
    assert picked(row, "delivery_rate bounce_rate complaint_rate open_rate click_rate unsubscribe_rate ctor") == {
        "delivery_rate": Decimal("50.0000"), "bounce_rate": Decimal("25.0000"), "complaint_rate": Decimal("25.0000"),
        "open_rate": Decimal("0.0000"), "click_rate": Decimal("0.0000"), "unsubscribe_rate": Decimal("0.0000"),
        "ctor": None,
    }  # fmt: skip


def test_only_human_hits_count_and_a_click_implies_an_open(tx: Connection) -> None:
    campaign, content = make_campaign(tx, status="sent"), make_content(tx)
    (reader, read), (clicker, clicked), (robot, crawled) = (send(tx, campaign, content_id=content) for _ in range(3))
    send(tx, campaign, content_id=content)
    make_hit(tx, reader, read, "open")
    make_hit(tx, reader, read, "open")
    make_hit(tx, clicker, clicked, "click")
    make_hit(tx, clicker, clicked, "click")
    make_hit(tx, robot, crawled, "open", verdict="prefetch")
    make_hit(tx, robot, crawled, "click", verdict="bot")
    make_hit(tx, robot, crawled, "click", verdict=None)
    make_hit(tx, robot, crawled, "unsubscribe")
    tester, test = send(tx, campaign, kind="test", content_id=content)
    make_hit(tx, tester, test, "click", campaign_id=campaign)
    row = performance(tx, campaign)
    assert picked(row, "raw_opens human_opens unique_opens raw_clicks human_clicks unique_clicks") == {
        "raw_opens": 3, "human_opens": 2, "unique_opens": 2, "raw_clicks": 4, "human_clicks": 2, "unique_clicks": 1,
    }  # fmt: skip
    assert picked(row, "open_rate click_rate ctor") == {
        "open_rate": Decimal("50.0000"), "click_rate": Decimal("25.0000"), "ctor": Decimal("50.0000"),
    }  # fmt: skip


def test_the_newest_verdict_decides(tx: Connection) -> None:
    campaign = make_campaign(tx, status="sent")
    contact, message = send(tx, campaign)
    hit = make_hit(tx, contact, message, "open")
    later = {"hit_id": hit, "rule_version": 2, "verdict": "bot", "decided_at": NOW}
    tx.execute(insert(tables.hit_verdicts).values(later))
    assert picked(performance(tx, campaign), "raw_opens human_opens unique_opens") == {
        "raw_opens": 1, "human_opens": 0, "unique_opens": 0}  # fmt: skip


def test_opt_outs_are_those_of_the_campaigns_mails(tx: Connection) -> None:
    campaign, other = make_campaign(tx, status="sent"), make_campaign(tx, status="sent")
    contact, message = send(tx, campaign)
    make_event(tx, contact, "unsubscribed", source="mauto", campaign_id=campaign, message_id=message)
    make_event(tx, contact, "unsubscribed", source="observation", campaign_id=other)
    make_event(tx, contact, "unsubscribed", source="mauto")
    assert [performance(tx, which)["unsubscribed"] for which in (campaign, other)] == [1, 0]
    assert performance(tx, campaign)["unsubscribe_rate"] == Decimal("100.0000")


def test_an_order_belongs_to_the_last_click_else_to_the_last_open(tx: Connection) -> None:
    first, second = make_campaign(tx, status="sent"), make_campaign(tx, status="sent")
    contact = make_contact(tx)
    old, new = (make_message(tx, contact, campaign_id=campaign) for campaign in (first, second))
    make_hit(tx, contact, old, "click", occurred_at=ago(days=5))
    make_hit(tx, contact, old, "click", occurred_at=ago(days=4), verdict="bot")
    make_hit(tx, contact, new, "open", occurred_at=ago(hours=20))
    make_order(tx, contact, NOW, total="80", refunded_total="30")
    assert [performance(tx, which)["orders"] for which in (first, second)] == [1, 0]
    assert performance(tx, first)["revenue"] == Decimal("50.0000")
    # Ten minutes later the click is too old, and the open of the last day counts.
    make_order(tx, contact, NOW + timedelta(minutes=10), total="10", currency="EUR", fx_rate="1.25")
    assert [performance(tx, which)["orders"] for which in (first, second)] == [1, 1]
    assert performance(tx, second)["revenue"] == Decimal("12.5000")
    # And a day later nothing does; an order before every touch neither.
    make_order(tx, contact, NOW + timedelta(days=1), total="999")
    make_order(tx, contact, ago(days=6), total="999")
    rows = [performance(tx, which) for which in (first, second)]
    assert [(row["orders"], row["revenue"], row["reporting_currency"]) for row in rows] == [
        (1, Decimal("50.0000"), "USD"), (1, Decimal("12.5000"), "USD")]  # fmt: skip
    assert rows[0]["revenue_per_recipient"] == Decimal("50.0000")


def test_an_order_after_a_workflows_mail_is_no_campaigns(tx: Connection) -> None:
    campaign, contact = make_campaign(tx, status="sent"), make_contact(tx)
    mail = make_message(tx, contact, campaign_id=campaign)
    welcome = make_message(tx, contact, kind="workflow", workflow_id=7)
    make_hit(tx, contact, mail, "click", occurred_at=ago(days=2))
    make_hit(tx, contact, welcome, "click", occurred_at=ago(days=1))
    make_order(tx, contact, NOW)
    assert performance(tx, campaign)["orders"] == 0


def test_an_order_that_waits_for_its_rate_has_no_revenue_yet(tx: Connection) -> None:
    campaign, contact = make_campaign(tx, status="sent"), make_contact(tx)
    make_hit(tx, contact, make_message(tx, contact, campaign_id=campaign), "click", occurred_at=ago(days=1))
    make_order(tx, contact, NOW, currency="JPY", fx_rate=None, fx_date=None)
    assert picked(performance(tx, campaign), "orders revenue") == {"orders": 1, "revenue": Decimal("0.0000")}


def test_a_campaign_without_mails_has_zeros_and_no_rates(tx: Connection) -> None:
    row = performance(tx, make_campaign(tx, name="Draft"))
    rates = [name for name in row if name.endswith("_rate") or name in ("ctor", "revenue_per_recipient")]
    assert {row[name] for name in rates} == {None}
    assert (row["campaign_name"], row["status"], row["sent_at"], row["recipients"], row["orders"]) == (
        "Draft", "draft", None, 0, 0)  # fmt: skip
    with pytest.raises(NotFound, match="Campaign not found"):
        performance(tx, 999999999)


def test_mails_of_unknown_fate_that_are_opened_do_not_break_the_view(tx: Connection) -> None:
    campaign = make_campaign(tx, status="sent")
    send(tx, campaign)
    for _ in range(11):
        contact, message = send(tx, campaign, "unknown")
        make_hit(tx, contact, message, "open")
    assert performance(tx, campaign)["open_rate"] == Decimal("999.9999")


def test_the_columns_are_those_promised(tx: Connection) -> None:
    described = tx.execute(text(
        "select attname, format_type(atttypid, atttypmod) as kind from pg_attribute "
        "where attrelid = 'analytics.campaign_performance'::regclass and attnum > 0 order by attnum"
    )).all()  # fmt: skip
    rates = ["delivery_rate", "open_rate", "click_rate", "ctor", "bounce_rate", "unsubscribe_rate", "complaint_rate"]
    special = {
        "campaign_name": "text", "status": "text", "sent_at": "timestamp with time zone", "revenue": "numeric(18,4)",
        "revenue_per_recipient": "numeric(18,4)", "reporting_currency": "character(3)",
        **dict.fromkeys(rates, "numeric(7,4)"),
    }  # fmt: skip
    names = [
        "campaign_id", "campaign_name", "status", "sent_at", "recipients", "skipped", "attempted", "sent", "delivered",
        "bounced", "hard_bounced", "soft_bounced", "failed", "unknown", "complained", "unsubscribed", "raw_opens",
        "human_opens", "unique_opens", "raw_clicks", "human_clicks", "unique_clicks", *rates, "orders", "revenue",
        "revenue_per_recipient", "reporting_currency",
    ]  # fmt: skip
    assert [tuple(row) for row in described] == [(name, special.get(name, "bigint")) for name in names]


def test_the_front_page_shows_the_sums_of_the_views(tx: Connection) -> None:
    first, second = make_campaign(tx, status="sent"), make_campaign(tx, status="sent", sent_at=ago(days=1))
    make_campaign(tx)
    for campaign, mails, opened in ((first, 4, 1), (second, 2, 2)):
        for number in range(mails):
            contact, message = send(tx, campaign)
            if number < opened:
                make_hit(tx, contact, message, "open" if number else "click")
    make_contact(tx, subscribed=False)
    tx.execute(insert(tables.workflows).values([{"name": "a", "active": True}, {"name": "b", "active": False}]))
    assert readers.dashboard_stats(tx) == {
        "total_contacts": 7, "subscribed_contacts": 6, "unsubscribed_contacts": 1, "total_campaigns": 3,
        "campaigns_sent": 2, "campaigns_draft": 1, "total_emails_sent": 6, "avg_open_rate": 50.0,
        "avg_click_rate": 33.33, "total_workflows": 2, "active_workflows": 1,
    }  # fmt: skip
    recent = readers.recent_campaigns(tx, limit=1)
    assert [(row["campaign_id"], row["sent"], row["unique_opens"]) for row in recent] == [(first, 4, 1)]


def test_the_front_page_of_an_empty_house(tx: Connection) -> None:
    assert set(readers.dashboard_stats(tx).values()) == {0}
    assert readers.recent_campaigns(tx) == []
    assert [entry["contacts"] for entry in readers.grade_distribution(tx)] == [0] * 7


def test_dim_contacts_describes_without_naming(tx: Connection) -> None:
    contact = make_contact(
        tx, email="ada@shop.example", first_name="Ada", country="GB", created_at=ago(days=40), custom_fields={"a": 1}
    )
    make_suppression(tx, "ada@shop.example")
    make_tag(tx, "vip", [contact])
    make_tag(tx, "beta", [contact])
    make_order(tx, contact, ago(days=3))
    make_order(tx, contact, ago(days=30))
    recalculate_within(tx, as_of=NOW)
    row = tx.execute(text("select * from analytics.dim_contacts")).mappings().one()
    assert picked(dict(row), "country tags is_subscribed is_suppressed lifecycle_stage grade first_order_at") == {
        "country": "GB", "tags": ["beta", "vip"], "is_subscribed": True, "is_suppressed": True,
        "lifecycle_stage": "churned", "grade": "F", "first_order_at": ago(days=30),
    }  # fmt: skip
    assert (str(row["signup_month"]), str(row["first_order_month"])) == ("2026-01-01", "2026-01-01")
    assert readers.grade_distribution(tx)[-1] == {"grade": "F", "contacts": 1}


def test_facts_have_the_rows_of_their_tables(tx: Connection) -> None:
    contact, campaign = make_contact(tx), make_campaign(tx)
    message = make_message(tx, contact, campaign_id=campaign, to_email="x@shop.example", to_key="x@shop.example")
    event = make_event(tx, contact, "form_submitted", properties={"email": "x@shop.example"})
    amounts = {"total": "10", "refunded_total": "2.5", "currency": "EUR", "fx_rate": "1.2"}
    order = make_order(tx, contact, NOW, lines=[{}, {}], **amounts)
    facts = {name: tx.execute(text(f"select * from analytics.{name}")).mappings().one()
             for name in ("fct_messages", "fct_events", "fct_orders", "dim_campaigns")}  # fmt: skip
    assert facts["fct_messages"]["message_id"] == message and facts["fct_events"]["event_id"] == event
    assert picked(dict(facts["fct_orders"]), "order_id order_net net_revenue line_count") == {
        "order_id": order, "order_net": Decimal("7.5000"), "net_revenue": Decimal("9.0000"), "line_count": 2,
    }  # fmt: skip
    assert facts["dim_campaigns"]["campaign_id"] == campaign
    assert "x@shop.example" not in repr(facts), "no personal data in a view for analysts"


def test_an_analyst_reads_the_views_and_nothing_else(tx: Connection) -> None:
    make_campaign(tx)
    tx.execute(text("set local role mauto_analyst"))
    views = ["campaign_performance", "contact_cohorts", "dim_contacts", "dim_campaigns", "fct_messages", "fct_events",
             "fct_orders"]  # fmt: skip
    assert [tx.scalar(text(f"select count(*) from analytics.{view}")) for view in views] == [1, 0, 0, 1, 0, 0, 0]
    with pytest.raises(DBAPIError, match="permission denied"), tx.begin_nested():
        tx.execute(text("select count(*) from public.contacts"))
