"""The only place where an error becomes an HTTP answer (`application/problem+json`, RFC 9457).

Guards that no body shows SQL, tables, files, versions or traces, and that input a database refuses is the
caller's mistake and never a 5xx. Called by the exception handlers of the app, by `conventions` for what never reaches
a route, and by `calls` for answers kept under an Idempotency-Key.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mautolib.db.engine import is_unavailable
from mautolib.errors import (
    Conflict,
    DomainError,
    InvalidInput,
    MautoError,
    NoRoom,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RateLimited,
    TransientError,
)

_LOG = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
_NO_ROOM = "There is no room to keep this at the moment; try again later"
_INPUT_CHARACTERS = 200
_SECRETS = {"password", "current_password", "new_password", "refresh_token", "secret", "token", "key"}

TITLES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 412: "Precondition Failed", 413: "Content Too Large",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
_CODES = {
    400: "bad_request", 401: "not_authenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "request_timeout", 409: "invalid_state", 412: "precondition_failed", 413: "too_large",
    415: "unsupported_media_type", 422: "validation_error", 429: "rate_limited", 500: "internal_error",
    503: "unavailable",
}  # fmt: skip

#: Which status each branch of the error tree is; the first match counts, leaves before branches.
STATUS_OF: tuple[tuple[type[MautoError], int], ...] = (
    (NotFound, 404), (Conflict, 409), (InvalidInput, 422), (NotAuthenticated, 401), (NotAllowed, 403),
    (DomainError, 400), (RateLimited, 429), (TransientError, 503), (MautoError, 500),
)  # fmt: skip


class Refused(HTTPException):
    """A refusal that is about HTTP itself (size, media type, precondition, header) and has no domain error."""

    def __init__(
        self,
        status: int,
        detail: str | list[dict[str, Any]],
        *,
        code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail=detail if isinstance(detail, str) else "", headers=headers)
        self.code = code or _CODES[status]
        self.problem_detail = detail


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error answer, not yet tied to a request."""

    status: int
    code: str
    detail: str | list[dict[str, Any]]
    headers: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_kept(self) -> bool:
        """Whether a repeat under the same Idempotency-Key gets this very answer again."""
        return self.status in (400, 404, 409, 412) or (self.status == 422 and self.code not in _ABOUT_INPUT)

    def body(self, instance: str, request_id: str) -> bytes:
        """The JSON text."""
        members = {
            "type": f"urn:problem:{self.code}", "title": TITLES.get(self.status, "Error"), "status": self.status,
            "detail": self.detail, "code": self.code, "instance": instance, "request_id": request_id, **self.extra,
        }  # fmt: skip
        return json.dumps(members, ensure_ascii=True, allow_nan=False, default=str).encode()

    def response(self, instance: str, request_id: str) -> Response:
        """The answer."""
        headers = dict(self.headers)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(self.body(instance, request_id), self.status, headers=headers, media_type=MEDIA_TYPE)


_ABOUT_INPUT = {"validation_error", "timezone_required", "invalid_cursor", "idempotency_mismatch"}


def invalid(loc: Sequence[str | int], message: str, *, kind: str = "value_error") -> list[dict[str, Any]]:
    """The `detail` of a 422 with one entry."""
    return [{"type": kind, "loc": list(loc), "msg": message}]


def problem_of(error: BaseException) -> Problem:
    """The answer to any error; one nobody foresaw is a 500 without details (they are in the log)."""
    if isinstance(error, MautoError):
        return _of_domain(error)
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, Refused):
        headers = dict(error.headers or {})
        return Problem(status=error.status_code, code=error.code, detail=error.problem_detail, headers=headers)
    if isinstance(error, ClientDisconnect):
        return Problem(status=400, code="bad_request", detail="The connection ended before the body did")
    if isinstance(error, HTTPException):
        status = error.status_code
        # What the framework raises itself: only a body it could not read.
        detail = invalid(["body"], "The body cannot be read") if status == 422 else str(error.detail)
        return Problem(
            status=status, code=_CODES.get(status, "bad_request"), detail=detail, headers=dict(error.headers or {})
        )
    return _of_database(error) or Problem(status=500, code="internal_error", detail="Something went wrong on our side")


