"""The worked examples of docs/scoring.md, with the default rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text, update

from mautolib import scoring
from mautolib.db import tables
from mautolib.scoring import recalculate_within
from tests.builders import NOW, ago, make_contact, make_event, make_order

DAY = timedelta(days=1)


@pytest.fixture
def rules(tx: Connection) -> None:
    scoring.install_default_rules(tx, ago(days=400))


def score(tx: Connection, contact_id: int, as_of: Any = NOW) -> Any:
    recalculate_within(tx, as_of=as_of)
    query = "select * from contact_scores join contact_stages using (contact_id) where contact_id = :id"
    return tx.execute(text(query), {"id": contact_id}).one()


def test_ana_reads_and_asks(tx: Connection, rules: None) -> None:
    ana = make_contact(tx, first_name="Ana", country="PT")
    for days in (0, 30, 60):
        make_event(tx, ana, "email_opened", ago(days=days))
    make_event(tx, ana, "email_clicked", ago(days=45))
    make_event(tx, ana, "form_submitted", ago(days=60), properties={"form": "contact"})
    row = score(tx, ana)
    assert (row.engagement_score, row.profile_score, row.recency_score) == (9.25, 11, 20)
    assert (row.total_score, row.grade, row.lifecycle_stage) == (40.25, "D", "mql")
    row = score(tx, ana, NOW + 10 * DAY)
    assert (row.total_score, row.grade, row.lifecycle_stage) == (33.8, "D", "lead")


def test_ben_is_floored_once(tx: Connection, rules: None) -> None:
    ben = make_contact(tx)
    for days in (240, 240, 240, 240, 240):
        make_event(tx, ben, "form_submitted", ago(days=days), properties={"form": "contact"})
    make_event(tx, ben, "unsubscribed", ago(days=100))
    assert score(tx, ben).engagement_score == 0, "3.125 - 50"
    tx.execute(insert(tables.score_awards).values(
        contact_id=ben, event_type="manual", points=60, occurred_at=NOW + DAY, created_at=NOW + DAY))
    row = score(tx, ben, NOW + DAY)
    assert row.engagement_score == pytest.approx(3.125 * 0.5 ** (1 / 60) - 50 + 60)


def test_minus_50_and_a_full_profile_are_no_lead(tx: Connection, rules: None) -> None:
    cy = make_contact(tx, created_at=ago(days=1), first_name="Cy", last_name="Roe", phone="+49301", country="DE")
    make_event(tx, cy, "unsubscribed", ago(hours=1))
    row = score(tx, cy)
    assert (row.total_score, row.grade, row.lifecycle_stage) == (17, "F", "subscriber")


def test_dora_buys_and_goes_on_buying(tx: Connection, rules: None) -> None:
    dora = make_contact(tx, created_at=ago(days=3))
    make_event(tx, dora, "order_placed", ago(days=1))
    make_order(tx, dora, ago(days=1))
    row = score(tx, dora)
    assert (row.total_score, row.grade, row.lifecycle_stage) == (53.29, "C", "customer")
    for hours in (1, 2):
        make_event(tx, dora, "order_placed", NOW + DAY - timedelta(hours=hours))
        make_order(tx, dora, NOW + DAY - timedelta(hours=hours))
    row = score(tx, dora, NOW + DAY)
    assert (row.grade, row.lifecycle_stage) == ("A+", "evangelist")
    row = score(tx, dora, NOW + 300 * DAY)
    assert (row.grade, row.lifecycle_stage) == ("D", "evangelist"), "the score fades, the stage stays"


def test_eve_goes_quiet_comes_back_and_leaves(tx: Connection, rules: None) -> None:
    eve = make_contact(tx, created_at=ago(days=100))
    make_event(tx, eve, "form_submitted", ago(days=1), properties={"form": "contact"})
    assert score(tx, eve).lifecycle_stage == "lead"
    stages = [score(tx, eve, NOW + days * DAY).lifecycle_stage for days in (20, 30, 58, 60)]
    assert stages == ["lead", "subscriber", "subscriber", "dormant"]
    make_event(tx, eve, "form_submitted", NOW + 70 * DAY - timedelta(hours=1), properties={"form": "contact"})
    assert score(tx, eve, NOW + 70 * DAY).lifecycle_stage == "lead"
    tx.execute(update(tables.contacts).where(tables.contacts.c.contact_id == eve).values(
        subscribed=False, updated_at=NOW + 71 * DAY))
    assert score(tx, eve, NOW + 72 * DAY).lifecycle_stage == "churned"
    make_event(tx, eve, "form_submitted", NOW + 73 * DAY, properties={"form": "contact"})
    assert score(tx, eve, NOW + 74 * DAY).lifecycle_stage == "churned", "only new consent leads back"
