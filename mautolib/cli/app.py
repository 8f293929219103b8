"""The command `mauto`: wiring only."""

from __future__ import annotations

import os
import sys

from mautolib import log
from mautolib.cli import (  # fmt: skip
    airflow,
    campaigns,
    desk,
    figures,
    holdout,
    imports,
    keys,
    lake,
    mail,
    state,
    users,
    warehouse,
    watching,
    webhooks,
    work,
)

app = desk.group("Operate MarketingAutomation-Lite without SQL. Settings come from MAUTO_... or the running stack.")
for part in (warehouse, state, imports, watching, work):
    app.registered_commands += part.commands.registered_commands
app.add_typer(users.commands, name="users")
app.add_typer(keys.commands, name="secrets")
app.add_typer(campaigns.commands, name="campaign")
app.add_typer(holdout.commands, name="holdout")
app.add_typer(mail.sending, name="sending")
app.add_typer(mail.ledger, name="ledger")
app.add_typer(mail.unknown, name="unknown")
app.add_typer(imports.known, name="imports")
app.add_typer(webhooks.addresses, name="webhooks")
app.add_typer(webhooks.commands, name="dead-letters")
app.add_typer(figures.commands, name="analytics")
app.add_typer(watching.alert, name="alert")
app.add_typer(warehouse.partitions, name="partitions")
app.add_typer(airflow.commands, name="airflow")
app.add_typer(lake.commands, name="lake")


def main() -> None:
    """Run one command and end with its exit code."""
    log.setup("WARNING", os.environ.get("MAUTO_LOG_FORMAT", "text"))
    app(prog_name="mauto")
    sys.exit(0)
