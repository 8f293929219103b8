"""Segments: write one, look into it, change who is in it by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

from anyio.to_thread import run_sync
from fastapi import Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import JSON, Call, Outcome, json_bytes
from api.concurrency import check_if_match, etag
from api.routes.contacts import ShownContact
from api.routes.contacts import shown as shown_contact
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Model, Moment, Name200, Shown, Text2000, parse_id, path_id
from mautolib import contacts, segments
from mautolib.auth.roles import Role
from mautolib.contacts.model import ContactFilter
from mautolib.errors import InvalidInput
from mautolib.segments import NewSegment, Segment
from mautolib.segments.compile import Setting
from mautolib.segments.explain import Explanation, explain
from mautolib.segments.reading import reading
from mautolib.segments.rules import Definition, MatchType

router = Router("Segments")
MISSING = "Segment not found"
NO_CONTACT = "Contact not found"
EITHER_MISSING = "Segment not found, or Contact not found"
_T = TypeVar("_T")
_DEFINITION = frozenset(item.name for item in fields(Definition))
_RULES: list[JsonValue] = [
    {"field": "country", "operator": "in", "value": ["PT", "ES"]},
    {"any": [
        {"field": "tags", "operator": "has", "value": "VIP"},
        {"field": "order.count", "operator": "gte", "value": 2, "within_days": 90},
    ]},
]  # fmt: skip
_EXAMPLE: dict[str, JsonValue] = {"name": "Iberian regulars", "rules": _RULES, "exclude_unsubscribed": True}


class DefinitionBody(Model):
    """Who belongs."""

    rules: list[Any] = Field(default=[], description="Nodes joined by `match_type`; none match nobody.")
    match_type: Annotated[MatchType, Field(strict=False)] = MatchType.ALL
    exclude_unsubscribed: bool = False
    exclude_suppressed: bool = False
    exclude_bounced: bool = Field(default=False, description="Suppressed as bounce.")
    exclude_campaign_ids: list[Id] = Field(
        default=[], max_length=1000, description="Who was handed a message of these campaigns stays out."
    )

    def given(self) -> dict[str, Any]:
        """The fields that were sent, as the library takes them."""
        values = self.model_dump(include=self.model_fields_set)
        if "rules" in values:
            values["rules"] = tuple(self.rules)
        if "exclude_campaign_ids" in values:
            values["exclude_campaign_ids"] = _campaign_ids(self.exclude_campaign_ids)
        return values

    def definition(self) -> Definition:
        """The definition the library takes."""
        return Definition(**{name: value for name, value in self.given().items() if name in _DEFINITION})


class NewSegmentBody(DefinitionBody):
    """A new segment."""

    model_config = ConfigDict(title="SegmentCreate", json_schema_extra={"example": _EXAMPLE})

    name: Name200
    description: Text2000 = ""


class SegmentPatch(NewSegmentBody):
    """The fields to change; `rules` replaces the whole list."""

    model_config = ConfigDict(title="SegmentPatch", json_schema_extra={"example": {"match_type": "any"}})

    name: Name200 = ""


class PreviewBody(DefinitionBody):
    """A definition to try."""

    model_config = ConfigDict(title="SegmentPreview", json_schema_extra={"example": {"rules": _RULES, "sample": 5}})

    sample: int = Field(default=10, ge=0, le=50, description="At most this many contacts, newest first.")


class OverlapBody(Model):
    """Two segments to compare."""

    model_config = ConfigDict(title="SegmentPair", json_schema_extra={"example": {"segment_a": "3", "segment_b": "8"}})

    segment_a: Id
    segment_b: Id


class ShownWholeSegment(Answer):
    """A segment. Members match `rules` or were added by hand, and nothing keeps them out."""

    model_config = ConfigDict(title="Segment")

    id: Id
    name: str
    description: str
    rules: list[Any]
    match_type: MatchType
    exclude_unsubscribed: bool
    exclude_suppressed: bool
    exclude_bounced: bool
    exclude_campaign_ids: list[str]
    contact_count: int = Field(description="Members of the last evaluation and all changes by hand.")
    static_count: int = Field(description="Added by hand.")
    evaluation_status: Literal["ready", "pending"]
    evaluated_at: Shown | None
    version: int
    created_at: Shown
    updated_at: Shown | None


class MemberAdded(Answer):
    """The contact was added by hand."""

    message: Literal["Contact added to segment"] = "Contact added to segment"


class MemberRemoved(Answer):
    """The contact is not added by hand any more; the rules may still bring it in."""

    message: Literal["Contact removed from segment"] = "Contact removed from segment"
    still_member: bool


class Preview(Answer):
    """What a definition would have."""

    model_config = ConfigDict(title="SegmentPreviewResult")

    count: int
    mailable: int
    sample: list[ShownContact]
    as_of: Shown


class SegmentCount(Answer):
    """How many contacts a segment has now."""

    segment_id: Id
    count: int
    static_count: int = Field(description="Added by hand.")
    rule_count: int = Field(description="Matched by the rules, kept out or not.")
    excluded: dict[str, int] = Field(description="By reason; one contact may have several. `static`: by hand.")
    mailable: int
    as_of: Shown


class ExplainedNode(Answer):
    """One node of the rules."""

    path: str = Field(examples=["1.any.0"])
    matched: bool
    actual: Any = Field(description="The value that was seen; null for a group.")


class ShownExplanation(Answer):
    """Why one contact is, or is not, a member."""

    model_config = ConfigDict(title="SegmentExplanation")

    contact_id: Id
    member: bool
    source: Literal["rules", "static", "none"]
    static: Literal["included", "excluded"] | None
    excluded_by: list[str]
    nodes: list[ExplainedNode]
    as_of: Shown


class RefreshQueued(Answer):
    """The segment waits for its evaluation."""

    message: Literal["Segment queued for evaluation"] = "Segment queued for evaluation"
    segment_id: Id


class Audience(Answer):
    """One side of a comparison."""

    model_config = ConfigDict(title="SegmentSize")

    id: Id
    size: int


class ShownOverlap(Answer):
    """Two segments side by side."""

    model_config = ConfigDict(title="SegmentOverlap")

    audience_a: Audience
    audience_b: Audience
    overlap: int
    union: int
    jaccard_index: float = Field(description="Shared part of all, 4 decimals.")


def shown(segment: Segment) -> ShownWholeSegment:
    """A segment as the API shows it."""
    definition = segment.definition
    return ShownWholeSegment(
        id=str(segment.segment_id), name=segment.name, description=segment.description, rules=list(definition.rules),
        match_type=definition.match_type, exclude_unsubscribed=definition.exclude_unsubscribed,
        exclude_suppressed=definition.exclude_suppressed, exclude_bounced=definition.exclude_bounced,
        exclude_campaign_ids=[str(number) for number in definition.exclude_campaign_ids],
        contact_count=segment.contact_count, static_count=segment.static_count,
        evaluation_status=segment.evaluation_status.value, evaluated_at=segment.evaluated_at,
        version=segment.version, created_at=segment.created_at, updated_at=segment.updated_at,
    )  # fmt: skip


def _campaign_ids(given: list[str]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for position, text in enumerate(given):
        number = parse_id(text)
        if number is None:
            raise InvalidInput("Campaign not found", path=("body", "exclude_campaign_ids", position))
        found[number] = None
    return tuple(found)


def _outcome(segment: Segment, *, status: int = 200, changes: dict[str, Any] | None = None) -> Outcome:
    headers = {"etag": etag(segment.version)}
    return Outcome(
        status=status, body=shown(segment), resource_id=segment.segment_id, changes=changes or {}, headers=headers
    )


def _stored(call: Call, *segment_ids: int) -> Setting:
    """What stored segments are evaluated against; 404 when one of them is not there."""
    with call.engine.begin() as tx:
        for segment_id in segment_ids:
            segments.get(tx, segment_id)
        return segments.load(tx, call.settings, now=call.now)


async def _told(call: Call, look: Callable[[], _T], *, resource_id: int | None = None) -> Response:
    """Answer a POST that only reads: look first, then write down that somebody looked."""
    body = await run_sync(look)
    return await call.commit(lambda tx: Outcome(body=body, resource_id=resource_id))


@router.get("/segments/", response_model=list[ShownWholeSegment], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_segments(call: CurrentCall, page: paging.SkipLimit) -> Response:
    """List segments.

    Newest first.
    """
    before = paging.position_id(page)
    with call.engine.begin() as tx:
        rows = segments.search(tx, skip=page.skip, limit=page.limit + 1, before=before)
        total = segments.count(tx)
    kept = rows[: page.limit]
    last = (kept[-1].segment_id,) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/segments/", status_code=201, response_model=ShownWholeSegment, responses=problems(401, 403, 422))
@allow(Role.EDITOR, action="segment.create")
async def create_segment(call: CurrentCall, body: NewSegmentBody) -> Response:
    """Create a segment.

    It is evaluated at once if that takes under two seconds; else `evaluation_status` is pending until the workflow
    DAG has done it. A fault in the rules is 422 with its path. Everybody who joins gets a `segment_entered` event.
    """
    new = NewSegment(name=body.name, description=body.description, definition=body.definition())

    def effect(tx: Connection) -> Outcome:
        return _outcome(segments.create(tx, call.settings, new, now=call.now), status=201)

    return await call.commit(effect)


@router.get("/segments/{id}", response_model=ShownWholeSegment, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_segment(call: CurrentCall, id: str) -> Response:
    """Show a segment.

    Its members are those of the last evaluation and all changes by hand.
    """
    with call.engine.begin() as tx:
        found = segments.get(tx, path_id(id, MISSING))
    return Response(json_bytes(shown(found)), media_type=JSON, headers={"etag": etag(found.version)})


@router.patch(
    "/segments/{id}", response_model=ShownWholeSegment, responses=problems(401, 403, 412, 422, s404=MISSING)
)
@allow(Role.EDITOR, action="segment.update")
async def update_segment(call: CurrentCall, id: str, body: SegmentPatch) -> Response:
    """Change a segment.

    Only the fields sent. Another definition is evaluated at once if that takes under two seconds, else it is pending.
    """
    changes = body.given()
    segment_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, segments.get(tx, segment_id, lock=True).version)
        changed = segments.change(tx, call.settings, segment_id, changes, now=call.now)
        return _outcome(changed, changes={"fields": sorted(changes)})

    return await call.commit(effect)


@router.delete(
    "/segments/{id}", status_code=204, response_class=Response,
    responses=problems(
        401, 403, 412, s404=MISSING, s409="An unfinished campaign, an active workflow or another segment uses it"
    ),
)  # fmt: skip
@allow(Role.EDITOR, action="segment.delete")
async def delete_segment(call: CurrentCall, id: str) -> Response:
    """Delete a segment.

    Refused with `in_use` while an unfinished campaign, an active workflow or another segment needs it.
    """
    segment_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, segments.get(tx, segment_id, lock=True).version)
        segments.remove(tx, segment_id, now=call.now)
        return Outcome(status=204, resource_id=segment_id)

    return await call.commit(effect)


@router.post(
    "/segments/{id}/contacts/{contact_id}", response_model=MemberAdded,
    responses=problems(401, 403, s404=EITHER_MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="segment.add_contact")
async def add_segment_contact(call: CurrentCall, id: str, contact_id: str) -> Response:
    """Add a contact by hand.

    It is a member at once, unless an exclusion of the segment keeps it out; adding lifts that it was kept out by hand.
    """
    segment, contact = path_id(id, MISSING), path_id(contact_id, NO_CONTACT)

    def effect(tx: Connection) -> Outcome:
        is_member = segments.add_contact(tx, call.settings, segment, contact, now=call.now)
        log = {"contact_id": str(contact), "member": is_member}
        return Outcome(body=MemberAdded(), resource_id=segment, changes=log)

    return await call.commit(effect)


@router.delete(
    "/segments/{id}/contacts/{contact_id}", response_model=MemberRemoved,
    responses=problems(401, 403, 422, s404=EITHER_MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="segment.remove_contact")
async def remove_segment_contact(
    call: CurrentCall,
    id: str,
    contact_id: str,
    exclude: Annotated[bool, Query(description="Also keep the rules from bringing it back.")] = False,
) -> Response:
    """Take a contact out by hand.

    Drops that it was added by hand; `still_member` says whether the rules keep it in.
    """
    segment, contact = path_id(id, MISSING), path_id(contact_id, NO_CONTACT)

    def effect(tx: Connection) -> Outcome:
        still = segments.remove_contact(tx, call.settings, segment, contact, exclude=exclude, now=call.now)
        log = {"contact_id": str(contact), "exclude": exclude, "member": still}
        return Outcome(body=MemberRemoved(still_member=still), resource_id=segment, changes=log)

    return await call.commit(effect)


@router.get(
    "/segments/{id}/contacts", response_model=list[ShownContact], responses=listed(problems(401, 422, s404=MISSING))
)
@allow(Role.VIEWER)
def list_segment_contacts(call: CurrentCall, id: str, page: paging.SkipLimit) -> Response:
    """List the members of a segment.

    Newest contacts first: those of the last evaluation and all changes by hand.
    """
    after = paging.position(page)
    filters = ContactFilter(segment_id=path_id(id, MISSING))
    with call.engine.begin() as tx:
        segments.get(tx, path_id(id, MISSING))
        rows = contacts.search(tx, filters, skip=page.skip, limit=page.limit + 1, after=after)
        total = contacts.count(tx, filters, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].created_at.isoformat(), kept[-1].contact_id) if kept else None
    return paging.list_response(
        call, [shown_contact(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post("/segments/preview", response_model=Preview, responses=problems(401, 422))
@allow(Role.VIEWER, action="segment.preview")
async def preview_segment(call: CurrentCall, body: PreviewBody) -> Response:
    """Try a definition.

    Counted now, nothing saved. What takes longer than two seconds is refused with 422.
    """
    definition = body.definition()

    def look() -> Preview:
        with call.engine.begin() as tx:
            segments.checked(tx, definition)
            setting = segments.load(tx, call.settings, now=call.now)
        with reading(call.engine) as tx:
            found = segments.figures(tx, definition, setting, require_consent=call.settings.require_consent)
            ids = segments.sample(tx, definition, setting, size=body.sample) if body.sample else []
        with call.engine.begin() as tx:
            rows = [shown_contact(row) for row in contacts.get_many(tx, ids)]
        return Preview(count=found.count, mailable=found.mailable, sample=rows, as_of=call.now)

    return await _told(call, look)


@router.get("/segments/{id}/count", response_model=SegmentCount, responses=problems(401, 422, s404=MISSING))
@allow(Role.VIEWER)
def count_segment(call: CurrentCall, id: str) -> SegmentCount:
    """Count a segment.

    Evaluated now, whatever the last evaluation says. What takes longer than two seconds is refused with 422.
    """
    segment_id = path_id(id, MISSING)
    setting = _stored(call, segment_id)
    with reading(call.engine, path=("path", "id")) as tx:
        found = segments.figures(
            tx, setting.segments[segment_id], setting, segment_id=segment_id,
            require_consent=call.settings.require_consent,
        )  # fmt: skip
    return SegmentCount(
        segment_id=str(segment_id), count=found.count, static_count=found.static_count, rule_count=found.rule_count,
        excluded=dict(found.excluded), mailable=found.mailable, as_of=call.now,
    )  # fmt: skip


@router.get(
    "/segments/{id}/explain", response_model=ShownExplanation, responses=problems(401, 422, s404=EITHER_MISSING)
)
@allow(Role.VIEWER)
def explain_segment(
    call: CurrentCall, id: str, contact_id: Annotated[str, Query(description="Whom to explain.")]
) -> ShownExplanation:
    """Explain a membership.

    Evaluates every node for one contact now, with the value that was seen.
    """
    segment_id, contact = path_id(id, MISSING), path_id(contact_id, NO_CONTACT)
    setting = _stored(call, segment_id)
    with reading(call.engine, path=("path", "id")) as tx:
        found = explain(tx, setting.segments[segment_id], setting, contact_id=contact, segment_id=segment_id)
    return _explained(found, call.now)


def _explained(found: Explanation, as_of: Moment) -> ShownExplanation:
    nodes = [ExplainedNode(path=node.path, matched=node.matched, actual=node.actual) for node in found.nodes]
    return ShownExplanation.model_validate(
        {
            "contact_id": str(found.contact_id), "member": found.member, "source": str(found.source),
            "static": found.static, "excluded_by": list(found.excluded_by), "nodes": nodes, "as_of": as_of,
        }
    )  # fmt: skip


@router.post(
    "/segments/{id}/refresh", status_code=202, response_model=RefreshQueued,
    responses=problems(401, 403, 412, s404=MISSING),
)  # fmt: skip
@allow(Role.EDITOR, action="segment.refresh")
async def refresh_segment(call: CurrentCall, id: str) -> Response:
    """Evaluate a segment soon.

    It is pending until the workflow DAG has done it, within two minutes. Segments with rules are evaluated again by
    themselves, too.
    """
    segment_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, segments.get(tx, segment_id, lock=True).version)
        segments.request(tx, segment_id, now=call.now)
        return Outcome(status=202, body=RefreshQueued(segment_id=str(segment_id)), resource_id=segment_id)

    return await call.commit(effect)


@router.post("/segments/overlap", response_model=ShownOverlap, responses=problems(401, 422, s404=MISSING))
@allow(Role.VIEWER, action="segment.overlap")
async def compare_segments(call: CurrentCall, body: OverlapBody) -> Response:
    """Compare two segments.

    Exact numbers, evaluated now. What takes longer than two seconds is refused with 422.
    """
    a, b = path_id(body.segment_a, MISSING), path_id(body.segment_b, MISSING)

    def look() -> ShownOverlap:
        setting = _stored(call, a, b)
        with reading(call.engine, path=("body",)) as tx:
            found = segments.overlap(tx, setting, a, b)
        return ShownOverlap(
            audience_a=Audience(id=str(a), size=found.size_a), audience_b=Audience(id=str(b), size=found.size_b),
            overlap=found.overlap, union=found.union, jaccard_index=found.jaccard_index,
        )  # fmt: skip

    return await _told(call, look)
