"""Rows of a query as Parquet files: COPY text read column by column by Arrow, with the types the database has.

Promise: nothing is rounded (money is decimal, moments are microseconds in UTC), and memory is bounded by a row group
whatever the table has. Called by `exporting`; what a file is named and where it goes is decided there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Select, String, cast, func, literal_column, select
from sqlalchemy.dialects import postgresql

from mautolib.db.copy import copy_out
from mautolib.db.engine import Tx

if TYPE_CHECKING:
    import pyarrow

#: Text gathered before Arrow reads it, and rows of a row group.
_BLOCK_BYTES: Final = 4 << 20
_GROUP_ROWS: Final = 1 << 17
_NUMERIC: Final = re.compile(r"numeric\((\d+),(\d+)\)")


def schema_of(columns: Mapping[str, str]) -> pyarrow.Schema:
    """The types of a file for columns with their types in the database; what Arrow has no type for becomes text."""
    import pyarrow as pa

    kinds = {
        "bigint": pa.int64(), "int": pa.int32(), "smallint": pa.int16(), "bool": pa.bool_(), "float8": pa.float64(),
        "date": pa.date32(), "timestamptz": pa.timestamp("us", "UTC"), "text[]": pa.list_(pa.string()),
    }  # fmt: skip

    def kind_of(name: str) -> pyarrow.DataType:
        exact = _NUMERIC.fullmatch(name)
        if exact and int(exact[1]) <= 38:
            return pa.decimal128(int(exact[1]), int(exact[2]))
        return kinds.get(name, pa.string())

    return pa.schema([(name, kind_of(kind)) for name, kind in columns.items()])


def asked(columns: Mapping[str, str], column: Callable[[str], ColumnElement[Any]]) -> Select[Any]:
    """The query whose rows `stream` can read; lists travel as JSON."""
    wanted = []
    for name, kind in columns.items():
        is_list = kind == "text[]"
        wanted.append(cast(func.json_build_object(literal_column("'v'"), column(name)), String) if is_list
                      else column(name))  # fmt: skip
    return select(*wanted)


def stream(tx: Tx, query: Select[Any], schema: pyarrow.Schema, take: Callable[[pyarrow.Table], None]) -> None:
    """Run a query of `asked` and hand its rows on in their order, some ten thousand at a time."""
    # Parameters by name, so that a percent sign is one; the values of days are written into the text.
    text = query.compile(dialect=postgresql.dialect(paramstyle="named"), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
    lines: list[bytes] = []
    size = 0

    def gather(line: bytes) -> None:
        # The server sends a message for each row, never part of one.
        nonlocal size
        lines.append(line)
        size += len(line)
        if size >= _BLOCK_BYTES:
            take(_table(b"".join(lines), schema))
            lines.clear()
            size = 0

    copy_out(tx, f"copy ({text}) to stdout (format csv)", gather)
    if lines:
        take(_table(b"".join(lines), schema))


def _table(content: bytes, schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow as pa
    from pyarrow import csv

    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    table = csv.read_csv(
        io.BytesIO(content),
        read_options=csv.ReadOptions(column_names=schema.names, use_threads=False, block_size=len(content) + 1),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        # Null is nothing at all; an empty text stands in quotes.
        convert_options=csv.ConvertOptions(
            column_types={field.name: pa.string() if field.name in lists else field.type for field in schema},
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
            true_values=["t"], false_values=["f"],
        ),
    )  # fmt: skip
    for name in lists:
        place = schema.get_field_index(name)
        table = table.set_column(place, schema.field(place), _lists(table.column(place), schema.field(place)))
    return table


def _lists(texts: pyarrow.ChunkedArray, field: pyarrow.Field) -> pyarrow.ChunkedArray:
    import pyarrow as pa
    from pyarrow import json

    told = pa.schema([("v", field.type)])
    content = "\n".join(texts.to_pylist()).encode()
    options = json.ReadOptions(use_threads=False, block_size=len(content) + 1)
    return json.read_json(
        io.BytesIO(content), read_options=options, parse_options=json.ParseOptions(explicit_schema=told)
    ).column("v")


class PartWriter:
    """One Parquet file on this machine, written a row group at a time."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        from pyarrow import parquet

        self.path = path
        self._waiting: list[pyarrow.Table] = []
        self._waiting_rows = 0
        self._writer = parquet.ParquetWriter(path, schema, compression="zstd")

    def add(self, table: pyarrow.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """End the file."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """End without what is still to be written, and remove the file."""
        self._writer.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=2 * _GROUP_ROWS)
        self._waiting, self._waiting_rows = [], 0


def by_day(table: pyarrow.Table, column: str) -> Sequence[tuple[Any, pyarrow.Table]]:
    """Rows that are sorted by a date or moment, cut where a UTC day ends."""
    import pyarrow as pa

    days = table.column(column).cast(pa.date32()).value_counts()
    parts, start = [], 0
    for one in days.to_pylist():
        parts.append((one["values"], table.slice(start, one["counts"])))
        start += one["counts"]
    return parts
