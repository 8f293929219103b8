"""Roll-ups after any history: what is brought up to date equals a rebuild, cell by cell; the sums are the view's."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, text

from mautolib.analytics import refreshing
from mautolib.db import tables
from mautolib.db.statements import statement
from tests.builders import make_campaign, make_contact, make_content, make_event, make_hit, make_message, make_order
from tests.effort import first_and_others

START = datetime(2026, 1, 5, tzinfo=UTC)
TABLES = (
    "analytics.contact_period_activity", "analytics.daily_email_metrics", "analytics.deliverability_by_domain",
    "analytics.contact_cohorts", "rollups.campaign_days",
)  # fmt: skip
_SUMS = [
    "attempted", "sent", "delivered", "bounced", "complained", "unsubscribed", "raw_opens", "human_opens",
    "unique_opens", "raw_clicks", "human_clicks", "unique_clicks",
]  # fmt: skip


def rows(engine: Engine, table: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        sql = f"select cast(to_jsonb(t) - 'refreshed_at' as text) as row from {table} t order by 1"
        found = connection.execute(text(sql))
        return [row.row for row in found]


def page_parts(tx: Connection, live: str) -> list[list[Any]]:
    """What the page of the only campaign shows of links, hours and domains."""
    binds = {"campaign_id": tx.scalar(text("select max(campaign_id) from campaigns")), "limit": 99, "kind": "open"}
    names = ("links", "hours", "domains")
    return [sorted(map(tuple, tx.execute(statement(f"pages.{live}campaign_{name}"), binds))) for name in names]


class History:
    """Random facts, each at a random moment before the present one."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = START + timedelta(days=3)
        self.people: list[int] = []
        self.messages: list[tuple[int, int]] = []
        self.hits: list[int] = []
        self.verdicts = 10

    def before(self) -> datetime:
        return self.now - timedelta(seconds=self.draw.random() ** 3 * (self.now - START).total_seconds())

    def happen(self, tx: Connection) -> None:
        draw = self.draw
        if len(self.people) < 3 or draw.random() < 0.15:
            domain = draw.choice(["gmail.com", "gmx.de", "shop.example"])
            email = f"p{draw.getrandbits(60)}@{domain}"
            self.people.append(make_contact(tx, email=email, created_at=self.before(), subscribed=draw.random() < 0.8))
        person = draw.choice(self.people)
        what = draw.randrange(10)
        if what <= 1 or not self.messages:
            self.mail(tx, person)
        elif what == 2:
            contact, message = draw.choice(self.messages)
            kind = draw.choice(["open", "click"])
            url = f"https://shop.example/{draw.choice(['', 'tea', f'?for={contact}'])}" if kind == "click" else None
            self.hits.append(make_hit(tx, contact, message, kind, occurred_at=self.before(), url=url,
                                      verdict=draw.choice(["human", "human", "bot"])))  # fmt: skip
        elif what == 3 and self.hits:
            self.verdicts += 1
            tx.execute(text("insert into hit_verdicts values (:hit, :version, :verdict, now())"),
                       {"hit": draw.choice(self.hits), "version": self.verdicts,
                        "verdict": draw.choice(["human", "bot"])})  # fmt: skip
        elif what == 4:
            kinds = ["email_opened", "email_clicked", "page_viewed", "cart_updated", "contact_updated"]
            make_event(tx, person, draw.choice(kinds), self.before())
        elif what == 5:
            make_order(tx, person, self.before(), total=str(draw.randrange(1, 90)), fx_rate=draw.choice(["1", "1.1"]))
            refund = "update orders set refunded_total = 1 where contact_id = :id and total > 60"
            tx.execute(text(refund), {"id": person})
        elif what == 6:
            contact, message = draw.choice(self.messages)
            bounced = draw.random() < 0.5
            tx.execute(text("update messages set status = :status, reason = 'soft', bounced_at = :bounced, "
                            "complained_at = :complained where message_id = :id and sent_at is not null"),
                       {"id": message, "status": "bounced" if bounced else "complained",
                        "bounced": self.before() if bounced else None,
                        "complained": None if bounced else self.before()})  # fmt: skip
        elif what == 7:
            contact, message = draw.choice(self.messages)
            campaign = tx.scalar(text("select campaign_id from messages where message_id = :id"), {"id": message})
            make_event(tx, contact, "unsubscribed", self.before(), campaign_id=campaign, message_id=message)
        elif what == 8:
            # What became of a mail is known later than its first open, now and then.
            tx.execute(text("update messages set status = 'sent', sent_at = next_try_at where message_id = :id "
                            "and status = 'unknown'"), {"id": draw.choice(self.messages)[1]})  # fmt: skip
        elif draw.random() < 0.2 and len(self.people) > 3:
            self.people.remove(person)
            self.messages = [pair for pair in self.messages if pair[0] != person]
            tx.execute(text("delete from contacts where contact_id = :id"), {"id": person})
            tx.execute(text("update hits set url = regexp_replace(url, '[?#].*$', '') where contact_id = :id"),
                       {"id": person})  # fmt: skip

    def mail(self, tx: Connection, person: int) -> None:
        at = self.before()
        campaign = tx.scalar(text("select max(campaign_id) from campaigns")) or make_campaign(tx)
        kind = self.draw.choice(["campaign", "campaign", "workflow", "test"])
        status = self.draw.choice(["sent", "sent", "delivered", "bounced", "failed", "unknown", "queued"])
        fields: dict[str, Any] = {"sent_at": at} if status in ("sent", "delivered") else {"next_try_at": at}
        if status == "bounced":
            fields["bounced_at"] = at
        if status == "failed":
            fields["last_code"] = self.draw.choice([550, 450])
        message = make_message(tx, person, kind=kind, status=status,
                               campaign_id=None if kind == "workflow" else campaign, **fields)  # fmt: skip
        self.messages.append((person, message))


