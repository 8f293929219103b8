"""Mail over time from whole days of the table and a live rest: at every moment what counting everything gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.analytics import readers_campaigns, readers_days, readers_trends, refreshing
from mautolib.analytics.readers_trends import Granularity
from tests.builders import make_campaign, make_contact, make_event, make_hit, make_message
from tests.effort import first_and_others
from tests.integration.test_rollup_tables import History

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def shown(tx: Connection, now: datetime, days: int = 40) -> dict[str, Any]:
    """All that is read by days."""
    campaign = tx.scalar(text("select max(campaign_id) from campaigns"))
    found: dict[str, Any] = {
        f"{grain} {number}": readers_trends.timeseries(tx, days=days, granularity=grain, now=now, campaign_id=number)
        for grain in (Granularity.DAY, Granularity.WEEK) for number in (None, campaign)
    }  # fmt: skip
    found |= {f"last {span}": readers_trends.dashboard(tx, days=span, now=now)["email_events"] for span in (1, 7, days)}
    found["all"] = readers_days.period_mails(tx, since=now - days * DAY, now=now)
    return found


def forget(tx: Connection) -> None:
    tx.execute(text("delete from rollups.states where table_name = 'daily_email_metrics'"))


def both(engine: Engine, now: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is shown, and what is shown when everything is counted."""
    with engine.connect() as tx:
        first = shown(tx, now)
        forget(tx)
        return first, shown(tx, now)


def refresh(engine: Engine, as_of: datetime) -> None:
    refreshing.refresh(engine, as_of=as_of, only=["daily_email_metrics"])


@pytest.mark.parametrize("seed", first_and_others(5))
def test_any_history_is_shown_as_a_live_count_shows_it(fresh_engine: Engine, seed: int) -> None:
    history = History(100 + seed)
    kept = 0
    for turn in range(7):
        with fresh_engine.begin() as tx:
            for _ in range(history.draw.randrange(1, 30)):
                history.happen(tx)
        if turn % 2:
            refresh(fresh_engine, history.now)
            history.now += timedelta(days=history.draw.randrange(0, 6), hours=history.draw.randrange(24))
            with fresh_engine.begin() as tx:
                for _ in range(history.draw.randrange(0, 3)):
                    history.happen(tx)
        for now in (history.now, history.now - 3 * DAY):
            split, live = both(fresh_engine, now)
            assert split == live, (turn, now)
        with fresh_engine.connect() as tx:
            kept += len(readers_days.split(tx, since=history.now - 40 * DAY, now=history.now).kept)
    assert kept > 50, "days came from the table"


def test_the_table_is_read_only_where_nothing_changed(fresh_engine: Engine) -> None:
    engine = fresh_engine
    with engine.begin() as tx:
        campaign = make_campaign(tx)
        mails = [make_message(tx, make_contact(tx), campaign_id=campaign, sent_at=NOON - n * DAY) for n in range(9)]
        assert readers_days.split(tx, since=NOON - 5 * DAY, now=NOON).live == [(NOON - 5 * DAY, None)], "no state"
    refresh(engine, NOON)
    midnight = NOON.replace(hour=0)
    with engine.begin() as tx:
        parts = readers_days.split(tx, since=NOON - 5 * DAY, now=NOON)
        assert parts.kept == [(NOON - n * DAY).date() for n in (4, 3, 2, 1)]
        assert parts.live == [(NOON - 5 * DAY, midnight - 4 * DAY), (midnight, None)]
        tx.execute(text("update analytics.daily_email_metrics set sent = sent + 100"))
        assert readers_days.period_mails(tx, since=NOON - 5 * DAY, now=NOON).sent == 6 + 400, "so it is the table"
        assert readers_days.period_mails(tx, since=NOON - 5 * DAY, now=NOON - 3 * DAY).sent == 6 + 100
    with engine.begin() as tx:
        tx.execute(text("update messages set status = 'bounced', bounced_at = :at where message_id = :id"),
                   {"at": NOON - 2 * DAY, "id": mails[3]})  # fmt: skip
        parts = readers_days.split(tx, since=midnight - 5 * DAY, now=NOON + DAY)
        assert parts.live == [(midnight - 3 * DAY, midnight - DAY), (midnight, None)], "its day and that of the bounce"
        assert readers_days.period_mails(tx, since=midnight - 5 * DAY, now=NOON).bounced == 1
        # A dump restored where transaction numbers began anew: what the state says is of no use.
        tx.execute(text("update rollups.states set snapshot = '99999999:99999999:'"))
        assert readers_days.split(tx, since=NOON - 5 * DAY, now=NOON).kept == ()
        assert readers_days.period_mails(tx, since=NOON - 5 * DAY, now=NOON).sent == 6


