"""The export of contacts: every contact that matches as one line of CSV, in an order that does not change.

Promises that importing the file into an empty database and exporting again gives the same bytes, that memory does
not grow with the number of contacts, and one moment's view of them. An export has a connection of its own, outside
the pool, for as long as its reader takes; `close` gives it back. Called by the API; what is read back is `imports`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Engine, Select, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from mautolib.contacts.imports.model import EXPORT_COLUMNS
from mautolib.contacts.listing import conditions
from mautolib.contacts.model import ContactFilter
from mautolib.db import tables

__all__ = ["Export", "guarded"]

_C = tables.contacts.c
_ROWS_PER_BLOCK = 500
#: Sorting a million contacts takes seconds, after that a block takes milliseconds; between two blocks a slow reader
#: may take longer than a session may otherwise stand still, which is a rule for those that hold locks.
_LIMITS = "set local statement_timeout = '120s'; set local idle_in_transaction_session_timeout = '1h'"
_RISKY = frozenset("'=+-@\t\r")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
#: A telephone number begins like a formula and is none.
_NUMBER = re.compile(r"[+0-9 ().\-]*")
_MUST_QUOTE = re.compile(r'[",\r\n]')
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True)
_PLAIN_COMMAS = len(EXPORT_COLUMNS) - 2


class Export:
    """One export, begun: iterate over its blocks of bytes, then `close` it, also when the reader has left.

    Args:
        filters: which contacts.
        guard: put one `'` before cells that a spreadsheet would run as a formula.
        packed: give a gzip stream instead (the same bytes for the same contacts).
    """

    def __init__(
        self, engine: Engine, filters: ContactFilter | None = None, *, guard: bool = True, packed: bool = False
    ) -> None:
        self.rows = 0
        self._guard = guard
        self._packer = zlib.compressobj(wbits=31) if packed else None
        self._raw: Any = None
        self._connection = engine.connect()
        try:
            # Out of the pool: a slow reader keeps nobody else waiting.
            self._connection.detach()
            self._raw = self._connection.connection.dbapi_connection
            self._connection.exec_driver_sql("set transaction isolation level repeatable read, read only")
            self._connection.exec_driver_sql(_LIMITS)
            query = _QUERY.where(*conditions(self._connection, filters or ContactFilter()))
            rows = self._connection.execute(query, execution_options={"yield_per": _ROWS_PER_BLOCK})
            self._parts = rows.partitions()
        except BaseException:
            self.close()
            raise
        self._blocks = self._written()

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def next_block(self) -> bytes:
        """The next bytes; empty when the export is complete."""
        return next(self._blocks, b"")

    def close(self) -> None:
        """End the transaction and the connection; a second time does nothing."""
        if not self._connection.closed:
            # The pool knows it no more, so nobody else would end the session.
            if self._raw is not None:
                self._raw.close()
                self._connection.invalidate()
            self._connection.close()

    def _written(self) -> Iterator[bytes]:
        yield from self._packed((",".join(EXPORT_COLUMNS) + "\r\n").encode())
        part: Sequence[Sequence[Any]]
        for part in self._parts:
            self.rows += len(part)
            yield from self._packed("".join([self._line(row) for row in part]).encode())
        if self._packer is not None:
            yield self._packer.flush()

    def _packed(self, block: bytes) -> Iterator[bytes]:
        block = block if self._packer is None else self._packer.compress(block)
        if block:
            yield block

    def _line(self, row: Sequence[Any]) -> str:
        (email, first_name, last_name, phone, country, language, subscribed, created_at, timezone, currency, tags,
         status, source, consent_at, custom_fields) = row  # fmt: skip
        cells = [email, first_name, last_name, phone, country, language, "True" if subscribed else "False",
                 _moment(created_at), timezone, currency, tags or "", status, source or "",
                 _moment(consent_at) if consent_at else ""]  # fmt: skip
        if self._guard:
            cells = [f"'{cell}" if cell and cell[0] in _RISKY and _is_formula(cell) else cell for cell in cells]
        line = ",".join(cells)
        if line.count(",") != _PLAIN_COMMAS or '"' in line or "\n" in line or "\r" in line:
            line = ",".join([_quoted(cell) for cell in cells])
        return f"{line},{_json(custom_fields)}\r\n"


def _query() -> Select[Any]:
    tagged, tags = tables.contact_tags, tables.tags
    name = func.replace(func.replace(tags.c.name, "\\", "\\\\"), "|", "\\|")
    names = (
        select(func.string_agg(name, aggregate_order_by(literal("|"), tags.c.name.collate("C"))))
        .select_from(tagged.join(tags, tags.c.tag_id == tagged.c.tag_id))
        .where(tagged.c.contact_id == _C.contact_id)
        .scalar_subquery()
    )
    return (
        select(
            _C.email, _C.first_name, _C.last_name, _C.phone, _C.country, _C.language, _C.subscribed, _C.created_at,
            _C.timezone, _C.currency, names, _C.consent_status, _C.consent_source, _C.consent_at,
            cast(_C.custom_fields, Text),
        )
        .order_by(_C.created_at, _C.email.collate("C"))
    )  # fmt: skip


_QUERY: Final = _query()


def guarded(cell: str) -> str:
    """`cell` as a spreadsheet does not run it: one `'` before what begins like a formula and is no number."""
    return f"'{cell}" if cell and cell[0] in _RISKY and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _MUST_QUOTE.search(cell) else cell


def _json(text: str) -> str:
    if text == "{}":
        return text
    return '"' + _ENCODER.encode(json.loads(text)).replace('"', '""') + '"'


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
