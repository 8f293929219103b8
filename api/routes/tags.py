"""Tags: list, create, read, change, delete, put on a contact and take off again."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from api import paging
from api.calls import Outcome
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, Id, Model, Name100, Shown, path_id
from mautolib.auth.roles import Role
from mautolib.contacts import tags
from mautolib.contacts.tags import DEFAULT_COLOR, Tag

router = Router("Tags")
MISSING = "Tag not found"
NO_CONTACT = "Contact not found"
EITHER_MISSING = "Contact not found, or Tag not found"
DUPLICATE = "Tag with this name already exists"
Color = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$", max_length=7, description="`#RRGGBB`.")]


class ShownWholeTag(Answer):
    """A label for contacts."""

    model_config = ConfigDict(title="Tag")

    id: Id
    name: str
    color: str
    created_at: Shown


class NewTagBody(Model):
    """A new tag. Its name is unique, whatever the case."""

    model_config = ConfigDict(title="TagCreate", json_schema_extra={"example": {"name": "VIP", "color": "#F59E0B"}})

    name: Name100
    color: Color = DEFAULT_COLOR


class TagPatch(NewTagBody):
    """The fields to change."""

    model_config = ConfigDict(title="TagPatch", json_schema_extra={"example": {"color": "#10B981"}})

    name: Name100 = ""


class TagAdded(Answer):
    """The contact carries the tag."""

    message: Literal["Tag added"] = "Tag added"


class TagRemoved(Answer):
    """The contact does not carry the tag."""

    message: Literal["Tag removed"] = "Tag removed"


def shown(tag: Tag) -> ShownWholeTag:
    """A tag as the API shows it."""
    return ShownWholeTag(id=str(tag.tag_id), name=tag.name, color=tag.color, created_at=tag.created_at)


@router.get("/tags/", response_model=list[ShownWholeTag], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_tags(call: CurrentCall, page: paging.WideSkipLimit) -> Response:
    """List tags.

    By name, whatever its case.
    """
    after = paging.position_text(page)
    with call.engine.begin() as tx:
        rows = tags.search(tx, skip=page.skip, limit=page.limit + 1, after=after)
        total = tags.count(tx)
    kept = rows[: page.limit]
    last = (kept[-1].name, kept[-1].tag_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post(
    "/tags/", status_code=201, response_model=ShownWholeTag, responses=problems(401, 403, 422, s409=DUPLICATE)
)
@allow(Role.EDITOR, action="tag.create")
async def create_tag(call: CurrentCall, body: NewTagBody) -> Response:
    """Create a tag.

    Of parallel requests for one name exactly one succeeds.
    """

    def effect(tx: Connection) -> Outcome:
        made = tags.create(tx, body.name, color=body.color, now=call.now)
        return Outcome(status=201, body=shown(made), resource_id=made.tag_id)

    return await call.commit(effect)


@router.get("/tags/{id}", response_model=ShownWholeTag, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_tag(call: CurrentCall, id: str) -> ShownWholeTag:
    """Show a tag.

    Name, color and since when it exists.
    """
    with call.engine.begin() as tx:
        return shown(tags.get(tx, path_id(id, MISSING)))


@router.patch(
    "/tags/{id}", response_model=ShownWholeTag, responses=problems(401, 403, 422, s404=MISSING, s409=DUPLICATE)
)
@allow(Role.EDITOR, action="tag.update")
async def update_tag(call: CurrentCall, id: str, body: TagPatch) -> Response:
    """Change a tag.

    Only the fields sent. Who carries it keeps it, under its new name.
    """
    changes = body.model_dump(exclude_unset=True)
    tag_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        changed = tags.update(tx, tag_id, changes)
        return Outcome(body=shown(changed), resource_id=tag_id, changes={"fields": sorted(changes)})

    return await call.commit(effect)


@router.delete("/tags/{id}", status_code=204, response_class=Response, responses=problems(401, 403, s404=MISSING))
@allow(Role.EDITOR, action="tag.delete")
async def delete_tag(call: CurrentCall, id: str) -> Response:
    """Delete a tag.

    It is taken off every contact; who carried it when stays known.
    """
    tag_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        tags.remove(tx, tag_id)
        return Outcome(status=204, resource_id=tag_id)

    return await call.commit(effect)


@router.post(
    "/contacts/{id}/tags/{tag_id}", response_model=TagAdded, responses=problems(401, 403, s404=EITHER_MISSING)
)
@allow(Role.EDITOR, action="contact.tag")
async def add_contact_tag(call: CurrentCall, id: str, tag_id: str) -> Response:
    """Put a tag on a contact.

    Nothing happens when it is there already; else a `tag_added` event takes effect.
    """
    contact, tag = path_id(id, NO_CONTACT), path_id(tag_id, MISSING)

    def effect(tx: Connection) -> Outcome:
        is_new = tags.attach(tx, contact, tag, now=call.now)
        return Outcome(body=TagAdded(), resource_id=contact, changes={"tag_id": str(tag), "changed": is_new})

    return await call.commit(effect)


@router.delete(
    "/contacts/{id}/tags/{tag_id}", response_model=TagRemoved, responses=problems(401, 403, s404=EITHER_MISSING)
)
@allow(Role.EDITOR, action="contact.untag")
async def remove_contact_tag(call: CurrentCall, id: str, tag_id: str) -> Response:
    """Take a tag off a contact.

    Nothing happens when it is not there; else a `tag_removed` event takes effect.
    """
    contact, tag = path_id(id, NO_CONTACT), path_id(tag_id, MISSING)

    def effect(tx: Connection) -> Outcome:
        was_there = tags.detach(tx, contact, tag, now=call.now)
        return Outcome(body=TagRemoved(), resource_id=contact, changes={"tag_id": str(tag), "changed": was_there})

    return await call.commit(effect)
