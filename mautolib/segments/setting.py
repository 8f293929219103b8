"""What rules are evaluated against, read from the database: segments and tags they may name, the currency, the time.

Promise: a definition that is compiled with this means the same in a preview, a count, an evaluation and an audience.
Called by everything that compiles.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from mautolib.db import tables
from mautolib.segments.compile import Setting
from mautolib.segments.model import definition_of
from mautolib.segments.rules import Definition, fold
from mautolib.settings import Settings


def load(tx: Connection, settings: Settings, *, now: datetime) -> Setting:
    """The setting as it stands."""
    definitions: dict[int, Definition] = {}
    ids: dict[str, list[int]] = {}
    for row in tx.execute(select(tables.segments).order_by(tables.segments.c.segment_id)):
        definitions[row.segment_id] = definition_of(row)
        ids.setdefault(fold(row.name), []).append(row.segment_id)
    tags: dict[str, list[int]] = {}
    for row in tx.execute(select(tables.tags.c.tag_id, tables.tags.c.name)):
        tags.setdefault(fold(row.name), []).append(row.tag_id)
    return Setting(
        now=now,
        reporting_currency=settings.reporting_currency,
        segments=definitions,
        segment_ids_by_name={name: tuple(found) for name, found in ids.items()},
        tag_ids_by_name={name: tuple(found) for name, found in tags.items()},
    )
