"""Sign-up cohorts, counted by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import analytics
from mautolib.analytics import readers
from mautolib.analytics.cohorts import refresh_within
from mautolib.errors import InvalidInput, NotFound
from tests.builders import make_contact, make_event

# A Monday. Its week is 2026-W02.
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def cells(tx: Connection, granularity: str, start: date) -> list[tuple[int, int | None, float | None]]:
    """(offset, active, rate) of one cohort."""
    rows = tx.execute(
        text("select period_offset, active_count, retention_rate from analytics.contact_cohorts "
             "where granularity = :g and cohort_start = :s order by period_offset"),
        {"g": granularity, "s": start},
    )  # fmt: skip
    return [(row.period_offset, row.active_count, None if row.retention_rate is None else float(row.retention_rate))
            for row in rows]  # fmt: skip


def world(tx: Connection) -> None:
    """Three contacts of week 2026-W02 and one of the week after, with opens and clicks on known days."""
    early = make_contact(tx, created_at=MONDAY)
    late = make_contact(tx, created_at=MONDAY + 6 * DAY + timedelta(hours=23), subscribed=False)
    make_contact(tx, created_at=MONDAY + 2 * DAY)
    other = make_contact(tx, created_at=MONDAY + 7 * DAY)
    make_event(tx, early, "email_opened", MONDAY)
    make_event(tx, early, "email_clicked", MONDAY + timedelta(hours=1))
    make_event(tx, early, "email_opened", MONDAY + 7 * DAY - timedelta(seconds=1))
    make_event(tx, early, "email_opened", MONDAY + 14 * DAY)
    make_event(tx, late, "email_opened", MONDAY + 14 * DAY)
    make_event(tx, late, "email_opened", MONDAY + 5 * DAY)
    make_event(tx, late, "page_viewed", MONDAY + 8 * DAY)
    make_event(tx, other, "email_clicked", MONDAY + 30 * DAY)


def test_activity_is_counted_from_the_own_signup(tx: Connection) -> None:
    world(tx)
    refresh_within(tx, as_of=MONDAY + 28 * DAY)
    # early: weeks 0 and 2. late signed up on Sunday evening: the open of day 14 falls into the own week 1; the one
    # before the sign-up counts nowhere, a page view is no open. The cohort's week 2 ends with day 28, week 3 later.
    assert cells(tx, "week", date(2026, 1, 5)) == [(0, 1, 33.3333), (1, 1, 33.3333), (2, 1, 33.3333), (3, None, None)]
    assert cells(tx, "week", date(2026, 1, 12)) == [(0, 0, 0.0), (1, 0, 0.0), (2, None, None)]
    assert cells(tx, "month", date(2026, 1, 1)) == [(0, None, None), (1, None, None)]
    refresh_within(tx, as_of=datetime(2026, 3, 3, tzinfo=UTC))
    assert cells(tx, "month", date(2026, 1, 1))[:2] == [(0, 3, 75.0), (1, None, None)]
    assert cells(tx, "week", date(2026, 1, 12))[2:5] == [(2, 0, 0.0), (3, 1, 100.0), (4, 0, 0.0)]


def test_day_cohorts_reach_back_90_days(tx: Connection) -> None:
    world(tx)
    refresh_within(tx, as_of=MONDAY + 3 * DAY)
    assert cells(tx, "day", date(2026, 1, 5)) == [(0, 1, 100.0), (1, 0, 0.0), (2, None, None)]
    refresh_within(tx, as_of=MONDAY + 91 * DAY)
    days = tx.scalars(text("select distinct cohort_start from analytics.contact_cohorts where granularity = 'day'"))
    assert sorted(days) == [date(2026, 1, 7), date(2026, 1, 11), date(2026, 1, 12)]


def test_a_row_says_everything_about_its_cohort(tx: Connection) -> None:
    world(tx)
    refresh_within(tx, as_of=MONDAY + 28 * DAY)
    rows = tx.execute(
        text("select granularity, cohort_label, cohort_size, subscribed_count, is_complete "
             "from analytics.contact_cohorts where period_offset = 0 and cohort_start < '2026-01-12' "
             "order by granularity, cohort_start")
    )  # fmt: skip
    assert [tuple(row) for row in rows] == [
        ("day", "2026-01-05", 1, 1, True), ("day", "2026-01-07", 1, 1, True), ("day", "2026-01-11", 1, 0, True),
        ("month", "2026-01", 4, 3, False), ("week", "2026-W02", 3, 2, True),
    ]  # fmt: skip


def test_late_events_restate_their_cell_and_a_range_leaves_the_others(tx: Connection) -> None:
    world(tx)
    as_of = MONDAY + 28 * DAY
    before = refresh_within(tx, as_of=as_of)
    third, other = tx.scalars(text("select contact_id from contacts order by contact_id offset 2")).all()
    make_event(tx, third, "email_opened", MONDAY + 3 * DAY, received_at=as_of)
    make_event(tx, other, "email_opened", MONDAY + 8 * DAY, received_at=as_of)
    assert refresh_within(tx, as_of=as_of, from_=date(2026, 1, 15), to=date(2026, 1, 15)) == 3 + 2
    assert cells(tx, "week", date(2026, 1, 5))[0] == (0, 1, 33.3333)
    assert cells(tx, "week", date(2026, 1, 12))[0] == (0, 1, 100.0), "a week that touches the range is whole"
    assert refresh_within(tx, as_of=as_of) == before
    assert cells(tx, "week", date(2026, 1, 5))[0] == (0, 2, 66.6667)


def test_counts_stay_within_their_cohort(tx: Connection) -> None:
    for number in range(40):
        contact = make_contact(tx, created_at=MONDAY + number * timedelta(hours=37))
        for step in range(number % 5):
            make_event(tx, contact, "email_opened", MONDAY + number * timedelta(hours=37) + step * 9 * DAY)
    refresh_within(tx, as_of=MONDAY + 200 * DAY)
    wrong = tx.scalar(text(
        "select count(*) from analytics.contact_cohorts where active_count > cohort_size "
        "or subscribed_count > cohort_size or is_complete <> (retention_rate is not null)"))  # fmt: skip
    assert wrong == 0
    sizes = tx.execute(text("select granularity, sum(cohort_size) from analytics.contact_cohorts "
                            "where period_offset = 0 and granularity <> 'day' group by 1"))  # fmt: skip
    assert dict(sizes.all()) == {"week": 40, "month": 40}  # type: ignore[arg-type]


def test_nothing_to_restate(tx: Connection) -> None:
    assert refresh_within(tx, as_of=MONDAY) == 0
    with pytest.raises(InvalidInput, match="ends"):
        refresh_within(tx, as_of=MONDAY, from_=date(2026, 2, 1), to=date(2026, 1, 1))


def test_a_rebuild_takes_all(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        world(tx)
    as_of = MONDAY + 28 * DAY
    part = analytics.cohorts.refresh(fresh_engine, as_of=as_of, from_=date(2026, 1, 12))
    whole = analytics.cohorts.refresh(fresh_engine, as_of=as_of, from_=date(2026, 1, 12), rebuild=True)
    frame = readers.to_frame(fresh_engine, "contact_cohorts")
    assert (part, whole) == (3 + 2 + 21, len(frame))
    assert frame.loc[frame["cohort_label"] == "2026-W02", "active_count"].dropna().tolist() == [1, 1, 1]
    with pytest.raises(NotFound, match="no view 'contacts'"):
        readers.to_frame(fresh_engine, "contacts")


def test_signup_weeks_end_with_the_current_one(tx: Connection) -> None:
    world(tx)
    weeks = readers.signup_weeks(tx, weeks=4, now=MONDAY + 8 * DAY)
    assert [(week["cohort"], week["total"], week["subscribed"], week["retention_pct"]) for week in weeks] == [
        ("2025-W52", 0, 0, 0.0), ("2026-W01", 0, 0, 0.0), ("2026-W02", 3, 2, 66.7), ("2026-W03", 1, 1, 100.0),
    ]  # fmt: skip
    assert weeks[-1]["week_start"] == date(2026, 1, 12)
    with pytest.raises(InvalidInput):
        readers.signup_weeks(tx, weeks=0, now=MONDAY)


def test_the_rights_of_worker_and_api_suffice(tx: Connection) -> None:
    world(tx)
    tx.execute(text("set local role mauto_worker"))
    assert refresh_within(tx, as_of=MONDAY + 28 * DAY) == 106
    tx.execute(text("set local role mauto_api"))
    assert readers.dashboard_stats(tx)["total_contacts"] == 4
    assert len(readers.signup_weeks(tx, weeks=4, now=MONDAY)) == 4
    assert readers.recent_campaigns(tx) == []
