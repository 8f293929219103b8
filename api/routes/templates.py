"""Templates: write, check, try out; every change of content is a version of its own."""

from __future__ import annotations

import json
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import Query, Response
from pydantic import ConfigDict, Field, JsonValue
from sqlalchemy import Connection

from api import paging
from api.calls import JSON, MIB, Outcome, json_bytes
from api.concurrency import check_if_match, etag
from api.errors import Refused, invalid
from api.routing import CurrentCall, Router, allow, listed, problems
from api.values import Answer, BodyPart, Id, Line100, Line500, Model, Name300, Shown, path_id
from mautolib.auth.roles import Role
from mautolib.errors import InvalidInput
from mautolib.templates import catalogue
from mautolib.templates.compile import compile_template
from mautolib.templates.model import NewTemplate, Template, TemplateChange, TemplateVersion
from mautolib.templates.render import Preview, render_limited

router = Router("Templates")
MISSING = "Template not found"
LARGE = 4 * MIB
_VARIABLES_BYTES = MIB
#: Previews wait for each other, not for everybody's threads: one may take up to two seconds.
_RENDERING = anyio.CapacityLimiter(2)

_HTML = '<p>{{ contact.first_name }}, {{ voucher }} is yours.</p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
_EXAMPLE: dict[str, JsonValue] = {
    "name": "Spring voucher", "subject": "A present, {{ contact.first_name }}", "html_body": _HTML,
    "variables": ["voucher"], "category": "promotion",
}  # fmt: skip
Variables = Annotated[list[Line100], Field(max_length=200, description="Names the sender gives. Informative.")]
Values = Annotated[
    dict[str, Any], Field(description="What the names stand for, as nested objects.", examples=[{"voucher": "SPRING"}])
]


class ShownProblem(Answer):
    """Something that keeps a template from being sent."""

    model_config = ConfigDict(title="TemplateProblem")

    part: str = Field(description="subject, html_body or text_body")
    line: int
    message: str


class ShownTemplate(Answer):
    """A template in its present version. One that is not `valid` is kept, but nothing is sent with it."""

    model_config = ConfigDict(title="Template")

    id: Id
    name: str
    subject: str
    html_body: str
    text_body: str
    variables: list[str]
    category: str
    strict: bool
    version: int
    valid: bool
    problems: list[ShownProblem]
    created_at: Shown
    updated_at: Shown | None


class ShownVersion(Answer):
    """The content of a template under one number."""

    model_config = ConfigDict(title="TemplateVersion")

    version: int
    subject: str
    html_body: str
    text_body: str
    variables: list[str]
    created_by: str
    created_at: Shown


class NewTemplateBody(Model):
    """A new template."""

    model_config = ConfigDict(title="TemplateCreate", json_schema_extra={"example": _EXAMPLE})

    name: Name300
    subject: Line500 = Field(description="Sandboxed Jinja2 that renders to one line.")
    html_body: BodyPart = Field(description="Sandboxed Jinja2; values are escaped for the place they stand in.")
    text_body: BodyPart = Field(default="", description="Empty: made from the HTML.")
    variables: Variables = Field(default=[])
    category: Line100 = "general"
    strict: bool = Field(default=False, description="A name without a value is an error, not an empty text.")


class TemplatePatch(NewTemplateBody):
    """The fields to change; `restore_version` brings an old content back as a new version."""

    model_config = ConfigDict(title="TemplatePatch", json_schema_extra={"example": {"subject": "For you"}})

    name: Name300 = ""
    subject: Line500 = ""
    html_body: BodyPart = ""
    restore_version: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1


class RenderBody(Model):
    """What to fill a template with."""

    model_config = ConfigDict(
        title="TemplateRender",
        json_schema_extra={"example": {"variables": {"contact": {"first_name": "Ana"}, "voucher": "SPRING"}}},
    )

    variables: Values = Field(default={})
    strict: bool | None = Field(default=None, description="None: as the template says.")
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="None: the last one.")


class ShownRendering(Answer):
    """A template filled in."""

    model_config = ConfigDict(title="TemplateRendering")

    subject: str
    html_body: str
    text_body: str
    warnings: list[str]


class ValidateBody(Model):
    """A template to check; nothing is saved."""

    model_config = ConfigDict(
        title="TemplateValidate",
        json_schema_extra={"example": {"subject": "Hello {{ contact.first_name }}", "html_body": "<p>{{ now }}</p>"}},
    )

    subject: Annotated[str, Field(max_length=500)]
    html_body: BodyPart
    text_body: BodyPart = ""
    strict: bool = False
    variables: Values = Field(default={})


