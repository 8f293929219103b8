"""A smaller dose of the fuzzer, and proof that it would notice; the whole dose is `make fuzz-api`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.api.contract import document, served
from tests.fuzz.api import Fuzzer
from tests.fuzz.report import Seen
from tests.fuzz.seeding import seed
from tests.fuzz.server import running
from tests.live_service import LiveService, live_settings, make_users

pytestmark = pytest.mark.slow


def test_no_operation_breaks_or_surprises(fresh_engine: Engine, fresh_database_url: str, tmp_path: Path) -> None:
    openapi = document()
    make_users(fresh_engine)
    with running(fresh_database_url, tmp_path, is_quiet=True) as (url, _):
        service = LiveService(url=url, engine=fresh_engine, settings=live_settings(fresh_database_url, tmp_path))
        fuzzer = Fuzzer(service, openapi, seed=7, enough=5)
        seed(fuzzer.objects)
        report = fuzzer.run(12 * len(served(openapi)))
        fuzzer.close()
    assert report.is_clean, report.text()


@pytest.mark.parametrize(
    ("statuses", "complaint"),
    [({500: 1, 200: 30}, "1 x 5xx"), ({418: 1, 200: 30}, "undocumented: 418"), ({200: 19}, "only 19 successes")],
)
def test_what_is_wrong_is_told(statuses: dict[int, int], complaint: str) -> None:
    seen = Seen(label="GET /x", documented=frozenset({200, 500}))
    for status, count in statuses.items():
        seen.statuses[status] = count
    assert complaint in seen.complaints(20)


def test_a_clean_operation_has_no_complaint() -> None:
    fine: dict[str, Any] = {"label": "GET /x", "documented": frozenset({200, 404})}
    seen = Seen(**fine)
    seen.statuses.update({200: 20, 404: 3})
    assert seen.complaints(20) == []