def handle(request: Request, error: Exception) -> Response:
    """Exception handler of the app for every kind of error."""
    problem = problem_of(error)
    request_id = str(request.scope.get("mauto.request_id", ""))
    if problem.status >= 500:
        level = logging.WARNING if problem.status == 503 else logging.ERROR
        _LOG.log(level, "%s %s: %s [%s]", request.method, request.url.path, _brief(error), request_id,
                 exc_info=None if problem.status == 503 else error)  # fmt: skip
    return problem.response(request.url.path, request_id)


def unavailable(what: str, **extra: object) -> Problem:
    """A 503: something this service needs cannot be reached; `extra` are further members of the body."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Problem(status=503, code="unavailable", detail=what, headers=headers, extra=extra)


def _of_domain(error: MautoError) -> Problem:
    status = next(status for kind, status in STATUS_OF if isinstance(error, kind))
    if isinstance(error, InvalidInput):
        return Problem(status=422, code=error.code, detail=_input_details(error))
    if status == 500:
        return Problem(status=500, code="internal_error", detail="Something went wrong on our side")
    headers = {}
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds or RETRY_AFTER_SECONDS)))
    elif status == 503:
        return unavailable(_NO_ROOM if isinstance(error, NoRoom) else "A service this one needs cannot be reached; "
                           "try again")
    return Problem(status=status, code=error.code, detail=_clean(str(error)), headers=headers)


def _input_details(error: InvalidInput) -> list[dict[str, Any]]:
    own = ((error.path, str(error)),)
    # Without a path of its own the message only sums up the problems.
    found = error.problems if error.problems and not error.path else own + error.problems
    kind = "value_error" if error.code == "validation_error" else error.code
    return [{"type": kind, "loc": _loc(error, path), "msg": _clean(message)} for path, message in found]


def _loc(error: InvalidInput, path: tuple[str | int, ...]) -> list[str | int]:
    is_rooted = path[:1] in (("body",), ("query",), ("path",), ("header",))
    if error.code in ("validation_error", "timezone_required") and not is_rooted:
        return ["body", *path]
    return list(path) or ["body"]


def _of_validation(error: RequestValidationError) -> Problem:
    details = []
    for item in error.errors():
        loc = list(item.get("loc", ()))
        entry = {"type": item["type"], "loc": [_clean(str(p)) if isinstance(p, str) else p for p in loc]}
        entry["msg"] = _clean(str(item["msg"]))
        value = item.get("input")
        if isinstance(value, str | int | bool) and not _SECRETS & {str(part) for part in loc}:
            entry["input"] = _clean(value)[:_INPUT_CHARACTERS] if isinstance(value, str) else _number(value)
        details.append(entry)
    zone = any(entry["type"] == "timezone_required" for entry in details)
    return Problem(status=422, code="timezone_required" if zone else "validation_error", detail=details)


def _is_full(error: BaseException) -> bool:
    """Whether the disk of the database is full."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) == "53100"


def _of_database(error: BaseException) -> Problem | None:
    if NoRoom.is_why(error) or _is_full(error):
        return unavailable(_NO_ROOM)
    if is_unavailable(error):
        return unavailable("The database cannot be reached; try again")
    state = getattr(getattr(error, "orig", None), "pgcode", None) if isinstance(error, DBAPIError) else None
    if state is None:
        return None
    if state in ("57014", "40001", "40P01", "55P03"):
        return unavailable("The database is busy; try again")
    if state == "23505":
        return Problem(status=409, code="duplicate", detail="This already exists")
    if state == "23503":
        return Problem(status=409, code="in_use", detail="Something else refers to this, or the reference is unknown")
    if state.startswith(("22", "23")):
        # A value no check of ours caught: still the caller's mistake, but we want to know.
        _LOG.warning("a value reached the database that it refused (%s)", state)
        return Problem(status=422, code="validation_error", detail=invalid(["body"], "A value is not acceptable"))
    return None


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _number(value: int | bool) -> int | bool | str:
    return value if isinstance(value, bool) or abs(value) < 2**63 else "a number with many digits"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "�")
