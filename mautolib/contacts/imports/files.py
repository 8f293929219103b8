"""A file at hand: staged for the merge, or taken whole inside the caller's transaction.

Promises that the same file gives the same result in the background (`running`) and at once (`take_file`). What is
taken at once is all there with the caller's commit, or nothing is. Called by the worker and the API.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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

__all__ = ["Staged", "Taken", "stage_file", "take_file"]

_LOG = logging.getLogger(__name__)
_SHOWN_REJECTS = 50
#: Above the API's own bound: a file of 5 MB can be 700,000 short rows.
_STATEMENT_TIMEOUT = "120s"


@dataclass(frozen=True, kw_only=True)
class Staged:
    """The rows of a file in the staging tables: its columns, and what a blank language cell stands for.

    `options` are the import's with what the file itself says: the preset that was found, and that nobody is
    subscribed by default where a column says who is.
    """

    columns: list[str]
    blank_language: str
    options: ImportOptions


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An import that has just been carried out, and the first rows that it did not take."""

    request: Import
    rejects: tuple[Reject, ...]


def stage_file(
    tx: Connection, path: Path, options: ImportOptions, *, settings: Settings, now: datetime,
    heard: Callable[[int], None] = lambda rows: None,
) -> Staged:
    """Read a file into the staging tables of this connection.

    Args:
        heard: called with the number of rows of each block; raises to give up.

    Raises:
        InvalidInput: the file as a whole cannot be read, or a column has to be decided.
    """  # fmt: skip
    limit = settings.max_import_bytes
    with open_csv(path, encoding=options.encoding, delimiter=options.delimiter, limit=limit) as file:
        first = list(islice(file.records(), SAMPLE_ROWS))
        sample = [cells for _, cells in first if isinstance(cells, list)]
        plan = plan_columns(file.header, options.mapping, sample, options.preset)
        options = _as_found(options, plan)
        known = domains.lists(settings)
        stager = RowStager(plan, options, known, unclean=file.unclean, now=now)
        _LOG.info("%s, delimiter %r, %s columns", file.encoding, file.delimiter, len(file.header))
        columns = BlockStager(stager, plan, options, known, delimiter=file.delimiter)
        stage(tx, stager.columns, _chunks(first, file, stager, columns, heard))
    return Staged(
        columns=stager.columns, blank_language="" if plan.is_export else DEFAULT_LANGUAGE, options=options
    )


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
    staged = stage_file(tx, path, options, settings=settings, now=now)
    requests.note_options(tx, import_id, staged.options)
    counts = merge_or_try(
        tx, import_id, staged.options, columns=staged.columns, blank_language=staged.blank_language, actor=actor,
        now=now, settings=settings,
    )  # fmt: skip
    rejects = tuple(requests.first_rejects(tx, limit=_SHOWN_REJECTS))
    drop_staging(tx)
    _LOG.info("import %s completed: %s", import_id, counts)
    return Taken(request=requests.finish(tx, import_id, asdict(counts), now=now), rejects=rejects)


def _chunks(
    first: list[Record], file: CsvFile, rows: RowStager, columns: BlockStager, heard: Callable[[int], None]
) -> Iterator[bytes]:
    heard(0)
    found: Iterator[Block | list[Record]] = file.blocks() if columns.can_take else file.batches()
    for part in chain([first], found):
        if isinstance(part, Block):
            yield columns.stage(part)
            heard(len(part.lines))
        else:
            staged = [rows.stage(line, cells, is_suspect=file.is_suspect) for line, cells in part]
            yield "".join(staged).encode()
            heard(len(part))
