"""One row of a file to one line of COPY: cells tidied, checked and typed, or the reason why the row is not taken.

Promises that nothing PostgreSQL would refuse gets through and that a row never affects another one. Speed comes
from doing per column and per different value what can be done once: plans, domains, countries and time zones are
remembered (4 us a row instead of 20). Called by the importer; no database here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import Final

from mautolib.contacts import domains
from mautolib.contacts.address import MAX_MAILABLE_OCTETS, Address, parse, unwrap
from mautolib.contacts.countries import country_code
from mautolib.contacts.imports.headers import Plan
from mautolib.contacts.imports.model import ImportOptions, RejectCode
from mautolib.contacts.model import ConsentStatus
from mautolib.contacts.validation import (
    CURRENCIES,
    MAX_CUSTOM_BYTES,
    TEXT_LIMITS,
    custom_fields_problem,
    is_timezone,
    single_line_problem,
)
from mautolib.errors import InvalidInput

__all__ = ["RowStager"]

#: Blank and absent are one: `copy ... with (null '')`.
_NULL: Final = ""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
#: What an export puts before a cell that a spreadsheet would run as a formula.
_GUARD = re.compile(r"'+[=+\-@\t\r]")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+"
_PLAIN = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@([A-Za-z0-9.\-]+)")
_MOST_REMEMBERED = 100_000
_YES_NO = {"true": "t", "yes": "t", "1": "t", "false": "f", "no": "f", "0": "f"}
_REJECTED_VALUE = 200


class _Refused(Exception):
    """A cell is not acceptable: (column, code, value)."""


class RowStager:
    """Turns the rows of one file into lines for `copy import_rows (...)`; see `columns`.

    Args:
        plan: which column is what.
        unclean: what must not be in a cell.
        now: bound of `created_at`.
    """

    def __init__(self, plan: Plan, options: ImportOptions, known: domains.DomainLists, *, unclean: re.Pattern[str],
                 now: datetime) -> None:  # fmt: skip
        self._plan, self._known, self._unclean = plan, known, unclean
        self._width = len(plan.headers)
        self._keeps_blanks = options.update_policy == "overwrite"
        self._has_default_consent = options.consent_source is not None
        self._latest = now + timedelta(days=1)
        self._domains: dict[str, tuple[str, str, int]] = {}
        self._email = plan.fields["email"]
        self._custom = [(encode_basestring(key) + ": ", positions[0], positions[1:])
                        for key, positions in plan.custom.items()]  # fmt: skip
        # A country nobody knows is kept as a custom field, so any file may need that column.
        self._has_custom = bool(plan.custom) or "custom_fields" in plan.fields or "country" in plan.fields
        names = [name for name in _ORDER if name in plan.fields]
        self._fields: list[tuple[int, tuple[int, ...], Callable[[str], str]]] = [
            (plan.fields[name][0], plan.fields[name][1:], self._reader(name)) for name in names
        ]
        self.columns = ["line", "email", "email_key", "flags", *names,
                        *(["custom_fields"] if self._has_custom else []),
                        "reject_column", "reject_code", "reject_value"]  # fmt: skip
        self._nothing = "\t" * (len(self.columns) - 3)

    def stage(self, line: int, cells: list[str] | str, *, is_suspect: bool) -> str:
        """The COPY line of a row.

        Args:
            cells: its cells, or the text of a line whose quote is never closed.
            is_suspect: whether the file has characters that must not be in a cell.
        """
        try:
            if isinstance(cells, str):
                raise _Refused("", RejectCode.UNBALANCED_QUOTE, cells)
            if is_suspect:
                self._check_clean(cells)
            if len(cells) != self._width:
                self._check_width(cells)
            return self._accepted(line, cells)
        except _Refused as refused:
            column, code, value = refused.args
            return self._rejected(line, column, code, value)

    def _accepted(self, line: int, cells: Sequence[str]) -> str:
        parts = [str(line), *self._address(cells)]
        extra = ""
        for position, more, read in self._fields:
            value = cells[position].strip()
            if (value and value[0] == "'") or (more and not value):
                value = _first(cells, (position, *more))
            if not value:
                parts.append(_NULL)
                continue
            try:
                parts.append(read(value))
            except _Foreign:
                parts.append(_NULL)
                extra = f'"country": {encode_basestring(value)}'
            except _Refused as refused:
                raise _Refused(self._header((position,)), refused.args[0], value) from None
        if "consent_status" in self._plan.fields:
            self._check_consent(cells)
        if self._has_custom:
            parts.append(self._custom_fields(cells, extra))
        row = "\t".join(parts)
        if "\\" in row or "\n" in row or "\r" in row or row.count("\t") != len(parts) - 1:
            row = "\t".join(part.translate(_ESCAPES) for part in parts)
        return row + "\t\t\t\n"

    def _address(self, cells: Sequence[str]) -> tuple[str, str, str]:
        typed = _first(cells, self._email)
        plain = _PLAIN.fullmatch(typed)
        if plain:
            local, domain = plain[1], plain[2]
            known = self._domains.get(domain)
            if known is not None and len(local) <= 64 and len(typed) <= MAX_MAILABLE_OCTETS:
                shown, key, flags = known
                folded = local.lower()
                if domains.is_role(folded):
                    flags |= 4
                return f"{local}@{shown}", f"{folded}@{key}", str(flags)
        address = self._parse(typed)
        shown = address.email.rpartition("@")[2]
        flags = (1 if self._known.is_disposable(address.domain) else
                 2 if self._known.is_free_provider(address.domain) else 0)  # fmt: skip
        if plain and len(self._domains) < _MOST_REMEMBERED:
            self._domains[plain[2]] = (shown, address.domain, flags)
        if domains.is_role(address.local):
            flags |= 4
        return address.email, address.key, str(flags)

    def _parse(self, typed: str) -> Address:
        try:
            address = parse(unwrap(typed))
        except InvalidInput:
            raise _Refused(self._header(self._email), RejectCode.INVALID_EMAIL, typed) from None
        if len(address.email.encode()) > MAX_MAILABLE_OCTETS:
            raise _Refused(self._header(self._email), RejectCode.INVALID_EMAIL, typed)
        return address

    def _custom_fields(self, cells: Sequence[str], extra: str) -> str:
        parts = []
        for prefix, position, more in self._custom:
            value = cells[position].strip()
            if (value and value[0] == "'") or (more and not value):
                value = _first(cells, (position, *more))
            if value:
                parts.append(prefix + encode_basestring(value))
            elif self._keeps_blanks:
                parts.append(prefix + "null")
        if extra:
            parts.append(extra)
        whole = self._plan.fields.get("custom_fields")
        text = _first(cells, whole) if whole else ""
        if text:
            return self._merged(text, "{" + ", ".join(parts) + "}", whole or ())
        if not parts:
            return _NULL
        made = "{" + ", ".join(parts) + "}"
        if len(made) > MAX_CUSTOM_BYTES // 4 and len(made.encode()) > MAX_CUSTOM_BYTES:
            raise _Refused("custom_fields", RejectCode.TOO_LONG, made)
        return made

    def _merged(self, text: str, columns: str, positions: tuple[int, ...]) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or custom_fields_problem(value):
            raise _Refused(self._header(positions), RejectCode.INVALID_VALUE, text)
        value.update(json.loads(columns))
        if custom_fields_problem(value):
            raise _Refused(self._header(positions), RejectCode.TOO_LONG, text)
        return json.dumps(value, ensure_ascii=False)

    def _check_clean(self, cells: Sequence[str]) -> None:
        for position, cell in enumerate(cells):
            found = self._unclean.search(cell)
            if found:
                code = RejectCode.NUL_BYTE if found[0] == "\0" else RejectCode.BAD_ENCODING
                raise _Refused(self._header((position,)), code, cell)

    def _check_width(self, cells: list[str]) -> None:
        if len(cells) < self._width or any(cell.strip() for cell in cells[self._width :]):
            raise _Refused("", RejectCode.RAGGED_ROW, ",".join(cells))

    def _check_consent(self, cells: Sequence[str]) -> None:
        status = _first(cells, self._plan.fields["consent_status"]).lower()
        sources = self._plan.fields.get("consent_source", ())
        has_source = self._has_default_consent or bool(sources and _first(cells, sources))
        if status == ConsentStatus.GRANTED and not has_source:
            raise _Refused(self._header(self._plan.fields["consent_status"]), RejectCode.INVALID_VALUE, status)

    def _reader(self, name: str) -> Callable[[str], str]:
        special: Mapping[str, Callable[[str], str]] = {
            "country": _remembered(_country), "timezone": _remembered(_timezone), "currency": _remembered(_currency),
            "language": _remembered(_text("language")), "subscribed": _remembered(_flag), "tags": _remembered(_tags),
            "consent_status": _remembered(_status), "created_at": self._moment, "consent_at": self._moment,
        }  # fmt: skip
        return special[name] if name in special else _text(name)

    def _moment(self, value: str) -> str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise _Refused(RejectCode.INVALID_VALUE) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if moment.year < 1970 or moment > self._latest:
            raise _Refused(RejectCode.INVALID_VALUE)
        return moment.isoformat()

    def _header(self, positions: tuple[int, ...]) -> str:
        inside = [position for position in positions if position < self._width]
        return self._plan.headers[inside[0]] if inside else ""

    def _rejected(self, line: int, column: str, code: RejectCode, value: str) -> str:
        shown = self._unclean.sub("\ufffd", value[:_REJECTED_VALUE]).replace("\0", "\ufffd").translate(_ESCAPES)
        name = column[:100].translate(_ESCAPES)
        return f"{line}{self._nothing}{name}\t{code}\t{shown}\n"


_ORDER = ("first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed",
          "created_at", "consent_status", "consent_source", "consent_at", "tags")  # fmt: skip


class _Foreign(Exception):
    """A country's name that nobody knows."""


def _first(cells: Sequence[str], positions: tuple[int, ...]) -> str:
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
            raise _Refused(RejectCode.TOO_LONG)
        if single_line_problem(value, limit):
            raise _Refused(RejectCode.INVALID_VALUE)
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
    if len(value) <= TEXT_LIMITS["country"]:
        return _text("country")(value)
    code = country_code(value)
    if code is None:
        raise _Foreign
    return code


def _timezone(value: str) -> str:
    if not is_timezone(value):
        raise _Refused(RejectCode.INVALID_VALUE)
    return value


def _currency(value: str) -> str:
    if value.upper() not in CURRENCIES:
        raise _Refused(RejectCode.INVALID_VALUE)
    return value.upper()


def _flag(value: str) -> str:
    known = _YES_NO.get(value.lower())
    if known is None:
        raise _Refused(RejectCode.INVALID_VALUE)
    return known


def _status(value: str) -> str:
    if value.lower() not in list(ConsentStatus):
        raise _Refused(RejectCode.INVALID_VALUE)
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
            raise _Refused(RejectCode.TOO_LONG if len(name) > 100 else RejectCode.INVALID_VALUE)
        names.setdefault(name.lower(), name)
    return json.dumps(list(names.values()), ensure_ascii=False)

