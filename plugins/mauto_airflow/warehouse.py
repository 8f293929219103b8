"""From Airflow's connection `mauto_warehouse` to an engine of ours, and the settings of this process.

Airflow's PostgresHook hands out psycopg 3; mautolib speaks psycopg2 (COPY, one driver everywhere), so the connection
is read and our own engine opened. Called inside tasks only: no connection is looked up while a DAG file is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from mauto_airflow import moments
from mautolib.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

CONNECTION_ID = "mauto_warehouse"


@contextmanager
def warehouse() -> Iterator[tuple[Engine, Settings]]:
    """The engine of the warehouse and the settings, for the length of one task; leaves a sign of life for /ready.

    Raises:
        Misconfigured: the connection is not a PostgreSQL one, or a setting cannot be read.
    """
    from mautolib.db.engine import connect
    from mautolib.maintenance import heartbeat

    settings = Settings.from_env()
    engine = connect(BaseHook.get_connection(CONNECTION_ID).get_uri(), application_name="mauto-worker")
    try:
        with engine.begin() as tx:
            heartbeat(tx, "airflow", moments.now())
        yield engine, settings
    finally:
        engine.dispose()
