"""Signs of life: one row per background component, read by /ready.

Written by the launcher, Airflow's tasks and watchers, and the API's own loops. Judging how old is too old is the
reader's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mautolib.db.statements import statement


def heartbeat(tx: Connection, component: str, now: datetime, detail: Mapping[str, Any] | None = None) -> None:
    """Say that `component` is alive at `now`; a late older call changes nothing.

    Args:
        component: name of the process or DAG, e.g. `airflow.workflow_advance`.
        detail: a few JSON-ready values for the reader (versions, counts); no personal data.
    """
    values = {"component": component, "now": now, "detail": json.dumps(dict(detail or {}))}
    tx.execute(statement("maintenance.beat"), values)
