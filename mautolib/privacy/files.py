"""Files under storage: uploads, journals, the spool and the console's mailbox are searched as well.

What is found is blotted out in place, byte for byte, so that files others append to or read by line stay what they
are. A file that another process holds is left for the next run (`busy`). An upload that still waits keeps its
other rows: a blotted one is rejected, since it has no address. Called by `removal`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import mmap
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select

from mautolib.contacts.imports import ImportStatus, forget_upload
from mautolib.db import tables
from mautolib.events.spool import spool_folder
from mautolib.ledger.journal import journal_folder
from mautolib.privacy.model import Search
from mautolib.settings import Settings

__all__ = ["Cleaned", "clean_files"]

_FAILED = "failed.ndjson"
_GZIP = b"\x1f\x8b"
#: Between the end of an upload and the commit of its request; older files without one belong to nobody.
_ORPHAN = timedelta(hours=1)
_CELL = re.compile(rb"[^,;\t|\"\r\0]")
_MESSAGE = re.compile(rb"^From [^\n]*\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """Files changed by erasure, and erasures that have to wait for a file."""

    counts: Counter[int] = field(default_factory=Counter)
    busy: set[int] = field(default_factory=set)


def clean_files(engine: Engine, settings: Settings, searches: Sequence[Search], *, now: datetime) -> Cleaned:
    """Clean every file of `settings.storage_path` (and the local journals and spool) for all `searches`.

    Args:
        now: the moment the age of a file without an import is measured at.
    """
    done = Cleaned()
    for path in _files(settings.storage_path / "uploads", "import-*"):
        with engine.begin() as tx:
            _clean_upload(tx, settings, path, searches, now, done)
    for path in (*_files(journal_folder(settings), "*.journal"), *_files(spool_folder(settings), "*.ndjson")):
        if path.name == _FAILED:
            _clean_failed(path, searches, done)
        else:
            _clean_held(path, searches, done)
    for path in _files(settings.storage_path, "*.mbox"):
        with _mapped(path) as content:
            _note(done, [search for search in searches if _blot_mails(content, _in_bytes(search))])
    return done


def _clean_upload(
    tx: Connection, settings: Settings, path: Path, searches: Sequence[Search], now: datetime, done: Cleaned
) -> None:
    c = tables.imports.c
    uri = f"uploads/{path.name}"
    row = tx.execute(select(c.status, c.created_at).where(c.storage_uri == uri).with_for_update()).one_or_none()
    made_at = row.created_at if row else datetime.fromtimestamp(path.stat().st_mtime, UTC)
    # What came after the erasure was told again.
    older = [search for search in searches if made_at <= search.requested_at]
    found = [search for search in older if _holds(path, search)]
    if not found:
        return
    if row is None:
        # An upload of this moment has no request yet.
        if now - made_at < _ORPHAN:
            done.busy.update(search.erasure_id for search in found)
        else:
            _note(done, found)
            path.unlink(missing_ok=True)
    elif row.status == ImportStatus.QUEUED:
        _note(done, found)
        _blot_upload(path, found)
    elif row.status in (ImportStatus.RUNNING, ImportStatus.CANCELLING):
        done.busy.update(search.erasure_id for search in found)
    else:
        _note(done, found)
        forget_upload(settings, uri)


def _holds(path: Path, search: Search) -> bool:
    with _plain(path) as plain, _mapped(plain) as content:
        return _in_bytes(search).search(content) is not None


def _blot_upload(path: Path, searches: Sequence[Search]) -> None:
    with _plain(path) as plain:
        with _mapped(plain) as content:
            for search in searches:
                _blot_lines(content, _in_bytes(search))
        if plain != path:
            fresh = path.with_name(f"{path.name}.new")
            with plain.open("rb") as source, gzip.open(fresh, "wb") as target:
                shutil.copyfileobj(source, target)
            fresh.replace(path)


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """The file, or an unpacked copy of it beside it."""
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
    if not is_packed:
        yield path
        return
    copy = path.with_name(f"{path.name}.plain")
    try:
        with contextlib.suppress(EOFError, OSError), gzip.open(path) as source, copy.open("wb") as target:
            # What a damaged file holds behind the damage is nothing an import could read either.
            shutil.copyfileobj(source, target)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _clean_held(path: Path, searches: Sequence[Search], done: Cleaned) -> None:
    """A journal or spool file: its process holds the lock as long as it lives."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with _mapped(path) as content:
                busy = [search.erasure_id for search in searches if _in_bytes(search).search(content)]
            done.busy.update(busy)
            return
        with _mapped(path) as content:
            _note(done, [search for search in searches if _blot(content, _in_bytes(search))])


