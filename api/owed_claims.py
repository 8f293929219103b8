"""Idempotency claims that could not be given back because the database was away; given back as soon as it is there.

Guards that whoever was refused with 503 and asks again with the same key does not meet the refused call's claim for
the minute until it counts as abandoned. What was carried out all the same (its COMMIT went through, its answer did not
come) keeps its answer: only a claim without one is given back. Called by `api.calls`; one instance per process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mautolib.auth import idempotency

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS: Final = 0.25


class OwedClaims:
    """What one process owes to the database. Its thread lives only while there is something."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._owed: deque[idempotency.Claim] = deque()
        self._lock = threading.Lock()
        self._is_working = False

    def add(self, claim: idempotency.Claim) -> None:
        """Give a claim back later; it need not have been stored."""
        with self._lock:
            self._owed.append(claim)
            if self._is_working:
                return
            self._is_working = True
        threading.Thread(target=self._work, name="owed-claims", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._owed:
                    self._is_working = False
                    return
                claim = self._owed[0]
            # After that time another call takes it over without our help.
            if datetime.now(UTC) - claim.claimed_at > idempotency.ABANDONED or self._give_back(claim):
                self._owed.popleft()
            else:
                time.sleep(_PAUSE_SECONDS)

    def _give_back(self, claim: idempotency.Claim) -> bool:
        try:
            with self._engine.begin() as tx:
                idempotency.release(tx, claim)
        except SQLAlchemyError as error:
            _LOG.info("an idempotency claim is still to be given back (%s)", type(error).__name__)
            return False
        return True
