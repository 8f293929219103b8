"""A file of orders in temporary tables: its rows by COPY, grouped to orders by one statement, rejected rows as CSV.

Memory stays flat whatever the file: rows wait in the database, and rejected rows are read from the file again to be
written as they were. An order of which one row is not acceptable is not taken at all (its total would be wrong): its
other rows are rejected with it, so that the rejected file can be corrected and imported. Called by `order_loading`.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from mautolib.contacts.imports.reading import CsvFile, Record
from mautolib.db.copy import copy_rows
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.ingestion.order_rows import COLUMNS, BadCell, RowReader

__all__ = ["MAX_LINES", "REJECT_COLUMNS", "Stager", "open_tables", "reject_rows", "write_rejects"]

#: Orders of more lines are most likely no orders.
MAX_LINES: Final = 10_000
REJECT_COLUMNS: Final = ("rejected_line", "rejected_field", "problem", "what_to_do")
_TABLES = ("order_import_lines", "order_import_orders", "order_import_problems")
_AT_ONCE = 2000
#: More is not a file with mistakes, but a mistaken file.
MAX_PROBLEMS: Final = 100_000
_RISKY = re.compile(r"'*[=+\-@\t\r\uff1d]")
_NUMBER = re.compile(r"[+\-]?[0-9 ().,\-]*")
#: Of an order as a whole: field, what is wrong, what to do.
_REASONS: Final[dict[str, tuple[str, str, str]]] = {
    "incomplete": ("order_id", "another row of this order is rejected, so that its total would be wrong",
                   "correct that row"),
    "placed_at": ("placed_at", "no row of this order says when it was placed", "write the date into one of its rows"),
    "too_many_lines": ("order_id", f"the order has more than {MAX_LINES} rows", "is this the number of an order?"),
    "customer": ("customer_id", "the rows of this order name different customers", "give each order one customer"),
    "currency": ("currency", "the rows of this order name different currencies", "split it into one order for each"),
    "no_currency": ("currency", "the currency is not known", "name it with --currency"),
    "amounts": ("total", "the rows of this order name different totals, discounts, shipping, taxes or refunds",
                "write them into one row, or the same into each"),
    "no_total": ("total", "neither a total nor a price is known", "write the total or the prices"),
    "too_much": ("total", "the total has more than 15 digits", "correct the amounts"),
    "conflict": ("order_id", "an order of this number is known with other content", "compare it with the stored one; "
                 "orders of another shop need another --source"),
}  # fmt: skip


def open_tables(tx: Connection) -> None:
    """Make the temporary tables of one file; they go with the connection."""
    for name in _TABLES:
        tx.exec_driver_sql(f"drop table if exists pg_temp.{name}")
        tx.exec_driver_sql(f"create temporary table {name} (like public.{name})")


class Stager:
    """Stages the rows of a file; counts what was read.

    Args:
        leaves_free: rows whose price is not above zero are left out.
        progress: told the rows read so far, now and then.
    """

    def __init__(
        self, file: CsvFile, reader: RowReader, *, leaves_free: bool, progress: Callable[[int], None]
    ) -> None:
        self._file, self._reader, self._progress = file, reader, progress
        self._leaves_free = leaves_free
        self.row_count, self.free_count = 0, 0
        self._problems: list[tuple[object, ...]] = []

    def stage(self, tx: Connection) -> None:
        """COPY all rows, then what is wrong with some of them."""
        copy_rows(tx, "order_import_lines", COLUMNS, self._rows())
        self._note(tx)
        tx.exec_driver_sql("analyze order_import_lines")

    def _rows(self) -> Iterator[Sequence[object]]:
        for line, cells in self._file.records():
            self.row_count += 1
            if self.row_count % 100_000 == 0:
                self._progress(self.row_count)
            try:
                row = self._read(line, cells)
            except BadCell as bad:
                self._reject(line, cells, bad)
                continue
            if row is not None:
                yield row

    def _read(self, line: int, cells: list[str] | str) -> tuple[object, ...] | None:
        if isinstance(cells, str):
            raise BadCell("row", "a quote is opened and never closed", "close or remove the quote")
        if len(cells) != len(self._file.header):
            problem = f"the row has {len(cells)} cells and the header {len(self._file.header)}"
            raise BadCell("row", problem, "put cells with a delimiter in quotes")
        if self._file.is_suspect and any(self._file.unclean.search(cell) for cell in cells):
            raise BadCell("row", f"a cell has bytes that are not {self._file.encoding}", "name it with --encoding")
        row = self._reader.read(line, cells)
        if self._leaves_free and self._reader.is_free(cells):
            self.free_count += 1
            return None
        return row

    def _reject(self, line: int, cells: list[str] | str, bad: BadCell) -> None:
        self._problems.append((line, self._order_of(cells), bad.field, bad.problem, bad.advice))
        if len(self._problems) > MAX_PROBLEMS:
            raise InvalidInput(f"More than {MAX_PROBLEMS} rows are not acceptable; line {self._problems[0][0]}: "
                               f"{self._problems[0][3]}. Is the mapping right?", line=line)  # fmt: skip

    def _order_of(self, cells: list[str] | str) -> str | None:
        """The order of a row that is not acceptable, as far as it can be told: it is not taken without the row."""
        if isinstance(cells, str):
            cells = getattr(cells, "cells", [])
        if len(cells) != len(self._file.header) or any(map(self._file.unclean.search, cells)):
            return None
        try:
            order_id = self._reader.order_id(cells)
        except BadCell:
            return None
        return order_id

    def _note(self, tx: Connection) -> None:
        columns = ("line", "order_id", "field", "problem", "advice")
        copy_rows(tx, "order_import_problems", columns, self._problems)
        tx.exec_driver_sql("analyze order_import_problems")


def reject_rows(tx: Connection) -> None:
    """Reject the rows of orders that are not taken as a whole."""
    names = ("field", "problem", "advice")
    reasons = {code: dict(zip(names, reason, strict=True)) for code, reason in _REASONS.items()}
    tx.execute(statement("order_imports.reject_rows"), {"reasons": json.dumps(reasons)})


def write_rejects(tx: Connection, file: CsvFile, path: Path) -> int:
    """Write the rejected rows as they are in the file, each with its line, field, problem and what to do.

    Args:
        file: the same file, opened again.
    Returns: how many rows were written.
    """
    found = _problems(tx)
    wanted: Any = next(found, None)
    count = 0
    # They are personal data: for nobody but the one who loads.
    with open(path, "w", encoding="utf-8", newline="", opener=_private) as opened:
        writer = csv.writer(opened)
        writer.writerow([*REJECT_COLUMNS, *map(_guarded, file.header)])
        records: Iterator[Record] = file.records()
        while wanted is not None:
            record = next(records, None)
            if record is None:
                break
            line, cells = record
            if line != wanted.line:
                continue
            cells = getattr(cells, "cells", None) or [cells] if isinstance(cells, str) else cells
            told = (wanted.line, wanted.field, wanted.problem, wanted.advice)
            writer.writerow([*map(_guarded, map(str, told)), *map(_guarded, cells)])
            count += 1
            wanted = next(found, None)
    return count


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _problems(tx: Connection) -> Iterator[Any]:
    after = 0
    while True:
        rows = tx.execute(statement("order_imports.problems"), {"after": after, "limit": _AT_ONCE}).all()
        if not rows:
            return
        yield from islice(rows, _AT_ONCE)
        after = rows[-1].line


def _guarded(cell: str) -> str:
    """What a spreadsheet would run as a formula gets a `'`, which reading takes off again; numbers are none."""
    cell = cell.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return f"'{cell}" if _RISKY.match(cell) and not _NUMBER.fullmatch(cell) else cell
