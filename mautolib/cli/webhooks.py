"""`mauto dead-letters`: deliveries of webhooks whose tries are used up, and sending them again."""

from __future__ import annotations

from typing import Annotated

import typer

from mautolib.cli import desk
from mautolib.webhooks import DeliveryStatus, reading, retry_delivery, retry_many

commands = desk.group("Deliveries of webhooks whose tries are used up.")


@commands.command("list")
def list_dead(limit: int = 100, as_json: desk.AsJson = False) -> None:
    """List dead deliveries, newest first."""
    wanted = reading.DeliveryFilter(endpoint_id=None, status=DeliveryStatus.DEAD)
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = reading.search(tx, wanted, limit=limit)
    desk.show([
        {"delivery": one.delivery_id, "webhook": one.endpoint_id, "event": one.event_type, "made": one.created_at,
         "tries": one.attempt, "status": one.response_status, "error": one.error} for one in found
    ], as_json=as_json)  # fmt: skip


@commands.command()
def replay(
    delivery: Annotated[int | None, typer.Option(help="Only this delivery.")] = None,
    webhook: Annotated[int | None, typer.Option(help="All dead ones of this webhook.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead ones of all webhooks.")] = False,
) -> None:
    """Put dead deliveries back in line, with the id they had."""
    if sum((delivery is not None, webhook is not None, everything)) != 1:
        raise typer.BadParameter("say one of --delivery, --webhook and --all")
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        if delivery is not None:
            one = reading.get(tx, delivery).delivery
            retry_delivery(tx, one.endpoint_id, delivery, now=desk.now())
            count = 1
        else:
            own = [webhook] if webhook is not None else reading.endpoints_with_dead(tx)
            count = sum(retry_many(tx, one, since=None, until=None, now=desk.now()) for one in own)
        desk.note(tx, "webhooks.replay", delivery or webhook, count=count)
    typer.echo(f"{count} deliveries are in line again")
