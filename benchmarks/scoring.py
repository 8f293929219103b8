"""The nightly scores: CPU seconds to score everybody, move stages and keep what changed.

The result is checked against a plain Python reading of the contract for a sample of contacts, and a repeated night
must change nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.ground.measuring import bench, finish
from benchmarks.ground.shop_history import END, build
from mautolib import scoring
from mautolib.events.types import is_positive_engagement
from mautolib.scoring.rules import DEFAULT_RULES

SAMPLE = 200


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
    """Whether the stored scores of a sample are those computed by hand."""
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


def main() -> None:
    """Make the history, run three nights, measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="contacts; there are ten events for each")
    parser.add_argument("--buckets", type=int, default=1, help="transactions a night is cut into")
    options = parser.parse_args()
    with bench() as place:
        with place.measured(f"make {options.rows:,} contacts, {options.rows * 10:,} events"):
            build(place.engine, contacts=options.rows, events=options.rows * 10)
        with place.engine.begin() as tx:
            scoring.install_default_rules(tx, END)
        nights = [END - timedelta(days=1), END]
        with place.measured("first night: everybody is new"):
            scoring.recalculate(place.engine, as_of=nights[0], buckets=options.buckets)
        with place.measured("dry run: score only"):
            scoring.recalculate(place.engine, as_of=nights[1], buckets=options.buckets, dry_run=True)
        with place.measured("second night: score, upsert what changed, snapshots") as night:
            done = scoring.recalculate(place.engine, as_of=nights[1], buckets=options.buckets)
        again = scoring.recalculate(place.engine, as_of=nights[1], buckets=options.buckets)
        with place.engine.begin() as tx:
            verified = all(verify(tx, options.rows, as_of) for as_of in nights)
        verified = verified and (again.changed, again.moved, again.snapshots) == (0, 0, 0)
        began = time.perf_counter()
        for contact_id in range(1, 101):
            with place.engine.begin() as tx:
                scoring.recalculate_contact(tx, contact_id, END + timedelta(minutes=1))
        single_ms = (time.perf_counter() - began) * 10
    sys.stdout.write(f"one contact: {single_ms:.1f} ms; {done.changed:,} of {done.scored:,} scores changed\n")
    finish(
        "scoring", night.cpu_seconds, "CPU s a night", rows=done.scored, verified=verified,
        compared_to={"cpu_seconds_per_million": round(night.cpu_seconds * 1e6 / done.scored, 2),
                     "one_contact_ms": round(single_ms, 2), "changed": done.changed},
    )  # fmt: skip


if __name__ == "__main__":
    main()