def test_in_a_large_house_past_days_are_the_table_s(fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_campaigns, "LIVE_MAILS", -1)
    midnight = NOON.replace(hour=0)
    with fresh_engine.begin() as tx:
        campaign = make_campaign(tx)
        mails = [make_message(tx, make_contact(tx), campaign_id=campaign, sent_at=NOON - n * DAY) for n in range(9)]
        assert readers_days.split(tx, since=NOON - 5 * DAY, now=NOON).live == [(NOON - 5 * DAY, None)], "no state"
    refresh(fresh_engine, NOON)
    with fresh_engine.begin() as tx:
        for day in (0, 1, 3):
            tx.execute(text("update messages set status = 'bounced', bounced_at = :at where message_id = :id"),
                       {"at": NOON - day * DAY, "id": mails[day]})  # fmt: skip
        parts = readers_days.split(tx, since=midnight - 5 * DAY, now=NOON)
        assert parts.live == [(midnight, None)] and len(parts.kept) == 5
        view = text("select sum(bounced) from analytics.daily_email_metrics")
        now = readers_days.period_mails(tx, since=midnight - 5 * DAY, now=NOON)
        assert (now.bounced, tx.scalar(view)) == (1, 0), "today is counted, the days before are as refreshed"
        later = readers_days.split(tx, since=midnight - 5 * DAY, now=NOON + 2 * DAY)
        assert later.live == [(midnight, None)], "what was not over at the last refresh is counted"
    refresh(fresh_engine, NOON + timedelta(minutes=1))
    with fresh_engine.begin() as tx:
        found = readers_days.period_mails(tx, since=midnight - 5 * DAY, now=NOON)
        assert found.bounced == tx.scalar(view) == 3


def test_a_refresh_of_a_past_day_alone_leaves_no_half_day(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        campaign = make_campaign(tx)
        for n in range(6):
            make_message(tx, make_contact(tx), campaign_id=campaign, sent_at=NOON - n * DAY)
    refresh(fresh_engine, NOON)
    past = NOON - 3 * DAY
    refreshing.refresh(fresh_engine, as_of=past - timedelta(hours=1), from_=(past - DAY).date(), to=(past + DAY).date(),
                       only=["daily_email_metrics"])  # fmt: skip
    split, live = both(fresh_engine, NOON)
    assert split == live


def test_many_scattered_changes_are_few_stretches(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        campaign = make_campaign(tx)
        for n in range(30):
            make_message(tx, make_contact(tx), campaign_id=campaign, sent_at=NOON - n * DAY)
    refresh(fresh_engine, NOON)
    with fresh_engine.begin() as tx:
        for n in (1, 4, 6, 9, 12, 15, 18, 25):
            person = make_contact(tx)
            make_message(tx, person, kind="automation", sent_at=NOON - n * DAY)
    with fresh_engine.connect() as tx:
        parts = readers_days.split(tx, since=NOON - 28 * DAY, now=NOON)
        assert len(parts.live) <= 6
        live_days = {
            (NOON - n * DAY).date() for n in range(29)
            if any(start <= NOON - n * DAY and (end is None or NOON - n * DAY < end) for start, end in parts.live)
        }  # fmt: skip
        assert live_days.isdisjoint(parts.kept) and len(live_days) + len(parts.kept) == 29
    split, live = both(fresh_engine, NOON)
    assert split == live


def test_opt_outs_from_single_mails_count_and_those_from_tests_do_not(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        for kind in ("workflow", "automation", "transactional", "confirmation", "test", "internal"):
            person = make_contact(tx)
            message = make_message(tx, person, kind=kind, sent_at=NOON - 3 * DAY)
            make_hit(tx, person, message, "click", occurred_at=NOON - 2 * DAY)
            make_event(tx, person, "unsubscribed", NOON - 2 * DAY, message_id=message)
            make_event(tx, person, "unsubscribed", NOON - DAY, message_id=message)
        make_event(tx, person, "unsubscribed", NOON - DAY)
    for _ in range(2):
        split, live = both(fresh_engine, NOON)
        assert split == live
        assert split["all"].unsubscribed == 4
        assert (split["all"].sent, split["all"].clicked) == (2, 2)
        refresh(fresh_engine, NOON)
