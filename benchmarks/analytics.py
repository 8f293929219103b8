"""Sign-up cohorts over a year of opens and clicks: CPU seconds to restate them all, by day, week and month.

A sample of cells is counted again by a plain query per cell; every cohort size must add up to the contacts.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from sqlalchemy import Connection, text

from benchmarks.ground.measuring import bench, finish
from benchmarks.ground.shop_history import END, build
from mautolib.analytics import cohorts, readers

_CELL = """
select count(*) from contacts
where created_at >= cast(:start as timestamptz) and created_at < cast(:start as timestamptz) + cast(:length as interval)
    and exists (
        select 1 from events
        where events.contact_id = contacts.contact_id and event_type in ('email_opened', 'email_clicked')
            and occurred_at >= created_at + :k * cast(:period as interval)
            and occurred_at < created_at + (:k + 1) * cast(:period as interval))
"""
_LENGTHS = {"day": ("1 day", "1 day"), "week": ("7 days", "7 days"), "month": ("1 month", "30 days")}


def verify(tx: Connection, contacts: int) -> bool:
    """Whether sampled cells and all sizes are right."""
    sampled = tx.execute(text(
        "select * from analytics.contact_cohorts where is_complete "
        "order by hashtextextended(granularity || cohort_start || ':' || period_offset, 7) limit 40"))  # fmt: skip
    for cell in sampled:
        length, period = _LENGTHS[cell.granularity]
        binds = {"start": cell.cohort_start, "length": length, "period": period, "k": cell.period_offset}
        if tx.scalar(text(_CELL), binds) != cell.active_count:
            return False
    sizes = tx.execute(text("select sum(cohort_size) from analytics.contact_cohorts where period_offset = 0 "
                            "and granularity <> 'day' group by granularity")).scalars().all()  # fmt: skip
    return [int(size) for size in sizes] == [contacts, contacts]


def main() -> None:
    """Make the history, restate the cohorts twice, measure the second time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analytics", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="contacts; there are ten events for each")
    options = parser.parse_args()
    with bench() as place:
        with place.measured(f"make {options.rows:,} contacts, {options.rows * 10:,} events"):
            build(place.engine, contacts=options.rows, events=options.rows * 10)
        with place.measured("cohorts, first time"):
            cells = cohorts.refresh(place.engine, as_of=END)
        with place.measured("cohorts, restated") as restated:
            again = cohorts.refresh(place.engine, as_of=END)
        with place.measured("cohorts of the last week's sign-ups") as part:
            cohorts.refresh(place.engine, as_of=END, from_=(END - timedelta(days=7)).date())
        with place.engine.begin() as tx:
            with place.measured("front page: totals and half a year of sign-ups") as page:
                readers.dashboard_stats(tx)
                readers.signup_weeks(tx, weeks=26, now=END)
            verified = cells == again and verify(tx, options.rows)
    sys.stdout.write(f"{cells:,} cells\n")
    finish(
        "analytics", restated.cpu_seconds, "CPU s for all cohorts", rows=options.rows * 10, verified=verified,
        compared_to={"cpu_seconds_per_10m_events": round(restated.cpu_seconds * 1e6 / options.rows, 2),
                     "last_week_only": round(part.cpu_seconds, 2), "front_page_ms": round(page.wall_seconds * 1000)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
