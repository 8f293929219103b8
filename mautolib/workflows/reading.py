"""What may be looked at: enrollments, logs and versions of a workflow, newest first.

Lists go by id, which is the order things came about, so that a page of a million costs as much as one of ten.
Called by the API. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from mautolib.db import tables
from mautolib.db.statements import statement
from mautolib.errors import NotFound
from mautolib.workflows.model import Enrollment, EnrollmentStatus, Log, LogStatus, Version

_ENROLLMENTS = tables.enrollments
_LOGS = tables.workflow_logs
_VERSIONS = tables.workflow_versions


@dataclass(frozen=True, kw_only=True)
class EnrollmentFilter:
    """Which enrollments of a workflow; None: all."""

    status: EnrollmentStatus | None = None
    contact_id: int | None = None
    version: int | None = None


def enrollment(tx: Connection, workflow_id: int, enrollment_id: int, *, lock: bool = False) -> Enrollment:
    """One enrollment of a workflow.

    Args:
        lock: wait until nobody moves it, and keep others from doing so until the transaction ends.
    Raises:
        NotFound: the workflow has none of this id.
    """
    c = _ENROLLMENTS.c
    query = select(_ENROLLMENTS).where(c.workflow_id == workflow_id, c.enrollment_id == enrollment_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Enrollment not found")
    return _enrollment(row)


def enrollments(
    tx: Connection, workflow_id: int, wanted: EnrollmentFilter, *, skip: int = 0, limit: int = 50,
    before: int | None = None,
) -> list[Enrollment]:  # fmt: skip
    """Enrollments of a workflow, newest first.

    Args:
        before: only those older than this id.
    """
    c = _ENROLLMENTS.c
    query = select(_ENROLLMENTS).where(*_which(workflow_id, wanted)).order_by(c.enrollment_id.desc())
    if before is not None:
        query = query.where(c.enrollment_id < before)
    return [_enrollment(row) for row in tx.execute(query.offset(skip).limit(limit))]


def count_enrollments(tx: Connection, workflow_id: int, wanted: EnrollmentFilter, *, at_most: int) -> int:
    """How many enrollments a workflow has; counting ends at `at_most`."""
    return _count(tx, select(_ENROLLMENTS.c.enrollment_id).where(*_which(workflow_id, wanted)), at_most)


def results(tx: Connection, enrollment_id: int) -> list[dict[str, Any]]:
    """The results of the steps an enrollment has visited, in order."""
    query = select(_LOGS.c.result).where(_LOGS.c.enrollment_id == enrollment_id).order_by(_LOGS.c.log_id)
    return [dict(result) for result in tx.scalars(query)]


def logs(
    tx: Connection, workflow_id: int, *, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[Log]:
    """Visits of steps, newest first; none for a workflow there is not.

    Args:
        before: only those older than this id.
    """
    query = select(_LOGS).where(*_logs_of(workflow_id)).order_by(_LOGS.c.log_id.desc())
    if before is not None:
        query = query.where(_LOGS.c.log_id < before)
    return [_log(row) for row in tx.execute(query.offset(skip).limit(limit)).mappings()]


def count_logs(tx: Connection, workflow_id: int, *, at_most: int) -> int:
    """How many visits of steps there are; counting ends at `at_most`."""
    return _count(tx, select(_LOGS.c.log_id).where(*_logs_of(workflow_id)), at_most)


def versions(
    tx: Connection, workflow_id: int, *, skip: int = 0, limit: int = 50, before: int | None = None
) -> list[Version]:
    """The versions of a workflow, newest first, with how many enrollments on each have not ended.

    Args:
        before: only those below this number.
    """
    values = {"workflow_id": workflow_id, "skip": skip, "limit": limit, "before": before}
    return [Version(**row) for row in tx.execute(statement("workflow_control.versions"), values).mappings()]


def _which(workflow_id: int, wanted: EnrollmentFilter) -> list[ColumnElement[bool]]:
    c = _ENROLLMENTS.c
    conditions = [c.workflow_id == workflow_id]
    if wanted.status is not None:
        conditions.append(c.status == str(wanted.status))
    if wanted.contact_id is not None:
        conditions.append(c.contact_id == wanted.contact_id)
    if wanted.version is not None:
        conditions.append(c.version == wanted.version)
    return conditions


def _logs_of(workflow_id: int) -> list[ColumnElement[bool]]:
    # Logs of a workflow that is gone may wait for their removal.
    table = tables.workflows
    is_there = select(1).select_from(table).where(table.c.workflow_id == workflow_id).exists()
    return [_LOGS.c.workflow_id == workflow_id, is_there]


def _count(tx: Connection, query: Select[Any], at_most: int) -> int:
    return int(tx.scalar(select(func.count()).select_from(query.limit(at_most).subquery())) or 0)


def _enrollment(row: Row[Any]) -> Enrollment:
    # Whoever waits may be woken earlier, to look whether what happened is what they wait for.
    is_waiting = row.status in (EnrollmentStatus.WAITING, EnrollmentStatus.PAUSED)
    resume_at = row.until_at if is_waiting and row.until_at else row.resume_at
    return Enrollment(
        enrollment_id=row.enrollment_id, workflow_id=row.workflow_id, version=row.version, contact_id=row.contact_id,
        status=EnrollmentStatus(row.status), step_path=row.step_path, resume_at=resume_at,
        waiting_for=row.waiting_for, context=row.context, exit_reason=row.exit_reason, entered_at=row.entered_at,
        finished_at=row.finished_at,
    )  # fmt: skip


def _log(row: Mapping[Any, Any]) -> Log:
    values = {name: row[name] for name in Log.__dataclass_fields__}
    return Log(**{**values, "status": LogStatus(row["status"])})
