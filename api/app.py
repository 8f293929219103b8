"""The application: wiring only.

`create_app(settings)` gives the ASGI app that a server runs: tracking outermost (it answers itself), then the
conventions of every answer, then FastAPI with the routes that work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from api import documentation, errors
from api.calls import Service
from api.conventions import Conventions
from api.metrics import Metrics
from api.owed_claims import OwedClaims
from api.routes import (
    ab_tests,
    analytics,
    analytics_campaigns,
    analytics_views,
    api_keys,
    audit_log,
    auth,
    automation_rules,
    campaign_life,
    campaigns,
    consent,
    contacts,
    events,
    exports,
    fx_rates,
    imports,
    inbound,
    inbound_sources,
    lifecycle,
    messages,
    operations,
    orders,
    pages,
    privacy,
    schedules,
    score_recomputations,
    scoring,
    segments,
    suppression,
    tags,
    templates,
    users,
    validation,
    webhooks,
    workflows,
)
from api.routing import Operations, specificity
from api.tracking import TRACKING_OPENAPI, TrackingApp
from mautolib.db.engine import connect
from mautolib.errors import MautoError
from mautolib.settings import Settings

#: Every file of operations under the prefix.
_RESOURCES = (
    auth,
    users,
    api_keys,
    audit_log,
    consent,
    contacts,
    messages,
    privacy,
    imports,
    exports,
    validation,
    tags,
    segments,
    templates,
    campaigns,
    campaign_life,
    schedules,
    ab_tests,
    suppression,
    events,
    orders,
    fx_rates,
    inbound,
    webhooks,
    inbound_sources,
    analytics,
    analytics_campaigns,
    analytics_views,
    scoring,
    score_recomputations,
    lifecycle,
    workflows,
    automation_rules,
)
POOL_SIZE, OVERFLOW = 5, 10
STATEMENT_TIMEOUT_MS = 30_000


def create_app(settings: Settings, *, engine: Engine | None = None) -> ASGIApp:
    """Build the ASGI app.

    Args:
        engine: a pool to use instead of one opened on the settings' database (tests).
    Raises:
        Misconfigured: no database, or a secret is missing or weak.
    """
    settings.check_secrets()
    if engine is None:
        engine = connect(
            settings.url_for("api"), application_name="mauto-api", pool_size=POOL_SIZE, max_overflow=OVERFLOW,
            statement_timeout_ms=STATEMENT_TIMEOUT_MS,
        )  # fmt: skip
    app = make_framework(settings, engine)
    inside = Conventions(
        app, operations=lambda: Operations(app.routes), cors_origins=settings.cors_origins,
        observe=app.state.metrics.observe,
    )  # fmt: skip
    return TrackingApp(inside, settings, engine=engine)


def make_framework(settings: Settings, engine: Engine) -> FastAPI:
    """The FastAPI application inside: routes, error handlers, documentation."""
    app = FastAPI(
        title=documentation.TITLE, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False,
        strict_content_type=False, lifespan=_lifespan, generate_unique_id_function=_operation_id,
    )  # fmt: skip
    app.state.service = Service(settings=settings, engine=engine, owed=OwedClaims(engine))
    app.state.metrics = Metrics()
    app.include_router(operations.router)
    for module in _RESOURCES:
        app.include_router(module.router, prefix=documentation.PREFIX)
    app.router.routes += pages.routes()
    documentation.install(app, tracking=TRACKING_OPENAPI, models=(auth.Login, events.EventBody))
    # The framework takes the first route that fits: literal segments before parameters.
    app.router.routes.sort(key=specificity)
    for kind in (MautoError, RequestValidationError, HTTPException, SQLAlchemyError, Exception):
        app.add_exception_handler(kind, errors.handle)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # As many threads as connections: who waits, waits for a thread and not for the pool's time-out.
    current_default_thread_limiter().total_tokens = POOL_SIZE + OVERFLOW
    yield
    app.state.service.engine.dispose()


def _operation_id(route: APIRoute) -> str:
    return route.name
