"""Whole views of schema `analytics` over HTTP: which there are, and their rows as JSON or CSV.

Guards that names come from the database's catalogue only, and that reading has the rights of an analyst.
"""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from pydantic import Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from api import paging
from api.errors import Refused, invalid
from api.routing import LIST_HEADERS, CurrentCall, Router, allow, problems
from api.uploads import CSV
from api.values import Answer, Day, Shown
from mautolib.analytics import readers_views
from mautolib.auth.roles import Role
from mautolib.errors import NotFound

router = Router("Analytics")
MISSING = "View not found"
_OWN = {"from", "to", "limit", "format", "skip", "cursor"}
_NAME = re.compile("[a-z_][a-z0-9_]{0,62}", re.ASCII)

#: `limit`=1000 (1..10000), `skip`, `cursor`.
ViewPage = Annotated[paging.Page, Depends(paging.pages(limit=1000, most=10_000))]


class RowFormat(StrEnum):
    """How rows are written."""

    JSON = "json"
    CSV = "csv"


class ViewColumn(Answer):
    """A column and its type."""

    name: str = Field(examples=["open_rate"])
    type: str = Field(examples=["numeric(7,4)"])


class AnalyticsView(Answer):
    """A view or table analysts read."""

    view: str = Field(examples=["campaign_performance"])
    grain: str = Field(description="What one row stands for.", examples=["campaign"])
    columns: list[ViewColumn] = Field(examples=[[{"name": "campaign_id", "type": "bigint"}]])
    as_of: Shown | None = Field(
        description="When its newest row was computed; now for what is counted live, null while a table is empty."
    )


@router.get("/analytics/views", response_model=list[AnalyticsView], responses=problems(401, 422))
@allow(Role.VIEWER)
def analytics_views(call: CurrentCall) -> list[AnalyticsView]:
    """List the views for analysts.

    What each row stands for, its columns and how fresh it is. None of them holds personal data.
    """
    with readers_views.reading_views(call.engine) as tx:
        return [
            AnalyticsView(
                view=found.name, grain=found.grain, as_of=readers_views.newest(tx, found, now=call.now),
                columns=[ViewColumn(name=name, type=kind) for name, kind in found.columns.items()],
            )
            for found in readers_views.listed(tx)
        ]  # fmt: skip


@router.get(
    "/analytics/views/{view}", response_model=list[dict[str, Any]],
    responses={
        200: {
            "headers": LIST_HEADERS,
            "content": {CSV: {"schema": {"type": "string"}}},
        },
        **problems(401, 422, s404=MISSING),
    },
)  # fmt: skip
@allow(Role.VIEWER)
def analytics_view_rows(
    call: CurrentCall, request: Request, view: str, page: ViewPage,
    first: Annotated[Day | None, Query(alias="from", description="First UTC day of the rows.")] = None,
    last: Annotated[Day | None, Query(alias="to", description="Last UTC day of the rows.")] = None,
    format: Annotated[RowFormat, Query(description="How to write the rows.")] = RowFormat.JSON,
) -> Response:  # fmt: skip
    """Read the rows of a view.

    Each column of the grain is a filter (`?granularity=week&cohort_start=2026-03-02`); another name is 422 and told
    which there are. `from` and `to` bound the date of the grain, or else the first date of a row. Rows are ordered by
    that date, then by the grain. Ids and money are text. In CSV one `'` stands before what a spreadsheet would run.
    What takes longer than ten seconds is 422.
    """
    filters = _filters(request)
    with readers_views.reading_views(call.engine) as tx:
        if not _NAME.fullmatch(view):
            raise NotFound(MISSING)
        relation = readers_views.get(tx, view)
        found, total = _rows(tx, relation, filters, first, last, page)
    shown, remain = found[: page.limit], len(found) > page.limit
    position = readers_views.position(relation, shown[-1]) if shown else None
    if format is RowFormat.JSON:
        rows = [readers_views.shown(relation, row) for row in shown]
        return paging.list_response(call, rows, page, total=total, last=position, remain=remain)
    headers = paging.list_headers(call, page, total=total, last=position, remain=remain)
    headers["Content-Disposition"] = f'attachment; filename="{relation.name}.csv"'
    lines = readers_views.csv_lines(relation, shown)
    return StreamingResponse(lines, media_type=CSV, headers=headers)


def _filters(request: Request) -> dict[str, str]:
    """The parameters that are no parameters of this operation."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in _OWN:
            continue
        if name in found:
            raise Refused(422, invalid(["query", name], "Given more than once", kind="given_twice"))
        found[name] = value
    return found


def _rows(
    tx: Any, relation: readers_views.Relation, filters: dict[str, str], first: date | None, last: date | None,
    page: paging.Page,
) -> tuple[list[readers_views.Cells], int]:  # fmt: skip
    return readers_views.rows(
        tx, relation, filters=filters, from_=first, to=last, limit=page.limit, skip=page.skip, after=page.after,
        count_limit=paging.COUNT_LIMIT,
    )  # fmt: skip
