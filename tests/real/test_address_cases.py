"""The published cases of isemail: every difference of ours is one that docs/contact-import.md names, and no other."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mautolib.contacts import domains
from mautolib.contacts.address import MAX_MAILABLE_OCTETS, is_address
from mautolib.contacts.checks import Level, check
from mautolib.contacts.imports.headers import plan_columns
from mautolib.contacts.imports.model import ImportOptions
from mautolib.contacts.imports.rows import RowStager
from tests.unit.test_address_peers import peer

#: What isemail calls fit for use on the Internet.
GOOD = {"ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN"}
NO_DOT, TOO_LONG, LEADING_SPACE, TRAILING_SPACE, LONG_LOCAL = 5, 39, 157, 158, 26


@pytest.fixture(scope="module")
def cases(data: Path) -> list[dict[str, Any]]:
    lines = (data / "isemail_3.05.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 164
    return found


def differing(cases: list[dict[str, Any]], one: Any, other: Any) -> set[int]:
    return {case["id"] for case in cases if one(case) != other(case)}


def ours(case: dict[str, Any]) -> bool:
    return is_address(case["email"])


def test_against_isemail(cases: list[dict[str, Any]]) -> None:
    found = differing(cases, ours, lambda case: case["category"] in GOOD)
    assert found == {NO_DOT, TOO_LONG, LEADING_SPACE, TRAILING_SPACE}
    taken = {case["id"] for case in cases if ours(case)}
    assert found & taken == {TOO_LONG, LEADING_SPACE, TRAILING_SPACE}


def test_against_email_validator(cases: list[dict[str, Any]]) -> None:
    found = differing(cases, ours, lambda case: peer(case["email"], is_public=True) is not None)
    # It takes a local part of 65 characters unless asked to be strict.
    assert found == {LONG_LOCAL, TOO_LONG, LEADING_SPACE, TRAILING_SPACE}


def test_address_checks_agree_with_what_is_stored(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        assert check(case["email"], Level.SYNTAX, domains.lists()).valid == ours(case), case


def test_an_import_differs_in_length_and_in_what_a_mail_program_wraps_around(cases: list[dict[str, Any]]) -> None:
    header, options = ["email"], ImportOptions()
    plan = plan_columns(header, {}, [])
    stager = RowStager(plan, options, domains.lists(), unclean=re.compile("\0"), now=datetime(2026, 3, 1, tzinfo=UTC))

    def taken(case: dict[str, Any]) -> bool:
        return "invalid_email" not in stager.stage(2, [case["email"]], is_suspect=False)

    found = {case["id"]: case["email"] for case in cases if taken(case) != ours(case)}
    assert {key for key in found if len(found[key].encode()) > MAX_MAILABLE_OCTETS} == {TOO_LONG}
    edges = {key: text for key, text in found.items() if key != TOO_LONG}
    # A cell is trimmed before it is read, whatever the blank characters are.
    assert all(is_address(text.strip()) and text != text.strip() for text in edges.values()), edges
