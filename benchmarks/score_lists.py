"""Scores looked at: CPU of the lists over a million scored contacts, and of one contact recalculated and explained.

Each figure is CPU of process and server for one call, the mean of several after a first one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.ground.measuring import Bench, bench, finish
from benchmarks.ground.shop_history import END, build
from mautolib import scoring
from mautolib.scoring import Stage

TIMES, ONES = 5, 100
_EACH_CONTACT_EVENTS = 100
_SCORES = """
insert into contact_scores (
    contact_id, total_score, engagement_score, profile_score, recency_score, grade, last_activity_at, as_of,
    rule_version)
select contact_id, spread, spread * 0.8, 4, 10, 'C', cast(:end as timestamptz) - make_interval(hours => quiet),
    cast(:end as timestamptz), 1
from (
    select contact_id, floor(power(hashint8(contact_id)::float8 / 2147483648.0, 2) * 10000) / 100 as spread,
        (contact_id * 7919 % 8760)::int as quiet
    from contacts
) as people
"""
_STAGES = """
insert into contact_stages
select contact_id, (array['subscriber', 'lead', 'mql', 'sql', 'customer', 'evangelist', 'dormant', 'churned'])
    [1 + contact_id * 7919 % 8], cast(:end as timestamptz), cast(:end as timestamptz) - make_interval(
        mins => (contact_id * 104729 % 100000)::int)
from contacts
where created_at < cast(:end as timestamptz) - interval '12 hours'
"""
_NIGHT = """
insert into score_runs (as_of, source, rule_version, bucket, buckets, is_current, scored_count, changed_count,
    moved_count, snapshot_count)
select cast(:end as timestamptz) - interval '12 hours', 'nightly', 1, 0, 1, true, count(*), 0, 0, 0 from contact_stages
"""
_EVENTS = """
insert into events (contact_id, occurred_at, received_at, event_type, source)
select contact_id, at, at, (array['email_sent', 'email_opened', 'email_clicked', 'page_viewed'])[1 + n % 4], 'mauto'
from generate_series(1, :people) as contact_id
cross join generate_series(1, :events) as n
cross join lateral (select cast(:end as timestamptz) - make_interval(hours => n * 87) as at) as moment
"""


def prepare(engine: Engine, rows: int) -> None:
    """Contacts with scores and stages; the first hundred have a year of events."""
    build(engine, contacts=rows, events=0)
    with engine.begin() as tx:
        scoring.install_default_rules(tx, END)
        for statement in (_SCORES, _STAGES, _NIGHT):
            tx.execute(text(statement), {"end": END})
        tx.execute(text(_EVENTS), {"end": END, "people": ONES, "events": _EACH_CONTACT_EVENTS})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def questions(engine: Engine) -> dict[str, Callable[[], Any]]:
    """What the operations ask, by name."""

    def of(look: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        def ask() -> Any:
            with engine.begin() as tx:
                return look(tx, **options)

        return ask

    deep = {"after": (40.0, 1)}
    return {
        "leaderboard": of(scoring.leaderboard, limit=51),
        "leaderboard, far down by cursor": of(scoring.leaderboard, limit=51, **deep),
        "leaderboard of a stage": of(scoring.leaderboard, limit=51, stage=Stage.LEAD),
        "count of the leaderboard": of(scoring.count_leaders, at_most=100_001),
        "count of a stage's leaderboard": of(scoring.count_leaders, stage=Stage.LEAD, at_most=100_001),
        "stages and report": of(scoring.stage_figures),
        "re-engagement": of(scoring.reengagement, min_days=30, max_days=90, limit=100, now=END),
        "re-engagement of a year": of(scoring.reengagement, min_days=7, max_days=365, limit=500, now=END),
        "process 100": of(scoring.process, limit=100, now=END + timedelta(seconds=1)),
    }


def of_one(place: Bench) -> dict[str, float]:
    """CPU ms of what is asked of one contact with a hundred events."""
    found = {}
    moments = iter(range(1, 10**6))
    verbs: dict[str, Callable[[Any, int], Any]] = {
        "recalculate one": lambda tx, one: scoring.recalculate_contact(
            tx, one, END + timedelta(seconds=next(moments))),
        "recalculate one again": lambda tx, one: scoring.recalculate_contact(
            tx, one, END + timedelta(hours=1, seconds=next(moments))),
        "process one event": lambda tx, one: scoring.process_event(
            tx, one, "page_viewed", {"url": "/"}, now=END + timedelta(hours=2, seconds=next(moments))),
        "evaluate one": lambda tx, one: scoring.evaluate(tx, one, END),
        "explain one": lambda tx, one: scoring.explain(tx, one, END),
        "engagement of one": lambda tx, one: scoring.engagement_of(tx, one, days=90, now=END),
        "suppose one": lambda tx, one: scoring.suppose(tx, one, Stage.LEAD, 50, now=END),
    }  # fmt: skip
    for name, verb in verbs.items():
        with place.engine.begin() as tx:
            verb(tx, 1)
        with place.measured(name) as cost:
            for one in range(1, ONES + 1):
                with place.engine.begin() as tx:
                    verb(tx, one)
        found[name] = cost.cpu_seconds * 1000 / ONES
    return found


def main() -> None:
    """Make scores, ask."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_lists", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="contacts")
    options = parser.parse_args()
    with bench() as place:
        with place.measured(f"make {options.rows:,} scored contacts"):
            prepare(place.engine, options.rows)
        found = of_one(place)
        for name, ask in questions(place.engine).items():
            ask()
            with place.measured(name) as cost:
                for _ in range(TIMES):
                    ask()
            found[name] = cost.cpu_seconds * 1000 / TIMES
        with place.engine.begin() as tx:
            leaders = scoring.leaderboard(tx, limit=50)
            wanted = tx.execute(text("select total_score from contact_scores order by 1 desc limit 50")).scalars().all()
            total = sum(one.count for one in scoring.stage_figures(tx).values())
    for name, took in found.items():
        sys.stdout.write(f"{name:<34} {took:8.1f} ms CPU\n")
    finish(
        "score_lists", max(found.values()), "ms of CPU, the slowest question", rows=options.rows,
        verified=[one.total_score for one in leaders] == list(wanted) and total == options.rows,
        compared_to={name: round(took, 1) for name, took in found.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
