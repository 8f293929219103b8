"""The pages for people under `/dashboard`: sign in, look, sign out; which there are is in `mautolib.pages.registry`.

A session of the API in a cookie of its own kind (HttpOnly, SameSite=Strict, its own key), a token in every form.
No operation of the contract; not in OpenAPI.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.calls import Service
from api.errors import Refused
from api.routes.auth import HASHING
from api.values import parse_id, path_id
from mautolib import webhooks
from mautolib.auth import audit, sessions, tokens
from mautolib.auth.roles import Role
from mautolib.db.engine import is_unavailable
from mautolib.errors import InvalidTransition, MautoError, NotAllowed, NotAuthenticated, NotFound, RateLimited
from mautolib.pages import deliveries, registry, static_files
from mautolib.pages.frame import House, content_security_policy, sign_in_html
from mautolib.settings import Settings
from mautolib.webhooks import DeliveryStatus, reading
from mautolib.webhooks.reading import MISSING as NO_DELIVERY

HOME, SIGN_IN, SIGN_OUT = "/dashboard", "/dashboard/sign-in", "/dashboard/sign-out"
WEBHOOKS = "/dashboard/webhooks"
_SESSION, _FORM = "mauto_session", "mauto_form"
_FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Who looks at a page, and when."""

    request: Request
    settings: Settings
    who: sessions.SignedIn
    now: datetime

    @property
    def can_replay(self) -> bool:
        return self.who.role.covers(Role.EDITOR)

    @property
    def house(self) -> House:
        """Where the page is shown."""
        csrf = _csrf(self.settings, self.request)
        return House(user=self.who.user.email, csrf=csrf, airflow_url=self.settings.airflow_url)


def routes() -> list[Route]:
    """The routes of the pages."""
    return [
        Route(HOME, _dashboard, methods=["GET"], include_in_schema=False),
        Route(f"{HOME}/{{path:path}}", _dashboard, methods=["GET"], include_in_schema=False),
        Route(f"{HOME}/static/{{digest}}/{{name}}", _static, methods=["GET"], include_in_schema=False),
        Route(SIGN_IN, _sign_in_form, methods=["GET"], include_in_schema=False),
        Route(SIGN_IN, _sign_in, methods=["POST"], include_in_schema=False),
        Route(SIGN_OUT, _sign_out, methods=["POST"], include_in_schema=False),
        Route(WEBHOOKS, _deliveries, methods=["GET"], include_in_schema=False),
        Route(f"{WEBHOOKS}/{{id}}", _delivery, methods=["GET"], include_in_schema=False),
        Route(f"{WEBHOOKS}/{{id}}/replay", _replay, methods=["POST"], include_in_schema=False),
    ]


async def _dashboard(request: Request) -> Response:
    # A path with `..` in it is no page of ours, and no way round to anything else: not even the sign-in is shown.
    if {".", ".."} & set(request.path_params.get("path", "").split("/")):
        raise NotFound("There is no such page.")

    def render(tx: Connection, seen: _Seen) -> Response:
        path = request.path_params.get("path", "").strip("/")
        shown = registry.answer(tx, path, dict(request.query_params), now=seen.now, house=seen.house)
        return _html(shown.body, shown.status, media_type=shown.media_type, **shown.headers)

    return await _page(request, render)


async def _static(request: Request) -> Response:
    found = static_files.read(request.path_params["digest"], request.path_params["name"])
    return Response(found.content, media_type=found.media_type, headers={"Cache-Control": static_files.CACHE})


async def _deliveries(request: Request) -> Response:
    return await _page(request, lambda tx, seen: _html(_deliveries_html(tx, seen)))


async def _delivery(request: Request) -> Response:
    def render(tx: Connection, seen: _Seen) -> Response:
        note = "It waits to be delivered again." if request.query_params.get("again") else ""
        try:
            delivery_id = path_id(request.path_params["id"], NO_DELIVERY)
            return _html(deliveries.delivery_html(
                tx, delivery_id, can_replay=seen.can_replay, note=note, house=seen.house
            ))  # fmt: skip
        except NotFound:
            return _html(_deliveries_html(tx, seen, alert="There is no such delivery any more."), 404)

    return await _page(request, render)


def _deliveries_html(tx: Connection, seen: _Seen, *, alert: str = "") -> str:
    given, status = seen.request.query_params, None
    with contextlib.suppress(ValueError):
        status = DeliveryStatus(given.get("status", ""))
    return deliveries.deliveries_html(
        tx, now=seen.now, status=status, endpoint_id=parse_id(given.get("endpoint", "")),
        before=parse_id(given.get("before", "")), alert=alert, house=seen.house,
    )  # fmt: skip


async def _replay(request: Request) -> Response:
    service = _service(request)
    await _checked_form(request, service.settings)
    now = datetime.now(UTC)

    def work() -> str:
        who = _who(service, request, now)
        if who is None:
            return SIGN_IN
        delivery_id = path_id(request.path_params["id"], NO_DELIVERY)
        with service.engine.begin() as tx:
            if not who.role.covers(Role.EDITOR):
                raise NotAllowed("Editors deliver again")
            endpoint_id = reading.get(tx, delivery_id).delivery.endpoint_id
            webhooks.retry_delivery(tx, endpoint_id, delivery_id, now=now)
            audit.write(tx, audit.Entry(
                actor=who.actor, action="webhook.retry", resource_type="webhook", resource_id=str(endpoint_id),
                status=303, request_id=_request_id(request), changes={"delivery_id": str(delivery_id)},
            ))  # fmt: skip
        return f"{WEBHOOKS}/{delivery_id}?again=1"

    try:
        return _see_other(await run_sync(work))
    except InvalidTransition:
        # Somebody else was faster: the page shows it.
        return _see_other(f"{WEBHOOKS}/{request.path_params['id']}")


