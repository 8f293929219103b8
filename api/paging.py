"""Lists: skip and limit, or a cursor; totals and the way to the next page in headers.

A cursor is opaque, signed, and bound to path and filters. It holds the position after the last row shown, so that
paging neither repeats nor skips rows that did not change. Called by every list endpoint.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from api.calls import JSON, Call, json_bytes
from api.errors import Refused, invalid
from mautolib.settings import Settings

LARGEST_SKIP = 1_000_000
COUNT_LIMIT = 100_000
_MAC_BYTES = 16
_NOT_A_FILTER = {"cursor", "limit", "skip", "offset"}

_Skip = Annotated[int | None, Query(ge=0, le=LARGEST_SKIP, description="Leave out this many rows first.")]
_Cursor = Annotated[
    str | None,
    Query(max_length=2000, description="Where the last page ended (`X-Next-Cursor`); not together with `skip`."),
]

@dataclass(frozen=True, kw_only=True)
class Page:
    """What was asked for: `after` is the position a cursor named, else `skip` rows are left out."""

    limit: int
    skip: int
    after: tuple[Any, ...] | None


def pages(*, limit: int = 50, most: int = 200) -> Callable[..., Page]:
    """The dependency that reads `skip`=0 (0..1000000), `limit` (1..`most`) and `cursor`."""
    size = Query(limit, ge=1, le=most, description="At most this many rows.")

    def read(request: Request, limit: int = size, skip: _Skip = None, cursor: _Cursor = None) -> Page:
        if cursor is None:
            return Page(limit=limit, skip=skip or 0, after=None)
        if skip:
            raise Refused(422, invalid(["query", "cursor"], "Not together with skip"))
        call: Call = request.scope["mauto.call"]
        return Page(limit=limit, skip=0, after=read_cursor(call.settings, request, cursor))

    return read


#: `skip`=0 (0..1000000), `limit`=50 (1..200), `cursor`.
SkipLimit = Annotated[Page, Depends(pages())]
#: The same with `limit`=100 (1..500).
WideSkipLimit = Annotated[Page, Depends(pages(limit=100, most=500))]


def _offset_page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200, description="At most this many rows.")] = 50,
    offset: Annotated[int | None, Query(ge=0, le=LARGEST_SKIP, description="Leave out this many rows first.")] = None,
    cursor: Annotated[
        str | None,
        Query(max_length=2000, description="Where the last page ended (`X-Next-Cursor`); not together with `offset`."),
    ] = None,
) -> Page:
    if cursor is None:
        return Page(limit=limit, skip=offset or 0, after=None)
    if offset:
        raise Refused(422, invalid(["query", "cursor"], "Not together with offset"))
    call: Call = request.scope["mauto.call"]
    return Page(limit=limit, skip=0, after=read_cursor(call.settings, request, cursor))


#: `limit`=50 (1..200), `offset`=0 (0..1000000), `cursor`.
OffsetLimit = Annotated[Page, Depends(_offset_page)]


def position(page: Page) -> tuple[datetime, int] | None:
    """The position a cursor named in a list ordered by (moment, id); None without a cursor."""
    if page.after is None:
        return None
    try:
        moment, number = page.after
        return datetime.fromisoformat(moment), int(number)
    except (ValueError, TypeError):
        raise _bad_cursor() from None


def position_id(page: Page) -> int | None:
    """The position a cursor named in a list ordered by id; None without a cursor."""
    if page.after is None:
        return None
    try:
        (number,) = page.after
        return int(number)
    except (ValueError, TypeError):
        raise _bad_cursor() from None


def position_text(page: Page) -> tuple[str, int] | None:
    """The position a cursor named in a list ordered by (text, id); None without a cursor."""
    if page.after is None:
        return None
    try:
        text, number = page.after
        return str(text), int(number)
    except (ValueError, TypeError):
        raise _bad_cursor() from None


def position_as(page: Page, *kinds: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    """The position a cursor named in a list ordered by several values, each read by one of `kinds`; None without."""
    if page.after is None:
        return None
    try:
        return tuple(kind(value) for kind, value in zip(kinds, page.after, strict=True))
    except (ValueError, TypeError):
        raise _bad_cursor() from None


def make_cursor(settings: Settings, request: Request, position: Sequence[Any]) -> str:
    """A cursor for the page that begins after `position` (the values the list is ordered by, JSON-ready)."""
    payload = json.dumps(list(position), separators=(",", ":")).encode()
    mac = _mac(settings.keys("cursor")[0], request, payload)
    return base64.urlsafe_b64encode(mac + payload).decode().rstrip("=")


def read_cursor(settings: Settings, request: Request, cursor: str) -> tuple[Any, ...]:
    """The position in a cursor made for this very list.

    Raises:
        Refused: 422 `invalid_cursor`; forged, foreign or made for other filters.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not any(hmac.compare_digest(_mac(key, request, payload), mac) for key in settings.keys("cursor")):
        raise _bad_cursor()
    return tuple(json.loads(payload))


def list_response(
    call: Call, rows: Sequence[Any], page: Page, *, total: int, last: Sequence[Any] | None, remain: bool
) -> Response:
    """The answer of a list: a bare array with its headers.

    Args:
        rows: schemas or plain data.
        total: matching rows; anything over 100000 is told as "at least 100000".
        last: position of the last row shown; None when there is none.
        remain: whether rows follow.
    """
    headers = list_headers(call, page, total=total, last=last, remain=remain)
    body = b"[" + b",".join(json_bytes(row) for row in rows) + b"]"
    return Response(body, media_type=JSON, headers=headers)


def list_headers(
    call: Call, page: Page, *, total: int, last: Sequence[Any] | None, remain: bool
) -> dict[str, str]:
    """The headers of a list; arguments as in `list_response`."""
    exact = total <= COUNT_LIMIT
    headers = {"X-Total-Count": str(min(total, COUNT_LIMIT)), "X-Total-Count-Exact": str(exact).lower()}
    if remain and last is not None:
        cursor = make_cursor(call.settings, call.request, last)
        kept = [(k, v) for k, v in parse_qsl(call.request.url.query, keep_blank_values=True) if k not in _NOT_A_FILTER]
        query = urlencode([*kept, ("limit", page.limit), ("cursor", cursor)])
        headers |= {"X-Next-Cursor": cursor, "Link": f'<{call.request.url.path}?{query}>; rel="next"'}
    return headers


def _mac(key: bytes, request: Request, payload: bytes) -> bytes:
    query = sorted((k, v) for k, v in parse_qsl(request.url.query, keep_blank_values=True) if k not in _NOT_A_FILTER)
    bound = json.dumps([request.url.path, query], separators=(",", ":")).encode()
    return hmac.digest(key, len(bound).to_bytes(4, "big") + bound + payload, "sha256")[:_MAC_BYTES]


def _bad_cursor() -> Refused:
    message = "This cursor was not made for this list and these filters"
    return Refused(422, invalid(["query", "cursor"], message, kind="invalid_cursor"), code="invalid_cursor")
