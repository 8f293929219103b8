"""Lists of contacts: filters, newest first, counted exactly or up to a bound.

Every value is a bind and `%` and `_` in a text are literal. Paging is by position (`skip`) or after a known row
(`after`), which neither repeats nor skips rows. Called by the API and exports; changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, text, tuple_

from mautolib.contacts import erased, searching
from mautolib.contacts.address import address_key
from mautolib.contacts.consent import entry_of
from mautolib.contacts.model import Consent, ConsentStatus, Contact, ContactFilter, Suppression, SuppressionReason
from mautolib.contacts.store import complete
from mautolib.db import tables
from mautolib.settings import Settings

__all__ = ["conditions", "consents", "count", "count_consents", "count_suppressions", "find_suppression",
           "get_many", "has_segment", "search", "suppression_counts", "suppressions"]  # fmt: skip

_C = tables.contacts.c
_S = tables.suppressions.c


def search(
    tx: Connection,
    filters: ContactFilter | None = None,
    *,
    skip: int = 0,
    limit: int = 50,
    after: tuple[datetime, int] | None = None,
) -> list[Contact]:
    """Contacts that match, newest first.

    Args:
        after: (created_at, contact_id) of the last row of the page before.
    """
    query = select(tables.contacts).where(*conditions(tx, filters or ContactFilter()))
    if after is not None:
        query = query.where(tuple_(_C.created_at, _C.contact_id) < after)
    rows = tx.execute(query.order_by(_C.created_at.desc(), _C.contact_id.desc()).offset(skip).limit(limit)).all()
    return complete(tx, rows)


def count(tx: Connection, filters: ContactFilter | None = None, *, at_most: int | None = None) -> int:
    """How many contacts match; with `at_most` counting stops there."""
    filters = filters or ContactFilter()
    if filters.q and filters == ContactFilter(q=filters.q):
        return searching.count(tx, filters.q, at_most=at_most)
    query = select(_C.contact_id).where(*conditions(tx, filters)).limit(at_most)
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def get_many(tx: Connection, contact_ids: Sequence[int]) -> list[Contact]:
    """The contacts with these ids, newest first; those that do not exist (any more) are left out."""
    query = select(tables.contacts).where(_C.contact_id.in_(contact_ids))
    return complete(tx, tx.execute(query.order_by(_C.created_at.desc(), _C.contact_id.desc())).all())


def has_segment(tx: Connection, segment_id: int) -> bool:
    """Whether a segment to filter by exists."""
    known = select(tables.segments.c.segment_id).where(tables.segments.c.segment_id == segment_id)
    return tx.scalar(known) is not None


def consents(
    tx: Connection, contact_id: int, *, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[Consent]:
    """The consent history of a contact, newest first; empty for an unknown one.

    Args:
        before: id of the last line of the page before.
    """
    c = tables.consents.c
    query = select(tables.consents).where(c.contact_id == contact_id).order_by(c.consent_id.desc())
    if before is not None:
        query = query.where(c.consent_id < before)
    return [
        Consent(**{**row, "status": ConsentStatus(row["status"]), "ip": str(row["ip"]) if row["ip"] else None})
        for row in tx.execute(query.offset(skip).limit(limit)).mappings()
    ]


def count_consents(tx: Connection, contact_id: int, *, at_most: int | None = None) -> int:
    """How many lines the consent history of a contact has; with `at_most` counting stops there."""
    query = select(tables.consents.c.consent_id).where(tables.consents.c.contact_id == contact_id).limit(at_most)
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def find_suppression(tx: Connection, email: str, settings: Settings | None = None) -> Suppression | None:
    """The entry of an address (any text may be asked for), None when it is not suppressed.

    Args:
        settings: for comparing with erased addresses, which are shown as `erased:<hash>`.
    """
    key = address_key(email)
    row = tx.execute(select(tables.suppressions).where(_S.email_key == key)).one_or_none()
    row = row or erased.entries(tx, [key], settings).get(key)
    return entry_of(row) if row else None


def suppressions(
    tx: Connection, *, reason: SuppressionReason | None = None, skip: int = 0, limit: int = 100,
    after: tuple[datetime, int] | None = None,
) -> list[Suppression]:  # fmt: skip
    """Suppressed addresses, newest first; `after` is (created_at, id) of the last one of the page before."""
    query = select(tables.suppressions).order_by(_S.created_at.desc(), _S.suppression_id.desc())
    if reason is not None:
        query = query.where(_S.reason == str(reason))
    if after is not None:
        query = query.where(tuple_(_S.created_at, _S.suppression_id) < after)
    return [entry_of(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count_suppressions(
    tx: Connection, *, reason: SuppressionReason | None = None, at_most: int | None = None
) -> int:
    """How many addresses are suppressed; with `at_most` counting stops there."""
    query = select(_S.suppression_id).limit(at_most)
    if reason is not None:
        query = query.where(_S.reason == str(reason))
    return int(tx.scalar(select(func.count()).select_from(query.subquery())) or 0)


def suppression_counts(tx: Connection) -> dict[SuppressionReason, int]:
    """How many addresses are suppressed for each reason that occurs."""
    rows = tx.execute(select(_S.reason, func.count()).group_by(_S.reason)).all()
    return {SuppressionReason(reason): number for reason, number in rows}


def conditions(tx: Connection, wanted: ContactFilter) -> list[ColumnElement[bool]]:
    """The filters as conditions on `contacts`, all of which must hold."""
    found: list[ColumnElement[bool]] = []
    if wanted.subscribed is not None:
        found.append(_C.subscribed.is_(wanted.subscribed))
    if wanted.email is not None:
        found.append(_C.email_key == address_key(wanted.email))
    if wanted.q:
        found.append(searching.matching(tx, wanted.q))
    if wanted.tag is not None:
        # The id as a value, for the planner to see how common the tag is (a join took seconds for one of everybody).
        tagged, tag_id = tables.contact_tags.c, _tag_of_name(tx, wanted.tag)
        found.append(exists().where(tagged.contact_id == _C.contact_id, tagged.tag_id == tag_id))
    if wanted.segment_id is not None:
        found.append(_in_segment(wanted.segment_id))
    if wanted.lifecycle_stage is not None:
        stage = tables.contact_stages.c
        found.append(exists().where(stage.contact_id == _C.contact_id, stage.lifecycle_stage == wanted.lifecycle_stage))
    if wanted.updated_since is not None:
        never = and_(_C.updated_at.is_(None), _C.created_at >= wanted.updated_since)
        found.append(or_(_C.updated_at >= wanted.updated_since, never))
    return found


def _tag_of_name(tx: Connection, name: str) -> int:
    tags, given = tables.tags.c, _without_nul(name)
    known = select(tags.tag_id).where(func.lower(tags.name) == func.lower(given), tags.name == given)
    return int(tx.scalar(known) or 0)


def _in_segment(segment_id: int) -> ColumnElement[bool]:
    member = tables.segment_memberships.c
    return exists().where(
        member.segment_id == segment_id, member.contact_id == _C.contact_id, member.valid_to == text("'infinity'")
    )


def _without_nul(text: str) -> str:
    """No stored text has a NUL; PostgreSQL would refuse to compare with one."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

