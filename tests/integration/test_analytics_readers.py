"""Time series, dashboard, cohorts, engagement and rankings, each figure worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from mautolib.analytics import cohorts, readers_campaigns, readers_trends, readers_views, refreshing
from mautolib.analytics.readers_campaigns import TopMetric
from mautolib.analytics.readers_trends import CohortGranularity, Granularity
from mautolib.campaigns import totals
from mautolib.db import tables
from mautolib.errors import InvalidInput, NotFound
from tests.builders import NOW, ago, make_campaign, make_contact, make_content, make_event, make_hit, make_message

#: A Sunday, in ISO week 9.
AT = NOW + timedelta(hours=12)


def send(
    tx: Connection, campaign: int | None, at: datetime = NOW, status: str = "sent", **fields: Any
) -> tuple[int, int]:
    """A contact and its message."""
    contact = make_contact(tx)
    if status in ("sent", "delivered", "complained", "bounced"):
        fields.setdefault("sent_at", at)
    fields.setdefault("content_id", make_content(tx))
    return contact, make_message(tx, contact, campaign_id=campaign, status=status, **fields)


def series(tx: Connection, granularity: Granularity = Granularity.DAY, days: int = 3, **more: Any) -> dict[str, Any]:
    more.setdefault("now", AT)
    found = readers_trends.timeseries(tx, days=days, granularity=granularity, **more)
    return {fact: {point["period"]: point["value"] for point in points} for fact, points in found.items()}


def test_each_thing_counts_on_the_day_it_happened(tx: Connection) -> None:
    campaign, other = make_campaign(tx, status="sent"), make_campaign(tx, status="sent")
    day = {number: AT - timedelta(days=number) for number in range(4)}
    contact, message = send(tx, campaign, day[2])
    make_hit(tx, contact, message, "open", occurred_at=day[2])
    make_hit(tx, contact, message, "open", occurred_at=day[1])
    make_hit(tx, contact, message, "click", occurred_at=day[1])
    make_hit(tx, contact, message, "click", occurred_at=day[1], verdict="bot")
    make_event(tx, contact, "unsubscribed", day[0], campaign_id=campaign, message_id=message)
    make_event(tx, contact, "unsubscribed", day[0], campaign_id=campaign, message_id=message)
    make_event(tx, make_contact(tx), "unsubscribed", day[0])
    send(tx, campaign, day[2], "bounced", bounced_at=day[0])
    send(tx, campaign, day[1], "complained", complained_at=day[0])
    send(tx, other, day[3])
    send(tx, None, day[0], kind="workflow", workflow_id=7)
    send(tx, None, day[0], kind="transactional")
    send(tx, campaign, day[0], kind="test")
    assert series(tx) == {
        "sent": {"2026-02-27": 2, "2026-02-28": 1, "2026-03-01": 1}, "bounced": {"2026-03-01": 1},
        "delivered": {"2026-02-27": 1, "2026-02-28": 1, "2026-03-01": 1}, "complained": {"2026-03-01": 1},
        "opened": {"2026-02-27": 1, "2026-02-28": 1}, "clicked": {"2026-02-28": 1}, "unsubscribed": {"2026-03-01": 1},
    }  # fmt: skip
    assert series(tx, campaign_id=campaign)["sent"] == {"2026-02-27": 2, "2026-02-28": 1}
    assert series(tx, campaign_id=other)["sent"] == {}
    assert series(tx, campaign_id=other, days=4)["sent"] == {"2026-02-26": 1}
    assert series(tx, fill=True)["clicked"] == {"2026-02-27": 0, "2026-02-28": 1, "2026-03-01": 0}


def test_the_newest_verdict_decides_over_time_too(tx: Connection) -> None:
    contact, message = send(tx, make_campaign(tx, status="sent"))
    for verdicts in (("human", "bot"), ("human", "bot"), ("bot", "human"), ("human", "human")):
        hit = make_hit(tx, contact, message, "open", verdict=verdicts[0])
        tx.execute(insert(tables.hit_verdicts).values(hit_id=hit, rule_version=2, verdict=verdicts[1], decided_at=NOW))
    assert series(tx)["opened"] == {"2026-03-01": 2}
    assert readers_trends.dashboard(tx, days=3, now=AT)["email_events"]["opened"] == 2


def test_periods_have_the_names_people_know(tx: Connection) -> None:
    def names(granularity: Granularity, days: int, now: datetime) -> list[str]:
        return list(series(tx, granularity, days, now=now, fill=True)["sent"])

    hours = names(Granularity.HOUR, 1, datetime(2026, 3, 1, 0, 30, tzinfo=UTC))
    assert (len(hours), hours[0], hours[-1]) == (24, "2026-02-28 01:00", "2026-03-01 00:00")
    new_year = datetime(2027, 1, 3, 23, 59, tzinfo=UTC)
    assert names(Granularity.WEEK, 8, new_year) == ["2026-W52", "2026-W53"], "3 January 2027 ends week 53 of 2026"
    assert names(Granularity.WEEK, 8, new_year + timedelta(minutes=1)) == ["2026-W53", "2027-W01"]
    assert names(Granularity.WEEK, 1, datetime(2025, 12, 29, tzinfo=UTC)) == ["2026-W01"]
    assert names(Granularity.DAY, 2, datetime(2028, 3, 1, 1, tzinfo=UTC)) == ["2028-02-29", "2028-03-01"]
    send(tx, make_campaign(tx, status="sent"), new_year - timedelta(days=6))
    assert series(tx, Granularity.WEEK, 8, now=new_year)["sent"] == {"2026-W53": 1}
    assert series(tx, Granularity.HOUR, 7, now=new_year)["sent"] == {"2026-12-28 23:00": 1}
    shown = readers_trends.timeseries(tx, days=8, granularity=Granularity.WEEK, now=new_year)
    assert shown["sent"] == [{"period": "2026-W53", "value": 1, "label": "Week 53, 2026"}]


def test_the_last_days(tx: Connection) -> None:
    campaign = make_campaign(tx, status="sent", sent_at=ago(days=1, of=AT), created_at=ago(days=200))
    make_campaign(tx, status="sent", sent_at=ago(days=40), created_at=ago(days=200))
    made = [send(tx, campaign, ago(days=1, of=AT)) for _ in range(5)]
    old_contact, old = send(tx, campaign, ago(days=40))
    make_hit(tx, old_contact, old, "open", occurred_at=ago(days=35))
    make_hit(tx, old_contact, old, "click", occurred_at=ago(days=1, of=AT))
    for contact, message in made[:3]:
        make_hit(tx, contact, message, "open", occurred_at=AT)
        make_hit(tx, contact, message, "open", occurred_at=AT)
    make_hit(tx, *made[0], "click", occurred_at=AT)
    make_hit(tx, *made[4], "click", occurred_at=AT, verdict="bot")
    send(tx, campaign, status="bounced", bounced_at=AT)
    send(tx, campaign, status="bounced", bounced_at=AT, sent_at=None)
    send(tx, campaign, status="failed", last_code=550, next_try_at=AT)
    send(tx, campaign, status="failed", last_stage="build", next_try_at=AT)
    send(tx, campaign, status="unknown", next_try_at=ago(days=31, of=AT))
    make_contact(tx, created_at=ago(days=1, of=AT))
    make_contact(tx, created_at=ago(days=2, of=AT), subscribed=False)
    make_event(tx, made[0][0], "unsubscribed", AT, campaign_id=campaign, message_id=made[0][1])
    make_event(tx, made[1][0], "unsubscribed", AT)
    make_event(tx, made[1][0], "unsubscribed", AT)
    make_event(tx, made[2][0], "unsubscribed", ago(days=31, of=AT))
    found = readers_trends.dashboard(tx, days=30, now=AT)
    assert found["contacts"] == {"total": 13, "active_subscribers": 12, "new_in_period": 2, "churn_rate": 16.67}
    assert found["campaigns"] == {"total_sent": 2, "in_period": 1}
    # Sent 6 (one bounced since), attempted 8; the old mail was opened before and is clicked for the first time.
    assert found["email_events"] == {
        "sent": 6, "opened": 6, "clicked": 2, "bounced": 2, "unsubscribed": 1, "open_rate": 60.0, "click_rate": 40.0,
        "bounce_rate": 25.0,
    }  # fmt: skip
    assert found["health"] == {"deliverability": 75.0, "list_growth": 0}
    assert found["period_days"] == 30


def test_an_empty_house_is_all_zeros(tx: Connection) -> None:
    found = readers_trends.dashboard(tx, days=30, now=NOW)
    assert set(found["email_events"].values()) == {0} and set(found["contacts"].values()) == {0}
    assert found["health"] == {"deliverability": 100.0, "list_growth": 0}
    assert readers_trends.health(tx, now=NOW) == {
        "score": 37.5, "grade": "F",
        "factors": {"subscription_rate": 0.0, "open_rate": 0.0, "bounce_rate": 0.0, "recent_campaigns_30d": 0},
    }  # fmt: skip
    assert readers_campaigns.top(tx, metric=TopMetric.OPEN_RATE, limit=5, min_sent=1) == []


def test_health_counts_the_campaigns_of_thirty_days(tx: Connection) -> None:
    campaign = make_campaign(tx, status="sent", created_at=ago(days=31))
    make_campaign(tx, created_at=ago(days=29))
    made = [send(tx, campaign) for _ in range(9)]
    make_hit(tx, *made[0], "open")
    send(tx, campaign, status="bounced", bounced_at=NOW)
    make_contact(tx, subscribed=False)
    # 10 of 11 subscribed: 90.91 / 4 = 22.7; 1 of 9 opened: 11.11; 10 % bounced: 0; one campaign: 5.
    assert readers_trends.health(tx, now=NOW) == {
        "score": 38.8, "grade": "F",
        "factors": {"subscription_rate": 90.91, "open_rate": 11.11, "bounce_rate": 10.0, "recent_campaigns_30d": 1},
    }  # fmt: skip


@pytest.mark.parametrize("small", [5_000, -1], ids=["counted now", "as refreshed"])
def test_hours_are_those_of_the_clocks_of_a_place(
    tx: Connection, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(readers_campaigns, "SMALL", small)
    content = make_content(tx)
    campaign = make_campaign(tx, status="sent", started_at=datetime(2026, 3, 28, 23, 0, tzinfo=UTC))
    contact, message = send(tx, campaign, datetime(2026, 3, 28, 23, 0, tzinfo=UTC), content_id=content)
    # Berlin turns its clocks on 29 March 2026 at 01:00 UTC, from 2 to 3 o'clock.
    for minutes, kind in ((29, "open"), (91, "open"), (121, "click")):
        at = datetime(2026, 3, 29, tzinfo=UTC) + timedelta(minutes=minutes)
        make_hit(tx, contact, message, kind, occurred_at=at)
    second = send(tx, campaign, datetime(2026, 3, 28, 23, 0, tzinfo=UTC), content_id=content)
    make_hit(tx, *second, "click", occurred_at=datetime(2026, 3, 28, 23, 31, tzinfo=UTC))
    make_hit(tx, *send(tx, campaign, content_id=content, kind="test"), "open")
    (table,) = [item for item in refreshing.TABLES if item.table == "campaign_days"]
    refreshing.refresh_within(tx, table, as_of=datetime(2026, 3, 30, tzinfo=UTC))
    assert (readers_campaigns.reactions_as_of(tx, campaign) is None) == (small > 0)
    found = readers_campaigns.engagement(tx, campaign, timezone="Europe/Berlin")
    assert {row["hour"]: (row["opens"], row["clicks"]) for row in found["hourly"] if row["opens"] or row["clicks"]} == {
        0: (0, 1), 1: (1, 0), 3: (1, 0), 4: (0, 1),
    }  # fmt: skip
    assert [row["hour"] for row in found["hourly"]] == list(range(24))
    assert (found["peak_open_hour"], found["peak_click_hour"]) == (1, 0), "of equal hours the earliest"
    # 89 minutes to the first open of one, 31 to the click of the other, which implies an open.
    assert found["avg_time_to_open_minutes"] == 60.0
    # Half past twelve, quarter past five: not every clock is whole hours from UTC.
    nepal = readers_campaigns.engagement(tx, campaign, timezone="Asia/Kathmandu")["hourly"]
    assert {row["hour"]: (row["opens"], row["clicks"]) for row in nepal if row["opens"] or row["clicks"]} == {
        5: (0, 1), 6: (1, 0), 7: (1, 1),
    }  # fmt: skip
    plain = readers_campaigns.engagement(tx, campaign, timezone="UTC")
    assert (plain["peak_open_hour"], plain["hourly"][23]["clicks"]) == (0, 1)
    with pytest.raises(InvalidInput):
        readers_campaigns.engagement(tx, campaign, timezone="Europe/Bonn")
    nothing = readers_campaigns.engagement(tx, 0, timezone="UTC")
    assert (nothing["peak_open_hour"], nothing["peak_click_hour"], nothing["avg_time_to_open_minutes"]) == (0, 0, None)
    assert {(row["opens"], row["clicks"]) for row in nothing["hourly"]} == {(0, 0)}


def ranked(tx: Connection, metric: TopMetric, **more: int) -> list[str]:
    found = readers_campaigns.top(tx, metric=metric, limit=more.get("limit", 10), min_sent=more.get("min_sent", 1))
    return [row["campaign_name"] for row in found]


@pytest.mark.parametrize("live_mails", [50_000, -1], ids=["counted now", "recounted"])
def test_the_best_campaigns(tx: Connection, monkeypatch: pytest.MonkeyPatch, live_mails: int) -> None:
    monkeypatch.setattr(readers_campaigns, "LIVE_MAILS", live_mails)
    made = {}
    for name, status, mails, opens, clicks in (
        ("opened", "sent", 4, 3, 0), ("clicked", "sent", 4, 2, 2), ("small", "sent", 1, 1, 1),
        ("same", "sent", 4, 2, 2), ("larger", "sent", 8, 4, 4), ("draft", "draft", 0, 0, 0),
        ("under way", "sending", 4, 4, 4),
    ):
        made[name] = make_campaign(tx, name=name, status=status)
        for number in range(mails):
            contact, message = send(tx, made[name])
            if number < opens:
                make_hit(tx, contact, message, "click" if number < clicks else "open")
    totals.refresh_many(tx, list(made.values()), NOW)
    assert ranked(tx, TopMetric.OPEN_RATE) == ["small", "opened", "larger", "same", "clicked"]
    assert ranked(tx, TopMetric.CLICK_RATE, min_sent=4) == ["larger", "same", "clicked", "opened"]
    # opened: 0.3 x 75 + 30 = 52.5; clicked: 0.3 x 50 + 0.4 x 100 + 30 = 85.
    assert ranked(tx, TopMetric.ENGAGEMENT_SCORE, min_sent=4, limit=3) == ["larger", "same", "clicked"]
    best = readers_campaigns.top(tx, metric=TopMetric.ENGAGEMENT_SCORE, limit=1, min_sent=5)[0]
    assert (best["engagement_score"], best["ctor"], best["total_sent"]) == (85.0, 100.0, 8)


def test_the_funnel_says_where_people_are_lost(tx: Connection) -> None:
    campaign = make_campaign(tx, status="sent", name="Spring")
    made = [send(tx, campaign) for _ in range(9)]
    send(tx, campaign, status="bounced", bounced_at=NOW)
    for contact, message in made[:3]:
        make_hit(tx, contact, message, "open")
    make_hit(tx, *made[0], "click")
    found = readers_campaigns.funnel(tx, campaign)
    assert [(row["stage"], row["count"], row["rate"], row["drop_off_rate"]) for row in found["funnel"]] == [
        ("sent", 10, 100.0, 0.0), ("delivered", 9, 90.0, 10.0), ("opened", 3, 30.0, 66.67), ("clicked", 1, 10.0, 66.67),
    ]  # fmt: skip
    # 0.3 x 33.33 + 0.4 x 33.33 + 0.15 x 90 + 0.15 x 100
    assert found["engagement_score"] == 51.8
    empty = readers_campaigns.funnel(tx, make_campaign(tx))
    assert {(row["count"], row["rate"], row["drop_off_rate"]) for row in empty["funnel"]} == {(0, 0.0, 0.0)}
    assert readers_campaigns.funnels(tx, [campaign, None, 987654321, campaign]) == [found, None, None, found]
    with pytest.raises(NotFound, match="Campaign 987654321 not found"):
        readers_campaigns.funnel(tx, 987654321)


def test_cohorts_have_all_their_offsets(tx: Connection) -> None:
    monday = datetime(2026, 2, 2, tzinfo=UTC)
    first, second = make_contact(tx, created_at=monday), make_contact(tx, created_at=monday + timedelta(days=6))
    make_contact(tx, created_at=monday + timedelta(days=14))
    make_event(tx, first, "email_opened", monday + timedelta(days=7))
    make_event(tx, second, "email_clicked", monday + timedelta(days=14))
    make_event(tx, second, "page_viewed", monday + timedelta(days=6))
    now = monday + timedelta(days=24)
    cohorts.refresh_within(tx, as_of=now)
    found = readers_trends.cohort(tx, periods=4, granularity=CohortGranularity.WEEK, now=now)
    assert [(row["cohort_period"], row["cohort_size"], row["period_offset"], row["active_count"], row["retention_rate"])
            for row in found] == [
        ("2026-W06", 2, 0, 0, 0.0), ("2026-W06", 2, 1, 2, 100.0), ("2026-W06", 2, 2, None, None),
        ("2026-W06", 2, 3, None, None), ("2026-W08", 1, 0, None, None), ("2026-W08", 1, 1, None, None),
        ("2026-W08", 1, 2, None, None), ("2026-W08", 1, 3, None, None),
    ]  # fmt: skip
    assert {row["cohort_period"] for row in readers_trends.cohort(
        tx, periods=2, granularity=CohortGranularity.WEEK, now=now)} == {"2026-W08"}  # fmt: skip
    months = readers_trends.cohort(tx, periods=2, granularity=CohortGranularity.MONTH, now=now)
    assert [(row["cohort_period"], row["cohort_size"]) for row in months] == [("2026-02", 3)] * 2


def test_what_one_row_is_comes_from_the_comment(tx: Connection) -> None:
    found = {one.name: (one.grain, one.grain_columns, one.date_column) for one in readers_views.listed(tx)}
    assert found["dim_contacts"] == ("contact", ("contact_id",), "signed_up_at")
    assert found["fct_events"] == ("event", ("event_id",), "occurred_at")
    assert found["campaign_performance"] == ("campaign", ("campaign_id",), "sent_at")
    assert found["contact_cohorts"] == (
        "granularity, sign-up cohort and period offset", ("granularity", "cohort_start", "period_offset"),
        "cohort_start",
    )  # fmt: skip
    assert found["lifecycle_funnel"] == ("day and lifecycle stage", ("as_of", "stage"), "as_of")
    assert all(columns for _, columns, _ in found.values()), "every relation can be filtered"


def test_a_new_view_appears_by_itself(tx: Connection) -> None:
    tx.exec_driver_sql(
        "create view analytics.shelf_funnel as select 7::bigint as workflow_id, 1::int as version, "
        "'s'::text as step_path, null::bigint as nothing; "
        "comment on view analytics.shelf_funnel is 'One row per workflow, version and step: x.'"
    )
    tx.exec_driver_sql(
        "create table analytics.days (day date not null, kind text not null, campaign_id bigint, "
        "refreshed_at timestamptz, unique nulls not distinct (day, kind, campaign_id)); "
        "comment on table analytics.days is "
        "'One row per UTC day, kind of mail and campaign in which something happened.'; "
        "insert into analytics.days values ('2026-03-01', 'b', null, '2026-03-02 01:00Z'), "
        "('2026-03-01', 'b', 7, '2026-03-02 02:00Z'), ('2026-03-01', 'a', 9, null), ('2026-02-01', 'c', null, null)"
    )
    funnel, days = readers_views.get(tx, "shelf_funnel"), readers_views.get(tx, "days")
    assert (funnel.grain_columns, funnel.date_column) == (("workflow_id", "version", "step_path"), None)
    assert (days.grain, days.grain_columns) == ("UTC day, kind of mail and campaign", ("day", "kind", "campaign_id"))
    assert str(readers_views.newest(tx, days, now=NOW)) == "2026-03-02 02:00:00+00:00"
    assert readers_views.newest(tx, funnel, now=NOW) == NOW
    seen: list[Any] = []
    after: list[Any] | None = None
    while True:
        rows, total = readers_views.rows(
            tx, days, filters={}, from_=None, to=None, limit=1, after=after, count_limit=2
        )
        assert total == 3, "counting ends behind its limit"
        seen.append((rows[0]["kind"], rows[0]["campaign_id"]))
        if len(rows) == 1:
            break
        after = readers_views.position(days, rows[0])
    assert seen == [("c", None), ("a", 9), ("b", 7), ("b", None)], "null comes last, and no row twice"
    with pytest.raises(NotFound):
        readers_views.get(tx, "contacts")


