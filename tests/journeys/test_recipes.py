"""The recipes, left alone with a month of a shop: who is mailed what, when, and why not.

A turn is what the DAGs do: evaluate segments, dispatch, let people enter, advance, hand over. The truth is in
`shop_month`, which knows nothing of the engine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from mautolib import contacts, dispatch, privacy, recipes, segments, workflows
from mautolib.campaigns import sending
from mautolib.channels.null import Null
from mautolib.contacts import NewContact, confirmation, consent
from mautolib.contacts.address import parse
from mautolib.contacts.model import SuppressionReason
from mautolib.db.statements import statement
from mautolib.events.append import NewEvent, append, append_many
from mautolib.events.orders import NewOrder, record_orders
from mautolib.settings import Settings
from mautolib.templates import catalogue
from mautolib.templates.confirmation import confirmation_mail
from mautolib.templates.model import NewTemplate
from mautolib.templates.starters import starter
from tests.builders import make_contact
from tests.journeys.shop_month import (
    DAY,
    END,
    EVALUATED_EVERY,
    HOUR,
    START,
    Act,
    Expected,
    Person,
    expected,
    people,
    turn,
)

#: Which mail a step sends.
MAILS = {
    ("Welcome series", "0.then.0"): "Welcome", ("Welcome series", "0.then.3"): "Newsletter",
    ("Abandoned cart", "1"): "Cart reminder", ("Re-engagement", "1"): "Win-back",
    ("Re-engagement", "3"): "Last question",
}  # fmt: skip
EVENTS = {"open": "email_opened", "click": "email_clicked", "visit": "page_viewed", "cart": "cart_updated",
          "empty": "cart_updated"}  # fmt: skip

DUE = text("""
    select
        exists (select from event_pending) as is_pending,
        exists (select from cart_timers where due_at <= :now) as is_cart,
        exists (select from enrollments where status in ('running', 'waiting') and resume_at <= :now) as is_due,
        exists (select from messages where status = 'queued') as is_queued
