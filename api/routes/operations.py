"""Signs of life: `/health` touches nothing, `/ready` looks at what the service needs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Literal

from fastapi import Response
from pydantic import Field
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api import errors
from api.calls import JSON, json_bytes
from api.metrics import CONTENT_TYPE, Metrics
from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer
from mautolib import __version__
from mautolib.auth.roles import Role
from mautolib.db import liveness, migrate

_LOG = logging.getLogger(__name__)
router = Router("Operations")
APP = "MarketingAutomation-Lite"
#: The hourly maintenance run beats at least this often while Airflow lives.
SILENCE = timedelta(minutes=90)


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"
    app: str = Field(examples=[APP])
    version: str = Field(examples=[__version__])


class Ready(Answer):
    """The service can do its work. A check is `ok` or says what is missing."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str] = Field(examples=[{"database": "ok", "migrations": "ok", "airflow": "ok"}])


@router.get("/health", response_model=Health)
@allow(None)
async def health() -> Health:
    """Say whether the process answers.

    Touches nothing; never fails while the process lives.
    """
    return Health(app=APP, version=__version__)


@router.get("/ready", response_model=Ready, responses=problems(503))
@allow(None)
def ready(call: CurrentCall) -> Response:
    """Say whether the service can do its work.

    `database` and `migrations` decide; `airflow` (the last sign of life of background work) only informs, unless
    `MAUTO_READY_REQUIRES_AIRFLOW` is set.
    """
    checks = {"database": "unreachable", "migrations": "unknown", "airflow": "unknown"}
    try:
        liveness.answers(call.engine)
        checks["database"] = "ok"
        checks["migrations"] = _migrations(call.engine)
        if checks["migrations"] == "ok":
            checks["airflow"] = _airflow(call.engine, call.now)
    except SQLAlchemyError:
        _LOG.warning("not ready: %s", checks)
    wanted = [checks["database"], checks["migrations"]]
    if call.settings.ready_requires_airflow:
        wanted.append(checks["airflow"])
    if all(check == "ok" for check in wanted):
        return Response(json_bytes(Ready(checks=checks)), media_type=JSON)
    problem = errors.unavailable("The service cannot do its work yet; see checks", checks=checks)
    return problem.response(call.request.url.path, call.request_id)


@router.get(
    "/metrics", response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format"},
        **problems(401, 403, 503),
    },
)  # fmt: skip
@allow(Role.VIEWER)
def metrics(call: CurrentCall) -> Response:
    """Show queues, ages, results and signs of life for a monitoring system.

    Prometheus text format. A scraper uses an API key with the scope `metrics:read`. What comes from the database is at
    most 10 s old; request counts are those of the answering process since its start.
    """
    found: Metrics = call.request.app.state.metrics
    return Response(found.text(call.engine, call.settings, now=call.now), media_type=CONTENT_TYPE)


@router.head("/health", include_in_schema=False)
@allow(None)
async def health_head() -> Response:
    """As GET, without the body."""
    return Response(media_type=JSON)


@router.head("/ready", include_in_schema=False)
@allow(None)
def ready_head(call: CurrentCall) -> Response:
    """As GET, without the body."""
    return ready(call)


def _migrations(engine: Engine) -> str:
    count = len(migrate.pending(engine))
    return "ok" if count == 0 else f"{count} pending"


def _airflow(engine: Engine, now: datetime) -> str:
    with engine.begin() as tx:
        beat = liveness.last_beat(tx, "airflow")
    if beat is None:
        return "no sign of life yet"
    if now - beat > SILENCE:
        return f"silent since {beat:%Y-%m-%d %H:%M} UTC"
    return "ok"
