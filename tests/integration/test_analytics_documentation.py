"""docs/analytics.md is what the database says of itself, and every query in it answers something."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from mautolib.analytics import documentation, readers_views, refreshing
from mautolib.errors import Misconfigured
from tests.builders import make_contact, make_order
from tests.dashboard_data import make_shop

PAGE = Path(__file__).parents[2] / "docs/analytics.md"


def test_every_relation_has_two_queries_and_every_file_a_relation(tx: Connection) -> None:
    assert documentation.missing(tx) == []


def test_the_page_is_what_the_generator_gives(tx: Connection) -> None:
    tx.execute(text("set local role mauto_analyst"))
    assert PAGE.read_text(encoding="utf-8") == documentation.render(tx), (
        "docs/analytics.md is not what comments and sql/examples say: `make docs` on a migrated stack, or "
        "`MAUTO_DATABASE_URL=... python -m mautolib.analytics.documentation docs/analytics.md`"
    )


def test_what_lacks_is_named(tx: Connection) -> None:
    tx.execute(text("create view analytics.fresh_view as select 1 as one"))
    with pytest.raises(Misconfigured, match=r"sql/examples/fresh_view\.sql has 0 queries with a question; it takes 2"):
        documentation.render(tx)
    tx.execute(text("drop view analytics.fresh_view; drop view analytics.erased_contacts"))
    with pytest.raises(Misconfigured, match=r"sql/examples/erased_contacts\.sql: there is no analytics"):
        documentation.render(tx)


def test_every_query_runs_on_a_filled_database_and_answers_something(tx: Connection) -> None:
    now = datetime.now(UTC)
    make_shop(tx, now=now, contacts=80, campaigns=4)
    make_order(tx, make_contact(tx), now, fx_rate=None, fx_date=None, currency="JPY")
    for item in refreshing.TABLES:
        refreshing.refresh_within(tx, item, as_of=now)
    tx.execute(text("set local search_path = analytics"))
    tx.execute(text("set local role mauto_analyst"))
    broken, silent = [], []
    for relation in readers_views.listed(tx):
        answers = 0
        for example in documentation.examples_of(relation.name).queries:
            try:
                with tx.begin_nested():
                    answers += len(tx.exec_driver_sql(example.sql).all())
            except DBAPIError as error:
                broken.append(f"{relation.name}, {example.question!r}: {error.orig}")
        if not answers and tx.scalar(text(f"select exists (select from analytics.{relation.name})")):
            silent.append(relation.name)
    assert broken == []
    assert silent == []
