"""`db/tables.py` says of every table what the migrated database says, and analysts get every column explained."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.dialects import postgresql

from mautolib.db import tables
from mautolib.db.migrate import files

_DIALECT = postgresql.dialect()
_BOOKS = {"schema_migrations"}


def described(tx: Connection) -> dict[str, dict[str, str]]:
    inspector = inspect(tx)
    children = set(
        tx.scalars(text("select inhrelid::regclass::text from pg_inherits"))
    )
    return {
        name: {column["name"]: column["type"].compile(_DIALECT) for column in inspector.get_columns(name)}
        for name in inspector.get_table_names()
        if name not in children | _BOOKS
    }


def restated(table: Table) -> dict[str, str]:
    return {column.name: column.type.compile(_DIALECT) for column in table.columns}


def test_tables_are_those_of_the_database(tx: Connection) -> None:
    assert sorted(table.name for table in tables.metadata.tables.values()) == sorted(described(tx))


@pytest.mark.parametrize("table", tables.metadata.tables.values(), ids=lambda table: table.name)
def test_columns_are_those_of_the_database(tx: Connection, table: Table) -> None:
    real = described(tx)[table.name]
    ours = restated(table)
    same = {"DOUBLE PRECISION": "FLOAT"}
    assert {name: same.get(kind, kind) for name, kind in real.items()} == {
        name: same.get(kind, kind) for name, kind in ours.items()
    }


def test_every_analyst_relation_is_explained(tx: Connection) -> None:
    missing = tx.scalars(
        text(
            "select c.relname || '.' || coalesce(a.attname, '(relation)') "
            "from pg_class c join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'analytics' "
            "join pg_attribute a on a.attrelid = c.oid and (a.attnum > 0 or a.attnum = -1) and not a.attisdropped "
            "where c.relkind in ('r', 'v', 'm') and (case when a.attnum > 0 then col_description(c.oid, a.attnum) "
            "else obj_description(c.oid) end) is null"
        )
    ).all()
    assert missing == []


@pytest.mark.parametrize("item", [f for f in files() if f.name.startswith("views/")], ids=lambda item: item.name)
def test_a_view_names_its_grain_first(item: object) -> None:
    first = item.sql.splitlines()[0]  # type: ignore[attr-defined]
    assert first.startswith("-- ") and "one row per" in first.lower(), first
