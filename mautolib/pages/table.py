"""Tables of the dashboard: one description that becomes the HTML table, its sortable headers and its CSV file.

Promise: the CSV holds the rows and columns of the table, in its order, unformatted; no cell of it is run as a formula.
Pure functions. Called by the pages; the markup is in `templates/table.html`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode

__all__ = ["Cell", "Column", "Head", "Interval", "Kind", "Shown", "Table", "Whisker", "csv_of", "scale_of",
           "shade_of_rate", "shades_up_to", "show", "written"]  # fmt: skip

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
#: Percent from which each of the ten shades of a heat map is used; most shops live in the lower third.
_SHADES: Final = (0, 2, 5, 10, 15, 20, 30, 40, 55, 75)
#: Room at both ends of a scale, as a share of it.
_ROOM: Final = 0.06


class Kind(StrEnum):
    """What a column holds, which decides how it is written and aligned."""

    TEXT = "text"
    PILL = "pill"
    NUMBER = "number"
    DECIMAL = "decimal"
    PERCENT = "percent"
    CHANGE = "change"
    CHANCE = "chance"
    DAY = "day"
    MONTH = "month"
    MOMENT = "moment"


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """An interval drawn under a figure.

    Args:
        low, high: keys of its ends; `outer` those of a wider one.
        scale: key of the least and most that it is drawn between.
        tone: key of a small number that tells its colour.
    """

    low: str
    high: str
    scale: str
    outer: tuple[str, str] = ("", "")
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval as drawn: places in percent from the left; `zero` and `outer` where there are any."""

    low: float
    figure: float
    high: float
    zero: float | None
    outer: tuple[float, float] | None
    tone: int


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Args:
        link: where its cells lead, below the dashboard, with names of the row's keys in braces.
        meter: class of the thin bar under a percentage; empty: none.
        whisker: the interval drawn under a figure.
        note: key of what is written small under the cell; not part of the CSV file.
        shade: makes the column part of a heat map: the shade (0..9) of a value.
        bold: the cell names the row.
    """

    key: str
    label: str
    kind: Kind = Kind.TEXT
    link: str = ""
    meter: str = ""
    whisker: Whisker | None = None
    note: str = ""
    shade: Callable[[Any], int] | None = None
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns.

    Args:
        name: unique on its page; part of links.
        empty: a title and what to do, for a table without rows.
        sortable: headers are links; never for a table whose order is its meaning.
        is_titled: a heading above says what the caption says; only screen readers are told twice.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    empty: tuple[str, str] = ("Nothing yet", "")
    sortable: bool = False
    is_titled: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell as written; `raw` is what charts read."""

    text: str
    raw: str
    css: str
    href: str = ""
    meter: str = ""
    width: float = 0.0
    drawn: Interval | None = None
    note: str = ""
    pill: str = ""
    is_head: bool = False


@dataclass(frozen=True, kw_only=True)
class Head:
    """One header cell; `order` is none, ascending or descending."""

    key: str
    label: str
    css: str
    href: str = ""
    order: str = "none"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A table ready for the template."""

    name: str
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    empty: tuple[str, str]
    csv_href: str
    is_heat: bool
    is_titled: bool


def show(table: Table, *, root: str, query: Mapping[str, str]) -> Shown:
    """The table as the template needs it.

    Args:
        root: what links into the dashboard begin with.
        query: the parameters of the page, kept by the links of headers and of the CSV file.
    """
    table, key, is_down = ordered(table, query)
    kept = {name: value for name, value in query.items() if name not in ("sort", "format", "table")}
    sort = {"sort": query["sort"]} if key else {}
    return Shown(
        name=table.name, caption=table.caption, empty=table.empty,
        heads=[_head(table, column, key, is_down, kept) for column in table.columns],
        rows=[[_cell(column, row, root) for column in table.columns] for row in table.rows],
        csv_href="?" + urlencode({**kept, **sort, "format": "csv", "table": table.name}),
        is_heat=any(column.shade for column in table.columns), is_titled=table.is_titled,
    )  # fmt: skip


def csv_of(table: Table, *, query: Mapping[str, str]) -> str:
    """The rows of a table as CSV, in the order the query asks for."""
    table, _, _ = ordered(table, query)
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\r\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_guarded(column, row[column.key]) for column in table.columns])
    return target.getvalue()


def ordered(table: Table, query: Mapping[str, str]) -> tuple[Table, str, bool]:
    """The table in the order that `sort=<table>:<column>` asks for (`-` before it: downward), and that order."""
    name, _, wanted = query.get("sort", "").partition(":")
    key, is_down = wanted.removeprefix("-"), wanted.startswith("-")
    if name != table.name or not table.sortable or key not in {column.key for column in table.columns}:
        return table, "", False
    known = [row for row in table.rows if row[key] is not None]
    known.sort(key=lambda row: _rank(row[key]), reverse=is_down)
    # What is not known comes last in either direction.
    return replace(table, rows=[*known, *(row for row in table.rows if row[key] is None)]), key, is_down


def scale_of(values: Sequence[Any]) -> tuple[float, float]:
    """Least and most of a scale of intervals, with room at both ends; (0, 0) if there is nothing to draw."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return 0.0, 0.0
    room = _ROOM * (max(known) - min(known))
    return min(known) - room, max(known) + room


