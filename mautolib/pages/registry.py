"""The pages of the dashboard by their path: one list for the API's `/dashboard` and the tab in Airflow.

Promise: whoever mounts `answer` behind a sign-in of its own has every page, its CSV files and its error page. A page
is registered when it works. Pages change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mautolib.db.engine import Tx
from mautolib.errors import NotFound
from mautolib.pages import (
    ab_test,
    ab_tests,
    campaign,
    campaigns,
    cohorts,
    customers,
    holdout,
    overview,
    people,
    revenue,
    workflows,
)
from mautolib.pages.frame import House, page_html
from mautolib.pages.table import csv_of, show
from mautolib.pages.view import Asked, View

__all__ = ["PAGES", "Page", "PageAnswer", "answer", "error_answer", "navigation"]

_HTML: Final = "text/html; charset=utf-8"
_CSV: Final = "text/csv; charset=utf-8"
_LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: its path below the dashboard (`{id}` stands for a number), what makes it, its word in the navigation."""

    path: str
    build: Callable[[Tx, Asked], View]
    nav: str = ""


@dataclass(frozen=True, kw_only=True)
class PageAnswer:
    """What a face sends."""

    status: int
    body: str
    media_type: str = _HTML
    file_name: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers beside those of the face."""
        return {"Content-Disposition": f'attachment; filename="{self.file_name}"'} if self.file_name else {}


PAGES: Final = (
    Page(path="", build=overview.build, nav="Overview"),
    Page(path="campaigns", build=campaigns.build, nav="Campaigns"),
    Page(path="campaigns/{id}", build=campaign.build),
    Page(path="ab-tests", build=ab_tests.build, nav="A/B tests"),
    Page(path="ab-tests/{id}", build=ab_test.build),
    Page(path="holdout", build=holdout.build, nav="Hold-out"),
    Page(path="revenue", build=revenue.build, nav="Revenue"),
    Page(path="customers", build=customers.build, nav="Customers"),
    Page(path="cohorts", build=cohorts.build, nav="Cohorts"),
    Page(path="people", build=people.build, nav="Scores"),
    Page(path="workflows", build=workflows.build, nav="Workflows"),
    Page(path="workflows/{id}", build=workflows.build_one),
)


def answer(tx: Tx, path: str, query: Mapping[str, str], *, now: datetime, house: House) -> PageAnswer:
    """The page at a path below the dashboard, or one of its tables as CSV, or the page that says there is none.

    Args:
        path: without slashes at its ends.
        query: parameters of the address, each once; those that no page knows are kept in links and else ignored.
    """
    try:
        page, subject_id = _found(path)
        view = page.build(tx, Asked(now=now, query=query, subject_id=subject_id))
        if query.get("format") == "csv":
            return _csv(view, query, now)
    except NotFound as error:
        return error_answer(404, str(error), house=house)
    tables = {table.name: show(table, root=house.root, query=query) for table in view.tables}
    return PageAnswer(status=200, body=page_html(
        view.template, title=view.title, house=house, nav=navigation(page.path), now=now, tables=tables,
        charts={chart.name: chart for chart in view.charts}, **view.values,
    ))  # fmt: skip


def error_answer(status: int, message: str, *, house: House) -> PageAnswer:
    """A page that says what is wrong, and leads back."""
    title = "Not found" if status == 404 else "Try again"
    return PageAnswer(status=status, body=page_html(
        "error.html", title=title, message=message, house=house, nav=navigation("-"), charts={},
    ))  # fmt: skip


def navigation(path: str) -> list[tuple[str, str, bool]]:
    """Pages one can always go to: path, word, and whether `path` is (a part of) it."""
    return [
        (page.path, page.nav, path == page.path or (page.path != "" and path.startswith(f"{page.path}/")))
        for page in PAGES
        if page.nav
    ]


def _found(path: str) -> tuple[Page, int]:
    folder, _, last = path.rpartition("/")
    is_id = last.isascii() and last.isdigit() and len(last) <= 19 and int(last) <= _LARGEST_ID
    wanted = f"{folder}/{{id}}" if is_id else path
    for page in PAGES:
        if page.path == wanted:
            return page, int(last) if is_id else 0
    raise NotFound("There is no such page")


def _csv(view: View, query: Mapping[str, str], now: datetime) -> PageAnswer:
    for table in view.tables:
        if table.name == query.get("table", view.tables[0].name):
            # The mark at the beginning tells spreadsheets that it is UTF-8.
            return PageAnswer(
                status=200, body="\ufeff" + csv_of(table, query=query), media_type=_CSV,
                file_name=f"{table.name}-{now:%Y-%m-%d}.csv",
            )  # fmt: skip
    raise NotFound("There is no such table")
