"""Relations of schema `analytics`, whatever there are: what their rows stand for, and their rows with simple filters.

Promise: names come from the database's catalogue and never from who asks, values are always binds, and reading happens
with the rights of an analyst, read only, for ten seconds at most. Rows come in one order - by date, then by what makes
a row one - so that a page goes on where the one before it ended. Called by the API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    TableClause,
    and_,
    column,
    false,
    func,
    literal,
    or_,
    select,
    table,
)
from sqlalchemy.types import BigInteger, Boolean, Date, DateTime, Numeric, Text, TypeEngine

from mautolib.contacts.export import guarded
from mautolib.db.engine import Tx
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput, NotFound
from mautolib.events.money import amount_text, rate_text
from mautolib.segments.reading import reading

__all__ = ["Cells", "Relation", "csv_lines", "get", "listed", "newest", "position", "reading_views", "rows", "shown"]

TIMEOUT_MS: Final = 10_000
_ROLE: Final = "mauto_analyst"
_TOO_SLOW: Final = ("Reading this takes longer than {seconds:g} seconds; name one row by a filter, or shorten the time "
                    "with from and to")  # fmt: skip
_REFRESHED: Final = "refreshed_at"
#: Comments begin "One row per <grain>" and go on with what is true of it.
_GRAIN: Final = re.compile(
    "One row per (.+?)(?=[.:;]|, (?:as|without|with|which|all) | in which | that | mail was |$)"
)
#: What types are called here; the database's own names are longer.
_SHORT: Final = {"timestamp with time zone": "timestamptz", "integer": "int", "boolean": "bool",
                 "double precision": "float8"}  # fmt: skip
_KINDS: Final[dict[str, TypeEngine[Any]]] = {
    "bigint": BigInteger(), "int": BigInteger(), "smallint": BigInteger(), "text": Text(), "date": Date(),
    "timestamptz": DateTime(timezone=True), "bool": Boolean(),
}  # fmt: skip
#: Words of a grain that no column is called by.
_MEANS: Final = {"day": "as_of", "customer": "contact_id", "person": "contact_id"}
_BIGGEST: Final = 2**63 - 1
#: Amounts and exchange rates; other numbers are rates, averages and weights.
_MONEY: Final = re.compile(r"numeric(?:\((?:18|19),4\))?")
_EXCHANGE: Final = re.compile(r"numeric\(18,8\)")

#: The values of one row by column.
Cells = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A view or table: its columns with their types, and which of them say what one row stands for.

    `date_column` is the time a row belongs to, if it has any; `is_stored` that it was computed some time ago.
    """

    name: str
    grain: str
    columns: Mapping[str, str]
    grain_columns: tuple[str, ...]
    date_column: str | None
    is_stored: bool

    @property
    def order(self) -> tuple[str, ...]:
        """The columns rows are ordered by."""
        first = (self.date_column,) if self.date_column else ()
        return first + tuple(name for name in self.grain_columns if name != self.date_column)


@contextmanager
def reading_views(engine: Engine) -> Iterator[Connection]:
    """A transaction with the rights of an analyst: read only, and a statement for ten seconds at most.

    Raises:
        InvalidInput: a statement took longer; says what to do.
    """
    with reading(engine, timeout_ms=TIMEOUT_MS, path=("query",), role=_ROLE, too_slow=_TOO_SLOW) as tx:
        yield tx


def listed(tx: Tx) -> list[Relation]:
    """Every relation there is, by name."""
    return [_relation(row) for row in tx.execute(statement("analytics_api.relations"), {"view": None})]


def get(tx: Tx, name: str) -> Relation:
    """One relation.

    Raises:
        NotFound: no such relation.
    """
    row = tx.execute(statement("analytics_api.relations"), {"view": name}).first()
    if row is None:
        raise NotFound("View not found")
    return _relation(row)


