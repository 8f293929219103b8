"""The tab in the Airflow UI asks for Airflow's sign-in and shows the same pages as the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from tests.dashboard_data import HOSTILE, Shop, make_shop

if TYPE_CHECKING:
    from sqlalchemy import Engine

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)


def test_the_tab_is_registered_and_closed_to_strangers(airflow_database: None) -> None:
    from fastapi.testclient import TestClient

    from mauto_airflow.dashboard import MautoPlugin, application
    from mautolib.pages import static_files

    (app,) = MautoPlugin.fastapi_apps
    assert app["url_prefix"] == "/mauto"
    (view,) = MautoPlugin.external_views
    assert (view["destination"], view["href"]) == ("nav", "/mauto/dashboard")
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.core_api.security import get_user

    routes = application().routes
    assert {route.path for route in routes} == {
        "/dashboard", "/dashboard/{path:path}", "/dashboard/static/{digest}/{name}",
    }  # fmt: skip
    for route in routes:
        assert get_user in {dependency.call for dependency in _dependencies(route)}, route.path
    script = static_files.path_of(static_files.SCRIPT)
    with TestClient(create_app(apps="core"), follow_redirects=False) as client:
        for path in ("", "/campaigns", "/campaigns/1", "/cohorts?format=csv", "/nowhere", f"/{script}"):
            assert client.get(f"/mauto/dashboard{path}").status_code == 401, path


@pytest.fixture
def tab(fresh_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Shop]]:
    """The application behind the tab for somebody whom Airflow lets in, below a base path, and the shop it shows."""
    from airflow.api_fastapi.core_api import security
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from mauto_airflow import dashboard, moments

    with fresh_engine.begin() as tx:
        shop = make_shop(tx, now=NOW, contacts=40, campaigns=2)
    monkeypatch.setattr(security, "requires_access_view", lambda _: lambda: None)
    monkeypatch.setattr(dashboard, "_engine", lambda: fresh_engine)
    monkeypatch.setattr(moments, "now", lambda: NOW)
    dashboard.application.cache_clear()
    house = FastAPI()
    house.mount("/airflow/mauto", dashboard.application())
    with TestClient(house, follow_redirects=False) as client:
        yield client, shop
    dashboard.application.cache_clear()


def test_every_page_of_the_dashboard_is_in_the_tab_with_links_that_stay_there(tab: tuple[Any, Shop]) -> None:
    client, shop = tab
    waiting, seen = ["/airflow/mauto/dashboard"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = client.get(path)
        assert answer.status_code == 200, path
        if not answer.headers["Content-Type"].startswith("text/html"):
            continue
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'self'" in policy and "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Sign out" not in answer.text and "webhooks" not in answer.text
        links = re.findall(r'<(?:a|script)[^>]* (?:href|src)="([^"#]+)"', answer.text)
        assert links and not [link for link in links if link.startswith(("/", "http"))]
        waiting += [urljoin(path, link) for link in links if not link.startswith("?")]
    campaigns = (*shop.campaigns, shop.campaigns[-1] + 1, shop.draft)  # and that of the A/B test
    ids = {f"campaigns/{campaign}" for campaign in campaigns} | {f"workflows/{shop.workflow}"}
    ids |= {f"ab-tests/{test}" for test in (shop.ab_test, shop.ab_draft)}
    pages = {"campaigns", "ab-tests", "holdout", "revenue", "customers", "cohorts", "people", "workflows", *ids}
    assert {path for path in seen if "static" not in path} == {
        "/airflow/mauto/dashboard", *(f"/airflow/mauto/dashboard/{page}" for page in pages),
    }  # fmt: skip
    assert len(seen) == len(pages) + 3


def test_the_tab_has_the_csv_files_and_the_page_for_what_is_not_there(tab: tuple[Any, Shop]) -> None:
    client, _ = tab
    answer = client.get("/airflow/mauto/dashboard/campaigns", params={"format": "csv"})
    assert answer.headers["Content-Disposition"] == 'attachment; filename="campaigns-2026-11-18.csv"'
    assert '"\'' + HOSTILE.replace('"', '""') in answer.text
    gone = client.get("/airflow/mauto/dashboard/campaigns/999999")
    assert gone.status_code == 404 and 'href="../../dashboard"' in gone.text
    assert client.get("/airflow/mauto/dashboard/static/0/dashboard.js").status_code == 404


def _dependencies(route: Any) -> list[Any]:
    found, waiting = [], list(route.dependant.dependencies)
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += one.dependencies
    return found
