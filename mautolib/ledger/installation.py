"""Whether mail may leave this database: the switch, and noticing that the database is a copy or went back in time.

Promise: while the switch is off nothing is claimed, whoever asks. A restored snapshot never sends by itself: `mauto
restore` switches off in the transaction that restores, and a sender that finds a copy, or fewer attempts than its own
mark knows, switches off before it claims. Switching on after that turns what was queued before into doubts.
Callers: the pump and the command line. The mark is a file beside the journals, not in the database.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mautolib.db.statements import statement
from mautolib.errors import Conflict, NoRoom
from mautolib.ledger.claim import new_attempt
from mautolib.ledger.identity import MessageIdentity

_LOG = logging.getLogger(__name__)
MARK: Final = "installation.json"
#: Ids skipped after a restore, so that none is given out a second time.
GAP: Final = 10_000_000
WHY_DOUBTED: Final = "the database was restored; this may have been sent since its backup"
COPIED: Final = "this database is a copy of another one; see `mauto sending status`"
WENT_BACK: Final = "this database went back in time; see `mauto sending status`"


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The one row. `restored_at`: when the database went back in time last; None: never."""

    installation_id: str
    epoch: int
    sending_enabled: bool
    reason: str
    restored_at: datetime | None
    is_reviewed: bool
    changed_at: datetime
    changed_by: str


class Mark:
    """The highest attempt a sender of this folder knows to be committed, kept outside the database."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MARK

    def read(self, installation_id: str) -> int:
        """The highest attempt of that installation; 0 if the folder knows none."""
        with suppress(OSError, ValueError):
            known = json.loads(self._path.read_text(encoding="utf-8"))
            if known["installation"] == installation_id:
                return int(known["attempt"])
        return 0

    def raise_to(self, installation_id: str, attempt_id: int) -> None:
        """Note that an attempt was committed; a lower one changes nothing, and neither does a full disk."""
        try:
            self._raise_to(installation_id, attempt_id)
        except OSError as error:
            if not NoRoom.is_why(error):
                raise
            # The attempt is committed and must not be taken back for this; a later one is noted instead.
            _LOG.warning("%s cannot be written: %s", self._path, error.strerror)

    def _raise_to(self, installation_id: str, attempt_id: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self.read(installation_id) < attempt_id:
                text = json.dumps({"installation": installation_id, "attempt": attempt_id}).encode()
                # One write over the old text and cut behind it: never an empty file.
                os.pwrite(descriptor, text, 0)
                os.ftruncate(descriptor, len(text))
        finally:
            os.close(descriptor)


def read(tx: Connection) -> Installation:
    """The installation as it stands."""
    return _installation(tx.execute(statement("installation.read")).one())


def is_open(tx: Connection) -> bool:
    """Whether messages may be claimed in this transaction; locks the switch until it ends."""
    return bool(tx.scalar(statement("installation.is_open")))


def check(tx: Connection, mark: Mark, *, now: datetime) -> Installation:
    """Look whether this is still the database it was; if not, begin a new epoch with sending off.

    Args:
        mark: of the folder the senders of this installation share.
    """
    row = tx.execute(statement("installation.read")).one()
    why = _why_it_is_another(row, mark)
    if why is None:
        if row.database_key is None:
            tx.execute(statement("installation.note_database"))
        return _installation(row)
    if row.is_reviewed:
        _LOG.error("sending is switched off: %s", why)
        begin_epoch(tx, reason=why, by="system", now=now)
    return read(tx)


def switch_off(tx: Connection, *, reason: str, by: str, now: datetime) -> None:
    """From the commit on nothing is claimed; what senders hold in their hands still goes."""
    tx.execute(statement("installation.lock"))
    tx.execute(statement("installation.switch_off"), {"reason": reason, "by": by, "now": now})


def begin_epoch(tx: Connection, *, reason: str, by: str, now: datetime) -> int:
    """The database went back in time: switch off, and give no id out again. Returns how many sequences moved.

    Only the owner may move sequences; 0 for others, and `switch_on` by the owner does it then.
    """
    tx.execute(statement("installation.new_epoch"), {"reason": reason, "by": by, "now": now})
    with suppress(DBAPIError), tx.begin_nested():
        return int(tx.execute(statement("installation.advance_sequences"), {"gap": GAP}).scalar_one())
    return 0


def switch_on(
    tx: Connection, identity: MessageIdentity, mark: Mark, *, by: str, now: datetime, nothing_was_sent: bool = False
) -> int:
    """Let mail go; returns how many messages of before a restore became doubts instead.

    Args:
        nothing_was_sent: somebody is sure that nothing left since the backup, so that the queue goes as it is.
    Raises:
        Conflict: after a restore not everything that was due before it is in the queue yet.
    """
    tx.execute(statement("installation.lock"))
    row = tx.execute(statement("installation.read")).one()
    doubts = 0
    if not row.is_reviewed:
        if not nothing_was_sent:
            _refuse_unsurfaced(tx, row.restored_at)
        gap = GAP + mark.read(row.installation_id)
        tx.execute(statement("installation.advance_sequences"), {"gap": gap})
        if not nothing_was_sent:
            given = {
                "attempt_id": new_attempt(tx), "now": now, "why": WHY_DOUBTED, "inner_key": identity.inner_key,
                "outer_key": identity.outer_key, "domain": identity.domain,
            }  # fmt: skip
            doubts = int(tx.execute(statement("installation.doubt_queued"), given).scalar_one())
    tx.execute(statement("installation.switch_on"), {"by": by, "now": now})
    return doubts


def _refuse_unsurfaced(tx: Connection, restored_at: datetime) -> None:
    waiting = tx.execute(statement("installation.not_surfaced"), {"now": restored_at}).all()
    if waiting:
        left = ", ".join(f"{item.item_count} {item.what}" for item in waiting)
        raise Conflict(f"What was due before the restore is not all in the queue yet: {left}. Let Airflow work them "
                       "off (nothing is sent), or pause and cancel what must not go")  # fmt: skip


def _why_it_is_another(row: Any, mark: Mark) -> str | None:
    if row.database_key is not None and row.database_key != row.key_now:
        return COPIED
    return WENT_BACK if row.last_attempt < mark.read(row.installation_id) else None


def _installation(row: Any) -> Installation:
    return Installation(
        installation_id=row.installation_id, epoch=row.epoch, sending_enabled=row.sending_enabled, reason=row.reason,
        restored_at=row.restored_at, is_reviewed=row.is_reviewed, changed_at=row.changed_at, changed_by=row.changed_by,
    )  # fmt: skip
