"""A night of scores: fold the day's events, score everybody, keep what changed. CPU seconds of process and server.

Beside it, in the same run: the same scores from all events (a full rebuild), contact by contact (a sample of the naive
way, extrapolated), and all events in DuckDB. `--events` makes more history for the same contacts: the night must not
cost more. The scores are checked against a plain Python reading of the contract for a sample of contacts and against
DuckDB for everybody, and a repeated night must change nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text

from benchmarks.ground.duck import duckdb_with
from benchmarks.ground.measuring import Bench, Cost, bench, finish
from benchmarks.ground.shop_history import END, build
from mautolib import scoring
from mautolib.db.statements import statement
from mautolib.events.types import is_positive_engagement
from mautolib.scoring import recalculation, state
from mautolib.scoring.rules import DEFAULT_RULES, current_version

SAMPLE = 200
EVERYBODY = list(range(state.SLICES))
_DUCK = """
with counted as (
    select
        events.contact_id, rules.points, rules.decay_days, rules.most,
        epoch($as_of::timestamptz) - events.happened as age,
        case when rules.most > 0 then row_number() over (
            partition by events.contact_id, events.kind order by events.happened, events.event_id) end as place
    from events join rules on rules.kind = events.kind
)
select contact_id, greatest(0, sum(
    points * case when decay_days > 0 then power(0.5, age / (86400 * decay_days)) else 1 end)) as engagement
