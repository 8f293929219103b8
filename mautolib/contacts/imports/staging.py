"""Where the rows of a background import wait for their merge: an unlogged table of its own, filled under checkpoints.

Promises that a checkpoint never says more than its table holds (one transaction, and a crash of the database empties
both), that a worker which lost its import keeps nothing, and that a checkpoint is used only for the file, options and
program it was made with. Called by `filling` and `running`; maintenance drops what was left behind.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, func, select

from mautolib.contacts.imports.model import ImportOptions
from mautolib.db.copy import copy_chunks
from mautolib.db.statements import statement

__all__ = ["Checkpoint", "Reached", "begin", "copy", "drop_rows", "find", "forget_left_behind", "keep"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a file was read: parts and rows, the line the last row begins on, and whether that was all."""

    parts: int = 0
    rows: int = 0
    line: int = 0
    is_whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is kept of an import.

    Args:
        table: holds the rows of the file up to `reached`.
        fingerprint: of the file and of how it is read.
        columns: of `import_rows` that the file has.
        blank_language: what a blank language cell stands for.
        options: the import's, with what was found in the file.
    """

    table: str
    fingerprint: str
    columns: tuple[str, ...]
    blank_language: str
    options: ImportOptions
    reached: Reached


def find(tx: Connection, import_id: int) -> Checkpoint | None:
    """What is kept of an import; None when nothing is, or when its table holds something else than it should."""
    row = tx.execute(statement("staging.checkpoint"), {"import_id": import_id}).one_or_none()
    if row is None:
        return None
    # Ours alone and named by `make_import_rows`.
    held = tx.exec_driver_sql(f"select count(*) from staging.{row.rows_table}").scalar_one()  # noqa: S608
    if held != row.row_count:
        _LOG.warning("import %s: %s holds %s rows, not %s", import_id, row.rows_table, held, row.row_count)
        return None
    return Checkpoint(
        table=row.rows_table, fingerprint=row.fingerprint, columns=tuple(row.columns),
        blank_language=row.blank_language, options=ImportOptions.parse(row.options),
        reached=Reached(parts=row.part_count, rows=row.row_count, line=row.last_line, is_whole=row.is_whole),
    )  # fmt: skip


def begin(
    tx: Connection, keys: Mapping[str, int], *, fingerprint: str, columns: Sequence[str], blank_language: str,
    options: ImportOptions,
) -> Checkpoint | None:  # fmt: skip
    """Make an empty table for the rows of an import; None when another worker has the import: roll back, then.

    Args:
        keys: `import_id` and `attempt_id`.
    """
    drop_rows(tx, keys["import_id"])
    table = tx.scalar(statement("staging.begin"), {
        **keys, "fingerprint": fingerprint, "columns": list(columns), "blank_language": blank_language,
        "options": json.dumps(options.as_json()),
    })  # fmt: skip
    if table is None:
        return None
    return Checkpoint(table=table, fingerprint=fingerprint, columns=tuple(columns), blank_language=blank_language,
                      options=options, reached=Reached())  # fmt: skip


def copy(tx: Connection, kept: Checkpoint, chunks: Iterator[bytes]) -> int:
    """COPY chunks of ready-made lines (tab-separated, escaped, blank for null) behind those kept; returns the rows."""
    into = f"copy staging.{kept.table} ({', '.join(kept.columns)}) from stdin with (null '')"
    return copy_chunks(tx, into, chunks)


def keep(tx: Connection, keys: Mapping[str, int], kept: Checkpoint, reached: Reached) -> Checkpoint | None:
    """Move the checkpoint behind the rows copied in this transaction; None when another worker has the import."""
    binds = {
        **keys, "rows_table": kept.table, "part_count": reached.parts, "row_count": reached.rows,
        "last_line": reached.line, "is_whole": reached.is_whole,
    }  # fmt: skip
    is_mine = tx.execute(statement("staging.keep"), binds).rowcount == 1
    return replace(kept, reached=reached) if is_mine else None


def drop_rows(tx: Connection, import_id: int) -> None:
    """Drop what is kept of an import; a table that a worker still reads (it lost the import) is left to maintenance."""
    tx.execute(statement("staging.limit_lock_waits"))
    for row in tx.execute(statement("staging.drop_rows"), {"import_id": import_id}).all():
        if not row.is_gone:
            _LOG.warning("import %s: %s is in use; maintenance drops it", import_id, row.relname)


def forget_left_behind(engine: Engine) -> int:
    """Drop what is kept of imports that are over or gone (their worker was killed in between); returns the tables."""
    with engine.begin() as tx:
        found = tx.execute(statement("staging.left_behind")).all()
    dropped = 0
    for row in found:
        with engine.begin() as tx:
            tx.execute(statement("staging.limit_lock_waits"))
            is_gone = tx.execute(select(func.drop_import_rows(row.relname))).scalar_one()
        _LOG.info("rows of an import (%s) in %s: %s", row.status, row.relname, "dropped" if is_gone else "in use")
        dropped += is_gone
    with engine.begin() as tx:
        tx.execute(statement("staging.forget_checkpoints"))
    return dropped
