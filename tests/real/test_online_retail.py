"""A year of a real shop: cohorts, RFM and converted totals equal the golden tables cell by cell."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mautolib.analytics import refreshing
from mautolib.db.engine import connect
from mautolib.events.orders import NewOrder, NewRate, load_rates, record_orders
from mautolib.settings import Settings
from tests.conftest import Server

# Everything is over by then, the last month included; RFM is as of the day after the last order.
END, RFM_DAY = datetime(2012, 1, 1, tzinfo=UTC), datetime(2011, 12, 10, tzinfo=UTC)
NAMES = ("customer_months", "order_cohorts", "attribution", "customer_value", "rfm_segments")


@pytest.fixture(scope="session")
def retail_golden(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "golden" / "online_retail.json").read_text(encoding="utf-8"))
    return found


def invoices(data: Path, rule: str) -> Iterator[NewOrder]:
    """Each invoice of a known customer as an order; rule C without cancellations and lines without a price."""
    found: dict[tuple[str, str], tuple[datetime, Decimal]] = {}
    with gzip.open(data / "online_retail.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            price = Decimal(line["UnitPrice"])
            if not line["CustomerID"] or (rule == "C" and (line["InvoiceNo"].startswith("C") or price <= 0)):
                continue
            key = line["InvoiceNo"], line["CustomerID"]
            at = datetime.fromisoformat(line["InvoiceDate"]).replace(tzinfo=UTC)
            first, total = found.get(key, (at, Decimal(0)))
            found[key] = min(first, at), total + int(line["Quantity"]) * price
    for (number, customer), (placed_at, total) in found.items():
        yield NewOrder(order_id=number, placed_at=placed_at, currency="GBP", total=total, lines=[],
                       contact_id=int(float(customer)), source="online retail")  # fmt: skip


def ecb_rates(data: Path, quotes: set[str], since: date, until: date) -> Iterator[NewRate]:
    with gzip.open(data / "ecb_eurofxref_hist.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            day = date.fromisoformat(row["Date"])
            for quote in quotes if since <= day <= until else ():
                if row[quote] not in ("", "N/A"):
                    yield NewRate(rate_date=day, base="EUR", quote=quote, rate=Decimal(row[quote]), source="ECB")


def shop(engine: Engine, data: Path, rule: str, settings: Settings) -> int:
    """Load the year; returns how many orders there are."""
    loaded = 0
    given = invoices(data, rule)
    with engine.begin() as tx:
        load_rates(tx, ecb_rates(data, {"GBP"}, date(2010, 11, 1), END.date()), now=END)
        while part := list(islice(given, 5000)):
            people = {order.contact_id for order in part}
            known = set(tx.scalars(text("select contact_id from contacts where contact_id = any(:ids)"),
                                   {"ids": list(people)}))  # fmt: skip
            rows = [{"contact_id": one, "email": f"c{one}@shop.example", "email_key": f"c{one}@shop.example"}
                    for one in sorted(people - known)]  # fmt: skip
            if rows:
                columns = "contact_id, email, email_key"
                tx.execute(text(f"insert into contacts ({columns}) overriding system value "
                                "values (:contact_id, :email, :email_key)"), rows)  # fmt: skip
            loaded += record_orders(tx, part, settings, now=END, effects=False).accepted
    return loaded


@pytest.fixture(scope="session")
def shops(cluster: Server, template_database: str, data: Path) -> Iterator[dict[str, Engine]]:
    """The year by rule A in pounds, and by rule C in euros."""
    engines = {}
    for rule, currency in (("A", "GBP"), ("C", "EUR"), ("C", "GBP")):
        engine = connect(cluster.url(cluster.create(template=template_database)))
        assert shop(engine, data, rule, Settings(reporting_currency=currency)) > 18_000
        engines[f"{rule} {currency}"] = engine
    yield engines
    for engine in engines.values():
        engine.dispose()


def pence(amount: Decimal) -> Decimal:
    """Golden amounts have two decimals; some prices have three."""
    return amount.quantize(Decimal("0.01"))


def table(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row[0]: row[1:] for row in islice(csv.reader(file), 1, None)}


@pytest.mark.parametrize("rule", ["A", "C"])
def test_cohorts_cell_by_cell(shops: dict[str, Engine], data: Path, retail_golden: dict[str, Any], rule: str) -> None:
    refreshing.refresh(shops[f"{rule} GBP"], as_of=END, only=NAMES)
    with shops[f"{rule} GBP"].connect() as connection:
        cells = {(f"{row.cohort_month:%Y-%m}", row.month_offset): row for row in connection.execute(
            text("select * from analytics.order_cohorts"))}  # fmt: skip
    counts = table(data / "golden" / f"online_retail_cohorts_{rule}_counts.csv")
    rates = table(data / "golden" / f"online_retail_cohorts_{rule}_rates.csv")
    compared = 0
    for month, golden in counts.items():
        assert cells[month, 0].cohort_customers == retail_golden[f"cohorts_{rule}"][month]["size"]
        for offset, count in enumerate(golden):
            if not count:
                assert (month, offset) not in cells
                continue
            cell = cells[month, offset]
            assert (cell.active_customers, cell.is_complete) == (int(count), True), (month, offset)
            assert abs(cell.retention_rate / 100 - Decimal(rates[month][offset])) <= Decimal("0.0000011")
            compared += 1
    assert compared == len(cells) == 91


def test_totals_by_month_and_altogether(shops: dict[str, Engine], data: Path, retail_golden: dict[str, Any]) -> None:
    refreshing.refresh(shops["C GBP"], as_of=END, only=NAMES)
    golden = retail_golden["C_no_canc_price_gt_0"]
    with shops["C GBP"].connect() as connection:
        found = connection.execute(text(
            "select count(*) as customers, sum(orders) as orders, sum(net_revenue) as revenue, max(orders) as most, "
            "count(*) filter (where orders = 1) as once from analytics.customer_value")).one()  # fmt: skip
        months = connection.execute(text(
            "select to_char(order_month, 'YYYY-MM') as month, count(*) as customers, sum(orders) as orders, "
            "sum(revenue) as revenue from analytics.customer_months group by 1 order by 1")).all()  # fmt: skip
        assert connection.scalar(text("select sum(revenue) from analytics.order_cohorts")) == found.revenue
    assert (found.customers, found.orders) == (golden["customers"], golden["invoices"])
    assert pence(found.revenue) == Decimal(str(golden["revenue_gbp"]))
    assert (found.once, found.most) == (
        retail_golden["repeat"]["one_invoice"], retail_golden["repeat"]["max_invoices"])  # fmt: skip
    by_month = table(data / "golden" / "online_retail_by_month_C.csv")
    assert {row.month: [row.customers, row.orders, pence(row.revenue)] for row in months} == {
        month: [int(values[0]), int(values[1]), Decimal(values[2])] for month, values in by_month.items()}  # fmt: skip


def test_rfm_customer_by_customer(shops: dict[str, Engine], data: Path, retail_golden: dict[str, Any]) -> None:
    refreshing.refresh(shops["C GBP"], as_of=RFM_DAY, only=NAMES)
    with shops["C GBP"].connect() as connection:
        found = {row.contact_id: row for row in connection.execute(text("select * from analytics.rfm_segments"))}
    with gzip.open(data / "golden" / "online_retail_rfm_C.csv.gz", "rt", encoding="utf-8", newline="") as file:
        golden = list(csv.DictReader(file))
    assert len(golden) == len(found) == retail_golden["rfm"]["customers"]
    for one in golden:
        row = found[int(float(one["CustomerID"]))]
        assert (row.recency_days, row.frequency) == (int(one["recency"]), int(one["frequency"]))
        assert abs(row.monetary - Decimal(one["monetary"])) <= Decimal("0.005")
        assert (row.r_score, row.f_score, row.m_score) == tuple(int(one[f"{name}_cut"]) for name in "rfm"), one
    scores = Counter((row.r_score, row.f_score, row.m_score) for row in found.values())
    assert (scores[5, 5, 5], scores[1, 1, 1]) == (retail_golden["rfm"]["cut_555"], retail_golden["rfm"]["cut_111"])


def test_the_total_in_euros_at_the_rate_of_each_day(shops: dict[str, Engine]) -> None:
    refreshing.refresh(shops["C EUR"], as_of=END, only=NAMES)
    with shops["C EUR"].connect() as connection:
        total = connection.scalar(text("select sum(net_revenue) from analytics.customer_value"))
        assert connection.execute(text("select * from analytics.unconverted_orders")).all() == []
    assert pence(total) == Decimal("10282992.84")


def test_a_quarter_followed_week_by_week_equals_a_rebuild(
    fresh_engine: Engine, data: Path
) -> None:
    """Told as they came: the tables are those that all of it at once makes."""
    settings = Settings(reporting_currency="GBP")
    given = sorted(invoices(data, "A"), key=lambda order: order.placed_at)
    until = datetime(2011, 3, 1, tzinfo=UTC)
    days: dict[date, list[NewOrder]] = {}
    for order in given:
        if order.placed_at < until:
            days.setdefault(order.placed_at.date(), []).append(order)
    with fresh_engine.begin() as tx:
        load_rates(tx, ecb_rates(data, {"GBP"}, date(2010, 11, 1), END.date()), now=END)
    for number, (day, orders) in enumerate(days.items()):
        with fresh_engine.begin() as tx:
            record_orders(tx, orders, settings, now=END, effects=False)
        if number % 5 == 0:
            evening = datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)
            refreshing.refresh(fresh_engine, as_of=evening, only=NAMES)
    refreshing.refresh(fresh_engine, as_of=until, only=NAMES)
    followed = [_rows(fresh_engine, name) for name in NAMES]
    refreshing.refresh(fresh_engine, as_of=until, only=NAMES, rebuild=True)
    assert followed == [_rows(fresh_engine, name) for name in NAMES]


def _rows(engine: Engine, name: str) -> list[str]:
    with engine.connect() as connection:
        sql = f"select cast(to_jsonb(t) - 'refreshed_at' as text) as row from analytics.{name} t order by 1"
        return list(connection.scalars(text(sql)))
