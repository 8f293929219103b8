"""A statement may include another one of its file, written above it."""

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
