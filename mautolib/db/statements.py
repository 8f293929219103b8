"""Named SQL statements: `sql/queries/<domain>.sql`, each introduced by `-- name: <name>` and one line of purpose.

`statement("scoring.recalculate")` gives a SQLAlchemy text clause with `:name` binds. Comments are stripped before
parsing, because a `:word` in a comment would become a bind. A line `-- include: <name>` stands for another statement
of the same file, so that one text can be a question of its own and a step of a larger one.
A test prepares every statement on the migrated database.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

from sqlalchemy import TextClause, text

from mautolib.db.files import sql_root

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\s*$")
_INCLUDE = re.compile(r"^( *)-- include: ([a-z][a-z0-9_]*)\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One named statement without comments: as `written` in its file, and the `sql` with its includes filled in."""

    domain: str
    name: str
    purpose: str
    written: str
    sql: str


@cache
def load(domain: str) -> dict[str, Statement]:
    """All statements of `sql/queries/<domain>.sql` by name.

    Raises:
        ValueError: a statement without purpose, a name used twice, text before the first name, or an include of
            a statement that does not stand above.
        FileNotFoundError: no such file.
    """
    lines = (sql_root() / "queries" / f"{domain}.sql").read_text(encoding="utf-8").splitlines()
    found: dict[str, Statement] = {}
    for name, body in _blocks(domain, lines):
        if name in found:
            raise ValueError(f"{domain}.sql: the name {name!r} is used twice")
        purpose = body[0][2:].strip() if body and body[0].startswith("--") else ""
        if not purpose:
            raise ValueError(f"{domain}.sql: {name!r} has no line of purpose under its name")
        written = "\n".join(filter(None, (strip_comment(line).rstrip() for line in body))).strip().rstrip(";")
        sql = _INCLUDE.sub(partial(_included, domain, found), written)
        found[name] = Statement(domain=domain, name=name, purpose=purpose, written=written, sql=sql)
    return found


def _included(domain: str, above: dict[str, Statement], match: re.Match[str]) -> str:
    if match.group(2) not in above:
        raise ValueError(f"{domain}.sql: `-- include: {match.group(2)}` names no statement above it")
    return textwrap.indent(above[match.group(2)].sql, match.group(1))


def _blocks(domain: str, lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    name, body = "", list[str]()
    for line in lines:
        match = _NAME.match(line)
        if match:
            if name:
                yield name, body
            name, body = match.group(1), []
        elif name:
            body.append(line)
        elif line.strip() and not line.startswith("--"):
            raise ValueError(f"{domain}.sql: text before the first `-- name:`: {line!r}")
    if name:
        yield name, body


def strip_comment(line: str) -> str:
    """`line` without a trailing `-- comment`; a `--` inside single quotes and an include stay."""
    if _INCLUDE.match(line):
        return line
    quoted = False
    for position, character in enumerate(line):
        if character == "'":
            quoted = not quoted
        elif character == "-" and not quoted and line.startswith("--", position):
            return line[:position]
    return line


@cache
def statement(path: str) -> TextClause:
    """The statement `"<domain>.<name>"` ready for `tx.execute(..., {...})`.

    Raises:
        KeyError: no such name in that file.
    """
    domain, name = path.split(".", 1)
    return text(load(domain)[name].sql)


def domains() -> list[str]:
    """The names of all statement files."""
    return sorted(path.stem for path in (sql_root() / "queries").glob("*.sql"))
