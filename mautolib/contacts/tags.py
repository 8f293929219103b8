"""Tags: named labels, and who carries them.

Guards one tag per name, whatever its case (a taken one is `Conflict` `duplicate`). Deleting a tag takes it off
everybody; who carried it when stays in `contact_tag_history`, written by a trigger. Called by the API. Putting a tag
on many contacts at once is `contacts.add_tags`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select, tuple_
from sqlalchemy import update as change
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from mautolib.contacts.store import add_tags, remove_tag
from mautolib.contacts.validation import single_line_problem
from mautolib.db import tables
from mautolib.errors import Conflict, InvalidInput, NotFound

__all__ = ["DEFAULT_COLOR", "Tag", "attach", "count", "create", "detach", "get", "remove", "search", "update"]

_LOG = logging.getLogger(__name__)
_TABLE = tables.tags
_C = tables.tags.c
DEFAULT_COLOR: Final = "#3B82F6"
_COLOR: Final = re.compile("#[0-9A-Fa-f]{6}")
_LONGEST_NAME: Final = 100
_DUPLICATE: Final = "Tag with this name already exists"
_MISSING: Final = "Tag not found"


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A label for contacts; `color` is `#RRGGBB`."""

    tag_id: int
    name: str
    color: str
    created_at: datetime


def create(tx: Connection, name: str, *, color: str = DEFAULT_COLOR, now: datetime) -> Tag:
    """Make a tag.

    Raises:
        InvalidInput: name or color is not acceptable.
        Conflict: `duplicate`: there is one of that name, in whatever case.
    """
    values = _checked({"name": name, "color": color})
    query = insert(_TABLE).values(**values, created_at=now).on_conflict_do_nothing().returning(_TABLE)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise Conflict(_DUPLICATE, code="duplicate")
    _LOG.info("tag %s created", row.tag_id)
    return _tag(row)


def get(tx: Connection, tag_id: int) -> Tag:
    """The tag with this id.

    Raises:
        NotFound: no such tag.
    """
    row = tx.execute(select(_TABLE).where(_C.tag_id == tag_id)).one_or_none()
    if row is None:
        raise NotFound(_MISSING)
    return _tag(row)


def search(tx: Connection, *, skip: int = 0, limit: int = 100, after: tuple[str, int] | None = None) -> list[Tag]:
    """Tags by name, whatever its case.

    Args:
        after: (name, tag_id) of the last row of the page before.
    """
    query = select(_TABLE).order_by(func.lower(_C.name), _C.tag_id).offset(skip).limit(limit)
    if after is not None:
        query = query.where(tuple_(func.lower(_C.name), _C.tag_id) > tuple_(func.lower(after[0]), after[1]))
    return [_tag(row) for row in tx.execute(query)]


def count(tx: Connection) -> int:
    """How many tags there are."""
    return int(tx.scalar(select(func.count()).select_from(_TABLE)) or 0)


def update(tx: Connection, tag_id: int, changes: Mapping[str, Any]) -> Tag:
    """Change name or color; who carries the tag keeps it.

    Args:
        changes: `name`, `color`; other names are ignored.
    Raises:
        NotFound: no such tag.
        InvalidInput: a value is not acceptable.
        Conflict: `duplicate`: another tag has that name.
    """
    values = _checked({name: value for name, value in changes.items() if name in ("name", "color")})
    if not values:
        return get(tx, tag_id)
    try:
        with tx.begin_nested():
            query = change(_TABLE).where(_C.tag_id == tag_id).values(**values).returning(_TABLE)
            row = tx.execute(query).one_or_none()
    except IntegrityError as error:
        if "one_tag_per_name" in str(error.orig):
            raise Conflict(_DUPLICATE, code="duplicate") from error
        raise
    if row is None:
        raise NotFound(_MISSING)
    return _tag(row)


def remove(tx: Connection, tag_id: int) -> None:
    """Delete a tag and take it off every contact.

    Raises:
        NotFound: no such tag.
    """
    if not tx.execute(delete(_TABLE).where(_C.tag_id == tag_id)).rowcount:
        raise NotFound(_MISSING)
    _LOG.info("tag %s deleted", tag_id)


def attach(tx: Connection, contact_id: int, tag_id: int, *, now: datetime) -> bool:
    """Put a tag on a contact, with its `tag_added` event; returns whether it was not there before.

    Raises:
        NotFound: no such contact or tag.
    """
    _hold(tx, contact_id, tag_id)
    return add_tags(tx, [contact_id], [tag_id], now=now) > 0


def detach(tx: Connection, contact_id: int, tag_id: int, *, now: datetime) -> bool:
    """Take a tag off a contact, with its `tag_removed` event; returns whether it was there.

    Raises:
        NotFound: no such contact or tag.
    """
    _hold(tx, contact_id, tag_id)
    return remove_tag(tx, contact_id, tag_id, now=now)


def _hold(tx: Connection, contact_id: int, tag_id: int) -> None:
    """See that both exist and cannot be deleted before the transaction ends."""
    people = tables.contacts.c
    held = (
        (select(people.contact_id).where(people.contact_id == contact_id), "Contact not found"),
        (select(_C.tag_id).where(_C.tag_id == tag_id), _MISSING),
    )
    for query, missing in held:
        if tx.scalar(query.with_for_update(read=True, key_share=True)) is None:
            raise NotFound(missing)


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    name, color = values.get("name"), values.get("color")
    if name is not None:
        values["name"] = name.strip()
        problem = single_line_problem(values["name"], _LONGEST_NAME)
        if problem or not values["name"]:
            raise InvalidInput(f"name {problem or 'is empty'}", path=("body", "name"))
    if color is not None and not _COLOR.fullmatch(color):
        raise InvalidInput("color is not of the form #RRGGBB", path=("body", "color"))
    return values


def _tag(row: Row[Any]) -> Tag:
    return Tag(tag_id=row.tag_id, name=row.name, color=row.color, created_at=row.created_at)
