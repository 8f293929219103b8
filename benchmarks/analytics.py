"""All tables of schema `analytics` over a year of a shop: CPU seconds of the refresh after one more day.

The day brings 12 events per hundred contacts, orders and mail for one in a hundred, late events, refunds, second
verdicts and a night of scores; afterwards every table must equal a rebuild, row by row. Beside it: the rebuild of all
tables (the first, into empty ones, and one over what is there), and the sign-up cohorts in DuckDB over the same rows,
which must find the same cells. A sample of cells is counted again by a plain query per cell.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from benchmarks.ground import shop_history, shop_mail
from benchmarks.ground.duck import duckdb_with
from benchmarks.ground.measuring import Bench, bench, finish
from mautolib.analytics import cohorts, refreshing

#: Days of scores that the tables are made of.
NIGHTS = 3
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
_DUCK = """
with active as (
    select contacts.contact_id, contacts.signed_up, (events.happened - contacts.signed_up) / 86400 as age
    from events join contacts on contacts.contact_id = events.contact_id
    where events.happened >= contacts.signed_up and events.happened < $as_of
), cells as (
    select
        grain, date_trunc(grain, make_timestamp((signed_up * 1000000)::bigint)) as cohort_start,
        floor(age / period)::int as period_offset, count(distinct contact_id) as active_count
    from active cross join (values ('day', 1), ('week', 7), ('month', 30)) as grains (grain, period)
    where age < period * $periods
    group by 1, 2, 3
    -- Ours are the cells that are over for everybody, and days only as far back as they are kept.
    having date_add(cohort_start, to_days(((period_offset + 1) * any_value(period))::int)
            + case grain when 'day' then interval 1 day when 'week' then interval 7 day else interval 1 month end)
            <= make_timestamp(($as_of * 1000000)::bigint)
        and (grain <> 'day' or cohort_start >= make_timestamp((($as_of - $days * 86400) * 1000000)::bigint))
)
"""


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


def contents(engine: Engine) -> dict[str, Any]:
    """Each table as the number of its rows and the sum of their hashes, without when they were computed."""
    found = {}
    with engine.connect() as tx:
        for table in (*(item.table for item in refreshing.TABLES), "score_distribution"):
            relation, columns = tx.execute(text(
                "select cast(attrelid as regclass), string_agg(cast(attname as text), ', ' order by attnum) "
                "from pg_attribute where attnum > 0 and attname <> 'refreshed_at' and attrelid = "
                "coalesce(to_regclass('analytics.' || :table), to_regclass('rollups.' || :table)) group by attrelid"
            ), {"table": table}).one()  # fmt: skip
            found[table] = tx.execute(text(
                f"select count(*), sum(cast(hashtextextended(cast(row({columns}) as text), 0) as numeric)) "
                f"from {relation}")).one()  # fmt: skip
    return found


def refresh(place: Bench, as_of: datetime, *, rebuild: bool) -> dict[str, float]:
    """CPU seconds by table."""
    took = {}
    for item in refreshing.TABLES:
        with place.measured(f"  {item.table}") as cost:
            refreshing.refresh(place.engine, as_of=as_of, only=[item.table], rebuild=rebuild)
        took[item.table] = cost.cpu_seconds
    return took


def in_duckdb(place: Bench, as_of: datetime) -> tuple[float, bool] | None:
    """CPU seconds DuckDB takes for all sign-up cohorts, and whether its cells are ours; None without DuckDB."""
    with duckdb_with(place, {
        "events": "select contact_id, extract(epoch from occurred_at) as happened from events "
                  "where event_type in ('email_opened', 'email_clicked')",
        "contacts": "select contact_id, extract(epoch from created_at) as signed_up from contacts",
        "ours": "select granularity as grain, cohort_start, period_offset, active_count "
                "from analytics.contact_cohorts where active_count > 0",
    }) as duck:  # fmt: skip
        if duck is None:
            return None
        binds = {"as_of": as_of.timestamp(), "periods": cohorts.PERIODS, "days": cohorts.DAY_COHORTS}
        with place.measured("DuckDB: the same sign-up cohorts (loaded)") as cost:
            duck.execute(f"create table theirs as {_DUCK} select * from cells", binds)
        apart = duck.execute("select count(*) from ours full join theirs using (grain, cohort_start, period_offset) "
                             "where ours.active_count is distinct from theirs.active_count").fetchone()  # fmt: skip
    return cost.cpu_seconds, apart == (0,)


def main() -> None:
    """Make the history, rebuild, let a day pass, follow it, compare with a rebuild."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analytics", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="contacts, and orders; ten events for each")
    rows = parser.parse_args().rows
    # Yesterday: what marks do depends on how late something comes.
    before = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    after = before + timedelta(days=1)
    with bench() as place:
        with place.measured(f"make {rows:,} contacts and orders, {rows * 10:,} events, {rows * 14 // 10:,} mails"):
            shop_history.build(place.engine, contacts=rows, events=rows * 10, end=before)
            shop_mail.build(place.engine, contacts=rows, messages=rows * 14 // 10, hits=rows * 2, orders=rows,
                            nights=NIGHTS, end=before)  # fmt: skip
        sys.stdout.write("rebuild of all tables, empty before:\n")
        first = refresh(place, before, rebuild=True)
        shop_mail.vacuum(place.engine)
        with place.measured("one more day is written"):
            shop_mail.another_day(place.engine, contacts=rows, events=rows * 12 // 100, orders=rows // 100,
                                  messages=rows // 100, end=after)  # fmt: skip
        sys.stdout.write("refresh after that day:\n")
        day = refresh(place, after, rebuild=False)
        followed = contents(place.engine)
        sys.stdout.write("rebuild of all tables, over what is there:\n")
        again = refresh(place, after, rebuild=True)
        rebuilt = contents(place.engine)
        with place.engine.begin() as tx:
            checks = {"cohorts counted cell by cell": verify(tx, rows)}
        duck = in_duckdb(place, after)
    checks |= {f"{table} equals a rebuild": followed[table] == rebuilt[table] for table in followed}
    checks["cohorts as in DuckDB"] = duck is None or duck[1]
    sys.stdout.write("".join(f"WRONG: {check}\n" for check, is_right in checks.items() if not is_right))
    shown = {
        "full_rebuild_cpu_s": round(sum(first.values()), 2), "rebuild_over_rows_cpu_s": round(sum(again.values()), 2),
        "day_by_table": {table: round(seconds, 2) for table, seconds in day.items()},
        "cohorts_cpu_s": round(again["contact_cohorts"], 2),
        "cohorts_duckdb_cpu_s": round(duck[0], 2) if duck else None,
    }  # fmt: skip
    finish("analytics", sum(day.values()), "CPU s to refresh all tables after a day", rows=rows * 10,
           verified=all(checks.values()), compared_to=shown)  # fmt: skip


if __name__ == "__main__":
    main()
