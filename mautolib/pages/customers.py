"""Customers: who bought how recently and how often (RFM), by name, and what they have brought so far.

All from `rfm_segments` and `customer_value` as of their last refresh; RFM counts orders before midnight (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from mautolib.analytics.figures import percent, rounded
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table, shades_up_to
from mautolib.pages.view import Asked, Card, View, rate_text, read_as_of

__all__ = ["build"]

_SCORES: Final = (5, 4, 3, 2, 1)
_RECENCY: Final = {5: "5 most recent", 4: "4", 3: "3", 2: "2", 1: "1 longest ago"}
_FREQUENCY: Final = {1: "1 rare", 2: "2", 3: "3", 4: "4", 5: "5 often"}
#: Where the steps of customer value begin.
_STEPS: Final = (0, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000)
_MOST_ORDERS: Final = 6
_EMPTY: Final = ("No customers yet", "The DAG cohort_analytics counts them every hour once there are orders.")
#: What the names mean, as `analytics.rfm_segment` gives them.
_MEANS: Final = {
    "champions": "bought just now, often and for much", "loyal": "buy often, still do",
    "potential_loyalists": "bought recently, more than once", "new_customers": "bought for the first time just now",
    "promising": "bought once, not long ago", "need_attention": "in the middle of everything",
    "about_to_sleep": "bought rarely, some time ago", "cannot_lose": "bought most often and for much, long ago",
    "at_risk": "bought often, long ago", "hibernating": "bought rarely, long ago",
}  # fmt: skip


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    del asked
    scored = [dict(row) for row in tx.execute(statement("pages.rfm_cells")).mappings()]
    counted = [dict(row) for row in tx.execute(statement("pages.customer_cells"), {"steps": list(_STEPS)}).mappings()]
    currency = scored[0]["reporting_currency"] if scored else ""
    grid = _added(scored, "r_score", "f_score")
    values, repeats = _values(counted, currency), _repeats(counted)
    return View(
        template="customers.html", title="Customers",
        tables=[_grid(grid, "customers", "Customers"), _grid(grid, "revenue", f"Revenue in {currency}"),
                _names(scored, currency), values, repeats],
        charts=[chart_of(values, Drawn.BARS, ["customers"]), chart_of(repeats, Drawn.BARS, ["customers"])],
        values={
            "cards": _cards(counted, currency), "day": scored[0]["as_of"] if scored else None,
            "as_of": read_as_of(tx, "customer_value", "rfm_segments"), "currency": currency,
            "unconverted": sum(row["unconverted"] for row in counted),
        },
    )  # fmt: skip


def _added(cells: Sequence[Mapping[str, Any]], *keys: str) -> dict[Any, dict[str, Any]]:
    """Cells added up by some of their columns (one: by its value), in the order they come."""
    found: dict[Any, dict[str, Any]] = {}
    for cell in cells:
        at = tuple(cell[key] for key in keys) if len(keys) > 1 else cell[keys[0]]
        known = found.setdefault(at, {key: cell[key] for key in keys})
        for name, value in cell.items():
            if name not in keys and isinstance(value, int | Decimal):
                known[name] = known.get(name, 0) + value
    return found


def _cards(counted: Sequence[Mapping[str, Any]], currency: str) -> list[Card]:
    customers = sum(row["customers"] for row in counted)
    revenue = sum((row["revenue"] for row in counted), Decimal(0))
    orders = sum(row["all_orders"] for row in counted)
    again = sum(row["customers"] for row in counted if row["orders"] > 1)
    return [
        Card(label="Customers", value=f"{customers:,}", note=f"{orders:,} orders"),
        Card(label="Bought again", value=rate_text(percent(again, customers) if customers else None),
             note=f"{again:,} customers"),
        Card(label="Revenue", value=f"{revenue:,.0f}", note=f"{currency} net of refunds"),
        Card(label="Per customer", value=f"{revenue / customers:,.2f}" if customers else "–", note=currency),
    ]  # fmt: skip


def _grid(cells: Mapping[tuple[int, int], Mapping[str, Any]], key: str, what: str) -> Table:
    """Recency down, frequency to the right; the best corner is above right."""
    shade = shades_up_to(max((cell[key] for cell in cells.values()), default=0))
    kind = Kind.NUMBER if key == "customers" else Kind.DECIMAL
    rows = [
        {"recency": _RECENCY[r], **{f"f{f}": cells[r, f][key] if (r, f) in cells else 0 for f in range(1, 6)}}
        for r in _SCORES
    ]
    return Table(
        name=f"rfm_{key}", caption=f"{what} by recency (rows) and frequency (columns), 5 is best", empty=_EMPTY,
        rows=rows if cells else [], is_titled=True, columns=[
            Column(key="recency", label="Recency", bold=True),
            *(Column(key=f"f{f}", label=_FREQUENCY[f], kind=kind, shade=shade) for f in range(1, 6)),
        ],
    )  # fmt: skip


def _names(scored: Sequence[Mapping[str, Any]], currency: str) -> Table:
    named = _added(scored, "rfm_segment")
    customers = sum(row["customers"] for row in named.values())
    revenue = sum((row["revenue"] for row in named.values()), Decimal(0))
    rows = [
        {"name": name.replace("_", " ").capitalize(), "means": _MEANS[name], "customers": row["customers"],
         "customer_share": percent(row["customers"], customers), "revenue": row["revenue"],
         "revenue_share": rounded(100 * row["revenue"] / revenue, 2) if revenue else None,
         "revenue_each": rounded(row["revenue"] / row["customers"], 2),
         "orders_each": rounded(Decimal(row["orders"]) / row["customers"], 2),
         "days_since_order": int(rounded(Decimal(row["days"]) / row["customers"], 0))}
        for name, row in sorted(named.items(), key=lambda item: (-item[1]["revenue"], item[0]))
    ]  # fmt: skip
    return Table(
        name="segments", caption="Customers by segment", rows=rows, empty=_EMPTY, sortable=True, is_titled=True,
        columns=(
            Column(key="name", label="Segment", bold=True, note="means"),
            Column(key="customers", label="Customers", kind=Kind.NUMBER),
            Column(key="customer_share", label="Of customers", kind=Kind.PERCENT, meter="open"),
            Column(key="revenue", label=f"Revenue ({currency})", kind=Kind.DECIMAL),
            Column(key="revenue_share", label="Of revenue", kind=Kind.PERCENT, meter="click"),
            Column(key="revenue_each", label="Each", kind=Kind.DECIMAL),
            Column(key="orders_each", label="Orders", kind=Kind.DECIMAL),
            Column(key="days_since_order", label="Days ago", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _values(counted: Sequence[Mapping[str, Any]], currency: str) -> Table:
    known = _added([row for row in counted if row["place"] is not None], "place")
    rows = [
        {"value": f"{least:,}–{_STEPS[place]:,}" if place < len(_STEPS) else f"{least:,} and more",
         **{name: known[place][of] if place in known else 0
            for name, of in (("customers", "customers"), ("orders", "all_orders"), ("revenue", "revenue"))}}
        for place, least in enumerate(_STEPS, start=1) if place <= max(known, default=0)
    ]  # fmt: skip
    return Table(
        name="values", caption=f"Customers by what they brought so far ({currency})", rows=rows, empty=_EMPTY,
        columns=(
            Column(key="value", label=currency or "Value", bold=True),
            Column(key="customers", label="Customers", kind=Kind.NUMBER),
            Column(key="orders", label="Orders", kind=Kind.NUMBER),
            Column(key="revenue", label="Revenue", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip


def _repeats(counted: Sequence[Mapping[str, Any]]) -> Table:
    by_orders = _added(counted, "orders")
    customers = sum(row["customers"] for row in by_orders.values())
    rows = []
    for _, row in sorted(by_orders.items()):
        number = f"{row['orders']} and more" if row["orders"] == _MOST_ORDERS else str(row["orders"])
        rows.append({**row, "number": number, "share": percent(row["customers"], customers)})
    return Table(
        name="repeats", caption="Customers by the number of their orders", rows=rows, empty=_EMPTY, columns=(
            Column(key="number", label="Orders", bold=True),
            Column(key="customers", label="Customers", kind=Kind.NUMBER),
            Column(key="share", label="Share", kind=Kind.PERCENT, meter="open"),
            Column(key="revenue", label="Revenue", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip
