"""The regular check of the send ledger, and how often it is due.

Promise: what it finds is in the heartbeat that the watchdog and /metrics read; it changes nothing else. A check reads
the whole ledger, so one that takes longer comes less often: daily while it takes 10 s, weekly at the rarest. Called by
maintenance; the command line checks by itself.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from mautolib.db.statements import statement
from mautolib.ledger import check
from mautolib.maintenance.heartbeats import heartbeat

#: The component whose heartbeat says when the ledger was last checked, and with how many findings.
LEDGER_CHECK: Final = "ledger_check"
_LOG = logging.getLogger(__name__)
_DAY: Final = timedelta(days=1)
_RAREST: Final = timedelta(days=7)
_SECONDS_A_DAY: Final = 10
#: Maintenance comes hourly and never to the second.
_EARLY: Final = timedelta(minutes=30)
_LOGGED: Final = 20


def is_due(engine: Engine, *, now: datetime) -> bool:
    """Whether the last check, whoever made it, is old enough for the next."""
    with engine.begin() as tx:
        last = tx.execute(statement("watch.beat_of"), {"component": LEDGER_CHECK}).one_or_none()
    if last is None:
        return True
    days = float(last.detail.get("seconds", 0)) / _SECONDS_A_DAY
    return bool(now - last.beat_at >= min(max(_DAY * days, _DAY), _RAREST) - _EARLY)


def prove(engine: Engine, *, now: datetime) -> int:
    """Check the ledger and leave the heartbeat; returns the number of findings.

    Work goes on meanwhile: figures are recounted just after the bounces they count. So only what a second look still
    sees is a finding.
    """
    began = time.monotonic()
    with engine.connect() as tx:
        found = check.check(tx)
    seconds = time.monotonic() - began
    if found:
        with engine.connect() as tx:
            again = set(check.check(tx))
        found = [one for one in found if one in again]
    for one in found[:_LOGGED]:
        _LOG.error("ledger check, %s: %s", one.question, one.what)
    with engine.begin() as tx:
        heartbeat(tx, LEDGER_CHECK, now, {"findings": len(found), "seconds": round(seconds, 1)})
    return len(found)
