"""Cohorts of first orders as a heat map: who bought again, or what each customer had brought by then.

From `order_cohorts` as of its last refresh; months are UTC and a month that is not over is a dot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

from mautolib.analytics.figures import percent, rounded
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.table import Column, Kind, Table, shade_of_rate, shades_up_to

__all__ = ["BY", "average", "heat_map", "read"]

#: Ways to look at them, by their word in the address.
BY: Final = {"orders": "First orders", "revenue": "Revenue of a customer"}
_COHORTS: Final = 13
_OFFSETS: Final = 12
_EMPTY: Final = ("No orders yet", "The DAG cohort_analytics computes these cohorts every hour once there are orders.")


def read(tx: Tx) -> list[dict[str, Any]]:
    """The newest cohorts, oldest first: size, and by month who bought and what had been brought until then."""
    cells = tx.execute(statement("pages.order_cohorts"), {"cohorts": _COHORTS, "offsets": _OFFSETS}).all()
    found = []
    for month, group in groupby(cells, key=lambda cell: cell.cohort_month):
        of_cohort = list(group)
        over = [cell for cell in of_cohort if cell.is_complete]
        found.append({
            "cohort": month, "size": of_cohort[0].cohort_customers, "currency": of_cohort[0].reporting_currency,
            "active": {cell.month_offset: cell.active_customers for cell in over},
            "rate": {cell.month_offset: cell.retention_rate for cell in over},
            "money": {cell.month_offset: cell.cumulative_revenue for cell in over},
        })  # fmt: skip
    return found


def heat_map(cohorts: Sequence[Mapping[str, Any]], by: str) -> Table:
    """The share that bought in a month, or what a customer had brought on average by its end."""
    rows = []
    for row in cohorts:
        each = {offset: rounded(money / row["size"], 2) for offset, money in row["money"].items()}
        shown = row["rate"] if by == "orders" else each
        rows.append({"cohort": row["cohort"], "size": row["size"],
                     **{f"p{offset}": shown.get(offset) for offset in range(_OFFSETS)}})  # fmt: skip
    rows = [row for row in rows if row["p0"] is not None]
    known = [row[f"p{k}"] for row in rows for k in range(_OFFSETS) if row[f"p{k}"] is not None]
    largest = max(known, default=Decimal(0))
    shade = shade_of_rate if by == "orders" else shades_up_to(largest)
    kind = Kind.PERCENT if by == "orders" else Kind.DECIMAL
    what = "the share that bought in the months after" if by == "orders" else "revenue per customer up to each month"
    return Table(
        name="cohorts", caption=f"Customers by the month of their first order, and {what}", rows=rows, empty=_EMPTY,
        is_titled=True, columns=[
            Column(key="cohort", label="First order", kind=Kind.MONTH, bold=True),
            Column(key="size", label="Customers", kind=Kind.NUMBER),
            *(Column(key=f"p{k}", label=f"+{k}", kind=kind, shade=shade) for k in range(_OFFSETS)),
        ],
    )  # fmt: skip


def average(cohorts: Sequence[Mapping[str, Any]], by: str) -> Table:
    """All shown cohorts together, by month: of those for whom it is over, who bought, or what each had brought."""
    rows = []
    for offset in range(_OFFSETS):
        over = [row for row in cohorts if offset in row["active"]]
        size = sum(row["size"] for row in over)
        if size:
            active = sum(row["active"][offset] for row in over)
            money = sum((row["money"][offset] for row in over), Decimal(0))
            rows.append({"period": f"+{offset}", "size": size, "active": active, "rate": percent(active, size),
                         "each": rounded(money / size, 2)})  # fmt: skip
    last = (
        Column(key="rate", label="Share", kind=Kind.PERCENT) if by == "orders"
        else Column(key="each", label="Revenue of a customer", kind=Kind.DECIMAL)
    )  # fmt: skip
    return Table(
        name="average", caption="All of these cohorts together, by month since the first order", rows=rows,
        empty=_EMPTY, columns=(
            Column(key="period", label="Months after", bold=True),
            Column(key="size", label="Customers", kind=Kind.NUMBER),
            Column(key="active", label="Bought", kind=Kind.NUMBER), last,
        ),
    )  # fmt: skip
