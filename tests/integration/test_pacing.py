"""When a message may go: windows, quiet hours, limits, the frequency cap - and nothing more while many senders run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.campaigns import control, finishing, launch, limits, planning, schedules, scheduling, store
from mautolib.campaigns.pacing import Turnstile
from mautolib.campaigns.schedules import NewSchedule
from mautolib.channels.null import Null
from mautolib.db.statements import statement
from mautolib.ledger import check, claim, content, queue
from mautolib.ledger.identity import message_identity
from mautolib.ledger.model import Kind, NewContent, NewMessage, Result, Stage, Verdict
from mautolib.settings import Settings
from tests.integration.mailing import NOW, add_campaign, add_contacts, launched, null, rows, run_pump, states

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)


def in_zones(tx: Connection, *zones: str, each: int = 1) -> None:
    """`each` contacts in every zone, called by it."""
    for zone in zones:
        ids = add_contacts(tx, each, prefix=zone.replace("/", ".").lower() + "-")
        given = {"zone": zone, "ids": ids}
        tx.execute(text("update contacts set timezone = :zone where contact_id = any(:ids)"), given)


def planned(engine: Engine, settings: Settings, now: datetime = NOW, **changes: Any) -> int:
    """A campaign to the contacts there are, requested and planned at `now`."""
    with engine.begin() as tx:
        campaign = add_campaign(tx, **changes)
        launch.request_send(tx, settings, campaign.campaign_id, now=now)
    (plan,) = planning.plan_due(engine, settings, now)
    assert plan.problem is None
    return campaign.campaign_id


def sent(engine: Engine, settings: Settings, later: timedelta = timedelta(0), **more: Any) -> int:
    """How many one pump hands over `later` than NOW."""
    return run_pump(engine, settings, later=later, **more).counts.get("sent", 0)


def due(engine: Engine) -> datetime | None:
    with engine.connect() as tx:
        found: datetime | None = tx.execute(statement("queues.messages_due")).scalar_one()
        return found


def zones_sent(engine: Engine) -> set[str]:
    sql = "select distinct c.timezone from messages m join contacts c using (contact_id) where m.status = 'sent'"
    return {row.timezone for row in rows(engine, sql)}


# --- windows ---


def test_outside_its_hours_a_campaign_sleeps_and_wakes_by_itself(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 5, send_window={"start": "10:00", "end": "11:00"})  # it is 9:00
    other = planned(fresh_engine, settings)
    assert sent(fresh_engine, settings) == 5, "the other campaign is not kept waiting"
    assert states(fresh_engine, campaign_id) == {"queued": 5} and states(fresh_engine, other) == {"sent": 5}
    finishing.finish(fresh_engine, NOW)
    assert due(fresh_engine) == NOW + HOUR, "nobody is woken before it opens"
    assert sent(fresh_engine, settings, HOUR) == 5


def test_a_window_that_closes_holds_the_rest_until_it_opens(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(
        fresh_engine, settings, 4, send_window={"start": "08:00", "end": "10:00", "weekdays": [1, 2, 3, 4, 5, 7]},
        max_per_hour=2, expires_after_hours=48,
    )  # fmt: skip
    assert sent(fresh_engine, settings) == 2
    assert sent(fresh_engine, settings, HOUR + 2 * MINUTE) == 0, "10:02 is too late"
    assert due(fresh_engine) == NOW + 23 * HOUR
    assert sent(fresh_engine, settings, 23 * HOUR) == 2
    assert states(fresh_engine, campaign_id) == {"sent": 4}


def test_everybody_is_written_to_at_the_scheduled_time_of_their_own_clock(
    fresh_engine: Engine, settings: Settings
) -> None:
    with fresh_engine.begin() as tx:
        in_zones(tx, "Pacific/Auckland", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "", "Nowhere/Else", each=2)
        campaign = add_campaign(tx, send_window={"local_time": True})
        at = datetime(2026, 11, 24, 8, tzinfo=UTC)  # 9:00 in Berlin
        campaign = launch.schedule(tx, settings, campaign.campaign_id, at=at, timezone_name="Europe/Berlin", now=NOW)
    assert campaign.plan_at == datetime(2026, 11, 23, 19, tzinfo=UTC), "9:00 comes first on the clocks 14 hours ahead"
    assert due(fresh_engine) == campaign.plan_at
    assert planning.plan_due(fresh_engine, settings, campaign.plan_at - MINUTE) == []
    assert [plan.queued for plan in planning.plan_due(fresh_engine, settings, campaign.plan_at)] == [12]
    found = rows(fresh_engine, """
        select distinct c.timezone, m.due_at, m.next_try_at, m.give_up_at
        from messages m join contacts c using (contact_id)""")  # fmt: skip
    assert {(row.timezone, row.due_at) for row in found} == {
        ("Pacific/Auckland", datetime(2026, 11, 23, 20, tzinfo=UTC)),
        ("Asia/Tokyo", datetime(2026, 11, 24, 0, tzinfo=UTC)), ("Europe/Berlin", at),
        ("America/New_York", datetime(2026, 11, 24, 14, tzinfo=UTC)),
        ("", datetime(2026, 11, 24, 9, tzinfo=UTC)), ("Nowhere/Else", datetime(2026, 11, 24, 9, tzinfo=UTC)),
    }  # fmt: skip
    assert all(row.next_try_at == row.due_at and row.give_up_at == row.due_at + DAY for row in found)
    assert due(fresh_engine) == datetime(2026, 11, 23, 20, tzinfo=UTC)
    for moment, zones in [
        (datetime(2026, 11, 23, 20, tzinfo=UTC), {"Pacific/Auckland"}),
        (at - MINUTE, {"Pacific/Auckland", "Asia/Tokyo"}),
        (at, {"Pacific/Auckland", "Asia/Tokyo", "Europe/Berlin"}),
    ]:
        run_pump(fresh_engine, settings, later=moment - NOW)
        assert zones_sent(fresh_engine) == zones
    assert sent(fresh_engine, settings, datetime(2026, 11, 24, 14, tzinfo=UTC) - NOW) == 6
    assert finishing.finish(fresh_engine, datetime(2026, 11, 24, 14, tzinfo=UTC)) == [campaign.campaign_id]


def test_hours_of_local_time_are_those_of_the_recipient(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        in_zones(tx, "Asia/Tokyo", "Europe/Berlin", "America/New_York")  # 18:00, 10:00, 4:00
    campaign_id = planned(fresh_engine, settings, send_window={"local_time": True, "start": "09:00", "end": "17:00"})
    assert sent(fresh_engine, settings) == 1 and zones_sent(fresh_engine) == {"Europe/Berlin"}
    held = rows(fresh_engine, "select next_try_at, held_for from messages where status = 'queued' order by 1")
    assert [tuple(row) for row in held] == [
        (datetime(2026, 11, 22, 14, tzinfo=UTC), "window"), (datetime(2026, 11, 23, 0, tzinfo=UTC), "window"),
    ]  # fmt: skip
    assert sent(fresh_engine, settings, 5 * HOUR) == 1 and sent(fresh_engine, settings, 15 * HOUR) == 1
    assert states(fresh_engine, campaign_id) == {"sent": 3}


def test_a_retry_waits_for_the_window_too(fresh_engine: Engine, settings: Settings) -> None:
    """A refusal for now comes back ten minutes later: at 22:05 that person sleeps."""
    with fresh_engine.begin() as tx:
        in_zones(tx, "Asia/Tokyo")
    window = {"quiet_start": "22:00", "quiet_end": "08:00"}
    at = datetime(2026, 11, 22, 12, 55, tzinfo=UTC)  # 21:55 in Tokyo
    planned(fresh_engine, settings, at, send_window=window)
    later = Result(verdict=Verdict.DEFERRED, stage=Stage.RCPT, code=450, retry_after_seconds=600)
    channel = Null({"asia.tokyo-1@mail.example": later})
    assert run_pump(fresh_engine, settings, channel, later=at - NOW).counts == {"deferred": 1}
    assert sent(fresh_engine, settings, at + 11 * MINUTE - NOW) == 0
    (row,) = rows(fresh_engine, "select next_try_at, attempt_no, held_for from messages")
    assert tuple(row) == (datetime(2026, 11, 22, 23, tzinfo=UTC), 1, "window")
    assert sent(fresh_engine, settings, row.next_try_at - NOW) == 1


def test_quiet_hours_of_the_setting_hold_all_marketing_and_nothing_else(
    fresh_engine: Engine, settings: Settings
) -> None:
    quiet = replace(settings, quiet_hours="09:00-10:00", default_timezone="UTC")
    campaign_id = launched(fresh_engine, settings, 3)  # planned before the setting was made
    with fresh_engine.begin() as tx:
        ids = add_contacts(tx, 3, prefix="other")
        number = content.freeze(tx, NewContent(subject="S", html_body="<p>H</p>", strict=True))
        kinds = (Kind.WORKFLOW, Kind.AUTOMATION, Kind.TRANSACTIONAL)
        queue.queue(tx, [NewMessage(
            kind=kind, content_id=number, dedupe_key=f"k:{kind}", contact_id=ids[n], due_at=NOW, give_up_at=NOW + DAY,
            workflow_id=1 if kind is Kind.WORKFLOW else None,
        ) for n, kind in enumerate(kinds)])  # fmt: skip
    assert sent(fresh_engine, quiet) == 1
    assert rows(fresh_engine, "select kind from messages where status = 'sent'")[0].kind == "transactional"
    assert due(fresh_engine) == NOW + HOUR, "they are put off, not looked at again and again"
    assert sent(fresh_engine, quiet, HOUR) == 5 and states(fresh_engine, campaign_id) == {"sent": 3}


def test_what_waits_too_long_expires_while_its_window_is_closed(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 3, send_window={"weekdays": [6]}, expires_after_hours=24)  # Sunday
    assert sent(fresh_engine, settings) == 0 and due(fresh_engine) == NOW + DAY
    assert run_pump(fresh_engine, settings, later=DAY).counts == {"skipped": 3}
    assert states(fresh_engine, campaign_id) == {"skipped expired": 3}
    assert finishing.finish(fresh_engine, NOW + DAY) == [campaign_id]


def test_an_edited_window_takes_effect_at_once_on_queued_messages(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        in_zones(tx, "Asia/Tokyo", "Europe/Berlin", each=3)
    campaign_id = planned(fresh_engine, settings, send_window={"local_time": True, "start": "11:00", "end": "12:00"})
    assert sent(fresh_engine, settings) == 0
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"send_window": {"local_time": True, "start": "17:00", "end": "19:00"}}, now=NOW)
    assert due(fresh_engine) is not None and due(fresh_engine) < NOW
    assert sent(fresh_engine, settings) == 3 and zones_sent(fresh_engine) == {"Asia/Tokyo"}
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"send_window": {}}, now=NOW)
    assert sent(fresh_engine, settings) == 3
    with fresh_engine.begin() as tx:
        assert store.change(tx, campaign_id, {"name": "New"}, now=NOW).is_paced


# --- limits ---


def test_a_limit_holds_for_any_hour_and_is_felt_at_once_when_it_is_changed(
    fresh_engine: Engine, settings: Settings
) -> None:
    campaign_id = launched(fresh_engine, settings, 30, max_per_hour=10)
    assert sent(fresh_engine, settings) == 10 and sent(fresh_engine, settings) == 0
    assert due(fresh_engine) == NOW + 61 * MINUTE
    assert sent(fresh_engine, settings, 60 * MINUTE) == 0, "the minute it went in counts whole"
    assert sent(fresh_engine, settings, 61 * MINUTE) == 10
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"max_per_hour": 13}, now=NOW + 61 * MINUTE)
    assert sent(fresh_engine, settings, 61 * MINUTE) == 3
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"max_per_hour": 0}, now=NOW + 61 * MINUTE)
    assert sent(fresh_engine, settings, 61 * MINUTE) == 7


def test_a_limit_given_under_way_counts_what_went_before(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 30)
    later = Result(verdict=Verdict.DEFERRED, stage=Stage.RCPT, code=450, retry_after_seconds=60)
    assert run_pump(fresh_engine, settings, null(dict.fromkeys(range(9, 31), later))).counts["sent"] == 8
    with fresh_engine.begin() as tx:
        values = {"max_per_hour": 20, "domain_limits": {"mail.example": 15}}
        assert store.change(tx, campaign_id, values, now=NOW + MINUTE).is_paced
    assert sent(fresh_engine, settings, 2 * MINUTE) == 7
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"domain_limits": {}}, now=NOW + 2 * MINUTE)
    assert sent(fresh_engine, settings, 2 * MINUTE) == 5


def test_the_day_and_the_schedule_limit_too(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 30)
        campaign = add_campaign(tx, max_per_day=25, max_per_hour=100, expires_after_hours=72)
        new = NewSchedule(campaign_id=campaign.campaign_id, send_at=NOW + HOUR, max_per_hour=20, max_per_day=1000)
        made = scheduling.create(tx, new, actor="test", now=NOW)
    planning.plan_due(fresh_engine, settings, NOW + HOUR)
    assert sent(fresh_engine, settings, HOUR) == 20, "the smaller one counts"
    with fresh_engine.connect() as tx:
        from mautolib.campaigns import runs

        shown = runs.stats(tx, schedules.get(tx, made.schedule_id), now=NOW + HOUR)
    assert (shown.total, shown.sent, shown.throttled) == (30, 20, 10)
    assert sent(fresh_engine, settings, 3 * HOUR) == 5
    assert sent(fresh_engine, settings, 20 * HOUR) == 0
    assert due(fresh_engine) == NOW + 25 * HOUR + MINUTE
    assert sent(fresh_engine, settings, 25 * HOUR + MINUTE) == 5


def test_a_domain_that_is_full_keeps_nobody_else_waiting(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        add_contacts(tx, 60)
        ids = add_contacts(tx, 10, prefix="small")
        tx.execute(text("""
            update contacts set email = replace(email, 'mail', 'small'), email_key = replace(email_key, 'mail', 'small')
            where contact_id = any(:ids)"""), {"ids": ids})  # fmt: skip
    campaign_id = planned(fresh_engine, settings, domain_limits={"MAIL.example": 12, "*": 100})
    assert sent(fresh_engine, settings) == 22
    held = rows(fresh_engine, """
        select next_try_at, count(*) as n from messages where status = 'queued' and held_for = 'limit' group by 1
        order by 1""")  # fmt: skip
    assert sum(row.n for row in held) == 48 and len(held) == 48, "an hour's twelve are spread over the hour"
    assert held[0].next_try_at == NOW + 65 * MINUTE and due(fresh_engine) == NOW + 65 * MINUTE
    total = 0
    for minutes in range(60, 60 * 6, 5):
        total += sent(fresh_engine, settings, minutes * MINUTE)
        assert most_in_an_hour(fresh_engine, "mail.example") <= 12
    assert total == 48 and states(fresh_engine, campaign_id) == {"sent": 70}


def most_in_an_hour(engine: Engine, domain: str = "") -> int:
    """The most messages sent in any hour, counted by the ledger."""
    found = rows(engine, """
        select sent_at from messages join contacts using (contact_id)
        where sent_at is not null and email_key like :domain order by 1""", domain=f"%{domain}")  # fmt: skip
    moments = [row.sent_at for row in found]
    return max((sum(moment <= other < moment + HOUR for other in moments) for moment in moments), default=0)


def test_an_edited_domain_limit_frees_what_was_held(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 20, domain_limits={"mail.example": 5})
    assert sent(fresh_engine, settings) == 5
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"domain_limits": {"mail.example": 8}}, now=NOW)
    assert sent(fresh_engine, settings) == 3
    with fresh_engine.begin() as tx:
        store.change(tx, campaign_id, {"domain_limits": {}}, now=NOW)
    assert sent(fresh_engine, settings) == 12


def test_everything_together_has_a_limit_and_a_warm_up(fresh_engine: Engine, settings: Settings) -> None:
    limited = replace(settings, max_per_hour=7)
    first = launched(fresh_engine, settings, 5)
    second = planned(fresh_engine, settings)
    assert sent(fresh_engine, limited, group_size=2) == 7
    assert states(fresh_engine, first).get("sent", 0) + states(fresh_engine, second).get("sent", 0) == 7
    assert due(fresh_engine) == NOW + 61 * MINUTE
    warm = replace(settings, warmup_per_day=8, warmup_growth_percent=50, warmup_from="2026-11-22")
    assert sent(fresh_engine, warm) == 1, "seven went before; eight may on the first day"
    assert [limits.warmup_limit(warm, NOW + n * DAY) for n in (-1, 0, 1, 2, 9)] == [8, 8, 12, 18, 303]
    assert limits.warmup_limit(replace(warm, warmup_growth_percent=0), NOW + 100 * DAY) == 8
    assert limits.warmup_limit(settings, NOW) == 0


@pytest.mark.parametrize("group_size", [1, 7])
@pytest.mark.thorough
def test_many_senders_together_never_exceed_a_limit(
    fresh_engine: Engine, settings: Settings, group_size: int
) -> None:
    strict = replace(settings, max_per_hour=60)
    first = launched(fresh_engine, settings, 100, max_per_hour=40)
    second = planned(fresh_engine, settings, max_per_day=25)
    third = planned(fresh_engine, settings, domain_limits={"*": 20})

    def together(later: timedelta, used: Settings) -> dict[int, int]:
        with ThreadPoolExecutor(5) as threads:
            jobs = [threads.submit(sent, fresh_engine, used, later, group_size=group_size) for _ in range(5)]
            for job in jobs:
                job.result()
        return {number: states(fresh_engine, number).get("sent", 0) for number in (first, second, third)}

    found = together(timedelta(0), strict)
    assert sum(found.values()) == 60 and found[first] <= 40 and found[second] <= 25 and found[third] <= 20
    begun = found[first]
    assert together(30 * MINUTE, strict) == found, "all of them have had their hour's worth"
    found = together(30 * MINUTE, settings)
    assert found == {first: 40, second: 25, third: 20}, "without the common limit each has its own"
    found = together(66 * MINUTE, settings)
    assert found[first] == 40 + begun and found[second] == 25 and 20 <= found[third] <= 40
    with fresh_engine.connect() as tx:
        assert check.check(tx) == []


def test_what_was_not_handed_over_does_not_count(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 12, max_per_hour=10)
    released = Result(verdict=Verdict.RELEASED, stage=Stage.CONNECT, retry_after_seconds=60)
    channel = null(dict.fromkeys(range(1, 7), released))
    assert run_pump(fresh_engine, settings, channel).counts["released"] == 6
    assert sent(fresh_engine, settings, 2 * MINUTE) == 4
    assert states(fresh_engine, campaign_id) == {"sent": 10, "queued": 2}


def test_pause_and_cancel_hold_for_a_paced_campaign_too(fresh_engine: Engine, settings: Settings) -> None:
    campaign_id = launched(fresh_engine, settings, 10, max_per_hour=5)
    assert sent(fresh_engine, settings) == 5
    with fresh_engine.begin() as tx:
        control.pause(tx, campaign_id, now=NOW)
        store.change(tx, campaign_id, {"max_per_hour": 8}, now=NOW)
    assert sent(fresh_engine, settings) == 0 and due(fresh_engine) is None
    with fresh_engine.begin() as tx:
        control.resume(tx, campaign_id, now=NOW)
    assert sent(fresh_engine, settings) == 3
    with fresh_engine.begin() as tx:
        control.cancel(tx, campaign_id, now=NOW)
    assert states(fresh_engine, campaign_id) == {"sent": 8, "skipped cancelled": 2}


# --- frequency cap ---


def test_the_frequency_cap_is_seen_when_planning_and_again_when_claiming(
    fresh_engine: Engine, settings: Settings
) -> None:
    capped = replace(settings, frequency_cap=2, frequency_cap_days=7)
    ids = [launched(fresh_engine, capped, 3), planned(fresh_engine, capped), planned(fresh_engine, capped)]
    assert sent(fresh_engine, capped) == 6
    assert sum(states(fresh_engine, number).get("sent", 0) for number in ids) == 6
    assert rows(fresh_engine, "select count(*) as n from messages where reason = 'frequency_cap'")[0].n == 3
    late = planned(fresh_engine, capped, NOW + 6 * DAY)
    assert states(fresh_engine, late) == {"skipped frequency_cap": 3}
    later = planned(fresh_engine, capped, NOW + 7 * DAY + MINUTE)
    assert sent(fresh_engine, capped, 7 * DAY + MINUTE) == 3 and states(fresh_engine, later) == {"sent": 3}


def test_other_mail_knows_no_cap(fresh_engine: Engine, settings: Settings) -> None:
    capped = replace(settings, frequency_cap=1)
    launched(fresh_engine, capped, 1)
    assert sent(fresh_engine, capped) == 1
    with fresh_engine.begin() as tx:
        number = content.freeze(tx, NewContent(subject="S", html_body="<p>H</p>", strict=True))
        (contact_id,) = tx.scalars(text("select contact_id from contacts")).all()
        queue.queue(tx, [NewMessage(
            kind=kind, content_id=number, dedupe_key=f"k:{kind}", contact_id=contact_id, due_at=NOW,
            give_up_at=NOW + DAY,
        ) for kind in (Kind.TRANSACTIONAL, Kind.CONFIRMATION, Kind.WORKFLOW)])  # fmt: skip
    assert sent(fresh_engine, capped) == 2
    assert states_of_kind(fresh_engine, "workflow") == ["skipped frequency_cap"]


def states_of_kind(engine: Engine, kind: str) -> list[str]:
    sql = "select status || coalesce(' ' || reason, '') as state from messages where kind = :kind"
    return [row.state for row in rows(engine, sql, kind=kind)]


@pytest.mark.thorough
def test_k10_parallel_campaigns_never_exceed_the_cap(fresh_engine: Engine, settings: Settings) -> None:
    capped = replace(settings, frequency_cap=2)
    ids = [launched(fresh_engine, settings, 40), *(planned(fresh_engine, settings) for _ in range(4))]
    with ThreadPoolExecutor(5) as threads:
        jobs = [threads.submit(sent, fresh_engine, capped, group_size=5) for _ in range(5)]
        total = sum(job.result() for job in jobs)
    most = rows(fresh_engine, "select count(*) as n from messages where sent_at is not null group by contact_id")
    assert {row.n for row in most} == {2} and total == 80, "each of them got two, and nobody a third"
    left: Sequence[str] = [state for number in ids for state in states(fresh_engine, number)]
    assert set(left) == {"sent", "skipped frequency_cap"}


def test_two_claims_at_once_do_not_both_give_a_person_their_last_mail(
    fresh_engine: Engine, settings: Settings
) -> None:
    """Of two campaigns, at the same moment: the second waits for what the first decided."""
    capped = replace(settings, frequency_cap=1)
    first, second = launched(fresh_engine, settings, 3), planned(fresh_engine, settings)
    one, other = (Turnstile(capped, message_identity(capped), 10) for _ in range(2))
    other._last = first  # Its turn is the other campaign's.
    with fresh_engine.begin() as held, fresh_engine.begin() as waiting:
        taken = one.next_group(held, claim.new_attempt(held), NOW)
        assert len(taken.messages) == 3
        found = other.next_group(waiting, claim.new_attempt(waiting), NOW)
        assert found.messages == () and not found.skipped and found.is_contended and not found.is_empty
    assert sent(fresh_engine, capped) == 0
    assert states(fresh_engine, second) == {"skipped frequency_cap": 3}


# --- explaining ---


def test_explain_tells_what_a_message_waits_for(fresh_engine: Engine, settings: Settings) -> None:
    capped = replace(settings, frequency_cap=1)
    campaign_id = launched(fresh_engine, settings, 3, max_per_hour=1, send_window={"start": "08:00", "end": "10:00"})
    sent(fresh_engine, settings)
    with fresh_engine.connect() as tx:
        campaign = store.get(tx, campaign_id)
        (done,) = tx.scalars(text("select contact_id from messages where status = 'sent'")).all()
        found = limits.explain(tx, capped, campaign, done, now=NOW)
        said = {one.check: (one.passed, one.detail) for one in found}
        later = limits.explain(tx, settings, campaign, done, now=NOW + 2 * HOUR)
        assert limits.explain(tx, settings, campaign, 10**12, now=NOW) == []
    assert said == {
        "send_window": (True, "open now (UTC)"), "limits": (False, "full until 2026-11-22T10:01:00Z"),
        "frequency_cap": (False, "1 of 1 marketing mails in 7 days"),
    }  # fmt: skip
    assert later[0].detail == "opens at 2026-11-23T08:00:00Z (UTC)" and not later[0].passed
