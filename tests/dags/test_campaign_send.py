"""`campaign_send` from end to end: a schedule makes its runs, and what people wait for waits for nothing."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.campaigns import launch, scheduling, store
from mautolib.campaigns.model import NewCampaign, Status
from mautolib.campaigns.schedules import NewSchedule, ScheduleType
from mautolib.campaigns.single import NewTransactional, send_transactional
from mautolib.contacts import NewContact, create
from mautolib.errors import ProviderUnavailable
from mautolib.settings import Settings
from mautolib.stack.mailsink import MailSink

HTML = "<p>Hello {{ contact.first_name }}, <a href='https://shop.example/sale'>the sale</a></p>"


@pytest.fixture
def sink(run_dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailSink]:
    with MailSink(tmp_path / "sink") as running:
        monkeypatch.setenv("MAUTO_SMTP_PORT", str(running.smtp_port))
        monkeypatch.setenv("MAUTO_SMTP_SECURITY", "none")
        monkeypatch.setenv("MAUTO_PUBLIC_BASE_URL", "http://127.0.0.1:8000")
        yield running


def scalar(engine: Engine, sql: str) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text(sql))


def one_campaign(engine: Engine, *people: str) -> int:
    with engine.begin() as tx:
        for name in people:
            new = NewContact(email=f"{name}@shop.example", first_name=name.title())
            create(tx, new, actor="test", now=datetime.now(UTC))
        new_campaign = NewCampaign(name="Weekly", subject="Hello {{ contact.first_name }}", html_body=HTML)
        return store.create(tx, new_campaign, actor="test", now=datetime.now(UTC)).campaign_id


def asked(engine: Engine, settings: Settings, external_id: str) -> int:
    """A transactional message that waits."""
    new = NewTransactional(email="buyer@shop.example", subject="Your order", html_body="<p>Thanks</p>",
                           external_id=external_id)  # fmt: skip
    with engine.begin() as tx:
        return send_transactional(tx, settings, new, actor="test", now=datetime.now(UTC))


def status_of(engine: Engine, message_id: int) -> str:
    return str(scalar(engine, f"select status from messages where message_id = {message_id}"))


def mails(sink: MailSink) -> list[str]:
    """Whom the sink has mail for, in order."""
    if not sink.log_path.exists():
        return []
    lines = sink.log_path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["rcpt"][0] for line in lines]


def pass_time(engine: Engine, interval: str) -> None:
    """What was to happen in the future is so much nearer."""
    with engine.begin() as tx:
        tx.execute(text("update schedules set next_run_at = next_run_at - cast(:by as interval),"
                        " send_at = send_at - cast(:by as interval)"), {"by": interval})  # fmt: skip
        tx.execute(text("update campaigns set scheduled_at = scheduled_at - cast(:by as interval),"
                        " plan_at = plan_at - cast(:by as interval)"), {"by": interval})  # fmt: skip


def test_a_recurring_schedule_makes_a_run_each_time_it_is_due(
    run_dag: Any, fresh_engine: Engine, settings: Settings, sink: MailSink
) -> None:
    campaign_id = one_campaign(fresh_engine, "anna", "ben")
    send_at = datetime.now(UTC) + timedelta(hours=20)
    new = NewSchedule(campaign_id=campaign_id, send_at=send_at, schedule_type=ScheduleType.RECURRING,
                      recurrence_rule={"interval": "daily"}, max_runs=2)  # fmt: skip
    with fresh_engine.begin() as tx:
        scheduling.create(tx, new, actor="test", now=datetime.now(UTC))
    assert run_dag("campaign_send").state == "success"
    assert mails(sink) == [], "it is not due yet"
    pass_time(fresh_engine, "21 hours")
    send_at -= timedelta(hours=21)
    assert run_dag("campaign_send").state == "success"
    assert sorted(mails(sink)) == ["anna@shop.example", "ben@shop.example"]
    assert run_dag("campaign_send").state == "success"
    assert len(mails(sink)) == 2, "the next run is tomorrow"
    following = scalar(fresh_engine, "select next_run_at from schedules")
    with fresh_engine.begin() as tx:
        campaign = store.get(tx, campaign_id)
        assert (campaign.status, campaign.occurrence, campaign.scheduled_at) == (Status.SCHEDULED, 1, following)
        assert following - send_at.replace(microsecond=0) == timedelta(days=1)
    pass_time(fresh_engine, "24 hours")
    assert run_dag("campaign_send").state == "success"
    assert sorted(mails(sink)) == ["anna@shop.example"] * 2 + ["ben@shop.example"] * 2
    runs = "select array_agg(occurrence || ' ' || status order by occurrence) from schedule_runs"
    assert scalar(fresh_engine, runs) == ["1 completed", "2 completed"]
    assert scalar(fresh_engine, "select status from schedules") == "completed", "that was the last one"
    assert scalar(fresh_engine, "select status from campaigns") == "sent"


def test_a_receipt_does_not_wait_for_the_planning_of_a_large_campaign(
    run_dag: Any, fresh_engine: Engine, settings: Settings, sink: MailSink
) -> None:
    campaign_id = one_campaign(fresh_engine, "anna")
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign_id, now=datetime.now(UTC))
    with fresh_engine.begin() as planner:
        # Another run is at it: its transaction holds the campaign until the last row is in the ledger.
        planner.execute(text("select from campaigns where campaign_id = :id for update"), {"id": campaign_id})
        message_id = asked(fresh_engine, settings, "first")
        began = time.monotonic()
        assert run_dag("campaign_send").state == "success"
        assert time.monotonic() - began < 60
        assert status_of(fresh_engine, message_id) == "sent" and mails(sink) == ["buyer@shop.example"]
        assert scalar(fresh_engine, "select count(*) from messages where kind = 'campaign'") == 0
    assert run_dag("campaign_send").state == "success"
    assert mails(sink) == ["buyer@shop.example", "anna@shop.example"]


def test_a_receipt_goes_out_before_and_without_any_slot_of_the_bulk_pool(
    run_dag: Any, fresh_engine: Engine, settings: Settings, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs are planning, or wait behind two imports: a third one ends after what people wait for."""
    monkeypatch.setattr("mauto_airflow.runs._at_work", lambda ti, senders: 2)
    campaign_id = one_campaign(fresh_engine, "anna")
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign_id, now=datetime.now(UTC))
    message_id = asked(fresh_engine, settings, "first")
    run = run_dag("campaign_send")
    assert run.state == "success" and status_of(fresh_engine, message_id) == "sent"
    states = {task.task_id: task.state for task in run.get_task_instances()}
    assert states["urgent"] == "success" and states["plan"] == "skipped"
    assert scalar(fresh_engine, "select planned_at from campaigns") is None


