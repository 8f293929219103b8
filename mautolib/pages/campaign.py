"""One campaign: what became of its messages, who reacted where and when.

The figures on top are those of the API (`readers_campaigns`). Links, hours and domains of a small or young campaign
are counted from ledger and hits when the page is asked for, those of a large one are as of the last refresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mautolib.analytics import readers_campaigns, readers_sales
from mautolib.analytics.figures import percent
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.pages import campaigns
from mautolib.pages.charts import Drawn, chart_of
from mautolib.pages.table import Column, Kind, Table, shades_up_to
from mautolib.pages.view import Asked, Card, View, rate_text

__all__ = ["build"]

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DOMAINS: Final = 20
_LINKS: Final = 50
_WHAT: Final = {"click": "Clicks", "open": "Opens"}


def build(tx: Tx, asked: Asked) -> View:
    """The page.

    Raises:
        NotFound: no such campaign.
    """
    binds = {"campaign_id": asked.subject_id}
    as_of = readers_campaigns.reactions_as_of(tx, asked.subject_id)
    live = "" if as_of else "live_"
    row = tx.execute(statement("pages.campaign"), binds).mappings().first()
    found = readers_campaigns.counts(tx, asked.subject_id)
    if row is None or found is None:
        raise NotFound("Campaign not found")
    counts = found._asdict()
    what = asked.word("hours", list(_WHAT))
    funnel, touches = _funnel(counts), _touches(counts)
    return View(
        template="campaign.html", title=row["campaign_name"],
        tables=[funnel, touches, _hours(tx, binds, what, live), _links(tx, binds, live), _domains(tx, binds, live),
                _states(tx, binds)],
        charts=[
            chart_of(funnel, Drawn.FUNNEL, ["count"]),
            chart_of(touches, Drawn.STACK, ["human", "machine"], muted="machine"),
        ],
        values={
            "campaign": row, "as_of": as_of, "recounted_at": campaigns.recounted_at(tx, asked.subject_id),
            "choices": asked.choices("hours", _WHAT, what),
            "cards": _cards(tx, asked.subject_id, counts),
        },
    )  # fmt: skip


def _cards(tx: Tx, campaign_id: int, counts: Mapping[str, Any]) -> list[Card]:
    rates = campaigns.rates(counts)
    cards = [
        Card(label="Sent", value=f"{counts['sent']:,}", note=f"{counts['attempted']:,} attempted"),
        Card(label="Opened", value=rate_text(rates["open_rate"]), note=f"{counts['unique_opens']:,} recipients"),
        Card(label="Clicked", value=rate_text(rates["click_rate"]), note=f"{counts['unique_clicks']:,} recipients"),
        Card(label="Bounced", value=rate_text(rates["bounce_rate"]), note=f"{counts['bounced']:,} addresses"),
        Card(label="Unsubscribed", value=rate_text(rates["unsubscribe_rate"]),
             note=f"{counts['unsubscribed']:,} contacts, {counts['complained']:,} complaints"),
    ]  # fmt: skip
    sold = readers_sales.campaign_sales(tx, campaign_id)
    if sold.orders:
        cards.append(Card(
            label="Revenue", value=f"{sold.revenue:,.0f}", note=f"{sold.reporting_currency} of {sold.orders:,} orders"
        ))  # fmt: skip
    return cards


def _funnel(counts: Mapping[str, Any]) -> Table:
    """From sent to clicked: each step as a share of the sent, and of the step before."""
    steps = (("Sent", "sent"), ("Delivered", "delivered"), ("Opened", "unique_opens"), ("Clicked", "unique_clicks"))
    rows, before = [], counts["sent"]
    for stage, key in steps:
        count = counts[key]
        rows.append({
            "stage": stage, "count": count, "rate": percent(count, counts["sent"]) if counts["sent"] else None,
            "step_rate": percent(count, before) if before else None,
        })  # fmt: skip
        before = count
    return Table(
        name="funnel", caption="Funnel: people, machines left out", rows=rows if counts["sent"] else [],
        empty=("Nothing sent yet", "The funnel begins with the first message that is accepted."),
        columns=(
            Column(key="stage", label="Step", bold=True),
            Column(key="count", label="Messages", kind=Kind.NUMBER),
            Column(key="rate", label="Of sent", kind=Kind.PERCENT, meter="open"),
            Column(key="step_rate", label="Of the step before", kind=Kind.PERCENT),
        ),
    )  # fmt: skip


def _touches(counts: Mapping[str, Any]) -> Table:
    rows = [
        {"what": what, "people": counts[f"unique_{key}"], "human": counts[f"human_{key}"],
         "machine": counts[f"raw_{key}"] - counts[f"human_{key}"], "raw": counts[f"raw_{key}"]}
        for what, key in (("Opens", "opens"), ("Clicks", "clicks"))
    ]  # fmt: skip
    return Table(
        name="touches", caption="Opens and clicks: people and machines",
        rows=rows if counts["raw_opens"] + counts["raw_clicks"] else [],
        empty=("Nobody has reacted yet", "Opens and clicks appear when the first recipient looks at the mail."),
        columns=(
            Column(key="what", label="What", bold=True),
            Column(key="people", label="Recipients", kind=Kind.NUMBER),
            Column(key="human", label="By people", kind=Kind.NUMBER),
            Column(key="machine", label="By machines", kind=Kind.NUMBER),
            Column(key="raw", label="All", kind=Kind.NUMBER),
        ),
    )  # fmt: skip


def _states(tx: Tx, binds: Mapping[str, Any]) -> Table:
    rows = [dict(row) for row in tx.execute(statement("pages.message_states"), binds).mappings()]
    return Table(
        name="states", caption="Messages by state and reason", rows=rows, sortable=True,
        empty=("No messages yet", "They are written when the campaign is planned."),
        columns=(
            Column(key="status", label="State", kind=Kind.PILL, bold=True),
            Column(key="reason", label="Reason"),
            Column(key="messages", label="Messages", kind=Kind.NUMBER),
            Column(key="share", label="Share", kind=Kind.PERCENT, meter="open"),
        ),
    )  # fmt: skip


def _links(tx: Tx, binds: Mapping[str, Any], live: str) -> Table:
    found = tx.execute(statement(f"pages.{live}campaign_links"), {**binds, "limit": _LINKS}).mappings()
    return Table(
        name="links", caption="Links", rows=[dict(row) for row in found], sortable=True, is_titled=True,
        empty=("No link was clicked yet", "Every tracked link that was clicked is listed here."),
        columns=(
            Column(key="url", label="Address", bold=True),
            Column(key="unique_clicks", label="Recipients", kind=Kind.NUMBER),
            Column(key="human_clicks", label="Clicks by people", kind=Kind.NUMBER),
            Column(key="raw_clicks", label="All clicks", kind=Kind.NUMBER),
            Column(key="click_share", label="Share", kind=Kind.PERCENT, meter="click"),
        ),
    )  # fmt: skip


def _hours(tx: Tx, binds: Mapping[str, Any], what: str, live: str) -> Table:
    """Human opens or clicks by weekday and hour (UTC)."""
    found = tx.execute(statement(f"pages.{live}campaign_hours"), {**binds, "kind": what})
    counts = {(row.weekday, row.hour): row.hits for row in found}
    shade = shades_up_to(max(counts.values(), default=0))
    rows = [
        {"weekday": name, **{f"h{hour:02d}": counts.get((day, hour), 0) for hour in range(24)}}
        for day, name in enumerate(_WEEKDAYS, start=1)
    ]
    hours = [
        Column(key=f"h{hour:02d}", label=f"{hour:02d}", kind=Kind.NUMBER, shade=shade) for hour in range(24)
    ]
    return Table(
        name="hours", caption=f"{_WHAT[what]} by people, by weekday and hour (UTC)", rows=rows if counts else [],
        empty=("Nothing to show yet", f"{_WHAT[what]} by people appear here by the hour they came in."),
        columns=[Column(key="weekday", label="Day", bold=True), *hours],
    )  # fmt: skip


def _domains(tx: Tx, binds: Mapping[str, Any], live: str) -> Table:
    found = tx.execute(statement(f"pages.{live}campaign_domains"), {**binds, "limit": _DOMAINS}).mappings()
    return Table(
        name="domains", caption="Mail domains", rows=[dict(row) for row in found], sortable=True, is_titled=True,
        empty=("No messages yet", f"The {_DOMAINS} largest domains of its recipients appear here."),
        columns=(
            Column(key="domain", label="Domain", bold=True),
            Column(key="sent", label="Sent", kind=Kind.NUMBER),
            Column(key="delivered", label="Delivered", kind=Kind.NUMBER),
            Column(key="bounced", label="Bounced", kind=Kind.NUMBER),
            Column(key="bounce_rate", label="Bounce rate", kind=Kind.PERCENT),
            Column(key="open_rate", label="Opened", kind=Kind.PERCENT, meter="open"),
        ),
    )  # fmt: skip
