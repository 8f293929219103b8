"""Import requests: asked for, looked at, cancelled, and what became of each row that was not taken.

A request is a row and a file; a commit wakes the worker. An upload is stored under a name of its own (the caller's
file name is a label, nothing more) and counted while it is written. Called by the API and by the import DAG's form;
the work itself is in `running`.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select
from sqlalchemy import update as update_of

from mautolib.contacts.imports.model import (
    REASONS,
    TRANSITIONS,
    Import,
    ImportOptions,
    ImportStatus,
    Reject,
    RejectCode,
)
from mautolib.contacts.imports.places import place_of
from mautolib.db import tables
from mautolib.db.copy import copy_out
from mautolib.db.statements import load, statement
from mautolib.errors import InvalidInput, InvalidTransition, NoRoom, NotFound
from mautolib.settings import Settings

__all__ = ["StoredFile", "asked_for", "cancel", "count_imports", "forget_orphans", "forget_upload", "get",
           "keep_fetched", "list_imports", "rejects", "request", "request_file", "store_upload",
           "write_rejects"]  # fmt: skip

_LOG = logging.getLogger(__name__)
_TABLE = tables.imports
_C = tables.imports.c
_GZIP = b"\x1f\x8b"
#: Between the beginning of an upload and the commit of its request; older files without one belong to nobody.
_ORPHANED_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """An upload as it lies in storage: where, how large, and the SHA-256 of its bytes."""

    uri: str
    size: int
    sha256: str
    format: str


def request(
    tx: Connection,
    *,
    filename: str | None,
    uri: str | None,
    options: ImportOptions | Mapping[str, Any],
    actor: str,
    now: datetime,
    format: str = "csv",
    sha256: str | None = None,
) -> int:
    """Queue an import of a stored file; returns its id.

    Args:
        filename: what the caller calls the file; shown, never used as a path.
        uri: of `store_upload`, the absolute path of a file, or `s3://bucket/key`; None when the caller runs it in
            this transaction.

    Raises:
        InvalidInput: an option is unknown or not acceptable, or a tag does not exist.
    """
    parsed = options if isinstance(options, ImportOptions) else ImportOptions.parse(options)
    _check_tags(tx, parsed.tag_ids)
    import_id = tx.scalar(insert(_TABLE).values(
        filename=_label(filename), format=format, options=parsed.as_json(), storage_uri=uri, content_sha256=sha256,
        created_by=actor, created_at=now, status=str(ImportStatus.QUEUED if uri else ImportStatus.RUNNING),
        started_at=None if uri else now,
    ).returning(_C.import_id))  # fmt: skip
    _LOG.info("import %s requested", import_id)
    return int(import_id or 0)


def request_file(
    tx: Connection, source: Path | str, options: ImportOptions | Mapping[str, Any], *, actor: str, now: datetime
) -> int:
    """Queue an import of a file on this machine, or of an object in S3; it stays where it is. Returns the import's id.

    Args:
        source: a path, or `s3://bucket/key`, which is fetched when the import runs.

    Raises:
        InvalidInput: there is no such file, it is no address in S3, or an option is not acceptable.
    """
    if "://" in str(source):
        place = place_of(str(source))
        return request(tx, filename=place.key, uri=str(place), options=options, actor=actor, now=now)
    path = Path(source)
    try:
        with path.open("rb") as file:
            kind = "csv.gz" if file.read(2) == _GZIP else "csv"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InvalidInput(f"The file {path} cannot be read: {reason}", path=("path",)) from error
    return request(tx, filename=path.name, uri=str(path.resolve()), options=options, actor=actor, now=now, format=kind)


def store_upload(settings: Settings, blocks: Iterable[bytes]) -> StoredFile:
    """Write an upload into storage under a name of its own.

    Raises:
        InvalidInput: `too_large`, or `unsupported_file` for a ZIP or Excel file; nothing is kept.
    """
    folder = settings.storage_path / "uploads"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"import-{secrets.token_hex(16)}"
    digest, size, head = hashlib.sha256(), 0, b""
    try:
        with path.open("xb") as file:
            for block in blocks:
                head = head or block[:4]
                size += len(block)
                if size > settings.max_import_bytes:
                    raise InvalidInput(f"The file is larger than {settings.max_import_bytes} bytes", code="too_large")
                digest.update(block)
                file.write(block)
        if head[:2] == b"PK":
            raise InvalidInput("This is a ZIP or Excel file; save it as CSV", code="unsupported_file")
    except BaseException as error:
        path.unlink(missing_ok=True)
        if NoRoom.is_why(error):
            raise NoRoom(f"There is no room for the file in {folder}; see MAUTO_STORAGE") from error
        raise
    kind = "csv.gz" if head[:2] == _GZIP else "csv"
    return StoredFile(uri=f"uploads/{path.name}", size=size, sha256=digest.hexdigest(), format=kind)


def location(settings: Settings, uri: str) -> Path:
    """Where the file of an import lies; an upload's name is relative to storage."""
    return Path(uri) if PurePath(uri).is_absolute() else settings.storage_path / uri


