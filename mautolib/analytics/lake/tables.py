"""One table on its way to the lake: its files compared with its rows, and those written again that differ.

Promise: rows come in one order, so that the same rows are the same file; a file is published only when it has all
rows of its day. Called by `exporting` inside its read-only transaction.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Date, cast, column, func, literal, select, table
from sqlalchemy.types import BigInteger, DateTime, Text

from mautolib.analytics.lake.manifest import Manifest
from mautolib.analytics.lake.parquet import PartWriter, asked, by_day, schema_of, stream
from mautolib.analytics.lake.targets import Target
from mautolib.analytics.readers_views import Relation
from mautolib.db.engine import Tx

if TYPE_CHECKING:
    import pyarrow

__all__ = ["DAYS", "Exported", "TableExport"]

#: Tables that are parted by UTC day, and the column that says which; all others are one file.
DAYS: Final[Mapping[str, str]] = {
    "attribution": "placed_at", "contact_period_activity": "week_start", "daily_email_metrics": "day",
    "deliverability_by_domain": "day", "fct_events": "occurred_at", "fct_messages": "queued_at",
    "fct_orders": "placed_at", "lifecycle_funnel": "as_of", "score_distribution": "as_of",
}  # fmt: skip
_PART: Final = "part-0.parquet"
#: The files that are ours; others in the folder are left alone.
_OWN: Final = re.compile(r"[a-z_0-9]+(?:/day=([0-9]{4}-[0-9]{2}-[0-9]{2}))?/part-0\.parquet")
#: When this changes, it is not worth a new file.
_NO_NEWS: Final = "refreshed_at"
#: Rows that one query fetches, days as a whole.
_CHUNK_ROWS: Final = 1_000_000

#: What a day's rows are (None: those of a table without days): `rows` and `fingerprint`.
Found = Mapping[date | None, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What became of one table: files it has now, files and rows written by this run, files removed."""

    table: str
    files: int
    written: int
    rows: int
    removed: int


