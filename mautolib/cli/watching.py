"""`mauto watch` and `mauto alert`: what is stuck, late or missing, and whom it is told."""

from __future__ import annotations

from typing import Annotated

import typer

from mautolib.cli import desk
from mautolib.errors import InvalidInput
from mautolib.maintenance import alerts, mend
from mautolib.maintenance import watch as watchdog

commands = desk.group("What is stuck.")
alert = desk.group("What operators are told.")


@commands.command()
def watch(
    mends: Annotated[bool, typer.Option("--mend", help="First return leases that ran out, make partitions.")] = False,
    tells: Annotated[bool, typer.Option("--tell", help="Send alerts of what is new and of what is over.")] = False,
    as_json: desk.AsJson = False,
) -> None:
    """Look for what is stuck, late or missing; exit code 1 if there is anything."""
    given = desk.settings()
    with desk.database(given) as engine:
        if mends:
            done = mend(engine, given, now=desk.now())
            with engine.begin() as tx:
                desk.note(tx, "watch.mend", **done)
            typer.echo(f"{done['leases']} leases returned, {done['partitions']} partitions made", err=True)
        if tells:
            found, told = alerts.review(engine, given, now=desk.now())
            typer.echo(f"{told.opened} new, {told.resolved} over, {told.undelivered} notes wait", err=True)
        else:
            with engine.begin() as tx:
                found = watchdog.findings(tx, given, now=desk.now())
    desk.show([
        {"finding": one.name, "what": one.summary, "do": one.advice} for one in found
    ], as_json=as_json, nothing="nothing is stuck")  # fmt: skip
    raise typer.Exit(desk.NOT_POSSIBLE if found else 0)


@alert.command("list")
def list_alerts(as_json: desk.AsJson = False) -> None:
    """List the findings that are open."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = alerts.open_findings(tx)
    desk.show([
        {"finding": row.finding, "since": row.opened_at, "seen": row.seen_at, "told": row.is_told, "what": row.summary,
         "do": row.advice} for row in found
    ], as_json=as_json)  # fmt: skip


@alert.command()
def test() -> None:
    """Send a test note through every channel; exit code 1 if one does not take it."""
    results = alerts.test(desk.settings(), now=desk.now())
    if not results:
        raise InvalidInput("no channel is set: MAUTO_ALERT_EMAIL, MAUTO_ALERT_WEBHOOK_URL")
    for channel, problem in results.items():
        typer.echo(f"{channel}: {problem or 'taken'}")
    raise typer.Exit(desk.NOT_POSSIBLE if any(results.values()) else 0)
