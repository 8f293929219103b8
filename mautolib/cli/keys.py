"""`mauto secrets`: which key of MAUTO_SECRET_KEYS the stored secrets of webhooks need, and sealing them anew."""

from __future__ import annotations

import typer

from mautolib.cli import desk
from mautolib.webhooks import resealing

commands = desk.group("Stored secrets of webhooks and inbound sources, and the keys they need.")


@commands.command()
def status(as_json: desk.AsJson = False) -> None:
    """Say which keys the stored secrets need; exit code 1 while an older one may not go, or one is missing."""
    given = desk.settings()
    with desk.database(given) as engine, engine.begin() as tx:
        found = resealing.stored(tx, given, now=desk.now())
    desk.show([
        {"sealed_with": "the newest key", "secrets": found.newest},
        {"sealed_with": "an older key", "secrets": found.older},
        {"sealed_with": "a key that is gone", "secrets": found.lost},
    ], as_json=as_json)  # fmt: skip
    raise typer.Exit(desk.NOT_POSSIBLE if found.older or found.lost else 0)


@commands.command()
def reseal() -> None:
    """Seal with the newest key what an older one sealed, so that the older one may go."""
    given = desk.settings()
    with desk.database(given) as engine, engine.begin() as tx:
        count = resealing.reseal(tx, given, now=desk.now())
        desk.note(tx, "secrets.reseal", count=count)
    typer.echo(f"{count} secrets are sealed with the newest key")
