"""Runs of schedules: planned once and in time, missed ones listed, the campaign back for the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import control, finishing, launch, planning, runs, schedules, scheduling, store
from mautolib.campaigns.model import Status
from mautolib.campaigns.schedules import NewSchedule, Schedule, ScheduleStatus, ScheduleType
from mautolib.db.statements import statement
from mautolib.errors import Conflict, InvalidInput, InvalidTransition
from mautolib.ledger import check
from mautolib.settings import Settings
from tests.integration.mailing import NOW, add_campaign, add_contacts, rows, run_pump

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
DAILY: dict[str, Any] = {"schedule_type": ScheduleType.RECURRING, "recurrence_rule": {"interval": "daily"}}


def scheduled(
    tx: Connection, *, at: datetime = NOW + HOUR, campaign: dict[str, Any] | None = None, **changes: Any
) -> Schedule:
    made = add_campaign(tx, **(campaign or {}))
    new = NewSchedule(**{"campaign_id": made.campaign_id, "send_at": at, **changes})
    return scheduling.create(tx, new, actor="test", now=NOW)


def ran(engine: Engine, settings: Settings, now: datetime) -> dict[str, int]:
    """Plan, send and finish as the DAG does; returns what the sender did."""
    planning.plan_due(engine, settings, now)
    counts = dict(run_pump(engine, settings, later=now - NOW).counts)
    finishing.finish(engine, now)
    return counts


def listed(engine: Engine, schedule_id: int) -> list[tuple[int, str, datetime]]:
    found = rows(engine, "select * from schedule_runs where schedule_id = :id order by occurrence", id=schedule_id)
    return [(row.occurrence, row.status, row.due_at) for row in found]


def state(engine: Engine, made: Schedule) -> tuple[str, str]:
    """Of the campaign and of its schedule."""
    with engine.connect() as tx:
        return store.get(tx, made.campaign_id).status.value, schedules.get(tx, made.schedule_id).status.value


def due(engine: Engine) -> datetime | None:
    with engine.connect() as tx:
        found: datetime | None = tx.execute(statement("queues.messages_due")).scalar_one()
        return found


def test_a_daily_schedule_sends_each_day_until_its_last_run(fresh_engine: Engine, settings: Settings) -> None:
    """On the day the clocks go back it is nine o'clock in Berlin an hour later."""
    at = datetime(2027, 3, 26, 8, tzinfo=UTC)
    with fresh_engine.begin() as tx:
        add_contacts(tx, 3)
        made = scheduled(tx, at=at, timezone_name="Europe/Berlin", max_runs=4, **DAILY)
    assert due(fresh_engine) == at and ran(fresh_engine, settings, at - MINUTE) == {}
    expected = [at, at + DAY, at + 2 * DAY - HOUR, at + 3 * DAY - HOUR]
    for number, moment in enumerate(expected, start=1):
        assert state(fresh_engine, made) == ("scheduled", "pending")
        assert ran(fresh_engine, settings, moment) == {"sent": 3}
        assert ran(fresh_engine, settings, moment) == {}, "not twice"
        if number < 4:
            assert due(fresh_engine) == expected[number]
    assert state(fresh_engine, made) == ("sent", "completed") and due(fresh_engine) is None
    assert listed(fresh_engine, made.schedule_id) == [(n, "completed", m) for n, m in enumerate(expected, start=1)]
    with fresh_engine.connect() as tx:
        assert check.check(tx) == []
        found = schedules.get(tx, made.schedule_id)
        assert (found.runs_completed, found.next_run_at) == (4, None)


def test_a_run_that_is_too_late_is_skipped_and_listed(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 2)
        made = scheduled(tx, max_late_minutes=60, **DAILY)
    assert ran(fresh_engine, settings, NOW + 3 * DAY + 2 * HOUR + MINUTE) == {}
    assert [row[:2] for row in listed(fresh_engine, made.schedule_id)] == [(n, "skipped") for n in (1, 2, 3, 4)]
    assert state(fresh_engine, made) == ("scheduled", "pending") and due(fresh_engine) == NOW + 4 * DAY + HOUR
    assert ran(fresh_engine, settings, NOW + 4 * DAY + 2 * HOUR) == {"sent": 2}, "an hour late is in time"
    assert listed(fresh_engine, made.schedule_id)[-1] == (5, "completed", NOW + 4 * DAY + HOUR)
    with fresh_engine.connect() as tx:
        assert schedules.get(tx, made.schedule_id).runs_completed == 1, "skipped runs were none"


