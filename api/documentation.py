"""OpenAPI, Swagger UI and ReDoc - with every file from this machine.

Promises pages that make no request to anywhere else and run no inline script, so that a strict
Content-Security-Policy can stand on them. The assets are the static files of the package `fastapi-offline`; nothing
else of it is used. Called by `app`.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from api.document_answers import add_shared_answers, forget_defaults_of_patches
from api.document_examples import add_examples
from api.errors import MEDIA_TYPE, Refused
from api.routing import ProblemBody
from mautolib import __version__

TITLE = "MarketingAutomation-Lite"
PREFIX = "/api/v1"
_REFERENCE = "#/components/schemas/"
#: What the things of a domain are called, where that is not its name in the singular.
_NOUNS = {"ledger": "message"}
#: Names of the library that say too little outside their module.
_PLAIN = {
    "Status": "CampaignStatus", "Kind": "MessageKind", "Level": "ValidationLevel", "Stage": "LifecycleStage",
    "Queued": "CampaignQueued",
}  # fmt: skip
TOKEN_URL = f"{PREFIX}/auth/login"

DESCRIPTION = """
Marketing automation for online shops over one PostgreSQL warehouse.

**Sign in**: press *Authorize*, enter e-mail address and password, leave the rest empty. From a program:
`POST /api/v1/auth/login`, then send `Authorization: Bearer <access_token>`.

**Conventions**
- Ids are opaque strings. Times are RFC 3339 in UTC. Errors are `application/problem+json` with a stable `code`.
- Lists are bare arrays; `X-Total-Count` has the number of matching rows, `X-Next-Cursor` and `Link` lead on.
- `Idempotency-Key` on a POST: the same key and body within 24 hours get the first answer, and one effect.
- `ETag` and `If-Match` protect concurrent edits. `/x` and `/x/` are the same operation.

The service never calls Airflow: it commits a row together with its answer, and a DAG finds the row within seconds.
"""

TAGS: list[dict[str, str]] = [
    {"name": "Sign-in", "description": "Tokens: get one, renew it, end it."},
    {"name": "Users", "description": "Who may sign in, and with which role."},
    {"name": "API keys", "description": "What programs sign in with: role and scopes."},
    {"name": "Audit log", "description": "Who did what, append-only."},
    {"name": "Contacts", "description": "People, their attributes and whether they may be mailed."},
    {"name": "Tags", "description": "Labels, and who carries them."},
    {"name": "Segments", "description": "Audiences by rules and by hand: try, count, explain, compare."},
    {"name": "Import", "description": "Contacts in bulk: JSON and small files at once, large files in the background; "
     "and out again as CSV."},
    {"name": "Address checks", "description": "What an address says about itself, before anything is sent to it."},
    {"name": "Templates", "description": "Mail texts with versions: write, check, try out."},
    {"name": "Campaigns", "description": "Write, send, look at the result."},
    {"name": "Schedules", "description": "Have a campaign sent once, or again and again."},
    {"name": "A/B tests", "description": "Variants of a campaign tried on a part of its audience."},
    {"name": "Messages", "description": "What was queued for people, and what became of it."},
    {"name": "Privacy", "description": "The rights of one person: a copy of their data, erasure."},
    {"name": "Suppression", "description": "Addresses that must not be mailed, and why."},
    {"name": "Events", "description": "What shops and sites tell: visits, carts, orders, anything of your own."},
    {"name": "Orders", "description": "Orders with their refunds, and the exchange rates their figures stand on."},
    {"name": "Provider notices", "description": "What the mail provider tells: bounces, complaints, deliveries."},
    {"name": "Webhooks", "description": "Events told to your servers: endpoints, deliveries, delivering again."},
    {"name": "Inbound sources", "description": "Doors for the webhooks of shops: an address, a secret, a mapping."},
    {"name": "Scoring", "description": "What contacts are worth: rules, scores, why, and who leads."},
    {"name": "Lifecycle", "description": "Where contacts stand on their way, and whom to win back."},
    {"name": "Workflows", "description": "What happens to people step by step, and who stands where."},
    {"name": "Automation rules", "description": "What is done at once when something happened, if conditions hold."},
    {"name": "Analytics", "description": "Figures, each computed in one place and equal everywhere."},
    {"name": "Tracking", "description": "Links in mail: opens, clicks, unsubscribing, preferences. No sign-in."},
    {"name": "Operations", "description": "Signs of life."},
]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
{styles}
</head>
<body>
{body}
</body>
</html>
"""
_SWAGGER_SETUP = """
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    persistAuthorization: true,
    displayRequestDuration: true,
    filter: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
"""
_REDOC_SETUP = """
window.addEventListener("load", () => {
  Redoc.init("/openapi.json", { hideDownloadButton: false, pathInMiddlePanel: true }, document.getElementById("redoc"));
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: ReDoc's sign points at its maker's server; a page that works offline shows none.
_REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_EMPTY_IMAGE = b"data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
_JAVASCRIPT, _CSS = "text/javascript; charset=utf-8", "text/css; charset=utf-8"


def install(app: FastAPI, *, tracking: dict[str, Any], models: tuple[type[BaseModel], ...]) -> None:
    """Give the app its OpenAPI document and the two pages that show it.

    Args:
        tracking: the `paths` of the operations that tracking answers outside the framework.
        models: bodies that no endpoint declares as an argument but the document refers to.
    """
    made: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not made:
            made.append(_document(app, tracking, models))
        return made[0]

    app.openapi = openapi  # type: ignore[method-assign]
    app.router.routes += [
        Route("/openapi.json", lambda _: JSONResponse(openapi()), methods=["GET"], include_in_schema=False),
        Route("/docs", _swagger, methods=["GET"], include_in_schema=False),
        Route("/redoc", _redoc, methods=["GET"], include_in_schema=False),
        Route("/docs/assets/{name}", _asset, methods=["GET"], include_in_schema=False),
    ]


def _document(app: FastAPI, tracking: dict[str, Any], models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    document = get_openapi(
        title=TITLE, version=__version__, description=DESCRIPTION, routes=app.routes, tags=TAGS,
        license_info={"name": "MIT", "identifier": "MIT"},
    )  # fmt: skip
    for path, operations in tracking.items():
        public = {"tags": ["Tracking"], "security": [], "x-role": "public"}
        document["paths"][path] = {method: {**operation, **public} for method, operation in operations.items()}
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    every: list[type[BaseModel]] = [*models, ProblemBody]
    for model in every:
        schema = model.model_json_schema(ref_template=_REFERENCE + "{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    components["securitySchemes"] = {
        "Password": {
            "type": "oauth2",
            "description": "`username` is your e-mail address. Leave client id and secret empty.",
            "flows": {"password": {"tokenUrl": TOKEN_URL, "refreshUrl": f"{PREFIX}/auth/refresh", "scopes": {}}},
        },
        "Bearer": {"type": "http", "scheme": "bearer", "description": "An access token, or an API key."},
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    }
    document["security"] = [{"Password": []}, {"Bearer": []}, {"ApiKey": []}]
    for path in document["paths"].values():
        for operation in path.values():
            _say_who_may(operation)
            _errors_are_problems(operation)
    add_shared_answers(document)
    document = _by_title(document)
    forget_defaults_of_patches(document)
    add_examples(document)
    return document


def _by_title(document: dict[str, Any]) -> dict[str, Any]:
    """The document with each schema under its title: `Contact`, not the name of the class that describes it."""
    schemas = document["components"]["schemas"]
    titles = {name: _title(name, schema) for name, schema in schemas.items()}
    document["components"]["schemas"] = {
        titles[name]: {**schema, "title": titles[name]} for name, schema in sorted(schemas.items())
    }

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: _renamed(value, titles) if key == "$ref" else renamed(value) for key, value in node.items()}
        return [renamed(item) for item in node] if isinstance(node, list) else node

    found: dict[str, Any] = renamed(document)
    return found


def _title(name: str, schema: dict[str, Any]) -> str:
    """The schema's own title; where two classes share one, the framework names their modules, and so do we."""
    title: str = schema.get("title", name)
    parts = name.split("__")
    if len(parts) < 3:
        return _PLAIN.get(title, title)
    return _NOUNS.get(parts[1], parts[1].removesuffix("s")).capitalize() + title


