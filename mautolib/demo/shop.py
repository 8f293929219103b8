"""What the demo puts into the warehouse beside the contact file: templates, rules, the welcome series, history.

Everything here is idempotent: run again, it finds its own work and adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Engine, select

from mautolib import maintenance, recipes, scoring
from mautolib.db.statements import statement
from mautolib.db.tables import contacts, templates
from mautolib.demo import history
from mautolib.demo.people import HISTORY_DAYS, Person
from mautolib.events import orders
from mautolib.events.append import append_many
from mautolib.settings import Settings
from mautolib.templates import starters


def furnish(engine: Engine, settings: Settings, now: datetime) -> dict[str, int]:
    """Install starter templates, scoring rules and the welcome series; returns template ids by name."""
    maintenance.run(engine, settings, now=now, task="partitions")
    with engine.begin() as tx:
        starters.install_starters(tx, now)
        scoring.install_default_rules(tx, now)
        ids = {row.name: row.template_id for row in tx.execute(select(templates.c.name, templates.c.template_id))}
        recipes.load(tx, settings, recipes.recipe("welcome-series"), activate=True, now=now)
    return ids


def load_history(
    engine: Engine, settings: Settings, everybody: Sequence[Person], today: datetime, now: datetime
) -> int:
    """Load rates, events and orders of the last eighteen months; returns how many facts were new."""
    with engine.begin() as tx:
        # Apart from the load: making a partition locks the table until the transaction ends.
        days = {"first_day": today.date() - timedelta(days=HISTORY_DAYS + 1), "last_day": today.date()}
        tx.execute(statement("maintenance.ensure_partitions"), days)
    with engine.begin() as tx:
        ids = {row.email_key: row.contact_id for row in tx.execute(select(contacts.c.email_key, contacts.c.contact_id))}
        rates = history.rates(today.date(), settings.reporting_currency)
        orders.load_rates(tx, (
            orders.NewRate(rate_date=day, base=base, quote=quote, rate=rate, source="demo")
            for day, base, quote, rate in rates
        ), now=now)  # fmt: skip
        told = append_many(tx, history.events(everybody, ids, today), now=now, effects=False)
        bought = list(history.orders(everybody, ids, today))
        placed = orders.record_orders(tx, bought, settings, now=now, effects=False)
        returned = orders.record_refunds(tx, history.refunds(bought, today), now=now, effects=False)
    return told.accepted + placed.accepted + returned.accepted
