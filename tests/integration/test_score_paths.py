"""A score is the same by every path, and a past day again is what that day gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import dispatch, scoring
from mautolib.events.append import NewEvent, append
from mautolib.scoring import NewRule, Stage
from mautolib.scoring.rules import create_rule, install_default_rules
from mautolib.settings import Settings
from tests.builders import NOW, ago, make_contact, make_event, make_order

HISTORY = "select {columns} from score_history {where} order by as_of, contact_id, source, rule_version"
NUMBERS = "as_of, contact_id, total_score, engagement_score, profile_score, recency_score, grade, last_activity_at"


def rows(engine: Engine, columns: str, where: str = "") -> Sequence[Any]:
    with engine.connect() as tx:
        return tx.execute(text(HISTORY.format(columns=columns, where=where))).all()


def tell(
    tx: Connection, contact: int, kind: str, at: datetime, *, now: datetime | None = None, **properties: Any
) -> None:
    append(tx, [NewEvent(event_type=kind, contact_id=contact, occurred_at=at, properties=properties)], now=now or at)


def test_the_same_contact_has_the_same_score_by_every_path(fresh_engine: Engine, settings: Settings) -> None:
    """The night from what is folded, a night from all events, one contact alone, and a look at a moment."""
    with fresh_engine.begin() as tx:
        install_default_rules(tx, ago(days=300))
        create_rule(tx, NewRule(name="Careers", event_type="page_viewed", points=-9, condition={"url": "/jobs"}),
                    actor="test", now=NOW)  # fmt: skip
        contact, other = make_contact(tx, first_name="Ada", custom_fields={"a": 1, "b": 2}), make_contact(tx)
        for days in (1, 3, 40, 100, 250):
            tell(tx, contact, "form_submitted", ago(days=days, hours=5), form="demo")
            tell(tx, contact, "page_viewed", ago(days=days), url="/jobs" if days < 50 else "/")
            tell(tx, other, "order_placed", ago(days=days + 0.3))
    for days in (2, 1):
        scoring.recalculate(fresh_engine, as_of=ago(days=days))
        dispatch.run(fresh_engine, settings, now=NOW)
    scoring.recalculate(fresh_engine, as_of=NOW, buckets=2)
    scoring.recalculate(fresh_engine, as_of=NOW, known_at=NOW + timedelta(days=1), source="recomputed")
    with fresh_engine.begin() as tx:
        looked = {person: scoring.evaluate(tx, person, NOW) for person in (contact, other)}
        alone = {person: scoring.recalculate_contact(tx, person, NOW) for person in (contact, other)}
    for person in (contact, other):
        found = rows(fresh_engine, f"{NUMBERS}, source", f"where as_of = '{NOW.isoformat()}' and contact_id = {person}")
        assert [row.source for row in found] == ["nightly", "recalculated", "recomputed"]
        for path in (*found[1:], looked[person], alone[person]):
            assert path.engagement_score == pytest.approx(found[0].engagement_score, rel=1e-9, abs=2e-9)
            for name in ("total_score", "profile_score", "recency_score", "grade", "last_activity_at"):
                assert getattr(path, name) == getattr(found[0], name), (name, path)
    assert alone[contact].last_activity_at == ago(days=1, hours=5), "a look at the jobs is no engagement"


def test_thirty_days_again_are_what_those_days_gave(fresh_engine: Engine) -> None:
    """Nights as they passed, with events that came late; then all of them again, twice."""
    days = [ago(days=30 - number) for number in range(30)]
    with fresh_engine.begin() as tx:
        install_default_rules(tx, ago(days=300))
        people = [make_contact(tx, created_at=ago(days=90)) for _ in range(5)]
    for number, day in enumerate(days):
        with fresh_engine.begin() as tx:
            for person in people[number % 5 :]:
                tell(tx, person, "form_submitted", day - timedelta(hours=person % 20), form="demo",
                     now=day - timedelta(minutes=5))  # fmt: skip
            # Happened before midnight, and was told after the night: this day did not know it.
        scoring.recalculate(fresh_engine, as_of=day)
        with fresh_engine.begin() as tx:
            tell(tx, people[0], "page_viewed", day - timedelta(hours=30), url="/", now=day + timedelta(hours=3))
    nights = rows(fresh_engine, NUMBERS)
    assert len(nights) == 150

    def again() -> Sequence[Any]:
        for day in days:
            scoring.recalculate(fresh_engine, as_of=day, known_at=day, source="recomputed")
        return rows(fresh_engine, f"{NUMBERS}, lifecycle_stage, recorded_at", "where source = 'recomputed'")

    with fresh_engine.connect() as tx:
        current = tx.execute(text("select * from contact_scores order by contact_id")).all()
    first = again()
    for then, now in zip(nights, first, strict=True):
        assert now.engagement_score == pytest.approx(then.engagement_score, rel=1e-9, abs=2e-9)
        assert (now.as_of, now.contact_id, now.last_activity_at, now.total_score) == (
            then.as_of, then.contact_id, then.last_activity_at, then.total_score)  # fmt: skip
    assert again() == first, "not even the time of recording differs"
    with fresh_engine.connect() as tx:
        assert tx.execute(text("select * from contact_scores order by contact_id")).all() == current


def test_worked_examples(tx: Connection) -> None:
    """The floor once; -50 alone makes no lead; customers only rise; churned and dormant."""
    create_rule(tx, NewRule(name="Form", event_type="form_submitted", points=30), actor="test", now=NOW)
    create_rule(tx, NewRule(name="Left", event_type="unsubscribed", points=-50), actor="test", now=NOW)
    fields = {"first_name": "A", "last_name": "B", "phone": "1", "country": "DE", "created_at": ago(days=20)}
    floored, left, buyer, gone, quiet = (make_contact(tx, **fields) for _ in range(5))
    tx.execute(text("update contacts set subscribed = false, version = 2, updated_at = :at where contact_id = :id"),
               {"id": gone, "at": ago(days=2)})  # fmt: skip
    tx.execute(text("update contacts set created_at = :at where contact_id = :id"), {"at": ago(days=95), "id": quiet})
    for at, kind in ((10, "form_submitted"), (9, "unsubscribed"), (8, "form_submitted")):
        make_event(tx, floored, kind, ago(days=at))
    make_event(tx, left, "unsubscribed", ago(days=9))
    make_order(tx, buyer, ago(days=5))
    make_event(tx, buyer, "order_placed", ago(days=5))
    scoring.recalculate_within(tx, as_of=NOW)
    held = {row.contact_id: row for row in tx.execute(text("select * from score_history")).all()}
    assert held[floored].engagement_score == 10, "30 - 50 + 30: not floored in between"
    assert (held[left].engagement_score, held[left].total_score, held[left].lifecycle_stage) == (0, 17, "subscriber")
    assert held[floored].total_score == round(10 + 17 + 20 * math.exp(-0.03 * 8), 2)
    assert [held[who].lifecycle_stage for who in (buyer, gone, quiet)] == ["customer", "churned", "dormant"]
    for number in range(3):
        make_event(tx, buyer, "form_submitted", NOW + timedelta(minutes=number))
    scoring.recalculate_within(tx, as_of=NOW + timedelta(days=1))
    stage = text("select lifecycle_stage from contact_stages where contact_id = :id")
    assert tx.scalar(stage, {"id": buyer}) == Stage.EVANGELIST
    scoring.recalculate_within(tx, as_of=NOW + timedelta(days=900))
    assert [tx.scalar(stage, {"id": who}) for who in (buyer, floored)] == ["evangelist", "dormant"]


@pytest.mark.parametrize("points", [1000, -1000])
def test_absurd_points_stay_numbers(tx: Connection, points: int) -> None:
    contact = make_contact(tx)
    for _ in range(30):
        create_rule(tx, NewRule(name="Absurd", event_type="page_viewed", points=points), actor="test", now=NOW)
    for days in range(40):
        make_event(tx, contact, "page_viewed", ago(days=days))
    assert scoring.recalculate_contact(tx, contact, NOW).engagement_score == max(0, 30 * 40 * points)


def test_the_night_of_a_clock_change_is_as_long_as_it_was(fresh_engine: Engine) -> None:
    """Berlin's 29 March 2026 had 23 hours; moments are moments, so half-lives are not shortened."""
    with fresh_engine.begin() as tx:
        create_rule(tx, NewRule(name="View", event_type="page_viewed", points=16, decay_days=1), actor="test", now=NOW)
        contact = make_contact(tx)
        tell(tx, contact, "page_viewed", datetime(2026, 3, 28, 12, tzinfo=UTC))
    for day in (28, 29, 30):
        with fresh_engine.begin() as tx:
            tx.execute(text("set local timezone = 'Europe/Berlin'"))
        scoring.recalculate(fresh_engine, as_of=datetime(2026, 3, day, 12, tzinfo=UTC))
    assert [row.engagement_score for row in rows(fresh_engine, NUMBERS)] == [16, 8, 4]


