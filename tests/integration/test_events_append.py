"""Appending events: each fact once, whoever tells it how often; history silently and in bulk."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from mautolib.events.append import NewEvent, Outcome, append, append_many
from mautolib.events.types import SERVICE_ONLY

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _view(external_id: str | None = None, *, contact_id: int = 5, **more: object) -> NewEvent:
    return NewEvent(event_type="page_viewed", occurred_at=NOW, contact_id=contact_id, source="shop",
                    external_id=external_id, **more)  # type: ignore[arg-type]  # fmt: skip


def _count(tx: Connection, table: str) -> int:
    return tx.scalar(text(f"select count(*) from {table}")) or 0


def test_a_repetition_names_the_first_event_and_stores_nothing(tx: Connection) -> None:
    first = append(tx, [_view("a"), _view("b")], now=NOW)
    again = append(tx, [_view("b"), _view("c"), _view("a", properties={"url": "changed"})], now=NOW)
    assert [entry.outcome for entry in first.entries] == [Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert [entry.outcome for entry in again.entries] == [Outcome.DUPLICATE, Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert again.entries[0].event_id == first.entries[1].event_id
    assert again.entries[2].event_id == first.entries[0].event_id
    assert (_count(tx, "events"), _count(tx, "event_keys")) == (3, 3)
    assert tx.scalar(text("select sum(event_count) from event_pending")) == 3


def test_a_repetition_within_one_call_is_found_too(tx: Connection) -> None:
    result = append(tx, [_view("a"), _view(None), _view("a"), _view(None)], now=NOW)
    outcomes = [entry.outcome for entry in result.entries]
    assert outcomes == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.ACCEPTED]
    assert result.entries[2].event_id == result.entries[0].event_id
    assert result.accepted == 3


def test_the_same_number_from_another_source_is_another_fact(tx: Connection) -> None:
    other = NewEvent(event_type="page_viewed", occurred_at=NOW, source="blog", external_id="a")
    assert append(tx, [_view("a"), other], now=NOW).accepted == 2


def test_other_content_under_a_known_key_is_a_conflict(tx: Connection) -> None:
    append(tx, [_view("order:1", content_hash=b"x")], now=NOW)
    result = append(tx, [_view("order:1", content_hash=b"y"), _view("order:1", content_hash=b"x")], now=NOW)
    assert [entry.outcome for entry in result.entries] == [Outcome.CONFLICT, Outcome.DUPLICATE]


def test_events_keep_what_they_were_given(tx: Connection) -> None:
    event = NewEvent(event_type="email_clicked", occurred_at=NOW - timedelta(days=3), contact_id=130,
                     properties={"url": "https://x.example/ü", "n": 1}, campaign_id=7, message_id=8)  # fmt: skip
    event_id = append(tx, [event], now=NOW).entries[0].event_id
    row = tx.execute(text("select * from events where event_id = :id"), {"id": event_id}).one()
    assert (row.event_type, row.occurred_at, row.received_at, row.contact_id, row.source) == (
        "email_clicked", NOW - timedelta(days=3), NOW, 130, "mauto")  # fmt: skip
    assert row.properties == {"url": "https://x.example/ü", "n": 1}
    assert (row.campaign_id, row.message_id, row.external_id, row.order_key) == (7, 8, None, None)
    pending = tx.execute(text("select bucket, event_ids from event_pending")).one()
    assert tuple(pending) == (130 % 64, [event_id])


def test_history_takes_no_effect(tx: Connection) -> None:
    append(tx, [_view("a")], now=NOW, effects=False)
    assert (_count(tx, "events"), _count(tx, "event_pending")) == (1, 0)


def test_nothing_given_is_nothing_done(tx: Connection) -> None:
    assert append(tx, [], now=NOW).entries == ()
    assert append_many(tx, [], now=NOW).given == 0


def test_bulk_history_makes_its_months_and_repeats_nothing(tx: Connection) -> None:
    events = [
        NewEvent(event_type="page_viewed", occurred_at=NOW - timedelta(days=20 * n), contact_id=n + 1, source="shop",
                 external_id=str(n % 30), properties={"url": "a\tb\\c\nd"}, received_at=NOW - timedelta(days=n))
        for n in range(40)
    ]  # fmt: skip
    append(tx, [_view("3")], now=NOW)
    result = append_many(tx, events, now=NOW)
    assert (result.given, result.accepted) == (40, 29)
    assert append_many(tx, events, now=NOW).accepted == 0
    assert _count(tx, "staging.event_rows") == 0
    assert _count(tx, "event_pending") == 1
    in_default = tx.scalar(text("select count(*) from events_default where occurred_at < now() - interval '40 days'"))
    assert in_default == 0
    row = tx.execute(text("select * from events where external_id = '7'")).one()
    assert (row.contact_id, row.properties, row.received_at) == (8, {"url": "a\tb\\c\nd"}, NOW - timedelta(days=7))


def test_two_writers_of_the_same_keys_store_them_once(fresh_engine: Engine) -> None:
    with fresh_engine.connect() as one, fresh_engine.connect() as two:
        first, second = one.begin(), two.begin()
        stored = append(one, [_view("a")], now=NOW)
        two.execute(text("set local lock_timeout = '5s'"))
        # The second writer waits for the first one's key; let it go from another thread.
        from threading import Thread

        results: list[object] = []
        waiting = Thread(target=lambda: results.append(append(two, [_view("b"), _view("a")], now=NOW)))
        waiting.start()
        with fresh_engine.connect() as watcher:
            blocked = text("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
            while not watcher.execution_options(isolation_level="AUTOCOMMIT").scalar(blocked):
                pass
        first.commit()
        waiting.join(10)
        second.commit()
    entries = results[0].entries  # type: ignore[attr-defined]
    assert [entry.outcome for entry in entries] == [Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert entries[1].event_id == stored.entries[0].event_id
    with fresh_engine.connect() as reader:
        assert _count(reader, "events") == 2


def test_the_database_knows_the_types_only_the_service_writes(tx: Connection) -> None:
    definition = tx.scalar(text(
        "select pg_get_constraintdef(oid) from pg_constraint "
        "where conname = 'callers_only_observe_what_the_service_writes' and conrelid = 'events'::regclass"
    ))  # fmt: skip
    assert set(re.findall(r"'([a-z_]+)'", definition or "")) - {"mauto", "observation"} == set(SERVICE_ONLY)


def test_a_shop_cannot_write_what_only_the_service_writes(tx: Connection) -> None:
    forged = NewEvent(event_type="email_opened", occurred_at=NOW, source="shop")
    with pytest.raises(IntegrityError, match="callers_only_observe"):
        append(tx, [forged], now=NOW)