class ShownVerdict(Answer):
    """What is wrong with a template; `undeclared` are names that neither sending nor `variables` gives."""

    model_config = ConfigDict(title="TemplateVerdict")

    valid: bool
    errors: list[ShownProblem]
    warnings: list[str]
    undeclared: list[str]


def shown(template: Template) -> ShownTemplate:
    """A template as the API shows it."""
    found = [ShownProblem(part=one.part, line=one.line, message=one.message) for one in template.problems]
    return ShownTemplate(
        id=str(template.template_id), name=template.name, subject=template.subject, html_body=template.html_body,
        text_body=template.text_body, variables=list(template.variables), category=template.category,
        strict=template.strict, version=template.version, valid=template.valid, problems=found,
        created_at=template.created_at, updated_at=template.updated_at,
    )  # fmt: skip


def _tag(template: Template) -> str:
    """A name or category changes without a new version, so the tag counts the moment of the change too."""
    moment = template.updated_at or template.created_at
    return f"{template.version}-{moment.timestamp():.6f}"


def _version(version: TemplateVersion) -> ShownVersion:
    return ShownVersion(
        version=version.version, subject=version.subject, html_body=version.html_body, text_body=version.text_body,
        variables=list(version.variables), created_by=version.created_by, created_at=version.created_at,
    )  # fmt: skip


