"""Storing what shops send: any number of checked events in a handful of statements, each fact once.

Promises, also for parallel batches with the same events: one event per (source, external_id), one order per (source,
order_id), one refund per number, one contact per address; a refund is taken off its order whichever comes first.
What is rejected leaves nothing behind. Locks are taken in one order (buckets of order numbers, contacts, keys, orders,
refunds), each sorted, so that batches wait for each other instead of deadlocking. Effects happen later (dispatch).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from mautolib import contacts
from mautolib.contacts.first_seen import Known
from mautolib.events import milestones, orders
from mautolib.events.numbering import First, Numbered, Told, find_first, release, reserve, store
from mautolib.events.orders import KnownOrder, NewOrder, NewRefund, Refunded
from mautolib.events.types import EventType
from mautolib.ingestion.model import Incoming, Rejected, Result, Status
from mautolib.settings import Settings

__all__ = ["ingest"]

_LOG = logging.getLogger(__name__)
#: `source` of contacts that an event brought.
_DOOR = "event"


def ingest(tx: Connection, items: Sequence[Incoming], settings: Settings, *, now: datetime) -> list[Result]:
    """Store checked events with their contacts, orders and refunds; returns a result for each, in the order given.

    Args:
        now: when they were received.
    """
    batch = _Batch(tx, items, settings, now)
    batch.lock()
    batch.leave_out_known()
    batch.give_contacts()
    batch.store()
    results = batch.finished()
    counts = Counter(result.status for result in results)
    _LOG.info("events: %s accepted, %s duplicates, %s rejected", *(counts[status] for status in Status))
    return results


class _Batch:
    """The work on one batch: `results` fills up step by step; what has none yet is still on its way in."""

    def __init__(self, tx: Connection, items: Sequence[Incoming], settings: Settings, now: datetime) -> None:
        self._tx, self._items, self._settings, self._now = tx, items, settings, now
        self._results: dict[int, Result] = {}
        self._told = [
            Told(source=item.source, external_id=item.external_id, occurred_at=item.occurred_at.isoformat())
            for item in items
        ]
        self._left = list(enumerate(items))
        #: Places of orders and refunds, of the contact of each, and of events told earlier in this batch.
        self._orders = [n for n, item in enumerate(items) if item.event_type == EventType.ORDER_PLACED]
        self._refunds = [n for n, item in enumerate(items) if item.event_type == EventType.ORDER_REFUNDED]
        self._contacts: dict[int, int] = {}
        self._twins: dict[int, int] = {}

    def lock(self) -> None:
        """Keep the other half of an order and its refund from being stored unseen."""
        items = self._items
        orders.lock_numbers(
            self._tx,
            [(items[n].source, items[n].properties["order_id"]) for n in self._orders],
            [(items[n].source, items[n].properties["order_id"]) for n in self._refunds],
        )

    def leave_out_known(self) -> None:
        """Repetitions end here, before anything is made for them; also what cannot be given to its contact."""
        for n, first in find_first(self._tx, dict(enumerate(self._told))).items():
            self._duplicate(n, first)
        people = contacts.find_many(
            self._tx,
            (item.contact_id for n, item in self._open() if item.contact_id is not None),
            (item.address.key for n, item in self._open() if item.address is not None),
        )
        found = {n: self._resolve(item, people) for n, item in self._open()}
        self._contacts = {n: one for n, one in found.items() if isinstance(one, int)}
        told_again = {n: self._items[n].order(self._contacts.get(n, 0)) for n in self._orders if n not in self._results}
        for n, known in orders.compare_orders(self._tx, told_again).items():
            self._judge_order(n, known, told_again[n])
        refunds = {n: self._items[n].refund() for n in self._refunds if n not in self._results}
        for n, refunded in orders.find_refunded(self._tx, refunds).items():
            self._judge_refund(n, refunded, refunds[n])
        for n, one in found.items():
            if isinstance(one, Rejected) and n not in self._results:
                self._reject(n, one)

    def give_contacts(self) -> None:
        """Everything left gets its contact; an address nobody has becomes one."""
        seen: dict[tuple[str, str], int] = {}
        for n, item in self._open():
            if item.external_id is not None and (twin := seen.setdefault((item.source, item.external_id), n)) != n:
                self._twins[n] = twin
        new = {
            n: item.address for n, item in self._open()
            if item.address is not None and n not in self._contacts and n not in self._twins
        }  # fmt: skip
        made = contacts.first_seen(self._tx, new.values(), source=_DOOR, now=self._now, settings=self._settings)
        self._contacts |= {n: made[address.key] for n, address in new.items()}

    def store(self) -> None:
        """Number, claim and store; who told the same a moment earlier, in another transaction, stays the first."""
        told = {n: self._told[n] for n, _ in self._open()}
        event_ids, known = reserve(self._tx, told)
        late = known - self._twins.keys()
        for n, first in find_first(self._tx, {n: told[n] for n in late}).items():
            self._duplicate(n, first)
        keys = self._store_orders(event_ids) | self._store_refunds(event_ids)
        release(self._tx, (told[n] for n in event_ids if n in self._results))
        stored = {n: event_id for n, event_id in event_ids.items() if n not in self._results}
        store(self._tx, [self._event(n, event_id, keys.get(n)) for n, event_id in stored.items()], now=self._now)
        for n, event_id in stored.items():
            self._results[n] = Result(status=Status.ACCEPTED, event_id=event_id, contact_id=self._contacts[n])
        told_of = (n for n in (*self._orders, *self._refunds) if n in stored)
        numbers = [(self._items[n].source, self._items[n].properties["order_id"]) for n in told_of]
        orders.apply_refunds(self._tx, numbers, now=self._now)
        milestones.tell_orders(self._tx, (self._contacts[n] for n in self._orders if n in stored), now=self._now)

    def finished(self) -> list[Result]:
        """The results in the order given; what was told twice in this batch follows its first telling."""
        for n, twin in self._twins.items():
            first = self._results[twin]
            status = first.status if first.status is Status.REJECTED else Status.DUPLICATE
            self._results[n] = Result(
                status=status, event_id=first.event_id, contact_id=first.contact_id, rejected=first.rejected
            )
        return [self._results[n] for n in range(len(self._items))]

    def _store_orders(self, event_ids: dict[int, int]) -> dict[int, int]:
        given = {n: self._items[n].order(self._contacts[n]) for n in self._orders if n in event_ids}
        by_event = orders.insert_orders(
            self._tx, {event_ids[n]: order for n, order in given.items()}, self._settings, now=self._now
        )
        keys = {n: by_event[event_ids[n]] for n in given if event_ids[n] in by_event}
        again = {n: order for n, order in given.items() if n not in keys}
        for n, known in orders.compare_orders(self._tx, again).items():
            self._judge_order(n, known, again[n])
        return keys

    def _store_refunds(self, event_ids: dict[int, int]) -> dict[int, int]:
        given = {n: self._items[n].refund() for n in self._refunds if n in event_ids}
        found = orders.find_refunded(self._tx, given)
        for n, refund in given.items():
            self._judge_refund(n, found[n], refund)
        rest = {n: refund for n, refund in given.items() if n not in self._results}
        new = orders.insert_refunds(self._tx, {event_ids[n]: refund for n, refund in rest.items()})
        twins = {n: refund for n, refund in rest.items() if event_ids[n] not in new}
        for n, first in orders.find_refunded(self._tx, twins).items():
            self._judge_refund(n, first, twins[n])
        return {n: key for n in rest if (key := found[n].order_key) is not None}

    def _judge_order(self, n: int, known: KnownOrder, order: NewOrder) -> None:
        is_same_person = 0 in (known.contact_id, order.contact_id) or known.contact_id == order.contact_id
        if known.is_same and is_same_person:
            self._duplicate(n, First(event_id=known.event_id, contact_id=known.contact_id))
        else:
            message = f"Order {order.order_id} is known with other content"
            self._reject(n, Rejected(code="order_conflict", detail=message, path=("properties", "order_id")))

    def _judge_refund(self, n: int, refunded: Refunded, refund: NewRefund) -> None:
        if refunded.is_known:
            self._duplicate(n, First(event_id=refunded.event_id, contact_id=refunded.first_contact_id))
        elif refunded.currency is not None and refunded.currency != refund.currency:
            message = f"currency is not that of the order, {refunded.currency}"
            self._reject(n, Rejected(code="validation_error", detail=message, path=("properties", "currency")))

    def _resolve(self, item: Incoming, people: Known) -> int | Rejected | None:
        """The contact of an event, why it can have none, or None for an address nobody has."""
        if item.contact_id is None:
            return people.ids.get(item.address.key) if item.address is not None else None
        if item.contact_id not in people.keys:
            return Rejected(code="unknown_contact", detail="Contact not found", path=("contact_id",))
        if item.address is not None and people.keys[item.contact_id] != item.address.key:
            return Rejected(code="contact_mismatch", detail="email is not that of contact_id", path=("email",))
        return item.contact_id

    def _event(self, n: int, event_id: int, order_key: int | None) -> Numbered:
        item = self._items[n]
        return Numbered(
            event_id=event_id, event_type=item.event_type, occurred_at=self._told[n].occurred_at, source=item.source,
            contact_id=self._contacts[n], external_id=item.external_id, properties=item.properties,
            order_key=order_key,
        )  # fmt: skip

    def _open(self) -> list[tuple[int, Incoming]]:
        """What has no result yet."""
        if len(self._left) + len(self._results) != len(self._items):
            self._left = [(n, item) for n, item in self._left if n not in self._results]
        return self._left

    def _duplicate(self, n: int, first: First) -> None:
        self._results[n] = Result(status=Status.DUPLICATE, event_id=first.event_id, contact_id=first.contact_id)

    def _reject(self, n: int, rejected: Rejected) -> None:
        self._results[n] = Result(status=Status.REJECTED, rejected=rejected)
