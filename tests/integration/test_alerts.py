"""Alerts: one note a finding and channel, whoever looks how often; nothing a channel does breaks the job."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mautolib import maintenance
from mautolib.db.engine import connect
from mautolib.maintenance import Finding, alerts
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink
from mautolib.webhooks.signing import signature_of_body, standard_signature
from tests.receivers import Answer, WebhookReceiver, receive

NOW = datetime.now(UTC)
SECRET = "f3a91c0e5b7d42868e1d90ab64c7f52e"
FAILED = Finding(name="dag_failed.maintenance.keep_in_order", summary="maintenance failed: KeyError", advice="look")


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[MailSink]:
    with MailSink(tmp_path / "sink") as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receive() as running:
        yield running


@pytest.fixture
def told(settings: Settings, sink: MailSink, receiver: WebhookReceiver) -> Settings:
    """Settings with both channels."""
    settings.storage_path.mkdir(parents=True, exist_ok=True)
    return replace(
        settings, smtp_port=sink.smtp_port, alert_email="ops@shop.example", public_base_url="https://shop.example",
        alert_webhook_url=receiver.url, alert_webhook_secret=SECRET, webhook_allow_http=True,
        webhook_allowed_hosts=(f"127.0.0.1:{receiver.port}",),
    )  # fmt: skip


def sending_off(engine: Engine, *, is_off: bool) -> None:
    with engine.begin() as tx:
        tx.execute(text("update installation set sending_enabled = :on, reason = 'x', changed_at = :at"),
                   {"on": not is_off, "at": NOW - timedelta(hours=1)})  # fmt: skip


def events(receiver: WebhookReceiver) -> list[str]:
    return [json.loads(one.body)["event"] + " " + json.loads(one.body)["data"]["finding"] for one in receiver.requests]


def test_a_finding_is_told_once_and_once_more_when_it_is_over(
    fresh_engine: Engine, told: Settings, sink: MailSink, receiver: WebhookReceiver
) -> None:
    sending_off(fresh_engine, is_off=True)
    found, first = alerts.review(fresh_engine, told, now=NOW)
    assert [one.name for one in found] == ["stuck.sending_off"]
    assert first.opened == 0, "seen once only: perhaps on its way"
    for minutes, opened in ((5, 1), (10, 0), (15, 0)):
        _, done = alerts.review(fresh_engine, told, now=NOW + timedelta(minutes=minutes))
        assert (done.opened, done.resolved, done.undelivered) == (opened, 0, 0)
    sending_off(fresh_engine, is_off=False)
    for minutes, resolved in ((20, 1), (25, 0)):
        _, done = alerts.review(fresh_engine, told, now=NOW + timedelta(minutes=minutes))
        assert (done.opened, done.resolved) == (0, resolved)
    assert events(receiver) == ["alert.opened stuck.sending_off", "alert.resolved stuck.sending_off"]
    mails = sink.wait_for(2)
    assert sorted(mail.subject for mail in mails) == [
        "[mauto] resolved: sending is switched off: 1, since 75 min",
        "[mauto] sending is switched off: 1, since 65 min",
    ]  # fmt: skip
    assert {tuple(mail.recipients) for mail in mails} == {("ops@shop.example",)}


def test_a_call_is_signed_as_every_webhook(fresh_engine: Engine, told: Settings, receiver: WebhookReceiver) -> None:
    alerts.report(fresh_engine, told, FAILED, now=NOW)
    (one,) = receiver.requests
    stamp = int(NOW.timestamp())
    assert one.headers["x-webhook-signature-256"] == signature_of_body(SECRET, one.body)
    assert one.headers["webhook-signature"] == standard_signature([SECRET], one.headers["webhook-id"], stamp, one.body)
    body = json.loads(one.body)
    assert body["id"] == one.headers["webhook-id"] and body["text"].startswith("[mauto] maintenance failed: KeyError")


def test_a_failure_is_over_with_the_next_good_run(
    fresh_engine: Engine, told: Settings, receiver: WebhookReceiver
) -> None:
    for minute in range(3):
        alerts.report(fresh_engine, told, FAILED, now=NOW + timedelta(minutes=minute))
    with fresh_engine.begin() as tx:
        maintenance.heartbeat(tx, "airflow.maintenance", NOW + timedelta(minutes=1))
    alerts.review(fresh_engine, told, now=NOW + timedelta(minutes=5))
    assert events(receiver) == [f"alert.opened {FAILED.name}"], "it failed again after that run"
    with fresh_engine.begin() as tx:
        maintenance.heartbeat(tx, "airflow.maintenance", NOW + timedelta(minutes=6))
    alerts.review(fresh_engine, told, now=NOW + timedelta(minutes=7))
    assert events(receiver) == [f"alert.opened {FAILED.name}", f"alert.resolved {FAILED.name}"]


def test_two_who_look_at_once_tell_once(fresh_engine: Engine, told: Settings, receiver: WebhookReceiver) -> None:
    together = threading.Barrier(4)

    def look() -> None:
        together.wait()
        alerts.report(fresh_engine, told, FAILED, now=NOW)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events(receiver) == [f"alert.opened {FAILED.name}"]


def test_a_channel_that_is_away_gets_its_notes_later_and_the_other_only_once(
    fresh_engine: Engine, told: Settings, sink: MailSink, receiver: WebhookReceiver
) -> None:
    receiver.decide = lambda _: Answer("503 Service Unavailable")
    alerts.report(fresh_engine, told, FAILED, now=NOW)
    assert alerts.deliver(fresh_engine, told, now=NOW + timedelta(minutes=1)) == (0, 0), "not at once again"
    receiver.decide = lambda _: Answer()
    assert alerts.deliver(fresh_engine, told, now=NOW + timedelta(minutes=6)) == (1, 0)
    assert len(receiver.requests) == 2 and len({one.headers["webhook-id"] for one in receiver.requests}) == 1
    assert len(sink.wait_for(1)) == 1
    receiver.decide = lambda _: Answer("500 Oh")
    alerts.report(fresh_engine, told, replace(FAILED, name="dag_failed.a.b"), now=NOW)
    assert alerts.deliver(fresh_engine, told, now=NOW + timedelta(days=4)) == (0, 1)
    with fresh_engine.connect() as tx:
        assert tx.scalar(text("select count(*) from alert_notes")) == 0, "three days are enough"


def test_an_inner_address_is_refused_and_nothing_breaks(
    fresh_engine: Engine, told: Settings, receiver: WebhookReceiver, sink: MailSink, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = replace(told, webhook_allowed_hosts=())
    alerts.report(fresh_engine, guarded, FAILED, now=NOW)
    assert receiver.connections == 0 and len(sink.wait_for(1)) == 1
    assert alerts.test(guarded, now=NOW)["webhook"] != ""
    assert receiver.url not in caplog.text and SECRET not in caplog.text
    assert alerts.test(replace(told, alert_webhook_secret="short"), now=NOW)["webhook"].startswith(
        "MAUTO_ALERT_WEBHOOK_SECRET")  # fmt: skip


def test_without_a_database_it_goes_out_directly_once_an_hour(
    told: Settings, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    gone = connect("postgresql://nobody:x@127.0.0.1:9/none")
    with caplog.at_level(logging.WARNING):
        for minutes in (0, 5, 61):
            alerts.report(gone, told, FAILED, now=NOW + timedelta(minutes=minutes))
        alerts.report(None, told, FAILED, now=NOW + timedelta(minutes=62))
    gone.dispose()
    assert events(receiver) == [f"alert.told {FAILED.name}"] * 2


def test_nobody_is_told_where_no_channel_is_set(fresh_engine: Engine, settings: Settings) -> None:
    alerts.report(fresh_engine, settings, FAILED, now=NOW)
    assert alerts.test(settings, now=NOW) == {}
    with fresh_engine.connect() as tx:
        assert [row.finding for row in alerts.open_findings(tx)] == [FAILED.name]
        assert tx.scalar(text("select count(*) from alert_notes")) == 0
