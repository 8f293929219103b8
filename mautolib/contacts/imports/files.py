"""A file at hand: its columns understood and its rows turned into lines of COPY, or taken whole in one transaction.

Promises that the same file gives the same result in the background (`filling`) and at once (`take_file`). What is
taken at once is all there with the caller's commit, or nothing is. Called by the worker and the API.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

from sqlalchemy import Connection

from mautolib.contacts import domains
from mautolib.contacts.imports import requests
from mautolib.contacts.imports.blocks import Block
from mautolib.contacts.imports.columns import BlockStager
from mautolib.contacts.imports.headers import SAMPLE_ROWS, Plan, plan_columns
from mautolib.contacts.imports.merging import DEFAULT_LANGUAGE, drop_staging, merge_or_try, open_staging, stage
from mautolib.contacts.imports.model import Import, ImportOptions, PresetChoice, Reject
from mautolib.contacts.imports.reading import CsvFile, Record, open_csv
from mautolib.contacts.imports.rows import RowStager
from mautolib.settings import Settings

__all__ = ["OpenFile", "Part", "Taken", "open_file", "take_file"]

_LOG = logging.getLogger(__name__)
_SHOWN_REJECTS = 50
#: Above the API's own bound: a file of 5 MB can be 700,000 short rows.
_STATEMENT_TIMEOUT = "120s"


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An import that has just been carried out, and the first rows that it did not take."""

    request: Import
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a file: its records, how many they are, and the line the last one begins on (0: there is none)."""

    records: Block | list[Record]
    rows: int
    last_line: int


class OpenFile:
    """A file whose columns are understood, to be turned into lines for the staging table once.

    `options` are the import's with what the file itself says: the preset that was found, and that nobody is
    subscribed by default where a column says who is. `blank_language` is what a blank language cell stands for.
    """

    def __init__(self, file: CsvFile, options: ImportOptions, *, settings: Settings, now: datetime) -> None:
        self._file, self._first = file, list(islice(file.records(), SAMPLE_ROWS))
        sample = [cells for _, cells in self._first if isinstance(cells, list)]
        plan = plan_columns(file.header, options.mapping, sample, options.preset)
        self.options = _as_found(options, plan)
        self.blank_language = "" if plan.is_export else DEFAULT_LANGUAGE
        known = domains.lists(settings)
        self._rows = RowStager(plan, self.options, known, unclean=file.unclean, now=now)
        self._blocks = BlockStager(self._rows, plan, self.options, known, delimiter=file.delimiter)
        self.columns = self._rows.columns
        self.header, self.delimiter, self.encoding = file.header, file.delimiter, file.encoding
        _LOG.info("%s, delimiter %r, %s columns", file.encoding, file.delimiter, len(file.header))

    @property
    def state(self) -> list[int]:
        """What the file system says of the opened file; changes with every change of its bytes."""
        found = os.fstat(self._file.fileno())
        return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]

    def parts(self) -> Iterator[Part]:
        """The rows, in the order of the file; the same parts whenever the same file is read."""
        found: Iterator[Block | list[Record]] = self._file.blocks() if self._blocks.can_take else self._file.batches()
        for records in chain([self._first], found):
            if isinstance(records, Block):
                yield Part(records=records, rows=len(records.lines), last_line=int(records.lines[-1]))
            else:
                yield Part(records=records, rows=len(records), last_line=records[-1][0] if records else 0)

    def stage(self, part: Part) -> bytes:
        """The lines for COPY of a part."""
        if isinstance(part.records, Block):
            return self._blocks.stage(part.records)
        is_suspect = self._file.is_suspect
        return "".join([self._rows.stage(line, cells, is_suspect=is_suspect) for line, cells in part.records]).encode()


@contextmanager
def open_file(path: Path, options: ImportOptions, *, settings: Settings, now: datetime) -> Iterator[OpenFile]:
    """Open a file and decide what its columns are.

    Args:
        now: bound of times that cannot be in the future.

    Raises:
        InvalidInput: the file as a whole cannot be read, or a column has to be decided.
    """
    limit = settings.max_import_bytes
    with open_csv(path, encoding=options.encoding, delimiter=options.delimiter, limit=limit) as file:
        yield OpenFile(file, options, settings=settings, now=now)


def _as_found(options: ImportOptions, plan: Plan) -> ImportOptions:
    default = options.subscribed_default and not plan.blank_is_no
    return replace(options, preset=plan.preset or PresetChoice.NONE, subscribed_default=default)


def take_file(
    tx: Connection, path: Path, options: ImportOptions, *, filename: str | None, format: str, sha256: str, actor: str,
    now: datetime, settings: Settings,
) -> Taken:
    """Import a small file in the caller's transaction; the import is listed as completed.

    Raises:
        InvalidInput: an option is not acceptable, or the file as a whole cannot be taken; nothing is kept.
    """  # fmt: skip
    import_id = requests.request(
        tx, filename=filename, uri=None, options=options, actor=actor, now=now, format=format, sha256=sha256
    )
    tx.exec_driver_sql(f"set local statement_timeout = '{_STATEMENT_TIMEOUT}'")
    open_staging(tx)
    with open_file(path, options, settings=settings, now=now) as file:
        stage(tx, file.columns, map(file.stage, file.parts()))
    requests.note_options(tx, import_id, file.options)
    counts = merge_or_try(
        tx, import_id, file.options, columns=file.columns, blank_language=file.blank_language, actor=actor, now=now,
        settings=settings,
    )  # fmt: skip
    rejects = tuple(requests.first_rejects(tx, limit=_SHOWN_REJECTS))
    drop_staging(tx)
    _LOG.info("import %s completed: %s", import_id, counts)
    return Taken(request=requests.finish(tx, import_id, asdict(counts), now=now), rejects=rejects)
