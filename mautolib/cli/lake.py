"""`mauto lake`: schema `analytics` as Parquet in a folder or a bucket."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from mautolib.analytics import lake
from mautolib.cli import desk
from mautolib.contacts.imports.places import is_remote
from mautolib.db.engine import connect
from mautolib.errors import InvalidInput
from mautolib.settings import Settings

commands = desk.group("Schema analytics as Parquet, for DuckDB, Spark and Trino.")


@commands.command()
def export(
    target: Annotated[str, typer.Option(help="Folder or s3://bucket/prefix; default: MAUTO_LAKE_TARGET.")] = "",
    tables: Annotated[str, typer.Option(help="Names with commas between; default: all.")] = "",
    first: Annotated[
        datetime | None, typer.Option("--from", help="First UTC day to look at.", formats=["%Y-%m-%d"])
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", help="Last such day.", formats=["%Y-%m-%d"])] = None,
    rewrite: Annotated[bool, typer.Option("--rewrite", help="Write files though nothing changed.")] = False,
    as_json: desk.AsJson = False,
) -> None:
    """Write what is new or changed; the rest of the files stays."""
    given = desk.settings()
    target = target or given.lake_target
    if not target:
        raise InvalidInput("say --target, or set MAUTO_LAKE_TARGET")
    target = target if is_remote(target) or "://" in target else str(Path(target).absolute())
    engine = connect(_reader(given), application_name="mauto-lake", pool_size=2)
    try:
        done = lake.export(
            engine, given, target=target, now=desk.now(), tables=[name for name in tables.split(",") if name],
            from_=first.date() if first else None, to=last.date() if last else None, rewrite=rewrite,
        )  # fmt: skip
    finally:
        engine.dispose()
    with desk.database(given) as owner, owner.begin() as tx:
        desk.note(tx, "analytics.export", target=target, rows=sum(one.rows for one in done))
    desk.show([
        {"table": one.table, "files": one.files, "written": one.written, "rows": one.rows, "removed": one.removed}
        for one in done
    ], as_json=as_json)  # fmt: skip


def _reader(given: Settings) -> str:
    """The URL with the fewest rights that is set."""
    return given.analyst_database_url or given.worker_database_url or given.url_for("owner")
