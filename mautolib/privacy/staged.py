"""Rows of files that wait for their import are searched as well: an import may wait for hours, or for its next worker.

A row that names the person stays a row, so that all counts add up, but says nothing any more and is not taken. An
import at work is left alone until it is over (`busy`), since a merge must read the same rows from its first statement
to its last. Called by `removal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, text

from mautolib.contacts.imports import ImportStatus, RejectCode
from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.privacy.files import Cleaned
from mautolib.privacy.model import Search
from mautolib.privacy.sweep import like

__all__ = ["clean_staged"]

_AT_WORK = (ImportStatus.RUNNING, ImportStatus.CANCELLING)
_TOLD = ("email", "first_name", "last_name", "phone", "country", "language", "timezone", "currency",
         "custom_fields", "consent_source", "tags", "reject_column", "reject_value")  # fmt: skip
_BLANK = ", ".join(
    f"{column.name} = null" for column in tables.import_rows.columns
    if column.name != "line" and not column.name.startswith("reject_")
)  # fmt: skip


def clean_staged(engine: Engine, searches: Sequence[Search]) -> Cleaned:
    """Clean the rows of every import that waits for all `searches`."""
    done = Cleaned()
    with engine.connect() as connection:
        names = connection.scalars(statement("staging.waiting_rows")).all()
    for name in names:
        with engine.begin() as tx:
            _clean_table(tx, name, searches, done)
    return done


def _clean_table(tx: Connection, name: str, searches: Sequence[Search], done: Cleaned) -> None:
    c = tables.imports.c
    # Locked: nobody takes the import meanwhile.
    query = select(c.status, c.created_at).where(c.import_id == int(name.split("_")[1])).with_for_update()
    request = tx.execute(query).one_or_none()
    if tx.scalar(select(func.to_regclass(f"staging.{name}"))) is None:
        return
    # What came after the erasure was told again.
    older = [one for one in searches if request is None or request.created_at <= one.requested_at]
    for row in _suspects(tx, name, older):
        texts = [str(value) for value in tuple(row)[3:] if value]
        by_address = [search for search in older if _is_named(search, row.email_key, texts)]
        by_word = [search for search in older if row.reject_code and _is_quoted(search, texts)]
        if not by_address and not by_word:
            continue
        found = {search.erasure_id for search in (*by_address, *by_word)}
        if request is not None and request.status in _AT_WORK:
            done.busy.update(found)
            continue
        done.counts.update(found)
        _blot(tx, name, row.place, is_whole=bool(by_address))


def _suspects(tx: Connection, name: str, searches: Iterable[Search]) -> Sequence[Row[Any]]:
    words = {word for search in searches for word in (*search.traces.spellings, *search.traces.words)}
    # Names of columns are ours, that of the table is made by the database; what is looked for is bound.
    shown = ", ".join(f"cast({column} as text) as {column}" for column in _TOLD)
    whole = ", ".join(f"cast({column} as text)" for column in ("email_key", *_TOLD))
    query = (
        f"select cast(ctid as text) as place, reject_code, email_key, {shown} from staging.{name} "  # noqa: S608
        f"where lower(concat_ws(chr(10), {whole})) like any(cast(:likes as text[])) for update"
    )
    return tx.execute(text(query), {"likes": sorted(map(like, words))}).all()


def _is_named(search: Search, key: str | None, texts: Iterable[str]) -> bool:
    """Whether a row is the person's, or has one of the addresses in it.

    Args:
        key: of a row that is taken; whose address ends with the person's is somebody else all the same.
    """
    if key in search.traces.keys:
        return True
    others = replace(search, neighbours=search.neighbours | {key}) if key else search
    return any(others.holds(value) for value in texts)


def _is_quoted(search: Search, texts: Iterable[str]) -> bool:
    """Whether a row that is not taken, and so kept as text, has one of the person's names or numbers in it."""
    return search.words is not None and any(search.words.search(value) for value in texts)


def _blot(tx: Connection, name: str, place: str, *, is_whole: bool) -> None:
    """What stood there is gone; of a row that was refused for another reason only the quotation."""
    said = f"{_BLANK}, reject_column = '', reject_code = :code" if is_whole else "email = null"
    update = f"update staging.{name} set {said}, reject_value = '' where ctid = cast(:place as tid)"  # noqa: S608
    tx.execute(text(update), {"place": place, "code": str(RejectCode.INVALID_EMAIL)} if is_whole else {"place": place})
