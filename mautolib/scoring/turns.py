"""Taking turns at a contact: who scores it waits for who is at it, and does so as of a later moment.

Guards that of two calls the second one counts what the first one added, whichever of them began earlier. Called by
whatever scores single contacts; the night does not take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select

from mautolib.db import tables
from mautolib.db.engine import Tx

_LEAST = timedelta(microseconds=1)


def take_turn(tx: Tx, contact_ids: Sequence[int], now: datetime) -> datetime | None:
    """Hold some contacts until the transaction ends.

    Returns: the moment to do things as of: `now`, or just after a contact was changed or scored, where a call that was
        quicker, or whose clock is ahead, did that as of a later moment. None if none of them exists.
    """
    contacts, scores = tables.contacts.c, tables.contact_scores.c
    wanted = list(contact_ids)
    changed_at = func.coalesce(contacts.updated_at, contacts.created_at)
    query = select(changed_at).where(contacts.contact_id == func.any(wanted)).order_by(contacts.contact_id)
    changed = tx.scalars(query.with_for_update(key_share=True)).all()
    if not changed:
        return None
    # Asked once they are held: who was at them has committed.
    scored: datetime | None = tx.scalar(select(func.max(scores.as_of)).where(scores.contact_id == func.any(wanted)))
    moment: datetime = max(now, *changed)
    return moment if scored is None or scored <= moment else scored + _LEAST
