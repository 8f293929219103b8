"""Delivering webhooks: what is sent, what is recorded, when it is tried again."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError
from standardwebhooks.webhooks import Webhook

from mautolib import webhooks
from mautolib.db.engine import connect
from mautolib.errors import InvalidInput, InvalidTransition, NotFound, ProviderUnavailable
from mautolib.settings import Settings
from mautolib.webhooks import delivery, desk, retention
from mautolib.webhooks.model import Reply
from mautolib.webhooks.recording import judge, record
from mautolib.webhooks.waits import WAITS
from tests.integration.webhook_making import NOON, SECRET, add_endpoint, rows, tell, value
from tests.receivers import Answer, Request, WebhookReceiver, receive


def test_a_fact_is_delivered_signed_and_logged(fresh_engine: Engine, settings: Settings) -> None:
    now = datetime.now(UTC)
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url)
            tell(tx, data={"contact": {"id": "7", "first_name": "Zoë 🦊"}, "changed": []})
        done = delivery.run(fresh_engine, settings, now=now, reach=receiver.reach())
    assert (done.facts, done.made, done.succeeded, done.failed, done.dead) == (1, 1, 1, 0, 0)
    [request] = receiver.requests
    told = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert told == {
        "id": request.headers["webhook-id"], "event": "contact.created", "timestamp": "2026-11-23T12:00:00.000000Z",
        "data": {"contact": {"id": "7", "first_name": "Zoë 🦊"}, "changed": []},
    }  # fmt: skip
    assert request.headers["x-webhook-event"] == "contact.created"
    assert request.headers["x-webhook-delivery-attempt"] == "1"
    assert request.headers["content-type"] == "application/json"
    [row] = rows(fresh_engine, "select * from webhook_deliveries")
    assert (row.status, row.attempt, row.response_status, row.error) == ("succeeded", 1, 204, None)
    assert (row.webhook_message_id, row.payload) == (told["id"], json.loads(request.body))
    assert (row.next_attempt_at, row.attempt_id, row.lease_until) == (None, None, None)
    [logged] = rows(fresh_engine, "select * from webhook_attempts")
    assert (logged.delivery_id, logged.attempt, logged.response_status) == (row.delivery_id, 1, 204)
    [state] = rows(fresh_engine, "select * from webhook_endpoints where endpoint_id = :id", id=endpoint)
    assert (state.total_deliveries, state.total_failures, state.consecutive_failures) == (1, 0, 0)
    assert state.last_success_at is not None and state.last_failure_at is None
    assert value(fresh_engine, "select count(*) from outbox where expanded_at is null") == 0


def deliver_until(
    engine: Engine, settings: Settings, receiver: WebhookReceiver, now: datetime, end: datetime, step: timedelta,
    on_step: Callable[[datetime], Any] = lambda _: None,
) -> list[delivery.Delivered]:  # fmt: skip
    """Run at every moment something is due, `step` at least apart."""
    done = []
    while now <= end:
        on_step(now)
        done.append(delivery.run(engine, settings, now=now, reach=receiver.reach()))
        due_at = value(engine, "select min(next_attempt_at) from webhook_deliveries where status = 'pending'")
        if due_at is None:
            break
        now = max(due_at, now + step)
    return done


def test_nothing_to_do(fresh_engine: Engine, settings: Settings) -> None:
    assert delivery.run(fresh_engine, settings, now=NOON) == delivery.Delivered()
    assert not delivery.is_anything_to_do(fresh_engine, NOON)


def test_down_for_a_day_everything_arrives_by_the_schedule(fresh_engine: Engine, settings: Settings) -> None:
    """Deliveries made over the first hours of 24 hours without a receiver; then it comes back."""
    back_at = NOON + timedelta(hours=24)
    clock = [NOON]
    with receive() as receiver:
        receiver.decide = lambda _: Answer("204 No Content" if clock[0] >= back_at else "503 Service Unavailable")
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url, max_failures=100)
        for hour in range(4):
            clock[0] = NOON + timedelta(hours=hour)
            with fresh_engine.begin() as tx:
                tell(tx, 5)
            desk.expand(fresh_engine, now=clock[0])

        def note(now: datetime) -> None:
            clock[0] = now

        deliver_until(
            fresh_engine, settings, receiver, NOON, NOON + timedelta(hours=92), timedelta(minutes=1), on_step=note
        )
    ended = rows(fresh_engine, "select status, attempt, created_at, finished_at from webhook_deliveries")
    assert Counter(row.status for row in ended) == {"succeeded": 20}
    # Back after the 7th attempt: the next one was due within 14 h, give or take a fifth.
    assert all(back_at <= row.finished_at <= back_at + timedelta(hours=14 * 1.2) for row in ended)
    assert all(row.attempt == 8 for row in ended)
    gaps = rows(fresh_engine, GAPS)
    assert len(gaps) == 140
    for gap in gaps:
        assert 0.8 * WAITS[gap.attempt - 1] <= gap.waited <= 1.2 * WAITS[gap.attempt - 1] + timedelta(minutes=2), gap
    ids = Counter(request.headers["webhook-id"] for request in receiver.requests)
    assert len(ids) == 20 and set(ids.values()) == {8}
    numbers = [request.headers["x-webhook-delivery-attempt"] for request in receiver.requests]
    assert Counter(numbers) == {str(number): 20 for number in range(1, 9)}


#: The wait after each attempt but the last.
GAPS = """
    select former.attempt, later.at - former.at as waited
    from webhook_attempts as former
    inner join webhook_attempts as later
        on later.delivery_id = former.delivery_id and later.attempt = former.attempt + 1
