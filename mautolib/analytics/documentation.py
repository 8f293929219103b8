"""docs/analytics.md, made from what the database says of itself: `python -m mautolib.analytics.documentation [FILE]`.

Promise: every relation of schema `analytics` is in it with its comment, what a row is, how fresh it is, and each
column with type and comment; queries and remarks come from `sql/examples/<relation>.sql`. A relation without two
queries is refused by name. Called by `make docs` and by the test that compares; nothing is written but the page.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mautolib.analytics import readers_views
from mautolib.analytics.readers_views import Relation
from mautolib.db.engine import Tx, connect
from mautolib.db.files import sql_root
from mautolib.db.statements import statement
from mautolib.errors import MautoError, Misconfigured
from mautolib.settings import Settings

__all__ = ["Example", "Examples", "examples_of", "main", "missing", "render"]

_LEAST: Final = 2
_MADE: Final = (
    "<!-- Made by `make docs` from the comments of the database and the queries in sql/examples; edit those. -->\n"
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question and the query that answers it."""

    question: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a file of examples says: remarks in Markdown, then queries."""

    remarks: Sequence[str]
    queries: Sequence[Example]


def examples_of(relation: str) -> Examples:
    """The remarks and queries of `sql/examples/<relation>.sql`; none without such a file.

    Blocks are parted by empty lines: comments alone are a remark, comments before a query its question.
    """
    path = sql_root() / "examples" / f"{relation}.sql"
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    remarks, queries = [], []
    for block in filter(None, (part.strip() for part in re.split(r"\n\s*\n", written))):
        lines = block.splitlines()
        count = next((place for place, line in enumerate(lines) if not line.startswith("--")), len(lines))
        told = "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:count])
        if count == len(lines):
            remarks.append(told)
        else:
            queries.append(Example(question=told, sql="\n".join(lines[count:])))
    return Examples(remarks=remarks, queries=queries)


def missing(tx: Tx) -> list[str]:
    """What is still to be written, in a sentence each; and files of examples whose relation is not there."""
    names = [relation.name for relation in readers_views.listed(tx)]
    found = [(name, examples_of(name).queries) for name in names]
    few = [f"sql/examples/{name}.sql has {len(queries)} queries with a question; it takes {_LEAST} or more"
           for name, queries in found if len([one for one in queries if one.question]) < _LEAST]  # fmt: skip
    alien = sorted({path.stem for path in (sql_root() / "examples").glob("*.sql")} - set(names))
    return [*few, *(f"sql/examples/{name}.sql: there is no analytics.{name}" for name in alien)]


def render(tx: Tx) -> str:
    """The page.

    Raises:
        Misconfigured: a relation has no queries, or queries have no relation.
    """
    if gaps := missing(tx):
        raise Misconfigured("; ".join(gaps))
    relations = readers_views.listed(tx)
    told = {(row.relation, row.name): row.description for row in tx.execute(statement("analytics.comments"))}
    index = ["| relation | one row per | |", "|---|---|---|"]
    index += [f"| [{one.name}](#{one.name}) | {_cell(one.grain)} | {_kind(one)} |" for one in relations]
    sections = [_section(one, told) for one in relations]
    folder = sql_root() / "examples"
    before, after = ((folder / name).read_text(encoding="utf-8").strip() for name in ("before.md", "after.md"))
    return "\n\n".join([_MADE + before, "\n".join(index), *sections, after]) + "\n"


def _section(relation: Relation, told: Mapping[tuple[str, str], str]) -> str:
    examples = examples_of(relation.name)
    lines = [f"## {relation.name}", f"{told[relation.name, '']} {_fresh(relation)}", *examples.remarks]
    columns = ["| column | type | |", "|---|---|---|"]
    columns += [f"| `{name}` | {kind} | {_cell(told[relation.name, name])} |" for name, kind in
                relation.columns.items()]  # fmt: skip
    queries = [f"```sql\n{_comment(one.question)}\n{one.sql}\n```" for one in examples.queries]
    return "\n\n".join([*lines, "\n".join(columns), *queries])


def _kind(relation: Relation) -> str:
    return "table" if relation.is_stored else "view"


def _fresh(relation: Relation) -> str:
    key = ", ".join(f"`{name}`" for name in relation.grain_columns)
    fresh = "Brought up to date hourly." if relation.is_stored else "Counted live."
    return f"*{fresh}{f' A row is named by {key}.' if key else ''}*"


def _comment(question: str) -> str:
    return "\n".join(f"-- {line}" for line in question.splitlines())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str] | None = None) -> int:
    """Write the page of the database of MAUTO_DATABASE_URL to a file, or to the terminal."""
    parser = argparse.ArgumentParser(prog="python -m mautolib.analytics.documentation", description=main.__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="the page; it is left alone when something is missing")
    options = parser.parse_args(arguments)
    try:
        with connect(Settings.from_env().url_for("analyst")).connect() as tx:
            page = render(tx)
    except MautoError as error:
        sys.stderr.write(f"documentation: {error}\n")
        return 2
    if options.file is None:
        sys.stdout.write(page)
    else:
        options.file.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