class TableExport:
    """One table on its way to the target."""

    def __init__(self, tx: Tx, target: Target, relation: Relation, *, now: datetime) -> None:
        self._tx, self._target, self._relation, self._now = tx, target, relation, now
        self._day = DAYS.get(relation.name)
        self._manifest = Manifest(table=relation.name, columns=dict(relation.columns), partitioned_by=self._day)

    def export(self, from_: date | None, to: date | None, *, rewrite: bool, hasty_from: date | None) -> Exported:
        """Write what is not as it was, and remove what is no more.

        Args:
            from_, to: the days that are looked at; tables without days are looked at as a whole.
            rewrite: write files though nothing changed.
            hasty_from: instead of `from_`, where all days were looked at on this UTC day already.
        """
        manifest, target, today = self._manifest, self._target, self._now.astimezone(UTC).date()
        manifest.read(target)
        if hasty_from is not None and manifest.checked_on == today:
            from_ = hasty_from
        if self._day is None:
            from_ = to = None
        there = {name for name in target.names(self._relation.name) if _OWN.fullmatch(name)}
        found = self._fingerprints(from_, to)
        gone = {name for name in manifest.files.keys() | there if _is_within(name, from_, to)}
        gone -= {self._name(day) for day in found}
        self._forget(gone)
        for name in sorted(gone):
            target.remove(name)
        stale = [day for day, one in found.items()
                 if rewrite or self._name(day) not in there or manifest.files.get(self._name(day)) != one]  # fmt: skip
        for chunk in _chunks(stale, found):
            self._write(chunk, found)
        if from_ is None and to is None:
            manifest.checked_on = today
        manifest.write(target, now=self._now)
        return Exported(table=self._relation.name, files=len(manifest.files), written=len(stale),
                        rows=sum(found[day]["rows"] for day in stale), removed=len(gone))  # fmt: skip

    def _name(self, day: date | None) -> str:
        return f"{self._relation.name}/{_PART}" if day is None else f"{self._relation.name}/day={day}/{_PART}"

    def _fingerprints(self, from_: date | None, to: date | None) -> Found:
        row = func.row(*[column(name) for name in self._relation.columns if name != _NO_NEWS])
        figures = [func.count().label("rows"), func.sum(func.hash_record_extended(row, cast(0, BigInteger))).label("h")]
        source = table(self._relation.name, schema="analytics")
        if self._day is None:
            one = self._tx.execute(select(*figures).select_from(source)).one()
            return {None: {"rows": one.rows, "fingerprint": str(one.h)}}
        day = self._day_of().label("day")
        query = select(day, *figures).select_from(source).where(*self._between(from_, to)).group_by(day).order_by(day)
        return {one.day: {"rows": one.rows, "fingerprint": str(one.h)} for one in self._tx.execute(query)}

    def _day_of(self) -> ColumnElement[Any]:
        own: ColumnElement[Any] = column(str(self._day))
        return own if self._is_by_date else cast(func.timezone("UTC", own), Date())

    @property
    def _is_by_date(self) -> bool:
        return self._relation.columns[str(self._day)] == "date"

    def _between(self, from_: date | None, to: date | None) -> Iterator[ColumnElement[bool]]:
        own: ColumnElement[Any] = column(str(self._day))

        def start_of(day: date) -> ColumnElement[Any]:
            # As text: a moment that is written into a statement keeps its zone.
            if self._is_by_date:
                return cast(literal(str(day), Text()), Date())
            return cast(literal(datetime.combine(day, time(), UTC).isoformat(), Text()), DateTime(timezone=True))

        if from_ is not None:
            yield own >= start_of(from_)
        if to is not None:
            yield own < start_of(to + timedelta(days=1))

    def _forget(self, names: Collection[str]) -> None:
        """What is being replaced or removed is not vouched for meanwhile."""
        known = names & self._manifest.files.keys()
        for name in known:
            del self._manifest.files[name]
        if known:
            self._manifest.write(self._target, now=self._now)

    def _write(self, days: Sequence[date | None], found: Found) -> None:
        self._forget({self._name(day) for day in days})
        schema, day_column = schema_of(self._relation.columns), self._day
        # The folder says the day; a column of that name would say it twice.
        kept = [name for name in schema.names if not (day_column and name == "day")]
        parts = _Parts(self._target, self._name, schema_of({name: self._relation.columns[name] for name in kept}))

        def take(rows: pyarrow.Table) -> None:
            for day, part in by_day(rows, day_column) if day_column else [(None, rows)]:
                parts.add(day, part.select(kept))

        try:
            stream(self._tx, self._query(days), schema, take)
            if days == [None]:
                # A table without rows is a file without rows: its columns are known.
                parts.add(None, schema.empty_table().select(kept))
            parts.publish()
        finally:
            parts.abandon()
        self._manifest.files.update({self._name(day): found[day] for day in days})
        self._manifest.write(self._target, now=self._now)

    def _query(self, days: Sequence[date | None]) -> Any:
        relation, known = self._relation, [day for day in days if day is not None]
        query = asked(relation.columns, column).select_from(table(relation.name, schema="analytics"))
        if known:
            query = query.where(*self._between(known[0], known[-1]))
            if (known[-1] - known[0]).days + 1 > len(known):
                query = query.where(self._day_of().in_([cast(literal(str(day), Text()), Date()) for day in known]))
        order = [*([self._day] if self._day else []), *relation.grain_columns]
        return query.order_by(*[column(name) for name in dict.fromkeys(order)])


class _Parts:
    """The files of one query: rows come by day, so that one file is open at a time."""

    def __init__(self, target: Target, name_of: Any, schema: pyarrow.Schema) -> None:
        self._target, self._name_of, self._schema = target, name_of, schema
        self._writer: PartWriter | None = None
        self._day: date | None = None

    def add(self, day: date | None, rows: pyarrow.Table) -> None:
        """Add rows of a day; those of the day before are complete now."""
        if self._writer is not None and day != self._day:
            self.publish()
        if self._writer is None:
            self._writer, self._day = PartWriter(self._target.stage(), self._schema), day
        self._writer.add(rows)

    def publish(self) -> None:
        """Put the file at hand in its place."""
        if self._writer is not None:
            self._writer.close()
            self._target.publish(self._writer.path, self._name_of(self._day))
            self._writer = None

    def abandon(self) -> None:
        """Leave the file at hand, which may not have all its rows."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


def _is_within(name: str, from_: date | None, to: date | None) -> bool:
    """Whether a file is of the days looked at."""
    if from_ is None and to is None:
        return True
    match = _OWN.fullmatch(name)
    day = date.fromisoformat(match[1]) if match and match[1] else None
    return day is not None and (from_ is None or from_ <= day) and (to is None or day <= to)


def _chunks(days: Sequence[date | None], found: Found) -> Iterator[list[date | None]]:
    """Days in their order, as many as one query fetches."""
    chunk: list[date | None] = []
    rows = 0
    for day in days:
        if chunk and rows + found[day]["rows"] > _CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
        chunk.append(day)
        rows += found[day]["rows"]
    if chunk:
        yield chunk
