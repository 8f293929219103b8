"""Online Retail loaded from its file, twice: rules A and C, cohorts and euro totals against golden values."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.ingestion.order_loading import Leave, Loaded, OrderFile, load
from mautolib.ingestion.rate_files import load_file
from mautolib.settings import Settings

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
RULES = {
    "raw": frozenset[Leave](),
    "A": frozenset({Leave.NO_CUSTOMER}),
    "C": frozenset({Leave.CANCELLATIONS, Leave.FREE_LINES, Leave.NO_CUSTOMER}),
}
COHORTS = """
    with months as (
        select distinct contact_id, cast(date_trunc('month', placed_at, 'UTC') as date) as month
        from orders where contact_id > 0
    ), firsts as (select contact_id, min(month) as cohort from months group by contact_id)
    select cohort, cast(extract(year from age(month, cohort)) * 12 + extract(month from age(month, cohort)) as int),
        count(*)
    from months join firsts using (contact_id) group by 1, 2
"""


@pytest.fixture(scope="module")
def golden(data: Path) -> Any:
    return json.loads((data / "golden" / "online_retail.json").read_text(encoding="utf-8"))


@pytest.fixture
def online(data: Path, fresh_engine: Engine) -> Iterator[Engine]:
    with fresh_engine.begin() as tx:
        done = load_file(tx, data / "ecb_eurofxref_hist.csv.gz", now=NOW, since=date(2010, 11, 1))
        assert done.given == done.changed > 100_000
    yield fresh_engine


def loaded(engine: Engine, data: Path, settings: Settings, rule: str, **how: Any) -> Loaded:
    given = OrderFile(path=data / "online_retail.csv.gz", leaves=RULES[rule])
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = datetime.now(UTC)
    found = load(engine, given, settings, now=NOW, **how)
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"rule {rule}: {(datetime.now(UTC) - started).total_seconds():.1f} s, {spent:.1f} CPU s of the client, "
          f"{after.ru_maxrss / 1024:.0f} MiB resident at most")  # fmt: skip
    return found


def scalar(engine: Engine, sql: str) -> Any:
    with engine.connect() as tx:
        return tx.scalar(text(sql))


def pounds(found: Loaded) -> Decimal:
    assert found.totals.keys() == {"GBP"}
    return round(found.totals["GBP"], 2)


def cohorts_of(path: Path) -> dict[tuple[date, int], int]:
    found = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.reader(file):
            if row[0] != "cohort_month":
                month = date.fromisoformat(row[0] + "-01")
                found |= {(month, at): int(cell) for at, cell in enumerate(row[1:]) if cell}
    return found


def cohorts(engine: Engine) -> dict[tuple[date, int], int]:
    with engine.connect() as tx:
        return {(row[0], row[1]): row[2] for row in tx.execute(text(COHORTS))}


def test_everything_in_the_file(data: Path, fresh_engine: Engine, settings: Settings, golden: Any) -> None:
    raw = golden["raw"]
    found = loaded(fresh_engine, data, settings, "raw")
    assert (found.preset, found.source, found.rows, found.rejected) == ("online_retail", "online_retail", 541909, {})
    assert (found.taken_rows, found.new, found.duplicates, found.conflicts) == (raw["rows"], raw["invoices"], 0, 0)
    # Some prices have three decimals; the golden sums are rounded.
    assert pounds(found) == Decimal(str(raw["net_revenue_gbp"]))
    assert found.contacts_made == raw["customers"] == scalar(fresh_engine, "select count(*) from contacts")
    assert [f"{found.first:%Y-%m-%d %H:%M:%S}", f"{found.last:%Y-%m-%d %H:%M:%S}"] == [raw["first"], raw["last"]]
    assert scalar(fresh_engine, "select sum(jsonb_array_length(lines)) from orders") == raw["rows"]


def test_rule_a(data: Path, fresh_engine: Engine, settings: Settings, golden: Any) -> None:
    """With cancellations: they are orders below zero under their own numbers."""
    rule = golden["A_with_customer_id"]
    found = loaded(fresh_engine, data, settings, "A")
    assert (found.taken_rows, found.new, found.rejected) == (rule["rows"], rule["invoices"], {})
    assert pounds(found) == Decimal(str(rule["revenue_gbp"]))
    assert found.left_out["no_customer"] == (25900 - 22190, golden["raw"]["missing_customer_id"])
    assert scalar(fresh_engine, "select count(distinct contact_id) from orders") == rule["customers"]
    assert cohorts(fresh_engine) == cohorts_of(data / "golden" / "online_retail_cohorts_A_counts.csv")


def test_rule_c(data: Path, online: Engine, settings: Settings, golden: Any) -> None:
    """Without cancellations, free lines and unknown customers, in euro at each day's rate; then all of it again."""
    rule = golden["C_no_canc_price_gt_0"]
    settings = replace(settings, reporting_currency="EUR")
    found = loaded(online, data, settings, "C")
    assert (found.taken_rows, found.new, found.rejected) == (rule["rows"], rule["invoices"], {})
    assert pounds(found) == Decimal(str(rule["revenue_gbp"]))
    assert found.contacts_made == rule["customers"] == scalar(online, "select count(distinct contact_id) from orders")
    assert cohorts(online) == cohorts_of(data / "golden" / "online_retail_cohorts_C_counts.csv")
    euro = scalar(online, "select sum(net_revenue) from analytics.fct_orders where reporting_currency = 'EUR'")
    assert round(euro, 2) == Decimal("10282992.84")
    frequencies = scalar(
        online, "select count(*) from (select from orders group by contact_id having count(*) = 1) as once"
    )
    assert frequencies == golden["repeat"]["one_invoice"]
    # Silent: nothing waits for dispatch, nobody is opted in, no webhook is told.
    for sql in ("select count(*) from event_pending", "select count(*) from outbox",
                "select count(*) from contacts where subscribed"):  # fmt: skip
        assert scalar(online, sql) == 0, sql
    again = loaded(online, data, settings, "C")
    assert (again.new, again.duplicates, again.conflicts, again.contacts_made) == (0, rule["invoices"], 0, 0)
    assert again.totals == found.totals
    assert scalar(online, "select count(*) from orders") == rule["invoices"]


def test_what_a_dry_run_says_is_what_happens(data: Path, fresh_engine: Engine, settings: Settings) -> None:
    tried = loaded(fresh_engine, data, settings, "C", dry_run=True)
    for table in ("orders", "contacts"):
        assert scalar(fresh_engine, f"select count(*) from {table}") == 0
    done = loaded(fresh_engine, data, settings, "C")
    assert tried == done