""")


class Shop:
    """The month, turn by turn."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, replace(settings, smtp_connections=1)
        self.everybody = {one.email: one for one in people()}
        self.ids: dict[str, int] = {}
        self.questions: dict[str, int] = {}
        self.sent: list[tuple[str, int, datetime]] = []

    def open(self) -> None:
        """Everybody's past, then the recipes."""
        with self.engine.begin() as tx:
            days = {"first_day": (START - 80 * DAY).date(), "last_day": END.date()}
            tx.execute(statement("maintenance.ensure_partitions"), {**days, "first_day": (START - 450 * DAY).date()})
        with self.engine.begin() as tx:
            for one in self.everybody.values():
                if one.group in ("cart", "reader"):
                    self.ids[one.email] = make_contact(
                        tx, email=one.email, timezone=one.zone, created_at=START - 300 * DAY
                    )
            append_many(tx, self._past_events(), now=START, effects=False)
            orders = [self._order(one, one.ordered, f"old-{one.email}") for one in self.everybody.values()
                      if one.ordered is not None]  # fmt: skip
            record_orders(tx, orders, self.settings, now=START, effects=False)
            for key in ("welcome", "newsletter", "cart", "winback"):
                # Texts of their own under the names of the starters: shorter ones take a third of the time.
                mail = NewTemplate(name=starter(key).name, subject=key, html_body="<p>Hello {{ contact.email }}</p>")
                catalogue.create(tx, mail, now=START)
            for name in recipes.NAMES:
                recipes.load(tx, self.settings, recipes.recipe(name), activate=True, now=START)

    def _past_events(self) -> Iterator[NewEvent]:
        for one in self.everybody.values():
            for number in range(one.mailed):
                yield NewEvent(event_type="email_sent", contact_id=self.ids[one.email],
                               occurred_at=START - (5 + 9 * number) * DAY)  # fmt: skip
            if one.opened is not None:
                yield NewEvent(event_type="email_opened", contact_id=self.ids[one.email], occurred_at=one.opened)

    def _order(self, one: Person, at: datetime, number: str, cart: str | None = None) -> NewOrder:
        return NewOrder(order_id=number, placed_at=at, currency="EUR", total=Decimal("20.00"), lines=[],
                        contact_id=self.ids[one.email], cart_id=cart)  # fmt: skip

    def go_on(self) -> None:
        """All turns of the month."""
        told: dict[datetime, list[tuple[Person, Act]]] = {}
        for one in self.everybody.values():
            for act in one.acts:
                told.setdefault(turn(act.told), []).append((one, act))
        now = START
        while now < END:
            with self.engine.begin() as tx:
                for one, act in sorted(told.get(now, []), key=lambda pair: pair[1].told):
                    self._happens(tx, one, act)
            self._turn(now)
            now += HOUR

    def _turn(self, now: datetime) -> None:
        if now.hour % EVALUATED_EVERY == 0:
            segments.evaluate_due(self.engine, self.settings, now=now)
        with self.engine.connect() as tx:
            what = tx.execute(DUE, {"now": now}).one()
        if not any(what):
            return  # A turn with nothing to do does nothing, slowly.
        if what.is_pending:
            dispatch.run(self.engine, self.settings, now=now)
        if what.is_pending or what.is_cart:
            workflows.arrive(self.engine, self.settings, now=now)
        workflows.advance(self.engine, self.settings, now=now)
        if sending.is_anything_to_do(self.engine, now):
            channel = Null()
            sending.pump(self.engine, self.settings, now=now, open_way=lambda _: channel)
            self.sent += [(mail.recipient, mail.message_id, now) for mail in channel.accepted]

    def _happens(self, tx: Connection, one: Person, act: Act) -> None:
        if act.kind == "sign_up":
            self._sign_up(tx, one, act)
        elif act.kind == "first_seen":
            contacts.first_seen(tx, [parse(one.email)], source="event", now=act.at, settings=self.settings)
        elif one.email in self.ids:
            self._does(tx, one, act)

    def _sign_up(self, tx: Connection, one: Person, act: Act) -> None:
        new = NewContact(email=one.email, timezone=one.zone, subscribed=False)
        self.ids[one.email] = contacts.create(
            tx, new, actor="api", now=act.at, settings=self.settings
        ).contact_id
        mail, _ = confirmation_mail(tx, self.settings, language="en")
        asked = confirmation.ask(tx, self.ids[one.email], mail, actor="api", now=act.at)
        self.questions[one.email] = asked.message_id

    def _does(self, tx: Connection, one: Person, act: Act) -> None:
        contact_id = self.ids[one.email]
        if act.kind == "confirm":
            confirmation.confirm(tx, contact_id, self.questions[one.email], now=act.at)
        elif act.kind == "order":
            record_orders(tx, [self._order(one, act.at, act.number, act.cart)], self.settings, now=act.told)
        elif act.kind == "unsubscribe":
            consent.unsubscribe(tx, contact_id, source="link", actor="recipient", now=act.at)
        elif act.kind == "bounce":
            consent.suppress(tx, one.email, SuppressionReason.BOUNCE, actor="feedback", now=act.at,
                             settings=self.settings)  # fmt: skip
        elif act.kind == "erase":
            privacy.erase(tx, contact_id, actor="admin", now=act.at, settings=self.settings)
            del self.ids[one.email]
        else:
            lines = [] if act.kind == "empty" else [{"sku": "TEA", "quantity": 1, "unit_price": "20.00"}]
            cart = {"cart_id": act.cart, "currency": "EUR", "lines": lines} if act.cart else {}
            source = "mauto" if act.kind in ("open", "click") else "api"
            event = NewEvent(event_type=EVENTS[act.kind], contact_id=contact_id, occurred_at=act.at, properties=cart,
                             source=source, external_id=None if source == "mauto" else act.number)  # fmt: skip
            append(tx, [event], now=act.told)


def rows(engine: Engine, sql: str) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(text(sql)).all())


@pytest.fixture(scope="module")
def truth() -> dict[str, Expected]:
    return {one.email: expected(one) for one in people()}


def test_the_month_has_all_that_a_month_has(truth: dict[str, Expected]) -> None:
    """What is compared below is worth comparing."""
    mails = Counter(name for one in truth.values() for name, _ in one.mails)
    assert set(mails) == {"Confirm", *MAILS.values()} and min(mails.values()) >= 12, mails
    ways = Counter((name, status, reason) for one in truth.values() for name, status, reason in one.ways)
    for wanted in (
        ("Welcome series", "completed", None), ("Welcome series", "exited", "timeout"),
        ("Welcome series", "exited", "unsubscribed"), ("Abandoned cart", "completed", None),
        ("Abandoned cart", "exited", "order_placed"), ("Re-engagement", "completed", None),
        ("Re-engagement", "exited", "order_placed"), ("Re-engagement", "exited", "silent"),
    ):  # fmt: skip
        assert ways[wanted] >= 2, (wanted, ways)
    tags = Counter(tag for one in truth.values() for tag in one.tags)
    assert set(tags) == {"welcomed", "came back", "silent", "won back"}, tags
    assert {reason for one in truth.values() for _, reason in one.refused} >= {"suppressed"}
    everybody = people()
    kinds = Counter(act.kind for one in everybody for act in one.acts)
    assert min(kinds[kind] for kind in ("unsubscribe", "bounce", "erase", "empty", "click")) >= 3, kinds
    assert sum(len(one.acts) - len(one.facts()) for one in everybody) >= 12, "told twice"
    assert sum(act.told > act.at for one in everybody for act in one.acts) >= 40, "told late"
    local = {(one.zone, at.hour) for one in everybody for name, at in truth[one.email].mails if name == "Cart reminder"}
    assert {("Europe/Berlin", 8), ("Europe/Berlin", 9), ("America/New_York", 14), ("America/New_York", 15)} <= local
    assert len({zone for zone, _ in local}) >= 5


