"""Cohorts as a heat map: sign-ups by day, week or month, or first orders (`order_cohorts`)."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

from mautolib.analytics.figures import percent
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages import order_cohorts
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table, shade_of_rate
from mautolib.pages.view import Asked, View, read_as_of

__all__ = ["build", "heat_map"]

_GRAINS: Final = {"week": "Sign-ups by week", "day": "By day", "month": "By month"}
_COHORTS: Final = 13
_OFFSETS: Final = 12
EMPTY: Final = ("No cohorts yet", "The DAG cohort_analytics computes them every hour once there are contacts.")


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    by = asked.word("by", [*_GRAINS, *order_cohorts.BY])
    choices = asked.choices("by", {**_GRAINS, **order_cohorts.BY}, by)
    if by in order_cohorts.BY:
        return _of_orders(tx, by, {"choices": choices, "grain": "month", "by": by})
    rows = _rows(tx, by, _COHORTS, _OFFSETS)
    average = _average(rows, by)
    return View(
        template="cohorts.html", title="Cohorts", tables=[_map(rows, by, _OFFSETS), average],
        charts=[chart_of(average, Drawn.LINES, ["rate"], unit="%")],
        values={"choices": choices, "grain": by, "by": "signup", "currency": "",
                "as_of": read_as_of(tx, "contact_cohorts")},
    )  # fmt: skip


def _of_orders(tx: Tx, by: str, values: dict[str, Any]) -> View:
    found = order_cohorts.read(tx)
    average = order_cohorts.average(found, by)
    drawn = chart_of(average, Drawn.LINES, ["rate"], unit="%") if by == "orders" else chart_of(
        average, Drawn.LINES, ["each"])  # fmt: skip
    return View(
        template="cohorts.html", title="Cohorts", tables=[order_cohorts.heat_map(found, by), average], charts=[drawn],
        values={**values, "currency": found[0]["currency"] if found else "", "as_of": read_as_of(tx, "order_cohorts")},
    )  # fmt: skip


def heat_map(tx: Tx, *, grain: str, cohorts: int, offsets: int) -> Table:
    """The newest cohorts: of each, the share that was active in its first periods; None while one is not over."""
    return _map(_rows(tx, grain, cohorts, offsets), grain, offsets)


def _rows(tx: Tx, grain: str, cohorts: int, offsets: int) -> list[dict[str, Any]]:
    # One more than is shown: the current one has no complete cell yet.
    binds = {"granularity": grain, "cohorts": cohorts + 1, "offsets": offsets}
    cells = tx.execute(statement("pages.cohorts"), binds).all()
    found = []
    for _, group in groupby(cells, key=lambda cell: cell.cohort_start):
        of_cohort = list(group)
        rates = {cell.period_offset: cell.retention_rate for cell in of_cohort}
        active = {cell.period_offset: cell.active_count for cell in of_cohort}
        found.append({
            "cohort": of_cohort[0].cohort_label, "size": of_cohort[0].cohort_size, "active": active,
            **{f"p{offset}": rates.get(offset) for offset in range(offsets)},
        })  # fmt: skip
    return [row for row in found if any(row[f"p{offset}"] is not None for offset in range(offsets))][-cohorts:]


def _map(rows: list[dict[str, Any]], grain: str, offsets: int) -> Table:
    periods = [
        Column(key=f"p{offset}", label=f"+{offset}", kind=Kind.PERCENT, shade=shade_of_rate)
        for offset in range(offsets)
    ]
    return Table(
        name="cohorts", caption=f"Contacts by {grain} of their sign-up, and the share active in the {grain}s after",
        rows=rows, empty=EMPTY, is_titled=True,
        columns=[Column(key="cohort", label=grain.capitalize(), bold=True), Column(key="size", label="Size",
                 kind=Kind.NUMBER), *periods],
    )  # fmt: skip


def _average(rows: list[dict[str, Any]], grain: str) -> Table:
    """All shown cohorts together, by period: of those for whom it is over, the share that was active."""
    found = []
    for offset in range(_OFFSETS):
        over = [row for row in rows if row["active"].get(offset) is not None]
        if over:
            size = sum(row["size"] for row in over)
            active = sum(row["active"][offset] for row in over)
            found.append({"period": f"+{offset}", "size": size, "active": active, "rate": percent(active, size)})
    return Table(
        name="average", caption=f"All of these cohorts together, by {grain} since the sign-up", rows=found,
        empty=EMPTY, columns=(
            Column(key="period", label=f"{grain.capitalize()}s after", bold=True),
            Column(key="size", label="Contacts", kind=Kind.NUMBER),
            Column(key="active", label="Active", kind=Kind.NUMBER),
            Column(key="rate", label="Share", kind=Kind.PERCENT),
        ),
    )  # fmt: skip
