"""COPY in and out: the only way rows travel in bulk (250-500k rows/s, against 8k for `to_sql`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, Protocol, cast

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

#: Bytes handed to the driver at a time; each costs a call, and more than this gains nothing.
_SIZE = 1 << 18
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class _Copier(Protocol):
    rowcount: int

    def copy_expert(self, sql: str, file: IO[Any], size: int = 8192) -> None: ...

    def close(self) -> None: ...


def encode_row(values: Sequence[object]) -> str:
    """One line of COPY text format; `None` is NULL. NUL characters cannot be stored and raise ValueError."""
    cells = []
    for value in values:
        if value is None:
            cells.append("\\N")
            continue
        cell = value if isinstance(value, str) else str(value)
        if "\0" in cell:
            raise ValueError("PostgreSQL text cannot hold a NUL character")
        cells.append(cell.translate(_ESCAPES))
    return "\t".join(cells) + "\n"


class _Stream(io.RawIOBase):
    """A readable file over an iterator of byte chunks, so that nothing is held in memory."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        #: What is left of the chunk at hand; a view, because cutting bytes copies all of the rest each time.
        self._rest = memoryview(b"")
        #: What the source of the rows raised; the driver would only say that the COPY was cancelled.
        self.problem: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, nothing at the end."""
        while not self._rest:
            try:
                chunk = next(self._chunks, None)
            except BaseException as error:
                self.problem = error
                raise
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        block = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(block) :]
        return bytes(block)


def copy_rows(tx: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Stream `rows` into `table` inside the caller's transaction.

    Args:
        table: trusted name, schema-qualified where needed (never from a request).
        columns: trusted column names, in the order of each row's values.
    Returns: the number of rows written.
    """

    def chunks() -> Iterator[bytes]:
        lines: list[str] = []
        for row in rows:
            lines.append(encode_row(row))
            if len(lines) >= 2000:
                yield "".join(lines).encode()
                lines.clear()
        yield "".join(lines).encode()

    return copy_chunks(tx, f"copy {table} ({', '.join(columns)}) from stdin", chunks())


def copy_chunks(tx: Connection, sql: str, chunks: Iterator[bytes]) -> int:
    """Feed ready-made bytes to a `copy ... from stdin` statement; returns the number of rows written.

    Raises whatever `chunks` raises; what the server refuses comes as SQLAlchemy's DBAPIError, as elsewhere.
    """
    cursor, stream = _cursor(tx), _Stream(chunks)
    try:
        cursor.copy_expert(sql, cast(IO[Any], stream), _SIZE)
        return cursor.rowcount
    except psycopg2.Error as error:
        if stream.problem is not None:
            raise stream.problem from None
        raise DBAPIError.instance(
            sql, None, error, psycopg2.Error, hide_parameters=True, dialect=tx.dialect
        ) from error
    finally:
        cursor.close()


def copy_out(tx: Connection, sql: str, write: Callable[[bytes], object]) -> None:
    """Run `copy (...) to stdout` and hand each block of bytes to `write`."""

    class _Sink(io.RawIOBase):
        def write(self, data: Any) -> int:
            write(bytes(data))
            return len(data)

    cursor = _cursor(tx)
    try:
        cursor.copy_expert(sql, cast(IO[Any], _Sink()), 1 << 16)
    finally:
        cursor.close()


def _cursor(tx: Connection) -> _Copier:
    return cast(_Copier, tx.connection.cursor())
