"""History of orders from a file: each order once, with its contact, silently.

Promises that no workflow, rule, score alert or webhook starts, that nobody is opted in, and that loading a file again
changes nothing: an order is known by (source, order_id), equal content is a duplicate, other content a conflict that
is listed. Each piece of orders is a transaction, so a load that was killed is simply begun again. `--dry-run` only
reads. Called by the command line (`order_files`).
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from mautolib import contacts
from mautolib.contacts.address import Address, parse
from mautolib.contacts.imports.reading import CsvFile, open_csv
from mautolib.contacts.validation import CURRENCIES, single_line_problem
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.events.append import Outcome
from mautolib.events.orders import NewOrder, NewRefund, compare_orders, record_orders, record_refunds
from mautolib.events.types import OBSERVATION, SERVICE
from mautolib.ingestion.order_columns import Layout, lay_out
from mautolib.ingestion.order_rows import Reading, RowReader
from mautolib.ingestion.order_staging import MAX_LINES, Stager, open_tables, reject_rows, write_rejects
from mautolib.settings import Settings

__all__ = ["Leave", "Loaded", "OrderFile", "load", "stand_in"]

_LOG = logging.getLogger(__name__)
_AT_ONCE: Final = 1000
_DOOR = "order_file"
_REFUND = "history"
_PLAIN_ID = re.compile(r"[0-9a-z](?:[0-9a-z_-]{0,38}[0-9a-z])?")
_PLAIN_SHOP = re.compile(r"[a-z0-9]{1,40}")
_WORK_MEMORY = "256MB"


class Leave(StrEnum):
    """What a file may have and an import leave out."""

    CANCELLATIONS = "cancellations"
    FREE_LINES = "free-lines"
    NO_CUSTOMER = "no-customer"


@dataclass(frozen=True, kw_only=True)
class OrderFile:
    """A file and how it is to be read.

    Args:
        source: the shop; an order is known by it and its number. None: the name of the preset, or "file".
        currency: of orders whose rows say none (ISO 4217).
        mapping: header -> field, None: not read.
        cancelled_prefix: how numbers of cancellations begin; None: as the preset says.
        leaves: what is left out.
    """

    path: Path
    source: str | None = None
    currency: str | None = None
    mapping: Mapping[str, str | None] = field(default_factory=dict)
    preset: str = "auto"
    timezone: str = "UTC"
    date_format: str | None = None
    decimal_comma: bool = False
    encoding: str = "auto"
    delimiter: str | None = None
    cancelled_prefix: str | None = None
    leaves: frozenset[Leave] = frozenset()


@dataclass(kw_only=True)
class Loaded:
    """What became of a file. Rows are those of the file; `taken_rows` those of orders that are stored now.

    Args:
        left_out: reason -> (orders, rows); "free-lines" counts rows alone.
        totals: of new and known orders by currency.
        rejected: (field, problem) -> rows.
    """

    source: str
    preset: str | None
    rows: int = 0
    taken_rows: int = 0
    new: int = 0
    duplicates: int = 0
    conflicts: int = 0
    refunds: int = 0
    contacts_made: int = 0
    left_out: dict[str, tuple[int, int]] = field(default_factory=dict)
    rejected: dict[tuple[str, str], int] = field(default_factory=dict)
    totals: dict[str, Decimal] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None

    @property
    def rejected_rows(self) -> int:
        """How many rows were not acceptable."""
        return sum(self.rejected.values())


def load(
    engine: Engine, given: OrderFile, settings: Settings, *, now: datetime, dry_run: bool = False,
    rejects: Path | None = None, progress: Callable[[str, int], None] = lambda step, count: None,
) -> Loaded:
    """Load a file of orders.

    Args:
        now: when contacts are made and orders received; no order is placed after it.
        dry_run: look at everything and change nothing.
        rejects: where rejected rows are written, if there are any.
        progress: told (step, how many so far) now and then.

    Raises:
        InvalidInput: an option is not acceptable, or the file as a whole cannot be read; nothing was stored.
    """  # fmt: skip
    _check(given)
    if rejects is not None and rejects.exists() and given.path.exists() and rejects.samefile(given.path):
        raise InvalidInput("The rejected rows would overwrite the file itself; name another with --rejects")
    with engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql(f"set local work_mem = '{_WORK_MEMORY}'")
            open_tables(connection)
            loaded, layout = _stage(connection, given, settings, now, progress)
            _group(connection, given, layout)
            if not dry_run:
                connection.execute(statement("order_imports.months"))
        _take(connection, _Taking(loaded, settings, now, dry_run), progress)
        with connection.begin():
            reject_rows(connection)
            for row in connection.execute(statement("order_imports.left_out")):
                loaded.left_out[row.reason] = (row.order_count, row.row_count)
            for row in connection.execute(statement("order_imports.count_problems")):
                loaded.rejected[row.field, row.problem] = row.row_count
            if rejects is not None and loaded.rejected:
                with _opened(given, settings) as file:
                    write_rejects(connection, file, rejects)
    _LOG.info("orders from a file: %s new, %s known, %s rows rejected", loaded.new, loaded.duplicates,
              loaded.rejected_rows)  # fmt: skip
    return loaded


def stand_in(source: str, customer_id: str) -> Address:
    """The address of a customer who is known by a number alone: under `.invalid`, where no mail can go (RFC 2606)."""
    local = customer_id if _PLAIN_ID.fullmatch(customer_id) else f"x-{_digest(customer_id)}"
    shop = source
    if not _PLAIN_SHOP.fullmatch(source):
        plain = re.sub(r"[^a-z0-9]+", "-", source.lower())[:40].strip("-")
        shop = f"{plain or 'shop'}-{_digest(source)[:6]}"
    return parse(f"customer-{local}@{shop}.invalid")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _check(given: OrderFile) -> None:
    if given.currency is not None and given.currency not in CURRENCIES:
        raise InvalidInput(f"{given.currency!r} is not an ISO 4217 currency such as EUR", path=("currency",))
    if given.source is not None:
        problem = single_line_problem(given.source, 50) or ("is empty" if not given.source.strip() else None)
        if problem or given.source in (SERVICE, OBSERVATION):
            raise InvalidInput(f"source {problem or 'is a name of the service itself'}", path=("source",))


def _opened(given: OrderFile, settings: Settings) -> CsvFile:
    return open_csv(
        given.path, encoding=given.encoding, delimiter=given.delimiter, limit=settings.max_import_bytes
    )


def _stage(
    tx: Connection, given: OrderFile, settings: Settings, now: datetime, progress: Callable[[str, int], None]
) -> tuple[Loaded, Layout]:
    try:
        zone = ZoneInfo(given.timezone)
    except (KeyError, ValueError, OSError):
        raise InvalidInput(f"{given.timezone!r} is not an IANA time zone such as Europe/Berlin",
                           path=("timezone",)) from None  # fmt: skip
    with _opened(given, settings) as file:
        layout = lay_out(file.header, given.mapping, given.preset)
        shop = layout.preset.name if layout.preset else None
        reading = Reading(timezone=zone, now=now, date_format=given.date_format, decimal_comma=given.decimal_comma)
        stager = Stager(
            file, RowReader(layout, reading), leaves_free=Leave.FREE_LINES in given.leaves,
            progress=lambda count: progress("rows read", count),
        )  # fmt: skip
        stager.stage(tx)
    source = given.source or ("file" if shop in (None, "own") else shop or "file")
    loaded = Loaded(source=source, preset=shop, rows=stager.row_count)
    if stager.free_count:
        loaded.left_out[Leave.FREE_LINES] = (0, stager.free_count)
    return loaded, layout


def _group(tx: Connection, given: OrderFile, layout: Layout) -> None:
    preset = layout.preset
    prefix = given.cancelled_prefix if given.cancelled_prefix is not None else preset.cancelled_prefix if preset else ""
    if Leave.CANCELLATIONS in given.leaves and not prefix:
        raise InvalidInput("How numbers of cancellations begin is not known: name it with --cancelled-prefix",
                           path=("cancelled_prefix",))  # fmt: skip
    binds = {
        "void": sorted(preset.void) if preset else [], "cancelled_prefix": prefix, "max_lines": MAX_LINES,
        "leaves_cancelled": Leave.CANCELLATIONS in given.leaves, "leaves_nobody": Leave.NO_CUSTOMER in given.leaves,
        "currency": given.currency or (preset.currency if preset else None),
    }  # fmt: skip
    tx.execute(statement("order_imports.group_rows"), binds)
    tx.exec_driver_sql("create index on order_import_orders (place)")
    tx.exec_driver_sql("analyze order_import_orders")


@dataclass(frozen=True)
class _Taking:
    """What taking a piece needs; `loaded` counts on.

    Args:
        would_make: whom a dry run would have made contacts of.
    """

    loaded: Loaded
    settings: Settings
    now: datetime
    dry_run: bool
    would_make: set[int] = field(default_factory=set)


def _take(connection: Connection, taking: _Taking, progress: Callable[[str, int], None]) -> None:
    after, count = 0, 0
    while True:
        with connection.begin():
            rows = connection.execute(statement("order_imports.next_orders"),
                                      {"after": after, "limit": _AT_ONCE}).all()  # fmt: skip
            if not rows:
                return
            conflicts = _take_piece(connection, taking, rows)
            if conflicts:
                connection.execute(statement("order_imports.note_conflicts"), {"places": conflicts})
        after, count = rows[-1].place, count + len(rows)
        if count % (10 * _AT_ONCE) == 0:
            progress("orders loaded", count)


def _take_piece(tx: Connection, taking: _Taking, rows: Sequence[Any]) -> list[int]:
    """Store a piece of orders; returns the places of those that are known with other content."""
    loaded = taking.loaded
    addresses = [_address(row, loaded.source) for row in rows]
    people = contacts.find_many(tx, email_keys=(address.key for address in addresses if address)).ids
    orders = [
        NewOrder(
            order_id=row.order_id, placed_at=row.placed_at, currency=row.currency, total=row.total,
            lines=json.loads(row.lines), contact_id=people.get(address.key, 0) if address else 0,
            source=loaded.source, discount=row.discount, shipping=row.shipping, tax=row.tax,
        )
        for row, address in zip(rows, addresses, strict=True)
    ]  # fmt: skip
    outcomes = {
        n: Outcome.DUPLICATE if known.is_same and 0 in (known.contact_id, orders[n].contact_id,
                                                        known.contact_id - orders[n].contact_id) else Outcome.CONFLICT
        for n, known in compare_orders(tx, dict(enumerate(orders))).items()
    }  # fmt: skip
    new = [n for n in range(len(rows)) if n not in outcomes]
    # Only of new orders: an erased person's are known, and loading them again makes nobody.
    made = _make_contacts(tx, taking, people, {n: addresses[n] for n in new}, rows)
    given = [replace(orders[n], contact_id=made.get(n, orders[n].contact_id)) for n in new]
    if taking.dry_run:
        outcomes |= dict.fromkeys(new, Outcome.ACCEPTED)
    elif given:
        recorded = record_orders(tx, given, taking.settings, now=taking.now, effects=False)
        outcomes |= dict(zip(new, recorded.outcomes, strict=True))
    _refund(tx, taking, {n: order for n, order in zip(new, given, strict=True)
                         if outcomes[n] is Outcome.ACCEPTED}, rows)  # fmt: skip
    _count(loaded, rows, [outcomes[n] for n in range(len(rows))])
    return [rows[n].place for n, outcome in outcomes.items() if outcome is Outcome.CONFLICT]


def _address(row: Any, source: str) -> Address | None:
    if row.email is not None:
        return parse(row.email)
    return stand_in(source, row.customer_id) if row.customer_id is not None else None


def _make_contacts(
    tx: Connection, taking: _Taking, people: Mapping[str, int], wanted: Mapping[int, Address | None],
    rows: Sequence[Any],
) -> Mapping[int, int]:  # fmt: skip
    """Contacts of customers nobody knows, by the place of their orders among `rows`."""
    missing = {n: address for n, address in wanted.items() if address is not None and address.key not in people}
    keys = {address.key for address in missing.values()}
    if taking.dry_run:
        taking.would_make.update(map(hash, keys))
        taking.loaded.contacts_made = len(taking.would_make)
        return {}
    if not missing:
        return {}
    taking.loaded.contacts_made += len(keys)
    countries = {address.key: rows[n].country for n, address in reversed(missing.items()) if rows[n].country}
    made = contacts.first_seen(tx, missing.values(), source=_DOOR, now=taking.now, settings=taking.settings,
                               countries=countries, effects=False)  # fmt: skip
    return {n: made[address.key] for n, address in missing.items()}


def _refund(tx: Connection, taking: _Taking, new: Mapping[int, NewOrder], rows: Sequence[Any]) -> None:
    """What the file says was paid back, of orders that are new: of others the shop may have told it already."""
    refunds = [
        NewRefund(order_id=order.order_id, occurred_at=order.placed_at, currency=order.currency,
                  amount=rows[n].refunded, source=order.source, refund_id=_REFUND, contact_id=order.contact_id)
        for n, order in new.items() if rows[n].refunded
    ]  # fmt: skip
    taking.loaded.refunds += len(refunds)
    if refunds and not taking.dry_run:
        record_refunds(tx, refunds, now=taking.now, effects=False)


def _count(loaded: Loaded, rows: Sequence[Any], outcomes: Sequence[Outcome]) -> None:
    counts = Counter(outcomes)
    loaded.new += counts[Outcome.ACCEPTED]
    loaded.duplicates += counts[Outcome.DUPLICATE]
    loaded.conflicts += counts[Outcome.CONFLICT]
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome is Outcome.CONFLICT:
            continue
        loaded.taken_rows += row.row_count
        loaded.totals[row.currency] = loaded.totals.get(row.currency, Decimal(0)) + row.total
        loaded.first = min(loaded.first or row.placed_at, row.placed_at)
        loaded.last = max(loaded.last or row.placed_at, row.placed_at)
