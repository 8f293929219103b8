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
_TOKEN_FORM = {"type": "object", "properties": {"s": {"type": "string"}}}
_CHOICE = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": ["unsubscribe", "resubscribe", "update"]},
        "language": {"type": "string", "maxLength": 10, "description": "A language tag such as en or pt-BR."},
        "timezone": {"type": "string", "maxLength": 64, "description": "An IANA time zone, or empty."},
        "s": {"type": "string"},
    },
    "required": ["action"],
    "example": {"action": "update", "language": "de", "timezone": "Europe/Berlin"},
}
_PREFERENCES = {
    "type": "object",
    "properties": {
        "message": {"type": "string"}, "subscribed": {"type": "boolean"},
        "standing": {"type": "string", "enum": ["subscribed", "unsubscribed", "pending", "blocked"]},
        "language": {"type": "string"}, "timezone": {"type": "string"},
    },
}  # fmt: skip


def _page_or(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"text/html": {"schema": _HTML}, "application/json": {"schema": schema}}}


def _away() -> dict[str, Any]:
    content = {"text/html": {"schema": _HTML}, "application/problem+json": {"schema": {}}}
    headers = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return {"description": "The database is away; nothing is known to have changed", "content": content,
            "headers": headers}  # fmt: skip


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data", "application/json")
    return {"content": {kind: {"schema": schema} for kind in kinds}}


_LATE = {"408": _problem("The body did not arrive in time"), "413": _problem("The body is larger than 8 KiB")}

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
    "/api/v1/track/preferences/{cid}/{uid}": {
        "get": _operation(
            "track_preferences_page", "Preference page",
            "What the person gets, their language and time zone; no address. Nothing is changed.",
            parameters=[*_IDS, _S],
            responses={"200": _page_or("The page; with no or a wrong `s` a neutral one", _PREFERENCES), "503": _away()},
        ),
        "post": _operation(
            "track_preferences", "Change preferences",
            "Unsubscribe, subscribe again (takes back the person's own unsubscribing only), or change language and "
            "time zone. Idempotent. Unsubscribing is not lost while the database is away.",
            parameters=[*_IDS, _S], requestBody=_body(_CHOICE),
            responses={
                "200": _page_or("The changed page; with no or a wrong `s` a neutral one", _PREFERENCES),
                "409": _problem("A complaint or a legal reason stands against it (only with "
                                "`Accept: application/json`, else the page says so)"),
                "422": {"description": "A value is not acceptable; nothing has changed",
                        "content": {"text/html": {"schema": _HTML}, "application/problem+json": {"schema": {}}}},
                **_LATE, "503": _away(),
            },
        ),
    },
    "/api/v1/track/confirm/{uid}": {
        "get": _operation(
            "track_confirm_page", "Confirmation page", "A page with a button; nothing is changed.",
            parameters=[_IDS[1], _S], responses={"200": _answer("The page", "text/html", _HTML)},
        ),
        "post": _operation(
            "track_confirm", "Confirm a subscription",
            "The button of the page: consent granted and subscribed (double opt-in). Idempotent. A link is void once "
            "consent was withdrawn after its mail.",
            parameters=[_IDS[1], _S], requestBody=_body(_TOKEN_FORM),
            responses={
                "200": _page_or("Confirmed; with a wrong or void `s` a page that says so and nothing changed",
                                _MESSAGE), **_LATE, "503": _away(),
            },
        ),
    },
}  # fmt: skip
