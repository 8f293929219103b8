"""`mauto analytics`: the tables of schema `analytics` brought up to date by hand, and how old they are."""

from __future__ import annotations

import time
from datetime import date, datetime
from typing import Annotated, Any

import typer

from mautolib import analytics
from mautolib.analytics import refreshing
from mautolib.cli import desk
from mautolib.errors import InvalidInput

commands = desk.group("Tables of schema analytics.")
First = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="Restate from this UTC day on.")]
Last = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Restate up to this UTC day.")]


@commands.command()
def refresh(
    table: Annotated[list[str] | None, typer.Option(help="Only this table; can be given again. Default: all.")] = None,
    from_: First = None,
    to: Last = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Restate everything.")] = False,
    as_json: desk.AsJson = False,
) -> None:
    """Bring the tables up to date: what has changed, a range of days, or everything; as cohort_analytics does."""
    if rebuild and (from_ or to):
        raise InvalidInput("--rebuild restates every day; leave out --from and --to")
    first, last = _day(from_), _day(to)
    given, began = desk.settings(), time.perf_counter()
    done: list[dict[str, Any]] = []

    def tell(name: str, rows: int, seconds: float) -> None:
        done.append({"table": name, "rows": rows, "seconds": round(seconds, 2)})
        typer.echo(f"{name}: {rows} rows, {seconds:.1f} s", err=True)

    with desk.database(given) as engine:
        with engine.begin() as tx:
            windows = {"click_days": given.attribution_click_days, "open_days": given.attribution_open_days}
            analytics.orders.keep_windows(tx, **windows)
            refreshing.keep_timezone(tx, given.reporting_timezone)
            desk.note(tx, "analytics.refresh", tables=list(table or ()), rebuild=rebuild, **{"from": from_, "to": to})
        refreshing.refresh(
            engine, as_of=desk.now(), from_=first, to=last, rebuild=rebuild, only=table or (), tell=tell
        )  # fmt: skip
    if not as_json:
        seconds = round(time.perf_counter() - began, 2)
        done.append({"table": "all", "rows": sum(one["rows"] for one in done), "seconds": seconds})
    desk.show(done, as_json=as_json)


@commands.command()
def status(as_json: desk.AsJson = False) -> None:
    """Show how old each table is, and what its last refresh wrote."""
    now = desk.now()
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = refreshing.states(tx)
    desk.show([
        {"table": one.table, "as_of": one.as_of, "minutes_old": _minutes(one.as_of, now), "rows_written": one.rows,
         "seconds": None if one.seconds is None else round(one.seconds, 2)}
        for one in found
    ], as_json=as_json)  # fmt: skip


def _minutes(as_of: datetime | None, now: datetime) -> int | None:
    return None if as_of is None else int((now - as_of).total_seconds() // 60)


def _day(given: str | None) -> date | None:
    try:
        return None if given is None else date.fromisoformat(given)
    except ValueError:
        raise InvalidInput(f"{given!r} is not a day such as 2026-03-01") from None