def newest(tx: Tx, relation: Relation, *, now: datetime) -> datetime | None:
    """When the newest row was computed; `now` for what is counted while it is read, None while a table is empty."""
    if not relation.is_stored or _REFRESHED not in relation.columns:
        return now
    found: datetime | None = tx.scalar(select(func.max(_column(relation, _REFRESHED))).select_from(_source(relation)))
    return found


def rows(
    tx: Tx, relation: Relation, *, filters: Mapping[str, str], from_: date | None, to: date | None, limit: int,
    skip: int = 0, after: Sequence[Any] | None = None, count_limit: int,
) -> tuple[list[Cells], int]:
    """Rows in their order, at most `limit` + 1 of them, and how many there are, counted up to `count_limit` + 1.

    Args:
        filters: columns of the grain and the value each must have, as written by who asks.
        from_, to: first and last UTC day of the date column.
        after: the position of the row before the first one, see `position`.
    Raises:
        InvalidInput: another column, or a value it cannot have; names the columns there are.
    """  # fmt: skip
    source = _source(relation)
    wanted = [*_equal(relation, filters), *_between(relation, from_, to)]
    query = select(*[_column(relation, name) for name in relation.columns]).select_from(source).where(*wanted)
    if after is not None:
        query = query.where(_behind(relation, after))
    keys = [_column(relation, name).asc().nulls_last() for name in relation.order]
    found = tx.execute(query.order_by(*keys).limit(limit + 1).offset(skip or None)).mappings()
    kept: list[Cells] = [dict(row) for row in found]
    if after is None and len(kept) <= limit and (kept or not skip):
        # All of them, or the last: nothing is counted twice, which takes seconds where a view counts live.
        return kept, skip + len(kept)
    matching = select(literal(1)).select_from(source).where(*wanted).limit(count_limit + 1).subquery()
    return kept, int(tx.scalar(select(func.count()).select_from(matching)) or 0)


def position(relation: Relation, row: Cells) -> list[Any]:
    """Where a row stands, as JSON can hold it."""
    return [None if row[name] is None else _written(row[name]) for name in relation.order]


def shown(relation: Relation, row: Cells) -> dict[str, Any]:
    """A row as JSON: ids and money as text, everything else as what it is."""
    return {name: _shown(name, relation.columns[name], value) for name, value in row.items()}


def csv_lines(relation: Relation, found: Sequence[Cells]) -> Iterator[bytes]:
    """Rows as CSV with a header, safe to open in a spreadsheet, some hundred at a time; lists are parted by `|`."""
    yield (",".join(relation.columns) + "\r\n").encode()
    for start in range(0, len(found), 500):
        part = found[start : start + 500]
        yield "".join([",".join([_cell(row[name]) for name in relation.columns]) + "\r\n" for row in part]).encode()


def _relation(row: Any) -> Relation:
    columns = {name: _SHORT.get(kind, kind.replace("character(", "char(")) for name, kind in
               zip(row.names, row.types, strict=True)}  # fmt: skip
    match = _GRAIN.match(row.description)
    grain = match.group(1) if match else row.view
    keys = tuple(row.key_columns or ()) or _named(grain, columns)
    dates = [name for name, kind in columns.items() if kind in ("date", "timestamptz") and name != _REFRESHED]
    own = [name for name in keys if name in dates]
    return Relation(
        name=row.view, grain=grain, columns=columns, grain_columns=keys, date_column=next(iter(own + dates), None),
        is_stored=row.is_stored,
    )  # fmt: skip