def _renamed(reference: str, titles: dict[str, str]) -> str:
    if not reference.startswith(_REFERENCE):
        return reference
    name = reference.removeprefix(_REFERENCE)
    return _REFERENCE + titles.get(name, name)


def _say_who_may(operation: dict[str, Any]) -> None:
    """Put role and scope where people read."""
    role, scope = operation["x-role"], operation.get("x-scope")
    if role == "public":
        return
    of_keys = f"an API key also the scope `{scope}`" if scope else "API keys are refused"
    operation["description"] = f"{operation.get('description', '')}\n\nNeeds the role *{role}*; {of_keys}.".strip()


def _errors_are_problems(operation: dict[str, Any]) -> None:
    for status, answer in operation.get("responses", {}).items():
        if str(status) >= "400" and "content" in answer:
            # The framework calls every model JSON; pages of tracking show their refusals as pages too.
            answer["content"].pop("application/json", None)
            answer["content"][MEDIA_TYPE] = {"schema": {"$ref": f"{_REFERENCE}Problem"}}


def _swagger(_: Request) -> Response:
    body = (
        '<div id="swagger-ui"></div>\n<script src="/docs/assets/swagger-ui-bundle.js"></script>\n'
        '<script src="/docs/assets/swagger-setup.js"></script>'
    )
    styles = '<link rel="stylesheet" href="/docs/assets/swagger-ui.css">'
    return _page(_PAGE.format(title=f"{TITLE} - Swagger UI", styles=styles, body=body))


def _redoc(_: Request) -> Response:
    body = (
        '<div id="redoc"></div>\n<script src="/docs/assets/redoc.standalone.js"></script>\n'
        '<script src="/docs/assets/redoc-setup.js"></script>'
    )
    return _page(_PAGE.format(title=f"{TITLE} - ReDoc", styles="<style>body{margin:0}</style>", body=body))


def _page(html: str) -> Response:
    return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})


def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    kinds = {
        "swagger-ui-bundle.js": _JAVASCRIPT, "swagger-ui.css": _CSS, "redoc.standalone.js": _JAVASCRIPT,
        "swagger-setup.js": _JAVASCRIPT, "redoc-setup.js": _JAVASCRIPT,
    }  # fmt: skip
    if name not in kinds:
        raise Refused(404, "Not found")
    own = {"swagger-setup.js": _SWAGGER_SETUP.encode(), "redoc-setup.js": _REDOC_SETUP.encode()}
    content = own.get(name) or _bundled(name)
    return Response(content, headers={"Content-Type": kinds[name], "Cache-Control": "public, max-age=3600"})


@cache
def _bundled(name: str) -> bytes:
    # Found, not imported: importing the package would import a second FastAPI application class for nothing.
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("fastapi-offline is not installed; it is in requirements.txt")
    content = (Path(spec.origin).parent / "static" / name).read_bytes()
    return content.replace(_REDOC_LOGO, _EMPTY_IMAGE)