def _clean_failed(path: Path, searches: Sequence[Search], done: Cleaned) -> None:
    """Records that could never be applied: the person's hits and requests go, other lines stay as they are."""
    people = {search.contact_id: search for search in searches}
    with _mapped(path) as content:
        start = 0
        for line in bytes(content).splitlines(keepends=True):
            record, end = _parsed(line), start + len(line)
            kept = _without_people(record, set(people))
            if kept != record:
                shown = json.dumps(kept, separators=(",", ":")).encode() if kept else b""
                content[start : end - 1] = shown[: end - 1 - start].ljust(end - 1 - start)
                _note(done, [people[one] for one in people if _without_people(record, {one}) != record])
            start = end
        _note(done, [search for search in searches if _blot(content, _in_bytes(search))])


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _without_people(record: Any, contact_ids: set[int]) -> Any:
    if not isinstance(record, dict):
        return record
    if record.get("unsubscribe") in contact_ids:
        return {}
    hits = record.get("hits")
    if not isinstance(hits, list):
        return record
    # The fourth value of a hit is its contact (`events.hits.Hit`).
    return {**record, "hits": [hit for hit in hits if not (isinstance(hit, list) and set(hit[3:4]) & contact_ids)]}


def _blot_mails(content: mmap.mmap | bytearray, pattern: re.Pattern[bytes]) -> bool:
    """Blot out whole mails that name the person, up to their separating line."""
    starts = [match.end() for match in _MESSAGE.finditer(content)]
    ends = [*[match.start() for match in _MESSAGE.finditer(content)][1:], len(content)]
    hit = [(start, end) for start, end in zip(starts, ends, strict=True) if pattern.search(content, start, end)]
    for start, end in hit:
        content[start:end] = re.sub(rb"[^\n]", b"x", content[start:end])
    return bool(hit)


def _blot_lines(content: mmap.mmap | bytearray, pattern: re.Pattern[bytes]) -> None:
    """Blot out the cells of every line that names the person; delimiters and quotes stay, so that a row stays one."""
    for start, end in [match.span() for match in pattern.finditer(content)]:
        begin, rest = content.rfind(b"\n", 0, start) + 1, content.find(b"\n", end)
        line = slice(begin, len(content) if rest < 0 else rest)
        content[line] = _CELL.sub(b"x", content[line])


def _blot(content: mmap.mmap | bytearray, pattern: re.Pattern[bytes]) -> bool:
    found = [match.span() for match in pattern.finditer(content)]
    for start, end in found:
        content[start:end] = b"x" * (end - start)
    return bool(found)


def _in_bytes(search: Search) -> re.Pattern[bytes]:
    """The addresses as they stand in files: UTF-8, UTF-16 of both orders, and JSON's escapes."""
    forms: set[bytes] = set()
    for form in search.traces.spellings:
        forms |= {form.encode(), form.encode("utf-16-le"), form.encode("utf-16-be")}
        forms.add(json.dumps(form)[1:-1].encode())
    # In UTF-16 a NUL stands beside each letter.
    edges = (rb"(?<![A-Za-z0-9_.+-])(?<![A-Za-z0-9_.+-]\0)(?:%s)"
             rb"(?!\0?[A-Za-z0-9_-]|\0?\.\0?[A-Za-z0-9])")  # fmt: skip
    return re.compile(edges % b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)),
                      re.IGNORECASE)  # fmt: skip


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytearray]:
    """The file's bytes, changed in place; an empty or vanished file has none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield bytearray()
        return
    try:
        if os.fstat(descriptor).st_size == 0:
            yield bytearray()
            return
        with mmap.mmap(descriptor, 0) as content:
            yield content
    finally:
        os.close(descriptor)


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file()) if folder.is_dir() else []


def _note(done: Cleaned, searches: Sequence[Search]) -> None:
    done.counts.update(search.erasure_id for search in searches)
