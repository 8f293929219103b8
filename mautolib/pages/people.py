"""Scores and stages: how the contacts are spread on the newest scored day, and how that changed."""

from __future__ import annotations

from datetime import date
from itertools import groupby
from typing import Any, Final

from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table
from mautolib.pages.view import Asked, View

__all__ = ["build"]

_DAYS: Final = (30, 90, 365)
_EMPTY: Final = (
    "No scores yet",
    "The DAG score_recalculation scores everybody each night, and cohort_analytics counts them after it.",
)


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    days = asked.number("days", _DAYS)
    day: date | None = tx.scalar(statement("pages.score_day"))
    binds = {"day": day, "days": days}
    grades, buckets, by_day = _grades(tx, binds), _buckets(tx, binds), _stage_days(tx, binds)
    stages = [column.key for column in by_day.columns[1:]]
    return View(
        template="people.html", title="Scores and stages", tables=[grades, buckets, _stages(tx, binds), by_day],
        charts=[
            chart_of(grades, Drawn.BARS, ["contacts"]), chart_of(buckets, Drawn.BARS, ["contacts"]),
            chart_of(by_day, Drawn.STACK, stages),
        ],
        values={"day": day, "choices": asked.choices("days", {str(n): f"{n} days" for n in _DAYS}, str(days))},
    )  # fmt: skip


def _read(tx: Tx, name: str, binds: dict[str, Any]) -> list[dict[str, Any]]:
    if binds["day"] is None:
        return []
    return [dict(row) for row in tx.execute(statement(name), binds).mappings()]


def _grades(tx: Tx, binds: dict[str, Any]) -> Table:
    return Table(
        name="grades", caption="Contacts by grade", rows=_read(tx, "pages.grades", binds), empty=_EMPTY, columns=(
            Column(key="grade", label="Grade", bold=True),
            Column(key="contacts", label="Contacts", kind=Kind.NUMBER),
            Column(key="share", label="Share", kind=Kind.PERCENT, meter="open"),
        ),
    )  # fmt: skip


def _buckets(tx: Tx, binds: dict[str, Any]) -> Table:
    return Table(
        name="buckets", caption="Contacts by total score", rows=_read(tx, "pages.score_buckets", binds), empty=_EMPTY,
        columns=(
            Column(key="bucket", label="Score", bold=True),
            Column(key="contacts", label="Contacts", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _stages(tx: Tx, binds: dict[str, Any]) -> Table:
    return Table(
        name="stages", caption="Contacts by lifecycle stage", rows=_read(tx, "pages.stages", binds), empty=_EMPTY,
        columns=(
            Column(key="stage", label="Stage", bold=True),
            Column(key="contacts", label="Contacts", kind=Kind.NUMBER),
            Column(key="contact_share", label="Share", kind=Kind.PERCENT, meter="click"),
            Column(key="entered", label="Came in", kind=Kind.NUMBER),
            Column(key="departed", label="Left", kind=Kind.NUMBER),
            Column(key="median_days_in_stage", label="Median days", kind=Kind.DECIMAL),
            Column(key="avg_score", label="Average score", kind=Kind.DECIMAL),
        ),
    )  # fmt: skip


def _stage_days(tx: Tx, binds: dict[str, Any]) -> Table:
    found = _read(tx, "pages.stage_days", binds)
    stages = list(dict.fromkeys(row["stage"] for row in found))
    rows = []
    for day, group in groupby(found, key=lambda row: row["as_of"]):
        counts = {row["stage"]: row["contacts"] for row in group}
        rows.append({"as_of": day, **{stage: counts.get(stage, 0) for stage in stages}})
    return Table(
        name="stage_days", caption="Stages by day", rows=rows, empty=_EMPTY, columns=(
            Column(key="as_of", label="Day", kind=Kind.DAY, bold=True),
            *(Column(key=stage, label=stage, kind=Kind.NUMBER) for stage in stages),
        ),
    )  # fmt: skip
