"""The sweep: every text, JSON and byte column of every table is searched for the addresses of erased people.

Promises that no table is forgotten, since the columns come from the catalog: a new table is searched without a line
here. What is found becomes `erased-<id>`, the same everywhere, so keys that were equal stay equal. Only the few rows
that match are read; JSON is changed as text, which an address (no quotes, no backslashes) cannot break.
Called by `removal`, as the role that may change what is append-only.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import IntegrityError

from mautolib.db.statements import statement
from mautolib.privacy.model import Search

__all__ = ["like", "sweep"]

#: Not searched: accounts and the book of migrations are not about contacts, `erasures` is what we read the traces from.
_SKIPPED = {"users", "schema_migrations", "erasures"}
#: Written by `contacts` alone; an address standing there was told again after the erasure.
_KEPT = {("contacts", "email"), ("contacts", "email_key"), ("suppressions", "email"), ("suppressions", "email_key")}
#: What people of the shop write themselves; they keep an address the shop uses as its own.
_AUTHORED = {"templates", "template_versions", "campaigns", "message_contents", "message_links", "segments", "tags",
             "workflows", "workflow_versions", "scoring_rules", "scoring_rule_versions", "automation_rules",
             "webhook_endpoints", "inbound_sources", "api_keys", "audit_log"}  # fmt: skip
#: Columns that go as a whole when the person is found in their row, by an address or here also by a name.
_WHOLE = {("import_rejects", "value"): "", ("idempotency_keys", "body"): '{"erased": true}'}
_WORDED = {"import_rejects"}
_READ = {"bytea": "encode({}, 'escape')", "text": "{}", "varchar": "{}"}
_WRITE = {"bytea": "decode({}, 'escape')", "json": "cast({} as json)", "jsonb": "cast({} as jsonb)",
          "_text": "cast({} as text[])"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Table:
    schema: str
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    has_contact: bool
    made_at: str | None

    @property
    def quoted(self) -> str:
        return f'"{self.schema}"."{self.name}"'

    def expressions(self) -> list[str]:
        """Each column as text."""
        pairs = zip(self.columns, self.types, strict=True)
        return [_READ.get(kind, "cast({} as text)").format(f'"{column}"') for column, kind in pairs]


def sweep(engine: Engine, searches: Sequence[Search]) -> dict[int, Counter[str]]:
    """Search everything once for all `searches`; returns rows changed by erasure and table.

    A table is one transaction, so what was cleaned stays clean when a later one fails.
    """
    counts: dict[int, Counter[str]] = {search.erasure_id: Counter() for search in searches}
    with engine.connect() as connection:
        found = [_table(row) for row in connection.execute(statement("privacy.text_columns"))]
    for table in (one for one in found if one.name not in _SKIPPED and one.columns):
        with engine.begin() as tx:
            for row in _suspects(tx, table, searches):
                for erasure_id in _clean(tx, table, row, searches):
                    counts[erasure_id][table.name] += 1
    return counts


def _table(row: Row[Any]) -> _Table:
    pairs = [
        (column, kind) for column, kind in zip(row.columns, row.types, strict=True)
        if (row.table_name, column) not in _KEPT
    ]  # fmt: skip
    return _Table(
        schema=row.schema_name, name=row.table_name, columns=tuple(column for column, _ in pairs),
        types=tuple(kind for _, kind in pairs), has_contact=row.has_contact, made_at=row.made_at,
    )  # fmt: skip


def _suspects(tx: Connection, table: _Table, searches: Iterable[Search]) -> Sequence[Row[Any]]:
    """Rows with a text that may be an address looked for, locked, each with its place."""
    likes = {like(form) for search in searches for form in search.traces.spellings}
    if table.name in _WORDED:
        likes |= {like(word) for search in searches for word in search.traces.words}
    shown = [f"{expression} as c{n}" for n, expression in enumerate(table.expressions())]
    shown.append("contact_id" if table.has_contact else "null as contact_id")
    shown.append(f'"{table.made_at}" as made_at' if table.made_at else "null as made_at")
    matches = " or ".join(f"lower({one}) like any(cast(:likes as text[]))" for one in table.expressions())
    # Names come from the catalog and are quoted; what is looked for is bound.
    shown += ["cast(tableoid as bigint) as part", "cast(ctid as text) as place"]
    query = f"select {', '.join(shown)} from {table.quoted} where {matches} for update"  # noqa: S608
    return tx.execute(text(query), {"likes": sorted(likes)}).all()


def _clean(tx: Connection, table: _Table, row: Row[Any], searches: Iterable[Search]) -> list[int]:
    """Take the addresses out of one row; returns the erasures they belonged to."""
    before = {column: getattr(row, f"c{n}") for n, column in enumerate(table.columns)}
    after, touched = dict(before), list[int]()
    for search in searches:
        if not _may_touch(search, table, row):
            continue
        cleaned = _without(search, table, after)
        if cleaned != after:
            after = cleaned
            touched.append(search.erasure_id)
    changed = {column: value for column, value in after.items() if value != before[column]}
    if not changed:
        return []
    try:
        with tx.begin_nested():
            _write(tx, table, row, changed)
    except IntegrityError:
        # Two keys that differed by the spelling of the address only: they must go on differing.
        mark = secrets.token_hex(4)
        with tx.begin_nested():
            _write(tx, table, row, {
                column: re.sub(r"erased-\d+", lambda found: f"{found[0]}-{mark}", value) if value else value
                for column, value in changed.items()
            })  # fmt: skip
    return touched


def _may_touch(search: Search, table: _Table, row: Row[Any]) -> bool:
    if search.is_own and table.name in _AUTHORED:
        return False
    if not search.living:
        return True
    # The address was told again: what belongs to the new contact, or came later, is not what was to be erased.
    return row.contact_id not in search.living and not (row.made_at and row.made_at >= search.requested_at)


def _without(search: Search, table: _Table, values: dict[str, Any]) -> dict[str, Any]:
    texts = [value for value in values.values() if value]
    words = search.words if table.name in _WORDED else None
    if not any(search.holds(value) or (words and words.search(value)) for value in texts):
        return values
    return {
        column: _WHOLE.get((table.name, column), search.cleaned(value)) if value else value
        for column, value in values.items()
    }  # fmt: skip


def _write(tx: Connection, table: _Table, row: Row[Any], changed: dict[str, Any]) -> None:
    kinds = dict(zip(table.columns, table.types, strict=True))
    parts = [
        f'"{column}" = ' + _WRITE.get(kinds[column], "{}").format(f":v{n}") for n, column in enumerate(changed)
    ]
    values = {f"v{n}": value for n, value in enumerate(changed.values())}
    update = f"update {table.quoted} set {', '.join(parts)} where tableoid = :part and ctid = cast(:place as tid)"  # noqa: S608
    tx.execute(text(update), {**values, "part": row.part, "place": row.place})


def like(form: str) -> str:
    """The pattern that finds `form` within a text."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", form) + "%"
