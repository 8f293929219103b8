"""The list of campaigns with their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final

from mautolib.analytics import figures, readers_campaigns
from mautolib.campaigns.model import Status
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages.table import Column, Kind, Table
from mautolib.pages.view import Asked, View

__all__ = ["EMPTY", "build", "everything", "listed", "rates", "recounted_at"]

_MOST: Final = 500
_LABELS: Final = {"": "All", **{str(status): str(status).capitalize() for status in Status}}
EMPTY: Final = (
    "No campaigns yet",
    "Create one with POST /api/v1/campaigns/ and send it with POST /api/v1/campaigns/{id}/send, or try make demo.",
)
_COLUMNS: Final = (
    Column(key="campaign_name", label="Campaign", link="campaigns/{campaign_id}", bold=True),
    Column(key="status", label="State", kind=Kind.PILL),
    Column(key="moved_at", label="Sent (UTC)", kind=Kind.MOMENT),
    Column(key="sent", label="Sent", kind=Kind.NUMBER),
    Column(key="delivered", label="Delivered", kind=Kind.NUMBER),
    Column(key="open_rate", label="Opened", kind=Kind.PERCENT, meter="open"),
    Column(key="click_rate", label="Clicked", kind=Kind.PERCENT, meter="click"),
    Column(key="bounce_rate", label="Bounced", kind=Kind.PERCENT),
    Column(key="unsubscribe_rate", label="Unsubscribed", kind=Kind.PERCENT),
)


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    status = asked.word("status", list(_LABELS))
    found = [row for row in everything(tx, now=asked.now) if not status or row["status"] == status]
    table = listed(found[:_MOST], name="campaigns", empty=EMPTY if not status else (f"No campaign is {status}", ""))
    return View(
        template="campaigns.html", title="Campaigns", tables=[table],
        values={"choices": asked.choices("status", _LABELS, status), "most": _MOST, "recounted_at": recounted_at(tx)},
    )  # fmt: skip


def everything(tx: Tx, *, now: datetime) -> list[dict[str, Any]]:
    """Every campaign with what became of its mails, the newest first; counted as the API counts."""
    rows = tx.execute(statement("pages.live_campaigns" if readers_campaigns.is_live(tx) else "pages.campaigns"))
    return [dict(row) for row in rows.mappings() if row["moved_at"] is None or row["moved_at"] <= now]


def recounted_at(tx: Tx, campaign_id: int | None = None) -> datetime | None:
    """When the mails of one campaign, or of all, were counted that are shown (the oldest count); None: now."""
    if readers_campaigns.is_live(tx):
        return None
    found: datetime | None = tx.scalar(statement("pages.recounted_at"), {"campaign_id": campaign_id})
    return found


def rates(counts: Mapping[str, Any]) -> dict[str, Any]:
    """The rates of attempted, delivered and what people did, in percent; None without a denominator."""
    found = figures.rates_of(SimpleNamespace(**counts))
    return {
        "open_rate": found.open if counts["delivered"] else None,
        "click_rate": found.click if counts["delivered"] else None,
        "bounce_rate": found.bounce if counts["attempted"] else None,
        "unsubscribe_rate": found.unsubscribe if counts["delivered"] else None,
    }


def listed(rows: Sequence[Mapping[str, Any]], *, name: str, empty: tuple[str, str]) -> Table:
    """Campaigns of `everything` as a table."""
    return Table(
        name=name, caption="Campaigns", columns=_COLUMNS, empty=empty, sortable=True, is_titled=True,
        rows=[{**row, **rates(row)} for row in rows],
    )  # fmt: skip
