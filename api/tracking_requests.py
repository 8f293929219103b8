"""One request to a tracking address: what was asked, and how it is answered - without a framework, for speed.

Reads only what tracking needs; tolerates what mail programs do to links (`&amp;`, parameters in another order).
Every answer carries the security headers and X-Request-ID. Called by `api/tracking.py` and `api/unsubscribe.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from api.errors import MEDIA_TYPE, Problem
from mautolib.events.hits import MAX_PURPOSE, MAX_USER_AGENT, clean, network_prefix

__all__ = ["BODY_LIMIT", "Asked", "BodyTooLarge", "parameters"]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_LIMIT = 8 * 1024
_BODY_SECONDS = 10
_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,128}\Z")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"x-robots-tag", b"noindex, nofollow"),
]
#: A request's own id: random for the process, then counted; random octets would be a system call each time.
_PROCESS, _NUMBERS = os.urandom(6).hex().encode(), itertools.count(1)
_NOTHING_ALLOWED = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_BARE = [*_HEADERS[:3], _NOTHING_ALLOWED]
_PIXEL_HEADERS = [*_BARE, (b"content-type", b"image/gif"), (b"content-length", b"43")]
_REDIRECT_HEADERS = [*_BARE, (b"content-length", b"0")]
_PURPOSES = (b"purpose", b"sec-purpose", b"x-purpose", b"x-moz")
_HAS_NO_PURPOSE = frozenset(_PURPOSES).isdisjoint


class BodyTooLarge(Exception):
    """The body has more than `BODY_LIMIT` octets; it was not read to its end."""


class Asked:
    """One request and the way to answer it."""

    __slots__ = ("cid", "headers", "is_head", "method", "path", "query", "request_id", "scope", "send", "uid")

    def __init__(self, scope: Scope, send: Send, cid: str, uid: str) -> None:
        self.scope, self.send, self.cid, self.uid = scope, send, cid, uid
        self.method: str = scope["method"]
        self.is_head = self.method == "HEAD"
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.query = parameters(scope["query_string"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given if given and _PRINTABLE.match(given) else b"%s%012x" % (_PROCESS, next(_NUMBERS))

    @property
    def is_look(self) -> bool:
        """Whether it asks to see something, and must change nothing."""
        return self.is_head or self.method == "GET"

    @property
    def user_agent(self) -> str:
        """The caller's name for itself, cut and cleaned."""
        return _user_agent(self.headers.get(b"user-agent", b""))

    @property
    def purpose(self) -> str:
        """What the caller says it fetches for (RFC-less headers of browsers and proxies), else ""."""
        headers = self.headers
        if _HAS_NO_PURPOSE(headers):
            return ""
        said = b" ".join(headers[name] for name in _PURPOSES if name in headers)
        return clean(said.decode("utf-8", "replace"), MAX_PURPOSE)

    @property
    def network(self) -> str:
        """The network the request came from. A proxy in front is believed only if the server was told to."""
        client = self.scope.get("client")
        return network_prefix(client[0]) if client else ""

    def header(self, name: bytes) -> str:
        """A header's text, "" without one."""
        return self.headers.get(name, b"").decode("latin-1")

    async def answer(self, status: int, media_type: bytes, body: bytes, *extra: tuple[bytes, bytes]) -> None:
        """Send the whole answer; a HEAD request gets its headers only."""
        headers = [
            *_HEADERS, (b"content-type", media_type), (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id), *extra,
        ]  # fmt: skip
        if not any(name == b"content-security-policy" for name, _ in extra):
            headers.append(_NOTHING_ALLOWED)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"" if self.is_head else body})

    async def pixel(self, gif: bytes) -> None:
        """Send the pixel (the same as `answer`, with less to think about)."""
        headers = [*_PIXEL_HEADERS, (b"x-request-id", self.request_id)]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"" if self.is_head else gif})

    async def redirect(self, location: bytes) -> None:
        """Send the reader on; there is nothing to show, to frame or to index."""
        headers = [*_REDIRECT_HEADERS, (b"location", location), (b"x-request-id", self.request_id)]
        await self.send({"type": "http.response.start", "status": 302, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    async def problem(
        self, status: int, detail: str | list[dict[str, Any]], *extra: tuple[bytes, bytes], code: str = ""
    ) -> None:
        """Send an error answer (RFC 9457)."""
        code = code or HTTPStatus(status).name.lower()
        body = Problem(status=status, code=code, detail=detail).body(self.path, self.request_id.decode("ascii"))
        await self.answer(status, MEDIA_TYPE.encode(), body, *extra)

    async def body(self, receive: Receive) -> bytes:
        """The request's body.

        Raises:
            BodyTooLarge: more than `BODY_LIMIT` octets.
            TimeoutError: it does not come to its end in time.
        """
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > BODY_LIMIT:
            raise BodyTooLarge
        parts, size, more = [], 0, True
        async with asyncio.timeout(_BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    break  # the caller left
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > BODY_LIMIT:
                    raise BodyTooLarge
                more = message.get("more_body", False)
        return b"".join(parts)


@lru_cache(maxsize=4096)
def _user_agent(raw: bytes) -> str:
    return clean(raw[: 4 * MAX_USER_AGENT].decode("utf-8", "replace"), MAX_USER_AGENT)


def parameters(query: bytes) -> dict[str, str]:
    """The query's parameters, the first of each name. A literal `+` stays one: addresses have no blanks."""
    found: dict[str, str] = {}
    for part in query.decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        name = name.removeprefix("amp;")
        if name and name not in found:
            found[name] = _unquoted(value) if "%" in value or not value.isascii() else value
    return found


@lru_cache(maxsize=1024)
def _unquoted(raw: str) -> str:
    """A value as it was before it was put into an address; the targets of a mailing come again and again."""
    return unquote(raw, errors="replace")
