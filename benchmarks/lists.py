"""Lists of a million contacts: database time of a page, a read, a search, and of the 5,000th page by cursor.

Each figure is the median of several runs of what the HTTP operation asks the database (rows, details, total). Pages
are compared with a plain query of the same rows, searches with a count by `ilike`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from benchmarks.ground.measuring import Bench, bench, finish
from benchmarks.ground.shop_history import END, build
from mautolib import contacts
from mautolib.contacts import searching
from mautolib.contacts.model import ContactFilter

PAGE, TIMES = 50, 7
_COUNT = "select count(*) from contacts where email ilike :p or first_name ilike :p or last_name ilike :p"
_RETOUCH = """
update contacts set updated_at = created_at + interval '1 day', version = 2
where contact_id % 100 = 0
"""


def list_page(tx: Connection, filters: ContactFilter, after: tuple[datetime, int] | None = None) -> list[Any]:
    """What GET /contacts/ asks for."""
    rows = contacts.search(tx, filters, limit=PAGE + 1, after=after)
    contacts.count(tx, filters, at_most=100_001)
    return rows


def median_ms(work: Callable[[], Any]) -> float:
    """Milliseconds of the median run, the first one left out."""
    took = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[1:])


def searches(rows: int) -> dict[str, str]:
    """Texts from rare to common."""
    return {"one person": f"c{rows // 3}@", "a dozen": f"irst{rows // 90}", "thousands": "c77", "everybody": "shop.ex"}


def measure(place: Bench, rows: int) -> tuple[dict[str, float], bool]:
    """Milliseconds of each question, and whether the answers were right."""
    found: dict[str, float] = {}
    right = True
    with place.engine.begin() as tx:
        everybody = ContactFilter()
        found["first page"] = median_ms(lambda: list_page(tx, everybody))
        found["one contact"] = median_ms(lambda: contacts.get(tx, rows // 2))
        found["by exact address"] = median_ms(lambda: list_page(tx, ContactFilter(email=f"C{rows // 2}@Shop.example")))
        for name, part in searches(rows).items():
            found[f"search: {name}"] = median_ms(lambda part=part: list_page(tx, ContactFilter(q=part)))
            if name != "everybody":
                wanted = tx.scalar(text(_COUNT), {"p": f"%{part}%"})
                right &= contacts.count(tx, ContactFilter(q=part)) == wanted
        found["changed since yesterday"] = median_ms(lambda: list_page(tx, ContactFilter(updated_since=END)))
        deep, pages_right = deep_pages(tx, rows)
    return found | deep, right and pages_right


def deep_pages(tx: Connection, rows: int) -> tuple[dict[str, float], bool]:
    """Cursor pages far down the list, checked against `offset`."""
    found, right = {}, True
    query = "select created_at, contact_id from contacts order by created_at desc, contact_id desc offset :n limit 1"
    for number in (1, 100, 1000, 5000):
        offset = min(number * PAGE, rows) - 1
        row = tx.execute(text(query), {"n": offset}).one()
        after = (row.created_at, row.contact_id)
        page = contacts.search(tx, limit=PAGE + 1, after=after)
        follower = tx.execute(text(query), {"n": offset + 1}).one_or_none()
        right &= follower is None or page[0].contact_id == follower.contact_id
        found[f"after page {number} by cursor"] = median_ms(lambda after=after: list_page(tx, ContactFilter(), after))
    return found, right


def main() -> None:
    """Make contacts, index them, ask."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="contacts")
    options = parser.parse_args()
    with bench() as place:
        with place.measured(f"make {options.rows:,} contacts"):
            build(place.engine, contacts=options.rows, events=0)
        with place.engine.begin() as tx:
            tx.execute(text(_RETOUCH))
        with place.measured("index them for searching") as indexing:
            searching.extend_index(place.engine)
        with place.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("vacuum analyze"))
        found, verified = measure(place, options.rows)
    for name, took in found.items():
        sys.stdout.write(f"{name:<34} {took:8.1f} ms\n")
    deepest, first = found["after page 5000 by cursor"], found["after page 1 by cursor"]
    finish(
        "lists", max(found.values()), "ms of database time, the slowest question", rows=options.rows,
        verified=verified,
        compared_to={"page_5000_to_page_1": round(deepest / first, 2),
                     "index_cpu_seconds_per_1m": round(indexing.cpu_seconds * 1e6 / options.rows, 1),
                     **{name: round(took, 1) for name, took in found.items()}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