"""


@pytest.mark.thorough
def test_down_for_four_days_everything_is_dead_and_can_be_replayed(fresh_engine: Engine, settings: Settings) -> None:
    with receive(lambda _: Answer("500 Oh no", body=b"<b>broken</b>")) as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url, max_failures=100)
            tell(tx, 40)
        deliver_until(
            fresh_engine, settings, receiver, NOON, NOON + timedelta(hours=92), timedelta(minutes=1)
        )
        dead = rows(fresh_engine, "select * from webhook_deliveries order by delivery_id")
        assert {(row.status, row.attempt, row.response_status, row.error) for row in dead} == {
            ("dead", 10, 500, "Answered 500")}
        assert value(fresh_engine, "select count(*) from webhook_attempts") == 400
        [state] = rows(fresh_engine, "select * from webhook_endpoints")
        assert (state.active, state.consecutive_failures, state.total_failures) == (True, 40, 40)
        receiver.decide = lambda _: Answer()
        before = len(receiver.requests)
        later = NOON + timedelta(hours=100)
        with fresh_engine.begin() as tx:
            webhooks.retry_delivery(tx, endpoint, dead[0].delivery_id, now=later)
            with pytest.raises(InvalidTransition):
                webhooks.retry_delivery(tx, endpoint, dead[0].delivery_id, now=later)
            assert webhooks.retry_many(tx, endpoint, since=None, until=None, status="dead", now=later) == 39
            assert webhooks.retry_many(tx, endpoint, since=None, until=None, status="dead", now=later) == 0
        assert delivery.run(fresh_engine, settings, now=later, reach=receiver.reach()).succeeded == 40
    replayed = receiver.requests[before:]
    assert {request.headers["webhook-id"] for request in replayed} == {row.webhook_message_id for row in dead}
    assert {request.headers["x-webhook-delivery-attempt"] for request in replayed} == {"11"}
    assert value(fresh_engine, "select count(*) from webhook_attempts") == 440
    [state] = rows(fresh_engine, "select * from webhook_endpoints")
    assert (state.consecutive_failures, state.total_deliveries, state.failing_since) == (0, 80, None)


def test_a_replay_begins_the_schedule_again(fresh_engine: Engine, settings: Settings) -> None:
    with receive(lambda _: Answer("500 Oh no")) as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url)
            tell(tx)
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        with fresh_engine.begin() as tx:
            tx.execute(text("update webhook_deliveries set status = 'dead', attempt = 10, next_attempt_at = null"))
            tx.execute(text("update webhook_attempts set attempt = 10"))
            delivery_id = tx.scalar(text("select delivery_id from webhook_deliveries"))
            webhooks.retry_delivery(tx, endpoint, delivery_id, now=NOON)
            for missing in ((endpoint, delivery_id + 1), (endpoint + 1, delivery_id)):
                with pytest.raises(NotFound):
                    webhooks.retry_delivery(tx, *missing, now=NOON)
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).failed == 1
    [row] = rows(fresh_engine, "select * from webhook_deliveries")
    assert (row.status, row.attempt) == ("pending", 11)
    assert timedelta(seconds=47) < row.next_attempt_at - NOON < timedelta(seconds=75)


def test_replays_are_chosen_by_time_and_state(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        endpoint, other = (add_endpoint(tx, settings, "https://shop.example/x") for _ in range(2))
        tell(tx, 6)
    desk.expand(fresh_engine, now=NOON)
    with fresh_engine.begin() as tx:
        tx.execute(text(
            "update webhook_deliveries set created_at = :noon + make_interval(hours => cast(outbox_id as int)), "
            "status = case when outbox_id = 3 then 'succeeded' when outbox_id = 4 then 'pending' else 'dead' end, "
            "next_attempt_at = case when outbox_id = 4 then :noon end"), {"noon": NOON})  # fmt: skip
        choose: dict[str, Any] = {"since": NOON + timedelta(hours=2), "until": NOON + timedelta(hours=6), "now": NOON}
        assert webhooks.retry_many(tx, endpoint, status="succeeded", **choose) == 1
        assert webhooks.retry_many(tx, endpoint, status="pending", **choose) == 0
        assert webhooks.retry_many(tx, endpoint, **choose) == 2
        assert tx.scalars(text("select outbox_id from webhook_deliveries where endpoint_id = :e and status = 'dead'"),
                          {"e": endpoint}).all() == [1, 6]  # fmt: skip
        assert tx.scalar(text("select count(*) from webhook_deliveries where endpoint_id = :e and status = 'dead'"),
                         {"e": other}) == 4  # fmt: skip
        with pytest.raises(NotFound):
            webhooks.retry_many(tx, other + 1, **choose)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer("200 OK", body=b'{"error": "no"}'), 200, None),
        (Answer("299 Fine"), 299, None),
        (Answer("301 Moved", ("Location: http://169.254.169.254/",)), 301, "redirects are not followed"),
        (Answer("307 Elsewhere", ("Location: /other",)), 307, "redirects are not followed"),
        (Answer("404 Not Found"), 404, "Answered 404"),
        (Answer("500 Oh", body=b"\xff\0" * 2000), 500, "Answered 500"),
        (Answer("nonsense"), 0, "No answer that can be understood"),
    ],
)
def test_what_counts_as_success(
    fresh_engine: Engine, settings: Settings, answer: Answer, status: int, error: str | None
) -> None:
    with receive(lambda _: answer) as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx)
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        assert len(receiver.requests) == 1
    [row] = rows(fresh_engine, "select * from webhook_deliveries")
    [logged] = rows(fresh_engine, "select * from webhook_attempts")
    assert row.response_status == logged.response_status == status
    assert row.status == ("succeeded" if error is None else "pending")
    assert (error or "") in (logged.error or "")
    assert len((logged.response_body or "").encode()) <= 1024


def test_no_connection_is_status_0(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        pass
    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, receiver.url)
        tell(tx)
    assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).failed == 1
    [row] = rows(fresh_engine, "select * from webhook_attempts")
    assert (row.response_status, row.error) == (0, "No connection (ConnectionRefusedError)")


@pytest.mark.parametrize("value_of_header", ["3600", "Mon, 23 Nov 2026 13:00:00 GMT"])
def test_retry_after(fresh_engine: Engine, settings: Settings, value_of_header: str) -> None:
    with receive(lambda _: Answer("429 Slow", (f"Retry-After: {value_of_header}",))) as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx)
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
    [row] = rows(fresh_engine, "select next_attempt_at from webhook_deliveries")
    assert timedelta(minutes=59) < row.next_attempt_at - NOON < timedelta(minutes=61)


# ---- disabling


def test_gone_disables_and_what_waits_goes_out_after_coming_back(fresh_engine: Engine, settings: Settings) -> None:
    with receive(lambda _: Answer("410 Gone")) as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url)
            tell(tx)
        done = delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        assert done.disabled == {endpoint: "The receiver said it is gone (410)"}
        with fresh_engine.begin() as tx:
            tell(tx)
        later = NOON + timedelta(days=29)
        assert delivery.run(fresh_engine, settings, now=later, reach=receiver.reach()) == delivery.Delivered()
        [state] = rows(fresh_engine, "select * from webhook_endpoints")
        assert (state.active, state.disabled_reason) == (False, "The receiver said it is gone (410)")
        receiver.decide = lambda _: Answer()
        with fresh_engine.begin() as tx:
            tx.execute(text("update webhook_endpoints set active = true, consecutive_failures = 0"))
        done = delivery.run(fresh_engine, settings, now=later, reach=receiver.reach())
        # The fact recorded while it was disabled is not told.
        assert (done.facts, done.made, done.succeeded) == (1, 0, 1)


def test_dead_deliveries_in_a_row_disable(fresh_engine: Engine, settings: Settings) -> None:
    answers = iter(["500 No"] * 2 + ["200 OK"] + ["500 No"] * 3)
    with receive(lambda _: Answer(next(answers))) as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url, max_failures=3)
        for number in range(6):
            with fresh_engine.begin() as tx:
                tell(tx)
            desk.expand(fresh_engine, now=NOON)
            with fresh_engine.begin() as tx:
                tx.execute(text("update webhook_deliveries set attempt = 9 where status = 'pending'"))
            done = delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
            assert bool(done.disabled) == (number == 5)
    assert done.disabled == {endpoint: "3 deliveries in a row failed"}
    [state] = rows(fresh_engine, "select * from webhook_endpoints")
    assert (state.active, state.consecutive_failures, state.total_deliveries, state.total_failures) == (False, 3, 6, 5)


def test_five_days_without_a_success_disable(fresh_engine: Engine, settings: Settings) -> None:
    with receive(lambda _: Answer("500 No")) as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url, max_failures=100)
        for hours in (0, 60, 119, 121):
            now = NOON + timedelta(hours=hours)
            with fresh_engine.begin() as tx:
                tell(tx)
            done = delivery.run(fresh_engine, settings, now=now, reach=receiver.reach())
            assert done.failed >= 1 and bool(done.disabled) == (hours == 121)
    assert done.disabled == {endpoint: "No success for 5 days"}


def test_silence_is_no_failure(fresh_engine: Engine, settings: Settings) -> None:
    """An endpoint that had nothing to take for weeks is not disabled by its first failure."""
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx)
        delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        receiver.decide = lambda _: Answer("500 No")
        with fresh_engine.begin() as tx:
            tell(tx)
        done = delivery.run(fresh_engine, settings, now=NOON + timedelta(days=40), reach=receiver.reach())
    assert (done.failed, done.disabled) == (1, {})


# ---- tests


def test_a_test_is_delivered_at_once_and_logged(fresh_engine: Engine, settings: Settings) -> None:
    now = datetime.now(UTC)
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url, active=False, max_failures=2)
        ask: dict[str, Any] = {"event_type": "test.ping", "payload": {"message": "Test webhook delivery"}, "now": now}
        found = webhooks.send_test(fresh_engine, settings, endpoint, reach=receiver.reach(), **ask)
        assert (found.success, found.response_status) == (True, 204) and found.duration_ms >= 0
        [request] = receiver.requests
        told = Webhook(SECRET).verify(request.body, dict(request.headers))
        assert (told["event"], told["data"]) == ("test.ping", {"message": "Test webhook delivery"})
        assert told["id"] == request.headers["webhook-id"]
        receiver.decide = lambda _: Answer("500 No")
        with fresh_engine.begin() as tx:
            tx.execute(text("update webhook_endpoints set active = true"))
        for number in range(2):
            found = webhooks.send_test(fresh_engine, settings, endpoint, reach=receiver.reach(), **ask)
            assert (found.success, found.response_status) == (False, 500)
            [state] = rows(fresh_engine, "select * from webhook_endpoints")
            assert state.active == (number == 0)
    assert state.disabled_reason == "2 deliveries in a row failed"
    logged = rows(fresh_engine, "select status, outbox_id, attempt from webhook_deliveries order by delivery_id")
    assert logged == [("succeeded", None, 1), ("dead", None, 1), ("dead", None, 1)]
    assert value(fresh_engine, "select count(*) from webhook_attempts") == 3
    for event_type in ("", "x\r\nEvil: 1", "ä", "x" * 101):
        with pytest.raises(InvalidInput):
            webhooks.send_test(fresh_engine, settings, endpoint, **{**ask, "event_type": event_type})
    with pytest.raises(InvalidInput):
        webhooks.send_test(fresh_engine, settings, endpoint, **{**ask, "payload": {"a": "\0"}})
    with pytest.raises(NotFound):
        webhooks.send_test(fresh_engine, settings, endpoint + 1, **ask)


# ---- secrets


def test_after_a_rotation_both_secrets_sign_for_a_day(fresh_engine: Engine, settings: Settings) -> None:
    now = datetime.now(UTC)
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url, secret="old ß")
            tell(tx)
            new, until = webhooks.rotate_secret(tx, settings, endpoint, secret=None, now=now)
            with pytest.raises(NotFound):
                webhooks.rotate_secret(tx, settings, endpoint + 1, secret=None, now=now)
        assert new.startswith("whsec_") and until == now + timedelta(hours=24)
        delivery.run(fresh_engine, settings, now=now, reach=receiver.reach())
        with fresh_engine.begin() as tx:
            tell(tx)
        delivery.run(fresh_engine, settings, now=until, reach=receiver.reach())
    within, after = (request.headers["webhook-signature"].split(" ") for request in receiver.requests)
    assert (len(within), len(after)) == (2, 1)
    [first, _] = receiver.requests
    Webhook(new).verify(first.body, dict(first.headers))
    Webhook("old ß".encode()).verify(first.body, dict(first.headers))
    stored = value(fresh_engine, "select secret_encrypted from webhook_endpoints")
    assert new.encode() not in bytes(stored) and webhooks.open_secret(settings, stored) == new


def test_a_secret_of_a_lost_key_fails_its_own_endpoint_only(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            for _ in range(2):
                add_endpoint(tx, settings, receiver.url)
            tx.execute(text("update webhook_endpoints set secret_encrypted = 'lost' where endpoint_id = 1"))
            tell(tx)
        done = delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        assert (done.succeeded, done.failed, len(receiver.requests)) == (1, 1, 1)


# ---- who holds what


def test_an_outcome_of_a_lost_lease_changes_nothing(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_endpoint(tx, settings, "https://shop.example/x")
        tell(tx)
    slow = desk.Desk(engine=fresh_engine, settings=settings, lease=timedelta(seconds=60))
    [held] = slow.turn([], {}, now=NOON, claims=True).claimed
    assert slow.turn([], {}, now=NOON + timedelta(seconds=59), claims=True).claimed == []
    later = NOON + timedelta(seconds=61)
    [again] = slow.turn([], {}, now=later, claims=True).claimed
    assert again.message_id == held.message_id and again.attempt_id != held.attempt_id
    with fresh_engine.begin() as tx:
        assert record(tx, [judge(held, Reply(500, 1, "late"), later)], now=later).counts == {}
        good = judge(again, Reply(200, 1), later)
        assert record(tx, [good], now=later).counts == {"succeeded": 1}
        assert record(tx, [good], now=later).counts == {}
    assert rows(fresh_engine, "select status, attempt from webhook_deliveries") == [("succeeded", 1)]
    assert value(fresh_engine, "select count(*) from webhook_attempts") == 1
    assert value(fresh_engine, "select total_deliveries from webhook_endpoints") == 1


def test_a_claim_takes_of_each_endpoint_only_what_it_has_room_for(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        for number in range(3):
            add_endpoint(tx, settings, f"https://shop.example/{number}")
        add_endpoint(tx, settings, "https://shop.example/failing", failing_since=NOON)
        tell(tx, 50)
    at = desk.Desk(engine=fresh_engine, settings=settings, lease=timedelta(seconds=60))
    claimed = at.turn([], {1: 0, 2: 7}, now=NOON, claims=True).claimed
    assert Counter(one.endpoint_id for one in claimed) == {2: 7, 3: 32, 4: 2}
    only = desk.Desk(engine=fresh_engine, settings=settings, lease=timedelta(seconds=60), endpoint_id=1)
    assert {one.endpoint_id for one in only.turn([], {}, now=NOON, claims=True).claimed} == {1}


def test_a_receiver_that_hangs_keeps_nobody_waiting(fresh_engine: Engine, settings: Settings) -> None:
    """One answers only when the other one has had everything."""
    hung: list[int] = []

    async def hang(_: Request) -> Answer:
        for _ in range(800):
            if len(quick.requests) == 300:
                hung.append(len(hanging.requests))
                return Answer()
            await asyncio.sleep(0.01)
        return Answer("500 The others had to wait")

    with receive(hang) as hanging, receive() as quick:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, hanging.url)
            add_endpoint(tx, settings, quick.url)
            tell(tx, 300)
        done = delivery.run(fresh_engine, settings, now=NOON, reach=hanging.reach(quick))
    assert (done.succeeded, done.failed) == (600, 0)
    assert hung[0] <= 4, "no more at a time than a new acquaintance gets"


@contextmanager
def listening(engine: Engine) -> Iterator[Callable[[], list[str]]]:
    """What is notified of webhooks, up to the moment it is asked for."""
    raw = engine.raw_connection()
    connection: Any = raw.driver_connection

    def heard() -> list[str]:
        with engine.begin() as tx:
            tx.execute(text("notify mauto_webhooks, 'end'"))
        found: list[str] = []
        while "end" not in found:
            assert select.select([connection], [], [], 10)[0]
            connection.poll()
            found += [one.payload for one in connection.notifies]
            connection.notifies.clear()
        return found[:-1]

    try:
        connection.autocommit = True
        connection.cursor().execute("listen mauto_webhooks")
        yield heard
    finally:
        raw.invalidate()


def test_what_was_not_begun_in_time_goes_back_unused(fresh_engine: Engine, settings: Settings) -> None:
    async def slow(_: Request) -> Answer:
        await asyncio.sleep(0.3)
        return Answer()

    with receive(slow) as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx, 300)
        with listening(fresh_engine) as heard:
            done = delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach(), budget_seconds=0.2)
            assert 0 < done.succeeded == len(receiver.requests) < 300
            # Whoever starts runs is told that there is more.
            assert heard() == ["more"]
    waiting = rows(fresh_engine, "select distinct attempt, attempt_id from webhook_deliveries where status = 'pending'")
    assert waiting == [(0, None)]
    assert delivery.is_anything_to_do(fresh_engine, NOON + timedelta(seconds=5))


# ---- many endpoints, few rights


@contextmanager
def as_role(url: str, role: str) -> Iterator[Engine]:
    engine = connect(url)

    @event.listens_for(engine, "connect")
    def become(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"set role {role}")
        connection.commit()

    try:
        yield engine
    finally:
        engine.dispose()


def test_the_rights_of_the_roles_suffice(
    fresh_engine: Engine, fresh_database_url: str, settings: Settings
) -> None:
    with receive(lambda _: Answer("500 No")) as receiver:
        with fresh_engine.begin() as tx:
            endpoint = add_endpoint(tx, settings, receiver.url)
        with as_role(fresh_database_url, "mauto_worker") as worker:
            with worker.begin() as tx:
                tell(tx)
            assert delivery.run(worker, settings, now=NOON, reach=receiver.reach()).failed == 1
        with as_role(fresh_database_url, "mauto_api") as api:
            found = webhooks.send_test(
                api, settings, endpoint, event_type="test.ping", payload={}, now=NOON, reach=receiver.reach())
            assert found.response_status == 500
            with api.begin() as tx:
                webhooks.rotate_secret(tx, settings, endpoint, secret="ä" * 200, now=NOON)
                assert webhooks.retry_many(tx, endpoint, since=None, until=None, now=NOON) == 1
        with as_role(fresh_database_url, "mauto_eraser") as eraser:
            later = NOON + timedelta(days=60)
            with fresh_engine.begin() as tx:
                tx.execute(text("update webhook_endpoints set active = false"))
                tx.execute(text("update webhook_deliveries set attempt_id = null, lease_until = null"))
            assert retention.give_up_waiting(eraser, now=later) == 2
            assert retention.forget_deliveries(eraser, settings, now=later + timedelta(days=40)) == 2
            assert retention.forget_facts(eraser, settings, now=later) == 1


def test_many_endpoints_keep_few_connections_open(fresh_engine: Engine, settings: Settings) -> None:
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            for number in range(40):
                add_endpoint(tx, settings, f"{receiver.url}/{number}")
            tell(tx, 3)
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).succeeded == 120
    closing = [request for request in receiver.requests if request.headers.get("connection") == "close"]
    # The last request to each says good-bye.
    assert 40 <= len(closing) <= 120 and len({request.path for request in closing}) == 40


# ---- when the database goes away, and outside Airflow


def lost() -> OperationalError:
    error = OperationalError("select", {}, Exception("server closed the connection"))
    error.connection_invalidated = True
    return error


def test_a_database_that_comes_back_costs_nothing(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, turns = desk.Desk.turn, []

    def flaky(self: desk.Desk, *given: Any, **named: Any) -> desk.Turn:
        turns.append(len(given[0]))
        if len(turns) in (1, 3):
            raise lost()
        return real(self, *given, **named)

    monkeypatch.setattr(desk.Desk, "turn", flaky)
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx, 5)
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()).succeeded == 5
        assert len(receiver.requests) == 5
    assert value(fresh_engine, "select count(*) from webhook_attempts") == 5


def test_a_database_that_stays_away_ends_the_run_and_loses_nothing(
    fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = desk.Desk.turn

    def once(self: desk.Desk, outcomes: Any, *given: Any, **named: Any) -> desk.Turn:
        if outcomes:
            raise lost()
        return real(self, outcomes, *given, **named)

    monkeypatch.setattr(desk.Desk, "turn", once)
    monkeypatch.setattr(delivery, "PATIENCE_SECONDS", 0.1)
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx, 5)
        with pytest.raises(ProviderUnavailable):
            delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach())
        monkeypatch.setattr(desk.Desk, "turn", real)
        assert delivery.run(fresh_engine, settings, now=NOON, reach=receiver.reach()) == delivery.Delivered()
        later = NOON + timedelta(seconds=delivery.LEASE_SECONDS + 60)
        assert delivery.run(fresh_engine, settings, now=later, reach=receiver.reach()).succeeded == 5
        ids = Counter(request.headers["webhook-id"] for request in receiver.requests)
    assert len(ids) == 5 and set(ids.values()) == {2}


def test_the_command_line_delivers_what_is_due(
    fresh_engine: Engine, fresh_database_url: str, settings: Settings
) -> None:
    with receive() as receiver:
        with fresh_engine.begin() as tx:
            add_endpoint(tx, settings, receiver.url)
            tell(tx, 2)
        environment = {
            **os.environ, "MAUTO_DATABASE_URL": fresh_database_url, "MAUTO_SECRET_KEYS": ",".join(settings.secret_keys),
            "MAUTO_WEBHOOK_ALLOW_HTTP": "true", "MAUTO_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{receiver.port}",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "mautolib.webhooks.delivery"], env=environment, capture_output=True, text=True,
            check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "told 2, succeeded 2, failed 0, dead 0\n"), done.stderr
    assert len(receiver.requests) == 2
