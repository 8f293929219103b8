"""Dispatch: every event takes effect exactly once, through kills, failures and parallel workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.event import listens_for

from mautolib import dispatch, maintenance, workflows
from mautolib.db.engine import connect
from mautolib.dispatch import effects
from mautolib.events.append import NewEvent, append, append_many
from mautolib.settings import Settings
from mautolib.workflows import NewWorkflow
from tests.builders import make_contact

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WAITING = "select (select coalesce(sum(event_count), 0) from event_pending)"
WORKER = """
import sys
from datetime import datetime
from mautolib import dispatch
from mautolib.db.engine import connect
from mautolib.settings import Settings
print("ready", flush=True)
dispatch.run(connect(sys.argv[1]), Settings(), now=datetime.fromisoformat(sys.argv[2]), batch_size=20)
"""


def rows(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def add_people(engine: Engine, count: int) -> list[int]:
    with engine.begin() as tx:
        made = tx.scalars(
            text("insert into contacts (email, email_key) select n || '@shop.example', n || '@shop.example'"
                 " from generate_series(1, :count) as numbers (n) returning contact_id"), {"count": count},
        )  # fmt: skip
        return list(made)


def add_workflow(tx: Connection, event_type: str, **fields: Any) -> int:
    usual = {"trigger_config": {"event_type": event_type}, "re_entry": {"policy": "always"}, "active": True}
    new = NewWorkflow(name=event_type, trigger_type="event", **{**usual, **fields})
    return workflows.create(tx, new, actor="test", now=NOON).workflow_id


def report(
    engine: Engine, people: Sequence[int], event_type: str, *, times: int = 1, spacing: timedelta = timedelta(seconds=1)
) -> None:
    """Tell events of people; with no `spacing` all at one moment: a row of the queue holds those of a bucket."""
    with engine.begin() as tx:
        events = [
            NewEvent(event_type=event_type, contact_id=person, occurred_at=NOON - number * spacing,
                     source="shop", properties={"n": number})
            for person in people for number in range(times)
        ]  # fmt: skip
        append_many(tx, events, now=NOON, effects=True)


def test_an_event_takes_effect_and_leaves_the_queue(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 3)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "order_placed")
    report(fresh_engine, people, "order_placed", times=2)
    report(fresh_engine, people, "page_viewed")
    result = dispatch.run(fresh_engine, settings, now=NOON)
    assert (result.events, result.enrolled, result.batches) == (9, 6, 1), "one transaction for three buckets"
    assert rows(fresh_engine, "select count(*) from event_pending") == [(0,)]
    assert rows(fresh_engine, "select contact_id, count(*) from enrollments group by 1 order by 1") == [
        (person, 2) for person in people]  # fmt: skip
    assert dispatch.run(fresh_engine, settings, now=NOON) == dispatch.DispatchResult()


def test_history_loaded_without_effects_has_none(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 1)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "order_placed")
        append(tx, [NewEvent(event_type="order_placed", contact_id=people[0], occurred_at=NOON)], now=NOON,
               effects=False)  # fmt: skip
    assert dispatch.run(fresh_engine, settings, now=NOON).events == 0
    assert rows(fresh_engine, "select count(*) from enrollments") == [(0,)]


def test_max_batches_leaves_the_rest_for_later(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 1)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "x")
    report(fresh_engine, people, "x", times=7)
    first = dispatch.run(fresh_engine, settings, now=NOON, max_batches=2, batch_size=3)
    assert (first.events, first.batches, first.enrolled) == (6, 2, 6)
    # The oldest went first: what is left is the youngest.
    assert rows(fresh_engine, "select occurred_at from event_pending") == [(NOON,)]
    assert dispatch.run(fresh_engine, settings, now=NOON, batch_size=3).events == 1


def test_a_row_of_the_queue_is_taken_as_a_whole(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 130)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "x")
    fellows = [person for person in people if person % 64 == 5]
    report(fresh_engine, fellows, "x", times=2, spacing=timedelta(0))
    report(fresh_engine, fellows, "x", times=2)
    # The row a second earlier comes first; the two of NOON are more than asked for, and fewer than two rows more.
    assert len(fellows) >= 2
    first = dispatch.run(fresh_engine, settings, now=NOON, max_batches=1, batch_size=len(fellows) + 1)
    assert (first.events, first.enrolled) == (3 * len(fellows), 3 * len(fellows))
    assert rows(fresh_engine, "select bucket, occurred_at, event_count from event_pending") == [
        (5, NOON, len(fellows))]  # fmt: skip
    assert dispatch.run(fresh_engine, settings, now=NOON).events == len(fellows)


def test_events_of_one_moment_take_effect_in_the_order_they_were_told(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [person for person in add_people(fresh_engine, 200) if person % 64 == 3]
    for number in range(3):
        with fresh_engine.begin() as tx:
            append(tx, [NewEvent(event_type=f"told_{number}", contact_id=one, occurred_at=NOON) for one in people],
                   now=NOON)  # fmt: skip
    taken: list[int] = []
    monkeypatch.setattr(effects, "apply", lambda tx, settings, batch, now: _keep(taken, batch))
    assert dispatch.run(fresh_engine, settings, now=NOON, batch_size=1).batches == 3
    assert taken == [row[0] for row in rows(fresh_engine, "select event_id from events order by event_type, event_id")]


def test_an_event_that_is_gone_has_no_effect(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 130)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "x")
    report(fresh_engine, people, "x", spacing=timedelta(0))
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from events where contact_id = :id"), {"id": people[0]})
    result = dispatch.run(fresh_engine, settings, now=NOON)
    assert (result.events, result.enrolled) == (130, 129)
    assert rows(fresh_engine, "select count(*) from event_pending") == [(0,)]


def test_human_opens_and_clicks_are_told_once(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        person = make_contact(tx, email="ann@shop.example")
        append(tx, [
            NewEvent(event_type="email_opened", contact_id=person, occurred_at=NOON, campaign_id=5, message_id=9),
            NewEvent(event_type="email_clicked", contact_id=person, occurred_at=NOON, message_id=9,
                     properties={"url": "https://shop.example/a"}),
            NewEvent(event_type="email_clicked", contact_id=person, occurred_at=NOON, source="observation"),
            NewEvent(event_type="email_sent", contact_id=person, occurred_at=NOON, message_id=9),
        ], now=NOON)  # fmt: skip
    assert dispatch.run(fresh_engine, settings, now=NOON).facts == 2
    dispatch.run(fresh_engine, settings, now=NOON)
    who = {"message_id": "9", "contact_id": str(person), "email": "ann@shop.example"}
    assert rows(fresh_engine, "select event_name, occurred_at, data from outbox order by outbox_id") == [
        ("email.opened", NOON, {**who, "campaign_id": "5"}),
        ("email.clicked", NOON, {**who, "url": "https://shop.example/a"}),
    ]  # fmt: skip


def test_a_tag_given_by_a_workflow_starts_another(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 2)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "order_placed", steps=[{"action": "tag", "tag_name": "buyer"}])
        add_workflow(tx, "tag_added", steps=[{"action": "tag", "tag_name": "thanked"}],
                     trigger_config={"event_type": "tag_added", "where": {"tag_name": "buyer"}})
    report(fresh_engine, people, "order_placed", times=2)
    counts = []
    for _ in range(4):
        counts.append((dispatch.run(fresh_engine, settings, now=NOON).enrolled,
                       workflows.advance(fresh_engine, settings, now=NOON).completed))  # fmt: skip
    # Four orders tag two people; two new tags thank two people; their tags start nothing.
    assert counts == [(4, 4), (2, 2), (0, 0), (0, 0)]
    assert rows(fresh_engine, "select name, count(*) from contact_tags inner join tags using (tag_id) group by 1"
                              " order by 1") == [("buyer", 2), ("thanked", 2)]  # fmt: skip


def test_a_bucket_held_by_another_worker_is_left_to_it(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 2)
    report(fresh_engine, people, "x")
    held = people[0] % 64
    with fresh_engine.begin() as other:
        assert other.scalar(text("select pg_try_advisory_xact_lock(722617, :bucket)"), {"bucket": held})
        assert dispatch.run(fresh_engine, settings, now=NOON).events == 1
        assert rows(fresh_engine, "select contact_id from events, event_pending where event_id = any(event_ids)") == [
            (people[0],)]  # fmt: skip
    assert dispatch.run(fresh_engine, settings, now=NOON).events == 1


def test_a_failing_effect_loses_and_doubles_nothing(fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 40)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "x")
        tx.execute(text(f"alter table enrollments add constraint broken check (contact_id <> {people[17]})"))
    report(fresh_engine, people, "x", times=3)
    with pytest.raises(Exception, match="broken"):
        dispatch.run(fresh_engine, settings, now=NOON, batch_size=2)
    assert rows(fresh_engine, f"{WAITING} + (select count(*) from enrollments)") == [(120,)]
    with fresh_engine.begin() as tx:
        tx.execute(text("alter table enrollments drop constraint broken"))
    dispatch.run(fresh_engine, settings, now=NOON, batch_size=2)
    assert rows(fresh_engine, "select min(n), max(n), count(*) from"
                              " (select contact_id, count(*) as n from enrollments group by 1) as each") == [
        (3, 3, 40)]  # fmt: skip


@pytest.mark.parametrize("spacing", [timedelta(seconds=1), timedelta(0)], ids=["few a row", "many a row"])
def test_parallel_workers_share_the_work_once(fresh_engine: Engine, settings: Settings, spacing: timedelta) -> None:
    people = add_people(fresh_engine, 200)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "x")
    report(fresh_engine, people, "x", times=5, spacing=spacing)
    # Numbers of one row agree but for the last 13 bits: a bucket has one row a moment, or two where they roll over.
    [(entries, longest)] = rows(fresh_engine, "select count(*), max(event_count) from event_pending")
    assert longest <= 4 and entries >= 320 if spacing else longest >= 10 and entries <= 128
    results: list[dispatch.DispatchResult] = []

    def work() -> None:
        # A bucket that is busy is left alone, so a worker looks again until nothing waits.
        while rows(fresh_engine, "select exists (select from event_pending)") == [(True,)]:
            results.append(dispatch.run(fresh_engine, settings, now=NOON, batch_size=10))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.events for result in results) == 1000
    assert sum(result.enrolled for result in results) == 1000
    assert rows(fresh_engine, "select count(*), count(distinct entry_key) from enrollments") == [(1000, 1000)]
    assert rows(fresh_engine, "select count(*) from outbox") == [(1000,)]


@pytest.mark.parametrize("spacing", [timedelta(seconds=1), timedelta(0)], ids=["few a row", "many a row"])
@pytest.mark.thorough
def test_killed_workers_lose_and_double_nothing(
    fresh_engine: Engine, fresh_database_url: str, settings: Settings, spacing: timedelta
) -> None:
    people = add_people(fresh_engine, 300)
    with fresh_engine.begin() as tx:
        add_workflow(tx, "x")
    report(fresh_engine, people, "x", times=20, spacing=spacing)
    for wanted in (1000, 3000):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, fresh_database_url, NOON.isoformat()],
                                  stdout=subprocess.PIPE)  # fmt: skip
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        while rows(fresh_engine, WAITING)[0][0] > 6000 - wanted:
            assert time.monotonic() < deadline
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        left = rows(fresh_engine, WAITING)[0][0]
        assert 0 < left <= 6000 - wanted
    while dispatch.run(fresh_engine, settings, now=NOON).events or rows(
        fresh_engine, "select exists (select from event_pending)"
    ) == [(True,)]:
        pass
    assert rows(fresh_engine, "select count(*), count(distinct entry_key) from enrollments") == [(6000, 6000)]


def _keep(taken: list[int], batch: effects.Batch) -> effects.Effects:
    taken.extend(batch.event_ids)
    return effects.Effects()


def test_effects_of_no_events_are_none(tx: Connection, settings: Settings) -> None:
    nothing = effects.Batch(event_ids=[], occurred_ats=[], depths=[])
    assert effects.apply(tx, settings, nothing, now=NOON) == effects.Effects()


def test_the_workers_rights_are_enough(fresh_database_url: str, fresh_engine: Engine, settings: Settings) -> None:
    people = add_people(fresh_engine, 2)
    with fresh_engine.begin() as tx:
        mail = {"action": "send_email", "subject": "Hello", "body": "<p>Hello</p>"}
        add_workflow(tx, "x", steps=[mail, {"action": "tag", "tag_name": "seen"}], exit_on=["y"])
    report(fresh_engine, people, "x")
    worker = connect(fresh_database_url)

    @listens_for(worker, "connect")
    def become_worker(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("set role mauto_worker")
        connection.commit()

    try:
        assert dispatch.run(worker, settings, now=NOON).enrolled == 2
        assert workflows.advance(worker, settings, now=NOON).messages == 2
        assert maintenance.run(worker, settings, now=NOON, task="retention")["hit_months"] == 0
        assert maintenance.run(worker, settings, now=datetime(2033, 1, 1, tzinfo=UTC), task="partitions") == {
            "partitions": 9}  # fmt: skip
    finally:
        worker.dispose()
