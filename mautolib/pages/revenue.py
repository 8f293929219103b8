"""Revenue: by month, by currency, and by campaign with the three models of attribution side by side.

From `revenue_by_month` and `campaign_revenue` as of their last refresh. Orders whose money is in no sum are counted
beside it. All orders count, those of nobody we know as well; only known contacts can have been touched by a mail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date
from decimal import Decimal
from typing import Any, Final

from mautolib.analytics.figures import percent
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table
from mautolib.pages.view import Asked, Card, View, rate_text, read_as_of

__all__ = ["build"]

_MONTHS: Final = (12, 3, 24, 60)
_CAMPAIGNS: Final = 200
_EMPTY: Final = (
    "No orders yet",
    "Send them to POST /api/v1/orders, or upload a file; the DAG cohort_analytics adds them up every hour.",
)


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    months = asked.number("months", _MONTHS)
    last = asked.now.astimezone(UTC).date().replace(day=1)
    binds = {"first": _months_before(last, months - 1), "last": last}
    currency = tx.scalar(statement("pages.reporting_currency")) or ""
    by_month, currencies = _by_month(tx, binds, currency), _currencies(tx, binds)
    by_campaign = _campaigns(tx, binds, currency)
    return View(
        template="revenue.html", title="Revenue", tables=[by_month, currencies, by_campaign],
        charts=[chart_of(by_month, Drawn.STACK, ["mail_revenue", "other_revenue"], muted="other_revenue")],
        values={
            "cards": _cards(by_month.rows, currency), "currency": currency,
            "as_of": read_as_of(tx, "revenue_by_month", "campaign_revenue"),
            "choices": asked.choices("months", {str(n): f"{n} months" for n in sorted(_MONTHS)}, str(months)),
            "waiting": _waiting(currencies.rows), "this_month": last, "most": _CAMPAIGNS,
        },
    )  # fmt: skip


def _months_before(month: date, count: int) -> date:
    number = month.year * 12 + month.month - 1 - count
    return date(number // 12, number % 12 + 1, 1)


def _cards(months: Sequence[Mapping[str, Any]], currency: str) -> list[Card]:
    revenue = sum((row["revenue"] for row in months), Decimal(0))
    mailed = sum((row["mail_revenue"] for row in months), Decimal(0))
    orders, left_out = sum(row["orders"] for row in months), sum(row["left_out"] for row in months)
    counted = orders - left_out
    share = Decimal(100) * mailed / revenue if revenue > 0 else None
    return [
        Card(label="Revenue", value=f"{revenue:,.0f}", note=f"{currency} net of refunds"),
        Card(label="Orders", value=f"{orders:,}",
             note=f"{left_out:,} not in the revenue" if left_out else "all of them in the revenue"),
        Card(label="Per order", value=f"{revenue / counted:,.2f}" if counted else "–", note=currency),
        Card(label="From mail", value=rate_text(share), note=f"{mailed:,.0f} {currency} by last touch"),
    ]  # fmt: skip


def _waiting(currencies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about orders whose money is in no sum above."""
    said = [
        f"{row['waiting_orders']:,} of {row['orders']:,} orders in {row['currency']} wait for a rate to "
        f"{row['reporting_currency']}"
        for row in currencies if row["waiting_orders"]
    ]  # fmt: skip
    return said + [
        f"{row['orders']:,} orders in {row['currency']} were booked under {row['reporting_currency']}"
        for row in currencies if not row["is_current"]
    ]  # fmt: skip


def _by_month(tx: Tx, binds: Mapping[str, Any], currency: str) -> Table:
    rows = [dict(row) for row in tx.execute(statement("pages.revenue_months"), binds).mappings()]
    for row in rows:
        row["mail_share"] = percent(row["mail_revenue"], row["revenue"]) if row["revenue"] > 0 else None
    return Table(
        name="months", caption=f"Revenue by month of the order ({currency})", empty=_EMPTY,
        rows=rows if any(row["orders"] for row in rows) else [], columns=(
            Column(key="month", label="Month", kind=Kind.MONTH, bold=True),
            Column(key="orders", label="Orders", kind=Kind.NUMBER),
            Column(key="revenue", label="Revenue", kind=Kind.DECIMAL),
            Column(key="mail_revenue", label="From mail", kind=Kind.DECIMAL),
            Column(key="other_revenue", label="Without mail", kind=Kind.DECIMAL),
            Column(key="mail_share", label="Mail's share", kind=Kind.PERCENT, meter="open"),
            Column(key="left_out", label="Orders left out", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _currencies(tx: Tx, binds: Mapping[str, Any]) -> Table:
    rows = [dict(row) for row in tx.execute(statement("pages.revenue_currencies"), binds).mappings()]
    return Table(
        name="currencies", caption="Orders by currency", rows=rows, empty=_EMPTY, is_titled=True, columns=(
            Column(key="currency", label="Currency", bold=True),
            Column(key="orders", label="Orders", kind=Kind.NUMBER),
            Column(key="gross", label="As placed", kind=Kind.DECIMAL),
            Column(key="order_net", label="Net of refunds", kind=Kind.DECIMAL),
            Column(key="net_revenue", label="Converted", kind=Kind.DECIMAL),
            Column(key="reporting_currency", label="Into", kind=Kind.PILL),
            Column(key="first_fx_date", label="Rates from", kind=Kind.DAY),
            Column(key="last_fx_date", label="Rates until", kind=Kind.DAY),
            Column(key="waiting_orders", label="Waiting for a rate", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _campaigns(tx: Tx, binds: Mapping[str, Any], currency: str) -> Table:
    found = tx.execute(statement("pages.revenue_campaigns"), {**binds, "limit": _CAMPAIGNS}).mappings()
    rows = [
        {**row, "campaign": "Workflows and rules" if row["campaign_id"] is None
         else row["campaign_name"] or f"Campaign {row['campaign_id']}",
         "path": "workflows" if row["campaign_id"] is None else f"campaigns/{row['campaign_id']}"}
        for row in found
    ]  # fmt: skip
    return Table(
        name="campaigns", caption=f"Revenue by campaign and model ({currency})", rows=rows, sortable=True,
        is_titled=True, empty=("No order belongs to a mail yet", "An order does if a person opened or clicked before."),
        columns=(
            Column(key="campaign", label="Campaign", link="{path}", bold=True),
            Column(key="orders", label="Orders", kind=Kind.NUMBER),
            Column(key="last_touch", label="Last touch", kind=Kind.DECIMAL),
            Column(key="first_touch", label="First touch", kind=Kind.DECIMAL),
            Column(key="linear", label="Linear", kind=Kind.DECIMAL),
            Column(key="waiting_orders", label="Waiting for a rate", kind=Kind.NUMBER),
        ),
    )  # fmt: skip
