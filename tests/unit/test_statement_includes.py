"""A statement may include another one, of its file or another, and put something else where that includes a third."""

from __future__ import annotations

from pathlib import Path

import pytest

from mautolib.db import statements

FILE = """
-- name: people
-- Everybody.
select contact_id -- a :word
from contacts

-- name: count_people
-- How many they are.
with people as (
    -- include: people
)
select count(*) from people
"""


def write(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "queries").mkdir()
    (folder / "queries" / "sample.sql").write_text(text, encoding="utf-8")
    monkeypatch.setattr(statements, "sql_root", lambda: folder)
    statements.load.cache_clear()


def test_an_include_is_filled_in_and_indented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(monkeypatch, tmp_path, FILE)
    found = statements.load("sample")["count_people"]
    assert found.sql == (
        "with people as (\n    select contact_id\n    from contacts\n)\nselect count(*) from people"
    )
    assert found.written.splitlines()[1] == "    -- include: people"


def test_an_include_of_nothing_above_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(monkeypatch, tmp_path, "-- name: count_people\n-- How many.\n-- include: people\n")
    with pytest.raises(ValueError, match="names no statement above it"):
        statements.load("sample")
    statements.load.cache_clear()


OTHER = """
-- name: nobody
-- Nobody.
select 0 as contact_id

-- name: count_nobody
-- How many nobody is.
select *
from (
    -- include: sample.count_people with people = nobody
) as counted
"""


def write_other(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    write(monkeypatch, folder, FILE)
    (folder / "queries" / "other.sql").write_text(text, encoding="utf-8")


def test_a_statement_of_another_file_with_something_else_inside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_other(monkeypatch, tmp_path, OTHER)
    found = statements.load("other")["count_nobody"].sql
    assert found.splitlines()[2:6] == [
        "    with people as (", "        select 0 as contact_id", "    )", "    select count(*) from people",
    ]  # fmt: skip
    assert "select contact_id" in statements.load("sample")["count_people"].sql, "the statement itself stays"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-- include: sample.count_people with nothing = nobody", "includes no 'nothing'"),
        ("-- include: sample.count_people with people = everybody", "everybody` names no statement"),
        ("-- include: sample.strangers", "strangers` names no statement"),
    ],
)
def test_a_swap_that_means_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, complaint: str
) -> None:
    text = OTHER.replace("-- include: sample.count_people with people = nobody", line)
    write_other(monkeypatch, tmp_path, text)
    with pytest.raises(ValueError, match=complaint):
        statements.load("other")
    statements.load.cache_clear()
