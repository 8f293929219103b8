"""How an operation is declared, found and entered.

Guards that no operation exists without a policy (role, size, audit name), that a literal path segment wins over
`{id}`, and the order of checks: path, method, size, authentication, role, and only then body and query. Called by the
route files (`Router`, `allow`) and by `conventions` (`Operations.find`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from api import errors
from api.calls import JSON, MIB, Call, Policy, Service
from api.strict_json import StrictRequest, is_clean
from mautolib.auth import api_keys, callers, scopes
from mautolib.auth.roles import Role
from mautolib.errors import NotAuthenticated

_F = TypeVar("_F", bound=Callable[..., Any])
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_SAFE = {"GET", "HEAD", "OPTIONS"}
PREFIX = "/api/v1"
#: Parameters that mean nothing when given twice.
_SINGLE = {"skip", "limit", "offset", "cursor", "erase"}


def allow(
    role: Role | None, *, action: str = "", body_limit: int | None = MIB, media_types: tuple[str, ...] = (JSON,),
    audited: bool = True,
) -> Callable[[_F], _F]:
    """Declare what an endpoint demands; stands directly above the function.

    Args:
        role: the least role, or None for a public operation.
        action: name in the audit log, `<resource>.<verb>`; needed by everything but plain reads.
        audited: whether calls are written to the audit log.
    """
    policy = Policy(role=role, action=action, body_limit=body_limit, media_types=media_types, audited=audited)

    def mark(endpoint: _F) -> _F:
        endpoint.policy = policy  # type: ignore[attr-defined]
        return endpoint

    return mark


class ProblemBody(BaseModel):
    """An error answer (RFC 9457). `code` is stable; `detail` is text, for 422 a list."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str | list[dict[str, Any]]
    code: str
    instance: str
    request_id: str


def problems(*statuses: int, **texts: str) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation for OpenAPI; `s404="Contact not found"` gives a status its text."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"description": errors.TITLES[status]}
    for name, text in texts.items():
        found[int(name.removeprefix("s"))] = {"description": text}
    return {status: {**entry, "model": ProblemBody} for status, entry in found.items()}


#: The headers a list answers with.
LIST_HEADERS: dict[str, Any] = {
    "X-Total-Count": {"description": "Matching rows, exact up to 100000.", "schema": {"type": "integer"}},
    "X-Total-Count-Exact": {"description": "Whether that number is exact.", "schema": {"type": "boolean"}},
    "X-Next-Cursor": {"description": "Sent while rows remain.", "schema": {"type": "string"}},
    "Link": {"description": 'RFC 8288 `<...>; rel="next"`, while rows remain.', "schema": {"type": "string"}},
}


