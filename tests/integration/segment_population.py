"""Two hundred people with everything a segment rule can ask for, in memory and in a database; and a few segments.

Deterministic. Values are chosen to be awkward: blanks, nulls, letters of many scripts and cases, wildcards, texts that
almost are numbers or dates, moments at the edge of a day.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlalchemy import Connection, insert, text

from mautolib.db import tables
from mautolib.segments.rules import Definition, MatchType
from tests.builders import make_campaign, make_content, make_message

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
PEOPLE = 200
WORDS = ["Anna", "ANNA", "anna-lena", "Zoë", "ZOË", "Straße", "STRASSE", "ΝΙΚΟΣ", "Νικος", "İstanbul", "istanbul",
         "日本", "100%", "a_b", "a\\b", "O'Brien", "x😀y", "%", "_", "12", "true"]  # fmt: skip
TAGS = ["VIP", "new customer", "Größe", "100%", "unused"]
EVENT_TYPES = ["email_opened", "email_clicked", "page_viewed", "webinar_attended"]
CURRENCIES = ["EUR", "USD", "GBP"]
CAMPAIGNS = [1, 2]
SEGMENTS = [1, 2, 3, 4, 5]
NAMES = ["First", "Buyers", "Of others", "By hand", "buyers"]
#: The segment whose rules are made up by the test; no other one refers to it.
OWN = 6
#: Units of a currency for one euro, from a day on.
RATES = {("USD", date(2025, 1, 1)): Decimal("1.1"), ("GBP", date(2025, 1, 1)): Decimal("0.8"),
         ("USD", date(2026, 1, 15)): Decimal("1.25"), ("GBP", date(2026, 2, 1)): Decimal("0.85")}  # fmt: skip


@dataclass
class Event:
    type: str
    at: datetime
    campaign_id: int | None
    properties: dict[str, Any]


@dataclass
class Order:
    at: datetime
    currency: str
    total: Decimal
    refunded: Decimal
    fx_rate: Decimal | None


@dataclass
class Row:
    """One person."""

    contact_id: int
    columns: dict[str, Any]
    custom: dict[str, Any]
    suppressed: str | None = None
    tags: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    sent_campaigns: set[int] = field(default_factory=set)
    added: set[int] = field(default_factory=set)
    kept_out: set[int] = field(default_factory=set)
    latest_segments: set[int] = field(default_factory=set)


class Population:
    """Everybody, ordered by id, and what they may be in. No dataclass: failures would print all of it."""

    def __init__(self, rows: list[Row], segments: dict[int, Definition], tag_ids: dict[str, int]) -> None:
        self.rows, self.segments, self.tag_ids = rows, segments, tag_ids

    def segments_called(self, name: str, plain: Callable[[str], str]) -> list[int]:
        """Ids of the segments of that name."""
        return [one for one, known in zip(SEGMENTS, NAMES, strict=True) if plain(known) == name]

    def amount(self, order: Order, wanted: str) -> Decimal | None:
        """What an order brought in a currency, refunds taken off."""
        net = order.total - order.refunded
        if order.currency == wanted:
            return net
        rate = order.fx_rate if wanted == "USD" else rate_on(order.currency, wanted, order.at.date())
        return None if rate is None else (net * rate).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def rate_on(base: str, quote: str, day: date) -> Decimal | None:
    """Units of `quote` for one of `base`, by the last rates on or before a day."""
    def per_euro(currency: str) -> Decimal:
        if currency == "EUR":
            return Decimal(1)
        return RATES[max((key for key in RATES if key[0] == currency and key[1] <= day), key=lambda key: key[1])]

    if base != "EUR" and quote != "EUR":
        # Both must be quoted on one day.
        shared = [start for start in {key[1] for key in RATES} if start <= day
                  and all((currency, start) in RATES for currency in (base, quote))]  # fmt: skip
        return RATES[(quote, max(shared))] / RATES[(base, max(shared))] if shared else None
    return per_euro(quote) / per_euro(base)


def definition(
    rules: list[Any], match_type: MatchType = MatchType.ALL, exclude: set[str] | None = None,
    campaigns: tuple[int, ...] = (),
) -> Definition:  # fmt: skip
    """A definition out of parts."""
    flags: dict[str, Any] = dict.fromkeys(exclude or (), True)
    return Definition(rules=tuple(rules), match_type=match_type, exclude_campaign_ids=campaigns, **flags)


def build(tx: Connection) -> Population:
    """Make everybody and store them."""
    dice = random.Random(7)
    rows = [_person(dice, number) for number in range(1, PEOPLE + 1)]
    rules: dict[int, Definition] = {
        1: definition([{"field": "country", "operator": "eq", "value": "DE"}]),
        2: definition([{"field": "order.count", "operator": "gte", "value": 2}], exclude={"exclude_suppressed"}),
        3: definition([{"field": "segments", "operator": "in", "value": ["1", "2"]},
                       {"field": "first_name", "operator": "is_set"}], campaigns=(2,)),
        4: definition([]),
        5: definition([{"field": "segments", "operator": "has", "value": "First"},
                       {"field": "event.count", "operator": "lt", "value": 3, "event": "page_viewed"}],
                      MatchType.NONE),
    }  # fmt: skip
    tag_ids = _store(tx, rows)
    return Population(rows=rows, segments=rules, tag_ids=tag_ids)


def _back(dice: random.Random) -> datetime:
    if dice.random() < 0.3:
        return NOW - timedelta(days=dice.choice([0, 1, 7, 30, 90, 365]))
    return NOW - timedelta(days=dice.uniform(-2, 400))


def _maybe(dice: random.Random, value: Any, otherwise: Any = None, chance: float = 0.6) -> Any:
    return value if dice.random() < chance else otherwise


def _person(dice: random.Random, number: int) -> Row:
    columns = {
        "email": f"{dice.choice(['anna', 'Bob', 'z%_', 'ÄÖ', 'o.brien+'])}{number}@shop.example",
        "first_name": _maybe(dice, dice.choice(WORDS), ""), "last_name": _maybe(dice, dice.choice(WORDS), ""),
        "phone": _maybe(dice, f"+49 30 {number}", ""), "country": dice.choice(["DE", "de", "US", ""]),
        "language": dice.choice(["en", "de", ""]), "timezone": dice.choice(["Europe/Berlin", "UTC", ""]),
        "currency": dice.choice(["EUR", "USD", ""]), "consent_source": dice.choice([None, "", "Form %", "import"]),
        "subscribed": dice.random() < 0.7, "created_at": _back(dice), "updated_at": _maybe(dice, _back(dice)),
        "consent_status": dice.choice(["unknown", "pending", "granted", "withdrawn"]),
        "consent_at": _maybe(dice, _back(dice)),
    }  # fmt: skip
    scores = {name: _maybe(dice, dice.choice([0.0, 12.5, 50.0, 33.3333]), dice.uniform(-1, 60))
              for name in ("score", "engagement_score", "profile_score", "recency_score")}  # fmt: skip
    has_score = dice.random() < 0.7
    columns |= scores if has_score else dict.fromkeys(scores)
    columns["grade"] = dice.choice(["A+", "B", "F"]) if has_score else None
    columns["lifecycle_stage"] = _maybe(dice, dice.choice(["new", "lead", "customer"]))
    row = Row(contact_id=number, columns=columns, custom=_custom(dice),
              suppressed=_maybe(dice, dice.choice(["bounce", "unsubscribe", "complaint", "manual"]), chance=0.3))
    row.tags = {name for name in TAGS[:-1] if dice.random() < 0.3}
    row.events = [_event(dice) for _ in range(dice.choice([0, 0, 1, 3, 12]))]
    row.orders = [_order(dice) for _ in range(dice.choice([0, 0, 1, 2, 5]))]
    row.sent_campaigns = {one for one in CAMPAIGNS if dice.random() < 0.2}
    for segment_id in (*SEGMENTS, OWN):
        draw = dice.random()
        if draw < 0.1:
            row.added.add(segment_id)
        elif draw < 0.2:
            row.kept_out.add(segment_id)
    evaluated = {one for one in (*SEGMENTS, OWN) if dice.random() < 0.2}
    row.latest_segments = (evaluated | row.added) - row.kept_out
    return row


def _custom(dice: random.Random) -> dict[str, Any]:
    made = {
        "plan": dice.choice(["pro", "PRO", "", None, 12, 12.5, True, "12", {"a": 1}, "Straße"]),
        "Plan": dice.choice(["basic", "100%"]),
        "size": dice.choice([3, "3", 3.5, "3.5", " 3", "1e2", "1e999", "0x10", "NaN", "", "12abc", True, None, [3], -1,
                             "+7", ".5", "5.", "1_000", 1000000]),
        "since": dice.choice([
            "2026-02-01", "2026-02-30", "2026-02-28T23:59:59Z", "2026-02-28T23:59:59", "2026-03-01T02:00:00+05:30",
            "2026-02-28 10:00:00-08:00", "yesterday", "2026-13-01", "", None, 20260201, "2025-02-29", "2024-02-29",
            "2026-02-22t12:30:00z", "2026-02-22T25:00:00Z", "infinity", "now", "2026-02-22T12:30:00.5Z",
            "2026-02-22T12:30:00+99:00"]),
        "is_new": dice.choice([True, False, "true", "False", "TRUE", "yes", 1, 0, None, ""]),
        "address": dice.choice([{"city": "Zoë"}, {"city": "ZOË"}, {"city": ""}, {}, "Zoë", None]),
        "list": dice.choice([["a", 12], [], ["100%"], {"0": "zero"}, "a"]),
        "%": dice.choice(["%", "_"]), "a'->>'b": dice.choice(["a_b", None]), "quote\"d,{}": "12",
    }  # fmt: skip
    return {key: value for key, value in made.items() if dice.random() < 0.8}


def _event(dice: random.Random) -> Event:
    properties = {"url": dice.choice(["/p/1", "/p/2"]), "size": dice.choice([3, "3", 3.5]),
                  "is_new": dice.choice([True, 1]), "nothing": None, "list": ["/p/1"]}  # fmt: skip
    properties = {key: value for key, value in properties.items() if dice.random() < 0.7}
    return Event(dice.choice(EVENT_TYPES), _back(dice), _maybe(dice, dice.choice(CAMPAIGNS)), properties)


def _order(dice: random.Random) -> Order:
    at, currency = _back(dice), dice.choice(CURRENCIES)
    total = Decimal(dice.choice(["10", "99.99", "50", "33.3333", "0.01", "1000"]))
    rate = Decimal(1) if currency == "USD" else dice.choice([None, Decimal("1.12345678"), Decimal("1.3")])
    return Order(at, currency, total, dice.choice([Decimal(0), Decimal(0), total, total / 2]).quantize(
        Decimal("0.0001"), ROUND_HALF_UP), rate)  # fmt: skip


def _store(tx: Connection, rows: list[Row]) -> dict[str, int]:
    people = []
    for row in rows:
        own = {key: value for key, value in row.columns.items() if key in tables.contacts.c}
        people.append({"contact_id": row.contact_id, **own, "email_key": row.columns["email"].lower(),
                       "custom_fields": row.custom})  # fmt: skip
    _given_ids(tx, "contacts", people)
    _store_figures(tx, rows)
    tag_ids = {name: number for number, name in enumerate(TAGS, 1)}
    _given_ids(tx, "tags", [{"tag_id": number, "name": name} for name, number in tag_ids.items()])
    worn = [{"contact_id": row.contact_id, "tag_id": tag_ids[name]} for row in rows for name in row.tags]
    tx.execute(insert(tables.contact_tags), worn)
    _store_history(tx, rows)
    _given_ids(tx, "segments", [
        {"segment_id": one, "name": name} for one, name in zip((*SEGMENTS, OWN), (*NAMES, "Own"), strict=True)
    ])  # fmt: skip
    tx.execute(insert(tables.segment_static_members), [
        {"contact_id": row.contact_id, "segment_id": one, "is_excluded": one in row.kept_out}
        for row in rows for one in sorted(row.added | row.kept_out)
    ])  # fmt: skip
    tx.execute(insert(tables.segment_memberships), [
        {"contact_id": row.contact_id, "segment_id": one, "valid_from": NOW} for row in rows
        for one in sorted(row.latest_segments)
    ])  # fmt: skip
    tx.execute(text("analyze"))
    return tag_ids


def _given_ids(tx: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    tx.exec_driver_sql(f"alter table {name} alter column {name[:-1]}_id set generated by default")
    tx.execute(insert(tables.metadata.tables[name]), rows)


def _store_figures(tx: Connection, rows: list[Row]) -> None:
    scored = [row for row in rows if row.columns["grade"]]
    tx.execute(insert(tables.contact_scores), [
        {"contact_id": row.contact_id, "total_score": row.columns["score"], "grade": row.columns["grade"],
         "as_of": NOW, "rule_version": 1,
         **{name: row.columns[name] for name in ("engagement_score", "profile_score", "recency_score")}}
        for row in scored
    ])  # fmt: skip
    tx.execute(insert(tables.contact_stages), [
        {"contact_id": row.contact_id, "lifecycle_stage": row.columns["lifecycle_stage"], "since": NOW,
         "evaluated_at": NOW} for row in rows if row.columns["lifecycle_stage"]
    ])  # fmt: skip
    tx.execute(insert(tables.suppressions), [
        {"email": row.columns["email"], "email_key": row.columns["email"].lower(), "reason": row.suppressed}
        for row in rows if row.suppressed
    ])  # fmt: skip


def _store_history(tx: Connection, rows: list[Row]) -> None:
    tx.execute(insert(tables.events), [
        {"contact_id": row.contact_id, "event_type": event.type, "occurred_at": event.at, "received_at": event.at,
         "source": "mauto", "campaign_id": event.campaign_id, "properties": event.properties}
        for row in rows for event in row.events
    ])  # fmt: skip
    tx.execute(insert(tables.fx_rates), [
        {"base": "EUR", "quote": quote, "rate_date": day, "rate": rate} for (quote, day), rate in RATES.items()
    ])  # fmt: skip
    tx.execute(insert(tables.orders), [
        {"contact_id": row.contact_id, "order_id": f"{row.contact_id}-{number}", "placed_at": order.at,
         "currency": order.currency, "total": order.total, "refunded_total": order.refunded,
         "reporting_currency": "USD", "fx_rate": order.fx_rate, "fx_date": order.fx_rate and order.at.date()}
        for row in rows for number, order in enumerate(row.orders)
    ])  # fmt: skip
    content = make_content(tx)
    for _ in CAMPAIGNS:
        make_campaign(tx)
    for row in rows:
        for one in sorted(row.sent_campaigns):
            make_message(tx, row.contact_id, content_id=content, campaign_id=one, sent_at=NOW)
        # Queued, refused and tried out: none of these was handed over to the contact as this campaign.
        make_message(tx, row.contact_id, content_id=content, campaign_id=1, status="queued")
        make_message(tx, row.contact_id, content_id=content, campaign_id=2, status="skipped")
        make_message(tx, row.contact_id, content_id=content, campaign_id=1, kind="test", sent_at=NOW)
