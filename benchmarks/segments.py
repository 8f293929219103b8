"""Counting segments: CPU seconds of typical rules over contacts and a year of their events and orders.

Each rule runs several times and the fastest run counts. What a rule finds is counted again by a plain query, written
by hand, over the same data.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text

from benchmarks.ground.measuring import Bench, bench, finish
from benchmarks.ground.shop_history import END, build
from mautolib.segments.compile import Setting, members
from mautolib.segments.reading import reading
from mautolib.segments.rules import Definition

_SEEN = "(select count(*) from events where events.contact_id = contacts.contact_id and event_type = 'page_viewed'"
_VIEWED = {"field": "event.count", "event": "page_viewed"}
_GERMAN = {"field": "country", "operator": "eq", "value": "de"}


class Case(NamedTuple):
    """Rules and the condition they stand for, as somebody would write it by hand."""

    rules: list[dict[str, Any]]
    by_hand: str


CASES = {
    "three column rules": Case(
        [_GERMAN, {"field": "subscribed", "operator": "eq", "value": True},
         {"field": "first_name", "operator": "contains", "value": "7"}],
        "country = 'DE' and subscribed and first_name like '%7%'"),
    "a number in custom fields": Case(
        [{"field": "custom_fields.size", "as": "number", "operator": "gte", "value": 3}],
        "(custom_fields ->> 'size')::numeric >= 3"),
    "viewed a page in 30 days": Case(
        [{**_VIEWED, "operator": "gte", "value": 1, "within_days": 30}],
        f"{_SEEN} and occurred_at between :since and :end) >= 1"),
    "viewed three pages in 30 days, German": Case(
        [_GERMAN, {**_VIEWED, "operator": "gte", "value": 3, "within_days": 30}],
        f"country = 'DE' and {_SEEN} and occurred_at between :since and :end) >= 3"),
    "viewed three pages, ever": Case(
        [{**_VIEWED, "operator": "gte", "value": 3}], f"{_SEEN}) >= 3"),
    "viewed nothing in 30 days": Case(
        [{**_VIEWED, "operator": "eq", "value": 0, "within_days": 30}],
        f"{_SEEN} and occurred_at between :since and :end) = 0"),
    "German, or viewed three pages in 30 days": Case(
        [{"any": [_GERMAN, {**_VIEWED, "operator": "gte", "value": 3, "within_days": 30}]}],
        f"country = 'DE' or {_SEEN} and occurred_at between :since and :end) >= 3"),
    "bought for more than 500": Case(
        [{"field": "order.revenue", "operator": "gt", "value": 500}],
        "(select sum(net_total) from orders where orders.contact_id = contacts.contact_id) > 500"),
}  # fmt: skip


def count(place: Bench, case: Case) -> tuple[int, float]:
    """How many contacts a case finds, and the seconds the statement took."""
    setting = Setting(now=END, reporting_currency="USD")
    found = members(Definition(rules=tuple(case.rules)), setting).subquery()
    with reading(place.engine, timeout_ms=60_000) as tx:
        begun = time.perf_counter()
        number = tx.scalar(select(func.count()).select_from(found))
        return int(number or 0), time.perf_counter() - begun


def count_by_hand(tx: Connection, case: Case, sample: int) -> int:
    """The same for the first `sample` contacts, by hand."""
    query = f"select count(*) from contacts where contact_id <= :sample and ({case.by_hand})"
    return int(tx.scalar(text(query), {"sample": sample, "since": END - timedelta(days=30), "end": END}) or 0)


def is_right(place: Bench, case: Case, sample: int) -> bool:
    """Whether rules and hand-written query find as many of the first contacts."""
    setting = Setting(now=END, reporting_currency="USD")
    found = members(Definition(rules=tuple(case.rules)), setting).subquery()
    with place.engine.connect() as tx:
        number = tx.scalar(select(func.count()).select_from(found).where(found.c.contact_id <= sample))
        return bool(number == count_by_hand(tx, case, sample))


def main() -> None:
    """Make the history, count each case, check a part of it by hand."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segments", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="contacts; there are ten events for each")
    parser.add_argument("--times", type=int, default=5, help="runs of each case; the fastest counts")
    parser.add_argument("--sample", type=int, default=2000, help="contacts counted again by hand")
    options = parser.parse_args()
    fastest: dict[str, float] = {}
    verified = True
    with bench() as place:
        with place.measured(f"make {options.rows:,} contacts, {options.rows * 10:,} events"):
            build(place.engine, contacts=options.rows, events=options.rows * 10)
        cpu = 0.0
        for name, case in CASES.items():
            with place.measured(f"{name}, {options.times} times") as cost:
                runs = [count(place, case) for _ in range(options.times)]
            cpu += cost.cpu_seconds / options.times
            fastest[name] = min(seconds for _, seconds in runs)
            verified = verified and is_right(place, case, options.sample)
            sys.stdout.write(f"    {runs[0][0]:,} contacts; fastest {fastest[name] * 1000:.0f} ms; {case.rules}\n")
    finish(
        "segments", cpu, "CPU s for all eight", rows=options.rows * 10, verified=verified,
        compared_to={f"{name}, ms": round(seconds * 1000) for name, seconds in fastest.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
