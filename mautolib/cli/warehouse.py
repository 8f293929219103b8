"""`mauto migrate`, `upgrade`, `backup`, `restore`, `drill`, `partitions`: the database as a whole."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine, text

from mautolib import maintenance
from mautolib.cli import desk
from mautolib.db import dumps
from mautolib.db.engine import connect, parse_url
from mautolib.db.migrate import migrate as migrate_database
from mautolib.db.migrate import pending
from mautolib.db.statements import statement
from mautolib.errors import Conflict, InvalidInput
from mautolib.ledger import check, installation
from mautolib.maintenance.watch import BACKUP, LEDGER_CHECK

commands = desk.group("The database as a whole.")
partitions = desk.group("Months of events, hits and score history.")
_RESTORED = "the database was restored from a backup; see `mauto sending status`"
#: Part of the restore's own transaction: nobody ever sees the snapshot with sending on.
_AFTER = """
set search_path = public;
do $$ begin
    if to_regclass('installation') is not null then
        update installation set sending_enabled = false, reason = 'a restore is under way';
    end if;
end $$
"""
BackupFile = Annotated[Path, typer.Argument(help="A file of `mauto backup`.")]


@commands.command()
def migrate(
    check_only: Annotated[bool, typer.Option("--check", help="Only list; exit code 1 if any.")] = False,
) -> None:
    """Bring the database to the newest schema."""
    with desk.database(desk.settings()) as engine:
        names = pending(engine) if check_only else _migrated(engine)
    typer.echo("\n".join(names) or "the database is up to date")
    raise typer.Exit(desk.NOT_POSSIBLE if check_only and names else 0)


@commands.command()
def upgrade(
    backup_file: Annotated[Path, typer.Option("--backup", help="Where the backup taken before goes.")],
) -> None:
    """Back up, migrate and check the ledger; exit code 1 if it has findings."""
    given = desk.settings()
    with desk.database(given) as engine:
        _dump(given.url_for("owner"), backup_file)
        names = _migrated(engine)
        with engine.connect() as tx:
            findings = check.check(tx)
        with engine.begin() as tx:
            maintenance.heartbeat(tx, LEDGER_CHECK, desk.now(), {"findings": len(findings)})
    typer.echo("\n".join([*names, f"{len(names)} files applied; {len(findings)} findings of the ledger check"]))
    raise typer.Exit(desk.NOT_POSSIBLE if findings else 0)


@commands.command()
def backup(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write a backup of the warehouse; secrets and storage are folders of their own."""
    given = desk.settings()
    _dump(given.url_for("owner"), file)
    with desk.database(given) as engine, engine.begin() as tx:
        maintenance.heartbeat(tx, BACKUP, desk.now())
        desk.note(tx, "warehouse.backup", file=file.name)
    typer.echo(f"{file}: {file.stat().st_size} bytes")


@commands.command()
def restore(
    file: BackupFile,
    replace: Annotated[bool, typer.Option("--replace", help="Remove what is in the database now.")] = False,
    yes: desk.Yes = False,
) -> None:
    """Bring a backup back; sending is off afterwards, and nothing of before is ever sent by itself."""
    given = desk.settings()
    url = given.url_for("owner")
    with desk.database(given) as engine:
        is_empty = _is_empty(engine)
        if not is_empty and not replace:
            raise Conflict("the database is not empty; --replace removes what is in it")
        if not is_empty:
            desk.confirm(f"Remove everything in {_place(url)} and bring {file} back?", yes)
        _bring_back(engine, url, file)
        with engine.begin() as tx:
            installation.begin_epoch(tx, reason=_RESTORED, by=desk.actor(), now=desk.now())
            desk.note(tx, "warehouse.restore", file=file.name)
    typer.echo("restored; sending is OFF. Next: `mauto sending status`, then `mauto sending on`")


@commands.command()
def drill(file: BackupFile) -> None:
    """Prove a backup: restore it into a database of its own, check the ledger there, and remove it."""
    given = desk.settings()
    url, name = given.url_for("owner"), f"mauto_drill_{secrets.token_hex(4)}"
    copy = parse_url(url).set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with desk.database(given) as engine:
        _outside(engine, f"create database {name} template template0")
        scratch = connect(copy, pool_size=1)
        try:
            _bring_back(scratch, copy, file)
            with scratch.connect() as tx:
                findings = check.check(tx)
                people = tx.scalar(text("select count(*) from contacts"))
        finally:
            scratch.dispose()
            _outside(engine, f"drop database {name} with (force)")
    typer.echo(f"restored {people} contacts; {len(findings)} findings of the ledger check")
    raise typer.Exit(desk.NOT_POSSIBLE if findings else 0)


@partitions.command("list")
def list_partitions(as_json: desk.AsJson = False) -> None:
    """Say which of the next two months lack a partition; exit code 1 if any."""
    day = desk.now().date().replace(day=1)
    months = [day, *((day + timedelta(days=32 * ahead)).replace(day=1) for ahead in (1, 2))]
    with desk.database(desk.settings()) as engine, engine.begin() as tx:
        missing = {month: set(tx.scalars(statement("gauges.month_ahead"), {"day": month})) for month in months}
    desk.show([
        {"month": f"{month:%Y-%m}", "missing": ", ".join(sorted(names)) or "-"} for month, names in missing.items()
    ], as_json=as_json)  # fmt: skip
    raise typer.Exit(desk.NOT_POSSIBLE if any(missing.values()) else 0)


@partitions.command()
def ensure() -> None:
    """Make the partitions of this and the next two months."""
    given = desk.settings()
    with desk.database(given) as engine:
        made = maintenance.run(engine, given, now=desk.now(), task=maintenance.Task.PARTITIONS)
    typer.echo(f"{made['partitions']} partitions made")


def _dump(url: str, file: Path) -> None:
    if file.exists():
        raise InvalidInput(f"{file} is there already")
    if not file.parent.is_dir():
        raise InvalidInput(f"there is no folder {file.parent}")
    dumps.dump(url, file)


def _bring_back(engine: Engine, url: str, file: Path) -> None:
    # The roles that the backup names have to exist first, and only a migration makes them.
    if _is_empty(engine):
        migrate_database(engine)
    with engine.connect() as tx:
        has_roles = tx.scalar(text("select to_regrole('mauto_worker') is not null"))
    engine.dispose()
    dumps.restore(url, file, after=_AFTER, with_grants=bool(has_roles))
    migrate_database(engine)


def _migrated(engine: Engine) -> list[str]:
    names = migrate_database(engine)
    with engine.begin() as tx:
        desk.note(tx, "warehouse.migrate", files=len(names))
    return names


def _is_empty(engine: Engine) -> bool:
    with engine.connect() as tx:
        return bool(tx.scalar(text("select to_regclass('public.schema_migrations') is null")))


def _outside(engine: Engine, command: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(command)


def _place(url: str) -> str:
    parsed = parse_url(url)
    return f"{parsed.host}:{parsed.port or 5432}/{parsed.database}"
