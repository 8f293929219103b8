"""`mauto dead-letters`: deliveries whose tries are used up, sent again or given up. `mauto webhooks`: where they go."""

from __future__ import annotations

from typing import Annotated

import typer

from mautolib.cli import desk
from mautolib.webhooks import DeliveryStatus, endpoints, give_up, reading, retry_delivery, retry_many

commands = desk.group("Deliveries of webhooks whose tries are used up.")
addresses = desk.group("Where webhooks are delivered to.")
Only = Annotated[int | None, typer.Option("--delivery", help="Only this delivery.")]
OfWebhook = Annotated[int | None, typer.Option("--webhook", help="All dead ones of this webhook.")]
Everything = Annotated[bool, typer.Option("--all", help="All dead ones of all webhooks.")]
Webhook = Annotated[int, typer.Argument(help="The webhook's id.")]


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
def replay(delivery: Only = None, webhook: OfWebhook = None, everything: Everything = False) -> None:
    """Put dead deliveries back in line, with the id they had."""
    _check_one(delivery, webhook, everything)
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


@commands.command("give-up")
def give_up_dead(
    delivery: Only = None, webhook: OfWebhook = None, everything: Everything = False, yes: desk.Yes = False
) -> None:
    """Remove dead deliveries nobody will ever want, with the log of their attempts."""
    _check_one(delivery, webhook, everything)
    desk.confirm("Remove them, for good?", yes)
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        count = give_up(tx, endpoint_id=webhook, delivery_id=delivery)
        desk.note(tx, "webhooks.give_up", delivery or webhook, count=count)
    typer.echo(f"{count} deliveries are given up")


@addresses.command("list")
def list_webhooks(limit: int = 100, as_json: desk.AsJson = False) -> None:
    """List webhooks, newest first, with why one was disabled."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = endpoints.search(tx, limit=limit)
    desk.show([
        {"webhook": one.endpoint_id, "active": one.active, "url": one.url, "failures": one.consecutive_failures,
         "last_success": one.last_success_at, "disabled": one.disabled_reason} for one in found
    ], as_json=as_json)  # fmt: skip


@addresses.command()
def enable(webhook: Webhook) -> None:
    """Deliver to a disabled one again; what waited for it goes out."""
    _switch(webhook, True)


@addresses.command()
def disable(webhook: Webhook) -> None:
    """Deliver nothing to it; what is due waits up to 30 days."""
    _switch(webhook, False)


def _switch(webhook: int, active: bool) -> None:
    given = desk.settings()
    with desk.database(given) as engine, engine.begin() as tx:
        endpoints.update(tx, given, webhook, {"active": active})
        desk.note(tx, "webhooks.update", webhook, active=active)
    typer.echo(f"webhook {webhook} is {'active' if active else 'disabled'}")


def _check_one(delivery: int | None, webhook: int | None, everything: bool) -> None:
    if sum((delivery is not None, webhook is not None, everything)) != 1:
        raise typer.BadParameter("say one of --delivery, --webhook and --all")
