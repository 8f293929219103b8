"""The overview page as a tab of the Airflow UI, behind Airflow's own sign-in.

The page itself is `mautolib.pages.overview`, the same that the API shows at /dashboard. Loaded by every Airflow
component, so everything but the registration is imported when a page is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from mauto_airflow import moments
from mauto_airflow.warehouse import CONNECTION_ID

if TYPE_CHECKING:
    from sqlalchemy import Engine

PREFIX = "/mauto"


@cache
def _engine() -> Engine:
    from airflow.sdk import BaseHook

    from mautolib.db.engine import connect

    url = BaseHook.get_connection(CONNECTION_ID).get_uri()
    return connect(url, application_name="mauto-dashboard", pool_size=1, statement_timeout_ms=15_000)


@cache
def application() -> Any:
    """The application behind the tab."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI
    from fastapi.responses import HTMLResponse

    app = FastAPI(title="mauto", openapi_url=None, docs_url=None, redoc_url=None)

    # Routes of a plugin are open to everybody unless they ask for a right themselves.
    @app.get("/dashboard", dependencies=[Depends(requires_access_view(AccessView.PLUGINS))])
    def overview() -> HTMLResponse:
        from mautolib.db.engine import is_unavailable
        from mautolib.pages import overview as page

        headers = {
            "Content-Security-Policy": page.content_security_policy(frame_ancestors="'self'"),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        try:
            with _engine().begin() as tx:
                html = page.overview_html(tx, now=moments.now(), embedded=True)
        except Exception as error:
            if not is_unavailable(error):
                raise
            html = "<!doctype html><title>mauto</title><p>The warehouse cannot be reached; try again in a minute."
            return HTMLResponse(html, status_code=503, headers={**headers, "Retry-After": "30"})
        return HTMLResponse(html, headers=headers)

    return app


async def _when_asked(scope: Any, receive: Any, send: Any) -> None:
    # Every component loads plugins, tasks included; only the api-server should pay for a web framework.
    await application()(scope, receive, send)


class MautoPlugin(AirflowPlugin):  # type: ignore[misc]  # airflow is not followed by mypy
    """Adds the tab."""

    name = "mauto"
    fastapi_apps: ClassVar = [{"app": _when_asked, "url_prefix": PREFIX, "name": "mauto"}]
    external_views: ClassVar = [
        {
            "name": "Marketing",
            "href": f"{PREFIX}/dashboard",
            "destination": "nav",
            "url_route": "marketing",
            "category": "browse",
        }
    ]
