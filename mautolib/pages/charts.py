"""A chart of a table: which of its columns are drawn how, and the same in a sentence.

Pure. Charts are drawn in the browser (`static/dashboard.js`, with Chart.js) from the cells of the table beside them, so
that chart and table cannot differ, and without script the table remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mautolib.pages.table import Table, written

__all__ = ["Chart", "Drawn", "chart_of"]


class Drawn(StrEnum):
    """How a chart is drawn."""

    BARS = "bars"
    STACK = "stack"
    LINES = "lines"
    FUNNEL = "funnel"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart: the columns `series` of a table over its first one, and what is to be seen in words.

    `muted` is the series that is the background of the others; empty: none.
    """

    name: str
    table: str
    drawn: Drawn
    x: str
    series: Sequence[str]
    unit: str
    title: str
    summary: str
    muted: str = ""


def chart_of(
    table: Table, drawn: Drawn, series: Sequence[str], *, unit: str = "", name: str = "", title: str = "",
    muted: str = "",
) -> Chart:  # fmt: skip
    """The chart of some columns of a table.

    Args:
        unit: written behind the numbers of the axis.
        name: if the table has several charts.
        muted: the series that is only the background of the others.
        title: what it shows, written above it; none: what the heading says and the table shows.
    """
    columns = {column.key: column for column in table.columns}
    parts = [f"{title or table.caption}."]
    for key in series:
        values = [row[key] for row in table.rows if row[key] is not None]
        if values:
            least, most, last = (written(columns[key], value) for value in (min(values), max(values), values[-1]))
            parts.append(f"{columns[key].label}: between {least} and {most}, at the end {last}.")
    return Chart(
        name=name or table.name, table=table.name, drawn=drawn, x=table.columns[0].key, series=series, unit=unit,
        title=title, summary=" ".join(parts), muted=muted,
    )  # fmt: skip
