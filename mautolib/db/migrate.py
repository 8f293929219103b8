"""Forward-only migrations: `sql/migrations/NNNN_*.sql` in order, each once, under an advisory lock.

A file that was applied must not change (its SHA-256 is kept). Views of schema `analytics` and the grants in
`roles.sql` are derived: they are applied again whenever their text changes. Called by the launcher and `make migrate`.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from mautolib.db.engine import connect
from mautolib.db.files import sql_root
from mautolib.errors import MautoError, Misconfigured
from mautolib.settings import Settings

_LOG = logging.getLogger(__name__)
_LOCK = 7_226_170_001  # any constant; the same in every process
_MINIMUM_SERVER = 150000

_BOOK = """
create table if not exists schema_migrations (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
)
"""


@dataclass(frozen=True, kw_only=True)
class SqlFile:
    """One SQL file: its name in the book, its text, and whether it may be applied again."""

    name: str
    sql: str
    repeatable: bool

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def files() -> list[SqlFile]:
    """Every file in the order it is applied: migrations, then views, then roles."""
    root = sql_root()

    def read(path: Path, repeatable: bool) -> SqlFile:
        name = path.relative_to(root).as_posix()
        return SqlFile(name=name, sql=path.read_text(encoding="utf-8"), repeatable=repeatable)

    found = [read(path, False) for path in sorted((root / "migrations").glob("[0-9]*.sql"))]
    found += [read(path, True) for path in sorted((root / "views").glob("*.sql"))]
    return [*found, read(root / "roles.sql", True)]


def migrate(engine: Engine) -> list[str]:
    """Bring the database to the newest schema; returns the names of the files applied now (empty: nothing to do).

    Raises:
        Misconfigured: the server is too old, or an applied migration was edited, or the database is newer.
    """
    applied: list[str] = []
    with engine.begin() as tx:
        tx.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _check_server(tx)
        tx.exec_driver_sql(_BOOK)
        book = {row.name: row.checksum for row in tx.execute(text("select name, checksum from schema_migrations"))}
        wanted = files()
        _check_book(book, wanted)
        # A changed view may depend on another one: all views are made anew together.
        views_changed = any(f.name.startswith("views/") and book.get(f.name) != f.checksum for f in wanted)
        for item in wanted:
            # New tables and sequences need their grants, though the text of the grants is as before.
            again = item.repeatable and (views_changed or (bool(applied) and item.name == "roles.sql"))
            if book.get(item.name) == item.checksum and not again:
                continue
            _run(tx, item.sql)
            tx.execute(
                text(
                    "insert into schema_migrations (name, checksum) values (:name, :checksum) "
                    "on conflict (name) do update set checksum = excluded.checksum, applied_at = now()"
                ),
                {"name": item.name, "checksum": item.checksum},
            )
            applied.append(item.name)
    _LOG.info("migrate: %s files applied", len(applied))
    return applied


def pending(engine: Engine) -> list[str]:
    """Names of files that `migrate` would apply; used by `/ready`. Reads only."""
    with engine.connect() as connection:
        if connection.scalar(text("select to_regclass('schema_migrations')")) is None:
            return [item.name for item in files()]
        book = {r.name: r.checksum for r in connection.execute(text("select name, checksum from schema_migrations"))}
    return [item.name for item in files() if book.get(item.name) != item.checksum]


def _check_server(tx: Connection) -> None:
    number = int(tx.scalar(text("select current_setting('server_version_num')")) or 0)
    if number < _MINIMUM_SERVER:
        raise Misconfigured(f"the server is PostgreSQL {number // 10000}; 15 or newer is needed")


def _check_book(book: dict[str, str], wanted: list[SqlFile]) -> None:
    known = {item.name: item for item in wanted}
    for name, checksum in book.items():
        item = known.get(name)
        if item is None and name.startswith("migrations/"):
            raise Misconfigured(f"the database was migrated by a newer version ({name}); install that version")
        if item is not None and not item.repeatable and item.checksum != checksum:
            raise Misconfigured(f"{name} was changed after it was applied; restore it and add a new migration instead")


def _run(tx: Connection, sql: str) -> None:
    # The raw cursor without parameters: DDL and function bodies may hold `%` and `:word`.
    cursor = tx.connection.cursor()
    try:
        cursor.execute(sql)
    finally:
        cursor.close()


def main(arguments: list[str] | None = None) -> int:
    """`python -m mautolib.db.migrate`: migrate the database of MAUTO_DATABASE_URL."""
    parser = argparse.ArgumentParser(prog="python -m mautolib.db.migrate", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="only list what would be applied; exit 1 if anything")
    options = parser.parse_args(arguments)
    try:
        engine = connect(Settings.from_env().url_for("owner"))
        names = pending(engine) if options.check else migrate(engine)
    except MautoError as error:
        sys.stderr.write(f"migrate: {error}\n")
        return 2
    for name in names:
        sys.stdout.write(f"{'pending' if options.check else 'applied'} {name}\n")
    if not names:
        sys.stdout.write("the database is up to date\n")
    return 1 if options.check and names else 0


if __name__ == "__main__":
    raise SystemExit(main())
