"""The dashboard as a tab of the Airflow UI, behind Airflow's own sign-in.

The pages are those of `mautolib.pages.registry`, the same that the API shows at /dashboard. Loaded by every Airflow
component, so everything but the registration is imported when a page is asked for.
"""

# Annotations are evaluated here: the framework reads those of functions whose types are imported late.
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from mauto_airflow import moments
from mauto_airflow.warehouse import CONNECTION_ID

if TYPE_CHECKING:
    from sqlalchemy import Engine

PREFIX = "/mauto"
_SAFE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@cache
def _engine() -> "Engine":
    from airflow.sdk import BaseHook

    from mautolib.db.engine import connect

    url = BaseHook.get_connection(CONNECTION_ID).get_uri()
    return connect(url, application_name="mauto-dashboard", pool_size=1, statement_timeout_ms=15_000)


@cache
def application() -> Any:
    """The application behind the tab."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import PlainTextResponse, Response

    # Routes of a plugin are open to everybody unless they ask for a right themselves: every one of these does.
    allowed = [Depends(requires_access_view(AccessView.PLUGINS))]
    app = FastAPI(title="mauto", openapi_url=None, docs_url=None, redoc_url=None, dependencies=allowed)

    @app.get("/dashboard/static/{digest}/{name}")
    def static(digest: str, name: str) -> Response:
        from mautolib.errors import NotFound
        from mautolib.pages import static_files

        try:
            found = static_files.read(digest, name)
        except NotFound as error:
            return PlainTextResponse(str(error), status_code=404)
        cache = static_files.CACHE.replace("public", "private")
        return Response(found.content, media_type=found.media_type, headers={**_SAFE, "Cache-Control": cache})

    @app.get("/dashboard")
    @app.get("/dashboard/{path:path}")
    def dashboard(request: Request, path: str = "") -> Response:
        found: Response = _page(request.url.path, path, dict(request.query_params))
        return found

    return app


def _page(url_path: str, path: str, query: dict[str, str]) -> Any:
    from fastapi.responses import Response

    from mautolib.db.engine import is_unavailable
    from mautolib.pages import registry
    from mautolib.pages.frame import House, content_security_policy

    # Links are relative, so that they hold under whatever base path Airflow is served.
    depth = _depth(url_path)
    house = House(root="../" * (depth - 1) or "./" if depth else "dashboard/", home="../" * depth + "dashboard",
                  embedded=True)  # fmt: skip
    headers = {**_SAFE, "Content-Security-Policy": content_security_policy(frame_ancestors="'self'")}
    try:
        with _engine().begin() as tx:
            shown = registry.answer(tx, path.strip("/"), query, now=moments.now(), house=house)
    except Exception as error:
        if not is_unavailable(error):
            raise
        shown = registry.error_answer(503, "The warehouse cannot be reached; try again in a minute.", house=house)
        headers["Retry-After"] = "30"
    return Response(shown.body, shown.status, {**headers, **shown.headers}, shown.media_type)


def _depth(url_path: str) -> int:
    """How many folders below `/dashboard` an address is."""
    return url_path.rpartition("/dashboard")[2].count("/")


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
