"""`mauto holdout`: keeping a share of contacts from all marketing mail, and what that shows."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from mautolib.analytics import incrementality
from mautolib.campaigns import holdout
from mautolib.cli import desk
from mautolib.errors import InvalidInput

commands = desk.group("The global hold-out: a share of contacts that gets no marketing mail.")
_DAY = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@commands.command()
def status(as_json: desk.AsJson = False) -> None:
    """List which share was held out when."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        known = holdout.periods(tx)
    desk.show([
        {"percent": each.percent, "since": each.begun_at, "until": each.ended_at, "draw": each.salt,
         "by": each.changed_by} for each in known
    ], as_json=as_json, nothing="nobody was ever held out")  # fmt: skip


@commands.command("set")
def set_share(
    percent: Annotated[str, typer.Argument(help="Share of contacts from 0 (nobody) to 50, such as 5 or 2.5.")],
    reshuffle: Annotated[bool, typer.Option("--reshuffle", help="Draw other people than the last time.")] = False,
    yes: desk.Yes = False,
) -> None:
    """Hold out a share of contacts from now on; queued marketing mail to them is skipped."""
    try:
        share = Decimal(percent)
    except InvalidOperation:
        raise InvalidInput(f"{percent!r} is no percentage") from None
    if reshuffle:
        desk.confirm("Other people are held out from now on; what is measured begins anew. Go on?", yes)
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        made = holdout.hold_out(tx, share, by=desk.actor(), now=desk.now(), reshuffle=reshuffle)
        desk.note(tx, "holdout.set", None if made is None else made.period_id, percent=str(share), reshuffle=reshuffle)
    typer.echo("nobody is held out" if made is None else f"{made.percent} % are held out since {made.begun_at:%F %T}")


@commands.command()
def report(
    from_day: Annotated[
        datetime | None, typer.Option("--from", formats=_DAY, help="First day (UTC); else when the hold-out began.")
    ] = None,
    to_day: Annotated[
        datetime | None, typer.Option("--to", formats=_DAY, help="Day after the last (UTC); else now, or its end.")
    ] = None,
    pre_days: Annotated[
        int, typer.Option(help="Days before the hold-out whose revenue makes it more exact; 0: none.")
    ] = incrementality.PRE_DAYS,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the figures there.")] = None,
    as_json: desk.AsJson = False,
) -> None:
    """Say what marketing mail earned; exit code 1 where nothing can be said."""
    now = desk.now()
    with desk.database(desk.settings()) as engine, engine.connect() as tx:
        since, until = incrementality.stretch(holdout.periods(tx)) or (None, None)
        found = incrementality.report(
            tx, _moment(from_day) or since or now.replace(hour=0, minute=0), _moment(to_day) or until or now, now=now,
            pre_days=pre_days,
        )  # fmt: skip
    if csv_file is not None:
        csv_file.write_text(incrementality.csv_of(found), encoding="utf-8", newline="")
    figures = incrementality.figures(found)
    if as_json:
        desk.show([figures], as_json=True)
    else:
        desk.show([{"figure": name, "value": value} for name, value in figures.items()], as_json=False)
    raise typer.Exit(0 if found.verdict is incrementality.Verdict.MEASURED else desk.NOT_POSSIBLE)


def _moment(given: datetime | None) -> datetime | None:
    return None if given is None else given.replace(tzinfo=UTC)