async def _page(request: Request, render: Callable[[Connection, _Seen], Response]) -> Response:
    """A page for whoever is signed in, or one that says that the database is away."""
    service, now = _service(request), datetime.now(UTC)

    def work() -> Response:
        try:
            who = _who(service, request, now)
            if who is None:
                return _see_other(SIGN_IN)
            seen = _Seen(request=request, settings=service.settings, who=who, now=now)
            with service.engine.begin() as tx:
                return render(tx, seen)
        except SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
        shown = registry.error_answer(503, "The database cannot be reached.", house=House())
        return _html(shown.body, shown.status, **{"Retry-After": "30"})

    return await run_sync(work)


async def _sign_in_form(request: Request) -> Response:
    service = _service(request)
    return _with_form(request, service.settings, status=200)


async def _sign_in(request: Request) -> Response:
    service = _service(request)
    form = await _checked_form(request, service.settings)
    email, password = form.get("email", "")[:320], form.get("password", "")[:1024]
    now = datetime.now(UTC)
    origin = sessions.Origin(address=request.client.host if request.client else "", request_id=_request_id(request))

    def work() -> sessions.Session:
        return sessions.sign_in(
            service.engine, service.settings, email=email, password=password, origin=origin, now=now
        )

    try:
        session = await run_sync(work, limiter=HASHING)
    except (NotAuthenticated, NotAllowed, RateLimited) as error:
        status = 429 if isinstance(error, RateLimited) else 401
        return _with_form(request, service.settings, status=status, email=email, error=str(error))
    response = _see_other(HOME)
    token = sessions.page_token(service.settings, session, now=now)
    _set_cookie(response, request, service.settings, _SESSION, token, int(sessions.PAGE_LIFE.total_seconds()))
    # A new form secret with every session: one planted before is of no use after.
    _set_cookie(response, request, service.settings, _FORM, secrets.token_urlsafe(24), None)
    return response


async def _sign_out(request: Request) -> Response:
    service = _service(request)
    await _checked_form(request, service.settings)
    now = datetime.now(UTC)

    def work() -> None:
        who = _who(service, request, now)
        if who is None:
            return
        with service.engine.begin() as tx:
            sessions.sign_out(tx, who, all_sessions=False, now=now)
            audit.write(tx, audit.Entry(
                actor=who.actor, action="auth.logout", resource_type="auth", status=303,
                request_id=_request_id(request),
            ))  # fmt: skip

    await run_sync(work)
    response = _see_other(SIGN_IN)
    for name in (_SESSION, _FORM):
        response.delete_cookie(name, path=HOME)
    return response


def _who(service: Service, request: Request, now: datetime) -> sessions.SignedIn | None:
    token = request.cookies.get(_SESSION)
    if not token:
        return None
    try:
        with service.engine.begin() as tx:
            return sessions.resolve(tx, service.settings, tokens.Kind.PAGE, token, now=now)
    except MautoError:
        return None


def _with_form(request: Request, settings: Settings, *, status: int, email: str = "", error: str = "") -> Response:
    secret = request.cookies.get(_FORM) or secrets.token_urlsafe(24)
    html = sign_in_html(csrf=_token(settings, secret), email=email, error=error)
    response = _html(html, status)
    _set_cookie(response, request, settings, _FORM, secret, None)
    return response


async def _checked_form(request: Request, settings: Settings) -> dict[str, str]:
    """The fields of a form that this site itself has shown.

    Raises:
        Refused: 415 for another kind of body, 403 without the form's token.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _FORM_TYPE:
        raise Refused(415, f"This page takes {_FORM_TYPE}")
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    form = {name: values[0] for name, values in fields.items()}
    wanted = _csrf(settings, request)
    if not wanted or not hmac.compare_digest(wanted.encode(), form.get("csrf", "").encode()):
        raise Refused(403, "This form is out of date; open the page again")
    return form


def _csrf(settings: Settings, request: Request) -> str:
    secret = request.cookies.get(_FORM)
    return _token(settings, secret) if secret else ""


def _token(settings: Settings, secret: str) -> str:
    return hmac.new(settings.keys("page-form")[0], secret.encode(errors="replace"), "sha256").hexdigest()


def _set_cookie(
    response: Response, request: Request, settings: Settings, name: str, value: str, seconds: int | None
) -> None:
    secure = request.url.scheme == "https" or settings.public_base_url.startswith("https:")
    response.set_cookie(
        name, value, max_age=seconds, path=HOME, secure=secure, httponly=True, samesite="strict"
    )


def _html(html: str, status: int = 200, *, media_type: str = "text/html; charset=utf-8", **headers: str) -> Response:
    policy = {"Content-Security-Policy": content_security_policy()}
    return Response(html, status, headers={**policy, **headers}, media_type=media_type)


def _see_other(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _request_id(request: Request) -> str:
    return str(request.scope.get("mauto.request_id", ""))
