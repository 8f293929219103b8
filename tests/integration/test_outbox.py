"""Facts for webhooks: the vocabulary, and that each is one row in the caller's transaction."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine, select, text

from mautolib import outbox
from mautolib.db import tables

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_fact_is_one_row_with_its_name_time_and_data(tx: Connection) -> None:
    outbox.record(tx, outbox.FactName.CONTACT_CREATED, {"contact_id": "7", "name": "Zoë"}, occurred_at=NOON)
    row = tx.execute(select(tables.outbox)).one()
    assert (row.event_name, row.occurred_at, row.data) == (
        "contact.created", NOON, {"contact_id": "7", "name": "Zoë"})
    assert row.expanded_at is None


def test_many_facts_keep_their_order(tx: Connection) -> None:
    facts = [
        outbox.Fact(name=outbox.FactName.EMAIL_CLICKED, data={"n": number}, occurred_at=NOON) for number in range(2500)
    ]
    assert outbox.record_many(tx, facts) == 2500
    numbers = tx.scalars(text("select cast(data ->> 'n' as int) from outbox order by outbox_id")).all()
    assert numbers == list(range(2500))
    assert outbox.record_many(tx, []) == 0


def test_an_unknown_name_is_refused_before_the_database(tx: Connection) -> None:
    with pytest.raises(ValueError, match=r"contact\.exploded"):
        outbox.record(tx, "contact.exploded", {}, occurred_at=NOON)
    assert tx.scalar(text("select count(*) from outbox")) == 0


def test_the_vocabulary_and_the_database_agree(tx: Connection) -> None:
    definition = tx.scalar(
        text("select pg_get_constraintdef(oid) from pg_constraint where conname = 'webhook_event_is_known'")
    )
    names = set(re.findall(r"'([a-z_]+\.[a-z_]+)'", definition))
    assert names == {str(name) for name in outbox.FactName}
    assert len(names) == 19


def test_a_rolled_back_fact_never_existed(engine: Engine) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        outbox.record(connection, "campaign.sent", {"campaign_id": "1"}, occurred_at=NOON)
        transaction.rollback()
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from outbox")) == 0