def keep_fetched(tx: Connection, import_id: int, attempt_id: int, stored: StoredFile) -> Import | None:
    """Let an import go on with the copy of its file in storage; None when another worker has it by now."""
    mine = update_of(_TABLE).where(_C.import_id == import_id, _C.attempt_id == attempt_id)
    values = {"storage_uri": stored.uri, "content_sha256": stored.sha256, "format": stored.format,
              "stalled_attempts": 0}  # fmt: skip
    row = tx.execute(mine.values(**values).returning(_TABLE)).one_or_none()
    return to_import(row) if row else None


def asked_for(tx: Connection, actor: str) -> Import | None:
    """The newest import that `actor` asked for."""
    query = select(_TABLE).where(_C.created_by == actor).order_by(_C.import_id.desc()).limit(1)
    row = tx.execute(query).one_or_none()
    return to_import(row) if row else None


def forget_upload(settings: Settings, uri: str | None) -> None:
    """Remove a file that `store_upload` wrote; any other file belongs to somebody else and stays."""
    if uri and uri.startswith("uploads/import-") and "/" not in uri.removeprefix("uploads/"):
        location(settings, uri).unlink(missing_ok=True)


def forget_orphans(engine: Engine, settings: Settings, *, now: datetime) -> int:
    """Remove uploads whose import is over, and those of a day ago that no import has; returns how many.

    Both are left by a process that was killed in between.
    """
    # Listed before the question: what is stored meanwhile is not looked at.
    paths = sorted((settings.storage_path / "uploads").glob("import-*"))
    with engine.begin() as tx:
        is_over = {row.storage_uri: row.is_over for row in tx.execute(statement("staging.stored_files"))}
    removed = 0
    for path in paths:
        uri, made_at = f"uploads/{path.name}", datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if is_over.get(uri, now - made_at > _ORPHANED_AFTER):
            path.unlink(missing_ok=True)
            _LOG.info("%s (%s) was left behind: removed", uri, "its import is over" if uri in is_over else "no import")
            removed += 1
    return removed


def get(tx: Connection, import_id: int) -> Import:
    """The import with this id.

    Raises:
        NotFound: no such import.
    """
    row = tx.execute(select(_TABLE).where(_C.import_id == import_id)).one_or_none()
    if row is None:
        raise NotFound("Import not found")
    return to_import(row)


