"""Which values a contact may have: lengths, control characters, time zones, currencies, custom fields.

One set of rules for the API, events and imports. `check_new` and `check_changes` look at everything and raise one
`InvalidInput` that lists every problem with its path. Addresses are read by `address`, and a single one by
email-validator as well; nothing here sees a database.
"""

from __future__ import annotations

import json
import math
import re
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import Any

from mautolib.contacts.address import MAX_CHARACTERS, MAX_MAILABLE_OCTETS, Address, parse
from mautolib.contacts.model import ConsentStatus, NewContact
from mautolib.errors import InvalidInput

__all__ = ["CURRENCIES", "TEXT_LIMITS", "check_changes", "check_grant", "check_new", "custom_fields_problem",
           "is_storable", "is_timezone", "single_line_problem", "text_problem"]  # fmt: skip

#: Most characters of each single-line field.
TEXT_LIMITS = {"first_name": 100, "last_name": 100, "phone": 30, "country": 3, "language": 10, "timezone": 64,
               "currency": 3, "consent_source": 100}  # fmt: skip
MAX_CUSTOM_FIELDS = 100
MAX_CUSTOM_KEY = 100
MAX_CUSTOM_BYTES = 16 * 1024
MAX_CUSTOM_DEPTH = 4

#: Active codes of ISO 4217 (funds, metals and test codes left out).
_CURRENCY_CODES = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
    CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
    HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD
    MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN
    PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY
    TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_CURRENCY_CODES.split())

_NO_SOURCE = "consent_source is needed when consent is granted"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
Problem = tuple[tuple[str | int, ...], str]


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold `text`: no NUL, no lone surrogate."""
    return _UNSTORABLE.search(text) is None


def single_line_problem(text: str, limit: int) -> str | None:
    """What is wrong with a single-line text, None when nothing is."""
    if _UNSTORABLE.search(text):
        return "contains a NUL or an unpaired surrogate"
    if _CONTROL.search(text):
        return "contains a line break or control character"
    if len(text) > limit:
        return f"has {len(text)} characters; at most {limit} are allowed"
    return None


def text_problem(field: str, text: str) -> str | None:
    """What is wrong with the text of a contact's `field`, None when nothing is."""
    problem = single_line_problem(text, TEXT_LIMITS[field])
    if problem is None and text:
        if field == "timezone" and not is_timezone(text):
            return "is not an IANA time zone such as Europe/Berlin"
        if field == "currency" and text not in CURRENCIES:
            return "is not an ISO 4217 currency such as EUR"
    return problem


@cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def is_timezone(name: str) -> bool:
    """Whether `name` is a time zone of the IANA database."""
    return name in _timezones()


def custom_fields_problem(value: object) -> str | None:
    """What is wrong with a dict of custom fields: keys, size, depth, or a value JSON cannot carry."""
    if not isinstance(value, Mapping):
        return "is not an object"
    if len(value) > MAX_CUSTOM_FIELDS:
        return f"has {len(value)} keys; at most {MAX_CUSTOM_FIELDS} are allowed"
    problem = _node_problem(value, 1)
    if problem:
        return problem
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_CUSTOM_BYTES:
        return f"is larger than {MAX_CUSTOM_BYTES} bytes"
    return None


def _node_problem(node: object, depth: int) -> str | None:
    if isinstance(node, Mapping | list):
        if depth > MAX_CUSTOM_DEPTH:
            return f"is nested deeper than {MAX_CUSTOM_DEPTH} levels"
        children = list(node) if isinstance(node, list) else list(node.values())
        for key in node if isinstance(node, Mapping) else ():
            if not isinstance(key, str) or not key.strip() or single_line_problem(key, MAX_CUSTOM_KEY):
                return f"has a key that is empty, longer than {MAX_CUSTOM_KEY} characters or not one line of text"
        return next(filter(None, (_node_problem(child, depth + 1) for child in children)), None)
    if isinstance(node, str):
        return None if is_storable(node) else "contains a NUL or an unpaired surrogate"
    if isinstance(node, float) and not math.isfinite(node):
        return "contains a number that is not finite"
    if node is None or isinstance(node, bool | int | float):
        return None
    return f"contains a {type(node).__name__}, which JSON cannot carry"


