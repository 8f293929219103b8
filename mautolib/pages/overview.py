"""The overview page: a few figures and charts that answer "how are we doing".

All figures come from the readers of `analytics`, or are sums of them, so they are the API's own. Mail is that of
campaigns, by the day they were sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row

from mautolib.analytics import readers, readers_trends
from mautolib.db import liveness
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.pages import campaigns, cohorts
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table
from mautolib.pages.view import Asked, Card, View, rate_text, read_as_of

__all__ = ["build"]

_DAYS: Final = (90, 7, 30, 365)
#: How finely a period is drawn.
_GRAINS: Final = {7: "day", 30: "day", 90: "week", 365: "month"}
_CAMPAIGNS: Final = 6
_COHORTS, _OFFSETS = 8, 9
_COUNTS: Final = (
    "attempted", "sent", "delivered", "bounced", "unsubscribed", "raw_opens", "human_opens", "unique_opens",
    "raw_clicks", "human_clicks", "unique_clicks",
)  # fmt: skip
_SILENCE: Final = timedelta(minutes=90)


def build(tx: Tx, asked: Asked) -> View:
    """The page."""
    days = asked.number("days", _DAYS)
    labels = {str(number): f"{number} days" for number in sorted(_DAYS)}
    house = readers_trends.house(tx)
    health = readers_trends.health(tx, now=asked.now, counted=house)
    done = campaigns.everything(tx, now=asked.now)
    growth, sending = _growth(tx, days, asked.now), _sending(done, days, asked.now)
    newest = campaigns.listed(done[:_CAMPAIGNS], name="campaigns", empty=campaigns.EMPTY)
    return View(
        template="overview.html", title="Overview",
        tables=[growth, sending, _factors(health), newest,
                cohorts.heat_map(tx, grain="week", cohorts=_COHORTS, offsets=_OFFSETS)],
        charts=[
            chart_of(growth, Drawn.BARS, ["total", "subscribed"]),
            chart_of(sending, Drawn.BARS, ["sent"], name="sent", title="Campaign mails sent"),
            chart_of(sending, Drawn.LINES, ["open_rate", "click_rate", "bounce_rate"], unit="%", name="rates",
                     title="Opened, clicked, bounced"),
            chart_of(sending, Drawn.STACK, ["human_opens", "machine_opens"], name="opens", muted="machine_opens",
                     title="Opens by people and by machines"),
        ],
        values={
            "health": health, "cards": _cards(tx, house, done, days, asked.now), "quiet": _quiet(tx, asked.now),
            "choices": asked.choices("days", labels, str(days)), "days": days,
            "recounted_at": campaigns.recounted_at(tx), "cohorts_as_of": read_as_of(tx, "contact_cohorts"),
        },
    )  # fmt: skip


def _cards(tx: Tx, house: Row[Any], done: Sequence[Mapping[str, Any]], days: int, now: datetime) -> list[Card]:
    waiting = int(tx.scalar(statement("pages.waiting_messages"), {"now": now}) or 0)
    since = now - timedelta(days=days)
    recent = [row for row in done if row["moved_at"] and row["moved_at"] >= since]
    sums = _sums(recent)
    rates = campaigns.rates(sums)
    contacts = house.total_contacts
    share = f"{100 * house.subscribed_contacts / contacts:.0f} % subscribed" if contacts else "nobody yet"
    noun = "campaign" if len(recent) == 1 else "campaigns"
    return [
        Card(label="Contacts", value=f"{contacts:,}", note=share),
        Card(label="Campaign mails", value=f"{sums['sent']:,}",
             note=f"sent in {len(recent):,} {noun}, {waiting:,} waiting"),
        Card(label="Opened", value=rate_text(rates["open_rate"]), note="of delivered, by people"),
        Card(label="Clicked", value=rate_text(rates["click_rate"]), note="of delivered, by people"),
        Card(label="Bounced", value=rate_text(rates["bounce_rate"]), note="of attempted"),
        Card(label="Unsubscribed", value=rate_text(rates["unsubscribe_rate"]), note="of delivered"),
    ]  # fmt: skip


def _sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in _COUNTS}


def _factors(health: readers_trends.Health) -> Table:
    """What the health is made of, each part at most 25 points."""
    found = health["factors"]
    shown = (
        ("Contacts who are subscribed", f"{found['subscription_rate']:.1f} %"),
        ("Mails opened by people", f"{found['open_rate']:.1f} %"),
        ("Mails bounced", f"{found['bounce_rate']:.1f} %"),
        ("Campaigns created in 30 days", f"{found['recent_campaigns_30d']:,}"),
    )
    return Table(
        name="factors", caption="What it is made of", rows=[{"factor": name, "value": text} for name, text in shown],
        columns=(Column(key="factor", label="Factor", bold=True), Column(key="value", label="Now")),
    )


def _growth(tx: Tx, days: int, now: datetime) -> Table:
    weeks = readers.signup_weeks(tx, weeks=max(2, -(-days // 7) + 1), now=now)
    return Table(
        name="growth", caption="New contacts by week",
        rows=[dict(week) for week in weeks] if any(week["total"] for week in weeks) else [],
        empty=("No new contacts", "Upload a CSV file with POST /api/v1/contacts/import, or try make demo."),
        columns=(
            Column(key="week_start", label="Week of", kind=Kind.DAY, bold=True),
            Column(key="total", label="New", kind=Kind.NUMBER),
            Column(key="subscribed", label="Still subscribed", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _sending(done: Sequence[Mapping[str, Any]], days: int, now: datetime) -> Table:
    grain = _GRAINS[days]
    last = _start(now.astimezone(UTC).date(), grain)
    starts = _starts(now.astimezone(UTC).date() - timedelta(days=days - 1), last, grain)
    by_start: dict[date, list[Mapping[str, Any]]] = {start: [] for start in starts}
    for row in done:
        start = _start(row["moved_at"].astimezone(UTC).date(), grain) if row["moved_at"] else None
        if start in by_start:
            by_start[start].append(row)
    rows = []
    for start, of_period in by_start.items():
        sums = _sums(of_period)
        rows.append({
            "period_start": start, **sums, **campaigns.rates(sums),
            "machine_opens": sums["raw_opens"] - sums["human_opens"],
            "machine_clicks": sums["raw_clicks"] - sums["human_clicks"],
        })  # fmt: skip
    return Table(
        name="sending", caption=f"Campaigns by the {grain} they were sent in",
        rows=rows if any(row["sent"] for row in rows) else [],
        empty=("Nothing sent in this time", "Send a campaign with POST /api/v1/campaigns/{id}/send."),
        columns=(
            Column(key="period_start", label=f"{grain.capitalize()} of" if grain != "day" else "Day", kind=Kind.DAY,
                   bold=True),
            Column(key="sent", label="Sent", kind=Kind.NUMBER),
            Column(key="open_rate", label="Opened", kind=Kind.PERCENT),
            Column(key="click_rate", label="Clicked", kind=Kind.PERCENT),
            Column(key="bounce_rate", label="Bounced", kind=Kind.PERCENT),
            Column(key="human_opens", label="Opens by people", kind=Kind.NUMBER),
            Column(key="machine_opens", label="Opens by machines", kind=Kind.NUMBER),
            Column(key="human_clicks", label="Clicks by people", kind=Kind.NUMBER),
            Column(key="machine_clicks", label="Clicks by machines", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _start(day: date, grain: str) -> date:
    """The first day of the day, ISO week or month a day lies in."""
    if grain == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if grain == "month" else day


def _starts(first: date, last: date, grain: str) -> list[date]:
    """The first days of all periods from that of `first` to that of `last`."""
    found = [_start(first, grain)]
    longest = {"day": 1, "week": 7, "month": 31}[grain]
    while found[-1] < last:
        found.append(_start(found[-1] + timedelta(days=longest), grain))
    return found


def _quiet(tx: Tx, now: datetime) -> str:
    """A word of warning when background work gives no sign of life; empty while it does."""
    beat = liveness.last_beat(tx, "airflow")
    if beat is None:
        return "background work has not run yet"
    return "" if now - beat <= _SILENCE else f"background work is silent since {beat:%d %B, %H:%M} UTC"
