"""Roll-ups follow what changes: marks commit with their cause, late commits are not missed, failures keep news."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib.analytics import refreshing
from mautolib.analytics.refreshing import RollUp
from mautolib.analytics.work import Work
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from tests.builders import make_campaign, make_contact, make_event, make_hit, make_message, make_order

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Seen:
    """A table that only notes what it was asked for."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.news: list[set[tuple[str, date, int]]] = []
        self.trouble: Exception | None = None

    def restate(self, tx: Connection, work: Work) -> int:
        self.works.append(work)
        every = text("select subject, day, contact_id from rollups.marks")
        rows = tx.execute(every if work.since is None else statement("rollups.news"), {"since": work.since})
        self.news.append({(row.subject, row.day, row.contact_id) for row in rows})
        if self.trouble:
            raise self.trouble
        return len(self.news[-1])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    one = Seen()
    monkeypatch.setattr(refreshing, "TABLES", (RollUp(table="seen", restate=one.restate),))
    yield one


def run(engine: Engine, **asked: Any) -> dict[str, int]:
    return refreshing.refresh(engine, **{"as_of": NOW, **asked})


def test_what_the_same_transaction_changes_after_a_refresh_is_news(fresh_engine: Engine, seen: Seen) -> None:
    with fresh_engine.begin() as tx:
        person = make_contact(tx)
        with fresh_engine.begin() as later:
            make_contact(later)
        # Its snapshot sees every transaction up to the later one, which has ended, and so its own.
        refreshing.refresh_within(tx, refreshing.TABLES[0], as_of=NOW)
        make_event(tx, person, "page_viewed", NOW)
        refreshing.refresh_within(tx, refreshing.TABLES[0], as_of=NOW)
    assert seen.news[1] == {("activity", NOW.date(), person)}


def test_each_change_is_news_once(fresh_engine: Engine, seen: Seen) -> None:
    with fresh_engine.begin() as tx:
        person = make_contact(tx)
        make_event(tx, person, "page_viewed", NOW)
    run(fresh_engine)
    assert (seen.works[0].is_whole, seen.works[0].since) == (True, None), "the first refresh restates everything"
    run(fresh_engine)
    assert (seen.works[1].is_whole, seen.works[1].previous_as_of, seen.news[1]) == (False, NOW, set())
    with fresh_engine.begin() as tx:
        make_event(tx, person, "page_viewed", NOW - 9 * DAY)
        make_event(tx, person, "contact_updated", NOW - 8 * DAY)
    run(fresh_engine)
    assert seen.news[2] == {("activity", (NOW - 9 * DAY).date(), person)}, "what nobody counts leaves no mark"
    run(fresh_engine)
    assert seen.news[3] == set()
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from rollups.marks")) == 0, "marks that everybody saw are gone"


def test_a_transaction_that_commits_late_is_not_missed(fresh_engine: Engine, seen: Seen) -> None:
    with fresh_engine.begin() as tx:
        person = make_contact(tx)
    run(fresh_engine)
    slow, quick = fresh_engine.connect(), fresh_engine.connect()
    with slow, quick:
        with slow.begin():
            make_order(slow, person, NOW - DAY)
            # Younger ids are committed and refreshed, while the older ones are still open.
            with quick.begin():
                make_order(quick, person, NOW - 2 * DAY)
            run(fresh_engine)
            assert seen.news[-1] == {("orders", (NOW - 2 * DAY).date(), person)}
        run(fresh_engine)
    assert seen.news[-1] == {("orders", (NOW - DAY).date(), person)}


def test_a_failure_and_a_range_leave_the_news_to_the_next(fresh_engine: Engine, seen: Seen) -> None:
    run(fresh_engine)
    with fresh_engine.begin() as tx:
        make_order(tx, make_contact(tx), NOW - DAY)
    seen.trouble = ValueError("no space left")
    with pytest.raises(ValueError, match="no space"):
        run(fresh_engine)
    seen.trouble = None
    run(fresh_engine, from_=date(2026, 1, 1))
    assert seen.works[-1].is_limited
    run(fresh_engine)
    assert len(seen.news[-1]) == 1
    run(fresh_engine)
    assert seen.news[-1] == set()


def test_when_nothing_can_be_built_on_everything_is_restated(fresh_engine: Engine, seen: Seen) -> None:
    run(fresh_engine)
    run(fresh_engine, as_of=NOW - DAY)
    assert seen.works[-1].is_whole, "of the past"
    run(fresh_engine)
    assert seen.works[-1].previous_as_of == NOW - DAY
    run(fresh_engine, rebuild=True, from_=date(2026, 1, 1))
    assert seen.works[-1].is_whole, "a rebuild takes no range"
    with fresh_engine.begin() as tx:
        make_order(tx, make_contact(tx), NOW - DAY)
    run(fresh_engine)
    assert seen.works[-1].is_whole, "the currency of the amounts has become known"
    with fresh_engine.begin() as tx:
        tx.execute(text("update rollups.states set snapshot = '9000000:9000000:'"))
    run(fresh_engine)
    assert seen.works[-1].is_whole, "the database was restored from a dump"


def test_what_cannot_be_refreshed_is_said(fresh_engine: Engine, seen: Seen) -> None:
    with pytest.raises(NotFound, match="no table nothing"):
        run(fresh_engine, only=["nothing"])
    with pytest.raises(InvalidInput, match="ends"):
        run(fresh_engine, from_=date(2026, 2, 1), to=date(2026, 1, 1))


def test_marks_of_mail(fresh_engine: Engine, seen: Seen) -> None:
    with fresh_engine.begin() as tx:
        person = make_contact(tx)
        campaign = make_campaign(tx)
        waiting = make_message(tx, person, campaign_id=campaign, status="queued")
        early = make_message(tx, person, campaign_id=campaign, sent_at=NOW - 5 * DAY)
        newest = make_hit(tx, person, early, occurred_at=NOW - DAY)
    run(fresh_engine)
    assert seen.news[-1] >= {("mail", (NOW - 5 * DAY).date(), 0), ("deliveries", (NOW - 5 * DAY).date(), 0)}
    with fresh_engine.begin() as tx:
        tx.execute(text("update messages set next_try_at = :at where message_id = :id"), {"at": NOW, "id": waiting})
    run(fresh_engine)
    assert seen.news[-1] == set(), "what waits is not counted"
    with fresh_engine.begin() as tx:
        late = make_hit(tx, person, early, occurred_at=NOW - 3 * DAY)
    run(fresh_engine)
    days = {("mail", (NOW - 3 * DAY).date(), 0), ("mail", (NOW - DAY).date(), 0)}
    assert seen.news[-1] == days, "the day that was first until then has changed, too"
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into hit_verdicts values (:id, 9, 'bot', now())"), {"id": late})
    run(fresh_engine)
    assert seen.news[-1] == days | {("touches", (NOW - 3 * DAY).date(), person)}
    with fresh_engine.begin() as tx:
        tx.execute(text("insert into hit_verdicts values (:id, 9, 'bot', now())"), {"id": newest})
    run(fresh_engine)
    yesterday = (NOW - DAY).date()
    assert seen.news[-1] == {("mail", yesterday, 0), ("touches", yesterday, person)}, "what came before stays first"
    with fresh_engine.begin() as tx:
        tx.execute(text("delete from contacts"))
    run(fresh_engine)
    reacted = {("readers", (NOW - days * DAY).date(), 0) for days in (1, 3)}
    assert seen.news[-1] == {("deliveries", (NOW - 5 * DAY).date(), 0)} | reacted, "its domain is known no more"