def check_new(new: NewContact) -> dict[str, Any]:
    """The column values of a new contact, tidied (texts trimmed); without address columns and tags.

    Raises:
        InvalidInput: lists every problem with its path `("body", <field>)`.
    """
    return _checked({item.name: getattr(new, item.name) for item in fields(new) if item.name in _CHECKS})


def check_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The column values a change sets, tidied; unknown names are ignored, as read-only ones are.

    Raises:
        InvalidInput: lists every problem with its path `("body", <field>)`.
    """
    return _checked({name: value for name, value in changes.items() if name in _CHECKS})


def check_grant(before: ConsentStatus, source_before: str | None, changes: Mapping[str, Any]) -> None:
    """A change by which consent becomes granted names its source, and granted consent keeps one.

    Args:
        changes: as `check_changes` gave them.

    Raises:
        InvalidInput: it would be granted without a source.
    """
    status = changes.get("consent_status", before)
    source = changes.get("consent_source", source_before if before == status else None)
    asked = "consent_status" in changes or "consent_source" in changes
    if asked and status == ConsentStatus.GRANTED and source is None:
        raise InvalidInput(_NO_SOURCE, path=("body", "consent_source"))


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    tidy: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in values.items():
        tidied, problem = _CHECKS[name](name, value)
        tidy[name] = tidied
        if problem:
            problems.append((("body", name), f"{name} {problem}"))
    if tidy.get("consent_status") == ConsentStatus.GRANTED and tidy.get("consent_source", "") is None:
        problems.append((("body", "consent_source"), _NO_SOURCE))
    if problems:
        raise InvalidInput(problems[0][1], path=problems[0][0], problems=tuple(problems[1:]))
    return tidy


def _email(name: str, value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, str):
        return value, "is not a text"
    problem = single_line_problem(value, MAX_CHARACTERS)
    if problem:
        return value, problem
    try:
        address = parse(value)
    except InvalidInput as error:
        return value, f"is not acceptable: {error}"
    return address, None if _is_confirmed(address) else "is not acceptable: Invalid email"


def _is_confirmed(address: Address) -> bool:
    """Whether email-validator reads the address as well; tests prove that it always does.

    Not asked about the two things that are read differently on purpose: names for private use, and the length of
    addresses that are stored but never mailed.
    """
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

    if len(address.email.encode()) > MAX_MAILABLE_OCTETS:
        return True
    name, _, last = address.email.rpartition(".")
    text = f"{name}.example" if last in SPECIAL_USE_DOMAIN_NAMES else address.email
    try:
        validate_email(text, check_deliverability=False, globally_deliverable=False, strict=True)
    except EmailNotValidError:
        return False
    return True


def _line(name: str, value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, str):
        return value, "is not a text"
    text = value.strip()
    if name == "currency":
        text = text.upper()
    # Looked at before trimming: a line break at an edge is still a line break.
    return text, single_line_problem(value, len(value)) or text_problem(name, text)


def _source(name: str, value: Any) -> tuple[Any, str | None]:
    if value is None:
        return None, None
    text, problem = _line(name, value)
    return text or None, problem


def _custom(name: str, value: Any) -> tuple[Any, str | None]:
    problem = custom_fields_problem(value)
    return (value if problem else dict(value)), problem


def _flag(name: str, value: Any) -> tuple[Any, str | None]:
    return value, None if isinstance(value, bool) else "is not true or false"


def _status(name: str, value: Any) -> tuple[Any, str | None]:
    if value in list(ConsentStatus):
        return ConsentStatus(value), None
    return value, f"is not one of {', '.join(ConsentStatus)}"


def _moment(name: str, value: Any) -> tuple[Any, str | None]:
    if value is None:
        return None, None
    if not isinstance(value, datetime) or value.tzinfo is None:
        return value, "is not a moment with a time zone"
    return value, None if 1970 <= value.year <= 2199 else "is outside the years 1970 to 2199"


_CHECKS: Mapping[str, Callable[[str, Any], tuple[Any, str | None]]] = {
    "email": _email, "first_name": _line, "last_name": _line, "phone": _line, "country": _line, "language": _line,
    "timezone": _line, "currency": _line, "custom_fields": _custom, "subscribed": _flag, "consent_status": _status,
    "consent_source": _source, "consent_at": _moment,
}  # fmt: skip