@pytest.mark.thorough
def test_a_month_of_a_shop_is_as_it_should_be(
    fresh_engine: Engine, settings: Settings, truth: dict[str, Expected]
) -> None:
    shop = Shop(fresh_engine, settings)
    shop.open()
    shop.go_on()
    queued = rows(fresh_engine, "select message_id, dedupe_key, name from messages"
                                " left join workflows using (workflow_id)")  # fmt: skip
    steps = {message_id: "Confirm" if name is None else MAILS[name, key.split(":")[3]]
             for message_id, key, name in queued}  # fmt: skip
    mailed: dict[str, list[tuple[str, datetime]]] = {email: [] for email in truth}
    for email, message_id, at in shop.sent:
        mailed[email].append((steps[message_id], at))
    assert differing({email: sorted(one) for email, one in mailed.items()},
                     {email: sorted(one.mails) for email, one in truth.items()}) == {}  # fmt: skip
    assert_the_reasons(fresh_engine, truth)
    assert_who_is_touched(fresh_engine, shop, truth)


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What is not as it should be, by person."""
    return {email: {"is": found.get(email), "should be": wanted[email], "acts": acts_of(email)}
            for email in wanted if found.get(email) != wanted[email]}  # fmt: skip


def acts_of(email: str) -> list[str]:
    (one,) = (person for person in people() if person.email == email)
    shown = "%d %b %H:%M"
    return [one.zone, *(f"{act.kind} {act.at:{shown}} told {act.told:{shown}} {act.cart or ''}" for act in one.acts)]


def by_person(found: list[Any], wanted: dict[str, Expected]) -> dict[str, list[Any]]:
    result: dict[str, list[Any]] = {email: [] for email in wanted}
    for row in found:
        result[row[0]].append(tuple(row[1:]))
    return {email: sorted(ways, key=json.dumps) for email, ways in result.items()}


def assert_the_reasons(engine: Engine, truth: dict[str, Expected]) -> None:
    """How everybody's ways ended, and why mails that were due were not sent."""
    ways = rows(engine, "select email, name, status, exit_reason from enrollments"
                        " inner join workflows using (workflow_id) inner join contacts using (contact_id)")  # fmt: skip
    wanted = {email: sorted(one.ways, key=json.dumps) for email, one in truth.items()}
    assert differing(by_person(ways, truth), wanted) == {}
    failed = rows(engine, "select email, name, step_path, result ->> 'error' from workflow_logs"
                          " inner join workflows using (workflow_id) inner join contacts using (contact_id)"
                          " where status = 'failed'")  # fmt: skip
    refused = [(email, MAILS[name, path], error) for email, name, path, error in failed]
    assert differing(by_person(refused, truth), {
        email: sorted(one.refused, key=json.dumps) for email, one in truth.items()
    }) == {}  # fmt: skip
    assert rows(engine, "select 1 from messages where status <> 'sent'") == []


def assert_who_is_touched(engine: Engine, shop: Shop, truth: dict[str, Expected]) -> None:
    """Tags, and whose consent is withdrawn by the recipe: nobody with an order in the 180 days before."""
    tagged = rows(engine, "select email, tags.name from contacts inner join contact_tags using (contact_id)"
                          " inner join tags using (tag_id)")  # fmt: skip
    tags = {email: {tag for (tag,) in found} for email, found in by_person(tagged, truth).items()}
    assert differing(tags, {email: one.tags for email, one in truth.items()}) == {}
    lines = rows(engine, "select email, recorded_at from consents inner join contacts using (contact_id)"
                         " where status = 'withdrawn' and consents.source like 'workflow:%'")  # fmt: skip
    assert {email for email, _ in lines} == {
        email for email, one in truth.items() if one.let_go and email in shop.ids}  # fmt: skip
    assert len(lines) >= 10
    for email, at in lines:
        one = shop.everybody[email]
        orders = [act.at for act in one.acts if act.kind == "order" and turn(act.told) <= at]
        orders += [one.ordered] if one.ordered else []
        assert all(order < at - 180 * DAY for order in orders), email
