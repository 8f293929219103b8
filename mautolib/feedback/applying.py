"""Applying notices: to the one message each is about, and to its own recipient only.

Promise: the state after a set of notices is the same in whatever order, however often and in whatever parts they came
(complaint > bounce > delivery > sent), each new fact is told once, and a notice that is early waits for its message. An
address is suppressed only on proof: a provider's checked signature or our own signed return path. One transaction a
batch. Called by `processing`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row

from mautolib.classification.bounces import BounceClass
from mautolib.contacts.address import address_key
from mautolib.db.statements import statement
from mautolib.events.verp import ReturnPaths
from mautolib.feedback import telling
from mautolib.feedback.notices import Effect, Notice, Told, hardest, of_body
from mautolib.ledger.identity import MessageIdentity, message_identity
from mautolib.ledger.model import Outcome, Result, Stage, Status, Verdict
from mautolib.ledger.record import record
from mautolib.settings import Settings

__all__ = ["GIVE_UP", "Applied", "apply_due"]

_LOG = logging.getLogger(__name__)
#: After so long nobody will record the message any more.
GIVE_UP: Final = timedelta(days=3)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=6)
_ARRIVED: Final = frozenset({Status.SENT, Status.DELIVERED, Status.BOUNCED, Status.COMPLAINED})
_ON_ITS_WAY: Final = frozenset({Status.QUEUED, Status.SENDING})


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What a batch did: notices taken, applied and parked; messages that changed, doubts settled."""

    taken: int = 0
    applied: int = 0
    parked: int = 0
    settled: int = 0
    suppressed: int = 0
    message_ids: frozenset[int] = frozenset()


@dataclass(kw_only=True)
class _Taken:
    """One notice on its way through: what it says, and what became of it so far."""

    row: Row[Any]
    notice: Notice
    message_id: int | None = None
    is_proven: bool = False
    message: Row[Any] | None = None
    told: tuple[Told, ...] = ()
    status: str = "ignored"
    detail: str = ""

    @property
    def at(self) -> datetime:
        return self.notice.occurred_at or self.row.received_at


@dataclass(kw_only=True)
class _Change:
    """All that a batch says about one message."""

    message: Row[Any]
    effect: Effect = Effect.SENT
    moments: dict[Effect, datetime] = field(default_factory=dict)
    bounces: list[Told] = field(default_factory=list)
    is_proven: bool = False
    source: str = ""

    def add(self, taken: _Taken) -> None:
        """Take one more notice in."""
        effect = taken.notice.effect
        self.effect = max(self.effect, effect)
        self.moments[effect] = min(taken.at, self.moments.get(effect, taken.at))
        if effect is Effect.BOUNCED:
            self.bounces += [one for one in taken.told if one.bounce is not None]
        if effect in (Effect.BOUNCED, Effect.COMPLAINED):
            self.is_proven = self.is_proven or taken.is_proven
            self.source = self.source or taken.notice.source

    @property
    def bounce(self) -> BounceClass:
        """The gravest class told."""
        return hardest(one.bounce for one in self.bounces) or BounceClass.SOFT

    @property
    def gravest(self) -> Told | None:
        """Who told it."""
        return next((one for one in self.bounces if one.bounce is self.bounce), None)

    def as_row(self) -> dict[str, Any]:
        """For the statement `feedback.apply`."""
        def moment(effect: Effect) -> str | None:
            at = self.moments.get(effect)
            return None if at is None else at.isoformat()

        told = self.gravest
        return {
            "contact_id": self.message.contact_id, "message_id": self.message.message_id, "effect": int(self.effect),
            "delivered_at": moment(Effect.DELIVERED), "bounced_at": moment(Effect.BOUNCED),
            "complained_at": moment(Effect.COMPLAINED),
            "reason": str(self.bounce) if Effect.BOUNCED in self.moments else None,
            "diagnostic": f"{told.reason}: {told.diagnostic}"[:500] if told else "",
        }  # fmt: skip


def apply_due(
    tx: Connection, settings: Settings, *, now: datetime, size: int = 200, only: int | None = None
) -> Applied:
    """Apply up to `size` notices that are due.

    Args:
        only: this notice alone.
    """
    rows = tx.execute(statement("feedback.take_notices"), {"now": now, "size": size, "only": only}).all()
    if not rows:
        return Applied()
    taken = [_Taken(row=row, notice=of_body(row.source, row.body)) for row in rows]
    _find(tx, settings, taken)
    changes, settled = _changes(tx, taken, now)
    suppressed = 0
    if changes:
        parameters = {"told": json.dumps([one.as_row() for one in changes.values()])}
        facts = tx.execute(statement("feedback.apply"), parameters).all()
        telling.tell(tx, facts, {key: _words(one) for key, one in changes.items()}, now=now)
        suppressed = telling.suppress(tx, settings, [_harm(one) for one in changes.values()], now=now)
    _settle(tx, taken, now)
    return Applied(
        taken=len(taken), applied=sum(one.status == "applied" for one in taken), settled=settled,
        parked=sum(one.status == "parked" for one in taken), suppressed=suppressed, message_ids=frozenset(changes),
    )  # fmt: skip


