"""What every answer has in common, as one ASGI layer around the app.

Promises: both slash forms are one operation; 404 and 405 (with `Allow`) before anything else; bodies limited while
they are read; X-Request-ID and security headers on everything; CORS for configured origins only; one log line a
request without its query; and an answer, not a torn connection, when something breaks. Tracking answers itself
and stands outside.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.errors import Refused
from api.routing import Operations, policy_of
from mautolib.log import bound, fields

_LOG = logging.getLogger("api.access")
_PAGE_BODY_LIMIT = 64 * 1024
_BODY_SECONDS = 30
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")
#: Asked all the time: not logged; and the only operations here that serve HEAD.
_HEAD = {"/health", "/ready"}

#: Set on every answer that does not set them itself.
DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ASKED = b"Authorization, Content-Type, Idempotency-Key, If-Match, X-API-Key, X-Request-ID"
_EXPOSED = (
    "X-Request-ID, X-Total-Count, X-Total-Count-Exact, X-Next-Cursor, Link, ETag, Location, Retry-After, "
    "Idempotency-Replayed"
)


class Conventions:
    """The outermost layer of the app proper."""

    def __init__(
        self, app: ASGIApp, *, operations: Callable[[], Operations], cors_origins: tuple[str, ...],
        observe: Callable[[str, str, int, float], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._app = app
        self._make_operations = operations
        self._operations: Operations | None = None
        self._observe = observe
        self._origins = frozenset(cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope["mauto.request_id"] = request_id
        with bound(request_id=request_id):
            await self._serve(scope, receive, send, headers, request_id, began)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, request_id: str, began: float
    ) -> None:
        status, is_whole = 0, False

        async def answer(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), headers, request_id)
            elif message["type"] == "http.response.body":
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._enter(scope, receive, answer)
        except Exception as error:
            if is_whole:
                return  # the framework answers and logs what nobody foresaw, and raises it again
            response = errors.handle(Request(scope), error)
            if status:
                raise  # the answer has begun: only ending the connection tells the caller that it is not whole
            await response(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            template = scope.get("mauto.template", "unknown")
            self._observe(scope["method"], template, status, seconds)
            if scope["path"] not in _HEAD:
                _log(scope, template, status, seconds * 1000)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._operations is None:
            self._operations = self._make_operations()
        scope["path"] = self._operations.canonical(scope["path"])
        found = self._operations.find(scope["path"])
        if found:
            scope["mauto.template"] = found[0].path
        if scope["method"] == "OPTIONS" and self._is_preflight(Headers(scope=scope)):
            methods = ", ".join(sorted({method for route in found for method in route.methods or ()}))
            await _preflight(methods, send)
            return
        if not found:
            raise Refused(404, "Not found")
        chosen = next((route for route in found if scope["method"] in (route.methods or ())), None)
        if chosen is None or (scope["method"] == "HEAD" and scope["path"] not in _HEAD):
            raise Refused(405, "Method not allowed", headers={"Allow": _allowed(found, scope["path"])})
        policy = policy_of(chosen)
        limit = policy.body_limit if policy else _PAGE_BODY_LIMIT
        declared = Headers(scope=scope).get("content-length", "")
        if limit is not None and declared and (not declared.isdecimal() or int(declared[:20]) > limit):
            raise _too_large(limit)
        await self._app(scope, _limited(receive, limit), send)

    def _is_preflight(self, headers: Headers) -> bool:
        return headers.get("origin") in self._origins and "access-control-request-method" in headers

    def _add_headers(self, answer: MutableHeaders, asked: Headers, request_id: str) -> None:
        answer["X-Request-ID"] = request_id
        for name, value in DEFAULT_HEADERS.items():
            answer.setdefault(name, value)
        if self._origins:
            answer.add_vary_header("Origin")
            origin = asked.get("origin")
            if origin in self._origins:
                answer["Access-Control-Allow-Origin"] = origin
                answer["Access-Control-Expose-Headers"] = _EXPOSED
                answer["Cross-Origin-Resource-Policy"] = "cross-origin"


def _log(scope: Scope, template: str, status: int, milliseconds: float) -> None:
    """One line a request: the template of its path, since a path may hold what is nobody's business."""
    call = scope.get("mauto.call")
    actor = str(call.actor.type) if call is not None and call.who is not None else "none"
    _LOG.info(
        "%s %s %s %.0f ms [%s]", scope["method"], template, status, milliseconds, scope["mauto.request_id"],
        extra=fields(method=scope["method"], route=template, status=status, duration_ms=round(milliseconds, 1),
                     actor=actor),
    )  # fmt: skip


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


def _limited(receive: Receive, limit: int | None) -> Receive:
    """`receive` that refuses a body over `limit` octets, or one that stops coming."""
    read, complete = 0, False

    async def guarded() -> Message:
        nonlocal read, complete
        if complete:
            return await receive()  # only the end of the connection comes now, whenever it likes
        try:
            message = await asyncio.wait_for(receive(), _BODY_SECONDS)
        except TimeoutError:
            raise Refused(408, "The body did not arrive in time") from None
        if message["type"] == "http.request":
            complete = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if limit is not None and read > limit:
                raise _too_large(limit)
        return message

    return guarded


def _too_large(limit: int) -> Refused:
    # Closing tells the client to stop sending what nobody reads.
    return Refused(413, f"The body is larger than {limit} bytes", headers={"Connection": "close"})


def _allowed(found: Sequence[object], path: str) -> str:
    methods = {method for route in found for method in getattr(route, "methods", None) or ()}
    if path not in _HEAD:
        methods.discard("HEAD")
    return ", ".join(sorted(methods))


async def _preflight(methods: str, send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", methods.encode()),
        (b"access-control-allow-headers", _ASKED),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