def _named(grain: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that the words of a grain mean: "contact and ISO week" is contact_id and week_start."""
    found = []
    for phrase in re.split(r", | and ", grain):
        for word in reversed(re.findall(r"[a-z]+", phrase.partition(" of ")[0].lower())):
            tries = (f"{word}_id", word, f"{word}_start", f"{word}_path", f"{word}_from", _MEANS.get(word, ""))
            name = next((name for name in tries if name in columns), None)
            if name is not None:
                found.append(name)
                break
    return tuple(dict.fromkeys(found))


def _source(relation: Relation) -> TableClause:
    return table(relation.name, schema="analytics")


def _column(relation: Relation, name: str) -> ColumnElement[Any]:
    if name not in relation.columns:
        raise KeyError(name)
    found: ColumnElement[Any] = column(name)
    return found


def _bound(relation: Relation, name: str, given: Any) -> ColumnElement[Any]:
    """A value as a bind of the column's type.

    Raises:
        ValueError: the column cannot have it.
    """
    kind = relation.columns[name]
    kind = "text" if kind.startswith(("char(", "character varying")) else kind
    given = str(given)
    value: Any = given
    if kind in ("bigint", "int", "smallint"):
        if not re.fullmatch(r"-?[0-9]{1,19}", given, re.ASCII) or abs(int(given)) > _BIGGEST:
            raise ValueError("is not a number of an id or count")
        value = int(given)
    elif kind == "date":
        value = date.fromisoformat(given)
    elif kind == "timestamptz":
        value = datetime.fromisoformat(given)
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
    elif kind == "bool":
        value = {"true": True, "false": False}[given.lower()]
    elif kind.startswith("numeric"):
        value = Decimal(given)
    elif kind != "text":
        raise ValueError("cannot be compared")
    return literal(value, _KINDS.get(kind, Numeric()))


def _equal(relation: Relation, filters: Mapping[str, str]) -> Iterator[ColumnElement[bool]]:
    for name, given in filters.items():
        if name not in relation.grain_columns:
            known = ", ".join(relation.grain_columns)
            raise InvalidInput(f"{relation.name} has no such filter; there are {known}", path=("query", name))
        try:
            yield _column(relation, name) == _bound(relation, name, given)
        except (ValueError, KeyError, ArithmeticError, OverflowError):
            raise InvalidInput(f"is not a value of type {relation.columns[name]}", path=("query", name)) from None


def _between(relation: Relation, from_: date | None, to: date | None) -> Iterator[ColumnElement[bool]]:
    for name, day in (("from", from_), ("to", to)):
        if day is None:
            continue
        if relation.date_column is None:
            raise InvalidInput(f"{relation.name} has no date; leave {name} out", path=("query", name))
        moment = _column(relation, relation.date_column)
        is_day = relation.columns[relation.date_column] == "date"
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if name == "from":
            yield moment >= (literal(day, Date()) if is_day else literal(start, DateTime(timezone=True)))
        elif is_day:
            yield moment <= literal(day, Date())
        else:
            yield moment < literal(start + timedelta(days=1), DateTime(timezone=True))


def _behind(relation: Relation, after: Sequence[Any]) -> ColumnElement[bool]:
    """The rows that come later than a position; null comes last."""
    if len(after) != len(relation.order):
        raise InvalidInput("This cursor was not made for this list and these filters", path=("query", "cursor"))
    alternatives: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for name, given in zip(relation.order, after, strict=True):
        own = _column(relation, name)
        if given is None:
            alternatives.append(and_(*same, false()))
            same.append(own.is_(None))
            continue
        value = _bound(relation, name, given)
        alternatives.append(and_(*same, or_(own > value, own.is_(None))))
        same.append(own == value)
    return or_(*alternatives)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


def _shown(name: str, kind: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Decimal):
        if _EXCHANGE.fullmatch(kind):
            return rate_text(value)
        return amount_text(value) if _MONEY.fullmatch(kind) else float(value)
    if isinstance(value, datetime):
        return _written(value)
    return str(value) if kind == "bigint" and name.endswith("_id") else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        value = "|".join(str(one).replace("\\", "\\\\").replace("|", "\\|") for one in value)
    cell = guarded(value) if isinstance(value, str) else _written(value)
    return '"' + cell.replace('"', '""') + '"' if re.search(r'[",\r\n]', cell) else cell