def listed(errors_of_it: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The answers of a list operation: its headers beside its errors."""
    return {200: {"headers": LIST_HEADERS}, **errors_of_it}


class ApiRoute(APIRoute):
    """A route that authenticates before it reads. `scope` is what it needs of an API key; None: no key may use it."""

    policy: Policy
    scope: str | None

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        policy = getattr(endpoint, "policy", None)
        if policy is None:
            raise TypeError(f"{endpoint.__name__} has no policy; put @allow(...) above it")
        self.policy = policy
        extra = dict(options.pop("openapi_extra", None) or {})
        self.scope = scopes.required(path.removeprefix(PREFIX), policy.role) if policy.role else None
        extra["x-role"] = str(policy.role or "public")
        schemes = ([] if policy.role is None else ["Password", "Bearer"]) + (["ApiKey"] if self.scope else [])
        extra["security"] = [{scheme: []} for scheme in schemes]
        if self.scope:
            extra["x-scope"] = self.scope
        # The first sentence of the docstring is the line people see in a list of operations.
        options["summary"] = (endpoint.__doc__ or endpoint.__name__).strip().splitlines()[0].rstrip(".")
        super().__init__(path, endpoint, openapi_extra=extra, **options)

    def get_route_handler(self) -> _Handler:
        """The handler: caller first, then the framework's reading and checking, then the endpoint."""
        inner = super().get_route_handler()
        policy, scope = self.policy, self.scope

        async def handle(given: Request) -> Response:
            # One request object throughout: who reads the body first keeps it for the others.
            request = StrictRequest(given.scope, given.receive)
            call = _begin(request, policy)
            request.scope["mauto.call"] = call
            try:
                if policy.role is not None:
                    call.who = await run_sync(_authenticate, call)
                    callers.check_rights(call.who, policy.role, scope)
                _check_query(request)
                _check_media_type(request, policy)
                response = await inner(request)
            except Exception as error:
                problem = errors.problem_of(error)
                is_told = call.audited or not policy.audited
                if request.method not in _SAFE and not is_told and problem.status < 500:
                    await run_sync(call.audit_refusal, problem)
                raise
            return response

        return handle


class Router(APIRouter):
    """The router of one resource file."""

    def __init__(self, tag: str) -> None:
        super().__init__(tags=[tag], route_class=ApiRoute, redirect_slashes=False)


def _current(request: Request) -> Call:
    call: Call = request.scope["mauto.call"]
    return call


#: The call as an endpoint's argument.
CurrentCall = Annotated[Call, Depends(_current)]


class Operations:
    """All operations of the app, ordered so that literal segments win."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = sorted((r for r in routes if isinstance(r, Route | APIRoute)), key=specificity)
        #: Collections are spelled with a slash at the end; both forms are one operation.
        self.slashed = {route.path for route in self._routes if route.path.endswith("/")}

    def canonical(self, path: str) -> str:
        """The registered spelling of a path given with or without a slash at the end."""
        bare = path[:-1] if len(path) > 1 and path.endswith("/") else path
        return f"{bare}/" if f"{bare}/" in self.slashed else bare

    def find(self, path: str) -> list[Route | APIRoute]:
        """The operations of a path: all methods of the one template that fits best; empty if none does."""
        template: str | None = None
        found = []
        for route in self._routes:
            if route.path == template or (template is None and route.path_regex.match(path)):
                template = route.path
                found.append(route)
        return found


def specificity(route: BaseRoute) -> tuple[int, ...]:
    """Sort key of a route: a literal segment before a parameter, segment by segment."""
    path = getattr(route, "path", "")
    return tuple(int(segment.startswith("{")) for segment in path.strip("/").split("/"))


def policy_of(route: BaseRoute) -> Policy | None:
    """The policy of an operation of the contract; None for pages and assets."""
    return getattr(route, "policy", None)


def _begin(request: Request, policy: Policy) -> Call:
    service: Service = request.app.state.service
    return Call(
        service=service, request=request, policy=policy, who=None, now=datetime.now(UTC),
        request_id=str(request.scope.get("mauto.request_id", "")),
    )  # fmt: skip


def _authenticate(call: Call) -> callers.Caller:
    headers = call.request.headers
    bearer, keys = headers.getlist("authorization"), headers.getlist("x-api-key")
    # Two credentials, even equal ones, leave open who is calling.
    if len(bearer) + len(keys) != 1:
        raise NotAuthenticated("Not authenticated")
    scheme, credential = ("key", keys[0].strip()) if keys else _split(bearer[0])
    if scheme not in ("bearer", "key") or not credential:
        raise NotAuthenticated("Not authenticated")
    with call.engine.begin() as tx:
        if scheme == "key":
            return api_keys.resolve(tx, credential, now=call.now)
        return callers.of_bearer(tx, call.settings, credential, now=call.now)


def _split(authorization: str) -> tuple[str, str]:
    scheme, _, credential = authorization.partition(" ")
    return scheme.lower(), credential.strip()


def _check_query(request: Request) -> None:
    seen: set[str] = set()
    for name, value in parse_qsl(request.url.query, keep_blank_values=True, errors="surrogateescape"):
        if not is_clean(name) or not is_clean(value):
            message = "Text is valid Unicode without NUL characters"
            raise errors.Refused(422, errors.invalid(["query"], message, kind="text_invalid"))
        if name in seen and name in _SINGLE:
            raise errors.Refused(422, errors.invalid(["query", name], "Given more than once", kind="given_twice"))
        seen.add(name)


def _check_media_type(request: Request, policy: Policy) -> None:
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if request.method in _SAFE or not has_body or "content-type" not in request.headers:
        return
    media_type, _, rest = request.headers["content-type"].partition(";")
    charset = rest.lower().replace(" ", "").partition("charset=")[2].partition(";")[0].strip('"') or "utf-8"
    if media_type.strip().lower() not in policy.media_types or (
        media_type.strip().lower() == JSON and charset not in ("utf-8", "utf8")
    ):
        accepted = ", ".join(policy.media_types)
        raise errors.Refused(415, f"This operation takes {accepted}")
