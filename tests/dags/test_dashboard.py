"""The tab in the Airflow UI asks for Airflow's sign-in and shows the same page as the API."""

from __future__ import annotations

from typing import Any


def test_the_tab_is_registered_and_closed_to_strangers(airflow_database: None) -> None:
    from fastapi.testclient import TestClient

    from mauto_airflow.dashboard import MautoPlugin, application

    (app,) = MautoPlugin.fastapi_apps
    assert app["url_prefix"] == "/mauto"
    (view,) = MautoPlugin.external_views
    assert (view["destination"], view["href"]) == ("nav", "/mauto/dashboard")
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.core_api.security import get_user

    assert get_user in {dependency.call for dependency in _dependencies(application())}
    with TestClient(create_app(apps="core"), follow_redirects=False) as client:
        assert client.get("/mauto/dashboard").status_code == 401


def _dependencies(app: Any) -> list[Any]:
    route = next(route for route in app.routes if getattr(route, "path", "") == "/dashboard")
    found, waiting = [], list(route.dependant.dependencies)
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += one.dependencies
    return found
