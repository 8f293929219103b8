"""The overview page: a few figures and charts that answer "how are we doing", as one HTML document.

Promises one page for two houses - the API's `/dashboard` and a tab of the Airflow UI - that needs no script and
loads nothing from anywhere. All figures come from the readers of `analytics`, so they are the API's own. Signing in
is the caller's part; `content_security_policy` is the header that fits the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy import Connection

from mautolib.analytics import readers
from mautolib.db import liveness
from mautolib.db.statements import statement
from mautolib.pages import charts

__all__ = ["content_security_policy", "overview_html", "page_html", "sign_in_html"]

_FOLDER = Path(__file__).parent / "templates"
_WEEKS = 26
_CAMPAIGNS = 7
_COHORTS, _OFFSETS = 10, 9
_SILENCE = timedelta(minutes=90)
#: Retention in percent from which each of the ten shades is used; most shops live in the lower third.
_SHADES = (0, 2, 5, 10, 15, 20, 30, 40, 55, 75)


@dataclass(frozen=True, kw_only=True)
class Card:
    """One big number."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the cohort table: percent, and its shade."""

    rate: float
    heat: str


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """One line of the cohort table; a cell is None while its week is not over for everybody."""

    label: str
    size: int
    cells: tuple[Cell | None, ...]


def overview_html(
    tx: Connection, *, now: datetime, embedded: bool, user: str = "", csrf: str = "", airflow_url: str = ""
) -> str:
    """The overview as one HTML document.

    Args:
        embedded: inside another UI: without a header of its own.
        user, csrf, airflow_url: who is signed in, the token of the sign-out form, and where Airflow is; for the
            header.
    """
    weeks = _weeks(tx, now)
    return page_html(
        "overview.html", now=now, embedded=embedded, user=user, csrf=csrf, airflow_url=airflow_url,
        cards=_cards(tx, now), quiet=_quiet(tx, now), weeks=weeks, campaigns=_campaigns(tx), cohorts=_cohorts(tx, now),
        offsets=_OFFSETS,
        growth_wide=Markup(charts.bars(weeks, width=520, height=340, title="New contacts per week")),  # noqa: S704
        growth_narrow=Markup(charts.bars(weeks, width=330, height=200, title="New contacts per week")),  # noqa: S704
    )  # fmt: skip


def sign_in_html(*, csrf: str, email: str = "", error: str = "") -> str:
    """The sign-in form, with what went wrong the last time."""
    return page_html("sign_in.html", csrf=csrf, email=email, error=error)


def page_html(name: str, **values: Any) -> str:
    """A page of these houses: its template with `values`, in their style."""
    return _environment().get_template(name).render(style=Markup(_style()), **values)  # noqa: S704 - our own file


@cache
def content_security_policy(*, frame_ancestors: str = "'none'") -> str:
    """The policy that fits these pages: their own style by its hash, forms to this server, nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'self'; base-uri 'none'; "
        f"frame-ancestors {frame_ancestors}"
    )


def _cards(tx: Connection, now: datetime) -> list[Card]:
    stats = readers.dashboard_stats(tx)
    total, subscribed = stats["total_contacts"], stats["subscribed_contacts"]
    share = f"{100 * subscribed / total:.0f} % subscribed" if total else "nobody yet"
    drafts = _count(stats["campaigns_draft"], "draft")
    waiting = int(tx.scalar(statement("pages.waiting_messages"), {"now": now}) or 0)
    return [
        Card(label="Contacts", value=f"{total:,}", note=share),
        Card(label="Mails sent", value=f"{stats['total_emails_sent']:,}", note=f"{waiting:,} waiting"),
        Card(label="Open rate", value=f"{stats['avg_open_rate']:.1f} %", note="of delivered"),
        Card(label="Click rate", value=f"{stats['avg_click_rate']:.1f} %", note="of delivered"),
        Card(label="Campaigns sent", value=f"{stats['campaigns_sent']:,}", note=drafts),
        Card(
            label="Workflows active", value=f"{stats['active_workflows']:,}", note=f"of {stats['total_workflows']:,}"
        ),
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _quiet(tx: Connection, now: datetime) -> str:
    """A word of warning when background work gives no sign of life; empty while it does."""
    beat = liveness.last_beat(tx, "airflow")
    if beat is None:
        return "background work has not run yet"
    return "" if now - beat <= _SILENCE else f"background work is silent since {beat:%d %B, %H:%M} UTC"


def _weeks(tx: Connection, now: datetime) -> list[charts.Bar]:
    found = readers.signup_weeks(tx, weeks=_WEEKS, now=now)
    return [charts.Bar(start=week["week_start"], value=week["total"]) for week in found]


def _campaigns(tx: Connection) -> list[dict[str, Any]]:
    rows = []
    for row in readers.recent_campaigns(tx, limit=_CAMPAIGNS):
        opened, clicked = float(row["open_rate"] or 0), float(row["click_rate"] or 0)
        rows.append(
            {
                "name": row["campaign_name"], "status": row["status"], "sent": row["sent"],
                "open_rate": opened, "open_meter": Markup(charts.meter(opened, "open")),  # noqa: S704
                "click_rate": clicked, "click_meter": Markup(charts.meter(clicked, "click")),  # noqa: S704
            }
        )  # fmt: skip
    return rows


def _cohorts(tx: Connection, now: datetime) -> list[Cohort]:
    # One week more than is shown: the current one has no complete cell yet.
    since = (now - timedelta(weeks=_COHORTS + 1)).date()
    rows = tx.execute(statement("pages.week_cohorts"), {"offsets": _OFFSETS, "since": since}).all()
    found = []
    for _, group in groupby(rows, key=lambda row: row.cohort_start):
        cells = list(group)
        found.append(Cohort(label=cells[0].cohort_label, size=cells[0].cohort_size, cells=_cells(cells)))
    return [cohort for cohort in found if any(cohort.cells)][-_COHORTS:]


def _cells(rows: Sequence[Any]) -> tuple[Cell | None, ...]:
    rates = {row.period_offset: row.retention_rate for row in rows}
    return tuple(_cell(rates.get(offset)) for offset in range(_OFFSETS))


def _cell(rate: float | None) -> Cell | None:
    if rate is None:
        return None
    shade = max(index for index, least in enumerate(_SHADES) if rate >= least)
    return Cell(rate=float(rate), heat=f"h{shade}")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


@cache
def _style() -> str:
    return (_FOLDER / "overview.css").read_text(encoding="utf-8")
