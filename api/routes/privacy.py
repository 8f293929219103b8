"""The rights of one person: a copy of all their data, and how far their erasure is."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Response
from pydantic import ConfigDict, Field

from api.calls import JSON, json_bytes
from api.routing import CurrentCall, Router, allow, problems
from api.values import Answer, Id, Shown, path_id
from mautolib import privacy
from mautolib.auth import audit
from mautolib.auth.roles import Role

router = Router("Privacy")
MISSING_CONTACT = "Contact not found"
MISSING_ERASURE = "Erasure not found"


class ShownTableCount(Answer):
    """How many rows of a table were removed or cleaned; files count as `storage`."""

    model_config = ConfigDict(title="TableCount")

    table: str
    rows: int


class ShownErasure(Answer):
    """An erasure: the contact is gone when it begins, everything else when it is completed."""

    model_config = ConfigDict(title="Erasure")

    id: Id
    contact_id: Id
    status: Literal["running", "completed", "failed"] = Field(
        description="`failed`: tried again within the hour; the log of maintenance says what is wrong."
    )
    requested_by: str = Field(examples=["user:1"])
    requested_at: Shown
    completed_at: Shown | None
    tables: list[ShownTableCount]


class PersonalData(Answer):
    """Everything kept about one person, in the shapes other operations show; nothing about anybody else."""

    contact: dict[str, Any] = Field(description="As it is now, and `history`: its earlier versions.")
    consents: list[dict[str, Any]]
    suppression: dict[str, Any] | None
    tags: list[dict[str, Any]]
    segments: list[dict[str, Any]] = Field(description="Now and before, by rules or by hand.")
    events: list[dict[str, Any]]
    orders: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    hits: list[dict[str, Any]] = Field(description="Raw opens and clicks with their verdicts.")
    scores: dict[str, Any] = Field(description="`current`, `history`, `awards`.")
    stages: dict[str, Any] = Field(description="`current`, `transitions`.")
    enrollments: list[dict[str, Any]]
    imports: list[dict[str, Any]] = Field(description="Those that made or changed the contact.")
    audit: list[dict[str, Any]] = Field(description="What was done to the contact; not by whom.")


@router.get(
    "/contacts/{id}/export", response_model=PersonalData,
    responses={
        **problems(401, 403, s404=MISSING_CONTACT),
        200: {"headers": {"Content-Disposition": {
            "description": "`attachment` with a file name.", "schema": {"type": "string"}
        }}},
    },
)  # fmt: skip
@allow(Role.ADMIN, action="contact.export")
def export_contact(call: CurrentCall, id: str) -> Response:
    """Export all data of one person.

    A JSON file to hand to the person who asked (access and portability). Each export is in the audit log.
    """
    contact_id = path_id(id, MISSING_CONTACT)
    with call.engine.begin() as tx:
        found = privacy.export(tx, contact_id, settings=call.settings)
        audit.write(tx, call.entry(200, resource_id=contact_id, changes={}))
    headers = {"content-disposition": f'attachment; filename="contact-{contact_id}.json"'}
    return Response(json_bytes(found), media_type=JSON, headers=headers)


@router.get("/erasures/{id}", response_model=ShownErasure, responses=problems(401, 403, s404=MISSING_ERASURE))
@allow(Role.ADMIN)
def get_erasure(call: CurrentCall, id: str) -> ShownErasure:
    """Show an erasure.

    Begun by `DELETE /contacts/{id}?erase=true`.
    """
    with call.engine.begin() as tx:
        found = privacy.get_erasure(tx, path_id(id, MISSING_ERASURE))
    return ShownErasure(
        id=str(found.erasure_id), contact_id=str(found.contact_id), status=found.status.value,
        requested_by=found.requested_by, requested_at=found.requested_at, completed_at=found.completed_at,
        tables=[ShownTableCount(table=one.table, rows=one.rows) for one in found.tables],
    )  # fmt: skip