def shade_of_rate(rate: Decimal | float) -> int:
    """The shade (0..9) of a share in percent."""
    return max(index for index, least in enumerate(_SHADES) if rate >= least)


def shades_up_to(largest: Decimal | int) -> Callable[[Any], int]:
    """Shades (0..9) of counts or amounts, the largest darkest; nothing has the lightest."""

    def shade(count: Decimal | int) -> int:
        return max(0, min(9, math.ceil(9 * count / largest))) if largest > 0 else 0

    return shade


def _rank(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _head(table: Table, column: Column, key: str, is_down: bool, kept: Mapping[str, str]) -> Head:
    is_sorted = column.key == key
    order = ("descending" if is_down else "ascending") if is_sorted else "none"
    href = ""
    if table.sortable:
        # Figures are looked at from the largest, names from A.
        down = not is_down if is_sorted else column.kind not in (Kind.TEXT, Kind.PILL)
        href = "?" + urlencode({**kept, "sort": f"{table.name}:{'-' if down else ''}{column.key}"})
    return Head(key=column.key, label=column.label, css=_css(column), href=href, order=order)


def _cell(column: Column, row: Mapping[str, Any], root: str) -> Cell:
    value = row[column.key]
    css = _css(column)
    if column.shade:
        css = f"{css} none" if value is None else f"{css} h{column.shade(value)}"
    meter = column.meter if value is not None else ""
    return Cell(
        text=written(column, value), raw="" if value is None else _plain(value), css=css,
        href=root + column.link.format_map(row) if column.link else "",
        meter=meter, width=round(min(100.0, max(0.0, float(value))), 2) if meter else 0.0,
        drawn=_interval(column, row), note=str(row[column.note] or "") if column.note else "",
        pill=str(value) if column.kind is Kind.PILL and value else "", is_head=column.bold,
    )  # fmt: skip


def _interval(column: Column, row: Mapping[str, Any]) -> Interval | None:
    """The interval of a cell; None where there is none."""
    whisker = column.whisker
    if whisker is None:
        return None
    ends = (row[whisker.low], row[column.key], row[whisker.high])
    low, high = (float(end) for end in row[whisker.scale])
    if any(end is None for end in ends) or not high > low:
        return None

    def place(value: Any) -> float:
        return round(min(100.0, max(0.0, 100 * (float(value) - low) / (high - low))), 2)

    wider = [row[key] for key in whisker.outer if key and row[key] is not None]
    return Interval(
        low=place(ends[0]), figure=place(ends[1]), high=place(ends[2]), zero=place(0) if low < 0 < high else None,
        outer=(place(wider[0]), place(wider[1])) if len(wider) == 2 else None,
        tone=row[whisker.tone] if whisker.tone else 0,
    )  # fmt: skip


def _css(column: Column) -> str:
    is_figure = column.kind in (Kind.NUMBER, Kind.DECIMAL, Kind.PERCENT, Kind.CHANGE, Kind.CHANCE)
    is_drawn = column.meter or column.whisker
    kind = "rate" if is_drawn else "number" if is_figure else "when" if column.kind is Kind.MOMENT else ""
    return f"heat-cell {kind}".strip() if column.shade else kind


def written(column: Column, value: Any) -> str:
    """A value as people read it in this column; a dot where there is none."""
    if value is None:
        return "·"
    if column.kind is Kind.NUMBER:
        return f"{value:,}"
    if column.kind is Kind.DECIMAL:
        return f"{value:,.0f}" if column.shade else f"{value:,.2f}"
    if column.kind is Kind.CHANGE:
        return f"{value:+,.2f}"
    if column.kind is Kind.CHANCE:
        return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
    if column.kind is Kind.PERCENT:
        return f"{value:.0f}%" if column.shade else f"{value:.1f} %"
    if column.kind is Kind.DAY:
        return f"{value:%d %b %Y}"
    if column.kind is Kind.MONTH:
        return f"{value:%b %Y}"
    return f"{value.astimezone(UTC):%d %b %Y, %H:%M}" if column.kind is Kind.MOMENT else str(value)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.isoformat() if isinstance(value, date) else str(value)


def _guarded(column: Column, value: Any) -> str:
    text = "" if value is None else _plain(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text
