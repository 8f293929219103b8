"""What the task `export` of `cohort_analytics` does: schema `analytics` as Parquet, where a target is set."""

from __future__ import annotations

import logging

from mauto_airflow import moments
from mauto_airflow.warehouse import warehouse

_LOG = logging.getLogger(__name__)


def export() -> dict[str, int]:
    """Write what changed to the lake, if there is one; returns the rows written by table."""
    from mautolib.analytics import lake

    with warehouse() as (engine, settings):
        if not settings.lake_target:
            _LOG.info("MAUTO_LAKE_TARGET names no folder or bucket.")
            return {}
        done = lake.export(engine, settings, target=settings.lake_target, now=moments.now(), hasty=True)
    counts = {one.table: one.rows for one in done if one.written or one.removed}
    _LOG.info("Rows written: %s.", counts or "none, nothing has changed")
    return counts
