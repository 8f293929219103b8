"""`mauto campaign`: look at campaigns, send, stop and go on."""

from __future__ import annotations

from typing import Annotated

import typer

from mautolib.campaigns import control, launch
from mautolib.campaigns.model import Campaign, Status
from mautolib.cli import desk
from mautolib.ledger import settle

commands = desk.group("Look at campaigns, send them, stop them.")
Id = Annotated[int, typer.Argument(help="The campaign's id.")]


@commands.command("list")
def list_campaigns(status: Status | None = None, limit: int = 50, as_json: desk.AsJson = False) -> None:
    """List campaigns, newest first."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = control.newest(tx, status=status, limit=limit)
    desk.show([
        {"id": one.campaign_id, "status": one.status, "name": one.name, "scheduled_at": one.scheduled_at,
         "sent_at": one.sent_at} for one in found
    ], as_json=as_json)  # fmt: skip


@commands.command()
def show(campaign_id: Id, as_json: desk.AsJson = False) -> None:
    """Show a campaign and what is still open of it."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        one, left = control.look_at(tx, campaign_id), settle.open_counts(tx, campaign_id)
    row = {"id": one.campaign_id, "status": one.status, "reason": one.status_reason, "name": one.name,
           "subject": one.subject, "requested_at": one.requested_at, "sent_at": one.sent_at, **left}  # fmt: skip
    desk.show([row] if as_json else [{"what": key, "value": value} for key, value in row.items()], as_json=as_json)


@commands.command()
def send(campaign_id: Id, yes: desk.Yes = False) -> None:
    """Send a draft or scheduled campaign now."""
    given = desk.settings()
    with desk.database(given) as engine, engine.begin() as tx:
        desk.confirm(f"Send campaign {campaign_id} {control.look_at(tx, campaign_id).name!r} now?", yes)
        done = launch.request_send(tx, given, campaign_id, now=desk.now())
        desk.note(tx, "campaigns.send", campaign_id)
    _say(done)


@commands.command()
def pause(campaign_id: Id) -> None:
    """Stop handing over; what is in flight finishes."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        done = control.pause(tx, campaign_id, now=desk.now())
        desk.note(tx, "campaigns.pause", campaign_id)
    _say(done)


@commands.command()
def resume(campaign_id: Id) -> None:
    """Go on where it was paused."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        done = control.resume(tx, campaign_id, now=desk.now())
        desk.note(tx, "campaigns.resume", campaign_id)
    _say(done)


@commands.command()
def cancel(campaign_id: Id, yes: desk.Yes = False) -> None:
    """Give up, for good, what is not handed over yet."""
    desk.confirm(f"Give up what campaign {campaign_id} has not handed over, for good?", yes)
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        done = control.cancel(tx, campaign_id, now=desk.now())
        desk.note(tx, "campaigns.cancel", campaign_id)
    _say(done)


def _say(campaign: Campaign) -> None:
    typer.echo(f"campaign {campaign.campaign_id} is {campaign.status.value}")
