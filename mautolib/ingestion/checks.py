"""Which events a shop may send: required and typed properties, names, times - read by hand, because it is a hot path.

Promises that what passes can be stored: texts within their columns, amounts exact decimals, a type the service does
not write itself. Takes JSON as `api/strict_json` reads it (valid Unicode, finite numbers, bounded depth). Pure
functions; contacts and orders are looked up by `ingest`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from mautolib.contacts.address import Address, parse
from mautolib.contacts.validation import CURRENCIES, single_line_problem
from mautolib.errors import InvalidInput
from mautolib.events.money import amount_text, parse_amount
from mautolib.events.types import (
    OBSERVATION,
    REQUIRED_PROPERTIES,
    SERVICE,
    SERVICE_ONLY,
    SHOP_TYPES,
    EventType,
    canonical,
)
from mautolib.ingestion.model import Incoming

__all__ = ["AHEAD", "MAX_LINES", "MAX_PROPERTIES_BYTES", "check"]

#: Clocks of shops differ; what is further ahead is a mistake.
AHEAD = timedelta(minutes=5)
MAX_PROPERTIES_BYTES = 256 * 1024
MAX_LINES = 1000
_TEXT = 2000
_RESERVED_SOURCES = frozenset({SERVICE, OBSERVATION})
#: How the sources of signed inbound webhooks are named.
_DOORS = "inbound:"
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_BIGINT_MAX = 2**63 - 1
_INT_MAX = 2**31 - 1
_Path = tuple[str | int, ...]


def check(given: object, *, now: datetime, source: str | None = None) -> Incoming:
    """Read one event as it was sent; unknown keys beside `properties` are ignored.

    Args:
        now: what `occurred_at` is where none is given, and the moment it may be 5 minutes ahead of.
        source: of a door with a name of its own (`inbound:7`), which no event can claim; None: what the event says.

    Raises:
        InvalidInput: `code` and `path` (within the event) say what is wrong; the first problem found.
    """
    if not isinstance(given, Mapping):
        _refuse((), "An event is an object")
    event_type = canonical(_line(given.get("type"), ("type",), 50))
    if event_type in SERVICE_ONLY:
        _refuse(("type",), f"{event_type} is written by the service itself", code="reserved_type")
    if source is None:
        source = _line(given.get("source", "api"), ("source",), 50)
        if source in _RESERVED_SOURCES or source.startswith(_DOORS):
            _refuse(("source",), f"{source} is a name of the service itself", code="reserved_source")
    external_id = given.get("external_id")
    properties = given.get("properties", {})
    if not isinstance(properties, Mapping):
        _refuse(("properties",), "properties is not an object")
    contact_id, address = _contact(given)
    told = _of_type(EventType(event_type), properties) if event_type in SHOP_TYPES else dict(properties)
    if len(json.dumps(told)) > MAX_PROPERTIES_BYTES:
        _refuse(("properties",), f"properties takes more than {MAX_PROPERTIES_BYTES} bytes")
    return Incoming(
        event_type=event_type, source=source, contact_id=contact_id, address=address, properties=told,
        external_id=None if external_id is None else _line(external_id, ("external_id",), 200),
        occurred_at=_moment(given["occurred_at"], now) if "occurred_at" in given else now,
    )  # fmt: skip


def _contact(given: Mapping[str, Any]) -> tuple[int | None, Address | None]:
    contact_id, email = given.get("contact_id"), given.get("email")
    if contact_id is None and email is None:
        _refuse(("contact_id",), "An event needs contact_id or email")
    address = None
    if email is not None:
        if not isinstance(email, str):
            _refuse(("email",), "email is not a text")
        try:
            address = parse(email)
        except InvalidInput as error:
            _refuse(("email",), f"email is not acceptable: {error}")
    return None if contact_id is None else _id(contact_id), address


def _id(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, str | int):
        _refuse(("contact_id",), "contact_id is not a text")
    text = str(given)
    # What no row can have is as unknown as any other id.
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or text[0] == "0" or int(text) > _BIGINT_MAX:
        _refuse(("contact_id",), "Contact not found", code="unknown_contact")
    return int(text)


def _moment(given: object, now: datetime) -> datetime:
    if not isinstance(given, str) or not _MOMENT.fullmatch(given):
        _refuse(("occurred_at",), "occurred_at is not RFC 3339 text with Z or an offset")
    try:
        moment = datetime.fromisoformat(given.upper())
        if moment.tzinfo is None:
            message = "occurred_at needs Z or an offset, as in 2026-05-01T09:00:00Z"
            _refuse(("occurred_at",), message, code="timezone_required")
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        _refuse(("occurred_at",), "occurred_at is no moment of the calendar")
    if moment < _FIRST:
        _refuse(("occurred_at",), "occurred_at lies before 1970")
    if moment > now + AHEAD:
        _refuse(("occurred_at",), "occurred_at lies more than 5 minutes ahead")
    return moment


def _of_type(event_type: EventType, given: Mapping[str, Any]) -> dict[str, Any]:
    for name in REQUIRED_PROPERTIES.get(event_type, ()):
        if given.get(name) is None:
            _refuse(("properties", name), f"{event_type} needs {name}")
    told = dict(given)
    for name in _TYPED.keys() & told.keys():
        if told[name] is None:
            del told[name]
        else:
            told[name] = _TYPED[name](told[name], ("properties", name))
    return told


def _line(given: object, path: _Path, limit: int) -> str:
    """A single line, trimmed and not empty."""
    if given is None:
        _refuse(path, f"{path[-1]} is missing")
    if not isinstance(given, str):
        _refuse(path, f"{path[-1]} is not a text")
    text = given.strip()
    problem = single_line_problem(text, limit)
    if problem or not text:
        _refuse(path, f"{path[-1]} {problem or 'is empty'}")
    return text


def _long_line(given: object, path: _Path) -> str:
    if not isinstance(given, str):
        _refuse(path, f"{path[-1]} is not a text")
    problem = single_line_problem(given, _TEXT)
    if problem:
        _refuse(path, f"{path[-1]} {problem}")
    return given


def _key(given: object, path: _Path) -> str:
    return _line(given, path, 100)


def _form(given: object, path: _Path) -> str:
    return _line(given, path, 200)


def _fields(given: object, path: _Path) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        _refuse(path, f"{path[-1]} is not an object")
    return dict(given)


def _currency(given: object, path: _Path) -> str:
    code = _line(given, path, 3).upper()
    if code not in CURRENCIES:
        _refuse(path, f"{path[-1]} is not an ISO 4217 currency such as EUR")
    return code


def _any_amount(given: object, path: _Path) -> str:
    try:
        return amount_text(parse_amount(given))
    except ValueError as error:
        _refuse(path, f"{path[-1]} {error}")


def _amount(given: object, path: _Path) -> str:
    text = _any_amount(given, path)
    if text[0] == "-":
        _refuse(path, f"{path[-1]} is below zero")
    return text


def _refunded(given: object, path: _Path) -> str:
    text = _amount(given, path)
    if not text.strip("0."):
        _refuse(path, f"{path[-1]} is not above zero")
    return text


def _lines(given: object, path: _Path) -> list[dict[str, Any]]:
    if not isinstance(given, list) or len(given) > MAX_LINES:
        _refuse(path, f"lines is not a list of at most {MAX_LINES} lines")
    return [_one_line(line, (*path, position)) for position, line in enumerate(given)]


def _one_line(given: object, path: _Path) -> dict[str, Any]:
    """The five values of a line, those not given at their defaults, so that equal lines are stored equally."""
    if not isinstance(given, Mapping):
        _refuse(path, "A line is an object")
    quantity = given.get("quantity", 1)
    if isinstance(quantity, bool) or not isinstance(quantity, int) or not 0 <= quantity <= _INT_MAX:
        _refuse((*path, "quantity"), "quantity is not a whole number from 0")
    return {
        "sku": _long_line(given.get("sku", ""), (*path, "sku")),
        "name": _long_line(given.get("name", ""), (*path, "name")),
        "quantity": quantity,
        "unit_price": _any_amount(given.get("unit_price", 0), (*path, "unit_price")),
        "discount": _any_amount(given.get("discount", 0), (*path, "discount")),
    }


def _refuse(path: _Path, message: str, *, code: str = "validation_error") -> NoReturn:
    raise InvalidInput(message, code=code, path=path)


#: Properties that mean the same in every named type; custom types may use the names as they like.
_TYPED: Mapping[str, Callable[[object, _Path], Any]] = {
    "form": _form, "fields": _fields, "url": _long_line, "title": _long_line, "referrer": _long_line,
    "order_id": _key, "cart_id": _key, "refund_id": _key, "currency": _currency, "total": _amount,
    "discount": _amount, "shipping": _amount, "tax": _amount, "amount": _refunded, "lines": _lines,
}  # fmt: skip
