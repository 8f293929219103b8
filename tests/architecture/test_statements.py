"""Every named statement is valid on the migrated database: a broken one fails here, not at night."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from mautolib.db import statements

ALL = [
    pytest.param(domain, name, id=f"{domain}.{name}")
    for domain in statements.domains()
    for name in statements.load(domain)
]
_COPY = re.compile(r"copy \((.*)\) to stdout.*", re.S)  # COPY itself cannot be prepared, its query can
_BIND = re.compile(r"(?<![:\w]):(\w+)")


def prepare(tx: Connection, sql: str) -> None:
    """PREPARE a statement, its binds numbered; raises what PostgreSQL says."""
    names: list[str] = []
    copied = _COPY.fullmatch(sql)
    sql = copied.group(1) if copied else sql

    def number(match: re.Match[str]) -> str:
        if match.group(1) not in names:
            names.append(match.group(1))
        return f"${names.index(match.group(1)) + 1}"

    numbered = _BIND.sub(number, sql)
    with tx.begin_nested():
        tx.exec_driver_sql("prepare probe as " + numbered.replace("%", "%%"))
        tx.exec_driver_sql("deallocate probe")


@pytest.mark.parametrize(("domain", "name"), ALL)
def test_a_statement_can_be_prepared(tx: Connection, domain: str, name: str) -> None:
    prepare(tx, statements.load(domain)[name].sql)


@pytest.mark.parametrize(("domain", "name"), ALL)
def test_a_statement_keeps_the_house_style(domain: str, name: str) -> None:
    sql = statements.load(domain)[name].written
    lines = sql.splitlines()
    assert len(lines) <= 80, f"{len(lines)} lines; a statement has at most 80"
    assert max(map(len, lines)) <= 100
    assert not re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|JOIN)\b", sql), "SQL is written in lower case"


def test_a_broken_statement_is_seen(tx: Connection) -> None:
    with pytest.raises(DBAPIError):
        prepare(tx, "select no_such_column from contacts where contact_id = :id")


def test_binds_and_comments_are_told_apart(tx: Connection) -> None:
    assert statements.strip_comment("select 1 -- a :word") == "select 1 "
    assert statements.strip_comment("select '--' -- a :word") == "select '--' "
    assert tx.scalar(text("select cast(:x as int)"), {"x": 3}) == 3
