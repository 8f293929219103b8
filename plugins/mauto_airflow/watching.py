"""What the watchdog's task does: mend, look, tell. A channel that is away, or a finding, never fails the task."""

from __future__ import annotations

import logging

from mauto_airflow import moments
from mauto_airflow.warehouse import warehouse

_LOG = logging.getLogger(__name__)


def watch() -> dict[str, int]:
    """Mend what is safe to mend, and tell of what is stuck, late or missing and of what no longer is."""
    from mautolib.maintenance import alerts, mend

    with warehouse() as (engine, settings):
        mended = mend(engine, settings, now=moments.now())
        found, told = alerts.review(engine, settings, now=moments.now())
    for one in found:
        _LOG.warning("%s: %s; %s", one.name, one.summary, one.advice)
    counts = {"findings": len(found), "opened": told.opened, "resolved": told.resolved, "undelivered": told.undelivered,
              **mended}  # fmt: skip
    _LOG.info("Watchdog: %s.", counts)
    return counts