def test_snapshots_of_a_contact_are_found_at_once_among_years_of_nights(fresh_engine: Engine) -> None:
    with fresh_engine.begin() as tx:
        contact = make_contact(tx)
        tx.execute(text("select ensure_month_partition('score_history', month::date) from generate_series("
                        "timestamptz '2025-01-01', '2025-12-01', interval '1 month') as month"))  # fmt: skip
        tx.execute(text("insert into score_history (contact_id, as_of, total_score, engagement_score, profile_score, "
                        "recency_score, grade, rule_version, source) select id, night, 1, 1, 0, 0, 'F', 1, 'nightly' "
                        "from generate_series(timestamptz '2025-01-01', '2025-12-31', interval '1 day') as night "
                        "cross join generate_series(:id, :id + 99) as id order by night"), {"id": contact})  # fmt: skip
        tx.execute(text("analyze score_history"))
        told = tx.scalars(text("explain select * from score_history where contact_id = :id order by as_of desc, source "
                               "desc, rule_version desc limit 50"), {"id": contact}).all()  # fmt: skip
        assert not any("->  Sort" in line or "Seq Scan on score_history_y" in line for line in told)
        found = scoring.search_snapshots(tx, contact, limit=50)
        assert [row.score.as_of.day for row in found[:2]] == [31, 30]
    scoring.recalculate(fresh_engine, as_of=datetime(2026, 1, 1, tzinfo=UTC))
    with fresh_engine.begin() as tx:
        assert tx.scalar(text("select count(*) from score_history_y2026m01")) == 1
        assert tx.scalar(text("select count(*) from score_history_default")) == 0
