"""From a file to the table its rows wait in, a chunk and a checkpoint at a time.

Promises that a worker which takes over reads the file up to the last checkpoint without looking at a row twice, and
goes on from there with the same result; where the file or how it is read is another one, it begins anew. Called by
`running`; the database side is in `staging`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection

from mautolib import __version__
from mautolib.contacts.imports import staging
from mautolib.contacts.imports.files import OpenFile, Part, open_file
from mautolib.contacts.imports.memory import keep_freed_memory
from mautolib.contacts.imports.model import Import, ImportOptions
from mautolib.contacts.imports.staging import Checkpoint, Reached
from mautolib.settings import Settings

__all__ = ["LostImport", "fill"]

_LOG = logging.getLogger(__name__)
#: A chunk ends with the part that reaches either: what a kill costs at most, about half a second of work.
CHUNK_ROWS, CHUNK_BYTES = 50_000, 1 << 24


class LostImport(Exception):
    """The import is cancelled or another worker's; nothing was kept."""


def fill(
    connection: Connection, path: Path, request: Import, *, attempt_id: int, settings: Settings, now: datetime,
    heard: Callable[[int], None] = lambda rows: None,
) -> Checkpoint:  # fmt: skip
    """Read a file into a table of its own, from the last checkpoint on; returns the checkpoint behind its last row.

    Args:
        connection: outside of a transaction; each chunk is one.
        heard: called with the number of rows of each part that is new; raises to give up.

    Raises:
        InvalidInput: the file as a whole cannot be read, or a column has to be decided.
        LostImport: another worker has the import, or it is cancelled.
    """
    options = ImportOptions.parse(request.options)
    keys = {"import_id": request.import_id, "attempt_id": attempt_id}
    with connection.begin():
        kept = staging.find(connection, request.import_id)
    if kept is not None and kept.reached.is_whole:
        _LOG.info("import %s goes on with its merge: all %s rows are kept", request.import_id, kept.reached.rows)
        heard(kept.reached.rows)
        return kept
    keep_freed_memory()
    while True:
        # Of the first worker that took it: bounds hold for the whole file.
        with open_file(path, options, settings=settings, now=request.started_at or now) as file:
            parts, fingerprint = file.parts(), _fingerprint(file, request)
            if kept is None or kept.fingerprint != fingerprint:
                kept = _begun(connection, file, fingerprint, keys, is_again=kept is not None)
            elif not _passed_over(parts, kept.reached, heard):
                kept = None
                continue
            while not kept.reached.is_whole:
                kept = _next_chunk(connection, file, parts, kept, keys, heard)
            return kept


def _begun(
    connection: Connection, file: OpenFile, fingerprint: str, keys: dict[str, int], *, is_again: bool
) -> Checkpoint:
    if is_again:
        _LOG.warning("import %s begins anew: the file or how it is read has changed", keys["import_id"])
    with connection.begin():
        kept = staging.begin(
            connection, keys, fingerprint=fingerprint, columns=file.columns, blank_language=file.blank_language,
            options=file.options,
        )  # fmt: skip
        # Within the transaction: what it dropped was the other worker's.
        if kept is None:
            raise LostImport
    return kept


def _passed_over(parts: Iterator[Part], reached: Reached, heard: Callable[[int], None]) -> bool:
    """Read what is kept already; False when it is not what it was."""
    rows, line = 0, 0
    for part in islice(parts, reached.parts):
        heard(0)
        rows, line = rows + part.rows, part.last_line or line
    if (rows, line) != (reached.rows, reached.line):
        return False
    _LOG.info("%s rows are kept, the next line is read from %s on", rows, line)
    heard(rows)
    return True


def _next_chunk(
    connection: Connection, file: OpenFile, parts: Iterator[Part], kept: Checkpoint, keys: dict[str, int],
    heard: Callable[[int], None],
) -> Checkpoint:  # fmt: skip
    """One transaction: rows and the checkpoint behind them."""
    chunk = _Chunk(file, parts, kept.reached, heard)
    with connection.begin() as transaction:
        copied = staging.copy(connection, kept, chunk.lines())
        if kept.reached.rows + copied != chunk.reached.rows:
            raise AssertionError(f"{copied} rows were copied of {chunk.reached.rows - kept.reached.rows}")
        moved = staging.keep(connection, keys, kept, chunk.reached)
        if moved is None:
            transaction.rollback()
            raise LostImport
    return moved


class _Chunk:
    """The next parts of a file as lines of COPY, and how far they go."""

    def __init__(
        self, file: OpenFile, parts: Iterator[Part], reached: Reached, heard: Callable[[int], None]
    ) -> None:
        self._file, self._parts, self._heard = file, parts, heard
        self._begin, self.reached = reached, reached

    def lines(self) -> Iterator[bytes]:
        """The lines, part by part."""
        size = 0
        while self.reached.rows - self._begin.rows < CHUNK_ROWS and size < CHUNK_BYTES:
            part = next(self._parts, None)
            at = self.reached
            if part is None:
                self.reached = Reached(parts=at.parts, rows=at.rows, line=at.line, is_whole=True)
                return
            lines = self._file.stage(part)
            size += len(lines)
            self.reached = Reached(parts=at.parts + 1, rows=at.rows + part.rows, line=part.last_line or at.line)
            yield lines
            self._heard(part.rows)


def _fingerprint(file: OpenFile, request: Import) -> str:
    """Of the bytes (as far as the file system tells), the columns, the options, and the program."""
    told = [
        __version__, file.state, file.header, file.delimiter, file.encoding, file.columns, file.options.as_json(),
        str(request.started_at), request.storage_uri,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told, ensure_ascii=True).encode()).hexdigest()