def test_after_a_stop_only_the_newest_run_goes(fresh_engine: Engine, settings: Settings) -> None:
    rule = {"schedule_type": ScheduleType.RECURRING, "recurrence_rule": {"interval": "hourly"}}
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
        made = scheduled(tx, **rule)
    assert ran(fresh_engine, settings, NOW + 5 * HOUR + MINUTE) == {"sent": 1}
    assert [row[:2] for row in listed(fresh_engine, made.schedule_id)] == [
        (1, "skipped"), (2, "skipped"), (3, "skipped"), (4, "skipped"), (5, "completed"),
    ]  # fmt: skip
    assert due(fresh_engine) == NOW + 6 * HOUR
    assert ran(fresh_engine, settings, NOW + 3000 * HOUR + MINUTE) == {"sent": 1}
    assert len(listed(fresh_engine, made.schedule_id)) == 5 + 1000 + 1, "so many are listed"


def test_a_single_run_that_is_too_late_fails_and_says_why(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
        made = scheduled(tx, max_late_minutes=0)
    assert ran(fresh_engine, settings, NOW + HOUR + MINUTE) == {}
    assert state(fresh_engine, made) == ("failed", "failed")
    with fresh_engine.connect() as tx:
        assert schedules.get(tx, made.schedule_id).error_message.startswith("It was due more than 0 minutes ago")
    assert [row[1] for row in listed(fresh_engine, made.schedule_id)] == ["skipped"]


def test_a_schedule_whose_last_run_was_missed_ends_with_what_it_did(fresh_engine: Engine, settings: Settings) -> None:
    rule = {"schedule_type": ScheduleType.RECURRING, "recurrence_rule": {"rrule": "FREQ=DAILY;COUNT=2"}}
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
        made = scheduled(tx, **rule)
    assert ran(fresh_engine, settings, NOW + HOUR) == {"sent": 1}
    assert ran(fresh_engine, settings, NOW + 9 * DAY) == {}
    assert state(fresh_engine, made) == ("sent", "completed") and due(fresh_engine) is None


def test_what_cannot_be_sent_when_it_is_due_fails_with_its_schedule(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        made = scheduled(tx, campaign={"html_body": ""}, **DAILY)
    (plan,) = planning.plan_due(fresh_engine, settings, NOW + HOUR)
    assert plan.problem is not None and state(fresh_engine, made) == ("failed", "failed")
    assert listed(fresh_engine, made.schedule_id) == [(1, "failed", NOW + HOUR)]
    with fresh_engine.connect() as tx:
        assert schedules.get(tx, made.schedule_id).error_message == plan.problem


def test_ten_planners_begin_a_run_once(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 20)
        made = scheduled(tx, **DAILY)
    with ThreadPoolExecutor(10) as threads:
        jobs = [threads.submit(planning.plan_due, fresh_engine, settings, NOW + HOUR) for _ in range(10)]
        plans = [plan for job in jobs for plan in job.result()]
    assert [plan.queued for plan in plans] == [20] and len(listed(fresh_engine, made.schedule_id)) == 1


@pytest.mark.parametrize("verb", [control.pause, control.cancel, scheduling.unschedule])
def test_a_stop_that_was_answered_holds_against_the_planner(
    fresh_engine: Engine, settings: Settings, verb: Any
) -> None:
    """A planner that comes while the stop is being committed waits or passes it over; it plans nothing after it."""
    with fresh_engine.begin() as tx:
        add_contacts(tx, 5)
        made = scheduled(tx, **DAILY)
    with ThreadPoolExecutor(1) as threads, fresh_engine.begin() as tx:
        verb(tx, made.campaign_id, now=NOW + HOUR)
        job = threads.submit(planning.plan_due, fresh_engine, settings, NOW + HOUR)
        assert job.result(timeout=20) == []
    assert planning.plan_due(fresh_engine, settings, NOW + HOUR) == []
    assert rows(fresh_engine, "select count(*) as n from messages")[0].n == 0
    expected = {control.pause: ("paused", "paused"), control.cancel: ("cancelled", "cancelled"),
                scheduling.unschedule: ("draft", "cancelled")}  # fmt: skip
    assert state(fresh_engine, made) == expected[verb]


def test_a_run_under_way_is_paused_resumed_and_cancelled_as_a_campaign(
    fresh_engine: Engine, settings: Settings
) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 6)
        made = scheduled(tx, campaign={"max_per_hour": 2}, **DAILY)
    assert ran(fresh_engine, settings, NOW + HOUR) == {"sent": 2}
    with fresh_engine.begin() as tx:
        control.pause(tx, made.campaign_id, now=NOW + HOUR)
        with pytest.raises(InvalidTransition, match="Cannot resume a schedule in 'running' status"):
            scheduling.resume(tx, made.schedule_id, now=NOW + HOUR)
        with pytest.raises(Conflict, match="Cannot change a schedule in 'running' status"):
            scheduling.change(tx, made.schedule_id, {"max_per_hour": 5}, now=NOW + HOUR)
    assert state(fresh_engine, made) == ("paused", "running") and ran(fresh_engine, settings, NOW + 3 * HOUR) == {}
    with fresh_engine.begin() as tx:
        control.resume(tx, made.campaign_id, now=NOW + 3 * HOUR)
    assert ran(fresh_engine, settings, NOW + 3 * HOUR) == {"sent": 2}
    with fresh_engine.begin() as tx:
        control.cancel(tx, made.campaign_id, now=NOW + 3 * HOUR)
    assert state(fresh_engine, made) == ("cancelled", "cancelled")
    assert [row[1] for row in listed(fresh_engine, made.schedule_id)] == ["cancelled"]
    assert ran(fresh_engine, settings, NOW + 2 * DAY) == {}


def test_a_paused_schedule_that_goes_on_begins_what_fell_due(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
        made = scheduled(tx)
        scheduling.pause(tx, made.schedule_id, now=NOW)
    assert ran(fresh_engine, settings, NOW + 2 * HOUR) == {}
    with fresh_engine.begin() as tx:
        assert scheduling.change(tx, made.schedule_id, {"max_late_minutes": 90}, now=NOW).next_run_at == NOW + HOUR
        assert scheduling.resume(tx, made.schedule_id, now=NOW + 2 * HOUR).status is ScheduleStatus.PENDING
    assert ran(fresh_engine, settings, NOW + 2 * HOUR) == {"sent": 1}


def test_local_time_again_and_again_plans_each_run_ahead(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1)
        tx.execute(text("update contacts set timezone = 'Pacific/Kiritimati'"))
        made = scheduled(tx, at=NOW + 2 * DAY, campaign={"send_window": {"local_time": True}}, **DAILY)
    first = NOW + 2 * DAY - 14 * HOUR
    assert due(fresh_engine) == first and ran(fresh_engine, settings, first) == {"sent": 1}
    assert due(fresh_engine) == first + DAY
    with fresh_engine.begin() as tx:
        store.change(tx, made.campaign_id, {"send_window": {}}, now=first)
    assert due(fresh_engine) == NOW + 3 * DAY, "the window was taken off while it waited"
    assert ran(fresh_engine, settings, NOW + 3 * DAY) == {"sent": 1}


def test_new_people_are_in_the_next_run_and_opt_outs_are_not(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 2)
        made = scheduled(tx, **DAILY)
    assert ran(fresh_engine, settings, NOW + HOUR) == {"sent": 2}
    with fresh_engine.begin() as tx:
        add_contacts(tx, 1, prefix="new")
        tx.execute(text("update contacts set subscribed = false where email like 'person1@%'"))
        store.change(tx, made.campaign_id, {"subject": "Another"}, now=NOW + 2 * HOUR)
    assert ran(fresh_engine, settings, NOW + HOUR + DAY) == {"sent": 2}
    with fresh_engine.connect() as tx:
        figures = runs.stats(tx, schedules.get(tx, made.schedule_id), now=NOW + 2 * DAY)
    assert (figures.total, figures.sent, figures.skipped) == (5, 4, 1)
    assert [(run.occurrence, run.total, run.sent) for run in figures.runs] == [(2, 3, 2), (1, 2, 2)]
    subjects = rows(fresh_engine, "select occurrence, subject from message_contents order by 1")
    assert [row.subject for row in subjects][1] == "Another"


def test_what_is_scheduled_lies_ahead(tx: Connection, settings: Settings) -> None:
    campaign = add_campaign(tx)
    for changes, said in [
        ({"send_at": NOW}, "only be scheduled for the future"),
        ({"send_at": NOW - 400 * DAY, **DAILY}, "at most a year ago"),
        ({**DAILY, "recurrence_rule": {"rrule": "FREQ=DAILY;UNTIL=20260101"}}, "names no run from now on"),
        ({"recurrence_rule": {"interval": "daily"}}, "no recurrence_rule"),
        ({"ab_test_id": 1}, "A/B test not found"),
        ({"timezone_name": "Berlin"}, "IANA name"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            given = {"campaign_id": campaign.campaign_id, "send_at": NOW + HOUR, **changes}
            scheduling.create(tx, NewSchedule(**given), actor="test", now=NOW)
    new = NewSchedule(campaign_id=campaign.campaign_id, send_at=NOW - 3 * DAY + HOUR, **DAILY)
    assert scheduling.create(tx, new, actor="test", now=NOW).next_run_at == NOW + HOUR, "a beginning may be past"
    assert launch.request_send(tx, settings, campaign.campaign_id, now=NOW).status is Status.SENDING
    with pytest.raises(ValueError, match="not a field"):
        scheduling.change(tx, 1, {"status": "paused"}, now=NOW)
