"""The tracking operations for the OpenAPI document; they are answered outside the framework that would tell them."""

from __future__ import annotations

from typing import Any

__all__ = ["TRACKING_OPENAPI"]


def _parameter(name: str, where: str, text: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "description": text, "schema": {"type": "string"}}


_IDS = [
    _parameter("cid", "path", "Public id of the campaign or workflow", required=True),
    _parameter("uid", "path", "Public id of the contact", required=True),
]
_S = _parameter("s", "query", "Token of the message; without a valid one nothing happens", required=False)
_URL = _parameter("url", "query", "Where the link leads (http or https)", required=True)


def _answer(text: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": schema}}}


def _problem(text: str) -> dict[str, Any]:
    return _answer(text, "application/problem+json", {})


def _operation(name: str, summary: str, text: str, **more: Any) -> dict[str, Any]:
    return {"tags": ["tracking"], "operationId": name, "summary": summary, "description": text, "security": [], **more}


_HTML = {"type": "string"}
_BINARY = {"type": "string", "contentMediaType": "image/gif"}
_MESSAGE = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
_FORM = {"type": "object", "properties": {"List-Unsubscribe": {"const": "One-Click"}, "s": {"type": "string"}}}

#: The `paths` of the document, in the spelling without a trailing slash.
TRACKING_OPENAPI: dict[str, Any] = {
    "/api/v1/track/open/{cid}/{uid}": {
        "get": _operation(
            "track_open", "Open pixel", "Always the same transparent pixel, also for unknown ids.",
            parameters=[*_IDS, _S], responses={"200": _answer("The pixel", "image/gif", _BINARY)},
        ),
    },
    "/api/v1/track/click/{cid}/{uid}": {
        "get": _operation(
            "track_click", "Tracked link",
            "Redirects a link that was made here; any other gets a page that names its destination.",
            parameters=[*_IDS, _URL, _S],
            responses={
                "302": {"description": "To `url`; the hit is recorded",
                        "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}}},
                "200": _answer("No or wrong `s`: a page that names the destination", "text/html", _HTML),
                "400": _problem("Invalid redirect URL"),
                "422": _problem("No `url`"),
                "429": _problem("Too many links that were not made here"),
            },
        ),
    },
    "/api/v1/track/unsubscribe/{cid}/{uid}": {
        "get": _operation(
            "track_unsubscribe_page", "Unsubscribe page", "A page with a button; nothing is changed.",
            parameters=[*_IDS, _S], responses={"200": _answer("The page", "text/html", _HTML)},
        ),
        "post": _operation(
            "track_unsubscribe", "Unsubscribe", "From the page's form, or one-click (RFC 8058). Idempotent.",
            parameters=[*_IDS, _S],
            requestBody={"content": {
                "application/x-www-form-urlencoded": {"schema": _FORM}, "multipart/form-data": {"schema": _FORM},
            }},
            responses={
                "200": {"description": "Unsubscribed; with a wrong `s` a neutral answer and nothing changed",
                        "content": {"text/html": {"schema": _HTML}, "application/json": {"schema": _MESSAGE}}},
                "400": _problem("The body is another form (only with `Accept: application/json`)"),
                "408": _problem("The body did not arrive in time"),
                "413": _problem("The body is larger than 8 KiB"),
            },
        ),
    },
}  # fmt: skip
