"""One row of a file to one line of COPY: cells tidied, checked and typed, or the reason why the row is not taken.

Promises that nothing PostgreSQL would refuse gets through and that a row never affects another one. Speed comes
from doing per column and per different value what can be done once: plans, domains, countries and time zones are
remembered (4 us a row instead of 20). Called by the importer; no database here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from json.encoder import encode_basestring
from typing import Final

from mautolib.contacts import domains
from mautolib.contacts.address import MAX_MAILABLE_OCTETS, Address, parse, unwrap
from mautolib.contacts.imports.cells import NOES, READERS, Foreign, Refused, first, moment
from mautolib.contacts.imports.headers import Plan
from mautolib.contacts.imports.model import ImportOptions, RejectCode
from mautolib.contacts.imports.reading import Broken
from mautolib.contacts.model import ConsentStatus
from mautolib.contacts.validation import MAX_CUSTOM_BYTES, custom_fields_problem
from mautolib.errors import InvalidInput

__all__ = ["ATOM", "ESCAPES", "MOST_REMEMBERED", "RowStager"]

#: Blank and absent are one: `copy ... with (null '')`.
_NULL: Final = ""
ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+"
_PLAIN = re.compile(rf"({ATOM}(?:\.{ATOM})*)@([A-Za-z0-9.\-]+)")
MOST_REMEMBERED = 100_000
_REJECTED_VALUE, _REJECTED_ADDRESS = 200, 320
#: A consent may be given for a time to come, a contact cannot be from the future.
_LAST_CONSENT = datetime(2200, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
_ORDER = ("first_name", "last_name", "phone", "country", "language", "timezone", "currency", "subscribed",
          "created_at", "consent_status", "consent_source", "consent_at", "tags")  # fmt: skip


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
        self._width = plan.width
        self._keeps_blanks = options.update_policy == "overwrite"
        self._has_default_consent = options.consent_source is not None
        self._latest = {"created_at": now + timedelta(days=1), "consent_at": _LAST_CONSENT}
        self._domains: dict[str, tuple[str, str, int]] = {}
        self._email = plan.fields["email"]
        self._subscribed = plan.fields.get("subscribed", (-1,))[0]
        self._custom = [(encode_basestring(key) + ": ", positions[0], positions[1:])
                        for key, positions in plan.custom.items()]  # fmt: skip
        # A country nobody knows is kept as a custom field, so any file may need that column.
        self._has_custom = bool(plan.custom) or "custom_fields" in plan.fields or "country" in plan.fields
        names = [name for name in _ORDER if name in plan.fields]
        self._fields: list[tuple[int, tuple[int, ...], Callable[[str], str]]] = [
            (plan.fields[name][0], plan.fields[name][1:], self._reader(name)) for name in names
        ]
        #: Name, first position and reader of each field, in the order of `columns`.
        self.fields = [(name, field[0], field[2]) for name, field in zip(names, self._fields, strict=True)]
        self.columns = ["line", "email", "email_key", "flags", *names,
                        *(["custom_fields"] if self._has_custom else []),
                        "reject_column", "reject_code", "reject_value"]  # fmt: skip
        self._nothing = "\t" * (len(self.columns) - 4)

    def stage(self, line: int, cells: list[str] | str, *, is_suspect: bool) -> str:
        """The COPY line of a row.

        Args:
            cells: its cells, or the text of a line whose quote is never closed.
            is_suspect: whether the file has characters that must not be in a cell.
        """
        try:
            if isinstance(cells, str):
                raise Refused("", RejectCode.UNBALANCED_QUOTE, cells)
            if is_suspect:
                self._check_clean(cells)
            if len(cells) != self._width:
                self._check_width(cells)
            return self._accepted(line, self._plan.complete(cells) if self._plan.derived else cells)
        except Refused as refused:
            column, code, value = refused.args
            typed = self._typed(cells)
            return self._rejected(line, typed, column, code, value)

    def _typed(self, cells: list[str] | str) -> str:
        """What stands in the e-mail column of a row that is not taken, if it is clear where that is."""
        if isinstance(cells, str):
            cells = cells.cells if isinstance(cells, Broken) and len(cells.cells) == self._width else []
        return first(cells, self._email) if len(cells) > max(self._email) else ""

    def _accepted(self, line: int, cells: Sequence[str]) -> str:
        parts = [str(line), *self._address(cells)]
        extra = ""
        for position, more, read in self._fields:
            value = cells[position].strip()
            if (value and value[0] == "'") or (more and not value):
                value = first(cells, (position, *more))
            if more and position == self._subscribed:
                # Of several columns about it a no counts, whichever says it.
                value = next((cell for at in more if (cell := cells[at].strip()).lower() in NOES), value)
            if not value:
                parts.append(_NULL)
                continue
            try:
                parts.append(read(value))
            except Foreign:
                parts.append(_NULL)
                extra = f'"country": {encode_basestring(value)}'
            except Refused as refused:
                raise Refused(self._header((position,)), refused.args[0], value) from None
        if "consent_status" in self._plan.fields:
            self._check_consent(cells)
        if self._has_custom:
            parts.append(self._custom_fields(cells, extra))
        row = "\t".join(parts)
        if "\\" in row or "\n" in row or "\r" in row or row.count("\t") != len(parts) - 1:
            row = "\t".join(part.translate(ESCAPES) for part in parts)
        return row + "\t\t\t\n"

    def _address(self, cells: Sequence[str]) -> tuple[str, str, str]:
        typed = first(cells, self._email)
        plain = _PLAIN.fullmatch(typed)
        if plain:
            local, domain = plain[1], plain[2]
            known = self._domains.get(domain)
            if known is not None and len(local) <= 64 and len(typed) <= MAX_MAILABLE_OCTETS:
                shown, key, flags = known
                folded = local.lower()
                if domains.is_role(folded):
                    flags |= 4
                return _unless_key(f"{local}@{shown}", f"{folded}@{key}"), f"{folded}@{key}", str(flags)
        address = self._parse(typed)
        shown = address.email.rpartition("@")[2]
        flags = (1 if self._known.is_disposable(address.domain) else
                 2 if self._known.is_free_provider(address.domain) else 0)  # fmt: skip
        if plain and len(self._domains) < MOST_REMEMBERED:
            self._domains[plain[2]] = (shown, address.domain, flags)
        if domains.is_role(address.local):
            flags |= 4
        return _unless_key(address.email, address.key), address.key, str(flags)

    def _parse(self, typed: str) -> Address:
        try:
            address = parse(unwrap(typed))
        except InvalidInput:
            raise Refused(self._header(self._email), RejectCode.INVALID_EMAIL, typed) from None
        # An export may hold what the API stored: longer than mail can go to, and never mailed.
        if len(address.email.encode()) > MAX_MAILABLE_OCTETS and not self._plan.is_export:
            raise Refused(self._header(self._email), RejectCode.INVALID_EMAIL, typed)
        return address

    def _custom_fields(self, cells: Sequence[str], extra: str) -> str:
        parts = []
        for prefix, position, more in self._custom:
            value = cells[position].strip()
            if (value and value[0] == "'") or (more and not value):
                value = first(cells, (position, *more))
            if value:
                parts.append(prefix + encode_basestring(value))
            elif self._keeps_blanks:
                parts.append(prefix + "null")
        if extra:
            parts.append(extra)
        whole = self._plan.fields.get("custom_fields")
        text = first(cells, whole) if whole else ""
        if text:
            return self._merged(text, "{" + ", ".join(parts) + "}", whole or ())
        if not parts:
            return _NULL
        made = "{" + ", ".join(parts) + "}"
        if len(made) > MAX_CUSTOM_BYTES // 4 and len(made.encode()) > MAX_CUSTOM_BYTES:
            raise Refused("custom_fields", RejectCode.TOO_LONG, made)
        return made

    def _merged(self, text: str, columns: str, positions: tuple[int, ...]) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or custom_fields_problem(value):
            raise Refused(self._header(positions), RejectCode.INVALID_VALUE, text)
        value.update(json.loads(columns))
        if custom_fields_problem(value):
            raise Refused(self._header(positions), RejectCode.TOO_LONG, text)
        return json.dumps(value, ensure_ascii=False)

    def _check_clean(self, cells: Sequence[str]) -> None:
        for position, cell in enumerate(cells):
            found = self._unclean.search(cell)
            if found:
                code = RejectCode.NUL_BYTE if found[0] == "\0" else RejectCode.BAD_ENCODING
                raise Refused(self._header((position,)), code, cell)

    def _check_width(self, cells: list[str]) -> None:
        if len(cells) < self._width or any(cell.strip() for cell in cells[self._width :]):
            raise Refused("", RejectCode.RAGGED_ROW, ",".join(cells))

    def _check_consent(self, cells: Sequence[str]) -> None:
        status = first(cells, self._plan.fields["consent_status"]).lower()
        sources = self._plan.fields.get("consent_source", ())
        has_source = self._has_default_consent or bool(sources and first(cells, sources))
        if status == ConsentStatus.GRANTED and not has_source:
            raise Refused(self._header(self._plan.fields["consent_status"]), RejectCode.INVALID_VALUE, status)

    def _reader(self, name: str) -> Callable[[str], str]:
        if name in self._latest:
            return partial(moment, latest=self._latest[name])
        return READERS[name]()

    def _header(self, positions: tuple[int, ...]) -> str:
        inside = [position for position in positions if position < len(self._plan.headers)]
        return self._plan.headers[inside[0]] if inside else ""

    def _rejected(self, line: int, typed: str, column: str, code: RejectCode, value: str) -> str:
        email = self._shown(typed, _REJECTED_ADDRESS)
        shown = self._shown(value, _REJECTED_VALUE)
        name = column[:100].translate(ESCAPES)
        return f"{line}\t{email}{self._nothing}{name}\t{code}\t{shown}\n"

    def _shown(self, text: str, limit: int) -> str:
        return self._unclean.sub("\ufffd", text[:limit]).replace("\0", "\ufffd").translate(ESCAPES)


def _unless_key(email: str, key: str) -> str:
    """The address as typed, blank where it is the key, as it mostly is: 15 % less to stage and read."""
    return _NULL if email == key else email
