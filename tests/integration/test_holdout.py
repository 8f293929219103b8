"""The global hold-out on a real database: who is in it, marketing mail passes them by, what the report says."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from mautolib import workflows
from mautolib.analytics import incrementality, incrementality_sums, refreshing
from mautolib.analytics.incrementality import Verdict
from mautolib.campaigns import explaining, holdout, planning, preview, store
from mautolib.contacts import consent
from mautolib.errors import InvalidInput
from mautolib.ledger import content
from mautolib.ledger.model import Kind, NewContent, NewMessage
from mautolib.ledger.queue import queue
from mautolib.settings import Settings
from tests.builders import make_contact, make_order, make_suppression
from tests.integration.experimenting import parts, planned
from tests.integration.mailing import NOW, add_contacts, launched, rows, run_pump, states
from tests.integration.test_workflows import MAIL, enrolled

DAY = timedelta(days=1)
QUARTER = Decimal(25)


def held(tx: Connection, percent: Decimal | int, *, now: datetime = NOW, **more: Any) -> holdout.Period | None:
    return holdout.hold_out(tx, Decimal(percent), by="test", now=now, **more)


def kept(period: holdout.Period | None, contact_ids: Sequence[int]) -> list[int]:
    assert period is not None
    return [each for each in contact_ids if holdout.draw(period.salt, each) < period.bound]


def everybody(tx: Connection) -> list[int]:
    return list(tx.scalars(text("select contact_id from contacts order by contact_id")))


def test_the_draw_is_the_same_in_sql_and_python(tx: Connection) -> None:
    query = text("select holdout_draw(:salt, :id)")
    for salt in ("a", "0" * 64, "x_y-z"):
        for number in (0, 1, 42, 2**62):
            assert tx.scalar(query, {"salt": salt, "id": number}) == holdout.draw(salt, number) < holdout.DRAWS


def test_a_larger_share_keeps_everybody_and_another_draw_does_not(tx: Connection) -> None:
    people = range(4000)
    small, same, large = held(tx, 5), held(tx, 5), held(tx, 10, now=NOW + DAY)
    assert small == same, "what holds already changes nothing"
    few, many = kept(small, people), kept(large, people)
    assert set(few) < set(many) and 140 < len(few) < 260 and 320 < len(many) < 480
    assert held(tx, 0, now=NOW + 2 * DAY) is None and held(tx, 0, now=NOW + 2 * DAY) is None
    assert kept(held(tx, 5, now=NOW + 3 * DAY), people) == few, "the same people come first again"
    others = kept(held(tx, 5, now=NOW + 4 * DAY, reshuffle=True), people)
    assert len(set(few) & set(others)) < 30
    assert [(each.percent, each.begun_at, each.ended_at) for each in holdout.periods(tx)] == [
        (5, NOW, NOW + DAY), (10, NOW + DAY, NOW + 2 * DAY), (5, NOW + 3 * DAY, NOW + 4 * DAY), (5, NOW + 4 * DAY, None)
    ]  # fmt: skip


@pytest.mark.parametrize("percent", ["-1", "50.01", "0.001", "NaN", "Infinity", "1e9"])
def test_another_share_is_refused(tx: Connection, percent: str) -> None:
    with pytest.raises(InvalidInput, match="0 to 50 percent"):
        holdout.hold_out(tx, Decimal(percent), by="test", now=NOW)


def test_one_share_holds_at_a_time(tx: Connection) -> None:
    held(tx, 5)
    with pytest.raises(IntegrityError):
        tx.execute(text("insert into holdout_periods (salt, percent, begun_at, changed_by)"
                        " values ('other', 5, now(), 'test')"))  # fmt: skip


def test_campaigns_pass_them_by_and_say_so(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        period = held(tx, QUARTER)
        make_contact(tx, subscribed=False)
    campaign_id = launched(fresh_engine, settings, 60)
    with fresh_engine.begin() as tx:
        people = everybody(tx)
        out = kept(period, people[1:])
        counted = preview.count(tx, settings, store.get(tx, campaign_id), now=NOW)
    assert 5 <= len(out) <= 25
    assert counted.excluded == {"global_holdout": len(out), "unsubscribed": 1} and counted.mailable == 60 - len(out)
    told = rows(fresh_engine, "select contact_id, ab_part from messages where reason = 'global_holdout' order by 1")
    assert [tuple(row) for row in told] == [(each, None) for each in out]
    assert states(fresh_engine, campaign_id) == {
        "queued": 60 - len(out), "skipped global_holdout": len(out), "skipped unsubscribed": 1
    }  # fmt: skip
    explained = explaining.explain(fresh_engine, settings, campaign_id, out[0], now=NOW)
    assert (explained.outcome, explained.reason) == (explaining.Outcome.SKIPPED, "global_holdout")
    assert run_pump(fresh_engine, settings).counts["sent"] == 60 - len(out)
    with fresh_engine.begin() as tx:
        held(tx, 0)
        again = planning.count_audience(tx, settings, store.get(tx, campaign_id), now=NOW)
    assert (again.candidates, again.mailable) == (61, 60)


@pytest.mark.parametrize("cap", [0, 100], ids=["unpaced", "paced"])
def test_what_waits_follows_at_the_claim_and_mail_that_is_no_marketing_goes(
    fresh_engine: Engine, settings: Settings, cap: int
) -> None:
    """Everybody's mail was queued before half of them were held out."""
    campaign_id = launched(fresh_engine, settings, 20)
    with fresh_engine.begin() as tx:
        content_id = content.freeze(tx, NewContent(subject="s", html_body="<p>h</p>"))
        queue(tx, [
            NewMessage(kind=kind, content_id=content_id, dedupe_key=f"{kind}:{each}", due_at=NOW,
                       give_up_at=NOW + DAY, contact_id=each)
            for kind in (Kind.WORKFLOW, Kind.AUTOMATION, Kind.TRANSACTIONAL, Kind.CONFIRMATION)
            for each in everybody(tx)
        ])  # fmt: skip
        out = len(kept(held(tx, 50), everybody(tx)))
    assert 4 <= out <= 16
    run_pump(fresh_engine, replace(settings, frequency_cap=cap))
    found = rows(fresh_engine, "select kind || ' ' || status || coalesce(' ' || reason, '') as what, count(*) as n "
                               "from messages group by 1")  # fmt: skip
    assert {row.what: row.n for row in found} == {
        **{f"{kind} {what}": number for kind in ("campaign", "workflow", "automation")
           for what, number in (("skipped global_holdout", out), ("sent", 20 - out))},
        "transactional sent": 20, "confirmation sent": 20,
    }  # fmt: skip
    assert states(fresh_engine, campaign_id) == {"sent": 20 - out, "skipped global_holdout": out}


