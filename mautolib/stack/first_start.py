"""What a new warehouse is given once: this and the coming months' partitions, starter templates, scoring rules.

Called right after the first migration and never again, so what a user changes or deletes stays so.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from mautolib import maintenance, scoring
from mautolib.settings import Settings
from mautolib.templates import starters

FIRST_MIGRATION = "migrations/0001_contacts.sql"


def furnish(engine: Engine, settings: Settings, now: datetime) -> None:
    """Furnish a warehouse that was migrated for the first time."""
    maintenance.run(engine, settings, now=now, task="partitions")
    with engine.begin() as tx:
        starters.install_starters(tx, now)
        scoring.install_default_rules(tx, now)