@pytest.mark.parametrize("seed", first_and_others(6))
def test_what_follows_equals_a_rebuild(fresh_engine: Engine, seed: int) -> None:
    history = History(seed)
    for _ in range(6):
        with fresh_engine.begin() as tx:
            for _ in range(history.draw.randrange(1, 40)):
                history.happen(tx)
        refreshing.refresh(fresh_engine, as_of=history.now)
        history.now += timedelta(days=history.draw.randrange(0, 9), hours=history.draw.randrange(24))
    refreshing.refresh(fresh_engine, as_of=history.now)
    followed = {table: rows(fresh_engine, table) for table in TABLES}
    refreshing.refresh(fresh_engine, as_of=history.now, rebuild=True)
    assert followed == {table: rows(fresh_engine, table) for table in TABLES}
    assert all(followed.values())
    with fresh_engine.connect() as connection:
        parts = page_parts(connection, "")
        assert parts == page_parts(connection, "live_") and parts[2]
    columns = ", ".join(f"coalesce(sum({name}), 0) as {name}" for name in _SUMS)
    with fresh_engine.connect() as connection:
        sql = f"select {columns} from analytics.daily_email_metrics where kind = 'campaign'"
        days = connection.execute(text(sql))
        view = connection.execute(text(f"select {columns} from analytics.campaign_performance"))
        assert days.one() == view.one(), "one number everywhere"


@pytest.mark.parametrize("seed", first_and_others(2))
def test_a_range_as_of_a_past_moment_leaves_what_later_ones_counted(fresh_engine: Engine, seed: int) -> None:
    history = History(seed)
    history.now += timedelta(days=12)
    with fresh_engine.begin() as tx:
        for _ in range(150):
            history.happen(tx)
    # A Friday: the days from that Wednesday on were counted before.
    history.now = datetime(2026, 1, 23, 12, tzinfo=UTC)
    with fresh_engine.begin() as tx:
        for person in history.people:
            make_event(tx, person, "page_viewed", history.now - timedelta(days=2))
            make_order(tx, person, history.now - timedelta(days=1))
            history.mail(tx, person)
    refreshing.refresh(fresh_engine, as_of=history.now)
    whole = {table: rows(fresh_engine, table) for table in TABLES}
    day = (history.now - timedelta(days=1)).date()
    refreshing.refresh(fresh_engine, as_of=history.now - timedelta(days=3), from_=day, to=day)
    assert {table: rows(fresh_engine, table) for table in TABLES} == whole
    refreshing.refresh(fresh_engine, as_of=history.now)
    assert {table: rows(fresh_engine, table) for table in TABLES} == whole


def test_the_rights_of_the_worker_suffice(tx: Connection) -> None:
    message = make_message(tx, make_contact(tx, email="a@gmail.com"), campaign_id=make_campaign(tx), sent_at=START)
    assert message
    tx.execute(text("set local role mauto_worker"))
    written = [refreshing.refresh_within(tx, item, as_of=START + timedelta(days=1)) for item in refreshing.TABLES]
    assert written[1:3] == [1, 1]
    again = [refreshing.refresh_within(tx, item, as_of=START + timedelta(days=1)) for item in refreshing.TABLES]
    assert again[1:3] == [1, 1], "marks of the own transaction are news until it ends"
    row = tx.execute(text("select * from analytics.deliverability_by_domain")).one()
    assert (row.domain, row.mailbox_provider, row.attempted, row.delivered) == ("gmail.com", "google", 1, 1)
    tx.execute(text("set local role mauto_analyst"))
    assert tx.scalar(text("select sum(sent) from analytics.daily_email_metrics")) == 1


