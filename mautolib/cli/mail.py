"""`mauto sending`, `mauto ledger`, `mauto unknown`: whether mail may leave, what the ledger says, and doubts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from mautolib.campaigns import doubts
from mautolib.campaigns.doubts import Decision
from mautolib.cli import desk
from mautolib.db.statements import statement
from mautolib.errors import InvalidInput
from mautolib.ledger import check, installation
from mautolib.ledger.identity import message_identity
from mautolib.ledger.journal import journal_folder
from mautolib.maintenance import heartbeat
from mautolib.maintenance.watch import LEDGER_CHECK

sending = desk.group("Whether mail may leave.")
ledger = desk.group("The send ledger.")
unknown = desk.group("Messages that may or may not have been accepted.")
SinkLog = Annotated[Path | None, typer.Option(help="Folder with the receiving side's accepted.jsonl.")]


@sending.command()
def status(as_json: desk.AsJson = False) -> None:
    """Say whether mail may leave, and what waits; exit code 1 while it is off."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        here = installation.read(tx)
        waiting = [dict(row) for row in tx.execute(statement("installation.queue_now")).mappings()]
    if as_json:
        desk.show([{"sending": here.sending_enabled, "reason": here.reason, "epoch": here.epoch,
                    "restored_at": here.restored_at, "queued": sum(row["message_count"] for row in waiting)}],
                  as_json=True)  # fmt: skip
    else:
        state = "on" if here.sending_enabled else f"OFF since {here.changed_at:%Y-%m-%d %H:%M} UTC: {here.reason}"
        typer.echo(f"sending is {state} (epoch {here.epoch})")
        desk.show(waiting, as_json=False, nothing="nothing is queued")
    raise typer.Exit(0 if here.sending_enabled else desk.NOT_POSSIBLE)


@sending.command()
def off(reason: Annotated[str, typer.Option(help="Why; shown to everybody.")] = "switched off by an operator") -> None:
    """Let nothing leave from now on; what senders hold in their hands still goes."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        installation.switch_off(tx, reason=reason, by=desk.actor(), now=desk.now())
        desk.note(tx, "sending.off", reason=reason)
    typer.echo("sending is off")


@sending.command()
def on(
    nothing_was_sent: Annotated[
        bool, typer.Option(help="After a restore: I know that nothing was sent since the backup; send the queue.")
    ] = False,
) -> None:
    """Let mail leave; after a restore what was queued before it becomes a doubt instead."""
    given = desk.settings()
    mark = installation.Mark(journal_folder(given).parent)
    with desk.database(given) as engine, engine.begin() as tx:
        doubted = installation.switch_on(
            tx, message_identity(given), mark, by=desk.actor(), now=desk.now(), nothing_was_sent=nothing_was_sent
        )
        desk.note(tx, "sending.on", doubted=doubted, nothing_was_sent=nothing_was_sent)
    typer.echo("sending is on")
    if doubted:
        typer.echo(f"{doubted} messages from before the restore are in doubt: `mauto unknown list`")


@ledger.command("check")
def check_ledger(sink_log: SinkLog = None, as_json: desk.AsJson = False) -> None:
    """Prove the ledger: exit code 0 clean, 1 findings."""
    accepted = _log_of(sink_log)
    with desk.database(desk.settings()) as engine:
        with engine.connect() as tx:
            found = check.check(tx, accepted)
        with engine.begin() as tx:
            heartbeat(tx, LEDGER_CHECK, desk.now(), {"findings": len(found)})
    desk.show([{"question": one.question, "what": one.what} for one in found], as_json=as_json, nothing="ledger clean")
    raise typer.Exit(desk.NOT_POSSIBLE if found else 0)


@unknown.command("list")
def list_unknown(campaign: int | None = None, limit: int = 100, as_json: desk.AsJson = False) -> None:
    """List messages in doubt."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = doubts.in_doubt(tx, campaign_id=campaign, size=limit)
    desk.show([
        {"message": row.message_id, "kind": row.kind, "campaign": row.campaign_id, "contact": row.contact_id,
         "message_id": row.rfc_message_id, "why": row.last_error} for row in found
    ], as_json=as_json)  # fmt: skip


@unknown.command()
def resolve(
    decision: Annotated[Decision, typer.Option("--as", help="What became of them; `again` hands them over again.")],
    message: Annotated[list[int] | None, typer.Option(help="This message; may be given several times.")] = None,
    campaign: Annotated[int | None, typer.Option(help="All of this campaign.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    yes: desk.Yes = False,
) -> None:
    """Decide about messages in doubt; `again` may give somebody a mail twice."""
    if sum((bool(message), campaign is not None, everything)) != 1:
        raise typer.BadParameter("say one of --message, --campaign and --all")
    if decision is Decision.AGAIN:
        desk.confirm("Some of them may have arrived and would come twice. Send again?", yes)
    done = 0
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        while rows := doubts.in_doubt(tx, campaign_id=campaign, message_ids=message):
            done += doubts.resolve(tx, rows, decision, by=desk.actor(), now=desk.now())
        desk.note(tx, "messages.resolve", campaign, decision=str(decision), count=done)
    typer.echo(f"{done} messages: {decision}")


@unknown.command("settle")
def settle_unknown(
    sink_log: Annotated[Path, typer.Option(help="Folder with the receiving side's accepted.jsonl.")],
    complete_until: Annotated[datetime, typer.Option(help="Nothing before this moment (UTC) is missing in the log.")],
) -> None:
    """Decide by the receiving side's log: found is sent; missing and quiet for 15 minutes goes back to the queue."""
    accepted = list(_log_of(sink_log) or ())
    until = complete_until.replace(tzinfo=desk.now().tzinfo)
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found, absent = doubts.settle(tx, accepted, complete_until=until, now=desk.now())
        desk.note(tx, "messages.settle", found=found, absent=absent)
    typer.echo(f"{found} were sent, {absent} are queued again")


def _log_of(folder: Path | None) -> dict[str, int] | None:
    if folder is None:
        return None
    try:
        return dict(check.read_sink_log(folder))
    except OSError as error:
        raise InvalidInput(f"{error.filename}: {error.strerror}") from error
