"""The desk: a run's dealings with the database, in short transactions between the attempts.

Promise: each turn records what ended, lets new facts become deliveries and claims under a fresh attempt and lease; any
of these may be lost by a kill and is then done by whoever comes next. It knows nothing of HTTP. Called by delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from mautolib.db.statements import statement
from mautolib.errors import Conflict
from mautolib.settings import Settings
from mautolib.webhooks.lanes import FAILING_WINDOW, FIRST_WINDOW
from mautolib.webhooks.model import InHand, Outcome, Receiver
from mautolib.webhooks.recording import Recorded, record
from mautolib.webhooks.secrets import open_secret

_LOG = logging.getLogger(__name__)
#: Facts looked at in one transaction.
FACTS: Final = 2000
#: So many times more where nothing has to be made of them: the first who listens may find a million.
EARLY: Final = 25
#: Deliveries claimed in one transaction.
MOST_CLAIMED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a turn gave.

    Args:
        facts, made: facts looked at, and deliveries made of them.
    """

    recorded: Recorded = field(default_factory=Recorded)
    facts: int = 0
    made: int = 0
    claimed: Sequence[InHand] = ()
    receivers: Mapping[int, Receiver] = field(default_factory=dict)


@dataclass
class Desk:
    """What a run asks of the database."""

    engine: Engine
    settings: Settings
    lease: timedelta
    endpoint_id: int | None = None
    _opened: dict[bytes, str] = field(default_factory=dict)

    def turn(
        self, outcomes: Sequence[Outcome], rooms: Mapping[int, int], *, now: datetime, claims: bool
    ) -> Turn:
        """Record, make deliveries, claim; each in a transaction of its own.

        Args:
            rooms: how many more deliveries the run takes of the endpoints it knows.
            claims: False near the end: only record.
        """
        recorded = Recorded()
        if outcomes:
            with self.engine.begin() as tx:
                recorded = record(tx, outcomes, now=now)
        if not claims:
            return Turn(recorded=recorded)
        facts, made = expand(self.engine, now=now)
        with self.engine.begin() as tx:
            claimed = self._claim(tx, rooms, now)
            receivers = self._receivers(tx, claimed, now)
        return Turn(recorded=recorded, facts=facts, made=made, claimed=claimed, receivers=receivers)

    def _claim(self, tx: Connection, rooms: Mapping[int, int], now: datetime) -> list[InHand]:
        attempt_id = tx.scalar(statement("webhooks.new_attempt"))
        values = {
            "attempt_id": attempt_id, "now": now, "lease_until": now + self.lease, "size": MOST_CLAIMED,
            "endpoint_ids": list(rooms), "rooms": list(rooms.values()), "room": FIRST_WINDOW,
            "failing_room": FAILING_WINDOW, "endpoint_id": self.endpoint_id,
        }  # fmt: skip
        return [InHand(*row) for row in tx.execute(statement("webhooks.claim"), values)]

    def _receivers(self, tx: Connection, claimed: Sequence[InHand], now: datetime) -> dict[int, Receiver]:
        if not claimed:
            return {}
        return receivers(
            tx, self.settings, {delivery.endpoint_id for delivery in claimed}, now=now, opened=self._opened
        )


def expand(engine: Engine, *, now: datetime, size: int = FACTS) -> tuple[int, int]:
    """Let the oldest facts become deliveries; returns how many facts were looked at and deliveries made.

    While nobody listens nothing is looked at; a fact from before somebody listens is only marked.
    """
    with engine.begin() as tx:
        oldest = tx.execute(statement("webhooks.next_fact")).one_or_none()
        if oldest is None:
            return 0, 0
        if oldest.is_early:
            values = {"now": now, "size": size * EARLY}
            return tx.execute(statement("webhooks.pass_over"), values).rowcount, 0
        row = tx.execute(statement("webhooks.expand"), {"now": now, "size": size}).one()
    return row.fact_count, row.delivery_count


def receivers(
    tx: Connection, settings: Settings, endpoint_ids: set[int], *, now: datetime, opened: dict[bytes, str] | None = None
) -> dict[int, Receiver]:
    """Endpoints as attempts need them; one whose secret cannot be opened has none.

    Args:
        opened: secrets opened before, by what is stored; added to.
    """
    known = {} if opened is None else opened
    rows = tx.execute(statement("webhooks.receivers"), {"endpoint_ids": sorted(endpoint_ids), "now": now}).all()
    found = {}
    for row in rows:
        stored = [row.secret_encrypted, row.previous_secret_encrypted]
        secrets = [_opened(settings, bytes(sealed), known) for sealed in stored if sealed is not None]
        # Without the present secret nothing is sent; without the previous one only its signature is missing.
        usable = tuple(secret for secret in secrets if secret is not None) if secrets[:1] != [None] else ()
        found[row.endpoint_id] = Receiver(
            endpoint_id=row.endpoint_id, url=row.url, secrets=usable, is_failing=row.is_failing,
            is_signed=row.is_listed,
        )
    return found


def _opened(settings: Settings, sealed: bytes, known: dict[bytes, str]) -> str | None:
    if sealed not in known:
        try:
            known[sealed] = open_secret(settings, sealed)
        except Conflict as error:
            _LOG.error("a webhook secret cannot be opened: %s", error)
            return None
    return known[sealed]