def test_steps_of_workflows_give_the_reason(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        people = add_contacts(tx, 30)
        out = kept(held(tx, 50), people)
    enrolled(fresh_engine, [MAIL, {"action": "tag", "tag_name": "seen"}], people)
    workflows.advance(fresh_engine, settings, now=NOW + 4 * DAY)
    errors = rows(fresh_engine, "select contact_id from workflow_logs where result ->> 'error' = 'global_holdout'")
    assert sorted(row.contact_id for row in errors) == out
    assert {row.contact_id for row in rows(fresh_engine, "select contact_id from messages")} == set(people) - set(out)
    assert len(rows(fresh_engine, "select from contact_tags")) == 30, "everything else of the workflow is theirs too"


def test_a_test_divides_those_who_are_left(fresh_engine: Engine, settings: Settings) -> None:
    with fresh_engine.begin() as tx:
        period = held(tx, QUARTER)
    test = planned(fresh_engine, settings, 80, test_percentage=50, holdout_percentage=20)
    with fresh_engine.begin() as tx:
        out = len(kept(period, everybody(tx)))
    found = parts(fresh_engine, test)
    assert found.pop("none skipped global_holdout") == out
    assert sum(found.values()) == 80 - out and found["holdout skipped holdout"] < 40
    assert {name.partition(" ")[0] for name in found} == {"holdout", "test", "rest"}


def shop(tx: Connection, *, people: int = 1200, since: datetime = NOW) -> list[int]:
    """People, of whom every third buys before and after; those mailed for 5 more. Returns who is held out."""
    ids = [make_contact(tx, created_at=since - 100 * DAY) for _ in range(people)]
    period = holdout.periods(tx)[-1]
    out = set(kept(period, ids))
    for place, each in enumerate(ids):
        if place % 3 == 0:
            worth = 20 + place % 41
            make_order(tx, each, since - 10 * DAY, total=str(worth))
            make_order(tx, each, since + 3 * DAY, total=str(worth + (0 if each in out else 5) + place % 7))
    return sorted(out)


def test_the_report_counts_everybody_from_the_first_moment(tx: Connection) -> None:
    held(tx, QUARTER)
    out = shop(tx)
    loyal = set(everybody(tx)) - set(out)
    # Nobody who could not be mailed when it began, nor their orders; from when they could be, though.
    never = make_contact(tx, subscribed=False)
    make_suppression(tx, "gone@shop.example", created_at=NOW - DAY)
    gone = make_contact(tx, email="gone@shop.example")
    late = make_contact(tx, created_at=NOW + 2 * DAY)
    for each in (never, gone, late):
        make_order(tx, each, NOW + DAY, total="1000")
    make_order(tx, late, NOW + 4 * DAY, total="7")
    # Who left because of the mail is still of those mailed.
    left = min(loyal)
    consent.unsubscribe(tx, left, source="test", actor="test", now=NOW + DAY)
    found = incrementality.report(tx, NOW, NOW + 10 * DAY, now=NOW + 20 * DAY)
    assert found.verdict is Verdict.MEASURED, found.reason
    assert found.mailed is not None and found.held_out is not None
    is_late_out = holdout.draw(holdout.periods(tx)[-1].salt, late) < holdout.periods(tx)[-1].bound
    assert (found.held_out.contacts, found.mailed.contacts) == (len(out) + is_late_out, len(loyal) + 1 - is_late_out)
    wanted = tx.execute(text(
        "select sum(total) filter (where contact_id = any(:out)), sum(total) filter (where contact_id <> all(:out)) "
        "from orders where placed_at >= :start and contact_id <> all(:others)"),
        {"out": out, "start": NOW, "others": [never, gone, late]}).one()  # fmt: skip
    assert found.held_out.revenue == wanted[0] + 7 * is_late_out
    assert found.mailed.revenue == wanted[1] + 7 * (not is_late_out)
    # The reading of the whole is the difference of means, and what was spent before makes it more exact.
    assert found.revenue is not None and found.adjusted is not None and found.reduction is not None
    assert found.revenue.difference == pytest.approx(
        float(found.mailed.revenue) / found.mailed.contacts - float(found.held_out.revenue) / found.held_out.contacts
    )
    assert found.reduction > 0.8
    # Who is drawn depends on the numbers contacts got: four standard errors, or one run in twenty fails.
    assert abs(found.adjusted.difference - 5 / 3) < 2 * (found.adjusted.high - found.adjusted.difference)
    assert found.adjusted.high - found.adjusted.low < (found.revenue.high - found.revenue.low) / 2
    assert found.total == pytest.approx(found.adjusted.difference * found.mailed.contacts)
    plain = incrementality.report(tx, NOW, NOW + 10 * DAY, now=NOW + 20 * DAY, pre_days=0)
    assert plain.adjusted is None and plain.revenue == found.revenue
    assert plain.total == pytest.approx(found.revenue.difference * found.mailed.contacts)
    lines = dict(csv.reader(io.StringIO(incrementality.csv_of(found))))
    assert lines["verdict"] == "measured" and float(lines["cuped_theta"]) == found.theta


def test_what_a_refresh_keeps_is_the_report(tx: Connection) -> None:
    (table,) = [item for item in refreshing.TABLES if item.table == "holdout_sums"]

    def counted(as_of: datetime, **more: Any) -> incrementality.Incrementality | None:
        refreshing.refresh_within(tx, table, as_of=as_of, **more)
        return incrementality_sums.last_report(tx)

    assert counted(NOW) is None, "there never was one"
    held(tx, QUARTER)
    shop(tx, people=400)
    first = counted(NOW + 5 * DAY)
    assert first == incrementality.report(tx, NOW, NOW + 5 * DAY, now=NOW + 5 * DAY) and first.mailed
    assert counted(NOW + 6 * DAY, from_=NOW.date(), to=NOW.date()) == first, "days that are restated are none of it"
    assert counted(NOW + 5 * DAY + timedelta(hours=1)) == first, "all contacts are read once a day"
    assert counted(NOW + 5 * DAY + timedelta(hours=2), rebuild=True) != first
    # A raised share: who was held out for a part of the time is in no group; the time goes on.
    latest = counted(NOW + 6 * DAY)
    held(tx, 40, now=NOW + 6 * DAY + timedelta(hours=1))
    assert incrementality_sums.last_report(tx) == latest
    changed = counted(NOW + 6 * DAY + timedelta(hours=2))
    assert changed and changed.mailed and changed.mailed.contacts < first.mailed.contacts, "what changed is counted"
    second = counted(NOW + 8 * DAY)
    assert second == incrementality.report(tx, NOW, NOW + 8 * DAY, now=NOW + 8 * DAY)
    assert second.mailed and second.mailed.contacts < first.mailed.contacts
    held(tx, 0, now=NOW + 9 * DAY)
    ended = counted(NOW + 20 * DAY)
    assert ended and (ended.from_at, ended.to_at) == (NOW, NOW + 9 * DAY)
    held(tx, QUARTER, now=NOW + 21 * DAY, reshuffle=True)
    assert incrementality_sums.last_report(tx) is None, "others are held out now"
    again = counted(NOW + 22 * DAY)
    assert again and again.from_at == NOW + 21 * DAY and again.mailed and again.mailed.orders == 0


def test_the_views_say_the_same_as_the_report(tx: Connection) -> None:
    start = datetime.fromisoformat("2026-03-02T00:00:00+00:00")
    held(tx, QUARTER, now=start)
    out = shop(tx, people=400, since=start)
    found = incrementality.report(tx, start, start + 10 * DAY, now=NOW)
    assert found.mailed is not None and found.held_out is not None
    tx.execute(text("set local role mauto_analyst"))
    rows_of = tx.execute(text(
        "select arm, sum(orders) as orders, sum(revenue) as revenue, max(contacts) as contacts "
        "from analytics.holdout_daily where day < '2026-03-12' group by arm")).all()  # fmt: skip
    days = {row.arm: row for row in rows_of}
    for name, arm in (("mailed", found.mailed), ("held_out", found.held_out)):
        assert (days[name].orders, days[name].revenue, days[name].contacts) == (arm.orders, arm.revenue, arm.contacts)
    arms = tx.execute(text("select contact_id, holdout_percent, ended_at from analytics.holdout_contacts "
                           "where arm = 'held_out' order by contact_id")).all()  # fmt: skip
    assert [tuple(row) for row in arms] == [(each, QUARTER, None) for each in out]


def test_a_time_without_one_hold_out_is_refused(tx: Connection) -> None:
    def verdict(start: int, end: int) -> tuple[Verdict, str]:
        found = incrementality.report(tx, NOW + start * DAY, NOW + end * DAY, now=NOW + 100 * DAY)
        return found.verdict, found.reason

    assert verdict(0, 9)[0] is Verdict.NO_HOLDOUT
    held(tx, 10, now=NOW)
    held(tx, 20, now=NOW + 10 * DAY)
    held(tx, 0, now=NOW + 20 * DAY)
    held(tx, 20, now=NOW + 30 * DAY)
    held(tx, 20, now=NOW + 40 * DAY, reshuffle=True)
    assert verdict(-5, -1)[0] is verdict(21, 29)[0] is Verdict.NO_HOLDOUT
    assert verdict(-1, 5) == (Verdict.NOT_LONG_ENOUGH, "The hold-out began at 2026-11-22 09:00 UTC")
    assert verdict(12, 25) == (Verdict.NOT_LONG_ENOUGH, "The hold-out ended at 2026-12-12 09:00 UTC")
    assert verdict(12, 35) == (Verdict.NOT_LONG_ENOUGH, "Nobody was held out for a part of this time")
    assert verdict(32, 45) == (Verdict.NOT_LONG_ENOUGH, "Other people were drawn in this time")
    assert verdict(5, 15) == (Verdict.NOT_ENOUGH_DATA, "A group has fewer than 100 contacts")
    assert incrementality.stretch(holdout.periods(tx)) == (NOW + 40 * DAY, None)
    with pytest.raises(InvalidInput, match="has ended"):
        incrementality.report(tx, NOW, NOW + 9 * DAY, now=NOW + 8 * DAY)
    with pytest.raises(InvalidInput, match="0 to 3650"):
        incrementality.report(tx, NOW, NOW + 9 * DAY, now=NOW + 9 * DAY, pre_days=-1)


def test_who_was_held_out_for_a_part_of_the_time_is_in_no_group(tx: Connection) -> None:
    held(tx, 10)
    shop(tx)
    held(tx, 30, now=NOW + 5 * DAY)
    found = incrementality.report(tx, NOW, NOW + 10 * DAY, now=NOW + 20 * DAY)
    salt, people = holdout.periods(tx)[-1].salt, everybody(tx)
    draws = [holdout.draw(salt, each) / holdout.DRAWS for each in people]
    tenth, rest = (sum(each < share for each in draws) for share in (0.1, 0.3))
    assert found.mailed is not None and found.held_out is not None and found.percent == 10
    assert (found.held_out.contacts, found.mailed.contacts) == (tenth, len(people) - rest)


def test_groups_that_are_not_as_drawn_say_nothing(tx: Connection) -> None:
    held(tx, QUARTER)
    out = shop(tx)
    tx.execute(text("delete from orders where contact_id = any(:ids)"), {"ids": out[:150]})
    tx.execute(text("delete from contacts where contact_id = any(:ids)"), {"ids": out[:150]})
    found = incrementality.report(tx, NOW, NOW + 10 * DAY, now=NOW + 20 * DAY)
    assert found.verdict is Verdict.SRM_DETECTED and "missing" in found.reason
    assert found.revenue is None and found.total is None and found.mailed is not None
