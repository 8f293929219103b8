"""Signs of life: does the database answer, and when did a background component last say something.

Called by `/ready` and the overview page. Beats are written by `mautolib.maintenance`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine, func, select

from mautolib.db import tables


def answers(engine: Engine) -> bool:
    """Whether the database answers a query; raises what the driver raises when it cannot be reached."""
    with engine.connect() as connection:
        return connection.scalar(select(1)) == 1


def last_beat(tx: Connection, prefix: str) -> datetime | None:
    """The newest beat of any component whose name begins with `prefix`; None if there never was one."""
    beats = tables.heartbeats
    newest = select(func.max(beats.c.beat_at)).where(beats.c.component.startswith(prefix, autoescape=True))
    found: datetime | None = tx.scalar(newest)
    return found