from counted
where most = 0 or place <= most
group by contact_id
"""


def by_hand(contact: Any, events: Sequence[Any], as_of: datetime) -> float:
    """The total score of one contact from its raw rows."""
    points = 0.0
    for rule in DEFAULT_RULES:
        counted = [event for event in events if event.event_type == rule.event_type]
        for event in counted[: rule.max_per_contact or None]:
            days = (as_of - event.occurred_at) / timedelta(days=1)
            points += rule.points * (0.5 ** (days / rule.decay_days) if rule.decay_days else 1)
    active = [event.occurred_at for event in events if is_positive_engagement(event.event_type)]
    idle = (as_of - max(active)) / timedelta(days=1) if active else math.inf
    profile = 4 + 4 * bool(contact.first_name) + 3 * (
        bool(contact.last_name) + bool(contact.phone) + bool(contact.country) + (len(contact.custom_fields) >= 2)
    )  # fmt: skip
    return max(0.0, points) + profile + (20 * math.exp(-0.03 * idle) if idle < 90 else 0)


def verify(tx: Connection, contacts: int, as_of: datetime) -> bool:
    """Whether the scores of a sample are those computed by hand."""
    sample = {"as_of": as_of, "ids": [1 + number * (contacts - 1) // (SAMPLE - 1) for number in range(SAMPLE)]}
    totals = dict(tx.execute(text("select contact_id, total_score from score_history where as_of = :as_of "
                                  "and contact_id = any(:ids)"), sample).all())  # fmt: skip
    people = tx.execute(text("select * from contacts where contact_id = any(:ids) and created_at <= :as_of"),
                        sample).all()  # fmt: skip
    for contact in people:
        events = tx.execute(text("select event_type, occurred_at from events where contact_id = :id and "
                                 "occurred_at <= :as_of order by occurred_at, event_id"),
                            {"id": contact.contact_id, "as_of": as_of}).all()  # fmt: skip
        if abs(totals[contact.contact_id] - by_hand(contact, events, as_of)) > 0.0051:
            return False
    return len(totals) == len(people) > SAMPLE // 2


def night(place: Bench, as_of: datetime) -> dict[str, Cost]:
    """A night in its parts: fold, score, upsert; then as it is, with snapshots and what is told of changes."""
    costs: dict[str, Cost] = {}
    state.aim(place.engine, as_of, EVERYBODY)
    with place.engine.connect() as tx:
        transaction = tx.begin()
        with place.measured("  fold the day's events") as costs["fold"]:
            parts = state.fold(tx, as_of=as_of, version=current_version(tx), slices=EVERYBODY)
        assert parts is not None, "the scores come from what is folded"
        with place.measured("  score everybody, write nothing") as costs["score"]:
            evaluate(tx, parts, as_of, keep_current=False)
        with place.measured("  score everybody and upsert what changed") as costs["upsert"]:
            evaluate(tx, parts, as_of, keep_current=True)
        transaction.rollback()
    costs["upsert"].cpu_seconds -= costs["score"].cpu_seconds
    with place.measured("  the whole night, with snapshots and changes told") as costs["whole"]:
        done = scoring.recalculate(place.engine, as_of=as_of)
    sys.stdout.write(f"  {done.changed:,} of {done.scored:,} scores changed, {done.moved:,} stages\n")
    return costs


def evaluate(tx: Connection, parts: Sequence[state.Folded], as_of: datetime, *, keep_current: bool) -> None:
    """The statement of the night without its snapshots."""
    for name, value in recalculation._NIGHT_SETTINGS.items():
        tx.execute(select(func.set_config(name, value, True)))
    binds = recalculation._binds(
        as_of=as_of, version=current_version(tx), source="nightly", known_at=None, is_lifecycle=True,
        keep_current=keep_current, keep_snapshots=False,
    )  # fmt: skip
    for part in parts:
        tx.execute(statement("scoring.recalculate_folded"), {**binds, **recalculation._folded_binds(part)}).all()


def naive(place: Bench, contacts: int) -> float:
    """CPU seconds that everybody would take one by one, from a sample."""
    with place.measured(f"naive: {SAMPLE} contacts one by one, all their events") as cost:
        for number in range(SAMPLE):
            with place.engine.begin() as tx:
                tx.execute(text("set local jit = off"))
                binds = recalculation._binds(
                    as_of=END, version=current_version(tx), source="nightly", known_at=None, is_lifecycle=True,
                    keep_current=False, keep_snapshots=False, contact_ids=[1 + number * (contacts - 1) // SAMPLE],
                )  # fmt: skip
                tx.execute(statement("scoring.recalculate"), binds).all()
    return cost.cpu_seconds / SAMPLE * contacts


def in_duckdb(place: Bench, as_of: datetime) -> tuple[float, bool] | None:
    """CPU seconds DuckDB takes for the engagement of everybody, and whether it is ours; None without DuckDB."""
    with duckdb_with(place, {
        "events": "select event_id, contact_id, event_type as kind, extract(epoch from occurred_at) as happened "
                  "from events",
        "ours": f"select contact_id, engagement_score from score_history where as_of = '{as_of.isoformat()}'",
    }) as duck:  # fmt: skip
        if duck is None:
            return None
        duck.execute("create table rules (kind text, points double, decay_days int, most int)")
        duck.executemany("insert into rules values (?, ?, ?, ?)", [
            (str(rule.event_type), rule.points, rule.decay_days, rule.max_per_contact) for rule in DEFAULT_RULES
        ])  # fmt: skip
        duck.execute("delete from events where happened > epoch($as_of::timestamptz)", {"as_of": as_of.isoformat()})
        with place.measured("DuckDB: engagement of everybody, all events (loaded)") as cost:
            duck.execute(f"create table theirs as {_DUCK}", {"as_of": as_of.isoformat()})
        apart = duck.execute(
            "select count(*) from ours full join theirs using (contact_id) "
            "where abs(coalesce(engagement_score, 0) - coalesce(engagement, 0)) > 1e-6"
        ).fetchone()
    return cost.cpu_seconds, apart == (0,)


def single(place: Bench, contacts: int) -> float:
    """Milliseconds to recalculate one contact and keep it, the median of a hundred among all of them."""
    took = []
    for contact_id in range(1, contacts, max(1, contacts // 100)):
        began = time.perf_counter()
        with place.engine.begin() as tx:
            scoring.recalculate_contact(tx, contact_id, END + timedelta(minutes=1))
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[len(took) // 2]


def between(engine: Engine) -> None:
    """What happens between two nights: dispatch takes what was told off its queue, autovacuum cleans up."""
    with engine.begin() as tx:
        taken = tx.execute(text("with taken as (delete from event_pending returning *) "
                                "select unnest(event_ids), occurred_at from taken")).all()  # fmt: skip
        scoring.mark_late(tx, [row[0] for row in taken], [row[1] for row in taken])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze contact_scores, contact_stages, score_states, score_history, "
                                "stage_transitions, contact_milestones, score_stale, event_pending"))  # fmt: skip


def main() -> None:
    """Make the history, run three nights, measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="contacts")
    parser.add_argument("--events", type=int, help="events (default: ten for each contact)")
    options = parser.parse_args()
    events = options.events or options.rows * 10
    with bench() as place:
        with place.measured(f"make {options.rows:,} contacts, {events:,} events"):
            build(place.engine, contacts=options.rows, events=events, last_day=options.rows * 12 // 100)
        with place.engine.begin() as tx:
            scoring.install_default_rules(tx, END)
        nights = [END - timedelta(days=2), END - timedelta(days=1), END]
        with place.measured("full rebuild: nothing folded, everybody new") as rebuild:
            scoring.recalculate(place.engine, as_of=nights[0])
        between(place.engine)
        scoring.recalculate(place.engine, as_of=nights[1])
        between(place.engine)
        with place.engine.connect() as tx:
            day = tx.scalar(text("select count(*) from events where occurred_at > :a and occurred_at <= :b"),
                            {"a": nights[1], "b": nights[2]})  # fmt: skip
        sys.stdout.write(f"load average {os.getloadavg()[0]:.1f}; a night with {day:,} events since the one before:\n")
        costs = night(place, nights[2])
        between(place.engine)
        with place.measured("the same night again"):
            again = scoring.recalculate(place.engine, as_of=nights[2])
        with place.engine.begin() as tx:
            checks = {f"by hand as of {as_of:%d %b}": verify(tx, options.rows, as_of) for as_of in nights}
        checks["a repeated night changes nothing"] = (again.changed, again.moved, again.snapshots) == (0, 0, 0)
        one_by_one, duck, single_ms = naive(place, options.rows), in_duckdb(place, END), single(place, options.rows)
    total = sum(costs[part].cpu_seconds for part in ("fold", "score", "upsert"))
    shown = {
        **{f"{part}_cpu_s": round(cost.cpu_seconds, 2) for part, cost in costs.items()},
        "full_rebuild_cpu_s": round(rebuild.cpu_seconds, 2), "naive_cpu_s_extrapolated": round(one_by_one, 1),
        "duckdb_cpu_s": round(duck[0], 2) if duck else None, "one_contact_ms": round(single_ms, 2),
        "night_cpu_s_per_million": round(total * 1e6 / options.rows, 2), "events": events, "events_of_the_day": day,
    }  # fmt: skip
    checks["everybody as in DuckDB"] = duck is None or duck[1]
    sys.stdout.write("".join(f"WRONG: {check}\n" for check, is_right in checks.items() if not is_right))
    finish("scoring", total, "CPU s a night", rows=options.rows, verified=all(checks.values()), compared_to=shown)


if __name__ == "__main__":
    main()