@router.get("/templates/", response_model=list[ShownTemplate], responses=listed(problems(401, 422)))
@allow(Role.VIEWER)
def list_templates(
    call: CurrentCall, page: paging.SkipLimit,
    category: Annotated[str | None, Query(max_length=100, description="Exact category.")] = None,
) -> Response:  # fmt: skip
    """List templates.

    By name.
    """
    with call.engine.begin() as tx:
        rows = catalogue.list_templates(
            tx, category=category, skip=page.skip, limit=page.limit + 1, after=paging.position_text(page)
        )
        total = catalogue.count(tx, category=category, at_most=paging.COUNT_LIMIT + 1)
    kept = rows[: page.limit]
    last = (kept[-1].name, kept[-1].template_id) if kept else None
    return paging.list_response(
        call, [shown(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


@router.post(
    "/templates/", status_code=201, response_model=ShownTemplate,
    responses=problems(401, 403, 413, 422, s409="Template with this name already exists"),
)  # fmt: skip
@allow(Role.EDITOR, action="template.create", body_limit=LARGE)
async def create_template(call: CurrentCall, body: NewTemplateBody) -> Response:
    """Create a template.

    One with faults is kept with `valid: false` and its `problems`, but no campaign or workflow starts with it.
    """
    new = NewTemplate(**{**body.model_dump(), "variables": tuple(body.variables)})

    def effect(tx: Connection) -> Outcome:
        made = catalogue.create(tx, new, now=call.now, actor=str(call.actor))
        headers = {"etag": etag(_tag(made))}
        return Outcome(status=201, body=shown(made), resource_id=made.template_id, headers=headers)

    return await call.commit(effect)


@router.get("/templates/{id}", response_model=ShownTemplate, responses=problems(401, s404=MISSING))
@allow(Role.VIEWER)
def get_template(call: CurrentCall, id: str) -> Response:
    """Show a template."""
    with call.engine.begin() as tx:
        found = catalogue.get(tx, path_id(id, MISSING))
    return Response(json_bytes(shown(found)), media_type=JSON, headers={"etag": etag(_tag(found))})


@router.patch(
    "/templates/{id}", response_model=ShownTemplate,
    responses=problems(401, 403, 412, 413, 422, s404=MISSING, s409="Template with this name already exists"),
)  # fmt: skip
@allow(Role.EDITOR, action="template.update", body_limit=LARGE)
async def update_template(call: CurrentCall, id: str, body: TemplatePatch) -> Response:
    """Change a template.

    Another subject, body or list of variables makes a new version; campaigns under way keep theirs.
    `restore_version` copies an old content to a new version; fields sent beside it win.
    """
    template_id = path_id(id, MISSING)
    given = body.model_dump(exclude_unset=True)
    restore = given.pop("restore_version", None)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, _tag(catalogue.get(tx, template_id, lock=True)))
        changes = dict(given)
        if restore is not None:
            old = catalogue.version_of(tx, template_id, restore, path=("body", "restore_version"))
            content = ("subject", "html_body", "text_body", "variables")
            changes = {**{name: getattr(old, name) for name in content}, **changes}
        if "variables" in changes:
            changes["variables"] = tuple(changes["variables"])
        changed = catalogue.revise(
            tx, template_id, TemplateChange(**changes), now=call.now, actor=str(call.actor)
        )
        log = {"fields": sorted(given), "version": changed.version}
        return Outcome(
            body=shown(changed), resource_id=template_id, changes=log, headers={"etag": etag(_tag(changed))}
        )

    return await call.commit(effect)


@router.delete(
    "/templates/{id}", status_code=204, response_class=Response,
    responses=problems(401, 403, 412, s404=MISSING, s409="An unfinished campaign or an active workflow uses it"),
)  # fmt: skip
@allow(Role.EDITOR, action="template.delete")
async def delete_template(call: CurrentCall, id: str) -> Response:
    """Delete a template.

    With all its versions. While an unfinished campaign or an active workflow names it: 409 `in_use`.
    """
    template_id = path_id(id, MISSING)

    def effect(tx: Connection) -> Outcome:
        check_if_match(call.request, _tag(catalogue.get(tx, template_id, lock=True)))
        catalogue.delete(tx, template_id)
        return Outcome(status=204, resource_id=template_id)

    return await call.commit(effect)


@router.post(
    "/templates/{id}/render", response_model=ShownRendering,
    responses=problems(401, 413, 422, 503, s404=MISSING, s400="The template cannot be rendered; says why and where"),
)  # fmt: skip
@allow(Role.VIEWER, action="template.render")
async def render_template(call: CurrentCall, id: str, body: RenderBody) -> Response:
    """Render a template.

    With the values given, as a mail would show it; nothing is sent. A name without a value renders empty and is listed
    in `warnings`; with `strict` it is an error. At most 250 ms of CPU, 64 MB of memory and 1 MB of text.
    """
    template_id = path_id(id, MISSING)
    _check_values(body.variables)

    def find() -> tuple[Template | TemplateVersion, bool]:
        with call.engine.begin() as tx:
            template = catalogue.get(tx, template_id)
            if body.version is None or body.version == template.version:
                return template, template.strict
            return catalogue.version_of(tx, template_id, body.version), template.strict

    content, own_strictness = await run_sync(find)
    strict = own_strictness if body.strict is None else body.strict

    def render() -> Preview:
        return render_limited(content.subject, content.html_body, content.text_body, body.variables, strict=strict)

    try:
        preview = await run_sync(render, limiter=_RENDERING)
    except InvalidInput as error:
        raise Refused(400, str(error)) from None
    rendered = preview.rendered
    answer = ShownRendering(
        subject=rendered.subject, html_body=rendered.html, text_body=rendered.text, warnings=list(preview.warnings)
    )
    return await call.commit(lambda tx: Outcome(body=answer, resource_id=template_id))


@router.post("/templates/validate", response_model=ShownVerdict, responses=problems(401, 413, 422, 503))
@allow(Role.VIEWER, action="template.validate", body_limit=LARGE)
async def validate_template(call: CurrentCall, body: ValidateBody) -> Response:
    """Check a template.

    Syntax, names, filters, links, and that it renders with the values given. Nothing is saved.
    """
    _check_values(body.variables)
    verdict = await run_sync(_verdict, body, limiter=_RENDERING)
    return await call.commit(lambda tx: Outcome(body=verdict))


def _verdict(body: ValidateBody) -> ShownVerdict:
    compiled = compile_template(
        body.subject, body.html_body, body.text_body, strict=body.strict, variables=list(body.variables)
    )
    errors = [ShownProblem(part=one.part, line=one.line, message=one.message) for one in compiled.problems]
    if not errors:
        try:
            # Leniently: names that only sending gives have no value here, and are no fault of the template.
            render_limited(body.subject, body.html_body, body.text_body, body.variables)
        except InvalidInput as error:
            part = str(error.path[0]) if error.path else "html_body"
            errors = [ShownProblem(part=part, line=error.line or 1, message=str(error))]
    return ShownVerdict(
        valid=not errors, errors=errors, warnings=list(compiled.warnings), undeclared=list(compiled.undeclared)
    )


@router.get(
    "/templates/{id}/versions", response_model=list[ShownVersion], responses=listed(problems(401, 422, s404=MISSING))
)
@allow(Role.VIEWER)
def list_template_versions(call: CurrentCall, id: str, page: paging.SkipLimit) -> Response:
    """List the versions of a template.

    Newest first, the present one included.
    """
    template_id = path_id(id, MISSING)
    with call.engine.begin() as tx:
        total = catalogue.get(tx, template_id).version
        rows = catalogue.versions(
            tx, template_id, skip=page.skip, limit=page.limit + 1, before=paging.position_id(page)
        )
    kept = rows[: page.limit]
    last = (kept[-1].version,) if kept else None
    return paging.list_response(
        call, [_version(row) for row in kept], page, total=total, last=last, remain=len(rows) > page.limit
    )


def _check_values(values: dict[str, Any]) -> None:
    if len(json.dumps(values)) > _VARIABLES_BYTES:
        raise Refused(422, invalid(["body", "variables"], "The values are larger than 1 MiB as JSON"))
