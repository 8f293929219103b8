"""The audit log: read only. For administrators with a session; no API key gets here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Response
from pydantic import Field

from api import paging
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Moment, OptionalId, Shown, parse_id
from mautolib.auth import audit
from mautolib.auth.roles import Role

router = Router("Audit log")
#: Stands for an id nothing can have; ids begin at 1.
_NOBODY = 0


class AuditEntry(Answer):
    """Who did what to which thing, and what came of it."""

    id: Id
    at: Shown
    actor_type: audit.ActorType
    actor_id: OptionalId
    actor_label: str = Field(description="Address of a user, name of a key.", examples=["kim@shop.example"])
    action: str = Field(examples=["contact.update"])
    resource_type: str = Field(examples=["contact"])
    resource_id: str | None = Field(examples=["42"])
    status: int = Field(description="Of the answer.", examples=[200])
    request_id: str
    changes: dict[str, Any] = Field(examples=[{"fields": ["first_name"]}])


def _filters(
    actor_id: Annotated[str | None, Query(max_length=64, description="Id of a user or an API key.")] = None,
    action: Annotated[str | None, Query(max_length=200, description="Exact name, as `contact.update`.")] = None,
    resource_type: Annotated[str | None, Query(max_length=50, description="Exact name, as `contact`.")] = None,
    resource_id: Annotated[str | None, Query(max_length=200, description="Its id; best with its type.")] = None,
    since: Annotated[Moment | None, Query(description="At or after this.")] = None,
    until: Annotated[Moment | None, Query(description="Before this.")] = None,
) -> audit.AuditFilter:
    actor = None if actor_id is None else parse_id(actor_id) or _NOBODY
    return audit.AuditFilter(
        actor_id=actor, action=action, resource_type=resource_type, resource_id=resource_id, since=since, until=until
    )


@router.get("/audit-log/", response_model=list[AuditEntry], responses=listed(problems(401, 403, 422)))
@allow(Role.ADMIN)
def list_audit_log(
    call: CurrentCall, page: paging.SkipLimit, filters: Annotated[audit.AuditFilter, Depends(_filters)]
) -> Response:
    """List the audit log.

    Newest first. Every change, export and sign-in attempt is one entry, refused ones too; entries are never changed.
    """
    after = paging.position(page)
    with call.engine.begin() as tx:
        rows = audit.search(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = audit.count(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].at.isoformat(), kept[-1].audit_id) if kept else None
    return paging.list_response(
        call, [_shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


def _shown(entry: audit.Recorded) -> AuditEntry:
    return AuditEntry(
        id=str(entry.audit_id), at=entry.at, actor_type=entry.actor_type,
        actor_id=None if entry.actor_id is None else str(entry.actor_id), actor_label=entry.actor_label,
        action=entry.action, resource_type=entry.resource_type, resource_id=entry.resource_id, status=entry.status,
        request_id=entry.request_id, changes=dict(entry.changes),
    )  # fmt: skip