def list_imports(
    tx: Connection, *, status: ImportStatus | None = None, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[Import]:
    """Imports, newest first; with `before` those older than that id."""
    query = select(_TABLE).order_by(_C.import_id.desc()).offset(skip).limit(limit)
    if before is not None:
        query = query.where(_C.import_id < before)
    rows = tx.execute(query if status is None else query.where(_C.status == str(status)))
    return [to_import(row) for row in rows]


def count_imports(tx: Connection, *, status: ImportStatus | None = None) -> int:
    """How many imports there are."""
    query = select(func.count()).select_from(_TABLE)
    return int(tx.scalar(query if status is None else query.where(_C.status == str(status))) or 0)


def cancel(tx: Connection, import_id: int, *, now: datetime) -> Import:
    """Stop an import: one that waits is cancelled at once, a running one before it changes a contact.

    Raises:
        NotFound: no such import.
        InvalidTransition: it is finished already.
    """
    row = tx.execute(select(_TABLE).where(_C.import_id == import_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound("Import not found")
    status = ImportStatus(row.status)
    if status is ImportStatus.QUEUED:
        values: dict[str, Any] = {"status": str(ImportStatus.CANCELLED), "finished_at": now}
    elif ImportStatus.CANCELLING in TRANSITIONS[status] or status is ImportStatus.CANCELLING:
        values = {"status": str(ImportStatus.CANCELLING)}
    else:
        raise InvalidTransition(f"The import is {status}")
    changed = tx.execute(update_of(_TABLE).where(_C.import_id == import_id).values(**values).returning(_TABLE)).one()
    _LOG.info("import %s: %s", import_id, changed.status)
    return to_import(changed)


def rejects(tx: Connection, import_id: int, *, limit: int = 50, after_line: int = 0) -> list[Reject]:
    """Rows that were not taken, in the order of lines; none for an unknown import."""
    c = tables.import_rejects.c
    query = select(tables.import_rejects).where(c.import_id == import_id, c.line > after_line)
    return [
        Reject(line=row.line, column=row.column_name, code=RejectCode(row.code), reason=row.reason, value=row.value)
        for row in tx.execute(query.order_by(c.line, c.column_name).limit(limit))
    ]


def first_rejects(tx: Connection, *, limit: int) -> list[Reject]:
    """The first rows that the import at work in this transaction does not take, with their addresses."""
    rows = tx.execute(statement("imports.first_rejects"), {"limit": limit})
    return [
        Reject(line=row.line, column=row.reject_column or "", code=RejectCode(row.reject_code), email=row.email or "",
               reason=REASONS[RejectCode(row.reject_code)], value=row.reject_value or "")
        for row in rows
    ]  # fmt: skip


def note_options(tx: Connection, import_id: int, options: ImportOptions) -> None:
    """Keep the options as they were applied, with what was found in the file."""
    tx.execute(update_of(_TABLE).where(_C.import_id == import_id).values(options=options.as_json()))


def finish(tx: Connection, import_id: int, counts: Mapping[str, Any], *, now: datetime) -> Import:
    """End an import that ran in this very transaction."""
    done = update_of(_TABLE).where(_C.import_id == import_id)
    values = {**counts, "status": str(ImportStatus.COMPLETED), "finished_at": now}
    return to_import(tx.execute(done.values(**values).returning(_TABLE)).one())


def write_rejects(tx: Connection, import_id: int, write: Callable[[bytes], object]) -> None:
    """Write every row that was not taken as CSV: line, column, code, reason, value (formula-guarded).

    Raises:
        NotFound: no such import.
    """
    get(tx, import_id)
    query = load("imports")["rejects_csv"].sql.replace(":import_id", str(int(import_id)))
    copy_out(tx, f"copy ({query}) to stdout with (format csv, header)", write)


def to_import(row: Row[Any]) -> Import:
    """The import a row stands for."""
    values = {name: value for name, value in row._mapping.items() if name in Import.__dataclass_fields__}
    return Import(**{**values, "status": ImportStatus(row.status)})


def _check_tags(tx: Connection, tag_ids: tuple[int, ...]) -> None:
    known = set(tx.scalars(select(tables.tags.c.tag_id).where(tables.tags.c.tag_id.in_(tag_ids))))
    unknown = [str(one) for one in tag_ids if one not in known]
    if unknown:
        raise InvalidInput(f"There is no tag {', '.join(unknown)}", path=("options", "tag_ids"))


def _label(filename: str | None) -> str | None:
    """A file name for showing: last part, printable, at most 255 characters."""
    if not filename:
        return None
    last = filename.replace("\\", "/").rpartition("/")[2]
    shown = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    return shown[:255] or None