def test_links_of_a_campaign_add_up_to_its_clicks(tx: Connection) -> None:
    campaign = make_campaign(tx, status="sent")
    content = make_content(tx, campaign_id=campaign)
    tx.execute(insert(tables.message_links), [
        {"content_id": content, "position": place, "url": f"https://shop.example/{place}"} for place in range(3)
    ])  # fmt: skip
    for place, verdict in ((0, "human"), (0, "human"), (0, "bot"), (1, "human")):
        person = make_contact(tx)
        message = make_message(tx, person, campaign_id=campaign, content_id=content)
        make_hit(tx, person, message, "click", link_position=place, verdict=verdict, occurred_at=START)
    found = tx.execute(text("select * from analytics.campaign_link_performance order by position")).all()
    assert [(row.position, row.raw_clicks, row.human_clicks, row.unique_clicks, str(row.click_share))
            for row in found] == [(0, 3, 2, 2, "66.6667"), (1, 1, 1, 1, "33.3333"), (2, 0, 0, 0, "0.0000")]  # fmt: skip
    assert [row.first_click_at for row in found] == [START, START, None]
    whole = tx.execute(text("select human_clicks, raw_clicks from analytics.campaign_performance")).one()
    assert (sum(row.human_clicks for row in found), sum(row.raw_clicks for row in found)) == tuple(whole)


def test_opens_of_days_whose_hits_are_gone_stay(fresh_engine: Engine) -> None:
    gone, kept = START + timedelta(hours=9), START + timedelta(days=1, hours=9)
    with fresh_engine.begin() as tx:
        person, campaign = make_contact(tx), make_campaign(tx)
        message = make_message(tx, person, campaign_id=campaign, sent_at=START)
        for moment in (gone, kept):
            make_hit(tx, person, message, "click", occurred_at=moment, url="https://shop.example/", verdict="human")
    tables = ("daily_email_metrics", "campaign_days")
    refreshing.refresh(fresh_engine, as_of=START + timedelta(days=3), only=tables)
    found = "select day, sum(raw_clicks) from analytics.daily_email_metrics group by 1 order by 1"
    links = "select day, sum(raw) from rollups.campaign_days where part = 'link' group by 1 order by 1"
    with fresh_engine.begin() as tx:
        days = [(gone.date(), 1), (kept.date(), 1)]
        assert tx.execute(text(found)).all() == tx.execute(text(links)).all() == days
        tx.execute(text("update analytics.daily_email_metrics set raw_clicks = 7"))
        tx.execute(text("update rollups.campaign_days set raw = 7"))
        tx.execute(text("delete from hits where occurred_at = :gone"), {"gone": gone})
    refreshing.refresh(fresh_engine, as_of=START + timedelta(days=3), only=tables, rebuild=True)
    with fresh_engine.connect() as connection:
        days = [(gone.date(), 7), (kept.date(), 1)]
        assert connection.execute(text(found)).all() == connection.execute(text(links)).all() == days


def test_a_late_open_restates_its_own_cells_only(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        people = [make_contact(tx, created_at=START + timedelta(days=day)) for day in (0, 1, 40)]
        make_event(tx, people[0], "email_opened", START + timedelta(days=1))
    as_of = START + timedelta(days=80)
    refreshing.refresh(fresh_engine, as_of=as_of)
    sql = text("select granularity, cohort_start, period_offset, active_count from analytics.contact_cohorts "
               "where active_count > 0 and refreshed_at > :since order by 1, 2, 3")  # fmt: skip
    with fresh_engine.begin() as tx:
        since = tx.scalar(text("select now()"))
        make_event(tx, people[1], "email_clicked", START + timedelta(days=16))
    assert refreshing.refresh(fresh_engine, as_of=as_of, only=["contact_cohorts"]) == {"contact_cohorts": 3}
    with fresh_engine.begin() as tx:
        assert [tuple(row) for row in tx.execute(sql, {"since": since})] == [
            ("day", (START + timedelta(days=1)).date(), 15, 1), ("month", START.date().replace(day=1), 0, 2),
            ("week", START.date(), 2, 1),
        ]  # fmt: skip
        make_contact(tx, created_at=START + timedelta(days=2), subscribed=False)
    refreshing.refresh(fresh_engine, as_of=as_of, only=["contact_cohorts"])
    with fresh_engine.connect() as tx:
        assert tx.scalar(text("select cohort_size || ' ' || subscribed_count || ' ' || retention_rate "
                              "from analytics.contact_cohorts where granularity = 'week' and cohort_start = :day "
                              "and period_offset = 2"), {"day": START.date()}) == "3 2 33.3333"  # fmt: skip
