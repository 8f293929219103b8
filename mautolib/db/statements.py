"""Named SQL statements: `sql/queries/<domain>.sql`, each introduced by `-- name: <name>` and one line of purpose.

`statement("scoring.recalculate")` gives a SQLAlchemy text clause with `:name` binds. Comments are stripped before
parsing, because a `:word` in a comment would become a bind. A line `-- include: <name>` stands for another statement
above it, or `<domain>.<name>` of another file, so that one text can be a question of its own and a step of a larger
one; `with <inner> = <other>` puts another statement where the included one, at any depth, includes `inner`.
A test prepares every statement on the migrated database.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial

from sqlalchemy import TextClause, text

from mautolib.db.files import sql_root

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\s*$")
_WORD = r"[a-z][a-z0-9_]*"
_INCLUDE = re.compile(
    rf"^( *)-- include: (?:({_WORD})\.)?({_WORD})(?: with ({_WORD} = {_WORD}(?:, {_WORD} = {_WORD})*))?\s*$",
    re.MULTILINE,
)


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
        ValueError: a statement without purpose, a name used twice, text before the first name, an include of
            a statement that does not stand above, or one put where nothing is included.
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
        sql = _filled(written, domain, found, _Instead())
        found[name] = Statement(domain=domain, name=name, purpose=purpose, written=written, sql=sql)
    return found


@dataclass(frozen=True)
class _Instead:
    """What stands in for some includes, by their name, and which of them were met."""

    texts: dict[str, str] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)


def _filled(written: str, domain: str, above: dict[str, Statement], instead: _Instead) -> str:
    """`written` with its includes filled in; names are looked up among the statements `above` it."""
    return _INCLUDE.sub(partial(_included, domain, above, instead), written)


def _included(domain: str, above: dict[str, Statement], instead: _Instead, match: re.Match[str]) -> str:
    indent, other, name, swaps = match.groups()
    if name in instead.texts:
        instead.met.add(name)
        return textwrap.indent(instead.texts[name], indent)
    known = above if other is None else load(other)
    pairs = dict(re.findall(rf"({_WORD}) = ({_WORD})", swaps or ""))
    for wanted, where in ((name, known), *((new, above) for new in pairs.values())):
        if wanted not in where:
            raise ValueError(f"{domain}.sql: `-- include: {wanted}` names no statement above it")
    inside = _Instead({**instead.texts, **{inner: above[new].sql for inner, new in pairs.items()}}, instead.met)
    sql = _filled(known[name].written, other or domain, known, inside) if inside.texts else known[name].sql
    for inner in pairs.keys() - inside.met:
        raise ValueError(f"{domain}.sql: {name!r} includes no {inner!r} that {pairs[inner]!r} could stand for")
    return textwrap.indent(sql, indent)


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
