"""One cell to one value: trimmed, without the formula guard, checked and typed, or the reason why it is not taken.

What can be done once for each different value is remembered. Pure functions; called by `rows`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from mautolib.contacts.countries import country_code
from mautolib.contacts.imports.model import RejectCode
from mautolib.contacts.model import ConsentStatus
from mautolib.contacts.validation import CURRENCIES, TEXT_LIMITS, is_timezone, single_line_problem

__all__ = ["NOES", "READERS", "Foreign", "Refused", "first", "moment"]

#: What an export puts before a cell that a spreadsheet would run as a formula.
_GUARD = re.compile(r"'+[=+\-@\t\r]")
#: Codes of countries; two short names that are none are read as names.
_CODE = re.compile(r"(?!(?:uk|uae)$)(?:[a-z]{2,3}|[0-9]{3})", re.IGNORECASE)
_YES_NO: Final = {"true": "t", "yes": "t", "1": "t", "false": "f", "no": "f", "0": "f"}
NOES: Final = frozenset(word for word, flag in _YES_NO.items() if flag == "f")
Reader = Callable[[str], str]


class Refused(Exception):
    """A cell is not acceptable: (code), or (column, code, value)."""


class Foreign(Exception):
    """A country's name that nobody knows."""


def first(cells: Sequence[str], positions: tuple[int, ...]) -> str:
    """The first non-blank of some cells, trimmed, without the formula guard."""
    for position in positions:
        value = cells[position].strip()
        if value:
            return value[1:] if value[0] == "'" and _GUARD.match(value) else value
    return ""


def _text(name: str) -> Callable[[str], str]:
    limit = TEXT_LIMITS[name]

    def read(value: str) -> str:
        if value.isprintable() and len(value) <= limit:
            return value
        if len(value) > limit:
            raise Refused(RejectCode.TOO_LONG)
        if single_line_problem(value, limit):
            raise Refused(RejectCode.INVALID_VALUE)
        return value

    return read


def _remembered(read: Callable[[str], str]) -> Callable[[str], str]:
    """`read`, asked once for each different value (up to 10,000 of them)."""
    seen: dict[str, str] = {}

    def look_up(value: str) -> str:
        known = seen.get(value)
        if known is None:
            known = read(value)
            if len(seen) < 10_000:
                seen[value] = known
        return known

    return look_up


def _country(value: str) -> str:
    code = None if _CODE.fullmatch(value) else country_code(value)
    if code is not None:
        return code
    if len(value) <= TEXT_LIMITS["country"]:
        return _text("country")(value)
    raise Foreign


def _timezone(value: str) -> str:
    if not is_timezone(value):
        raise Refused(RejectCode.INVALID_VALUE)
    return value


def _currency(value: str) -> str:
    if value.upper() not in CURRENCIES:
        raise Refused(RejectCode.INVALID_VALUE)
    return value.upper()


def _flag(value: str) -> str:
    known = _YES_NO.get(value.lower())
    if known is None:
        raise Refused(RejectCode.INVALID_VALUE)
    return known


def _status(value: str) -> str:
    if value.lower() not in list(ConsentStatus):
        raise Refused(RejectCode.INVALID_VALUE)
    return value.lower()


def _tags(value: str) -> str:
    r"""Names joined by `|`, in which `\|` and `\\` stand for themselves, as a JSON array."""
    names: dict[str, str] = {}
    for part in re.findall(r"(?:[^|\\]|\\.|\\$)+", value, re.DOTALL):
        name = re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL).strip()
        if not name:
            continue
        problem = single_line_problem(name, 100)
        if problem:
            raise Refused(RejectCode.TOO_LONG if len(name) > 100 else RejectCode.INVALID_VALUE)
        names.setdefault(name.lower(), name)
    return json.dumps(list(names.values()), ensure_ascii=False)


def moment(value: str, *, latest: datetime) -> str:
    """A moment in ISO 8601 (without an offset: UTC), in 1970 to `latest`."""
    try:
        found = datetime.fromisoformat(value)
        # In UTC: PostgreSQL reads no offset of 16 hours or more, and one cell must not stop the file.
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Refused(RejectCode.INVALID_VALUE) from None
    if found.year < 1970 or found > latest:
        raise Refused(RejectCode.INVALID_VALUE)
    return found.isoformat()


#: What makes the reader of a field; the moments have bounds and are read by `moment`.
READERS: Final[dict[str, Callable[[], Reader]]] = {
    "country": lambda: _remembered(_country), "timezone": lambda: _remembered(_timezone),
    "currency": lambda: _remembered(_currency), "language": lambda: _remembered(_text("language")),
    "subscribed": lambda: _remembered(_flag), "tags": lambda: _remembered(_tags),
    "consent_status": lambda: _remembered(_status), "first_name": lambda: _text("first_name"),
    "last_name": lambda: _text("last_name"), "phone": lambda: _text("phone"),
    "consent_source": lambda: _text("consent_source"),
}  # fmt: skip