def test_with_nothing_else_due_a_run_ends_after_what_people_wait_for(
    run_dag: Any, fresh_engine: Engine, settings: Settings, sink: MailSink
) -> None:
    message_id = asked(fresh_engine, settings, "first")
    run = run_dag("campaign_send")
    assert status_of(fresh_engine, message_id) == "sent" and mails(sink) == ["buyer@shop.example"]
    assert {task.task_id: task.state for task in run.get_task_instances()}["plan"] == "skipped"


def test_a_dry_run_sends_nothing_to_anybody(
    run_dag: Any, fresh_engine: Engine, settings: Settings, sink: MailSink
) -> None:
    campaign_id = one_campaign(fresh_engine, "anna")
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign_id, now=datetime.now(UTC))
    message_id = asked(fresh_engine, settings, "first")
    assert run_dag("campaign_send", dry_run=True).state == "success"
    assert mails(sink) == [] and status_of(fresh_engine, message_id) == "queued"
    assert scalar(fresh_engine, "select planned_at from campaigns") is None


class Ti:
    """A task instance that knows how many of the others are at work."""

    dag_id = "campaign_send"

    def __init__(self, plans: int = 0, sends: int = 0) -> None:
        self._counts = {"plan": plans, "send": sends}

    def get_ti_count(self, *, dag_id: str, task_ids: list[str], states: list[str]) -> int:
        assert dag_id == self.dag_id and {"scheduled", "queued", "running", "up_for_retry"} <= set(states)
        return sum(self._counts[name] for name in task_ids)


@pytest.fixture
def urgent(fresh_engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`urgent(Ti(...), smtp_port=...)`: what the first task answers."""
    from mauto_airflow import runs

    def run(ti: Ti, **changes: Any) -> bool:
        opened = contextlib.nullcontext((fresh_engine, replace(settings, **changes)))
        monkeypatch.setattr(runs, "warehouse", lambda: opened)
        return bool(runs.send_urgent({"dry_run": False, "senders": 2}, ti))

    return run


def test_the_rest_is_for_two_runs_at_a_time(fresh_engine: Engine, settings: Settings, urgent: Any) -> None:
    assert urgent(Ti()) is False, "nothing is due"
    campaign_id = one_campaign(fresh_engine, "anna")
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign_id, now=datetime.now(UTC))
    at_work = [(0, 0), (1, 0), (0, 2), (0, 1), (1, 1), (2, 0), (0, 3), (0, 4), (1, 2)]
    assert [urgent(Ti(*counts)) for counts in at_work] == [True] * 4 + [False] * 5


def test_a_mail_server_that_is_away_does_not_keep_a_campaign_from_being_planned(
    fresh_engine: Engine, settings: Settings, urgent: Any
) -> None:
    asked(fresh_engine, settings, "first")
    with pytest.raises(ProviderUnavailable):
        urgent(Ti(), smtp_port=1)
    asked(fresh_engine, settings, "second")
    campaign_id = one_campaign(fresh_engine, "anna")
    with fresh_engine.begin() as tx:
        launch.request_send(tx, settings, campaign_id, now=datetime.now(UTC))
    assert urgent(Ti(), smtp_port=1) is True, "the senders of this run will say what is wrong"
    assert urgent(Ti(), smtp_port=2) is True
