"""`mauto import`: ask for the import of a contact file, and follow it. `mauto imports`: what became of all of them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mautolib.cli import desk
from mautolib.contacts import imports
from mautolib.contacts.imports import Import, ImportStatus, UpdatePolicy
from mautolib.errors import Conflict

commands = desk.group("Contact files.")
known = desk.group("Imports: what waits, runs and failed.")
Id = Annotated[int, typer.Argument(help="The import's id.")]
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


@known.command("list")
def list_imports(
    status: Annotated[ImportStatus | None, typer.Option(help="Only these.")] = None, limit: int = 50,
    as_json: desk.AsJson = False,
) -> None:  # fmt: skip
    """List imports, newest first."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        found = imports.list_imports(tx, status=status, limit=limit)
    desk.show([
        {"id": one.import_id, "status": one.status, "file": one.filename, "by": one.created_by, "at": one.created_at,
         "rows": one.total_rows, "rejected": one.rejected, "error": one.error} for one in found
    ], as_json=as_json)  # fmt: skip


@known.command("run")
def run_import(import_id: Id) -> None:
    """Carry out one that waits or whose worker is gone, in this process; exit code 1 if it fails."""
    given = desk.settings()
    with desk.database(given) as engine:
        done = imports.run(engine, given, import_id, now=desk.now())
        with engine.begin() as tx:
            desk.note(tx, "imports.run", import_id)
    typer.echo(_line(done))
    raise typer.Exit(0 if done.status is ImportStatus.COMPLETED else desk.NOT_POSSIBLE)


@known.command()
def cancel(import_id: Id) -> None:
    """Stop one: at once if it waits, else before it changes a contact."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        one = imports.cancel(tx, import_id, now=desk.now())
        desk.note(tx, "imports.cancel", import_id)
    typer.echo(f"import {import_id} is {one.status}")


@known.command()
def again(import_id: Id) -> None:
    """Ask once more for one that ended, with its file and options; an uploaded file is gone by then."""
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        one = imports.get(tx, import_id)
        if one.finished_at is None:
            raise Conflict(f"the import is {one.status}; only one that ended can be asked for again")
        if not one.storage_uri or one.storage_uri.startswith("uploads/"):
            raise Conflict("its file was an upload and is gone; upload it again")
        new = imports.request_file(tx, one.storage_uri, one.options, actor=desk.actor(), now=desk.now())
        desk.note(tx, "imports.create", new, again_of=import_id)
    typer.echo(f"import {new} is queued")


def _line(one: Import) -> str:
    counts = f"{one.created} created, {one.updated} updated, {one.skipped} skipped, {one.rejected} rejected"
    return f"{one.status}: {one.total_rows or 0} rows, {counts}{f': {one.error}' if one.error else ''}"
