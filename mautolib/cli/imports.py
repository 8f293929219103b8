"""`mauto import`: ask for the import of a contact file, and follow it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mautolib.cli import desk
from mautolib.contacts import imports
from mautolib.contacts.imports import Import, ImportStatus, UpdatePolicy

commands = desk.group("Contact files.")
_ENDED = (ImportStatus.COMPLETED, ImportStatus.FAILED, ImportStatus.CANCELLED)


@commands.command("import")
def import_file(
    file: Annotated[str, typer.Argument(help="A CSV file (also .gz) that every worker can read, or s3://bucket/key.")],
    policy: Annotated[UpdatePolicy, typer.Option(help="What becomes of known contacts.")] = UpdatePolicy.SKIP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and count.")] = False,
    here: Annotated[bool, typer.Option("--here", help="Carry it out in this process, without Airflow.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
) -> None:
    """Import contacts; exit code 1 if the import fails."""
    given = desk.settings()
    options = {"update_policy": str(policy), "dry_run": dry_run}
    with desk.database(given) as engine:
        with engine.begin() as tx:
            import_id = imports.request_file(tx, file, options, actor=desk.actor(), now=desk.now())
            desk.note(tx, "imports.create", import_id)
        typer.echo(f"import {import_id} is queued")
        if here:
            imports.run(engine, given, import_id, now=desk.now())
        shown = ""
        while wait or here:
            with engine.begin() as tx:
                one = imports.get(tx, import_id)
            if (line := _line(one)) != shown:
                typer.echo(line)
                shown = line
            if one.status in _ENDED:
                raise typer.Exit(0 if one.status is ImportStatus.COMPLETED else desk.NOT_POSSIBLE)
            time.sleep(1)


def _line(one: Import) -> str:
    counts = f"{one.created} created, {one.updated} updated, {one.skipped} skipped, {one.rejected} rejected"
    return f"{one.status}: {one.total_rows or 0} rows, {counts}{f': {one.error}' if one.error else ''}"
