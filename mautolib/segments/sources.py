"""Where the values of fields come from: columns of contacts, and what is joined to them once for each need.

Promise: every join brings at most one row for a contact, so nobody is doubled or lost, and its columns are null for
whoever has nothing there. Totals are one grouped subquery for everybody, not a look-up for each contact. Called by
`compile` only; what values are compared with is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Date,
    FromClause,
    Numeric,
    Select,
    and_,
    case,
    cast,
    func,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from mautolib.db import tables
from mautolib.segments.custom import custom_value
from mautolib.segments.fields import Field
from mautolib.segments.rules import DaysAgo, Qualifiers

__all__ = ["Sources", "fold", "moment"]

_SCORES: Final = {"score": "total_score", "engagement_score": "engagement_score", "profile_score": "profile_score",
                  "recency_score": "recency_score", "grade": "grade"}  # fmt: skip
_COLUMNS: Final = frozenset({
    "email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency", "consent_source",
    "subscribed", "consent_status", "created_at", "updated_at", "consent_at",
})  # fmt: skip
#: Room for the largest amount at the highest rate: one order that does not fit would spoil every evaluation.
_MONEY: Final = Numeric(38, 4)
_AMOUNTS: Final = frozenset({"revenue", "average_value"})
#: A limit that limits nothing keeps the planner from letting every parallel worker count all events for itself.
_ALL: Final = 2**63 - 1


def fold(value: ColumnElement[str]) -> ColumnElement[str]:
    """A text without its case; both ways, so that characters with several small forms are one."""
    return func.lower(func.upper(value))


def moment(given: datetime | DaysAgo, now: datetime) -> datetime:
    """The moment a rule means."""
    return now - timedelta(days=given.days) if isinstance(given, DaysAgo) else given


class Sources:
    """What one list of contacts is joined with.

    Args:
        people: `contacts` or an alias of it.
        only: look at this contact alone; joins then read its rows only.
    """

    def __init__(self, people: FromClause, *, now: datetime, currency: str, only: int | None = None) -> None:
        self.people = people
        self._now = now
        self._currency = currency
        self._only = only
        self._joins: dict[Hashable, tuple[FromClause, ColumnElement[bool]]] = {}

    @property
    def has_joins(self) -> bool:
        """Whether anything but contacts was asked for."""
        return bool(self._joins)

    def joined(self) -> FromClause:
        """Contacts with everything that was asked for."""
        found = self.people
        for source, on in self._joins.values():
            found = found.outerjoin(source, on)
        return found

    def value(self, field: Field, qualifiers: Qualifiers) -> ColumnElement[Any]:
        """The value of a field, null or blank where it is missing; tags and segments have none."""
        if field.keys:
            return custom_value(self.people.c.custom_fields, field)
        if field.name in _COLUMNS:
            return self.people.c[field.name]
        if field.name in _SCORES:
            return self._other(tables.contact_scores).c[_SCORES[field.name]]
        if field.name == "lifecycle_stage":
            return self._other(tables.contact_stages).c.lifecycle_stage
        if field.name == "suppressed":
            return self.suppression().c.email_key.is_not(None)
        noun, figure = field.name.split(".")
        return (self._events(qualifiers) if noun == "event" else self._orders(qualifiers, figure)).c[figure]

    def suppression(self) -> FromClause:
        """The suppression of the contact's address."""
        def build() -> tuple[FromClause, ColumnElement[bool]]:
            found = tables.suppressions.alias()
            return found, found.c.email_key == self.people.c.email_key

        return self._join("suppressions", build)

    def by_hand(self, segment_id: int) -> FromClause:
        """What was decided by hand about the contact and a segment (`is_excluded`)."""
        def build() -> tuple[FromClause, ColumnElement[bool]]:
            found = tables.segment_static_members.alias()
            return found, and_(found.c.contact_id == self.people.c.contact_id, found.c.segment_id == segment_id)

        return self._join(("by hand", segment_id), build)

    def is_among(self, key: Hashable, query: Callable[[], FromClause]) -> ColumnElement[bool]:
        """Whether the contact is among those of a query (column `contact_id`, each once); never null."""
        def build() -> tuple[FromClause, ColumnElement[bool]]:
            found = query()
            return found, found.c.contact_id == self.people.c.contact_id

        return self._join(key, build).c.contact_id.is_not(None)

    def has_tags(self, *, ids: tuple[int, ...] | None = None, every: bool = False) -> ColumnElement[bool]:
        """Whether the contact has one of some tags (with `every`: all of them; without ids: any tag at all)."""
        held = tables.contact_tags.alias()
        query = select(held.c.contact_id).group_by(held.c.contact_id)
        if ids is not None:
            query = query.where(held.c.tag_id.in_(ids))
        if every and ids is not None:
            query = query.having(func.count() == len(set(ids)))
        return self.is_among(("tags", ids, every), lambda: self._focused(query, held).subquery())

    def is_in_any_segment(self, besides: int | None) -> ColumnElement[bool]:
        """Whether the contact was in a segment at its last evaluation, leaving one out."""
        # Changes by hand are here, too, as far as no exclusion of the segment keeps the contact out.
        member = tables.segment_memberships.alias()
        query = select(member.c.contact_id).where(member.c.valid_to == text("'infinity'")).group_by(member.c.contact_id)
        if besides is not None:
            query = query.where(member.c.segment_id != besides)
        return self.is_among(("any segment", besides), self._focused(query, member).subquery)

    def was_sent(self, campaign_ids: tuple[int, ...]) -> ColumnElement[bool]:
        """Whether a message of one of some campaigns was handed over for the contact."""
        return self.is_among(("sent", campaign_ids), self.sent(campaign_ids).subquery)

    def sent(self, campaign_ids: tuple[int, ...]) -> Select[Any]:
        """Whom a message of one of some campaigns was handed over for, each once."""
        handed = tables.messages.alias()
        query = select(handed.c.contact_id).where(
            handed.c.campaign_id.in_(campaign_ids), handed.c.kind == "campaign", handed.c.sent_at.is_not(None)
        )
        return self._focused(query.group_by(handed.c.contact_id), handed)

    def _join(
        self, key: Hashable, build: Callable[[], tuple[FromClause, ColumnElement[bool]]]
    ) -> FromClause:
        if key not in self._joins:
            self._joins[key] = build()
        return self._joins[key][0]

    def _focused(self, query: Select[Any], source: FromClause) -> Select[Any]:
        return query if self._only is None else query.where(source.c.contact_id == self._only)

    def _other(self, table: Any) -> FromClause:
        def build() -> tuple[FromClause, ColumnElement[bool]]:
            found = table.alias()
            return found, found.c.contact_id == self.people.c.contact_id

        return self._join(table.name, build)

    def _window(self, at: ColumnElement[Any], qualifiers: Qualifiers) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if qualifiers.within_days is not None:
            found += [at >= self._now - timedelta(days=qualifiers.within_days), at <= self._now]
        if qualifiers.since is not None:
            found.append(at >= moment(qualifiers.since, self._now))
        if qualifiers.until is not None:
            found.append(at < moment(qualifiers.until, self._now))
        return found

    def _events(self, asked: Qualifiers) -> FromClause:
        def build() -> tuple[FromClause, ColumnElement[bool]]:
            seen = tables.events.alias()
            # Ordered, so that PostgreSQL sorts what index events_by_type gives it: a third faster than the hash table
            # of a million groups it would choose, and without its memory.
            at = aggregate_order_by(seen.c.occurred_at, seen.c.occurred_at)
            query = select(
                seen.c.contact_id, func.count(at).label("count"), func.min(at).label("first_at"),
                func.max(at).label("last_at"),
            ).where(seen.c.event_type == asked.event, *self._window(seen.c.occurred_at, asked))  # fmt: skip
            if asked.campaign_id is not None:
                query = query.where(seen.c.campaign_id == asked.campaign_id)
            if asked.where:
                query = query.where(seen.c.properties.contains(dict(asked.where)))
            found = self._focused(query.group_by(seen.c.contact_id), seen).limit(_ALL).subquery()
            return found, found.c.contact_id == self.people.c.contact_id

        where = json.dumps(asked.where, sort_keys=True)
        key = ("events", asked.event, asked.campaign_id, where, asked.within_days, asked.since, asked.until)
        return self._join(key, build)

    def _orders(self, asked: Qualifiers, figure: str) -> FromClause:
        wanted = (asked.currency or self._currency) if figure in _AMOUNTS else ""

        def build() -> tuple[FromClause, ColumnElement[bool]]:
            placed = tables.orders.alias()
            source: FromClause = placed
            figures: dict[str, ColumnElement[Any]] = {
                "count": func.count(),
                "first_at": func.min(placed.c.placed_at),
                "last_at": func.max(placed.c.placed_at),
            }
            if wanted:
                amount, source = self._amount(placed, asked, wanted)
                figures = {"revenue": func.sum(amount), "average_value": func.round(func.avg(amount), 4)}
            query = select(placed.c.contact_id, *(value.label(name) for name, value in figures.items()))
            query = query.select_from(source).where(*self._placed(placed, asked)).group_by(placed.c.contact_id)
            found = query.limit(_ALL).subquery()
            return found, found.c.contact_id == self.people.c.contact_id

        return self._join(("orders", wanted, asked.within_days, asked.since, asked.until), build)

    def _placed(self, orders: FromClause, asked: Qualifiers) -> list[ColumnElement[bool]]:
        """Which orders count."""
        mine = [] if self._only is None else [orders.c.contact_id == self._only]
        return [*self._window(orders.c.placed_at, asked), *mine]

    def _amount(self, placed: FromClause, asked: Qualifiers, wanted: str) -> tuple[ColumnElement[Any], FromClause]:
        """What an order brought in `wanted`, null without a rate; and what it is read from."""
        net, converted = placed.c.net_total, cast(placed.c.net_total * placed.c.fx_rate, _MONEY)
        known = [(placed.c.currency == wanted, net), (placed.c.reporting_currency == wanted, converted)]
        # What was converted to yet another currency. One look-up for each currency and day, not for each order.
        other = tables.orders.alias()
        foreign = [other.c.currency != wanted, other.c.reporting_currency != wanted, *self._placed(other, asked)]
        days = select(other.c.currency, _day(other).label("day")).where(*foreign).distinct().subquery()
        on_day = func.fx_rate_on(days.c.currency, wanted, days.c.day).table_valued("rate", "rate_date").lateral()
        rates = select(days.c.currency, days.c.day, on_day.c.rate).select_from(days.join(on_day, true())).subquery()
        source = placed.outerjoin(rates, and_(rates.c.currency == placed.c.currency, rates.c.day == _day(placed)))
        return case(*known, else_=cast(net * rates.c.rate, _MONEY)), source


def _day(orders: FromClause) -> ColumnElement[Any]:
    return cast(func.timezone("UTC", orders.c.placed_at), Date())