def _find(tx: Connection, settings: Settings, taken: Sequence[_Taken]) -> None:
    """Find the message of each notice: by the provider's id, our tag, our return path, our Message-ID."""
    provider_ids = sorted({one.notice.provider_id for one in taken if one.notice.provider_id and one.notice.is_proven})
    known = tx.execute(statement("feedback.by_provider_ids"), {"provider_ids": provider_ids}) if provider_ids else ()
    by_provider = {row.provider_id: row.message_id for row in known}
    paths = ReturnPaths.from_settings(settings)
    for one in taken:
        notice = one.notice
        returned = next(filter(None, map(paths.read, notice.paths)), None)
        one.is_proven = notice.is_proven or returned is not None
        if notice.is_proven:
            one.message_id = by_provider.get(notice.provider_id) or notice.message_id
        if one.message_id is None and returned is not None:
            one.message_id = returned.message_id
    _find_by_message_id(tx, message_identity(settings), taken)
    wanted = sorted({one.message_id for one in taken if one.message_id is not None})
    found = {row.message_id: row for row in tx.execute(statement("feedback.lock_messages"), {"message_ids": wanted})}
    for one in taken:
        one.message = found.get(one.message_id or 0)


def _find_by_message_id(tx: Connection, identity: MessageIdentity, taken: Sequence[_Taken]) -> None:
    """The second evidence: enough for the state of a message, never for suppressing anybody."""
    open_ones = {
        rfc_message_id: one
        for one in taken if one.message_id is None
        for rfc_message_id in one.notice.rfc_message_ids if rfc_message_id.endswith(f"@{identity.domain}")
    }  # fmt: skip
    if open_ones:
        rows = tx.execute(statement("feedback.by_rfc_ids"), {"rfc_message_ids": sorted(open_ones)})
        for row in rows:
            open_ones[row.rfc_message_id].message_id = row.message_id


def _changes(tx: Connection, taken: Sequence[_Taken], now: datetime) -> tuple[dict[int, _Change], int]:
    """What to do to which message; also settles doubts, since a notice proves that the message was taken."""
    changes: dict[int, _Change] = {}
    settled: set[int] = set()
    for one in taken:
        message, notice = one.message, one.notice
        if notice.effect is Effect.NONE:
            one.detail = "nothing to apply"
        elif message is None or message.status in _ON_ITS_WAY:
            _park(one, now)
        elif not _is_about_recipient(one):
            one.detail = "about another recipient"
        elif message.status == Status.UNKNOWN and message.message_id not in settled:
            settled.update(_settle_doubt(tx, one, now))
            one.status = "applied"
        elif message.status in _ARRIVED or message.message_id in settled:
            one.status = "applied"
        else:
            one.detail = f"the message is {message.status}"
        if one.status == "applied" and message is not None:
            changes.setdefault(message.message_id, _Change(message=message)).add(one)
    return changes, len(settled)


def _park(one: _Taken, now: datetime) -> None:
    has_evidence = one.message_id is not None or one.notice.is_proven
    if has_evidence and now < one.row.received_at + GIVE_UP:
        one.status, one.detail = "parked", "waits for its message"
    else:
        one.detail = "no such message" if has_evidence or one.notice.rfc_message_ids else "no return path of ours"


def _is_about_recipient(one: _Taken) -> bool:
    """Keep what is said of the message's own recipient; False if nothing is.

    A mail that came to our signed return path is about that recipient, whatever other address it names: the one it
    was forwarded to, for example.
    """
    notice, message = one.notice, one.message
    if message is None:
        return False
    if notice.source == "mail" and one.is_proven:
        one.told = notice.told
        return True
    own = {address_key(message.to_email)} if message.to_email else {message.email_key, address_key(message.email or "")}
    named = tuple(told for told in notice.told if told.key and told.key in own)
    one.told = named
    # Opens and the like name nobody.
    return bool(named) or (not notice.told and notice.effect is Effect.SENT)


def _settle_doubt(tx: Connection, one: _Taken, now: datetime) -> list[int]:
    message = one.message
    if message is None:
        return []
    result = Result(verdict=Verdict.SENT, stage=Stage.DOT, reply=f"told by a notice ({one.notice.kind})")
    outcome = Outcome(
        contact_id=message.contact_id, message_id=message.message_id, attempt_id=message.attempt_id, result=result
    )
    return [row.message_id for row in record(tx, [outcome], now=min(now, one.at))]


def _words(change: _Change) -> Mapping[str, str]:
    """Properties of the event of a bounce."""
    told = change.gravest
    return {"class": str(change.bounce), "reason": told.reason if told else ""}


def _harm(change: _Change) -> telling.Harm:
    message, told = change.message, change.gravest
    return telling.Harm(
        contact_id=message.contact_id, message_id=message.message_id, campaign_id=message.campaign_id,
        address=_address(message), source=change.source, notes=f"{told.reason}: {told.diagnostic}" if told else "",
        is_complaint=change.is_proven and Effect.COMPLAINED in change.moments,
        is_hard=change.is_proven and Effect.BOUNCED in change.moments and change.bounce is BounceClass.HARD,
        is_soft=change.is_proven and Effect.BOUNCED in change.moments and change.bounce is BounceClass.SOFT,
    )  # fmt: skip


def _address(message: Row[Any]) -> str:
    """Where the message went, as it is written now if it is still the same."""
    if message.to_email:
        return str(message.to_email)
    same = message.email and address_key(message.email) == message.email_key
    return str((message.email if same else message.email_key) or "")


def _settle(tx: Connection, taken: Sequence[_Taken], now: datetime) -> None:
    outcomes = []
    for one in taken:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(one.row.look_count, 12))
        outcomes.append({
            "notice_id": one.row.notice_id, "status": one.status, "kind": one.notice.kind, "detail": one.detail,
            "message_id": one.message.message_id if one.message is not None else None,
            "next_look_at": (now + pause).isoformat() if one.status == "parked" else None,
        })  # fmt: skip
    tx.execute(statement("feedback.settle_notices"), {"outcomes": json.dumps(outcomes), "now": now})
